//! The nodes of a world, running or not, and the views of them that the checks take.

use super::{
    clock::Clock,
    disk::Disk,
    node::Running,
    oracle::{Cluster, Durable, deliveries::Others},
    rules::{Checks, Rules},
};
use quorate_raft::{EntryId, HardState, Index, Log, Moment, NodeId, Promise, Replica, Term};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// One node: its durable and its volatile state.
#[derive(Clone, Hash, Debug)]
pub struct Node {
    /// The node's identity, from 1 on.
    pub id: NodeId,
    /// The state that survives a crash.
    pub disk: Disk,
    /// The state that does not; `None` while the node is down.
    pub running: Option<Running>,
}

/// The replicas of all running nodes.
pub(super) fn replicas(nodes: &[Arc<Node>]) -> impl Iterator<Item = &Replica> + Clone {
    nodes.iter().filter_map(|node| node.running.as_ref()).map(|running| &running.replica)
}

/// The place of a node among all nodes, 1 first.
pub(super) fn slot(id: NodeId) -> usize {
    usize::try_from(id.0).unwrap_or(usize::MAX) - 1
}

/// All nodes, as the lease of one leader depends on them.
pub(super) struct Beside<'a> {
    pub(super) replica: &'a Replica,
    pub(super) nodes: &'a [Arc<Node>],
    pub(super) clocks: &'a [Clock],
    pub(super) now: Duration,
    pub(super) emptied: &'a BTreeSet<NodeId>,
}

impl Others for Beside<'_> {
    fn successor(&self) -> Option<(NodeId, Term)> {
        let mut later = replicas(self.nodes).filter(|other| other.is_leader() && other.term() > self.replica.term());
        later.next().map(|other| (other.id(), other.term()))
    }

    fn clock(&self, voter: NodeId) -> Option<Moment> {
        self.nodes[slot(voter)].running.is_some().then(|| self.clocks[slot(voter)].at(self.now))
    }

    fn is_bound(&self, voter: NodeId) -> bool {
        let disk = &self.nodes[slot(voter)].disk;
        let promises = disk.hard_state.promise > Promise::NONE || disk.is_new();
        self.emptied.contains(&voter) || (promises && self.nodes[slot(voter)].running.is_none())
    }
}

/// All nodes, as the oracle sees them when a message leaves.
pub(super) struct Nodes<'a> {
    pub(super) nodes: &'a [Arc<Node>],
    pub(super) rules: &'a Rules,
    pub(super) emptied: &'a BTreeSet<NodeId>,
}

impl Cluster for Nodes<'_> {
    type Disk = Disk;

    fn disks(&self) -> impl Iterator<Item = (NodeId, &Disk)> {
        self.nodes.iter().map(|node| (node.id, &node.disk))
    }

    fn disk(&self, node: NodeId) -> Option<&Disk> {
        self.nodes.get(slot(node)).map(|node| &node.disk)
    }

    fn witness(&self) -> Option<NodeId> {
        self.rules.witness
    }

    fn was_emptied(&self, node: NodeId) -> bool {
        self.emptied.contains(&node)
    }

    fn sees_logs(&self) -> bool {
        true
    }

    fn log_of_leader(&self, node: NodeId, term: Term) -> Option<&Log> {
        let replica = &self.nodes.get(slot(node))?.running.as_ref()?.replica;
        (replica.is_leader() && replica.term() == term).then(|| replica.log())
    }

    fn trusts_earlier_checks(&self) -> bool {
        self.rules.checks == Checks::Changes
    }
}

impl Durable for Disk {
    fn hard_state(&self) -> HardState {
        self.hard_state
    }

    fn holds(&self, entry: EntryId) -> bool {
        Self::holds(self, entry)
    }

    fn remembers(&self, entry: EntryId) -> bool {
        Self::remembers(self, entry)
    }

    fn reaches(&self) -> Index {
        self.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.last.index).max(self.last().index)
    }

    fn less_from(&self) -> Option<Index> {
        Self::less_from(self)
    }
}
