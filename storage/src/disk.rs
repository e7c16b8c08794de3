//! The seam beneath the log: what it needs of a file system, and no more.
//!
//! Everything that the log reads or writes goes through [`Disk`] and [`File`], so that a test can put any fault beneath
//! it. They own no policy: when to sync, what to write where and what an error means is the log's business.

mod overlay;
mod real;
mod simulated;

pub(crate) use overlay::Overlay;
pub use real::RealDisk;
pub use simulated::{Crash, Operation, SimulatedDisk};

use std::{
    any::Any,
    convert::Infallible,
    fmt,
    io::{self, IoSlice},
    ops::Range,
    path::Path,
    sync::mpsc::Receiver,
    time::Duration,
};

/// Whether an error says that file descriptors, threads or memory ran short: nothing was done, and the same call may succeed
/// later. Meaningful for calls that create or open something, and for no other: a failed sync stays final whatever its error.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN];
    error.raw_os_error().is_some_and(|code| short.contains(&Errno::from_raw_os_error(code)))
}

/// A file system.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a directory and those above it, durably; fine if it is there. Other users have no access to it, nor to any file
    /// that is created or opened for writing.
    ///
    /// # Errors
    /// The file system's.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names of the files in a directory, sorted.
    ///
    /// # Errors
    /// The file system's.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes an empty file, for reading and writing. It is durable once the directory is synced.
    ///
    /// # Errors
    /// `AlreadyExists`, and the file system's.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Opens a file, for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, and the file system's.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Opens a file that is only read: also where nothing may be written.
    ///
    /// # Errors
    /// As [`Disk::open`].
    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.open(path)
    }

    /// Gives a file another name in the same directory, in place of the file that had it. Durable once the directory is
    /// synced.
    ///
    /// # Errors
    /// The file system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable once the directory is synced.
    ///
    /// # Errors
    /// The file system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes every create, rename and remove in a directory durable.
    ///
    /// # Errors
    /// The file system's. As for [`File::sync_data`], final; but a [shortage](is_shortage) says that the directory could not even be
    /// opened, so nothing was tried.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a file, which is made if need be, for as long as the result lives.
    ///
    /// # Errors
    /// `WouldBlock` if somebody else has locked it, and the file system's.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;

    /// Locks a file as [`Disk::lock`] does, if it is there: none is made.
    ///
    /// # Errors
    /// `NotFound`, and as [`Disk::lock`].
    fn lock_to_read(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.lock(path)
    }

    /// Whether `path` still leads to the file that this lock holds: not if it, or its directory, was removed, replaced, or hidden by
    /// a mount. A disk that nothing else changes need not look.
    ///
    /// # Errors
    /// The file system's.
    fn is_locked_by(&self, _path: &Path, _lock: &(dyn Any + Send + Sync)) -> io::Result<bool> {
        Ok(true)
    }

    /// Whether anything but this process can change it, so that its files are looked after while they are open.
    fn is_shared(&self) -> bool {
        false
    }

    /// Does slow work beside the caller's; a simulated disk does it at once, so that runs repeat.
    ///
    /// # Errors
    /// If no thread can be started. Then the work is dropped, and nothing of it was done.
    fn in_background(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()>;

    /// Lets the caller wait before it tries again what failed by a [shortage](is_shortage).
    fn pause(&self, pause: Duration) {
        std::thread::sleep(pause);
    }
}

/// Whether somebody waits for it.
#[derive(Clone, Debug)]
pub enum Pace<'a> {
    /// As fast as it goes.
    AtOnce,
    /// In small steps, each of them synced, with pauses between, so that no sync of other files waits long behind it and
    /// a log that grows fast is not slowed down by zeros. What is left out is only reserved: it reads as zeros all the same,
    /// and costs the syncs that fill it a commit of the file system's journal.
    Gently {
        /// This first, and without pauses.
        first: Range<u64>,
        /// Then this. The rest of the file is left out.
        rest: Range<u64>,
        /// When the sender of this is gone, somebody waits: whatever is left then is left out.
        hurry: &'a Receiver<Infallible>,
    },
}

/// An open file.
pub trait File: fmt::Debug + Send + Sync {
    /// Fills `buffer` from the bytes at `offset` as far as there are any; says how many.
    ///
    /// # Errors
    /// The file system's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of the slices, one behind the other, from `offset` on.
    ///
    /// # Errors
    /// The file system's. Any part may have been written.
    fn write_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Makes the file `bytes` long and writes zeros all over it, so that writing into it later changes data alone: a
    /// sync then needs no commit of the file system's journal. Durable once synced.
    ///
    /// # Errors
    /// The file system's.
    fn allocate(&self, bytes: u64, pace: Pace<'_>) -> io::Result<()>;

    /// Cuts the file off behind `bytes`.
    ///
    /// # Errors
    /// The file system's.
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// Its length in bytes.
    ///
    /// # Errors
    /// The file system's.
    fn length(&self) -> io::Result<u64>;

    /// Whether `path` leads to this file. A disk that nothing else changes need not look.
    ///
    /// # Errors
    /// The file system's.
    fn is_at(&self, _path: &Path) -> io::Result<bool> {
        Ok(true)
    }

    /// Whether any name leads to it: what is written to a file without one is gone when it is closed.
    ///
    /// # Errors
    /// The file system's.
    fn has_name(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The file system's. **Final**: the kernel may have dropped the pages and call a retry a success.
    fn sync_data(&self) -> io::Result<()>;
}
