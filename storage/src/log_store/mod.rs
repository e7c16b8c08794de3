//! A log store of your own as a plain synchronous trait, driven by the `LogWriter` actor.
//!
//! [`LogStore`] owns entries, term and vote, and nothing else. [`LogDir`] makes a storage actor of
//! it, with the duties of the [contract](crate::contract) around it:
//!
//! | duty | done by |
//! | --- | --- |
//! | a thread of its own, group commit, completions in order, the end after an error | `LogWriter`, the same as for the [`Wal`](crate::Wal) |
//! | order and chaining of entries, a term stored with its entries, log compaction, ranges of reads | this module |
//! | snapshots, holdings of members, the owner of the data, the lock | files in the directory, beside the store's own |
//! | durable entries and hard state, checked when they are read | the [`LogStore`] |
//!
//! [`store_file`] has parts of a file that most stores need: frames with checksums, and the durable
//! replacement of a file.
//!
//! Choose this trait for a store that may block its thread, and has a directory on a file system
//! for the snapshots: nearly every store. Choose the [actor contract](crate::contract) for one that
//! is not like that: that is asynchronous, keeps snapshots elsewhere, or groups requests by rules
//! of its own. `examples/custom-storage` has one of each.
//!
//! ```
//! use quorate_raft::{Batch, EntryId, HardState, Index};
//! use quorate_storage::{LogDir, LogStore, Opening, Recovered, StorageError};
//!
//! /// Keeps the log for as long as the process lives, so it is no store for a real node.
//! #[derive(Default)]
//! struct Volatile(Vec<Batch>);
//!
//! impl LogStore for Volatile {
//!     fn set_hard_state(&mut self, _: HardState, _has_voted: bool) -> Result<(), StorageError> {
//!         Ok(())
//!     }
//!
//!     fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
//!         self.0.push(batch.clone());
//!         Ok(())
//!     }
//!
//!     fn truncate(&mut self, from: Index) -> Result<(), StorageError> {
//!         self.0 = self.0.iter().filter_map(|batch| batch.up_to(from.previous())).collect();
//!         Ok(())
//!     }
//!
//!     fn cut(&mut self, to: EntryId, _checksum: u32) -> Result<(), StorageError> {
//!         self.0 = self.0.iter().filter_map(|batch| batch.from(to.index.next())).collect();
//!         Ok(())
//!     }
//!
//!     fn sync(&mut self) -> Result<(), StorageError> {
//!         Ok(())
//!     }
//!
//!     fn read(&mut self, index: Index) -> Result<Option<Batch>, StorageError> {
//!         Ok(self.0.iter().find_map(|batch| batch.from(index)))
//!     }
//! }
//!
//! let storage = LogDir::at("data/1").storage(|_: &Opening| Ok((Volatile::default(), Recovered::default())));
//! # drop(storage);
//! ```

mod driven;
pub mod store_file;

use crate::{
    contract::{Recovered, StorageError, StorageHandle, StorageObserver},
    disk::{Disk, RealDisk},
    log_writer::LogWriter,
};
use driven::StoreLog;
use quorate_raft::{Batch, EntryId, HardState, Index, NodeId};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The durable entries, term and vote of one node.
///
/// All methods are called by one thread, and may block it. Changes are *staged* until
/// [`LogStore::sync`] returns, which makes all of them durable: a store may write them at once, or
/// gather them.
///
/// **Every error is final.** After the first one no method is called any more, the store is dropped
/// when the node ends, and nothing that was staged is acknowledged. So a failed sync is never
/// retried: the kernel may have dropped the pages and report success for the retry. The error is
/// one line for the operator: the operation, the place and a remedy ([`store_file::failed`]).
///
/// **A crash at any moment** leaves the store with all changes up to the last sync, and any part of
/// the staged ones: in order, and each batch to its last entry or to an earlier one. The hard state
/// becomes durable together with the entries staged after it, or before them.
pub trait LogStore: 'static {
    /// Stages a hard state, which replaces the last one. `has_voted` says whether a vote was ever
    /// given: to be stored, and to be recovered as [`Recovered::has_voted`].
    ///
    /// # Errors
    /// The store's; final.
    fn set_hard_state(&mut self, state: HardState, has_voted: bool) -> Result<(), StorageError>;

    /// Stages entries after the last one. Their index, term and checksum are checked before.
    ///
    /// # Errors
    /// The store's; final.
    fn append(&mut self, batch: &Batch) -> Result<(), StorageError>;

    /// Stages the removal of the entries from `from` on, which is held.
    ///
    /// # Errors
    /// The store's; final.
    fn truncate(&mut self, from: Index) -> Result<(), StorageError>;

    /// Stages a new base (log compaction): the entries up to `to` go, those after it stay. `to` is
    /// held, or no entry is. `checksum` is that of its record. A durable snapshot covers the
    /// entries, and no appended entry is staged: so a store may make all that is staged, and this,
    /// durable at once.
    ///
    /// # Errors
    /// The store's; final.
    fn cut(&mut self, to: EntryId, checksum: u32) -> Result<(), StorageError>;

    /// Makes all that is staged durable: it survives a power failure.
    ///
    /// # Errors
    /// The store's; final.
    fn sync(&mut self) -> Result<(), StorageError>;

    /// Reads the entry at `index`, which is held and not staged, with some that follow it; at most
    /// as many as were appended as one batch. `None` if its payload is lost to the disk: only for
    /// an entry in [`Recovered::faulty`].
    ///
    /// # Errors
    /// The disk's, and for damaged entries. Final.
    fn read(&mut self, index: Index) -> Result<Option<Batch>, StorageError>;

    /// The id and checksum of the entry at `index`, which is held and not staged. To be implemented
    /// by stores that recover faulty entries, of which these are known; others need not.
    ///
    /// # Errors
    /// As [`LogStore::read`].
    fn entry(&mut self, index: Index) -> Result<(EntryId, u32), StorageError> {
        let found = self.read(index)?.and_then(|batch| batch.up_to(index));
        found.map(|entry| (entry.last_id(), entry.checksum())).ok_or_else(|| missing(index))
    }

    /// Stages the payloads of faulty entries, whose ids and checksums were checked. Stores that
    /// recover no faulty entries are never asked to.
    ///
    /// # Errors
    /// The store's; final.
    fn repair(&mut self, batch: &Batch) -> Result<(), StorageError> {
        Err(missing(batch.first()))
    }

    /// Whether there will soon be no room for further entries: asked after each sync, and once a
    /// second while it is true. Meanwhile the node takes no commands, and can still vote.
    ///
    /// # Errors
    /// The store's; final.
    fn is_full(&mut self) -> Result<bool, StorageError> {
        Ok(false)
    }
}

fn missing(index: Index) -> StorageError {
    StorageError::new(format!("entry {index} is missing; there is a bug in this store, or its data is damaged"))
}

/// The directory of a [`LogStore`]: for its own files, and for the snapshots beside them.
///
/// One process at a time can have it open. It belongs to one member of one cluster from the first
/// opening on. Names that end with `.snapshot` or `.snapshot.new`, and the names `lock` and
/// `known-members`, are taken.
#[derive(Clone, Debug)]
pub struct LogDir {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

/// The circumstances in which a store is opened. Its directory exists, and is locked until after
/// the store is dropped.
#[non_exhaustive]
pub struct Opening {
    /// The directory, for any files of the store but those that [`LogDir`] names.
    pub dir: PathBuf,
    /// The file system with the directory. A store that does all its reads and writes through it can
    /// be tested with every fault of a simulated one.
    pub disk: Arc<dyn Disk>,
    /// The cluster that the data must belong to. Its name is checked for the directory; a store
    /// that keeps data elsewhere checks it there.
    pub cluster: String,
    /// The member that the data must belong to, unique within the cluster.
    pub member: NodeId,
    /// The recipient of measurements. Syncs and the bytes of entries are reported already; the size
    /// of the log ([`StorageObserver::log_bytes`]) is the store's to report.
    pub observer: Arc<dyn StorageObserver>,
}

impl LogDir {
    /// This directory, which is created if it does not exist.
    #[must_use]
    pub fn at(dir: impl AsRef<Path>) -> Self {
        Self { dir: dir.as_ref().to_owned(), disk: Arc::new(RealDisk) }
    }

    /// Sets the disk; the operating system's by default.
    #[must_use]
    pub fn on(self, disk: impl Disk) -> Self {
        Self { disk: Arc::new(disk), ..self }
    }

    /// The storage actor, not yet started, with the store that `open` opens: once, on the actor's
    /// thread, when the node starts. `open` also returns the content of the store: all fields of
    /// [`Recovered`] but `snapshot` and `holdings`, which the directory has.
    ///
    /// Content that is durable only in the page cache, where a killed process left it, must be
    /// synced by `open`.
    #[must_use]
    pub fn storage<S: LogStore>(
        self,
        open: impl FnOnce(&Opening) -> Result<(S, Recovered), StorageError> + Send + 'static,
    ) -> StorageHandle {
        StorageHandle::actor(move || {
            let Self { dir, disk } = self;
            let is_shared = disk.is_shared();
            LogWriter::new(dir.clone(), is_shared, move |recover| StoreLog::open(dir, disk, recover, open))
        })
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("dir", &self.dir).field("member", &self.member).finish_non_exhaustive()
    }
}
