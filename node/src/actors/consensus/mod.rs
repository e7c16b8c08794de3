//! `Consensus`: owns term, vote, role, membership, match indexes and commit index: the [`Replica`].
//!
//! Every handler has the same three steps: call one rule, perform the effects that it returned, look whether anything
//! changed that somebody waits for ([`Consensus::after_rule`]). It decides nothing by itself; what it adds to the rules is who
//! waits for what ([`Proposals`], [`Reads`]) and what the world sees ([`StatusPublisher`]).
//!
//! Here is what it owns and hears; `network_events` has what the network says, `effects` what it tells whom, `requests` where
//! proposals go, `reads`, `freshness`, `snapshots` and `repairs` what those names say.

mod administration;
mod automatic;
mod clock;
mod effects;
mod freshness;
mod large_commands;
mod network_events;
mod peers;
mod proposals;
mod reads;
mod repairs;
mod request_ids;
mod requests;
mod skips;
mod snapshots;
mod stages;
mod status_publisher;
#[cfg(test)]
mod tests;

pub(crate) use clock::Clock;
pub(crate) use freshness::{Bounds, Granted};
pub(crate) use peers::Peers;
pub(crate) use snapshots::Snapshotting;
pub(crate) use status_publisher::status_of;

use super::{
    Requests,
    election_timer::ElectionTimer,
    messages::{
        Applied, Arm, Committed, ElectionLost, ElectionTimeout, ElectionWon, Fetch, GivenUp, Matched, NetworkEvent,
        Request, SnapshotArrived, SnapshotProgress, SnapshotWanted, Stalled, StateTaken, Stop,
    },
    replicator::Replicator,
    vote_collector::VoteCollector,
};
use crate::{
    config::{Limits, Sessions, Timing},
    error::{Failure, ProposeError},
    fate::{Fate, Sentinel},
    gate::Gate,
    observe::ObservedNetwork,
    sessions::LogClock,
    settings::Compared,
    status::Status,
};
use actix::prelude::*;
use administration::Operators;
use automatic::Automation;
use effects::LoadFor;
use freshness::Freshness;
use large_commands::LargeCommands;
use proposals::Proposals;
use quorate_metrics::NodeMetrics;
use quorate_raft::{Effect, EntryId, Index, NodeId, Replica, Skip};
use quorate_storage::contract::{EntriesRead, Persisted, Storage, StorageFailed, StorageFull};
use quorate_transport::network::{Event, Introduction};
use reads::Reads;
use repairs::Stuck;
use request_ids::{DuplicateFilter, RequestIds};
use stages::Stages;
use status_publisher::StatusPublisher;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::{sync::watch, time::Instant};

/// The most commands that enter the log, or are forwarded, as one batch.
pub(crate) const BATCH_ENTRIES_MAX: usize = 4096;

/// The actor.
pub(crate) struct Consensus {
    replica: Replica,
    requests: Option<Requests>,
    effects: Vec<Effect>,
    proposals: Proposals,
    reads: Reads,
    freshness: Freshness,
    duplicates: DuplicateFilter,
    status: StatusPublisher,
    operators: Operators,
    automation: Automation,
    /// Who should lead rather than others, the best first.
    prefers: Vec<NodeId>,
    /// What this node states about itself.
    introduction: Introduction,
    peers: Peers,
    observed: Arc<ObservedNetwork>,
    reachable: BTreeSet<NodeId>,
    storage: Storage,
    loads: BTreeMap<u64, LoadFor>,
    next_load: u64,
    timer: Addr<ElectionTimer>,
    collector: Option<Addr<VoteCollector>>,
    replicators: BTreeMap<NodeId, Addr<Replicator>>,
    applier: Recipient<Committed>,
    snapshots: Snapshotting,
    /// The entries that this node skips, and those that peers skip whose lists differ.
    skips: Vec<Skip>,
    skips_of_others: BTreeMap<NodeId, Vec<Skip>>,
    /// Where the logs of others were last found to differ from this one.
    divergences: BTreeMap<NodeId, EntryId>,
    stuck: Stuck,
    /// Who got no vote because its state machine writes what the one here can't apply, and what it writes.
    machines_unknown: BTreeMap<NodeId, u32>,
    /// The highest write that is durable.
    durable_sequence: u64,
    /// Batches that the leader is persisting or committing, for the metrics of those stages.
    stages: Stages,
    /// Whoever was to take over did not, and nobody was told yet.
    ended_transfer: Option<NodeId>,
    stopping: Option<Instant>,
    tenure: Tenure,
    /// This node was removed, by the configuration of this entry: it stops.
    removed_at: Option<Index>,
    /// And that is the only reason why it stops.
    stops_as_removed: bool,
    clock: Clock,
    log_clock: LogClock,
    timing: Timing,
    limits: Limits,
    sessions: Sessions,
    gate: Arc<Gate>,
    /// What other nodes forwarded, and is not answered yet.
    gate_for_others: Arc<Gate>,
    large: LargeCommands,
    metrics: NodeMetrics,
    fate: Fate,
    _sentinel: Sentinel,
}

/// Whether this node has led.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tenure {
    Never,
    /// It does, or nobody is known to lead after it.
    Leads,
    /// Another was heard to lead after it.
    Over {
        since: Instant,
    },
}

/// What a `Consensus` is made of.
pub(crate) struct Parts {
    pub(crate) replica: Replica,
    pub(crate) requests: Requests,
    pub(crate) prefers: Vec<NodeId>,
    pub(crate) introduction: Introduction,
    pub(crate) peers: Peers,
    pub(crate) observed: Arc<ObservedNetwork>,
    pub(crate) storage: Storage,
    pub(crate) timer: Addr<ElectionTimer>,
    pub(crate) applier: Recipient<Committed>,
    pub(crate) skips: Vec<Skip>,
    pub(crate) snapshots: Snapshotting,
    pub(crate) status: watch::Sender<Status>,
    /// Random: no other life of this node has had it.
    pub(crate) life: u32,
    pub(crate) compared: Compared,
    pub(crate) clock: Clock,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    pub(crate) sessions: Sessions,
    pub(crate) gate: Arc<Gate>,
    pub(crate) metrics: NodeMetrics,
    pub(crate) fate: Fate,
}

impl Consensus {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            replica,
            requests,
            prefers,
            introduction,
            peers,
            observed,
            storage,
            timer,
            applier,
            skips,
            snapshots,
            status,
            life,
            compared,
            clock,
            timing,
            limits,
            sessions,
            gate,
            metrics,
            fate,
        } = parts;
        Self {
            status: StatusPublisher::new(&replica, status, compared, metrics.clone()),
            duplicates: DuplicateFilter::since(replica.term()),
            replica,
            requests: Some(requests),
            effects: Vec::new(),
            proposals: Proposals::new(RequestIds::new(life), metrics.clone()),
            reads: Reads::new(RequestIds::new(life)),
            freshness: Freshness::default(),
            operators: Operators::new(RequestIds::new(life)),
            automation: Automation::default(),
            prefers,
            introduction,
            peers,
            observed,
            reachable: BTreeSet::new(),
            storage,
            loads: BTreeMap::new(),
            next_load: 0,
            timer,
            collector: None,
            replicators: BTreeMap::new(),
            applier,
            skips,
            skips_of_others: BTreeMap::new(),
            snapshots,
            divergences: BTreeMap::new(),
            stuck: Stuck::default(),
            machines_unknown: BTreeMap::new(),
            durable_sequence: 0,
            stages: Stages::default(),
            ended_transfer: None,
            stopping: None,
            tenure: Tenure::Never,
            removed_at: None,
            stops_as_removed: false,
            clock,
            log_clock: LogClock::default(),
            timing,
            limits,
            sessions,
            gate,
            gate_for_others: Gate::new(limits.max_in_flight_proposals, limits.max_in_flight_bytes),
            large: LargeCommands::default(),
            metrics,
            _sentinel: fate.sentinel("Consensus"),
            fate,
        }
    }

    /// Calls a rule, performs what it wants done, and looks what has changed.
    fn rule(&mut self, ctx: &mut Context<Self>, rule: impl FnOnce(&mut Replica, &mut Vec<Effect>)) {
        if !self.fate.is_sound() {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        rule(&mut self.replica, &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect, ctx);
        }
        self.effects = effects;
        self.after_rule(ctx);
    }

    /// Looks what the last rule changed: tells the world, and lets those who waited for a leader go on.
    fn after_rule(&mut self, ctx: &mut Context<Self>) {
        let change = self.status.publish(&self.replica);
        if change.leader {
            self.log_clock.leads(self.replica.is_leader(), self.clock.now());
            self.tenure = match self.replica.leader() {
                Some(leader) if leader == self.replica.id() => Tenure::Leads,
                Some(_) if self.tenure == Tenure::Leads => Tenure::Over { since: Instant::now() },
                _ => self.tenure,
            };
            // Those whose leader is gone learn soon that the outcome is unknown; it may still be told until then.
            let soon = Instant::now() + self.timing.election_timeout.1 * 2;
            self.proposals.leader_changed(self.replica.leader(), soon);
            self.large.leader_changed();
            let stranded = self.reads.leader_changed();
            self.retry_reads(stranded, ctx);
            self.leader_changed_for_operators(ctx);
            if self.replica.leader().is_some() {
                self.retry_deferred(ctx);
            }
        }
        self.decide_stranded(ctx);
        let due = self.large.due(self.replica.commit());
        if !due.is_empty() {
            self.retry_proposals(due, ctx);
        }
        if let Some(to) = self.ended_transfer.take() {
            self.transfer_ended(to, ctx);
        }
        if self.introduction.cluster_id.is_none() {
            self.learn_cluster_id();
        }
        self.look_at_change();
        self.take_snapshot_if_due();
        self.serve_needs(ctx);
        // Callers whose command is committed and not yet applied wait at the state machine.
        let drained = || {
            self.proposals.is_empty()
                && self.large.is_empty()
                && self.replica.applied_index() == self.replica.dispatched()
                && self.replica.handing_over_to().is_none()
                && !self.is_taken_for_leader()
                && self.operators.are_answered()
        };
        if self.stopping.is_some_and(|deadline| drained() || deadline <= Instant::now()) {
            match self.removed_at {
                // Whoever leads counts on it again, or has yet to learn that it need not: that it is silent soon tells.
                Some(_) if self.replica.follows(self.clock.now()) => {}
                Some(at) => self.fate.fail(Failure::Removed { at }),
                None => self.fate.shut_down(),
            }
        }
    }

    /// Whoever leads hands over first, so that nobody has to wait for an election.
    fn begin_to_stop(&mut self, ctx: &mut Context<Self>) {
        self.stopping.get_or_insert(Instant::now() + self.timing.leader_wait);
        self.stops_as_removed = false;
        let now = self.clock.now();
        self.rule(ctx, |replica, out| {
            // If nobody can take over, it ends as it is.
            let _ = replica.hand_over(now, None, out);
        });
    }

    /// Whether others may still forward to this node what its successor should get. If it were gone by then, nobody could tell
    /// whether it had taken it.
    fn is_taken_for_leader(&self) -> bool {
        match self.tenure {
            Tenure::Never => false,
            // One that does not lead any more waits for its successor; one that does found nobody to hand over to.
            Tenure::Leads => !self.replica.is_leader(),
            Tenure::Over { since } => since.elapsed() < self.timing.heartbeat_interval,
        }
    }

    /// It has been added again before it had stopped.
    fn go_on_if_added_again(&mut self) {
        if self.removed_at.is_some() && self.replica.membership().contains(self.replica.id()) {
            tracing::info!(node = %self.replica.id(), "this node was added to the cluster again: it goes on");
            self.removed_at = None;
            self.stopping.take_if(|_| std::mem::take(&mut self.stops_as_removed));
        }
    }

    /// The cluster goes on without this node.
    fn removed(&mut self, at: Index) {
        tracing::warn!(node = %self.replica.id(), %at, "this node was removed from the cluster: it stops");
        self.removed_at.get_or_insert(at);
        if self.stopping.is_none() {
            self.stopping = Some(Instant::now() + self.timing.election_timeout.1);
            self.stops_as_removed = true;
        }
        let deferred = self.proposals.take_deferred();
        let outcomes = self.proposals.refuse(deferred, ProposeError::Stopped);
        self.answer_forwarded(outcomes);
    }

    /// Another configuration is in force, or it is committed now.
    fn members_changed(&mut self, ctx: &mut Context<Self>) {
        let peers = self.replica.peers();
        self.peers.are(&peers, self.replica.membership());
        self.observed.peers_are(&peers);
        self.status.members_changed(&self.replica);
        self.go_on_if_added_again();
        if !self.replica.is_as_configured() {
            self.fate.fail(Failure::NotAsConfigured { is_witness: self.replica.is_witness() });
        }
        if self.replica.is_leader() {
            self.replicate_to(&peers, ctx);
        }
    }

    /// States the cluster's id, once an entry that has it is committed.
    fn learn_cluster_id(&mut self) {
        let Some(id) = self.replica.cluster_id() else { return };
        tracing::info!(node = %self.replica.id(), "the cluster's id is {id}");
        self.introduction.cluster_id = Some(id);
        self.peers.introduce(self.introduction.clone());
        self.status.cluster_id_known(id);
    }

    /// What is looked at every heartbeat interval: deadlines of callers, and whether the others still live.
    fn housekeep(&mut self, ctx: &mut Context<Self>) {
        if !self.storage.is_alive() {
            self.fate.fail(Failure::ActorDied { actor: "storage" });
        }
        if !self.peers.are_alive() {
            self.fate.fail(Failure::ActorDied { actor: "PeerLink" });
        }
        let now = Instant::now();
        let outcomes = self.proposals.expire(now, self.no_leader_error());
        self.answer_forwarded(outcomes);
        self.expire_large(now);
        let late = self.reads.expire(now);
        self.refuse_reads(late);
        self.status.time_passed(&self.replica, self.gate.inside() as u64);
        self.peers.let_go();
        self.expire_operators(ctx);
        self.look_after_automation(ctx);
        self.look_after_losses();
        let now = self.clock.now();
        self.rule(ctx, |replica, out| replica.tick(now, out));
    }
}

impl Actor for Consensus {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.timer.do_send(Arm { term: self.replica.term() });
        ctx.run_interval(self.timing.heartbeat_interval, Self::housekeep);
        if let Some(requests) = self.requests.take() {
            Self::add_stream(requests, ctx);
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.stop_replicators();
        self.snapshots.stop();
        self.timer.do_send(Stop);
    }
}

impl StreamHandler<Vec<Request>> for Consensus {
    fn handle(&mut self, requests: Vec<Request>, ctx: &mut Self::Context) {
        let (mut proposals, mut reads) = (Vec::with_capacity(requests.len()), Vec::new());
        for request in requests {
            match request {
                Request::Propose(proposal) => proposals.push(proposal),
                Request::ReadIndex(caller) => reads.push(caller),
                Request::Snapshot(caller) => self.take_snapshot(caller),
                Request::Administer(administer) => self.administer(administer, ctx),
                Request::OpenNewest(caller) => self.open_newest(caller, ctx),
                Request::Shutdown => self.begin_to_stop(ctx),
            }
        }
        self.take_proposals(proposals, ctx);
        self.take_reads(reads, ctx);
        self.after_rule(ctx);
    }

    /// Every handle is gone: nobody can ask anything of this node any more.
    fn finished(&mut self, ctx: &mut Self::Context) {
        self.stopping.get_or_insert(Instant::now());
        self.after_rule(ctx);
    }
}

/// `Handler<$message>`: call one rule, perform its effects.
macro_rules! hear {
    ($($message:ty: |$this:ident, $pattern:pat_param, $ctx:ident| $body:expr;)+) => {$(
        impl Handler<$message> for Consensus {
            type Result = ();

            fn handle(&mut self, $pattern: $message, $ctx: &mut Self::Context) {
                let $this = self;
                $body;
            }
        }
    )+};
}

hear! {
    NetworkEvent: |this, NetworkEvent(event), ctx| match event {
        Event::Delivered(delivered) => this.delivered(delivered, ctx),
        Event::LinkUp { peer } => this.link_changed(peer, true, ctx),
        Event::LinkDown { peer } => this.link_changed(peer, false, ctx),
        Event::Introduced { peer, introduction } => {
            this.compare_skips(peer, &introduction.skips);
            this.status.introduced(peer, introduction, &this.replica);
        }
    };
    Stalled: |this, Stalled { by }, ctx| {
        let now = this.clock.now();
        this.rule(ctx, |replica, _| replica.stalled(now, by));
    };
    ElectionTimeout: |this, ElectionTimeout { term }, ctx| {
        let now = this.clock.now();
        if term == this.replica.term() {
            this.status.ballot_timed_out();
        }
        this.rule(ctx, |replica, out| replica.election_timeout(now, term, out));
    };
    ElectionWon: |this, ElectionWon { term, campaign }, ctx| {
        let now = this.clock.now();
        this.status.ballot_decided(true);
        this.rule(ctx, |replica, out| replica.election_won(now, term, campaign, out));
    };
    ElectionLost: |this, ElectionLost { term, campaign }, ctx| {
        this.status.ballot_decided(false);
        this.rule(ctx, |replica, out| replica.election_lost(term, campaign, out));
    };
    Persisted: |this, Persisted { sequence, then }, ctx| {
        for outgoing in then {
            this.send_persisted(outgoing);
        }
        this.durable_sequence = sequence;
        let now = this.clock.now();
        this.rule(ctx, |replica, out| replica.persisted(now, sequence, out));
        this.snapshots.persisted(sequence);
        this.stages.durable(this.replica.durable(), &this.metrics);
    };
    EntriesRead: |this, read, ctx| this.entries_read(read, ctx);
    StorageFull: |this, StorageFull { is_full }, ctx| this.storage_full(is_full, ctx);
    StorageFailed: |this, StorageFailed { error }, _ctx| this.fate.fail(Failure::Storage(error.to_string()));
    Matched: |this, Matched { term, peer, index }, ctx| if term == this.replica.term() {
        let now = this.clock.now();
        this.rule(ctx, |replica, out| replica.matched(now, peer, index, out));
    };
    Fetch: |this, fetch, _ctx| this.fetch(fetch);
    Stop: |_this, Stop, ctx| ctx.stop();
    Applied: |this, Applied { index, log_time, answers }, ctx| {
        this.log_clock.applied(log_time, this.clock.now());
        if this.fate.is_sound() {
            this.answer_applied(answers);
        }
        this.restored_up_to(index);
        this.rule(ctx, |replica, out| replica.applied(index, out));
    };
    StateTaken: |this, taken, ctx| this.state_taken(taken, ctx);
    SnapshotWanted: |this, wanted, ctx| this.snapshot_wanted(wanted, ctx);
    GivenUp: |this, given_up, _ctx| this.given_up(given_up);
    SnapshotProgress: |this, progress, _ctx| this.snapshot_progressed(progress);
    SnapshotArrived: |this, arrived, ctx| this.snapshot_arrived(arrived, ctx);
}
