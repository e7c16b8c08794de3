//! Backups: a snapshot's file outside of any member's directory.

#[cfg(test)]
mod tests;

use super::{
    flaw::{Flaw, trouble},
    source::FileSource,
};
use crate::{
    contract::{SnapshotSource, StorageError, StorageOp},
    disk::{Disk, RealDisk},
    wal::Identity,
};
use quorate_raft::{NodeId, Snapshot};
use std::{io, path::Path};

/// A backup: a snapshot's file, read to its last byte and undamaged. Made by an
/// [`Export`](super::Export), or a copy of a `*.snapshot` file of a member's directory.
pub struct Backup {
    source: FileSource,
    identity: Identity,
}

impl Backup {
    /// Opens a file, and checks every byte of it.
    ///
    /// # Errors
    /// If it can't be read, is no snapshot's file, is cut off or damaged, or comes from
    /// a newer program.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::open_on(&RealDisk, path)
    }

    /// [`Backup::open`] on a given disk.
    ///
    /// # Errors
    /// As [`Backup::open`].
    pub fn open_on(disk: &dyn Disk, path: impl AsRef<Path>) -> Result<Self, StorageError> {
        let path = path.as_ref();
        let file = disk.open_to_read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                StorageError::new(format!("there is no {}; name a backup's file", path.display()))
            }
            _ => trouble(StorageOp::Open, path)(error),
        })?;
        let read = FileSource::read(file, path, None).and_then(|(mut source, identity)| {
            source.verify()?;
            Ok(Self { source, identity })
        });
        read.map_err(|flaw| match flaw {
            Flaw::Damaged(what) => StorageError::new(format!("{what}; use another backup")),
            Flaw::Refused(error) | Flaw::Short(error) => error,
        })
    }

    /// The identity of the snapshot: last entry, membership, size and checksum.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        self.source.snapshot()
    }

    /// The cluster that the snapshot is of.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.identity.cluster
    }

    /// The member that took the snapshot.
    #[must_use]
    pub fn member(&self) -> NodeId {
        self.identity.member
    }

    /// The size of the file in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.source.file_bytes()
    }

    /// A source to read the state from.
    #[must_use]
    pub fn into_source(self) -> Box<dyn SnapshotSource> {
        Box::new(self.source)
    }
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup").field("of", &self.identity).field("snapshot", self.snapshot()).finish()
    }
}
