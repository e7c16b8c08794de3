//! One segment file: its header, the marks between what one sync covers and the next, and where its entries lie.
//!
//! It owns the layout of `FORMAT.md`, and reads entries back. It decides nothing about what is durable: `log` does.

use super::{BLOCK_BYTES, Block, Failure, Identity, Outcome, failed, read_u32, read_u64};
use crate::disk::File;
use bytes::{Bytes, BytesMut};
use quorate_raft::{Batch, EntryId, Index, NodeId, Term, record};
use std::{
    ops::Range,
    path::{Path, PathBuf},
};

/// Where records begin in segments that this version writes.
pub(crate) const RECORDS_AT: u64 = 4096;
const MAGIC: [u8; 8] = *b"QUORSEGM";
const VERSION: u32 = 1;
/// A position is kept for about so many bytes of records: what a read has to walk at most, if batches are small.
pub(crate) const STRIDE_BYTES: u64 = 64 << 10;

/// What a segment says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) identity: Identity,
    /// Counts up by at least one a segment. Of two that hold the same index, the one with the higher sequence counts.
    pub(crate) sequence: u64,
    /// The entry before its first one.
    pub(crate) previous: EntryId,
    /// That entry's checksum.
    pub(crate) previous_checksum: u32,
    /// Where records begin.
    pub(crate) records_at: u64,
    /// So many bytes from there on were synced before the file got its name: damage among them is never a torn write.
    pub(crate) published_bytes: u64,
    /// The length of the file while it is the newest.
    pub(crate) capacity: u64,
}

impl Header {
    pub(crate) fn first(&self) -> Index {
        self.previous.index.next()
    }

    pub(crate) fn encode(&self) -> [u8; BLOCK_BYTES] {
        Block::new(MAGIC)
            .put_u32(8, VERSION)
            .put_u64(16, self.sequence)
            .put_u64(24, self.identity.member.0)
            .put_u64(32, self.first().0)
            .put_u64(40, self.previous.term.0)
            .put_u32(48, self.previous_checksum)
            .put_u64(72, self.records_at)
            .put_u64(80, self.published_bytes)
            .put_u64(88, self.capacity)
            .put_name(96, &self.identity.cluster)
            .close()
    }

    /// The header at the start of a file, or what is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let block = Block::read(bytes, MAGIC).ok_or("the header is damaged")?;
        if block.u32(8) != VERSION {
            return Err("the header has a version that this program does not know");
        }
        // Of the features none is known yet; the slot table that they announce has its place in the header (56..72).
        if block.u32(12) != 0 || block.u64(56) != 0 || block.u64(64) != 0 {
            return Err("the header has a feature that this program does not know");
        }
        let (first, records_at, published_bytes) = (block.u64(32), block.u64(72), block.u64(80));
        if first == 0 || records_at < BLOCK_BYTES as u64 || records_at.checked_add(published_bytes).is_none() {
            return Err("the header contradicts itself");
        }
        Ok(Self {
            identity: Identity { member: NodeId(block.u64(24)), cluster: block.name(96).ok_or("the name is no text")? },
            sequence: block.u64(16),
            previous: EntryId::new(Term(block.u64(40)), Index(first - 1)),
            previous_checksum: block.u32(48),
            records_at,
            published_bytes,
            capacity: block.u64(88),
        })
    }
}

/// What stands before the records that one sync covers. A mark with a higher number proves that the sync of every lower
/// one ended well, for nothing is written before it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The segment it belongs to.
    pub(crate) segment: u64,
    /// Counts the marks of a segment, from 0.
    pub(crate) number: u64,
    /// Bytes of records up to the next mark.
    pub(crate) bytes: u32,
}

impl Mark {
    pub(crate) const BYTES: usize = 32;
    pub(crate) const MAGIC: [u8; 8] = *b"QUORMARK";

    pub(crate) fn encode(self) -> [u8; Self::BYTES] {
        let mut mark = [0; Self::BYTES];
        mark[..8].copy_from_slice(&Self::MAGIC);
        mark[8..16].copy_from_slice(&self.segment.to_le_bytes());
        mark[16..24].copy_from_slice(&self.number.to_le_bytes());
        mark[24..28].copy_from_slice(&self.bytes.to_le_bytes());
        let sum = crate::checksum(0, &mark[..28]);
        mark[28..].copy_from_slice(&sum.to_le_bytes());
        mark
    }

    /// The mark at `at`, if there is one of this segment.
    pub(crate) fn decode(bytes: &[u8], at: usize, segment: u64) -> Option<Self> {
        let mark = bytes.get(at..at + Self::BYTES)?;
        let whole = mark[..8] == Self::MAGIC && crate::checksum(0, &mark[..28]) == read_u32(mark, 28);
        let found = Self { segment: read_u64(mark, 8), number: read_u64(mark, 16), bytes: read_u32(mark, 24) };
        (whole && found.segment == segment).then_some(found)
    }
}

/// Where an entry's record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) index: Index,
    pub(crate) offset: u64,
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
}

impl Segment {
    pub(crate) fn new(header: Header, path: PathBuf, file: Box<dyn File>) -> Self {
        let (end, bytes) = (header.records_at, header.capacity);
        Self { header, path, file, end, bytes, positions: Vec::new() }
    }

    pub(crate) fn name(sequence: u64) -> String {
        format!("{sequence:020}.segment")
    }

    /// The sequence in a segment's name; `None` for the name of anything else.
    pub(crate) fn sequence_of(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(".segment").filter(|digits| digits.len() == 20)?;
        digits.parse().ok()
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
        self.end = offset;
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
        let at = known.checked_sub(1).map_or(self.header.records_at, |last| self.positions[last].offset);
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
            let head = self.load(record::HEADER_BYTES)?;
            if let Some(mark) = Mark::decode(head, 0, sequence) {
                debug_assert!(mark.bytes > 0);
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
