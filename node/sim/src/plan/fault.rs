//! The kinds of faults.

use super::nanos;
use quorate_raft::NodeId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What goes wrong. Chances are in 1,000 messages.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// Messages are lost.
    Drop {
        /// Which.
        way: Way,
        /// How many.
        per_mille: u16,
    },
    /// Messages arrive twice.
    Duplicate {
        /// Which.
        way: Way,
        /// How many.
        per_mille: u16,
    },
    /// Messages are overtaken.
    Reorder {
        /// Which.
        way: Way,
        /// How many.
        per_mille: u16,
    },
    /// A bit of a message flips on its way.
    Corrupt {
        /// Which.
        way: Way,
        /// How many.
        per_mille: u16,
    },
    /// Messages take a random time, up to this much.
    Delay {
        /// Which.
        way: Way,
        /// The longest.
        #[serde(rename = "up_to_ns", with = "nanos")]
        up_to: Duration,
    },
    /// Messages take longer, all by the same.
    SlowLink {
        /// Which.
        way: Way,
        /// By how much.
        #[serde(rename = "by_ns", with = "nanos")]
        by: Duration,
    },
    /// Nothing gets through one way; the way back is open.
    CutOneWay {
        /// Who sends.
        from: NodeId,
        /// Who should hear.
        to: NodeId,
    },
    /// Nothing gets through between two nodes; a third reaches both.
    CutLink {
        /// One.
        one: NodeId,
        /// The other.
        other: NodeId,
    },
    /// Nothing gets through between some nodes and the rest.
    Partition {
        /// Some.
        some: Vec<NodeId>,
    },
    /// The link between two nodes goes up and down.
    Flap {
        /// One.
        one: NodeId,
        /// The other.
        other: NodeId,
        /// How long it is up, and how long it is down.
        #[serde(rename = "every_ns", with = "nanos")]
        every: Duration,
    },
    /// A node dies at any moment.
    Crash {
        /// Which.
        node: NodeId,
        /// What becomes of its disk.
        power: Power,
    },
    /// A node dies with the `nth` thing it does from now on that is seen outside: a write, a sync, a message.
    CrashAtEffect {
        /// Which.
        node: NodeId,
        /// With which.
        nth: u16,
        /// What becomes of its disk.
        power: Power,
    },
    /// All nodes die at once.
    CrashAll {
        /// What becomes of their disks.
        power: Power,
    },
    /// A node stands still, and goes on as if nothing had happened.
    Pause {
        /// Which.
        node: NodeId,
    },
    /// A node takes this much longer for everything.
    SlowNode {
        /// Which.
        node: NodeId,
        /// How much.
        #[serde(rename = "by_ns", with = "nanos")]
        by: Duration,
    },
    /// Of a node's disk: while the node is down, after a crash, some bits flip.
    Flip {
        /// Whose.
        node: NodeId,
    },
    /// The same, but sectors become zeros.
    Zero {
        /// Whose.
        node: NodeId,
    },
    /// The same, but sectors hold what belongs elsewhere.
    Misdirect {
        /// Whose.
        node: NodeId,
    },
    /// The same, but sectors can't be read.
    ReadError {
        /// Whose.
        node: NodeId,
    },
    /// A node's next sync fails, and with it the node.
    SyncFailure {
        /// Whose.
        node: NodeId,
        /// What becomes of its disk.
        power: Power,
    },
    /// A node's disk is full.
    Full {
        /// Whose.
        node: NodeId,
    },
    /// Every write of a node takes this much longer.
    SlowDisk {
        /// Whose.
        node: NodeId,
        /// How much.
        #[serde(rename = "by_ns", with = "nanos")]
        by: Duration,
    },
    /// A node's clock runs fast or slow.
    Drift {
        /// Whose.
        node: NodeId,
        /// By so many thousandths.
        per_mille: i16,
    },
    /// A node's clock leaps ahead, as after a suspended machine wakes.
    Jump {
        /// Whose.
        node: NodeId,
        /// By how much.
        #[serde(rename = "by_ns", with = "nanos")]
        by: Duration,
    },
    /// The operator stops a node in order and starts it again.
    Restart {
        /// Which.
        node: NodeId,
    },
    /// The operator stops all nodes in one order and starts them in another.
    RestartAll,
    /// The operator asks a node for a snapshot, which cuts its log.
    Snapshot {
        /// Which.
        node: NodeId,
    },
    /// The operator wants these to vote, and nobody else. Nodes that are no members yet are added first.
    Change {
        /// Who.
        voters: Vec<NodeId>,
    },
    /// The operator wants leadership to be handed over.
    HandOver {
        /// To whom.
        to: NodeId,
    },
    /// The operator empties a node's directory. It must refuse to take part from then on.
    Wipe {
        /// Whose.
        node: NodeId,
    },
    /// A node's directory is copied, and at the end it is put back to that copy. The node must refuse to take part from then on.
    PutBack {
        /// Whose.
        node: NodeId,
    },
    /// The operator stops a node in order and starts the next release in its place: its state machine writes a later version, and
    /// still applies all earlier ones. No node is further than one release ahead of another. At the end the operator brings all to the
    /// newest.
    Upgrade {
        /// Which.
        node: NodeId,
    },
    /// The operator stops a node in order and starts it with another election timeout: a rolling change has one a node.
    Retime {
        /// Which.
        node: NodeId,
        /// The shortest election timeout from then on; the longest is twice as long.
        #[serde(rename = "shortest_ns", with = "nanos")]
        shortest: Duration,
    },
    /// Nodes from outside a node's configuration, removed or never added, say anything to it: forged votes, heartbeats, entries.
    Outsider {
        /// Which hears it.
        to: NodeId,
    },
}

/// Messages from one node to another; `None` stands for any.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// Who sends.
    pub from: Option<NodeId>,
    /// Who hears.
    pub to: Option<NodeId>,
}

impl Way {
    /// Whether messages from one to the other are meant.
    #[must_use]
    pub fn leads(&self, from: NodeId, to: NodeId) -> bool {
        self.from.is_none_or(|only| only == from) && self.to.is_none_or(|only| only == to)
    }
}

/// What becomes of what a node wrote and did not sync when it dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// All of it is kept: the process died, the machine did not.
    Kept,
    /// All of it is lost.
    Lost,
    /// A part of it is kept, in the order of writing.
    Torn,
    /// Some sectors of it are kept, in any order.
    Scattered,
}

/// Every kind, by its name in reports. What stands here must fire in a long run, or it is dead.
pub const KINDS: [&str; 34] = [
    "drop",
    "duplicate",
    "reorder",
    "corrupt",
    "delay",
    "slow-link",
    "cut-one-way",
    "cut-link",
    "partition",
    "flap",
    "crash",
    "crash-at-effect",
    "crash-all",
    "pause",
    "slow-node",
    "flip",
    "zero",
    "misdirect",
    "read-error",
    "sync-failure",
    "full",
    "slow-disk",
    "drift",
    "jump",
    "restart",
    "restart-all",
    "snapshot",
    "change",
    "hand-over",
    "wipe",
    "put-back",
    "upgrade",
    "retime",
    "outsider",
];

impl Fault {
    /// Its name, one of [`KINDS`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Drop { .. } => "drop",
            Self::Duplicate { .. } => "duplicate",
            Self::Reorder { .. } => "reorder",
            Self::Corrupt { .. } => "corrupt",
            Self::Delay { .. } => "delay",
            Self::SlowLink { .. } => "slow-link",
            Self::CutOneWay { .. } => "cut-one-way",
            Self::CutLink { .. } => "cut-link",
            Self::Partition { .. } => "partition",
            Self::Flap { .. } => "flap",
            Self::Crash { .. } => "crash",
            Self::CrashAtEffect { .. } => "crash-at-effect",
            Self::CrashAll { .. } => "crash-all",
            Self::Pause { .. } => "pause",
            Self::SlowNode { .. } => "slow-node",
            Self::Flip { .. } => "flip",
            Self::Zero { .. } => "zero",
            Self::Misdirect { .. } => "misdirect",
            Self::ReadError { .. } => "read-error",
            Self::SyncFailure { .. } => "sync-failure",
            Self::Full { .. } => "full",
            Self::SlowDisk { .. } => "slow-disk",
            Self::Drift { .. } => "drift",
            Self::Jump { .. } => "jump",
            Self::Restart { .. } => "restart",
            Self::RestartAll => "restart-all",
            Self::Snapshot { .. } => "snapshot",
            Self::Change { .. } => "change",
            Self::HandOver { .. } => "hand-over",
            Self::Wipe { .. } => "wipe",
            Self::PutBack { .. } => "put-back",
            Self::Upgrade { .. } => "upgrade",
            Self::Retime { .. } => "retime",
            Self::Outsider { .. } => "outsider",
        }
    }
}
