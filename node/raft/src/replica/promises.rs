//! What this node promised the leaders that it heard: it keeps that, has it on its disk, and states it. The argument is in
//! [`lease`](crate::lease).

use super::{Persist, Replica};
use crate::{
    ids::Moment,
    lease::Promise,
    mutants::{Mutant, live},
    replica::Effect,
};
use alloc::vec::Vec;

/// What a replica knows of its promises.
#[derive(Clone, Hash, Debug)]
pub(super) struct Promises {
    /// Up to when one of an earlier run may be in force; `None` if the node was not told when it started.
    earlier: Option<Moment>,
    /// What is on the disk.
    durable: Promise,
    /// The request with which a longer one is written.
    writing: Option<u64>,
}

impl Promises {
    pub(super) fn new(durable: Promise) -> Self {
        Self { earlier: None, durable, writing: None }
    }
}

impl Replica {
    /// The node starts now, and may have run before: when it heard a leader last it can't know, so it keeps from now on what it
    /// promised then (thesis §6.4.1). One that stated no promise keeps none.
    #[must_use]
    pub fn started(mut self, now: Moment) -> Self {
        let mut promise = self.hard_state.promise;
        if live(Mutant::PromiseOfPresentSetting) {
            promise = promise.min(self.settings.promise());
        }
        if !live(Mutant::PromiseForgottenAtRestart) {
            self.promises.earlier = Some(now.plus(promise.lasts()));
        }
        self
    }

    /// The longest promise that this node may have stated and that may still be in force.
    #[must_use]
    pub fn promise(&self) -> Promise {
        self.hard_state.promise
    }

    /// Whether a promise is in force: of this run, or of an earlier one.
    pub(super) fn is_promised(&self, now: Moment) -> bool {
        let kept = self.settings.election_timeout_min;
        self.leader_contact.is_some_and(|contact| now.since(contact) < kept) || self.keeps_earlier(now)
    }

    fn keeps_earlier(&self, now: Moment) -> bool {
        self.promises.earlier.is_some_and(|until| now < until)
    }

    /// What may be stated now: no more than is durable.
    pub(super) fn stated_promise(&self) -> Promise {
        let own = self.settings.promise();
        if live(Mutant::PromiseBeforeDurable) { own } else { own.min(self.promises.durable) }
    }

    /// Makes the promise of this run durable, unless it is, or is being written: normally once a data directory.
    pub(super) fn write_promise(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.settings.promise() > self.hard_state.promise {
            self.hard_state.promise = self.settings.promise();
            self.persist(now, Persist { hard_state: Some(self.hard_state), ..Persist::default() }, out);
            self.promises.writing = Some(self.writes.sequence());
        }
    }

    /// Writes are done.
    pub(super) fn promise_persisted(&mut self) {
        if self.promises.writing.take_if(|sequence| self.writes.is_done(*sequence)).is_some() {
            self.promises.durable = self.hard_state.promise;
        }
    }

    /// The hard state is about to be written. A longer promise of an earlier run goes with that, once it is over, so that no later
    /// start has to wait for it.
    pub(super) fn forget_earlier_promise(&mut self, now: Moment) {
        let own = self.settings.promise();
        if own < self.hard_state.promise && self.promises.earlier.is_some() && !self.keeps_earlier(now) {
            self.hard_state.promise = own;
            self.promises.durable = self.promises.durable.min(own);
        }
    }
}
