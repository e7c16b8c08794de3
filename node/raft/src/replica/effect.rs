//! What a rule wants done, and what must never be seen.

use super::HardState;
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

/// What the storage makes durable, in this order: cut, truncate, append, repair, hard state; then `then` may leave.
///
/// "Persist, then speak": a reply that needs durability travels inside the request to persist, so that nobody keeps a
/// table of pending replies and nobody can get the order wrong. An empty one (nothing but `then`) is a reply that must
/// not overtake the writes before it.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Persist {
    /// Counts up by one a request; a completion names the highest one that is durable.
    pub sequence: u64,
    /// Let a snapshot, which is durable, take the place of the log's beginning first.
    pub cut: Option<Cut>,
    /// Remove the entries from here on then.
    pub truncate_from: Option<Index>,
    /// Then append these.
    pub batch: Option<Batch>,
    /// Give these entries, which are held, the payloads that they lost. Those among them that are not faulty stay as they
    /// are.
    pub repair: Option<Batch>,
    /// Then store this term, vote and promise.
    pub hard_state: Option<HardState>,
    /// What may be said once all of it is durable.
    pub then: Vec<Outgoing>,
}

/// The end of a log's beginning that a snapshot covers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cut {
    /// The last entry to go. What stands behind it stays if the log holds this very entry; otherwise the log starts over,
    /// empty, behind it.
    pub to: EntryId,
    /// The checksum of its record; `None` if the log holds the entry and the storage knows it better.
    pub checksum: Option<u32>,
}

/// What a rule wants done. Effects are performed in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Send this now.
    Send(Outgoing),
    /// Make this durable, then let its `then` leave, then call [`Replica::persisted`](super::Replica::persisted).
    Persist(Persist),
    /// Set the election timer anew, with fresh randomness.
    ArmTimer,
    /// A legitimate leader was heard: push the deadline out.
    LeaderHeard,
    /// Start counting the votes of a campaign, forgetting any other.
    OpenBallot(Ballot),
    /// A vote of the current campaign came in.
    CountVote {
        /// Which campaign.
        campaign: u64,
        /// Who answered.
        voter: NodeId,
        /// What.
        granted: bool,
    },
    /// The campaign is over: forget the ballot.
    CloseBallot,
    /// Start a replicator a peer.
    StartReplicators {
        /// The leadership.
        term: Term,
        /// The last entry of the log, behind which they begin to probe.
        log_last: Index,
    },
    /// Stop all replicators: leadership is over.
    StopReplicators,
    /// Entries were appended to the leader's log: replicate them, to everybody but a witness.
    Replicate {
        /// The entry before them.
        previous: EntryId,
        /// The entries.
        batch: Batch,
    },
    /// The witness may have the entries up to here now: for its replicator. What is replicated to all goes to the others alone.
    ReplicateTo {
        /// The witness.
        peer: NodeId,
        /// The last entry.
        to: Index,
    },
    /// The leader's commit index moved: replicators send it along from now on.
    Committed(Index),
    /// Tell every peer of this read round now.
    HeartbeatNow {
        /// The round.
        round: u64,
    },
    /// A peer acknowledged an append: for its replicator.
    Acknowledged {
        /// The peer.
        peer: NodeId,
        /// The append's epoch.
        epoch: u64,
        /// How far it matches, durably.
        matched: Index,
    },
    /// A peer rejected an append: for its replicator.
    Rejected {
        /// The peer.
        peer: NodeId,
        /// The append's epoch.
        epoch: u64,
        /// The entry that it lacks.
        previous: Index,
        /// Where the logs may next agree, just before this.
        next: Index,
        /// The peer's last entry.
        last: Index,
    },
    /// These entries are committed: apply them, in order.
    Apply(Batch),
    /// These committed entries are no longer cached: read them from the storage and call [`Replica::loaded`](super::Replica::loaded).
    Load {
        /// The first one.
        from: Index,
        /// The last one.
        to: Index,
    },
    /// The state machine must become what the newest snapshot holds, which covers entries up to here; then call
    /// [`Replica::applied`](super::Replica::applied).
    Restore(SnapshotBase),
    /// The leader sends a piece of a snapshot that this node needs.
    SnapshotChunk {
        /// The leader.
        from: NodeId,
        /// The piece.
        chunk: SnapshotChunk,
    },
    /// A peer answered a piece of a snapshot: for its replicator.
    SnapshotAnswered {
        /// The peer.
        peer: NodeId,
        /// What it said.
        reply: SnapshotReply,
    },
    /// A peer can't be brought up to date from the log, though the log is there: for its replicator.
    NeedsSnapshot {
        /// The peer.
        peer: NodeId,
        /// The append's epoch.
        epoch: u64,
        /// How far the snapshot must reach at least.
        from: Index,
    },
    /// A member asks for entries that it lost: look them up, from the cache or the storage, and answer it with
    /// [`Replica::repair_reply`](super::Replica::repair_reply).
    ServeRepair {
        /// Who asks.
        to: NodeId,
        /// For what. This node holds all of it.
        repair: Repair,
    },
    /// Remember for good up to which committed entries these members acknowledged the log. No completion is awaited.
    Remember {
        /// The members, and their holdings.
        members: Vec<(NodeId, Index)>,
    },
    /// A member came with less than it held: its disk was emptied or put back. It was told and refused. Say so loudly.
    DataLost {
        /// The member.
        member: NodeId,
        /// Where its log ends.
        last: Index,
        /// Up to which committed entry it had acknowledged the log.
        held: Index,
        /// Whether the members that did so leave no quorum: this node may have the last good copy.
        is_last_copy: bool,
    },
    /// These reads may be served as soon as `index` is applied.
    ReadsReady {
        /// What must be applied first.
        index: Index,
        /// The reads.
        tokens: Vec<ReadToken>,
    },
    /// These reads can't be served here: this node does not lead (any more).
    ReadsFailed {
        /// The reads.
        tokens: Vec<ReadToken>,
    },
    /// This node and another hold different content under the same id: one of the two logs is damaged. Say so loudly; nothing
    /// was overwritten.
    Diverged {
        /// The entry.
        at: EntryId,
        /// The other node.
        with: NodeId,
    },
    /// The configuration in force is another one, or is committed now: talk to [`Replica::peers`](super::Replica::peers), and, if
    /// this node leads, replicate to each of them and to nobody else.
    MembersChanged,
    /// Leadership, which was on its way to another, stays with this node: proposals that waited for that need not any more.
    HandoverEnded {
        /// To whom it was to go.
        to: NodeId,
    },
    /// This node was removed from the cluster: it should stop.
    Removed {
        /// Where the configuration without it stands, which is committed.
        at: Index,
    },
    /// A (pre-)candidate got no vote because this node's state machine could not apply what it writes. Say so, by name.
    MachineUnknown {
        /// The candidate.
        candidate: NodeId,
        /// What it writes.
        version: u32,
    },
    /// A message was not acted on.
    Refused {
        /// Who sent it.
        from: NodeId,
        /// Why: a short word for counting.
        reason: &'static str,
    },
    /// Something happened that no Raft cluster can do. Nothing this node says can be trusted: stop it.
    Halt(Violation),
}

/// What no correct cluster can do; seeing it stops the node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Violation {
    /// Two nodes lead in one term (Election Safety, Figure 3).
    TwoLeaders {
        /// The term.
        term: Term,
        /// One of them.
        one: NodeId,
        /// The other.
        other: NodeId,
    },
    /// A leader's log contradicts an entry that is committed here (Leader Completeness, Figure 3).
    CommittedConflict {
        /// The entry.
        index: Index,
        /// Whose leader says otherwise.
        leader: NodeId,
    },
    /// The same entry id, but other content, and this node stands alone with its own (Log Matching, Figure 3).
    Diverged {
        /// The entry.
        at: EntryId,
        /// Who has the other content: the leader, or, if this node leads, the last of a quorum that refuses.
        leader: NodeId,
    },
    /// A leader takes this node for a witness and it is none, or the other way round.
    Mistaken {
        /// Who.
        leader: NodeId,
        /// What this node is.
        is_witness: bool,
    },
    /// This member had a log, and its data directory is empty.
    Emptied {
        /// Its holding, as far as it was known.
        known_at: Index,
        /// Who remembers.
        by: NodeId,
    },
    /// This member once held more than its log has: an old copy of its data directory, or a disk that lost writes.
    PutBack {
        /// Where its log ends.
        last: Index,
        /// Up to which committed entry it had acknowledged the log.
        known_at: Index,
        /// The member that remembers.
        by: NodeId,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoLeaders { term, one, other } => {
                write!(
                    f,
                    "nodes {one} and {other} both lead in term {term}: a vote was lost or a node id is used twice"
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
                     until that is known, then recover the cluster from it (quorate-kv recover), or remove this member and add a new \
                     one under a new id"
                )
            }
            Self::Mistaken { leader, is_witness } => {
                let (is, not) = if *is_witness { ("a witness", "a full copy") } else { ("a full copy", "a witness") };
                write!(
                    f,
                    "this node was started as {is}, and leader {leader} takes it for {not}; start it as what the cluster's configuration \
                     says, on a data directory of that kind"
                )
            }
            Self::Emptied { known_at, by } => {
                write!(
                    f,
                    "the data directory is empty, but node {by} knows that this member had a log, committed up to entry {known_at}: what \
                     it acknowledged and voted is lost; remove this member and add a new one under a new id"
                )
            }
            Self::PutBack { last, known_at, by } => {
                write!(
                    f,
                    "the log here ends at entry {last}, but node {by} knows that this member acknowledged committed entries up to \
                     {known_at}: the data directory is an old copy, or its disk lost writes, and what this member acknowledged and voted \
                     since is lost; remove this member and add a new one with an empty data directory under a new id"
                )
            }
        }
    }
}
