//! Properties of the decoders, for any bytes.
//!
//! The tests of this package and the fuzz targets in `node/sim/fuzz` run the same functions. An
//! input with wrong checksums is refused at once, so most inputs say which ones to recompute first.

mod edits;
mod snapshot;
mod wal;

use edits::{Edit, Edits, edit};

pub use snapshot::snapshot;
pub use wal::{hard_state, known_members, recovery, segment, slots};

/// Initial inputs for a search, one list per property.
pub mod seeds {
    pub use super::record_seeds as records;
    pub use super::{
        snapshot::seeds as snapshot,
        wal::{hard_state_seeds as hard_state, known_members_seeds as known_members},
        wal::{recovery_seeds as recovery, segment_seeds as segment, slots_seeds as slots},
    };
}

use bytes::Bytes;
use quorate_raft::{
    Batch, BatchBuilder, EntryId, Index, Kind, MemberDescription, MemberMetadata, Membership, NodeId, Term, record,
};
use quorate_storage::{
    checksum,
    internals::{BLOCK_BYTES, read_u32},
};

/// Reads log records, and a membership.
///
/// An input is a byte and records. Bit 0 of the byte: their checksums and the chain between them
/// are recomputed first.
///
/// # Panics
/// If one of these does not hold: a batch has consecutive entries of one term, each chained to
/// its predecessor; its records take exactly its bytes, and are encoded to the same bytes; each
/// slice of it is a batch; and a membership is the same after it is encoded and read again,
/// with sorted lists.
pub fn records(input: &[u8]) {
    let Some((control, rest)) = input.split_first() else { return };
    let mut bytes = rest.to_vec();
    if control & 1 == 1 {
        seal_records(&mut bytes);
    }
    membership(&bytes);
    let parsed = Batch::parse(bytes.clone().into(), checksum);
    let batch = match parsed {
        Ok(batch) => batch,
        Err(malformed) => return assert!(malformed.offset <= bytes.len()),
    };
    let first = batch.first().0;
    let mut twin = BatchBuilder::new(checksum, batch.term(), batch.first(), batch.previous_checksum(), bytes.len());
    for (number, record) in (0u64..).zip(batch.records()) {
        let index = first.checked_add(number).expect("indexes do not end within a batch");
        assert_eq!(record.id, EntryId::new(batch.term(), Index(index)));
        match record.kind {
            Kind::Stub => assert_eq!(record.payload[..4], record.checksum.to_le_bytes()),
            kind => twin.push(kind, record.payload),
        }
        if record.kind == Kind::Membership {
            membership(record.payload);
        }
    }
    // A stub can't be built without the command's checksum.
    if !batch.has_stubs() {
        let twin = twin.finish().expect("a batch has an entry");
        assert_eq!((twin.bytes(), &twin), (&Bytes::from(bytes), &batch));
    }
    let stubs = batch.to_stubs(checksum);
    assert_eq!((stubs.last_id(), stubs.checksum()), (batch.last_id(), batch.checksum()));
    assert_eq!(Batch::parse(stubs.bytes().clone(), checksum).as_ref(), Ok(&stubs));
    assert!(batch.last().next() > batch.last(), "there is an index for the entry after it");
    if let Ok(memberships) = batch.memberships() {
        assert!(memberships.iter().all(|(_, membership)| !membership.incoming().is_empty()));
    }
    let middle = Index(first + u64::from(batch.count()) / 2);
    let slices = [batch.from(middle), batch.up_to(middle), Some(batch.within(batch.bytes().len() / 2))];
    for slice in slices.into_iter().flatten() {
        assert_eq!(Batch::parse(slice.bytes().clone(), checksum), Ok(slice));
    }
}

fn membership(bytes: &[u8]) {
    let Ok(membership) = Membership::decode(bytes) else { return };
    assert_eq!(Membership::decode(&membership.encode()).as_ref(), Ok(&membership));
    for list in [membership.incoming(), membership.outgoing(), membership.learners()] {
        assert!(list.is_sorted_by(|one, other| one < other));
    }
    assert!(!membership.learners().iter().any(|learner| membership.is_voter(*learner)));
}

/// Recomputes the checksums of records, as far as their lengths lead.
fn seal_records(bytes: &mut [u8]) {
    let (mut at, mut chained) = (0, None);
    while let Some(head) = bytes.get_mut(at..at + record::HEADER_BYTES) {
        let chain: [u8; 4] = chained.unwrap_or([head[28], head[29], head[30], head[31]]);
        head[28..32].copy_from_slice(&chain);
        let sum = checksum(0, &head[..32]);
        head[32..36].copy_from_slice(&sum.to_le_bytes());
        let payload = at + record::HEADER_BYTES..at + record::HEADER_BYTES + read_u32(head, 0) as usize;
        let Some(sum) = bytes.get(payload.clone()).map(|payload| checksum(sum, payload).to_le_bytes()) else {
            break;
        };
        at = payload.end + record::TRAILER_BYTES;
        let Some(trailer) = bytes.get_mut(payload.end..at) else { break };
        trailer.copy_from_slice(&sum);
        chained = Some(sum);
    }
}

/// Recomputes the checksum of the block at `at`, if there is room for one.
fn seal_block(bytes: &mut [u8], at: usize) {
    if let Some(block) = bytes.get_mut(at..at.saturating_add(BLOCK_BYTES)) {
        let (fields, sum) = block.split_at_mut(BLOCK_BYTES - 4);
        sum.copy_from_slice(&checksum(0, fields).to_le_bytes());
    }
}

/// Inputs for [`records`].
#[must_use]
pub fn record_seeds() -> Vec<Vec<u8>> {
    let joint = Membership::joint([NodeId(1), NodeId(2)], [NodeId(2), NodeId(3)]).with_learners([NodeId(9)]);
    let addressed = Membership::of_addresses([(NodeId(1), "127.0.0.1:7001".into()), (NodeId(7), "n7:1".into())]);
    let metadata = MemberMetadata::new(Some("http://n7:80".into()), [("zone".into(), "a".into())].into());
    let metadata = metadata.expect("within bounds");
    let described = MemberDescription { published: metadata.clone(), metadata };
    let described = addressed.clone().with_descriptions([(NodeId(7), described)].into());
    let batch = |entries: &[(Kind, &[u8])]| {
        let mut builder = BatchBuilder::new(checksum, Term(3), Index(7), 9, 0);
        entries.iter().for_each(|(kind, payload)| builder.push(*kind, payload));
        builder.finish().map(|batch| batch.bytes().to_vec()).unwrap_or_default()
    };
    let mixed = batch(&[
        (Kind::Noop, b""),
        (Kind::Command, b"a command"),
        (Kind::Membership, &joint.encode()),
        (Kind::Session, &[7; 40]),
        (Kind::Tick, &[7; quorate_raft::tick::TICK_BYTES]),
        (Kind::Internal, &[1; 9]),
    ]);
    let commands = batch(&[(Kind::Command, b"x"), (Kind::Command, b""), (Kind::Command, &[7; 90])]);
    let with = |control: u8, bytes: &[u8]| [&[control], bytes].concat();
    vec![
        with(1, &mixed),
        with(0, &mixed),
        with(1, &commands),
        with(0, Batch::parse(mixed.clone().into(), checksum).expect("it was built").to_stubs(checksum).bytes()),
        with(1, &batch(&[(Kind::Membership, &addressed.encode())])),
        with(0, &joint.encode()),
        with(0, &addressed.encode()),
        with(0, &described.encode()),
    ]
}
