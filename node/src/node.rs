//! The handle of a running node.

use crate::{
    actors::{
        applier::{Applier, Query},
        consensus::{Bounds, Clock, Granted},
        messages::{
            Administer, Caller, Operator, Outcome, Proposal, ReadCaller, Request, SnapshotCaller, Waiter, Wants,
        },
    },
    builder::Builder,
    config::Limits,
    error::{ChangeError, Failure, ProposeError, ReadError, SnapshotError, TransferError},
    fate::{End, Fate},
    gate::{Credit, Gate, Share},
    machine::StateMachine,
    sessions::Refusal,
    status::Status,
    turns::{Pulse, Turns},
};
use actix::Addr;
use bytes::Bytes;
use quorate_metrics::{NodeMetrics, ProposalResult, ReadMode, ReadResult};
use quorate_raft::{AdministerOutcome, Administration, Change, Index, Kind, NodeId};
use std::{fmt, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

/// A running node. Cheap to clone, usable from any thread and any tokio runtime. When the last clone is dropped, the node
/// shuts down.
pub struct Node<M: StateMachine> {
    pub(crate) shared: Arc<Shared<M>>,
    share: Option<Share>,
}

pub(crate) struct Shared<M: StateMachine> {
    pub(crate) id: NodeId,
    pub(crate) is_witness: bool,
    pub(crate) cluster: String,
    pub(crate) limits: Limits,
    /// For how long after its deadline a proposal's caller waits to hear whether it was begun with.
    pub(crate) says_late_within: Duration,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) clock: Clock,
    pub(crate) applier: Addr<Applier<M>>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) fate: Fate,
    pub(crate) closed: watch::Receiver<bool>,
    pub(crate) pulse: Pulse,
    pub(crate) metrics: NodeMetrics,
}

/// A command that was committed and applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Where it stands in the log.
    pub index: Index,
    /// What [`StateMachine::apply`] returned on the leader.
    pub reply: Bytes,
}

/// A snapshot that is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotTaken {
    /// The last entry that it covers; 0 if nothing was ever applied, and there is nothing to cover.
    pub index: Index,
}

/// Members that were changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MembersChanged {
    /// Where the configuration stands that is in force, and committed: for [`Change::expecting`].
    pub index: Index,
}

/// The result of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read<T> {
    /// The last entry that had been applied when it was taken.
    pub index: Index,
    /// What was read.
    pub value: T,
}

/// What a read promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consistency {
    /// It sees every write that was acknowledged, to anybody, before it began. Costs a round of heartbeats, shared by all
    /// reads that wait (read index, Ongaro's thesis §6.4); served by any node.
    Linearizable,
    /// The same, if no two nodes' clocks drift apart by more than [`Timing::clock_drift_max`](crate::Timing::clock_drift_max), all voters
    /// have the same [`Timing::election_timeout`](crate::Timing::election_timeout), and
    /// clocks count the time for which a machine is suspended (Linux; not a virtual machine that its host freezes). The leader answers
    /// by its lease, without asking anybody, if it has one; reads by lease make it have one (thesis §6.4.1). Another node asks the
    /// leader.
    Lease,
    /// It sees what this node happens to have applied, which may be behind by any amount. Costs nothing.
    Local,
    /// It sees what this node has applied, if the node can prove that this is not too old, by its own clock; otherwise the node asks
    /// the leader first, and if that does not answer in time the read is refused with [`ReadError::TooStale`]. A read that
    /// waits for its proof is refused within a heartbeat interval after it can't come in time any more.
    Bounded {
        /// At a moment between the call and its answer, it misses nothing that was committed longer ago than this. What costs a
        /// question is that nobody asked this node for a linearizable or bounded read for as long.
        max_age: Option<Duration>,
        /// It misses at most so many entries of those that were committed when the node last asked: at most `max_age` ago or, without
        /// that, for this very read.
        max_entries: Option<u64>,
    },
}

impl Node<()> {
    /// Begins to describe node `id` of the cluster named `cluster`.
    #[must_use]
    pub fn builder(id: NodeId, cluster: impl Into<String>) -> Builder {
        Builder::new(id, cluster.into())
    }
}

/// Only a name for [`Node::builder`] to hang on: it applies nothing.
impl StateMachine for () {
    fn apply(&mut self, _: Index, _: &[u8]) -> Bytes {
        Bytes::new()
    }
}

impl<M: StateMachine> Node<M> {
    pub(crate) fn new(shared: Shared<M>) -> Self {
        Self { shared: Arc::new(shared), share: None }
    }

    /// For how long its threads have not taken a turn: for a liveness probe. Waits for nothing, and each call asks them again, so call it
    /// about once a second: a thread that hangs is noticed that much late. A node that was started on its caller's thread
    /// ([`Builder::start_local`]) has none of its own, and always answers zero.
    #[must_use]
    pub fn turns(&self) -> Turns {
        self.shared.pulse.turns()
    }

    /// This node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    /// The same node, for one more client: what is asked through this handle, its clones and its sessions is also bounded by the
    /// client's own share ([`Limits::max_in_flight_per_client`]), so that it leaves places to others. Cheap: make one a
    /// connection, user or job.
    #[must_use]
    pub fn client(&self) -> Self {
        let (places, bytes) = self.shared.limits.of_client();
        Self { shared: Arc::clone(&self.shared), share: Some(Gate::share(places, bytes)) }
    }

    /// A place for a caller with so many bytes, or when it may be worth coming again.
    fn enter(&self, bytes: usize) -> Result<Credit, Duration> {
        self.shared.gate.enter(bytes, self.share.as_ref()).ok_or_else(|| self.retry_after())
    }

    pub(crate) fn retry_after(&self) -> Duration {
        self.shared.gate.retry_after()
    }

    /// Replicates a command and applies it on every node; any node takes it and forwards it to the leader.
    ///
    /// Resolves once it is committed (durable on a majority) and applied on the leader. Dropping the future cancels
    /// nothing.
    ///
    /// # Errors
    /// Only [`ProposeError::OutcomeUnknown`] may take effect after all; every other error means that it did not and will
    /// not.
    pub async fn propose(&self, command: impl Into<Bytes>) -> Result<Applied, ProposeError> {
        self.propose_by(command.into(), None).await
    }

    /// The same, for a caller that waits for so long: if nobody has begun with the command by then, neither this node nor the
    /// leader, nobody ever will, and it is refused with [`ProposeError::DeadlinePassed`]. If somebody has, and it is not
    /// applied, the outcome is unknown. The answer comes at most two heartbeat intervals after that.
    ///
    /// # Errors
    /// As [`Node::propose`].
    pub async fn propose_within(&self, command: impl Into<Bytes>, within: Duration) -> Result<Applied, ProposeError> {
        // Nobody waits for longer than a node can tell time.
        self.propose_by(command.into(), Instant::now().checked_add(within)).await
    }

    async fn propose_by(&self, command: Bytes, until: Option<Instant>) -> Result<Applied, ProposeError> {
        self.offer(Kind::Command, command.len(), command, until).await?.map_err(|refusal| match refusal {
            Refusal::Skipped => ProposeError::Skipped,
            // Only what a session says is ever refused like this.
            Refusal::Expired | Refusal::StaleSerial => ProposeError::OutcomeUnknown,
        })
    }

    /// Offers a command of so many bytes, with what a session says around it.
    pub(crate) async fn offer(
        &self,
        kind: Kind,
        command_bytes: usize,
        payload: Bytes,
        until: Option<Instant>,
    ) -> Result<Outcome, ProposeError> {
        let outcome = self.offer_once(kind, command_bytes, payload, until).await;
        let result = match &outcome {
            Ok(Ok(_)) => return outcome, // was counted where it was applied, or its answer arrived
            Ok(Err(Refusal::Expired)) => ProposalResult::SessionExpired,
            Ok(Err(Refusal::StaleSerial)) => ProposalResult::StaleSerial,
            Ok(Err(Refusal::Skipped)) => ProposalResult::Skipped,
            Err(error) => result_of(*error),
        };
        self.shared.metrics.proposals(result, 1);
        outcome
    }

    async fn offer_once(
        &self,
        kind: Kind,
        bytes: usize,
        payload: Bytes,
        until: Option<Instant>,
    ) -> Result<Outcome, ProposeError> {
        let shared = &*self.shared;
        let max = shared.limits.max_command_bytes;
        if bytes > max {
            return Err(ProposeError::TooLarge { bytes, max });
        }
        if !shared.fate.is_sound() {
            return Err(ProposeError::Stopped);
        }
        let credit = self.enter(payload.len()).map_err(|retry_after| ProposeError::Overloaded { retry_after })?;
        let (answer, answered) = oneshot::channel();
        let caller = Caller::Here(Waiter { answer, asked: Instant::now(), credit });
        shared
            .requests
            .send(Request::Propose(Proposal { kind, payload, caller, until }))
            .map_err(|_| ProposeError::Stopped)?;
        // An answer that never comes was lost with the node.
        let lost = Err(ProposeError::OutcomeUnknown);
        match until.and_then(|until| until.checked_add(shared.says_late_within)) {
            None => answered.await.unwrap_or(lost),
            Some(end) => match tokio::time::timeout_at(end, answered).await {
                Ok(outcome) => outcome.unwrap_or(lost),
                // It is in the log, or the node is too busy to say.
                Err(_) => lost,
            },
        }
    }

    /// Reads this node's copy of the state machine with `query`, under a promise of freshness. It runs on the state
    /// machine's thread, between two applies: keep it short.
    ///
    /// It waits for a leader, and for this node to apply what the leader confirms, for [`Timing::leader_wait`](crate::Timing::leader_wait)
    /// each; [`Node::read_within`] waits for as long as its caller says.
    ///
    /// # Errors
    /// If nobody leads, this node is behind or its disk is full, too much is in flight, or the node stops.
    pub async fn read<T: Send + 'static>(
        &self,
        consistency: Consistency,
        query: impl FnOnce(&M) -> T + Send + 'static,
    ) -> Result<Read<T>, ReadError> {
        self.read_by(consistency, None, query).await
    }

    /// The same, for a caller that waits for so long in all, be it less or more than the settings have it. A refusal comes at most
    /// a heartbeat interval after that.
    ///
    /// # Errors
    /// As [`Node::read`]. What passes for a lack of time says what it was that took too long: no leader, or this node being behind.
    pub async fn read_within<T: Send + 'static>(
        &self,
        consistency: Consistency,
        within: Duration,
        query: impl FnOnce(&M) -> T + Send + 'static,
    ) -> Result<Read<T>, ReadError> {
        // Nobody waits for longer than a node can tell time.
        self.read_by(consistency, Instant::now().checked_add(within), query).await
    }

    async fn read_by<T: Send + 'static>(
        &self,
        consistency: Consistency,
        until: Option<Instant>,
        query: impl FnOnce(&M) -> T + Send + 'static,
    ) -> Result<Read<T>, ReadError> {
        let (asked, shared) = (Instant::now(), &*self.shared);
        let outcome = self.read_at(consistency, until, query).await;
        let mode = match consistency {
            Consistency::Linearizable => ReadMode::Linearizable,
            Consistency::Lease => ReadMode::Lease,
            Consistency::Local => ReadMode::Local,
            Consistency::Bounded { .. } => ReadMode::Bounded,
        };
        let result = match &outcome {
            Ok(_) => ReadResult::Served,
            Err(ReadError::NoLeader) => ReadResult::NoLeader,
            Err(ReadError::TooStale { .. }) => ReadResult::TooStale,
            Err(ReadError::Behind { .. }) => ReadResult::Behind,
            Err(ReadError::StorageFull) => ReadResult::StorageFull,
            Err(ReadError::Overloaded { .. }) => ReadResult::Overloaded,
            Err(ReadError::Witness) => ReadResult::Witness,
            Err(ReadError::Stopped) => ReadResult::Stopping,
        };
        shared.metrics.reads(mode, result, 1);
        if outcome.is_ok() {
            shared.metrics.read_took(mode, asked.elapsed());
        }
        outcome
    }

    async fn read_at<T, Q>(
        &self,
        consistency: Consistency,
        until: Option<Instant>,
        mut query: Q,
    ) -> Result<Read<T>, ReadError>
    where
        T: Send + 'static,
        Q: FnOnce(&M) -> T + Send + 'static,
    {
        let shared = &*self.shared;
        if !shared.fate.is_sound() {
            return Err(ReadError::Stopped);
        }
        if shared.is_witness {
            return Err(ReadError::Witness);
        }
        let mut credit = self.enter(0).map_err(|retry_after| ReadError::Overloaded { retry_after })?;
        // What is proven when it is looked for may be too old a moment later; then it is asked for, once.
        for is_last in [false, true] {
            match self.read_once((consistency, until), query, credit, is_last).await? {
                Once::Read(read) => return Ok(read),
                Once::TooLate(again) => (query, credit) = again,
            }
        }
        Err(ReadError::NoLeader)
    }

    async fn read_once<T, Q>(
        &self,
        (consistency, until): (Consistency, Option<Instant>),
        query: Q,
        credit: Credit,
        is_last: bool,
    ) -> Result<Once<T, Q>, ReadError>
    where
        T: Send + 'static,
        Q: FnOnce(&M) -> T + Send + 'static,
    {
        let (shared, clock) = (&*self.shared, self.shared.clock);
        let wants = match consistency {
            Consistency::Linearizable => Some(Wants::Confirmed),
            Consistency::Lease => Some(Wants::ByLease),
            Consistency::Local | Consistency::Bounded { max_age: None, max_entries: None } => None,
            Consistency::Bounded { max_age, max_entries } => {
                Some(Wants::Within { bounds: Bounds { max_age, max_entries }, called: clock.now() })
            }
        };
        let Granted { index, bounded } = match wants {
            None => Granted { index: Index(0), bounded: None },
            Some(wants) => {
                let (answer, answered) = oneshot::channel();
                let request = Request::ReadIndex(ReadCaller::Here { answer, asked: Instant::now(), wants, until });
                shared.requests.send(request).map_err(|_| ReadError::Stopped)?;
                answered.await.unwrap_or(Err(ReadError::Stopped))?
            }
        };
        let (answer, answered) = oneshot::channel();
        let (status, wanted) = (shared.status.clone(), index);
        let run = Box::new(move |machine: Option<&M>, index| {
            // It may have waited for entries. What holds at this look holds at a moment between the call and its answer: nothing is
            // applied before the value is taken, and if the process stands still meanwhile the answer is late, and no worse.
            let holds = bounded.is_none_or(|bounded| bounded.holds(clock.now()));
            let refusal = || match bounded {
                Some(bounded) => bounded.too_stale(clock.now(), index),
                None if status.borrow().storage_full => ReadError::StorageFull,
                None => ReadError::Behind { entries: wanted.since(index) },
            };
            let outcome = match machine {
                Some(machine) if holds => {
                    let read = Read { index, value: query(machine) };
                    drop(credit);
                    Ok(Once::Read(read))
                }
                Some(_) if !is_last => Ok(Once::TooLate((query, credit))),
                _ => Err(refusal()),
            };
            // Whoever asked may have lost patience; nobody else wants the value.
            let _ = answer.send(outcome);
        });
        shared.applier.do_send(Query { index, until, run });
        answered.await.unwrap_or(Err(ReadError::Stopped))
    }

    /// Takes a snapshot of what this node has applied by now, and cuts the log behind it, but for
    /// [`Snapshots::keep_entries`](crate::Snapshots::keep_entries). Resolves when both are durable. If a snapshot is being
    /// written already, another one follows.
    ///
    /// # Errors
    /// If the state machine makes none, it could not be written, or the node stops.
    pub async fn snapshot(&self) -> Result<SnapshotTaken, SnapshotError> {
        let shared = &*self.shared;
        if !shared.fate.is_sound() {
            return Err(SnapshotError::Stopped);
        }
        let credit = self.enter(0).map_err(|retry_after| SnapshotError::Overloaded { retry_after })?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Snapshot(SnapshotCaller { answer, credit });
        shared.requests.send(request).map_err(|_| SnapshotError::Stopped)?;
        let index = answered.await.unwrap_or(Err(SnapshotError::Stopped))?;
        Ok(SnapshotTaken { index })
    }

    /// Changes the members, in one step; any node takes it and forwards it to the leader. Members that are to vote and are new
    /// are brought up to date first, for at most [`Timing::catch_up_wait`](crate::Timing::catch_up_wait). Resolves when the
    /// last configuration is committed. One change at a time.
    ///
    /// Never give an id that was removed to another data directory: the others remember whose log it was.
    ///
    /// # Errors
    /// Only [`ChangeError::OutcomeUnknown`] may come about after all.
    pub async fn change(&self, change: Change) -> Result<MembersChanged, ChangeError> {
        match self.administer(Administration::Change(change)).await {
            Some(AdministerOutcome::Changed(index)) => Ok(MembersChanged { index }),
            Some(AdministerOutcome::ChangeRefused(why)) => Err(ChangeError::Refused(why)),
            Some(_) => Err(ChangeError::OutcomeUnknown),
            None => Err(ChangeError::Stopped),
        }
    }

    /// Hands leadership over to a voter, or to the one whose log is longest; any node takes it and forwards it to the leader.
    /// Writes wait meanwhile, for at most about the longest election timeout; none fails for it. Resolves when the other leads,
    /// and says who leads then.
    ///
    /// # Errors
    /// If leadership stayed where it was, or nobody is known to lead.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        match self.administer(Administration::HandOver(to)).await {
            Some(AdministerOutcome::HandedOver(to)) => Ok(to),
            Some(AdministerOutcome::HandoverRefused(why)) => Err(TransferError::Refused(why)),
            Some(_) => Err(TransferError::OutcomeUnknown),
            None => Err(TransferError::Stopped),
        }
    }

    async fn administer(&self, what: Administration) -> Option<AdministerOutcome> {
        let shared = &*self.shared;
        if !shared.fate.is_sound() {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        let request = Request::Administer(Administer { what, operator: Operator::Here(answer) });
        shared.requests.send(request).ok()?;
        // An answer that never comes was lost with the node.
        Some(answered.await.unwrap_or(AdministerOutcome::Unknown))
    }

    /// What the node shows of itself: the latest, and through [`watch::Receiver::changed`] every change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.clone()
    }

    /// Takes no more requests, waits for the ones under way (at most
    /// [`Timing::leader_wait`](crate::Timing::leader_wait)), then ends the node. When it returns, everything that the node
    /// held (ports, files, locks) is free. Also returns if the node had failed.
    pub async fn shutdown(&self) {
        // A node that is gone already needs no asking.
        let _ = self.shared.requests.send(Request::Shutdown);
        let mut closed = self.shared.closed.clone();
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Resolves when the node has failed, with the cause; never, if it ends because it was asked to.
    pub async fn failed(&self) -> Failure {
        match self.shared.fate.ended().await {
            End::Failed(failure) => failure,
            End::Shutdown => std::future::pending().await,
        }
    }
}

/// What became of one attempt to read.
enum Once<T, Q> {
    Read(Read<T>),
    /// What it rested on had become too old meanwhile: here is what is needed to ask anew.
    TooLate((Q, Credit)),
}

fn result_of(error: ProposeError) -> ProposalResult {
    match error {
        ProposeError::NoLeader => ProposalResult::NoLeader,
        ProposeError::Overloaded { .. } => ProposalResult::Overloaded,
        ProposeError::DeadlinePassed => ProposalResult::DeadlinePassed,
        ProposeError::TooLarge { .. } => ProposalResult::TooLarge,
        ProposeError::StorageFull => ProposalResult::StorageFull,
        ProposeError::Stopped => ProposalResult::Stopping,
        ProposeError::Skipped => ProposalResult::Skipped,
        ProposeError::OutcomeUnknown => ProposalResult::OutcomeUnknown,
    }
}

impl<M: StateMachine> Clone for Node<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), share: self.share.clone() }
    }
}

impl<M: StateMachine> fmt::Debug for Node<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.shared.id).finish_non_exhaustive()
    }
}
