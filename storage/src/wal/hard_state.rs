//! Term, vote and promise on disk: two pairs of copies, written in turn.
//!
//! A write goes to both copies of the pair that is not the newest. A crash in the middle of it
//! leaves the other pair, which is the last acknowledged state; damage to one copy leaves its twin.
//! A pair with two damaged copies is more than a crash causes (it tears at one place), so it is
//! refused rather than answered with an older vote.

use super::{BLOCK_BYTES, Failure, Identity, Outcome, SealedBlock, failed, remove_if_there};
use crate::contract::StorageOp;
use crate::disk::{Disk, File, Pace};
use quorate_raft::{HardState, NodeId, Promise, Term};
use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The name of the file in the directory of the log.
pub const NAME: &str = "hard-state";
/// Its name until it is complete.
const UNFINISHED: &str = "hard-state.new";

const MAGIC: [u8; 8] = *b"QUORHARD";
const VERSION: u32 = 2;
/// Distance of the copies: no sector or page holds two of them.
const APART: usize = 4096;
const COPIES: usize = 4;
/// More than any store reaches: a copy with a higher sequence is damaged, though
/// its checksum holds.
pub const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// The open file, and its newest copy. The log writes states to it, and the thread that makes the
/// next segment the name of that.
#[derive(Debug)]
pub struct HardStateFile {
    file: Box<dyn File>,
    path: PathBuf,
    newest: Mutex<Copy>,
    /// Held during a write; the failure of an earlier one, after which there is none.
    writing: Mutex<Option<Failure>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Copy {
    sequence: u64,
    state: HardState,
    /// Whether this member ever voted, in this term or an earlier one.
    has_voted: bool,
    /// Sequence of the newest named segment at the time of the write: recovery notices if
    /// it is missing.
    segment: u64,
    identity: Identity,
}

impl HardStateFile {
    /// The open file, and its path.
    pub(super) fn file(&self) -> (&dyn File, &Path) {
        (&*self.file, &self.path)
    }

    /// Makes the file of a new store, durably.
    pub fn create(disk: &dyn Disk, dir: &Path, identity: &Identity) -> Outcome<Self> {
        let (unfinished, path) = (dir.join(UNFINISHED), dir.join(NAME));
        remove_if_there(disk, &unfinished)?;
        let file = disk.create(&unfinished).map_err(failed(StorageOp::Create, &unfinished))?;
        let newest =
            Copy { sequence: 1, state: HardState::default(), has_voted: false, segment: 0, identity: identity.clone() };
        let first = Copy { sequence: 0, ..newest.clone() };
        file.allocate((COPIES * APART) as u64, Pace::AtOnce).map_err(failed(StorageOp::Write, &unfinished))?;
        first.write(&*file).and_then(|()| newest.write(&*file)).map_err(failed(StorageOp::Write, &unfinished))?;
        file.sync_data().map_err(failed(StorageOp::Sync, &unfinished))?;
        disk.rename(&unfinished, &path).map_err(failed(StorageOp::Rename, &path))?;
        disk.sync_dir(dir).map_err(failed(StorageOp::Sync, dir))?;
        Ok(Self::of(file, path, newest))
    }

    /// Opens the file of an existing store, and writes its newest copy again, so that nothing
    /// depends on pages that a failed sync left in memory.
    pub fn open(disk: &dyn Disk, dir: &Path, identity: &Identity) -> Outcome<Self> {
        let path = dir.join(NAME);
        let file = disk.open(&path).map_err(failed(StorageOp::Open, &path))?;
        let newest = read(&*file, &path)?;
        if newest.identity != *identity {
            return Err(mismatch(dir, &newest.identity, identity));
        }
        let this = Self::of(file, path, newest);
        this.write(this.state(), this.segment())?;
        Ok(this)
    }

    fn of(file: Box<dyn File>, path: PathBuf, newest: Copy) -> Self {
        Self { file, path, newest: Mutex::new(newest), writing: Mutex::new(None) }
    }

    fn newest(&self) -> MutexGuard<'_, Copy> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest term, vote and promise.
    pub fn state(&self) -> HardState {
        self.newest().state
    }

    /// Whether this member ever voted, in this term or an earlier one.
    pub fn has_voted(&self) -> bool {
        self.newest().has_voted
    }

    /// Sequence of the newest segment that had its name at the last write.
    pub fn segment(&self) -> u64 {
        self.newest().segment
    }

    /// Writes a new state and the newest segment's sequence, durably.
    pub fn write(&self, state: HardState, segment: u64) -> Outcome<()> {
        self.update(|newest| (newest.state, newest.segment) = (state, segment))
    }

    /// Writes a new state, durably.
    pub(super) fn write_state(&self, state: HardState) -> Outcome<()> {
        self.update(|newest| newest.state = state)
    }

    /// Writes the newest segment's sequence, durably.
    pub(super) fn write_segment(&self, segment: u64) -> Outcome<()> {
        self.update(|newest| newest.segment = segment)
    }

    fn update(&self, change: impl FnOnce(&mut Copy)) -> Outcome<()> {
        let mut earlier = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = &*earlier {
            return Err(failure.clone());
        }
        let mut next = self.newest().clone();
        change(&mut next);
        next.sequence += 1;
        next.has_voted |= next.state.vote.is_some();
        if let Err(failure) = self.make_durable(&next) {
            return Err(earlier.insert(failure).clone());
        }
        *self.newest() = next;
        Ok(())
    }

    fn make_durable(&self, next: &Copy) -> Outcome<()> {
        next.write(&*self.file).map_err(failed(StorageOp::Write, &self.path))?;
        self.file.sync_data().map_err(failed(StorageOp::Sync, &self.path))?;
        Ok(())
    }
}

/// The owner of the directory.
pub(crate) fn identity(disk: &dyn Disk, dir: &Path) -> Outcome<Identity> {
    let path = dir.join(NAME);
    let file = disk.open_to_read(&path).map_err(failed(StorageOp::Open, &path))?;
    Ok(read(&*file, &path)?.identity)
}

/// Replaces a lost file with one that has a term above every term that a log can have, and no
/// vote. Only for a directory that is read and never run as a member: as a member's hard state it
/// would be false.
pub(crate) fn stand_in(disk: &dyn Disk, dir: &Path, identity: &Identity) -> Outcome<()> {
    remove_if_there(disk, &dir.join(NAME))?;
    let file = HardStateFile::create(disk, dir, identity)?;
    file.write(HardState::new(Term(u64::MAX), None), 0)
}

/// The newest copy in a file.
fn read(file: &dyn File, path: &Path) -> Outcome<Copy> {
    let mut bytes = vec![0; COPIES * APART];
    let count = file.read_at(&mut bytes, 0).map_err(failed(StorageOp::Read, path))?;
    let copies = SealedBlock::copies(&bytes, (0..COPIES).map(|copy| copy * APART), MAGIC);
    SealedBlock::refuse_other_version(&copies, VERSION, path)?;
    newest(&bytes[..count]).map_err(|what| {
        Failure::open(format_args!(
            "{}: {what}; the term and vote are lost, and a guess could vote twice: remove this member and add it again under a new id",
            path.display()
        ))
    })
}

/// The refusal to open data of `found` as `wanted`.
pub(crate) fn mismatch(dir: &Path, found: &Identity, wanted: &Identity) -> Failure {
    Failure::open(format_args!(
        "{} belongs to {found}, not to {wanted}; correct the data directory, the node's id or the cluster's name",
        dir.display()
    ))
}

/// The newest copy, or the reason to refuse the file.
fn newest(bytes: &[u8]) -> Result<Copy, String> {
    let copies: Vec<_> = (0..COPIES).map(|copy| bytes.get(copy * APART..).and_then(Copy::read)).collect();
    let pair = |pair: usize| copies[2 * pair..2 * pair + 2].iter().flatten().max_by_key(|copy| copy.sequence);
    match (pair(0), pair(1)) {
        (Some(one), Some(other)) => Ok(if one.sequence > other.sequence { one } else { other }.clone()),
        (None, None) => Err("all four copies are damaged".into()),
        (one, _) => Err(format!("both copies at byte {} are damaged", if one.is_none() { 0 } else { 2 * APART })),
    }
}

impl Copy {
    /// Writes both copies of the pair that the sequence selects. Not synced.
    fn write(&self, file: &dyn File) -> io::Result<()> {
        let block = SealedBlock::new(MAGIC)
            .put_u32(8, VERSION)
            .put_u32(12, u32::from(self.state.vote.is_some()) | u32::from(self.has_voted) << 1)
            .put_u64(16, self.sequence)
            .put_u64(24, self.state.term.0)
            .put_u64(32, self.state.vote.map_or(0, |vote| vote.0))
            .put_u64(40, self.identity.member.0)
            .put_u64(48, self.segment)
            .put_name(56, &self.identity.cluster)
            .put_u32(504, self.state.promise.0)
            .close();
        let gap = [0; APART - BLOCK_BYTES];
        let pair = if self.sequence.is_multiple_of(2) { 0 } else { 2 * APART };
        let copies = &mut [IoSlice::new(&block), IoSlice::new(&gap), IoSlice::new(&block)];
        file.write_at(copies, pair as u64)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let block = SealedBlock::read(bytes, MAGIC)?;
        if block.u32(8) != VERSION || block.u64(16) > SEQUENCE_MAX {
            return None;
        }
        Some(Self {
            sequence: block.u64(16),
            state: HardState {
                term: Term(block.u64(24)),
                vote: (block.u32(12) & 1 == 1).then_some(NodeId(block.u64(32))),
                promise: Promise(block.u32(504)),
            },
            has_voted: block.u32(12) & 3 != 0,
            segment: block.u64(48),
            identity: Identity { member: NodeId(block.u64(40)), cluster: block.name(56)? },
        })
    }
}
