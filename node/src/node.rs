//! The handle of a running node.

use crate::{
    actors::{
        applier::{Applier, Query},
        messages::{Administer, Caller, Operator, Outcome, Proposal, ReadCaller, Request, SnapshotCaller, Waiter},
    },
    builder::Builder,
    config::Limits,
    error::{ChangeError, Failure, ProposeError, ReadError, SnapshotError, TransferError},
    fate::{End, Fate},
    gate::Gate,
    machine::StateMachine,
    sessions::Refusal,
    status::Status,
};
use actix::Addr;
use bytes::Bytes;
use quorate_metrics::{NodeMetrics, ProposalResult, ReadMode, ReadResult};
use quorate_raft::{
    Change, Index, Kind, NodeId,
    message::{AdministerOutcome, Administration},
};
use std::{fmt, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

/// A running node. Cheap to clone, usable from any thread and any tokio runtime. When the last clone is dropped, the node
/// shuts down.
pub struct Node<M: StateMachine> {
    pub(crate) shared: Arc<Shared<M>>,
}

pub(crate) struct Shared<M: StateMachine> {
    pub(crate) id: NodeId,
    pub(crate) cluster: String,
    pub(crate) limits: Limits,
    pub(crate) retry_after: Duration,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) applier: Addr<Applier<M>>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) fate: Fate,
    pub(crate) closed: watch::Receiver<bool>,
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
    /// It sees what this node happens to have applied, which may be behind by any amount. Costs nothing.
    Local,
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
        Self { shared: Arc::new(shared) }
    }

    /// This node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    pub(crate) fn retry_after(&self) -> Duration {
        self.shared.retry_after
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
        let command = command.into();
        // Only what a session says is ever refused when it is applied.
        self.offer(Kind::Command, command.len(), command).await?.map_err(|_| ProposeError::OutcomeUnknown)
    }

    /// Offers a command of so many bytes, with what a session says around it.
    pub(crate) async fn offer(
        &self,
        kind: Kind,
        command_bytes: usize,
        payload: Bytes,
    ) -> Result<Outcome, ProposeError> {
        let outcome = self.offer_once(kind, command_bytes, payload).await;
        let result = match &outcome {
            Ok(Ok(_)) => return outcome, // was counted where it was applied, or its answer arrived
            Ok(Err(Refusal::Expired)) => ProposalResult::SessionExpired,
            Ok(Err(Refusal::StaleSerial)) => ProposalResult::StaleSerial,
            Err(error) => result_of(*error),
        };
        self.shared.metrics.proposals(result, 1);
        outcome
    }

    async fn offer_once(&self, kind: Kind, bytes: usize, payload: Bytes) -> Result<Outcome, ProposeError> {
        let shared = &*self.shared;
        let max = shared.limits.max_command_bytes;
        if bytes > max {
            return Err(ProposeError::TooLarge { bytes, max });
        }
        if !shared.fate.is_sound() {
            return Err(ProposeError::Stopped);
        }
        let overloaded = ProposeError::Overloaded { retry_after: shared.retry_after };
        let credit = shared.gate.enter().ok_or(overloaded)?;
        let (answer, answered) = oneshot::channel();
        let caller = Caller::Here(Waiter { answer, asked: Instant::now(), credit });
        shared
            .requests
            .send(Request::Propose(Proposal { kind, payload, caller }))
            .map_err(|_| ProposeError::Stopped)?;
        // An answer that never comes was lost with the node.
        answered.await.unwrap_or(Err(ProposeError::OutcomeUnknown))
    }

    /// Reads this node's copy of the state machine with `query`, under a promise of freshness. It runs on the state
    /// machine's thread, between two applies: keep it short.
    ///
    /// # Errors
    /// If nobody leads, too much is in flight, or the node stops.
    pub async fn read<T: Send + 'static>(
        &self,
        consistency: Consistency,
        query: impl FnOnce(&M) -> T + Send + 'static,
    ) -> Result<Read<T>, ReadError> {
        let (asked, shared) = (Instant::now(), &*self.shared);
        let outcome = self.read_at(consistency, query).await;
        let mode = match consistency {
            Consistency::Linearizable => ReadMode::Linearizable,
            Consistency::Local => ReadMode::Local,
        };
        let result = match &outcome {
            Ok(_) => ReadResult::Served,
            Err(ReadError::NoLeader) => ReadResult::NoLeader,
            Err(ReadError::Overloaded { .. }) => ReadResult::Overloaded,
            Err(ReadError::Stopped) => ReadResult::Stopping,
        };
        shared.metrics.reads(mode, result, 1);
        if outcome.is_ok() {
            shared.metrics.read_took(mode, asked.elapsed());
        }
        outcome
    }

    async fn read_at<T: Send + 'static>(
        &self,
        consistency: Consistency,
        query: impl FnOnce(&M) -> T + Send + 'static,
    ) -> Result<Read<T>, ReadError> {
        let shared = &*self.shared;
        if !shared.fate.is_sound() {
            return Err(ReadError::Stopped);
        }
        let overloaded = ReadError::Overloaded { retry_after: shared.retry_after };
        let credit = shared.gate.enter().ok_or(overloaded)?;
        let index = match consistency {
            Consistency::Local => Index(0),
            Consistency::Linearizable => {
                let (answer, answered) = oneshot::channel();
                let request = Request::ReadIndex(ReadCaller::Here { answer, asked: Instant::now() });
                shared.requests.send(request).map_err(|_| ReadError::Stopped)?;
                answered.await.unwrap_or(Err(ReadError::Stopped))?
            }
        };
        let (answer, answered) = oneshot::channel();
        let run = Box::new(move |machine: Option<&M>, index| {
            let read = machine.map(|machine| Read { index, value: query(machine) });
            drop(credit);
            // Whoever asked may have lost patience; nobody else wants the value.
            let _ = answer.send(read.ok_or(ReadError::NoLeader));
        });
        shared.applier.do_send(Query { index, run });
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
        let overloaded = SnapshotError::Overloaded { retry_after: shared.retry_after };
        let credit = shared.gate.enter().ok_or(overloaded)?;
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

fn result_of(error: ProposeError) -> ProposalResult {
    match error {
        ProposeError::NoLeader => ProposalResult::NoLeader,
        ProposeError::Overloaded { .. } => ProposalResult::Overloaded,
        ProposeError::TooLarge { .. } => ProposalResult::TooLarge,
        ProposeError::StorageFull => ProposalResult::StorageFull,
        ProposeError::Stopped => ProposalResult::Stopping,
        ProposeError::OutcomeUnknown => ProposalResult::OutcomeUnknown,
    }
}

impl<M: StateMachine> Clone for Node<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<M: StateMachine> fmt::Debug for Node<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.shared.id).finish_non_exhaustive()
    }
}
