//! The operators that wait for a membership change or a leadership transfer.

use crate::{
    actors::messages::{Administer, Operator},
    decisions::{membership_change::ChangeUnderWay, request_ids::RequestIds},
};
use quorate_raft::{Moment, NodeId};
use std::collections::BTreeMap;

/// The operators that wait for an answer.
pub(super) struct Operators {
    pub(super) change: Option<(ChangeUnderWay, Operator)>,
    /// Transfers under way, with their targets and deadlines.
    pub(super) transfers: Vec<(Operator, NodeId, Moment)>,
    /// No leader can be reached: these wait for one.
    pub(super) deferred: Vec<(Administer, Moment)>,
    pub(super) at_leader: BTreeMap<u64, (NodeId, Operator, Moment)>,
    /// The target of a transfer that was given up, until the operators are told.
    pub(super) ended_transfer: Option<NodeId>,
    pub(super) ids: RequestIds,
}

/// The most operators that wait at a time.
const OPERATORS_MAX: usize = 64;

impl Operators {
    pub(super) fn new(life: u32) -> Self {
        Self {
            change: None,
            transfers: Vec::new(),
            deferred: Vec::new(),
            at_leader: BTreeMap::new(),
            ended_transfer: None,
            ids: RequestIds::new(life),
        }
    }

    /// Whether no operator of this node waits for an answer of the leader.
    pub(super) fn are_answered(&self) -> bool {
        self.at_leader.is_empty()
    }

    /// Whether [`OPERATORS_MAX`] wait. The operator of the change under way does not count.
    pub(super) fn are_too_many(&self) -> bool {
        self.transfers.len() + self.deferred.len() + self.at_leader.len() >= OPERATORS_MAX
    }
}
