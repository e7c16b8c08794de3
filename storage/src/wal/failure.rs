//! Failures of file operations: the operation, the file and the remedy.

use super::shortage;
use crate::{
    contract::{StorageError, StorageOp},
    disk::{Disk, is_shortage},
};
use std::{fmt, io, path::Path};

/// An error, and the operation that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The operation, for the metrics.
    pub op: StorageOp,
    /// The error, for the operator.
    pub error: StorageError,
    /// Whether there was no space for it.
    pub is_full: bool,
    /// Whether a file, directory or thread could not be opened or started for now, and
    /// nothing was done.
    pub is_shortage: bool,
}

/// A result, or the operation that failed and its error.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure of this operation.
    pub(crate) fn of(op: StorageOp) -> impl FnOnce(StorageError) -> Self {
        move |error| Self { op, error, is_full: false, is_shortage: false }
    }

    pub(crate) fn open(what: impl fmt::Display) -> Self {
        Self::of(StorageOp::Open)(StorageError::new(what.to_string()))
    }

    pub(crate) fn read(what: impl fmt::Display) -> Self {
        Self::of(StorageOp::Read)(StorageError::new(what.to_string()))
    }

    pub(crate) fn write(what: impl fmt::Display) -> Self {
        Self::of(StorageOp::Write)(StorageError::new(what.to_string()))
    }
}

/// Turns an I/O error into a failure that names the operation, the file and a remedy.
pub(crate) fn failed(op: StorageOp, path: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| {
        let remedy = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on it, then start the node again",
            io::ErrorKind::PermissionDenied => "give the node's user read and write access to it",
            io::ErrorKind::ReadOnlyFilesystem => "mount the file system for writing",
            _ if is_shortage(&error) => shortage::REMEDY,
            _ => "check the disk and the kernel log, then start the node again",
        };
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        // Only opening, creating or starting can be tried again: a write or a sync may have been
        // done in part.
        let is_shortage =
            matches!(op, StorageOp::Open | StorageOp::Create | StorageOp::StartThread) && is_shortage(&error);
        let error = StorageError::io(op, path, error, remedy);
        Failure { op, error, is_full, is_shortage }
    }
}

/// Removes a file. That there is none is no failure.
pub(crate) fn remove_if_there(disk: &dyn Disk, path: &Path) -> Outcome<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(StorageOp::Remove, path)(error)),
        _ => Ok(()),
    }
}
