//! What nodes say to each other. The paper's names are kept where the paper has one.
//!
//! | message | from | to | why | paper |
//! | --- | --- | --- | --- | --- |
//! | [`RequestVote`] | a (pre-)candidate's [`Replica`](crate::Replica) | every other voter | to be elected, or to learn that it would be | §5.2, thesis §9.6 |
//! | [`Vote`] | a voter | the (pre-)candidate | grants or denies, once durable | §5.2 |
//! | [`Append`] | a leader's `Replicator` | its peer | to replicate entries, or to probe where logs agree | §5.3 |
//! | [`AppendReply`] | a follower | the leader | entries are durable, or logs do not agree there | §5.3 |
//! | [`Heartbeat`] | a leader's `Replicator` | its peer | leadership, the commit index, a read round | §5.2, §6.4 of the thesis |
//! | [`HeartbeatReply`] | a follower | the leader | it still follows, and for how long it votes for nobody: check-quorum, read index and lease count it | thesis §6.4 |
//! | [`Body::Propose`] | a node with clients | the leader | forwards their commands | §8 |
//! | [`Body::ProposeReply`] | the leader | that node | their outcomes | §8 |
//! | [`Body::ReadIndex`] | a node with readers | the leader | asks for an index to read at | thesis §6.4 |
//! | [`Body::ReadIndexReply`] | the leader | that node | the index, once leadership was confirmed | thesis §6.4 |
//! | [`SnapshotChunk`] | a leader's `Replicator` | its peer | a piece of the state, where entries were compacted away | §7 |
//! | [`SnapshotReply`] | a follower | the leader | how much arrived, or that it is installed | §7 |
//! | [`Repair`] | a node with faulty entries | every other member | asks for entries whose payload its disk lost | – |
//! | [`RepairReply`] | a member | that node | the entries, or that it does not have them | – |
//! | [`Body::Emptied`] | a member | a member with less than its holding | its disk was emptied or put back: it must not take part | – |
//! | [`Body::Holdings`] | a leader | every member | so that all remember what each member holds | – |
//! | [`Body::TimeoutNow`] | a leader | the voter that is to lead | campaigns at once | thesis §3.10 |
//! | [`Body::Removed`] | a member | one that is none any more | it was removed, and nobody will tell it otherwise | thesis §4.2.3 |
//! | [`Body::Administer`] | a node with an operator | the leader | forwards a change of members, or a handover | §6, thesis §3.10 |
//! | [`Body::Administered`] | the leader | that node | what came of it | – |
//!
//! Every message carries its sender's current term and passes one door, `Replica::receive`,
//! before anybody acts on it. Who sent it is not in the message: the network knows it from the peer's certificate.

use crate::{
    batch::Batch,
    change::{Change, ChangeRefused},
    entry::Kind,
    ids::{EntryId, Index, NodeId, Term},
    lease::Promise,
    replica::HandoverRefused,
    session::Request,
    snapshot::{SnapshotChunk, SnapshotReply},
};
use alloc::vec::Vec;
use bytes::Bytes;

/// A message and whom it is for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Outgoing {
    /// The receiver.
    pub to: NodeId,
    /// What it is told.
    pub message: Message,
}

/// What one node tells another.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Message {
    /// The sender's current term when it was sent.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says. A codec sends bulk bytes (a batch, forwarded payloads, a piece of a snapshot) raw, after the encoded
/// rest, through [`Message::bulk`] and [`Message::set_bulk`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Body {
    /// Asks for a vote.
    RequestVote(RequestVote),
    /// Answers a [`RequestVote`].
    Vote(Vote),
    /// Replicates entries, or probes.
    Append(Append),
    /// Answers an [`Append`].
    AppendReply(AppendReply),
    /// Says that the leader leads.
    Heartbeat(Heartbeat),
    /// Answers a [`Heartbeat`].
    HeartbeatReply(HeartbeatReply),
    /// Forwards clients' commands to the leader.
    Propose(Propose),
    /// Answers some commands of earlier [`Propose`]s.
    ProposeReply(ProposeReply),
    /// Asks the leader for an index at which a linearizable read may be served.
    ReadIndex(ReadIndex),
    /// Answers a [`ReadIndex`].
    ReadIndexReply(ReadIndexReply),
    /// Sends a piece of a snapshot.
    SnapshotChunk(SnapshotChunk),
    /// Answers a [`SnapshotChunk`].
    SnapshotReply(SnapshotReply),
    /// Asks for entries whose payload was lost.
    Repair(Repair),
    /// Answers a [`Repair`].
    RepairReply(RepairReply),
    /// Says to a member how much it held: more than it comes with.
    Emptied(Emptied),
    /// Says to the voter that is to lead that it may.
    TimeoutNow(TimeoutNow),
    /// Says to a node that it was removed.
    Removed(Removed),
    /// Forwards to the leader what an operator wants.
    Administer(Administer),
    /// Answers an [`Administer`].
    Administered(Administered),
    /// Says what each member holds.
    Holdings(Holdings),
}

/// Which of an election's two rounds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// "Would you vote for me in the next term?" Changes nobody's term or vote (thesis §9.6).
    PreVote,
    /// "Vote for me in this term."
    Vote,
}

/// Asks for a vote, or in the pre-vote phase whether one would be given. Resets nothing at the receiver but, in the
/// vote phase and if it grants, its vote.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestVote {
    /// Pre-vote or vote. In the pre-vote phase the message's term is the sender's own, and the vote asked about is one
    /// in the term after it.
    pub phase: Phase,
    /// Which of the sender's campaigns, so that a late answer counts for no other.
    pub campaign: u64,
    /// The last entry of the candidate's log (paper §5.4.1).
    pub last: EntryId,
    /// Whether the leader itself asked for this campaign: then that it is still heard is no reason to refuse (thesis §3.10).
    pub handed_over: bool,
    /// The version of what the candidate's state machine writes: who can't apply it does not vote for it.
    pub machine_version: u32,
}

/// Answers a [`RequestVote`]; a granted vote left only after it was durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Vote {
    /// The phase that was asked about.
    pub phase: Phase,
    /// The campaign that was asked about.
    pub campaign: u64,
    /// Whether it is granted.
    pub granted: bool,
}

/// Replicates entries: "AppendEntries" of the paper (§5.3). Without entries it probes where the logs agree.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Append {
    /// Which run of this peer's replication it belongs to, echoed by the reply: see
    /// `Progress`.
    pub epoch: u64,
    /// The entry before the first of the batch.
    pub previous: EntryId,
    /// The checksum of that entry's record, which stands for the whole log before it; `None` if the leader would have to
    /// read its disk for it.
    pub previous_checksum: Option<u32>,
    /// How far the leader has committed.
    pub commit: Index,
    /// The entries.
    pub batch: Option<Batch>,
}

/// Answers an [`Append`]; left only after what it says was durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AppendReply {
    /// The epoch of the append.
    pub epoch: u64,
    /// What became of it.
    pub outcome: AppendOutcome,
}

/// What became of an [`Append`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AppendOutcome {
    /// The follower's durable log equals the leader's up to `matched`.
    Matched {
        /// The last entry covered by the append.
        matched: Index,
    },
    /// The follower does not have `previous`.
    Rejected {
        /// The index of the `previous` that it does not have.
        previous: Index,
        /// The term of the follower's last entry at or before `previous`, and the first index that it holds of that
        /// term: repair skips a term a round trip, not an entry (paper §5.3, last paragraph). 0@0 from a follower that never
        /// held an entry and never voted, as far as it knows; 0@1 from one whose log is merely empty.
        conflict: EntryId,
        /// The last index up to which the follower holds entries whole.
        last: Index,
        /// Where its log ends, entries whose payload its disk lost included. Never before its holding, unless its disk was
        /// emptied or put back.
        log_last: Index,
    },
    /// The follower has the same entry id with another content: one of the two logs is damaged, and nothing was
    /// overwritten.
    Diverged {
        /// The entry.
        at: EntryId,
    },
    /// The follower lost its state and can't go back to the log's beginning: it needs a snapshot that reaches this far at
    /// least.
    NeedsSnapshot {
        /// How far.
        from: Index,
    },
}

/// Says that the leader leads: an AppendEntries without entries, on a lane that bulk never delays.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Heartbeat {
    /// The read round it opens or belongs to (thesis §6.4).
    pub round: u64,
    /// How far the follower may commit: never above what it was seen to match.
    pub commit: Index,
}

/// Answers a [`Heartbeat`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeartbeatReply {
    /// The round of the heartbeat.
    pub round: u64,
    /// For how long the sender votes for nobody from when it heard that heartbeat on: durable, and what a lease rests on.
    /// [`Promise::NONE`] backs no lease.
    pub promise: Promise,
}

/// Forwards clients' commands to the leader. At most once: it is never sent again after it may have arrived.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Propose {
    /// The commands, in the order of their bytes in `payloads`.
    pub commands: Vec<ForwardedCommand>,
    /// The bytes of all commands, concatenated.
    pub payloads: Bytes,
}

/// One command of a [`Propose`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ForwardedCommand {
    /// The forwarder's name for the command. Unique within one run of that node.
    pub request: u64,
    /// The command's length in [`Propose::payloads`], in bytes.
    pub length: u32,
    /// [`Kind::Command`], or [`Kind::Session`] for a session's request without its stamp, which the leader adds.
    pub kind: Kind,
    /// For how many more milliseconds the caller waits. A leader that has not begun with the command by then never does.
    pub waits_ms: u32,
}

/// Answers some forwarded commands.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ProposeReply {
    /// An outcome for each command that is answered.
    pub outcomes: Vec<ForwardedOutcome>,
    /// The state machine's replies to the applied commands, concatenated in the order of `outcomes`.
    pub replies: Bytes,
}

/// The outcome of one [`ForwardedCommand`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ForwardedOutcome {
    /// The forwarder's name for the command.
    pub request: u64,
    /// The outcome.
    pub outcome: ProposeOutcome,
}

/// What became of one forwarded command.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProposeOutcome {
    /// Committed and applied; the state machine's reply has this many bytes.
    Applied {
        /// Where it stands in the log.
        index: Index,
        /// Length of the reply in [`ProposeReply::replies`].
        reply_bytes: u32,
    },
    /// It did not and will not take effect: the receiver does not lead.
    NotLeader,
    /// It did not and will not take effect: the leader has too much to do.
    Overloaded,
    /// It may or may not take effect.
    Unknown,
    /// It was not applied: its session was opened once, and is known no longer.
    SessionExpired,
    /// It was not applied now: its serial is older than what the session remembers.
    StaleSerial,
    /// It did not and will not take effect: nobody waits for it any more, and the receiver had not begun with it.
    DeadlinePassed,
    /// It did not and will not take effect: it is larger than the receiver allows, which is this many bytes.
    TooLarge {
        /// The receiver's limit.
        max: u32,
    },
    /// It did not and will not take effect: an operator had its entry skipped.
    Skipped,
}

/// Asks for a read index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReadIndex {
    /// The asker's name for the request.
    pub request: u64,
    /// Whether the leader's lease will do: its readers asked for that.
    pub by_lease: bool,
}

/// Answers a [`ReadIndex`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReadIndexReply {
    /// The asker's name for the request.
    pub request: u64,
    /// What was committed when the request arrived and leadership was confirmed, or known by the lease; `None` if it could not be.
    pub index: Option<Index>,
}

/// Asks for entries whose identity this node knows and whose payload its disk lost. Anybody's copy will do: it must have the
/// checksum that the asker knows, and with it the same log before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Repair {
    /// The first one.
    pub from: EntryId,
    /// The last one wanted; of the same term.
    pub to: Index,
}

/// Answers a [`Repair`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RepairReply {
    /// The first entry that was asked for.
    pub from: EntryId,
    /// What became of it.
    pub outcome: RepairOutcome,
    /// The entries from there on, as far as they fit, with [`RepairOutcome::Here`].
    pub batch: Option<Batch>,
}

/// Whether a member has an entry that another one lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RepairOutcome {
    /// It has it, and sends it.
    Here,
    /// It never had it, or holds it only as something that was never known to be synced: it does not speak for the entry.
    Absent,
    /// It had it, and lost it too, or compacted it: no help, and no reason to forget it.
    Lost,
}

/// Says to a member that comes with less what it held: its data directory was emptied or put back, and it must not vote or
/// acknowledge. One that has as much, for the message was late, goes on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Emptied {
    /// Its holding: up to which committed entry it acknowledged the log; 0 if it had a log and no more is known.
    pub known_at: Index,
}

/// Says what each member holds, so that it is remembered by all: up to which committed entry it acknowledged the log, durably.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Holdings {
    /// The members, former ones among them, and their holdings.
    pub members: Vec<(NodeId, Index)>,
}

/// Tells the voter to which leadership is handed over to campaign at once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimeoutNow {
    /// The leader's last entry: without it, durably, the campaign would be in vain.
    pub last: EntryId,
}

/// Says to a node that it belongs to the cluster no more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Removed {
    /// Where the configuration without it stands, which is committed.
    pub at: Index,
}

/// Forwards to the leader what an operator wants. At most once: it is never sent again after it may have arrived.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Administer {
    /// The asker's name for the request.
    pub request: u64,
    /// What is wanted.
    pub what: Administration,
}

/// What an operator wants of the leader.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Administration {
    /// Other members.
    Change(Change),
    /// Another leader: this one, or the best.
    HandOver(Option<NodeId>),
}

/// What came of an [`Administer`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Administered {
    /// The asker's name for the request.
    pub request: u64,
    /// What came of it.
    pub outcome: AdministerOutcome,
}

/// What came of an operator's wish.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum AdministerOutcome {
    /// The configuration in force, committed, is the one of this entry.
    Changed(Index),
    /// No change was made.
    ChangeRefused(ChangeRefused),
    /// This node leads now, or is about to.
    HandedOver(NodeId),
    /// The leader stayed.
    HandoverRefused(HandoverRefused),
    /// It may or may not come about: the leader was lost, or had no time.
    Unknown,
}

impl Message {
    /// The bytes that travel raw after the encoded rest.
    #[must_use]
    pub fn bulk(&self) -> Bytes {
        match &self.body {
            Body::Append(append) => append.batch.as_ref().map_or_else(Bytes::new, |batch| batch.bytes().clone()),
            Body::Propose(propose) => propose.payloads.clone(),
            Body::ProposeReply(reply) => reply.replies.clone(),
            Body::SnapshotChunk(chunk) => chunk.bytes.clone(),
            Body::RepairReply(reply) => reply.batch.as_ref().map_or_else(Bytes::new, |batch| batch.bytes().clone()),
            _ => Bytes::new(),
        }
    }

    /// Puts the bulk bytes into a message whose rest was decoded.
    ///
    /// # Errors
    /// If they are damaged, or this message carries none.
    pub fn set_bulk(&mut self, bulk: Bytes, checksum: crate::Checksum) -> Result<(), crate::Malformed> {
        let misplaced = |what| Err(crate::Malformed { offset: 0, what });
        match &mut self.body {
            Body::Append(_) if bulk.is_empty() => {}
            Body::Append(append) => append.batch = Some(Batch::parse(bulk, checksum)?),
            Body::RepairReply(_) if bulk.is_empty() => {}
            Body::RepairReply(reply) => reply.batch = Some(Batch::parse(bulk, checksum)?),
            Body::SnapshotChunk(chunk) => chunk.bytes = bulk,
            Body::Propose(propose) => {
                let lengths = propose.commands.iter().map(|command| u64::from(command.length));
                if lengths.sum::<u64>() != bulk.len() as u64 {
                    return misplaced("command lengths");
                }
                let mut rest = &bulk[..];
                for ForwardedCommand { length, kind, .. } in &propose.commands {
                    let (command, behind) = rest.split_at(*length as usize);
                    match kind {
                        Kind::Command => {}
                        // Once it is in the log, everybody must be able to read it.
                        Kind::Session => drop(Request::decode(command)?),
                        Kind::Noop | Kind::Membership | Kind::Outline => {
                            return misplaced("commands that no client has");
                        }
                    }
                    rest = behind;
                }
                propose.payloads = bulk;
            }
            Body::ProposeReply(reply) => {
                let lengths = reply.outcomes.iter().map(|answered| match answered.outcome {
                    ProposeOutcome::Applied { reply_bytes, .. } => u64::from(reply_bytes),
                    _ => 0,
                });
                if lengths.sum::<u64>() != bulk.len() as u64 {
                    return misplaced("reply lengths");
                }
                reply.replies = bulk;
            }
            _ if bulk.is_empty() => {}
            _ => return misplaced("bulk of a message that has none"),
        }
        Ok(())
    }

    /// Whether this answers a message of the receiver's: replies travel back on the connection that asked.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        matches!(
            self.body,
            Body::Vote(_)
                | Body::AppendReply(_)
                | Body::HeartbeatReply(_)
                | Body::ProposeReply(_)
                | Body::ReadIndexReply(_)
                | Body::SnapshotReply(_)
                | Body::RepairReply(_)
                | Body::Emptied(_)
                | Body::Removed(_)
                | Body::Administered(_)
        )
    }

    /// Whether it belongs on the control lane, which bulk must never delay.
    #[must_use]
    pub fn is_control(&self) -> bool {
        !self.is_bulk()
            && !matches!(
                self.body,
                Body::Append(_)
                    | Body::AppendReply(_)
                    | Body::Propose(_)
                    | Body::ProposeReply(_)
                    | Body::RepairReply(_)
            )
    }

    /// Whether it belongs on the snapshot lane, on which nothing is urgent.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        matches!(self.body, Body::SnapshotChunk(_))
    }
}
