//! Forwarded requests: commands, reads and operations that a node sends to the leader for its own
//! callers, and the answers.
//!
//! The runtime makes, serves and answers them. The rules read nothing but the term of the message
//! around them ([`Replica::receive_term`](crate::Replica::receive_term)): it is the term in which
//! the sender counted on the leader, and a command is accepted in that term or never.

use crate::{
    change::Change,
    entry::{Kind, Malformed},
    ids::{Index, NodeId},
    internal::{self, Purpose},
    refused::{ChangeRefused, TransferRefused},
    session::Request,
};
use alloc::vec::Vec;
use bytes::Bytes;

/// Forwards clients' commands to the leader. At most once: it is never sent again after it
/// may have arrived.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Propose {
    /// The commands, in the order of their bytes in `payloads`.
    pub commands: Vec<ForwardedCommand>,
    /// The bytes of all commands, concatenated.
    pub payloads: Bytes,
}

impl core::fmt::Debug for Propose {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Propose")
            .field("commands", &self.commands)
            .field("payloads", &format_args!("{} B", self.payloads.len()))
            .finish()
    }
}

/// One command of a [`Propose`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ForwardedCommand {
    /// The forwarder's id of the command, unique within one run of that node.
    pub request: u64,
    /// The command's length in [`Propose::payloads`], in bytes.
    pub length: u32,
    /// [`Kind::Command`], or [`Kind::Session`] for a session's request without its stamp, which
    /// the leader adds. Or [`Kind::Internal`], in all commands of a message, for claims of the
    /// node itself; they get no answer.
    pub kind: Kind,
    /// For how many more milliseconds the caller waits. A leader that has not begun with the
    /// command by then never does.
    pub waits_ms: u32,
}

/// Answers some forwarded commands.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProposeReply {
    /// An outcome for each command that is answered.
    pub outcomes: Vec<ForwardedOutcome>,
    /// The state machine's replies to the applied commands, concatenated in the
    /// order of `outcomes`.
    pub replies: Bytes,
}

impl core::fmt::Debug for ProposeReply {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ProposeReply")
            .field("outcomes", &self.outcomes)
            .field("replies", &format_args!("{} B", self.replies.len()))
            .finish()
    }
}

/// The outcome of one [`ForwardedCommand`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ForwardedOutcome {
    /// The forwarder's id of the command.
    pub request: u64,
    /// The outcome, definite or unknown.
    pub outcome: ProposeOutcome,
}

/// The outcome of one forwarded command.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProposeOutcome {
    /// Committed and applied; the state machine's reply has `reply_bytes` bytes.
    Applied {
        /// The index of its entry.
        index: Index,
        /// Length of the reply in [`ProposeReply::replies`].
        reply_bytes: u32,
    },
    /// It did not and will not take effect: the receiver does not lead.
    NotLeader,
    /// It did not and will not take effect: the leader is overloaded.
    Overloaded,
    /// It may or may not take effect.
    Unknown,
    /// It was not applied: its session was opened once and has expired.
    SessionExpired,
    /// It was not applied now: its serial is older than the session remembers.
    StaleSerial,
    /// It did not and will not take effect: its deadline passed before the receiver started it.
    DeadlinePassed,
    /// It did not and will not take effect: it is larger than the receiver allows.
    TooLarge {
        /// The receiver's limit in bytes.
        max: u32,
    },
    /// It did not and will not take effect: an operator had its entry skipped.
    Skipped,
}

/// Asks for a read index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReadIndex {
    /// The asker's id of the request, echoed by the reply.
    pub request: u64,
    /// Whether the leader may answer from its lease, as its readers asked for.
    pub by_lease: bool,
}

/// Answers a [`ReadIndex`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReadIndexReply {
    /// The asker's id of the request.
    pub request: u64,
    /// The commit index when the request arrived, once leadership was confirmed by a round or by
    /// the lease; `None` if it could not be.
    pub index: Option<Index>,
}

/// Forwards an operator's request to the leader. At most once: it is never sent again after it
/// may have arrived.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Administer {
    /// The asker's id of the request, echoed by the reply.
    pub request: u64,
    /// The operation to carry out.
    pub what: Administration,
}

/// An operation that an operator asks of the leader.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Administration {
    /// Change the members.
    Change(Change),
    /// Transfer leadership to this voter, or to the best one.
    TransferLeadership(Option<NodeId>),
}

/// The result of an [`Administer`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Administered {
    /// The asker's id of the request.
    pub request: u64,
    /// The result, definite or unknown.
    pub outcome: AdministerOutcome,
}

/// The result of an operator's request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum AdministerOutcome {
    /// The configuration in force is committed; its entry has this index.
    Changed(Index),
    /// No change was made.
    ChangeRefused(ChangeRefused),
    /// This node leads now, or is about to.
    Transferred(NodeId),
    /// The leader is unchanged.
    TransferRefused(TransferRefused),
    /// It may or may not take effect: leadership was lost, or the time ran out.
    Unknown,
}

impl Propose {
    /// Whether it states claims, and no client's commands: [`Kind::Internal`].
    #[must_use]
    pub fn has_claims(&self) -> bool {
        self.commands.first().is_some_and(|first| first.kind == Kind::Internal)
    }

    /// Puts in the commands' bytes.
    ///
    /// # Errors
    /// If they do not fit [`Propose::commands`], or a command is one that no client may propose.
    pub(crate) fn set_payloads(&mut self, payloads: Bytes) -> Result<(), Malformed> {
        let lengths = self.commands.iter().map(|command| u64::from(command.length));
        if lengths.sum::<u64>() != payloads.len() as u64 {
            return Err(misplaced("command lengths"));
        }
        if self.commands.iter().any(|command| (command.kind == Kind::Internal) != self.has_claims()) {
            return Err(misplaced("claims among commands"));
        }
        let mut rest = &payloads[..];
        for ForwardedCommand { length, kind, .. } in &self.commands {
            let (command, after) = rest.split_at(*length as usize);
            match kind {
                Kind::Command => {}
                // Every node must be able to decode it once it is in the log.
                Kind::Session => {
                    Request::decode(command)?;
                }
                // A node's own entry: a claim of what it applied.
                Kind::Internal if internal::decode(command)?.0 == Purpose::Claim => {}
                Kind::Noop | Kind::Membership | Kind::Stub | Kind::Tick | Kind::Internal => {
                    return Err(misplaced("commands that no client has"));
                }
            }
            rest = after;
        }
        self.payloads = payloads;
        Ok(())
    }
}

impl ProposeReply {
    /// Puts in the bytes of the state machine's replies.
    ///
    /// # Errors
    /// If they do not fit [`ProposeReply::outcomes`].
    pub(crate) fn set_replies(&mut self, replies: Bytes) -> Result<(), Malformed> {
        let lengths = self.outcomes.iter().map(|answered| match answered.outcome {
            ProposeOutcome::Applied { reply_bytes, .. } => u64::from(reply_bytes),
            _ => 0,
        });
        if lengths.sum::<u64>() != replies.len() as u64 {
            return Err(misplaced("reply lengths"));
        }
        self.replies = replies;
        Ok(())
    }
}

fn misplaced(what: &'static str) -> Malformed {
    Malformed { offset: 0, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_come_alone_and_no_other_internal_entry_is_forwarded() {
        let set = |commands: &[(Kind, &'static [u8])]| {
            let payloads: Vec<u8> = commands.iter().flat_map(|(_, payload)| payload.iter().copied()).collect();
            let of = |(kind, payload): &(Kind, &'static [u8])| ForwardedCommand {
                request: 1,
                length: payload.len() as u32,
                kind: *kind,
                waits_ms: 1,
            };
            let mut propose = Propose { commands: commands.iter().map(of).collect(), payloads: Bytes::new() };
            propose.set_payloads(payloads.into()).map(|()| propose.has_claims())
        };
        let (claim, done): (&[u8], &[u8]) = (&[Purpose::Claim as u8, 7], &[Purpose::Done as u8, 7]);
        assert_eq!(set(&[(Kind::Internal, claim), (Kind::Internal, claim)]), Ok(true));
        assert_eq!(set(&[(Kind::Command, claim)]), Ok(false));
        for refused in [
            &[(Kind::Internal, done)][..],
            &[(Kind::Internal, b"")],
            &[(Kind::Internal, claim), (Kind::Command, b"a")],
            &[(Kind::Command, b"a"), (Kind::Internal, claim)],
        ] {
            set(refused).expect_err("not to be forwarded");
        }
    }
}
