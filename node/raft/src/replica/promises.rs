//! This node's promises to leaders: it keeps them, persists them, and states them. The argument is
//! in the `lease` module.

use super::{
    effect::{Effect, Persist},
    state::Replica,
};
use crate::{ids::Moment, lease::Promise};
use alloc::vec::Vec;

impl Replica {
    /// Tells a node that ran before that it starts now. It can't know when it last heard a leader,
    /// so it keeps its earlier promise counted from now on (thesis §6.4.1). One that stated no
    /// promise keeps none.
    #[must_use]
    pub fn started(mut self, now: Moment) -> Self {
        self.promises.earlier = Some(now.plus(self.hard_state.promise.lasts()));
        self
    }

    /// The longest promise that this node may have stated and that may still be in force.
    #[must_use]
    pub fn promise(&self) -> Promise {
        self.hard_state.promise
    }

    /// Whether a promise is in force, of this run or of an earlier one.
    pub(super) fn is_promised(&self, now: Moment) -> bool {
        let kept = self.settings.election_timeout_min;
        self.leader_contact.is_some_and(|contact| now.since(contact) < kept) || self.keeps_earlier(now)
    }

    fn keeps_earlier(&self, now: Moment) -> bool {
        self.promises.earlier.is_some_and(|until| now < until)
    }

    /// The promise that may be stated now: no longer than the durable one.
    pub(super) fn stated_promise(&self) -> Promise {
        self.settings.promise().min(self.promises.durable)
    }

    /// Persists the promise of this run, unless it is durable or being written: normally once
    /// per data directory.
    pub(super) fn write_promise(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.settings.promise() > self.hard_state.promise {
            self.hard_state.promise = self.settings.promise();
            self.persist(now, Persist { hard_state: Some(self.hard_state), ..Persist::default() }, out);
            self.promises.writing = Some(self.writes.sequence());
        }
    }

    /// Writes are done: the promise among them is durable.
    pub(super) fn promise_persisted(&mut self) {
        if self.promises.writing.take_if(|sequence| self.writes.is_done(*sequence)).is_some() {
            self.promises.durable = self.hard_state.promise;
        }
    }

    /// Called before the hard state is written: replaces a longer promise of an earlier run, once
    /// it is over, so that no later start has to wait for it.
    pub(super) fn forget_earlier_promise(&mut self, now: Moment) {
        let own = self.settings.promise();
        if own < self.hard_state.promise && self.promises.earlier.is_some() && !self.keeps_earlier(now) {
            self.hard_state.promise = own;
            self.promises.durable = self.promises.durable.min(own);
        }
    }
}
