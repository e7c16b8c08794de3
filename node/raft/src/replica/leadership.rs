//! The state of one leadership, with the leadership transfer and the tie-break that belong to it.

use crate::{
    ids::{Index, Moment, NodeId},
    progress::Progress,
    reads::Reads,
};
use alloc::collections::{BTreeMap, BTreeSet};

/// The state of one leadership.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Leadership {
    /// Index of its first entry: until that is committed, the leader knows of no
    /// commitment (paper §8).
    pub first: Index,
    pub(super) reads: Reads,
    /// For each peer that is being sent a snapshot, the index up to which the log may be cut.
    pub(super) pins: BTreeMap<NodeId, Index>,
    /// Peers whose log differs from this one under the same ids.
    pub(super) refused_by: BTreeSet<NodeId>,
    pub(super) matched: BTreeMap<NodeId, Index>,
    pub(super) heard: BTreeMap<NodeId, Moment>,
    pub(super) transfer: Option<LeadershipTransfer>,
    pub(super) tie_break: TieBreak,
    /// Number of membership changes in this leadership.
    pub(super) changes: u32,
    pub(super) since: Moment,
}

impl Leadership {
    /// The index up to which `peer`'s durable log is known to match.
    #[must_use]
    pub fn matched(&self, peer: NodeId) -> Index {
        self.matched.get(&peer).copied().unwrap_or_default()
    }

    /// The latest read round; every heartbeat carries it.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.reads.round()
    }

    /// The first epoch of replication to a peer that starts now. A peer that was removed and is
    /// added again takes no snapshot of an earlier epoch than it heard in this term, and its
    /// answers of such an epoch must not count. So each membership change leaves 2^32 epochs to
    /// those before it.
    pub(super) fn first_epoch(&self) -> u64 {
        (u64::from(self.changes) << 32) + Progress::NO_EPOCH + 1
    }

    /// The moments from which the silence of peers is counted.
    pub(super) fn contacts(&mut self) -> impl Iterator<Item = &mut Moment> {
        self.heard.values_mut().chain([&mut self.since])
    }
}

/// A leadership transfer in progress.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct LeadershipTransfer {
    /// The node that is to lead.
    pub(super) to: NodeId,
    pub(super) began: Moment,
    /// Since when no proposals are taken.
    pub(super) holding_since: Option<Moment>,
    /// Whether the target was told to campaign.
    pub(super) is_told: bool,
}

/// A leader's state of replication to the witness.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct TieBreak {
    /// If a tie-break is in progress: the index up to which the full voters must hold everything by
    /// themselves before it ends. A new leader starts with one, as the previous leader may be the
    /// node that is gone.
    pub(super) until: Option<Index>,
    /// The last entry that the witness may have. It never goes back: the witness's replicator
    /// relies on it.
    pub(super) limit: Index,
    /// The commit index when progress was last checked.
    pub(super) commit: Index,
}

impl TieBreak {
    /// The state of a leadership whose first entry is at `first`.
    pub(super) fn new(first: Index) -> Self {
        Self { until: Some(first), limit: Index(0), commit: Index(0) }
    }
}
