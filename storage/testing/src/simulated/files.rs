//! The simulated disk as [`Disk`] and [`File`].

use super::{
    Operation, SimulatedDisk,
    state::{Change, Fault, Inode, State},
};
use quorate_disk::{Disk, File, Pace};
use std::{
    any::Any,
    collections::BTreeSet,
    io::{self, IoSlice},
    ops::Range,
    path::{Path, PathBuf},
    sync::MutexGuard,
    thread,
    time::Duration,
};

impl Disk for SimulatedDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state.names.keys().filter(|path| is_in(path, dir));
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
        Ok(open(self, state, inode))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let state = &mut *self.state();
        state.step(Operation::Open)?;
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(open(self, state, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.state();
        state.step(Operation::Rename)?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.unlink(to);
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.state();
        state.step(Operation::Rename)?;
        state.unlink(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let state = &mut *self.state();
        state.step(Operation::SyncDir)?;
        if dir.as_os_str().is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.durable_names.retain(|path, _| !is_in(path, dir));
        let inside = state.names.iter().filter(|(path, _)| is_in(path, dir));
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

    fn in_background(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.state().start_thread()?;
        work();
        Ok(())
    }

    /// Returns at once: the test drives simulated time.
    fn pause(&self, _: Duration) {}
}

/// Whether a file is in this directory. A bare name is in `.`, the working directory.
fn is_in(path: &Path, dir: &Path) -> bool {
    path.parent().is_some_and(|parent| parent == dir || (parent.as_os_str().is_empty() && dir == Path::new(".")))
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    inode: u64,
    power_cycle: u64,
}

fn open(disk: &SimulatedDisk, state: &mut State, inode: u64) -> Box<dyn File> {
    *state.opened.entry(inode).or_default() += 1;
    Box::new(SimulatedFile { disk: disk.clone(), inode, power_cycle: state.power_cycle })
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
        let Some(inode) = state.inodes.get(&self.inode) else { return Ok(0) };
        let asked = offset..offset.saturating_add(buffer.len() as u64);
        if inode.worn.iter().any(|worn| worn.start < asked.end && asked.start < worn.end) {
            return Err(rustix::io::Errno::IO.into());
        }
        let seen = &inode.seen;
        let from = seen.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        let bytes = slices.iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
        let was_halted = state.is_halted;
        match state.step(Operation::Write) {
            Ok(Some(Fault::Misdirect { by })) => {
                let offset = offset.saturating_add_signed(by);
                state.change(self.inode, Change::Write { offset, bytes })
            }
            Ok(_) => state.change(self.inode, Change::Write { offset, bytes }),
            Err(error) if was_halted => Err(error),
            Err(error) => {
                let half = bytes[..bytes.len() / 2].to_vec();
                state.change(self.inode, Change::Write { offset, bytes: half })?;
                Err(error)
            }
        }
    }

    fn allocate(&self, bytes: u64, pace: Pace<'_>) -> io::Result<()> {
        let mut state = self.state()?;
        state.step(Operation::Write)?;
        // Reserved space reads as zeros already.
        if matches!(pace, Pace::Gently { .. }) {
            return Ok(());
        }
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
        let takes = self.state()?.syncs_take;
        if !takes.is_zero() {
            thread::sleep(takes);
        }
        let state = &mut *self.state()?;
        let outcome = match state.step(Operation::Sync) {
            Ok(Some(Fault::Lie)) => return Ok(()),
            outcome => outcome.map(drop),
        };
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
        // An abandoned write must not overwrite later ones in its place.
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
