//! Who belongs to the cluster, and in what capacity.

use crate::ids::NodeId;
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// The members of the cluster (paper §6).
///
/// In a joint configuration there are two sets of voters, and every decision needs a majority of each. With `outgoing`
/// empty it is an ordinary one.
///
/// **Invariant:** the three lists are sorted and free of duplicates, and no learner is a voter.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Membership {
    incoming: Vec<NodeId>,
    outgoing: Vec<NodeId>,
    learners: Vec<NodeId>,
    addresses: BTreeMap<NodeId, String>,
}

impl Membership {
    /// A cluster of these voters, without addresses.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self { incoming: sorted(voters), ..Self::default() }
    }

    /// A cluster of these voters, each with the address that it is dialled at.
    #[must_use]
    pub fn of_addresses(voters: impl IntoIterator<Item = (NodeId, String)>) -> Self {
        let addresses: BTreeMap<_, _> = voters.into_iter().collect();
        Self { incoming: addresses.keys().copied().collect(), addresses, ..Self::default() }
    }

    /// A joint configuration: decisions need a majority of `incoming` and a majority of `outgoing`.
    #[must_use]
    pub fn joint(incoming: impl IntoIterator<Item = NodeId>, outgoing: impl IntoIterator<Item = NodeId>) -> Self {
        Self { incoming: sorted(incoming), outgoing: sorted(outgoing), ..Self::default() }
    }

    /// The same with these learners: they receive the log, and neither vote nor count. Voters among them are left out.
    #[must_use]
    pub fn with_learners(mut self, learners: impl IntoIterator<Item = NodeId>) -> Self {
        self.learners = sorted(learners);
        let (incoming, outgoing) = (&self.incoming, &self.outgoing);
        self.learners.retain(|id| !incoming.contains(id) && !outgoing.contains(id));
        self
    }

    /// The voters of the configuration, or of its new half while it is joint.
    #[must_use]
    pub fn incoming(&self) -> &[NodeId] {
        &self.incoming
    }

    /// The voters of the old half of a joint configuration; empty otherwise.
    #[must_use]
    pub fn outgoing(&self) -> &[NodeId] {
        &self.outgoing
    }

    /// Those who receive the log but do not vote.
    #[must_use]
    pub fn learners(&self) -> &[NodeId] {
        &self.learners
    }

    /// Where to dial a member, if known.
    #[must_use]
    pub fn address(&self, id: NodeId) -> Option<&str> {
        self.addresses.get(&id).map(String::as_str)
    }

    /// Whether `id` votes, in either half.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.incoming.binary_search(&id).is_ok() || self.outgoing.binary_search(&id).is_ok()
    }

    /// Whether `id` belongs at all.
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.binary_search(&id).is_ok()
    }

    /// Every voter of either half once, in order.
    #[must_use]
    pub fn voters(&self) -> Vec<NodeId> {
        sorted(self.incoming.iter().chain(&self.outgoing).copied())
    }

    /// Every member but `this` once, in order: whom `this` talks to.
    #[must_use]
    pub fn peers_of(&self, this: NodeId) -> Vec<NodeId> {
        let all = self.incoming.iter().chain(&self.outgoing).chain(&self.learners);
        sorted(all.copied().filter(|id| *id != this))
    }
}

fn sorted(ids: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
    let mut ids: Vec<_> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
