//! Warnings that were logged, so that none is repeated.

use quorate_raft::{EntryId, NodeId};
use std::collections::BTreeMap;

/// Problems that were reported, so that each is reported once.
#[derive(Default)]
pub(super) struct Warnings {
    /// The entry at which each member's log was last found to differ from this one.
    pub(super) divergences: BTreeMap<NodeId, EntryId>,
    /// Candidates that got no vote because their state machine writes a version that the one here
    /// can't apply: that version.
    pub(super) machines_unknown: BTreeMap<NodeId, u32>,
}
