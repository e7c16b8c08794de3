//! The bytes of a snapshot's file: a head, chunks, a footer. `FORMAT.md` has them in a table.
//!
//! Each chunk is followed by the checksum of the state from its first byte up to there. So one pass
//! computes the checksums of all chunks and of the whole state; a chunk can be read and checked by
//! itself, because the checksum that it continues is right before it; and a chunk in a wrong place
//! does not fit.

use super::flaw::{Flaw, trouble};
use crate::{
    contract::StorageOp,
    disk::File,
    wal::{BLOCK_BYTES, Identity, SealedBlock, read_u32},
};
use quorate_raft::{EntryId, Index, Membership, NodeId, Snapshot, SnapshotBase, Term};
use std::path::Path;

/// Bytes of state in a chunk: enough for a disk to be fast, few enough to hold one in memory.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// Bound on what a header may say, against allocating for a damaged one.
const CHUNK_BYTES_MAX: usize = 16 << 20;
/// Size of the checksum after a chunk.
pub const CHECKSUM_BYTES: usize = 4;

const MAGIC_HEAD: [u8; 8] = *b"QUORSNAP";
const MAGIC_FOOT: [u8; 8] = *b"QUORDONE";
const VERSION: u32 = 2;
/// Alignment of the first chunk.
const PAGE_BYTES: usize = 4096;

/// The layout of a file, from its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Offset of the first chunk.
    pub(super) chunks_at: u64,
    /// Bytes of state in every chunk but the last.
    pub(super) chunk_bytes: usize,
    /// The head's checksum, which the footer repeats. It covers the membership; the header block is
    /// covered by its own checksum alone (see `FORMAT.md`).
    head_checksum: u32,
}

impl Layout {
    /// Offset of a chunk.
    pub(super) fn chunk_at(&self, number: u64) -> u64 {
        self.chunks_at + number * (self.chunk_bytes + CHECKSUM_BYTES) as u64
    }

    /// Offset of the footer, for a state of this size.
    pub(super) fn foot_at(&self, state_bytes: u64) -> u64 {
        let chunks = state_bytes.div_ceil(self.chunk_bytes as u64);
        self.chunks_at + state_bytes + chunks * CHECKSUM_BYTES as u64
    }
}

/// The head: owner, last entry covered, membership.
pub fn head(base: &SnapshotBase, identity: &Identity, chunk_bytes: usize) -> (Vec<u8>, Layout) {
    let membership = base.membership.encode();
    let chunks_at = (BLOCK_BYTES + membership.len() + CHECKSUM_BYTES).next_multiple_of(PAGE_BYTES);
    let block = SealedBlock::new(MAGIC_HEAD)
        .put_u32(8, VERSION)
        .put_u64(16, base.last.index.0)
        .put_u64(24, base.last.term.0)
        .put_u64(32, identity.member.0)
        .put_u32(40, base.last_checksum)
        .put_u32(44, chunk_bytes as u32)
        .put_u32(48, membership.len() as u32)
        .put_u32(52, chunks_at as u32)
        .put_name(56, &identity.cluster)
        .put_u64(312, base.membership_index.0)
        .close();
    let mut head = Vec::with_capacity(chunks_at);
    head.extend_from_slice(&block);
    head.extend_from_slice(&membership);
    head.resize(chunks_at - CHECKSUM_BYTES, 0);
    let head_checksum = crate::checksum(0, &head);
    head.extend_from_slice(&head_checksum.to_le_bytes());
    (head, Layout { chunks_at: chunks_at as u64, chunk_bytes, head_checksum })
}

/// The footer: size and checksum of the state.
pub fn foot(layout: &Layout, state_bytes: u64, checksum: u32) -> [u8; BLOCK_BYTES] {
    SealedBlock::new(MAGIC_FOOT).put_u32(8, layout.head_checksum).put_u32(12, checksum).put_u64(16, state_bytes).close()
}

/// Reads head and footer, and checks that they are undamaged, belong together, and have room for
/// all chunks between them; and that the owner is `wanted`, if given. Returns the owner.
pub(super) fn read(
    file: &dyn File,
    path: &Path,
    wanted: Option<&Identity>,
) -> Result<(Snapshot, Layout, Identity), Flaw> {
    let length = file.length().map_err(trouble(StorageOp::Open, path)).map_err(Flaw::Refused)?;
    let block = read_exactly(file, path, 0, BLOCK_BYTES)?;
    let Some(block) = SealedBlock::read(&block, MAGIC_HEAD) else { return Err(Flaw::damaged(path, 0, "the header")) };
    let (version, features) = (block.u32(8), block.u32(12));
    if version != VERSION || features != 0 {
        return Err(Flaw::refused(format_args!(
            "{} has version {version} and features {features:#x}, this program knows {VERSION} and none; \
             start it with the program that wrote it",
            path.display()
        )));
    }
    let (chunk_bytes, membership_bytes, chunks_at) = (block.u32(44) as usize, block.u32(48) as usize, block.u32(52));
    let is_sound = (1..=CHUNK_BYTES_MAX).contains(&chunk_bytes)
        && BLOCK_BYTES + membership_bytes + CHECKSUM_BYTES <= chunks_at as usize
        && u64::from(chunks_at) + BLOCK_BYTES as u64 <= length;
    if !is_sound {
        return Err(Flaw::damaged(path, 44, format_args!("the file has {length} bytes, which its header doesn't fit")));
    }
    let head = read_exactly(file, path, 0, chunks_at as usize)?;
    let head_checksum = read_u32(&head, head.len() - CHECKSUM_BYTES);
    if crate::checksum(0, &head[..head.len() - CHECKSUM_BYTES]) != head_checksum {
        return Err(Flaw::damaged(path, BLOCK_BYTES as u64, "the membership"));
    }
    let membership = Membership::decode(&head[BLOCK_BYTES..BLOCK_BYTES + membership_bytes])
        .map_err(|malformed| Flaw::damaged(path, BLOCK_BYTES as u64, malformed))?;
    let Some(cluster) = block.name(56) else { return Err(Flaw::damaged(path, 56, "the cluster's name")) };
    let found = Identity { cluster, member: NodeId(block.u64(32)) };
    if let Some(wanted) = wanted.filter(|wanted| found != **wanted) {
        return Err(Flaw::refused(format_args!(
            "{} belongs to {found}, not to {wanted}; correct the data directory, the node's id or the cluster's name",
            path.display()
        )));
    }
    let layout = Layout { chunks_at: u64::from(chunks_at), chunk_bytes, head_checksum };

    let foot_at = length - BLOCK_BYTES as u64;
    let foot = read_exactly(file, path, foot_at, BLOCK_BYTES)?;
    let foot = SealedBlock::read(&foot, MAGIC_FOOT).filter(|foot| foot.u32(8) == head_checksum);
    let Some(foot) = foot else { return Err(Flaw::damaged(path, foot_at, "the footer")) };
    let (checksum, bytes) = (foot.u32(12), foot.u64(16));
    if bytes > length || layout.foot_at(bytes) != foot_at {
        return Err(Flaw::damaged(path, foot_at, format_args!("a state of {bytes} bytes doesn't end here")));
    }
    let last = EntryId::new(Term(block.u64(24)), Index(block.u64(16)));
    let base = SnapshotBase { last, last_checksum: block.u32(40), membership, membership_index: Index(block.u64(312)) };
    Ok((Snapshot { base, bytes, checksum }, layout, found))
}

/// Reads `bytes` bytes of a file. An unreadable file counts as damaged, because another
/// snapshot may do.
fn read_exactly(file: &dyn File, path: &Path, offset: u64, bytes: usize) -> Result<Vec<u8>, Flaw> {
    let mut buffer = vec![0; bytes];
    fill(file, path, offset, &mut buffer)?;
    Ok(buffer)
}

/// Like [`read_exactly`], into a buffer.
pub(super) fn fill(file: &dyn File, path: &Path, offset: u64, buffer: &mut [u8]) -> Result<(), Flaw> {
    match file.read_at(buffer, offset) {
        Ok(count) if count == buffer.len() => Ok(()),
        Ok(count) => Err(Flaw::damaged(path, offset + count as u64, "the file ends here")),
        Err(error) => Err(Flaw::damaged(path, offset, format_args!("can't read {} bytes: {error}", buffer.len()))),
    }
}
