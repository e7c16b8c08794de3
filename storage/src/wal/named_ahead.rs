//! The newest segment at a start, if it was named ahead and never used.
//!
//! The header of such a file is written with its first group of entries, and synced with it. So a
//! file without a header does not count: nothing in it was acknowledged. Because a header has two
//! copies, one damaged byte neither hides a segment that counts, nor makes this one count.

use super::{
    BLOCK_BYTES, Failure, Outcome, failed,
    group::Mark,
    hard_state::HardStateFile,
    header::{COPY_AT, Header, SLOTS_AT},
    inventory::read_all,
    segment::{Segment, damaged},
    slot::{self, Slot},
    torn_tail,
};
use crate::{contract::StorageOp, disk::Disk};
use std::path::Path;

/// Removes the newest segment from the directory and from `sequences` if it was never used.
pub(super) fn remove_unused(
    disk: &dyn Disk,
    dir: &Path,
    sequences: &mut Vec<u64>,
    hard_state: &HardStateFile,
) -> Outcome<()> {
    let Some(newest) = sequences.last().copied() else { return Ok(()) };
    let path = dir.join(Segment::name(newest));
    if !is_unused(disk, &path, newest)? {
        return Ok(());
    }
    sequences.pop();
    // The hard state may say only that the unused one is there.
    let before = newest.saturating_sub(1);
    if sequences.last() != Some(&before) {
        return Err(Failure::open(damaged(&dir.join(Segment::name(before)), 0, "the segment is missing")));
    }
    if hard_state.segment() != before {
        hard_state.write_segment(before)?;
    }
    disk.remove(&path).map_err(failed(StorageOp::Remove, &path))
}

/// Whether the first write to a segment never reached the disk, or not the header in it.
fn is_unused(disk: &dyn Disk, path: &Path, sequence: u64) -> Outcome<bool> {
    let file = disk.open(path).map_err(failed(StorageOp::Open, path))?;
    let mut bytes = vec![0; COPY_AT + BLOCK_BYTES];
    let count = file.read_at(&mut bytes, 0).map_err(failed(StorageOp::Read, path))?;
    Header::refuse_foreign(&bytes[..count], path)?;
    let copies = [0, COPY_AT].map(|at| &bytes[at..at + BLOCK_BYTES]);
    // No crash shortens a file.
    let is_whole = count == bytes.len();
    if !is_whole || copies.iter().any(|copy| is_of(copy, sequence)) {
        return Ok(false);
    }
    let is_missing = copies.iter().any(|copy| torn_tail::used(copy) == 0);
    read_all(&*file, path, &mut bytes)?;
    Ok(is_missing && !has_second_write(&bytes, sequence))
}

/// Whether a block is a good header of this segment: not one that went astray.
fn is_of(block: &[u8], sequence: u64) -> bool {
    Header::decode(block).is_ok_and(|header| header.sequence == sequence)
}

/// Whether a segment has any part of a write after that of its first group: then that was synced.
fn has_second_write(bytes: &[u8], sequence: u64) -> bool {
    let first_mark = torn_tail::marks(bytes, SLOTS_AT as usize, sequence).next();
    let is_followed = first_mark.is_some_and(|(at, mark)| {
        let next = usize::try_from(mark.extent(at as u64).end).unwrap_or(usize::MAX);
        mark.number > 0 || Mark::decode(bytes, next, sequence).is_some()
    });
    let slots_end = first_mark.map_or(bytes.len(), |(at, _)| at);
    let slots = bytes.get(SLOTS_AT as usize..slots_end).unwrap_or_default();
    let seed = slot::seed(sequence);
    let mut slots = slots.chunks_exact(Slot::BYTES);
    is_followed || slots.any(|slot| torn_tail::used(slot) > 0 && Slot::proves_sync(slot, seed))
}
