//! Writing a snapshot: chunk by chunk, on its user's thread.

use super::{
    SUFFIX_UNFINISHED, Shared,
    flaw::trouble,
    format::{self, CHECKSUM_BYTES, Layout},
};
use crate::{
    contract::{SnapshotSink, StorageError, StorageOp},
    disk::{File, is_shortage},
};
use quorate_raft::{Snapshot, SnapshotBase};
use std::{
    io::{self, IoSlice, Write},
    path::PathBuf,
    sync::Arc,
};

/// An unfinished snapshot, under a temporary name.
pub(super) struct FileSink {
    shared: Arc<Shared>,
    file: Box<dyn File>,
    path: PathBuf,
    base: SnapshotBase,
    expected: Option<(u64, u32)>,
    /// Written with the first chunk, so that beginning a snapshot waits for no write.
    head: Vec<u8>,
    layout: Layout,
    /// The gathered bytes of the next chunk.
    chunk: Vec<u8>,
    /// Bytes of state in the written chunks.
    bytes: u64,
    checksum: u32,
    /// Offset of the next chunk.
    at: u64,
    unsynced_bytes: u64,
    /// The first error: nothing is written after it.
    failed: Option<(io::ErrorKind, StorageError)>,
    is_published: bool,
}

/// Bytes per sync. `tests/snapshot_speed.rs` measures the effect on the log.
const SYNC_BYTES: u64 = 4 << 20;

impl FileSink {
    pub(super) fn begin(
        shared: &Arc<Shared>,
        base: SnapshotBase,
        expected: Option<(u64, u32)>,
    ) -> Result<Self, StorageError> {
        let number = {
            let mut publishing = shared.publishing();
            publishing.begun += 1;
            publishing.begun
        };
        let path = shared.dir.join(format!("{number}{SUFFIX_UNFINISHED}"));
        let file = shared.disk.create(&path).map_err(|error| {
            if is_shortage(&error) {
                shared.observer.ran_short();
            } else {
                shared.observer.failed(StorageOp::Open);
            }
            trouble(StorageOp::Create, &path)(error)
        })?;
        let (head, layout) = format::head(&base, &shared.identity, shared.chunk_bytes);
        Ok(Self {
            shared: Arc::clone(shared),
            chunk: Vec::with_capacity(layout.chunk_bytes),
            bytes: 0,
            checksum: 0,
            at: layout.chunks_at,
            unsynced_bytes: 0,
            failed: None,
            is_published: false,
            file,
            path,
            base,
            expected,
            head,
            layout,
        })
    }

    /// Writes the rest, and publishes the file.
    fn complete(&mut self) -> Result<Snapshot, StorageError> {
        if let Some((_, error)) = &self.failed {
            return Err(error.clone());
        }
        self.write_chunk()?;
        self.check_expected(self.bytes, Some(self.checksum))?;
        // A reader finds the footer by the size of the state; elsewhere, the snapshot
        // would be lost.
        assert_eq!(self.at, self.layout.foot_at(self.bytes), "the footer follows the last chunk");
        let foot = format::foot(&self.layout, self.bytes, self.checksum);
        self.write_at(&mut [IoSlice::new(&foot)], self.at)?;
        self.sync()?;
        let file_bytes = self.at + foot.len() as u64;
        self.shared
            .publish(&self.path, self.base.last, file_bytes)
            .inspect_err(|error| self.shared.observer.failed(error.operation().unwrap_or(StorageOp::Sync)))?;
        self.is_published = true;
        Ok(Snapshot { base: self.base.clone(), bytes: self.bytes, checksum: self.checksum })
    }

    /// Writes the gathered bytes as a chunk, after the head if it is the first one.
    fn write_chunk(&mut self) -> Result<(), StorageError> {
        let (head, chunk) = (std::mem::take(&mut self.head), std::mem::take(&mut self.chunk));
        let checksum = crate::checksum(self.checksum, &chunk);
        let ending = checksum.to_le_bytes();
        let ending = if chunk.is_empty() { &ending[..0] } else { &ending[..CHECKSUM_BYTES] };
        let slices = &mut [IoSlice::new(&head), IoSlice::new(&chunk), IoSlice::new(ending)];
        self.write_at(slices, self.at - head.len() as u64)?;
        self.at += (chunk.len() + ending.len()) as u64;
        self.bytes += chunk.len() as u64;
        self.checksum = checksum;
        self.unsynced_bytes += (head.len() + chunk.len()) as u64;
        self.chunk = chunk;
        self.chunk.clear();
        if self.unsynced_bytes >= SYNC_BYTES { self.sync() } else { Ok(()) }
    }

    fn write_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> Result<(), StorageError> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        self.file.write_at(slices, offset).map_err(|error| {
            self.shared.observer.failed(StorageOp::Write);
            trouble(StorageOp::Write, &self.path)(error)
        })?;
        self.shared.observer.wrote_snapshot(bytes as u64);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.unsynced_bytes = 0;
        self.file.sync_data().map_err(|error| {
            self.shared.observer.failed(StorageOp::Sync);
            trouble(StorageOp::Sync, &self.path)(error)
        })
    }

    /// Checks the size, and if given the checksum, against the expected ones.
    fn check_expected(&self, bytes: u64, checksum: Option<u32>) -> Result<(), StorageError> {
        let Some((bytes_expected, checksum_expected)) = self.expected else { return Ok(()) };
        let what = match checksum {
            None if bytes <= bytes_expected => return Ok(()),
            Some(checksum) if (bytes, checksum) == (bytes_expected, checksum_expected) => return Ok(()),
            Some(checksum) if bytes == bytes_expected => {
                format!("checksum {checksum:08x}, not {checksum_expected:08x}")
            }
            _ => format!("{bytes} bytes, not {bytes_expected}"),
        };
        let last = self.base.last;
        Err(StorageError::new(format!("the snapshot up to entry {last} has {what}, as was announced; send it again")))
    }
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some((kind, error)) = &self.failed {
            return Err(io::Error::new(*kind, error.clone()));
        }
        let some = &bytes[..bytes.len().min(self.layout.chunk_bytes - self.chunk.len())];
        self.chunk.extend_from_slice(some);
        let outcome = self.check_expected(self.bytes + self.chunk.len() as u64, None);
        let is_full = self.chunk.len() == self.layout.chunk_bytes;
        outcome.and_then(|()| if is_full { self.write_chunk() } else { Ok(()) }).map_err(|error| {
            self.failed = Some((io::ErrorKind::Other, error.clone()));
            self.remove();
            io::Error::other(error)
        })?;
        Ok(some.len())
    }

    /// Does nothing: only [`finish`](SnapshotSink::finish) makes a snapshot count.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotSink for FileSink {
    fn finish(mut self: Box<Self>) -> Result<Snapshot, StorageError> {
        self.complete()
    }
}

impl FileSink {
    /// Removes the file; after a failure the next start does.
    fn remove(&self) {
        // The directory may have a new store by now, with a file of this name.
        let publishing = self.shared.publishing();
        if !publishing.is_closed {
            // A file that stays is removed at the next start.
            let _ = self.shared.disk.remove(&self.path);
        }
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        if !self.is_published && self.failed.is_none() {
            self.remove();
        }
    }
}
