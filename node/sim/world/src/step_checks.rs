//! The checks after every step, and the checks that tests run besides.

use super::{
    clock::Clock,
    disk::Disk,
    node::Running,
    oracle::{Cluster, Durable, Oracle, deliveries::Others},
    quorum,
    rules::{Checks, Rules},
    world::{Node, World, replicas, slot},
};
use quorate_raft::{EntryId, HardState, Index, Log, Moment, NodeId, Promise, Replica, Term};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// The most tasks that may wait for one actor of a node. All sources of tasks are bounded: clients
/// by their number, peers by credit, the disk by the bytes that it may still owe, all else by the
/// time between two heartbeats. A longer queue is taken to grow without bound.
const QUEUE_MAX: usize = 4_000;

impl World {
    /// Checks the properties after a step in which only `id` did anything, and its replica only
    /// if it was `ruled`.
    pub(super) fn check(&mut self, id: NodeId, ruled: bool) -> Result<(), String> {
        if self.rules.checks == Checks::Everything {
            return self.check_all();
        }
        if !self.rules.logs_match {
            return Ok(());
        }
        let Self { nodes, oracle, members, .. } = self;
        let node = Arc::make_mut(&mut nodes[slot(id)]);
        let less = node.disk.take_less();
        if let Some(running) = &node.running {
            bounds(id, running)?;
        }
        if ruled || less.is_some() {
            let oracle = Arc::make_mut(oracle);
            if let Some(less) = less {
                oracle.holds_less(id, less);
            }
            oracle.check_changed(id, replicas(nodes), nodes, members, less)?;
        }
        Ok(())
    }

    /// Checks all properties of all nodes as they are now, whatever was checked before.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn check_all(&mut self) -> Result<(), String> {
        if !self.rules.logs_match {
            return Ok(());
        }
        let mut running = self.nodes.iter().filter_map(|node| Some((node.id, node.running.as_ref()?)));
        running.try_for_each(|(id, running)| bounds(id, running))?;
        let mut oracle = std::mem::take(&mut self.oracle);
        let checked = self.check_by(Arc::make_mut(&mut oracle));
        self.oracle = oracle;
        checked
    }

    /// Makes another oracle check everything that it checks after a step.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn check_by(&self, oracle: &mut Oracle) -> Result<(), String> {
        oracle.check(self.replicas(), &self.nodes, &self.members)
    }

    /// Checks that every leader with a lease, by its own clock, may have it. Not for worlds in
    /// which clocks leap: no leader may have one there.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn check_leases(&self) -> Result<(), String> {
        let Self { nodes, deliveries, clocks, now, emptied, .. } = self;
        for replica in self.replicas().filter(|replica| replica.is_leader()) {
            if replica.lease_left(self.now_of(replica.id())).is_some() {
                let others = Beside { replica, nodes, clocks, now: now.0, emptied };
                deliveries.lease(replica.id(), replica.membership(), &others)?;
            }
        }
        Ok(())
    }

    /// Checks that a quorum can apply the entries of a node that has just become leader.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn check_versions(&self, leader: NodeId) -> Result<(), String> {
        let Some(running) = self.running(leader) else { return Ok(()) };
        let (version, members) = (running.replica.machine().writes, running.replica.membership());
        // A node that is down may be on its way to a later release, never to an earlier one.
        if quorum::reached(members, |id| self.machine_of(id).apply(version)) {
            return Ok(());
        }
        Err(format!("versions: {leader} leads and writes version {version}, which no quorum of {members:?} applies"))
    }
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

/// Checks that no queue within a node grows without bound, and that nothing is sent beyond its
/// credit or its window.
fn bounds(id: NodeId, node: &Running) -> Result<(), String> {
    let longest = node.asked.longest().max(node.told.longest());
    if longest > QUEUE_MAX {
        return Err(format!("bounded queues: {longest} things wait for one actor of {id}"));
    }
    for (peer, replicator) in &node.replicators {
        let accounts = replicator.progress().accounts();
        accounts.map_err(|what| format!("credit: what {id} has under way to {peer} {what}"))?;
        if let Some(transfer) = replicator.transfer() {
            let accounts = transfer.accounts();
            accounts.map_err(|what| format!("window: what {id} has under way of a snapshot to {peer} {what}"))?;
        }
    }
    Ok(())
}
