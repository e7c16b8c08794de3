//! What the actors say to each other. Every message that belongs to a term, a campaign or a leadership carries it, and is
//! dropped when it comes too late. `ARCHITECTURE.md` has them all in one table.

use super::consensus::{Bounds, Granted};
use crate::{
    error::{ProposeError, ReadError, SnapshotError},
    gate::Credit,
    machine::WriteState,
    node, sessions,
};
use actix::Message;
use bytes::Bytes;
use quorate_raft::{
    AdministerOutcome, Administration, Batch, EntryId, Index, Kind, Moment, NodeId, Skip, SnapshotBase, SnapshotChunk,
    SnapshotReply, Term,
    mutants::{Mutant, live},
    session::LogTime,
};
use quorate_storage::{SnapshotSource, StorageError};
use quorate_transport::network::Event;
use std::{collections::BTreeSet, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// A handle → `Consensus`, through the bounded stream of requests.
pub(crate) enum Request {
    /// Replicate this.
    Propose(Proposal),
    /// From which index on may a read be served here?
    ReadIndex(ReadCaller),
    /// Take a snapshot of what is applied by now.
    Snapshot(SnapshotCaller),
    /// Change the members, or hand over.
    Administer(Administer),
    /// Open the newest snapshot: a backup reads it.
    OpenNewest(SourceCaller),
    /// Drain and end.
    Shutdown,
}

/// What an entry came to, once it was committed: only what a session's says is refused then.
pub(crate) type Outcome = Result<node::Applied, sessions::Refusal>;

/// A command, or what a session says without the leader's stamp, and who wants to know what becomes of it.
pub(crate) struct Proposal {
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
    pub(crate) caller: Caller,
    /// When nobody waits for it any more: whoever has not begun with it by then need not.
    pub(crate) until: Option<Instant>,
}

impl Proposal {
    /// Whether nobody waits for it any more.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// Who wants to know what becomes of a command.
pub(crate) enum Caller {
    /// A caller of this node's handle.
    Here(Waiter),
    /// Another node, that forwarded it in this term.
    There { node: NodeId, request: u64, term: Term, credit: Credit },
}

impl Caller {
    /// Whether another node forwarded it in another term. It is not taken then: once an entry of a later term is committed, that
    /// node looks in its log for what it forwarded, and what is not there must never get there.
    pub(crate) fn is_of_another_term(&self, now: Term) -> bool {
        matches!(self, Self::There { term, .. } if *term != now)
    }

    /// Whether nobody here waits for the answer any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Here(waiter) if waiter.answer.is_closed())
    }
}

/// A caller of this node's handle, waiting for the outcome of its command.
pub(crate) struct Waiter {
    pub(crate) answer: oneshot::Sender<Result<Outcome, ProposeError>>,
    pub(crate) asked: Instant,
    pub(crate) credit: Credit,
}

impl Waiter {
    /// Tells the outcome. The place inside is given back first: a caller that has its answer may come again at once.
    pub(crate) fn tell(self, outcome: Result<Outcome, ProposeError>) {
        if self.answer.is_closed() && live(Mutant::DroppedCallerKeepsPlace) {
            return std::mem::forget(self.credit);
        }
        drop(self.credit);
        // Whoever asked may have lost patience; what happened has happened all the same.
        let _ = self.answer.send(outcome);
    }
}

/// Who wants to know at what index it may read.
pub(crate) enum ReadCaller {
    /// A caller of this node's handle.
    Here {
        answer: oneshot::Sender<Result<Granted, ReadError>>,
        asked: Instant,
        wants: Wants,
        /// Until when it waits; if it did not say, as long as the node's settings have it.
        until: Option<Instant>,
    },
    /// Another node, whose callers wait for it.
    There { node: NodeId, request: u64, by_lease: bool },
}

/// What a read of this node's handle promises its caller.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wants {
    /// To be linearizable, whatever that takes.
    Confirmed,
    /// To be linearizable, if the leader's lease can be trusted.
    ByLease,
    /// To be behind by no more than this, when called for at this moment.
    Within { bounds: Bounds, called: Moment },
}

impl ReadCaller {
    /// Whether the leader's lease will do.
    pub(crate) fn is_by_lease(&self) -> bool {
        matches!(self, Self::Here { wants: Wants::ByLease, .. } | Self::There { by_lease: true, .. })
    }

    /// When no answer helps it any more, if one that comes later than `deadline` surely does not.
    ///
    /// A caller that said until when it waits is given neither less nor more.
    pub(crate) fn deadline(&self, deadline: Instant) -> Instant {
        let Self::Here { asked, wants, until, .. } = self else { return deadline };
        let deadline = until.unwrap_or(deadline);
        match wants {
            // What is asked for now is older than that by then.
            Wants::Within { bounds: Bounds { max_age: Some(age), .. }, .. } => {
                asked.checked_add(*age).map_or(deadline, |until| until.min(deadline))
            }
            _ => deadline,
        }
    }
}

/// What an operator wants, and who that is.
pub(crate) struct Administer {
    pub(crate) what: Administration,
    pub(crate) operator: Operator,
}

/// Who wants to know what becomes of it.
pub(crate) enum Operator {
    /// A caller of this node's handle.
    Here(oneshot::Sender<AdministerOutcome>),
    /// Another node, that forwarded it.
    There { node: NodeId, request: u64 },
}

/// A caller of this node's handle, waiting for a snapshot.
pub(crate) struct SnapshotCaller {
    pub(crate) answer: oneshot::Sender<Result<Index, SnapshotError>>,
    pub(crate) credit: Credit,
}

impl SnapshotCaller {
    /// Tells the outcome.
    pub(crate) fn tell(self, outcome: Result<Index, SnapshotError>) {
        drop(self.credit);
        // Whoever asked may have lost patience.
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
}

/// `ElectionTimer` → `Consensus`: the node's thread did not run for so long, until now.
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

/// `Consensus` → `Replicator`: what it fetched.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum Fetched {
    /// Entries (or none, for a bare probe), the one before them, and its checksum if that is at hand.
    Entries { previous: EntryId, checksum: Option<u32>, batch: Option<Batch> },
    /// The log no longer has them as they were asked for; ask again.
    Overtaken,
    /// They were compacted away.
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
    /// Runs of callers, in order of index; entries that nobody waits for have none.
    pub(crate) callers: Vec<Callers>,
    /// When it was committed.
    pub(crate) at: Instant,
}

/// The callers of consecutive entries, from `first` on.
pub(crate) struct Callers {
    pub(crate) first: Index,
    pub(crate) callers: Vec<Caller>,
}

/// `Applier` → `Consensus`: everything up to `index` is applied; these answers are for other nodes' callers.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Applied {
    pub(crate) index: Index,
    /// Of the last entry of a session among them.
    pub(crate) log_time: LogTime,
    pub(crate) answers: Vec<Answer>,
}

/// The outcome of a command that another node forwarded.
pub(crate) struct Answer {
    pub(crate) node: NodeId,
    pub(crate) request: u64,
    pub(crate) outcome: Outcome,
}

/// `Consensus` → `Applier`: give me a consistent view of the state as of now.
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

/// `Consensus`, or the edge before it runs → `Applier`: become what this snapshot holds.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Restore {
    pub(crate) source: Box<dyn SnapshotSource>,
    /// Who waits for the outcome, and for the entries that the snapshot says were skipped. If nobody does, the node lives on what was restored, or fails.
    pub(crate) done: Option<oneshot::Sender<Result<BTreeSet<Skip>, String>>>,
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

/// `Consensus` → the `Replicator` that wanted it: here it is. The entries behind it stay in the log meanwhile.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SnapshotOpened {
    pub(crate) source: Box<dyn SnapshotSource>,
}

/// `Replicator` → `Consensus`: the peer took nothing for so long that the log need not be kept for it any more.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct GivenUp {
    pub(crate) term: Term,
    pub(crate) peer: NodeId,
}

/// `Consensus` → the peer's `Replicator`: the log can't help it, though the log is there.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct NeedsSnapshot {
    pub(crate) epoch: u64,
    pub(crate) at_least: Index,
}

/// `Consensus` → the peer's `Replicator`: it answered a piece of a snapshot.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct PieceAnswered {
    pub(crate) reply: SnapshotReply,
}

/// `Consensus` → `SnapshotReceiver`: the leader of `term` sends a piece of a snapshot that this node needs.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PieceArrived {
    pub(crate) term: Term,
    pub(crate) from: NodeId,
    pub(crate) chunk: SnapshotChunk,
}

/// `SnapshotReceiver` → `Consensus`: tell the leader this.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct SnapshotProgress {
    pub(crate) to: NodeId,
    pub(crate) reply: SnapshotReply,
}

/// `SnapshotReceiver` → `Consensus`: a snapshot is here: whole, right and durable.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SnapshotArrived {
    pub(crate) from: NodeId,
    pub(crate) epoch: u64,
    pub(crate) base: SnapshotBase,
}

/// The node → `Consensus`, `Applier`, and `Consensus` → `ElectionTimer`: the node has ended; so do you. `Consensus` →
/// `Replicator`: the leadership has.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;
