//! Linearizable reads without a log entry: the read index (Ongaro's thesis, §6.4).
//!
//! To answer a read, a leader notes its commit index and then confirms that it still led *after*
//! the read arrived: it opens a round and tells its number to every peer in a heartbeat. When a
//! quorum has answered that round or a later one, the reads that waited for it may be served at the
//! noted index. Reads that arrive while a round is in progress wait together for the next one: a
//! round costs the same for one read and for a thousand.
//!
//! The leader numbers its rounds within its term and never reuses a number, so no late answer
//! confirms a newer round.
//!
//! A confirmed round also begins a [lease](crate::lease), for reads that accept one.

use crate::{
    ids::{Index, Moment, NodeId},
    lease::{ClockDrift, Lease, Promise},
    membership::Membership,
    quorum,
};
use alloc::{collections::BTreeMap, vec::Vec};

/// Id of a waiting read, chosen by the caller and opaque here.
pub type ReadToken = u64;

/// The reads that a leader has yet to confirm.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Reads {
    round: u64,
    answered: BTreeMap<NodeId, Answer>,
    asked: Vec<ReadToken>,
    open: Option<Open>,
    /// Whether a round is wanted though no read waits for it: it renews the lease.
    renews: bool,
    pub(crate) lease: Lease,
}

/// The latest round that a peer answered, and the promise that it stated then.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Answer {
    round: u64,
    promise: Promise,
}

/// A round in progress.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Open {
    /// The commit index when it was opened.
    commit: Index,
    tokens: Vec<ReadToken>,
    /// A moment before any heartbeat of it left; `None` if the clock was not read.
    opened: Option<Moment>,
}

impl Reads {
    /// A round that no leader opens: it answers a heartbeat of an earlier term.
    pub const NO_ROUND: u64 = 0;

    /// Lets a read wait for the next round.
    pub fn ask(&mut self, token: ReadToken) {
        self.asked.push(token);
    }

    /// Number of the latest round, which every heartbeat carries.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Whether a round is in progress.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Lets the next call open a round though no read waits, unless one is in progress: the lease
    /// is to be renewed.
    pub fn renew(&mut self) {
        self.renews = self.open.is_none();
    }

    /// Opens a round for the waiting reads, unless one is in progress; `commit` is the leader's
    /// commit index now. The caller must tell the round to every peer. A round opened without `now`
    /// begins no lease.
    pub fn open_round(&mut self, commit: Index, now: Option<Moment>) -> Option<u64> {
        if self.open.is_some() || (self.asked.is_empty() && !self.renews) {
            return None;
        }
        self.round += 1;
        self.renews = false;
        self.open = Some(Open { commit, tokens: core::mem::take(&mut self.asked), opened: now });
        Some(self.round)
    }

    /// Ends the lease because another quorum counts from now on. Answers to the open round, past
    /// and future, begin none.
    pub fn end_lease(&mut self) {
        self.lease.end();
        if let Some(open) = &mut self.open {
            open.opened = None;
        }
    }

    /// `peer` answered a heartbeat of `round` and stated this promise.
    pub fn answered(&mut self, peer: NodeId, round: u64, promise: Promise) {
        // A peer can't have answered a round that was not opened yet.
        if round <= self.round {
            let latest = self.answered.entry(peer).or_default();
            if round > latest.round {
                *latest = Answer { round, promise };
            } else if round == latest.round {
                latest.promise = latest.promise.max(promise);
            }
        }
    }

    /// The reads of the open round and the index to serve them at, once a quorum (the leader
    /// included) answered it. `own` is the leader's own promise, `drift` the most that two
    /// clocks may differ.
    pub fn confirmed(
        &mut self,
        this: NodeId,
        membership: &Membership,
        own: Promise,
        drift: ClockDrift,
    ) -> Option<(Index, Vec<ReadToken>)> {
        self.open.as_ref()?;
        let answered = |id| if id == this { self.round } else { self.answer_of(id).round };
        if quorum::agreed(membership, answered) < self.round {
            return None;
        }
        let Open { commit, tokens, opened } = self.open.take()?;
        if let Some(opened) = opened {
            let promised = self.promised(this, membership, own);
            self.lease.confirmed(opened, drift.surely_within(promised.lasts()));
        }
        Some((commit, tokens))
    }

    /// The longest promise that a quorum of the nodes that answered the latest round has reached.
    fn promised(&self, this: NodeId, membership: &Membership, own: Promise) -> Promise {
        let stated = |id| match self.answer_of(id) {
            _ if id == this => own,
            answer if answer.round < self.round => Promise::NONE,
            answer => answer.promise,
        };
        quorum::agreed(membership, stated)
    }

    fn answer_of(&self, peer: NodeId) -> Answer {
        self.answered.get(&peer).copied().unwrap_or_default()
    }

    /// Removes and returns every waiting read: leadership is lost.
    pub fn abandon(&mut self) -> Vec<ReadToken> {
        let mut tokens = self.open.take().map_or_else(Vec::new, |open| open.tokens);
        tokens.append(&mut self.asked);
        tokens
    }
}
