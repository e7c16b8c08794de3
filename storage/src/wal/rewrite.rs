//! Copies the newest segment's entries into a new one, so that nothing depends on pages that a
//! failed sync left in memory as clean.

use super::{
    Failure, Outcome, Sizes, failed,
    header::{Header, Layout, Mark},
    log::write_header,
    next_segment::{NextFile, NextSegment},
    scan::{Found, Scanned, State},
    segment::{Detour, Segment},
    slot,
};
use crate::contract::StorageOp;
use quorate_raft::EntryId;
use std::io::IoSlice;

/// A new segment with these entries, synced but without its name. A faulty entry keeps its slot,
/// and a place of its length among the records. `header` gives all but the layout and
/// `published_bytes`.
pub(super) fn rewrite(
    header: Header,
    scanned: &Scanned,
    from: &[u8],
    sizes: Sizes,
    next_segment: &mut NextSegment,
) -> Outcome<Segment> {
    let entries = &scanned.entries;
    let record_bytes: u64 = entries.iter().map(|entry| entry.range().len() as u64).sum();
    let mark_bytes = if entries.is_empty() { 0 } else { Mark::BYTES as u64 };
    let layout = Layout::of(sizes, entries.len() as u64, mark_bytes + record_bytes);
    if layout.capacity > u64::from(u32::MAX) {
        let sequence = header.sequence;
        return Err(Failure::open(format_args!("segment {sequence} would have 4 GiB; restore the files as they were")));
    }
    let NextFile { file, path, bytes: capacity, .. } = next_segment.take(layout.capacity)?;
    let published_bytes = mark_bytes + record_bytes;
    let header = Header { layout: Layout { capacity, ..layout }, published_bytes, ..header };
    let mut segment = Segment::new(header, path, file);
    let header = &segment.header;
    write_header(&segment)?;

    let write = |bytes: &[u8], at: u64| {
        segment.file.write_at(&mut [IoSlice::new(bytes)], at).map_err(failed(StorageOp::Write, &segment.path))
    };
    let (mut slots, seed) = (Vec::with_capacity(entries.len() * slot::Slot::BYTES), slot::seed(header.sequence));
    let mut run = Run { from: 0..0, to: header.layout.records_at + mark_bytes };
    let (mut detours, mut places) = (Vec::new(), Vec::with_capacity(entries.len()));
    let mut at = run.to;
    for (entry, index) in entries.iter().zip((header.first().0..).map(quorate_raft::Index)) {
        let range = entry.range();
        let end = at + range.len() as u64;
        let is_unproven = entry.state == State::Faulty { was_durable: false };
        slots.extend_from_slice(&entry.slot(index, u32::try_from(at).unwrap_or(u32::MAX), is_unproven).encode(seed));
        places.push((index, at));
        if entry.state == State::Whole && run.from.end == range.start && !run.from.is_empty() {
            run.from.end = range.end;
        } else {
            write(&from[run.from.clone()], run.to)?;
            let is_whole = entry.state == State::Whole;
            run = Run { from: if is_whole { range } else { 0..0 }, to: at };
            if !is_whole {
                detours.push(Detour { at, end, entry: Some(EntryId::new(entry.term, index)) });
            }
        }
        at = end;
    }
    write(&from[run.from.clone()], run.to)?;
    if !entries.is_empty() {
        let bytes = u32::try_from(record_bytes).unwrap_or(u32::MAX);
        let mark = Mark { segment: header.sequence, number: 0, bytes };
        write(&mark.encode(), header.layout.records_at)?;
        if header.has_slots() {
            write(&slots, header.layout.slots_at)?;
        }
    }
    segment.file.sync_data().map_err(failed(StorageOp::Sync, &segment.path))?;
    for (index, offset) in places {
        segment.remember(index, offset);
    }
    detours.into_iter().for_each(|detour| segment.avoid(detour));
    segment.end = at;
    Ok(segment)
}

/// Adjacent records, and their destination.
struct Run {
    from: std::ops::Range<usize>,
    to: u64,
}

/// Fills in the positions and detours of a sealed segment, so that reads find its entries.
pub(super) fn chart(segment: &mut Segment, entries: &[Found], bytes: &[u8]) {
    let mut at = segment.header.layout.records_at;
    for (entry, index) in entries.iter().zip((segment.header.first().0..).map(quorate_raft::Index)) {
        let (start, end) = (u64::from(entry.offset), entry.range().end as u64);
        segment.remember(index, start);
        let sequence = segment.header.sequence;
        let is_mark = |at: u64| Mark::decode(bytes, usize::try_from(at).unwrap_or(usize::MAX), sequence).is_some();
        if !(at..start).step_by(Mark::BYTES).all(is_mark) {
            segment.avoid(Detour { at, end: start, entry: None });
        }
        if entry.state != State::Whole {
            segment.avoid(Detour { at: start, end, entry: Some(EntryId::new(entry.term, index)) });
        }
        at = end;
    }
    segment.end = at;
}
