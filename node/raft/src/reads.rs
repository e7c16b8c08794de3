//! Linearizable reads without writing to the log: the read index (Ongaro's thesis, §6.4).
//!
//! A leader that wants to answer a read notes its commit index, then makes sure that it still led *after* the read
//! arrived: it opens a round, tells it to every peer in a heartbeat, and when a quorum has answered that round or a later
//! one, the reads that waited for it may be served at the noted index. Reads that arrive while a round is under way wait
//! together for the next: a round costs the same for one read and for a thousand.
//!
//! Rounds are numbered by the leader, within its term, and never reused, so that no late answer confirms a newer round.
//!
//! A confirmed round also begins a [lease](crate::lease), for reads that ask for one.

use crate::{
    ids::{Index, Moment, NodeId},
    lease::{ClockDrift, Lease, Promise},
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
    answered: BTreeMap<NodeId, Answer>,
    asked: Vec<ReadToken>,
    open: Option<Open>,
    /// A round is wanted though nobody waits for it.
    renews: bool,
    pub(crate) lease: Lease,
}

/// The latest round that a peer answered, and the promise that it stated then.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Answer {
    round: u64,
    promise: Promise,
}

/// A round under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Open {
    /// What was committed when it was opened.
    commit: Index,
    tokens: Vec<ReadToken>,
    /// No heartbeat of it can have left before; `None` if nobody looked at the clock.
    opened: Option<Moment>,
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

    /// A round is to be opened though no read waits, unless one is under way: the lease is to go on.
    pub fn renew(&mut self) {
        self.renews = self.open.is_none();
    }

    /// Opens a round for the reads that wait, if none is under way; `commit` is the leader's commit index now. The round,
    /// if one was opened, must be told to every peer. A round that is opened without a look at the clock begins no lease.
    pub fn open_round(&mut self, commit: Index, now: Option<Moment>) -> Option<u64> {
        if self.open.is_some() || (self.asked.is_empty() && !self.renews) {
            return None;
        }
        self.round += 1;
        self.renews = false;
        self.open = Some(Open { commit, tokens: core::mem::take(&mut self.asked), opened: now });
        Some(self.round)
    }

    /// Another quorum counts from now on: what the one before answered, or will answer, says nothing of it.
    pub fn end_lease(&mut self) {
        self.lease.end();
        if let Some(open) = &mut self.open {
            open.opened = None;
        }
    }

    /// `peer` answered a heartbeat of `round`, and stated this promise.
    pub fn answered(&mut self, peer: NodeId, round: u64, promise: Promise) {
        // A round that was not opened yet can't have been answered, whatever a peer says.
        if round <= self.round {
            let round = if live(Mutant::LateRoundConfirms) { self.round } else { round };
            let latest = self.answered.entry(peer).or_default();
            if round > latest.round {
                *latest = Answer { round, promise };
            } else if round == latest.round {
                latest.promise = latest.promise.max(promise);
            }
        }
    }

    /// The reads of the open round and the index to serve them at, once a quorum (the leader included) answered it. The leader's
    /// own promise is `own`, and clocks `drift` apart by so much.
    pub fn confirmed(
        &mut self,
        this: NodeId,
        membership: &Membership,
        own: Promise,
        drift: ClockDrift,
    ) -> Option<(Index, Vec<ReadToken>)> {
        self.open.as_ref()?;
        let answered = |id| if id == this { self.round } else { self.answer_of(id).round };
        if quorum::agreed(membership, answered) < self.round && !live(Mutant::ReadWithoutQuorum) {
            return None;
        }
        let Open { commit, tokens, opened } = self.open.take()?;
        if let Some(opened) = opened {
            let promised = self.promised(this, membership, own);
            self.lease.confirmed(opened, drift.surely_within(promised.lasts()));
        }
        Some((commit, tokens))
    }

    /// The longest promise that a quorum of those who answered the latest round has reached.
    fn promised(&self, this: NodeId, membership: &Membership, own: Promise) -> Promise {
        let stated = |id| match self.answer_of(id) {
            _ if id == this => own,
            answer if answer.round < self.round => Promise::NONE,
            answer if answer.promise == Promise::NONE && live(Mutant::UnstatedPromiseBacksLease) => own,
            answer => answer.promise,
        };
        if live(Mutant::LeaseOfOwnSetting) {
            return own;
        }
        if live(Mutant::LeaseOfLongestPromise) {
            return membership.voters().into_iter().map(stated).max().unwrap_or_default();
        }
        quorum::agreed(membership, stated)
    }

    fn answer_of(&self, peer: NodeId) -> Answer {
        self.answered.get(&peer).copied().unwrap_or_default()
    }

    /// Every read that waits, taken out: leadership is lost.
    pub fn abandon(&mut self) -> Vec<ReadToken> {
        let mut tokens = self.open.take().map_or_else(Vec::new, |open| open.tokens);
        tokens.append(&mut self.asked);
        tokens
    }
}
