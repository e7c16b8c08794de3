//! Batches: consecutive entries of one term in one buffer.

use crate::{
    entry::{Checksum, Kind, Malformed},
    ids::{EntryId, Group, Index, Term},
    membership::Membership,
    record::{
        HEADER_BYTES, Head, OVERHEAD_BYTES, Record, STUB_BYTES, TRAILER_BYTES, header, read_u32, read_u64,
        record_checksum, record_end,
    },
    tick::Tick,
};
use alloc::vec::Vec;
use bytes::{BufMut, Bytes, BytesMut};
use core::fmt;

/// A run of consecutive entries of one term, laid out as on disk. Never empty. Cloning
/// shares the bytes.
///
/// **Invariant:** `bytes` holds exactly `count` well-framed records of `term`, with consecutive
/// indexes from `first`. Bytes from outside enter through [`Batch::parse`] alone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Batch {
    term: Term,
    first: Index,
    count: u32,
    /// Whether one of the entries is a configuration. Rules ask this of every batch, so it
    /// is counted once.
    changes: bool,
    /// Whether one of the entries is a stub.
    has_stubs: bool,
    /// Whether one of the entries is a tick.
    has_ticks: bool,
    bytes: Bytes,
}

impl Batch {
    /// Checks the framing, every identity and every checksum of records that came from outside.
    ///
    /// # Errors
    /// Names the fault and its offset, unless `bytes` is whole, undamaged records of one term with
    /// consecutive indexes, chained to each other.
    pub fn parse(bytes: Bytes, checksum: Checksum) -> Result<Self, Malformed> {
        let head = Head::read(&bytes, 0, checksum)?;
        let (mut at, mut count, mut chained) = (0, 0u32, head.previous_checksum);
        let (mut changes, mut has_stubs, mut has_ticks) = (false, false, false);
        while at < bytes.len() {
            let this = Head::read(&bytes, at, checksum)?;
            let expected = EntryId::new(head.id.term, head.id.index.plus(u64::from(count)));
            if this.id != expected || this.id.index == Index(0) || this.group != Group(0) {
                return Err(Malformed { offset: at, what: "identity" });
            }
            if this.previous_checksum != chained {
                return Err(Malformed { offset: at, what: "chain" });
            }
            let end = at + HEADER_BYTES + this.payload_bytes;
            let found = read_u32(&bytes, end);
            if record_checksum(checksum, this.kind as u8, this.header_checksum, &bytes[at + HEADER_BYTES..end])
                != Some(found)
            {
                return Err(Malformed { offset: at + HEADER_BYTES, what: "payload checksum" });
            }
            chained = found;
            changes |= this.kind == Kind::Membership;
            has_stubs |= this.kind == Kind::Stub;
            has_ticks |= this.kind == Kind::Tick;
            at = end + TRAILER_BYTES;
            count += 1;
        }
        Ok(Self { term: head.id.term, first: head.id.index, count, changes, has_stubs, has_ticks, bytes })
    }

    /// The term of all entries.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Index of the first entry.
    #[must_use]
    pub fn first(&self) -> Index {
        self.first
    }

    /// Index of the last entry.
    #[must_use]
    pub fn last(&self) -> Index {
        self.first.plus(u64::from(self.count) - 1)
    }

    /// Id of the last entry.
    #[must_use]
    pub fn last_id(&self) -> EntryId {
        EntryId::new(self.term, self.last())
    }

    /// Number of entries, at least 1.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The records, as they lie on disk and on the wire.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Checksum of the record before the first of these.
    #[must_use]
    pub fn previous_checksum(&self) -> u32 {
        read_u32(&self.bytes, 28)
    }

    /// Checksum of the last record, which the next one chains to.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        read_u32(&self.bytes, self.bytes.len() - TRAILER_BYTES)
    }

    /// The records, in log order.
    #[inline]
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut rest = &self.bytes[..];
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (record, after) = rest.split_at(record_end(rest, 0));
            rest = after;
            let (header, body) = record.split_at(HEADER_BYTES);
            let (payload, trailer) = body.split_at(body.len() - TRAILER_BYTES);
            Some(Record {
                id: EntryId::new(self.term, Index(read_u64(header, 16))),
                kind: Kind::from_byte(header[24]).unwrap_or(Kind::Noop),
                previous_checksum: read_u32(header, 28),
                checksum: read_u32(trailer, 0),
                payload,
            })
        })
    }

    /// The configurations among the entries, in order, each with its index.
    ///
    /// # Errors
    /// If a payload is not a configuration: cut off, or without voters.
    pub fn memberships(&self) -> Result<Vec<(Index, Membership)>, Malformed> {
        if !self.changes {
            return Ok(Vec::new());
        }
        let changes = self.records().filter(|record| record.kind == Kind::Membership);
        changes
            .map(|record| match Membership::decode(record.payload)? {
                membership if membership.incoming().is_empty() => Err(Malformed { offset: 0, what: "no voters" }),
                membership => Ok((record.id.index, membership)),
            })
            .collect()
    }

    /// The entries from `index` on, sharing the bytes; `None` if the batch ends before `index`.
    #[must_use]
    pub fn from(&self, index: Index) -> Option<Self> {
        if index <= self.first {
            return Some(self.clone());
        }
        let skip = u32::try_from(index.since(self.first)).ok().filter(|skip| *skip < self.count)?;
        let at = self.offset_of(skip);
        Some(self.slice(index, self.count - skip, self.bytes.slice(at..)))
    }

    /// The entries up to and including `index`, sharing the bytes; `None` if the batch
    /// begins after `index`.
    #[must_use]
    pub fn up_to(&self, index: Index) -> Option<Self> {
        if index >= self.last() {
            return Some(self.clone());
        }
        if index < self.first {
            return None;
        }
        let count = u32::try_from(index.since(self.first)).ok()? + 1;
        let at = self.offset_of(count);
        Some(self.slice(self.first, count, self.bytes.slice(..at)))
    }

    /// The first entries that fit into `bytes_max`, and at least one.
    #[must_use]
    pub fn within(&self, bytes_max: usize) -> Self {
        if self.bytes.len() <= bytes_max {
            return self.clone();
        }
        let (mut at, mut count) = (record_end(&self.bytes, 0), 1);
        while count < self.count {
            let end = record_end(&self.bytes, at);
            if end > bytes_max {
                break;
            }
            (at, count) = (end, count + 1);
        }
        self.slice(self.first, count, self.bytes.slice(..at))
    }

    /// Whether one of the entries is a stub, as witnesses keep them.
    #[must_use]
    pub fn has_stubs(&self) -> bool {
        self.has_stubs
    }

    /// The ticks among the entries, in order, each with its index. A malformed one is left out: the
    /// node that applies it fails.
    pub fn ticks(&self) -> impl Iterator<Item = (Index, Tick)> {
        let records = self.has_ticks.then(|| self.records()).into_iter().flatten();
        let ticks = records.filter(|record| record.kind == Kind::Tick);
        ticks.filter_map(|record| Some((record.id.index, Tick::decode(record.payload).ok()?)))
    }

    /// The same entries as a witness keeps them: no-ops and configurations, which the rules need,
    /// whole, and all others as stubs.
    #[must_use]
    pub fn to_stubs(&self, checksum: Checksum) -> Self {
        if !self.records().any(|record| record.kind.has_stub()) {
            return self.clone();
        }
        let mut bytes = BytesMut::with_capacity(self.count as usize * (OVERHEAD_BYTES + STUB_BYTES));
        let mut at = 0;
        for record in self.records() {
            let end = record_end(&self.bytes, at);
            if record.kind.has_stub() {
                let header = header(checksum, record.id, Kind::Stub, STUB_BYTES, record.previous_checksum);
                let of = record.checksum.to_le_bytes();
                bytes.put_slice(&header);
                bytes.put_slice(&of);
                bytes.put_u32_le(checksum(read_u32(&header, 32), &of));
                bytes.put_slice(&of);
            } else {
                bytes.put_slice(&self.bytes[at..end]);
            }
            at = end;
        }
        Self { has_stubs: true, has_ticks: false, bytes: bytes.freeze(), ..self.clone() }
    }

    fn slice(&self, first: Index, count: u32, bytes: Bytes) -> Self {
        let mut slice =
            Self { term: self.term, first, count, changes: false, has_stubs: false, has_ticks: false, bytes };
        slice.changes = self.changes && slice.records().any(|record| record.kind == Kind::Membership);
        slice.has_stubs = self.has_stubs && slice.records().any(|record| record.kind == Kind::Stub);
        slice.has_ticks = self.has_ticks && slice.records().any(|record| record.kind == Kind::Tick);
        slice
    }

    fn offset_of(&self, record: u32) -> usize {
        (0..record).fold(0, |at, _| record_end(&self.bytes, at))
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({}..={}@{}, {} B)", self.first, self.last(), self.term, self.bytes.len())
    }
}

/// Builds a batch, entry by entry, in one buffer.
pub struct BatchBuilder {
    term: Term,
    first: Index,
    count: u32,
    changes: bool,
    has_ticks: bool,
    chained: u32,
    bytes: BytesMut,
    checksum: Checksum,
}

impl core::fmt::Debug for BatchBuilder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("BatchBuilder")
            .field("term", &self.term)
            .field("first", &self.first)
            .field("count", &self.count)
            .field("bytes", &format_args!("{} B", self.bytes.len()))
            .finish_non_exhaustive()
    }
}

impl BatchBuilder {
    /// A batch of `term` that begins at `first` and chains to a record with checksum `previous`.
    #[must_use]
    pub fn new(checksum: Checksum, term: Term, first: Index, previous: u32, capacity_bytes: usize) -> Self {
        let bytes = BytesMut::with_capacity(capacity_bytes);
        Self { term, first, count: 0, changes: false, has_ticks: false, chained: previous, bytes, checksum }
    }

    /// Adds an entry after the others. Not for stubs: [`Batch::to_stubs`] makes those
    /// from whole records.
    ///
    /// # Panics
    /// If the payload has 4 GiB or more; callers bound payloads far below that.
    pub fn push(&mut self, kind: Kind, payload: &[u8]) {
        self.push_parts(kind, &[], payload);
    }

    /// The same, for a payload in two parts: `head`, then `payload`.
    ///
    /// # Panics
    /// As [`BatchBuilder::push`].
    pub fn push_parts(&mut self, kind: Kind, head: &[u8], payload: &[u8]) {
        let bytes = head.len() + payload.len();
        let id = EntryId::new(self.term, self.first.plus(u64::from(self.count)));
        let header = header(self.checksum, id, kind, bytes, self.chained);
        self.chained = (self.checksum)((self.checksum)(read_u32(&header, 32), head), payload);
        self.bytes.reserve(OVERHEAD_BYTES + bytes);
        self.bytes.put_slice(&header);
        self.bytes.put_slice(head);
        self.bytes.put_slice(payload);
        self.bytes.put_u32_le(self.chained);
        self.changes |= kind == Kind::Membership;
        self.has_ticks |= kind == Kind::Tick;
        self.count += 1;
    }

    /// Present length of the records in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the builder has no entry yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The batch; `None` if it has no entry.
    #[must_use]
    pub fn finish(self) -> Option<Batch> {
        (self.count > 0).then(|| Batch {
            term: self.term,
            first: self.first,
            count: self.count,
            changes: self.changes,
            has_stubs: false,
            has_ticks: self.has_ticks,
            bytes: self.bytes.freeze(),
        })
    }
}
