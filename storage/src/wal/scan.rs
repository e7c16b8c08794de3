//! Reads a whole segment and decides, entry by entry, which of them hold.
//!
//! | record | slot | the entry is |
//! | --- | --- | --- |
//! | good | good | whole |
//! | good | bad | whole; its slot is restored from it |
//! | payload good | good | whole; the record's header or checksum is restored from the slot |
//! | bad | good | *faulty*: its identity is known, its payload is lost |
//! | bad | bad | the end of the log, if a crash explains it; otherwise damage |
//!
//! Pure: bytes in, findings out. It trusts no byte, and never panics.

use super::{
    header::{Header, Mark},
    read_u32,
    slot::{self, Slot, Table},
    torn_tail::{self, Expected},
};
use quorate_raft::{EntryId, Group, Index, Kind, Membership, Term, record};
use std::{cell::OnceCell, ops::Range};

/// The findings in a segment.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The last entry; the one before the segment if there is none.
    pub last: EntryId,
    /// The last entry's checksum.
    pub last_checksum: u32,
    /// The first index of each term that begins here.
    pub terms: Vec<(Index, Term)>,
    /// The configurations among the whole entries.
    pub memberships: Vec<(Index, Membership)>,
    /// The entries, in order, each of them whole or faulty.
    pub entries: Vec<Found>,
    /// Bytes to restore in place.
    pub patches: Vec<Patch>,
    /// The state of the bytes after the last entry.
    pub tail: Tail,
}

impl Scanned {
    pub(crate) fn nothing() -> Self {
        Self::after(EntryId::default(), 0)
    }

    fn after(last: EntryId, last_checksum: u32) -> Self {
        Self {
            last,
            last_checksum,
            terms: Vec::new(),
            memberships: Vec::new(),
            entries: Vec::new(),
            patches: Vec::new(),
            tail: Tail::Clean,
        }
    }
}

/// An entry, as far as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The term of the entry.
    pub term: Term,
    /// The checksum of its record.
    pub checksum: u32,
    /// Offset of its record, or of its place if the record is lost.
    pub offset: u32,
    /// The size of its payload.
    pub payload_bytes: u32,
    /// The number of its [`Kind`].
    pub kind: u8,
    /// The parts of it that are left.
    pub state: State,
}

/// The parts of an entry that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Record and identity.
    Whole,
    /// Its identity alone.
    Faulty {
        /// Whether it is proven to have been synced.
        was_durable: bool,
    },
}

/// Bytes to write at an offset of the segment.
#[derive(Clone, PartialEq, Eq)]
pub struct Patch {
    /// Their offset in the segment.
    pub at: usize,
    /// The restored bytes.
    pub bytes: Vec<u8>,
    /// The part that they restore.
    pub what: Part,
}

impl std::fmt::Debug for Patch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patch")
            .field("at", &self.at)
            .field("bytes", &format_args!("{} B", self.bytes.len()))
            .field("what", &self.what)
            .finish()
    }
}

/// The part of an entry that a patch restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A slot, from its record.
    Slot,
    /// A record's header or checksum, from its slot.
    Record,
    /// The checksum of the last record, of which a torn write has only the start.
    CutChecksum,
}

impl Found {
    /// The place of its record in the segment.
    pub fn range(&self) -> Range<usize> {
        let start = self.offset as usize;
        start..start.saturating_add(record::OVERHEAD_BYTES).saturating_add(self.payload_bytes as usize)
    }
}

/// The bytes after the last entry of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing but zeros.
    Clean,
    /// A write that did not reach the disk in full, so no sync of it succeeded.
    Torn {
        /// Offset in the file.
        at: usize,
        /// Bytes from there to the last one that is not zero.
        bytes: usize,
    },
    /// Bytes that no crash explains.
    Damaged {
        /// Offset in the file.
        at: usize,
        /// The reason, for the operator.
        what: &'static str,
    },
}

/// Scans the segment in `bytes`. With `end`, the segment has a successor that begins there: entries
/// from `end` on do not count, and all before it were synced.
pub fn scan(bytes: &[u8], header: &Header, end: Option<Index>) -> Scanned {
    let at = usize::try_from(header.layout.records_at).unwrap_or(usize::MAX).min(bytes.len());
    let slots = Table::of(bytes, header);
    let mut scan = Scan {
        bytes,
        header,
        slots,
        at,
        end,
        proven: OnceCell::new(),
        found: Scanned::after(header.previous, header.previous_checksum),
    };
    while end.is_none_or(|end| scan.found.last.index.next() < end) {
        if let Err(tail) = scan.entry() {
            scan.found.tail = tail;
            break;
        }
    }
    scan.found
}

struct Scan<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    slots: Table<'a>,
    /// Offset after the last entry.
    at: usize,
    end: Option<Index>,
    /// Offset up to which all bytes are proven to have been synced.
    proven: OnceCell<usize>,
    found: Scanned,
}

/// Possible distances of two records: none, or a mark.
const GAPS: [usize; 2] = [0, Mark::BYTES];

impl<'a> Scan<'a> {
    /// Takes the next entry, or returns the end of the scan.
    fn entry(&mut self) -> Result<(), Tail> {
        let (index, term) = (self.found.last.index.next(), self.found.last.term);
        let is_plausible = |slot: &Slot| {
            let gap = (slot.offset as usize).checked_sub(self.at);
            let end = u64::from(slot.offset).saturating_add(slot.record_bytes() as u64);
            // A file may be cut off, never longer. So restoring from slots never exceeds
            // the original size.
            let fits = end <= self.header.layout.capacity;
            slot.id.term >= term && fits && gap.is_some_and(|gap| GAPS.contains(&gap))
        };
        match self.slots.get(index).filter(is_plausible) {
            Some(slot) => self.by_slot(&slot),
            None => self.by_place(index),
        }
    }

    /// Takes the entry of a good slot, which identifies its record.
    fn by_slot(&mut self, slot: &Slot) -> Result<(), Tail> {
        let at = slot.offset as usize;
        let header = slot.record_header(self.found.last_checksum);
        let bytes: &'a [u8] = self.bytes;
        let there = bytes.get(at..at.saturating_add(slot.record_bytes())).unwrap_or_default();
        let (mut state, trailer) = (State::Whole, slot.checksum.to_le_bytes());
        if let Some((head, rest)) = there.split_at_checked(record::HEADER_BYTES)
            && let Some((payload, sum)) = rest.split_last_chunk::<{ record::TRAILER_BYTES }>()
            && checksum_of(slot.kind, read_u32(&header, 32), payload) == Some(slot.checksum)
        {
            if head != header {
                self.patch(at, &header, Part::Record);
            }
            if *sum != trailer {
                self.patch(at + header.len() + payload.len(), &trailer, Part::Record);
            }
            self.configuration(slot.id.index, slot.kind, payload, at)?;
        } else if self.record_at(at, slot.id.index).is_some_and(|record| record.is_whole()) {
            return Err(Tail::Damaged { at, what: "a record contradicts its slot" });
        } else {
            let was_durable = !slot.is_unproven && self.proven() >= at.saturating_add(slot.record_bytes());
            state = State::Faulty { was_durable };
        }
        self.accept(Found {
            term: slot.id.term,
            checksum: slot.checksum,
            offset: slot.offset,
            payload_bytes: slot.payload_bytes,
            kind: slot.kind,
            state,
        });
        Ok(())
    }

    /// Takes the entry without a good slot: its record follows the preceding one, or a mark there.
    fn by_place(&mut self, index: Index) -> Result<(), Tail> {
        let record = GAPS.into_iter().find_map(|gap| self.record_at(self.at.saturating_add(gap), index));
        let Some(record) = record else {
            return Err(self.judge(
                index,
                self.after_mark(),
                Expected::RECORD_HEADER,
                "a record's header does not hold",
            ));
        };
        let (at, end) = (record.at, record.at + record.head.record_bytes());
        if !record.is_whole() {
            if self.proven() > at || !torn_tail::is_cut(&record.sum, record.checksum.to_le_bytes()) {
                let expected = Expected::record(end - at);
                return Err(self.judge(index, at, expected, "a record's payload does not hold"));
            }
            self.patch(end - record::TRAILER_BYTES, &record.checksum.to_le_bytes(), Part::CutChecksum);
        }
        let Ok(offset) = u32::try_from(at) else {
            return Err(Tail::Damaged { at, what: "a record lies beyond 4 GiB" });
        };
        let found = Found {
            term: record.head.id.term,
            checksum: record.checksum,
            offset,
            payload_bytes: u32::try_from(record.head.payload_bytes).unwrap_or(u32::MAX),
            kind: record.head.kind as u8,
            state: State::Whole,
        };
        self.configuration(index, found.kind, record.payload, at)?;
        if let Some(place) = slot::place(self.header, index) {
            let slot = found.slot(index, offset, false).encode(slot::seed(self.header.sequence));
            self.patch(usize::try_from(place).unwrap_or(usize::MAX), &slot, Part::Slot);
        }
        self.accept(found);
        Ok(())
    }

    /// The record at `at`, if its header holds, its index is `index`, and it chains to the
    /// last entry found.
    fn record_at(&self, at: usize, index: Index) -> Option<Read<'a>> {
        let bytes: &'a [u8] = self.bytes;
        let head = record::Head::read(bytes.get(at..)?, 0, crate::checksum).ok()?;
        let last = self.found.last;
        let follows = head.previous_checksum == self.found.last_checksum && head.id.term >= last.term;
        if head.group != Group(0) || head.id.index != index || !follows {
            return None;
        }
        let rest = bytes.get(at + record::HEADER_BYTES..at + head.record_bytes())?;
        let (payload, sum) = rest.split_last_chunk()?;
        // A damaged stub does not say what its checksum should be: any but the one it has.
        let checksum = checksum_of(head.kind as u8, head.header_checksum, payload).unwrap_or(!u32::from_le_bytes(*sum));
        Some(Read { at, payload, sum: *sum, checksum, head })
    }

    fn configuration(&mut self, index: Index, kind: u8, payload: &[u8], at: usize) -> Result<(), Tail> {
        if kind == Kind::Membership as u8 {
            let what = "a configuration can't be read, though its checksum holds";
            let membership = Membership::decode(payload).map_err(|_| Tail::Damaged { at, what })?;
            self.found.memberships.push((index, membership));
        }
        Ok(())
    }

    fn accept(&mut self, entry: Found) {
        let found = &mut self.found;
        let id = EntryId::new(entry.term, found.last.index.next());
        if id.term != found.last.term {
            found.terms.push((id.index, id.term));
        }
        (found.last, found.last_checksum) = (id, entry.checksum);
        self.at = entry.range().end;
        found.entries.push(entry);
    }

    fn patch(&mut self, at: usize, bytes: &[u8], what: Part) {
        self.found.patches.push(Patch { at, bytes: bytes.to_vec(), what });
    }

    /// Offset of the next record: after a mark, if there is one.
    fn after_mark(&self) -> usize {
        match Mark::decode(self.bytes, self.at, self.header.sequence) {
            Some(_) => self.at.saturating_add(Mark::BYTES),
            None => self.at,
        }
    }

    /// Judges a place without a good record or slot: torn, if missing bytes explain it and nothing
    /// proves that the place was synced. A missing slot explains it as well: slot and record belong
    /// to one unfinished group.
    fn judge(&self, index: Index, at: usize, expected: Expected, what: &'static str) -> Tail {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let is_newest = self.end.is_none();
        if is_newest && self.published() <= at && torn_tail::used(rest) == 0 && self.slots.is_empty_from(index) {
            return Tail::Clean;
        }
        if self.proven() <= at {
            // Without a mark here, the mark itself may be missing.
            let is_mark_missing = at == self.at && Expected::MARK.is_missing(rest, at);
            if expected.is_missing(rest, at) || is_mark_missing || self.slots.is_missing(index) {
                return Tail::Torn { at, bytes: torn_tail::used(rest) };
            }
        }
        Tail::Damaged { at, what }
    }

    /// Offset up to which all bytes were synced before the file got its name.
    fn published(&self) -> usize {
        let published = self.header.layout.records_at.saturating_add(self.header.published_bytes);
        usize::try_from(published).unwrap_or(usize::MAX)
    }

    /// Offset up to which all bytes are proven to have been synced: by the header, by a slot that
    /// was written after a sync, or by a mark that is not inside a record. All bytes are, if the
    /// segment has a successor, or was cut off, which no crash does.
    fn proven(&self) -> usize {
        *self.proven.get_or_init(|| {
            if self.end.is_some() || (self.bytes.len() as u64) < self.header.layout.capacity {
                return usize::MAX;
            }
            let mut proven = self.published();
            let mut known: Vec<Range<usize>> = self.found.entries.iter().map(Found::range).collect();
            for index in self.slots.indexes_from(self.found.last.index.next()) {
                let slot = self.slots.get(index);
                known.extend(slot.iter().map(slot_range));
                let begins = slot.filter(|slot| slot.begins_group).map(|slot| slot.offset);
                proven = proven.max(begins.or_else(|| self.slots.proof(index)).map_or(0, |end| end as usize));
            }
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

impl Found {
    /// Its slot, for a record at `offset`.
    pub fn slot(&self, index: Index, offset: u32, is_unproven: bool) -> Slot {
        Slot {
            id: EntryId::new(self.term, index),
            checksum: self.checksum,
            offset,
            payload_bytes: self.payload_bytes,
            kind: self.kind,
            is_unproven,
            begins_group: false,
        }
    }
}

/// A record with a good header.
struct Read<'a> {
    at: usize,
    head: record::Head,
    payload: &'a [u8],
    /// The checksum that the record states.
    sum: [u8; record::TRAILER_BYTES],
    /// The checksum that its bytes have.
    checksum: u32,
}

impl Read<'_> {
    fn is_whole(&self) -> bool {
        self.sum == self.checksum.to_le_bytes()
    }
}

fn checksum_of(kind: u8, header_checksum: u32, payload: &[u8]) -> Option<u32> {
    record::record_checksum(crate::checksum, kind, header_checksum, payload)
}

fn slot_range(slot: &Slot) -> Range<usize> {
    let start = slot.offset as usize;
    start..start.saturating_add(slot.record_bytes())
}
