//! The write-ahead log: where it lies and how it is cut into segments.
//!
//! [`Wal`] is what a user configures. Behind it, from the outside in: the `LogWriter` actor (`log_writer.rs`) gathers
//! what arrived during the last sync; [`log::Log`] stages it, writes it and syncs once; [`segment`] and [`hard_state`]
//! lay out the files of `FORMAT.md`; [`scan`] and [`tail`] read a segment back and tell a torn write from damage;
//! [`recovery`] puts a log together again.
//!
//! **Never overwritten.** Bytes of a segment go from zero to their value once. Truncation starts a new segment, whose
//! first index says from where the older ones no longer count; recovery copies the tail into a new segment. So there are
//! no stale records behind the tail, and what is missing from a torn write reads as zeros.

pub(crate) mod hard_state;
pub(crate) mod log;
pub(crate) mod recovery;
pub(crate) mod scan;
pub(crate) mod segment;
mod spare;
mod tail;
#[cfg(test)]
mod tests;

use crate::{
    contract::{StorageError, StorageHandle},
    disk::{Disk, RealDisk},
    log_writer::LogWriter,
};
use quorate_raft::NodeId;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A write-ahead log in a directory: `Wal::at("data/1").storage()`.
///
/// One process at a time opens it; it belongs to one member of one cluster from the first time on.
#[derive(Clone, Debug)]
pub struct Wal {
    pub(crate) dir: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) disk: Arc<dyn Disk>,
}

/// 64 MiB: seconds of full load, and what recovery reads and rewrites at most.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Room for the header and something to hold.
const SEGMENT_BYTES_MIN: u64 = 16 << 10;
/// Offsets in a segment have 32 bits to spare in memory and on disk.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

impl Wal {
    /// The log in this directory, which is made if need be.
    #[must_use]
    pub fn at(dir: impl AsRef<Path>) -> Self {
        Self { dir: dir.as_ref().to_owned(), segment_bytes: SEGMENT_BYTES, disk: Arc::new(RealDisk) }
    }

    /// The size of new segment files in bytes, between 16 KiB and 1 GiB; 64 MiB by default. Larger ones roll over more
    /// rarely; smaller ones take less space and make a quicker start. A record that is larger gets a segment of its own.
    #[must_use]
    pub fn segment_bytes(self, bytes: u64) -> Self {
        Self { segment_bytes: bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX), ..self }
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
}

pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(crate) fn open(what: impl fmt::Display) -> Self {
        Self { op: "open", error: StorageError(what.to_string()) }
    }

    pub(crate) fn read(what: impl fmt::Display) -> Self {
        Self { op: "read", error: StorageError(what.to_string()) }
    }

    pub(crate) fn write(what: impl fmt::Display) -> Self {
        Self { op: "write", error: StorageError(what.to_string()) }
    }
}

/// Turns an I/O error into a failure that says what was being done to which file, and what to do now.
pub(crate) fn failed(op: &'static str, path: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| {
        let remedy = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on it, then start the node again",
            io::ErrorKind::PermissionDenied => "give the node's user read and write access to it",
            io::ErrorKind::ReadOnlyFilesystem => "mount the file system for writing",
            _ => "check the disk and the kernel log, then start the node again",
        };
        Failure { op, error: StorageError(format!("can't {op} {}: {error}; {remedy}", path.display())) }
    }
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Fields of fixed width at fixed places of one 512-byte block, closed by a checksum in its last four bytes.
pub(crate) struct Block([u8; BLOCK_BYTES]);

pub(crate) const BLOCK_BYTES: usize = 512;
const BLOCK_CHECKSUM_AT: usize = BLOCK_BYTES - 4;

impl Block {
    pub(crate) fn new(magic: [u8; 8]) -> Self {
        let mut block = Self([0; BLOCK_BYTES]);
        block.0[..8].copy_from_slice(&magic);
        block
    }

    pub(crate) fn put_u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn put_u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// A length byte, then the name; callers checked that it fits.
    pub(crate) fn put_name(mut self, at: usize, name: &str) -> Self {
        let name = &name.as_bytes()[..name.len().min(CLUSTER_BYTES_MAX)];
        self.0[at] = u8::try_from(name.len()).unwrap_or(u8::MAX);
        self.0[at + 1..at + 1 + name.len()].copy_from_slice(name);
        self
    }

    pub(crate) fn close(mut self) -> [u8; BLOCK_BYTES] {
        let sum = crate::checksum(0, &self.0[..BLOCK_CHECKSUM_AT]);
        self.0[BLOCK_CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
        self.0
    }

    /// The block at the start of `bytes`, if it is whole, undamaged and of this kind.
    pub(crate) fn read(bytes: &[u8], magic: [u8; 8]) -> Option<Self> {
        let block: [u8; BLOCK_BYTES] = bytes.get(..BLOCK_BYTES)?.try_into().ok()?;
        let whole = crate::checksum(0, &block[..BLOCK_CHECKSUM_AT]) == read_u32(&block, BLOCK_CHECKSUM_AT);
        (whole && block[..8] == magic).then_some(Self(block))
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        read_u32(&self.0, at)
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        read_u64(&self.0, at)
    }

    pub(crate) fn name(&self, at: usize) -> Option<String> {
        let name = self.0.get(at + 1..at + 1 + usize::from(self.0[at]))?;
        String::from_utf8(name.to_vec()).ok()
    }
}
