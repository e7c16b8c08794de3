//! A log store by the [`LogStore`] trait: all changes of one log in one file, each in a frame with a
//! checksum.
//!
//! Each of the first two pages is a *mark*: the length up to which the file is durable. A sync writes
//! and syncs the staged changes first, then both marks. So one mark is whole after any crash; bytes
//! after its length are the rest of a write that was never acknowledged; and bytes before it are
//! whole, or the disk has damaged them. That takes two syncs for each group of requests, where the
//! write-ahead log of Quorate needs one. The entries stay in memory, too.

use bytes::Bytes;
use quorate_raft::{Batch, EntryId, HardState, Index};
use quorate_storage::{
    LogDir, LogStore, Opening, Recovered, StorageError, StorageHandle, StorageOp, checksum,
    disk::{Disk, File},
    store_file::{append_frame, failed, replace, take_frame},
};
use serde::{Deserialize, Serialize};
use std::{fmt::Display, io::ErrorKind, io::IoSlice, path::Path, path::PathBuf, sync::Arc};

/// The open file and its content.
pub struct FileLog {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Box<dyn File>,
    /// Length of the durable part.
    end: usize,
    /// Frames that follow it with the next sync.
    staged: Vec<u8>,
    hard_state: (HardState, bool),
    base: (EntryId, u32),
    batches: Vec<Batch>,
}

/// The content of a frame. An append has the records of a batch, which have checksums of their own.
#[derive(Serialize, Deserialize)]
enum Change<'a> {
    HardState(HardState, bool),
    Append(&'a [u8]),
    Truncate(Index),
    Cut(EntryId, u32),
}

const PAGE: usize = 4096;
const BEGIN: usize = 2 * PAGE;

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
        let (disk, path) = (at.disk.clone(), at.dir.join("log"));
        let file = match disk.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => replace(&*disk, &path, &marks(BEGIN))?,
            file => file.map_err(failed(StorageOp::Open, &path))?,
        };
        let (staged, batches, hard_state, base) = Default::default();
        let mut log = Self { disk, path, file, end: 0, staged, hard_state, base, batches };
        log.replay()?;
        // A killed process may have left the marks and the name in the page cache alone.
        log.write(&marks(log.end), 0)?;
        at.disk.sync_dir(&at.dir).map_err(failed(StorageOp::Sync, &at.dir))?;

        let ((hard_state, has_voted), (base, last_checksum)) = (log.hard_state, log.base);
        let none = Recovered { hard_state, has_voted, base, last: base, last_checksum, ..Recovered::default() };
        let mut recovered = none;
        log.batches.iter().try_for_each(|batch| recovered.append(batch))?;
        Ok((log, recovered))
    }

    fn replay(&mut self) -> Result<(), StorageError> {
        let length = self.file.length().map_err(failed(StorageOp::Read, &self.path))?;
        let mut bytes = vec![0; length as usize];
        self.file.read_at(&mut bytes, 0).map_err(failed(StorageOp::Read, &self.path))?;
        let mark = |at| Some(u64::from_le_bytes(take_frame(&mut bytes.get(at..)?)?.try_into().ok()?) as usize);
        self.end = mark(0).max(mark(PAGE)).ok_or_else(|| self.damaged("both marks are lost"))?;
        let mut rest = bytes.get(BEGIN..self.end).ok_or_else(|| self.damaged("its end is lost"))?;
        while !rest.is_empty() {
            let at = self.end - rest.len();
            let change = take_frame(&mut rest).and_then(|change| postcard::from_bytes(change).ok());
            self.apply(&change.ok_or_else(|| self.damaged(format!("the change at byte {at} is another")))?)?;
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
        append_frame(&mut self.staged, &postcard::to_allocvec(change).expect("a change has a form"));
        Ok(())
    }

    /// Writes and syncs, in one write that may be torn.
    fn write(&self, bytes: &[u8], at: usize) -> Result<(), StorageError> {
        self.file.write_at(&mut [IoSlice::new(bytes)], at as u64).map_err(failed(StorageOp::Write, &self.path))?;
        self.file.sync_data().map_err(failed(StorageOp::Sync, &self.path))
    }

    fn damaged(&self, what: impl Display) -> StorageError {
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

    /// Writes another file, of the changes that lead to the present content.
    fn cut(&mut self, to: EntryId, checksum: u32) -> Result<(), StorageError> {
        self.staged.clear();
        self.stage(&Change::Cut(to, checksum))?;
        self.stage(&Change::HardState(self.hard_state.0, self.hard_state.1))?;
        std::mem::take(&mut self.batches).iter().try_for_each(|batch| self.append(batch))?;
        self.end = BEGIN + self.staged.len();
        self.file = replace(&*self.disk, &self.path, &[marks(self.end), std::mem::take(&mut self.staged)].concat())?;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.write(&self.staged, self.end)?;
        self.end += std::mem::take(&mut self.staged).len();
        self.write(&marks(self.end), 0)
    }

    fn read(&mut self, index: Index) -> Result<Option<Batch>, StorageError> {
        Ok(self.batches.iter().find_map(|batch| batch.from(index)))
    }
}

/// The first two pages of a file that is durable up to `end`.
fn marks(end: usize) -> Vec<u8> {
    let mut page = Vec::new();
    append_frame(&mut page, &(end as u64).to_le_bytes());
    page.resize(PAGE, 0);
    page.repeat(2)
}
