//! The next segment's file, made ahead of need.

use super::{Failure, Outcome, failed, header::Layout, remove_if_there};
use crate::contract::StorageOp;
use crate::disk::{Disk, File, Pace};
use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
};

/// Names of a file made ahead, and of a larger one that is made on demand.
pub(crate) const NAMES: [&str; 2] = ["spare", "spare-large"];

/// Makes files of zeros, one ahead. Dropping it waits for the file in progress, so that the next
/// owner of the directory finds it at rest.
#[derive(Debug)]
pub(crate) struct NextSegment {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    layout: Layout,
    making: Option<Making>,
    /// The file that was made last, or the reason for its failure.
    made: Option<Outcome<Box<dyn File>>>,
}

/// State of the next file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Not requested yet.
    Unasked,
    /// A thread makes it.
    Making,
    /// Made and synced.
    Ready,
    /// The disk has no space for it.
    NoSpace,
    /// The system had no file descriptor or no thread for it.
    Short(Failure),
}

/// A file in progress, on a thread of its own.
#[derive(Debug)]
struct Making {
    made: Receiver<Outcome<Box<dyn File>>>,
    /// Dropped to tell the thread that the log waits.
    hurry: SyncSender<Infallible>,
}

impl Making {
    /// Waits for the file. `None` if its thread is gone.
    fn take(self) -> Option<Outcome<Box<dyn File>>> {
        drop(self.hurry);
        self.made.recv().ok()
    }
}

impl NextSegment {
    /// For segments of this layout, or larger ones.
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path, layout: Layout) -> Self {
        Self { disk, dir: dir.to_owned(), layout, making: None, made: None }
    }

    /// Starts to make a file, unless one is there, is in progress, or has failed.
    pub(crate) fn prepare(&mut self) {
        if self.making.is_none() && self.made.is_none() {
            let ((tell, made), (hurry, hurried)) = (sync_channel(1), sync_channel(0));
            let (disk, path, layout) = (self.disk.clone(), self.dir.join(NAMES[0]), self.layout);
            let thread_for = path.clone();
            // If the receiver is gone, recovery removes the file.
            let started = self.disk.in_background(Box::new(move || {
                // The table is zeroed first: it is small, and a log that overtakes the zeros is
                // slowed down more with each place it has to fill.
                let first = 0..layout.slots_at + layout.slots_bytes;
                let pace = Pace::Gently { first, rest: layout.records_at..layout.capacity, hurry: &hurried };
                let _ = tell.send(make(&*disk, &path, layout.capacity, pace));
            }));
            match started {
                Ok(()) => self.making = Some(Making { made, hurry }),
                Err(error) => self.made = Some(Err(failed(StorageOp::StartThread, &thread_for)(error))),
            }
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
    pub(crate) fn retry(&mut self) {
        self.made.take_if(|made| made.is_err());
        self.prepare();
    }

    /// A file of zeros of at least this many bytes, its length and its path. Waits for the
    /// file in progress.
    pub(crate) fn take(&mut self, bytes_min: u64) -> Outcome<(Box<dyn File>, u64, PathBuf)> {
        let bytes = bytes_min.max(self.layout.capacity);
        let path = self.dir.join(NAMES[usize::from(bytes > self.layout.capacity)]);
        if bytes == self.layout.capacity {
            if let Some(making) = self.making.take() {
                self.made = making.take();
            }
            // After a failure, another attempt may succeed now.
            if let Some(Ok(file)) = self.made.take() {
                return Ok((file, bytes, path));
            }
        }
        Ok((make(&*self.disk, &path, bytes, Pace::AtOnce)?, bytes, path))
    }
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
