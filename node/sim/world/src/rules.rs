//! Settings of a world's nodes, and the extent of the checks after every step.

use quorate_raft::{Credit, Membership, NodeId, Settings, SnapshotTransferSettings};

/// The settings of all nodes of a world.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The settings of each replica.
    pub settings: Settings,
    /// The bounds of appends under way, of each replicator.
    pub credit: Credit,
    /// For explorations: a replicator that starts probes at once, as at the end of a heartbeat
    /// interval, and sends no heartbeat; and it does not hear that its peer answers heartbeats.
    /// Each such message would multiply the interleavings; and where time stands still, each
    /// answer would end a silence.
    pub explores: bool,
    /// Whether all that an event causes within its node, except on the disk, happens
    /// in the same step.
    pub prompt: bool,
    /// Entries up to a snapshot's end that log compaction keeps.
    pub keep_entries: u64,
    /// The size of every snapshot, in bytes.
    pub snapshot_bytes: u64,
    /// The bounds of a snapshot under way, of each replicator.
    pub transfer: SnapshotTransferSettings,
    /// Whether the properties of nodes are checked after steps; false where a log
    /// is damaged on purpose.
    pub logs_match: bool,
    /// The first configuration; `None` if every node votes.
    pub membership: Option<Membership>,
    /// The node that is started as a witness; the members of the first configuration know it.
    pub witness: Option<NodeId>,
    /// Whether a leader offers its newest snapshot to each peer that needs one, and takes one that
    /// reaches far enough. If not, the caller decides, who hears of the need in a note.
    pub serves_needs: bool,
    /// Whether the observations of the rules are notes.
    pub observed: bool,
    /// Whether messages carry a digest.
    pub digests: bool,
    /// The extent of the checks after every step.
    pub checks: Checks,
}

/// The extent of the checks after every step. Both variants find the same violations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checks {
    /// All properties of all nodes.
    Everything,
    /// The changes of the step: for worlds of millions of steps, which change in steps only.
    Changes,
}

impl Rules {
    /// The defaults, with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            credit: Credit::default(),
            explores: false,
            prompt: false,
            keep_entries: 0,
            snapshot_bytes: 3,
            transfer: SnapshotTransferSettings {
                chunk_bytes: 1,
                window_bytes: 2,
                ..SnapshotTransferSettings::default()
            },
            logs_match: true,
            membership: None,
            witness: None,
            serves_needs: true,
            observed: false,
            digests: false,
            checks: Checks::Everything,
        }
    }
}

impl std::hash::Hash for Rules {
    /// Adds nothing: rules never change.
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}
