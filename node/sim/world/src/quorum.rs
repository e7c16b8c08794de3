//! Quorums, counted apart from the rules, which are checked with them.

use quorate_raft::{Membership, NodeId};

/// Whether the nodes for which `agrees` holds are more than half of the voters; in a joint
/// configuration, more than half of both its halves.
#[must_use]
pub fn reached(membership: &Membership, agrees: impl Fn(NodeId) -> bool) -> bool {
    let most = |voters: &[NodeId]| 2 * voters.iter().filter(|voter| agrees(**voter)).count() > voters.len();
    most(membership.incoming()) && (membership.outgoing().is_empty() || most(membership.outgoing()))
}

#[cfg(test)]
mod tests {
    use super::reached;
    use quorate_raft::{Membership, NodeId, quorum};

    #[test]
    fn whoever_counts_as_a_quorum_here_does_so_by_the_rules_and_nobody_else() {
        let ids = |bits: u64| (1..=5).map(NodeId).filter(move |id| bits >> (id.0 - 1) & 1 == 1);
        for halves in 0..1 << 10 {
            let membership = Membership::joint(ids(halves & 31), ids(halves >> 5));
            for agree in 0..1 << 5 {
                let agrees = |id: NodeId| ids(agree).any(|agreeing| agreeing == id);
                let (here, there) = (reached(&membership, agrees), quorum::reached(&membership, agrees));
                assert_eq!(here, there, "{membership:?}, {:?} agree", ids(agree).collect::<Vec<_>>());
            }
        }
    }
}
