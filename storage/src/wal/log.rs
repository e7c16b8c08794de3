//! The open log: stages requests, makes them durable with one sync, reads them back.
//!
//! Its one caller is `LogWriter`. After an error of any call but [`Log::read`] of missing entries,
//! the log must not be used again.

use super::{
    Failure, Identity, Outcome, Sizes, failed,
    group::{self, Mark},
    hard_state::HardStateFile,
    header::{Header, Layout},
    headroom::{RETRY_AFTER, Space},
    holdings::{self, Holdings},
    next_segment::{NextFile, NextSegment, PARTS},
    repair::Cleared,
    segment::{Segment, damaged},
    shortage::Shortages,
    slot::Slot,
};
use crate::{
    contract::{SnapshotSource, StorageError, StorageObserver, StorageOp},
    disk::Disk,
    snapshots::SnapshotStore,
};
use bytes::Bytes;
use quorate_raft::{Batch, EntryId, Faulty, HardState, Index, NodeId, Persist, Term, record};
use std::{
    any::Any,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// The most slots that wait for their place in the table: a few hundred milliseconds of full load.
const LATE_SLOTS_MAX: usize = 1 << 14;

/// An open log.
pub struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) identity: Identity,
    pub(super) sizes: Sizes,
    pub(super) hard_state: Arc<HardStateFile>,
    /// The hard state to write with the next sync.
    pub(super) staged_state: Option<HardState>,
    /// Segments that get no further entries, in order. Each ends before the next one begins.
    pub(super) sealed: Vec<Segment>,
    pub(super) active: Segment,
    /// Whether `active` has its name and a synced header: until then its content does not count.
    pub(super) is_published: bool,
    /// Whether `active` was named ahead of its header.
    pub(super) is_named: bool,
    /// Records to write after `active.end` with the next sync.
    pub(super) staged: Vec<Bytes>,
    pub(super) staged_bytes: u64,
    /// The slots of staged entries, and the offsets of their batches.
    pub(super) staged_slots: Vec<Slot>,
    pub(super) staged_places: Vec<(Index, u64)>,
    /// The checksum of the record before the staged ones.
    pub(super) staged_after: u32,
    /// Bytes and entries of the last group that was written.
    pub(super) last_group: (u64, u64),
    /// Slots of synced entries that are not in the table of `active` yet.
    pub(super) late_slots: Vec<Slot>,
    /// Whether the table of `active` was synced since slots were written to it.
    pub(super) is_table_synced: bool,
    /// Sequence of the segment before `active` while its table is not synced yet.
    pub(super) closing: Option<u64>,
    /// Number of marks in `active`.
    pub(super) marks: u32,
    /// Segments that no longer count once `active` is published.
    pub(super) superseded: Vec<Segment>,
    /// Segments to remove after a cut, oldest first.
    pub(super) cut_off: Vec<Segment>,
    /// The last cut index that the snapshot store has not been told of.
    pub(super) cut_to: Option<Index>,
    /// Sequences of segments with repaired records that are not synced yet.
    pub(super) repaired: Vec<u64>,
    /// Slots on disk that still mark a repaired entry as not proven.
    pub(super) cleared: Vec<Cleared>,
    pub(super) base: EntryId,
    pub(super) base_checksum: u32,
    /// The first index of each term in the log.
    pub(super) terms: Vec<(Index, Term)>,
    pub(super) last: EntryId,
    pub(super) last_checksum: u32,
    /// Entries with a lost record, in order.
    pub(super) faulty: Vec<Faulty>,
    pub(super) holdings: Holdings,
    pub(super) space: Space,
    pub(super) next_segment: NextSegment,
    pub(super) shortages: Shortages,
    /// Called when the disk is full and a write waits for space; without it such a write fails.
    pub(super) on_full: Option<Box<dyn Fn() + Send>>,
    pub(super) snapshots: SnapshotStore,
    pub(super) observer: Arc<dyn StorageObserver>,
    // The last field, so dropped after all that uses the directory: the next owner finds
    // it at rest.
    pub(super) lock: Box<dyn Any + Send + Sync>,
}

impl Log {
    /// Stages one request. Its effects are durable once [`Log::sync`] returns.
    pub fn stage(&mut self, persist: &Persist) -> Outcome<()> {
        if let Some(state) = persist.hard_state {
            self.staged_state = Some(state);
        }
        if let Some(cut) = &persist.cut {
            self.cut(cut)?;
        }
        if let Some(from) = persist.truncate_from {
            self.truncate(from, persist.batch.as_ref())?;
        }
        if let Some(batch) = &persist.batch {
            self.append(batch)?;
        }
        if let Some(batch) = &persist.repair {
            self.repair(batch)?;
        }
        Ok(())
    }

    /// Makes the staged requests durable: term and vote first, so that the log never holds an entry
    /// of a term later than theirs. One sync for all records; none if nothing is staged.
    pub fn sync(&mut self) -> Outcome<()> {
        if let Some(state) = self.staged_state.take() {
            let began = Instant::now();
            self.hard_state.write_state(state)?;
            self.observer.synced(began.elapsed());
        }
        let is_repaired = self.sync_repaired()?;
        if !self.staged.is_empty() || !self.is_published || is_repaired {
            self.write_staged()?;
            let began = Instant::now();
            self.active.file.sync_data().map_err(failed(StorageOp::Sync, &self.active.path))?;
            self.observer.synced(began.elapsed());
            self.is_table_synced = true;
            self.check_active()?;
            if !self.is_published {
                self.publish()?;
            }
            self.prepare();
            if self.late_slots.len() >= LATE_SLOTS_MAX {
                self.fill_table()?;
            }
        }
        self.remove_cut_off()
    }

    /// Stores holdings of members. For lack of space they are dropped: other members
    /// store them too.
    pub fn remember(&mut self, members: &[(NodeId, Index)]) -> Outcome<()> {
        holdings::remember(&*self.disk, &self.dir, &self.identity, &mut self.holdings, members)
    }

    /// Lowers this member's own holding to the end of the log, after an operator discarded entries.
    pub(super) fn forget_discarded(&mut self) -> Outcome<()> {
        let last = self.last.index;
        match self.holdings.get_mut(&self.identity.member) {
            Some(held) if *held > last => *held = last,
            _ => return Ok(()),
        }
        holdings::try_write(&*self.disk, &self.dir, &self.identity, &self.holdings).map(drop)
    }

    /// Reads the entries of an inclusive range, as far as the log holds them and they fit into
    /// `bytes_max`, but at least one; up to the first faulty one. Empty if the log does not hold
    /// the first. Only synced entries are read: call [`Log::sync`] before.
    pub fn read(&self, from: Index, to: Index, bytes_max: usize) -> Outcome<Vec<Batch>> {
        let (mut batches, mut next, mut left) = (Vec::new(), from, bytes_max);
        let lost = self.faulty.get(self.faulty.partition_point(|faulty| faulty.id.index < from));
        let to = to.min(lost.map_or(self.last.index, |lost| lost.id.index.previous()));
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
            // A shorter result means that no more entries fit.
            let segment_last = self.last_of(segment);
            if last < to.min(segment_last) || left == 0 {
                break;
            }
            next = last.next();
        }
        Ok(batches)
    }

    /// The snapshots beside the log.
    pub fn snapshots(&self) -> &SnapshotStore {
        &self.snapshots
    }

    /// Opens the newest snapshot; waits out a shortage of file descriptors, because a node that
    /// can't read a snapshot it has just received would have to end.
    pub(crate) fn open_newest_snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, StorageError> {
        let snapshots = &self.snapshots;
        self.shortages.outlast(&*self.disk, || snapshots.try_open_newest()).map_err(|failure| failure.error)
    }

    /// From now on, waits out shortages of descriptors, threads or memory while
    /// `wanted` returns true.
    pub(crate) fn wait_for_the_system_while(&mut self, wanted: impl Fn() -> bool + Send + 'static) {
        self.shortages.wait_while(wanted);
    }

    /// From now on, a write without space calls `on_full` and waits for space, for as long as the
    /// log is wanted. Nothing else is written meanwhile, no vote either.
    pub(crate) fn wait_for_space(&mut self, on_full: impl Fn() + Send + 'static) {
        self.on_full = Some(Box::new(on_full));
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn observer(&self) -> &dyn StorageObserver {
        &*self.observer
    }

    /// The size of all segment files in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.bytes).sum::<u64>() + self.active.bytes
    }

    fn append(&mut self, batch: &Batch) -> Outcome<()> {
        let (first, previous) = (batch.first(), self.last);
        if first != previous.index.next() || batch.term() < previous.term {
            return Err(Failure::write(format_args!(
                "asked to append entry {first} of term {} after entry {previous}; this is a bug of Quorate's: report it",
                batch.term()
            )));
        }
        if batch.previous_checksum() != self.last_checksum {
            return Err(diverged(batch, previous));
        }
        // The rules store a term before its entries. The log enforces it, so that recovery notices
        // a lost vote.
        let state = self.staged_state.unwrap_or(self.hard_state.state());
        if state.term < batch.term() {
            self.staged_state = Some(HardState { term: batch.term(), vote: None, ..state });
        }
        let (bytes, count) = (batch.bytes().len() as u64, u64::from(batch.count()));
        let layout = self.active.header.layout;
        let slots = first.since(self.active.header.first()) + count;
        let staged = self.staged_slots.len() as u64 + count;
        if self.active.end + group::bytes(self.staged_bytes + bytes, staged) > layout.capacity
            || slots > layout.slots()
            || self.staged_bytes + bytes > u64::from(u32::MAX)
            || (self.staged.is_empty() && self.is_nearly_full())
        {
            self.sync()?;
            self.roll(self.last, self.last_checksum, false, count, group::bytes(bytes, count))?;
        }
        let mut offset = self.active.end + Mark::BYTES as u64 + self.staged_bytes;
        if self.staged.is_empty() {
            self.staged_after = self.last_checksum;
        }
        self.staged_places.push((first, offset));
        let records = batch.records().take_while(|_| layout.slots_bytes > 0);
        for record in records {
            self.staged_slots.push(Slot::of(&record, offset));
            offset += (record::OVERHEAD_BYTES + record.payload.len()) as u64;
        }
        self.staged.push(batch.bytes().clone());
        self.staged_bytes += bytes;
        if batch.term() != previous.term || self.terms.is_empty() {
            self.terms.push((first, batch.term()));
        }
        (self.last, self.last_checksum) = (batch.last_id(), batch.checksum());
        Ok(())
    }

    /// Whether another group like the last one would not fit as a whole. It would cost two syncs,
    /// one of them for its part in this segment: better it begins the next one, if little is wasted.
    fn is_nearly_full(&self) -> bool {
        let Header { layout, previous, .. } = &self.active.header;
        let (bytes, entries) = self.last_group;
        let fits = self.active.end + bytes <= layout.capacity
            && self.last.index.since(previous.index) + entries <= layout.slots();
        !fits && bytes <= (layout.capacity - layout.records_at) / 16 && entries <= layout.slots() / 16
    }

    /// Starts a segment with first index `from`: entries of older segments from there on no longer
    /// count. `then`, which is appended next, must chain to the last entry that stays, or the call
    /// fails without an effect.
    pub(super) fn truncate(&mut self, from: Index, then: Option<&Batch>) -> Outcome<()> {
        if from > self.last.index {
            return Ok(());
        }
        if from <= self.base.index {
            return Err(Failure::write(format_args!(
                "asked to truncate from entry {from}, but the log begins after {}; this is a bug of Quorate's: report it",
                self.base
            )));
        }
        self.sync()?;
        let (previous, checksum) = self.entry(from.previous())?;
        if let Some(batch) = then.filter(|batch| batch.first() == from && batch.previous_checksum() != checksum) {
            return Err(diverged(batch, previous));
        }
        let oldest = self.sealed.first().unwrap_or(&self.active).header.first();
        self.roll(previous, checksum, oldest >= from, 0, 0)?;
        while let Some(segment) = self.sealed.pop_if(|segment| segment.header.first() >= from) {
            self.superseded.push(segment);
        }
        if let Some(cut) = self.sealed.last_mut()
            && let Some(offset) = cut.offset_of(from)?
        {
            cut.forget(from, offset);
        }
        self.terms.retain(|(first, _)| *first < from);
        self.faulty.retain(|faulty| faulty.id.index < from);
        (self.last, self.last_checksum) = (previous, checksum);
        Ok(())
    }

    /// The id and checksum of the entry at `index`, which must be synced.
    pub(crate) fn entry(&self, index: Index) -> Outcome<(EntryId, u32)> {
        if index == self.base.index {
            return Ok((self.base, self.base_checksum));
        }
        if let Some(faulty) = self.faulty_at(index) {
            return Ok((faulty.id, faulty.checksum));
        }
        let read = self.read(index, index, 0)?;
        let last = read.last().map(|batch| (batch.last_id(), batch.checksum()));
        last.ok_or_else(|| Failure::read(format_args!("entry {index} is gone from {}", self.dir.display())))
    }

    /// Ends the active segment, which must be synced, and begins a new one after `previous`, with
    /// room for at least this many slots and bytes.
    pub(super) fn roll(
        &mut self,
        previous: EntryId,
        previous_checksum: u32,
        starts_over: bool,
        slots_min: u64,
        bytes_min: u64,
    ) -> Outcome<()> {
        let layout = Layout::of(self.sizes, slots_min, bytes_min);
        if layout.capacity > u64::from(u32::MAX) {
            return Err(Failure::write(format_args!(
                "asked to append {bytes_min} bytes at once; entries must be smaller"
            )));
        }
        // Staged records belong to the segment that ends here; in the next one they would be lost.
        assert!(self.is_published && self.staged.is_empty(), "a segment is sealed once it is synced and named");
        // Its table is synced beside the first groups of the next one. At most one segment at a time
        // waits for that.
        self.fill_table()?;
        self.close()?;
        let NextFile { file, path, bytes: capacity, is_named } = self.next_file(layout.capacity)?;
        let header = Header {
            identity: self.identity.clone(),
            sequence: self.active.header.sequence + 1,
            previous,
            previous_checksum,
            starts_over: starts_over && previous.index > Index(0),
            layout: Layout { capacity, ..layout },
            published_bytes: 0,
        };
        let full = std::mem::replace(&mut self.active, Segment::new(header, path, file));
        self.closing = Some(full.header.sequence);
        self.sealed.push(full);
        (self.is_named, self.is_published, self.is_table_synced, self.marks) = (is_named, false, true, 0);
        Ok(())
    }

    /// The file of the next segment. A full disk is waited out: nothing was written that depends on
    /// that file.
    fn next_file(&mut self, capacity: u64) -> Outcome<NextFile> {
        loop {
            let next_segment = &mut self.next_segment;
            match self.shortages.outlast(&*self.disk, || next_segment.take(capacity)) {
                Err(failure) if failure.is_full && self.waits_for_space() => {
                    self.out_of_space()?;
                    self.disk.pause(RETRY_AFTER);
                }
                file => return file,
            }
        }
    }

    /// Has the next segment made: early enough at full speed, and not at all on a node
    /// with few writes.
    pub(super) fn prepare(&mut self) {
        let used = self.used();
        if used > PARTS / 16 {
            self.next_segment.prepare(self.active.header.sequence + 1, used);
        }
    }

    /// The part of the active segment that is used up, of [`PARTS`].
    pub(super) fn used(&self) -> u64 {
        let Header { layout, previous, .. } = &self.active.header;
        let (used, room) = (self.active.end - layout.records_at, layout.capacity - layout.records_at);
        let slots = self.last.index.since(previous.index);
        (used * PARTS / room.max(1)).max(slots * PARTS / layout.slots().max(1))
    }

    /// Lets the active segment count, which must be synced: gives it its name, if it has none, and
    /// removes superseded segments.
    pub(super) fn publish(&mut self) -> Outcome<()> {
        if !self.is_named {
            let path = self.dir.join(Segment::name(self.active.header.sequence));
            self.disk.rename(&self.active.path, &path).map_err(failed(StorageOp::Rename, &path))?;
            self.shortages.sync_dir(&*self.disk, &self.dir)?;
            self.active.path = path;
            // So recovery notices if this file is ever missing, even if the others are intact.
            self.hard_state.write_segment(self.active.header.sequence)?;
        }
        (self.is_named, self.is_published) = (true, true);
        if !self.superseded.is_empty() {
            self.assert_holds_all_after_base();
            for segment in std::mem::take(&mut self.superseded) {
                self.disk.remove(&segment.path).map_err(failed(StorageOp::Remove, &segment.path))?;
            }
            self.shortages.sync_dir(&*self.disk, &self.dir)?;
        }
        // After a truncation it is an older one, which is closed.
        if let Some(before) = self.sealed.last_mut().filter(|before| Some(before.header.sequence) != self.closing) {
            before.cut_file()?;
        }
        self.observer.log_bytes(self.bytes());
        Ok(())
    }

    /// Asserted before a file is removed: the entry after the base is in a segment that stays.
    pub(super) fn assert_holds_all_after_base(&self) {
        let oldest = self.sealed.first().unwrap_or(&self.active).header.first();
        assert!(
            self.is_published && oldest <= self.base.index.next(),
            "the log after entry {} stays, and its oldest segment begins with entry {oldest}",
            self.base
        );
    }

    fn last_of(&self, segment: &Segment) -> Index {
        let later = self.sealed.iter().chain([&self.active]);
        let next = later.map(|later| later.header.first()).find(|first| *first > segment.header.first());
        next.map_or(self.last.index, Index::previous)
    }
}

fn diverged(batch: &Batch, previous: EntryId) -> Failure {
    Failure::write(format_args!(
        "asked to append entry {} that does not follow entry {previous}: the logs have diverged, nothing was overwritten; \
         remove this member and add it under a new id",
        batch.first()
    ))
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.dir).field("last", &self.last).finish_non_exhaustive()
    }
}
