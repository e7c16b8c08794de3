//! Memberships as the payload of an entry.

use quorate_raft::{Membership, NodeId};
use std::time::{Duration, Instant};

/// A peer or a disk may say anything that fits into an entry, and must not keep the rules busy with it.
#[test]
fn the_learners_of_a_membership_that_fills_an_entry_are_told_from_its_voters_in_no_time() {
    let count = 200_000;
    let voters = (0..count).map(|id| NodeId(2 * id));
    let everybody = Membership::of_voters(voters).with_learners((0..count).map(|id| NodeId(2 * id + 1)));
    let bytes = everybody.encode();
    let began = Instant::now();
    assert_eq!(Membership::decode(&bytes), Ok(everybody));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
