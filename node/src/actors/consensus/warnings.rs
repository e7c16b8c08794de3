//! Warnings that were logged, so that none is repeated.

use quorate_raft::{EntryId, NodeId};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// Problems that were reported, so that each is reported once.
#[derive(Default)]
pub(super) struct Warnings {
    /// The entry at which each member's log was last found to differ from this one.
    pub(super) divergences: BTreeMap<NodeId, EntryId>,
    pub(super) stuck: Stuck,
    /// Candidates that got no vote because their state machine writes a version that the one here
    /// can't apply: that version.
    pub(super) machines_unknown: BTreeMap<NodeId, u32>,
}

/// A node that lost entries or its state, and hears no leader that could bring them back.
#[derive(Default)]
pub(super) struct Stuck {
    pub(super) since: Option<Instant>,
    pub(super) is_said: bool,
}
