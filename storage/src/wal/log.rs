//! The open log: stages what is to be persisted, makes it durable with one sync, reads it back.
//!
//! It hears `LogWriter` alone. After an error of any call but [`Log::read`]'s of missing entries it is in no state to go
//! on: its caller drops it or never calls it again.

use super::{
    Failure, Identity, Outcome, failed,
    hard_state::HardStateFile,
    segment::{Header, Mark, RECORDS_AT, Segment, damaged},
    spare::Spare,
};
use crate::{contract::StorageObserver, disk::Disk};
use bytes::Bytes;
use quorate_raft::{Batch, EntryId, HardState, Index, Persist};
use std::{any::Any, fmt, io::IoSlice, path::PathBuf, sync::Arc, time::Instant};

/// An open log.
pub(crate) struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) identity: Identity,
    pub(super) hard_state: HardStateFile,
    /// Term and vote to be written with the next sync.
    pub(super) staged_state: Option<HardState>,
    /// Segments whose last entry is final, in order. Each ends before the next one begins.
    pub(super) sealed: Vec<Segment>,
    pub(super) active: Segment,
    /// Whether `active` has its name: until then nothing in it counts.
    pub(super) is_published: bool,
    /// The newest segment that has its name.
    pub(super) published: u64,
    /// Records to be written behind `active.end` with the next sync.
    pub(super) staged: Vec<Bytes>,
    pub(super) staged_bytes: u64,
    /// Marks written to `active`.
    pub(super) marks: u64,
    /// Files that no longer count once `active` is published.
    pub(super) superseded: Vec<Segment>,
    pub(super) base: EntryId,
    pub(super) last: EntryId,
    pub(super) last_checksum: u32,
    pub(super) spare: Spare,
    pub(super) observer: Arc<dyn StorageObserver>,
    // Dropped behind everything that touches the directory, so that the next owner finds it at rest.
    pub(super) _lock: Box<dyn Any + Send + Sync>,
}

impl Log {
    /// Takes in one request, in order. It is durable once [`Log::sync`] returned.
    pub(crate) fn stage(&mut self, persist: &Persist) -> Outcome<()> {
        if let Some(from) = persist.truncate_from {
            self.truncate(from)?;
        }
        if let Some(batch) = &persist.batch {
            self.append(batch)?;
        }
        if let Some(state) = persist.hard_state {
            self.staged_state = Some(state);
        }
        Ok(())
    }

    /// Makes durable what was staged: term and vote first, so that the log never holds an entry of a term that they do
    /// not know. One sync for the records; none if nothing was staged.
    pub(crate) fn sync(&mut self) -> Outcome<()> {
        if let Some(state) = self.staged_state.take() {
            let began = Instant::now();
            self.hard_state.write(state, self.published)?;
            self.observer.synced(began.elapsed());
        }
        if self.staged.is_empty() && self.is_published {
            return Ok(());
        }
        self.write_staged()?;
        let began = Instant::now();
        self.active.file.sync_data().map_err(failed("sync", &self.active.path))?;
        self.observer.synced(began.elapsed());
        if !self.is_published {
            self.publish()?;
        }
        // Early enough for the next one even at full speed, and a node that does little is spared the space.
        if self.active.end - RECORDS_AT > self.active.header.capacity / 16 {
            self.spare.prepare();
        }
        Ok(())
    }

    /// The entries of an inclusive range as far as they are held and fit into `bytes_max`, but at least one. Empty if the
    /// first is not held. Only what was synced is read: call [`Log::sync`] before.
    pub(crate) fn read(&self, from: Index, to: Index, bytes_max: usize) -> Outcome<Vec<Batch>> {
        let (mut batches, mut next, mut left) = (Vec::new(), from, bytes_max);
        let to = to.min(self.last.index);
        if from <= self.base.index {
            return Ok(batches);
        }
        while next <= to {
            let segment = self.sealed.iter().rev().find(|segment| segment.header.first() <= next);
            let segment = if self.active.header.first() <= next { Some(&self.active) } else { segment };
            let Some(segment) = segment else { break };
            let mut read = segment.read(next, to, left)?;
            if !batches.is_empty() && read.first().is_some_and(|batch| batch.bytes().len() > left) {
                break;
            }
            let Some(last) = read.last().map(Batch::last) else {
                let what = format!("entry {next} is not where it was written");
                return Err(Failure::read(damaged(&segment.path, segment.end, &what)));
            };
            left = read.iter().fold(left, |left, batch| left.saturating_sub(batch.bytes().len()));
            batches.append(&mut read);
            // Less than was there means that no more fits.
            let segment_last = self.last_of(segment);
            if last < to.min(segment_last) || left == 0 {
                break;
            }
            next = last.next();
        }
        Ok(batches)
    }

    /// Who watches.
    pub(crate) fn observer(&self) -> &dyn StorageObserver {
        &*self.observer
    }

    /// What the files take.
    pub(crate) fn bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.bytes).sum::<u64>() + self.active.bytes
    }

    fn append(&mut self, batch: &Batch) -> Outcome<()> {
        let (first, previous) = (batch.first(), self.last);
        if first != previous.index.next() || batch.term() < previous.term {
            return Err(Failure::write(format_args!(
                "asked to append entry {first} of term {} behind entry {previous}; this is a bug of Quorate's: report it",
                batch.term()
            )));
        }
        if batch.previous_checksum() != self.last_checksum {
            return Err(Failure::write(format_args!(
                "asked to append entry {first} that does not follow entry {previous}: the logs have diverged; remove this \
                 member and add it under a new id"
            )));
        }
        let bytes = batch.bytes().len() as u64;
        if self.staged_end() + bytes > self.active.header.capacity || self.staged_bytes + bytes > u64::from(u32::MAX) {
            self.sync()?;
            self.roll(self.last, self.last_checksum, RECORDS_AT + Mark::BYTES as u64 + bytes)?;
        }
        let offset = self.staged_end();
        self.active.remember(first, offset);
        self.staged.push(batch.bytes().clone());
        self.staged_bytes += bytes;
        (self.last, self.last_checksum) = (batch.last_id(), batch.checksum());
        Ok(())
    }

    /// Where the next record goes.
    fn staged_end(&self) -> u64 {
        self.active.end + Mark::BYTES as u64 + self.staged_bytes
    }

    /// Starts a segment whose first index is `from`: what the older ones hold from there on no longer counts.
    fn truncate(&mut self, from: Index) -> Outcome<()> {
        if from > self.last.index {
            return Ok(());
        }
        if from <= self.base.index {
            return Err(Failure::write(format_args!(
                "asked to truncate from entry {from}, but the log begins behind {}; this is a bug of Quorate's: report it",
                self.base
            )));
        }
        self.sync()?;
        let (previous, checksum) = self.entry(from.previous())?;
        self.roll(previous, checksum, 0)?;
        while let Some(segment) = self.sealed.pop_if(|segment| segment.header.first() >= from) {
            self.superseded.push(segment);
        }
        if let Some(cut) = self.sealed.last_mut()
            && let Some(offset) = cut.offset_of(from)?
        {
            cut.forget(from, offset);
        }
        (self.last, self.last_checksum) = (previous, checksum);
        Ok(())
    }

    /// The id and checksum of the entry at `index`.
    fn entry(&self, index: Index) -> Outcome<(EntryId, u32)> {
        let first = self.sealed.first().unwrap_or(&self.active);
        if index == self.base.index {
            return Ok((self.base, first.header.previous_checksum));
        }
        let read = self.read(index, index, 0)?;
        let last = read.last().map(|batch| (batch.last_id(), batch.checksum()));
        last.ok_or_else(|| Failure::read(format_args!("entry {index} is gone from {}", self.dir.display())))
    }

    /// Seals the active segment, which is synced, and takes a new one behind `previous`.
    fn roll(&mut self, previous: EntryId, previous_checksum: u32, bytes_min: u64) -> Outcome<()> {
        let (file, capacity, path) = self.spare.take(bytes_min)?;
        let header = Header {
            identity: self.identity.clone(),
            sequence: self.active.header.sequence + 1,
            previous,
            previous_checksum,
            records_at: RECORDS_AT,
            published_bytes: 0,
            capacity,
        };
        let full = std::mem::replace(&mut self.active, Segment::new(header, path, file));
        self.sealed.push(full);
        (self.is_published, self.marks) = (false, 0);
        Ok(())
    }

    /// One write for everything that is staged, the bytes as they came.
    fn write_staged(&mut self) -> Outcome<()> {
        let mark = Mark {
            segment: self.active.header.sequence,
            number: self.marks,
            bytes: u32::try_from(self.staged_bytes).unwrap_or(u32::MAX),
        };
        let (mark, mut header, mut offset) = (mark.encode(), [0; RECORDS_AT as usize], self.active.end);
        let mut slices = Vec::with_capacity(self.staged.len() + 2);
        let written = if self.staged.is_empty() { 0 } else { mark.len() as u64 + self.staged_bytes };
        if !self.is_published {
            // The header is written with the first records, and says how much was.
            self.active.header.published_bytes = written;
            let block = self.active.header.encode();
            header[..block.len()].copy_from_slice(&block);
            slices.push(IoSlice::new(&header));
            offset = 0;
        }
        if written > 0 {
            slices.push(IoSlice::new(&mark));
            slices.extend(self.staged.iter().map(|bytes| IoSlice::new(bytes)));
        }
        self.active.file.write_at(&mut slices, offset).map_err(failed("write", &self.active.path))?;
        self.observer.wrote(written);
        self.marks += u64::from(written > 0);
        self.active.end += written;
        self.staged.clear();
        self.staged_bytes = 0;
        Ok(())
    }

    /// Gives the active segment, which is synced, its name, and removes what no longer counts.
    pub(super) fn publish(&mut self) -> Outcome<()> {
        let path = self.dir.join(Segment::name(self.active.header.sequence));
        self.disk.rename(&self.active.path, &path).map_err(failed("write", &path))?;
        self.disk.sync_dir(&self.dir).map_err(failed("sync", &self.dir))?;
        (self.active.path, self.is_published, self.published) = (path, true, self.active.header.sequence);
        if !self.superseded.is_empty() {
            for segment in std::mem::take(&mut self.superseded) {
                self.disk.remove(&segment.path).map_err(failed("write", &segment.path))?;
            }
            self.disk.sync_dir(&self.dir).map_err(failed("sync", &self.dir))?;
        }
        // What a sealed segment never used goes back to the file system. Nothing rests on it: no sync.
        if let Some(sealed) = self.sealed.last_mut().filter(|sealed| sealed.bytes > sealed.end) {
            sealed.file.truncate(sealed.end).map_err(failed("write", &sealed.path))?;
            sealed.bytes = sealed.end;
        }
        self.observer.log_bytes(self.bytes());
        Ok(())
    }

    fn last_of(&self, segment: &Segment) -> Index {
        let later = self.sealed.iter().chain([&self.active]);
        let next = later.map(|later| later.header.first()).find(|first| *first > segment.header.first());
        next.map_or(self.last.index, Index::previous)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.dir).field("last", &self.last).finish_non_exhaustive()
    }
}
