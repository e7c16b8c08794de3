//! The data that a node's disk must hold, according to the reports of its log: compared with the
//! data that the log recovers after a crash. The comparison relies on nothing inside the log.

use quorate::storage::Recovered;
use quorate_raft::{Cut, EntryId, HardState, Index, Term};
use std::collections::{BTreeMap, VecDeque};

/// The segment size of a simulated log in bytes: the smallest that the log accepts, so that there
/// are many segments. Some runs have larger ones.
pub(super) const SEGMENT_BYTES: usize = 16 << 10;
/// The entry slots of a segment: an eighth of it, at 40 bytes per slot.
const SEGMENT_SLOTS: usize = SEGMENT_BYTES / 8 / 40;

/// The data that a node's disk holds according to the reports of its log. Survives the node.
#[derive(Clone, Default, Debug)]
pub(super) struct Promised {
    pub(super) hard_state: HardState,
    /// The last entry removed by log compaction.
    base: EntryId,
    entries: BTreeMap<Index, Term>,
    /// Entries that lacked their payload at the last recovery and are not repaired, each with
    /// whether it is proven to have been durable. The next recovery may lack them.
    faulty: BTreeMap<Index, bool>,
    pub(super) snapshot: Index,
    /// Writes that were requested and not yet reported durable: any part of them may be durable.
    asked: VecDeque<quorate_raft::Persist>,
}

impl Promised {
    /// The index of the last durable entry.
    pub(super) fn last(&self) -> Index {
        self.entries.last_key_value().map_or(self.base.index, |(index, _)| *index)
    }

    /// Whether an entry has only one place left on the disk. That lasts until a repair, or until
    /// the next start drops the entry; a snapshot that covers it does not help, for records are
    /// found in sequence.
    pub(super) fn has_faulty(&self) -> bool {
        !self.faulty.is_empty()
    }

    /// Whether this entry is durable, or covered by a cut or a snapshot.
    pub(super) fn holds(&self, id: EntryId) -> bool {
        id.index <= self.base.index.max(self.snapshot) || self.entries.get(&id.index) == Some(&id.term)
    }

    /// The number of writes under way.
    pub(super) fn unfinished(&self) -> usize {
        self.asked.len()
    }

    /// Whether the writes under way need a new segment: they truncate the log, start it after a
    /// snapshot, or fill most of a segment at once, which happens only with the small segments
    /// of a simulation.
    pub(super) fn needs_a_segment(&self) -> bool {
        let batches = self.asked.iter().filter_map(|persist| persist.batch.as_ref());
        let (mut bytes, mut entries) = (0, 0);
        batches.for_each(|batch| (bytes, entries) = (bytes + batch.bytes().len(), entries + batch.count() as usize));
        bytes > SEGMENT_BYTES / 2
            || entries > SEGMENT_SLOTS / 2
            || self.asked.iter().any(|persist| persist.truncate_from.is_some() || persist.cut.is_some())
    }

    /// The first entry of the suffix that a log may discard on the operator's order.
    fn discardable_from(&self) -> Option<Index> {
        let (first, _) = self.faulty.iter().find(|(_, was_durable)| !**was_durable)?;
        let proven = self.faulty.range(*first..).any(|(_, was_durable)| *was_durable);
        (!proven).then_some(*first)
    }

    pub(super) fn asked(&mut self, persist: &quorate_raft::Persist) {
        self.asked.push_back(persist.clone());
    }

    /// All writes up to `sequence` are durable.
    pub(super) fn persisted(&mut self, sequence: u64) {
        while let Some(persist) = self.asked.pop_front_if(|persist| persist.sequence <= sequence) {
            if let Some(Cut { to, .. }) = persist.cut.filter(|cut| cut.to.index > self.base.index) {
                match self.entries.get(&to.index) == Some(&to.term) {
                    true => self.entries.retain(|index, _| *index > to.index),
                    false => self.entries.clear(),
                }
                self.base = to;
            }
            if let Some(from) = persist.truncate_from {
                self.entries.retain(|index, _| *index < from);
                self.faulty.retain(|index, _| *index < from);
            }
            if let Some(repair) = &persist.repair {
                self.faulty.retain(|index, _| *index < repair.first() || *index > repair.last());
            }
            if let Some(batch) = &persist.batch {
                self.entries.extend((batch.first().0..=batch.last().0).map(|index| (Index(index), batch.term())));
            }
            self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
        }
    }

    /// Compares the recovered data with the promise, except for writes under way. On a damaged disk
    /// the log must still know which entries it lost.
    pub(super) fn check(&self, recovered: &Recovered, is_damaged: bool) -> Result<(), String> {
        let (then, now) = (self.hard_state, recovered.hard_state);
        if now.term < then.term || (now.term == then.term && then.vote.is_some() && now.vote != then.vote) {
            return Err(format!("{then:?} was durable, and {now:?} was recovered"));
        }
        let snapshot = recovered.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.base.last.index);
        if snapshot < self.snapshot && !is_damaged {
            return Err(format!(
                "a snapshot up to {} was durable, and one up to {snapshot} was recovered",
                self.snapshot
            ));
        }
        let truncated = self.asked.iter().filter_map(|persist| persist.truncate_from).min().unwrap_or(Index(u64::MAX));
        // A cut at an entry that the log does not hold restarts the log; so does a snapshot with
        // its cut still to come.
        let restarted = self.asked.iter().any(|persist| persist.cut.is_some()) || snapshot > self.last();
        let newest = recovered.snapshot.as_ref().map(|snapshot| snapshot.base.last);
        let starts_over = newest.is_some_and(|newest| {
            newest.index > self.base.index
                && self.entries.contains_key(&newest.index)
                && self.entries.get(&newest.index) != Some(&newest.term)
        });
        // Nothing after an entry that may never have been durable was ever acknowledged: an
        // operator may discard all of it.
        let discarded = self.discardable_from().filter(|from| recovered.last.index < *from).unwrap_or(Index(u64::MAX));
        let kept = |index: &Index| {
            let stays = *index < truncated.min(discarded) && !starts_over;
            stays && *index > recovered.base.index && !self.faulty.contains_key(index)
        };
        for (index, term) in self.entries.iter().filter(|(index, _)| kept(index)) {
            let run = recovered.terms.partition_point(|(first, _)| first <= index).checked_sub(1);
            let found = run.map(|run| recovered.terms[run].1).filter(|_| *index <= recovered.last.index);
            if found != Some(*term) && !(restarted && *index <= snapshot.max(recovered.base.index)) {
                return Err(format!("entry {index} of term {term} was durable, and {found:?} was recovered"));
            }
            let is_faulty = recovered.faulty.iter().any(|faulty| faulty.id.index == *index);
            if is_faulty && !is_damaged {
                return Err(format!("entry {index} was durable, nothing damaged it, and its payload is gone"));
            }
        }
        Ok(())
    }
}

/// The data just recovered from a disk is the promise from then on.
impl From<&Recovered> for Promised {
    fn from(recovered: &Recovered) -> Self {
        let mut entries = BTreeMap::new();
        for (nth, (first, term)) in recovered.terms.iter().enumerate() {
            let last = recovered.terms.get(nth + 1).map_or(recovered.last.index, |(next, _)| next.previous());
            entries.extend((first.0..=last.0).map(|index| (Index(index), *term)));
        }
        let snapshot = recovered.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.base.last.index);
        let faulty = recovered.faulty.iter().map(|faulty| (faulty.id.index, faulty.was_durable)).collect();
        Self {
            hard_state: recovered.hard_state,
            base: recovered.base,
            entries,
            faulty,
            snapshot,
            asked: VecDeque::new(),
        }
    }
}
