//! Elections, replication, and the loss of some nodes.

mod support;

use quorate::{Consistency, NodeId, NodeRole, ProposeError, ReadError, Timing};
use quorate_transport_testing::LinkFaults;
use std::{collections::BTreeSet, time::Duration};
use support::{Cluster, Ledger, Plan, View, run, seeds, simulate, soon};
use tokio::time::Instant;

#[test]
fn three_nodes_elect_one_leader() {
    for seed in seeds(10) {
        simulate(async {
            let cluster = Cluster::of_three(seed).await;
            let leader = cluster.leader().await;
            let leads = |id: &NodeId| cluster.status(*id).role == NodeRole::Leader;
            assert_eq!(cluster.ids().into_iter().filter(leads).collect::<Vec<_>>(), [leader], "seed {seed}");
        });
    }
}

/// The first append of a leadership carries its first entry: the followers' logs are known to end
/// where the leader's did, unless an answer says otherwise.
#[test]
fn the_first_commit_of_a_leader_takes_one_round_trip() {
    simulate(async {
        let (cluster, one_way) = (Cluster::of_three(1).await, Duration::from_millis(20));
        let first = cluster.settled().await;
        assert_eq!(cluster.metric("quorate_append_rejections_total", &[]), 0.0, "the logs were equal");
        cluster.faults.everywhere(LinkFaults { delay: one_way..=one_way, ..LinkFaults::default() });
        cluster.faults.isolate(first);
        let others = cluster.others(first);
        let leads = |view: &View| others.iter().copied().find(|id| view[id].role == NodeRole::Leader);
        let next = cluster.until("another leader", leads).await;
        let (mut status, elected) = (cluster.node(next).status(), Instant::now());
        let last = status.borrow().last_log;
        status.wait_for(|status| status.commit >= last).await.expect("a live node");
        assert_eq!(elected.elapsed().as_millis(), (one_way * 2).as_millis());
    });
}

#[test]
fn any_node_takes_a_proposal_and_all_apply_it() {
    simulate(async {
        let (cluster, ledger) = (Cluster::of_three(1).await, Ledger::default());
        for (nth, id) in cluster.ids().into_iter().cycle().take(9).enumerate() {
            ledger.propose(cluster.node(id), format!("command {nth}")).await.expect("an acknowledgement");
        }
        cluster.settled().await;
        assert_eq!(ledger.acknowledged(), 9);
        ledger.check(&cluster.journals());
    });
}

#[test]
fn the_same_holds_for_nodes_on_threads_of_their_own() {
    run(async {
        let mut cluster = Cluster::start_all(Plan { threads: true, ..Plan::default() }).await;
        let ledger = Ledger::default();
        let clients = cluster.ids().into_iter().map(|id| {
            let (node, ledger) = (cluster.node(id).clone(), ledger.clone());
            tokio::spawn(async move {
                for nth in 0..20 {
                    let _ = ledger.propose(&node, format!("{id}: {nth}")).await;
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.expect("a client");
        }
        cluster.settled().await;
        assert!(ledger.acknowledged() > 0);
        ledger.check(&cluster.journals());
        cluster.stop_all().await;
    });
}

#[test]
fn a_leader_that_is_cut_off_steps_down_and_another_serves() {
    simulate(async {
        let (cluster, ledger) = (Cluster::of_three(2).await, Ledger::default());
        let old = cluster.leader().await;
        ledger.propose(cluster.node(old), "before").await.expect("an acknowledgement");
        cluster.faults.isolate(old);
        cluster
            .until("the old leader to step down", |view| {
                (view[&old].role != NodeRole::Leader && view[&old].leader.is_none()).then_some(())
            })
            .await;
        let others = cluster.others(old);
        let new = cluster.leader_among(&others).await;
        for id in &others {
            ledger.propose(cluster.node(*id), format!("meanwhile at {id}")).await.expect("an acknowledgement");
        }
        let term = cluster.status(new).term;
        assert!(cluster.status(old).term < term, "it reaches no node, so it raises no term");
        cluster.faults.heal();
        assert_eq!(cluster.settled().await, new, "who returns does not depose the leader");
        assert_eq!(cluster.status(old).term, term);
        ledger.propose(cluster.node(old), "after").await.expect("an acknowledgement");
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_follower_that_returns_raises_no_term_and_deposes_no_leader() {
    simulate(async {
        let cluster = Cluster::of_three(3).await;
        let leader = cluster.leader().await;
        let (term, away) = (cluster.status(leader).term, cluster.others(leader)[0]);
        cluster.faults.isolate(away);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(cluster.status(away).term, term);
        cluster.faults.heal();
        assert_eq!(cluster.leader().await, leader);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((cluster.status(leader).role, cluster.status(leader).term), (NodeRole::Leader, term));
    });
}

#[test]
fn a_write_with_one_of_three_nodes_down_succeeds() {
    simulate(async {
        let (mut cluster, ledger) = (Cluster::of_three(4).await, Ledger::default());
        let leader = cluster.leader().await;
        cluster.stop(cluster.others(leader)[0]).await;
        for id in cluster.ids() {
            ledger.propose(cluster.node(id), format!("at {id}")).await.expect("an acknowledgement");
        }
        cluster.stop(leader).await;
        cluster.start(leader).await;
        for id in cluster.ids() {
            ledger.propose(cluster.node(id), format!("again at {id}")).await.expect("an acknowledgement");
        }
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn with_two_of_three_nodes_down_nothing_is_acknowledged_and_no_caller_hangs() {
    for survivor_leads in [true, false] {
        simulate(async {
            let (mut cluster, ledger) = (Cluster::of_three(5).await, Ledger::default());
            let leader = cluster.leader().await;
            let survivor = if survivor_leads { leader } else { cluster.others(leader)[0] };
            for id in cluster.others(survivor) {
                // Cut off rather than stopped: a machine that dies sends no farewell.
                cluster.faults.isolate(id);
            }
            let node = cluster.node(survivor).clone();
            let began = tokio::time::Instant::now();
            let outcome = ledger.propose(&node, "too few").await;
            assert!(matches!(outcome, Err(ProposeError::NoLeader | ProposeError::OutcomeUnknown)), "{outcome:?}");
            assert!(began.elapsed() < Duration::from_secs(2), "took {:?}", began.elapsed());

            let began = tokio::time::Instant::now();
            assert_eq!(ledger.propose(&node, "still too few").await, Err(ProposeError::NoLeader));
            let read = soon("a read", node.read(Consistency::Linearizable, |_| ())).await;
            assert_eq!(read, Err(ReadError::NoLeader));
            assert!(began.elapsed() < Duration::from_secs(3), "took {:?}", began.elapsed());
            assert!(node.read(Consistency::Local, |_| ()).await.is_ok(), "a local read needs no other node");

            cluster.faults.heal();
            let leader = cluster.leader().await;
            ledger.propose(cluster.node(leader), "enough").await.expect("an acknowledgement");
            cluster.settled().await;
            ledger.check(&cluster.journals());
            cluster.stop_all().await;
        });
    }
}

#[test]
fn nothing_acknowledged_is_lost_while_leaders_come_and_go() {
    for seed in seeds(5) {
        simulate(async {
            let cluster = Cluster::start_all(Plan { members: 5, seed, ..Plan::default() }).await;
            let ledger = Ledger::default();
            let clients = cluster.ids().into_iter().map(|id| {
                let (node, ledger) = (cluster.node(id).clone(), ledger.clone());
                tokio::task::spawn_local(async move {
                    for nth in 0..100 {
                        let _ = ledger.propose(&node, format!("{id}: {nth}")).await;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                })
            });
            let clients: Vec<_> = clients.collect();
            let mut leaders = BTreeSet::new();
            for _ in 0..5 {
                let leader = cluster.leader().await;
                leaders.insert(cluster.status(leader).term);
                tokio::time::sleep(Duration::from_millis(300)).await;
                cluster.faults.isolate(leader);
                cluster.leader_among(&cluster.others(leader)).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
                cluster.faults.heal();
            }
            for client in clients {
                client.await.expect("a client");
            }
            cluster.settled().await;
            assert_eq!(leaders.len(), 5, "each round had a leader of its own");
            assert!(ledger.acknowledged() > 200, "only {} were acknowledged", ledger.acknowledged());
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn an_entry_that_the_next_leader_commits_is_never_reported_as_failed() {
    for seed in seeds(5) {
        simulate(async {
            let (cluster, ledger) = (Cluster::of_three(seed).await, Ledger::default());
            let old = cluster.settled().await;
            // The leader is heard, but hears no other node: its entry reaches all logs, and its
            // callers get no answer.
            for id in cluster.others(old) {
                cluster.faults.cut(id, old);
            }
            let outcome = ledger.propose(cluster.node(old), "orphan").await;
            assert!(matches!(outcome, Ok(_) | Err(ProposeError::OutcomeUnknown)), "{outcome:?}");
            cluster.leader_among(&cluster.others(old)).await;
            cluster.faults.heal();
            cluster.settled().await;
            assert_eq!(cluster.journal(old).count("orphan"), 1, "the next leader had it and committed it");
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn an_entry_that_another_takes_the_place_of_is_applied_nowhere() {
    simulate(async {
        let (cluster, ledger) = (Cluster::of_three(6).await, Ledger::default());
        let old = cluster.settled().await;
        cluster.faults.isolate(old);
        let node = cluster.node(old).clone();
        let (lost, ()) = tokio::join!(ledger.propose(&node, "lost"), async {
            let others = cluster.others(old);
            let new = cluster.leader_among(&others).await;
            ledger.propose(cluster.node(new), "instead").await.expect("an acknowledgement");
            cluster.faults.heal();
        });
        assert!(lost.is_err(), "{lost:?}");
        cluster.settled().await;
        assert_eq!(cluster.journal(old).count("lost"), 0);
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_command_forwarded_to_a_former_leader_goes_to_the_new_one() {
    simulate(async {
        let (cluster, ledger) = (Cluster::of_three(7).await, Ledger::default());
        let old = cluster.settled().await;
        let [asker, other] = cluster.others(old)[..] else { panic!("three nodes") };
        // The forwarded command is under way while the leader is replaced.
        let slow = Duration::from_millis(800);
        let late = quorate_transport_testing::LinkFaults { delay: slow..=slow, ..Default::default() };
        cluster.faults.between(asker, old, late);
        let node = cluster.node(asker).clone();
        let (outcome, ()) = tokio::join!(ledger.propose(&node, "forwarded"), async {
            tokio::task::yield_now().await;
            cluster.faults.cut(old, asker);
            cluster.faults.cut(old, other);
            cluster.leader_among(&[asker, other]).await;
            cluster.faults.heal();
        });
        outcome.expect("an acknowledgement");
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

/// The time after the election of another leader within which a caller gets an answer for a command
/// that was forwarded to a dead leader: a heartbeat interval until the commit of an entry of its term is
/// heard, two for a possible answer of the old leader, one more until deadlines are checked, and some
/// round trips.
const ANSWERED_WITHIN: Duration = Duration::from_millis(250);

#[test]
fn a_write_that_a_dying_leader_did_not_take_is_carried_out_by_the_next_one() {
    for seed in seeds(10) {
        simulate(async {
            let (cluster, ledger) = (Cluster::of_three(seed).await, Ledger::default());
            let old = cluster.settled().await;
            let others = cluster.others(old);
            cluster.faults.isolate(old);
            let asker = cluster.node(others[0]).clone();
            let propose = async { (ledger.propose(&asker, "forwarded").await, tokio::time::Instant::now()) };
            let ((outcome, answered), led) = tokio::join!(propose, async {
                cluster.leader_among(&others).await;
                tokio::time::Instant::now()
            });
            outcome.expect("an acknowledgement");
            assert!(answered.saturating_duration_since(led) < ANSWERED_WITHIN, "seed {seed}: {:?}", answered - led);
            cluster.faults.heal();
            cluster.settled().await;
            assert_eq!(cluster.journal(old).count("forwarded"), 1);
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn of_a_write_that_a_dying_leader_took_the_caller_hears_as_soon_as_another_leads() {
    let mut unknown = 0;
    for seed in seeds(10) {
        unknown += simulate(async {
            let (cluster, ledger) = (Cluster::of_three(seed).await, Ledger::default());
            let old = cluster.settled().await;
            let (others, last) = (cluster.others(old), cluster.status(old).last_log);
            let delay = Duration::from_millis(5);
            cluster
                .faults
                .everywhere(quorate_transport_testing::LinkFaults { delay: delay..=delay, ..Default::default() });
            let asker = cluster.node(others[0]).clone();
            let propose = async { (ledger.propose(&asker, "forwarded").await, tokio::time::Instant::now()) };
            let ((outcome, answered), led) = tokio::join!(propose, async {
                cluster.until("the leader to take it", |view| (view[&old].last_log > last).then_some(())).await;
                // The messages of the leader arrive, but no reply reaches it.
                others.iter().for_each(|id| cluster.faults.cut(*id, old));
                tokio::time::sleep(Duration::from_millis(20)).await;
                cluster.faults.isolate(old);
                cluster.leader_among(&others).await;
                tokio::time::Instant::now()
            });
            assert!(matches!(outcome, Ok(_) | Err(ProposeError::OutcomeUnknown)), "{outcome:?}");
            assert!(answered.saturating_duration_since(led) < ANSWERED_WITHIN, "seed {seed}: {:?}", answered - led);
            cluster.faults.heal();
            cluster.settled().await;
            ledger.check(&cluster.journals());
            u32::from(outcome.is_err())
        });
    }
    assert!(unknown > 0, "the old leader's answer was lost");
}

#[test]
fn a_timing_that_can_not_work_is_refused() {
    simulate(async {
        let refused = |timing| async move {
            let node = quorate::Node::builder(NodeId(1), "testing").voters([(NodeId(1), "")]).timing(timing);
            node.start_local(support::Journal::default()).await.expect_err("an error").to_string()
        };
        let ms = Duration::from_millis;
        let phase = Timing::default().with_election_timeout((ms(150), ms(150)));
        assert!(refused(phase).await.contains("election_timeout"));
        let hasty = Timing::default().with_heartbeat_interval(ms(100));
        assert!(refused(hasty).await.contains("heartbeat_interval"));
    });
}
