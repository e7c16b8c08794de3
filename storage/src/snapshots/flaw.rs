//! Snapshots that can't be used, and the lines that say why.

use crate::{
    contract::{StorageError, StorageOp},
    disk::is_shortage,
    wal::SHORTAGE_REMEDY,
};
use std::{fmt, io, path::Path};

/// The reason why a snapshot can't be used.
pub(super) enum Flaw {
    /// It is damaged or can't be read: an older one may do, or another node's. The line names file
    /// and offset, and no remedy.
    Damaged(String),
    /// It must not be ignored: it is another member's, or of a newer program.
    Refused(StorageError),
    /// It could not be opened for now; it may be whole.
    Short(StorageError),
}

/// Remedy for a damaged one among others.
pub(super) const REPLACED: &str = "check the disk, a newer snapshot will replace it";

impl Flaw {
    pub(super) fn damaged(path: &Path, offset: u64, what: impl fmt::Display) -> Self {
        let path = path.display();
        Self::Damaged(format!("{path} is damaged at byte {offset}: {what}"))
    }

    pub(super) fn refused(what: impl fmt::Display) -> Self {
        Self::Refused(StorageError::new(what.to_string()))
    }

    pub(super) fn into_error(self) -> StorageError {
        match self {
            Self::Damaged(what) => StorageError::new(format!("{what}; {REPLACED}")),
            Self::Refused(error) | Self::Short(error) => error,
        }
    }
}

/// Turns an I/O error into a line with the operation, the file and a remedy.
pub(super) fn trouble(op: StorageOp, path: &Path) -> impl Fn(io::Error) -> StorageError {
    move |error| {
        let remedy = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on it; the log is as it was",
            io::ErrorKind::PermissionDenied => "give the node's user read and write access to it",
            io::ErrorKind::ReadOnlyFilesystem => "mount the file system for writing",
            _ if is_shortage(&error) => SHORTAGE_REMEDY,
            _ => "check the disk and the kernel log",
        };
        StorageError::io(op, path, error, remedy)
    }
}
