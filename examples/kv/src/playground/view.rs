//! The simulation as the live page shows it: the reports of its nodes, which a real cluster would
//! send, and the member of the page that only the playground has.

use super::{
    news::{millis, terms, terms_on},
    scenarios::Scenario,
    simulation::{ELECTION, HEARTBEAT, Simulation, Trap},
    tape::Tape,
    words,
};
use quorate::{
    Campaign, ClusterView, Doing, ElectionDeadline, Index, LinkReport, Members, NodeId, NodeReport, NodeRole,
    ReplicationReport, ReportedTiming, Seen, Term,
};
use quorate_raft::{Replica, Role};
use quorate_world::node::Running;
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A node that is down has been silent for this long at least: longer than one that answers can be.
const SILENT: Duration = Duration::from_secs(1);
/// The entries of a log that are shown.
const SHOWN: usize = 24;

/// The reports of all nodes.
pub(super) fn view(simulation: &Simulation) -> ClusterView {
    let mut view = ClusterView::default();
    let newest = simulation.leader().or_else(|| {
        let running = simulation.world.replicas();
        running.max_by_key(|replica| (replica.membership_index(), replica.term())).map(Replica::id)
    });
    // No node serves the page, and it never moves.
    view.node = NodeId(1);
    view.members = match newest.and_then(|id| simulation.world.running(id)) {
        Some(running) => members(&running.replica),
        None => {
            let mut members = Members::default();
            members.voters = simulation.world.members().voters();
            members
        }
    };
    let logs = logs(simulation);
    for id in simulation.ids() {
        let mut seen = Seen::default();
        match simulation.world.running(id) {
            Some(running) => {
                let mut report = report(simulation, id, running);
                let hears_leader = report.leader.is_some() && report.leader == simulation.leader();
                if hears_leader && logs.get(&id).is_some_and(|log| log.conflict.is_some()) {
                    report.doing = Some(Doing::Repair);
                }
                seen.report = Arc::new(report);
            }
            None => {
                let since = simulation.down.get(&id).copied().unwrap_or_default();
                seen.age = SILENT + simulation.now().saturating_sub(since);
                seen.report = Arc::new(last_report(simulation, id));
            }
        }
        // A node that was removed is gone.
        if view.members.contains(id) || simulation.is_up(id) {
            view.nodes.insert(id, seen);
        }
    }
    view
}

fn members(replica: &Replica) -> Members {
    let membership = replica.membership();
    let mut members = Members::default();
    members.voters = membership.incoming().to_vec();
    members.voters.extend(membership.outgoing().iter().filter(|id| !membership.incoming().contains(id)));
    members.voters.sort_unstable();
    members.learners = membership.learners().to_vec();
    (members.index, members.is_settled) = (replica.membership_index(), replica.is_settled());
    members
}

fn report(simulation: &Simulation, id: NodeId, running: &Running) -> NodeReport {
    let (replica, now) = (&running.replica, simulation.now());
    let observer = simulation.observers.get(&id);
    let mut report = NodeReport::default();
    report.node = id;
    report.up = now;
    report.role = role(replica);
    (report.term, report.vote, report.leader) = (replica.term(), replica.vote(), replica.leader());
    let mut timer = ElectionDeadline::default();
    timer.left = running.deadline.0.saturating_sub(now);
    timer.of = observer.map_or(ELECTION.1, |observer| observer.timeout).max(timer.left);
    report.timer = Some(timer);
    (report.first, report.snapshot) = (replica.log().first(), replica.snapshot_index());
    (report.applied, report.commit) = (running.applied, replica.commit());
    (report.durable, report.last) = (replica.durable(), replica.log().last().index);
    report.doing = running.receiving.as_ref().map(|(snapshot, have)| {
        let part = have * 1_000 / snapshot.bytes.max(1);
        Doing::Snapshot { part: u16::try_from(part).ok() }
    });
    report.campaign = observer.and_then(|observer| observer.ballot.as_ref()).map(|ballot| {
        let mut campaign = Campaign::opened(ballot.phase);
        (campaign.granted, campaign.denied) = (ballot.granted.clone(), ballot.denied.clone());
        campaign
    });
    let others = replica.membership().peers_of(id).into_iter();
    report.links = others.map(|peer| link(simulation, id, running, peer)).collect();
    report.members = members(replica);
    report.timing = timing();
    report
}

/// Of a node that is down: what its disk has.
fn last_report(simulation: &Simulation, id: NodeId) -> NodeReport {
    let disk = &simulation.world.node(id).disk;
    let mut report = NodeReport::default();
    (report.node, report.term, report.vote) = (id, disk.hard_state.term, disk.hard_state.vote);
    (report.first, report.last, report.durable) = (disk.base.index.next(), disk.last().index, disk.last().index);
    report.timing = timing();
    report
}

fn role(replica: &Replica) -> NodeRole {
    match replica.role() {
        Role::Leader(_) => NodeRole::Leader,
        Role::Candidate => NodeRole::Candidate,
        Role::PreCandidate => NodeRole::PreCandidate,
        Role::Follower if replica.membership().is_voter(replica.id()) => NodeRole::Follower,
        Role::Follower => NodeRole::Learner,
    }
}

fn link(simulation: &Simulation, id: NodeId, running: &Running, peer: NodeId) -> LinkReport {
    let mut link = LinkReport::default();
    link.peer = peer;
    link.is_up = !simulation.world.cut.contains(&(id, peer));
    link.replication = running.replicators.get(&peer).map(|replication| {
        let progress = replication.progress();
        let mut report = ReplicationReport::default();
        (report.matched, report.next) = (progress.matched(), progress.next());
        report.silent = simulation.world.now_of(id).since(progress.heard_at());
        report
    });
    link
}

fn timing() -> ReportedTiming {
    let mut timing = ReportedTiming::default();
    (timing.heartbeat, timing.election) = (HEARTBEAT, ELECTION);
    timing
}

/// The member of the page that a real cluster lacks.
#[derive(Debug, Serialize)]
pub(super) struct Extra {
    playground: Playground,
}

#[derive(Debug, Serialize)]
struct Playground {
    is_running: bool,
    /// Simulated seconds in a second.
    speed: f64,
    moves: u64,
    has_past: bool,
    /// What was done last.
    last: String,
    /// What a step will do.
    next: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
    scenarios: Vec<Title>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scenario: Option<Shown>,
    /// By the number of the message.
    flights: BTreeMap<u64, Flight>,
    logs: BTreeMap<NodeId, Log>,
    /// By "FROM>TO".
    cuts: Vec<String>,
    traps: BTreeMap<NodeId, &'static str>,
}

#[derive(Debug, Serialize)]
struct Title {
    name: &'static str,
    title: &'static str,
}

#[derive(Debug, Serialize)]
struct Shown {
    name: &'static str,
    says: &'static str,
    #[serde(rename = "ref")]
    reference: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'static str>,
    is_over: bool,
}

/// A message on its way.
#[derive(Debug, Serialize)]
struct Flight {
    from: NodeId,
    to: NodeId,
    kind: &'static str,
    word: &'static str,
    says: String,
    sent_ms: u64,
    due_ms: u64,
}

/// The end of a log: the terms of its last entries.
#[derive(Debug, Serialize)]
struct Log {
    first: Index,
    terms: Vec<Term>,
    /// The first entry that differs from the leader's.
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<Index>,
}

pub(super) fn extra(tape: &Tape, is_running: bool, speed: f64) -> Extra {
    let simulation = &tape.simulation;
    let flights = simulation.flights.iter().map(|flight| {
        let (kind, word, says) = words::message(&flight.envelope);
        let (from, to) = (flight.envelope.from, flight.envelope.to);
        let (sent_ms, due_ms) = (millis(flight.sent), millis(flight.due));
        (flight.id, Flight { from, to, kind, word, says, sent_ms, due_ms })
    });
    let scenario = simulation.script.scenario.map(|scenario| {
        let texts = scenario.texts();
        let (stage, is_over) = (simulation.script.says(), simulation.script.is_over());
        Shown { name: texts.name, says: texts.says, reference: texts.reference, stage, is_over }
    });
    let titles = Scenario::ALL.map(|scenario| Title { name: scenario.texts().name, title: scenario.texts().title });
    Extra {
        playground: Playground {
            is_running,
            speed,
            moves: tape.position(),
            has_past: tape.has_past(),
            last: simulation.last.clone(),
            next: simulation.next().map(|(_, next)| words::step(simulation, next)).unwrap_or_default(),
            broken: simulation.broken.clone(),
            scenarios: titles.into(),
            scenario,
            flights: flights.collect(),
            logs: logs(simulation),
            cuts: simulation.world.cut.iter().map(|(from, to)| format!("{from}>{to}")).collect(),
            traps: simulation
                .traps
                .iter()
                .map(|(id, trap)| {
                    let says = match trap {
                        Trap::BeforeWrite => "crashes before its next write",
                        Trap::AfterWrite => "crashes after its next write",
                    };
                    (*id, says)
                })
                .collect(),
        },
    }
}

fn logs(simulation: &Simulation) -> BTreeMap<NodeId, Log> {
    let log_of = |id: NodeId| match simulation.world.running(id) {
        Some(running) => terms(&running.replica),
        None => terms_on(&simulation.world.node(id).disk),
    };
    let leaders = simulation.leader().map(log_of);
    let of = |id: NodeId| {
        let log = log_of(id);
        let conflict = leaders.as_ref().and_then(|leaders| {
            let differs = |(index, term): &(&Index, &Term)| leaders.get(*index).is_some_and(|other| other != *term);
            log.iter().find(differs).map(|(index, _)| *index)
        });
        let shown = log.len().saturating_sub(SHOWN);
        let first = log.keys().nth(shown).copied().unwrap_or(Index(1));
        (id, Log { first, terms: log.into_values().skip(shown).collect(), conflict })
    };
    simulation.ids().into_iter().map(of).collect()
}
