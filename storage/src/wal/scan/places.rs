//! The places where the next record can be, and the slots of its group.

use super::{
    super::{
        group::{Extent, Mark},
        read_u64,
        slot::{self, Slot},
        torn_tail::{self, ALIGNMENT},
    },
    Scan,
};
use quorate_raft::{Index, record};

/// A group, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) first: Index,
    /// The start of its slots' checksums.
    pub(super) seed: u32,
    /// Start of its slots. `None` if its mark and its first slot are damaged.
    pub(super) slots_at: Option<usize>,
}

/// Possible places of the next record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// After the last record, in its group.
    pub(super) same: Option<usize>,
    /// After a mark, in a group that begins here.
    pub(super) next: Option<usize>,
}

impl Places {
    pub(super) fn records(self) -> impl Iterator<Item = (usize, Option<usize>)> {
        let next = self.next.map(|mark| (mark.saturating_add(Mark::BYTES), Some(mark)));
        self.same.map(|same| (same, None)).into_iter().chain(next)
    }
}

impl Scan<'_> {
    /// The places where the next record can be.
    pub(super) fn places(&mut self, index: Index) -> Places {
        let Some(group) = self.group else { return Places { same: None, next: Some(self.at) } };
        let extent = Extent::of(self.at as u64, index.since(group.first));
        let [slots_at, end] = [extent.slots_at, extent.end].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
        match group.slots_at {
            Some(known) if known == slots_at => Places { same: None, next: Some(end) },
            Some(known) if known > slots_at => Places { same: Some(self.at), next: None },
            _ => {
                let gap = self.bytes.get(self.at..slots_at).unwrap_or_default();
                let mut numbered = (group.first.0..index.0).map(Index).zip((slots_at..).step_by(Slot::BYTES));
                // Zeros may be lost records. The table knows, if it has the entry.
                let goes_on = self.slots.get(index).is_some_and(|slot| slot.offset as usize == self.at);
                let is_end = torn_tail::used(gap) == 0
                    || numbered.any(|(index, at)| self.slot_at(at, index, group.seed).is_some());
                if is_end && !goes_on {
                    self.group = Some(Open { slots_at: Some(slots_at), ..group });
                    return Places { same: None, next: Some(end) };
                }
                Places { same: Some(self.at), next: Some(end) }
            }
        }
    }

    /// Whether the record of a slot can be in one of these places, and the mark before it. A file may
    /// be cut off, never longer. So restoring from slots never exceeds the original size.
    pub(super) fn plausible(&self, slot: &Slot, places: Places) -> Option<Option<usize>> {
        let end = u64::from(slot.offset).saturating_add(slot.record_bytes() as u64);
        let fits = slot.id.term >= self.found.last.term && end <= self.header.layout.capacity;
        let mut places = places.records().filter(|(at, _)| fits && *at == slot.offset as usize);
        places.next().map(|(_, mark)| mark)
    }

    /// The slot of the next entry in its group, if it is known where the group's slots are.
    pub(super) fn slot_in_group(&self, index: Index, places: Places) -> Option<Slot> {
        let in_same = || {
            let group = self.group.filter(|_| places.same.is_some())?;
            let number = usize::try_from(index.since(group.first)).ok()?;
            self.slot_at(group.slots_at?.checked_add(number.checked_mul(Slot::BYTES)?)?, index, group.seed)
        };
        let in_next = || {
            let at = self.slots_after_mark(places.next?)?;
            self.slot_at(at, index, self.group_seed())
        };
        in_same().or_else(in_next)
    }

    /// Start of the slots of the group whose mark is at `mark`, if the mark holds.
    pub(super) fn slots_after_mark(&self, mark: usize) -> Option<usize> {
        let extent = Mark::decode(self.bytes, mark, self.header.sequence)?.extent(mark as u64);
        usize::try_from(extent.slots_at).ok().filter(|_| extent.end <= self.header.layout.capacity)
    }

    /// The first slot of a group that begins with `index` and whose mark, at `mark`, does not hold.
    pub(super) fn find_slot(&self, index: Index, mark: usize) -> Option<(usize, Slot)> {
        let (seed, record) = (self.group_seed(), mark.saturating_add(Mark::BYTES));
        let from = record.saturating_add(record::OVERHEAD_BYTES);
        let places = (from - from % ALIGNMENT..self.bytes.len()).step_by(ALIGNMENT);
        let places = places.filter(|at| read_u64(self.bytes, at + 16) == index.0);
        let mut found = places.filter_map(|at| Some((at, self.slot_at(at, index, seed)?)));
        found.find(|(at, slot)| {
            let end = (slot.offset as usize).saturating_add(slot.record_bytes());
            slot.offset as usize == record && end.saturating_add(torn_tail::SECTOR) <= *at
        })
    }

    pub(super) fn slot_at(&self, at: usize, index: Index, seed: u32) -> Option<Slot> {
        let slot = Slot::decode(self.bytes.get(at..at.checked_add(Slot::BYTES)?)?, seed)?;
        (slot.id.index == index).then_some(slot)
    }

    /// The start of the checksums of slots in a group that follows the last entry.
    pub(super) fn group_seed(&self) -> u32 {
        slot::group_seed(self.header.sequence, self.found.last_checksum)
    }
}
