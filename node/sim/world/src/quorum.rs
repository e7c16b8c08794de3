//! How many are enough, counted apart from the rules, which it judges.

use quorate_raft::{Membership, NodeId};

/// Whether those for whom `agrees` holds are more than half of the voters, and of either half of them in a joint configuration.
#[must_use]
pub fn reached(membership: &Membership, agrees: impl Fn(NodeId) -> bool) -> bool {
    let most = |voters: &[NodeId]| 2 * voters.iter().filter(|voter| agrees(**voter)).count() > voters.len();
    most(membership.incoming()) && (membership.outgoing().is_empty() || most(membership.outgoing()))
}
