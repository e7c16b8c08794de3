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

mod judge;
mod places;

use self::places::Open;
use super::{
    header::Header,
    read_u32,
    slot::{self, Slot, Table},
    torn_tail,
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
    /// A damaged slot in the table, from the record or the slot in the group.
    Slot,
    /// A slot that was not in the table yet.
    LateSlot,
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
        group: None,
        end,
        proven: OnceCell::new(),
        last_written: OnceCell::new(),
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
    /// The group of the last entry.
    group: Option<Open>,
    end: Option<Index>,
    /// Offset up to which all bytes are proven to have been synced.
    proven: OnceCell<usize>,
    /// [`Table::last_written`].
    last_written: OnceCell<Option<Index>>,
    found: Scanned,
}

/// The origin of an entry's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Table,
    Group,
}

impl<'a> Scan<'a> {
    /// Takes the next entry, or returns the end of the scan.
    fn entry(&mut self) -> Result<(), Tail> {
        let index = self.found.last.index.next();
        let places = self.places(index);
        let from_table = || Some((self.slots.get(index)?, Origin::Table));
        let from_group = || Some((self.slot_in_group(index, places)?, Origin::Group));
        let in_place = |slot: Slot, origin| Some((slot, origin, self.plausible(&slot, places)?));
        let identity = from_table().and_then(|(slot, origin)| in_place(slot, origin));
        let identity = identity.or_else(|| from_group().and_then(|(slot, origin)| in_place(slot, origin)));
        if let Some((slot, origin, mark)) = identity {
            return self.by_slot(&slot, origin, mark);
        }
        let record = places.records().find_map(|(at, mark)| Some((self.record_at(at, index)?, mark)));
        match record {
            Some((record, mark)) if record.is_whole() => self.by_record(&record, mark),
            Some((record, mark)) if self.is_cut_short(&record) => {
                self.patch(record.end() - record::TRAILER_BYTES, &record.checksum.to_le_bytes(), Part::CutChecksum);
                self.by_record(&record, mark)
            }
            // Its group's mark is lost, and so the place of its slot.
            _ => match places.next.and_then(|mark| Some((self.find_slot(index, mark)?.1, mark))) {
                Some((slot, mark)) => self.by_slot(&slot, Origin::Group, Some(mark)),
                None => Err(self.judge(index, places, record.map(|(record, _)| record))),
            },
        }
    }

    /// Takes the entry of a good slot, which identifies its record.
    fn by_slot(&mut self, slot: &Slot, origin: Origin, mark: Option<usize>) -> Result<(), Tail> {
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
            let was_durable = match origin {
                // Slots in the table are written after the sync.
                Origin::Table => !slot.is_unproven,
                Origin::Group => self.proven() >= at.saturating_add(slot.record_bytes()),
            };
            state = State::Faulty { was_durable };
        }
        let found = Found {
            term: slot.id.term,
            checksum: slot.checksum,
            offset: slot.offset,
            payload_bytes: slot.payload_bytes,
            kind: slot.kind,
            state,
        };
        if origin == Origin::Group {
            self.fill_in(slot.id.index, &found);
        }
        self.accept(found, mark);
        Ok(())
    }

    /// Takes the entry of a record without a good slot.
    fn by_record(&mut self, record: &Read<'a>, mark: Option<usize>) -> Result<(), Tail> {
        let (at, index) = (record.at, record.head.id.index);
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
        self.fill_in(index, &found);
        self.accept(found, mark);
        Ok(())
    }

    /// Whether nothing is wrong with a record but that the end of its checksum never reached the disk.
    fn is_cut_short(&self, record: &Read<'_>) -> bool {
        self.proven() <= record.at && torn_tail::is_cut(&record.sum, record.checksum.to_le_bytes())
    }

    /// Has the slot of an entry written to the table.
    fn fill_in(&mut self, index: Index, found: &Found) {
        let Some(place) = slot::place(self.header, index) else { return };
        let slot = found.slot_in_table(index, found.offset).encode(slot::seed(self.header.sequence));
        // The slots of the last groups may not be in the table yet, if the segment is not closed.
        let may_be_late = self.end.is_none() || self.bytes.len() as u64 >= self.header.layout.capacity;
        let last_written = self.last_written.get_or_init(|| self.slots.last_written());
        let is_late = may_be_late && last_written.is_none_or(|last| last <= index);
        let part = if is_late { Part::LateSlot } else { Part::Slot };
        self.patch(usize::try_from(place).unwrap_or(usize::MAX), &slot, part);
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

    /// Takes an entry; `mark` is the offset of its group's mark, if it is the first of its group.
    fn accept(&mut self, entry: Found, mark: Option<usize>) {
        if let Some(mark) = mark {
            let first = self.found.last.index.next();
            let slots_at = self.slots_after_mark(mark).or_else(|| Some(self.find_slot(first, mark)?.0));
            self.group = Some(Open { first, seed: self.group_seed(), slots_at });
        }
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
}

impl Found {
    /// Its slot in the table, for a record at `offset`.
    pub(crate) fn slot_in_table(&self, index: Index, offset: u32) -> Slot {
        self.slot(index, offset, self.state == State::Faulty { was_durable: false })
    }

    /// Its slot, for a record at `offset`.
    pub fn slot(&self, index: Index, offset: u32, is_unproven: bool) -> Slot {
        Slot {
            id: EntryId::new(self.term, index),
            checksum: self.checksum,
            offset,
            payload_bytes: self.payload_bytes,
            kind: self.kind,
            is_unproven,
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
    fn end(&self) -> usize {
        self.at.saturating_add(self.head.record_bytes())
    }

    fn is_whole(&self) -> bool {
        self.sum == self.checksum.to_le_bytes()
    }
}

fn checksum_of(kind: u8, header_checksum: u32, payload: &[u8]) -> Option<u32> {
    record::record_checksum(crate::checksum, kind, header_checksum, payload)
}
