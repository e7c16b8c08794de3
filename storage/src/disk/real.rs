//! The operating system's files.

use super::{Disk, File, Pace};
use std::{
    any::Any,
    convert::Infallible,
    fs,
    io::{self, IoSlice},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// How many slices one call of `pwritev` takes (`IOV_MAX` of Linux).
const SLICES_MAX: usize = 1024;
/// What `allocate` writes at a time, and gently syncs at a time: behind a segment of 64 MiB as a whole the slowest of a
/// hundred syncs waits for 50 ms, behind this for 20 ms (on a virtual disk under load).
const ZEROS: &[u8] = &[0; 1 << 20];
/// Between two of those: zeros take 8 MiB/s of the disk at most. A log that grows faster than that is better served by
/// space that is only reserved: zeroing at its pace would halve it.
const PAUSE: Duration = Duration::from_millis(120);

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(dir)?;
        for above in dir.ancestors().skip(1) {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            // What is above what was made may not be ours to open; it was durable before.
            match self.sync_dir(above) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
                outcome => outcome?,
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile(fs::File::open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn lock_to_read(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        // A network file system locks only what is open for writing; where nothing may be written, nobody else has locked it so.
        let file = fs::OpenOptions::new().read(true).write(true).open(path).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => fs::File::open(path),
            _ => Err(error),
        })?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn in_background(&self, work: Box<dyn FnOnce() + Send>) {
        // Without a thread the work is not done; whoever waits for its result hears that its sender is gone.
        if let Err(error) = thread::Builder::new().name("quorate-storage".into()).spawn(work) {
            tracing::error!(%error, "can't start a thread to prepare the next segment");
        }
    }
}

/// An open file of the operating system.
#[derive(Debug)]
struct RealFile(fs::File);

impl RealFile {
    fn zero(&self, range: Range<u64>) -> io::Result<()> {
        for at in range.clone().step_by(ZEROS.len()) {
            let some = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.0.write_all_at(&ZEROS[..some], at)?;
        }
        Ok(())
    }

    /// Syncs each step, and stops once somebody waits.
    fn zero_in_steps(&self, range: Range<u64>, pause: Duration, hurry: &Receiver<Infallible>) -> io::Result<()> {
        for at in range.clone().step_by(ZEROS.len()) {
            self.zero(at..range.end.min(at + ZEROS.len() as u64))?;
            self.0.sync_data()?;
            if hurry.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
        Ok(())
    }
}

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let (mut left, mut at) = (slices, offset);
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let some = &left[..left.len().min(SLICES_MAX)];
            match rustix::io::pwritev(&self.0, some, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    at += count as u64;
                    IoSlice::advance_slices(&mut left, count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64, pace: Pace<'_>) -> io::Result<()> {
        // Reserving all of it first keeps the file in one piece and fails early on a full disk; where the file system
        // can't, the zeros alone do.
        let reserved = rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, bytes);
        if reserved == Err(rustix::io::Errno::NOSPC) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        match pace {
            Pace::Gently { first, rest, hurry } if reserved.is_ok() => {
                self.zero_in_steps(first, Duration::ZERO, hurry)?;
                self.zero_in_steps(rest, PAUSE, hurry)
            }
            _ => self.zero(0..bytes),
        }
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
