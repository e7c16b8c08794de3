//! The write-ahead log: its configuration, and the map of its modules.
//!
//! [`Wal`] is the user's configuration. From the outside in: the `LogWriter` actor
//! (`log_writer.rs`) gathers the requests that arrive during a sync. [`log::Log`] stages them,
//! syncs once, and [`write`] writes them; [`cut`] does log compaction, [`repair`] restores entries that the
//! disk lost, [`headroom`] handles a full disk, [`next_segment`] makes and names files ahead,
//! [`shortage`] waits for descriptors and threads, and [`place`] notices removed files. [`header`],
//! [`group`], [`slot`], [`segment`], [`sealed_block`], [`hard_state`] and [`holdings`] lay out the
//! files of `FORMAT.md`. [`scan`] reads a segment, decides entry by entry, and [`torn_tail`] tells a
//! torn write from damage. [`recovery`], [`named_ahead`], [`inventory`] and [`rewrite`] open a log
//! again. [`unfinished`] marks a directory that is not complete yet.
//!
//! **Every entry has two places.** Its record, and its slot (identity and checksum): at once in the
//! same group, and within a second in a table far from the record. The log survives damage to one of
//! the two: the slot is restored from the record, and a record from another member is checked against
//! the slot.
//!
//! **Never overwritten.** Bytes of a segment change once, from zero to their value, except to
//! restore damaged ones. Truncation starts a new segment; from its first index on, the older ones
//! no longer count; recovery copies the newest segment into a new one. So no stale
//! records follow the end of the log, and bytes missing from a torn write read as zeros.

mod cut;
mod driven;
mod failure;
pub(crate) mod group;
pub(crate) mod hard_state;
pub(crate) mod header;
mod headroom;
pub(crate) mod holdings;
mod identity;
mod inventory;
pub(crate) mod log;
mod named_ahead;
mod next_segment;
mod numbers;
pub(crate) mod place;
pub(crate) mod recovery;
mod repair;
mod rewrite;
pub(crate) mod scan;
mod sealed_block;
mod segment;
mod shortage;
mod sizes;
pub(crate) mod slot;
#[cfg(test)]
mod tests;
mod torn_tail;
pub(crate) mod unfinished;
mod write;

pub use failure::{Failure, Outcome};
pub(crate) use failure::{failed, remove_if_there};
pub(crate) use header::Header;
pub(crate) use headroom::RETRY_AFTER;
pub use identity::Identity;
pub(crate) use identity::{CLUSTER_BYTES_MAX, LOCK};
pub use numbers::{read_u32, read_u64};
pub use sealed_block::BLOCK_BYTES;
pub(crate) use sealed_block::SealedBlock;
#[cfg(test)]
pub(crate) use sealed_block::seal_block;
pub(crate) use segment::Segment;
pub(crate) use shortage::REMEDY as SHORTAGE_REMEDY;
pub use sizes::Sizes;
use unfinished::Stage;

use crate::{
    contract::StorageHandle,
    disk::{Disk, RealDisk},
    log_writer::LogWriter,
};
use std::{
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

    /// Sets whether the next start drops entries at the log's end that have a lost payload and
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
