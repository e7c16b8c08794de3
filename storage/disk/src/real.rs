//! The operating system's files.

use super::{Disk, File, Pace, is_shortage};
use std::{
    any::Any,
    fs,
    io::{self, IoSlice},
    ops::Range,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// The most slices of one `pwritev` call (`IOV_MAX` of Linux).
const SLICES_MAX: usize = 1024;
/// Bytes that `allocate` writes at a time, and gently syncs at a time: with whole segments of 64
/// MiB the slowest of a hundred syncs of other files takes 50 ms, with this 20 ms (on a virtual
/// disk under load).
const ZEROS: &[u8] = &[0; 1 << 20];
/// The most bytes that it gently syncs at a time, when more are wanted at once.
const STEP_MAX: u64 = 4 << 20;
/// Pause between two steps while no more zeros are wanted: 8 MiB/s of the disk.
const PAUSE: Duration = Duration::from_millis(120);

/// The mode of new directories. Files hold users' values, so other users of the machine
/// get no access.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The permissions of group and others.
const OTHERS: u32 = 0o077;
/// A directory with this bit is shared, like `/tmp`: its mode is not changed.
const STICKY: u32 = 0o1000;

/// Removes other users' access to a file or directory, if `metadata` says that they have it. An
/// earlier release, a restored archive or Kubernetes (`fsGroup`) may have granted it. Only the
/// owner can change that: for another user it stays a warning.
fn close_to_others(
    path: &Path,
    metadata: io::Result<fs::Metadata>,
    set: impl FnOnce(fs::Permissions) -> io::Result<()>,
) {
    let Ok(mode) = metadata.map(|metadata| metadata.permissions().mode()) else { return };
    if mode & OTHERS == 0 || mode & STICKY != 0 {
        return;
    }
    if let Err(error) = set(fs::Permissions::from_mode(mode & 0o7777 & !OTHERS)) {
        let (path, mode) = (path.display(), mode & 0o7777);
        tracing::warn!("{path} is open to other users (mode {mode:04o}): {error}; run `chmod go= {path}` as its owner");
    }
}

fn close_file(path: &Path, file: &fs::File) {
    close_to_others(path, file.metadata(), |permissions| file.set_permissions(permissions));
}

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            close_to_others(dir, fs::metadata(dir), |permissions| fs::set_permissions(dir, permissions));
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
        for above in dir.ancestors().skip(1) {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            // The parent of the first new directory may not be readable; it was durable before.
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
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        close_file(path, &file);
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
        // A shortage must mean that the directory was not opened: an error of the sync
        // itself is final.
        let is_final = |error: io::Error| if is_shortage(&error) { io::Error::other(error.to_string()) } else { error };
        fs::File::open(dir)?.sync_all().map_err(is_final)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        close_file(path, &file);
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn lock_to_read(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        // A network file system locks only files that are open for writing; where that is not
        // possible, no other process has locked it so.
        let file = fs::OpenOptions::new().read(true).write(true).open(path).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => fs::File::open(path),
            _ => Err(error),
        })?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn is_locked_by(&self, path: &Path, lock: &(dyn Any + Send + Sync)) -> io::Result<bool> {
        lock.downcast_ref().map_or(Ok(true), |file| leads_to(path, file))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn in_background(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        thread::Builder::new().name("quorate-storage".into()).spawn(work).map(drop)
    }
}

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

    /// Syncs each step, and stops once the file's user waits.
    fn zero_in_steps(&self, parts: [(Range<u64>, Duration); 2], receiver: &Receiver<u64>) -> io::Result<()> {
        let (mut written, mut wanted) = (0, 0);
        for (part, pause) in parts {
            let mut at = part.start;
            while at < part.end {
                let step = u64::saturating_sub(wanted, written).clamp(ZEROS.len() as u64, STEP_MAX);
                let end = part.end.min(at + step);
                self.zero(at..end)?;
                self.0.sync_data()?;
                written += end - at;
                at = end;
                if !wait(receiver, written, &mut wanted, pause) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Waits for the pause to end, or until more than these bytes are wanted; `false` once the file's
/// user waits.
fn wait(receiver: &Receiver<u64>, written: u64, wanted: &mut u64, pause: Duration) -> bool {
    let began = Instant::now();
    loop {
        let left = if *wanted > written { Duration::ZERO } else { pause.saturating_sub(began.elapsed()) };
        match receiver.recv_timeout(left) {
            Ok(more) => *wanted = more.max(*wanted),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
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
        // Reserving all of it first keeps the file in one piece and fails early on a full disk; on
        // file systems that can't reserve, the zeros alone do.
        let reserved = rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, bytes);
        if reserved == Err(rustix::io::Errno::NOSPC) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        match pace {
            Pace::Gently { first, rest, wanted } if reserved.is_ok() => {
                self.zero_in_steps([(first, Duration::ZERO), (rest, PAUSE)], wanted)
            }
            Pace::Reserved if reserved.is_ok() => Ok(()),
            // It was written instead of reserved.
            Pace::Gently { .. } => Ok(()),
            Pace::AtOnce | Pace::Reserved => self.zero(0..bytes),
        }
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        leads_to(path, &self.0)
    }

    fn has_name(&self) -> io::Result<bool> {
        Ok(links(&self.0)? > 0)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The number of names of the file. Requests no other field: a request for the time of the last
/// change makes the next write record a new one (multigrain timestamps, Linux 6.13 on), which makes
/// every synced write slower by a sixth.
#[cfg(target_os = "linux")]
fn links(file: &fs::File) -> io::Result<u64> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    Ok(statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::NLINK)?.stx_nlink.into())
}

#[cfg(not(target_os = "linux"))]
fn links(file: &fs::File) -> io::Result<u64> {
    Ok(file.metadata()?.nlink())
}

/// Whether `path` leads to `file`.
fn leads_to(path: &Path, file: &fs::File) -> io::Result<bool> {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let here = identity(file.metadata()?);
    match fs::metadata(path).map(identity) {
        Ok(there) => Ok(there == here),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_users_have_no_access_to_what_is_created_nor_to_what_is_opened() {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = temporary.path().join("data/1");
        RealDisk.create_dir(&dir).expect("made");
        let [log, lock] = ["log", "lock"].map(|name| dir.join(name));
        drop(RealDisk.create(&log).expect("made"));
        drop(RealDisk.lock(&lock).expect("locked"));
        let modes = || [&dir, &log, &lock].map(|path| mode(path));
        assert_eq!(modes(), [0o700, 0o600, 0o600]);

        // Modes that an earlier release, or Kubernetes, leaves.
        for (of_dir, of_file) in [(0o755, 0o644), (0o2775, 0o660)] {
            set(&dir, of_dir);
            [&log, &lock].iter().for_each(|path| set(path, of_file));
            drop(RealDisk.open_to_read(&log).expect("opened"));
            assert_eq!(mode(&log), of_file, "a file that is only read stays as it is");
            RealDisk.create_dir(&dir).expect("there");
            drop(RealDisk.open(&log).expect("opened"));
            drop(RealDisk.lock(&lock).expect("locked"));
            assert_eq!(modes(), [of_dir & 0o7700, 0o600, 0o600]);
        }
    }

    #[test]
    fn a_directory_that_all_users_share_keeps_its_mode() {
        let shared = tempfile::tempdir().expect("a directory");
        set(shared.path(), 0o1777);
        RealDisk.create_dir(shared.path()).expect("there");
        assert_eq!(mode(shared.path()), 0o1777);
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
    }
}
