//! The operator of a walk, which changes the members and moves leadership.

use quorate_raft::NodeId;
use std::time::Duration;

#[derive(Default)]
pub(super) struct Operator {
    /// The voters that the operator wants; none if any membership will do.
    pub(super) goal: Option<Vec<NodeId>>,
    pub(super) next_look: Duration,
}
