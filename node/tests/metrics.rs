//! The metrics of whole nodes: every event shows on the page of its node, with the right value.

mod support;

use futures_util::future::join_all;
use quorate::{
    Change, Consistency, Index, Limits, NodeId, NodeRole, ProposeError, Term, metrics::Metrics, storage::Wal,
};
use quorate_raft::{Body, Denial, EntryId, Heartbeat, Message, Phase, RequestVote, Vote};
use quorate_storage_testing::{Operation, SimulatedDisk};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use support::{Cluster, Journal, Plan, Puppet, View, relaxed, run, simulate, soon};

#[test]
fn every_fate_of_a_campaign_is_counted() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        let mut first = Puppet::start(&cluster.network, NodeId(2), NodeId(1)).await;
        let second = Puppet::start(&cluster.network, NodeId(3), NodeId(1)).await;
        cluster.start(NodeId(1)).await;
        let page = Page::of(&cluster.metrics, NodeId(1));
        let started = |phase| page.read("quorate_elections_started_total", &[("phase", phase)]);
        let finished =
            |phase, result| page.read("quorate_elections_finished_total", &[("phase", phase), ("result", result)]);
        let votes = |phase, direction, result| {
            page.read("quorate_votes_total", &[("phase", phase), ("direction", direction), ("result", result)])
        };
        let term_changes = |cause| page.read("quorate_term_changes_total", &[("cause", cause)]);

        // The first campaign gets no answer.
        first.hear("a pre-vote", asks(Phase::PreVote)).await;
        assert_eq!((started("pre_vote"), page.read("quorate_role", &[("role", "pre_candidate")])), (1.0, 1.0));
        let campaign = first.hear("another", asks(Phase::PreVote)).await;
        assert_eq!((started("pre_vote"), finished("pre_vote", "timed_out")), (2.0, 1.0));

        // Both peers deny the second campaign.
        for puppet in [&first, &second] {
            puppet.say(Term(0), vote(Phase::PreVote, campaign, false));
        }
        let campaign = first.hear("a third", asks(Phase::PreVote)).await;
        assert_eq!((finished("pre_vote", "lost"), votes("pre_vote", "received", "denied")), (1.0, 2.0));
        assert_eq!(page.read("quorate_election_duration_seconds_count", &[]), 2.0);

        // The third campaign wins its pre-vote; the election that follows is superseded by a leader
        // of that term.
        first.say(Term(0), vote(Phase::PreVote, campaign, true));
        first.hear("a request for its vote", asks(Phase::Vote)).await;
        assert_eq!((finished("pre_vote", "won"), votes("pre_vote", "received", "granted")), (1.0, 1.0));
        assert_eq!((started("vote"), term_changes("campaign")), (1.0, 1.0));
        assert_eq!((page.read("quorate_term", &[]), page.read("quorate_has_leader", &[])), (1.0, 0.0));
        second.say(Term(1), Body::Heartbeat(Heartbeat { round: 0, commit: Index(0) }));
        cluster.until("a leader", |view| view[&NodeId(1)].leader).await;
        assert_eq!((finished("vote", "superseded"), term_changes("higher_term")), (1.0, 0.0));
        assert_eq!((page.read("quorate_has_leader", &[]), page.read("quorate_leader_changes_total", &[])), (1.0, 1.0));

        // While the node hears a leader it denies votes; once the leader is silent, it grants them.
        for (granted, denials) in [(0.0, 1.0), (1.0, 1.0)] {
            first.say(Term(7), request(Phase::PreVote));
            first.say(Term(7), request(Phase::Vote));
            first.hear("an answer", answer).await;
            assert_eq!((votes("vote", "cast", "granted"), votes("vote", "cast", "denied")), (granted, denials));
            assert_eq!(votes("pre_vote", "cast", "granted"), granted);
            assert_eq!(votes("pre_vote", "cast", "denied"), denials);
            cluster.until("a forgotten leader", |view| view[&NodeId(1)].leader.is_none().then_some(())).await;
        }
        assert_eq!((page.read("quorate_term", &[]), term_changes("higher_term")), (7.0, 1.0));

        // Now the node is elected.
        loop {
            let (term, phase, campaign) = first
                .hear("a request", |message| match message.body {
                    Body::RequestVote(request) => Some((message.term, request.phase, request.campaign)),
                    _ => None,
                })
                .await;
            first.say(term, vote(phase, campaign, true));
            if phase == Phase::Vote {
                break;
            }
        }
        cluster.until("a leader", |view| (view[&NodeId(1)].role == NodeRole::Leader).then_some(())).await;
        assert_eq!((finished("vote", "won"), votes("vote", "received", "granted")), (1.0, 1.0));
        assert_eq!((page.read("quorate_role", &[("role", "leader")]), term_changes("campaign")), (1.0, 2.0));
        assert_eq!(page.read("quorate_leader_changes_total", &[]), 2.0);
    });
}

#[test]
fn the_way_of_a_write_is_measured() {
    simulate(async {
        let (cluster, _disks) = durable(Plan::default()).await;
        let leader = cluster.leader().await;
        let [asker, other] = cluster.others(leader)[..] else { panic!("three nodes") };
        for (id, count) in [(leader, 5), (asker, 3)] {
            for nth in 0..count {
                cluster.node(id).propose(format!("{id}: {nth}")).await.expect("an acknowledgement");
            }
        }
        cluster.settled().await;
        // Gauges that need not be exact are updated once a heartbeat.
        tokio::time::sleep(Duration::from_millis(200)).await;
        for id in cluster.ids() {
            let page = Page::of(&cluster.metrics, id);
            for index in ["last", "durable", "commit", "applied"] {
                assert_eq!(page.read(&format!("quorate_{index}_index"), &[]), 9.0, "{index} at {id}");
            }
            assert_eq!(page.read("quorate_first_index", &[]), 1.0);
            assert_eq!(page.read("quorate_snapshot_index", &[]), 0.0);
            assert!(page.read("quorate_storage_fsync_duration_seconds_count", &[]) >= 8.0);
            assert!(page.read("quorate_storage_written_bytes_total", &[]) > 8.0 * 40.0);
            assert!(page.read("quorate_log_bytes", &[]) > 8.0 * 40.0);
            assert_eq!(page.read("quorate_has_leader", &[]), 1.0);
            assert_eq!(page.read("quorate_role", &[("role", "leader")]), f64::from(id == leader));
            assert_eq!(page.read("quorate_role", &[("role", "follower")]), f64::from(id != leader));
            assert_eq!(page.read("quorate_proposals_in_flight", &[]), 0.0);
        }
        let applied = |id| Page::of(&cluster.metrics, id).read("quorate_proposals_total", &[("result", "applied")]);
        assert_eq!((applied(leader), applied(asker), applied(other)), (5.0, 3.0, 0.0));
        let page = Page::of(&cluster.metrics, leader);
        for stage in STAGES.into_iter().chain(["total", "persist"]) {
            let count = page.read("quorate_proposal_duration_seconds_count", &[("stage", stage)]);
            assert_eq!(count, 8.0, "one by one, each was a batch: {stage}");
        }
        assert_eq!(page.read("quorate_batch_entries_sum", &[]), 8.0);
        for peer in [asker, other] {
            let peer = peer.to_string();
            assert_eq!(page.read("quorate_peer_match_index", &[("peer", &peer)]), 9.0);
            assert_eq!(page.read("quorate_peer_lag_entries", &[("peer", &peer)]), 0.0);
            assert_eq!(page.read("quorate_peer_state", &[("peer", &peer), ("state", "replicate")]), 1.0);
            assert!(page.read("quorate_peer_acknowledge_seconds_count", &[("peer", &peer)]) >= 8.0);
            for (direction, lane) in [("sent", "append"), ("sent", "control"), ("received", "append")] {
                let labels = [("peer", peer.as_str()), ("direction", direction), ("lane", lane)];
                assert!(page.read("quorate_net_bytes_total", &labels) > 0.0, "{labels:?}");
            }
        }
    });
}

#[test]
fn the_means_of_the_stages_of_a_write_sum_to_the_mean_of_the_total_under_load() {
    run(async {
        let plan = Plan { threads: true, timing: relaxed(), ..Plan::default() };
        let mut cluster = Cluster::start_all(plan).await;
        let leader = cluster.leader().await;
        let callers = |id: NodeId, count: u64, each: u64| {
            let caller = |nth: u64| {
                let node = cluster.node(id).clone();
                async move {
                    let mut waited = Duration::ZERO;
                    for serial in 0..each {
                        let began = Instant::now();
                        node.propose(format!("{id}, {nth}: {serial}")).await.expect("an acknowledgement");
                        waited += began.elapsed();
                    }
                    waited
                }
            };
            join_all((0..count).map(caller).collect::<Vec<_>>())
        };
        let page = Page::of(&cluster.metrics, leader);
        let of =
            |what: &str, stage| page.read(&format!("quorate_proposal_duration_seconds_{what}"), &[("stage", stage)]);

        // With one caller, each command is a batch, and the total is the caller's wait.
        let waited = callers(leader, 1, 20).await[0].as_secs_f64();
        let total = of("sum", "total");
        assert_eq!(of("count", "total"), 20.0);
        assert!(
            (waited * 0.5..=waited).contains(&total),
            "the caller waited for {waited} s, of which {total} were seen"
        );

        let loads = cluster.ids().into_iter().map(|id| callers(id, 32, 40));
        join_all(loads.collect::<Vec<_>>()).await;
        cluster.settled().await;
        let batches = of("count", "total");
        assert!(batches >= 60.0, "{batches} batches");
        for stage in STAGES {
            assert_eq!(of("count", stage), batches, "{stage}");
        }
        let mean = |stage| of("sum", stage) / batches;
        let (sum, total) = (STAGES.map(mean).iter().sum::<f64>(), mean("total"));
        assert!((sum - total).abs() < 1e-9 * batches, "the stages sum to {sum} s of {total}");
        assert!(mean("quorum") > 0.0 && mean("reply") > 0.0);
        for id in cluster.others(leader) {
            let count =
                Page::of(&cluster.metrics, id).read("quorate_proposal_duration_seconds_count", &[("stage", "total")]);
            assert_eq!(count, 0.0, "the leader measures");
            let acknowledged = page.read("quorate_peer_acknowledge_seconds_sum", &[("peer", &id.to_string())]);
            assert!(acknowledged > 0.0, "the time of {id}");
        }
        cluster.stop_all().await;
    });
}

#[test]
fn the_series_of_a_removed_member_end_and_come_back_with_it() {
    simulate(async {
        let mut cluster = Cluster::of_three(6).await;
        let leader = cluster.leader().await;
        let [gone, stays] = cluster.others(leader)[..] else { panic!("three nodes") };
        cluster.settled().await;
        let series = |metrics: &Metrics, of: NodeId, peer: NodeId| {
            let (page, node, peer) = (metrics.render(), format!("node=\"{of}\""), format!("peer=\"{peer}\""));
            page.lines().filter(|line| line.contains(&node) && line.contains(&peer)).count()
        };
        let before = series(&cluster.metrics, leader, gone);
        assert!(before > 40, "{before} series");
        let handle = cluster.node(leader).clone();
        handle.change(Change::remove(gone)).await.expect("it is removed");
        soon("the end of the removed node", cluster.node(gone).failed()).await;
        cluster.ended(gone);
        let knows = |view: &View, id: &NodeId| view[id].voters.len() == 2 && view[id].is_settled;
        cluster.until("the change", |view| [leader, stays].iter().all(|id| knows(view, id)).then_some(())).await;
        for id in [leader, stays] {
            assert_eq!(series(&cluster.metrics, id, gone), 0, "at {id}");
            assert!(series(&cluster.metrics, id, if id == leader { stays } else { leader }) > 40, "at {id}");
        }
        handle.change(Change::add(gone, "back")).await.expect("it is added");
        assert!(series(&cluster.metrics, leader, gone) >= before, "it returned");
    });
}

#[test]
fn every_result_of_proposals_and_reads_is_counted() {
    simulate(async {
        let limits = Limits::default().with_max_in_flight_proposals(2).with_max_command_bytes(100);
        let cluster = Cluster::start_all(Plan { limits, ..Plan::default() }).await;
        let leader = cluster.leader().await;
        let node = cluster.node(leader).clone();
        let page = Page::of(&cluster.metrics, leader);
        let proposals = |result| page.read("quorate_proposals_total", &[("result", result)]);
        let reads = |mode, result| page.read("quorate_reads_total", &[("mode", mode), ("result", result)]);

        node.read(Consistency::Linearizable, |_| ()).await.expect("a read");
        node.read(Consistency::Local, |_| ()).await.expect("a read");
        assert_eq!((reads("linearizable", "served"), reads("local", "served")), (1.0, 1.0));
        assert_eq!(page.read("quorate_read_duration_seconds_count", &[("mode", "linearizable")]), 1.0);

        assert!(matches!(node.propose("x".repeat(101)).await, Err(ProposeError::TooLarge { .. })));
        let crowd = join_all((0..3).map(|nth| node.propose(format!("{nth}")))).await;
        assert_eq!(crowd.iter().filter(|outcome| outcome.is_ok()).count(), 2);
        assert_eq!((proposals("too_large"), proposals("applied"), proposals("overloaded")), (1.0, 2.0, 1.0));

        cluster.faults.isolate(leader);
        let waiting = tokio::task::spawn_local({
            let node = node.clone();
            async move { node.propose("alone").await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(page.read("quorate_proposals_in_flight", &[]), 1.0);
        let outcome = soon("an outcome", waiting).await.expect("a caller");
        assert_eq!((outcome, proposals("outcome_unknown")), (Err(ProposeError::OutcomeUnknown), 1.0));
        assert_eq!(node.propose("still alone").await, Err(ProposeError::NoLeader));
        assert!(node.read(Consistency::Linearizable, |_| ()).await.is_err());
        assert_eq!((proposals("no_leader"), reads("linearizable", "no_leader")), (1.0, 1.0));

        // The series of a leader end with its leadership.
        for peer in cluster.others(leader).iter().map(NodeId::to_string) {
            assert_eq!(page.read("quorate_peer_match_index", &[("peer", &peer)]), 0.0);
            for state in ["probe", "replicate", "snapshot"] {
                assert_eq!(page.read("quorate_peer_state", &[("peer", &peer), ("state", state)]), 0.0);
            }
        }
        let before = page.read("quorate_leaderless_seconds_total", &[]);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let leaderless = page.read("quorate_leaderless_seconds_total", &[]) - before;
        assert!((9.0..=11.0).contains(&leaderless), "{leaderless}");

        node.shutdown().await;
        assert_eq!(node.propose("too late").await, Err(ProposeError::Stopped));
        assert!(node.read(Consistency::Local, |_| ()).await.is_err());
        assert_eq!((proposals("stopping"), reads("local", "stopping")), (1.0, 1.0));
    });
}

#[test]
fn a_node_that_starts_again_in_the_same_process_has_nothing_in_flight() {
    simulate(async {
        let (mut cluster, disks) = durable(Plan::default()).await;
        let leader = cluster.leader().await;
        let (node, page) = (cluster.node(leader).clone(), Page::of(&cluster.metrics, leader));
        cluster.faults.isolate(leader);
        let propose = |command: &'static str| {
            let node = node.clone();
            tokio::task::spawn_local(async move { node.propose(command).await })
        };
        propose("alone");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(page.read("quorate_proposals_in_flight", &[]), 1.0);
        disks[&leader].fail(Operation::Sync, 1);
        propose("the last");
        soon("the failure", node.failed()).await;
        cluster.ended(leader);
        cluster.start(leader).await;
        assert_eq!(page.read("quorate_proposals_in_flight", &[]), 0.0, "before its first heartbeat interval is over");
    });
}

#[test]
fn a_peer_that_lags_and_one_that_rejects_are_seen() {
    simulate(async {
        let mut cluster = Cluster::of_three(4).await;
        let old = cluster.leader().await;
        let [behind, next] = cluster.others(old)[..] else { panic!("three nodes") };
        cluster.settled().await;
        cluster.faults.isolate(behind);
        for nth in 0..7 {
            cluster.node(old).propose(format!("{nth}")).await.expect("an acknowledgement");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let peer = behind.to_string();
        let lag = Page::of(&cluster.metrics, old).read("quorate_peer_lag_entries", &[("peer", &peer)]);
        assert_eq!(lag, 7.0);
        cluster.stop(old).await;
        cluster.faults.heal();
        assert_eq!(cluster.settled().await, next, "the other one lacks entries");
        let rejections = Page::of(&cluster.metrics, next).read("quorate_append_rejections_total", &[("peer", &peer)]);
        assert!(rejections >= 1.0);
    });
}

#[test]
fn a_storage_that_fails_is_counted() {
    simulate(async {
        let (cluster, disks) = durable(Plan::default()).await;
        let leader = cluster.leader().await;
        let broken = cluster.others(leader)[0];
        disks[&broken].fail(Operation::Sync, 1);
        cluster.node(leader).propose("one more").await.expect("an acknowledgement");
        soon("the failure", cluster.node(broken).failed()).await;
        let page = Page::of(&cluster.metrics, broken);
        assert_eq!(page.read("quorate_storage_errors_total", &[("op", "sync")]), 1.0);
        assert_eq!(page.read("quorate_storage_errors_total", &[("op", "write")]), 0.0);
    });
}

/// The stages of a write, from the call to the answer.
const STAGES: [&str; 6] = ["queue", "encode", "quorum", "commit", "apply", "reply"];

/// A cluster on disks.
async fn durable(plan: Plan) -> (Cluster, BTreeMap<NodeId, SimulatedDisk>) {
    let (mut cluster, mut disks) = (Cluster::vacant(plan), BTreeMap::new());
    for id in cluster.members() {
        let disk = SimulatedDisk::new();
        let wal = Wal::at("data").segment_bytes(32 << 10).on(disk.clone());
        cluster.start_as(id, Journal::default(), |builder| builder.storage(wal)).await;
        disks.insert(id, disk);
    }
    (cluster, disks)
}

/// The page that Prometheus reads of one node.
struct Page {
    metrics: Metrics,
    node: String,
}

impl Page {
    fn of(metrics: &Metrics, node: NodeId) -> Self {
        Self { metrics: metrics.clone(), node: node.to_string() }
    }

    /// The only sample of this name with these labels, besides that of the node.
    fn read(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.metrics.render();
        let mut found = page.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, rest) = series.split_once('{')?;
            let mut given: Vec<&str> = rest.strip_suffix('}')?.split(',').collect();
            given.sort_unstable();
            let all = labels.iter().copied().chain([("node", self.node.as_str())]);
            let mut wanted: Vec<String> = all.map(|(label, value)| format!("{label}=\"{value}\"")).collect();
            wanted.sort_unstable();
            (found == name && given == wanted).then(|| value.parse::<f64>().expect("a number"))
        });
        let value = found.next().unwrap_or_else(|| panic!("no {name} {labels:?} of node {} on the page", self.node));
        assert_eq!(found.next(), None, "{name} {labels:?} is there twice");
        value
    }
}

fn asks(phase: Phase) -> impl FnMut(&Message) -> Option<u64> {
    move |message| match message.body {
        Body::RequestVote(request) if request.phase == phase => Some(request.campaign),
        _ => None,
    }
}

fn answer(message: &Message) -> Option<()> {
    matches!(message.body, Body::Vote(vote) if vote.phase == Phase::Vote).then_some(())
}

fn vote(phase: Phase, campaign: u64, granted: bool) -> Body {
    Body::Vote(Vote { phase, campaign, denial: (!granted).then_some(Denial::CanLeadInstead) })
}

fn request(phase: Phase) -> Body {
    Body::RequestVote(RequestVote {
        phase,
        campaign: 1,
        last: EntryId::default(),
        by_transfer: false,
        machine_version: 0,
    })
}
