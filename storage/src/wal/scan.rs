//! Reads a whole segment and says how far it holds.
//!
//! Pure: bytes in, findings out. It trusts nothing and never panics, whatever the bytes are.

use super::{
    segment::{Header, Mark, Position, STRIDE_BYTES},
    tail::{self, Expected},
};
use quorate_raft::{EntryId, Group, Index, Term, record};
use std::ops::Range;

/// What a segment holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// The last good entry; the one before the segment if there is none.
    pub(crate) last: EntryId,
    /// Its checksum.
    pub(crate) last_checksum: u32,
    /// The first index of each term that begins here.
    pub(crate) terms: Vec<(Index, Term)>,
    /// Where some records begin, and how many bytes of records precede each.
    pub(crate) positions: Vec<(Position, u64)>,
    /// The good records, without the marks between them.
    pub(crate) records: Vec<Range<usize>>,
    /// How many bytes they have.
    pub(crate) record_bytes: u64,
    /// Where the last good record's own checksum lies that was cut off, and what it is.
    pub(crate) completed: Option<(usize, u32)>,
    /// What comes behind the last good entry.
    pub(crate) tail: Tail,
}

impl Scanned {
    /// A segment that does not exist holds nothing.
    pub(crate) fn nothing() -> Self {
        Self::behind(EntryId::default(), 0)
    }

    /// Where the last good record ends.
    pub(crate) fn end(&self, header: &Header) -> usize {
        self.records.last().map_or(usize::try_from(header.records_at).unwrap_or(usize::MAX), |last| last.end)
    }

    fn behind(last: EntryId, last_checksum: u32) -> Self {
        Self {
            last,
            last_checksum,
            terms: Vec::new(),
            positions: Vec::new(),
            records: Vec::new(),
            record_bytes: 0,
            completed: None,
            tail: Tail::Clean,
        }
    }
}

/// What comes behind the last good entry of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing.
    Clean,
    /// A write that did not reach the disk in full, so that no sync of it ended well.
    Torn {
        /// Where.
        at: usize,
        /// How many bytes from there on are not zero, up to the last that is not.
        bytes: usize,
    },
    /// Something that no crash explains.
    Damaged {
        /// Where.
        at: usize,
        /// What does not hold.
        what: &'static str,
    },
}

/// Scans the segment in `bytes`, up to the entry before `end` if there is an end: what follows it does not count.
pub(crate) fn scan(bytes: &[u8], header: &Header, end: Option<Index>) -> Scanned {
    let at = usize::try_from(header.records_at).unwrap_or(usize::MAX).min(bytes.len());
    let mut scan = Scan {
        bytes,
        header,
        at,
        group_end: at,
        marks: 0,
        found: Scanned::behind(header.previous, header.previous_checksum),
        is_sealed: end.is_some(),
    };
    while end.is_none_or(|end| scan.found.last.index.next() < end) {
        let outcome = if scan.at == scan.group_end { scan.mark() } else { scan.record() };
        match outcome {
            Ok(()) => {}
            Err(tail) => {
                scan.found.tail = tail;
                break;
            }
        }
    }
    scan.found
}

struct Scan<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    at: usize,
    /// Where the records that were synced together end.
    group_end: usize,
    marks: u64,
    /// What follows its end may have been cut off.
    is_sealed: bool,
    found: Scanned,
}

impl Scan<'_> {
    fn mark(&mut self) -> Result<(), Tail> {
        let rest = &self.bytes[self.at..];
        if tail::used(rest) == 0 {
            return Err(Tail::Clean);
        }
        let Some(mark) = Mark::decode(self.bytes, self.at, self.header.sequence) else {
            return Err(self.judge(Expected::MARK, "a mark does not hold"));
        };
        let start = self.at + Mark::BYTES;
        let mut end = start.saturating_add(mark.bytes as usize);
        if self.is_sealed {
            end = end.min(self.bytes.len());
        }
        if mark.number != self.marks || mark.bytes == 0 || end > self.bytes.len() {
            return Err(self.damaged("a mark contradicts its place"));
        }
        (self.at, self.group_end, self.marks) = (start, end, self.marks + 1);
        self.found.records.push(start..start);
        Ok(())
    }

    fn record(&mut self) -> Result<(), Tail> {
        let (at, group) = (self.at, &self.bytes[..self.group_end]);
        let Ok(head) = record::Head::read(group, at, crate::checksum) else {
            return Err(self.judge(Expected::RECORD_HEADER, "a record's header does not hold"));
        };
        let end = at + head.record_bytes();
        let (payload, sum) = group[at + record::HEADER_BYTES..end].split_at(head.payload_bytes);
        let checksum = crate::checksum(head.header_checksum, payload);
        if sum != checksum.to_le_bytes() {
            if self.was_synced() || !tail::is_cut(sum, checksum.to_le_bytes()) {
                return Err(self.judge(Expected::record(end - at), "a record's payload does not hold"));
            }
            self.found.completed = Some((end - record::TRAILER_BYTES, checksum));
        }
        let last = self.found.last;
        if head.group != Group(0) || Some(head.id.index.0) != last.index.0.checked_add(1) || head.id.term < last.term {
            return Err(self.damaged("a record has the wrong place"));
        }
        if head.previous_checksum != self.found.last_checksum {
            return Err(self.damaged("a record does not follow the one before it"));
        }
        self.accept(head.id, end, checksum);
        Ok(())
    }

    fn accept(&mut self, id: EntryId, end: usize, checksum: u32) {
        let found = &mut self.found;
        if id.term != found.last.term {
            found.terms.push((id.index, id.term));
        }
        let position = Position { index: id.index, offset: self.at as u64 };
        if found.positions.last().is_none_or(|(last, _)| position.offset - last.offset >= STRIDE_BYTES) {
            found.positions.push((position, found.record_bytes));
        }
        (found.last, found.last_checksum) = (id, checksum);
        found.record_bytes += (end - self.at) as u64;
        if let Some(records) = found.records.last_mut() {
            records.end = end;
        }
        self.at = end;
    }

    /// Torn, if zeros explain it and nothing proves that this place had been synced.
    fn judge(&self, expected: Expected, what: &'static str) -> Tail {
        let rest = &self.bytes[self.at..];
        if self.was_synced() || !expected.is_missing(rest, self.at) {
            return self.damaged(what);
        }
        Tail::Torn { at: self.at, bytes: tail::used(rest) }
    }

    fn was_synced(&self) -> bool {
        let published = self.header.records_at.saturating_add(self.header.published_bytes);
        let from = self.at.max(self.group_end);
        (self.at as u64) < published
            || tail::marks(self.bytes, from, self.header.sequence).any(|mark| mark.number >= self.marks)
    }

    fn damaged(&self, what: &'static str) -> Tail {
        Tail::Damaged { at: self.at, what }
    }
}
