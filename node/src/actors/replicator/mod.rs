//! `Replicator`: brings one peer up to date during one leadership.
//!
//! It owns the [`Progress`], which decides what may be sent; it sends appends and heartbeats on the peer's link. It holds no
//! log: entries come with `Replicate` while the peer keeps up, and are fetched from `Consensus` when it does not. Where the
//! log can't help, it sends a snapshot (`sending`).

mod sending;

use super::{
    blocking::Blocking,
    consensus::{Clock, Consensus},
    messages::{
        Acknowledged, CommitAdvanced, Fetch, Fetched, HeartbeatNow, LinkChanged, Matched, NeedsSnapshot, PeerHeard,
        Rejected, Replicate, ReplicateTo, Stop,
    },
};
use crate::fate::{Fate, Sentinel};
use actix::prelude::*;
use quorate_metrics::{NodeMetrics, PeerMetrics, PeerState};
use quorate_raft::{
    Append, Batch, Body, Credit, EntryId, Heartbeat, Index, Message, NodeId, Progress, ProgressState, Term,
    mutants::{Mutant, live},
    progress::Send,
};
use quorate_transport::network::Link;
use sending::Sending;
use std::{rc::Rc, time::Duration};
use tokio::time::Instant;

/// The actor.
pub(crate) struct Replicator {
    peer: NodeId,
    /// Whether the peer is a witness: then it gets no more of commands than their outline.
    outlines: bool,
    term: Term,
    progress: Progress,
    commit: Index,
    round: u64,
    fetching: bool,
    sending: Option<Sending>,
    /// A snapshot was asked for and has not come yet.
    is_wanting: bool,
    /// How far it must reach, as the peer says; and whether the newest one can't be read.
    snapshot_at_least: Index,
    is_unreadable: bool,
    /// The log is kept for this peer, and when it last made progress.
    is_pinned: bool,
    progressed_at: Instant,
    bytes_per_second: u64,
    blocking: Blocking,
    link: Rc<dyn Link>,
    consensus: Addr<Consensus>,
    clock: Clock,
    heartbeat_interval: Duration,
    next_heartbeat: Instant,
    metrics: PeerMetrics,
    node_metrics: NodeMetrics,
    fate: Fate,
    _sentinel: Sentinel,
}

/// What a replicator is started with.
pub(crate) struct Assignment {
    pub(crate) peer: NodeId,
    /// Whether it is a witness.
    pub(crate) outlines: bool,
    pub(crate) term: Term,
    /// The epoch that it begins in.
    pub(crate) epoch: u64,
    /// The last entry that may be sent.
    pub(crate) log_last: Index,
    pub(crate) commit: Index,
    /// The latest read round: reads that wait for it may need this peer.
    pub(crate) round: u64,
    pub(crate) link: Rc<dyn Link>,
    pub(crate) consensus: Addr<Consensus>,
    pub(crate) clock: Clock,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) credit: Credit,
    /// How fast it may send snapshots; 0 for no limit.
    pub(crate) bytes_per_second: u64,
    pub(crate) blocking: Blocking,
    pub(crate) metrics: NodeMetrics,
    pub(crate) fate: Fate,
}

impl Replicator {
    pub(crate) fn new(assignment: Assignment) -> Self {
        let Assignment { peer, term, log_last, commit, link, consensus, clock, heartbeat_interval, credit, .. } =
            assignment;
        Self {
            peer,
            outlines: assignment.outlines,
            term,
            progress: Progress::new(clock.now(), log_last, credit).in_epoch(assignment.epoch),
            commit,
            round: assignment.round,
            fetching: false,
            sending: None,
            is_wanting: false,
            snapshot_at_least: Index(0),
            is_unreadable: false,
            is_pinned: false,
            progressed_at: Instant::now(),
            bytes_per_second: assignment.bytes_per_second,
            blocking: assignment.blocking,
            link,
            consensus,
            clock,
            heartbeat_interval,
            next_heartbeat: Instant::now(),
            metrics: assignment.metrics.peer(peer.0),
            node_metrics: assignment.metrics,
            _sentinel: assignment.fate.sentinel("Replicator"),
            fate: assignment.fate,
        }
    }

    /// Sends what comes next, if it is at hand; otherwise asks for it.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        if self.progress.state() == ProgressState::Snapshot {
            return self.pump_snapshot(ctx);
        }
        if self.fetching {
            return;
        }
        if let Some(want) = self.progress.want() {
            self.fetching = true;
            let (term, peer) = (self.term, self.peer);
            self.consensus.do_send(Fetch { term, peer, from: want.from, bytes_max: want.bytes_max });
        }
    }

    fn offer(&mut self, previous: EntryId, previous_checksum: Option<u32>, batch: Option<Batch>) {
        let as_kept = |batch: Batch| if self.outlines { batch.outline(quorate_storage::checksum) } else { batch };
        let batch = batch.map(as_kept);
        if let Some(send) = self.progress.send(self.clock.now(), previous, batch) {
            let commit = self.commit;
            let Send { epoch, previous, batch } = send;
            self.say(Body::Append(Append { epoch, previous, previous_checksum, commit, batch }));
        }
    }

    fn heartbeat(&mut self) {
        let known = if live(Mutant::HeartbeatNamesWholeCommit) { self.commit } else { self.progress.matched() };
        let commit = self.commit.min(known);
        self.say(Body::Heartbeat(Heartbeat { round: self.round, commit }));
        self.next_heartbeat = Instant::now() + self.heartbeat_interval;
        self.metrics.matched(self.progress.matched().0, self.progress.lag());
        self.metrics.state_is(match self.progress.state() {
            ProgressState::Probe => PeerState::Probe,
            ProgressState::Replicate => PeerState::Replicate,
            ProgressState::Snapshot => PeerState::Snapshot,
        });
    }

    /// A flood of messages must not silence the leader: the deadline is looked at whenever one is handled.
    fn heartbeat_if_due(&mut self) {
        if self.next_heartbeat <= Instant::now() {
            self.heartbeat();
            self.progress.tick(self.clock.now());
        }
    }

    fn say(&self, body: Body) {
        if self.fate.is_sound() {
            self.link.send(Message { term: self.term, body });
        }
    }

    fn tell_matched(&mut self, matched: Option<Index>) {
        if let Some(index) = matched {
            self.progressed_at = Instant::now();
            self.consensus.do_send(Matched { term: self.term, peer: self.peer, index });
        }
    }
}

impl Actor for Replicator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.heartbeat();
        ctx.run_interval(self.heartbeat_interval, |this, ctx| {
            if !this.consensus.connected() {
                return ctx.stop(); // it died without a word
            }
            this.heartbeat_if_due();
            this.give_up_if_idle();
            this.pump(ctx);
        });
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.metrics.replication_ended();
    }
}

impl Handler<Replicate> for Replicator {
    type Result = ();

    fn handle(&mut self, Replicate { previous, batch }: Replicate, ctx: &mut Self::Context) {
        self.progress.log_grew(batch.last());
        if !self.fetching {
            let checksum = Some(batch.previous_checksum());
            self.offer(previous, checksum, Some(batch));
        }
        self.pump(ctx);
        self.heartbeat_if_due();
    }
}

impl Handler<ReplicateTo> for Replicator {
    type Result = ();

    fn handle(&mut self, ReplicateTo { index }: ReplicateTo, ctx: &mut Self::Context) {
        self.progress.log_grew(index);
        self.pump(ctx);
        self.heartbeat_if_due();
    }
}

impl Handler<Fetched> for Replicator {
    type Result = ();

    fn handle(&mut self, fetched: Fetched, ctx: &mut Self::Context) {
        self.fetching = false;
        match fetched {
            Fetched::Entries { previous, checksum, batch } => {
                self.offer(previous, checksum, batch);
                self.pump(ctx);
            }
            // The interval asks again: at once could be for ever.
            Fetched::Overtaken => {}
            Fetched::Compacted => {
                self.progress.compacted();
                self.pump(ctx);
            }
        }
    }
}

impl Handler<Acknowledged> for Replicator {
    type Result = ();

    fn handle(&mut self, Acknowledged { epoch, matched }: Acknowledged, ctx: &mut Self::Context) {
        let matched = self.progress.acknowledged(self.clock.now(), epoch, matched);
        self.tell_matched(matched);
        self.pump(ctx);
        self.heartbeat_if_due();
    }
}

impl Handler<Rejected> for Replicator {
    type Result = ();

    fn handle(&mut self, Rejected { epoch, previous, next, last }: Rejected, ctx: &mut Self::Context) {
        self.metrics.append_rejected();
        let before = self.progress.epoch();
        let matched = self.progress.rejected(self.clock.now(), epoch, previous, next, last);
        if self.progress.state() == ProgressState::Snapshot && self.progress.epoch() > before {
            self.snapshot_link_changed();
        }
        self.tell_matched(matched);
        self.pump(ctx);
    }
}

impl Handler<CommitAdvanced> for Replicator {
    type Result = ();

    fn handle(&mut self, CommitAdvanced { commit }: CommitAdvanced, _: &mut Self::Context) {
        self.commit = commit;
    }
}

impl Handler<HeartbeatNow> for Replicator {
    type Result = ();

    fn handle(&mut self, HeartbeatNow { round }: HeartbeatNow, _: &mut Self::Context) {
        self.round = round;
        self.heartbeat();
    }
}

impl Handler<PeerHeard> for Replicator {
    type Result = ();

    fn handle(&mut self, _: PeerHeard, ctx: &mut Self::Context) {
        if self.progress.heard(self.clock.now()) {
            self.snapshot_peer_heard();
            self.pump(ctx);
        }
    }
}

impl Handler<LinkChanged> for Replicator {
    type Result = ();

    fn handle(&mut self, _: LinkChanged, ctx: &mut Self::Context) {
        self.progress.link_changed(self.clock.now());
        self.snapshot_link_changed();
        self.pump(ctx);
    }
}

impl Handler<NeedsSnapshot> for Replicator {
    type Result = ();

    fn handle(&mut self, NeedsSnapshot { epoch, at_least }: NeedsSnapshot, ctx: &mut Self::Context) {
        if self.progress.needs_snapshot(epoch) {
            self.snapshot_at_least = self.snapshot_at_least.max(at_least);
            self.pump(ctx);
        }
    }
}

/// Leadership is over. Losing every address would not end this actor: actix lets one live for as long as it has a timer,
/// and a replicator that outlived its leadership would go on sending heartbeats of it.
impl Handler<Stop> for Replicator {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
