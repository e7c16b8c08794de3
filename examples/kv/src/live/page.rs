//! The page: the facts of a view of the cluster, in the form that a browser draws.

use super::{
    stages::{Figures, Stages},
    verdict::{self, Need, Verdict},
};
use quorate::{
    ClusterView, Doing, Index, LinkReport, MemberMetadata, NodeId, NodeReport, NodeRole, Term, metrics::Label as _,
};
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A younger report counts as of now, so that a quiet cluster causes no patches.
const FRESH: Duration = Duration::from_millis(500);
/// A peer that lacks more committed entries than this catches up.
const CATCH_UP_ENTRIES: u64 = 5_000;
/// A leader's link counts as cut after so many heartbeats without an answer.
const SILENT_HEARTBEATS: u32 = 4;

/// The facts that a view does not have.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    pub(super) cluster: String,
    /// The entries that were committed per second, lately.
    pub(super) writes_per_s: Option<f64>,
    /// The stages of a write on the leader.
    pub(super) figures: Option<Figures>,
    /// The time since which there is no leader, as far as this node knows.
    pub(super) leaderless: Option<Duration>,
    /// As this node has it from the replicated configuration. The page sends its token to these
    /// addresses, so those in reports, which any member can make up, are not used.
    pub(super) metadata: Arc<BTreeMap<NodeId, MemberMetadata>>,
}

/// The state of the cluster at one moment, without the clocks.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Page {
    pub(super) cluster: String,
    pub(super) served_by: NodeId,
    /// Whether faults may be caused through this page.
    pub(super) demo: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) leader: Option<NodeId>,
    pub(super) config: Config,
    pub(super) timing: Timing,
    /// Entries that were committed per second, those of the cluster itself included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) writes_per_s: Option<u64>,
    /// The 99th percentile of a write, from the call to the answer, of the last two seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stages_ms: Option<Stages>,
    /// Requests in progress at the nodes that answer.
    pub(super) waiting: u64,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// By "FROM>TO".
    pub(super) links: BTreeMap<String, Link>,
    pub(super) verdict: Verdict,
    pub(super) needs: Vec<Need>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Config {
    pub(super) voters: Vec<NodeId>,
    pub(super) learners: Vec<NodeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) witness: Option<NodeId>,
    pub(super) index: Index,
    pub(super) settled: bool,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(super) struct Timing {
    heartbeat_ms: f64,
    election_ms: [f64; 2],
}

/// A node. One of which no report has come has an address alone.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(super) struct Node {
    /// Whether a report came lately, from itself or through another node.
    pub(super) up: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seen: Option<SeenFrom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    /// Where it serves clients, and this page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<State>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct State {
    pub(super) role: &'static str,
    pub(super) term: Term,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vote: Option<NodeId>,
    /// The leader that it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) follows: Option<NodeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timer: Option<Timer>,
    first: Index,
    snapshot: Index,
    applied: Index,
    commit: Index,
    durable: Index,
    pub(super) last: Index,
    /// The entries that contradict the leader's: after the first index, up to the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) conflict: Option<[Index; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) doing: Option<Work>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) votes: Option<Votes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sync_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sync_usual_ms: Option<f64>,
    /// Whether it is slow, by the node's own rule: its events say the same.
    pub(super) disk_slow: bool,
    pub(super) storage_full: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) halted_at: Option<Index>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct SeenFrom {
    pub(super) age_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) via: Option<NodeId>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Timer {
    left_ms: u64,
    of_ms: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Work {
    /// `recovery`, `repair`, `catch-up` or `snapshot`.
    pub(super) what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) part: Option<f64>,
    /// Entries to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entries: Option<u64>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Votes {
    /// `pre_vote` or `vote`.
    pub(super) kind: &'static str,
    pub(super) yes: Vec<NodeId>,
    pub(super) no: Vec<NodeId>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Link {
    /// `up`, `slow`, `cut` or `quiet`.
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<u64>,
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    matched: Option<Index>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Index>,
}

/// The page of a view.
pub(super) fn page(view: &ClusterView, local: &Local) -> Page {
    let leader = view.leader();
    let nodes =
        view.members.iter().chain(view.nodes.keys().copied()).map(|id| (id, node(view, &local.metadata, leader, id)));
    let own = view.nodes.get(&view.node).map(|seen| seen.report.timing);
    let waiting = view.nodes.iter().filter(|(id, _)| view.answers(**id)).map(|(_, seen)| seen.report.waiting);
    let ms = |time: Option<Duration>| millis(time.unwrap_or_default());
    let mut page = Page {
        cluster: local.cluster.clone(),
        served_by: view.node,
        demo: false,
        leader,
        config: Config {
            voters: view.members.voters.clone(),
            learners: view.members.learners.clone(),
            witness: view.members.witness,
            index: view.members.index,
            settled: view.members.is_settled,
        },
        timing: Timing {
            heartbeat_ms: ms(own.map(|timing| timing.heartbeat)),
            election_ms: [ms(own.map(|timing| timing.election.0)), ms(own.map(|timing| timing.election.1))],
        },
        writes_per_s: local.writes_per_s.map(|rate| rate.round() as u64),
        p99_ms: local.figures.as_ref().and_then(|figures| figures.p99_ms),
        stages_ms: local.figures.as_ref().map(|figures| figures.stages.clone()),
        waiting: waiting.fold(0, u64::saturating_add),
        nodes: nodes.collect(),
        links: links(view, leader),
        verdict: Verdict::default(),
        needs: Vec::new(),
    };
    page.needs = verdict::needs(&page);
    page.verdict = verdict::verdict(&page, local.leaderless);
    page
}

fn node(view: &ClusterView, metadata: &BTreeMap<NodeId, MemberMetadata>, leader: Option<NodeId>, id: NodeId) -> Node {
    let address = view.members.addresses.get(&id).cloned();
    let metadata = metadata.get(&id);
    let http = metadata.and_then(MemberMetadata::client_address).map(ToOwned::to_owned);
    let labels = metadata.map(|metadata| metadata.labels().clone()).unwrap_or_default();
    let Some(seen) = view.nodes.get(&id) else { return Node { address, http, labels, ..Node::default() } };
    let age_ms = if seen.age < FRESH { 0 } else { tenths(seen.age) };
    let replication = leader.and_then(|leader| {
        let leader = &view.nodes.get(&leader)?.report;
        Some((leader.commit, leader.links.iter().find(|link| link.peer == id)?.replication?))
    });
    let report = &seen.report;
    let doing = report.doing.map(work).or_else(|| {
        let (commit, replication) = replication?;
        if let Some(part) = replication.snapshot_part {
            return Some(work(Doing::Snapshot { part: Some(part) }));
        }
        let entries = commit.0.saturating_sub(replication.matched.0);
        (view.answers(id) && entries > CATCH_UP_ENTRIES).then_some(Work {
            what: "catch-up",
            part: None,
            entries: Some(entries),
        })
    });
    let leads = leader.and_then(|leader| view.nodes.get(&leader));
    let conflict = leads.and_then(|leads| report.conflict_with(&leads.report));
    let conflict = conflict.map(|range| [Index(range.start().0.saturating_sub(1)), *range.end()]);
    Node {
        up: view.answers(id),
        seen: Some(SeenFrom { age_ms, via: seen.via }),
        address,
        http,
        labels,
        state: Some(State { doing, conflict, ..state(report) }),
    }
}

fn state(report: &NodeReport) -> State {
    State {
        role: report.role.as_str(),
        term: report.term,
        vote: report.vote,
        follows: report.leader,
        timer: report
            .timer
            .filter(|_| report.role != NodeRole::Leader)
            .map(|timer| Timer { left_ms: hundredths(timer.left), of_ms: hundredths(timer.of) }),
        first: report.first,
        snapshot: report.snapshot,
        applied: report.applied,
        commit: report.commit,
        durable: report.durable,
        last: report.last,
        conflict: None,
        doing: None,
        votes: report.campaign.as_ref().map(|campaign| Votes {
            kind: if campaign.is_pre_vote() { "pre_vote" } else { "vote" },
            yes: campaign.granted.clone(),
            no: campaign.denied.clone(),
        }),
        sync_ms: report.sync.map(|sync| millis(sync.recent)),
        sync_usual_ms: report.sync.map(|sync| millis(sync.usual)),
        disk_slow: report.sync.is_some_and(|sync| sync.is_slow),
        storage_full: report.storage_full,
        halted_at: report.halted_at,
    }
}

fn work(doing: Doing) -> Work {
    let (what, part) = match doing {
        Doing::Recovery => ("recovery", None),
        Doing::Repair => ("repair", None),
        Doing::Snapshot { part } => ("snapshot", part.map(|part| f64::from(part.min(1_000)) / 1_000.0)),
        _ => ("work", None),
    };
    Work { what, part, entries: None }
}

/// The links that matter: those of the leader and of candidates, and those that are cut.
fn links(view: &ClusterView, leader: Option<NodeId>) -> BTreeMap<String, Link> {
    let mut links = BTreeMap::new();
    for (id, seen) in view.nodes.iter().filter(|(id, _)| view.answers(**id)) {
        let report = &seen.report;
        let is_hub = leader == Some(*id) || report.campaign.is_some();
        for link in &report.links {
            let state = link_state(view, report, link);
            if is_hub || state == "cut" {
                links.insert(
                    format!("{id}>{}", link.peer),
                    Link {
                        state,
                        rtt_ms: link.round_trip.filter(|_| state != "quiet").map(millis),
                        in_flight: link.replication.map(|replication| replication.in_flight()),
                        matched: link.replication.map(|replication| replication.matched),
                        next: link.replication.map(|replication| replication.next),
                    },
                );
            }
        }
    }
    links
}

fn link_state(view: &ClusterView, report: &NodeReport, link: &LinkReport) -> &'static str {
    if !view.answers(link.peer) {
        return "quiet";
    }
    let heartbeat = report.timing.heartbeat;
    let is_silent =
        link.replication.is_some_and(|replication| replication.silent > heartbeat.saturating_mul(SILENT_HEARTBEATS));
    match link.round_trip {
        _ if !link.is_up || is_silent => "cut",
        Some(round_trip) if round_trip > heartbeat / 2 => "slow",
        _ => "up",
    }
}

/// Milliseconds with two digits after the point.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

/// Milliseconds, to the nearest hundredth of a second.
fn hundredths(time: Duration) -> u64 {
    u64::try_from((time.as_millis() + 5) / 10 * 10).unwrap_or(u64::MAX)
}

/// Milliseconds, to the nearest tenth of a second: finer times would change in every patch.
fn tenths(time: Duration) -> u64 {
    u64::try_from((time.as_millis() + 50) / 100 * 100).unwrap_or(u64::MAX)
}

#[cfg(test)]
impl Link {
    pub(super) fn in_state(state: &'static str) -> Self {
        Self { state, rtt_ms: None, in_flight: None, matched: None, next: None }
    }
}

/// The state of a node that is up to date.
#[cfg(test)]
pub(super) fn state_for_tests(id: NodeId, leader: NodeId) -> State {
    State {
        role: if id == leader { "leader" } else { "follower" },
        term: Term(8),
        vote: Some(leader),
        follows: Some(leader),
        timer: None,
        first: Index(1),
        snapshot: Index(0),
        applied: Index(100),
        commit: Index(100),
        durable: Index(100),
        last: Index(100),
        conflict: None,
        doing: None,
        votes: None,
        sync_ms: Some(0.6),
        sync_usual_ms: Some(0.6),
        disk_slow: false,
        storage_full: false,
        halted_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Kv;
    use quorate::{Node, storage::Memory, transport::MemoryNetwork};

    #[tokio::test]
    async fn the_addresses_that_get_the_page_s_token_are_of_the_replicated_configuration_and_of_no_report() {
        let id = NodeId(1);
        let node = Node::builder(id, "testing").voters([(id, "")]).storage(Memory::new());
        let node = node.network(MemoryNetwork::new().endpoint(id)).serve(Kv::default).start().await.expect("a node");
        let mut view = Arc::unwrap_or_clone(node.watch_cluster().next().await.expect("a view"));
        let metadata = |url: &str, zone: &str| {
            let metadata = MemberMetadata::new(Some(url.into()), [("zone".into(), zone.into())].into());
            Arc::new(BTreeMap::from([(id, metadata.expect("within bounds"))]))
        };
        view.members.metadata = metadata("https://evil.example", "evil");
        let shown = |metadata| {
            let mut page = page(&view, &Local { metadata, ..Local::default() });
            let node = page.nodes.remove(&id).expect("a member");
            (node.http, node.labels.into_values().collect::<Vec<_>>())
        };
        assert_eq!(shown(Arc::default()), (None, Vec::new()));
        let own = (Some("https://own.example".to_owned()), vec!["a".to_owned()]);
        assert_eq!(shown(metadata("https://own.example", "a")), own);
        node.shutdown().await;
    }
}
