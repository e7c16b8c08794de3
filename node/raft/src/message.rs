//! Messages between nodes, with the paper's names where the paper has one.
//!
//! | message | from | to | why | paper |
//! | --- | --- | --- | --- | --- |
//! | [`RequestVote`] | a (pre-)candidate | every other voter | to be elected, or to learn whether it would be | §5.2, thesis §9.6 |
//! | [`Vote`] | a voter | the (pre-)candidate | grants or denies, once durable | §5.2 |
//! | [`Append`] | a leader's `Replicator` | its peer | replicates entries, or probes where the logs agree | §5.3 |
//! | [`AppendReply`] | a follower | the leader | entries are durable, or the logs do not agree there | §5.3 |
//! | [`Heartbeat`] | a leader's `Replicator` | its peer | leadership, the commit index, a read round | §5.2, thesis §6.4 |
//! | [`HeartbeatReply`] | a follower | the leader | it still follows, and for how long it grants no vote: counted by check-quorum, read index and lease. Also the answer to an append of an old term | thesis §6.4 |
//! | [`Body::Propose`] | a node with clients | the leader | forwards their commands | §8 |
//! | [`Body::ProposeReply`] | the leader | that node | their outcomes | §8 |
//! | [`Body::ReadIndex`] | a node with readers | the leader | asks for an index to read at | thesis §6.4 |
//! | [`Body::ReadIndexReply`] | the leader | that node | the index, once leadership was confirmed | thesis §6.4 |
//! | [`SnapshotChunk`] | a leader's `Replicator` | its peer | a chunk of the state, where entries were compacted away | §7 |
//! | [`SnapshotReply`] | a follower | the leader | bytes received so far, or that the snapshot is installed | §7 |
//! | [`Repair`] | a node with faulty entries | every other member | asks for entries whose payload its disk lost | – |
//! | [`RepairReply`] | a member | that node | the entries, or that it does not have them | – |
//! | [`Body::Emptied`] | a member | a member with less than its holding | its disk was emptied or rolled back: it must not take part | – |
//! | [`Body::Holdings`] | a leader | every member | what each member holds, for all to remember | – |
//! | [`Body::TimeoutNow`] | a leader | the transfer target | campaign at once | thesis §3.10 |
//! | [`Body::Removed`] | a member | a former member | it was removed, which its own log can't tell it | thesis §4.2.3 |
//! | [`Body::Administer`] | a node with an operator | the leader | forwards a membership change or a leadership transfer | §6, thesis §3.10 |
//! | [`Body::Administered`] | the leader | that node | the result | – |
//! | [`Body::Observe`] | a node with observers | every other member | asks for reports, for a while | – |
//! | [`Body::Report`] | a member | that node | its own state, or another member's, for operators to see | – |
//!
//! A message carries its sender's current term when it was sent (the one exception is the answer to
//! a pre-vote, which repeats the asker's term). `Replica::receive`, or `Replica::receive_term` for
//! forwarded requests and their answers, bounds the term of every message. It then compares the
//! term (paper §5.1) for all messages but [`RequestVote`], [`Repair`], [`Body::Emptied`],
//! [`Body::Holdings`] and [`Body::Removed`], which are valid in any term and whose rules judge the
//! term themselves. [`Body::Observe`] and [`Body::Report`] are no concern of the rules: their term
//! means nothing, and the runtime handles them. The sender is not part of a message: the network
//! knows it from the peer's certificate.

use crate::{
    batch::Batch,
    forwarded::{Administer, Administered, Propose, ProposeReply, ReadIndex, ReadIndexReply},
    ids::{EntryId, Index, NodeId, Term},
    lease::Promise,
    replica::Denial,
    snapshot::{SnapshotChunk, SnapshotReply},
};
use alloc::vec::Vec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A message with its destination.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Outgoing {
    /// The receiver, never this node itself.
    pub to: NodeId,
    /// The message to send.
    pub message: Message,
}

/// One message from node to node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Message {
    /// The sender's current term when it sent the message; in the answer to a pre-vote,
    /// the asker's term.
    pub term: Term,
    /// The content by kind.
    pub body: Body,
}

/// The content of a message. A codec sends bulk bytes (a batch, forwarded payloads, a chunk of a
/// snapshot) raw, after the encoded rest, through [`Message::bulk`] and [`Message::set_bulk`].
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
    /// Asserts leadership and carries the commit index.
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
    /// Sends a chunk of a snapshot.
    SnapshotChunk(SnapshotChunk),
    /// Answers a [`SnapshotChunk`].
    SnapshotReply(SnapshotReply),
    /// Asks for entries whose payload was lost.
    Repair(Repair),
    /// Answers a [`Repair`].
    RepairReply(RepairReply),
    /// Tells a member that it once held more than it has now.
    Emptied(Emptied),
    /// Tells the target of a leadership transfer to campaign.
    TimeoutNow(TimeoutNow),
    /// Tells a node that it was removed.
    Removed(Removed),
    /// Forwards an operator's request to the leader.
    Administer(Administer),
    /// Answers an [`Administer`].
    Administered(Administered),
    /// Tells the holdings of all members.
    Holdings(Holdings),
    /// Asks for reports.
    Observe(Observe),
    /// Reports the state of a node, for operators.
    Report(Report),
}

/// The two rounds of an election.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// "Would you vote for me in the next term?" Changes no term and no vote (thesis §9.6).
    PreVote,
    /// "Vote for me in this term."
    Vote,
}

/// Asks for a vote, or in the pre-vote phase whether one would be given. At the receiver it changes
/// nothing else than, in the vote phase, the term and, if granted, the vote.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestVote {
    /// Pre-vote or vote. In the pre-vote phase the message's term is the sender's own, and the vote
    /// asked about is one in the term after it.
    pub phase: Phase,
    /// Number of the sender's round, so that a late answer counts for no other.
    pub campaign: u64,
    /// The last entry of the candidate's log (paper §5.4.1).
    pub last: EntryId,
    /// Whether the leader itself asked for this campaign by a leadership transfer: then voters
    /// grant it although they hear that leader (thesis §3.10).
    pub by_transfer: bool,
    /// The version that the candidate's state machine writes: a voter that can't apply it
    /// denies its vote.
    pub machine_version: u32,
}

/// Answers a [`RequestVote`]; a granted vote is sent only after it is durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Vote {
    /// The phase of the request.
    pub phase: Phase,
    /// The campaign number of the request.
    pub campaign: u64,
    /// The reason against it; `None` if the vote is granted. Only a new candidate reads which reason
    /// it is.
    pub denial: Option<Denial>,
}

impl Vote {
    /// Whether the vote is granted.
    #[must_use]
    pub fn granted(&self) -> bool {
        self.denial.is_none()
    }
}

/// Replicates entries: "AppendEntries" of the paper (§5.3). Without entries it probes where
/// the logs agree.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Append {
    /// The epoch of this peer's replication, echoed by the reply: see `Progress`.
    pub epoch: u64,
    /// The entry before the first of the batch.
    pub previous: EntryId,
    /// The checksum of that entry's record, which covers the whole log up to it; `None` if the
    /// leader would have to read its disk for it.
    pub previous_checksum: Option<u32>,
    /// The leader's commit index.
    pub commit: Index,
    /// The entries; `None` for a probe.
    pub batch: Option<Batch>,
}

/// Answers an [`Append`]; sent only after the entries that it confirms are durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AppendReply {
    /// The epoch of the append.
    pub epoch: u64,
    /// The follower's result for it.
    pub outcome: AppendOutcome,
}

/// The result of an [`Append`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AppendOutcome {
    /// The follower's durable log equals the leader's up to `matched`.
    Matched {
        /// The last entry covered by the append.
        matched: Index,
    },
    /// The follower does not have `previous`.
    Rejected {
        /// The index of the `previous` that it lacks.
        previous: Index,
        /// The term of the follower's last entry at or before `previous`, and the first index that
        /// it holds of that term: each round trip skips a term, not an entry (paper §5.3, last
        /// paragraph). 0@0 from a follower that never held an entry and never voted, as far as it
        /// knows; 0@1 from one whose log is merely empty.
        conflict: EntryId,
        /// The last index up to which the follower holds entries whole.
        last: Index,
        /// The end of its log, including entries whose payload its disk lost. Never before its
        /// holding, unless its disk was emptied or rolled back.
        log_last: Index,
    },
    /// The follower has the same entry id with another content: one of the two logs is damaged. The
    /// follower overwrote nothing.
    Diverged {
        /// The entry that differs.
        at: EntryId,
    },
    /// The follower lost its state and can't go back to the log's beginning: it needs a snapshot
    /// that reaches at least up to `from`.
    NeedsSnapshot {
        /// The last entry that the follower's lost state had covered.
        from: Index,
    },
}

/// Asserts leadership: an AppendEntries without entries, on a lane that bulk never delays.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Heartbeat {
    /// The read round it opens or belongs to (thesis §6.4).
    pub round: u64,
    /// The index up to which the follower may commit: at most what it is known to match.
    pub commit: Index,
}

/// Answers a [`Heartbeat`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeartbeatReply {
    /// The round of the heartbeat.
    pub round: u64,
    /// For how long the sender grants no vote after it heard that heartbeat. Durable at the sender,
    /// and the basis of leases. [`Promise::NONE`] backs no lease.
    pub promise: Promise,
}

/// Asks for entries that this node's disk lost in part: their identity is known here, and their
/// payload is lost. The copy of any member will do: it must have the checksum that the asker knows,
/// and with it the same log before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Repair {
    /// The first faulty entry.
    pub from: EntryId,
    /// The last one wanted; of the same term.
    pub to: Index,
}

/// Answers a [`Repair`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RepairReply {
    /// The first entry that was asked for.
    pub from: EntryId,
    /// Whether the sender has that entry.
    pub outcome: RepairOutcome,
    /// With [`RepairOutcome::Here`], the entries from `from` on that fit.
    pub batch: Option<Batch>,
}

/// Whether a member has an entry that another one lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RepairOutcome {
    /// It has the entry, and sends it.
    Here,
    /// It never had the entry, or holds only an identity that was never known to be synced: it does
    /// not vouch for the entry.
    Absent,
    /// It had the entry, and lost it too or compacted it: it can't help, and the entry must
    /// not be forgotten.
    Lost,
}

/// Tells a member that comes with less than its holding: its data directory was emptied or rolled
/// back, and it must not vote or acknowledge. A receiver that holds as much ignores the message:
/// it was late.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Emptied {
    /// Its holding: the last committed entry up to which it acknowledged the log; 0 if it had a log
    /// and no more is known.
    pub known_at: Index,
}

/// Tells the holding of each member, for all to remember: the last committed entry up to which it
/// durably acknowledged the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Holdings {
    /// Members, former ones included, and their holdings.
    pub members: Vec<(NodeId, Index)>,
}

/// Tells the target of a leadership transfer to campaign at once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimeoutNow {
    /// The leader's last entry: a target that does not hold it durably ignores the message.
    pub last: EntryId,
}

/// Tells a node that it no longer belongs to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Removed {
    /// Index of the committed configuration without that node.
    pub at: Index,
}

/// Asks the receiver to report, for a while: an operator looks at the cluster through the sender.
/// It replaces the sender's earlier request. No rule reads it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Observe {
    /// The time between two reports, in milliseconds.
    pub every_ms: u32,
    /// The reports end after this time, in milliseconds, unless the sender asks again.
    pub for_ms: u32,
    /// The nodes whose state is wanted: the receiver's own, and that of nodes which the sender does
    /// not hear. For each of those the receiver asks in turn, and passes their reports on.
    pub wanted: Vec<Wanted>,
}

/// A node whose reports are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Wanted {
    /// The node.
    pub node: NodeId,
    /// The incarnation of that node whose events are known up to `events_after`; another
    /// incarnation begins with its first event.
    pub incarnation: u64,
    /// The last event of that incarnation that the sender knows; 0 for none.
    pub events_after: u64,
}

/// A report on the state of one node, in the runtime's own layout. No rule reads it. Networks send
/// it only where nothing else waits.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Report {
    /// The node that made the report: the sender, or a node for which the sender passes it on.
    pub of: NodeId,
    /// The time for which the sender has had it, in milliseconds.
    pub age_ms: u32,
    /// The report, at most [`Report::BYTES_MAX`] long.
    pub bytes: Bytes,
}

impl Report {
    /// The most bytes of a report.
    pub const BYTES_MAX: usize = 64 << 10;
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
            Body::Report(report) => report.bytes.clone(),
            _ => Bytes::new(),
        }
    }

    /// Puts the bulk bytes into a message whose rest was decoded.
    ///
    /// # Errors
    /// If they are damaged, or this message carries none.
    pub fn set_bulk(&mut self, bulk: Bytes, checksum: crate::Checksum) -> Result<(), crate::Malformed> {
        match &mut self.body {
            Body::Append(_) if bulk.is_empty() => {}
            Body::Append(append) => append.batch = Some(Batch::parse(bulk, checksum)?),
            Body::RepairReply(_) if bulk.is_empty() => {}
            Body::RepairReply(reply) => reply.batch = Some(Batch::parse(bulk, checksum)?),
            Body::SnapshotChunk(chunk) => chunk.bytes = bulk,
            Body::Propose(propose) => propose.set_payloads(bulk)?,
            Body::ProposeReply(reply) => reply.set_replies(bulk)?,
            Body::Report(_) if bulk.len() > Report::BYTES_MAX => {
                return Err(crate::Malformed { offset: Report::BYTES_MAX, what: "report longer than its bound" });
            }
            Body::Report(report) => report.bytes = bulk,
            _ if bulk.is_empty() => {}
            _ => return Err(crate::Malformed { offset: 0, what: "bulk of a message that has none" }),
        }
        Ok(())
    }

    /// Whether this answers a message of the receiver's: replies travel back on the connection
    /// of the request.
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
                | Body::Report(_)
        )
    }

    /// Whether it serves a view of the cluster for operators: no rule reads it, and it gives way to
    /// all other messages.
    #[must_use]
    pub fn is_report(&self) -> bool {
        matches!(self.body, Body::Observe(_) | Body::Report(_))
    }

    /// Whether it is a forwarded request or an answer to one, which the runtime serves.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        matches!(
            self.body,
            Body::Propose(_)
                | Body::ProposeReply(_)
                | Body::ReadIndex(_)
                | Body::ReadIndexReply(_)
                | Body::Administer(_)
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
