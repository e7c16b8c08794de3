//! The actors of a node, and how they are wired.
//!
//! ```text
//!   handles ──requests──▶ ┌───────────┐ ──Arm, LeaderHeard──▶ ElectionTimer ──ElectionTimeout──▶ ┐
//!                         │           │ ──VoteGranted/Denied─▶ VoteCollector ──ElectionWon/Lost─▶ │ (to
//!   peers ◀──▶ PeerLink ─▶│ Consensus │ ──Replicate, …──────▶ Replicator ×n ──Fetch, Matched────▶ │ Consensus)
//!             (transport) │           │ ──Persist───────────▶ LogWriter     ──Persisted─────────▶ │
//!                         └───────────┘ ──Committed─────────▶ Applier       ──Applied───────────▶ ┘
//!                                                                └─────────answers─────────▶ callers
//! ```
//!
//! Everything on the left half and the replicators share the node's thread, where a message costs a tenth of a
//! microsecond; `LogWriter` and `Applier`, which may block, have a thread each.

pub(crate) mod applier;
pub(crate) mod consensus;
pub(crate) mod election_timer;
pub(crate) mod messages;
pub(crate) mod replicator;
pub(crate) mod vote_collector;

use crate::{
    config::{Limits, Timing},
    error::StartError,
    fate::{End, Fate},
    gate::Gate,
    machine::StateMachine,
    node::{Node, Shared},
    observe::{ObservedNetwork, ObservedStorage},
};
use actix::prelude::*;
use applier::Applier;
use consensus::{BATCH_ENTRIES_MAX, Clock, Consensus, Parts, status_of};
use election_timer::ElectionTimer;
use messages::{Heard, Request, Stop};
use quorate_metrics::NodeMetrics;
use quorate_raft::{Log, Membership, NodeId, Replica, Settings};
use quorate_storage::contract::{Completions, Recover, Recovered, Storage, StorageHandle, StorageThread};
use quorate_transport::network::{Inbox, Links, Local, Network};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context as Wake, Poll},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

/// Everything that a node is started with.
pub(crate) struct Plan {
    pub(crate) id: NodeId,
    pub(crate) cluster: String,
    pub(crate) membership: Membership,
    pub(crate) network: Box<dyn Network>,
    pub(crate) storage: StorageHandle,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    pub(crate) metrics: NodeMetrics,
    pub(crate) seed: Option<u64>,
    pub(crate) fate: Fate,
}

/// Starts every actor of a node: on threads of their own where they may block, or all on this thread.
pub(crate) async fn launch<M: StateMachine>(
    plan: Plan,
    machine: M,
    threads: bool,
) -> Result<(Node<M>, Running), StartError> {
    let Plan { id, cluster, membership, network, storage, timing, limits, metrics, seed, fate } = plan;
    // The address exists before the actor does: storage and network need it to be started.
    let context = Context::<Consensus>::new();
    let consensus = context.address();

    let mut storage = if threads { storage.start() } else { storage.start_here() };
    let storage_thread = storage.take_thread();
    let recovered = match recover(&storage, &cluster, id, &consensus, metrics.clone()).await {
        Ok(recovered) => recovered,
        Err(error) => {
            end_thread(storage_thread);
            return Err(error);
        }
    };
    let settings = Settings {
        election_timeout_min: timing.election_timeout.0,
        election_timeout_max: timing.election_timeout.1,
        stall_limit: timing.stall_limit.max(timing.election_timeout.1 * 2),
        ..Settings::new(quorate_storage::checksum)
    };
    let replica = Replica::new(id, membership.clone(), recovered, settings);

    let to_consensus = consensus.clone();
    let local = Local {
        cluster,
        node: id,
        inbox: Inbox::new(move |event| to_consensus.do_send(Heard(event))),
        observer: Arc::new(ObservedNetwork::new(metrics.clone(), membership.peers_of(id))),
    };
    let links = match network.start(local).await {
        Ok(links) => links,
        Err(error) => {
            drop(storage);
            end_thread(storage_thread);
            return Err(StartError::Network(error.to_string()));
        }
    };
    let link_of = |peer| (peer, links.link(peer, membership.address(peer).unwrap_or_default()));
    let link_by_peer: BTreeMap<_, _> = membership.peers_of(id).into_iter().map(link_of).collect();

    let mut random = seed.map_or_else(SmallRng::from_os_rng, SmallRng::seed_from_u64);
    let life = random.random();
    let sentinel = fate.sentinel("ElectionTimer");
    let timer = ElectionTimer::new(consensus.clone(), timing.election_timeout, random, sentinel).start();
    let applier_thread = threads.then(Arbiter::new);
    let applier = Applier::new(machine, consensus.clone(), timing.leader_wait, metrics.clone(), fate.clone());
    let applier = match &applier_thread {
        Some(thread) => Applier::start_in_arbiter(&thread.handle(), move |_| applier),
        None => applier.start(),
    };
    let gate = Gate::new(limits.max_in_flight_proposals);
    let (requests, received) = mpsc::unbounded_channel();
    let (status, watched) = watch::channel(status_of(&replica));
    context.run(Consensus::new(Parts {
        replica,
        requests: Requests::new(received, timing.busy_poll),
        links: link_by_peer,
        storage,
        timer,
        applier: applier.clone().recipient(),
        status,
        life,
        clock: Clock::start(),
        timing,
        limits,
        gate: Arc::clone(&gate),
        metrics: metrics.clone(),
        fate: fate.clone(),
    }));
    let (closing, closed) = watch::channel(false);
    let node = Node::new(Shared {
        id,
        limits,
        retry_after: timing.election_timeout.0,
        requests,
        gate,
        applier: applier.clone(),
        status: watched,
        fate: fate.clone(),
        closed,
        metrics,
    });
    let stop_applier = applier.recipient();
    Ok((node, Running { fate, links, consensus, stop_applier, storage_thread, applier_thread, closing }))
}

async fn recover(
    storage: &Storage,
    cluster: &str,
    member: NodeId,
    consensus: &Addr<Consensus>,
    metrics: NodeMetrics,
) -> Result<quorate_raft::Recovered, StartError> {
    let request = Recover {
        cluster: cluster.to_owned(),
        member,
        completions: Completions::to(consensus),
        observer: Arc::new(ObservedStorage(metrics)),
    };
    let Recovered { hard_state, base, terms, last, last_checksum, repairs, .. } = storage
        .recover
        .send(request)
        .await
        .map_err(|_| StartError::Storage("the storage actor died while it recovered the log".into()))?
        .map_err(|error| StartError::Storage(error.to_string()))?;
    for repair in repairs {
        tracing::warn!(node = %member, "recovery: {repair}");
    }
    tracing::info!(node = %member, term = %hard_state.term, "recovered a log that ends at entry {last}");
    Ok(quorate_raft::Recovered { hard_state, log: Log::new(base, terms, last, last_checksum), ..Default::default() })
}

/// A node's actors, while they run.
pub(crate) struct Running {
    fate: Fate,
    links: Box<dyn Links>,
    consensus: Addr<Consensus>,
    stop_applier: Recipient<Stop>,
    storage_thread: Option<StorageThread>,
    applier_thread: Option<Arbiter>,
    closing: watch::Sender<bool>,
}

impl Running {
    /// Waits until the node ends, for whatever reason, then ends every actor and frees everything that they hold.
    pub(crate) async fn until_ended(self) {
        let end = self.fate.ended().await;
        if end == End::Shutdown {
            tracing::info!("shutting down");
        }
        self.links.close().await;
        // Gone with it: timer, collector, replicators, and the last addresses of the storage.
        self.consensus.do_send(Stop);
        self.stop_applier.do_send(Stop);
        while self.consensus.connected() {
            tokio::task::yield_now().await;
        }
        if let Some(thread) = self.applier_thread {
            thread.stop();
            // A panic of its was reported by the actor that noticed.
            let _ = thread.join();
        }
        end_thread(self.storage_thread);
        self.closing.send_replace(true);
    }
}

fn end_thread(thread: Option<StorageThread>) {
    if let Some(thread) = thread {
        thread.end();
    }
}

/// The handles' requests, as they come: whatever has arrived since the last look is one batch.
pub(crate) struct Requests {
    received: mpsc::UnboundedReceiver<Request>,
    busy_poll: Duration,
    /// Until when to look again at once rather than to sleep. Of the real clock, also where tokio's is paused: a task that
    /// never sleeps would hold that back for ever.
    looking_until: Option<Instant>,
}

impl Requests {
    fn new(received: mpsc::UnboundedReceiver<Request>, busy_poll: Duration) -> Self {
        Self { received, busy_poll, looking_until: None }
    }
}

impl futures_util::Stream for Requests {
    type Item = Vec<Request>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Wake<'_>) -> Poll<Option<Self::Item>> {
        let mut batch = Vec::new();
        match self.received.poll_recv_many(cx, &mut batch, BATCH_ENTRIES_MAX) {
            Poll::Ready(count) => {
                self.looking_until = (!self.busy_poll.is_zero()).then(|| Instant::now() + self.busy_poll);
                Poll::Ready((count > 0).then_some(batch))
            }
            Poll::Pending => {
                if self.looking_until.is_some_and(|until| Instant::now() < until) {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}
