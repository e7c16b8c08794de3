//! Writes of the open log: groups, and later their slots in the table.

use super::{
    BLOCK_BYTES, Outcome, failed,
    group::{Extent, Mark},
    header::COPY_AT,
    log::Log,
    repair::Cleared,
    segment::Segment,
    slot::{self, Slot},
    torn_tail,
};
use crate::contract::StorageOp;
use std::{io::IoSlice, time::Instant};

impl Log {
    /// Writes the staged records and their slots as a group, in one write.
    pub(super) fn write_staged(&mut self) -> Outcome<()> {
        let active = &mut self.active;
        let count = self.staged_slots.len() as u64;
        let has_slots = active.header.layout.slots_bytes > 0;
        let records_end = active.end + Mark::BYTES as u64 + self.staged_bytes;
        let extent = if has_slots { Extent::of(records_end, count) } else { Extent::nothing(records_end) };
        let written = if self.staged.is_empty() { 0 } else { extent.end - active.end };
        if !self.is_published {
            // The header is written with the first records: without a name, they are synced before
            // they count.
            active.header.published_bytes = if self.is_named { 0 } else { written };
            write_header(active)?;
        }
        if written > 0 {
            // Recovery takes no entry without a slot of its own, nor one after the file's length.
            let last = self.staged_slots.last().map(|slot| slot.id.index);
            assert!(!has_slots || last == Some(self.last.index), "every staged entry has a slot");
            assert!(extent.end <= active.header.layout.capacity, "staged records fit into their segment");
            let mark = Mark {
                segment: active.header.sequence,
                number: self.marks,
                count: u32::try_from(count).unwrap_or(u32::MAX),
                bytes: u32::try_from(self.staged_bytes).unwrap_or(u32::MAX),
            };
            let mark = mark.encode();
            let seed = slot::group_seed(active.header.sequence, self.staged_after);
            let slots: Vec<u8> = self.staged_slots.iter().flat_map(|slot| slot.encode(seed)).collect();
            let gap = [0; torn_tail::SECTOR + torn_tail::ALIGNMENT];
            let gap = &gap[..usize::try_from(extent.slots_at - extent.records_end).unwrap_or(gap.len()).min(gap.len())];
            let mut slices = Vec::with_capacity(self.staged.len() + 3);
            slices.push(IoSlice::new(&mark));
            slices.extend(self.staged.iter().map(|bytes| IoSlice::new(bytes)));
            if has_slots {
                slices.extend([IoSlice::new(gap), IoSlice::new(&slots)]);
            }
            active.file.write_at(&mut slices, active.end).map_err(failed(StorageOp::Write, &active.path))?;
            self.observer.wrote(written);
            let first = self.staged_places.first().map_or(self.last.index, |(first, _)| *first);
            self.last_group = (written, self.last.index.since(first) + 1);
            self.staged_places.drain(..).for_each(|(index, offset)| active.remember(index, offset, extent));
            active.end += written;
            (self.marks, self.staged_bytes) = (self.marks + 1, 0);
            self.staged.clear();
            self.late_slots.append(&mut self.staged_slots);
        }
        Ok(())
    }

    /// Brings the entries' second places to the disk, in two calls: the first closes the segment before
    /// the active one and writes slots to the table, and the second syncs that, if no sync of entries did
    /// meanwhile. To be called a few times a second, so that each entry has two places far apart within a
    /// second.
    pub fn settle(&mut self) -> Outcome<()> {
        for Cleared { segment, slot } in std::mem::take(&mut self.cleared) {
            let segment = self.sealed.iter().chain([&self.active]).find(|one| one.header.sequence == segment);
            let Some(segment) = segment else { continue };
            if let Some(place) = slot::place(&segment.header, slot.id.index) {
                let slot = slot.encode(slot::seed(segment.header.sequence));
                segment
                    .file
                    .write_at(&mut [IoSlice::new(&slot)], place)
                    .map_err(failed(StorageOp::Write, &segment.path))?;
            }
        }
        if !self.is_published || !self.staged.is_empty() {
            return Ok(());
        }
        self.close()?;
        if self.late_slots.is_empty() { self.sync_table() } else { self.fill_table() }
    }

    /// Whether [`Log::settle`] has something to do.
    pub(crate) fn is_unsettled(&self) -> bool {
        !self.late_slots.is_empty() || !self.is_table_synced || self.closing.is_some() || !self.cleared.is_empty()
    }

    /// Writes the slots of all synced entries to the table, and a proof, in one write and without a
    /// sync. A slot in the table proves that its record was synced: so it is called with nothing staged.
    pub(super) fn fill_table(&mut self) -> Outcome<()> {
        let Some(first) = self.late_slots.first().map(|slot| slot.id.index) else { return Ok(()) };
        assert!(self.is_published && self.staged.is_empty(), "slots go to the table after the sync of their records");
        let active = &self.active;
        if let Some(place) = slot::place(&active.header, first) {
            let seed = slot::seed(active.header.sequence);
            let end = self.late_slots.last().map_or(0, |last| u64::from(last.offset) + last.record_bytes() as u64);
            let proof = Slot::proof(self.last.index.next(), end, seed);
            let slots: Vec<u8> =
                self.late_slots.iter().map(|slot| slot.encode(seed)).chain([proof]).flatten().collect();
            active.file.write_at(&mut [IoSlice::new(&slots)], place).map_err(failed(StorageOp::Write, &active.path))?;
            self.observer.wrote(slots.len() as u64);
            self.is_table_synced = false;
        }
        self.late_slots.clear();
        Ok(())
    }

    /// Syncs the table, unless it was since the last slots.
    pub(super) fn sync_table(&mut self) -> Outcome<()> {
        if !self.is_table_synced {
            let (active, began) = (&self.active, Instant::now());
            active.file.sync_data().map_err(failed(StorageOp::Sync, &active.path))?;
            self.observer.synced(began.elapsed());
            self.is_table_synced = true;
        }
        Ok(())
    }

    /// Closes the segment before the active one: both places of its entries are durable then, and only
    /// then is its file cut off.
    pub(super) fn close(&mut self) -> Outcome<()> {
        let Some(closing) = self.closing.take() else { return Ok(()) };
        assert!(self.is_published, "a file is cut off once its successor counts");
        // A truncation or a cut may have removed it.
        if let Some(segment) = self.sealed.iter_mut().find(|segment| segment.header.sequence == closing) {
            let began = Instant::now();
            segment.file.sync_data().map_err(failed(StorageOp::Sync, &segment.path))?;
            self.observer.synced(began.elapsed());
            segment.cut_file()?;
            self.observer.log_bytes(self.bytes());
        }
        Ok(())
    }
}

/// Writes both copies of a segment's header.
pub(super) fn write_header(segment: &Segment) -> Outcome<()> {
    let block = segment.header.encode();
    let gap = [0; COPY_AT - BLOCK_BYTES];
    let mut slices = [IoSlice::new(&block), IoSlice::new(&gap), IoSlice::new(&block)];
    segment.file.write_at(&mut slices, 0).map_err(failed(StorageOp::Write, &segment.path))
}
