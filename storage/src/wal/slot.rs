//! The identity of an entry in a slot of fixed size: one after the records of its group, written with
//! them, and one in a table far before all records, written after their sync.
//!
//! A slot states the offset and checksum of its record. So an entry with a damaged record keeps its
//! term and index, and a replacement can be checked.

use super::{header::Header, read_u32, read_u64, torn_tail};
use quorate_raft::{
    EntryId, Index, Kind, Term,
    record::{self, Record},
};

/// An entry's second place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The entry that it is for.
    pub id: EntryId,
    /// The checksum of its record.
    pub checksum: u32,
    /// Offset of its record in the file.
    pub offset: u32,
    /// The size of its payload.
    pub payload_bytes: u32,
    /// The number of its [`Kind`].
    pub kind: u8,
    /// Whether the record was already lost when the slot was written, and never proven to
    /// have been synced.
    pub is_unproven: bool,
}

impl Slot {
    /// The size of the smallest record: so a slot is at least as far from its record as the
    /// table is long.
    pub const BYTES: usize = 40;
    const UNPROVEN: u8 = 1;
    const PROOF: u8 = 4;

    /// The slot of a record at `offset` in the file.
    pub fn of(record: &Record<'_>, offset: u64) -> Self {
        Self {
            id: record.id,
            checksum: record.checksum,
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            payload_bytes: u32::try_from(record.payload.len()).unwrap_or(u32::MAX),
            kind: record.kind as u8,
            is_unproven: false,
        }
    }

    /// In the table, `seed` is [`seed`] of the segment: a slot of another one does not count. In a group
    /// it is [`group_seed`].
    pub fn encode(&self, seed: u32) -> [u8; Self::BYTES] {
        let mut slot = [0; Self::BYTES];
        slot[0..4].copy_from_slice(&self.checksum.to_le_bytes());
        slot[4..8].copy_from_slice(&self.offset.to_le_bytes());
        slot[8..16].copy_from_slice(&self.id.term.0.to_le_bytes());
        slot[16..24].copy_from_slice(&self.id.index.0.to_le_bytes());
        slot[24..28].copy_from_slice(&self.payload_bytes.to_le_bytes());
        slot[32] = self.kind;
        slot[33] = if self.is_unproven { Self::UNPROVEN } else { 0 };
        Self::close(slot, seed)
    }

    /// The proof, which follows the last slot in the table: all bytes up to the end of the records, at
    /// `offset`, were synced.
    pub fn proof(next: Index, offset: u64, seed: u32) -> [u8; Self::BYTES] {
        let mut slot = [0; Self::BYTES];
        slot[4..8].copy_from_slice(&u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes());
        slot[16..24].copy_from_slice(&next.0.to_le_bytes());
        slot[33] = Self::PROOF;
        Self::close(slot, seed)
    }

    fn close(mut slot: [u8; Self::BYTES], seed: u32) -> [u8; Self::BYTES] {
        let sum = crate::checksum(seed, &slot[..36]);
        slot[36..].copy_from_slice(&sum.to_le_bytes());
        slot
    }

    /// The slot in these bytes, if it holds.
    pub(crate) fn decode(slot: &[u8], seed: u32) -> Option<Self> {
        let is_whole = slot.len() == Self::BYTES && crate::checksum(seed, &slot[..36]) == read_u32(slot, 36);
        let is_known = || {
            read_u32(slot, 28) == 0 // the group
                && read_u64(slot, 16) < u64::MAX // so that it has a successor
                && slot[32] <= Kind::Internal as u8
                && slot[33] & !Self::UNPROVEN == 0
                && slot[34..36] == [0; 2]
        };
        (is_whole && is_known()).then(|| Self {
            id: EntryId::new(Term(read_u64(slot, 8)), Index(read_u64(slot, 16))),
            checksum: read_u32(slot, 0),
            offset: read_u32(slot, 4),
            payload_bytes: read_u32(slot, 24),
            kind: slot[32],
            is_unproven: slot[33] & Self::UNPROVEN != 0,
        })
    }

    /// Whether this is a slot or a proof in a table: it was written after the sync of a group.
    pub(super) fn proves_sync(slot: &[u8], seed: u32) -> bool {
        Self::decode(slot, seed).is_some()
            || slot == Self::proof(Index(read_u64(slot, 16)), u64::from(read_u32(slot, 4)), seed)
    }

    /// The header that its record must have after a record with this checksum.
    pub fn record_header(&self, previous_checksum: u32) -> [u8; record::HEADER_BYTES] {
        let mut header = [0; record::HEADER_BYTES];
        header[0..4].copy_from_slice(&self.payload_bytes.to_le_bytes());
        header[8..16].copy_from_slice(&self.id.term.0.to_le_bytes());
        header[16..24].copy_from_slice(&self.id.index.0.to_le_bytes());
        header[24] = self.kind;
        header[28..32].copy_from_slice(&previous_checksum.to_le_bytes());
        let sum = crate::checksum(0, &header[..32]);
        header[32..36].copy_from_slice(&sum.to_le_bytes());
        header
    }

    pub(crate) fn record_bytes(&self) -> usize {
        (self.payload_bytes as usize).saturating_add(record::OVERHEAD_BYTES)
    }
}

/// The start of a slot's checksum: that of its segment's sequence.
pub fn seed(sequence: u64) -> u32 {
    crate::checksum(0, &sequence.to_le_bytes())
}

/// The start of the checksum of a slot in a group, after a record with this checksum: a value that
/// looks like a slot does not count, because its client cannot know that checksum.
pub fn group_seed(sequence: u64, previous_checksum: u32) -> u32 {
    crate::checksum(seed(sequence), &previous_checksum.to_le_bytes())
}

/// Offset of an entry's slot in the table; `None` if the table has none for it.
pub fn place(header: &Header, index: Index) -> Option<u64> {
    let places = header.layout.slots_bytes / Slot::BYTES as u64;
    let number = index.0.checked_sub(header.first().0).filter(|number| *number < places)?;
    Some(header.layout.slots_at + number * Slot::BYTES as u64)
}

/// The slots of a segment that was read.
pub struct Table<'a> {
    bytes: &'a [u8],
    first: Index,
    seed: u32,
}

impl std::fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("bytes", &format_args!("{} B", self.bytes.len()))
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

impl<'a> Table<'a> {
    /// The slots of the segment with these bytes and this header.
    pub fn of(segment: &'a [u8], header: &Header) -> Self {
        let at = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(segment.len());
        let bytes = &segment[at(header.layout.slots_at)..at(header.layout.slots_at + header.layout.slots_bytes)];
        Self { bytes, first: header.first(), seed: seed(header.sequence) }
    }

    /// The slot of an entry; `None` if it does not hold.
    pub fn get(&self, index: Index) -> Option<Slot> {
        let at = self.place(index);
        let slot = Slot::decode(self.bytes.get(at..at.checked_add(Slot::BYTES)?)?, self.seed)?;
        (slot.id.index == index).then_some(slot)
    }

    /// Whether the slots from `index` on are empty, but for a proof.
    pub fn is_empty_from(&self, index: Index) -> bool {
        let from = if self.proof(index).is_some() { index.next() } else { index };
        torn_tail::used(self.bytes.get(self.place(from)..).unwrap_or_default()) == 0
    }

    /// The last index whose place has a good slot or a proof.
    pub(super) fn last_written(&self) -> Option<Index> {
        let count = torn_tail::used(self.bytes).div_ceil(Slot::BYTES) as u64;
        let mut written = (self.first.0..self.first.plus(count).0).map(Index).rev();
        written.find(|index| self.get(*index).is_some() || self.proof(*index).is_some())
    }

    /// The offset up to which the records are proven to have been synced, if the slot of `index`
    /// holds a proof.
    pub fn proof(&self, index: Index) -> Option<u32> {
        let at = self.place(index);
        let slot = self.bytes.get(at..at.checked_add(Slot::BYTES)?)?;
        let offset = read_u32(slot, 4);
        (slot == Slot::proof(index, u64::from(offset), self.seed)).then_some(offset)
    }

    /// Whether the slot of `index` has any byte of an entry: it was written, and maybe damaged since.
    pub fn is_used(&self, index: Index) -> bool {
        let at = self.place(index);
        let slot = at.checked_add(Slot::BYTES).and_then(|end| self.bytes.get(at..end));
        slot.is_some_and(|slot| torn_tail::used(slot) > 0) && self.proof(index).is_none()
    }

    /// The indexes from `index` on that have a slot in the table.
    pub fn indexes_from(&self, index: Index) -> impl Iterator<Item = Index> + use<> {
        let count = (self.bytes.len() / Slot::BYTES) as u64;
        (index.0..self.first.plus(count).0).map(Index)
    }

    fn place(&self, index: Index) -> usize {
        usize::try_from(index.since(self.first)).unwrap_or(usize::MAX).saturating_mul(Slot::BYTES)
    }
}
