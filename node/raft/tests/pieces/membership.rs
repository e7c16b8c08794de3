//! Configurations as payloads of entries.

use quorate_raft::{ClusterId, Membership, NodeId};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A peer or a disk may present any bytes that fit into an entry, and must not keep the rules
/// busy with them.
#[test]
fn the_learners_of_a_membership_that_fills_an_entry_are_told_from_its_voters_in_no_time() {
    let count = 200_000;
    let voters = (0..count).map(|id| NodeId(2 * id));
    let membership = Membership::of_voters(voters).with_learners((0..count).map(|id| NodeId(2 * id + 1)));
    let bytes = membership.encode();
    let began = Instant::now();
    assert_eq!(Membership::decode(&bytes), Ok(membership));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_membership_is_read_as_it_was_written_and_cut_short_is_refused() {
    let addresses = || BTreeMap::from([(NodeId(1), "one".to_owned()), (NodeId(2), "two".to_owned())]);
    let plain = || Membership::of_voters([1, 2, 3].map(NodeId)).with_addresses(addresses());
    for membership in [
        plain(),
        plain().with_witness(Some(NodeId(3))),
        plain().with_given_addresses([NodeId(2)]),
        plain().with_given_addresses([NodeId(1), NodeId(2)]).with_witness(Some(NodeId(3))),
    ] {
        let bytes = membership.encode();
        assert_eq!(Membership::decode(&bytes).as_ref(), Ok(&membership));
        let whole = plain().encode().len();
        for length in (0..bytes.len()).filter(|length| *length != whole && (*length - whole.min(*length)) % 8 != 0) {
            assert!(Membership::decode(&bytes[..length]).is_err(), "{length} bytes of {membership:?}");
        }
    }
    let tail = |ids: &[u64]| {
        let mut bytes = plain().encode().to_vec();
        ids.iter().for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
        Membership::decode(&bytes)
    };
    for nonsense in [&[0][..], &[9], &[0, 9], &[0, 3], &[0, 2, 1], &[0, 1, 1]] {
        assert!(tail(nonsense).is_err(), "{nonsense:?}");
    }
    assert_eq!(tail(&[3, 1]), Ok(plain().with_given_addresses([NodeId(1)]).with_witness(Some(NodeId(3)))));
}

#[test]
fn a_cluster_id_has_the_generation_in_front_of_its_random_part() {
    let id = ClusterId::new(0x6553_f100, u128::MAX);
    assert_eq!(id.to_string(), "6553f100ffffffffffffffffffffffff");
    assert_eq!((id.generation(), ClusterId::new(0, u128::MAX).generation()), (0x6553_f100, 0));
    assert_ne!(ClusterId::new(7, 1), ClusterId::new(7, 2));
}
