//! The disk: the part of a file system that the log uses.
//!
//! All reads and writes of the log go through [`Disk`] and [`File`], so that a test can inject
//! any fault: `quorate-storage-testing` has a disk that does. They own no policy: the log decides
//! when to sync, where to write and how to treat an error.

mod real;

pub use real::RealDisk;

use std::{
    any::Any,
    fmt,
    io::{self, IoSlice},
    ops::Range,
    path::Path,
    sync::mpsc::Receiver,
    time::Duration,
};

/// Whether an error says that file descriptors, threads or memory ran short: nothing was done, and
/// the same call may succeed later. Only for calls that create or open something: a failed sync is
/// final with any error.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN];
    error.raw_os_error().is_some_and(|code| short.contains(&Errno::from_raw_os_error(code)))
}

/// A file system.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a directory and its parents, durably; does nothing if it exists. Other users get no
    /// access to it, nor to any file that is created or opened for writing.
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

    /// Opens a file for reading only, also on a read-only file system.
    ///
    /// # Errors
    /// As [`Disk::open`].
    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.open(path)
    }

    /// Renames a file within its directory, replacing any file with the new name. Durable once the
    /// directory is synced.
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
    /// The file system's; final, as for [`File::sync_data`]. But after a [shortage](is_shortage)
    /// the directory could not even be opened, so nothing was tried.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a file, which is created if it does not exist, while the result lives.
    ///
    /// # Errors
    /// `WouldBlock` if another process has locked it, and the file system's.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;

    /// Locks an existing file as [`Disk::lock`] does; never creates one.
    ///
    /// # Errors
    /// `NotFound`, and as [`Disk::lock`].
    fn lock_to_read(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.lock(path)
    }

    /// Whether `path` still leads to the file that this lock holds: not if it, or its
    /// directory, was removed, replaced, or hidden by a mount. A disk that only this process
    /// can change may return true.
    ///
    /// # Errors
    /// The file system's.
    fn is_locked_by(&self, _path: &Path, _lock: &(dyn Any + Send + Sync)) -> io::Result<bool> {
        Ok(true)
    }

    /// Whether other processes can change it. If so, its open files are checked regularly.
    fn is_shared(&self) -> bool {
        false
    }

    /// Runs slow work on another thread; a simulated disk runs it at once, so that runs repeat.
    ///
    /// # Errors
    /// If no thread can be started. Then the work is dropped and has not begun.
    fn in_background(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()>;

    /// Waits before another attempt after a [shortage](is_shortage).
    fn pause(&self, pause: Duration) {
        std::thread::sleep(pause);
    }
}

/// How urgently a file is needed.
#[derive(Clone, Debug)]
pub enum Pace<'a> {
    /// As fast as possible: its user waits.
    AtOnce,
    /// Not at all: the space is only reserved, if the file system can do that. It reads as zeros
    /// too, and each sync of a write into it costs a commit of the file system's journal.
    Reserved,
    /// In a file that was [reserved](Pace::Reserved): in small steps, each of them synced, with
    /// pauses between, so that no sync of other files waits long.
    Gently {
        /// Written first, without pauses.
        first: Range<u64>,
        /// Written after that. The rest of the file stays reserved.
        rest: Range<u64>,
        /// Receives the number of bytes that should be written by now: there are no pauses until
        /// then. Disconnected once the file's user waits: then the rest stays reserved.
        wanted: &'a Receiver<u64>,
    },
}

/// An open file.
pub trait File: fmt::Debug + Send + Sync {
    /// Fills `buffer` from the bytes at `offset`, and returns their number, which is lower at the
    /// end of the file.
    ///
    /// # Errors
    /// The file system's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all slices, one after the other, from `offset` on.
    ///
    /// # Errors
    /// The file system's. Any part may have been written.
    fn write_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Sets the length to `bytes` and writes zeros to the file as the pace says, so that later
    /// writes change data alone: their syncs then need no commit of the file system's journal.
    /// Durable once synced.
    ///
    /// # Errors
    /// The file system's.
    fn allocate(&self, bytes: u64, pace: Pace<'_>) -> io::Result<()>;

    /// Cuts the file off after `bytes`.
    ///
    /// # Errors
    /// The file system's.
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// Its length in bytes.
    ///
    /// # Errors
    /// The file system's.
    fn length(&self) -> io::Result<u64>;

    /// Whether `path` leads to this file. A disk that only this process can change may return true.
    ///
    /// # Errors
    /// The file system's.
    fn is_at(&self, _path: &Path) -> io::Result<bool> {
        Ok(true)
    }

    /// Whether the file has any name: without one its content is lost when it is closed.
    ///
    /// # Errors
    /// The file system's.
    fn has_name(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Makes all writes to the file durable.
    ///
    /// # Errors
    /// The file system's. **Final**: the kernel may have dropped the pages and report success
    /// for a retry.
    fn sync_data(&self) -> io::Result<()>;
}
