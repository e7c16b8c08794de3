//! A snapshot as one stream of bytes: the very file that a [`SnapshotStore`](super::SnapshotStore) would keep it in, from whatever
//! storage it comes.

use super::format::{self, CHECKSUM_BYTES, CHUNK_BYTES, Layout};
use crate::{
    contract::{SnapshotSource, StorageError},
    wal::{BLOCK_BYTES, CLUSTER_BYTES_MAX, Identity},
};
use bytes::{Bytes, BytesMut};
use quorate_raft::{NodeId, Snapshot};

/// A snapshot's file, piece by piece, for a backup: `FORMAT.md` says what it looks like, and [`Backup`](super::Backup) reads it.
///
/// **Blocks** while it reads, and **is bounded**: it holds a piece, 256 KiB. The first error is the last item, and without one the
/// bytes are a whole file.
pub struct Export {
    source: Box<dyn SnapshotSource>,
    layout: Layout,
    head: Option<Bytes>,
    /// Of the state, in the pieces that were given.
    bytes: u64,
    checksum: u32,
    is_over: bool,
}

impl Export {
    /// The file of a snapshot of this cluster, as this member has it.
    ///
    /// # Errors
    /// If the cluster's name is too long for it.
    pub fn new(source: Box<dyn SnapshotSource>, cluster: &str, member: NodeId) -> Result<Self, StorageError> {
        if cluster.len() > CLUSTER_BYTES_MAX {
            let what = format!("the cluster's name has more than {CLUSTER_BYTES_MAX} bytes; choose a shorter one");
            return Err(StorageError(what));
        }
        let identity = Identity { cluster: cluster.to_owned(), member };
        let (head, layout) = format::head(&source.snapshot().base, &identity, CHUNK_BYTES);
        Ok(Self { source, layout, head: Some(head.into()), bytes: 0, checksum: 0, is_over: false })
    }

    /// What it is a file of.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        self.source.snapshot()
    }

    /// How many bytes all pieces have together.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.layout.foot_at(self.snapshot().bytes) + BLOCK_BYTES as u64
    }

    fn piece(&mut self) -> Result<Bytes, StorageError> {
        if let Some(head) = self.head.take() {
            return Ok(head);
        }
        let Snapshot { bytes: whole, checksum, base } = self.source.snapshot();
        let (whole, checksum, last) = (*whole, *checksum, base.last);
        if self.bytes == whole {
            self.is_over = true;
            let foot = format::foot(&self.layout, whole, checksum);
            return Ok(Bytes::copy_from_slice(&foot));
        }
        let length = (whole - self.bytes).min(CHUNK_BYTES as u64) as usize;
        let mut chunk = BytesMut::zeroed(length);
        let count = self.source.read_at(&mut chunk, self.bytes)?;
        self.bytes += count as u64;
        self.checksum = crate::checksum(self.checksum, &chunk[..count]);
        if count < length || self.bytes == whole && self.checksum != checksum {
            let what = format!("the snapshot up to entry {last} is not what the storage says; take another one");
            return Err(StorageError(what));
        }
        chunk.extend_from_slice(&self.checksum.to_le_bytes()[..CHECKSUM_BYTES]);
        Ok(chunk.freeze())
    }
}

impl Iterator for Export {
    type Item = Result<Bytes, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let piece = self.piece();
        self.is_over |= piece.is_err();
        Some(piece)
    }
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("snapshot", self.snapshot()).finish_non_exhaustive()
    }
}
