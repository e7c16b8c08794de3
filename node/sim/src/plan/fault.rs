//! The kinds of faults that a plan can have.

use super::nanos;
use quorate_raft::NodeId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A fault. `per_mille` of a message fault is the chance of each message, in thousandths.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// Messages are lost.
    Drop {
        /// The messages that may be lost.
        way: Way,
        /// The share of messages lost, in thousandths.
        per_mille: u16,
    },
    /// Messages arrive twice.
    Duplicate {
        /// The messages that may be duplicated.
        way: Way,
        /// The share of messages duplicated, in thousandths.
        per_mille: u16,
    },
    /// Messages are overtaken.
    Reorder {
        /// The messages that may be overtaken.
        way: Way,
        /// The share of messages overtaken, in thousandths.
        per_mille: u16,
    },
    /// One bit of a message flips on its way.
    Corrupt {
        /// The messages that may be corrupted.
        way: Way,
        /// The share of messages corrupted, in thousandths.
        per_mille: u16,
    },
    /// Each message takes an additional random time.
    Delay {
        /// The messages that are delayed.
        way: Way,
        /// The longest additional time.
        #[serde(rename = "up_to_ns", with = "nanos")]
        up_to: Duration,
    },
    /// Each message takes the same additional time.
    SlowLink {
        /// The messages that are delayed.
        way: Way,
        /// The additional time of each message.
        #[serde(rename = "by_ns", with = "nanos")]
        by: Duration,
    },
    /// Messages from one node to another are lost; the opposite direction works.
    CutOneWay {
        /// The sender of the lost messages.
        from: NodeId,
        /// The receiver of the lost messages.
        to: NodeId,
    },
    /// All messages between two nodes are lost; a third node reaches both.
    CutLink {
        /// One end of the link.
        one: NodeId,
        /// The other end of the link.
        other: NodeId,
    },
    /// All messages between some nodes and the rest are lost.
    Partition {
        /// The nodes on one side.
        some: Vec<NodeId>,
    },
    /// The link between two nodes goes down and up again, periodically.
    Flap {
        /// One end of the link.
        one: NodeId,
        /// The other end of the link.
        other: NodeId,
        /// The duration of each up phase and of each down phase.
        #[serde(rename = "every_ns", with = "nanos")]
        every: Duration,
    },
    /// A node dies at an arbitrary moment.
    Crash {
        /// The node that dies.
        node: NodeId,
        /// The fate of its unsynced writes.
        power: Power,
    },
    /// A node dies with the `nth` effect from now on that is visible outside: a write, a
    /// sync, a message.
    CrashAtEffect {
        /// The node that dies.
        node: NodeId,
        /// The effect that the node dies with, counted from 1.
        nth: u16,
        /// The fate of its unsynced writes.
        power: Power,
    },
    /// All nodes die at once.
    CrashAll {
        /// The fate of their unsynced writes.
        power: Power,
    },
    /// A node stands still, then continues as if nothing had happened.
    Pause {
        /// The node that stands still.
        node: NodeId,
    },
    /// A node is slower at everything.
    SlowNode {
        /// The node that is slow.
        node: NodeId,
        /// The additional time.
        #[serde(rename = "by_ns", with = "nanos")]
        by: Duration,
    },
    /// A node crashes, and some bits on its disk flip while it is down.
    Flip {
        /// The owner of the disk.
        node: NodeId,
    },
    /// As `Flip`, but sectors become zeros.
    Zero {
        /// The owner of the disk.
        node: NodeId,
    },
    /// As `Flip`, but sectors hold data that belongs elsewhere.
    Misdirect {
        /// The owner of the disk.
        node: NodeId,
    },
    /// As `Flip`, but sectors can't be read.
    ReadError {
        /// The owner of the disk.
        node: NodeId,
    },
    /// The next disk operation of a node fails, mostly a sync, and the node ends with it.
    SyncFailure {
        /// The owner of the disk.
        node: NodeId,
        /// The fate of its unsynced writes.
        power: Power,
    },
    /// The disk of a node runs full.
    Full {
        /// The owner of the disk.
        node: NodeId,
    },
    /// Every write of a node to its disk takes longer.
    SlowDisk {
        /// The owner of the disk.
        node: NodeId,
        /// The additional time of each write.
        #[serde(rename = "by_ns", with = "nanos")]
        by: Duration,
    },
    /// The clock of a node runs fast or slow.
    Drift {
        /// The owner of the clock.
        node: NodeId,
        /// The deviation in thousandths; positive for a fast clock.
        per_mille: i16,
    },
    /// The clock of a node leaps ahead, as it does when a suspended machine wakes.
    Jump {
        /// The owner of the clock.
        node: NodeId,
        /// The length of the leap.
        #[serde(rename = "by_ns", with = "nanos")]
        by: Duration,
    },
    /// The operator shuts a node down in order and starts it again.
    Restart {
        /// The node that restarts.
        node: NodeId,
    },
    /// The operator shuts all nodes down in order; their starts come in random order.
    RestartAll,
    /// The operator asks a node for a snapshot, with log compaction after it.
    Snapshot {
        /// The node that takes the snapshot.
        node: NodeId,
    },
    /// The operator wants exactly these voters. Nodes that are not yet members are added first.
    Change {
        /// The voters of the new configuration.
        voters: Vec<NodeId>,
    },
    /// The operator asks for a leadership transfer.
    LeadershipTransfer {
        /// The leader after the transfer.
        to: NodeId,
    },
    /// The operator empties the directory of a node. The node must refuse to take part
    /// from then on.
    Wipe {
        /// The owner of the directory.
        node: NodeId,
    },
    /// The directory of a node is copied at the start and put back to that copy at the end. The
    /// node must refuse to take part from then on.
    PutBack {
        /// The owner of the directory.
        node: NodeId,
    },
    /// The operator shuts a node down in order and starts the next release in its place: its state
    /// machine writes a later version and still applies all earlier ones. Releases of two nodes
    /// differ by one at most. At the end the operator brings all nodes to the newest.
    Upgrade {
        /// The node that is upgraded.
        node: NodeId,
    },
    /// The operator shuts a node down in order and starts it with another election timeout: a
    /// rolling change has one such fault per node.
    Retime {
        /// The node that restarts.
        node: NodeId,
        /// The shortest election timeout from then on; the longest is twice as long.
        #[serde(rename = "shortest_ns", with = "nanos")]
        shortest: Duration,
    },
    /// Nodes outside the receiver's configuration, removed or never added, send it arbitrary
    /// messages: forged votes, heartbeats, entries.
    Outsider {
        /// The receiver of the messages.
        to: NodeId,
    },
}

/// The messages from one node to another; `None` stands for any node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// The sender of the messages.
    pub from: Option<NodeId>,
    /// The receiver of the messages.
    pub to: Option<NodeId>,
}

impl Way {
    /// Whether the way includes messages between these two nodes.
    #[must_use]
    pub fn leads(&self, from: NodeId, to: NodeId) -> bool {
        self.from.is_none_or(|only| only == from) && self.to.is_none_or(|only| only == to)
    }
}

/// The fate of a node's unsynced writes when it dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// All are kept: the process died, the machine did not.
    Kept,
    /// All of them are lost.
    Lost,
    /// A prefix of them is kept, in the order of writing.
    Torn,
    /// Some of their sectors are kept, in any order.
    Scattered,
}

/// The name of every kind in reports. A kind that never fires in a long run is dead.
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
    "leadership-transfer",
    "wipe",
    "put-back",
    "upgrade",
    "retime",
    "outsider",
];

impl Fault {
    /// The name of the kind, one of [`KINDS`].
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
            Self::LeadershipTransfer { .. } => "leadership-transfer",
            Self::Wipe { .. } => "wipe",
            Self::PutBack { .. } => "put-back",
            Self::Upgrade { .. } => "upgrade",
            Self::Retime { .. } => "retime",
            Self::Outsider { .. } => "outsider",
        }
    }
}
