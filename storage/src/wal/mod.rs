//! The write-ahead log: its configuration, and the map of its modules.
//!
//! [`Wal`] is the user's configuration. From the outside in: the `LogWriter` actor
//! (`log_writer.rs`) gathers the requests that arrive during a sync. [`log::Log`] stages them,
//! writes them and syncs once; [`cut`] does log compaction, [`repair`] restores entries that the
//! disk lost, [`headroom`] handles a full disk, [`next_segment`] makes files ahead, [`shortage`]
//! waits for descriptors and threads, and [`place`] notices removed files. [`header`], [`slot`],
//! [`segment`], [`sealed_block`], [`hard_state`] and [`holdings`] lay out the files of `FORMAT.md`.
//! [`scan`] reads a segment, decides entry by entry, and [`torn_tail`] tells a torn write from
//! damage. [`recovery`], [`inventory`] and [`rewrite`] open a log again. [`unfinished`] marks a
//! directory that is not complete yet.
//!
//! **Every entry has two places.** Its record, and its slot (identity and checksum), far from the
//! record. The log survives damage to one of the two: the slot is restored from the record, and a
//! record from another member is checked against the slot.
//!
//! **Never overwritten.** Bytes of a segment change once, from zero to their value, except to
//! restore damaged ones. Truncation starts a new segment, whose first index says from where the
//! older ones no longer count; recovery copies the newest segment into a new one. So no stale
//! records follow the end of the log, and bytes missing from a torn write read as zeros.

mod cut;
mod driven;
pub(crate) mod hard_state;
pub(crate) mod header;
mod headroom;
pub(crate) mod holdings;
mod inventory;
pub(crate) mod log;
mod next_segment;
pub(crate) mod place;
pub(crate) mod recovery;
mod repair;
mod rewrite;
pub(crate) mod scan;
mod sealed_block;
mod segment;
mod shortage;
pub(crate) mod slot;
#[cfg(test)]
mod tests;
mod torn_tail;
pub(crate) mod unfinished;

pub(crate) use header::Header;
pub(crate) use headroom::RETRY_AFTER;
pub(crate) use recovery::LOCK;
pub use sealed_block::BLOCK_BYTES;
pub(crate) use sealed_block::SealedBlock;
#[cfg(test)]
pub(crate) use sealed_block::seal_block;
pub(crate) use segment::Segment;
pub(crate) use shortage::REMEDY as SHORTAGE_REMEDY;
use unfinished::Stage;

use crate::{
    contract::{StorageError, StorageHandle},
    disk::{Disk, RealDisk, is_shortage},
    log_writer::LogWriter,
};
use quorate_raft::NodeId;
use std::{
    fmt, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A write-ahead log in a directory: `Wal::at("data/1").storage()`.
///
/// One process at a time can have it open. It belongs to one member of one cluster from the
/// first opening on.
#[derive(Clone, Debug)]
pub struct Wal {
    pub(crate) dir: PathBuf,
    pub(crate) sizes: Sizes,
    pub(crate) discards_unproven: bool,
    pub(crate) stage: Stage,
    pub(crate) disk: Arc<dyn Disk>,
}

/// Sizes of files and their parts, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Records and slots of a segment.
    pub segment: u64,
    /// Gap between the slots and the records.
    pub gap: u64,
    /// Size of the headroom, which is removed when the disk is full.
    pub headroom: u64,
    /// Whether segments have slots. `false` gives a log without second places, to compare with.
    pub has_slots: bool,
}

impl Sizes {
    /// 64 MiB of records and slots: seconds of full load, and the most that recovery rewrites. A
    /// gap of 1 MiB, so that one fault hardly damages both places of an entry. 1 MiB of headroom:
    /// many times the size of metadata.
    const DEFAULT: Self = Self { segment: 64 << 20, gap: 1 << 20, headroom: 1 << 20, has_slots: true };
}

impl Wal {
    /// Bounds of [`Wal::segment_bytes`]: the least that is useful, and the most for which all
    /// offsets in a file fit into 32 bits.
    pub const SEGMENT_BYTES: RangeInclusive<u64> = 16 << 10..=1 << 30;

    /// The log in this directory, which is created if it does not exist.
    #[must_use]
    pub fn at(dir: impl AsRef<Path>) -> Self {
        Self {
            dir: dir.as_ref().to_owned(),
            sizes: Sizes::DEFAULT,
            discards_unproven: false,
            stage: Stage::Whole,
            disk: Arc::new(RealDisk),
        }
    }

    /// Sets the bytes of entries in a segment file, between 16 KiB and 1 GiB; 64 MiB by default. An
    /// eighth of it is for the entries' slots; the file has 1 MiB and 8 KiB more, for the gap and
    /// the header. Larger segments roll over less often; smaller ones take less space and make
    /// starts faster. A larger record gets a segment of its own.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.sizes.segment = bytes.clamp(*Self::SEGMENT_BYTES.start(), *Self::SEGMENT_BYTES.end());
        self
    }

    /// Sets whether the next start drops entries at the log's end whose payload is lost and that
    /// are not proven to have been durable: most likely the rest of an unacknowledged write that a
    /// power failure cut. By default they stay, and the other members' logs decide. **For a cluster
    /// of one member, after a power failure.**
    #[must_use]
    pub fn discard_unproven(self, discards: bool) -> Self {
        Self { discards_unproven: discards, ..self }
    }

    /// Sets the disk; the operating system's by default.
    #[must_use]
    pub fn on(self, disk: impl Disk) -> Self {
        Self { disk: Arc::new(disk), ..self }
    }

    /// The storage actor, not yet started. An unusable directory is reported in the reply to
    /// `Recover`.
    #[must_use]
    pub fn storage(self) -> StorageHandle {
        StorageHandle::actor(move || {
            let (dir, is_shared) = (self.dir.clone(), self.disk.is_shared());
            LogWriter::new(dir, is_shared, move |recover| driven::open(&self, recover))
        })
    }
}

impl From<Wal> for StorageHandle {
    fn from(wal: Wal) -> Self {
        wal.storage()
    }
}

/// The owner of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name of its cluster.
    pub cluster: String,
    /// Its id.
    pub member: NodeId,
}

/// The most bytes of a cluster's name for which the files have room.
pub(crate) const CLUSTER_BYTES_MAX: usize = 255;

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {} of cluster {:?}", self.member, self.cluster)
    }
}

/// An error, and the operation that failed: `open`, `read`, `write` or `sync`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The operation, a label for logs and metrics.
    pub op: &'static str,
    /// The error, for the operator.
    pub error: StorageError,
    /// Whether there was no space for it.
    pub is_full: bool,
    /// Whether a file, directory or thread could not be opened or started for now, and
    /// nothing was done.
    pub is_shortage: bool,
}

/// A result whose error names the operation that failed.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure of this operation.
    pub(crate) fn of(op: &'static str) -> impl FnOnce(StorageError) -> Self {
        move |error| Self { op, error, is_full: false, is_shortage: false }
    }

    pub(crate) fn open(what: impl fmt::Display) -> Self {
        Self::of("open")(StorageError::new(what.to_string()))
    }

    pub(crate) fn read(what: impl fmt::Display) -> Self {
        Self::of("read")(StorageError::new(what.to_string()))
    }

    pub(crate) fn write(what: impl fmt::Display) -> Self {
        Self::of("write")(StorageError::new(what.to_string()))
    }
}

/// Turns an I/O error into a failure that names the operation, the file and a remedy.
pub(crate) fn failed(op: &'static str, path: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| {
        let remedy = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on it, then start the node again",
            io::ErrorKind::PermissionDenied => "give the node's user read and write access to it",
            io::ErrorKind::ReadOnlyFilesystem => "mount the file system for writing",
            _ if is_shortage(&error) => shortage::REMEDY,
            _ => "check the disk and the kernel log, then start the node again",
        };
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        // Only opening or creating can be tried again: a write or a sync may have been
        // done in part.
        let is_shortage = op == "open" && is_shortage(&error);
        let error = StorageError::io(op, path, error, remedy);
        Failure { op, error, is_full, is_shortage }
    }
}

/// The little-endian number at an offset; 0 after the end.
pub fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The little-endian number at an offset; 0 after the end.
pub fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes)
}
