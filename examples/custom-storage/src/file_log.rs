//! A log store by the [`LogStore`] trait: all changes of one log in one file, each with a checksum.
//!
//! At bytes 0 and 4096 the file has a *mark*: the length up to which it is durable. A sync writes
//! and syncs the staged changes first, then both marks. So one mark is whole after any crash; bytes
//! after it are the rest of a write that was never acknowledged; and bytes before it are whole, or
//! the disk has damaged them. That takes two syncs for each group of requests, where the
//! write-ahead log of Quorate needs one. The entries stay in memory, too.

use bytes::{Buf, Bytes};
use quorate_raft::{Batch, EntryId, HardState, Index};
use quorate_storage::{
    LogDir, LogStore, Opening, Recovered, StorageError, StorageHandle, StorageOp, checksum, disk::Disk, disk::File,
};
use serde::{Deserialize, Serialize};
use std::{fmt, io, io::ErrorKind, io::IoSlice, path::Path, path::PathBuf, sync::Arc};

/// The open file and its content.
pub struct FileLog {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Box<dyn File>,
    /// Length of the durable part.
    end: u64,
    staged: Vec<u8>,
    hard_state: (HardState, bool),
    base: (EntryId, u32),
    batches: Vec<Batch>,
}

/// A change as it stands in the file, after its length and checksum. An append has the records of a
/// batch, which have checksums of their own.
#[derive(Serialize, Deserialize)]
enum Change<'a> {
    HardState(HardState, bool),
    Append(&'a [u8]),
    Truncate(Index),
    Cut(EntryId, u32),
}

const MARKS: [usize; 2] = [0, 4096];
const BEGIN: usize = 8192;

impl FileLog {
    /// The storage actor for a node: `.storage(FileLog::at("data/1"))`.
    pub fn at(dir: impl AsRef<Path>) -> StorageHandle {
        LogDir::at(dir).storage(Self::open)
    }

    /// Opens the log of a directory, or creates it.
    ///
    /// # Errors
    /// The disk's, or if the file is damaged.
    pub fn open(at: &Opening) -> Result<(Self, Recovered), StorageError> {
        let path = at.dir.join("log");
        let log = match at.disk.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Self::create(at.disk.clone(), path)?.publish()?,
            file => {
                let mut log = Self::on(at.disk.clone(), file.map_err(failed(StorageOp::Open, &path))?, path);
                log.replay()?;
                // A killed process may have left the marks and the name in the page cache alone.
                log.mark()?;
                at.disk.sync_dir(&at.dir).map_err(failed(StorageOp::Sync, &at.dir))?;
                log
            }
        };
        let ((hard_state, has_voted), (base, last_checksum)) = (log.hard_state, log.base);
        let none = Recovered { hard_state, has_voted, base, last: base, last_checksum, ..Recovered::default() };
        let mut recovered = none;
        log.batches.iter().try_for_each(|batch| recovered.append(batch))?;
        Ok((log, recovered))
    }

    fn on(disk: Arc<dyn Disk>, file: Box<dyn File>, path: PathBuf) -> Self {
        let (staged, batches, hard_state, base) = Default::default();
        Self { disk, path, file, end: BEGIN as u64, staged, hard_state, base, batches }
    }

    /// An empty log under a temporary name.
    fn create(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Self, StorageError> {
        let unfinished = path.with_extension("new");
        disk.remove(&unfinished).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(failed(StorageOp::Remove, &unfinished)(error)),
        })?;
        let file = disk.create(&unfinished).map_err(failed(StorageOp::Create, &unfinished))?;
        Ok(Self::on(disk, file, path))
    }

    /// Syncs the log, then gives it its name, which an older file may have until then.
    fn publish(mut self) -> Result<Self, StorageError> {
        self.sync()?;
        self.disk
            .rename(&self.path.with_extension("new"), &self.path)
            .map_err(failed(StorageOp::Rename, &self.path))?;
        let dir = self.path.parent().unwrap_or(&self.path);
        self.disk.sync_dir(dir).map_err(failed(StorageOp::Sync, dir))?;
        Ok(self)
    }

    fn replay(&mut self) -> Result<(), StorageError> {
        let length = self.file.length().map_err(failed(StorageOp::Read, &self.path))?;
        let mut bytes = vec![0; BEGIN.max(length as usize)];
        self.file.read_at(&mut bytes, 0).map_err(failed(StorageOp::Read, &self.path))?;
        let mark = |at: usize| Some(checked(bytes.get(at..at + 12)?)?.get_u64_le());
        self.end = MARKS.into_iter().filter_map(mark).max().ok_or_else(|| self.damaged("both marks are lost"))?;
        let mut rest = bytes.get(BEGIN..self.end as usize).ok_or_else(|| self.damaged("its end is lost"))?;
        while !rest.is_empty() {
            let at = self.end as usize - rest.len();
            let change = split(&mut rest).and_then(|change| postcard::from_bytes(change).ok());
            self.apply(&change.ok_or_else(|| self.damaged(format_args!("the change at byte {at} is another")))?)?;
        }
        Ok(())
    }

    fn apply(&mut self, change: &Change<'_>) -> Result<(), StorageError> {
        match *change {
            Change::HardState(state, has_voted) => self.hard_state = (state, has_voted),
            Change::Append(records) => {
                let batch = Batch::parse(Bytes::copy_from_slice(records), checksum);
                self.batches.push(batch.map_err(|what| self.damaged(what))?);
            }
            Change::Truncate(from) => {
                self.batches = self.batches.iter().filter_map(|batch| batch.up_to(from.previous())).collect();
            }
            Change::Cut(to, checksum) => {
                self.base = (to, checksum);
                self.batches = self.batches.iter().filter_map(|batch| batch.from(to.index.next())).collect();
            }
        }
        Ok(())
    }

    fn stage(&mut self, change: &Change<'_>) -> Result<(), StorageError> {
        self.apply(change)?;
        let body = postcard::to_allocvec(change).map_err(|error| self.damaged(error))?;
        self.staged.extend((body.len() as u32).to_le_bytes());
        self.staged.extend(&body);
        self.staged.extend(checksum(0, &body).to_le_bytes());
        Ok(())
    }

    fn mark(&self) -> Result<(), StorageError> {
        let end = self.end.to_le_bytes();
        let mark = [&end[..], &checksum(0, &end).to_le_bytes()].concat();
        MARKS.into_iter().try_for_each(|at| self.write(&mark, at as u64))?;
        self.file.sync_data().map_err(failed(StorageOp::Sync, &self.path))
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), StorageError> {
        self.file.write_at(&mut [IoSlice::new(bytes)], at).map_err(failed(StorageOp::Write, &self.path))
    }

    fn damaged(&self, what: impl fmt::Display) -> StorageError {
        let path = self.path.display();
        StorageError::new(format!("{path} is damaged: {what}; replace this member by one with a new id"))
    }
}

impl LogStore for FileLog {
    fn set_hard_state(&mut self, state: HardState, has_voted: bool) -> Result<(), StorageError> {
        self.stage(&Change::HardState(state, has_voted))
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.stage(&Change::Append(batch.bytes()))
    }

    fn truncate(&mut self, from: Index) -> Result<(), StorageError> {
        self.stage(&Change::Truncate(from))
    }

    fn cut(&mut self, to: EntryId, checksum: u32) -> Result<(), StorageError> {
        self.apply(&Change::Cut(to, checksum))?;
        let mut rest = Self::create(self.disk.clone(), self.path.clone())?;
        rest.stage(&Change::Cut(to, checksum))?;
        rest.stage(&Change::HardState(self.hard_state.0, self.hard_state.1))?;
        self.batches.iter().try_for_each(|batch| rest.append(batch))?;
        *self = rest.publish()?;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.write(&self.staged, self.end)?;
        self.file.sync_data().map_err(failed(StorageOp::Sync, &self.path))?;
        self.end += self.staged.len() as u64;
        self.staged.clear();
        self.mark()
    }

    fn read(&mut self, index: Index) -> Result<Option<Batch>, StorageError> {
        Ok(self.batches.iter().find_map(|batch| batch.from(index)))
    }
}

fn failed(operation: StorageOp, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    move |error| StorageError::io(operation, path, error, "check the disk, then start the node again")
}

/// The bytes before a checksum, if it is theirs.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (body, sum) = bytes.split_last_chunk()?;
    (checksum(0, body).to_le_bytes() == *sum).then_some(body)
}

/// Takes the first change, unless it is damaged.
fn split<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    *rest = after;
    let length = u32::from_le_bytes(*length) as usize;
    checked(rest.split_off(..length.checked_add(4)?)?)
}
