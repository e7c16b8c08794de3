//! A disk in memory that fails on demand.

use super::{Disk, File, Pace};
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
            inode.seen.clone_from(&inode.durable);
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
        let state = &mut *self.state();
        let at = state.counts.get(&operation).copied().unwrap_or(0) + nth;
        state.faults.insert((operation, at));
    }

    /// Lets files grow by so many bytes more, all together, and then be out of space.
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
        state.inodes.get(inode).map(|inode| inode.seen.clone())
    }

    /// Puts a file there, durably, in place of any other of that name.
    pub fn put(&self, path: &Path, contents: Vec<u8>) {
        let state = &mut *self.state();
        let inode = state.next_inode();
        state.inodes.insert(inode, Inode { seen: contents.clone(), durable: contents });
        state.names.insert(path.to_owned(), inode);
        state.durable_names.insert(path.to_owned(), inode);
    }

    /// Flips the bits of `mask` in one byte of a file, durably. Says whether there is such a byte.
    pub fn flip(&self, path: &Path, offset: usize, mask: u8) -> bool {
        let state = &mut *self.state();
        let Some(inode) = state.names.get(path).copied() else { return false };
        let Some(inode) = state.inodes.get_mut(&inode) else { return false };
        let bytes = [inode.seen.get_mut(offset), inode.durable.get_mut(offset)];
        bytes.into_iter().flatten().map(|byte| *byte ^= mask).count() > 0
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

    fn file(&self, state: &mut State, inode: u64) -> Box<dyn File> {
        *state.opened.entry(inode).or_default() += 1;
        Box::new(SimulatedFile { disk: self.clone(), inode, power_cycle: state.power_cycle })
    }
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let state = &mut *self.state();
        state.step(Operation::Open)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.next_inode();
        state.inodes.insert(inode, Inode::default());
        state.names.insert(path.to_owned(), inode);
        Ok(self.file(state, inode))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let state = &mut *self.state();
        state.step(Operation::Open)?;
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(state, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.state();
        state.step(Operation::Rename)?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.state();
        state.step(Operation::Rename)?;
        state.names.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let state = &mut *self.state();
        state.step(Operation::SyncDir)?;
        state.durable_names.retain(|path, _| path.parent() != Some(dir));
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        state.durable_names.extend(inside.map(|(path, inode)| (path.clone(), *inode)));
        let (names, durable) = (&state.names, &state.durable_names);
        let used: BTreeSet<u64> = names.values().chain(durable.values()).chain(state.opened.keys()).copied().collect();
        state.inodes.retain(|inode, _| used.contains(inode));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let state = &mut *self.state();
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimulatedLock { disk: self.clone(), path: path.to_owned(), power_cycle: state.power_cycle }))
    }

    fn in_background(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    inodes: BTreeMap<u64, Inode>,
    inodes_made: u64,
    /// In the order of writing; the key only counts.
    unsynced: BTreeMap<u64, Unsynced>,
    changes_made: u64,
    counts: BTreeMap<Operation, u64>,
    faults: BTreeSet<(Operation, u64)>,
    free_bytes: Option<u64>,
    locks: BTreeSet<PathBuf>,
    /// How often each file is open: one that has lost its name stays until it is not.
    opened: BTreeMap<u64, usize>,
    /// Counts power cuts: a file opened before the last one can't be used.
    power_cycle: u64,
}

impl State {
    fn step(&mut self, operation: Operation) -> io::Result<()> {
        let count = self.counts.entry(operation).or_default();
        *count += 1;
        if self.faults.remove(&(operation, *count)) {
            return Err(rustix::io::Errno::IO.into());
        }
        Ok(())
    }

    fn next_inode(&mut self) -> u64 {
        self.inodes_made += 1;
        self.inodes_made
    }

    /// Changes what readers see now, and what is durable once synced.
    fn change(&mut self, inode: u64, what: Change) -> io::Result<()> {
        let file = self.inodes.entry(inode).or_default();
        if let (Some(free), Change::Write { .. } | Change::Zeros { .. }) = (&mut self.free_bytes, &what) {
            let grows = what.end().saturating_sub(file.seen.len() as u64);
            *free = free.checked_sub(grows).ok_or(rustix::io::Errno::NOSPC)?;
        }
        apply(&mut file.seen, &what);
        self.changes_made += 1;
        self.unsynced.insert(self.changes_made, Unsynced { inode, what, abandoned: false });
        Ok(())
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

impl Inode {
    /// Makes a change durable as far as `bytes_max` goes; says how many bytes that took.
    fn settle(&mut self, what: &Change, bytes_max: u64) -> u64 {
        match what {
            Change::Write { offset, bytes } => {
                let kept = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(bytes.len());
                apply(&mut self.durable, &Change::Write { offset: *offset, bytes: bytes[..kept].to_vec() });
                kept as u64
            }
            _ if bytes_max > 0 => {
                apply(&mut self.durable, what);
                0
            }
            _ => 0,
        }
    }

    /// Makes some sectors of a change durable.
    fn scatter(&mut self, what: &Change, random: &mut Random) {
        let Change::Write { offset, bytes } = what else {
            return apply(&mut self.durable, what);
        };
        let mut at = 0;
        while at < bytes.len() {
            let in_sector = SECTOR - (*offset as usize + at) % SECTOR;
            let end = bytes.len().min(at + in_sector);
            if random.coin() {
                apply(&mut self.durable, &Change::Write { offset: offset + at as u64, bytes: bytes[at..end].to_vec() });
            }
            at = end;
        }
    }
}

const SECTOR: usize = 512;

#[derive(Clone, Debug)]
struct Unsynced {
    inode: u64,
    what: Change,
    /// A sync of it failed: no later one makes it durable, but it may have reached the disk all the same.
    abandoned: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Zeros { bytes: u64 },
    Truncate { bytes: u64 },
}

impl Change {
    fn range(&self) -> Range<u64> {
        match self {
            Self::Write { offset, .. } => *offset..self.end(),
            Self::Zeros { .. } => 0..self.end(),
            Self::Truncate { .. } => self.end()..u64::MAX,
        }
    }

    fn end(&self) -> u64 {
        match self {
            Self::Write { offset, bytes } => offset + bytes.len() as u64,
            Self::Zeros { bytes } | Self::Truncate { bytes } => *bytes,
        }
    }
}

fn apply(contents: &mut Vec<u8>, change: &Change) {
    let end = change.end() as usize;
    match change {
        Change::Write { bytes, .. } if bytes.is_empty() => {}
        Change::Write { offset, bytes } => {
            if contents.len() < end {
                contents.resize(end, 0);
            }
            contents[*offset as usize..end].copy_from_slice(bytes);
        }
        Change::Zeros { .. } => {
            contents.clear();
            contents.resize(end, 0);
        }
        Change::Truncate { .. } => contents.truncate(end),
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    inode: u64,
    power_cycle: u64,
}

impl SimulatedFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.power_cycle != self.power_cycle {
            return Err(io::Error::other("the power was cut since this file was opened"));
        }
        Ok(state)
    }
}

impl File for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        state.step(Operation::Read)?;
        let seen = state.inodes.get(&self.inode).map_or(&[][..], |inode| &inode.seen);
        let from = seen.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        let bytes = slices.iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
        if let Err(error) = state.step(Operation::Write) {
            let half = bytes[..bytes.len() / 2].to_vec();
            state.change(self.inode, Change::Write { offset, bytes: half })?;
            return Err(error);
        }
        state.change(self.inode, Change::Write { offset, bytes })
    }

    fn allocate(&self, bytes: u64, _: Pace<'_>) -> io::Result<()> {
        let mut state = self.state()?;
        state.step(Operation::Write)?;
        state.change(self.inode, Change::Zeros { bytes })
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.step(Operation::Write)?;
        state.change(self.inode, Change::Truncate { bytes })
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.state()?.inodes.get(&self.inode).map_or(0, |inode| inode.seen.len() as u64))
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = &mut *self.state()?;
        let outcome = state.step(Operation::Sync);
        let inode = state.inodes.entry(self.inode).or_default();
        let mut settled = Vec::new();
        state.unsynced.retain(|_, change| {
            if change.inode != self.inode || change.abandoned {
                return true;
            }
            if outcome.is_ok() {
                inode.settle(&change.what, u64::MAX);
                settled.push(change.what.range());
            }
            change.abandoned = true;
            outcome.is_err()
        });
        // What was abandoned can't come back over what was written in its place since.
        let overlaps = |other: &Range<u64>| settled.iter().any(|one| one.start < other.end && other.start < one.end);
        state.unsynced.retain(|_, change| change.inode != self.inode || !overlaps(&change.what.range()));
        outcome
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.power_cycle == self.power_cycle {
            state.opened.entry(self.inode).and_modify(|count| *count -= 1);
            state.opened.retain(|_, count| *count > 0);
        }
    }
}

#[derive(Debug)]
struct SimulatedLock {
    disk: SimulatedDisk,
    path: PathBuf,
    power_cycle: u64,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.power_cycle == self.power_cycle {
            state.locks.remove(&self.path);
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn coin(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}
