//! Repair of entries that the disk lost: another member's records, written to their old places, and
//! checked against their slots.

use super::{Failure, Outcome, failed, log::Log, segment::Segment, slot::Slot};
use crate::contract::StorageOp;
use quorate_raft::{Batch, Faulty, Index, record};
use std::io::IoSlice;

/// A slot to write again, because its entry is proven now.
#[derive(Debug)]
pub(super) struct Cleared {
    pub(super) segment: u64,
    pub(super) slot: Slot,
}

impl Log {
    /// Writes the records of faulty entries in `batch`, all or none. Durable with the next sync; if
    /// the write is torn before, the entries are still faulty.
    pub(super) fn repair(&mut self, batch: &Batch) -> Outcome<()> {
        for record in batch.records() {
            let Some(faulty) = self.faulty_at(record.id.index) else { continue };
            if (faulty.id, faulty.checksum) != (record.id, record.checksum) {
                return Err(Failure::write(format_args!(
                    "asked to repair entry {} of {} with another content (checksum {:08x} instead of {:08x}): the logs have \
                     diverged, nothing was overwritten; remove this member and add it under a new id",
                    faulty.id,
                    self.dir.display(),
                    record.checksum,
                    faulty.checksum
                )));
            }
        }
        let mut at = 0;
        for record in batch.records() {
            let end = at + record::OVERHEAD_BYTES + record.payload.len();
            let (bytes, index) = (&batch.bytes()[at..end], record.id.index);
            at = end;
            let Some(faulty) = self.faulty_at(index).copied() else { continue };
            let Some(segment) = self.segment_of(index) else { continue };
            let Some(place) = segment.place_of_lost(index).filter(|place| place.end - place.at == bytes.len() as u64)
            else {
                return Err(Failure::write(format_args!(
                    "entry {} does not fit into its place in {}: the logs have diverged; remove this member and add it \
                     under a new id",
                    faulty.id,
                    segment.path.display()
                )));
            };
            segment
                .file
                .write_at(&mut [IoSlice::new(bytes)], place.at)
                .map_err(failed(StorageOp::Write, &segment.path))?;
            segment.restored(index);
            let sequence = segment.header.sequence;
            if !self.repaired.contains(&sequence) {
                self.repaired.push(sequence);
            }
            if !faulty.was_durable {
                self.cleared.push(Cleared { segment: sequence, slot: Slot::of(&record, place.at) });
            }
            self.faulty.retain(|faulty| faulty.id.index != index);
            self.observer.wrote(bytes.len() as u64);
        }
        Ok(())
    }

    pub(super) fn faulty_at(&self, index: Index) -> Option<&Faulty> {
        let at = self.faulty.binary_search_by_key(&index, |faulty| faulty.id.index).ok()?;
        self.faulty.get(at)
    }

    /// Syncs the segments with repaired records, except the active one, which the caller syncs
    /// anyway. Returns whether the active one has such records.
    pub(super) fn sync_repaired(&mut self) -> Outcome<bool> {
        let mut is_active = false;
        for sequence in std::mem::take(&mut self.repaired) {
            let segment = self.sealed.iter().chain(&self.superseded).find(|one| one.header.sequence == sequence);
            match segment {
                Some(segment) => segment.file.sync_data().map_err(failed(StorageOp::Sync, &segment.path))?,
                None => is_active = true,
            }
        }
        Ok(is_active)
    }

    fn segment_of(&mut self, index: Index) -> Option<&mut Segment> {
        if self.active.header.first() <= index {
            return Some(&mut self.active);
        }
        self.sealed.iter_mut().rev().find(|segment| segment.header.first() <= index)
    }
}
