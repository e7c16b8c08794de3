//! Properties of reading the log's files, for files of any bytes.

mod logs;
mod recovery;
mod segment;

pub use recovery::{recovery, seeds as recovery_seeds};
pub use segment::{seeds as segment_seeds, segment};

use super::seal_block;
use crate::SimulatedDisk;
use logs::{DIR, SLOTS_AT, identity};
use quorate_raft::{EntryId, HardState, Index, NodeId, Promise, Term, record};
use quorate_storage::{
    checksum,
    internals::{
        BLOCK_BYTES, Failure, Found, Header, Layout, State,
        hard_state::{self as format, HardStateFile},
        holdings, read_u64,
        slot::{self, Slot, Table},
    },
};
use std::path::Path;

/// A failure is one line for the operator.
fn is_one_line(failure: &Failure) {
    assert_eq!(failure.error.to_string().lines().count(), 1, "{}", failure.error);
}

/// Reads a table of slots.
///
/// An input is a byte, the table's first index (8 bytes) and the table. Bit 0 of the byte: each
/// slot's checksum is recomputed first.
///
/// # Panics
/// If one of these does not hold: a slot that counts has the index of its place, can have a
/// successor, and is encoded to the same bytes; the header that it implies holds; and no slot follows where `Table::is_empty_from` says so.
pub fn slots(input: &[u8]) {
    let Some(([control, first @ ..], rest)) = input.split_first_chunk::<9>() else { return };
    let (first, seed) = (u64::from_le_bytes(*first), slot::seed(7));
    let mut segment = vec![0; SLOTS_AT];
    segment.extend_from_slice(&rest[..rest.len().min(8192)]);
    if control & 1 == 1 {
        segment[SLOTS_AT..].chunks_exact_mut(Slot::BYTES).for_each(|slot| seal_slot(slot, seed));
    }
    let bytes = (segment.len() - SLOTS_AT) as u64;
    let layout = Layout {
        slots_at: SLOTS_AT as u64,
        slots_bytes: bytes,
        records_at: SLOTS_AT as u64 + bytes,
        capacity: 1 << 20,
    };
    let header = Header { previous: EntryId::new(Term(0), Index(first).previous()), ..logs::header(7, layout) };
    let table = Table::of(&segment, &header);
    let indexes: Vec<Index> = table.indexes_from(header.first()).collect();
    assert!(indexes.len() <= rest.len() / Slot::BYTES);
    let mut end = None;
    for index in indexes.iter().copied().chain([Index(0), Index(first).previous(), Index(u64::MAX)]) {
        let is_empty = table.is_empty_from(index);
        let (Some(slot), Some(place)) = (table.get(index), slot::place(&header, index)) else {
            if indexes.contains(&index) && is_empty {
                end.get_or_insert(index);
            }
            continue;
        };
        let there = &segment[place as usize..][..Slot::BYTES];
        assert_eq!((slot.id.index, &slot.encode(seed)[..]), (index, there));
        assert!(index.next() > index, "there is an index for the entry after it");
        assert!(table.is_used(index) && !is_empty);
        let implied = record::Head::read(&slot.record_header(9), 0, checksum);
        assert_eq!(implied.map_err(|malformed| malformed.what), Err("cut off"), "only the payload is missing");
        assert!(end.is_none_or(|end| index < end), "it lies after the end");
    }
}

fn seal_slot(slot: &mut [u8], seed: u32) {
    let sum = checksum(seed, &slot[..36]);
    slot[36..Slot::BYTES].copy_from_slice(&sum.to_le_bytes());
}

/// Inputs for [`slots`].
#[must_use]
pub fn slots_seeds() -> Vec<Vec<u8>> {
    let table = |first: u64, last: u64| -> Vec<u8> {
        let slots = (first..=last).flat_map(|index| {
            let (term, offset, payload_bytes, kind) = (Term(2), 20_000 + 140 * (index - first) as u32, 100, 1);
            let state = State::Whole;
            let found = Found { term, checksum: index as u32, offset, payload_bytes, kind, state };
            found.slot(Index(index), offset, index % 2 == 0).encode(slot::seed(7))
        });
        slots.chain([0; 80]).collect()
    };
    let with = |control: u8, first: u64, table: &[u8]| [&[control], &first.to_le_bytes()[..], table].concat();
    vec![
        with(0, 1, &table(1, 14)),
        with(1, 500, &table(500, 502)),
        with(1, u64::MAX - 2, &table(u64::MAX - 2, u64::MAX)),
        with(1, 1, &[0; 200]),
    ]
}

/// Opens a hard-state file.
///
/// An input is a byte and the four copies, of 64 bytes each, with zeros for the rest; with bit 1 of
/// the byte, the file itself. Bit 0: the copies' checksums are recomputed first.
///
/// # Panics
/// If one of these does not hold: an error is one line; a vote implies that the member has voted;
/// the file opens again with the same state, with any one copy damaged; and a vote written then
/// is read back.
pub fn hard_state(input: &[u8]) {
    let Some((control, rest)) = input.split_first() else { return };
    let mut bytes = rest.to_vec();
    if control & 2 == 0 {
        bytes = vec![0; 4 * COPIES_APART];
        for (copy, fields) in rest.chunks(64).take(4).enumerate() {
            bytes[copy * COPIES_APART..][..fields.len()].copy_from_slice(fields);
        }
    }
    if control & 1 != 0 {
        (0..4).for_each(|copy| seal_block(&mut bytes, copy * COPIES_APART));
    }
    if is_counted_out(&bytes) {
        return;
    }
    let (disk, path) = (SimulatedDisk::new(), Path::new(DIR).join(format::NAME));
    disk.put(&path, bytes);
    let open = |disk: &SimulatedDisk| HardStateFile::open(disk, Path::new(DIR), &identity());
    let file = match open(&disk) {
        Ok(file) => file,
        Err(failure) => return is_one_line(&failure),
    };
    let told = |file: &HardStateFile| (file.state(), file.has_voted(), file.segment());
    let found = told(&file);
    assert!(found.0.vote.is_none() || found.1, "a vote is one that there was");
    // Together with the write at the opening, this writes both pairs, as every start does.
    file.write(found.0, found.2).unwrap_or_else(|failure| panic!("it can be written: {}", failure.error));
    for copy in 0..4 {
        let damaged = disk.fork();
        assert!(damaged.flip(&path, copy * COPIES_APART + 24, 1));
        let reopened = open(&damaged).unwrap_or_else(|failure| panic!("one copy may be damaged: {}", failure.error));
        assert_eq!(told(&reopened), found, "with copy {copy} damaged");
    }
    let state = HardState { promise: Promise(7), ..HardState::new(found.0.term.next(), Some(NodeId(3))) };
    let next = (state, true, found.2);
    file.write(next.0, next.2).unwrap_or_else(|failure| panic!("it can be written: {}", failure.error));
    assert_eq!(told(&open(&disk).unwrap_or_else(|failure| panic!("it holds: {}", failure.error))), next);
}

const COPIES_APART: usize = 4096;

/// Whether a few more writes would exceed the highest sequence. Close to it, only an error of one
/// line is promised.
fn is_counted_out(hard_state: &[u8]) -> bool {
    let mut sequences = hard_state.chunks(COPIES_APART).map(|copy| read_u64(copy, 16));
    sequences.any(|sequence| (format::SEQUENCE_MAX - 16..=format::SEQUENCE_MAX).contains(&sequence))
}

/// Inputs for [`hard_state`].
#[must_use]
pub fn hard_state_seeds() -> Vec<Vec<u8>> {
    let disk = SimulatedDisk::new();
    let file = HardStateFile::create(&disk, Path::new(DIR), &identity()).expect("made");
    let mut seeds = Vec::new();
    for vote in [None, Some(NodeId(2))] {
        let bytes = disk.contents(&Path::new(DIR).join(format::NAME)).expect("it is there");
        let copies = bytes.chunks(COPIES_APART).flat_map(|copy| &copy[..64]);
        seeds.push([1].into_iter().chain(copies.copied()).collect());
        file.write(HardState { promise: Promise(150_000), ..HardState::new(Term(5), vote) }, 3).expect("written");
    }
    seeds
}

/// Reads a file of known members.
///
/// An input is a byte, 64 bytes of the file's block and the bytes after the block. Bit 0 of the
/// byte: both checksums are recomputed first.
///
/// # Panics
/// If one of these does not hold: a file counts, is ignored with one line, or is refused for its
/// version; and holdings that count are the same after they are written and read again.
pub fn known_members(input: &[u8]) {
    let Some((control, rest)) = input.split_first() else { return };
    let (fields, members) = rest.split_at(rest.len().min(64));
    let mut bytes = fields.to_vec();
    bytes.resize(BLOCK_BYTES, 0);
    bytes.extend_from_slice(members);
    if control & 1 == 1 {
        seal_block(&mut bytes, 0);
        if let Some(end) = bytes.len().checked_sub(4).filter(|end| *end >= BLOCK_BYTES) {
            let sum = checksum(0, &bytes[..end]);
            bytes[end..].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let (disk, dir) = (SimulatedDisk::new(), Path::new(DIR));
    disk.put(&dir.join(holdings::NAME), bytes);
    if let Err(failure) = holdings::read(&disk, dir, &identity()) {
        return assert!(failure.error.to_string().contains("of an earlier program"), "{}", failure.error);
    }
    let read = || holdings::read(&disk, dir, &identity()).unwrap_or_else(|failure| panic!("{}", failure.error));
    let (found, repair) = read();
    match repair {
        Some(line) => assert!(found.is_empty() && line.lines().count() == 1, "{line}"),
        None => {
            holdings::write(&disk, dir, &identity(), &found).unwrap_or_else(|failure| panic!("{}", failure.error));
            assert_eq!(read(), (found, None));
        }
    }
}

/// Inputs for [`known_members`].
#[must_use]
pub fn known_members_seeds() -> Vec<Vec<u8>> {
    let members = [vec![], vec![(2, 70)], vec![(2, 70), (3, u64::MAX), (9, 0)]];
    let seed = |members: Vec<(u64, u64)>| {
        let disk = SimulatedDisk::new();
        let holdings = members.into_iter().map(|(member, index)| (NodeId(member), Index(index))).collect();
        holdings::write(&disk, Path::new(DIR), &identity(), &holdings).expect("written");
        let bytes = disk.contents(&Path::new(DIR).join(holdings::NAME)).expect("it is there");
        [&[1], &bytes[..64], &bytes[BLOCK_BYTES..]].concat()
    };
    members.into_iter().map(seed).collect()
}
