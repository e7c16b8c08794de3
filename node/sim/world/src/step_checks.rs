//! The checks after every step: functions of the parts of a world that they look at.

use super::{
    node::Running,
    nodes::{Node, replicas, slot},
    oracle::Oracle,
    rules::{Checks, Rules},
};
use quorate_raft::{Membership, NodeId};
use std::sync::Arc;

/// The most tasks that may wait for one actor of a node. All sources of tasks are bounded: clients
/// by their number, peers by credit, the disk by the bytes that it may still owe, all else by the
/// time between two heartbeats. A longer queue is taken to grow without bound.
const QUEUE_MAX: usize = 4_000;

/// The parts of a world that the checks look at.
pub(super) struct Checked<'a> {
    pub(super) nodes: &'a mut [Arc<Node>],
    pub(super) oracle: &'a mut Arc<Oracle>,
    /// The members, until a log says otherwise.
    pub(super) members: &'a Membership,
    pub(super) rules: &'a Rules,
}

impl Checked<'_> {
    /// Checks the properties after a step in which only `id` did anything, and its replica only
    /// if it was `ruled`.
    pub(super) fn after_step(self, id: NodeId, ruled: bool) -> Result<(), String> {
        if self.rules.checks == Checks::Everything {
            return self.all();
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
    pub(super) fn all(self) -> Result<(), String> {
        let Self { nodes, oracle, members, rules } = self;
        if !rules.logs_match {
            return Ok(());
        }
        let mut running = nodes.iter().filter_map(|node| Some((node.id, node.running.as_ref()?)));
        running.try_for_each(|(id, running)| bounds(id, running))?;
        Arc::make_mut(oracle).check(replicas(nodes), nodes, members)
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
