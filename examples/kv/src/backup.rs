//! `backup`: a consistent copy of a running cluster's state, in a file.
//!
//! The file is a snapshot's, as `storage/FORMAT.md` has it: it says by itself whose it is, up to which entry, and whether it is whole.
//! It gets its name once it was checked to its last byte and is durable; until then it has a hidden one, and is removed if anything
//! goes wrong. It never takes the place of another file.

use crate::client::{Client, ClientError};
use quorate::storage::{StorageError, snapshots::Backup};
use serde::Serialize;
use std::{
    fmt,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};
use tokio::signal::unix::{SignalKind, signal};

/// What was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Saved {
    /// The file.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// The cluster.
    pub cluster: String,
    /// The node that was asked.
    pub node: quorate::NodeId,
    /// The last entry that is in it: everything that was acknowledged when it was asked for.
    pub index: quorate::Index,
    /// Its term.
    pub term: quorate::Term,
    /// Who voted then.
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
/// If there is such a file already, it can't be written, no endpoint gives a whole backup, or a signal comes first. Then there is no
/// such file.
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
    let Some(name) = out.file_name() else { return Err(failed(io::Error::other("that is no file's name"))) };
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = format!(".{}.", name.to_string_lossy());
    let mut unfinished =
        tempfile::Builder::new().prefix(&prefix).suffix(".unfinished").tempfile_in(dir).map_err(failed)?;

    let mut arriving = client.backup().await?;
    while let Some(piece) = arriving.next().await? {
        unfinished.write_all(&piece).map_err(failed)?;
    }
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

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file of this name is there.
    #[error("{} exists and is not overwritten; choose another name", .0.display())]
    Exists(PathBuf),
    /// It can't be written.
    #[error("can't write {}: {error}; choose another place, or make room", out.display())]
    Write {
        /// The file.
        out: PathBuf,
        /// Why.
        error: String,
    },
    /// No endpoint gave one.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What arrived is not whole.
    #[error("what arrived is no whole backup, take another: {0}")]
    Damaged(StorageError),
    /// A signal came.
    #[error("interrupted: there is no backup")]
    Interrupted,
    /// Signals can't be waited for.
    #[error("{0}")]
    Io(#[from] io::Error),
}
