//! A group: the entries of one sync, written at once. A mark, the records, and after a gap the slots
//! that identify them.
//!
//! | at | content |
//! | --- | --- |
//! | a multiple of 8 | the mark |
//! | 32 bytes after it | the records |
//! | at least a sector after the last record | a slot for each of them |
//!
//! So the loss of one sector never takes a record and its slot, and a write that was cut off leaves
//! no slot without its record.

use super::{
    read_u32, read_u64,
    slot::Slot,
    torn_tail::{ALIGNMENT, SECTOR},
};

/// The start of a group. It proves that all groups before it were synced, because no record is
/// written before the sync of all preceding ones succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The sequence of its segment.
    pub segment: u64,
    /// Counts the marks of a segment, from 0.
    pub number: u32,
    /// The number of its records.
    pub count: u32,
    /// Bytes of its records.
    pub bytes: u32,
}

impl Mark {
    /// The size of a mark in the file.
    pub const BYTES: usize = 32;
    /// The first bytes of a mark.
    pub const MAGIC: [u8; 8] = *b"QUORMARK";

    /// The bytes of the mark, closed by its checksum.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut mark = [0; Self::BYTES];
        mark[..8].copy_from_slice(&Self::MAGIC);
        mark[8..16].copy_from_slice(&self.segment.to_le_bytes());
        mark[16..20].copy_from_slice(&self.number.to_le_bytes());
        mark[20..24].copy_from_slice(&self.count.to_le_bytes());
        mark[24..28].copy_from_slice(&self.bytes.to_le_bytes());
        let sum = crate::checksum(0, &mark[..28]);
        mark[28..].copy_from_slice(&sum.to_le_bytes());
        mark
    }

    /// The mark at `at`, if there is one of this segment.
    pub(crate) fn decode(bytes: &[u8], at: usize, segment: u64) -> Option<Self> {
        let mark = bytes.get(at..at.checked_add(Self::BYTES)?)?;
        let whole = mark[..8] == Self::MAGIC && crate::checksum(0, &mark[..28]) == read_u32(mark, 28);
        let found = Self {
            segment: read_u64(mark, 8),
            number: read_u32(mark, 16),
            count: read_u32(mark, 20),
            bytes: read_u32(mark, 24),
        };
        (whole && found.segment == segment).then_some(found)
    }

    /// The extent of its group, if it is at `at`.
    pub fn extent(&self, at: u64) -> Extent {
        Extent::of(at.saturating_add(Self::BYTES as u64 + u64::from(self.bytes)), u64::from(self.count))
    }
}

/// The end of a group, by offset in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The end of its last record.
    pub records_end: u64,
    /// Start of its slots.
    pub slots_at: u64,
    /// The end of its last slot: start of the next group.
    pub end: u64,
}

impl Extent {
    /// The extent of a group of `count` records that end at `records_end`.
    pub fn of(records_end: u64, count: u64) -> Self {
        let after = records_end.saturating_add(SECTOR as u64);
        let slots_at = after.saturating_add(ALIGNMENT as u64 - 1) & !(ALIGNMENT as u64 - 1);
        let end = slots_at.saturating_add(count.saturating_mul(Slot::BYTES as u64));
        Self { records_end, slots_at, end }
    }

    /// Nothing before the first group, at `at`.
    pub fn nothing(at: u64) -> Self {
        Self { records_end: at, slots_at: at, end: at }
    }
}

/// The bytes of a group of `count` records of this size.
pub(crate) fn bytes(records: u64, count: u64) -> u64 {
    Extent::of(Mark::BYTES as u64 + records, count).end
}
