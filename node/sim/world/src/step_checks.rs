//! The checks after every step, and the checks that tests run besides.

use super::{
    check_memory,
    clock::Clock,
    oracle::{Oracle, deliveries::Others},
    quorum,
    rules::Checks,
    world::{Node, World, replicas, slot},
};
use quorate_raft::{Moment, NodeId, Promise, Replica, Term};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

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
        let Self { nodes, memory, oracle, members, .. } = self;
        let node = Arc::make_mut(&mut nodes[slot(id)]);
        let less = node.disk.take_less();
        if let Some(running) = &node.running {
            check_memory::bounds(id, running)?;
        }
        let memory = memory.of(id);
        if let Some(less) = less {
            memory.vouched.ends_before(less);
        }
        if ruled || less.is_some() {
            Arc::make_mut(oracle).check_changed(id, &mut memory.seen, replicas(nodes), nodes, members, less)?;
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
        running.try_for_each(|(id, running)| check_memory::bounds(id, running))?;
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
