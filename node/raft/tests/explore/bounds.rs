//! Bounds of an exploration.

use quorate_raft::{Change, NodeId};

/// The number of events of each kind that an exploration covers.
#[derive(Clone, Copy, Hash, Debug)]
pub(crate) struct Bounds {
    /// Whether pre-votes are asked for, or won at once.
    pub(crate) pre_vote: bool,
    /// Whether leaders' messages are ever delivered. Without them an exploration is
    /// about elections alone.
    pub(crate) replicates: bool,
    /// No campaign starts in this term or later.
    pub(crate) terms: u64,
    /// No proposal gets this index or a later one.
    pub(crate) log: u64,
    /// The number of times that each node's election timer may go off.
    pub(crate) timeouts: [u8; 3],
    /// Crashes, of all nodes together; each may tear the pending write, and be followed by a
    /// restart at any time.
    pub(crate) crashes: u8,
    /// Messages that arrive a second time.
    pub(crate) repeats: u8,
    /// Heartbeats of all leaders together; with each, appends in flight count as lost.
    pub(crate) heartbeats: u8,
    pub(crate) proposals: u8,
    pub(crate) reads: u8,
    /// Reads that accept a lease.
    pub(crate) leases: u8,
    /// Milliseconds that pass, each at any time. Without them time stands still.
    pub(crate) waits: u8,
    /// Membership changes, for which any leader may be asked, in this order.
    pub(crate) changes: &'static [MakeChange],
    /// Leadership transfers of all leaders together.
    pub(crate) leadership_transfers: u8,
    /// Snapshots of all nodes together.
    pub(crate) snapshots: u8,
    /// Whether a torn write may leave entries with their identity alone.
    pub(crate) tears_payloads: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            pre_vote: false,
            replicates: false,
            terms: 1,
            log: 1,
            timeouts: [0; 3],
            crashes: 0,
            repeats: 0,
            heartbeats: 0,
            proposals: 0,
            reads: 0,
            leases: 0,
            waits: 0,
            changes: &[],
            leadership_transfers: 0,
            snapshots: 0,
            tears_payloads: false,
        }
    }
}

pub(crate) type MakeChange = fn() -> Change;

/// Changes of two voters, beside a third node that has caught up.
pub(crate) const CHANGES: [(&str, &[MakeChange]); 2] =
    [("a follower is replaced", &[replaces]), ("the leader is replaced", &[leaves])];

pub(crate) fn replaces() -> Change {
    Change::set_voters([NodeId(1), NodeId(3)])
}

pub(crate) fn leaves() -> Change {
    Change::set_voters([NodeId(2), NodeId(3)])
}

pub(crate) fn grows() -> Change {
    Change::set_voters([1, 2, 3].map(NodeId))
}

pub(crate) fn leaves_3() -> Change {
    Change::set_voters([NodeId(1), NodeId(2)])
}

pub(crate) fn shrinks() -> Change {
    Change::set_voters([NodeId(1)])
}

pub(crate) fn changed(changes: &'static [MakeChange], timeouts: [u8; 3]) -> Bounds {
    Bounds { replicates: true, terms: 2, log: 4, timeouts, changes, ..Bounds::default() }
}

/// The bounds within which node 2 may depose node 1.
pub(crate) fn change_of_leader() -> Bounds {
    Bounds { replicates: true, terms: 2, log: 3, timeouts: [0, 1, 0], proposals: 1, ..Bounds::default() }
}
