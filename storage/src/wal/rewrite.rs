//! Copies the newest segment's entries into a new one, so that nothing depends on pages that a
//! failed sync left in memory as clean.

use super::{
    Failure, Outcome, Sizes, failed,
    group::{self, Extent, Mark},
    header::{Header, Layout},
    next_segment::{NextFile, NextSegment},
    scan::{Found, Scanned, State},
    segment::{Detour, Segment, Skipped},
    slot,
    write::write_header,
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
    let group_bytes = if entries.is_empty() { 0 } else { group::bytes(record_bytes, entries.len() as u64) };
    let layout = Layout::of(sizes, entries.len() as u64, group_bytes);
    if layout.capacity > u64::from(u32::MAX) {
        let sequence = header.sequence;
        return Err(Failure::open(format_args!("segment {sequence} would have 4 GiB; restore the files as they were")));
    }
    let NextFile { file, path, bytes: capacity, .. } = next_segment.take(layout.capacity)?;
    let published_bytes = group_bytes;
    let header = Header { layout: Layout { capacity, ..layout }, published_bytes, ..header };
    let mut segment = Segment::new(header, path, file);
    let header = &segment.header;
    write_header(&segment)?;

    let write = |bytes: &[u8], at: u64| {
        segment.file.write_at(&mut [IoSlice::new(bytes)], at).map_err(failed(StorageOp::Write, &segment.path))
    };
    let (mut slots, seed) = (Vec::with_capacity(entries.len() * slot::Slot::BYTES), slot::seed(header.sequence));
    let mut slots_in_group = Vec::with_capacity(slots.capacity());
    let group_seed = slot::group_seed(header.sequence, header.previous_checksum);
    let extent = Extent::of(header.layout.records_at + mark_bytes + record_bytes, entries.len() as u64);
    let mut run = Run { from: 0..0, to: header.layout.records_at + mark_bytes };
    let (mut detours, mut places) = (Vec::new(), Vec::with_capacity(entries.len()));
    let mut at = run.to;
    for (entry, index) in entries.iter().zip((header.first().0..).map(quorate_raft::Index)) {
        let range = entry.range();
        let end = at + range.len() as u64;
        let offset = u32::try_from(at).unwrap_or(u32::MAX);
        slots.extend_from_slice(&entry.slot_in_table(index, offset).encode(seed));
        slots_in_group.extend_from_slice(&entry.slot(index, offset, false).encode(group_seed));
        places.push((index, at));
        if entry.state == State::Whole && run.from.end == range.start && !run.from.is_empty() {
            run.from.end = range.end;
        } else {
            write(&from[run.from.clone()], run.to)?;
            let is_whole = entry.state == State::Whole;
            run = Run { from: if is_whole { range } else { 0..0 }, to: at };
            if !is_whole {
                detours.push(Detour { at, end, what: Skipped::Entry(EntryId::new(entry.term, index)) });
            }
        }
        at = end;
    }
    write(&from[run.from.clone()], run.to)?;
    if !entries.is_empty() {
        let mark = Mark {
            segment: header.sequence,
            number: 0,
            count: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            bytes: u32::try_from(record_bytes).unwrap_or(u32::MAX),
        };
        write(&mark.encode(), header.layout.records_at)?;
        write(&slots_in_group, extent.slots_at)?;
        if header.layout.slots_bytes > 0 {
            write(&slots, header.layout.slots_at)?;
        }
    }
    segment.file.sync_data().map_err(failed(StorageOp::Sync, &segment.path))?;
    for (index, offset) in places {
        segment.remember(index, offset, extent);
    }
    detours.into_iter().for_each(|detour| segment.avoid(detour));
    if !entries.is_empty() {
        segment.end = extent.end;
    }
    Ok(segment)
}

/// Writes the slots of a segment's entries to its table, as far as that has places for them.
pub(super) fn write_table(segment: &Segment, entries: &[Found]) -> Outcome<()> {
    let (header, seed) = (&segment.header, slot::seed(segment.header.sequence));
    let numbered = entries.iter().zip((header.first().0..).map(quorate_raft::Index));
    let in_table = numbered.take_while(|(_, index)| slot::place(header, *index).is_some());
    let slots: Vec<u8> =
        in_table.flat_map(|(entry, index)| entry.slot_in_table(index, entry.offset).encode(seed)).collect();
    segment
        .file
        .write_at(&mut [IoSlice::new(&slots)], header.layout.slots_at)
        .map_err(failed(StorageOp::Write, &segment.path))
}

/// Adjacent records, and their destination.
struct Run {
    from: std::ops::Range<usize>,
    to: u64,
}

/// Fills in the positions and detours of a sealed segment, so that reads find its entries.
pub(super) fn chart(segment: &mut Segment, entries: &[Found], bytes: &[u8]) {
    let header = segment.header.clone();
    let numbered = || entries.iter().zip((header.first().0..).map(quorate_raft::Index));
    // Entries without a gap between them are of one group.
    let mut from = numbered();
    let mut at = header.layout.records_at;
    let mut ends = Extent::nothing(at);
    for group in entries.chunk_by(|one, next| one.range().end == next.range().start) {
        let start = group.first().map_or(0, |first| u64::from(first.offset));
        let records_end = group.last().map_or(0, |last| last.range().end as u64);
        let mark_at = start.saturating_sub(Mark::BYTES as u64);
        let expected = Extent::of(records_end, group.len() as u64);
        let mark = Mark::decode(bytes, usize::try_from(mark_at).unwrap_or(usize::MAX), header.sequence);
        ends = mark.map_or(expected, |mark| mark.extent(mark_at));
        // The last group may go on after the last entry that counts.
        let is_one = ends == expected || (ends.records_end > records_end && records_end == last_end(entries));
        if mark.is_none() || !is_one || mark_at != at {
            ends = expected;
            segment.avoid(Detour { at, end: start, what: Skipped::Mark(ends) });
        }
        for (entry, index) in from.by_ref().take(group.len()) {
            let (start, end) = (u64::from(entry.offset), entry.range().end as u64);
            segment.remember(index, start, ends);
            if entry.state != State::Whole {
                let what = Skipped::Entry(EntryId::new(entry.term, index));
                segment.avoid(Detour { at: start, end, what });
            }
        }
        at = ends.end;
    }
    // Entries of the last group that do not count are not read.
    let last_end = last_end(entries).max(header.layout.records_at);
    segment.end = if ends.records_end == last_end { ends.end.min(bytes.len() as u64).max(last_end) } else { last_end };
}

fn last_end(entries: &[Found]) -> u64 {
    entries.last().map_or(0, |last| last.range().end as u64)
}
