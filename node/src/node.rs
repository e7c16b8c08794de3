//! The handle of a running node.

use crate::{
    actors::{
        applier::Applier,
        clock::Clock,
        messages::{Administer, Look, OperatorAnswer, Request, SnapshotCaller},
        reporter::Reporter,
    },
    admission::{Admission, ClientQuota, Permit},
    builder::Builder,
    config::Limits,
    decisions::internal_entries::Leading,
    error::{ChangeError, Failure, SnapshotError, TransferError},
    events::{EventReader, Events},
    lease_cell::LeaseCell,
    lifecycle::{End, Lifecycle},
    machine::{At, StateMachine},
    read_gate::Gate,
    reports::{
        stage_times::StageRecord,
        watch::{ClusterWatch, Views},
    },
    results::{MembersChanged, SnapshotTaken},
    status::Status,
    turns::{Pulse, Turns},
    views::StateViews,
};
use actix::Addr;
use bytes::Bytes;
use quorate_metrics::NodeMetrics;
use quorate_raft::{AdministerOutcome, Administration, Change, NodeId};
use std::{fmt, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot, watch};

/// A running node. Cheap to clone, usable from any thread and any tokio runtime. When the last
/// clone is dropped, the node shuts down.
pub struct Node<M: StateMachine> {
    pub(crate) shared: Arc<Shared<M>>,
    quota: Option<ClientQuota>,
}

pub(crate) struct Shared<M: StateMachine> {
    pub(crate) id: NodeId,
    pub(crate) is_witness: bool,
    pub(crate) cluster: String,
    pub(crate) limits: Limits,
    /// Grace period after a proposal's deadline in which a definite answer may still arrive.
    pub(crate) says_late_within: Duration,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) clock: Clock,
    /// The gate of linearizable reads.
    pub(crate) gate: Arc<Gate>,
    /// The lease that this node has published.
    pub(crate) lease: Arc<LeaseCell>,
    /// The view of the state that callers share.
    pub(crate) shared_views: Arc<StateViews<M>>,
    pub(crate) applier: Addr<Applier<M>>,
    pub(crate) events: Events,
    pub(crate) status: watch::Receiver<Status>,
    /// The leadership of this node, while it leads.
    pub(crate) leading: watch::Receiver<Option<Leading>>,
    pub(crate) reporter: Addr<Reporter>,
    /// The views of the cluster, while this node is watched.
    pub(crate) views: watch::Receiver<Views>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) closed: watch::Receiver<bool>,
    pub(crate) pulse: Pulse,
    pub(crate) metrics: NodeMetrics,
    pub(crate) stages: Arc<StageRecord>,
}

impl Node<()> {
    /// A builder of node `id` of the cluster named `cluster`.
    #[must_use]
    pub fn builder(id: NodeId, cluster: impl Into<String>) -> Builder {
        Builder::new(id, cluster.into())
    }
}

/// Applies nothing: it gives [`Node::builder`] a type to be called on.
impl StateMachine for () {
    fn apply(&mut self, _: &At, _: &[u8]) -> Bytes {
        Bytes::new()
    }
}

impl<M: StateMachine> Node<M> {
    pub(crate) fn new(shared: Shared<M>) -> Self {
        Self { shared: Arc::new(shared), quota: None }
    }

    /// The time for which each of its threads has not taken a turn: for a liveness probe. It does
    /// not wait: each call asks the threads again, so a thread that hangs is noticed one call
    /// later; once a second is enough. A node that was started on its caller's thread
    /// ([`Builder::start_local`]) has none of its own, and always answers zero.
    #[must_use]
    pub fn turns(&self) -> Turns {
        self.shared.pulse.turns()
    }

    /// The id of this node, unique within the cluster.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    /// The name of its cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.shared.cluster
    }

    /// A handle for one more client: requests through it, its clones and its sessions are also
    /// bounded by the client's own quota ([`Limits::max_in_flight_per_client`]), so that other
    /// clients find places. Cheap: make one for each connection, user or job.
    #[must_use]
    pub fn client(&self) -> Self {
        let (places, bytes) = self.shared.limits.of_client();
        Self { shared: Arc::clone(&self.shared), quota: Some(Admission::client_quota(places, bytes)) }
    }

    /// Admits a caller with this many bytes; the error is the time after which to retry.
    pub(crate) fn enter(&self, bytes: usize) -> Result<Permit, Duration> {
        self.shared.admission.enter(bytes, self.quota.as_ref()).ok_or_else(|| self.retry_after())
    }

    pub(crate) fn retry_after(&self) -> Duration {
        self.shared.admission.retry_after()
    }

    /// Takes a snapshot of what this node has applied by now, and cuts the log up to its end, but
    /// for [`Snapshots::keep_entries`](crate::Snapshots::keep_entries). Resolves when both are
    /// durable. If a snapshot is being written already, another one follows.
    ///
    /// # Errors
    /// If the state machine makes none, it could not be written, or the node stops.
    pub async fn snapshot(&self) -> Result<SnapshotTaken, SnapshotError> {
        let shared = &*self.shared;
        if !shared.lifecycle.is_running() {
            return Err(SnapshotError::Stopped);
        }
        let permit = self.enter(0).map_err(|retry_after| SnapshotError::Overloaded { retry_after })?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Snapshot(SnapshotCaller { answer, permit });
        shared.requests.send(request).map_err(|_| SnapshotError::Stopped)?;
        let index = answered.await.unwrap_or(Err(SnapshotError::Stopped))?;
        Ok(SnapshotTaken { index })
    }

    /// Changes the members, in one step; any node takes it and forwards it to the leader. Members
    /// that are to vote and are new are brought up to date first, for at most
    /// [`Timing::catch_up_wait`](crate::Timing::catch_up_wait). Resolves when the last
    /// configuration is committed. One change at a time.
    ///
    /// Never give the id of a removed node to another data directory: the other members remember
    /// the log of that id.
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

    /// Transfers leadership to a voter, or to the one whose log is longest; where a voter's state
    /// machine may be [halted](crate::Status::halted), to one that keeps up and states no halt, if
    /// there is one. Any node takes the request and forwards it to the leader. Writes wait
    /// meanwhile, for at most about the longest election timeout; none fails. Resolves with the new
    /// leader.
    ///
    /// # Errors
    /// If the leader is unchanged, or the outcome is unknown.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        match self.administer(Administration::TransferLeadership(to)).await {
            Some(AdministerOutcome::Transferred(to)) => Ok(to),
            Some(AdministerOutcome::TransferRefused(why)) => Err(TransferError::Refused(why)),
            Some(_) => Err(TransferError::OutcomeUnknown),
            None => Err(TransferError::Stopped),
        }
    }

    async fn administer(&self, what: Administration) -> Option<AdministerOutcome> {
        let shared = &*self.shared;
        if !shared.lifecycle.is_running() {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        let answer = OperatorAnswer { answer, is_automatic: false };
        let request = Request::Administer(Administer { what, answer });
        shared.requests.send(request).ok()?;
        // An answer that never comes was lost with the node.
        Some(answered.await.unwrap_or(AdministerOutcome::Unknown))
    }

    /// The latest status of the node; [`watch::Receiver::changed`] waits for the next one.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.clone()
    }

    /// The events of the node from now on: campaigns and votes with their reasons, leaders, members,
    /// snapshots, faults. The reader has the last ones before now, too. Any number of readers is
    /// possible; a slow one loses events and is told how many. See [`events`](crate::events).
    #[must_use]
    pub fn events(&self) -> EventReader {
        self.shared.events.reader()
    }

    /// The time since the node's start, on the clock of its events.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.shared.clock.now().0
    }

    /// Watches the cluster: this node collects the states of all members, about ten times a second,
    /// while a watch exists. For operators: nothing that the views say is linearizable, and they are
    /// dropped before any message of Raft is.
    #[must_use]
    pub fn watch_cluster(&self) -> ClusterWatch {
        let watch = ClusterWatch::new(self.shared.views.clone());
        self.shared.reporter.do_send(Look);
        watch
    }

    /// Takes no more requests, waits for the ones under way (at most
    /// [`Timing::leader_wait`](crate::Timing::leader_wait)), then ends the node. When it
    /// returns, everything that the node held (ports, files, locks) is free. Also returns if
    /// the node had failed.
    pub async fn shutdown(&self) {
        // The node may be gone already.
        let _ = self.shared.requests.send(Request::Shutdown);
        let mut closed = self.shared.closed.clone();
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Resolves when the node has failed, with the cause; never, if it ends because it
    /// was asked to.
    pub async fn failed(&self) -> Failure {
        match self.shared.lifecycle.ended().await {
            End::Failed(failure) => failure,
            End::Shutdown => std::future::pending().await,
        }
    }
}

impl<M: StateMachine> Clone for Node<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), quota: self.quota.clone() }
    }
}

impl<M: StateMachine> fmt::Debug for Node<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.shared.id).finish_non_exhaustive()
    }
}
