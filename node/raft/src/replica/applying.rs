//! Committed entries on their way to the state machine.
//!
//! **Invariant:** `applied <= dispatched <= commit <= log.last()`; a follower dispatches only
//! entries that are durable here.

use super::{effect::Effect, observation::StepDown, state::Replica};
use crate::{
    batch::Batch,
    ids::{Index, Moment},
    log::Lookup,
};
use alloc::vec::Vec;

impl Replica {
    /// The state machine has applied everything up to `index`.
    pub fn applied(&mut self, index: Index, out: &mut Vec<Effect>) {
        // A restored snapshot may be newer than the one that [`Effect::Restore`] named.
        let before = self.applied;
        self.applied = before.max(index.min(self.dispatched));
        // Progress: the time for the next entry is measured anew.
        self.applying.since.take_if(|_| self.applied > before);
        self.dispatch(out);
    }

    /// The state machine has reached this version, and writes it: vote requests state it from here
    /// on. It never falls.
    pub fn machine_writes(&mut self, version: u32) {
        let machine = &mut self.settings.machine;
        machine.writes = machine.writes.max(version);
    }

    /// The state machine halted at the entry after the last applied one, and applies nothing more.
    /// Committed entries are dispatched all the same, without a bound, so that the log need not
    /// keep them in memory; and the node may lead.
    pub fn machine_halted(&mut self, out: &mut Vec<Effect>) {
        self.applying.is_halted = true;
        self.applying.since = None;
        self.dispatch(out);
    }

    /// Answers [`Effect::Load`]: consecutive batches from its first entry on, or none if the
    /// storage no longer has it.
    pub fn loaded(&mut self, batches: Vec<Batch>, out: &mut Vec<Effect>) {
        self.loading = false;
        self.note_entry_before_fault(&batches);
        for batch in batches {
            let wanted = batch.from(self.dispatched.next()).and_then(|batch| batch.up_to(self.dispatchable()));
            if let Some(batch) = wanted.filter(|batch| batch.first() == self.dispatched.next()) {
                self.dispatched = batch.last();
                out.push(Effect::Apply(batch));
            }
        }
        self.dispatch(out);
    }

    /// Dispatches committed entries to the state machine, up to `dispatchable`.
    pub(super) fn dispatch(&mut self, out: &mut Vec<Effect>) {
        while !self.loading && self.dispatched < self.dispatchable() {
            match self.log.lookup(self.dispatched.next(), self.dispatchable(), usize::MAX) {
                Lookup::Cached(batch) => {
                    self.dispatched = batch.last();
                    out.push(Effect::Apply(batch));
                }
                Lookup::OnDisk(to) => {
                    self.loading = true;
                    out.push(Effect::Load { from: self.dispatched.next(), to: to.min(self.dispatchable()) });
                }
                Lookup::Compacted | Lookup::Beyond => break,
            }
        }
        self.log.evict(self.dispatched.min(self.writes.durable()), self.settings.cache_bytes_max);
    }

    fn dispatchable(&self) -> Index {
        let room = match self.applying.is_halted {
            true => Index(u64::MAX),
            false => self.applied.plus(self.settings.unapplied_entries_max),
        };
        let here = if self.is_leader() { self.commit } else { self.commit.min(self.writes.durable()) };
        let whole = self.faults.first().map_or(Index(u64::MAX), Index::previous);
        here.min(room).min(whole)
    }

    /// Whether the disk has been at one write, or the state machine at one entry, for too
    /// long to lead.
    pub(super) fn is_stalled(&self, now: Moment) -> bool {
        let too_long = |since: Moment| now.since(since) >= self.settings.stall_limit;
        self.writes.waiting_since().is_some_and(too_long) || self.applying.since.is_some_and(too_long)
    }

    /// Of a node that is stalled: whether it is the disk or the state machine.
    pub(super) fn stall(&self, now: Moment) -> StepDown {
        let of_disk = self.writes.waiting_since().is_some_and(|since| now.since(since) >= self.settings.stall_limit);
        if of_disk { StepDown::DiskStalled } else { StepDown::MachineStalled }
    }

    /// Observes whether the state machine makes progress.
    pub(super) fn watch_applying(&mut self, now: Moment) {
        let is_idle = self.applying.is_halted || self.applied >= self.dispatched;
        let moved = self.applying.seen != self.applied;
        if is_idle {
            self.applying.since = None;
        } else if moved || self.applying.since.is_none() {
            self.applying.since = Some(now);
        }
        self.applying.seen = self.applied;
    }
}
