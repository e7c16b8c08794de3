//! The memory of the last checks, so that the checks after a step cover only the
//! changes of the step.
//!
//! The simple counterpart is [`Oracle::check`](super::oracle::Oracle::check), which
//! covers everything. Both find the same violations: unchanged parts were checked before, and
//! the memory only grows.

use super::{
    node::{Note, Running},
    oracle::{Seen, Vouched},
};
use quorate_raft::NodeId;

/// The state at the last check. It is no part of a world's state: it tells no two worlds apart.
#[derive(Clone, Default, Debug)]
pub struct CheckMemory {
    nodes: Vec<NodeMemory>,
    /// The checksum of the last entry applied, for every index at which some node ever stopped.
    applied: Vec<Option<u32>>,
}

/// The state of one node at the last check.
#[derive(Clone, Default, Debug)]
pub(super) struct NodeMemory {
    pub(super) seen: Seen,
    pub(super) vouched: Vouched,
}

/// The most tasks that may wait for one actor of a node. All sources of tasks are bounded: clients
/// by their number, peers by credit, the disk by the bytes that it may still owe, all else by the
/// time between two heartbeats. A longer queue is taken to grow without bound.
pub const QUEUE_MAX: usize = 4_000;

impl CheckMemory {
    /// The memory of one node.
    pub(super) fn of(&mut self, id: NodeId) -> &mut NodeMemory {
        let at = usize::try_from(id.0).unwrap_or(usize::MAX) - 1;
        if at >= self.nodes.len() {
            self.nodes.resize_with(at + 1, NodeMemory::default);
        }
        &mut self.nodes[at]
    }

    /// Checks news of a node: no two state machines differ as of the same entry.
    pub(super) fn applied(&mut self, id: NodeId, note: &Note) -> Result<(), String> {
        let (index, state) = match note {
            Note::Applied(batch) => (batch.last(), batch.checksum()),
            Note::Restored(base) => (base.last.index, base.last_checksum),
            _ => return Ok(()),
        };
        let at = usize::try_from(index.0).unwrap_or(usize::MAX);
        if at >= self.applied.len() {
            self.applied.resize(at + 1, None);
        }
        match *self.applied[at].get_or_insert(state) {
            others if others == state => Ok(()),
            others => Err(format!(
                "state machine safety: {id} is in state {state:08x} as of {index}, others were in {others:08x}"
            )),
        }
    }
}

/// Checks that no queue within a node grows without bound, and that nothing is sent beyond its
/// credit or its window.
pub(super) fn bounds(id: NodeId, node: &Running) -> Result<(), String> {
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
