//! Effects of the rules, and safety violations.

use super::{
    observation::{Denial, Observation},
    start::HardState,
};
use crate::{
    ballot::Ballot,
    batch::Batch,
    ids::{EntryId, Index, NodeId, Term},
    message::{Outgoing, Repair},
    reads::ReadToken,
    snapshot::{SnapshotBase, SnapshotChunk, SnapshotReply},
};
use alloc::vec::Vec;
use core::fmt;

/// State to make durable, in this order: cut, truncate, append, repair, hard state; then
/// `then` may leave.
///
/// "Persist, then speak": a reply that needs durability travels inside the request to persist, so
/// there is no table of pending replies and no way to get the order wrong. A request with nothing
/// but `then` carries a reply that must not overtake the writes before it.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Persist {
    /// Counts up by one per request; a completion names the highest one that is durable.
    pub sequence: u64,
    /// First, let a durable snapshot take the place of the log's beginning.
    pub cut: Option<Cut>,
    /// Then remove the entries from here on.
    pub truncate_from: Option<Index>,
    /// Then append these entries.
    pub batch: Option<Batch>,
    /// Then give these entries, which the log holds, the payloads that they lost. Entries among
    /// them that are not faulty stay as they are.
    pub repair: Option<Batch>,
    /// Then store this term, vote and promise.
    pub hard_state: Option<HardState>,
    /// Messages that may leave once all of it is durable.
    pub then: Vec<Outgoing>,
}

/// A log compaction: the part of the log that a snapshot replaces.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cut {
    /// The last entry to remove. Entries after it stay if the log holds this very entry; otherwise
    /// the log starts over after it, empty.
    pub to: EntryId,
    /// The checksum of its record; `None` if the log holds the entry and the storage
    /// knows the checksum.
    pub checksum: Option<u32>,
}

/// A request of the rules to their caller. Effects are performed in order, and all of them: the
/// enum is exhaustive, so that a new effect does not compile until every caller performs it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Send this now.
    Send(Outgoing),
    /// Make this durable, then send its `then`, then call
    /// [`Replica::persisted`](super::Replica::persisted).
    Persist(Persist),
    /// Set the election timer anew, with fresh randomness.
    ArmTimer,
    /// A legitimate leader was heard: push the election deadline out.
    LeaderHeard,
    /// Count the votes of this round, and forget any other.
    OpenBallot(Ballot),
    /// A vote of the current round arrived.
    CountVote {
        /// Number of the round.
        campaign: u64,
        /// The node that answered.
        voter: NodeId,
        /// The reason against it; `None` if the vote was granted.
        denial: Option<Denial>,
    },
    /// The campaign is over: forget the ballot.
    CloseBallot,
    /// Start a replicator for each peer.
    StartReplicators {
        /// The term of the leadership.
        term: Term,
        /// The last entry of the log, after which they start to probe.
        log_last: Index,
    },
    /// Stop all replicators: leadership is over.
    StopReplicators,
    /// Entries were appended to the leader's log: replicate them to every peer but the witness.
    Replicate {
        /// The entry before them.
        previous: EntryId,
        /// The new entries.
        batch: Batch,
    },
    /// Let the witness's replicator send entries up to here. [`Effect::Replicate`] does
    /// not reach it.
    ReplicateTo {
        /// Id of the witness.
        peer: NodeId,
        /// Index of the last entry that it may have.
        to: Index,
    },
    /// The leader's commit index moved: replicators send it from now on.
    Committed(Index),
    /// Send a heartbeat of this read round to every peer now.
    HeartbeatNow {
        /// Number of the round.
        round: u64,
    },
    /// For a peer's replicator: the peer acknowledged an append.
    Acknowledged {
        /// Id of the peer.
        peer: NodeId,
        /// Epoch of the append.
        epoch: u64,
        /// The index up to which the peer's durable log matches.
        matched: Index,
    },
    /// For a peer's replicator: the peer rejected an append.
    Rejected {
        /// Id of the peer.
        peer: NodeId,
        /// Epoch of the append.
        epoch: u64,
        /// The entry that it lacks.
        previous: Index,
        /// The index to send from next: the logs may agree just before it.
        next: Index,
        /// The peer's last entry.
        last: Index,
    },
    /// Apply these committed entries, in order.
    Apply(Batch),
    /// Read these committed entries, which are no longer cached, from the storage
    /// and call [`Replica::loaded`](super::Replica::loaded).
    Load {
        /// Index of the first one.
        from: Index,
        /// Index of the last one.
        to: Index,
    },
    /// Restore the state machine from the newest snapshot, which covers entries up to here;
    /// then call [`Replica::applied`](super::Replica::applied).
    Restore(SnapshotBase),
    /// The leader sent a chunk of a snapshot that this node needs.
    SnapshotChunk {
        /// Id of the leader.
        from: NodeId,
        /// The chunk, for the snapshot receiver.
        chunk: SnapshotChunk,
    },
    /// For a peer's replicator: the peer answered a chunk of a snapshot.
    SnapshotAnswered {
        /// Id of the peer.
        peer: NodeId,
        /// Its reply, unchanged.
        reply: SnapshotReply,
    },
    /// For a peer's replicator: the peer needs a snapshot, even if the leader still
    /// has the entries.
    NeedsSnapshot {
        /// Id of the peer.
        peer: NodeId,
        /// Epoch of the append.
        epoch: u64,
        /// The last entry that the snapshot must cover at least.
        from: Index,
    },
    /// A member asks for entries that it lost: look them up, in the cache or the storage, and
    /// answer with [`Replica::repair_reply`](super::Replica::repair_reply).
    ServeRepair {
        /// The node that asks.
        to: NodeId,
        /// The entries, all of which this node holds.
        repair: Repair,
    },
    /// Remember for good the holdings of these members: the last committed entry up to which each
    /// acknowledged the log. No completion is awaited.
    Remember {
        /// Members and their holdings.
        members: Vec<(NodeId, Index)>,
    },
    /// Report, loudly, that a member came with less than its holding: its disk was emptied or
    /// rolled back. It was told, and refused.
    DataLost {
        /// Id of the member.
        member: NodeId,
        /// The last entry of its log.
        last: Index,
        /// Its holding: the last committed entry up to which it had acknowledged the log.
        held: Index,
        /// Whether the members without loss are no quorum any more: this node may have the
        /// last good copy.
        is_last_copy: bool,
    },
    /// Serve these reads as soon as `index` is applied.
    ReadsReady {
        /// Index to be applied first.
        index: Index,
        /// Ids of the reads.
        tokens: Vec<ReadToken>,
    },
    /// These reads can't be served here: this node does not lead, or no longer does.
    ReadsFailed {
        /// Ids of the reads.
        tokens: Vec<ReadToken>,
    },
    /// Report, loudly, that this node and another hold different content under the same id: one of
    /// the two logs is damaged. Nothing was overwritten.
    Diverged {
        /// The entry that differs.
        at: EntryId,
        /// Id of the other node.
        with: NodeId,
    },
    /// The configuration in force has changed, or is committed now: talk to
    /// [`Replica::peers`](super::Replica::peers), and, if this node leads, replicate to each of
    /// them and to no other.
    MembersChanged,
    /// A leadership transfer ended without success: proposals that waited for it may proceed.
    LeadershipTransferEnded {
        /// The target of the transfer.
        to: NodeId,
    },
    /// This node was removed from the cluster: it should stop.
    Removed {
        /// Index of the committed configuration without this node.
        at: Index,
    },
    /// Report the name of a (pre-)candidate that got no vote because this node's state machine
    /// can't apply the version that it writes.
    MachineUnknown {
        /// Id of the candidate.
        candidate: NodeId,
        /// The version that it writes.
        version: u32,
    },
    /// A message was ignored.
    Refused {
        /// Id of its sender.
        from: NodeId,
        /// The reason.
        reason: MessageRefusal,
    },
    /// Tell observers of a decision and its reason. It asks for nothing else.
    Observed(Observation),
    /// A safety violation: no output of this node can be trusted any more. Stop it.
    Halt(Violation),
}

/// Why a message was ignored. Its sender gets no answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MessageRefusal {
    /// It violates the format or the rules, as no node without a fault sends it.
    Malformed,
    /// Its sender is not a member, or is no longer one.
    Stranger,
    /// Entries that are not durable yet take all bytes of
    /// [`Settings::unpersisted_bytes_max`](super::Settings::unpersisted_bytes_max). The leader
    /// sends it again.
    Unpersisted,
    /// The disk has no room for its entries. The leader sends it again.
    StorageFull,
}

/// A state that no correct cluster can reach; observing it stops the node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Violation {
    /// Two nodes lead in one term (Election Safety, Figure 3).
    TwoLeaders {
        /// The term that both lead.
        term: Term,
        /// One of the leaders.
        one: NodeId,
        /// The other one.
        other: NodeId,
    },
    /// A leader's log contradicts an entry that is committed here (Leader Completeness, Figure 3).
    CommittedConflict {
        /// Index of the entry.
        index: Index,
        /// Id of that leader.
        leader: NodeId,
    },
    /// An entry has other content under the same id elsewhere, and a quorum does not hold this
    /// node's (Log Matching, Figure 3).
    Diverged {
        /// The entry that differs.
        at: EntryId,
        /// The node with the other content: the leader, or, if this node leads, the last of a
        /// quorum that refuses.
        leader: NodeId,
    },
    /// A leader treats this node as a witness and it is not one, or the other way round.
    Mistaken {
        /// Id of the leader.
        leader: NodeId,
        /// Whether this node is a witness.
        is_witness: bool,
    },
    /// This member had a log, and its data directory is empty.
    DataLost {
        /// Its holding, as the other node remembers it.
        known_at: Index,
        /// The node that remembers it.
        by: NodeId,
    },
    /// This member once held more than its log has: its data directory was rolled back to an old
    /// copy, or its disk lost writes.
    RolledBack {
        /// The last entry of its log.
        last: Index,
        /// Its holding: the last committed entry up to which it had acknowledged the log.
        known_at: Index,
        /// The node that remembers it.
        by: NodeId,
    },
}

impl core::error::Error for Violation {}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoLeaders { term, one, other } => {
                write!(
                    f,
                    "nodes {one} and {other} both lead in term {term}: a disk lost a vote, or two nodes have one id"
                )
            }
            Self::CommittedConflict { index, leader } => {
                write!(
                    f,
                    "leader {leader} contradicts entry {index}, which is committed here: the members that elected it lost durable data, \
                     and this may be the last good copy; keep this data directory, stop the other members, and recover the cluster \
                     from it (quorate-kv recover)"
                )
            }
            Self::Diverged { at, leader } => {
                write!(
                    f,
                    "entry {at} differs from that of node {leader}, and a quorum does not hold it as this node does: either the log \
                     here is damaged, or the other members lost theirs and this may be the last good copy; keep this data directory \
                     until the cause is known, then recover the cluster from it (quorate-kv recover), or remove this member and add a new \
                     one under a new id"
                )
            }
            Self::Mistaken { leader, is_witness } => {
                let (is, not) = if *is_witness { ("a witness", "a full copy") } else { ("a full copy", "a witness") };
                write!(
                    f,
                    "this node was started as {is}, and leader {leader} treats it as {not}; start it as the cluster's configuration \
                     says, on a data directory of that kind"
                )
            }
            Self::DataLost { known_at, by } => {
                write!(
                    f,
                    "the data directory is empty, but node {by} knows that this member had a log, committed up to entry {known_at}: its \
                     acknowledgements and votes are lost; remove this member and add a new one under a new id"
                )
            }
            Self::RolledBack { last, known_at, by } => {
                write!(
                    f,
                    "the log here ends at entry {last}, but node {by} knows that this member acknowledged committed entries up to \
                     {known_at}: the data directory is an old copy, or its disk lost writes, and this member's later acknowledgements \
                     and votes are lost; remove this member and add a new one with an empty data directory under a new id"
                )
            }
        }
    }
}
