//! A disk that counts the bytes that are read or written, for the progress of commands that work
//! on whole directories.

use quorate::storage::disk::{Disk, File, Pace, RealDisk};
use quorate_progress::Counter;
use std::{
    any::Any,
    io::{self, IoSlice},
    path::Path,
    time::Duration,
};

/// The operating system's disk, with a count.
#[derive(Clone, Debug)]
pub(crate) struct CountedDisk {
    counter: Counter,
    counts: Counts,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Counts {
    Reads,
    Writes,
}

impl CountedDisk {
    pub(crate) fn reads(counter: Counter) -> Self {
        Self { counter, counts: Counts::Reads }
    }

    pub(crate) fn writes(counter: Counter) -> Self {
        Self { counter, counts: Counts::Writes }
    }

    fn counted(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(CountedFile { file, disk: self.clone() })
    }
}

impl Disk for CountedDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        RealDisk.create(path).map(|file| self.counted(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        RealDisk.open(path).map(|file| self.counted(file))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        RealDisk.open_to_read(path).map(|file| self.counted(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        RealDisk.lock(path)
    }

    fn lock_to_read(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        RealDisk.lock_to_read(path)
    }

    fn is_locked_by(&self, path: &Path, lock: &(dyn Any + Send + Sync)) -> io::Result<bool> {
        RealDisk.is_locked_by(path, lock)
    }

    fn is_shared(&self) -> bool {
        RealDisk.is_shared()
    }

    fn in_background(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        RealDisk.in_background(work)
    }

    fn pause(&self, pause: Duration) {
        RealDisk.pause(pause);
    }
}

#[derive(Debug)]
struct CountedFile {
    file: Box<dyn File>,
    disk: CountedDisk,
}

impl CountedFile {
    fn count(&self, counts: Counts, bytes: usize) {
        if self.disk.counts == counts {
            self.disk.counter.add(bytes as u64);
        }
    }
}

impl File for CountedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buffer, offset)?;
        self.count(Counts::Reads, read);
        Ok(read)
    }

    fn write_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.file.write_at(slices, offset)?;
        self.count(Counts::Writes, bytes);
        Ok(())
    }

    fn allocate(&self, bytes: u64, pace: Pace<'_>) -> io::Result<()> {
        self.file.allocate(bytes, pace)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.truncate(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.file.is_at(path)
    }

    fn has_name(&self) -> io::Result<bool> {
        self.file.has_name()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_that_are_read_or_written_are_counted() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("file");
        let (written, read) = (Counter::default(), Counter::default());
        let file = CountedDisk::writes(written.clone()).create(&path).expect("created");
        file.write_at(&mut [IoSlice::new(b"one"), IoSlice::new(b"three")], 0).expect("written");
        assert_eq!(file.read_at(&mut [0; 4], 0).expect("read"), 4);
        let file = CountedDisk::reads(read.clone()).open_to_read(&path).expect("opened");
        assert_eq!(file.read_at(&mut [0; 100], 2).expect("read"), 6);
        assert_eq!((written.done(), read.done()), (8, 6));
    }
}
