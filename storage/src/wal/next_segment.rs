//! The next segment's file, made ahead of need.

use super::{Failure, Outcome, failed, header::Layout};
use crate::disk::{Disk, File, Pace};
use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
};

/// What a prepared file is called, and one that is made on the spot because it must be larger.
pub(crate) const NAMES: [&str; 2] = ["spare", "spare-large"];

/// Prepares files of zeros, one ahead. Dropping it waits for the one in the making, so that nobody who opens the
/// directory next finds it being written.
#[derive(Debug)]
pub(crate) struct NextSegment {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    layout: Layout,
    making: Option<Making>,
    /// The last one that was made, or why it was not.
    made: Option<Outcome<Box<dyn File>>>,
}

/// How far the next file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Nobody asked for it yet.
    Unasked,
    /// It is in the making.
    Making,
    /// It is there.
    Ready,
    /// There is no space for it.
    NoSpace,
    /// There was no file descriptor or no thread for it.
    Short(Failure),
}

/// A file in the making, on a thread beside.
#[derive(Debug)]
struct Making {
    made: Receiver<Outcome<Box<dyn File>>>,
    /// Dropped to say that somebody waits.
    hurry: SyncSender<Infallible>,
}

impl Making {
    /// Waits for it. `None` if its thread is gone.
    fn take(self) -> Option<Outcome<Box<dyn File>>> {
        drop(self.hurry);
        self.made.recv().ok()
    }
}

impl NextSegment {
    /// Files for segments of this layout, or larger ones.
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path, layout: Layout) -> Self {
        Self { disk, dir: dir.to_owned(), layout, making: None, made: None }
    }

    /// Starts making one, unless one is there or in the making, or could not be made.
    pub(crate) fn prepare(&mut self) {
        if self.making.is_none() && self.made.is_none() {
            let ((tell, made), (hurry, hurried)) = (sync_channel(1), sync_channel(0));
            let (disk, path, layout) = (self.disk.clone(), self.dir.join(NAMES[0]), self.layout);
            let thread_for = path.clone();
            // Nobody may be left to take it; then recovery removes it.
            let started = self.disk.in_background(Box::new(move || {
                // A table is small, and a log that outruns the zeros is slowed down the more the more places it fills.
                let first = 0..layout.slots_at + layout.slots_bytes;
                let pace = Pace::Gently { first, rest: layout.records_at..layout.capacity, hurry: &hurried };
                drop(tell.send(make(&*disk, &path, layout.capacity, pace)));
            }));
            match started {
                Ok(()) => self.making = Some(Making { made, hurry }),
                Err(error) => self.made = Some(Err(failed("open", &thread_for)(error))),
            }
        }
    }

    /// How far it is.
    ///
    /// # Errors
    /// If it could not be made, for another reason than space or a shortage.
    pub(crate) fn readiness(&mut self) -> Outcome<Readiness> {
        if let Some(making) = &self.making {
            match making.made.try_recv() {
                Ok(made) => (self.made, self.making) = (Some(made), None),
                Err(TryRecvError::Empty) => return Ok(Readiness::Making),
                // Whoever takes it will make it on the spot.
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

    /// Tries again what failed.
    pub(crate) fn retry(&mut self) {
        self.made.take_if(|made| made.is_err());
        self.prepare();
    }

    /// A file of zeros of so many bytes at least, its length and its path. Waits for the one in the making.
    pub(crate) fn take(&mut self, bytes_min: u64) -> Outcome<(Box<dyn File>, u64, PathBuf)> {
        let bytes = bytes_min.max(self.layout.capacity);
        let path = self.dir.join(NAMES[usize::from(bytes > self.layout.capacity)]);
        if bytes == self.layout.capacity {
            if let Some(making) = self.making.take() {
                self.made = making.take();
            }
            // One that could not be made may be possible now.
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

/// Removes what is left of files in the making.
pub(crate) fn remove_leftovers(disk: &dyn Disk, dir: &Path) -> Outcome<()> {
    for path in NAMES.map(|name| dir.join(name)) {
        match disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("write", &path)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Makes a file of zeros, or leaves none.
pub(crate) fn make(disk: &dyn Disk, path: &Path, bytes: u64, pace: Pace<'_>) -> Outcome<Box<dyn File>> {
    let file = disk.create(path).map_err(failed("open", path))?;
    let allocated = file.allocate(bytes, pace).map_err(failed("write", path));
    let made = allocated.and_then(|()| file.sync_data().map_err(failed("sync", path)));
    if let Err(failure) = made {
        // What it took is needed now, and its name the next time.
        disk.remove(path).map_err(failed("write", path))?;
        return Err(failure);
    }
    Ok(file)
}
