//! One segment file, and the positions of its entries.
//!
//! It reads entries back. It never decides what is durable: `log` does.

use super::{
    Failure, Outcome, failed,
    group::{Extent, Mark},
    header::Header,
    read_u32, read_u64,
};
use crate::contract::StorageOp;
use crate::disk::File;
use bytes::{Bytes, BytesMut};
use quorate_raft::{Batch, EntryId, Index, Term, record};
use std::{
    ops::Range,
    path::{Path, PathBuf},
};

/// Distance in bytes between two stored positions: the most that a read walks, if
/// batches are small.
pub(crate) const STRIDE_BYTES: u64 = 64 << 10;

/// More than any log reaches: a file with a higher sequence is damaged, or misnamed.
pub(crate) const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// The offset of an entry's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) index: Index,
    pub(crate) offset: u64,
    /// The end of its group.
    pub(crate) group: Extent,
}

/// A range of a segment that reads skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Detour {
    pub(crate) at: u64,
    pub(crate) end: u64,
    pub(crate) what: Skipped,
}

/// Bytes that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skipped {
    /// The lost record of this entry.
    Entry(EntryId),
    /// The damaged mark of a group with this end.
    Mark(Extent),
}

impl Detour {
    fn is_of(&self, index: Index) -> bool {
        matches!(self.what, Skipped::Entry(id) if id.index == index)
    }
}

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: Header,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn File>,
    /// Offset after the last group, or after the last record that counts.
    pub(crate) end: u64,
    /// The size of the file.
    pub(crate) bytes: u64,
    /// Offsets of some records, in order, always including the first.
    positions: Vec<Position>,
    /// Ranges that reads skip, in order. Nearly always empty.
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

    /// The sequence in a segment's name; `None` for any other name.
    pub(crate) fn sequence_of(name: &str) -> Option<u64> {
        let sequence = name.strip_suffix(".segment")?.parse().ok()?;
        (Self::name(sequence) == name).then_some(sequence)
    }

    /// Stores the offset of a record, unless a near one is stored.
    pub(crate) fn remember(&mut self, index: Index, offset: u64, group: Extent) {
        debug_assert!(self.positions.last().is_none_or(|last| last.index < index && last.offset < offset), "in order");
        if self.positions.last().is_none_or(|last| offset - last.offset >= STRIDE_BYTES) {
            self.positions.push(Position { index, offset, group });
        }
    }

    /// Drops the entries from `index` on, which begin at `offset`.
    pub(crate) fn forget(&mut self, index: Index, offset: u64) {
        self.positions.retain(|position| position.index < index);
        self.detours.retain(|detour| detour.at < offset);
        self.end = offset;
    }

    /// Returns the unused end of its file to the file system. No sync: nothing depends on it.
    pub(crate) fn cut_file(&mut self) -> Outcome<()> {
        if self.bytes > self.end {
            self.file.truncate(self.end).map_err(failed(StorageOp::Write, &self.path))?;
            self.bytes = self.end;
        }
        Ok(())
    }

    /// Adds a range that reads skip, after all others.
    pub(crate) fn avoid(&mut self, detour: Detour) {
        debug_assert!(self.detours.last().is_none_or(|last| last.end <= detour.at), "in order");
        self.detours.push(detour);
    }

    /// The place of an entry with a lost record.
    pub(crate) fn place_of_lost(&self, index: Index) -> Option<Detour> {
        self.detours.iter().find(|detour| detour.is_of(index)).copied()
    }

    /// Marks an entry's record as readable again.
    pub(crate) fn restored(&mut self, index: Index) {
        self.detours.retain(|detour| !detour.is_of(index));
    }

    /// The offset of the record of `index`; `None` if the segment does not hold it.
    pub(crate) fn offset_of(&self, index: Index) -> Outcome<Option<u64>> {
        let mut walk = self.walk(index);
        while let Some(item) = walk.next()? {
            if item.id.index == index {
                return Ok(Some(item.range.start));
            }
        }
        Ok(None)
    }

    /// Reads entries from `from` to `to`, as far as this segment holds them and they fit into
    /// `bytes_max` (but at least one), as one batch per term. Every checksum is checked.
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
        let count = self.file.read_at(&mut span, start).map_err(failed(StorageOp::Read, &self.path))?;
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
        let from = known.checked_sub(1).map(|last| self.positions[last]);
        let records_at = self.header.layout.records_at;
        let (at, group) =
            from.map_or((records_at, Extent::nothing(records_at)), |position| (position.offset, position.group));
        Walk { segment: self, at, group, chunk: Vec::new(), chunk_at: 0 }
    }

    fn damaged(&self, at: u64, what: &str) -> Failure {
        Failure::read(damaged(&self.path, at, what))
    }
}

/// The operator's line on a damaged file.
pub(crate) fn damaged(path: &Path, at: u64, what: &str) -> String {
    let path = path.display();
    format!("{path} is damaged at byte {at}: {what}; remove this member, empty its directory and add it under a new id")
}

/// Byte ranges of records of one term.
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

/// An iterator over the headers of records, which reads ahead.
struct Walk<'a> {
    segment: &'a Segment,
    at: u64,
    /// The end of the group at `at`.
    group: Extent,
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
            if self.at == self.group.records_end {
                self.at = self.group.end;
            }
            if self.at >= self.segment.end {
                break;
            }
            if let Ok(detour) = self.segment.detours.binary_search_by_key(&self.at, |detour| detour.at) {
                let Detour { at, end, what } = self.segment.detours[detour];
                self.at = end;
                match what {
                    Skipped::Entry(id) => return Ok(Some(Item { id, range: at..end })),
                    Skipped::Mark(group) => {
                        self.group = group;
                        continue;
                    }
                }
            }
            if self.at == self.group.end {
                let (at, sequence) = (self.at, self.segment.header.sequence);
                let Some(mark) = Mark::decode(self.load(Mark::BYTES)?, 0, sequence) else {
                    return Err(self.segment.damaged(at, "a group's mark does not hold"));
                };
                (self.at, self.group) = (at + Mark::BYTES as u64, mark.extent(at));
                continue;
            }
            let head = self.load(record::HEADER_BYTES)?;
            if head.len() < record::HEADER_BYTES || crate::checksum(0, &head[..32]) != read_u32(head, 32) {
                return Err(self.segment.damaged(self.at, "a record's header does not hold"));
            }
            let id = EntryId::new(Term(read_u64(head, 8)), Index(read_u64(head, 16)));
            let bytes = record::OVERHEAD_BYTES as u64 + u64::from(read_u32(head, 0));
            let end = self.at + bytes;
            if end > self.segment.end {
                return Err(self.segment.damaged(self.at, "a record ends after the end of the log"));
            }
            let range = self.at..end;
            self.at = end;
            return Ok(Some(Item { id, range }));
        }
        Ok(None)
    }

    /// The next `count` bytes, or fewer at the end of the file.
    fn load(&mut self, count: usize) -> Outcome<&[u8]> {
        let segment = self.segment;
        let loaded = self.chunk_at + self.chunk.len() as u64;
        if self.at < self.chunk_at || self.at + count as u64 > loaded {
            let ahead = (segment.end - self.at).min(STRIDE_BYTES);
            self.chunk.resize(usize::try_from(ahead).unwrap_or(0), 0);
            self.chunk_at = self.at;
            let count =
                segment.file.read_at(&mut self.chunk, self.at).map_err(failed(StorageOp::Read, &segment.path))?;
            self.chunk.truncate(count);
        }
        let from = usize::try_from(self.at - self.chunk_at).unwrap_or(usize::MAX);
        let there = self.chunk.get(from..).unwrap_or_default();
        Ok(&there[..there.len().min(count)])
    }
}
