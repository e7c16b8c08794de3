//! The stages of a write, as the leader measured them.

use super::page::millis;
use quorate::{ClusterView, NodeId, StageTime, StageTimes};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// The interval at which the figures are renewed: each renewal is in a patch.
const RENEWED_EVERY: Duration = Duration::from_secs(1);

/// Mean and 99th percentile, in milliseconds.
type Time = [f64; 2];

/// The stages of a write over the last ten seconds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Stages {
    queue: Time,
    encode: Time,
    quorum: Time,
    commit: Time,
    apply: Time,
    reply: Time,
    /// For each voter, the time until it has a batch on its disk, as the leader learns it.
    voters: BTreeMap<NodeId, Time>,
}

/// The figures of a leader.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Figures {
    pub(super) stages: Stages,
    /// The 99th percentile of the whole, of the last two seconds with answers.
    pub(super) p99_ms: Option<f64>,
}

/// The figures of the present leader, renewed once a second.
#[derive(Debug, Default)]
pub(super) struct Renewed {
    of: Option<(Instant, NodeId)>,
    figures: Option<Figures>,
}

impl Renewed {
    pub(super) fn at(&mut self, now: Instant, view: &ClusterView, leader: Option<NodeId>) -> Option<Figures> {
        let is_current =
            |(at, of): (Instant, NodeId)| Some(of) == leader && now.saturating_duration_since(at) < RENEWED_EVERY;
        if !self.of.is_some_and(is_current) {
            self.of = leader.map(|leader| (now, leader));
            self.figures = leader.and_then(|leader| figures(view, leader));
        }
        self.figures.clone()
    }
}

/// The figures in the leader's report; `None` if it answered no write in the last ten seconds.
fn figures(view: &ClusterView, leader: NodeId) -> Option<Figures> {
    let report = &view.nodes.get(&leader)?.report;
    let StageTimes { queue, encode, quorum, commit, apply, reply, lately, persist, .. } = report.stages?;
    let peers = report.links.iter().filter_map(|link| Some((link.peer, link.replication?.acknowledged?)));
    let voters = persist.map(|persist| (leader, persist)).into_iter().chain(peers);
    let voters = voters.filter(|(id, _)| view.members.voters.contains(id)).map(|(id, time)| (id, in_ms(time)));
    let stages = Stages {
        queue: in_ms(queue),
        encode: in_ms(encode),
        quorum: in_ms(quorum),
        commit: in_ms(commit),
        apply: in_ms(apply),
        reply: in_ms(reply),
        voters: voters.collect(),
    };
    Some(Figures { stages, p99_ms: lately.map(|time| millis(time.p99)) })
}

/// Milliseconds with three digits after the point: an encoding takes microseconds.
fn in_ms(StageTime { mean, p99, .. }: StageTime) -> Time {
    [mean, p99].map(|time| (time.as_secs_f64() * 1e6).round() / 1e3)
}
