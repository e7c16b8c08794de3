//! `backup`: a consistent copy of a running cluster's state, in a file.
//!
//! The file is a snapshot as defined in `storage/FORMAT.md`: it contains its cluster, its last
//! entry, and checksums. It gets its final name only once it is completely checked and durable;
//! until then it has a hidden name, and is removed on any error. It never replaces another file.

use crate::{
    client::{Client, ClientError},
    output::PROGRAM,
};
use quorate::storage::{StorageError, snapshots::Backup};
use quorate_progress::{Progress, Unit};
use serde::Serialize;
use std::{
    fmt,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};
use tokio::signal::unix::{SignalKind, signal};

/// The properties of a saved backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Saved {
    /// The path of the file.
    pub file: String,
    /// The length in bytes.
    pub bytes: u64,
    /// The name of the backed-up cluster.
    pub cluster: String,
    /// The node that made the snapshot.
    pub node: quorate::NodeId,
    /// The last entry in it; all writes acknowledged before the request are included.
    pub index: quorate::Index,
    /// The term of that entry.
    pub term: quorate::Term,
    /// The voters at that entry.
    pub voters: Vec<quorate::NodeId>,
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, bytes, cluster, node, index, term, .. } = self;
        write!(f, "{file}: everything up to entry {index}@{term} of cluster {cluster}, from node {node}, {bytes} bytes")
    }
}

/// Saves a backup as `out`.
///
/// # Errors
/// If the file exists, cannot be written, no endpoint delivers a complete backup, or a signal
/// arrives. In these cases no file named `out` is created.
pub async fn save(client: &mut Client, out: &Path) -> Result<Saved, BackupError> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        biased;
        _ = interrupt.recv() => Err(BackupError::Interrupted),
        _ = terminate.recv() => Err(BackupError::Interrupted),
        saved = download(client, out) => saved,
    }
}

async fn download(client: &mut Client, out: &Path) -> Result<Saved, BackupError> {
    let failed = |error: io::Error| BackupError::Write { out: out.to_owned(), error: error.to_string() };
    if out.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(out.to_owned()));
    }
    let Some(name) = out.file_name() else { return Err(failed(io::Error::other("this is not a file name"))) };
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = format!(".{}.", name.to_string_lossy());
    let mut unfinished =
        tempfile::Builder::new().prefix(&prefix).suffix(".unfinished").tempfile_in(dir).map_err(failed)?;

    let (progress, received) = Progress::start(PROGRAM, "backup", Unit::Bytes, None);
    let mut arriving = client.backup().await?;
    if let Some(total) = arriving.bytes_left() {
        received.set_total(total);
    }
    while let Some(piece) = arriving.next().await? {
        unfinished.write_all(&piece).map_err(failed)?;
        received.add(piece.len() as u64);
    }
    drop(progress);
    unfinished.as_file().sync_all().map_err(failed)?;
    let backup = Backup::open(unfinished.path()).map_err(BackupError::Damaged)?;
    let last = backup.snapshot().base.last;
    let saved = Saved {
        file: out.display().to_string(),
        bytes: backup.file_bytes(),
        cluster: backup.cluster().to_owned(),
        node: backup.member(),
        index: last.index,
        term: last.term,
        voters: backup.snapshot().base.membership.voters(),
    };
    unfinished.persist_noclobber(out).map_err(|refused| match refused.error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(out.to_owned()),
        _ => failed(refused.error),
    })?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    Ok(saved)
}

/// An error of `backup`.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file with this name exists.
    #[error("{} exists and is not overwritten; choose another name", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("cannot write {}: {error}; choose another place, or free space", out.display())]
    Write {
        /// The path given by `--out`.
        out: PathBuf,
        /// The system's error message.
        error: String,
    },
    /// No endpoint delivered a backup.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The received file is damaged or incomplete.
    #[error("the received backup is damaged or incomplete; take another one: {0}")]
    Damaged(StorageError),
    /// A signal arrived.
    #[error("interrupted; no backup was saved")]
    Interrupted,
    /// Signal handlers cannot be installed.
    #[error("{0}")]
    Io(#[from] io::Error),
}
