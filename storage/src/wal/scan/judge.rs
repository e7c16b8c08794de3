//! The judgement of a place without a good record or slot: the log's end, a torn write, or damage.

use super::{
    super::{
        group::{Extent, Mark},
        slot::Slot,
        torn_tail::{self, Expected},
    },
    Found, Read, Scan, Tail,
    places::Places,
};
use quorate_raft::{Index, record};
use std::ops::Range;

/// The least size of a mark and a record: no group has its slots before the gap after them.
const RECORDS_MIN: u64 = (Mark::BYTES + record::OVERHEAD_BYTES) as u64;

impl Scan<'_> {
    /// Judges a place without a good record or slot: torn, if missing bytes explain it and nothing
    /// proves that the place was synced.
    pub(super) fn judge(&self, index: Index, places: Places, record: Option<Read<'_>>) -> Tail {
        let at = places.next.filter(|_| places.same.is_none()).unwrap_or(self.at);
        let rest = self.bytes.get(at..).unwrap_or_default();
        let is_newest = self.end.is_none();
        let is_empty = torn_tail::used(rest) == 0;
        // A group without slots in the table leaves no trace in a file that ends before its mark.
        let is_cut = self.bytes.len() as u64 != self.header.layout.capacity && rest.len() < Mark::BYTES;
        if is_newest && self.published() <= at && is_empty && !is_cut && self.slots.is_empty_from(index) {
            return Tail::Clean;
        }
        // A slot in the table was written after the sync.
        if self.proven() <= at && (is_empty || !self.slots.is_used(index)) {
            let expected = |at: usize| {
                let found = record.as_ref().filter(|record| record.at == at);
                found.map_or(Expected::RECORD_HEADER, |found| Expected::record(found.end() - at))
            };
            let is_missing =
                |expected: Expected, at: usize| expected.is_missing(self.bytes.get(at..).unwrap_or_default(), at);
            let is_slot_missing = |at: usize| torn_tail::is_part_missing(self.bytes, at, Slot::BYTES);
            let is_torn = match (places.same, places.next) {
                (None, Some(mark)) => {
                    let at = mark.saturating_add(Mark::BYTES);
                    match self.slots_after_mark(mark) {
                        Some(slots_at) => is_missing(expected(at).or_less(), at) && is_slot_missing(slots_at),
                        // Without a mark, there may be nothing of the group but its first bytes.
                        None => {
                            is_missing(expected(at), at)
                                || torn_tail::is_part_missing(self.bytes, mark, Mark::BYTES)
                                || torn_tail::used(rest) as u64 <= Extent::of(RECORDS_MIN, 0).end
                        }
                    }
                }
                (Some(at), _) => {
                    let slot = self.group.and_then(|group| {
                        let number = usize::try_from(index.since(group.first)).ok()?;
                        group.slots_at?.checked_add(number.checked_mul(Slot::BYTES)?)
                    });
                    match slot {
                        Some(slot) => is_missing(expected(at).or_less(), at) && is_slot_missing(slot),
                        None => is_missing(expected(at), at),
                    }
                }
                (None, None) => false,
            };
            if is_torn {
                return Tail::Torn { at, bytes: torn_tail::used(rest) };
            }
        }
        let what = match record {
            None if is_newest && is_cut => "the file is cut off, and may have had more entries",
            Some(_) => "a record's payload does not hold",
            None => "a record's header does not hold",
        };
        Tail::Damaged { at: record.map_or(at, |record| record.at), what }
    }

    /// Offset up to which all bytes were synced before the file got its name.
    pub(super) fn published(&self) -> usize {
        let published = self.header.layout.records_at.saturating_add(self.header.published_bytes);
        usize::try_from(published).unwrap_or(usize::MAX)
    }

    /// Offset up to which all bytes are proven to have been synced: by the header, by a slot or
    /// proof in the table, which was written after the sync, or by a mark that is not inside a record. All bytes
    /// are, if the segment has a successor, or was cut off, which no crash does.
    pub(super) fn proven(&self) -> usize {
        *self.proven.get_or_init(|| {
            if self.end.is_some() || (self.bytes.len() as u64) < self.header.layout.capacity {
                return usize::MAX;
            }
            let mut proven = self.published();
            let mut known: Vec<Range<usize>> = self.found.entries.iter().map(Found::range).collect();
            let next = self.found.last.index.next();
            for index in self.slots.indexes_from(next) {
                let slot = self.slots.get(index).map(|slot| slot_range(&slot));
                known.extend(slot.clone());
                let end = slot.map(|record| record.end).or_else(|| Some(self.slots.proof(index)? as usize));
                proven = proven.max(end.unwrap_or(0));
            }
            if let Some((group, slots_at)) = self.group.and_then(|group| Some((group, group.slots_at?))) {
                let number = usize::try_from(next.since(group.first)).unwrap_or(usize::MAX);
                let from = slots_at.saturating_add(number.saturating_mul(Slot::BYTES));
                let numbered = (next.0..).map(Index).zip((from..).step_by(Slot::BYTES));
                let slots = numbered.map_while(|(index, at)| self.slot_at(at, index, group.seed));
                known.extend(slots.map(|slot| slot_range(&slot)));
            }
            known.sort_unstable_by_key(|record| record.start);
            let is_inside = |at: usize| {
                let next = known.partition_point(|record| record.start <= at);
                next.checked_sub(1).is_some_and(|last| known[last].end > at)
            };
            // A misdirected mark has a lower number than the preceding ones.
            let (from, mut highest) = (usize::try_from(self.header.layout.records_at).unwrap_or(usize::MAX), None);
            for (at, mark) in torn_tail::marks(self.bytes, from, self.header.sequence) {
                if highest.is_none_or(|highest| mark.number > highest) && !is_inside(at) {
                    highest = Some(mark.number);
                    proven = proven.max(at);
                }
            }
            proven
        })
    }
}

fn slot_range(slot: &Slot) -> Range<usize> {
    let start = slot.offset as usize;
    start..start.saturating_add(slot.record_bytes())
}
