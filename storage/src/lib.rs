//! What one node must not forget: term, vote, entries and snapshots, and nothing else.
//!
//! 1. [`contract`]: the messages that a storage actor hears and says, and the duties that come with them. A store of
//!    your own implements these, and proves it with [`conformance`].
//! 2. [`Wal`]: the store that nodes use: a segmented write-ahead log, one `fdatasync` for all that arrived during the
//!    last one. Its format is documented byte by byte in `FORMAT.md`.
//! 3. [`Memory`]: a store that forgets: for simulation, and to measure everything but a disk.
//! 4. [`snapshots`]: snapshots in files, beside a log of any kind.
//! 5. [`salvage`]: what to do, offline, when a quorum is lost for good.
//! 6. [`disk`]: the seam beneath the log. [`disk::RealDisk`] is the operating system's; [`disk::SimulatedDisk`] loses,
//!    tears, flips and fails on demand.
//!
//! This crate never decides what to store: it does what `Consensus` tells it, in order, and says when it is durable.

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

/// CRC-32C, continued: `checksum(checksum(0, a), b) == checksum(0, a ++ b)`. The checksum of every record, on disk and
/// on the wire; the processor computes it.
#[must_use]
pub fn checksum(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, bytes)
}
