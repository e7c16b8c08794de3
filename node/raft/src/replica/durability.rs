//! The order of durability: state is written first, and messages that promise it leave after.
//!
//! A rule never waits. It pushes state that must be durable as [`Effect::Persist`], and the
//! messages that must wait for it travel inside. Sequences number the requests.
//! [`Replica::persisted`] moves `durable` forward, and a truncation moves it back at once, so that
//! no completion from before the truncation counts an entry that is no longer there.
//!
//! **Invariant:** no message that promises a term or a vote leaves before that term and vote
//! are durable (`Replica::say`), and no message that promises an entry leaves before the entry
//! is durable (`Replica::say_when_durable`).

use super::{
    effect::{Effect, Persist},
    state::{Replica, Role},
};
use crate::{
    batch::Batch,
    ids::{Moment, NodeId},
    message::{Body, Message, Outgoing},
};
use alloc::vec::Vec;

impl Replica {
    /// Everything up to `sequence` is durable. Completions may arrive in any order; a lower
    /// one is redundant.
    pub fn persisted(&mut self, now: Moment, sequence: u64, out: &mut Vec<Effect>) {
        let vote_for_self = self.writes.completed(sequence).filter(|campaign| *campaign == self.campaign);
        self.faults.persisted(sequence);
        self.promise_persisted();
        if let (Some(campaign), Role::Candidate) = (vote_for_self, &self.role) {
            out.push(Effect::CountVote { campaign, voter: self.id, denial: None });
        }
        self.advance_commit(now, out);
        self.dispatch(out);
    }

    /// Sends a message that promises at most the current term and vote: at once if they are
    /// durable, otherwise as soon as they are.
    pub(super) fn say(&mut self, now: Moment, to: NodeId, body: Body, out: &mut Vec<Effect>) {
        if self.writes.hard_state_is_durable() {
            out.push(Effect::Send(self.outgoing(to, body)));
        } else {
            self.say_when_durable(now, to, body, out);
        }
    }

    /// Sends a message that promises entries: as soon as every write so far is durable.
    pub(super) fn say_when_durable(&mut self, now: Moment, to: NodeId, body: Body, out: &mut Vec<Effect>) {
        let message = self.outgoing(to, body);
        if self.writes.is_idle() {
            out.push(Effect::Send(message));
        } else {
            self.persist(now, Persist { then: alloc::vec![message], ..Persist::default() }, out);
        }
    }

    pub(super) fn outgoing(&self, to: NodeId, body: Body) -> Outgoing {
        Outgoing { to, message: Message { term: self.term(), body } }
    }

    pub(super) fn persist(&mut self, now: Moment, persist: Persist, out: &mut Vec<Effect>) {
        self.write(now, persist, None, out);
    }

    /// The same as `persist`, for a write that may hold a candidate's own vote.
    pub(super) fn write(&mut self, now: Moment, mut persist: Persist, campaign: Option<u64>, out: &mut Vec<Effect>) {
        if let Some(state) = &mut persist.hard_state {
            self.forget_earlier_promise(now);
            state.promise = self.hard_state.promise;
        }
        let promises = persist.batch.is_some() || persist.cut.is_some();
        self.guard.is_new &= !promises && persist.hard_state.is_none_or(|state| state.vote.is_none());
        let repairs_to = persist.repair.as_ref().map(Batch::last);
        let persist = self.writes.start(now, persist, self.log.last().index, campaign);
        if let Some(to) = repairs_to {
            self.faults.repair_started(persist.sequence, to);
        }
        out.push(Effect::Persist(persist));
    }
}
