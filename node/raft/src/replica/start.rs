//! Recovered state and settings, from which a replica starts.

use crate::{
    entry::Checksum,
    ids::{ClusterId, EntryId, Index, NodeId, Term},
    lease::{ClockDrift, Promise},
    log::Log,
    machine::MachineVersions,
    membership::Membership,
    snapshot::SnapshotBase,
};
use alloc::vec::Vec;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// The state besides the log that must survive a crash (paper, Figure 2: persistent state).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term this node has seen.
    pub term: Term,
    /// The candidate that it voted for in that term.
    pub vote: Option<NodeId>,
    /// The longest promise that it may have stated and that may still be in force (thesis §6.4.1;
    /// see the `lease` module).
    pub promise: Promise,
}

impl HardState {
    /// The hard state of a node that made no promise.
    #[must_use]
    pub fn new(term: Term, vote: Option<NodeId>) -> Self {
        Self { term, vote, promise: Promise::NONE }
    }
}

/// The state that a storage recovered.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Recovered {
    /// Term, vote and promise.
    pub hard_state: HardState,
    /// Bounds and terms of the log.
    pub log: Log,
    /// The entries whose payload is lost, in order.
    pub faulty: Vec<Faulty>,
    /// The newest snapshot, from which the state machine was restored.
    pub snapshot: Option<SnapshotBase>,
    /// The configurations in the log, in order, each with its index.
    pub memberships: Vec<(Index, Membership)>,
    /// Whether this member ever voted or held anything. If not, it is new, or its data
    /// directory was emptied.
    pub has_voted: bool,
    /// The members that are known to have had a log, with their holdings: the last committed entry
    /// up to which each had acknowledged it.
    pub holdings: Vec<(NodeId, Index)>,
}

/// An entry with a lost payload. Its identity is known to the storage.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Faulty {
    /// Term and index of the entry.
    pub id: EntryId,
    /// The checksum that its record must have.
    pub checksum: u32,
    /// Whether it is proven to have been durable once. If not, it may be the remains of a torn
    /// write that was never acknowledged.
    pub was_durable: bool,
}

/// Settings of a replica, fixed for its lifetime.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The shortest election timeout: how long a heard leader is protected against elections.
    /// Default 150 ms.
    pub election_timeout_min: Duration,
    /// The longest election timeout: how long a leader may be without a quorum. Default 300 ms.
    pub election_timeout_max: Duration,
    /// The most that the clocks of two nodes may drift apart: a lease is shorter than the voters'
    /// promises by this.
    pub clock_drift_max: ClockDrift,
    /// The time after which a node neither leads nor campaigns if its disk is still busy with the
    /// same write, or its state machine with the same entry; default 3 s.
    pub stall_limit: Duration,
    /// A follower with this many bytes accepted and not yet durable drops further appends;
    /// default 64 MiB.
    pub unpersisted_bytes_max: usize,
    /// At most this many bytes of recent entries are cached; default 64 MiB.
    pub cache_bytes_max: usize,
    /// At most this many committed entries are dispatched to the state machine before it has
    /// applied some; default 65,536.
    pub unapplied_entries_max: u64,
    /// A member may become a voter if it lacks at most this many entries; default 4,096, the most
    /// that enter the log as one batch.
    pub promotion_lag_max: u64,
    /// Whether this node is a witness: it votes, keeps no commands, and never leads. Default no.
    pub is_witness: bool,
    /// The versions that this node's state machine writes and applies; default 0 alone.
    pub machine: MachineVersions,
    /// The id that the cluster gets if this node is its first leader, drawn at random by the
    /// runtime. Without one, a cluster that has no id stays so. Default none.
    pub cluster_id: Option<ClusterId>,
    /// The checksum function for records.
    pub checksum: Checksum,
}

impl Settings {
    /// The defaults, with this checksum function.
    #[must_use]
    pub fn new(checksum: Checksum) -> Self {
        Self {
            election_timeout_min: Duration::from_millis(150),
            election_timeout_max: Duration::from_millis(300),
            clock_drift_max: ClockDrift::default(),
            stall_limit: Duration::from_secs(3),
            unpersisted_bytes_max: 64 << 20,
            cache_bytes_max: 64 << 20,
            unapplied_entries_max: 65_536,
            promotion_lag_max: 4096,
            is_witness: false,
            machine: MachineVersions::default(),
            cluster_id: None,
            checksum,
        }
    }

    /// The promise that this node makes to the leaders that it hears.
    #[must_use]
    pub fn promise(&self) -> Promise {
        Promise::of(self.election_timeout_min)
    }
}

impl core::hash::Hash for Settings {
    /// Settings never change, so they tell no two states of one replica apart.
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}
