//! The next segment's file, made and named ahead of need: so the first write to it costs one sync,
//! like every other write.

use super::{
    Failure, Outcome, failed, hard_state::HardStateFile, header::Layout, remove_if_there, segment::Segment,
    shortage::sync_dir,
};
use crate::contract::StorageOp;
use crate::disk::{Disk, File, Pace};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
};

/// Names of a file while it is made, and of a larger one that is made on demand.
pub(crate) const NAMES: [&str; 2] = ["spare", "spare-large"];

/// Parts of a segment in which [`NextSegment::prepare`] counts.
pub(crate) const PARTS: u64 = 1024;

/// Makes files of zeros, one ahead. Dropping it waits for the file in progress, so that the next
/// owner of the directory finds it at rest.
#[derive(Debug)]
pub(crate) struct NextSegment {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    layout: Layout,
    hard_state: Arc<HardStateFile>,
    making: Option<Making>,
    /// The file that was made last, or the reason for its failure.
    made: Option<Outcome<NextFile>>,
}

/// A file of zeros, synced.
#[derive(Debug)]
pub(crate) struct NextFile {
    pub(crate) file: Box<dyn File>,
    pub(crate) path: PathBuf,
    /// Its length.
    pub(crate) bytes: u64,
    /// Whether it has the next segment's name, and the hard state says so, both durably.
    pub(crate) is_named: bool,
}

/// State of the next file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Not requested yet.
    Unasked,
    /// A thread makes it.
    Making,
    /// Made, synced and named.
    Ready,
    /// The disk has no space for it.
    NoSpace,
    /// The system had no file descriptor or no thread for it.
    Short(Failure),
}

/// A file in progress, on a thread of its own.
#[derive(Debug)]
struct Making {
    made: Receiver<Outcome<NextFile>>,
    /// Takes the number of bytes that should be zeroed by now; dropped to tell the thread that the
    /// log waits.
    wanted: SyncSender<u64>,
}

impl Making {
    /// Waits for the file. `None` if its thread is gone.
    fn take(self) -> Option<Outcome<NextFile>> {
        drop(self.wanted);
        self.made.recv().ok()
    }
}

impl NextSegment {
    /// For segments of this layout, or larger ones.
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path, layout: Layout, hard_state: Arc<HardStateFile>) -> Self {
        Self { disk, dir: dir.to_owned(), layout, hard_state, making: None, made: None }
    }

    /// Starts to make the file of the segment with this sequence, unless it is there, is in
    /// progress, or has failed. `used` of [`PARTS`] of the segment before it are used up: as the
    /// zeros are half as fast again as the log, they are all there when two thirds are.
    pub(crate) fn prepare(&mut self, sequence: u64, used: u64) {
        let wanted = self.layout.capacity / PARTS * used * 3 / 2;
        if let Some(making) = &self.making {
            // The thread takes the last number with its next step; a full channel has a recent one.
            let _ = making.wanted.try_send(wanted);
            return;
        }
        if self.made.is_some() {
            return;
        }
        let ((tell, told), (sender, receiver)) = (sync_channel(1), sync_channel(1));
        let _ = sender.try_send(wanted);
        let (disk, dir, layout) = (self.disk.clone(), self.dir.clone(), self.layout);
        let hard_state = self.hard_state.clone();
        // If the receiver is gone, the next start removes the file.
        let started = self.disk.in_background(Box::new(move || {
            // The table is zeroed first: it is small, and a log that overtakes the zeros is
            // slowed down more with each place it has to fill.
            let first = 0..layout.slots_at + layout.slots_bytes;
            let pace = Pace::Gently { first, rest: layout.records_at..layout.capacity, wanted: &receiver };
            // It is named before it is zeroed: a log that waits for it waits for one step of zeros.
            let made = make_next(&*disk, &dir, layout.capacity, Pace::Reserved)
                .and_then(|file| file.name(&*disk, &dir, sequence, &hard_state))
                .and_then(|file| file.zero(pace));
            let _ = tell.send(made);
        }));
        match started {
            Ok(()) => self.making = Some(Making { made: told, wanted: sender }),
            Err(error) => self.made = Some(Err(failed(StorageOp::StartThread, &self.dir.join(NAMES[0]))(error))),
        }
    }

    /// The state of the next file.
    ///
    /// # Errors
    /// If it failed, for another reason than lack of space or a shortage.
    pub(crate) fn readiness(&mut self) -> Outcome<Readiness> {
        if let Some(making) = &self.making {
            match making.made.try_recv() {
                Ok(made) => (self.made, self.making) = (Some(made), None),
                Err(TryRecvError::Empty) => return Ok(Readiness::Making),
                // [`NextSegment::take`] makes it on demand.
                Err(TryRecvError::Disconnected) => self.making = None,
            }
        }
        match &self.made {
            None => Ok(Readiness::Unasked),
            Some(Ok(_)) => Ok(Readiness::Ready),
            Some(Err(failure)) if failure.is_full => Ok(Readiness::NoSpace),
            Some(Err(failure)) if failure.is_shortage => Ok(Readiness::Short(failure.clone())),
            Some(Err(failure)) => Err(failure.clone()),
        }
    }

    /// Tries again after a failure.
    pub(crate) fn retry(&mut self, sequence: u64, used: u64) {
        self.made.take_if(|made| made.is_err());
        self.prepare(sequence, used);
    }

    /// A file of zeros of at least this many bytes. Waits for the file in progress.
    pub(crate) fn take(&mut self, bytes_min: u64) -> Outcome<NextFile> {
        if let Some(making) = self.making.take() {
            self.made = making.take();
        }
        let made = match self.made.take() {
            // Another attempt may succeed now.
            Some(Err(failure)) if failure.is_full || failure.is_shortage => None,
            Some(made) => Some(made?),
            None => None,
        };
        if bytes_min <= self.layout.capacity {
            return made.map_or_else(|| make_next(&*self.disk, &self.dir, self.layout.capacity, Pace::AtOnce), Ok);
        }
        // It replaces the one made ahead, if there is one: a name that the hard state knows is
        // never free.
        let path = self.dir.join(NAMES[1]);
        let file = make(&*self.disk, &path, bytes_min, Pace::AtOnce)?;
        Ok(NextFile { file, path, bytes: bytes_min, is_named: false })
    }
}

impl NextFile {
    /// Gives it the name of a segment, durably: it does not count before it has a header. After a
    /// failure, the file is gone.
    fn name(mut self, disk: &dyn Disk, dir: &Path, sequence: u64, hard_state: &HardStateFile) -> Outcome<Self> {
        let path = dir.join(Segment::name(sequence));
        let renamed = disk.rename(&self.path, &path).map_err(failed(StorageOp::Rename, &path));
        if renamed.is_ok() {
            self.path = path;
        }
        if let Err(failure) = renamed.and_then(|()| sync_dir(disk, dir)) {
            remove_if_there(disk, &self.path)?;
            return Err(failure);
        }
        // So recovery notices if the file is ever missing. It takes no space, and its failure is
        // final.
        hard_state.write_segment(sequence).map_err(|failure| Failure { is_full: false, ..failure })?;
        Ok(Self { is_named: true, ..self })
    }

    /// Writes zeros to its reserved space. A failure is final: the file has its name.
    fn zero(self, pace: Pace<'_>) -> Outcome<Self> {
        let zeroed = self.file.allocate(self.bytes, pace).map_err(failed(StorageOp::Write, &self.path));
        zeroed.map_err(|failure| Failure { is_full: false, ..failure }).map(|()| self)
    }
}

fn make_next(disk: &dyn Disk, dir: &Path, bytes: u64, pace: Pace<'_>) -> Outcome<NextFile> {
    let path = dir.join(NAMES[0]);
    Ok(NextFile { file: make(disk, &path, bytes, pace)?, path, bytes, is_named: false })
}

impl Drop for NextSegment {
    fn drop(&mut self) {
        if let Some(making) = self.making.take() {
            drop(making.take());
        }
    }
}

/// Removes unfinished files of an earlier process.
pub(crate) fn remove_leftovers(disk: &dyn Disk, dir: &Path) -> Outcome<()> {
    NAMES.iter().try_for_each(|name| remove_if_there(disk, &dir.join(name)))
}

/// Makes and syncs a file of zeros; after a failure, none is left.
pub(crate) fn make(disk: &dyn Disk, path: &Path, bytes: u64, pace: Pace<'_>) -> Outcome<Box<dyn File>> {
    let file = disk.create(path).map_err(failed(StorageOp::Create, path))?;
    let allocated = file.allocate(bytes, pace).map_err(failed(StorageOp::Write, path));
    let made = allocated.and_then(|()| file.sync_data().map_err(failed(StorageOp::Sync, path)));
    if let Err(failure) = made {
        // Its space is needed now, and its name the next time.
        disk.remove(path).map_err(failed(StorageOp::Remove, path))?;
        return Err(failure);
    }
    Ok(file)
}
