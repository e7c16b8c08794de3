//! How entries are laid out, once, for the leader's disk, the wire and the followers' disks alike.
//!
//! A [`Batch`] is a run of consecutive entries of **one term** in one contiguous buffer. It is built once, by the
//! leader that accepted the proposals, and after that only sliced. A record, little-endian:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | payload length in bytes |
//! | 4 | 4 | group (0) |
//! | 8 | 8 | term |
//! | 16 | 8 | index |
//! | 24 | 1 | kind: 0 no-op, 1 command, 2 membership, 3 session, 4 outline |
//! | 25 | 3 | zero |
//! | 28 | 4 | checksum of the previous record (0 before the first) |
//! | 32 | 4 | checksum of bytes 0..32 |
//! | 36 | length | payload |
//! | 36 + length | 4 | checksum of the payload, continued from the header's: the *record's checksum* |
//!
//! The header's own checksum keeps the framing when a payload is damaged. The record's checksum covers the previous
//! record's, so it is a function of the whole log up to here: two nodes with an equal checksum at an equal entry id
//! hold equal logs, and two with different ones have diverged.
//!
//! A witness keeps of a command nothing but what its record is called: an *outline*, a record with the same header but for kind
//! and length, and **the same record's checksum** behind a payload of 8 bytes: that checksum, and one of the outline itself, which
//! continues from its header's over the 4 bytes before. So the chain is that of the whole log, and logs are compared as ever.
//!
//! The checksum function is an argument (nodes use CRC-32C), because computing it fast is not a rule of Raft.

use crate::{
    ids::{EntryId, Group, Index, Term},
    membership::Membership,
};
use alloc::vec::Vec;
use bytes::{BufMut, Bytes, BytesMut};
use core::fmt;

/// Bytes before a record's payload.
pub const HEADER_BYTES: usize = 36;
/// Bytes after a record's payload.
pub const TRAILER_BYTES: usize = 4;
/// Bytes of an outline's payload.
const OUTLINE_BYTES: usize = 8;
/// Bytes that a record adds to its payload.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TRAILER_BYTES;

/// Continues a checksum over more bytes: `checksum(checksum(0, a), b) == checksum(0, a ++ b)`.
pub type Checksum = fn(u32, &[u8]) -> u32;

/// What an entry is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Appended by a new leader so that it can commit what came before (paper §8). No payload.
    Noop = 0,
    /// A client's command; the payload is the state machine's business.
    Command = 1,
    /// A change of membership.
    Membership = 2,
    /// A client's command that is applied once however often it is in the log, or what opens a session: see
    /// [`session`](crate::session).
    Session = 3,
    /// What a witness keeps of a command, of whatever kind: its identity.
    Outline = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Noop),
            1 => Some(Self::Command),
            2 => Some(Self::Membership),
            3 => Some(Self::Session),
            4 => Some(Self::Outline),
            _ => None,
        }
    }
}

/// One entry, seen inside a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Its id.
    pub id: EntryId,
    /// What it is for.
    pub kind: Kind,
    /// The checksum of the record before it.
    pub previous_checksum: u32,
    /// Its own checksum.
    pub checksum: u32,
    /// The payload.
    pub payload: &'a [u8],
}

/// A run of consecutive entries of one term, laid out as on disk. Never empty. Cloning shares the bytes.
///
/// **Invariant:** `bytes` holds exactly `count` well-framed records of `term`, with consecutive indexes from `first`.
/// [`Batch::parse`] is the only way in from outside.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Batch {
    term: Term,
    first: Index,
    count: u32,
    /// Whether an entry among them changes the membership: rules look at every batch, and into few.
    changes: bool,
    /// Whether some of them are outlines.
    outlined: bool,
    bytes: Bytes,
}

impl Batch {
    /// Checks the framing, every identity and every checksum of records that came from outside.
    ///
    /// # Errors
    /// Names what is wrong and at which byte, if `bytes` is anything but whole, undamaged records of one term with
    /// consecutive indexes, chained to each other.
    pub fn parse(bytes: Bytes, checksum: Checksum) -> Result<Self, Malformed> {
        let head = Head::read(&bytes, 0, checksum)?;
        let (mut at, mut count, mut chained) = (0, 0u32, head.previous_checksum);
        let (mut changes, mut outlined) = (false, false);
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
            outlined |= this.kind == Kind::Outline;
            at = end + TRAILER_BYTES;
            count += 1;
        }
        Ok(Self { term: head.id.term, first: head.id.index, count, changes, outlined, bytes })
    }

    /// The term of every entry in it.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// The index of its first entry.
    #[must_use]
    pub fn first(&self) -> Index {
        self.first
    }

    /// The index of its last entry.
    #[must_use]
    pub fn last(&self) -> Index {
        self.first.plus(u64::from(self.count) - 1)
    }

    /// The id of its last entry.
    #[must_use]
    pub fn last_id(&self) -> EntryId {
        EntryId::new(self.term, self.last())
    }

    /// How many entries it has; at least 1.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The records, as they lie on disk and on the wire.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The checksum of the record before the first of these.
    #[must_use]
    pub fn previous_checksum(&self) -> u32 {
        read_u32(&self.bytes, 28)
    }

    /// The checksum of the last of these records: what the next one chains to.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        read_u32(&self.bytes, self.bytes.len() - TRAILER_BYTES)
    }

    /// The records, in order.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut at = 0;
        core::iter::from_fn(move || {
            (at < self.bytes.len()).then(|| {
                let end = record_end(&self.bytes, at);
                let record = &self.bytes[at..end];
                at = end;
                Record {
                    id: EntryId::new(self.term, Index(read_u64(record, 16))),
                    kind: Kind::from_byte(record[24]).unwrap_or(Kind::Noop),
                    previous_checksum: read_u32(record, 28),
                    checksum: read_u32(record, record.len() - TRAILER_BYTES),
                    payload: &record[HEADER_BYTES..record.len() - TRAILER_BYTES],
                }
            })
        })
    }

    /// The configurations among the entries, in order, each with its index.
    ///
    /// # Errors
    /// If one of them is none: cut off, or without voters.
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

    /// The entries from `index` on, sharing the bytes; `None` if there is none.
    #[must_use]
    pub fn from(&self, index: Index) -> Option<Self> {
        if index <= self.first {
            return Some(self.clone());
        }
        let skip = u32::try_from(index.since(self.first)).ok().filter(|skip| *skip < self.count)?;
        let at = self.offset_of(skip);
        Some(self.slice(index, self.count - skip, self.bytes.slice(at..)))
    }

    /// The entries up to and including `index`, sharing the bytes; `None` if there is none.
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

    /// As many of the first entries as fit into `bytes_max`, and always one.
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

    /// Whether some of the entries are outlines, of which a witness kept no more.
    #[must_use]
    pub fn is_outlined(&self) -> bool {
        self.outlined
    }

    /// The same entries as a witness keeps them: commands as outlines, what the rules themselves need whole.
    #[must_use]
    pub fn outline(&self, checksum: Checksum) -> Self {
        let is_outlined = |kind| matches!(kind, Kind::Command | Kind::Session);
        if !self.records().any(|record| is_outlined(record.kind)) {
            return self.clone();
        }
        let mut bytes = BytesMut::with_capacity(self.count as usize * (OVERHEAD_BYTES + OUTLINE_BYTES));
        let mut at = 0;
        for record in self.records() {
            let end = record_end(&self.bytes, at);
            if is_outlined(record.kind) {
                let header = header(checksum, record.id, Kind::Outline, OUTLINE_BYTES, record.previous_checksum);
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
        Self { outlined: true, bytes: bytes.freeze(), ..self.clone() }
    }

    fn slice(&self, first: Index, count: u32, bytes: Bytes) -> Self {
        let mut slice = Self { term: self.term, first, count, changes: false, outlined: false, bytes };
        slice.changes = self.changes && slice.records().any(|record| record.kind == Kind::Membership);
        slice.outlined = self.outlined && slice.records().any(|record| record.kind == Kind::Outline);
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

/// Lays out a batch, entry by entry, in one buffer.
#[derive(Debug)]
pub struct BatchBuilder {
    term: Term,
    first: Index,
    count: u32,
    changes: bool,
    chained: u32,
    bytes: BytesMut,
    checksum: Checksum,
}

impl BatchBuilder {
    /// A batch of `term` that begins at `first` and chains to a record with checksum `previous`.
    #[must_use]
    pub fn new(checksum: Checksum, term: Term, first: Index, previous: u32, capacity_bytes: usize) -> Self {
        let bytes = BytesMut::with_capacity(capacity_bytes);
        Self { term, first, count: 0, changes: false, chained: previous, bytes, checksum }
    }

    /// Adds an entry behind the others; never an outline, which stands for one that there is.
    ///
    /// # Panics
    /// If the payload has 4 GiB or more; callers bound payloads far below.
    pub fn push(&mut self, kind: Kind, payload: &[u8]) {
        self.push_parts(kind, &[], payload);
    }

    /// The same, with a payload in two parts, one behind the other.
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
        self.count += 1;
    }

    /// How many bytes it has so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was pushed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The batch; `None` if nothing was pushed.
    #[must_use]
    pub fn finish(self) -> Option<Batch> {
        (self.count > 0).then(|| Batch {
            term: self.term,
            first: self.first,
            count: self.count,
            changes: self.changes,
            outlined: false,
            bytes: self.bytes.freeze(),
        })
    }
}

/// A record's header, checked by itself: what recovery has when the payload is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The entry's id.
    pub id: EntryId,
    /// The group it belongs to.
    pub group: Group,
    /// What it is for.
    pub kind: Kind,
    /// The payload's length.
    pub payload_bytes: usize,
    /// The checksum of the record before.
    pub previous_checksum: u32,
    /// The header's own checksum, from which the payload's continues.
    pub header_checksum: u32,
}

impl Head {
    /// Reads the header at `offset` of `bytes` and checks that it is undamaged and that the whole record lies inside.
    ///
    /// # Errors
    /// If it is not.
    pub fn read(bytes: &[u8], offset: usize, checksum: Checksum) -> Result<Self, Malformed> {
        let fail = |what| Malformed { offset, what };
        let header = bytes.get(offset..offset + HEADER_BYTES).ok_or(fail("cut off"))?;
        let header_checksum = read_u32(header, 32);
        if checksum(0, &header[..32]) != header_checksum {
            return Err(fail("header checksum"));
        }
        let kind = Kind::from_byte(header[24]).filter(|_| header[25..28] == [0; 3]).ok_or(fail("kind"))?;
        let id = EntryId::new(Term(read_u64(header, 8)), Index(read_u64(header, 16)));
        if id.index.next() == id.index {
            // Nothing could follow it: rules count on an index behind each.
            return Err(fail("identity"));
        }
        let payload_bytes = read_u32(header, 0) as usize;
        if bytes.len() - offset - HEADER_BYTES < payload_bytes.saturating_add(TRAILER_BYTES) {
            return Err(fail("cut off"));
        }
        Ok(Self {
            id,
            group: Group(read_u32(header, 4)),
            kind,
            payload_bytes,
            previous_checksum: read_u32(header, 28),
            header_checksum,
        })
    }

    /// Bytes of the whole record.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        OVERHEAD_BYTES + self.payload_bytes
    }
}

/// Bytes that are not a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Where, from the start of the bytes.
    pub offset: usize,
    /// What was wrong there.
    pub what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed record at byte {}: {}", self.offset, self.what)
    }
}

impl core::error::Error for Malformed {}

/// What the checksum of a record with this header and payload must be: computed, or, of an outline, what it says. `None` of an
/// outline that is damaged, or none.
#[must_use]
pub fn record_checksum(checksum: Checksum, kind: u8, header_checksum: u32, payload: &[u8]) -> Option<u32> {
    if kind != Kind::Outline as u8 {
        return Some(checksum(header_checksum, payload));
    }
    let (of, own) = payload.split_first_chunk::<4>()?;
    (*own == checksum(header_checksum, of).to_le_bytes()).then(|| u32::from_le_bytes(*of))
}

/// Lays out a header.
fn header(checksum: Checksum, id: EntryId, kind: Kind, payload_bytes: usize, previous: u32) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(payload_bytes).expect("a payload is bounded far below 4 GiB");
    let mut header = [0u8; HEADER_BYTES];
    header[0..4].copy_from_slice(&length.to_le_bytes());
    header[8..16].copy_from_slice(&id.term.0.to_le_bytes());
    header[16..24].copy_from_slice(&id.index.0.to_le_bytes());
    header[24] = kind as u8;
    header[28..32].copy_from_slice(&previous.to_le_bytes());
    let header_checksum = checksum(0, &header[..32]);
    header[32..36].copy_from_slice(&header_checksum.to_le_bytes());
    header
}

fn record_end(bytes: &[u8], at: usize) -> usize {
    at + OVERHEAD_BYTES + read_u32(bytes, at) as usize
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(read_u32(bytes, at)) | u64::from(read_u32(bytes, at + 4)) << 32
}
