//! Membership changes of a cluster that serves clients meanwhile.

mod support;

use quorate::{
    Change, ChangeError, ChangeRefused, Consistency, Failure, Index, MemberMetadata, MetadataUpdate, NodeId, NodeRole,
    ProposeError, Snapshots, Status,
};
use quorate_raft::{AppendOutcome, AppendReply, Body, EntryId, Message};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};
use support::{Cluster, Journal, Ledger, Plan, Puppet, View, run, seeds, simulate, soon};

fn address(id: u64) -> String {
    format!("node-{id}")
}

async fn grown(joiners: u64, seed: u64) -> Cluster {
    let mut cluster = Cluster::start_all(Plan { joiners, seed, ..Plan::default() }).await;
    for id in 4..4 + joiners {
        cluster.start(NodeId(id)).await;
    }
    cluster.leader_among(&[1, 2, 3].map(NodeId)).await;
    cluster
}

async fn change(cluster: &Cluster, by: NodeId, change: Change) -> Result<Index, ChangeError> {
    soon("a change", cluster.node(by).change(change)).await.map(|changed| changed.index)
}

fn leader(cluster: &Cluster) -> NodeId {
    let leads = |id: &NodeId| cluster.status(*id).role == NodeRole::Leader;
    cluster.ids().into_iter().find(leads).expect("a leader")
}

/// Waits until these voters follow one leader, and all of them know the configuration with
/// exactly these voters.
async fn settled_among(cluster: &Cluster, voters: &[u64]) -> NodeId {
    let voters: Vec<_> = voters.iter().copied().map(NodeId).collect();
    let agree = |status: &Status| status.voters == voters && status.is_settled;
    cluster
        .until("all to know the members", |view: &View| voters.iter().all(|id| agree(&view[id])).then_some(()))
        .await;
    cluster.leader_among(&voters).await
}

/// Waits until a node has stopped because it was removed.
async fn removed(cluster: &mut Cluster, id: u64) {
    let failure = soon("a removed node to stop", cluster.node(NodeId(id)).failed()).await;
    assert!(matches!(failure, Failure::Removed { .. }), "node {id}: {failure}");
    cluster.ended(NodeId(id));
}

fn metadata(id: u64, zone: &str) -> MemberMetadata {
    let labels = [("zone".to_owned(), zone.to_owned())].into();
    MemberMetadata::new(Some(format!("http://node-{id}:80")), labels).expect("within bounds")
}

/// Starts a node with metadata of its own.
async fn start_described(cluster: &mut Cluster, id: u64, zone: &str) {
    let own = metadata(id, zone);
    cluster.start_as(NodeId(id), Journal::default(), |builder| builder.metadata(own)).await;
}

/// Waits until all running nodes know the members to be in these zones.
async fn zones_are(cluster: &Cluster, zones: &[(u64, &str)]) {
    let wanted: BTreeMap<_, _> = zones.iter().map(|(id, zone)| (NodeId(*id), metadata(*id, zone))).collect();
    let agree = |view: &View| view.values().all(|status| *status.metadata == wanted && status.is_settled).then_some(());
    cluster.until("all to know the metadata", agree).await;
}

/// All of them do so at once, and no operator is refused for it.
#[test]
fn nodes_publish_their_metadata_and_a_restart_takes_back_no_change_of_an_operator() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan { joiners: 1, ..Plan::default() });
        for id in 1..=4 {
            start_described(&mut cluster, id, "a").await;
        }
        cluster.leader_among(&[1, 2, 3].map(NodeId)).await;
        change(&cluster, NodeId(1), Change::add(NodeId(4), address(4))).await.expect("it waits for theirs");
        change(&cluster, NodeId(1), Change::promote(NodeId(4))).await.expect("it waits for that of node 4");
        zones_are(&cluster, &[(1, "a"), (2, "a"), (3, "a"), (4, "a")]).await;

        for id in cluster.ids() {
            let told: Vec<_> = cluster.node(id).events().recent().iter().map(|event| event.text()).collect();
            let refused = told.iter().filter(|text| text.contains("which was refused")).count();
            let described =
                told.iter().filter(|text| text.contains("addresses or metadata changed, and still")).count();
            assert!(refused == 0 && described >= 1, "node {id}: {told:#?}");
        }

        let zone = |value: &str| MetadataUpdate::default().with_label("zone", value);
        change(&cluster, NodeId(1), Change::describe(NodeId(2), zone("b"))).await.expect("it is committed");
        change(&cluster, NodeId(1), Change::describe(NodeId(3), zone("b"))).await.expect("it is committed");
        cluster.stop(NodeId(2)).await;
        cluster.stop(NodeId(3)).await;
        start_described(&mut cluster, 2, "a").await;
        start_described(&mut cluster, 3, "c").await;
        zones_are(&cluster, &[(1, "a"), (2, "b"), (3, "c"), (4, "a")]).await;
        let index = cluster.status(NodeId(1)).membership_index;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(cluster.status(NodeId(1)).membership_index, index, "nothing is published again");
        zones_are(&cluster, &[(1, "a"), (2, "b"), (3, "c"), (4, "a")]).await;

        // A node that leaves takes its metadata along, and publishes it when it comes back.
        change(&cluster, NodeId(1), Change::remove(NodeId(4))).await.expect("three are there");
        removed(&mut cluster, 4).await;
        zones_are(&cluster, &[(1, "a"), (2, "b"), (3, "c")]).await;
        change(&cluster, NodeId(1), Change::add(NodeId(4), address(4))).await.expect("it is a learner");
        start_described(&mut cluster, 4, "d").await;
        zones_are(&cluster, &[(1, "a"), (2, "b"), (3, "c"), (4, "d")]).await;
    });
}

/// A member that took a part of a snapshot takes none of an earlier epoch in the same term.
#[test]
fn replication_to_a_member_that_is_added_again_begins_behind_every_epoch_that_it_heard() {
    simulate(async {
        let cluster = Cluster::start_all(Plan { members: 1, ..Plan::default() }).await;
        let (leader, member) = (NodeId(1), NodeId(9));
        let mut puppet = Puppet::start(&cluster.network, member, leader).await;
        cluster.leader_among(&[leader]).await;
        let (mut last_heard, mut term) = (0, None);
        for _ in 0..3 {
            change(&cluster, leader, Change::add(member, "9")).await.expect("it is added");
            // Each rejection begins another epoch.
            for _ in 0..3 {
                let append = |message: &Message| match &message.body {
                    Body::Append(append) => Some((message.term, append.epoch, append.previous.index)),
                    _ => None,
                };
                let (of, epoch, previous) = puppet.hear("an append", append).await;
                assert_eq!(*term.get_or_insert(of), of, "one leadership");
                assert!(epoch > last_heard, "epoch {epoch} behind {last_heard}");
                last_heard = epoch;
                let outcome = AppendOutcome::Rejected {
                    previous,
                    conflict: EntryId::default(),
                    last: Index(1),
                    log_last: Index(1),
                };
                puppet.say(of, Body::AppendReply(AppendReply { epoch, outcome }));
            }
            change(&cluster, leader, Change::remove(member)).await.expect("it is removed");
            puppet.hear_for_a_second().await;
        }
    });
}

#[test]
fn a_node_joins_catches_up_and_votes() {
    simulate(async {
        let (cluster, ledger) = (grown(1, 1).await, Ledger::default());
        for nth in 0..20 {
            ledger.propose(cluster.node(NodeId(1)), format!("before {nth}")).await.expect("an acknowledgement");
        }
        assert_eq!(cluster.status(NodeId(4)).role, NodeRole::Learner);
        assert!(cluster.status(NodeId(4)).voters.is_empty(), "it waits to be added");
        // Any node takes it.
        let follower = cluster.others(leader(&cluster))[0];
        change(&cluster, follower, Change::add(NodeId(4), address(4))).await.expect("it is added");
        cluster.settled().await;
        assert_eq!(cluster.status(NodeId(4)).learners, [NodeId(4)]);
        change(&cluster, follower, Change::promote(NodeId(4))).await.expect("it has caught up");
        settled_among(&cluster, &[1, 2, 3, 4]).await;
        assert_eq!(cluster.status(NodeId(1)).addresses[&NodeId(4)], address(4));
        ledger.propose(cluster.node(NodeId(4)), "from the new one").await.expect("an acknowledgement");
        let read = soon("a read", cluster.node(NodeId(4)).read(Consistency::Linearizable, |_| ())).await;
        assert!(read.is_ok());
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

/// A leader that was removed drains for a moment. If it is added again meanwhile, the new leader
/// counts on it.
#[test]
fn a_node_that_is_added_again_before_it_has_stopped_goes_on() {
    simulate(async {
        let mut cluster = Cluster::start_all(Plan::default()).await;
        let old = cluster.leader().await;
        cluster.settled().await;
        change(&cluster, old, Change::remove(old)).await.expect("it is removed");
        let new = cluster.leader_among(&cluster.others(old)).await;
        change(&cluster, new, Change::add(old, address(old.0))).await.expect("it is added again");
        change(&cluster, new, Change::promote(old)).await.expect("it has caught up");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(cluster.status(old).voters.len(), 3);
        cluster.node(old).propose("from the one that is back").await.expect("an acknowledgement");
        cluster.settled().await;
        change(&cluster, new, Change::remove(old)).await.expect("it is removed");
        removed(&mut cluster, old.0).await;
    });
}

/// The change names exactly the new voters: those that are new are brought up to date first, and
/// the rest is one step.
#[test]
fn three_become_five_and_three_others_in_one_change_each() {
    simulate(async {
        let (mut cluster, ledger) = (grown(3, 2).await, Ledger::default());
        ledger.propose(cluster.node(NodeId(1)), "before").await.expect("an acknowledgement");
        let five = Change::set_voters([(NodeId(4), address(4)), (NodeId(5), address(5))])
            .and(Change::add(NodeId(9), address(9)))
            .and(Change::remove(NodeId(9)));
        let refused = change(&cluster, NodeId(1), five).await;
        assert!(refused.is_ok(), "four and five alone: {refused:?}");
        settled_among(&cluster, &[4, 5]).await;
        for id in 1..=3 {
            removed(&mut cluster, id).await;
        }
        ledger.propose(cluster.node(NodeId(5)), "after").await.expect("an acknowledgement");
        let six = Change::replace(NodeId(4), (NodeId(6), address(6)));
        change(&cluster, NodeId(5), six).await.expect("one for another");
        settled_among(&cluster, &[5, 6]).await;
        removed(&mut cluster, 4).await;
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_caller_that_expects_another_configuration_is_refused_and_told_the_present_one() {
    simulate(async {
        let cluster = grown(2, 3).await;
        let by = NodeId(1);
        settled_among(&cluster, &[1, 2, 3]).await;
        // The first leader's first entry: the members that the cluster was started with,
        // and its id.
        let expected = cluster.status(by).membership_index;
        let first = change(&cluster, by, Change::add(NodeId(4), address(4)).expecting(expected)).await.expect("it is");
        let second = change(&cluster, by, Change::add(NodeId(5), address(5)).expecting(expected)).await;
        let refused = ChangeRefused::Moved { expected, found: first };
        assert_eq!(second, Err(ChangeError::Refused(refused)));
        change(&cluster, by, Change::add(NodeId(5), address(5)).expecting(first)).await.expect("it is");
    });
}

#[test]
fn a_promotion_waits_for_the_learner_and_says_why_not_if_that_takes_too_long() {
    simulate(async {
        let cluster = grown(1, 4).await;
        cluster.faults.isolate(NodeId(4));
        change(&cluster, NodeId(1), Change::add(NodeId(4), address(4))).await.expect("it is added");
        let refused = change(&cluster, NodeId(1), Change::promote(NodeId(4))).await;
        assert!(
            matches!(refused, Err(ChangeError::Refused(ChangeRefused::Behind { id: NodeId(4), .. }))),
            "{refused:?}"
        );
        let heals = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            cluster.faults.heal();
        };
        let (promoted, ()) = tokio::join!(change(&cluster, NodeId(1), Change::promote(NodeId(4))), heals);
        promoted.expect("it came in time");
        settled_among(&cluster, &[1, 2, 3, 4]).await;
    });
}

/// New voters are added as learners first. If they do not catch up, the refusal says that nothing
/// has happened, which is true.
#[test]
fn a_change_that_is_refused_leaves_no_learner_behind() {
    simulate(async {
        for asked in [1, 2, 3].map(NodeId) {
            let cluster = grown(2, 10).await;
            cluster.faults.isolate(NodeId(5));
            let wish = || Change::set_voters([1, 2, 3].map(|id| (NodeId(id), address(id))));
            let grows = || {
                let joins = [4, 5].map(|id| Change::add(NodeId(id), address(id)).and(Change::promote(NodeId(id))));
                joins.into_iter().fold(wish(), Change::and)
            };
            let refused = change(&cluster, asked, grows()).await;
            assert!(matches!(refused, Err(ChangeError::Refused(ChangeRefused::Behind { .. }))), "{refused:?}");
            let status = cluster.status(leader(&cluster));
            assert!(status.learners.is_empty() && status.is_settled, "{status:?}");
            assert_eq!(status.voters, [1, 2, 3].map(NodeId));
        }
    });
}

/// A learner that was one before the change stays one.
#[test]
fn a_change_that_is_refused_removes_no_learner_that_it_did_not_add() {
    simulate(async {
        let cluster = grown(2, 11).await;
        change(&cluster, NodeId(1), Change::add(NodeId(4), address(4))).await.expect("it is added");
        cluster.faults.isolate(NodeId(5));
        let four = Change::set_voters([1, 2, 3, 5].map(|id| (NodeId(id), address(id))));
        let refused = change(&cluster, NodeId(1), four).await;
        assert!(matches!(refused, Err(ChangeError::Refused(ChangeRefused::Behind { .. }))), "{refused:?}");
        assert_eq!(cluster.status(leader(&cluster)).learners, [NodeId(4)]);
    });
}

/// The first step may have been committed, and no other node knows that it is to be undone: so the
/// outcome is not a refusal.
#[test]
fn of_a_change_whose_leader_is_lost_behind_its_first_step_the_outcome_is_unknown() {
    simulate(async {
        for at_leader in [true, false] {
            let cluster = grown(1, 12).await;
            cluster.faults.isolate(NodeId(4));
            let old = leader(&cluster);
            let others: Vec<_> = [1, 2, 3].map(NodeId).into_iter().filter(|id| *id != old).collect();
            let asked = if at_leader { old } else { others[0] };
            let node = cluster.node(asked).clone();
            let four = Change::set_voters([1, 2, 3, 4].map(|id| (NodeId(id), address(id))));
            let asking = tokio::task::spawn_local(async move { node.change(four).await });
            cluster
                .until("the first step", |view: &View| {
                    others.iter().all(|id| view[id].learners == [NodeId(4)]).then_some(())
                })
                .await;
            cluster.faults.isolate(old);
            let outcome = soon("an answer", asking).await.expect("an answer");
            assert_eq!(outcome, Err(ChangeError::OutcomeUnknown), "asked at the leader: {at_leader}");
            let new = cluster.leader_among(&others).await;
            assert_eq!(cluster.status(new).learners, [NodeId(4)], "and so it is");
            change(&cluster, new, Change::remove(NodeId(4))).await.expect("it is removed");
        }
    });
}

/// With automatic promotion, a learner that keeps up becomes a voter; one that does not keep up
/// stays a learner.
#[test]
fn a_learner_that_keeps_up_votes_by_itself_if_that_is_wanted() {
    simulate(async {
        let mut plan = Plan { joiners: 2, seed: 9, ..Plan::default() };
        plan.timing.promote_after = Duration::from_secs(2);
        let mut cluster = Cluster::start_all(plan).await;
        cluster.leader().await;
        for id in [4, 5] {
            cluster.start(NodeId(id)).await;
        }
        cluster.faults.isolate(NodeId(5));
        let both = Change::add(NodeId(4), address(4)).and(Change::add(NodeId(5), address(5)));
        change(&cluster, NodeId(1), both).await.expect("two learners");
        assert_eq!(cluster.status(NodeId(1)).learners, [4, 5].map(NodeId));
        settled_among(&cluster, &[1, 2, 3, 4]).await;
        assert_eq!(cluster.status(NodeId(1)).learners, [NodeId(5)]);
    });
}

/// The log that the new member needs was cut: it gets a snapshot, and the members with it.
#[test]
fn a_node_that_joins_a_cluster_with_a_compacted_log_gets_a_snapshot() {
    simulate(async {
        let snapshots = Snapshots::default().with_every_entries(20).with_keep_entries(0);
        let mut cluster = Cluster::start_all(Plan { joiners: 1, seed: 5, snapshots, ..Plan::default() }).await;
        let ledger = Ledger::default();
        cluster.leader().await;
        for nth in 0..50 {
            ledger.propose(cluster.node(NodeId(1)), format!("before {nth}")).await.expect("an acknowledgement");
        }
        cluster.start(NodeId(4)).await;
        change(&cluster, NodeId(1), Change::set_voters([1, 2, 3].map(NodeId)).and(Change::add(NodeId(4), address(4))))
            .await
            .expect("it is added");
        change(&cluster, NodeId(1), Change::promote(NodeId(4))).await.expect("it has caught up");
        settled_among(&cluster, &[1, 2, 3, 4]).await;
        assert!(cluster.status(NodeId(4)).snapshot > Index(0));
        cluster.stop(NodeId(4)).await;
        cluster.start(NodeId(4)).await;
        settled_among(&cluster, &[1, 2, 3, 4]).await;
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

/// A removed node stops and says so, by whichever node it is told; the others are not disturbed.
#[test]
fn a_removed_node_stops_and_says_so_also_if_it_was_away() {
    simulate(async {
        let (mut cluster, ledger) = (grown(0, 6).await, Ledger::default());
        let leader = leader(&cluster);
        let away = cluster.others(leader)[0];
        cluster.stop(away).await;
        change(&cluster, leader, Change::remove(away)).await.expect("it is removed");
        ledger.propose(cluster.node(leader), "without it").await.expect("an acknowledgement");
        let term = cluster.status(leader).term;
        cluster.start(away).await;
        removed(&mut cluster, away.0).await;
        assert_eq!((cluster.status(leader).term, cluster.status(leader).role), (term, NodeRole::Leader));
    });
}

#[test]
fn a_leader_that_is_removed_hands_over_first() {
    simulate(async {
        let (mut cluster, ledger) = (grown(0, 7).await, Ledger::default());
        let old = leader(&cluster);
        ledger.propose(cluster.node(old), "before").await.expect("an acknowledgement");
        let began = tokio::time::Instant::now();
        change(&cluster, old, Change::remove(old)).await.expect("it is removed");
        let others = cluster.others(old);
        let new = cluster.leader_among(&others).await;
        assert!(began.elapsed() < Duration::from_millis(100), "no timeout was waited for: {:?}", began.elapsed());
        removed(&mut cluster, old.0).await;
        ledger.propose(cluster.node(new), "after").await.expect("an acknowledgement");
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

/// Every member of five is replaced while 64 writers write: no writer fails, and nothing is lost.
#[test]
fn a_rolling_replacement_of_five_members_under_64_writers_fails_no_write() {
    simulate(async {
        let mut cluster = Cluster::start_all(Plan { members: 5, joiners: 5, seed: 8, ..Plan::default() }).await;
        cluster.leader().await;
        let ledger = Ledger::default();
        let writers = Writers::start(&cluster, &ledger, 64);
        let mut moves = BTreeSet::new();
        for leaves in 1..=5 {
            let joins = leaves + 5;
            cluster.start(NodeId(joins)).await;
            writers.may_use(&cluster, joins);
            let by = || cluster_member(&cluster, leaves);
            change(&cluster, by(), Change::add(NodeId(joins), address(joins))).await.expect("added");
            change(&cluster, by(), Change::promote(NodeId(joins))).await.expect("promoted");
            change(&cluster, by(), Change::remove(NodeId(leaves))).await.expect("removed");
            writers.leave(leaves);
            removed(&mut cluster, leaves).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            let leader = cluster.leader().await;
            moves.insert((cluster.status(leader).term, leader));
        }
        let (written, unknown) = writers.stop().await;
        settled_among(&cluster, &[6, 7, 8, 9, 10]).await;
        cluster.settled().await;
        ledger.check(&cluster.journals());
        println!("{written} writes, {unknown} of unknown outcome, leaders {moves:?}");
        assert!(written > 1000 && unknown == 0, "{written} writes, {unknown} of unknown outcome");
    });
}

/// A running member that stays in the next replacement.
fn cluster_member(cluster: &Cluster, leaves: u64) -> NodeId {
    cluster.ids().into_iter().find(|id| id.0 > leaves && id.0 < leaves + 5).expect("a member")
}

/// The nodes that writers may ask.
type Nodes = Rc<RefCell<Vec<(u64, quorate::Node<support::Journal>)>>>;

/// Writers that go to another node when one refuses.
struct Writers {
    nodes: Nodes,
    is_over: Rc<Cell<bool>>,
    tasks: Vec<tokio::task::JoinHandle<(u64, u64)>>,
}

impl Writers {
    fn start(cluster: &Cluster, ledger: &Ledger, count: usize) -> Self {
        let nodes: Nodes =
            Rc::new(RefCell::new(cluster.ids().into_iter().map(|id| (id.0, cluster.node(id).clone())).collect()));
        let is_over = Rc::new(Cell::new(false));
        let writer = |writer: usize| {
            let (nodes, is_over, ledger) = (nodes.clone(), is_over.clone(), ledger.clone());
            tokio::task::spawn_local(async move {
                let (mut written, mut unknown, mut at) = (0, 0, writer);
                while !is_over.get() {
                    let mut attempt = 0;
                    loop {
                        assert!(attempt < 100, "writer {writer}: a write that no node takes");
                        let node = {
                            let nodes = nodes.borrow();
                            nodes[at % nodes.len()].1.clone()
                        };
                        match ledger.propose(&node, format!("{writer}: {written}, attempt {attempt}")).await {
                            Ok(_) => break written += 1,
                            Err(ProposeError::OutcomeUnknown) => break unknown += 1,
                            // Nothing has happened: another node may take it.
                            Err(_) => at += 1,
                        }
                        attempt += 1;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                (written, unknown)
            })
        };
        let tasks = (0..count).map(writer).collect();
        Self { nodes, is_over, tasks }
    }

    fn may_use(&self, cluster: &Cluster, id: u64) {
        self.nodes.borrow_mut().push((id, cluster.node(NodeId(id)).clone()));
    }

    fn leave(&self, id: u64) {
        self.nodes.borrow_mut().retain(|(node, _)| *node != id);
    }

    /// The number of acknowledged writes, and the number with an unknown outcome.
    async fn stop(self) -> (u64, u64) {
        self.is_over.set(true);
        let (mut written, mut unknown) = (0, 0);
        for task in self.tasks {
            let (more, doubtful) = soon("a writer", task).await.expect("a writer");
            written += more;
            unknown += doubtful;
        }
        (written, unknown)
    }
}

/// From three to five voters and back to three, each in one joint step, while links are cut
/// and leaders die.
#[test]
fn three_to_five_to_three_voters_under_partitions_and_kills() {
    let mut changes = [0; 2];
    for seed in seeds(100) {
        simulate(async {
            let (mut cluster, ledger) = (grown(2, seed).await, Ledger::default());
            ledger.propose(cluster.node(NodeId(1)), "before").await.expect("an acknowledgement");
            for (round, voters) in [[1, 2, 3, 4, 5].as_slice(), &[3, 4, 5]].into_iter().enumerate() {
                let wish = Change::set_voters(voters.iter().map(|id| (NodeId(*id), address(*id))));
                // A node that waits to be added knows no node to forward to.
                let asked = if round == 0 { NodeId(3) } else { NodeId(3 + seed % 3) };
                // The leader dies, or is cut off, at some point of the change.
                let before: &[u64] = if round == 0 { &[1, 2, 3] } else { &[1, 2, 3, 4, 5] };
                let before: Vec<_> = before.iter().copied().map(NodeId).collect();
                let unlucky = cluster.leader_among(&before).await;
                let node = cluster.node(asked).clone();
                let asking = tokio::task::spawn_local(async move { node.change(wish).await });
                tokio::time::sleep(Duration::from_millis((seed * 7 + round as u64 * 3) % 60)).await;
                if seed % 2 == 0 && unlucky != asked {
                    cluster.stop(unlucky).await;
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    cluster.start(unlucky).await;
                } else {
                    cluster.faults.isolate(unlucky);
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    cluster.faults.heal();
                }
                let outcome = soon("an answer", asking).await.expect("an answer");
                // A caller that was refused asks again; one that does not know the outcome
                // checks it first.
                if outcome.is_err() {
                    changes[1] += 1;
                }
                loop {
                    let wish = Change::set_voters(voters.iter().map(|id| (NodeId(*id), address(*id))));
                    if change(&cluster, asked, wish).await.is_ok() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                changes[0] += 1;
                ledger.propose(cluster.node(asked), format!("round {round}")).await.ok();
            }
            for id in [1, 2] {
                removed(&mut cluster, id).await;
            }
            settled_among(&cluster, &[3, 4, 5]).await;
            ledger.propose(cluster.node(NodeId(5)), "at last").await.expect("an acknowledgement");
            cluster.settled().await;
            ledger.check(&cluster.journals());
        });
    }
    println!("{} changes, {} of them interrupted", changes[0], changes[1]);
}

/// The same protocol with real threads, which `simulate` does not cover.
#[test]
fn members_change_on_threads_of_their_own() {
    run(async {
        let timing = support::relaxed();
        let mut cluster = Cluster::start_all(Plan { joiners: 1, threads: true, timing, ..Plan::default() }).await;
        cluster.leader().await;
        cluster.start(NodeId(4)).await;
        change(&cluster, NodeId(2), Change::set_voters([(NodeId(2), address(2)), (NodeId(4), address(4))]))
            .await
            .expect("one step");
        settled_among(&cluster, &[2, 4]).await;
        for id in [1, 3] {
            removed(&mut cluster, id).await;
        }
        cluster.stop_all().await;
    });
}
