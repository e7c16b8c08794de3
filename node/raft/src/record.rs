//! The layout of log entries, the same on the leader's disk, on the wire and on
//! the followers' disks.
//!
//! A [`Batch`](crate::Batch) is a run of consecutive entries of **one term** in one contiguous
//! buffer. The leader that accepted the proposals builds it once; after that it is only sliced.
//! A record, little-endian:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | payload length in bytes |
//! | 4 | 4 | group (0) |
//! | 8 | 8 | term |
//! | 16 | 8 | index |
//! | 24 | 1 | kind: 0 no-op, 1 command, 2 membership, 3 session, 4 stub, 5 tick, 6 internal |
//! | 25 | 3 | zero |
//! | 28 | 4 | checksum of the previous record (0 before the first) |
//! | 32 | 4 | checksum of bytes 0..32 |
//! | 36 | length | payload |
//! | 36 + length | 4 | checksum of the payload, continued from the header's: the *record's checksum* |
//!
//! The header's own checksum keeps the framing when a payload is damaged. The record's checksum
//! covers the previous record's, so it is a function of the whole log up to here: two nodes with an
//! equal checksum at an equal entry id hold equal logs, and two with different ones have diverged.
//!
//! Of an entry that the rules do not read, a witness keeps only the identity, as a *stub*: a record whose header differs in
//! kind and length only. Its payload has 8 bytes: the checksum of the original record, then a
//! checksum of the stub itself, which continues from its header's over those 4 bytes. **The trailer
//! repeats the original record's checksum.** So the chain of checksums is that of the whole log,
//! and a witness's log can be compared with any other.
//!
//! The checksum function is an argument (nodes use CRC-32C), because computing it fast is not a
//! rule of Raft.

use crate::{
    entry::{Checksum, Kind, Malformed},
    ids::{EntryId, Group, Index, Term},
};

/// Bytes before a record's payload.
pub const HEADER_BYTES: usize = 36;
/// Bytes after a record's payload.
pub const TRAILER_BYTES: usize = 4;
/// Bytes of a stub's payload.
pub(crate) const STUB_BYTES: usize = 8;
/// Bytes that a record adds to its payload.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TRAILER_BYTES;

/// One entry, borrowed from a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Term and index of the entry.
    pub id: EntryId,
    /// The purpose of the entry.
    pub kind: Kind,
    /// Checksum of the record before it; 0 for the first entry of a log.
    pub previous_checksum: u32,
    /// Checksum of this record, which covers the whole log up to here.
    pub checksum: u32,
    /// The payload, without header and trailer.
    pub payload: &'a [u8],
}

impl core::fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("previous_checksum", &self.previous_checksum)
            .field("checksum", &self.checksum)
            .field("payload", &format_args!("{} B", self.payload.len()))
            .finish()
    }
}

/// A record's header, checked by itself: all that recovery has when the payload is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Term and index of the entry.
    pub id: EntryId,
    /// The Raft group of the entry; always 0.
    pub group: Group,
    /// The purpose of the entry.
    pub kind: Kind,
    /// Length of the payload in bytes.
    pub payload_bytes: usize,
    /// Checksum of the record before it; 0 for the first entry of a log.
    pub previous_checksum: u32,
    /// The header's own checksum, from which the payload's continues.
    pub header_checksum: u32,
}

impl Head {
    /// Reads the header at `offset` of `bytes` and checks that it is undamaged and that the whole
    /// record lies inside `bytes`.
    ///
    /// # Errors
    /// If the record is cut off, a checksum is wrong, the kind is unknown, or the index is
    /// the largest one.
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
            // An entry at the largest index would have no successor, which the rules rely on.
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

    /// Bytes of the whole record: header, payload and trailer.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        OVERHEAD_BYTES + self.payload_bytes
    }
}

/// The checksum that a record with this header and payload must have: computed, or, for a stub,
/// taken from its payload. `None` for a damaged stub.
#[must_use]
pub fn record_checksum(checksum: Checksum, kind: u8, header_checksum: u32, payload: &[u8]) -> Option<u32> {
    if kind != Kind::Stub as u8 {
        return Some(checksum(header_checksum, payload));
    }
    let (of, own) = payload.split_first_chunk::<4>()?;
    (*own == checksum(header_checksum, of).to_le_bytes()).then(|| u32::from_le_bytes(*of))
}

pub(crate) fn header(
    checksum: Checksum,
    id: EntryId,
    kind: Kind,
    payload_bytes: usize,
    previous: u32,
) -> [u8; HEADER_BYTES] {
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

#[inline]
pub(crate) fn record_end(bytes: &[u8], at: usize) -> usize {
    at + OVERHEAD_BYTES + read_u32(bytes, at) as usize
}

#[inline]
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(read(bytes, at))
}

#[inline]
pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(read(bytes, at))
}

/// One bounds check for all bytes: every entry is read by every node, often.
#[inline]
fn read<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut number = [0; N];
    number.copy_from_slice(&bytes[at..at + N]);
    number
}
