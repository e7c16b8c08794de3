//! What can go wrong, one enum a verb. Definite failure and unknown outcome never share a variant.

use quorate_raft::{ChangeRefused, HandoverRefused, Index, Skip};
use std::time::Duration;

/// Why a node did not start. One line that says what, where and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// A setting makes no sense.
    #[error("{0}")]
    Config(String),
    /// The storage can't be used.
    #[error("{0}")]
    Storage(String),
    /// The storage of the only voter lost entries that may never have been acknowledged: an operator decides whether it discards them
    /// (`Wal::discard_unproven`).
    #[error("{0}")]
    InDoubt(String),
    /// The network can't be used.
    #[error("{0}")]
    Network(String),
    /// The state machine could not be restored from the newest snapshot.
    #[error("{0}")]
    Restore(String),
}

/// Why a proposal was not answered with its result. Only [`ProposeError::OutcomeUnknown`] may take effect after all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// It did not and will not take effect: for a few election timeouts nobody led who would take it. Try again.
    #[error("no leader: the command did not and will not take effect; try again")]
    NoLeader,
    /// It did not and will not take effect: too much is in flight. Try again later.
    #[error("overloaded: the command did not and will not take effect; try again after {retry_after:?}")]
    Overloaded {
        /// When it may be worth it.
        retry_after: Duration,
    },
    /// It did not and will not take effect: its deadline passed before anybody had begun with it. Try again, with more time.
    #[error("the deadline passed before the command was begun with: it did not and will not take effect")]
    DeadlinePassed,
    /// It did not and will not take effect: it is larger than allowed.
    #[error("the command has {bytes} bytes; at most {max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// [`Limits::max_command_bytes`](crate::Limits::max_command_bytes).
        max: usize,
    },
    /// It did not and will not take effect: the disk is full, and no other node leads. Free space; the node goes on by itself.
    #[error("the disk is full: the command did not and will not take effect; free space on it")]
    StorageFull,
    /// It did not and will not take effect: the node stops or has stopped. Ask another node.
    #[error("the node is stopping: the command did not and will not take effect; ask another node")]
    Stopped,
    /// It did not and will not take effect: the cluster's operator had its entry skipped
    /// ([`Builder::skip`](crate::Builder::skip)), because a state machine could not apply it. Do not try again.
    #[error(
        "the operator had the command's entry skipped: the command did not and will not take effect; do not send it again"
    )]
    Skipped,
    /// It may or may not take effect: the leader was lost, or the node stopped, before the outcome was known. Read before
    /// trying again, or make the command idempotent.
    #[error("outcome unknown: the command may or may not take effect")]
    OutcomeUnknown,
}

/// Why a command of a session was not answered with its result. What it says is about this attempt: an earlier one with the same
/// serial whose outcome is unknown may have taken effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SessionError {
    /// It was not applied: the session was opened once, and is known no longer, because it was not used for too long or there
    /// were too many. Open another.
    #[error("the session is not known any more: the command was not applied; open another one")]
    SessionExpired,
    /// It was not applied now: its serial is 64 or more below the session's highest, or it was applied before and its answer
    /// took too much to be kept. Give each command the next serial, and have no more than 64 under way.
    #[error("the serial is older than what the session remembers: the command was not applied now; use newer ones")]
    StaleSerial,
    /// It was not answered, like any other proposal.
    #[error(transparent)]
    Proposal(#[from] ProposeError),
}

/// Why a read was not served. Reading again is always safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// For a few election timeouts nobody led, or the leader could not confirm that it still does. Try again.
    #[error("no leader could confirm the read; try again")]
    NoLeader,
    /// A leader confirmed the read, and this node did not apply all that it must see in time. Ask another node, or try again.
    #[error("this node is {entries} entries behind what a leader confirmed; ask another node, or try again")]
    Behind {
        /// So many it lacked.
        entries: u64,
    },
    /// This node's disk is full: it takes none of the entries that the read must see. Ask another node, or free space on it.
    #[error(
        "the disk of this node is full, and it lacks entries that the read must see; ask another node, or free space"
    )]
    StorageFull,
    /// This node can't prove that it is no further behind than the read allows. Ask another node, or allow more.
    #[error("{}", too_stale(*.age, *.entries))]
    TooStale {
        /// How long ago it asked how far the cluster had come, and was told; `None` if it never was since it started.
        age: Option<Duration>,
        /// By how many entries it is behind what it was told then.
        entries: Option<u64>,
    },
    /// Too much is in flight. Try again later.
    #[error("overloaded; try again after {retry_after:?}")]
    Overloaded {
        /// When it may be worth it.
        retry_after: Duration,
    },
    /// This node is a witness, and has no state to read. Ask another node.
    #[error("this node is a witness and keeps no state; ask another node")]
    Witness,
    /// The node stops or has stopped. Ask another node.
    #[error("the node is stopping; ask another node")]
    Stopped,
}

/// Why the members were not changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// They were not and will not be, for the reason given.
    #[error("the members were not changed: {0}")]
    Refused(ChangeRefused),
    /// They may be changed or not: the leader was lost, or the node stopped, before that was known. Nodes that were to vote may have
    /// been added as learners. Look at the members, and remove those that are not wanted.
    #[error(
        "outcome unknown: the members may be changed or not, and new ones may be learners; look at them before trying again, and \
         remove a learner that is not wanted"
    )]
    OutcomeUnknown,
    /// They were not and will not be: the node stops or has stopped. Ask another node.
    #[error("the node is stopping: the members were not changed; ask another node")]
    Stopped,
}

/// Why leadership was not handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransferError {
    /// It was not, for the reason given.
    #[error("leadership was not handed over: {0}")]
    Refused(HandoverRefused),
    /// It may have been: nobody was known to lead when the answer was due. Look at the status.
    #[error("outcome unknown: no leader is known yet; look at the status")]
    OutcomeUnknown,
    /// The node stops or has stopped. Ask another node.
    #[error("the node is stopping; ask another node")]
    Stopped,
}

fn too_stale(age: Option<Duration>, entries: Option<u64>) -> String {
    let behind = match (age, entries) {
        (Some(age), Some(entries)) => format!("it is {entries} entries behind what was committed {age:?} ago"),
        _ => "it has heard of no leader since it started".to_owned(),
    };
    format!("too stale: {behind}, and can't prove more; ask another node, or allow more")
}

/// Why no snapshot was taken. The log and the snapshots before are as they were.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The state machine makes none: [`StateMachine::snapshot`](crate::StateMachine::snapshot) gave nothing.
    #[error("this state machine makes no snapshots")]
    Unsupported,
    /// It could not be written. Said in one line.
    #[error("no snapshot was taken: {0}")]
    Failed(String),
    /// Too much is in flight. Try again later.
    #[error("overloaded; try again after {retry_after:?}")]
    Overloaded {
        /// When it may be worth it.
        retry_after: Duration,
    },
    /// The node stops or has stopped.
    #[error("the node is stopping")]
    Stopped,
}

/// Why there is no backup. Nothing has changed, but that a snapshot may have been taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BackupError {
    /// No leader could say what was acknowledged by now. Try again.
    #[error("no leader could confirm what was acknowledged; try again")]
    NoLeader,
    /// This node has not applied in time what was acknowledged. Said in one line. Ask another node, or try again.
    #[error("{0}")]
    Behind(String),
    /// The state machine makes no snapshots: [`StateMachine::snapshot`](crate::StateMachine::snapshot) gave nothing.
    #[error("this state machine makes no snapshots, so there is nothing to back up")]
    Unsupported,
    /// The snapshot could not be written or opened. Said in one line.
    #[error("{0}")]
    Failed(String),
    /// Too much is in flight. Try again later.
    #[error("overloaded; try again after {retry_after:?}")]
    Overloaded {
        /// When it may be worth it.
        retry_after: Duration,
    },
    /// The node stops or has stopped. Ask another node.
    #[error("the node is stopping; ask another node")]
    Stopped,
}

impl From<ReadError> for BackupError {
    fn from(error: ReadError) -> Self {
        match error {
            // No linearizable read is too stale: the other says the same.
            ReadError::NoLeader | ReadError::TooStale { .. } => Self::NoLeader,
            ReadError::Behind { .. } => Self::Behind(error.to_string()),
            ReadError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            ReadError::Witness | ReadError::StorageFull => Self::Failed(error.to_string()),
            ReadError::Stopped => Self::Stopped,
        }
    }
}

impl From<SnapshotError> for BackupError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Unsupported => Self::Unsupported,
            SnapshotError::Failed(_) => Self::Failed(error.to_string()),
            SnapshotError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            SnapshotError::Stopped => Self::Stopped,
        }
    }
}

/// What ended a node. Nothing that it holds in memory is to be trusted any more; what it acknowledged is on disk.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// An actor panicked: a bug, in Quorate, in the state machine, or in a user's storage or network.
    #[error("the {actor} actor died: see the panic above it in the log; restart the node")]
    ActorDied {
        /// Which.
        actor: &'static str,
    },
    /// The state machine panicked while it applied this entry: a bug in it. It does so again after every restart.
    #[error(
        "the state machine panicked while it applied {entry}: see the panic above it in the log. A restart applies the entry again: run a \
         release of the service that can apply it, or let every node skip it (Builder::skip; for quorate-kv, [[skip]] with index = {}, \
         term = {}, checksum = \"0x{:08x}\"), which answers its caller with an error",
        .entry.index, .entry.term, .entry.checksum
    )]
    ApplyPanicked {
        /// Which.
        entry: Skip,
    },
    /// The storage failed. Nothing was acknowledged since.
    #[error("storage failed: {0}")]
    Storage(String),
    /// The state machine could not become what a snapshot holds.
    #[error("restore failed: {0}")]
    Restore(String),
    /// It was removed from the cluster. Its data directory is of no more use to it.
    #[error(
        "this node was removed from the cluster, by the configuration of entry {at}: it has stopped, and its data is of no more use"
    )]
    Removed {
        /// Where the configuration without it stands.
        at: Index,
    },
    /// It is a witness and the configuration has it down for a full copy, or the other way round.
    #[error(
        "this node was started as {}, and the cluster's configuration says otherwise; start it as what it is there, on a data directory \
         of that kind",
        if *.is_witness { "a witness" } else { "a full copy" }
    )]
    NotAsConfigured {
        /// What it was started as.
        is_witness: bool,
    },
    /// Its data directory was emptied, is an old copy, or lost writes: another member knows that it acknowledged more. Said in one line.
    #[error("data lost, stopping: {0}")]
    DataLost(String),
    /// Something happened that no correct cluster can do.
    #[error("safety violated, stopping rather than making it worse: {0}")]
    Violation(String),
}
