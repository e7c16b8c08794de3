//! The errors of a node, one enum for each operation. Definite failure and unknown outcome never
//! share a variant.

use quorate_raft::{ChangeRefused, EntryId, Index, Malformed, Skip, TransferRefused, Violation};
use quorate_storage::StorageError;
use quorate_transport::NetworkError;
use std::time::Duration;

/// Why a node did not start. The message is one line: the cause, the place and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is out of bounds or contradicts another one.
    #[error("{0}")]
    Config(String),
    /// The storage can't be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The thread of an actor can't be started.
    #[error(transparent)]
    Thread(StorageError),
    /// The storage of the only voter lost entries that may never have been acknowledged: an
    /// operator decides whether it discards them (`Wal::discard_unproven`).
    #[error("{0}")]
    InDoubt(String),
    /// The network can't be used.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The state machine could not be restored from the newest snapshot.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// Why the state machine was not restored from a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The state machine does not take the state, or it can't be read.
    #[error(
        "can't restore the state machine from the snapshot that ends at entry {ends}: {source}; start the version of the service that \
         wrote it, or one that reads what that wrote"
    )]
    Unreadable {
        /// Last entry that the snapshot covers.
        ends: EntryId,
        /// The error of the state machine, or of the storage.
        source: StorageError,
    },
    /// An entry is to be skipped, and the snapshot has its effect.
    #[error(
        "{entry} is to be skipped, but the snapshot that ends at {ends} has what the entry did: a state machine applied it before it \
         was named; take it off the list of every node, and let the nodes that can't apply it begin again with an empty directory"
    )]
    Applied {
        /// The entry, in the form that `Builder::skip` takes.
        entry: Skip,
        /// Last entry that the snapshot covers.
        ends: EntryId,
    },
    /// The state machine panicked meanwhile.
    #[error("the state machine panicked while it was restored from a snapshot: see the panic in the log")]
    Panicked,
}

/// Why a proposal was not answered with its result. Only a command with
/// [`ProposeError::OutcomeUnknown`] may still take effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// The command did not and will not take effect: for a few election timeouts no leader was
    /// there to take it. Try again.
    #[error("no leader: the command did not and will not take effect; try again")]
    NoLeader,
    /// The command did not and will not take effect: too much is in flight. Try again later.
    #[error("overloaded: the command did not and will not take effect; try again after {retry_after:?}")]
    Overloaded {
        /// The time after which another attempt may succeed.
        retry_after: Duration,
    },
    /// The command did not and will not take effect: its deadline passed before any work on it had
    /// begun. Try again, with more time.
    #[error("the deadline passed before the command was begun with: it did not and will not take effect")]
    DeadlinePassed,
    /// The command did not and will not take effect: it is larger than allowed.
    #[error("the command has {bytes} bytes; at most {max} are allowed")]
    TooLarge {
        /// Size of the command in bytes.
        bytes: usize,
        /// The limit: [`Limits::max_command_bytes`](crate::Limits::max_command_bytes).
        max: usize,
    },
    /// The command did not and will not take effect: the disk is full, and no other node leads.
    /// Free space; the node resumes by itself.
    #[error("the disk is full: the command did not and will not take effect; free space on it")]
    StorageFull,
    /// The command did not and will not take effect: this node's state machine has
    /// [halted](crate::Status::halted), and it leads, or it reached no leader that took the command
    /// in time. Try again, or ask another node: a sound one may lead soon, or lead already.
    #[error(
        "the state machine of this node halted at entry {at}, and no other leader took the command: it did not and \
         will not take effect; try again or ask another node, and see this node's status"
    )]
    Halted {
        /// The entry at which this node halted.
        at: Index,
    },
    /// The command did not and will not take effect: the node is stopping or has stopped.
    /// Ask another node.
    #[error("the node is stopping: the command did not and will not take effect; ask another node")]
    Stopped,
    /// The command did not and will not take effect: the cluster's operator had its entry skipped
    /// ([`Builder::skip`](crate::Builder::skip)), because a state machine could not apply it. Do
    /// not try again.
    #[error(
        "the operator had the command's entry skipped: the command did not and will not take effect; do not send it again"
    )]
    Skipped,
    /// The command may or may not take effect: the leader was lost, the node stopped, or its state
    /// machine halted, before the outcome was known. Read before trying again, or make the command idempotent.
    #[error("outcome unknown: the command may or may not take effect")]
    OutcomeUnknown,
}

/// Why a command of a session was not answered with its result. The error concerns this attempt
/// only: an earlier one with the same serial may have taken effect, if its outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The command was not applied: the session was opened once and is no longer known, because it
    /// was idle for too long or there were too many sessions. Open another one.
    #[error("the session is not known any more: the command was not applied; open another one")]
    SessionExpired,
    /// The command was not applied now: its serial is 64 or more below the session's highest, or it
    /// was applied before and its answer was too large to be kept. Give each command the next
    /// serial, and have no more than 64 in flight.
    #[error("the serial is older than what the session remembers: the command was not applied now; use newer ones")]
    StaleSerial,
    /// The proposal itself failed, as one without a session can.
    #[error(transparent)]
    Proposal(#[from] ProposeError),
}

/// Why a read was not served. Reading again is always safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// For a few election timeouts there was no leader, or the leader could not confirm that it
    /// still leads. Try again.
    #[error("no leader could confirm the read; try again")]
    NoLeader,
    /// A leader confirmed the read, but this node did not apply in time all entries that the read
    /// must see. Ask another node, or try again.
    #[error("this node is {entries} entries behind what a leader confirmed; ask another node, or try again")]
    Behind {
        /// Number of entries that this node had yet to apply.
        entries: u64,
    },
    /// This node's disk is full: it accepts none of the entries that the read must see. Ask another
    /// node, or free space on the disk.
    #[error(
        "the disk of this node is full, and it lacks entries that the read must see; ask another node, or free space"
    )]
    StorageFull,
    /// This node can't prove that it lags by no more than the read allows. Ask another node, or
    /// allow a larger lag.
    #[error("{}", too_stale(*.age, *.entries))]
    TooStale {
        /// Time since this node asked the leader, with success, for the commit index; `None` if it
        /// has had no such answer since it started.
        age: Option<Duration>,
        /// Number of entries by which this node lags that commit index.
        entries: Option<u64>,
    },
    /// Too much is in flight. Try again later.
    #[error("overloaded; try again after {retry_after:?}")]
    Overloaded {
        /// The time after which another attempt may succeed.
        retry_after: Duration,
    },
    /// This node's state machine has [halted](crate::Status::halted): it has no state to read. Ask
    /// another node.
    #[error("the state machine of this node halted at entry {at}; ask another node, and see this node's status")]
    Halted {
        /// The entry.
        at: Index,
    },
    /// This node is a witness, and has no state to read. Ask another node.
    #[error("this node is a witness and keeps no state; ask another node")]
    Witness,
    /// The node is stopping or has stopped. Ask another node.
    #[error("the node is stopping; ask another node")]
    Stopped,
}

/// Why the members were not changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The members were not and will not be changed, for the given reason.
    #[error("the members were not changed: {0}")]
    Refused(#[source] ChangeRefused),
    /// The members may be changed or not: the leader was lost, or the node stopped, before the
    /// outcome was known. Nodes that were to vote may have been added as learners. Look at the
    /// members, and remove those that are not wanted.
    #[error(
        "outcome unknown: the members may be changed or not, and new ones may be learners; look at them before trying again, and \
         remove a learner that is not wanted"
    )]
    OutcomeUnknown,
    /// The members were not and will not be changed: the node is stopping or has stopped.
    /// Ask another node.
    #[error("the node is stopping: the members were not changed; ask another node")]
    Stopped,
}

/// Why a leadership transfer did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// Leadership was not transferred, for the given reason.
    #[error("leadership was not transferred: {0}")]
    Refused(#[source] TransferRefused),
    /// Leadership may have been transferred: no leader was known when the answer was due. Look
    /// at the status.
    #[error("outcome unknown: no leader is known yet; look at the status")]
    OutcomeUnknown,
    /// The node is stopping or has stopped. Ask another node.
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

/// Why no snapshot was taken. The log and earlier snapshots are unchanged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The state machine makes no snapshots:
    /// [`StateMachine::snapshot`](crate::StateMachine::snapshot) returned `None`.
    #[error("this state machine makes no snapshots")]
    Unsupported,
    /// The snapshot could not be written.
    #[error("no snapshot was taken: {0}")]
    Failed(#[source] StorageError),
    /// This node's state machine has [halted](crate::Status::halted). Ask another node.
    #[error("no snapshot was taken: the state machine of this node halted at entry {at}; ask another node")]
    Halted {
        /// The entry.
        at: Index,
    },
    /// Too much is in flight. Try again later.
    #[error("overloaded; try again after {retry_after:?}")]
    Overloaded {
        /// The time after which another attempt may succeed.
        retry_after: Duration,
    },
    /// The node is stopping or has stopped.
    #[error("the node is stopping")]
    Stopped,
}

/// Why there is no backup. Nothing has changed, except that a snapshot may have been taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// No leader could confirm the commit index that the backup must cover. Try again.
    #[error("no leader could confirm what was acknowledged; try again")]
    NoLeader,
    /// This node did not apply in time all that was acknowledged. Ask another node, or try again.
    #[error(transparent)]
    Behind(ReadError),
    /// This node is a witness, its state machine halted, or its disk is full. Ask another node.
    #[error(transparent)]
    Refused(ReadError),
    /// The state machine makes no snapshots:
    /// [`StateMachine::snapshot`](crate::StateMachine::snapshot) returned `None`.
    #[error("this state machine makes no snapshots, so there is nothing to back up")]
    Unsupported,
    /// The snapshot could not be written or opened.
    #[error("no backup was made: {0}")]
    Failed(#[source] StorageError),
    /// Too much is in flight. Try again later.
    #[error("overloaded; try again after {retry_after:?}")]
    Overloaded {
        /// The time after which another attempt may succeed.
        retry_after: Duration,
    },
    /// The node is stopping or has stopped. Ask another node.
    #[error("the node is stopping; ask another node")]
    Stopped,
}

impl From<ReadError> for BackupError {
    fn from(error: ReadError) -> Self {
        match error {
            // A linearizable read is never refused as too stale, so this arm only
            // completes the match.
            ReadError::NoLeader | ReadError::TooStale { .. } => Self::NoLeader,
            ReadError::Behind { .. } => Self::Behind(error),
            ReadError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            ReadError::Witness | ReadError::Halted { .. } | ReadError::StorageFull => Self::Refused(error),
            ReadError::Stopped => Self::Stopped,
        }
    }
}

impl From<SnapshotError> for BackupError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Unsupported => Self::Unsupported,
            SnapshotError::Failed(error) => Self::Failed(error),
            SnapshotError::Halted { at } => Self::Refused(ReadError::Halted { at }),
            SnapshotError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            SnapshotError::Stopped => Self::Stopped,
        }
    }
}

/// The failure that ended a node. Its state in memory is no longer to be trusted; all that it
/// acknowledged is on disk.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// An actor panicked: a bug in Quorate, or in a user's storage or network. A state machine that
    /// panics in `apply` only [halts](crate::Status::halted).
    #[error("the {actor} actor died: see the panic above it in the log; restart the node")]
    ActorDied {
        /// Name of the actor that panicked.
        actor: &'static str,
    },
    /// The storage failed. The node has acknowledged nothing since.
    #[error("storage failed: {0}")]
    Storage(#[source] StorageError),
    /// The state machine failed to restore a snapshot.
    #[error("restore failed: {0}")]
    Restore(#[source] RestoreError),
    /// The log has an entry that this release can't read.
    #[error("entry {entry} can't be read ({source}): report it, and run the release that wrote it")]
    Unreadable {
        /// Index of the entry.
        entry: Index,
        /// What is wrong with it.
        source: Malformed,
    },
    /// The node was removed from the cluster. Its data directory is of no more use.
    #[error(
        "this node was removed from the cluster, by the configuration of entry {at}: it has stopped, and its data is of no more use"
    )]
    Removed {
        /// Index of the configuration that no longer has the node.
        at: Index,
    },
    /// The node is a witness and the configuration lists it as a full copy, or the other way round.
    #[error(
        "this node was started as {}, and the cluster's configuration says otherwise; start it as what it is there, on a data directory \
         of that kind",
        if *.is_witness { "a witness" } else { "a full copy" }
    )]
    NotAsConfigured {
        /// Whether the node was started as a witness.
        is_witness: bool,
    },
    /// A majority of the full copies differs from this one in the outcomes of entries, or in the
    /// state after them: its state machine is not deterministic, or is of another build, or its
    /// memory was damaged. The log is sound. Once the cause is removed, a start with
    /// [`Builder::discard_state`](crate::Builder::discard_state) takes the state of another node.
    #[error(
        "this node's copy diverged, stopping before its state spreads: for the entries after {after} up to {up_to} it has the digest \
         {mine:#018x}, and a majority of the full copies has {theirs:#018x}; the log is sound: remove the cause (a service that is not \
         deterministic, another build, damaged memory), then restart with the state discarded (Builder::discard_state), which fetches \
         that of another node"
    )]
    Diverged {
        /// The entries that were compared begin after this one.
        after: Index,
        /// The last of them.
        up_to: Index,
        /// The digest of this node.
        mine: u64,
        /// The digest of the majority.
        theirs: u64,
    },
    /// The data directory was emptied, is an old copy, or lost writes: another member knows that
    /// the node acknowledged more.
    #[error("data lost, stopping: {0}")]
    DataLost(#[source] Violation),
    /// The node met a state that no correct cluster can reach.
    #[error("safety violated, stopping rather than making it worse: {0}")]
    Violation(#[source] Violation),
}
