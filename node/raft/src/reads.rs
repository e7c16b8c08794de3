//! Linearizable reads without writing to the log: the read index (Ongaro's thesis, §6.4).
//!
//! A leader that wants to answer a read notes its commit index, then makes sure that it still led *after* the read
//! arrived: it opens a round, tells it to every peer in a heartbeat, and when a quorum has answered that round or a later
//! one, the reads that waited for it may be served at the noted index. Reads that arrive while a round is under way wait
//! together for the next: a round costs the same for one read and for a thousand.
//!
//! Rounds are numbered by the leader, within its term, and never reused, so that no late answer confirms a newer round.

use crate::{
    ids::{Index, NodeId},
    membership::Membership,
    mutants::{Mutant, live},
    quorum,
};
use alloc::{collections::BTreeMap, vec::Vec};

/// Names a waiting read; chosen by whoever asks, meaningless here.
pub type ReadToken = u64;

/// The reads that a leader has yet to confirm.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Reads {
    round: u64,
    answered: BTreeMap<NodeId, u64>,
    asked: Vec<ReadToken>,
    open: Option<(Index, Vec<ReadToken>)>,
}

impl Reads {
    /// A round that no leader ever opens: what a heartbeat of an earlier term is answered with.
    pub const NO_ROUND: u64 = 0;

    /// A read waits for the next round.
    pub fn ask(&mut self, token: ReadToken) {
        self.asked.push(token);
    }

    /// The latest round: every heartbeat carries it.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Opens a round for the reads that wait, if none is under way; `commit` is the leader's commit index now. The round,
    /// if one was opened, must be told to every peer.
    pub fn open_round(&mut self, commit: Index) -> Option<u64> {
        if self.open.is_some() || self.asked.is_empty() {
            return None;
        }
        self.round += 1;
        self.open = Some((commit, core::mem::take(&mut self.asked)));
        Some(self.round)
    }

    /// `peer` answered a heartbeat of `round`.
    pub fn answered(&mut self, peer: NodeId, round: u64) {
        // A round that was not opened yet can't have been answered, whatever a peer says.
        if round <= self.round {
            let round = if live(Mutant::LateRoundConfirms) { self.round } else { round };
            let latest = self.answered.entry(peer).or_default();
            *latest = (*latest).max(round);
        }
    }

    /// The reads of the open round and the index to serve them at, once a quorum (the leader included) answered it.
    pub fn confirmed(&mut self, this: NodeId, membership: &Membership) -> Option<(Index, Vec<ReadToken>)> {
        self.open.as_ref()?;
        let answered = |id| if id == this { self.round } else { self.answered.get(&id).copied().unwrap_or(0) };
        if quorum::agreed(membership, answered) < self.round && !live(Mutant::ReadWithoutQuorum) {
            return None;
        }
        self.open.take()
    }

    /// Every read that waits, taken out: leadership is lost.
    pub fn abandon(&mut self) -> Vec<ReadToken> {
        let mut tokens = self.open.take().map_or_else(Vec::new, |(_, tokens)| tokens);
        tokens.append(&mut self.asked);
        tokens
    }
}
