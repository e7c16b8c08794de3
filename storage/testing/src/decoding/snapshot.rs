//! Properties of reading snapshots, for files of any bytes.

use super::{Edits, edit, seal_block};
use crate::SimulatedDisk;
use quorate_raft::{EntryId, Index, Membership, NodeId, SnapshotBase, Term};
use quorate_storage::{
    SnapshotStore, Unobserved, checksum,
    internals::{BLOCK_BYTES, Identity, read_u32, snapshot_file as format, snapshot_name},
};
use std::{path::Path, sync::Arc};

const DIR: &str = "log";
/// Small, so that a small state has several.
const CHUNK_BYTES: usize = 64;
const LAST: EntryId = EntryId { term: Term(3), index: Index(70) };

/// Opens a store with one snapshot, and reads it.
///
/// An input is a byte and edits of a good file; with bit 1 of the byte, the file itself. Bit 0:
/// checksums are recomputed, as far as the lengths allow.
///
/// # Panics
/// If one of these does not hold: an error is one line; a snapshot that is found is the one in the
/// file's name, whole, and all bytes that are read have its checksum, in pieces of any size.
pub fn snapshot(input: &[u8]) {
    let Some((control, rest)) = input.split_first() else { return };
    let mut bytes = if control & 2 != 0 { rest.to_vec() } else { file(300) };
    if control & 2 == 0 {
        Edits(rest).for_each(|edit| edit.apply(&mut bytes));
    }
    if control & 1 != 0 {
        seal(&mut bytes);
    }
    let disk = SimulatedDisk::new();
    disk.put(&Path::new(DIR).join(snapshot_name(LAST)), bytes);
    let (store, found) = match SnapshotStore::open(Arc::new(disk), DIR, "test", NodeId(1), Arc::new(Unobserved)) {
        Ok(opened) => opened,
        Err(error) => return assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    };
    assert!(found.repairs.iter().all(|line| line.lines().count() == 1), "{:?}", found.repairs);
    assert_eq!(found.snapshots.len() + found.repairs.len(), 1, "it is one or the other");
    let Some(snapshot) = found.snapshots.first() else { return assert!(store.open_newest().is_err()) };
    assert_eq!(snapshot.base.last, LAST);
    let membership = &snapshot.base.membership;
    assert_eq!(Membership::decode(&membership.encode()).as_ref(), Ok(membership));
    let mut source = store.open_newest().expect("it was found");
    assert_eq!(source.snapshot(), snapshot);
    let length = usize::try_from(snapshot.bytes).expect("it fits the file, so it fits memory");
    let mut whole = vec![0; length + 1];
    assert_eq!(source.read_at(&mut whole, 0), Ok(length));
    whole.truncate(length);
    assert_eq!(checksum(0, &whole), snapshot.checksum);
    for (from, count) in [(length / 2, 100), (length.saturating_sub(1), 9), (length, 1)] {
        let mut piece = vec![0; count];
        let wanted = &whole[from..length.min(from + count)];
        assert_eq!(source.read_at(&mut piece, from as u64), Ok(wanted.len()));
        assert_eq!(&piece[..wanted.len()], wanted);
    }
    assert_eq!(source.read_at(&mut [0; 4], u64::MAX), Ok(0));
}

/// A good file, with this many bytes of state.
fn file(state_bytes: usize) -> Vec<u8> {
    let membership = Membership::of_voters([NodeId(1), NodeId(2)]).with_learners([NodeId(5)]);
    let base = SnapshotBase { last: LAST, last_checksum: 7, membership, membership_index: Index(1) };
    let (mut bytes, layout) = format::head(&base, &Identity { cluster: "test".into(), member: NodeId(1) }, CHUNK_BYTES);
    let state: Vec<u8> = (0..state_bytes).map(|at| (at % 251) as u8).collect();
    let mut sum = 0;
    for chunk in state.chunks(CHUNK_BYTES) {
        sum = checksum(sum, chunk);
        bytes.extend_from_slice(chunk);
        bytes.extend(sum.to_le_bytes());
    }
    bytes.extend(format::foot(&layout, state_bytes as u64, sum));
    bytes
}

/// Recomputes every checksum that can be found.
fn seal(bytes: &mut [u8]) {
    seal_block(bytes, 0);
    let (chunk_bytes, chunks_at) = (read_u32(bytes, 44) as usize, read_u32(bytes, 52) as usize);
    let Some(foot_at) = bytes.len().checked_sub(BLOCK_BYTES) else { return };
    if chunks_at < BLOCK_BYTES + format::CHECKSUM_BYTES || chunks_at > foot_at || chunk_bytes == 0 {
        return;
    }
    let head_sum = checksum(0, &bytes[..chunks_at - format::CHECKSUM_BYTES]);
    bytes[chunks_at - format::CHECKSUM_BYTES..chunks_at].copy_from_slice(&head_sum.to_le_bytes());
    let mut sum = 0;
    for chunk in bytes[chunks_at..foot_at].chunks_mut(chunk_bytes.saturating_add(format::CHECKSUM_BYTES)) {
        let Some((state, trailer)) = chunk.split_last_chunk_mut::<{ format::CHECKSUM_BYTES }>() else { break };
        sum = checksum(sum, state);
        *trailer = sum.to_le_bytes();
    }
    bytes[foot_at + 8..foot_at + 12].copy_from_slice(&head_sum.to_le_bytes());
    bytes[foot_at + 12..foot_at + 16].copy_from_slice(&sum.to_le_bytes());
    seal_block(bytes, foot_at);
}

/// Inputs for [`snapshot`].
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let foot_at = file(300).len() - BLOCK_BYTES;
    let edits = [
        vec![],
        edit(0, 16, 0, &70u64.to_le_bytes()),
        edit(0, 44, 0, &[65, 0, 0, 0]),
        edit(0, 48, 0, &[20, 0, 0, 0]),
        edit(0, 52, 0, &[8, 2, 0, 0]),
        edit(0, 512, 0, &[3, 0, 0, 0, 1]),
        edit(1, 4100, 0, &[1, 2, 3]),
        edit(0, foot_at + 16, 0, &[44, 1]),
        edit(4, foot_at, 0, &[]),
        edit(5, 0, 3, &[]),
    ];
    let control = [1, 1, 1, 1, 1, 1, 0, 1, 0, 0];
    control.iter().zip(edits).map(|(control, edits)| [&[*control][..], &edits].concat()).collect()
}
