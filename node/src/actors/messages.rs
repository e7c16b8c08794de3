//! The messages between the actors of a node. A message that belongs to a term, a campaign or a
//! leadership carries it, and is dropped when it comes too late. The first line of each says which
//! actor sends it to which.

use super::{
    reporter::Reporter,
    stages::{Measured, Way},
};
use crate::{
    admission::Permit,
    comparison::Comparison,
    decisions::{
        callers::{self, Answer, Outcome},
        freshness::Granted,
        internal_entries::InternalEntry,
        reads::Wants,
        ticks::Reached,
    },
    error::{ProposeError, ReadError, RestoreError, SnapshotError},
    machine::WriteState,
    reports::{
        compose::Facts,
        report::{ElectionDeadline, ReplicationReport},
    },
    status::Halted,
};
use actix::{Addr, Message};
use bytes::Bytes;
use quorate_raft::{
    AdministerOutcome, Administration, Batch, Body, EntryId, Index, Kind, NodeId, Skip, SnapshotBase, SnapshotChunk,
    SnapshotReply, Term,
};
use quorate_storage::{SnapshotSource, StorageError};
use quorate_transport::network::Event;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

/// A handle → `Consensus`, through the stream of requests. Proposals, reads and snapshots have
/// passed admission control, which bounds them.
pub(crate) enum Request {
    /// Replicate this command.
    Propose(Offer),
    /// From which index on may a read be served here?
    ReadIndex(ReadCaller),
    /// A group of readers waits at the gate.
    ReadersWait,
    /// Keep the lease: it is read by, and less than half of it is left.
    RenewLease,
    /// Take a snapshot of what is applied by now.
    Snapshot(SnapshotCaller),
    /// Change the members, or transfer leadership.
    Administer(Administer),
    /// Append this internal entry, if this node leads in its term; there is no answer. From the tasks
    /// of the typed layer. A follower's claim comes another way: in a `Propose` of its own.
    Internal(InternalEntry),
    /// Open the newest snapshot: a backup reads it.
    OpenNewest(SourceCaller),
    /// Answer the callers, then end the node.
    Shutdown,
}

/// A command of a caller of this node's handle.
pub(crate) struct Offer {
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
    pub(crate) waiter: Waiter,
    /// The deadline: if the command was not appended or forwarded by then, it never is.
    pub(crate) until: Option<Instant>,
}

/// The caller that waits for the outcome of a command.
pub(crate) type Caller = callers::Caller<Waiter, Permit>;

/// The callers of consecutive entries.
pub(crate) type Callers = callers::Callers<Waiter, Permit>;

/// A caller of this node's handle, waiting for the outcome of its command.
pub(crate) struct Waiter {
    pub(crate) answer: oneshot::Sender<Told>,
    pub(crate) asked: Instant,
    pub(crate) permit: Permit,
}

impl Waiter {
    /// Tells the outcome. The place is given back first: a caller that has its answer may propose
    /// again at once.
    pub(crate) fn tell(self, outcome: Result<Outcome, ProposeError>) {
        self.send(Told { outcome, measured: None });
    }

    /// The same for the last caller of a batch, with whose answer the stages of the batch end.
    pub(crate) fn tell_last(self, outcome: Outcome, measured: Measured) {
        self.send(Told { outcome: Ok(outcome), measured: Some(Box::new(measured)) });
    }

    fn send(self, told: Told) {
        drop(self.permit);
        // The caller may have left; the outcome stands.
        let _ = self.answer.send(told);
    }
}

/// The answer to a caller of this node's handle.
pub(crate) struct Told {
    pub(crate) outcome: Result<Outcome, ProposeError>,
    /// The stages of its batch, if its answer is the last one.
    pub(crate) measured: Option<Box<Measured>>,
}

/// A caller of this node's handle, waiting for an index to read at.
pub(crate) struct ReadCaller {
    pub(crate) answer: ReadAnswer,
    pub(crate) asked: Instant,
    pub(crate) wants: Wants,
    /// Its deadline; without one, the node's settings decide.
    pub(crate) until: Option<Instant>,
}

/// The way to answer a [`ReadCaller`].
pub(crate) type ReadAnswer = oneshot::Sender<Result<Granted, ReadError>>;

/// An operator's request, and the way to answer the operator.
pub(crate) struct Administer {
    pub(crate) what: Administration,
    pub(crate) answer: OperatorAnswer,
}

/// The way to answer an operator of this node's handle.
pub(crate) struct OperatorAnswer {
    pub(crate) answer: oneshot::Sender<AdministerOutcome>,
    /// The node itself asks, and again if it is refused: no event tells that.
    pub(crate) is_automatic: bool,
}

/// A caller of this node's handle, waiting for a snapshot.
pub(crate) struct SnapshotCaller {
    pub(crate) answer: oneshot::Sender<Result<Index, SnapshotError>>,
    pub(crate) permit: Permit,
}

impl SnapshotCaller {
    /// Tells the outcome.
    pub(crate) fn tell(self, outcome: Result<Index, SnapshotError>) {
        drop(self.permit);
        // The caller may have left.
        let _ = self.answer.send(outcome);
    }
}

/// A caller of this node's handle, waiting for the newest snapshot to be opened.
pub(crate) struct SourceCaller {
    pub(crate) answer: oneshot::Sender<Result<Box<dyn SnapshotSource>, StorageError>>,
}

/// The network → `Consensus`: a message arrived, or a link changed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct NetworkEvent(pub(crate) Event);

/// `Consensus` → `ElectionTimer`: a new random deadline, for this term.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Arm {
    pub(crate) term: Term,
}

/// `Consensus` → `ElectionTimer`: a leader was heard; push the deadline out.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LeaderHeard {
    pub(crate) term: Term,
}

/// `ElectionTimer` → `Consensus`: the deadline that was armed in `term` has passed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ElectionTimeout {
    pub(crate) term: Term,
    /// The time since a leader was last heard, or since the start of the node. For events.
    pub(crate) silence: Duration,
}

/// `ElectionTimer` → `Consensus`: the node's thread did not run for this time, until now.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stalled {
    pub(crate) by: Duration,
}

/// `Consensus` → `VoteCollector`: a voter granted.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct VoteGranted {
    pub(crate) campaign: u64,
    pub(crate) voter: NodeId,
}

/// `Consensus` → `VoteCollector`: a voter denied.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct VoteDenied {
    pub(crate) campaign: u64,
    pub(crate) voter: NodeId,
}

/// `VoteCollector` → `Consensus`: a quorum granted.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ElectionWon {
    pub(crate) term: Term,
    pub(crate) campaign: u64,
}

/// `VoteCollector` → `Consensus`: no quorum can grant any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ElectionLost {
    pub(crate) term: Term,
    pub(crate) campaign: u64,
}

/// `Consensus` → every `Replicator` but a witness's: entries were appended to the leader's log.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub(crate) struct Replicate {
    pub(crate) previous: EntryId,
    pub(crate) batch: Batch,
}

/// `Consensus` → the witness's `Replicator`: the entries up to here may be sent.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct ReplicateTo {
    pub(crate) index: Index,
}

/// `Consensus` → every `Replicator`: the commit index, to be sent along from now on.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct CommitAdvanced {
    pub(crate) commit: Index,
}

/// `Consensus` → every `Replicator`: send a heartbeat of this read round now.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct HeartbeatNow {
    pub(crate) round: u64,
}

/// `Consensus` → the peer's `Replicator`: it acknowledged an append.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Acknowledged {
    pub(crate) epoch: u64,
    pub(crate) matched: Index,
}

/// `Consensus` → the peer's `Replicator`: it rejected an append.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Rejected {
    pub(crate) epoch: u64,
    pub(crate) previous: Index,
    pub(crate) next: Index,
    pub(crate) last: Index,
}

/// `Consensus` → the peer's `Replicator`: its link is up, or was lost.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LinkChanged;

/// `Consensus` → the peer's `Replicator`: it answered a heartbeat.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PeerHeard;

/// `Replicator` → `Consensus`: these entries are needed and not at hand.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct Fetch {
    pub(crate) term: Term,
    pub(crate) peer: NodeId,
    pub(crate) from: Index,
    pub(crate) bytes_max: usize,
}

/// `Consensus` → `Replicator`: the answer to [`Fetch`].
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum Fetched {
    /// Entries (or none, for a bare probe), the one before them, and its checksum if that
    /// is at hand.
    Entries { previous: EntryId, checksum: Option<u32>, batch: Option<Batch> },
    /// The log has changed since the request: ask again.
    Overtaken,
    /// Log compaction removed them.
    Compacted,
}

/// `Replicator` → `Consensus`: the peer's durable log is known to match up to `index`.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Matched {
    pub(crate) term: Term,
    pub(crate) peer: NodeId,
    pub(crate) index: Index,
}

/// `Consensus` → `Applier`: these entries are committed, and these callers wait for them.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Committed {
    pub(crate) batch: Batch,
    /// Runs of callers, in order of index; entries without a caller have none.
    pub(crate) groups: Vec<Group>,
}

/// Callers of consecutive entries of one batch, as it was proposed.
pub(crate) struct Group {
    pub(crate) callers: Callers,
    /// `None` if an earlier leadership appended it.
    pub(crate) way: Option<Way>,
}

/// `Applier` → `Consensus`: all entries up to `index` are applied; the answers are for callers
/// of other nodes.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Applied {
    pub(crate) index: Index,
    pub(crate) reached: Reached,
    pub(crate) answers: Vec<Answer>,
    /// The stages of batches of which these are the last answers.
    pub(crate) measured: Vec<Measured>,
    /// The comparison of replicas, if it has changed.
    pub(crate) comparison: Option<Box<Comparison>>,
    /// The next entry, if the state machine halted there.
    pub(crate) halted: Option<Arc<Halted>>,
}

/// `Consensus` → `Applier`: give a consistent view of the current state.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TakeState;

/// `Applier` → `Consensus`: the state as of `last`, to be written.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StateTaken {
    pub(crate) last: EntryId,
    /// The checksum of that entry's record.
    pub(crate) last_checksum: u32,
    /// `None` if the machine makes no snapshots.
    pub(crate) write: Option<WriteState>,
}

/// `Consensus`, or the start of the node → `Applier`: take over the state of this snapshot.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Restore {
    pub(crate) source: Box<dyn SnapshotSource>,
    /// Receives the outcome, with the entries that the snapshot says were skipped. Without a
    /// receiver, an error fails the node.
    pub(crate) done: Option<oneshot::Sender<Result<BTreeSet<Skip>, RestoreError>>>,
}

/// `Replicator` → `Consensus`: the peer needs a snapshot that reaches `at_least`.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct SnapshotWanted {
    pub(crate) term: Term,
    pub(crate) peer: NodeId,
    pub(crate) at_least: Index,
    /// The newest one can't be read: take another.
    pub(crate) anew: bool,
}

/// `Consensus` → the `Replicator` that wanted it: here it is. The entries after it stay in
/// the log meanwhile.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SnapshotOpened {
    pub(crate) source: Box<dyn SnapshotSource>,
}

/// `Replicator` → `Consensus`: the peer accepted nothing for a minute: the log is no longer
/// kept for it.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct GivenUp {
    pub(crate) term: Term,
    pub(crate) peer: NodeId,
}

/// `Consensus` → the peer's `Replicator`: the peer lost its state, so entries of the log
/// can't help it.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct NeedsSnapshot {
    pub(crate) epoch: u64,
    pub(crate) at_least: Index,
}

/// `Consensus` → the peer's `Replicator`: it answered a chunk of a snapshot.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct ChunkAnswered {
    pub(crate) reply: SnapshotReply,
}

/// `Consensus` → `SnapshotReceiver`: the leader of `term` sends a chunk of a snapshot that
/// this node needs.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ChunkArrived {
    pub(crate) term: Term,
    pub(crate) from: NodeId,
    pub(crate) chunk: SnapshotChunk,
}

/// `SnapshotReceiver` → `Consensus`: send this reply to the leader.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct SnapshotProgress {
    pub(crate) to: NodeId,
    pub(crate) reply: SnapshotReply,
}

/// `SnapshotReceiver` → `Consensus`: a snapshot has arrived, is checked, and durable.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SnapshotArrived {
    pub(crate) from: NodeId,
    pub(crate) epoch: u64,
    pub(crate) base: SnapshotBase,
}

/// `Node::watch_cluster` → `Reporter`: a watch has begun.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Look;

/// `Consensus` → `Reporter`: a member asks for reports, or reports.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReportArrived {
    pub(crate) from: NodeId,
    pub(crate) body: Body,
    /// The inbox's credit for it, returned once it is handled.
    pub(crate) credit: Option<OwnedSemaphorePermit>,
}

/// `Reporter` → `Consensus`: send this to a member, if it still is one.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Transmit {
    pub(crate) to: NodeId,
    pub(crate) body: Body,
}

/// `Reporter` → `Consensus` → `ElectionTimer` and every `Replicator`: state your facts for a report.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub(crate) struct Describe {
    pub(crate) to: Addr<Reporter>,
}

/// `Consensus` → `Reporter`: the facts about the node.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Described(pub(crate) Box<Facts>);

/// `ElectionTimer` → `Reporter`: the deadline, while the timer is armed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TimerDescribed(pub(crate) Option<ElectionDeadline>);

/// `Replicator` → `Reporter`: the replication to its peer.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PeerDescribed {
    pub(crate) peer: NodeId,
    pub(crate) replication: ReplicationReport,
}

/// The node → `Consensus` and `Applier`, `Consensus` → `ElectionTimer` and `Reporter`: the node has
/// ended: stop.
/// `Consensus` → `Replicator`: the leadership has ended: stop.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;
