//! `Reporter`: reports this node's state to members that look at the cluster, and makes the view of
//! the cluster for watches of this node.
//!
//! It owns no fact of Raft: `Consensus`, the timer and the replicators state theirs when it asks
//! ([`Describe`]): ten times a second while there is a watch or a subscription, never otherwise. Its
//! messages travel through `Consensus`, which owns the links, and are no concern of the rules.

use super::{
    clock::Clock,
    messages::{Describe, Described, Look, PeerDescribed, ReportArrived, Stop, TimerDescribed, Transmit},
};
use crate::{
    config::Timing,
    events::Events,
    lifecycle::PanicGuard,
    reports::{
        ASK_EVERY, REPORT_EVERY, REPORT_FOR, WANTED_MAX,
        compose::{Facts, Parts, compose},
        events::EventsReport,
        report::{ElectionDeadline, NodeReport, ReplicationReport},
        stage_times::StageRecord,
        subscribers::Subscribers,
        sync_times::SyncRecord,
        view::Merge,
        watch::Views,
    },
};
use actix::prelude::*;
use quorate_raft::{Body, Index, Moment, NodeId, Observe, Report, Wanted};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;

/// The actor that reports and watches.
pub(crate) struct Reporter {
    identity: Identity,
    clock: Clock,
    timing: Timing,
    sync: Arc<SyncRecord>,
    stages: Arc<StageRecord>,
    events: Events,
    describe: Recipient<Describe>,
    transmit: Recipient<Transmit>,
    views: watch::Sender<Views>,
    subscribers: Subscribers,
    merge: Merge,
    sequence: u64,
    /// Whether the next turn is scheduled.
    is_turning: bool,
    /// When members were last asked.
    asked_at: Option<Moment>,
    gathering: Gathering,
    /// The facts of the last turn; `None` before the first of a row of turns.
    facts: Option<Box<Facts>>,
    _panic_guard: PanicGuard,
}

/// The node, as its reports name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
    /// The last entry of the log at the start of the node.
    pub(crate) recovered: Index,
}

/// The records that others write.
pub(crate) struct Sources {
    pub(crate) sync: Arc<SyncRecord>,
    pub(crate) stages: Arc<StageRecord>,
    pub(crate) events: Events,
}

/// The addresses that the actor sends to: both are `Consensus`.
pub(crate) struct Outlets {
    pub(crate) describe: Recipient<Describe>,
    pub(crate) transmit: Recipient<Transmit>,
}

/// The facts of this turn that have been stated.
#[derive(Default)]
struct Gathering {
    facts: Option<Box<Facts>>,
    timer: Option<Option<ElectionDeadline>>,
    replications: BTreeMap<NodeId, ReplicationReport>,
}

impl Gathering {
    fn is_whole(&self) -> bool {
        let replicators = self.facts.as_ref().map(|facts| facts.replicators);
        self.timer.is_some() && replicators.is_some_and(|count| self.replications.len() >= count)
    }
}

impl Reporter {
    pub(crate) fn new(
        identity: Identity,
        clock: Clock,
        timing: Timing,
        sources: Sources,
        outlets: Outlets,
        views: watch::Sender<Views>,
        panic_guard: PanicGuard,
    ) -> Self {
        let (Outlets { describe, transmit }, Sources { sync, stages, events }) = (outlets, sources);
        Self {
            identity,
            clock,
            timing,
            sync,
            stages,
            events,
            describe,
            transmit,
            views,
            subscribers: Subscribers::default(),
            merge: Merge::new(identity.node, clock.now()),
            sequence: 0,
            is_turning: false,
            asked_at: None,
            gathering: Gathering::default(),
            facts: None,
            _panic_guard: panic_guard,
        }
    }

    /// Whether a handle watches: the node itself holds one receiver.
    fn is_watched(&self) -> bool {
        self.views.receiver_count() > 1
    }

    /// Begins to take turns, unless it does already.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.is_turning, true) {
            self.asked_at = None;
            self.turn(ctx);
        }
    }

    /// Asks the other actors for their facts; the rest of the turn follows when they are stated.
    fn turn(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        if let Some(facts) = &self.facts {
            self.subscribers.expire(now, &facts.peers);
        }
        if !self.is_watched() {
            self.merge = Merge::new(self.identity.node, now);
            self.views.send_replace(None);
            if self.subscribers.is_empty() {
                self.is_turning = false;
                // The members may change before the next turn.
                self.facts = None;
                return;
            }
        }
        self.gathering = Gathering::default();
        self.describe.do_send(Describe { to: ctx.address() });
        ctx.run_later(REPORT_EVERY, Self::turn);
    }

    /// A part of the facts was stated. With the last one, reports leave.
    fn gathered(&mut self) {
        if !self.gathering.is_whole() {
            return;
        }
        let Gathering { facts, timer, replications } = std::mem::take(&mut self.gathering);
        let (Some(facts), Some(timer)) = (facts, timer) else { return };
        let now = self.clock.now();
        self.sequence += 1;
        let report = compose(&Parts {
            incarnation: self.identity.incarnation,
            sequence: self.sequence,
            up: now.0,
            facts: &facts,
            timer,
            replications: &replications,
            sync: self.sync.times(),
            stages: self.stages.times(),
            recovered: self.identity.recovered,
            timing: &self.timing,
        });
        self.facts = Some(facts);
        let recent = self.events.recent();
        let mut report = report;
        for (to, known) in self.subscribers.due(now) {
            report.events = EventsReport::after(known, &recent);
            let Some(bytes) = report.encode() else { continue };
            if let Some(last) = report.events.last() {
                self.subscribers.sent(to, last);
            }
            let report = Report { of: self.identity.node, age_ms: 0, bytes: bytes.into() };
            self.transmit.do_send(Transmit { to, body: Body::Report(report) });
        }
        if self.is_watched() {
            let (_, known) = self.merge.events_of(self.identity.node);
            report.events = EventsReport::after(known, &recent);
            self.merge.heard(now, None, Duration::ZERO, report);
            self.views.send_replace(Some(Arc::new(self.merge.view(now))));
        }
        self.ask(now);
    }

    /// Asks members for reports, for watches of this node and for members that do not hear them.
    fn ask(&mut self, now: Moment) {
        let is_due = self.asked_at.is_none_or(|at| now.since(at) >= ASK_EVERY);
        let Some(facts) = self.facts.as_ref().filter(|_| is_due) else { return };
        self.asked_at = Some(now);
        let (relayed, is_watched) = (self.subscribers.relayed(), self.is_watched());
        let unheard = if is_watched { self.merge.unheard(now) } else { Vec::new() };
        let unheard: Vec<_> = unheard.into_iter().map(|node| (node, self.merge.relays_to(now, node))).collect();
        let wanted = |node| {
            let (incarnation, events_after) = self.merge.events_of(node);
            self.subscribers.wanted(node, is_watched.then_some(Wanted { node, incarnation, events_after }))
        };
        for to in facts.peers.iter().copied().filter(|peer| is_watched || relayed.contains(peer)) {
            let through = unheard.iter().filter(|(_, relays)| relays.contains(&to)).map(|(node, _)| *node);
            let wanted = [to].into_iter().chain(through).filter_map(wanted).take(WANTED_MAX).collect();
            let observe = Observe { every_ms: millis(REPORT_EVERY), for_ms: millis(REPORT_FOR), wanted };
            self.transmit.do_send(Transmit { to, body: Body::Observe(observe) });
        }
    }

    fn asked(&mut self, from: NodeId, observe: &Observe, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let relayed = self.subscribers.relayed();
        // Before the first turn the members are not known here. `Consensus` knows `from` as one,
        // and the request comes again.
        let members = self.facts.as_ref().map_or_else(|| [from].into(), |facts| facts.peers.clone());
        let Identity { node, incarnation, .. } = self.identity;
        self.subscribers.asked(now, (node, incarnation), from, observe, &members);
        if self.subscribers.relayed() != relayed {
            self.asked_at = None;
        }
        self.begin(ctx);
    }

    fn reported(&mut self, from: NodeId, report: Report) {
        let now = self.clock.now();
        let (of, age) = (report.of, Duration::from_millis(u64::from(report.age_ms)));
        // A member may pass on reports of any id: of others than this node's own peers none is kept,
        // as their number has no bound.
        if !self.facts.as_ref().is_some_and(|facts| facts.peers.contains(&of)) {
            return;
        }
        if from == of {
            for to in self.subscribers.relays_of(of) {
                self.transmit.do_send(Transmit { to, body: Body::Report(report.clone()) });
            }
        }
        if !self.is_watched() {
            return;
        }
        match NodeReport::decode(of, &report.bytes) {
            Ok(report) => self.merge.heard(now, (from != of).then_some(from), age, report),
            Err(why) => tracing::debug!(node = %self.identity.node, %from, %of, "ignored a report: {why}"),
        }
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

impl Actor for Reporter {
    type Context = Context<Self>;
}

impl Handler<Look> for Reporter {
    type Result = ();

    fn handle(&mut self, Look: Look, ctx: &mut Self::Context) {
        if self.merge.is_empty() {
            self.merge = Merge::new(self.identity.node, self.clock.now());
            // Turns for others' sake ask no member on this node's.
            self.asked_at = None;
        }
        self.begin(ctx);
    }
}

impl Handler<ReportArrived> for Reporter {
    type Result = ();

    fn handle(&mut self, ReportArrived { from, body, credit }: ReportArrived, ctx: &mut Self::Context) {
        match body {
            Body::Observe(observe) => self.asked(from, &observe, ctx),
            Body::Report(report) => self.reported(from, report),
            _ => {}
        }
        drop(credit);
    }
}

impl Handler<Described> for Reporter {
    type Result = ();

    fn handle(&mut self, Described(facts): Described, _: &mut Self::Context) {
        self.gathering.facts = Some(facts);
        self.gathered();
    }
}

impl Handler<TimerDescribed> for Reporter {
    type Result = ();

    fn handle(&mut self, TimerDescribed(timer): TimerDescribed, _: &mut Self::Context) {
        self.gathering.timer = Some(timer);
        self.gathered();
    }
}

impl Handler<PeerDescribed> for Reporter {
    type Result = ();

    fn handle(&mut self, PeerDescribed { peer, replication }: PeerDescribed, _: &mut Self::Context) {
        self.gathering.replications.insert(peer, replication);
        self.gathered();
    }
}

/// The node has ended.
impl Handler<Stop> for Reporter {
    type Result = ();

    fn handle(&mut self, Stop: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
