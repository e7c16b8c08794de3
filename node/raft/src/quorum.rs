//! Quorums: the arithmetic of majorities, plain and joint, shared by votes, commits and reads.

use crate::{ids::NodeId, membership::Membership};
use alloc::vec::Vec;

/// Whether the voters for which `agrees` holds form a quorum: a majority of each half. A
/// configuration without voters has no quorum.
#[must_use]
pub fn reached(membership: &Membership, agrees: impl Fn(NodeId) -> bool) -> bool {
    let agreeing = |voters: &[NodeId]| voters.iter().filter(|id| agrees(**id)).count();
    !membership.incoming().is_empty() && halves(membership).all(|voters| agreeing(voters) >= majority(voters.len()))
}

/// The largest value that a quorum has reached; `reached_by` gives the value of each voter.
///
/// With match indexes this is the commit candidate of paper §5.3 and §5.4; with
/// acknowledged heartbeat rounds, the last confirmed round. A configuration without voters
/// has reached the default.
#[must_use]
pub fn agreed<T: Ord + Copy + Default>(membership: &Membership, reached_by: impl Fn(NodeId) -> T) -> T {
    if membership.incoming().is_empty() {
        return T::default();
    }
    halves(membership)
        .map(|voters| {
            let mut values: Vec<T> = voters.iter().map(|id| reached_by(*id)).collect();
            values.sort_unstable_by(|a, b| b.cmp(a));
            values[majority(voters.len()) - 1]
        })
        .min()
        .unwrap_or_default()
}

/// The smallest size at which any two sets of voters share a member.
#[must_use]
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

fn halves(membership: &Membership) -> impl Iterator<Item = &[NodeId]> {
    [membership.incoming(), membership.outgoing()].into_iter().filter(|voters| !voters.is_empty())
}
