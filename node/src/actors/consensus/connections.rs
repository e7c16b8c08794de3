//! The other nodes, as this one knows them: links, reachable peers, and the facts that nodes
//! state about themselves.

use super::peers::Peers;
use crate::observe::ObservedNetwork;
use quorate_raft::{NodeId, Skip};
use quorate_transport::network::Introduction;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The links to other nodes, and the facts that they state.
pub(crate) struct Connections {
    pub(super) peers: Peers,
    pub(super) observed: Arc<ObservedNetwork>,
    /// The peers with a link that is up.
    pub(super) reachable: BTreeSet<NodeId>,
    /// The facts that this node states about itself, its skip list among them.
    pub(super) introduction: Introduction,
    /// The skip lists that differ from the list of this node, by peer: messages of these
    /// peers are dropped.
    pub(super) skips_of_others: BTreeMap<NodeId, Vec<Skip>>,
}

impl Connections {
    pub(crate) fn new(peers: Peers, observed: Arc<ObservedNetwork>, introduction: Introduction) -> Self {
        Self { peers, observed, reachable: BTreeSet::new(), introduction, skips_of_others: BTreeMap::new() }
    }
}
