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
    operation: &'static str,
    path: Option<PathBuf>,
    error: io::Error,
}

impl StorageError {
    /// An error of the store itself, such as damaged or foreign data.
    #[must_use]
    pub fn new(line: impl Into<String>) -> Self {
        Self { line: line.into(), cause: None }
    }

    /// An error of the operating system. `operation` is a verb, and `remedy` tells the operator
    /// what to do.
    #[must_use]
    pub fn io(operation: &'static str, path: &Path, error: io::Error, remedy: &str) -> Self {
        let line = format!("can't {operation} {}: {error}; {remedy}", path.display());
        Self::caused(line, operation, Some(path.to_owned()), error)
    }

    pub(crate) fn caused(line: String, operation: &'static str, path: Option<PathBuf>, error: io::Error) -> Self {
        Self { line, cause: Some(Arc::new(Cause { operation, path, error })) }
    }

    /// The same cause with another line.
    pub(crate) fn with_line(self, line: String) -> Self {
        Self { line, ..self }
    }

    /// The operation that failed, such as `open`, `write` or `sync`, if it was one of the operating
    /// system.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
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

/// The error that a [`SnapshotSink`](super::SnapshotSink) returns from a write holds one of these.
impl From<io::Error> for StorageError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(inner) => inner,
            Err(error) => Self::caused(error.to_string(), "write", None, error),
        }
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
        let error = StorageError::io("open", Path::new("data/1"), os(), "give the user access");
        assert_eq!(error.to_string(), format!("can't open data/1: {}; give the user access", os()));
        assert_eq!((error.operation(), error.path()), (Some("open"), Some(Path::new("data/1"))));
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::PermissionDenied));

        let other = error.clone().with_line("remove it".into());
        assert_eq!((other.to_string(), other.operation()), ("remove it".into(), Some("open")));
        assert_ne!(other, error);
    }

    #[test]
    fn an_error_of_the_store_has_no_source_and_is_found_within_an_error_of_io() {
        let error = StorageError::new("the log is damaged");
        assert!(error.source().is_none() && error.operation().is_none() && error.path().is_none());
        assert_eq!(StorageError::from(io::Error::other(error.clone())), error);
        let full = StorageError::from(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.io_error().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
    }
}
