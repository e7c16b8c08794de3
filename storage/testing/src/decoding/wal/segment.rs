//! Properties of scanning a segment.

use super::{
    logs::{self, SLOTS_AT},
    seal_slot,
};
use crate::decoding::{Edits, edit, seal_block, seal_records};
use quorate_raft::{EntryId, Index, Kind, record};
use quorate_storage::{
    checksum,
    internals::{
        COPY_AT, Extent, Header, Mark, Scanned, State, Tail, read_u32, read_u64, scan,
        slot::{self, Slot},
    },
};

/// Decodes a segment's header, and scans the segment.
///
/// An input is a byte, the index at which a successor begins (0: there is none) and edits of a good
/// segment. Bits of the first byte recompute checksums: 0, the header's; 1, the slots'; 2, the
/// marks' and records'.
///
/// # Panics
/// If one of these does not hold: a header is encoded to the same bytes; entries are in order in
/// the file; once patched, whole entries have good checksums and chain from the header to the last
/// one; no entry is at or after the successor's first; and a patched segment has the same entries.
pub fn segment(input: &[u8]) {
    let Some(([control, end], rest)) = input.split_first_chunk::<2>() else { return };
    let (mut bytes, _) = logs::a_segment();
    Edits(rest).for_each(|edit| edit.apply(&mut bytes));
    if control & 1 != 0 {
        seal_block(&mut bytes, 0);
        seal_block(&mut bytes, COPY_AT);
    }
    let Ok(header) = Header::decode(&bytes) else { return };
    assert_eq!(Header::decode(&header.encode()).as_ref(), Ok(&header));
    let seed = slot::seed(header.sequence);
    if control & 2 != 0 && bytes.len() > SLOTS_AT + 512 {
        bytes[SLOTS_AT..SLOTS_AT + 480].chunks_exact_mut(Slot::BYTES).for_each(|slot| seal_slot(slot, seed));
    }
    if control & 4 != 0 {
        seal_groups(&mut bytes, &header);
    }
    let end = Some(Index(u64::from(*end))).filter(|end| end.0 > 0);
    let scanned = scan(&bytes, &header, end);
    check(&bytes, &header, &scanned, end);
    let mut patched = bytes;
    for patch in &scanned.patches {
        let place = patched.get_mut(patch.at..patch.at + patch.bytes.len()).expect("a patch lies in the file");
        place.copy_from_slice(&patch.bytes);
    }
    holds(&patched, &header, &scanned);
    let again = scan(&patched, &header, end);
    assert_eq!((again.entries, again.last), (scanned.entries, scanned.last), "a patch changes nothing more");
}

fn check(bytes: &[u8], header: &Header, scanned: &Scanned, end: Option<Index>) {
    let first = header.first();
    assert_eq!(scanned.last.index.since(header.previous.index), scanned.entries.len() as u64, "none is left out");
    if let (Some(end), [_, ..]) = (end, &scanned.entries[..]) {
        assert!(scanned.last.index < end.max(first.next()));
    }
    let (mut at, mut term) = (0, header.previous.term);
    for entry in &scanned.entries {
        assert!(entry.range().start >= at && entry.term >= term);
        (at, term) = (entry.range().end, entry.term);
    }
    assert!(scanned.terms.is_sorted_by(|one, other| one.0 < other.0 && one.1 < other.1));
    if let Tail::Damaged { at, .. } | Tail::Torn { at, .. } = scanned.tail {
        assert!(at <= bytes.len() + Mark::BYTES || !scanned.entries.is_empty(), "{at}");
    }
}

/// Checks that every whole entry's record has good checksums.
fn holds(bytes: &[u8], header: &Header, scanned: &Scanned) {
    let (mut chained, mut index) = (header.previous_checksum, header.first());
    for entry in &scanned.entries {
        if entry.state == State::Whole {
            let found = bytes.get(entry.range()).expect("it lies in the file");
            let head = record::Head::read(found, 0, checksum).expect("its header holds");
            assert_eq!((head.id, head.previous_checksum), (EntryId::new(entry.term, index), chained));
            let (payload, sum) = found[record::HEADER_BYTES..].split_last_chunk::<4>().expect("it is long enough");
            let computed = record::record_checksum(checksum, entry.kind, head.header_checksum, payload);
            assert_eq!(computed, Some(entry.checksum));
            assert_eq!(*sum, entry.checksum.to_le_bytes());
            let is_configuration = scanned.memberships.iter().any(|(at, _)| *at == index);
            assert_eq!(is_configuration, head.kind == Kind::Membership);
        }
        (chained, index) = (entry.checksum, index.next());
    }
    assert_eq!(scanned.last_checksum, chained);
}

/// Recomputes the checksums of marks and of the records after each, as far as their lengths lead.
fn seal_groups(bytes: &mut [u8], header: &Header) {
    let mut at = usize::try_from(header.layout.records_at).unwrap_or(usize::MAX);
    while let Some(mark) = bytes.get_mut(at..at.saturating_add(Mark::BYTES)) {
        if mark[..8] != Mark::MAGIC || read_u64(mark, 8) != header.sequence {
            break;
        }
        let sum = checksum(0, &mark[..28]);
        mark[28..].copy_from_slice(&sum.to_le_bytes());
        let [count, records] = [read_u32(mark, 20), read_u32(mark, 24)];
        let from = at + Mark::BYTES;
        let extent = Extent::of(from as u64 + u64::from(records), u64::from(count));
        at = usize::try_from(extent.end).unwrap_or(usize::MAX);
        if let Some(records) = bytes.get_mut(from..from.saturating_add(records as usize)) {
            seal_records(records);
        }
    }
}

/// Inputs for [`segment`].
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let (bytes, header) = logs::a_segment();
    let records_at = header.layout.records_at as usize;
    let last_mark = bytes.windows(8).rposition(|window| window == Mark::MAGIC).expect("there is a mark");
    let changes: [(u8, u8, Vec<u8>); 14] = [
        (0, 0, vec![]),
        (0, 5, vec![]),
        (7, 0, vec![]),
        (0, 0, edit(1, records_at + 40, 0, &[1])),
        (0, 0, edit(1, records_at + 80, 0, &[1])),
        (0, 0, edit(1, SLOTS_AT + 40, 0, &[1, 1])),
        (0, 0, [edit(2, SLOTS_AT + 160, 60, &[]), edit(2, last_mark, 200, &[])].concat()),
        (0, 0, edit(2, last_mark + 40, 200, &[])),
        (0, 0, [edit(1, records_at + 80, 0, &[1]), edit(1, SLOTS_AT + 4, 0, &[1])].concat()),
        (1, 0, edit(0, 80, 0, &[100, 2])),
        (1, 0, edit(0, 12, 0, &[0])),
        (2, 0, edit(0, SLOTS_AT + 24, 0, &[0xff; 4])),
        (2, 8, edit(0, SLOTS_AT + 8, 0, &[9])),
        (1, 0, edit(0, 32, 0, &(u64::MAX - 1).to_le_bytes())),
    ];
    changes.into_iter().map(|(control, end, edits)| [&[control, end], &edits[..]].concat()).collect()
}
