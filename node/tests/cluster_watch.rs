//! Watches of the cluster: one node brings the states of all together, without any effect on Raft.

mod support;

use quorate::{Change, ClusterView, ClusterWatch, Happened, NodeId, NodeRole, ReportedEvent, StageTimes};
use quorate_raft::{Body, Observe, Report, Term, Wanted};
use std::{sync::Arc, time::Duration};
use support::{Cluster, PATIENCE, Plan, Puppet, simulate, soon};

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_watch_of_any_node_shows_every_member_and_its_links() {
    simulate(async {
        let cluster = Cluster::of_three(1).await;
        let leader = cluster.settled().await;
        for id in cluster.ids() {
            let mut watch = cluster.node(id).watch_cluster();
            let view = until(&mut watch, "all members", |view| view.nodes.len() == 3 && are_fresh(view)).await;
            assert_eq!(view.leader(), Some(leader));
            assert_eq!(view.members.voters, [1, 2, 3].map(NodeId));
            for (node, seen) in &view.nodes {
                let (report, status) = (&seen.report, cluster.status(*node));
                assert_eq!((report.term, report.vote, report.last), (status.term, status.vote, status.last_log));
                assert_eq!((report.commit, report.applied), (status.commit, status.applied));
                assert_eq!(seen.via, None);
                assert!(report.links.iter().all(|link| link.is_up), "{report:?}");
                let replicates = report.links.iter().filter(|link| link.replication.is_some()).count();
                assert_eq!(replicates, if *node == leader { 2 } else { 0 });
                assert!(report.timer.is_some_and(|timer| timer.left <= timer.of), "{report:?}");
            }
        }
    });
}

#[test]
fn an_election_is_seen_and_the_reports_of_a_silent_leader_grow_old() {
    simulate(async {
        let mut cluster = Cluster::of_three(2).await;
        let old = cluster.settled().await;
        let at = cluster.others(old)[0];
        let mut watch = cluster.node(at).watch_cluster();
        let before = until(&mut watch, "all members", |view| view.nodes.len() == 3).await;
        cluster.faults.isolate(old);
        let after = until(&mut watch, "a new leader", |view| {
            let new = view.leader().filter(|leader| *leader != old);
            new.is_some_and(|new| view.nodes[&new].report.term > before.nodes[&old].report.term)
        })
        .await;
        assert!(after.nodes[&old].age > after.nodes[&at].age, "{after:?}");
        let new = after.leader().expect("one leads");
        // Reports of the events before a watch come too, a part at a time; each event comes once.
        let (mut known, mut told) = (0, Vec::new());
        let elected = |told: &[Arc<ReportedEvent>]| {
            let is_election = |event: &&Arc<ReportedEvent>| event.told.kind == "leader_elected";
            told.iter().filter(is_election).map(|event| event.told.node).collect::<Vec<_>>()
        };
        while elected(&told) != [old, new] {
            let view = soon("a view", watch.next()).await.expect("the node runs");
            let (missed, news) = view.after(known);
            assert_eq!(missed, 0);
            known = view.happened_count;
            told.extend(news.iter().map(|happened| match happened {
                Happened::Event(event) => Arc::clone(event),
                lost => panic!("{lost:?}"),
            }));
        }
        for id in cluster.ids() {
            let ids: Vec<_> = told.iter().filter(|event| event.told.node == id).map(|event| event.told.id).collect();
            assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>(), "node {id}");
        }
        let is_vote = |event: &Arc<ReportedEvent>| {
            let ballot = event.ballot.as_ref().filter(|ballot| !ballot.is_pre_vote && ballot.candidate == new);
            ballot.is_some_and(|ballot| ballot.voter.is_some() && ballot.granted == Some(true))
        };
        assert!(told.iter().any(is_vote), "the vote that elected it");
        cluster.stop(old).await;
    });
}

#[test]
fn a_campaign_is_seen_with_its_votes() {
    simulate(async {
        let cluster = Cluster::of_three(7).await;
        let leader = cluster.settled().await;
        let at = cluster.others(leader)[0];
        let mut watch = cluster.node(at).watch_cluster();
        cluster.faults.isolate(at);
        let view = until(&mut watch, "a campaign", |view| view.nodes[&at].report.campaign.is_some()).await;
        let report = &view.nodes[&at].report;
        let campaign = report.campaign.as_ref().expect("it campaigns");
        assert_eq!((report.role, campaign.is_pre_vote()), (NodeRole::PreCandidate, true));
        assert_eq!((&campaign.granted[..], &campaign.denied[..]), (&[at][..], &[][..]), "no answer reaches it");
        cluster.faults.clear();
        until(&mut watch, "its end", |view| view.nodes[&at].report.campaign.is_none()).await;
    });
}

#[test]
fn a_member_that_the_watching_node_does_not_hear_is_seen_through_another() {
    simulate(async {
        let cluster = Cluster::of_three(3).await;
        let leader = cluster.settled().await;
        let [at, lost] = cluster.others(leader)[..] else { panic!("three nodes") };
        let mut watch = cluster.node(at).watch_cluster();
        until(&mut watch, "all members", |view| view.nodes.len() == 3).await;
        cluster.faults.cut(at, lost);
        cluster.faults.cut(lost, at);
        let view = until(&mut watch, "a relayed report", |view| {
            view.nodes.get(&lost).is_some_and(|seen| seen.via == Some(leader) && seen.age < MS(500))
        })
        .await;
        // It goes on: more than one request's worth.
        let sequence = view.nodes[&lost].report.sequence;
        until(&mut watch, "three seconds of relayed reports", |view| {
            let seen = &view.nodes[&lost];
            seen.report.sequence > sequence + 30 && seen.via == Some(leader)
        })
        .await;
        cluster.faults.clear();
        until(&mut watch, "direct reports", |view| view.nodes[&lost].via.is_none() && are_fresh(view)).await;
    });
}

#[test]
fn a_node_that_hears_the_watching_one_and_is_not_asked_is_seen_through_another() {
    simulate(async {
        let cluster = Cluster::of_three(4).await;
        let leader = cluster.settled().await;
        let [at, lost] = cluster.others(leader)[..] else { panic!("three nodes") };
        cluster.faults.cut(at, lost);
        let mut watch = cluster.node(at).watch_cluster();
        until(&mut watch, "a relayed report", |view| {
            view.nodes.get(&lost).is_some_and(|seen| seen.via == Some(leader))
        })
        .await;
    });
}

#[test]
fn a_restarted_member_replaces_its_former_process() {
    simulate(async {
        let mut cluster = Cluster::of_three(5).await;
        let leader = cluster.settled().await;
        let other = cluster.others(leader)[0];
        let mut watch = cluster.node(leader).watch_cluster();
        let first = until(&mut watch, "all members", |view| view.nodes.len() == 3).await;
        cluster.stop(other).await;
        cluster.start(other).await;
        let incarnation = first.nodes[&other].report.incarnation;
        let now = until(&mut watch, "the new process", |view| {
            view.nodes.get(&other).is_some_and(|seen| seen.report.incarnation != incarnation)
        })
        .await;
        assert!(now.nodes[&other].report.up < first.nodes[&leader].report.up + PATIENCE);
    });
}

#[test]
fn a_leader_states_how_long_the_stages_of_a_write_take() {
    simulate(async {
        let cluster = Cluster::of_three(11).await;
        let leader = cluster.settled().await;
        let at = cluster.others(leader)[0];
        let mut watch = cluster.node(at).watch_cluster();
        let view = until(&mut watch, "all members", |view| view.nodes.len() == 3).await;
        assert_eq!(view.nodes[&leader].report.stages, None, "nothing was written yet");
        for command in ["one", "two", "three"] {
            cluster.node(leader).propose(command).await.expect("applied");
        }
        let view = until(&mut watch, "the stages", |view| view.nodes[&leader].report.stages.is_some()).await;
        let report = &view.nodes[&leader].report;
        let StageTimes { queue, encode, quorum, commit, apply, reply, total, lately, persist, .. } =
            report.stages.expect("some");
        let sum: Duration = [queue, encode, quorum, commit, apply, reply].iter().map(|stage| stage.mean).sum();
        assert!(total.mean.abs_diff(sum) < Duration::from_nanos(7), "{report:?}");
        assert_eq!((lately.is_some(), persist.is_some()), (true, true));
        let voters = report.links.iter().filter(|link| link.replication.is_some_and(|to| to.acknowledged.is_some()));
        assert_eq!(voters.count(), 2, "each follower: {report:?}");
        assert_eq!(view.nodes[&at].report.stages, None, "a follower measures none");
        until(&mut watch, "the end of the ten seconds", |view| view.nodes[&leader].report.stages.is_none()).await;
    });
}

#[test]
fn entries_of_a_deposed_leader_are_seen_to_contradict_the_log_of_its_successor() {
    simulate(async {
        let cluster = Cluster::of_three(12).await;
        let old = cluster.settled().await;
        let others = cluster.others(old);
        cluster.faults.isolate(old);
        let last = cluster.status(old).last_log;
        let lost: Vec<_> = (0..3)
            .map(|nth| {
                let node = cluster.node(old).clone();
                tokio::task::spawn_local(async move { node.propose(format!("lost {nth}")).await })
            })
            .collect();
        let new = cluster.leader_among(&others).await;
        let relay = others.into_iter().find(|id| *id != new).expect("a third node");
        let mut watch = cluster.node(new).watch_cluster();
        until(&mut watch, "both others", |view| view.nodes.len() == 2 && are_fresh(view)).await;
        // A third node passes on what the deposed one says, and its successor does not reach it.
        cluster.faults.clear();
        for (from, to) in [(old, new), (new, old)] {
            cluster.faults.cut(from, to);
        }
        let conflict = |view: &ClusterView| {
            let (own, leads) = (&view.nodes.get(&old)?.report, &view.nodes.get(&new)?.report);
            Some((own.conflict_with(leads)?, own.last))
        };
        let view = until(&mut watch, "a conflict", |view| conflict(view).is_some()).await;
        assert_eq!(view.nodes[&old].via, Some(relay));
        let (range, end) = conflict(&view).expect("one");
        assert_eq!((*range.start(), *range.end()), (last.next(), end));
        assert!(end > last.next(), "the entries that it took");
        cluster.faults.clear();
        until(&mut watch, "equal logs", |view| {
            let seen = view.nodes.get(&old).filter(|seen| seen.via.is_none());
            let is_equal = seen.is_some_and(|seen| seen.report.last == view.nodes[&new].report.last);
            is_equal && conflict(view).is_none()
        })
        .await;
        drop(lost);
    });
}

#[test]
fn a_removed_member_leaves_the_view() {
    simulate(async {
        let cluster = Cluster::start_all(Plan { members: 4, ..Plan::default() }).await;
        let leader = cluster.settled().await;
        let gone = cluster.others(leader)[0];
        let mut watch = cluster.node(leader).watch_cluster();
        until(&mut watch, "all members", |view| view.nodes.len() == 4).await;
        soon("a change", cluster.node(leader).change(Change::remove(gone))).await.expect("it is removed");
        until(&mut watch, "three members", |view| view.nodes.len() == 3 && !view.members.contains(gone)).await;
    });
}

#[test]
fn a_watch_ends_with_its_node() {
    simulate(async {
        let mut cluster = Cluster::of_three(6).await;
        let leader = cluster.settled().await;
        let at = cluster.others(leader)[0];
        let mut watch = cluster.node(at).watch_cluster();
        until(&mut watch, "a view", |_| true).await;
        cluster.stop(at).await;
        soon("the end", async { while watch.next().await.is_some() {} }).await;
    });
}

/// A peer that asks for two seconds and then falls silent gets no more than that.
#[test]
fn reports_end_when_they_are_not_asked_for_again_and_strangers_get_none() {
    simulate(async {
        let (mut cluster, subject) = (Cluster::vacant(Plan::default()), NodeId(1));
        let mut member = Puppet::start(&cluster.network, NodeId(2), subject).await;
        let mut stranger = Puppet::start(&cluster.network, NodeId(9), subject).await;
        cluster.start(subject).await;
        let wanted = vec![Wanted { node: subject, incarnation: 0, events_after: 0 }];
        let observe = Observe { every_ms: 1, for_ms: 2_000, wanted };
        stranger.say(Term(0), Body::Observe(observe.clone()));
        // Neither of them changes a term.
        stranger.say(Term(1 << 30), Body::Report(Report { of: NodeId(9), age_ms: 0, bytes: "x".into() }));
        member.say(Term(1 << 30), Body::Observe(observe));
        member.say(Term(1 << 30), Body::Report(Report { of: NodeId(3), age_ms: 0, bytes: "x".into() }));
        let report = |message: &quorate_raft::Message| match &message.body {
            Body::Report(report) => Some(report.clone()),
            _ => None,
        };
        for nth in 0..20 {
            let heard = member.hear("a report", report).await;
            assert_eq!(heard.of, subject, "report {nth}");
        }
        let more = tokio::time::timeout(MS(1_000), member.hear("another report", report)).await;
        assert!(more.is_err(), "the subscription has ended");
        let any = tokio::time::timeout(MS(1_000), stranger.hear("any report", report)).await;
        assert!(any.is_err(), "a stranger is told nothing");
        assert!(cluster.status(subject).term < Term(1 << 20));
        assert_ne!(cluster.status(subject).role, NodeRole::Leader);
    });
}

fn are_fresh(view: &ClusterView) -> bool {
    view.nodes.values().all(|seen| seen.age < MS(300))
}

async fn until(watch: &mut ClusterWatch, what: &str, holds: impl Fn(&ClusterView) -> bool) -> Arc<ClusterView> {
    let mut last = None;
    let waiting = async {
        loop {
            let view = watch.next().await.expect("the node runs");
            if holds(&view) {
                return view;
            }
            last = Some(view);
        }
    };
    let found = tokio::time::timeout(PATIENCE, waiting).await;
    found.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}; last seen: {last:#?}"))
}
