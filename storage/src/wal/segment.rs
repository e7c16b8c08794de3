//! One segment file: where its entries lie.
//!
//! It reads entries back. It decides nothing about what is durable: `log` does.

use super::{
    Failure, Outcome, failed,
    header::{Header, Mark},
    read_u32, read_u64,
};
use crate::disk::File;
use bytes::{Bytes, BytesMut};
use quorate_raft::{Batch, EntryId, Index, Term, record};
use std::{
    ops::Range,
    path::{Path, PathBuf},
};

/// A position is kept for about so many bytes of records: what a read has to walk at most, if batches are small.
pub(crate) const STRIDE_BYTES: u64 = 64 << 10;

/// No log gets so far: a file that says more is damaged, or misnamed.
pub(crate) const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// Where an entry's record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) index: Index,
    pub(crate) offset: u64,
}

/// A stretch of a segment in which neither a mark nor a record can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Detour {
    pub(crate) at: u64,
    pub(crate) end: u64,
    /// The entry whose record should be there; `None` for damaged marks.
    pub(crate) entry: Option<EntryId>,
}

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: Header,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn File>,
    /// Behind the last record that is written.
    pub(crate) end: u64,
    /// What the file takes.
    pub(crate) bytes: u64,
    /// Some of the records' places, in order; the first one's among them.
    positions: Vec<Position>,
    /// What reads go around, in order. Nearly always empty.
    detours: Vec<Detour>,
}

impl Segment {
    pub(crate) fn new(header: Header, path: PathBuf, file: Box<dyn File>) -> Self {
        let (end, bytes) = (header.layout.records_at, header.layout.capacity);
        Self { header, path, file, end, bytes, positions: Vec::new(), detours: Vec::new() }
    }

    pub(crate) fn name(sequence: u64) -> String {
        format!("{sequence:020}.segment")
    }

    /// The sequence in a segment's name; `None` for the name of anything else.
    pub(crate) fn sequence_of(name: &str) -> Option<u64> {
        let sequence = name.strip_suffix(".segment")?.parse().ok()?;
        (Self::name(sequence) == name).then_some(sequence)
    }

    /// Remembers where a record begins, if none near it is known.
    pub(crate) fn remember(&mut self, index: Index, offset: u64) {
        if self.positions.last().is_none_or(|last| offset - last.offset >= STRIDE_BYTES) {
            self.positions.push(Position { index, offset });
        }
    }

    /// Forgets the entries from `index` on, which begin at `offset`.
    pub(crate) fn forget(&mut self, index: Index, offset: u64) {
        self.positions.retain(|position| position.index < index);
        self.detours.retain(|detour| detour.at < offset);
        self.end = offset;
    }

    /// Remembers what reads must go around, behind what they go around already.
    pub(crate) fn avoid(&mut self, detour: Detour) {
        self.detours.push(detour);
    }

    /// Where the lost record of an entry should be.
    pub(crate) fn place_of_lost(&self, index: Index) -> Option<Detour> {
        self.detours.iter().find(|detour| detour.entry.is_some_and(|entry| entry.index == index)).copied()
    }

    /// The record of an entry is there again.
    pub(crate) fn restored(&mut self, index: Index) {
        self.detours.retain(|detour| detour.entry.is_none_or(|entry| entry.index != index));
    }

    /// Where the record of `index` begins; `None` if it is not held.
    pub(crate) fn offset_of(&self, index: Index) -> Outcome<Option<u64>> {
        let mut walk = self.walk(index);
        while let Some(item) = walk.next()? {
            if item.id.index == index {
                return Ok(Some(item.range.start));
            }
        }
        Ok(None)
    }

    /// Reads entries from `from` to `to`, as far as they are here and fit into `bytes_max` (but at least one), a batch
    /// for each term. Every checksum is checked.
    pub(crate) fn read(&self, from: Index, to: Index, bytes_max: usize) -> Outcome<Vec<Batch>> {
        let (mut runs, mut total): (Vec<Run>, usize) = (Vec::new(), 0);
        let mut walk = self.walk(from);
        while let Some(item) = walk.next()? {
            let bytes = usize::try_from(item.range.end - item.range.start).unwrap_or(usize::MAX);
            if item.id.index < from {
                continue;
            }
            if item.id.index > to || (total > 0 && total.saturating_add(bytes) > bytes_max) {
                break;
            }
            total = total.saturating_add(bytes);
            match runs.last_mut().filter(|run| run.term == item.id.term) {
                Some(run) => run.push(item.range),
                None => runs.push(Run { term: item.id.term, bytes: vec![item.range] }),
            }
        }
        runs.iter().map(|run| self.read_run(run)).collect()
    }

    fn read_run(&self, run: &Run) -> Outcome<Batch> {
        let (start, end) = (run.bytes.first().map_or(0, |range| range.start), run.bytes.last().map_or(0, |r| r.end));
        let mut span = BytesMut::zeroed(usize::try_from(end - start).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut span, start).map_err(failed("read", &self.path))?;
        if count < span.len() {
            return Err(self.damaged(start + count as u64, "the file ends too early"));
        }
        let bytes: Bytes = if let [_] = run.bytes[..] {
            span.freeze()
        } else {
            // Marks lie between the records of different syncs; a batch has none.
            let within = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
            let mut records = BytesMut::with_capacity(span.len());
            for range in &run.bytes {
                records.extend_from_slice(&span[within(range.start)..within(range.end)]);
            }
            records.freeze()
        };
        Batch::parse(bytes, crate::checksum).map_err(|malformed| {
            let at = start + u64::try_from(malformed.offset).unwrap_or(0);
            self.damaged(at, &format!("{} does not hold", malformed.what))
        })
    }

    fn walk(&self, from: Index) -> Walk<'_> {
        let known = self.positions.partition_point(|position| position.index <= from);
        let at = known.checked_sub(1).map_or(self.header.layout.records_at, |last| self.positions[last].offset);
        Walk { segment: self, at, chunk: Vec::new(), chunk_at: 0 }
    }

    fn damaged(&self, at: u64, what: &str) -> Failure {
        Failure::read(damaged(&self.path, at, what))
    }
}

/// One line on a damaged file.
pub(crate) fn damaged(path: &Path, at: u64, what: &str) -> String {
    let path = path.display();
    format!("{path} is damaged at byte {at}: {what}; remove this member, empty its directory and add it under a new id")
}

/// Records of one term.
struct Run {
    term: Term,
    bytes: Vec<Range<u64>>,
}

impl Run {
    fn push(&mut self, range: Range<u64>) {
        match self.bytes.last_mut().filter(|last| last.end == range.start) {
            Some(last) => last.end = range.end,
            None => self.bytes.push(range),
        }
    }
}

/// Walks over the headers of records, reading ahead.
struct Walk<'a> {
    segment: &'a Segment,
    at: u64,
    chunk: Vec<u8>,
    chunk_at: u64,
}

struct Item {
    id: EntryId,
    range: Range<u64>,
}

impl Walk<'_> {
    fn next(&mut self) -> Outcome<Option<Item>> {
        while self.at < self.segment.end {
            let sequence = self.segment.header.sequence;
            if let Ok(detour) = self.segment.detours.binary_search_by_key(&self.at, |detour| detour.at) {
                let Detour { at, end, entry } = self.segment.detours[detour];
                self.at = end;
                match entry {
                    Some(id) => return Ok(Some(Item { id, range: at..end })),
                    None => continue,
                }
            }
            let head = self.load(record::HEADER_BYTES)?;
            if Mark::decode(head, 0, sequence).is_some() {
                self.at += Mark::BYTES as u64;
                continue;
            }
            if head.len() < record::HEADER_BYTES || crate::checksum(0, &head[..32]) != read_u32(head, 32) {
                return Err(self.segment.damaged(self.at, "a record's header does not hold"));
            }
            let id = EntryId::new(Term(read_u64(head, 8)), Index(read_u64(head, 16)));
            let bytes = record::OVERHEAD_BYTES as u64 + u64::from(read_u32(head, 0));
            let end = self.at + bytes;
            if end > self.segment.end {
                return Err(self.segment.damaged(self.at, "a record ends behind the log"));
            }
            let range = self.at..end;
            self.at = end;
            return Ok(Some(Item { id, range }));
        }
        Ok(None)
    }

    /// The bytes from here on: `count`, or as many as there are.
    fn load(&mut self, count: usize) -> Outcome<&[u8]> {
        let segment = self.segment;
        let loaded = self.chunk_at + self.chunk.len() as u64;
        if self.at < self.chunk_at || self.at + count as u64 > loaded {
            let ahead = (segment.end - self.at).min(STRIDE_BYTES);
            self.chunk.resize(usize::try_from(ahead).unwrap_or(0), 0);
            self.chunk_at = self.at;
            let count = segment.file.read_at(&mut self.chunk, self.at).map_err(failed("read", &segment.path))?;
            self.chunk.truncate(count);
        }
        let from = usize::try_from(self.at - self.chunk_at).unwrap_or(usize::MAX);
        let there = self.chunk.get(from..).unwrap_or_default();
        Ok(&there[..there.len().min(count)])
    }
}
