//! Sealed block: fields at fixed places, closed by a checksum. Headers and copies of the hard state
//! are sealed blocks.

use super::{CLUSTER_BYTES_MAX, Failure, Outcome, read_u32, read_u64};
use std::path::Path;

/// Fields of fixed width at fixed places of one 512-byte block, closed by a checksum in its
/// last four bytes.
pub(crate) struct SealedBlock([u8; BLOCK_BYTES]);

/// The size of a block.
pub const BLOCK_BYTES: usize = 512;
const BLOCK_CHECKSUM_AT: usize = BLOCK_BYTES - 4;

impl SealedBlock {
    pub(crate) fn new(magic: [u8; 8]) -> Self {
        let mut block = Self([0; BLOCK_BYTES]);
        block.0[..8].copy_from_slice(&magic);
        block
    }

    pub(crate) fn put_u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn put_u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// A length byte, then the name; callers check that it fits.
    pub(crate) fn put_name(mut self, at: usize, name: &str) -> Self {
        let name = &name.as_bytes()[..name.len().min(CLUSTER_BYTES_MAX)];
        self.0[at] = u8::try_from(name.len()).unwrap_or(u8::MAX);
        self.0[at + 1..at + 1 + name.len()].copy_from_slice(name);
        self
    }

    pub(crate) fn close(mut self) -> [u8; BLOCK_BYTES] {
        let sum = crate::checksum(0, &self.0[..BLOCK_CHECKSUM_AT]);
        self.0[BLOCK_CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
        self.0
    }

    /// The block at the start of `bytes`, if it is complete, undamaged and has this magic.
    pub(crate) fn read(bytes: &[u8], magic: [u8; 8]) -> Option<Self> {
        let block: [u8; BLOCK_BYTES] = bytes.get(..BLOCK_BYTES)?.try_into().ok()?;
        let whole = crate::checksum(0, &block[..BLOCK_CHECKSUM_AT]) == read_u32(&block, BLOCK_CHECKSUM_AT);
        (whole && block[..8] == magic).then_some(Self(block))
    }

    /// The good blocks of this magic among those at `places`.
    pub(super) fn copies(bytes: &[u8], places: impl IntoIterator<Item = usize>, magic: [u8; 8]) -> Vec<Self> {
        places.into_iter().filter_map(|at| Self::read(bytes.get(at..)?, magic)).collect()
    }

    /// Refuses a file if one of the blocks, which are read from it, has another version than
    /// `known`: the data is not damaged, it is another program's.
    pub(super) fn refuse_other_version(copies: &[Self], known: u32, path: &Path) -> Outcome<()> {
        let Some(other) = copies.iter().map(|block| block.u32(8)).find(|version| *version != known) else {
            return Ok(());
        };
        let (path, which) = (path.display(), if other < known { "an earlier" } else { "a later" });
        Err(Failure::open(format_args!(
            "{path}: format version {other} is of {which} program, this one knows {known}; start it with the program that wrote it"
        )))
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        read_u32(&self.0, at)
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        read_u64(&self.0, at)
    }

    pub(crate) fn name(&self, at: usize) -> Option<String> {
        let name = self.0.get(at + 1..at + 1 + usize::from(self.0[at]))?;
        String::from_utf8(name.to_vec()).ok()
    }
}

/// Recomputes the checksum of the block at `at`, if there is room for one.
#[cfg(test)]
pub(crate) fn seal_block(bytes: &mut [u8], at: usize) {
    if let Some(block) = bytes.get_mut(at..at.saturating_add(BLOCK_BYTES)) {
        let sum = crate::checksum(0, &block[..BLOCK_CHECKSUM_AT]);
        block[BLOCK_CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
    }
}
