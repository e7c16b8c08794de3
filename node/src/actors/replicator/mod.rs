//! `Replicator`: brings one peer up to date during one leadership.
//!
//! [`Replication`] decides everything. The actor hands it each message, sends what it says on the
//! peer's link, wakes it by a timer, and reads the snapshot that is sent (`sending`).

mod sending;
mod unacknowledged;

use super::{
    blocking::Blocking,
    clock::Clock,
    messages::{
        Acknowledged, CommitAdvanced, Describe, Fetch, Fetched, GivenUp, HeartbeatNow, LinkChanged, Matched,
        NeedsSnapshot, PeerDescribed, PeerHeard, Rejected, Replicate, ReplicateTo, SnapshotWanted, Stop,
    },
};
use crate::{
    events::{Events, What},
    lifecycle::{Lifecycle, PanicGuard},
    reports::{compose::thousandths, report::ReplicationReport, stage_times::Window},
};
use actix::prelude::*;
use quorate_metrics::{NodeMetrics, PeerMetrics, PeerState};
use quorate_raft::{
    Credit, Index, Moment, NodeId, ProgressState, Replication, ReplicationOutput, ReplicationStart, Term, Want,
};
use quorate_transport::network::Link;
use sending::Sending;
use std::{rc::Rc, time::Duration};
use tokio::time::Instant;
use unacknowledged::Unacknowledged;

/// The actor that replicates to one peer.
pub(crate) struct Replicator {
    peer: NodeId,
    replication: Replication,
    /// Empty between two messages; kept to reuse its memory.
    outputs: Vec<ReplicationOutput>,
    /// The snapshot that is sent, while the log is kept for it.
    sending: Option<Sending>,
    /// Counts the snapshots that were opened; each transfer is numbered with it.
    opened: u64,
    /// The rate limit for snapshots; 0 for none.
    bytes_per_second: u64,
    blocking: Blocking,
    link: Rc<dyn Link>,
    reports: Reports,
    clock: Clock,
    heartbeat_interval: Duration,
    next_heartbeat: Instant,
    unacknowledged: Unacknowledged,
    /// The time that the peer takes to acknowledge, for reports.
    acknowledged: Window,
    metrics: PeerMetrics,
    node_metrics: NodeMetrics,
    events: Events,
    lifecycle: Lifecycle,
    _panic_guard: PanicGuard,
}

/// The receivers of a replicator's messages: all are `Consensus`.
pub(crate) struct Reports {
    pub(crate) matched: Recipient<Matched>,
    pub(crate) fetch: Recipient<Fetch>,
    pub(crate) snapshot_wanted: Recipient<SnapshotWanted>,
    pub(crate) given_up: Recipient<GivenUp>,
}

/// The parts and settings that a replicator is started with.
pub(crate) struct Assignment {
    pub(crate) peer: NodeId,
    /// Whether the peer is a witness, which is sent no payloads.
    pub(crate) sends_stubs: bool,
    pub(crate) term: Term,
    /// The first epoch of this replicator.
    pub(crate) epoch: u64,
    /// The last entry that may be sent.
    pub(crate) log_last: Index,
    pub(crate) commit: Index,
    /// The latest read round: reads that wait for it may need this peer.
    pub(crate) round: u64,
    pub(crate) link: Rc<dyn Link>,
    pub(crate) reports: Reports,
    pub(crate) clock: Clock,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) credit: Credit,
    /// The rate limit for snapshots; 0 for none.
    pub(crate) bytes_per_second: u64,
    pub(crate) blocking: Blocking,
    pub(crate) metrics: NodeMetrics,
    pub(crate) events: Events,
    pub(crate) lifecycle: Lifecycle,
}

impl Replicator {
    pub(crate) fn new(assignment: Assignment) -> Self {
        let Assignment { peer, term, epoch, log_last, commit, round, credit, bytes_per_second, clock, .. } = assignment;
        let start = ReplicationStart {
            term,
            epoch,
            log_last,
            commit,
            round,
            stub_checksum: assignment.sends_stubs.then_some(quorate_storage::checksum),
            credit,
            transfer: sending::settings(bytes_per_second),
        };
        Self {
            peer,
            replication: Replication::new(clock.now(), start),
            outputs: Vec::new(),
            sending: None,
            opened: 0,
            bytes_per_second,
            blocking: assignment.blocking,
            link: assignment.link,
            reports: assignment.reports,
            clock,
            heartbeat_interval: assignment.heartbeat_interval,
            next_heartbeat: Instant::now(),
            unacknowledged: Unacknowledged::default(),
            acknowledged: Window::default(),
            metrics: assignment.metrics.peer(peer.0),
            events: assignment.events,
            node_metrics: assignment.metrics,
            _panic_guard: assignment.lifecycle.panic_guard("Replicator"),
            lifecycle: assignment.lifecycle,
        }
    }

    /// Calls one rule and performs its outputs.
    fn rule(&mut self, rule: impl FnOnce(&mut Replication, &mut Vec<ReplicationOutput>)) {
        let mut outputs = std::mem::take(&mut self.outputs);
        rule(&mut self.replication, &mut outputs);
        for output in outputs.drain(..) {
            self.perform(output);
        }
        self.outputs = outputs;
    }

    /// Calls one rule after which more chunks of a snapshot may be due.
    fn rule_now(
        &mut self,
        ctx: &mut Context<Self>,
        rule: impl FnOnce(&mut Replication, Moment, &mut Vec<ReplicationOutput>),
    ) {
        let now = self.clock.now();
        self.unacknowledged.now = now;
        self.rule(|replication, out| rule(replication, now, out));
        self.send_chunks(now, ctx);
    }

    fn perform(&mut self, output: ReplicationOutput) {
        let (term, peer) = (self.replication.term(), self.peer);
        match output {
            ReplicationOutput::Send(message) => {
                if self.lifecycle.is_running() {
                    self.unacknowledged.sends(&message);
                    self.link.send(message);
                }
            }
            ReplicationOutput::Matched(index) => self.reports.matched.do_send(Matched { term, peer, index }),
            ReplicationOutput::Fetch(Want { from, bytes_max }) => {
                self.reports.fetch.do_send(Fetch { term, peer, from, bytes_max });
            }
            ReplicationOutput::WantSnapshot { at_least, anew } => {
                self.reports.snapshot_wanted.do_send(SnapshotWanted { term, peer, at_least, anew });
            }
            ReplicationOutput::GiveUpSnapshot => {
                self.reports.given_up.do_send(GivenUp { term, peer });
                self.snapshot_given_up();
            }
            ReplicationOutput::SnapshotRefused => self.snapshot_refused(),
            ReplicationOutput::SnapshotInstalled(index) => self.snapshot_installed(index),
        }
    }

    fn heartbeat(&mut self, rule: impl FnOnce(&mut Replication, &mut Vec<ReplicationOutput>)) {
        self.rule(rule);
        self.next_heartbeat = Instant::now() + self.clock.left_of(self.heartbeat_interval);
        let progress = self.replication.progress();
        self.metrics.matched(progress.matched().0, progress.lag());
        self.metrics.set_state(match progress.state() {
            ProgressState::Probe => PeerState::Probe,
            ProgressState::Replicate => PeerState::Replicate,
            ProgressState::Snapshot => PeerState::Snapshot,
        });
    }

    fn tick_later(&self, ctx: &mut Context<Self>) {
        ctx.run_later(self.clock.left_of(self.heartbeat_interval), |this, ctx| {
            if !this.reports.matched.connected() {
                return ctx.stop(); // it died without a message
            }
            this.heartbeat_if_due();
            this.rule_now(ctx, Replication::tick);
            this.tick_later(ctx);
        });
    }

    /// Each message that is handled also checks the heartbeat deadline: a flood of messages must
    /// not delay heartbeats.
    fn heartbeat_if_due(&mut self) {
        if self.next_heartbeat <= Instant::now() {
            let now = self.clock.now();
            self.heartbeat(|replication, out| replication.heartbeat_due(now, out));
        }
    }
}

impl Actor for Replicator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.heartbeat(|replication, out| replication.heartbeat(out));
        self.tick_later(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.metrics.replication_ended();
    }
}

impl Handler<Replicate> for Replicator {
    type Result = ();

    fn handle(&mut self, Replicate { previous, batch }: Replicate, ctx: &mut Self::Context) {
        self.rule_now(ctx, |replication, now, out| replication.appended(now, previous, batch, out));
        self.heartbeat_if_due();
    }
}

impl Handler<ReplicateTo> for Replicator {
    type Result = ();

    fn handle(&mut self, ReplicateTo { index }: ReplicateTo, ctx: &mut Self::Context) {
        self.rule_now(ctx, |replication, now, out| replication.log_grew(now, index, out));
        self.heartbeat_if_due();
    }
}

impl Handler<Fetched> for Replicator {
    type Result = ();

    fn handle(&mut self, fetched: Fetched, ctx: &mut Self::Context) {
        self.rule_now(ctx, |replication, now, out| match fetched {
            Fetched::Entries { previous, checksum, batch } => replication.fetched(now, previous, checksum, batch, out),
            Fetched::Overtaken => replication.overtaken(),
            Fetched::Compacted => replication.compacted(now, out),
        });
    }
}

impl Handler<Acknowledged> for Replicator {
    type Result = ();

    fn handle(&mut self, Acknowledged { epoch, matched }: Acknowledged, ctx: &mut Self::Context) {
        self.rule_now(ctx, |replication, now, out| replication.acknowledged(now, epoch, matched, out));
        if let Some(took) = self.unacknowledged.acknowledged(epoch, matched) {
            self.metrics.acknowledged(took);
            self.acknowledged.add(self.unacknowledged.now.0.as_secs(), took);
        }
        self.heartbeat_if_due();
    }
}

impl Handler<Rejected> for Replicator {
    type Result = ();

    fn handle(&mut self, Rejected { epoch, previous, next, last }: Rejected, ctx: &mut Self::Context) {
        self.metrics.append_rejected();
        let mut counts = false;
        self.rule_now(ctx, |replication, now, out| {
            counts = replication.rejected(now, epoch, previous, next, last, out);
        });
        if counts {
            self.events.tell(What::AppendRejected { peer: self.peer, previous, next });
        }
    }
}

impl Handler<CommitAdvanced> for Replicator {
    type Result = ();

    fn handle(&mut self, CommitAdvanced { commit }: CommitAdvanced, _: &mut Self::Context) {
        self.replication.committed(commit);
    }
}

impl Handler<HeartbeatNow> for Replicator {
    type Result = ();

    fn handle(&mut self, HeartbeatNow { round }: HeartbeatNow, _: &mut Self::Context) {
        self.heartbeat(|replication, out| replication.round_opened(round, out));
    }
}

impl Handler<PeerHeard> for Replicator {
    type Result = ();

    fn handle(&mut self, _: PeerHeard, ctx: &mut Self::Context) {
        self.rule_now(ctx, Replication::heard);
    }
}

impl Handler<LinkChanged> for Replicator {
    type Result = ();

    fn handle(&mut self, _: LinkChanged, ctx: &mut Self::Context) {
        self.rule_now(ctx, Replication::link_changed);
    }
}

impl Handler<NeedsSnapshot> for Replicator {
    type Result = ();

    fn handle(&mut self, NeedsSnapshot { epoch, at_least }: NeedsSnapshot, ctx: &mut Self::Context) {
        self.rule_now(ctx, |replication, now, out| replication.needs_snapshot(now, epoch, at_least, out));
    }
}

impl Handler<Describe> for Replicator {
    type Result = ();

    fn handle(&mut self, Describe { to }: Describe, _: &mut Self::Context) {
        let (progress, transfer) = (self.replication.progress(), self.replication.transfer());
        let now = self.clock.now();
        let replication = ReplicationReport {
            matched: progress.matched(),
            next: progress.next(),
            silent: now.since(progress.heard_at()),
            snapshot_part: transfer.map(|transfer| thousandths(transfer.received_bytes(), transfer.snapshot().bytes)),
            acknowledged: self.acknowledged.time(now.0.as_secs()),
        };
        to.do_send(PeerDescribed { peer: self.peer, replication });
    }
}

/// The leadership has ended. Without this message the actor would outlive it, even with every
/// address dropped: actix keeps an actor with a timer alive, and it would go on sending heartbeats
/// of that leadership.
impl Handler<Stop> for Replicator {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
