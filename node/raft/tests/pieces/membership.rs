//! Configurations as payloads of entries.

use quorate_raft::{ClusterId, MemberDescription, MemberMetadata, Membership, NodeId};
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
    let addresses = BTreeMap::from([(NodeId(1), "one".to_owned()), (NodeId(2), "two".to_owned())]);
    let plain = || Membership::of_voters([1, 2, 3].map(NodeId)).with_addresses(addresses.clone());
    for membership in [
        Membership::default(),
        plain(),
        plain().with_witness(Some(NodeId(3))),
        plain().with_given_addresses([NodeId(1), NodeId(2)]).with_cluster_id(Some(ClusterId(7))),
        plain().with_descriptions([(NodeId(1), described("a")), (NodeId(3), described("b"))].into()),
        Membership::joint([1, 2].map(NodeId), [2, 3].map(NodeId))
            .with_learners([NodeId(4)])
            .with_witness(Some(NodeId(4)))
            .with_descriptions([(NodeId(3), described("a")), (NodeId(4), described("b"))].into()),
    ] {
        let bytes = membership.encode();
        assert_eq!(Membership::decode(&bytes).as_ref(), Ok(&membership));
        for length in 0..bytes.len() {
            assert!(Membership::decode(&bytes[..length]).is_err(), "{length} bytes of {membership:?}");
        }
        assert!(Membership::decode(&[&bytes[..], &[0]].concat()).is_err(), "trailing bytes");
    }
}

#[test]
fn a_membership_that_contradicts_itself_is_refused() {
    let addresses = BTreeMap::from([(NodeId(1), "one".to_owned()), (NodeId(2), "two".to_owned())]);
    let membership = Membership::of_voters([1, 2, 3].map(NodeId))
        .with_addresses(addresses)
        .with_given_addresses([NodeId(1), NodeId(2)])
        .with_witness(Some(NodeId(3)))
        .with_cluster_id(Some(ClusterId(7)))
        .with_descriptions([(NodeId(1), described("a")), (NodeId(3), described("b"))].into());
    let bytes = membership.encode();
    // Lists of members, two addresses of 15 bytes, and the count of given ones.
    let given = 4 + 3 * 8 + 4 + 4 + 4 + 2 * 15 + 4;
    let (witness, descriptions) = (given + 2 * 8, given + 2 * 8 + 8 + 17 + 4);
    let second = descriptions + (bytes.len() - descriptions) / 2;
    let with = |at: usize, id: u64| {
        let mut bytes = bytes.to_vec();
        bytes[at..at + 8].copy_from_slice(&id.to_le_bytes());
        Membership::decode(&bytes)
    };
    assert_eq!(with(witness, 3), Ok(membership.clone()));
    for (at, id) in
        [(given, 2), (given, 3), (given + 8, 1), (witness, 9), (descriptions, 9), (descriptions, 3), (second, 1)]
    {
        assert!(with(at, id).is_err(), "{id} at byte {at}");
    }
    assert_eq!(
        with(descriptions, 2).map(|other| other.metadata(NodeId(2)).cloned()),
        Ok(Some(described("a").metadata))
    );
}

#[test]
fn only_members_have_metadata_and_a_joint_configuration_has_that_of_both_halves() {
    let of = |ids: &[u64]| ids.iter().map(|id| (NodeId(*id), described("a"))).collect::<BTreeMap<_, _>>();
    let mut descriptions = of(&[1, 2, 9]);
    descriptions.insert(NodeId(3), MemberDescription::default());
    let old = Membership::of_voters([1, 2, 3].map(NodeId)).with_descriptions(descriptions);
    assert_eq!(old.descriptions(), &of(&[1, 2]));
    let new = Membership::of_voters([2, 4].map(NodeId)).with_descriptions(of(&[2, 4]));
    let joint = old.toward(&new);
    assert_eq!(joint.descriptions(), &of(&[1, 2, 4]));
    assert_eq!(joint.settled(), new);
}

/// A member with a client address and this label, as it published them.
fn described(label: &str) -> MemberDescription {
    let labels = [("label".to_owned(), label.to_owned())].into();
    let metadata = MemberMetadata::new(Some("http://h:80".into()), labels).expect("within bounds");
    MemberDescription { published: metadata.clone(), metadata }
}

#[test]
fn a_cluster_id_has_the_generation_in_front_of_its_random_part() {
    let id = ClusterId::new(0x6553_f100, u128::MAX);
    assert_eq!(id.to_string(), "6553f100ffffffffffffffffffffffff");
    assert_eq!((id.generation(), ClusterId::new(0, u128::MAX).generation()), (0x6553_f100, 0));
    assert_ne!(ClusterId::new(7, 1), ClusterId::new(7, 2));
}
