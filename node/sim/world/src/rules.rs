//! What the nodes of a world are told, and how closely they are watched.

use quorate_raft::{Credit, Membership, NodeId, Settings, TransferSettings};

/// What all nodes are told.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Each replica.
    pub settings: Settings,
    /// Each replicator.
    pub credit: Credit,
    /// Whether everything within a node but its disk happens at once, in one step with what caused it.
    pub prompt: bool,
    /// How many entries stay in front of a snapshot's end when the log is cut.
    pub keep_entries: u64,
    /// How large every snapshot is, in bytes.
    pub snapshot_bytes: u64,
    /// In which pieces it is sent.
    pub transfer: TransferSettings,
    /// Whether what must hold of all logs is checked; not where one of them is damaged on purpose.
    pub logs_match: bool,
    /// Who belongs to the cluster, as far as no log says otherwise; without it, every node votes.
    pub membership: Option<Membership>,
    /// The node that is started as a witness, which those of the members who are there from the start know.
    pub witness: Option<NodeId>,
    /// Whether letters carry a digest.
    pub digests: bool,
    /// How much is looked at after every step.
    pub checks: Checks,
}

/// How much is looked at after every step. Both judge alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checks {
    /// Everything.
    Everything,
    /// What the step changed: for worlds that make millions of them, and change only in steps.
    Changes,
}

impl Rules {
    /// The defaults, with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            credit: Credit::default(),
            prompt: false,
            keep_entries: 0,
            snapshot_bytes: 3,
            transfer: TransferSettings { chunk_bytes: 1, window_bytes: 2, ..TransferSettings::default() },
            logs_match: true,
            membership: None,
            witness: None,
            digests: false,
            checks: Checks::Everything,
        }
    }
}

impl std::hash::Hash for Rules {
    /// They never change.
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}
