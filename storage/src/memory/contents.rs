//! The content of a store in memory, and the effects of requests on it.

use crate::contract::{Recovered, StorageError};
use bytes::Bytes;
use quorate_raft::{
    Batch, Cut, EntryId, HardState, Index, Kind, Membership, NodeId, Persist, Snapshot, Term, record::Record,
};
use std::collections::{BTreeMap, VecDeque};

/// A log, a hard state, and a snapshot.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) owner: Option<(String, NodeId)>,
    pub(super) holdings: BTreeMap<NodeId, Index>,
    hard_state: HardState,
    has_voted: bool,
    /// The entry before the first, and its checksum.
    base: (EntryId, u32),
    /// In order, without a gap, from the entry after `base` on.
    batches: VecDeque<Batch>,
    snapshot: Option<(Snapshot, Bytes)>,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents")
            .field("owner", &self.owner)
            .field("base", &self.base)
            .field("batches", &self.batches)
            .field("snapshot", &self.snapshot.as_ref().map(|(snapshot, _)| snapshot))
            .finish_non_exhaustive()
    }
}

impl Contents {
    /// The content for [`Recover`](crate::Recover). From now on the log begins after a snapshot
    /// that is ahead of it.
    pub(super) fn recover(&mut self) -> Recovered {
        let mut repairs = Vec::new();
        if let Some((Snapshot { base, .. }, _)) = &self.snapshot
            && base.last.index > self.base.0.index
            && self.find(base.last.index).is_none_or(|record| record.id != base.last)
        {
            repairs.push(format!(
                "the log ends at entry {}, and begins after the snapshot up to {}",
                self.last().0,
                base.last
            ));
            self.start_over(base.last, base.last_checksum);
        }
        let (last, last_checksum) = self.last();
        Recovered {
            hard_state: self.hard_state,
            base: self.base.0,
            terms: self.terms(),
            last,
            last_checksum,
            faulty: Vec::new(),
            snapshot: self.snapshot.as_ref().map(|(snapshot, _)| snapshot.clone()),
            memberships: self.memberships(),
            has_voted: self.has_voted,
            holdings: self.holdings.iter().map(|(member, index)| (*member, *index)).collect(),
            repairs,
        }
    }

    /// Carries out a request, in the contract's order: cut, truncate, append, repair, hard state.
    pub(super) fn persist(&mut self, persist: &Persist) -> Result<(), StorageError> {
        if let Some(cut) = persist.cut {
            self.cut(cut)?;
        }
        if let Some(from) = persist.truncate_from {
            self.truncate(from);
        }
        if let Some(batch) = &persist.batch {
            self.append(batch)?;
        }
        if let Some(batch) = &persist.repair {
            self.repair(batch)?;
        }
        if let Some(state) = persist.hard_state {
            self.hard_state = state;
            self.has_voted |= state.vote.is_some();
        }
        Ok(())
    }

    /// The entries of an inclusive range, as far as they fit into `bytes_max`; at least one, if the
    /// first is held.
    pub(super) fn read(&self, from: Index, to: Index, bytes_max: usize) -> Vec<Batch> {
        let (mut read, mut left) = (Vec::new(), bytes_max);
        let first = self.batches.partition_point(|batch| batch.last() < from);
        let is_held = from > self.base.0.index;
        for batch in self.batches.range(first..).take_while(|batch| is_held && batch.first() <= to && from <= to) {
            let Some(wanted) = batch.from(from).and_then(|batch| batch.up_to(to)) else { break };
            let fitting = wanted.within(left);
            if !read.is_empty() && fitting.bytes().len() > left {
                break;
            }
            left = left.saturating_sub(fitting.bytes().len());
            let is_cut = fitting.count() < wanted.count();
            read.push(fitting);
            if is_cut || left == 0 {
                break;
            }
        }
        read
    }

    /// Keeps a snapshot, unless it covers less than the present one.
    pub(super) fn save(&mut self, snapshot: Snapshot, bytes: Bytes) {
        let last = snapshot.base.last.index;
        if self.snapshot.as_ref().is_none_or(|(held, _)| held.base.last.index <= last) {
            self.snapshot = Some((snapshot, bytes));
        }
    }

    /// The snapshot and its state.
    pub(super) fn snapshot(&self) -> Option<(Snapshot, Bytes)> {
        self.snapshot.clone()
    }

    fn cut(&mut self, Cut { to, checksum }: Cut) -> Result<(), StorageError> {
        if to.index <= self.base.0.index {
            return Ok(());
        }
        let found = self.find(to.index).filter(|record| record.id == to).map(|record| record.checksum);
        let Some(checksum) = found.or(checksum) else {
            return Err(bug(format_args!("asked to cut the log after entry {to}, which it doesn't hold")));
        };
        if found.is_none() {
            self.start_over(to, checksum);
            return Ok(());
        }
        while let Some(batch) = self.batches.pop_front() {
            if let Some(kept) = batch.from(to.index.next()) {
                self.batches.push_front(kept);
                break;
            }
        }
        self.base = (to, checksum);
        Ok(())
    }

    fn start_over(&mut self, to: EntryId, checksum: u32) {
        self.base = (to, checksum);
        self.batches.clear();
    }

    fn truncate(&mut self, from: Index) {
        while self.batches.back().is_some_and(|batch| batch.last() >= from) {
            let cut = self.batches.pop_back();
            self.batches.extend(cut.and_then(|batch| batch.up_to(from.previous())));
        }
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let (last, checksum) = self.last();
        if batch.first() != last.index.next() || batch.term() < last.term || batch.previous_checksum() != checksum {
            return Err(bug(format_args!("asked to append {batch:?} after entry {last}, which it does not follow")));
        }
        self.batches.push_back(batch.clone());
        Ok(())
    }

    /// Checks that the entries are the ones held: memory loses none, so there is nothing to write.
    fn repair(&self, batch: &Batch) -> Result<(), StorageError> {
        let differs = |record: &Record<'_>| {
            self.find(record.id.index).is_none_or(|held| (held.id, held.checksum) != (record.id, record.checksum))
        };
        if let Some(record) = batch.records().find(differs) {
            return Err(StorageError::new(format!(
                "entry {} was sent to repair the log, which diverged from it; find out which of the nodes is right",
                record.id
            )));
        }
        Ok(())
    }

    fn last(&self) -> (EntryId, u32) {
        self.batches.back().map_or(self.base, |batch| (batch.last_id(), batch.checksum()))
    }

    fn find(&self, index: Index) -> Option<Record<'_>> {
        let batch = self.batches.get(self.batches.partition_point(|batch| batch.last() < index))?;
        batch.records().find(|record| record.id.index == index)
    }

    fn terms(&self) -> Vec<(Index, Term)> {
        let mut terms: Vec<(Index, Term)> = self.batches.iter().map(|batch| (batch.first(), batch.term())).collect();
        terms.dedup_by_key(|(_, term)| *term);
        terms
    }

    fn memberships(&self) -> Vec<(Index, Membership)> {
        let records = self.batches.iter().flat_map(Batch::records);
        let configurations = records.filter(|record| record.kind == Kind::Membership);
        // Every configuration in the log is encoded by `Membership::encode`.
        configurations.filter_map(|record| Some((record.id.index, Membership::decode(record.payload).ok()?))).collect()
    }
}

fn bug(what: std::fmt::Arguments<'_>) -> StorageError {
    StorageError::new(format!("{what}; this is a bug of Quorate's: report it"))
}
