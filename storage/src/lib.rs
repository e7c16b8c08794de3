//! Durable storage of one node: term, vote, entries and snapshots.
//!
//! 1. [`Wal`]: the default store: a segmented write-ahead log, one `fdatasync` for all requests
//!    that arrived during the last one. `FORMAT.md` documents its format byte by byte.
//! 2. [`LogStore`]: the seam for a store of your own, as a synchronous trait for entries, term and
//!    vote; [`LogDir`] adds the rest.
//! 3. [`contract`]: the seam below it: the messages and duties of a storage actor, for a store that
//!    is not like that. The suite of `quorate-storage-testing` tests the duties of either.
//! 4. [`Memory`]: a store without a disk: for simulation, and to measure everything else.
//! 5. [`snapshots`]: snapshots in files, beside a log of any kind.
//! 6. [`salvage`]: offline recovery after the permanent loss of a quorum.
//! 7. [`disk`]: the file system below the log. [`disk::RealDisk`] is the operating system's.
//!
//! This crate never decides what to store: it carries out the requests of `Consensus`, in order,
//! and reports when they are durable.

pub mod contract;
#[cfg(test)]
mod expected;
#[doc(hidden)]
pub mod internals;
mod log_store;
mod log_writer;
mod memory;
pub mod salvage;
pub mod snapshots;
mod wal;

pub use quorate_disk as disk;

pub use contract::{
    Completions, EntriesRead, OpenSnapshot, Persist, Persisted, Probe, ReadEntries, Recover, Recovered, Remember,
    SaveSnapshot, SnapshotSink, SnapshotSource, Storage, StorageError, StorageFailed, StorageFull, StorageHandle,
    StorageObserver, StorageOp, Unobserved,
};
pub use log_store::{LogDir, LogStore, Opening, store_file};
pub use memory::{Memory, MemoryLog};
pub use snapshots::SnapshotStore;
pub use wal::Wal;

/// CRC-32C, continued: `checksum(checksum(0, a), b) == checksum(0, a ++ b)`. The checksum of every
/// record, on disk and on the wire, in hardware.
#[must_use]
pub fn checksum(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, bytes)
}
