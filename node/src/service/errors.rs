//! The errors of a service's callers. Definite failure and unknown outcome never share a variant.

use super::envelope::Refusal;
use crate::error::{ProposeError, ReadError, SessionError};
use quorate_raft::Index;
use std::time::Duration;

/// Why a command was not answered with its reply. Only [`CallError::OutcomeUnknown`] may take effect
/// after all, and [`CallError::ReplyUnreadable`] did; every other error means that the command did
/// not and will not. Of a command with a serial each error concerns this attempt only: an earlier
/// one may have taken effect, if its outcome is unknown.
///
/// ```
/// use quorate::{CallError, Refused};
///
/// fn may_have_taken_effect(error: &CallError) -> bool {
///     matches!(error, CallError::OutcomeUnknown | CallError::ReplyUnreadable { .. })
/// }
///
/// assert!(may_have_taken_effect(&CallError::OutcomeUnknown));
/// assert!(!may_have_taken_effect(&CallError::NoLeader));
/// assert!(!may_have_taken_effect(&CallError::Refused(Refused::Unreadable)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// There was no leader for a few election timeouts. Try again.
    #[error("no leader: the command did not and will not take effect; try again")]
    NoLeader,
    /// Too much is in flight. Try again later.
    #[error("overloaded: the command did not and will not take effect; try again after {retry_after:?}")]
    Overloaded {
        /// The time after which another attempt may succeed.
        retry_after: Duration,
    },
    /// No leader accepted the command within its deadline.
    #[error("the deadline passed: the command did not and will not take effect")]
    DeadlinePassed,
    /// The encoded command is larger than the node's limit
    /// ([`Limits::max_command_bytes`](crate::Limits::max_command_bytes)).
    #[error("the command has {bytes} bytes in the log, and {max} are allowed: it did not and will not take effect")]
    TooLarge {
        /// Bytes of the command in the log.
        bytes: usize,
        /// Most bytes that the node's limit allows.
        max: usize,
    },
    /// The disk is full, and no other node leads. Free space; the node resumes by itself.
    #[error("the disk is full: the command did not and will not take effect; free space on it")]
    StorageFull,
    /// The leader's service has [halted](crate::Status::halted), and no other node leads yet. Try
    /// again once another does, or an operator has dealt with the entry.
    #[error("the service halted at entry {at}: the command did not and will not take effect; see the node's status")]
    Halted {
        /// The entry.
        at: Index,
    },
    /// The node is stopping or has stopped. Ask another node.
    #[error("the node is stopping: the command did not and will not take effect; ask another node")]
    Stopped,
    /// The cluster refused the command. Of a numbered command this is the answer to every attempt.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The command was applied, and this release does not read its reply: that of the leader
    /// encodes another type.
    #[error("entry {index} applied the command, and this release does not read its reply: run the leader's release")]
    ReplyUnreadable {
        /// Index of the entry.
        index: Index,
    },
    /// The command may or may not take effect: the leader was lost, or the node stopped, before the
    /// outcome was known. Query before trying again, or call through a session.
    #[error("outcome unknown: the command may or may not take effect")]
    OutcomeUnknown,
}

/// Why the cluster refused a command: this attempt did not and will not take effect, on any node.
///
/// ```
/// use quorate::Refused;
///
/// let refused = Refused::TooNew { needs: 2, cluster: 1 };
/// assert!(refused.to_string().contains("upgrade every member first"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The cluster has not reached the version that introduced this kind of command: a member runs
    /// an older release.
    #[error(
        "the command needs version {needs} of the service, and the cluster is at {cluster}: upgrade every member first"
    )]
    TooNew {
        /// The version that introduced the command.
        needs: u32,
        /// The cluster's version.
        cluster: u32,
    },
    /// The entry is no command of this service in any release.
    #[error("the entry is no command of this service")]
    Unreadable,
    /// An operator had the entry skipped ([`Builder::skip`](crate::Builder::skip)): another
    /// attempt makes no sense.
    #[error("the operator had the command's entry skipped: do not send it again")]
    Skipped,
    /// The session was opened once and is no longer known. Open another one.
    #[error("the session is not known any more: open another one")]
    Expired,
    /// The serial is 64 or more below the session's highest, or an earlier attempt was applied and
    /// its answer was too large to be kept.
    #[error("the serial is older than what the session remembers: use newer ones")]
    Stale,
}

/// Why a query was not answered. Asking again is always safe.
///
/// ```
/// use quorate::{QueryError, ReadError};
///
/// assert_ne!(QueryError::Read(ReadError::Witness), QueryError::Panicked { message: "no such key".into() });
/// ```
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The read was not served.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The service panicked while it answered. The node goes on: a query changes nothing.
    #[error("the query made the service panic: {message}")]
    Panicked {
        /// The message of the panic.
        message: String,
    },
}

impl From<ProposeError> for CallError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NoLeader => Self::NoLeader,
            ProposeError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            ProposeError::DeadlinePassed => Self::DeadlinePassed,
            ProposeError::TooLarge { bytes, max } => Self::TooLarge { bytes, max },
            ProposeError::StorageFull => Self::StorageFull,
            ProposeError::Halted { at } => Self::Halted { at },
            ProposeError::Stopped => Self::Stopped,
            ProposeError::Skipped => Self::Refused(Refused::Skipped),
            ProposeError::OutcomeUnknown => Self::OutcomeUnknown,
        }
    }
}

impl From<SessionError> for CallError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::SessionExpired => Self::Refused(Refused::Expired),
            SessionError::StaleSerial => Self::Refused(Refused::Stale),
            SessionError::Proposal(error) => error.into(),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooNew { needs, cluster } => Self::TooNew { needs, cluster },
            Refusal::Unreadable => Self::Unreadable,
        }
    }
}
