//! Events of a world: those that the caller chooses, the messages between the actors of one node, and
//! the news that a node shows to the outside.

use super::disk::{Fault, Torn};
use quorate_raft::{
    Ballot, Batch, Change, EntryId, Index, MessageRefusal, NodeId, Observation, Outgoing, Persist, ReadToken, Repair,
    Snapshot, SnapshotBase, SnapshotReply, Term, Violation, Want,
};

/// An event, chosen by the caller. Places on the wire count from 0.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The message at this place on the wire arrives.
    Deliver(usize),
    /// The message arrives and stays on the wire, to arrive again.
    Repeat(usize),
    /// The message is lost.
    Drop(usize),
    /// An actor of a node handles its next task.
    Act(NodeId, Actor),
    /// A node's `Consensus` handles the next message of an actor.
    Listen(NodeId, Actor),
    /// A node's election timer expires.
    Timeout(NodeId),
    /// A node's pre-vote is won, whatever its voters would say: a pre-vote promises nothing.
    WinPreVote(NodeId),
    /// A leader's heartbeats are due; messages under way for too long count as lost.
    Heartbeat(NodeId),
    /// A client gives a leader this many commands.
    Propose(NodeId, u64),
    /// An operator asks a leader for a change of the members.
    Change(NodeId, Change),
    /// An operator asks a leader for a leadership transfer, to this node or to the best one.
    TransferLeadership(NodeId, Option<NodeId>),
    /// A client asks a node to read.
    Read(NodeId, ReadToken),
    /// The same, where a lease suffices.
    ReadByLease(NodeId, ReadToken),
    /// A node is to take a snapshot of its state.
    Snapshot(NodeId),
    /// A node's disk is about to be full (true), or has room again (false).
    Full(NodeId, bool),
    /// A node that is down loses the payload of an entry.
    Lose(NodeId, Index, Fault),
    /// A node that is down loses its snapshot.
    LoseSnapshot(NodeId),
    /// A node loses everything but its disk; the write under way may be torn.
    Crash(NodeId, Option<Torn>),
    /// A node that is down starts again.
    Restart(NodeId),
    /// A millisecond passes.
    Wait,
}

/// An actor beside `Consensus`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Actor {
    /// Counts votes of campaigns.
    Collector,
    /// Writes and reads the log.
    Disk,
    /// Writes snapshots, beside the log.
    Keeper,
    /// Applies entries to the state machine.
    Applier,
    /// Replicates to this peer.
    Replicator(NodeId),
}

impl Actor {
    /// The peer of a replicator.
    ///
    /// # Panics
    /// If it is another actor.
    #[must_use]
    pub fn peer(self) -> NodeId {
        match self {
            Self::Replicator(peer) => peer,
            other => unreachable!("{other:?} is no replicator"),
        }
    }
}

/// A message to an actor, from `Consensus` or from the network.
#[derive(Clone, Hash, Debug)]
pub enum Ask {
    /// To the collector: count votes on this ballot from now on.
    Open(Ballot),
    /// To the collector: a vote arrived.
    Count {
        /// The campaign that it answers.
        campaign: u64,
        /// The node that voted.
        voter: NodeId,
        /// Whether the vote was granted.
        granted: bool,
    },
    /// To the collector: forget the ballot.
    Close,
    /// To a replicator: a leadership begins. The fields are those of
    /// [`ReplicationStart`](quorate_raft::ReplicationStart).
    Start {
        /// The term of the leadership.
        term: Term,
        /// The first epoch.
        epoch: u64,
        /// The last entry that may be sent, by index.
        log_last: Index,
        /// The commit index.
        commit: Index,
        /// The latest read round; 0 before the first.
        round: u64,
        /// Whether the peer is the witness.
        outlines: bool,
    },
    /// To a replicator: the leadership is over.
    Stop,
    /// To a replicator: the leader appended entries.
    Replicate {
        /// The entry before them.
        previous: EntryId,
        /// The entries, in one batch.
        batch: Batch,
    },
    /// To a replicator: entries up to this index may be sent.
    ReplicateTo(Index),
    /// To a replicator: the commit index of the leader.
    Committed(Index),
    /// To a replicator: the heartbeat interval has passed.
    Beat,
    /// To a replicator: a read round was opened.
    Round(u64),
    /// To a replicator: the peer answered a heartbeat.
    Heard,
    /// To a replicator: messages under way may be lost.
    LinkChanged,
    /// To a replicator: the peer acknowledged an append.
    Acknowledged {
        /// The epoch of the append.
        epoch: u64,
        /// The last entry up to which the peer's log matches, durably.
        matched: Index,
    },
    /// To a replicator: the peer rejected an append.
    Rejected {
        /// The epoch of the append.
        epoch: u64,
        /// The entry that the peer lacks.
        previous: Index,
        /// The entry just before which the logs may agree.
        next: Index,
        /// The last entry of the peer's log.
        last: Index,
    },
    /// To a replicator: the entries that it wanted.
    Found {
        /// The entry before them.
        previous: EntryId,
        /// The checksum of the record of `previous`, if it is at hand.
        checksum: Option<u32>,
        /// The entries; `None` for a bare probe.
        batch: Option<Batch>,
    },
    /// To a replicator: the log changed while its entries were read.
    Overtaken,
    /// To a replicator: the entries that it wanted were compacted away.
    Gone,
    /// To a replicator: the peer needs a snapshot.
    Needs {
        /// The epoch of the append that the peer answered.
        epoch: u64,
        /// The last entry that the snapshot must cover.
        from: Index,
    },
    /// To a replicator: the snapshot that it wanted.
    Offer(Snapshot),
    /// To a replicator: the peer answered a chunk of a snapshot.
    Answered(SnapshotReply),
    /// To the disk: make this durable.
    Persist(Persist),
    /// To the disk: look up entries that a member lost.
    Serve {
        /// The member that lost them.
        to: NodeId,
        /// The entries that it asks for.
        repair: Repair,
    },
    /// To the keeper: keep a snapshot of this node's own state.
    Save(SnapshotBase),
    /// To the keeper: keep a snapshot that arrived.
    Install {
        /// The leader that sent it.
        from: NodeId,
        /// The epoch of its last chunk.
        epoch: u64,
        /// The prefix of the log that it covers.
        base: SnapshotBase,
    },
    /// To the applier: restore the newest snapshot, which covers at least this prefix.
    Restore(SnapshotBase),
    /// To the disk: read entries for a replicator.
    Read {
        /// The peer of the replicator.
        peer: NodeId,
        /// The term of its leadership.
        term: Term,
        /// The entry before them.
        previous: EntryId,
        /// The last entry.
        to: Index,
    },
    /// To the disk: read committed entries, for the applier.
    Load {
        /// The first entry.
        from: Index,
        /// The last entry.
        to: Index,
    },
    /// To the applier: apply these entries.
    Apply(Batch),
}

/// A message to `Consensus`, from an actor.
#[derive(Clone, Hash, Debug)]
pub enum Tell {
    /// From the collector: a ballot is decided.
    Decided {
        /// The term of the campaign.
        term: Term,
        /// The number of the campaign.
        campaign: u64,
        /// Whether it was won.
        won: bool,
    },
    /// From a replicator: the peer's durable log matches up to another index than before.
    Matched {
        /// The term of the leadership.
        term: Term,
        /// The last entry that matches.
        index: Index,
    },
    /// From a replicator: it wants entries.
    Fetch {
        /// The term of the leadership.
        term: Term,
        /// The entries, by index and term.
        want: Want,
    },
    /// From a replicator: it needs a snapshot.
    WantSnapshot {
        /// The term of the leadership.
        term: Term,
        /// The last entry that the snapshot must cover.
        at_least: Index,
    },
    /// From a replicator: the peer takes nothing of the snapshot that is sent to it.
    GivenUp {
        /// The term of the leadership.
        term: Term,
    },
    /// From the disk: writes are durable.
    Persisted {
        /// The last durable write.
        sequence: u64,
        /// Messages that waited for it, and may leave now.
        then: Vec<Outgoing>,
    },
    /// From the disk: entries that a replicator wanted.
    Read {
        /// The peer of the replicator.
        peer: NodeId,
        /// The term of its leadership.
        term: Term,
        /// The entry before them.
        previous: EntryId,
        /// The entries; none if the log changed meanwhile.
        batches: Vec<Batch>,
    },
    /// From the disk: entries to be applied.
    Loaded(Vec<Batch>),
    /// From the disk: entries that a member lost.
    Served {
        /// The member that lost them.
        to: NodeId,
        /// The entries that it asked for.
        repair: Repair,
        /// The entries that were found.
        batches: Vec<Batch>,
    },
    /// From the keeper: a snapshot of this node's own state is durable.
    Saved(SnapshotBase),
    /// From the keeper: a snapshot that arrived is durable.
    Installed {
        /// The leader that sent it.
        from: NodeId,
        /// The epoch of its last chunk.
        epoch: u64,
        /// The prefix of the log that it covers.
        base: SnapshotBase,
    },
    /// From the applier: entries up to this index are applied.
    Applied(Index),
}

/// News that a node shows to the outside, beside messages.
#[derive(Clone, PartialEq, Debug)]
pub enum Note {
    /// The state machine applied these entries.
    Applied(Batch),
    /// Reads may be served.
    ReadsReady {
        /// The entry that must be applied first.
        index: Index,
        /// The tokens of the reads.
        tokens: Vec<u64>,
    },
    /// Reads can't be served here.
    ReadsFailed {
        /// The tokens of the reads.
        tokens: Vec<u64>,
    },
    /// The state machine was restored from the snapshot of this prefix.
    Restored(SnapshotBase),
    /// A peer needs a snapshot, and the caller decides ([`Rules::serves_needs`](super::rules::Rules)).
    SnapshotWanted {
        /// The peer.
        peer: NodeId,
        /// The term of the leadership.
        term: Term,
        /// The last entry that the snapshot must cover.
        at_least: Index,
    },
    /// A message was ignored, for this reason.
    Refused(MessageRefusal),
    /// A candidate got no vote, because it writes a version that the state machine here can't apply.
    MachineUnknown,
    /// A rule explains a decision ([`Rules::observed`](super::rules::Rules)).
    Observed(Observation),
    /// Another node holds other content under the same entry id.
    Diverged {
        /// The id of the entry.
        at: EntryId,
        /// The other node.
        with: NodeId,
    },
    /// A member came with less than it held.
    DataLost {
        /// The member with the loss.
        member: NodeId,
        /// The last entry of its log.
        last: Index,
        /// Its holding: the last committed entry that it had acknowledged.
        held: Index,
    },
    /// A leadership transfer ended, and this node still leads.
    LeadershipTransferEnded {
        /// The node that was to lead.
        to: NodeId,
    },
    /// The node learned that it was removed, and stops.
    Removed {
        /// The entry with the configuration that removed it.
        at: Index,
    },
    /// The node saw a violation, and stops.
    Halt(Violation),
}
