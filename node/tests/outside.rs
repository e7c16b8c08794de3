//! Attacks by a node outside the configuration, removed or never added, that holds a certificate of
//! the cluster and may send any message.

mod support;

use quorate::{Change, Consistency, Failure, Index, NodeId, NodeRole, Term};
use quorate_raft::{
    Administer, AdministerOutcome, Administration, Append, AppendOutcome, AppendReply, Body, Emptied, EntryId,
    ForwardedCommand, ForwardedOutcome, Heartbeat, Kind, Membership, Message, Phase, Propose, ProposeOutcome,
    ReadIndex, Removed, RequestVote, Snapshot, SnapshotBase, SnapshotChunk, TimeoutNow, Vote,
};
use std::time::Duration;
use support::{Cluster, Ledger, Plan, Puppet, simulate, soon};

/// The last term that is not refused as malformed: no node could campaign after it.
const LAST_TERM: Term = Term(u64::MAX / 2 - 1);
const REMOVED: NodeId = NodeId(4);
const NEVER_A_MEMBER: NodeId = NodeId(9);

/// Nodes 1 to 3, the removed and stopped node 4, and the leader.
async fn cluster_without_4() -> (Cluster, Ledger, NodeId) {
    let mut cluster = Cluster::start_all(Plan { members: 4, ..Plan::default() }).await;
    let ledger = Ledger::default();
    let leader = cluster.leader().await;
    ledger.propose(cluster.node(leader), "before").await.expect("an acknowledgement");
    cluster.settled().await;
    let by = cluster.others(REMOVED)[0];
    soon("a change", cluster.node(by).change(Change::remove(REMOVED))).await.expect("it is removed");
    let failure = soon("a removed node to stop", cluster.node(REMOVED).failed()).await;
    assert!(matches!(failure, Failure::Removed { .. }), "{failure}");
    cluster.ended(REMOVED);
    let leader = cluster.settled().await;
    (cluster, ledger, leader)
}

/// The messages that would do the most harm, in this term and in later ones.
fn attacks(present: Term, last: EntryId) -> Vec<(Term, Body)> {
    let mut attacks = Vec::new();
    for term in [present, present.next(), Term(present.0 + 1_000), Term(1 << 40), LAST_TERM] {
        let vote = |phase, by_transfer| {
            let last = EntryId::new(LAST_TERM, Index(1 << 40));
            Body::RequestVote(RequestVote { phase, campaign: 1, last, by_transfer, machine_version: 0 })
        };
        let bodies = [
            vote(Phase::Vote, true),
            vote(Phase::Vote, false),
            vote(Phase::PreVote, true),
            heartbeat(1 << 40, 1 << 40),
            Body::Append(Append {
                epoch: 1 << 40,
                previous: last,
                previous_checksum: None,
                commit: Index(1 << 40),
                batch: None,
            }),
            snapshot_chunk(),
            Body::TimeoutNow(TimeoutNow { last }),
            Body::Vote(Vote { phase: Phase::Vote, campaign: 1, denial: None }),
            Body::AppendReply(AppendReply { epoch: 1, outcome: AppendOutcome::Matched { matched: Index(1 << 40) } }),
            Body::AppendReply(AppendReply { epoch: 1, outcome: AppendOutcome::Diverged { at: last } }),
            Body::Emptied(Emptied { known_at: Index(1) }),
            Body::Removed(Removed { at: Index(1 << 40) }),
        ];
        attacks.extend(bodies.map(|body| (term, body)));
    }
    attacks
}

fn heartbeat(round: u64, commit: u64) -> Body {
    Body::Heartbeat(Heartbeat { round, commit: Index(commit) })
}

/// A complete snapshot, with a last entry far after all others.
fn snapshot_chunk() -> Body {
    let membership = Membership::of_voters([NEVER_A_MEMBER]);
    let last = EntryId::new(Term(1), Index(1 << 40));
    let base = SnapshotBase { last, last_checksum: 1, membership, membership_index: Index(1 << 40) };
    let snapshot = Snapshot { base, bytes: 3, checksum: 1 };
    Body::SnapshotChunk(SnapshotChunk { epoch: 1 << 40, snapshot: snapshot.into(), offset: 0, bytes: "abc".into() })
}

#[test]
fn nothing_that_a_removed_node_says_deposes_a_leader_or_ends_a_node() {
    simulate(async {
        let (mut cluster, ledger, leader) = cluster_without_4().await;
        let before = cluster.status(leader);
        for id in [REMOVED, NEVER_A_MEMBER] {
            let mut puppet = Puppet::start(&cluster.network, id, NodeId(1)).await;
            for to in [2, 3] {
                puppet.links_to(NodeId(to));
            }
            puppet.hear_for_a_second().await;
            let refused = || cluster.metric("quorate_net_dropped_total", &["peer=\"unknown\"", "reason=\"stranger\""]);
            let refused_before = refused();
            for (term, body) in attacks(before.term, EntryId::new(before.term, before.last_log)) {
                puppet.say_to_all(term, &body);
            }
            puppet.hear_for_a_second().await;
            let counted = refused() - refused_before;
            assert!(counted > 50.0, "{counted} were counted");
            let by_id = cluster.metric("quorate_net_dropped_total", &[&format!("peer=\"{NEVER_A_MEMBER}\"")]);
            assert_eq!(by_id, 0.0, "it has no series of its own");
            for node in [1, 2, 3].map(NodeId) {
                let status = cluster.status(node);
                assert_eq!((status.term, status.leader), (before.term, Some(leader)), "{node} after {id}");
                assert_eq!(status.commit, before.last_log);
            }
        }
        ledger.propose(cluster.node(NodeId(1)), "after").await.expect("an acknowledgement");
        // No disk holds any effect of these messages.
        cluster.stop_all().await;
        for id in [1, 2, 3].map(NodeId) {
            cluster.start(id).await;
        }
        let leader = cluster.settled().await;
        assert!(cluster.status(leader).term.0 < before.term.0 + 10);
        ledger.propose(cluster.node(leader), "after a restart").await.expect("an acknowledgement");
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn requests_that_a_removed_node_forwards_are_refused() {
    simulate(async {
        let (cluster, _, leader) = cluster_without_4().await;
        let before = cluster.status(leader);
        let mut puppet = Puppet::start(&cluster.network, REMOVED, leader).await;
        puppet.hear_for_a_second().await;
        let request = 7 << 32 | 1;
        let commands = vec![ForwardedCommand { request, length: 5, kind: Kind::Command, waits_ms: 1_000 }];
        puppet.say(before.term, Body::Propose(Propose { commands, payloads: "write".into() }));
        let answered = |message: &Message| match &message.body {
            Body::ProposeReply(reply) => Some(reply.outcomes.clone()),
            _ => None,
        };
        let outcomes = puppet.hear("an answer to a write", answered).await;
        let outcome = ProposeOutcome::NotLeader;
        assert_eq!(outcomes, [ForwardedOutcome { request, outcome }], "it did not and will not take effect");
        for by_lease in [false, true] {
            puppet.say(before.term, Body::ReadIndex(ReadIndex { request: 1, by_lease }));
            let answered = |message: &Message| match &message.body {
                Body::ReadIndexReply(reply) => Some(reply.index),
                _ => None,
            };
            assert_eq!(puppet.hear("an answer to a read", answered).await, None);
        }
        let change = Change::remove(NodeId(1)).and(Change::add(REMOVED, "4"));
        for (request, what) in (1..).zip([Administration::Change(change), Administration::TransferLeadership(None)]) {
            puppet.say(before.term, Body::Administer(Administer { request, what }));
            let answered = |message: &Message| match &message.body {
                Body::Administered(administered) => Some(administered.outcome.clone()),
                _ => None,
            };
            let outcome = puppet.hear("an answer to an operator", answered).await;
            let is_refused =
                matches!(outcome, AdministerOutcome::ChangeRefused(_) | AdministerOutcome::TransferRefused(_));
            assert!(is_refused, "{outcome:?}");
        }
        let after = cluster.settled().await;
        assert_eq!((after, cluster.status(after)), (leader, before), "nothing has happened");
    });
}

/// A learner is a member: its forwarded commands are carried out once the leader knows it.
#[test]
fn requests_that_a_learner_forwards_are_carried_out() {
    simulate(async {
        let mut cluster = Cluster::start_all(Plan { joiners: 1, ..Plan::default() }).await;
        let leader = cluster.leader().await;
        cluster.start(NodeId(4)).await;
        soon("a change", cluster.node(leader).change(Change::add(NodeId(4), "4"))).await.expect("it is added");
        cluster.settled().await;
        assert_eq!(cluster.status(NodeId(4)).role, NodeRole::Learner);
        soon("a write", cluster.node(NodeId(4)).propose("by a learner")).await.expect("an acknowledgement");
        soon("a read", cluster.node(NodeId(4)).read(Consistency::Linearizable, |_| ())).await.expect("a read");
        soon("a change", cluster.node(NodeId(4)).change(Change::promote(NodeId(4)))).await.expect("it has caught up");
    });
}

/// Before a leader is elected, a message raises the term by a thousand at most, and terms that
/// were raised cost little time.
#[test]
fn a_node_that_hears_no_leader_is_not_led_far_astray() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        cluster.start(NodeId(1)).await;
        let mut puppet = Puppet::start(&cluster.network, NEVER_A_MEMBER, NodeId(1)).await;
        puppet.hear_for_a_second().await;
        for term in [1 << 33, 1 << 40, LAST_TERM.0] {
            puppet.say(Term(term), heartbeat(0, 0));
            let request = RequestVote {
                phase: Phase::Vote,
                campaign: 1,
                last: EntryId::default(),
                by_transfer: true,
                machine_version: 0,
            };
            puppet.say(Term(term), Body::RequestVote(request));
        }
        puppet.hear_for_a_second().await;
        assert_eq!(cluster.status(NodeId(1)).term, Term(0), "such terms are damaged");
        assert!(cluster.metric("quorate_net_dropped_total", &["peer=\"unknown\"", "reason=\"malformed\""]) > 0.0);
        let mut events = cluster.node(NodeId(1)).events();
        for raised in [1_000, 2_000] {
            puppet.say(Term(1 << 20), heartbeat(0, 0));
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_eq!((cluster.status(NodeId(1)).term, cluster.status(NodeId(1)).leader), (Term(raised), None));
            let told = std::iter::from_fn(|| events.try_next()).map(|received| match received {
                quorate::events::Received::Event(event) => event.text(),
                lost => panic!("{lost:?}"),
            });
            let before = raised - 1_000;
            let text = format!(
                "Node 1 goes from term {before} to term {raised} only, as node {NEVER_A_MEMBER} showed it term {}.",
                1 << 20
            );
            assert!(told.collect::<Vec<_>>().contains(&text), "{text}");
        }
        for id in [2, 3].map(NodeId) {
            cluster.start(id).await;
        }
        let by_id = format!("peer=\"{NEVER_A_MEMBER}\"");
        assert_eq!(cluster.metric("quorate_net_dropped_total", &[&by_id]), 0.0, "it has no series of its own");
        let leader = cluster.leader().await;
        assert!(cluster.status(leader).term.0 < 2_010);
        soon("a write", cluster.node(leader).propose("at last")).await.expect("an acknowledgement");
    });
}
