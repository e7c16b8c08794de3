//! The visible content of a simulated disk, the durable content, and the changes between them.

use super::Operation;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) durable_names: BTreeMap<PathBuf, u64>,
    pub(super) inodes: BTreeMap<u64, Inode>,
    inodes_made: u64,
    /// In the order of writing; the key is a counter.
    pub(super) unsynced: BTreeMap<u64, Unsynced>,
    changes_made: u64,
    pub(super) counts: BTreeMap<Operation, u64>,
    pub(super) faults: BTreeMap<(Operation, u64), Fault>,
    pub(super) syncs_take: Duration,
    pub(super) free_bytes: Option<u64>,
    /// Operations left until the machine dies.
    pub(super) halts_after: Option<u64>,
    pub(super) is_halted: bool,
    pub(super) locks: BTreeSet<PathBuf>,
    /// How often each file is open: a file without a name stays until it is closed.
    pub(super) opened: BTreeMap<u64, usize>,
    /// Number of power failures: files opened before the last one can't be used.
    pub(super) power_cycle: u64,
}

/// The fault of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails with an I/O error.
    Fail,
    /// There is no file descriptor, or no thread, for it.
    Short,
    /// It does nothing, and reports success.
    Lie,
    /// It goes to another place of the file.
    Misdirect {
        /// Distance in bytes.
        by: i64,
    },
}

impl State {
    /// Plans a fault for the `nth` operation from now on.
    pub(super) fn plan(&mut self, operation: Operation, nth: u64, fault: Fault) {
        let at = self.counts.get(&operation).copied().unwrap_or(0) + nth;
        self.faults.insert((operation, at), fault);
    }

    /// Counts an operation; returns its fault, unless that makes it fail.
    pub(super) fn step(&mut self, operation: Operation) -> io::Result<Option<Fault>> {
        let count = self.counts.entry(operation).or_default();
        *count += 1;
        if self.is_halted {
            return Err(rustix::io::Errno::IO.into());
        }
        match &mut self.halts_after {
            Some(0) => {
                self.is_halted = true;
                return Err(rustix::io::Errno::IO.into());
            }
            Some(left) => *left -= 1,
            None => {}
        }
        match self.faults.remove(&(operation, *count)) {
            Some(Fault::Fail) => Err(rustix::io::Errno::IO.into()),
            Some(Fault::Short) => Err(rustix::io::Errno::MFILE.into()),
            other => Ok(other),
        }
    }

    /// Counts a thread that is started. A dying machine never starts one by half.
    pub(super) fn start_thread(&mut self) -> io::Result<()> {
        let count = self.counts.entry(Operation::Thread).or_default();
        *count += 1;
        match self.faults.remove(&(Operation::Thread, *count)) {
            None => Ok(()),
            Some(_) => Err(rustix::io::Errno::AGAIN.into()),
        }
    }

    pub(super) fn next_inode(&mut self) -> u64 {
        self.inodes_made += 1;
        self.inodes_made
    }

    /// Changes the visible content now, and the durable content with the next sync.
    pub(super) fn change(&mut self, inode: u64, what: Change) -> io::Result<()> {
        let file = self.inodes.entry(inode).or_default();
        if let Some(free) = &mut self.free_bytes {
            let (before, end) = (file.seen.len() as u64, what.end());
            *free = match what {
                Change::Truncate { .. } => free.saturating_add(before.saturating_sub(end)),
                _ => free.checked_sub(end.saturating_sub(before)).ok_or(rustix::io::Errno::NOSPC)?,
            };
        }
        file.see(&what);
        self.changes_made += 1;
        self.unsynced.insert(self.changes_made, Unsynced { inode, what, abandoned: false });
        Ok(())
    }

    /// Removes a file's name, and gives back its space.
    pub(super) fn unlink(&mut self, path: &Path) -> Option<u64> {
        let inode = self.names.remove(path)?;
        let bytes = self.inodes.get(&inode).map_or(0, |inode| inode.seen.len() as u64);
        self.free_bytes = self.free_bytes.map(|free| free.saturating_add(bytes));
        Some(inode)
    }
}

/// A file. Forks share the content that they have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) seen: Arc<Vec<u8>>,
    pub(super) durable: Arc<Vec<u8>>,
    /// Ranges that can't be read.
    pub(super) worn: Vec<Range<u64>>,
}

impl Inode {
    pub(super) fn see(&mut self, what: &Change) {
        apply(Arc::make_mut(&mut self.seen), what);
    }

    /// Makes a change durable up to `bytes_max`; returns the number of bytes used.
    pub(super) fn settle(&mut self, what: &Change, bytes_max: u64) -> u64 {
        match what {
            Change::Write { offset, bytes } => {
                let kept = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(bytes.len());
                self.make_durable(&Change::Write { offset: *offset, bytes: bytes[..kept].to_vec() });
                kept as u64
            }
            _ if bytes_max > 0 => {
                self.make_durable(what);
                0
            }
            _ => 0,
        }
    }

    /// Makes some sectors of a change durable.
    pub(super) fn scatter(&mut self, what: &Change, random: &mut Random) {
        let Change::Write { offset, bytes } = what else {
            return self.make_durable(what);
        };
        let mut at = 0;
        while at < bytes.len() {
            let in_sector = SECTOR - (*offset as usize + at) % SECTOR;
            let end = bytes.len().min(at + in_sector);
            if random.coin() {
                self.make_durable(&Change::Write { offset: offset + at as u64, bytes: bytes[at..end].to_vec() });
            }
            at = end;
        }
    }

    /// Changes a range without a write; returns whether any byte of it exists.
    pub(super) fn damage(&mut self, range: Range<usize>, mut what: impl FnMut(&mut [u8])) -> bool {
        let mut is_there = false;
        for contents in [&mut self.seen, &mut self.durable] {
            let range = range.start..range.end.min(contents.len());
            if !range.is_empty() {
                what(&mut Arc::make_mut(contents)[range]);
                is_there = true;
            }
        }
        is_there
    }

    fn make_durable(&mut self, what: &Change) {
        apply(Arc::make_mut(&mut self.durable), what);
    }
}

const SECTOR: usize = 512;

#[derive(Clone, Debug)]
pub(super) struct Unsynced {
    pub(super) inode: u64,
    pub(super) what: Change,
    /// A sync of it failed: no later one makes it durable, but it may have reached the disk.
    pub(super) abandoned: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Zeros { bytes: u64 },
    Truncate { bytes: u64 },
}

impl Change {
    pub(super) fn range(&self) -> Range<u64> {
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

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn coin(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}
