//! Durable storage of one node: term, vote, entries and snapshots.
//!
//! 1. [`contract`]: the messages and duties of a storage actor. A store of your own implements
//!    these, and proves it with [`conformance`].
//! 2. [`Wal`]: the default store: a segmented write-ahead log, one `fdatasync` for all requests
//!    that arrived during the last one. `FORMAT.md` documents its format byte by byte.
//! 3. [`Memory`]: a store without a disk: for simulation, and to measure everything else.
//! 4. [`snapshots`]: snapshots in files, beside a log of any kind.
//! 5. [`salvage`]: offline recovery after the permanent loss of a quorum.
//! 6. [`disk`]: the file system below the log. [`disk::RealDisk`] is the operating system's;
//!    [`disk::SimulatedDisk`] loses, tears, flips and fails on demand.
//!
//! This crate never decides what to store: it carries out the requests of `Consensus`, in order,
//! and reports when they are durable.

pub mod conformance;
pub mod contract;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod decoding;
pub mod disk;
#[cfg(test)]
mod expected;
mod log_writer;
mod memory;
pub mod salvage;
pub mod snapshots;
mod wal;

pub use contract::{
    Completions, EntriesRead, OpenSnapshot, Persist, Persisted, ReadEntries, Recover, Recovered, Remember,
    SaveSnapshot, SnapshotSink, SnapshotSource, Storage, StorageError, StorageFailed, StorageFull, StorageHandle,
    StorageObserver, Unobserved,
};
pub use memory::{Memory, MemoryLog};
pub use snapshots::SnapshotStore;
pub use wal::Wal;

/// CRC-32C, continued: `checksum(checksum(0, a), b) == checksum(0, a ++ b)`. The checksum of every
/// record, on disk and on the wire, in hardware.
#[must_use]
pub fn checksum(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, bytes)
}
