//! Reading a snapshot: chunk by chunk, each byte checked, on its user's thread.

use super::{
    flaw::{Flaw, trouble},
    format::{self, CHECKSUM_BYTES, Layout},
};
use crate::{
    contract::{SnapshotSource, StorageError, StorageOp},
    disk::{Disk, File, is_shortage},
    wal::{BLOCK_BYTES, Identity, read_u32},
};
use quorate_raft::Snapshot;
use std::path::{Path, PathBuf};

/// An open snapshot. Its file may have been removed since.
pub(super) struct FileSource {
    file: Box<dyn File>,
    path: PathBuf,
    snapshot: Snapshot,
    layout: Layout,
    /// Number of the chunk in the buffer.
    chunk: Option<u64>,
    buffer: Vec<u8>,
}

impl FileSource {
    /// Opens a member's file and checks its header and footer.
    pub(super) fn open(disk: &dyn Disk, path: &Path, identity: &Identity) -> Result<Self, Flaw> {
        let file = disk.open(path).map_err(|error| {
            let flaw = if is_shortage(&error) { Flaw::Short } else { Flaw::Refused };
            flaw(trouble(StorageOp::Open, path)(error))
        })?;
        Ok(Self::read(file, path, Some(identity))?.0)
    }

    /// Like [`FileSource::open`], for any owner if `wanted` is `None`. Returns the owner.
    pub(super) fn read(file: Box<dyn File>, path: &Path, wanted: Option<&Identity>) -> Result<(Self, Identity), Flaw> {
        let (snapshot, layout, identity) = format::read(&*file, path, wanted)?;
        Ok((Self { file, path: path.to_owned(), snapshot, layout, chunk: None, buffer: Vec::new() }, identity))
    }

    /// Reads and checks every byte.
    pub(super) fn verify(&mut self) -> Result<(), Flaw> {
        for number in 0..self.snapshot.bytes.div_ceil(self.layout.chunk_bytes as u64) {
            self.load(number)?;
        }
        Ok(())
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.layout.foot_at(self.snapshot.bytes) + BLOCK_BYTES as u64
    }

    /// Reads an existing chunk. Its bytes are returned only if its checksum holds.
    fn load(&mut self, number: u64) -> Result<&[u8], Flaw> {
        let begin = number * self.layout.chunk_bytes as u64;
        let length = (self.snapshot.bytes - begin).min(self.layout.chunk_bytes as u64) as usize;
        let is_last = begin + length as u64 == self.snapshot.bytes;
        // The checksum that a chunk continues is right before it.
        let lead = if number == 0 { 0 } else { CHECKSUM_BYTES };
        if self.chunk != Some(number) {
            self.chunk = None;
            let at = self.layout.chunk_at(number);
            self.buffer.resize(lead + length + CHECKSUM_BYTES, 0);
            format::fill(&*self.file, &self.path, at - lead as u64, &mut self.buffer)?;
            let seed = if number == 0 { 0 } else { read_u32(&self.buffer, 0) };
            let found = read_u32(&self.buffer, lead + length);
            let computed = crate::checksum(seed, &self.buffer[lead..lead + length]);
            if computed != found || is_last && computed != self.snapshot.checksum {
                return Err(Flaw::damaged(&self.path, at, format_args!("chunk {number}, of {length} bytes")));
            }
            self.chunk = Some(number);
        }
        Ok(&self.buffer[lead..lead + length])
    }
}

impl SnapshotSource for FileSource {
    fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset.saturating_add(filled as u64);
            if at >= self.snapshot.bytes {
                break;
            }
            let (number, within) = (at / self.layout.chunk_bytes as u64, at % self.layout.chunk_bytes as u64);
            let chunk = &self.load(number).map_err(Flaw::into_error)?[within as usize..];
            let count = chunk.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&chunk[..count]);
            filled += count;
        }
        Ok(filled)
    }
}
