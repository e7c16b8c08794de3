//! `Consensus`: the actor around the [`Replica`], which owns term, vote, role, membership, match
//! indexes and commit index.
//!
//! The actor is a switchboard. A handler calls one rule, performs the effects that the rule
//! returned, and lets [`Consensus::after_rule`] publish the new status and continue with
//! requests that the rule made ready. The modules of [`decisions`](crate::decisions) decide the
//! rest.
//!
//! The modules here carry decisions out: `network_events` takes messages in, `effects` performs
//! the rules' effects, `requests`, `read_requests` and `administration` serve callers, `snapshots`
//! and `repairs` serve peers, `members` follows the configuration, `events` tells observers.

mod administration;
mod claims;
mod clients;
mod connections;
mod effects;
mod events;
mod internal;
mod load;
mod members;
mod network_events;
mod peers;
mod read_requests;
mod repairs;
mod reporting;
mod requests;
mod roles;
mod snapshots;
mod snapshots_under_way;
mod status_publisher;
#[cfg(test)]
mod tests;
mod ticks;
mod warnings;

pub(crate) use connections::Connections;
pub(crate) use peers::Peers;
pub(crate) use roles::Roles;
pub(crate) use snapshots_under_way::SnapshotsUnderWay;
pub(crate) use status_publisher::status_of;
pub(crate) use ticks::Ticking;

use super::{
    clock::Clock,
    load::Load,
    messages::{
        Administer, Applied, Arm, Describe, ElectionLost, ElectionTimeout, ElectionWon, Fetch, GivenUp, Matched,
        NetworkEvent, OperatorAnswer, Request, SnapshotArrived, SnapshotProgress, SnapshotWanted, Stalled, StateTaken,
        Stop, Transmit,
    },
    requests::Requests,
};
use crate::{
    admission::Admission,
    config::{Limits, Sessions, Timing},
    decisions::{
        automatic::Automation,
        claims::Claims,
        internal_entries::Leading,
        leases::Published,
        operators::{Operator, Operators},
        proposals::{self, Proposals},
        reads::Reads,
        stopping::{self, Stopping},
    },
    error::Failure,
    events::{Events, What, millis},
    lease_cell::LeaseCell,
    lifecycle::{Lifecycle, PanicGuard},
    read_gate::Gate,
    reports::stage_times::StageRecord,
    settings::Compared,
    status::{Halted, Status},
};
use actix::prelude::*;
use clients::Clients;
use events::Told;
use quorate_metrics::{ActorName, NodeMetrics};
use quorate_raft::{Effect, Index, NodeId, Replica};
use quorate_storage::contract::{EntriesRead, Persisted, Probe, StorageFailed, StorageFull};
use quorate_transport::network::Event;
use reporting::Noted;
use status_publisher::StatusPublisher;
use std::sync::Arc;
use tokio::sync::watch;
use warnings::Warnings;

/// The actor: the replica, the pieces that decide beside it, and the addresses of the other actors.
pub(crate) struct Consensus {
    replica: Replica,
    /// Effects of the rule that runs. Kept between rules, so that none allocates.
    effects: Vec<Effect>,
    node: NodeContext,
    /// The handles' requests, until the actor has started.
    requests: Option<Requests>,
    clients: Clients,
    operators: Operators<OperatorAnswer>,
    automation: Automation,
    status: StatusPublisher,
    lease: PublishedLease,
    at_gate: AtGate,
    connections: Connections,
    roles: Roles,
    snapshots: SnapshotsUnderWay,
    ticking: Ticking,
    claims: Claims,
    warnings: Warnings,
    told: Told,
    noted: Noted,
    stopping: Stopping,
    /// The entry at which the state machine halted.
    halted: Option<Arc<Halted>>,
    _panic_guard: PanicGuard,
}

/// The settings, clock, metrics and events of a node, and whether it still runs.
pub(crate) struct NodeContext {
    pub(crate) clock: Clock,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    pub(crate) sessions: Sessions,
    pub(crate) metrics: NodeMetrics,
    pub(crate) stages: Arc<StageRecord>,
    pub(crate) load: Load,
    pub(crate) events: Events,
    pub(crate) lifecycle: Lifecycle,
}

/// The cell of the lease, and what is published there.
struct PublishedLease {
    cell: Arc<LeaseCell>,
    now: Option<Published>,
}

impl PublishedLease {
    fn publish(&mut self, next: Option<Published>) {
        if self.now != next {
            self.cell.publish(next);
            self.now = next;
        }
    }
}

/// The gate of linearizable reads, and whether a group waits there. It is closed with this actor.
struct AtGate {
    gate: Arc<Gate>,
    waits: bool,
}

impl Drop for AtGate {
    fn drop(&mut self) {
        self.gate.close();
    }
}

/// The parts of a `Consensus`.
pub(crate) struct Parts {
    pub(crate) replica: Replica,
    pub(crate) node: NodeContext,
    pub(crate) requests: Requests,
    pub(crate) lease: Arc<LeaseCell>,
    pub(crate) gate: Arc<Gate>,
    /// Preferred leaders, best first.
    pub(crate) preferred: Vec<NodeId>,
    pub(crate) connections: Connections,
    pub(crate) roles: Roles,
    pub(crate) snapshots: SnapshotsUnderWay,
    pub(crate) ticking: Ticking,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) outline: watch::Sender<Status>,
    pub(crate) leading: watch::Sender<Option<Leading>>,
    /// Random: differs from that of every earlier process of this node.
    pub(crate) life: u32,
    pub(crate) compared: Compared,
    /// Admission of this node's own callers.
    pub(crate) admission: Arc<Admission>,
}

impl Consensus {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            replica,
            node,
            requests,
            lease,
            gate,
            preferred,
            connections,
            roles,
            snapshots,
            ticking,
            status,
            outline,
            leading,
            life,
            compared,
            admission,
        } = parts;
        let settings = proposals::Settings { timing: node.timing, limits: node.limits, sessions: node.sessions };
        Self {
            effects: Vec::new(),
            requests: Some(requests),
            clients: Clients::new(
                Proposals::new(life, replica.term(), settings),
                Reads::new(life, node.timing),
                admission,
                &node.limits,
            ),
            operators: Operators::new(life, replica.term(), node.timing),
            automation: Automation::new(preferred),
            status: StatusPublisher::new(
                &replica,
                (status, outline, leading),
                compared,
                (node.metrics.clone(), node.events.clone()),
            ),
            lease: PublishedLease { cell: lease, now: None },
            at_gate: AtGate { gate, waits: false },
            connections,
            roles,
            snapshots,
            ticking,
            claims: Claims::default(),
            warnings: Warnings::default(),
            told: Told::default(),
            noted: Noted::default(),
            stopping: Stopping::default(),
            halted: None,
            _panic_guard: node.lifecycle.panic_guard("Consensus"),
            node,
            replica,
        }
    }

    /// Calls a rule, publishes the lease as the rule left it, performs the effects that it returned,
    /// and continues with what they made ready.
    fn rule(&mut self, ctx: &mut Context<Self>, rule: impl FnOnce(&mut Replica, &mut Vec<Effect>)) {
        if !self.node.lifecycle.is_running() {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        rule(&mut self.replica, &mut effects);
        // Before any effect: `decisions/leases.rs` says why.
        self.lease.publish(self.lease_to_publish());
        for effect in effects.drain(..) {
            self.perform(effect, ctx);
        }
        self.effects = effects;
        self.after_rule(ctx);
    }

    fn lease_to_publish(&self) -> Option<Published> {
        Published::of(self.replica.lease(), self.replica.commit())
    }

    /// Publishes the status, continues with requests that the last rule made ready, and ends a node
    /// that stops and is done.
    fn after_rule(&mut self, ctx: &mut Context<Self>) {
        if self.status.publish(&self.replica).leader {
            self.leader_changed(ctx);
        }
        self.decide_stranded(ctx);
        if self.clients.proposals.is_large_due(self.replica.commit()) {
            self.decide_commands(ctx, Proposals::large_due);
        }
        if self.operators.has_ended_transfer() {
            self.decide_operators(ctx, |operators, _, view, out| operators.tell_of_ended_transfer(view, out));
            self.retry_deferred(ctx);
        }
        if self.connections.introduction.cluster_id.is_none() {
            self.learn_cluster_id();
        }
        if self.operators.has_change() {
            self.decide_operators(ctx, Operators::end_change_if_done);
        }
        self.take_snapshot_if_due();
        self.serve_needs(ctx);
        self.claim_if_owed();
        self.raise_schema_version();
        self.append_internal(ctx);
        self.tick_if_due(ctx);
        if self.stopping.is_stopping() {
            self.end_if_done();
        }
    }

    /// Another node leads, none does, or the same one leads another term.
    fn leader_changed(&mut self, ctx: &mut Context<Self>) {
        self.tell_transferred();
        self.stopping.leader_changed(self.replica.leader(), self.replica.id(), self.node.clock.now());
        self.decide_commands(ctx, |commands, now, view, _| commands.leader_changed(now, view));
        self.decide_reads(ctx, Reads::leader_changed);
        self.let_readers_in(ctx);
        self.decide_operators(ctx, Operators::leader_changed);
        if self.replica.leader().is_some() {
            self.retry_deferred(ctx);
        }
    }

    /// Answers the callers, and transfers leadership first, so that no election is needed; then
    /// the node ends.
    fn begin_to_stop(&mut self, ctx: &mut Context<Self>) {
        self.stopping.shutdown_requested(self.node.clock.now(), &self.node.timing);
        let (now, to) = (self.node.clock.now(), self.successor());
        self.told.transfer_why = Some("it shuts down");
        self.rule(ctx, |replica, out| {
            // Without a successor the node ends as it is.
            let _ = replica.transfer_leadership(now, to, out);
        });
        self.told.transfer_why = None;
    }

    fn end_if_done(&self) {
        let view = stopping::View {
            has_proposals: !self.clients.proposals.is_empty(),
            has_unapplied: self.halted.is_none() && self.replica.applied_index() != self.replica.dispatched(),
            has_operators: !self.operators.are_answered(),
            is_leader: self.replica.is_leader(),
            is_transferring: self.replica.transfer_target().is_some(),
            follows: self.stopping.is_removed() && self.replica.follows(self.node.clock.now()),
        };
        match self.stopping.decide(self.node.clock.now(), &self.node.timing, &view) {
            stopping::Decision::GoOn => {}
            stopping::Decision::ShutDown => self.node.lifecycle.shut_down(),
            stopping::Decision::EndAsRemoved(at) => self.node.lifecycle.fail(Failure::Removed { at }),
        }
    }

    /// The cluster goes on without this node.
    fn removed(&mut self, at: Index, ctx: &mut Context<Self>) {
        self.tell(What::Removed { at });
        self.stopping.removed(at, self.node.clock.now(), &self.node.timing);
        self.decide_commands(ctx, |commands, _, view, out| commands.removed(view, out));
    }

    fn housekeep_later(&self, ctx: &mut Context<Self>) {
        ctx.run_later(self.node.clock.left_of(self.node.timing.heartbeat_interval), |this, ctx| {
            this.housekeep(ctx);
            this.housekeep_later(ctx);
        });
    }

    /// Every heartbeat interval: gives up on requests past their deadline, and ends the node if a
    /// role actor is gone.
    fn housekeep(&mut self, ctx: &mut Context<Self>) {
        if !self.roles.storage.is_running() {
            self.node.lifecycle.fail(Failure::ActorDied { actor: "storage" });
        }
        if !self.connections.peers.are_running() {
            self.node.lifecycle.fail(Failure::ActorDied { actor: "PeerLink" });
        }
        let retry_after = self.clients.admission.retry_after();
        self.decide_commands(ctx, |commands, now, view, out| commands.expire(retry_after, now, view, out));
        self.decide_reads(ctx, Reads::expire);
        self.let_readers_in(ctx);
        self.status.time_passed(&self.replica, self.clients.admission.inside() as u64);
        self.measure_load();
        self.look_for_events();
        self.connections.peers.let_go();
        self.decide_operators(ctx, Operators::expire);
        self.take_automatic_step(ctx);
        let (now, view) = (self.node.clock.now(), self.ticks_view());
        self.ticking.ticks.looked(&view, now);
        self.rule(ctx, |replica, out| replica.tick(now, out));
    }
}

impl Actor for Consensus {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.roles.timer.do_send(Arm { term: self.replica.term() });
        self.housekeep_later(ctx);
        if let Some(requests) = self.requests.take() {
            Self::add_stream(requests, ctx);
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.lease.publish(None);
        self.stop_replicators();
        self.snapshots.stop();
        self.roles.timer.do_send(Stop);
        self.roles.reporter.do_send(Stop);
    }
}

impl StreamHandler<Vec<Request>> for Consensus {
    fn handle(&mut self, requests: Vec<Request>, ctx: &mut Self::Context) {
        let (mut offers, mut reads) = (Vec::with_capacity(requests.len()), Vec::new());
        for request in requests {
            match request {
                Request::Propose(offer) => offers.push(offer),
                Request::ReadIndex(caller) => reads.push(caller),
                Request::ReadersWait => self.readers_wait(ctx),
                Request::RenewLease => self.renew_lease(ctx),
                Request::Snapshot(caller) => self.take_snapshot(caller),
                Request::Administer(Administer { what, answer }) => {
                    self.decide_operators(ctx, |operators, now, view, out| {
                        operators.offered(what, Operator::Here(answer), now, view, out);
                    });
                }
                Request::Internal(entry) => self.ticking.internal.offered(entry),
                Request::OpenNewest(caller) => self.open_newest(caller, ctx),
                Request::Shutdown => self.begin_to_stop(ctx),
            }
        }
        self.take_offers(offers, ctx);
        self.take_reads(reads, ctx);
        self.after_rule(ctx);
    }

    /// The last handle is gone: no request can come any more.
    fn finished(&mut self, ctx: &mut Self::Context) {
        self.stopping.handles_dropped(self.node.clock.now());
        self.after_rule(ctx);
    }
}

/// Of the timer. Not counted as a message.
impl Handler<Probe> for Consensus {
    type Result = ();

    fn handle(&mut self, probe: Probe, _: &mut Self::Context) {
        probe.arrived();
    }
}

/// `Handler<$message>`: call one rule, perform its effects.
macro_rules! hear {
    ($($message:ty: |$this:ident, $pattern:pat_param, $ctx:ident| $body:expr;)+) => {$(
        impl Handler<$message> for Consensus {
            type Result = ();

            fn handle(&mut self, $pattern: $message, $ctx: &mut Self::Context) {
                self.node.load.took(ActorName::Consensus);
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
        other => tracing::debug!(event = ?other, "ignored an event of a newer network"),
    };
    Stalled: |this, Stalled { by }, ctx| {
        let now = this.node.clock.now();
        this.rule(ctx, |replica, _| replica.stalled(now, by));
    };
    ElectionTimeout: |this, ElectionTimeout { term, silence }, ctx| {
        let now = this.node.clock.now();
        if term == this.replica.term() {
            this.status.ballot_timed_out();
            this.status.silence_ms = Some(millis(silence));
        }
        this.rule(ctx, |replica, out| replica.election_timeout(now, term, out));
        this.status.silence_ms = None;
    };
    ElectionWon: |this, ElectionWon { term, campaign }, ctx| {
        let now = this.node.clock.now();
        if this.replica.is_campaign(term, campaign) {
            this.status.ballot_decided(true);
        }
        this.rule(ctx, |replica, out| replica.election_won(now, term, campaign, out));
    };
    ElectionLost: |this, ElectionLost { term, campaign }, ctx| {
        if this.replica.is_campaign(term, campaign) {
            this.status.ballot_decided(false);
        }
        this.rule(ctx, |replica, out| replica.election_lost(term, campaign, out));
    };
    Persisted: |this, Persisted { sequence, then }, ctx| {
        for outgoing in then {
            this.send_persisted(outgoing);
        }
        let now = this.node.clock.now();
        this.rule(ctx, |replica, out| replica.persisted(now, sequence, out));
        this.snapshots.persisted(sequence);
        this.clients.stages.durable(this.replica.durable(), &this.node.metrics, &this.node.stages);
    };
    EntriesRead: |this, read, ctx| this.entries_read(read, ctx);
    StorageFull: |this, StorageFull { is_full }, ctx| this.storage_full(is_full, ctx);
    StorageFailed: |this, StorageFailed { error }, _ctx| this.node.lifecycle.fail(Failure::Storage(error));
    Matched: |this, Matched { term, peer, index }, ctx| if term == this.replica.term() {
        let now = this.node.clock.now();
        this.rule(ctx, |replica, out| replica.matched(now, peer, index, out));
    };
    Fetch: |this, fetch, _ctx| this.fetch(fetch);
    Stop: |_this, Stop, ctx| ctx.stop();
    Applied: |this, Applied { index, reached, answers, measured, comparison, halted }, ctx| {
        this.decide_commands(ctx, |commands, _, view, out| commands.applied(answers, view, out));
        measured.into_iter().for_each(|measured| measured.arrived(&this.node.metrics, &this.node.stages));
        this.restored_up_to(index);
        // First, so that nothing that waited for this index is appended after a halt.
        if let Some(halted) = halted {
            this.machine_halted(halted, ctx);
        }
        if let Some(comparison) = comparison {
            this.compared(*comparison);
        }
        this.time_reached(index, reached, ctx);
        this.rule(ctx, |replica, out| replica.applied(index, out));
    };
    StateTaken: |this, taken, ctx| this.state_taken(taken, ctx);
    SnapshotWanted: |this, wanted, ctx| this.snapshot_wanted(wanted, ctx);
    GivenUp: |this, given_up, _ctx| this.given_up(given_up);
    SnapshotProgress: |this, progress, _ctx| this.snapshot_progressed(progress);
    SnapshotArrived: |this, arrived, ctx| this.snapshot_arrived(arrived, ctx);
    Describe: |this, describe, _ctx| this.describe(describe);
    Transmit: |this, transmit, _ctx| this.transmit(transmit);
}
