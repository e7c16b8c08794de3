//! The write-ahead log: where it lies and how it is cut into segments.
//!
//! [`Wal`] is what a user configures. Behind it, from the outside in: the `LogWriter` actor (`log_writer.rs`) gathers
//! what arrived during the last sync; [`log::Log`] stages it, writes it and syncs once, with [`cut`] for what a snapshot
//! covers, [`repair`] for entries that the disk lost, [`headroom`] for when it is full, and [`place`] for when its files are taken away; [`header`], [`slot`], [`segment`],
//! [`hard_state`] and [`holdings`] lay out the files of `FORMAT.md`; [`scan`] and [`torn_tail`] read a segment back, decide entry by
//! entry and tell a torn write from damage; [`recovery`], [`inventory`] and [`rewrite`] put a log together again; [`unfinished`] marks a directory that is being made.
//!
//! **Every entry has two places.** Its record, and its slot: identity and checksum, far from the record. One of the two
//! damaged is survived: the record says what its slot was, the slot says what the record must be.
//!
//! **Never overwritten.** Bytes of a segment go from zero to their value once, but for putting right what was damaged.
//! Truncation starts a new segment, whose first index says from where the older ones no longer count; recovery copies the
//! tail into a new segment. So there are no stale records behind the tail, and what is missing from a torn write reads as
//! zeros.

mod cut;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod decoding;
pub(crate) mod hard_state;
mod header;
mod headroom;
mod holdings;
mod inventory;
pub(crate) mod log;
mod next_segment;
mod place;
mod recovery;
mod repair;
mod rewrite;
mod scan;
mod sealed_block;
mod segment;
mod shortage;
mod slot;
#[cfg(test)]
mod tests;
mod torn_tail;
pub(crate) mod unfinished;

pub(crate) use header::Header;
pub(crate) use headroom::RETRY_AFTER;
pub(crate) use recovery::LOCK;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use sealed_block::seal_block;
pub(crate) use sealed_block::{BLOCK_BYTES, SealedBlock};
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
/// One process at a time opens it; it belongs to one member of one cluster from the first time on.
#[derive(Clone, Debug)]
pub struct Wal {
    pub(crate) dir: PathBuf,
    pub(crate) sizes: Sizes,
    pub(crate) discards_unproven: bool,
    pub(crate) stage: Stage,
    pub(crate) disk: Arc<dyn Disk>,
}

/// How large the files are, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Records and slots of a segment.
    pub(crate) segment: u64,
    /// Between the slots and the records.
    pub(crate) gap: u64,
    /// What is given back when the disk is full.
    pub(crate) headroom: u64,
    /// Whether segments have slots. Without them the log is what it would be without a second place: to be compared with.
    pub(crate) has_slots: bool,
}

impl Sizes {
    /// 64 MiB of records and slots: seconds of full load, and what recovery rewrites at most. 1 MiB between the two, so that
    /// hardly anything damages both. 1 MiB of headroom: many times what metadata takes.
    const DEFAULT: Self = Self { segment: 64 << 20, gap: 1 << 20, headroom: 1 << 20, has_slots: true };
}

impl Wal {
    /// What [`Wal::segment_bytes`] may be: from room for something to hold, up to offsets that leave 32 bits to spare in memory and
    /// on disk.
    pub const SEGMENT_BYTES: RangeInclusive<u64> = 16 << 10..=1 << 30;

    /// The log in this directory, which is made if need be.
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

    /// How many bytes of entries a segment file has room for, between 16 KiB and 1 GiB; 64 MiB by default. An eighth of it is
    /// for the entries' slots; the file has 1 MiB and 8 KiB more, between the two and for the header. Larger ones roll over
    /// more rarely; smaller ones take less space and make a quicker start. A record that is larger gets a segment of its own.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.sizes.segment = bytes.clamp(*Self::SEGMENT_BYTES.start(), *Self::SEGMENT_BYTES.end());
        self
    }

    /// Whether to forget, at the next start, entries at the log's end whose payload is lost and that are not proven to have
    /// been durable: in all likelihood what a power cut left of a write that nobody was told of. By default they stay, and
    /// the other members say what becomes of them. **For a cluster of one member, after a power cut.**
    #[must_use]
    pub fn discard_unproven(self, discards: bool) -> Self {
        Self { discards_unproven: discards, ..self }
    }

    /// The disk it lies on; the operating system's by default.
    #[must_use]
    pub fn on(self, disk: impl Disk) -> Self {
        Self { disk: Arc::new(disk), ..self }
    }

    /// The storage actor over it, not yet started. Whatever is wrong with the directory is the answer to `Recover`.
    #[must_use]
    pub fn storage(self) -> StorageHandle {
        StorageHandle::actor(move || LogWriter::new(self))
    }
}

impl From<Wal> for StorageHandle {
    fn from(wal: Wal) -> Self {
        wal.storage()
    }
}

/// Whose data it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster: String,
    pub(crate) member: NodeId,
}

/// As many bytes of a cluster's name as the files have room for.
pub(crate) const CLUSTER_BYTES_MAX: usize = 255;

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {} of cluster {:?}", self.member, self.cluster)
    }
}

/// What went wrong, and in which operation: `open`, `read`, `write` or `sync`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) op: &'static str,
    pub(crate) error: StorageError,
    /// Whether there was no space for it.
    pub(crate) is_full: bool,
    /// Whether a file, a directory or a thread could not be opened or started for now, and nothing was done.
    pub(crate) is_shortage: bool,
}

pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(crate) fn open(what: impl fmt::Display) -> Self {
        Self { op: "open", error: StorageError(what.to_string()), is_full: false, is_shortage: false }
    }

    pub(crate) fn read(what: impl fmt::Display) -> Self {
        Self { op: "read", error: StorageError(what.to_string()), is_full: false, is_shortage: false }
    }

    pub(crate) fn write(what: impl fmt::Display) -> Self {
        Self { op: "write", error: StorageError(what.to_string()), is_full: false, is_shortage: false }
    }
}

/// Turns an I/O error into a failure that says what was being done to which file, and what to do now.
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
        // Only what opens or creates something can be tried again: a write or a sync may have been done in part.
        let is_shortage = op == "open" && is_shortage(&error);
        let error = StorageError(format!("can't {op} {}: {error}; {remedy}", path.display()));
        Failure { op, error, is_full, is_shortage }
    }
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes)
}
