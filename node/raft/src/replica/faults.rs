//! The faulty entries of a log, whose payload the disk lost, and the progress of their repair. The
//! rules are in `repair`.

use super::start::Faulty;
use crate::{
    ids::{EntryId, Index, NodeId, Term},
    message::Repair,
};
use alloc::collections::{BTreeSet, VecDeque};

/// The faulty entries, their repairs, and the lost state.
#[derive(Clone, Hash, Default, Debug)]
pub(super) struct Faults {
    pub(super) faulty: VecDeque<Faulty>,
    /// Repairs in progress: the sequence of the write, and the last entry that it makes whole.
    repairing: VecDeque<(u64, Index)>,
    /// The log begins after this entry, and no snapshot covers it.
    lost: Option<Index>,
    /// The term that was recovered: all promises before the crash were made in it or earlier. Only
    /// kept while entries are faulty.
    pub(super) recovered_in: Term,
    /// A faulty entry, and the voters that do not have it.
    pub(super) absent: (EntryId, BTreeSet<NodeId>),
    /// The checksum of an entry that was read because the next one is doubtful.
    pub(super) read: Option<(Index, u32)>,
}

impl Faults {
    pub(super) fn new(faulty: impl IntoIterator<Item = Faulty>, lost: Option<Index>, term: Term) -> Self {
        let faulty: VecDeque<_> = faulty.into_iter().collect();
        let recovered_in = if faulty.is_empty() { Term(0) } else { term };
        Self { faulty, lost, recovered_in, ..Self::default() }
    }

    /// The first entry that is not known to be whole on disk.
    pub(super) fn first(&self) -> Option<Index> {
        self.faulty.front().map(|faulty| faulty.id.index)
    }

    /// The first entry that is faulty and not under repair.
    pub(super) fn first_open(&self) -> Option<Faulty> {
        let repaired_to = self.repairing.back().map_or(Index(0), |(_, to)| *to);
        let open = self.faulty.partition_point(|faulty| faulty.id.index <= repaired_to);
        self.faulty.get(open).copied()
    }

    /// The last entry that the lost state had covered.
    pub(super) fn lost(&self) -> Option<Index> {
        self.lost
    }

    pub(super) fn is_empty(&self) -> bool {
        self.faulty.is_empty() && self.lost.is_none()
    }

    pub(super) fn get(&self, index: Index) -> Option<Faulty> {
        self.faulty.binary_search_by_key(&index, |faulty| faulty.id.index).ok().map(|at| self.faulty[at])
    }

    /// The last of the entries that are faulty, not under repair, and at or below `to`.
    pub(super) fn last_open_up_to(&self, to: Index) -> Option<Index> {
        let first = self.first_open()?.id.index;
        let behind = self.faulty.partition_point(|faulty| faulty.id.index <= to);
        behind.checked_sub(1).map(|at| self.faulty[at].id.index).filter(|last| *last >= first)
    }

    /// The first run of consecutive faulty entries of one term, from `index` on.
    pub(super) fn run_from(&self, index: Index) -> Option<Repair> {
        let at = self.faulty.partition_point(|faulty| faulty.id.index < index);
        let from = self.faulty.get(at)?.id;
        let run = self.faulty.range(at..).zip(0..);
        let together = run.take_while(|(faulty, n)| faulty.id == EntryId::new(from.term, from.index.plus(*n)));
        Some(Repair { from, to: from.index.plus(together.count() as u64 - 1) })
    }

    pub(super) fn repair_started(&mut self, sequence: u64, to: Index) {
        self.repairing.push_back((sequence, to));
    }

    /// Every write up to `sequence` is durable.
    pub(super) fn persisted(&mut self, sequence: u64) {
        while let Some((_, to)) = self.repairing.pop_front_if(|(repair, _)| *repair <= sequence) {
            self.whole_up_to(to);
        }
    }

    /// The entries from `index` on are gone.
    pub(super) fn truncated_from(&mut self, index: Index) {
        while self.faulty.pop_back_if(|faulty| faulty.id.index >= index).is_some() {}
        self.reset_if_whole();
    }

    /// A snapshot covers the entries up to `index`.
    pub(super) fn covered(&mut self, index: Index) {
        self.lost = self.lost.filter(|lost| *lost > index);
        self.whole_up_to(index);
    }

    fn whole_up_to(&mut self, index: Index) {
        while self.faulty.pop_front_if(|faulty| faulty.id.index <= index).is_some() {}
        self.reset_if_whole();
    }

    /// Forgets the members' answers: they count for one term alone.
    pub(super) fn term_changed(&mut self) {
        self.absent = <_>::default();
    }

    /// Resets everything but the lost state once no entry is faulty.
    fn reset_if_whole(&mut self) {
        if self.faulty.is_empty() {
            *self = Self { lost: self.lost, ..Self::default() };
        }
    }
}
