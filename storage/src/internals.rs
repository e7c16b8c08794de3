//! The decoders of the files in `FORMAT.md`, and the log below its actor: the parts that
//! `quorate-storage-testing` checks on files of any bytes.
//!
//! For that package alone, and not stable. Programs use [`Wal`] and
//! [`SnapshotStore`](crate::SnapshotStore), which own the order in which these are called.

pub use crate::wal::{
    BLOCK_BYTES, Failure, Identity, Outcome, Sizes,
    group::{Extent, Mark},
    header::{COPY_AT, Header, Layout},
    log::Log,
    read_u32, read_u64,
    scan::{Found, Patch, Scanned, State, Tail, scan},
};

/// The file of term, vote and promise.
pub mod hard_state {
    pub use crate::wal::hard_state::{HardStateFile, NAME, SEQUENCE_MAX};
}

/// The file of the members' holdings.
pub mod holdings {
    pub use crate::wal::holdings::{Holdings, NAME, read, write};
}

/// The slots of a segment.
pub mod slot {
    pub use crate::wal::slot::{Slot, Table, group_seed, place, seed};
}

/// The head and the foot of a snapshot's file.
pub mod snapshot_file {
    pub use crate::snapshots::format::{CHECKSUM_BYTES, Layout, foot, head};
}

use crate::{
    contract::{Recovered, Unobserved},
    disk::Disk,
    wal::{Segment, Wal},
};
use quorate_raft::EntryId;
use std::{path::Path, sync::Arc};

/// Opens the log in a directory, as the `LogWriter` does at a start, with files of these sizes.
///
/// # Errors
/// The reason for which a start is refused.
pub fn open_log(disk: impl Disk, dir: impl AsRef<Path>, sizes: Sizes, owner: &Identity) -> Outcome<(Log, Recovered)> {
    let wal = Wal { sizes, ..Wal::at(dir).on(disk) };
    Log::open(&wal, &owner.cluster, owner.member, Arc::new(Unobserved))
}

/// The name of the file of the snapshot after this entry.
#[must_use]
pub fn snapshot_name(last: EntryId) -> String {
    crate::snapshots::name_of(last)
}

/// The name of the segment with this sequence.
#[must_use]
pub fn segment_name(sequence: u64) -> String {
    Segment::name(sequence)
}

/// The sequence in a segment's name; `None` for any other name.
#[must_use]
pub fn segment_sequence(name: &str) -> Option<u64> {
    Segment::sequence_of(name)
}
