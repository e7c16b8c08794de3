//! What the actors of a node are told, what they tell, and what a node shows.

use quorate_raft::{
    Ballot, Batch, EntryId, Index, NodeId, Outgoing, Persist, Snapshot, SnapshotBase, SnapshotReply, Term, Violation,
    Want, message::Repair,
};

/// The actors beside `Consensus`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Actor {
    /// Counts votes.
    Collector,
    /// The log's disk.
    Disk,
    /// Who writes snapshots, beside the log.
    Keeper,
    /// Who applies entries.
    Applier,
    /// Who replicates to this peer.
    Replicator(NodeId),
}

/// What an actor is told.
#[derive(Clone, Hash, Debug)]
pub enum Ask {
    /// The collector: count these votes from now on.
    Open(Ballot),
    /// The collector: a vote came in.
    Count {
        /// Of which campaign.
        campaign: u64,
        /// From whom.
        voter: NodeId,
        /// What.
        granted: bool,
    },
    /// The collector: forget the ballot.
    Close,
    /// A replicator: a leadership begins.
    Start {
        /// Its term.
        term: Term,
        /// The epoch that it begins in.
        epoch: u64,
        /// The last entry that may be sent.
        log_last: Index,
        /// Whether its peer keeps no commands.
        outlines: bool,
    },
    /// A replicator: it is over.
    Stop,
    /// A replicator: the leader's log grew.
    Replicate {
        /// The entry before.
        previous: EntryId,
        /// The entries.
        batch: Batch,
    },
    /// A replicator: entries up to here may be sent.
    ReplicateTo(Index),
    /// A replicator: the leader committed up to here.
    Committed(Index),
    /// A replicator: send a heartbeat now, of a new round or of the one before; without a round, also look for what was lost.
    Beat {
        /// The new round.
        round: Option<u64>,
    },
    /// A replicator: what was under way may be lost.
    LinkChanged,
    /// A replicator: the peer acknowledged an append.
    Acknowledged {
        /// Of which epoch.
        epoch: u64,
        /// How far it matches.
        matched: Index,
    },
    /// A replicator: the peer rejected an append.
    Rejected {
        /// Of which epoch.
        epoch: u64,
        /// The entry that it lacks.
        previous: Index,
        /// Behind where the logs may agree.
        next: Index,
        /// Where its log ends.
        last: Index,
    },
    /// A replicator: here is what it wanted.
    Found {
        /// The entry before.
        previous: EntryId,
        /// The entries, if there are any.
        batch: Option<Batch>,
    },
    /// A replicator: what it wanted was compacted away.
    Gone,
    /// A replicator: the peer needs a snapshot that reaches this far.
    Needs {
        /// As it said of which epoch.
        epoch: u64,
        /// How far.
        from: Index,
    },
    /// A replicator: here is the newest snapshot.
    Offer(Snapshot),
    /// A replicator: the peer answered a piece of it.
    Answered(SnapshotReply),
    /// The disk: make this durable.
    Persist(Persist),
    /// The disk: look up what a member lost.
    Serve {
        /// Who.
        to: NodeId,
        /// What.
        repair: Repair,
    },
    /// The keeper: keep a snapshot of this node's own state.
    Save(SnapshotBase),
    /// The keeper: keep a snapshot that arrived.
    Install {
        /// From whom.
        from: NodeId,
        /// In which epoch.
        epoch: u64,
        /// Which.
        base: SnapshotBase,
    },
    /// The applier: become what the newest snapshot holds, which reaches at least this far.
    Restore(SnapshotBase),
    /// The disk: read entries for a replicator.
    Read {
        /// Whose.
        peer: NodeId,
        /// Of which leadership.
        term: Term,
        /// The entry before.
        previous: EntryId,
        /// The last one.
        to: Index,
    },
    /// The disk: read committed entries to be applied.
    Load {
        /// The first one.
        from: Index,
        /// The last one.
        to: Index,
    },
    /// The applier: apply these.
    Apply(Batch),
}

/// What an actor tells `Consensus`.
#[derive(Clone, Hash, Debug)]
pub enum Tell {
    /// The collector: a ballot is decided.
    Decided {
        /// In which term.
        term: Term,
        /// Of which campaign.
        campaign: u64,
        /// How.
        won: bool,
    },
    /// A replicator: how far its peer matches has changed.
    Matched {
        /// Of which leadership.
        term: Term,
        /// To this.
        index: Index,
    },
    /// A replicator: it wants entries.
    Fetch {
        /// Of which leadership.
        term: Term,
        /// Which.
        want: Want,
    },
    /// The disk: everything up to here is durable.
    Persisted {
        /// The last write that is.
        sequence: u64,
        /// What may be said now.
        then: Vec<Outgoing>,
    },
    /// The disk: what a replicator wanted.
    Read {
        /// Whose.
        peer: NodeId,
        /// Of which leadership.
        term: Term,
        /// The entry before.
        previous: EntryId,
        /// What was found.
        batches: Vec<Batch>,
    },
    /// The disk: entries to be applied.
    Loaded(Vec<Batch>),
    /// The disk: what a member lost.
    Served {
        /// Who.
        to: NodeId,
        /// What.
        repair: Repair,
        /// What was found.
        batches: Vec<Batch>,
    },
    /// A replicator looks for a snapshot.
    Look {
        /// Of which leadership.
        term: Term,
        /// How far it must reach.
        at_least: Index,
    },
    /// The keeper: this node's snapshot is kept.
    Saved(SnapshotBase),
    /// The keeper: a snapshot that arrived is kept.
    Installed {
        /// From whom.
        from: NodeId,
        /// In which epoch.
        epoch: u64,
        /// Which.
        base: SnapshotBase,
    },
    /// The applier: how far it is.
    Applied(Index),
}

/// What a node shows to the outside beside messages.
#[derive(Clone, PartialEq, Debug)]
pub enum Note {
    /// Its state machine applied these.
    Applied(Batch),
    /// These reads may be served.
    ReadsReady {
        /// Once this is applied.
        index: Index,
        /// Which.
        tokens: Vec<u64>,
    },
    /// These reads can't be served here.
    ReadsFailed {
        /// Which.
        tokens: Vec<u64>,
    },
    /// Its state machine became what this snapshot holds.
    Restored(SnapshotBase),
    /// A message was not acted on, and why.
    Refused(&'static str),
    /// Another node holds other content under the same id.
    Diverged {
        /// The entry.
        at: EntryId,
        /// The other node.
        with: NodeId,
    },
    /// A member came with less than it held.
    DataLost {
        /// The member.
        member: NodeId,
        /// Where its log ends.
        last: Index,
        /// Its holding.
        held: Index,
    },
    /// Leadership stays with it, which was to go to another.
    HandoverEnded {
        /// To whom.
        to: NodeId,
    },
    /// It learned that it was removed, and stops.
    Removed {
        /// By which configuration.
        at: Index,
    },
    /// It saw what no cluster can do, and stops.
    Halt(Violation),
}
