//! The operator of a walk, which changes the members and moves leadership: what it wants, and what
//! it was told.

use quorate_raft::{Moment, NodeId};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The operator. Each of its requests has a number.
#[derive(Default)]
pub(super) struct Operator {
    /// The voters that the operator wants; none if any membership will do.
    pub(super) goal: Option<Vec<NodeId>>,
    pub(super) next_look: Duration,
    last: u64,
    /// The requests without an answer, at most one for each node.
    waiting: Vec<Request>,
    /// Requests that a node forwarded, by that node and the id that it gave them.
    forwarded: BTreeMap<(NodeId, u64), u64>,
    /// Transfers that a leader began.
    begun: BTreeSet<u64>,
    /// Changes that were refused.
    refused: BTreeSet<u64>,
}

struct Request {
    number: u64,
    /// The node that was asked.
    node: NodeId,
    is_change: bool,
    was_forwarded: bool,
    /// The latest time of its answer, by that node's clock.
    deadline: Moment,
}

impl Operator {
    /// Returns a number that no earlier request has.
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Asks a node, which has to answer by `deadline`.
    pub(super) fn asks(&mut self, number: u64, node: NodeId, is_change: bool, deadline: Moment) {
        self.waiting.push(Request { number, node, is_change, was_forwarded: false, deadline });
    }

    /// A node forwards the request that it was given.
    pub(super) fn forwards(&mut self, node: NodeId, id: u64) {
        if let Some(request) = self.waiting.iter_mut().find(|request| request.node == node) {
            request.was_forwarded = true;
            self.forwarded.insert((node, id), request.number);
        }
    }

    /// The number of the request that a node forwarded with this id.
    pub(super) fn number_of(&self, node: NodeId, id: u64) -> Option<u64> {
        self.forwarded.get(&(node, id)).copied()
    }

    /// A node answers a request. Returns whether it had forwarded it; `None` if the request does
    /// not wait there.
    pub(super) fn answered(&mut self, node: NodeId, number: u64) -> Option<bool> {
        let at = self.waiting.iter().position(|request| request.node == node && request.number == number)?;
        Some(self.waiting.swap_remove(at).was_forwarded)
    }

    /// A node is down: the operator hears no more of its request.
    pub(super) fn lost(&mut self, node: NodeId) {
        self.waiting.retain(|request| request.node != node);
    }

    /// The request to a node that should have been answered by now.
    pub(super) fn overdue(&self, node: NodeId, now: Moment) -> Option<u64> {
        let is_overdue = |request: &&Request| request.node == node && request.deadline <= now;
        self.waiting.iter().find(is_overdue).map(|request| request.number)
    }

    /// Whether a node has a request without an answer.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        self.waiting.iter().any(|request| request.node == node)
    }

    /// Whether a change has no answer.
    pub(super) fn waits_for_change(&self) -> bool {
        self.waiting.iter().any(|request| request.is_change)
    }

    /// A leader began a transfer.
    pub(super) fn begun(&mut self, number: u64) {
        self.begun.insert(number);
    }

    /// Whether a leader began a transfer.
    pub(super) fn has_begun(&self, number: u64) -> bool {
        self.begun.contains(&number)
    }

    /// The operator is told that a change has not happened.
    pub(super) fn refused(&mut self, number: u64) {
        self.refused.insert(number);
    }

    /// Whether the operator was told that a change has not happened.
    pub(super) fn was_refused(&self, number: u64) -> bool {
        self.refused.contains(&number)
    }
}
