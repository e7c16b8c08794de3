//! A disk in memory that fails on demand.
//!
//! | fault | method |
//! | --- | --- |
//! | unsynced writes are lost, torn at any byte, or arrive in any order | [`SimulatedDisk::crash`] |
//! | an operation fails, a write halfway | [`SimulatedDisk::fail`] |
//! | descriptors or threads run short for a while | [`SimulatedDisk::run_short`] |
//! | a sync reports success and does nothing | [`SimulatedDisk::lie`] |
//! | a sync is slow | [`SimulatedDisk::slow_down`] |
//! | a write goes to a wrong place | [`SimulatedDisk::misdirect`] |
//! | bits flip, sectors become zeros or another's, files shorter | [`flip`](SimulatedDisk::flip), [`zero`](SimulatedDisk::zero), [`misplace`](SimulatedDisk::misplace), [`cut`](SimulatedDisk::cut) |
//! | sectors can't be read | [`SimulatedDisk::wear_out`] |
//! | the disk is full | [`SimulatedDisk::fill_after`] |
//! | the machine dies during any operation | [`SimulatedDisk::halt_at`], [`SimulatedDisk::halt`] |
//!
//! This file has the controls; [`files`] is the log's view, and [`state`] the visible content, the
//! durable content, and the changes between them.

mod files;
mod state;

use state::{Change, Fault, Inode, Random, State};
use std::{
    collections::BTreeSet,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A disk in memory, with the guarantees of a real one and no better: unsynced changes may be lost,
/// in part or whole.
///
/// Clones are the same disk. Everything is deterministic: a seed decides the result
/// of a [`Crash::Scatter`].
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

/// The effect of a power failure on writes, creates, renames and removes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// None of them reached the disk.
    Lose,
    /// All of them reached it.
    Keep,
    /// The first bytes of the writes reached it, in the order of writing, and no change of a name.
    Torn {
        /// The number of bytes.
        bytes: u64,
    },
    /// Some of the 512-byte sectors and some changes of names reached it, in any order.
    Scatter {
        /// Seed of the choice.
        seed: u64,
    },
}

/// Kinds of operations, to count and to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Creating or opening a file.
    Open,
    /// Reading from a file.
    Read,
    /// Writing to or allocating a file.
    Write,
    /// Syncing a file.
    Sync,
    /// Syncing a directory.
    SyncDir,
    /// Renaming or removing a file.
    Rename,
    /// Starting a thread.
    Thread,
}

impl SimulatedDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power: unsynced changes meet the fate that `crash` says, and every open file and
    /// lock is gone.
    pub fn crash(&self, crash: Crash) {
        let state = &mut *self.state();
        state.power_cycle += 1;
        (state.is_halted, state.halts_after) = (false, None);
        state.locks.clear();
        state.opened.clear();
        state.faults.clear();
        let mut random = Random(match crash {
            Crash::Scatter { seed } => seed,
            _ => 0,
        });
        let mut budget = match crash {
            Crash::Lose => 0,
            Crash::Torn { bytes } => bytes,
            Crash::Keep | Crash::Scatter { .. } => u64::MAX,
        };
        for (_, change) in std::mem::take(&mut state.unsynced) {
            let Some(inode) = state.inodes.get_mut(&change.inode) else { continue };
            match crash {
                Crash::Scatter { .. } => inode.scatter(&change.what, &mut random),
                _ => budget -= inode.settle(&change.what, budget),
            }
        }
        for inode in state.inodes.values_mut() {
            inode.seen = Arc::clone(&inode.durable);
        }
        let durable_names = std::mem::take(&mut state.durable_names);
        match crash {
            Crash::Keep => {}
            Crash::Lose | Crash::Torn { .. } => state.names = durable_names,
            Crash::Scatter { .. } => {
                let seen = std::mem::take(&mut state.names);
                let all: BTreeSet<_> = seen.keys().chain(durable_names.keys()).cloned().collect();
                for path in all {
                    let kept = if random.coin() { seen.get(&path) } else { durable_names.get(&path) };
                    if let Some(inode) = kept {
                        state.names.insert(path, *inode);
                    }
                }
            }
        }
        state.durable_names = state.names.clone();
    }

    /// Makes the `nth` of these operations from now on fail, counted from 1: with an I/O error,
    /// once. A failing write writes half; after a failing sync the writes are still readable, and
    /// never become durable.
    pub fn fail(&self, operation: Operation, nth: u64) {
        self.state().plan(operation, nth, Fault::Fail);
    }

    /// Makes the next `times` of these operations fail for lack of a file descriptor (or, for
    /// [`Operation::Thread`], of a thread), without an effect.
    pub fn run_short(&self, operation: Operation, times: u64) {
        let state = &mut *self.state();
        (1..=times).for_each(|nth| state.plan(operation, nth, Fault::Short));
    }

    /// Makes the `nth` sync of a file from now on report success without making anything durable. A
    /// later honest sync of the same file makes up for it.
    pub fn lie(&self, nth: u64) {
        self.state().plan(Operation::Sync, nth, Fault::Lie);
    }

    /// Lets the machine die during the `nth` operation of any kind from now on, counted
    /// from 1: a write is done by half, and no later operation has an effect. To be
    /// followed by a [`SimulatedDisk::crash`].
    pub fn halt_at(&self, nth: u64) {
        self.state().halts_after = Some(nth.saturating_sub(1));
    }

    /// Lets the machine die now.
    pub fn halt(&self) {
        self.state().is_halted = true;
    }

    /// Whether the machine died, and its power was not cut since.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.state().is_halted
    }

    /// Moves the `nth` write from now on within its file, by this number of bytes.
    pub fn misdirect(&self, nth: u64, by: i64) {
        self.state().plan(Operation::Write, nth, Fault::Misdirect { by });
    }

    /// Lets every sync from now on take this time, on its caller's thread.
    pub fn slow_down(&self, syncs_take: Duration) {
        self.state().syncs_take = syncs_take;
    }

    /// Lets files grow by this number of bytes, all together, and then run out of space. Removing
    /// or cutting off files gives space back.
    pub fn fill_after(&self, bytes: u64) {
        self.state().free_bytes = Some(bytes);
    }

    /// Counts the operations of this kind since the disk was made.
    #[must_use]
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counts.get(&operation).copied().unwrap_or(0)
    }

    /// Every file, sorted.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// The content of a file; `None` if there is none.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let inode = state.names.get(path)?;
        state.inodes.get(inode).map(|inode| inode.seen.to_vec())
    }

    /// Puts a file there, durably, replacing any other one with that name.
    pub fn put(&self, path: &Path, contents: Vec<u8>) {
        let state = &mut *self.state();
        let inode = state.next_inode();
        let contents = Arc::new(contents);
        state.inodes.insert(inode, Inode { seen: Arc::clone(&contents), durable: contents, worn: Vec::new() });
        state.names.insert(path.to_owned(), inode);
        state.durable_names.insert(path.to_owned(), inode);
    }

    /// Removes a file, durably.
    pub fn lose(&self, path: &Path) {
        let state = &mut *self.state();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// Flips the bits of `mask` in one byte of a file, durably. Returns whether that byte exists.
    pub fn flip(&self, path: &Path, offset: usize, mask: u8) -> bool {
        self.damage(path, offset..offset + 1, |bytes| bytes[0] ^= mask)
    }

    /// Zeros a range of a file, durably, as far as it exists. Returns whether any byte
    /// of it exists.
    pub fn zero(&self, path: &Path, range: Range<usize>) -> bool {
        self.damage(path, range, |bytes| bytes.fill(0))
    }

    /// Replaces a range of a file, durably, with bytes from another place of the same or
    /// another file: like a misdirected write of those. Returns whether both places exist and
    /// their bytes differ.
    pub fn misplace(&self, path: &Path, range: Range<usize>, from: &Path, offset: usize) -> bool {
        let Some(there) = self.contents(from) else { return false };
        let there = there.get(offset..).unwrap_or_default();
        let mut is_changed = false;
        self.damage(path, range, |bytes| {
            let count = bytes.len().min(there.len());
            is_changed = bytes[..count] != there[..count];
            bytes[..count].copy_from_slice(&there[..count]);
        }) && is_changed
    }

    /// Cuts a file off, durably.
    pub fn cut(&self, path: &Path, bytes: usize) {
        let state = &mut *self.state();
        let Some(inode) = state.names.get(path).copied() else { return };
        if let Some(inode) = state.inodes.get_mut(&inode) {
            let change = Change::Truncate { bytes: bytes as u64 };
            inode.see(&change);
            inode.settle(&change, u64::MAX);
        }
    }

    /// Makes all reads of a range of a file fail.
    pub fn wear_out(&self, path: &Path, range: Range<u64>) {
        let state = &mut *self.state();
        let Some(inode) = state.names.get(path).copied() else { return };
        if let Some(inode) = state.inodes.get_mut(&inode) {
            inode.worn.push(range);
        }
    }

    /// Whether reads of any range of any file fail.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        self.state().inodes.values().any(|inode| !inode.worn.is_empty())
    }

    /// Cancels all planned faults.
    pub fn forget_plans(&self) {
        let state = &mut *self.state();
        state.faults.clear();
        state.halts_after = None;
    }

    /// Another disk with the same content now, synced or not, that shares nothing with this one: to
    /// try many faults on one state. Open files and locks stay with this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut state = self.state().clone();
        state.locks.clear();
        state.opened.clear();
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damage(&self, path: &Path, range: Range<usize>, what: impl FnMut(&mut [u8])) -> bool {
        let state = &mut *self.state();
        let Some(inode) = state.names.get(path).copied() else { return false };
        state.inodes.get_mut(&inode).is_some_and(|inode| inode.damage(range, what))
    }
}
