//! The header of a segment.

use super::{BLOCK_BYTES, Failure, Identity, Outcome, SealedBlock, Sizes, slot::Slot, torn_tail};
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
    /// Start of the table of slots.
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
            return Self { slots_at: SLOTS_AT, slots_bytes: 0, records_at: SLOTS_AT, capacity };
        }
        let share = (sizes.segment / SLOTS_SHARE).next_multiple_of(512);
        let slots_bytes = share.max(((slots_min + 1) * Slot::BYTES as u64).next_multiple_of(512));
        let records_at = SLOTS_AT + slots_bytes + sizes.gap.next_multiple_of(512);
        let capacity = records_at + bytes_min.max(sizes.segment - share);
        Self { slots_at: SLOTS_AT, slots_bytes, records_at, capacity }
    }

    /// The most entries that it may have. One slot more is kept free, for the proof after the last.
    pub(crate) fn slots(&self) -> u64 {
        match self.slots_bytes {
            0 => u64::MAX,
            bytes => (bytes / Slot::BYTES as u64).saturating_sub(1),
        }
    }
}

impl Header {
    const MAGIC: [u8; 8] = *b"QUORSEGM";
    const VERSION: u32 = 6;
    /// Feature: no older segment counts.
    const STARTS_OVER: u32 = 1;
    const FEATURES: u32 = Self::STARTS_OVER;

    /// The index of its first entry.
    pub fn first(&self) -> Index {
        self.previous.index.next()
    }

    /// The block at the start of the file, closed by its checksum.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let starts_over = if self.starts_over { Self::STARTS_OVER } else { 0 };
        SealedBlock::new(Self::MAGIC)
            .put_u32(8, Self::VERSION)
            .put_u32(12, starts_over)
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
        let is_aligned = layout.slots_at.is_multiple_of(torn_tail::SECTOR as u64)
            && layout.records_at.is_multiple_of(torn_tail::ALIGNMENT as u64);
        let fits =
            layout.slots_at >= SLOTS_AT && is_aligned && layout.slots_bytes > 0 && slots_end <= layout.records_at;
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
