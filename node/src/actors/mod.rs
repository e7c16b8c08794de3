//! The actors of a node, and the wiring between them.
//!
//! ```text
//! handles ──requests─▶ ┌───────────┐ ─Arm, LeaderHeard───▶ ElectionTimer    ─ElectionTimeout──▶
//!                      │           │ ─VoteGranted/Denied─▶ VoteCollector    ─ElectionWon/Lost─▶
//! peers ◀─▶ PeerLink ─▶│ Consensus │ ─Replicate, …───────▶ Replicator ×n    ─Fetch, Matched───▶
//!                      │           │ ─ChunkArrived───────▶ SnapshotReceiver ─SnapshotArrived──▶
//!         (transport)  │           │ ─Persist────────────▶ LogWriter        ─Persisted────────▶
//!                      └───────────┘ ─Committed──────────▶ Applier          ─Applied──────────▶
//!                                                             └────answers────▶ callers
//! ```
//!
//! The messages on the right go to `Consensus`. These actors share the node's thread, where a
//! message costs a tenth of a microsecond; only `LogWriter` and `Applier`, which may block, have a
//! thread each. The bytes of snapshots are written and read on threads of a pool (`blocking`).

pub(crate) mod applier;
pub(crate) mod blocking;
pub(crate) mod clock;
pub(crate) mod consensus;
pub(crate) mod election_timer;
pub(crate) mod load;
pub(crate) mod messages;
mod recovery;
pub(crate) mod replicator;
pub(crate) mod reporter;
pub(crate) mod requests;
pub(crate) mod snapshot_receiver;
pub(crate) mod stages;
mod stalls;
mod state;
pub(crate) mod vote_collector;

use crate::{
    admission::Admission,
    config::{Limits, Sessions, Snapshots, Timing},
    decisions::ticks::Ticks,
    error::StartError,
    events::{Events, What},
    lease_cell::LeaseCell,
    lifecycle::{End, Lifecycle},
    losses,
    machine::StateMachine,
    node::{Node, Shared},
    observe::{ObservedNetwork, ObservedStorage},
    publication,
    read_gate::Gate,
    reports::{stage_times::StageRecord, sync_times::SyncRecord},
    settings::Compared,
    turns::{Probe, Pulse},
    views::StateViews,
};
use actix::prelude::*;
use applier::Applier;
use blocking::Blocking;
use clock::Clock;
use consensus::{Connections, Consensus, NodeContext, Parts, Peers, Roles, SnapshotsUnderWay, Ticking, status_of};
use election_timer::ElectionTimer;
use load::Load;
use messages::{NetworkEvent, Stop};
use quorate_metrics::{ActorName, NodeMetrics};
use quorate_raft::{
    ClusterId, Index, MachineVersions, MemberMetadata, Membership, NodeId, Replica, Settings, Skip, tick,
};
use quorate_storage::{Completions, StorageHandle, contract::StorageThread};
use quorate_transport::network::{Inbox, Introduction, Links, Network, NetworkContext};
use rand::{
    Rng, SeedableRng,
    rngs::{SmallRng, StdRng},
};
use reporter::{Identity, Outlets, Reporter, Sources};
use requests::Requests;
use snapshot_receiver::SnapshotReceiver;
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};
use tokio::sync::{mpsc, watch};

/// The parts and settings that a node is started with.
pub(crate) struct Plan {
    pub(crate) id: NodeId,
    pub(crate) cluster: String,
    pub(crate) membership: Membership,
    /// Whether this node is a witness.
    pub(crate) is_witness: bool,
    /// The addresses at which this node dials others, unless an operator has given them
    /// another address since.
    pub(crate) addresses: BTreeMap<NodeId, String>,
    pub(crate) preferred_leaders: Vec<NodeId>,
    pub(crate) network: Box<dyn Network>,
    pub(crate) storage: StorageHandle,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    pub(crate) snapshots: Snapshots,
    pub(crate) sessions: Sessions,
    pub(crate) machine: MachineVersions,
    /// The most that a service keeps, which the ticks of this node carry while it leads.
    pub(crate) bounds: tick::Bounds,
    /// The entries that the operator has named to be skipped.
    pub(crate) skips: BTreeMap<Index, Skip>,
    /// Whether the state of the newest snapshot is left out.
    pub(crate) discards_state: bool,
    /// The node's own metadata, to be published.
    pub(crate) metadata: Option<MemberMetadata>,
    pub(crate) metrics: NodeMetrics,
    pub(crate) seed: Option<u64>,
    pub(crate) lifecycle: Lifecycle,
}

/// Starts every actor of a node: those that may block on threads of their own, or all of them
/// on this thread.
pub(crate) async fn launch<M: StateMachine>(
    plan: Plan,
    machine: M,
    threads: bool,
) -> Result<(Node<M>, Running), StartError> {
    let Plan {
        id,
        cluster,
        membership,
        is_witness,
        addresses,
        preferred_leaders,
        network,
        storage,
        timing,
        limits,
        snapshots,
        sessions,
        machine: machine_versions,
        bounds,
        skips,
        discards_state,
        metadata,
        metrics,
        seed,
        lifecycle,
    } = plan;
    // It starts before the log is read, so that events of the recovery have a time.
    let clock = Clock::start();
    let events = Events::new(id, clock, metrics.clone());
    lifecycle.tells(events.clone());
    // The context gives an address before the actor exists: storage and network need one
    // to be started.
    let context = Context::<Consensus>::new();
    let consensus = context.address();

    let load = Load::new(metrics.clone());
    let of_storage = load.clone();
    let storage = storage.spawned_by(move |task| drop(actix::spawn(of_storage.measured(ActorName::LogWriter, task))));
    let mut storage = match threads {
        true => storage.start()?,
        false => storage.start_here(),
    };
    let mut held = Threads { storage: storage.take_thread(), applier: None };
    let syncs = Arc::new(SyncRecord::default());
    let stages = Arc::new(StageRecord::new());
    let observer =
        ObservedStorage::new((metrics.clone(), load.clone()), threads.then(|| events.clone()), Arc::clone(&syncs));
    let mut recovered =
        match recovery::recover(&storage, &cluster, id, Completions::to(&consensus), observer, &events).await {
            Ok(recovered) => recovered,
            Err(error) => return Err(held.end_for(error)),
        };
    let discarded = discards_state.then(|| recovery::discard_state(&events, &mut recovered)).flatten();
    // The log need not have the configuration any more.
    let membership = discarded.map_or(membership, |base| base.membership);
    let mut random = seed.map_or_else(SmallRng::from_os_rng, SmallRng::seed_from_u64);
    let life = random.random();
    // A clone, so that the numbers of the timer do not depend on other draws.
    let mut drawn = random.clone();
    let incarnation = drawn.random();
    let settings = Settings {
        election_timeout_min: timing.election_timeout.0,
        election_timeout_max: timing.election_timeout.1,
        clock_drift_max: timing.clock_drift_max,
        stall_limit: timing.stall_limit.max(timing.election_timeout.1 * 2),
        machine: machine_versions,
        is_witness,
        cluster_id: Some(ClusterId::new(0, drawn.random())),
        ..Settings::new(quorate_storage::checksum)
    };
    let (faulty, has_snapshot) = (recovered.faulty.clone(), recovered.snapshot.is_some());
    // The promise from before a restart counts from now on, so it is kept long enough.
    let replica = Replica::new(id, membership, recovered, settings).started(clock.now());
    events.term_is(replica.term());
    let refused = recovery::refuse_if_alone(&replica, &faulty)
        .and_then(|()| recovery::refuse_if_tail_lost(&replica))
        .and_then(|()| recovery::refuse_if_not_as_configured(&replica));
    if let Err(error) = refused {
        return Err(held.end_for(error));
    }

    let machine = (!is_witness).then_some(machine);
    let uses_time = machine.as_ref().is_some_and(StateMachine::uses_time);
    let ticks = Ticks::new(uses_time, replica.log().last().index, timing.election_timeout.1).with_bounds(bounds);
    let ticking = Ticking::new(ticks, StdRng::from_rng(&mut drawn), seed.is_some());
    let shared_views = StateViews::new();
    let applier = Applier::new(
        id,
        (machine, Arc::clone(&shared_views)),
        skips.clone(),
        (consensus.clone().recipient(), consensus.clone().recipient()),
        timing.leader_wait,
        (metrics.clone(), load.clone(), events.clone()),
        lifecycle.clone(),
    );
    let applier = match threads {
        true => {
            let thread = match quorate_storage::contract::thread() {
                Ok(thread) => held.applier.insert(thread),
                Err(error) => return Err(held.end_for(StartError::Thread(error))),
            };
            load.start_in(ActorName::Applier, &thread.handle(), applier)
        }
        false => load.start(ActorName::Applier, applier),
    };
    // The entries that the snapshot skipped count as well, so that an entry may be taken off the
    // list once every snapshot covers it.
    let mut skips: BTreeSet<Skip> = skips.into_values().collect();
    if has_snapshot {
        match recovery::restore(&storage, applier.clone().recipient()).await {
            Ok(skipped) => skips.extend(skipped),
            Err(error) => return Err(held.end_for(error)),
        }
    }
    let skips: Vec<Skip> = skips.into_iter().collect();

    let compared = Compared::new(&timing, &limits, &sessions, &preferred_leaders, &replica);
    let introduction = Introduction {
        machine_version: machine_versions.newest,
        incarnation,
        cluster_id: replica.cluster_id(),
        settings: compared.stated(),
        skips,
    };
    let to_consensus = consensus.clone();
    let observed = Arc::new(ObservedNetwork::new(metrics.clone(), load.clone()));
    observed.peers_are(&replica.peers());
    let network_context = NetworkContext {
        cluster: cluster.clone(),
        node: id,
        introduction: introduction.clone(),
        election_timeout: timing.election_timeout.1,
        inbox: Inbox::new(move |event| to_consensus.do_send(NetworkEvent(event))),
        observer: observed.clone(),
    };
    let links = match network.start(network_context).await {
        Ok(links) => Rc::<dyn Links>::from(links),
        Err(error) => {
            drop(storage);
            return Err(held.end_for(StartError::Network(error)));
        }
    };
    // An address given at the start takes precedence over that of the configuration, unless an
    // operator gave the latter.
    let mut peers = Peers::new(links.clone(), addresses, events.clone());
    peers.set_members(&replica.peers(), replica.membership());
    peers.meet(id, replica.membership());

    let panic_guard = lifecycle.panic_guard("ElectionTimer");
    let timer = ElectionTimer::new(
        (consensus.clone().recipient(), consensus.clone().recipient(), consensus.clone().recipient()),
        (clock, &timing),
        random,
        metrics.clone(),
        load.clone(),
        events.clone(),
        panic_guard,
    );
    let timer = load.start(ActorName::ElectionTimer, timer);
    let blocking = Blocking::new(threads, metrics.clone());
    let save = storage.save_snapshot.clone();
    let receiver = SnapshotReceiver::new(
        save,
        consensus.clone().recipient(),
        consensus.clone().recipient(),
        blocking.clone(),
        metrics.clone(),
        events.clone(),
        lifecycle.clone(),
    );
    let receiver = load.start(ActorName::SnapshotReceiver, receiver);
    let admission = Admission::new(limits.max_in_flight_proposals, limits.max_in_flight_bytes);
    let (requests, received) = mpsc::unbounded_channel();
    let (status, watched) = watch::channel(status_of(&replica));
    let (outline, outlined) = watch::channel(watched.borrow().clone());
    let (leading, leads) = watch::channel(None);
    let lease = Arc::new(LeaseCell::new());
    let gate = Arc::new(Gate::default());
    let (views, viewed) = watch::channel(None);
    let reporter = Reporter::new(
        Identity { node: id, incarnation, recovered: replica.log().last().index },
        clock,
        timing,
        Sources { sync: syncs, stages: Arc::clone(&stages), events: events.clone() },
        Outlets { describe: consensus.clone().recipient(), transmit: consensus.clone().recipient() },
        views,
        lifecycle.panic_guard("Reporter"),
    );
    let reporter = load.start(ActorName::Reporter, reporter);
    let running = Consensus::new(Parts {
        replica,
        node: NodeContext {
            clock,
            timing,
            limits,
            sessions,
            metrics: metrics.clone(),
            stages: Arc::clone(&stages),
            load: load.clone(),
            events: events.clone(),
            lifecycle: lifecycle.clone(),
        },
        requests: Requests::new(received, Arc::clone(&admission), timing.busy_poll),
        lease: Arc::clone(&lease),
        gate: Arc::clone(&gate),
        preferred: preferred_leaders,
        connections: Connections::new(peers, observed, introduction),
        roles: Roles::new(timer, reporter.clone(), storage, applier.clone().recipient()),
        snapshots: SnapshotsUnderWay::new(
            snapshots,
            (applier.clone().recipient(), applier.clone().recipient(), applier.clone().recipient()),
            receiver,
            blocking.clone(),
        ),
        ticking,
        status,
        outline,
        leading,
        life,
        compared,
        admission: Arc::clone(&admission),
    });
    load.run(ActorName::Consensus, context, running);
    let stuck = events.clone();
    actix::spawn(losses::watch(outlined.clone(), timing, move |why| stuck.tell(What::StuckWithoutData { why })));
    if let Some(metadata) = metadata {
        let ask = publication::asker(requests.downgrade());
        actix::spawn(publication::keep(metadata, outlined, ask, move |flaw| {
            tracing::error!(node = %id, "the metadata of this node can't be published: {flaw}");
        }));
    }
    let (closing, closed) = watch::channel(false);
    let node = Node::new(Shared {
        id,
        is_witness,
        cluster,
        limits,
        says_late_within: timing.heartbeat_interval * 2,
        requests,
        admission,
        clock,
        gate,
        lease,
        shared_views,
        applier: applier.clone(),
        events: events.clone(),
        status: watched,
        leading: leads,
        reporter,
        views: viewed,
        lifecycle: lifecycle.clone(),
        closed,
        metrics,
        stages,
        pulse: Pulse {
            consensus: Probe::of(threads.then(Arbiter::current)),
            log_writer: Probe::of(held.storage.as_ref().map(StorageThread::handle)),
            applier: Probe::of(held.applier.as_ref().map(Arbiter::handle)),
        },
    });
    let stop_applier = applier.recipient();
    Ok((node, Running { lifecycle, events, links, consensus, stop_applier, blocking, threads: held, closing }))
}

/// The running actors of a node.
pub(crate) struct Running {
    lifecycle: Lifecycle,
    events: Events,
    links: Rc<dyn Links>,
    consensus: Addr<Consensus>,
    stop_applier: Recipient<Stop>,
    blocking: Blocking,
    threads: Threads,
    closing: watch::Sender<bool>,
}

impl Running {
    /// Waits until the node ends, for any reason, then ends every actor and frees all
    /// that they hold.
    pub(crate) async fn until_ended(self) {
        let end = self.lifecycle.ended().await;
        if end == End::Shutdown {
            self.events.tell(What::ShuttingDown);
        }
        self.links.close().await;
        // With it end the timer, collector, replicators and receiver, and the last addresses
        // of the storage.
        self.consensus.do_send(Stop);
        self.stop_applier.do_send(Stop);
        while self.consensus.connected() {
            tokio::task::yield_now().await;
        }
        // Before the storage: the writing of a snapshot must not outlast the lock on the directory.
        self.blocking.close().await;
        self.threads.end();
        self.events.end();
        self.closing.send_replace(true);
    }
}

/// The threads of the actors that may block.
struct Threads {
    storage: Option<StorageThread>,
    applier: Option<Arbiter>,
}

impl Threads {
    /// Waits for them to end.
    fn end(self) {
        if let Some(thread) = self.applier {
            thread.stop();
            // The actor that noticed a panic has reported it.
            let _ = thread.join();
        }
        if let Some(thread) = self.storage {
            thread.end();
        }
    }

    /// Ends the threads of a node that does not start.
    fn end_for(self, error: StartError) -> StartError {
        self.end();
        error
    }
}
