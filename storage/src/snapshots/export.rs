//! Exports: a snapshot from any storage as a stream of bytes, the same as the file
//! of a [`SnapshotStore`](super::SnapshotStore).

use super::format::{self, CHECKSUM_BYTES, CHUNK_BYTES, Layout};
use crate::{
    contract::{SnapshotSource, StorageError},
    wal::{BLOCK_BYTES, CLUSTER_BYTES_MAX, Identity},
};
use bytes::{Bytes, BytesMut};
use quorate_raft::{NodeId, Snapshot};

/// A snapshot's file, piece by piece, for a backup. `FORMAT.md` has the layout, and
/// [`Backup`](super::Backup) reads it.
///
/// **Blocks** while it reads, and **is bounded**: it holds one piece, 256 KiB. An error is the last
/// item; without one the bytes are a whole file.
pub struct Export {
    source: Box<dyn SnapshotSource>,
    layout: Layout,
    head: Option<Bytes>,
    /// Bytes of state in the returned pieces.
    bytes: u64,
    checksum: u32,
    is_over: bool,
}

impl Export {
    /// The file of a snapshot of this cluster and member.
    ///
    /// # Errors
    /// If the cluster's name is longer than 255 bytes.
    pub fn new(source: Box<dyn SnapshotSource>, cluster: &str, member: NodeId) -> Result<Self, StorageError> {
        if cluster.len() > CLUSTER_BYTES_MAX {
            let what = format!("the cluster's name has more than {CLUSTER_BYTES_MAX} bytes; choose a shorter one");
            return Err(StorageError::new(what));
        }
        let identity = Identity { cluster: cluster.to_owned(), member };
        let (head, layout) = format::head(&source.snapshot().base, &identity, CHUNK_BYTES);
        Ok(Self { source, layout, head: Some(head.into()), bytes: 0, checksum: 0, is_over: false })
    }

    /// The snapshot that is exported.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        self.source.snapshot()
    }

    /// The size of all pieces together, in bytes.
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
            return Err(StorageError::new(what));
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
