//! A disk in memory that fails on demand.
//!
//! | what may happen | how |
//! | --- | --- |
//! | unsynced writes are lost, torn at any byte, or arrive in any order | [`SimulatedDisk::crash`] |
//! | an operation fails, a write halfway | [`SimulatedDisk::fail`] |
//! | descriptors or threads run short for a while | [`SimulatedDisk::run_short`] |
//! | a sync lies | [`SimulatedDisk::lie`] |
//! | a sync is slow | [`SimulatedDisk::slow_down`] |
//! | a write goes astray | [`SimulatedDisk::misdirect`] |
//! | bits flip, sectors become zeros or another's, files shorter | [`flip`](SimulatedDisk::flip), [`zero`](SimulatedDisk::zero), [`misplace`](SimulatedDisk::misplace), [`cut`](SimulatedDisk::cut) |
//! | sectors can't be read | [`SimulatedDisk::wear_out`] |
//! | the disk is full | [`SimulatedDisk::fill_after`] |
//! | the machine dies in the middle of anything | [`SimulatedDisk::halt_at`], [`SimulatedDisk::halt`] |
//!
//! What a disk can be told stands here; [`files`] is what the log sees of it, and [`state`] what is seen, what is durable, and
//! what lies between.

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

/// A disk in memory, with the guarantees of a real one and no better: what was not synced may be lost, in part or whole.
///
/// Clones are the same disk. Everything is deterministic: a seed decides what a [`Crash::Scatter`] keeps.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

/// What a power cut does to the writes, creates, renames and removes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// None of them reached the disk.
    Lose,
    /// All of them had reached it.
    Keep,
    /// The first so many bytes of the writes reached it, in the order of writing, and no change of a name.
    Torn {
        /// How many bytes.
        bytes: u64,
    },
    /// Some of the 512-byte sectors and some changes of names reached it, in any order.
    Scatter {
        /// Decides which.
        seed: u64,
    },
}

/// What can be counted and made to fail.
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

    /// Cuts the power: what was not synced meets its fate, and every open file and lock is gone.
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

    /// Makes the `nth` of these operations from now on fail, counted from 1: with an I/O error, once. A write that
    /// fails wrote half; a sync that fails leaves what it should have written readable, and never makes it durable.
    pub fn fail(&self, operation: Operation, nth: u64) {
        self.state().plan(operation, nth, Fault::Fail);
    }

    /// Makes the next `times` of these operations fail for want of a file descriptor (or, of [`Operation::Thread`], of a thread):
    /// they do nothing.
    pub fn run_short(&self, operation: Operation, times: u64) {
        let state = &mut *self.state();
        (1..=times).for_each(|nth| state.plan(operation, nth, Fault::Short));
    }

    /// Makes the `nth` sync of a file from now on say that it ended well, though nothing is durable for it. A later sync of the
    /// same file, if it is honest, makes up for it.
    pub fn lie(&self, nth: u64) {
        self.state().plan(Operation::Sync, nth, Fault::Lie);
    }

    /// Lets the machine die with the `nth` operation of any kind from now on, counted from 1: that one, if it writes, is done by
    /// half, and none does anything from then on. To be followed by a [`SimulatedDisk::crash`].
    pub fn halt_at(&self, nth: u64) {
        self.state().halts_after = Some(nth.saturating_sub(1));
    }

    /// Lets the machine die now.
    pub fn halt(&self) {
        self.state().is_halted = true;
    }

    /// Whether the machine died so, and its power was not cut since.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.state().is_halted
    }

    /// Lets the `nth` write from now on go to another place of its file, so many bytes further, or nearer.
    pub fn misdirect(&self, nth: u64, by: i64) {
        self.state().plan(Operation::Write, nth, Fault::Misdirect { by });
    }

    /// Lets every sync from now on take so long, on the thread that asks for it.
    pub fn slow_down(&self, syncs_take: Duration) {
        self.state().syncs_take = syncs_take;
    }

    /// Lets files grow by so many bytes more, all together, and then be out of space. What is removed or cut off from then on
    /// gives its space back.
    pub fn fill_after(&self, bytes: u64) {
        self.state().free_bytes = Some(bytes);
    }

    /// How many of these operations there were.
    #[must_use]
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counts.get(&operation).copied().unwrap_or(0)
    }

    /// Every file, sorted.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// What a file holds; `None` if there is none.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let inode = state.names.get(path)?;
        state.inodes.get(inode).map(|inode| inode.seen.to_vec())
    }

    /// Puts a file there, durably, in place of any other of that name.
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

    /// Flips the bits of `mask` in one byte of a file, durably. Says whether there is such a byte.
    pub fn flip(&self, path: &Path, offset: usize, mask: u8) -> bool {
        self.damage(path, offset..offset + 1, |bytes| bytes[0] ^= mask)
    }

    /// Makes a stretch of a file zeros, durably, as far as there is any of it. Says whether there is.
    pub fn zero(&self, path: &Path, range: Range<usize>) -> bool {
        self.damage(path, range, |bytes| bytes.fill(0))
    }

    /// Puts into a stretch of a file, durably, what lies in another place, of the same or another file: as if a write of that
    /// had gone astray. Says whether there is such a place, and it holds anything else.
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

    /// Lets reads of a stretch of a file fail, for good.
    pub fn wear_out(&self, path: &Path, range: Range<u64>) {
        let state = &mut *self.state();
        let Some(inode) = state.names.get(path).copied() else { return };
        if let Some(inode) = state.inodes.get_mut(&inode) {
            inode.worn.push(range);
        }
    }

    /// Whether reads of any stretch of any file fail.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        self.state().inodes.values().any(|inode| !inode.worn.is_empty())
    }

    /// Lets nothing that was planned and did not happen yet happen: no operation fails, lies, goes astray or is the last.
    pub fn forget_plans(&self) {
        let state = &mut *self.state();
        state.faults.clear();
        state.halts_after = None;
    }

    /// Another disk that holds the same now, synced or not, and shares nothing with this one: to try many fates of
    /// one state. Open files and locks stay with this one.
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
