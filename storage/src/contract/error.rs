//! The error of a store.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The reason why a store can't be used: one line with the operation, the place and a remedy.
///
/// An error of the operating system is kept as its `source`, with the operation and the path. Two
/// errors are equal if their lines are.
#[derive(Clone, Debug)]
pub struct StorageError {
    line: String,
    cause: Option<Arc<Cause>>,
}

#[derive(Debug)]
struct Cause {
    operation: StorageOp,
    path: Option<PathBuf>,
    error: io::Error,
}

/// An operation of a store that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StorageOp {
    /// A file was opened or recovered.
    Open,
    /// A file or directory was made.
    Create,
    /// Bytes were read, or the names in a directory.
    Read,
    /// Bytes were written, or space was allocated or given back.
    Write,
    /// A file or directory was synced.
    Sync,
    /// A file got another name.
    Rename,
    /// A file was removed.
    Remove,
    /// A thread was started.
    StartThread,
}

impl StorageOp {
    /// The word for it after "can't", in errors.
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::StartThread => "start a thread for",
        }
    }

    /// Its `op` in the metric `quorate_storage_errors_total`: one of `open`, `read`, `write`, `sync`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Open | Self::Create | Self::StartThread => "open",
            Self::Read => "read",
            Self::Write | Self::Rename | Self::Remove => "write",
            Self::Sync => "sync",
        }
    }
}

impl StorageError {
    /// An error of the store itself, such as damaged or foreign data.
    #[must_use]
    pub fn new(line: impl Into<String>) -> Self {
        Self { line: line.into(), cause: None }
    }

    /// An error of the operating system. `remedy` tells the operator what to do.
    #[must_use]
    pub fn io(operation: StorageOp, path: &Path, error: io::Error, remedy: &str) -> Self {
        let line = format!("can't {} {}: {error}; {remedy}", operation.verb(), path.display());
        Self::caused(line, operation, Some(path.to_owned()), error)
    }

    /// The error of a store that an [`io::Error`] holds, as the `Write` of a
    /// [`SnapshotSink`](super::SnapshotSink) returns it. Any other error is taken as that
    /// of `operation`, in its own words if it has some.
    #[must_use]
    pub fn within(error: io::Error, operation: StorageOp) -> Self {
        match error.downcast::<Self>() {
            Ok(held) => held,
            Err(error) if error.get_ref().is_some() => Self::caused(error.to_string(), operation, None, error),
            Err(error) => Self::caused(format!("can't {}: {error}", operation.verb()), operation, None, error),
        }
    }

    pub(crate) fn caused(line: String, operation: StorageOp, path: Option<PathBuf>, error: io::Error) -> Self {
        Self { line, cause: Some(Arc::new(Cause { operation, path, error })) }
    }

    /// The same cause with another line.
    pub(crate) fn with_line(self, line: String) -> Self {
        Self { line, ..self }
    }

    /// The operation that failed, if it was one of the operating system.
    #[must_use]
    pub fn operation(&self) -> Option<StorageOp> {
        self.cause.as_ref().map(|cause| cause.operation)
    }

    /// The file or directory of that operation, if it had one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.cause.as_ref()?.path.as_deref()
    }

    /// The error of that operation.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        self.cause.as_ref().map(|cause| &cause.error)
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl Error for StorageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.io_error().map(|error| error as &(dyn Error + 'static))
    }
}

impl PartialEq for StorageError {
    fn eq(&self, other: &Self) -> bool {
        self.line == other.line
    }
}

impl Eq for StorageError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_operating_system_is_the_source_and_says_where_it_was() {
        let os = || io::Error::from(io::ErrorKind::PermissionDenied);
        let error = StorageError::io(StorageOp::Open, Path::new("data/1"), os(), "give the user access");
        assert_eq!(error.to_string(), format!("can't open data/1: {}; give the user access", os()));
        assert_eq!((error.operation(), error.path()), (Some(StorageOp::Open), Some(Path::new("data/1"))));
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::PermissionDenied));

        let other = error.clone().with_line("remove it".into());
        assert_eq!((other.to_string(), other.operation()), ("remove it".into(), Some(StorageOp::Open)));
        assert_ne!(other, error);
    }

    #[test]
    fn an_error_of_the_store_has_no_source_and_is_found_within_an_error_of_io() {
        let error = StorageError::new("the log is damaged");
        assert!(error.source().is_none() && error.operation().is_none() && error.path().is_none());
        assert_eq!(StorageError::within(io::Error::other(error.clone()), StorageOp::Read), error);
        let full = StorageError::within(io::Error::from(io::ErrorKind::StorageFull), StorageOp::Rename);
        assert_eq!(
            (full.operation(), full.operation().map(StorageOp::label)),
            (Some(StorageOp::Rename), Some("write"))
        );
        assert_eq!(full.io_error().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
    }
}
