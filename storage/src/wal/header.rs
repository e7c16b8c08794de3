//! The header of a segment, and the mark before each group of records.

use super::{BLOCK_BYTES, Failure, Identity, Outcome, SealedBlock, Sizes, read_u32, read_u64, slot::Slot, torn_tail};
use crate::disk::File;
use quorate_raft::{EntryId, Index, NodeId, Term};
use std::path::Path;

/// The header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The owner of the log.
    pub identity: Identity,
    /// At least one more than the preceding segment's. Of two segments with the same index, the one
    /// with the higher sequence counts.
    pub sequence: u64,
    /// The entry before the segment's first one.
    pub previous: EntryId,
    /// That entry's checksum.
    pub previous_checksum: u32,
    /// Whether the log starts over here, after a snapshot: no older segment counts.
    pub starts_over: bool,
    /// The places of its parts.
    pub layout: Layout,
    /// The number of bytes from `records_at` on that were synced before the file got its name:
    /// damage among them is never a torn write.
    pub published_bytes: u64,
}

/// The parts of a segment, by offset and size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Start of the table of slots; 0 if there is none, as in segments of an earlier program.
    pub slots_at: u64,
    /// The size of the table of slots.
    pub slots_bytes: u64,
    /// Start of the records.
    pub records_at: u64,
    /// The length of the file while it is the newest.
    pub capacity: u64,
}

/// Offset of the header's second copy, on a page of its own.
pub const COPY_AT: usize = 4096;
/// Start of the slots in new segments: after the two copies of the header.
pub(super) const SLOTS_AT: u64 = 8192;
/// The table of slots has this fraction of a segment: enough for records of 280 bytes on average.
const SLOTS_SHARE: u64 = 8;

impl Layout {
    /// Room for the configured size, and for at least this many slots and bytes of
    /// marks and records.
    pub(crate) fn of(sizes: Sizes, slots_min: u64, bytes_min: u64) -> Self {
        if !sizes.has_slots {
            let capacity = SLOTS_AT + bytes_min.max(sizes.segment);
            return Self { slots_at: 0, slots_bytes: 0, records_at: SLOTS_AT, capacity };
        }
        let share = (sizes.segment / SLOTS_SHARE).next_multiple_of(512);
        let slots_bytes = share.max(((slots_min + 1) * Slot::BYTES as u64).next_multiple_of(512));
        let records_at = SLOTS_AT + slots_bytes + sizes.gap;
        let capacity = records_at + bytes_min.max(sizes.segment - share);
        Self { slots_at: SLOTS_AT, slots_bytes, records_at, capacity }
    }

    /// The most entries that it may have. One slot more is kept free, for the proof after
    /// the last entry.
    pub(crate) fn slots(&self) -> u64 {
        match self.slots_bytes {
            0 => u64::MAX,
            bytes => (bytes / Slot::BYTES as u64).saturating_sub(1),
        }
    }
}

impl Header {
    const MAGIC: [u8; 8] = *b"QUORSEGM";
    const VERSION: u32 = 5;
    /// Feature: slots, and a second copy of the header.
    const SLOTS: u32 = 1;
    /// Feature: no older segment counts.
    const STARTS_OVER: u32 = 2;
    const FEATURES: u32 = Self::SLOTS | Self::STARTS_OVER;

    /// The index of its first entry.
    pub fn first(&self) -> Index {
        self.previous.index.next()
    }

    /// Whether it has slots, and with them a second copy of its header.
    pub(crate) fn has_slots(&self) -> bool {
        self.layout.slots_bytes > 0
    }

    /// The block at the start of the file, closed by its checksum.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let slots = if self.has_slots() { Self::SLOTS } else { 0 };
        let starts_over = if self.starts_over { Self::STARTS_OVER } else { 0 };
        SealedBlock::new(Self::MAGIC)
            .put_u32(8, Self::VERSION)
            .put_u32(12, slots | starts_over)
            .put_u64(16, self.sequence)
            .put_u64(24, self.identity.member.0)
            .put_u64(32, self.first().0)
            .put_u64(40, self.previous.term.0)
            .put_u32(48, self.previous_checksum)
            .put_u64(56, self.layout.slots_at)
            .put_u64(64, self.layout.slots_bytes)
            .put_u64(72, self.layout.records_at)
            .put_u64(80, self.published_bytes)
            .put_u64(88, self.layout.capacity)
            .put_name(96, &self.identity.cluster)
            .close()
    }

    /// The owner of a segment, from either copy of its header; `None` if neither can be read.
    pub(crate) fn owner(file: &dyn File) -> Option<Identity> {
        let copy = |at: usize| {
            let mut block = [0; BLOCK_BYTES];
            file.read_at(&mut block, at as u64).ok()?;
            Self::decode(&block).ok()
        };
        Some(copy(0).or_else(|| copy(COPY_AT))?.identity)
    }

    /// Refuses a segment that begins with `bytes` if a good copy of its header has another version,
    /// or a feature that this program does not know. It comes before [`Header::decode`], because
    /// every error of that counts as damage.
    pub(super) fn refuse_foreign(bytes: &[u8], path: &Path) -> Outcome<()> {
        let copies = SealedBlock::copies(bytes, [0, COPY_AT], Self::MAGIC);
        SealedBlock::refuse_other_version(&copies, Self::VERSION, path)?;
        match copies.iter().map(|block| block.u32(12) & !Self::FEATURES).find(|unknown| *unknown != 0) {
            Some(unknown) => Err(Failure::open(format_args!(
                "{}: format features {unknown:#x} are of a later program, this one does not know them; start it with the program that wrote it",
                path.display()
            ))),
            None => Ok(()),
        }
    }

    /// The header at the start of `bytes`, or the reason to refuse it.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let block = SealedBlock::read(bytes, Self::MAGIC).ok_or("the header is damaged")?;
        if block.u32(8) != Self::VERSION {
            return Err("the header has a version that this program does not know");
        }
        let features = block.u32(12);
        if features & !Self::FEATURES != 0 {
            return Err("the header has a feature that this program does not know");
        }
        let layout = Layout {
            slots_at: block.u64(56),
            slots_bytes: block.u64(64),
            records_at: block.u64(72),
            capacity: block.u64(88),
        };
        let slots_end = layout.slots_at.checked_add(layout.slots_bytes).ok_or("the header contradicts itself")?;
        let has_slots = features & Self::SLOTS != 0;
        let fits = match has_slots {
            true => {
                let is_aligned = layout.slots_at.is_multiple_of(torn_tail::SECTOR as u64);
                layout.slots_at >= SLOTS_AT && is_aligned && layout.slots_bytes > 0 && slots_end <= layout.records_at
            }
            false => slots_end == 0 && layout.records_at >= BLOCK_BYTES as u64,
        };
        let (first, published_bytes) = (block.u64(32), block.u64(80));
        if !fits || first == 0 || layout.records_at.checked_add(published_bytes).is_none() {
            return Err("the header contradicts itself");
        }
        Ok(Self {
            identity: Identity { member: NodeId(block.u64(24)), cluster: block.name(96).ok_or("the name is no text")? },
            sequence: block.u64(16),
            previous: EntryId::new(Term(block.u64(40)), Index(first - 1)),
            previous_checksum: block.u32(48),
            starts_over: features & Self::STARTS_OVER != 0,
            layout,
            published_bytes,
        })
    }
}

/// The start of a group: the records of one sync. It proves that all bytes before it were synced,
/// because nothing is written before the sync of all preceding writes succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The sequence of its segment.
    pub segment: u64,
    /// Counts the marks of a segment, from 0.
    pub number: u64,
    /// Bytes of records up to the next mark.
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
        mark[16..24].copy_from_slice(&self.number.to_le_bytes());
        mark[24..28].copy_from_slice(&self.bytes.to_le_bytes());
        let sum = crate::checksum(0, &mark[..28]);
        mark[28..].copy_from_slice(&sum.to_le_bytes());
        mark
    }

    /// The mark at `at`, if there is one of this segment.
    pub(crate) fn decode(bytes: &[u8], at: usize, segment: u64) -> Option<Self> {
        let mark = bytes.get(at..at.checked_add(Self::BYTES)?)?;
        let whole = mark[..8] == Self::MAGIC && crate::checksum(0, &mark[..28]) == read_u32(mark, 28);
        let found = Self { segment: read_u64(mark, 8), number: read_u64(mark, 16), bytes: read_u32(mark, 24) };
        (whole && found.segment == segment).then_some(found)
    }
}
