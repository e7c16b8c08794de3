//! Client sessions of whole nodes: a command that is sent again is applied once, under
//! every fault meanwhile.

mod support;

use futures_util::future::join_all;
use quorate::{Applied, ProposeError, SessionError, SessionKey, Sessions, Snapshots, Timing};
use quorate_transport_testing::LinkFaults;
use std::time::Duration;
use support::{Cluster, Journal, Plan, relaxed, run, simulate, soon};

#[test]
fn a_command_that_is_sent_again_gets_its_first_answer_at_any_node() {
    simulate(async {
        let cluster = Cluster::of_three(1).await;
        let leader = cluster.leader().await;
        let key = named("client");
        let first = cluster.node(leader).propose("a").by_session(&key, 1).await.expect("it is applied");
        cluster.node(leader).propose("between").await.expect("it is applied");
        for id in cluster.ids() {
            assert_eq!(cluster.node(id).propose("a").by_session(&key, 1).await, Ok(first.clone()), "at node {id}");
        }
        let second = cluster.node(leader).propose("b").by_session(&key, 2).await.expect("it is applied");
        assert_eq!(second.reply, "3", "the state machine saw three commands");
        cluster.settled().await;
        for (node, journal) in cluster.journals() {
            let commands: Vec<_> = journal.iter().map(|(_, command)| command.as_str()).collect();
            assert_eq!(commands, ["a", "between", "b"], "node {node}");
        }
    });
}

#[test]
fn a_session_answers_in_order_and_runs_many_commands_at_once() {
    simulate(async {
        let cluster = Cluster::of_three(2).await;
        let follower = cluster.others(cluster.leader().await)[0];
        let session = cluster.node(follower).session().await.expect("a session");
        let other = cluster.node(follower).session().await.expect("a session");
        assert_ne!(session.key(), other.key());
        let outcomes = join_all((0..300).map(|nth| session.propose(format!("command {nth}")))).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        cluster.settled().await;
        for nth in 0..300 {
            assert_eq!(cluster.journal(follower).count(&format!("command {nth}")), 1);
        }
    });
}

#[test]
fn a_session_is_shared_by_tasks_on_any_threads() {
    run(async {
        let mut cluster =
            Cluster::start_all(Plan { seed: 20, threads: true, timing: relaxed(), ..Plan::default() }).await;
        let leader = cluster.leader().await;
        let session = cluster.node(leader).session().await.expect("a session");
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let session = session.clone();
                tokio::spawn(async move {
                    for nth in 0..50 {
                        session.propose(format!("task {task}: {nth}")).await.expect("it is applied");
                    }
                })
            })
            .collect();
        for task in join_all(tasks).await {
            task.expect("no panic");
        }
        drop(session);
        cluster.settled().await;
        let journal = cluster.journal(leader).entries();
        assert_eq!(journal.len(), 400);
        for task in 0..8 {
            let of_task: Vec<_> =
                journal.iter().filter(|(_, command)| command.starts_with(&format!("task {task}:"))).collect();
            assert!((0..50).all(|nth| of_task[nth].1 == format!("task {task}: {nth}")), "each in its order, once");
        }
        cluster.stop_all().await;
    });
}

#[test]
fn a_retry_after_the_leader_was_killed_finds_the_first_answer() {
    simulate(async {
        let mut cluster = Cluster::of_three(3).await;
        let leader = cluster.leader().await;
        let survivor = cluster.others(leader)[0];
        let key = named("client");
        let first = cluster.node(leader).propose("a").by_session(&key, 7).await.expect("it is applied");
        cluster.stop(leader).await;
        cluster.leader().await;
        assert_eq!(cluster.node(survivor).propose("a").by_session(&key, 7).await, Ok(first.clone()));
        cluster.start(leader).await;
        cluster.settled().await;
        assert_eq!(cluster.node(leader).propose("a").by_session(&key, 7).await, Ok(first), "after the restart, too");
        assert_eq!(cluster.journal(leader).count("a"), 1);
    });
}

#[test]
fn sessions_survive_a_restart_of_all_nodes_from_log_and_snapshot() {
    simulate(async {
        let mut cluster = Cluster::of_three(4).await;
        let leader = cluster.leader().await;
        let (before, behind) = (named("before"), named("behind"));
        let in_snapshot = cluster.node(leader).propose("a").by_session(&before, 1).await.expect("it is applied");
        let session = cluster.node(leader).session().await.expect("a session");
        cluster.settled().await;
        for id in cluster.ids() {
            cluster.node(id).snapshot().await.expect("a snapshot");
        }
        let in_log = cluster.node(leader).propose("b").by_session(&behind, 1).await.expect("it is applied");
        let key = session.key().clone();
        drop(session);
        cluster.settled().await;
        cluster.stop_all().await;
        for id in cluster.members() {
            cluster.start(id).await;
        }
        let node = cluster.node(cluster.settled().await);
        assert_eq!(node.propose("a").by_session(&before, 1).await, Ok(in_snapshot));
        assert_eq!(node.propose("b").by_session(&behind, 1).await, Ok(in_log));
        assert!(node.propose("c").by_session(&key, 1).await.is_ok(), "the opened session is known");
        cluster.settled().await;
        for (node, journal) in cluster.journals() {
            let commands: Vec<_> = journal.iter().map(|(_, command)| command.as_str()).collect();
            assert_eq!(commands, ["a", "b", "c"], "node {node}");
        }
    });
}

/// Scenario 45: the entry that a caller waits for is covered by a snapshot that another
/// leader sends. The caller learns that the outcome is unknown; the session asks again, and
/// finds the first answer.
#[test]
fn a_caller_whose_entry_a_snapshot_covers_finds_the_first_answer() {
    simulate(async {
        let plan = Plan {
            seed: 5,
            snapshots: Snapshots::default().with_every_entries(0).with_every_bytes(0).with_keep_entries(0),
            // No caller gives up before the snapshot comes.
            timing: Timing::default().with_proposal_timeout(Duration::from_secs(20)),
            ..Plan::default()
        };
        let cluster = Cluster::start_all(plan).await;
        let old = cluster.leader().await;
        let session = cluster.node(old).session().await.expect("a session");
        cluster.settled().await;
        // The command reaches both followers, and no answer comes back.
        for other in cluster.others(old) {
            cluster.faults.cut(other, old);
        }
        let waiting = {
            let session = session.clone();
            tokio::task::spawn_local(async move { session.propose("covered").await })
        };
        let others = cluster.others(old);
        let new = cluster.leader_among(&others).await;
        cluster
            .until("the command is applied by the others", |view| {
                (others.iter().all(|id| cluster.journal(*id).count("covered") == 1)).then_some(view[&new].applied)
            })
            .await;
        for id in &others {
            cluster.node(*id).snapshot().await.expect("a snapshot");
        }
        let unknown = || cluster.metric("quorate_proposals_total", &["result=\"outcome_unknown\""]);
        assert_eq!(unknown(), 0.0, "no node could answer it, and it has not given up");
        cluster.faults.heal();
        cluster.until("the snapshot", |_| (cluster.journal(old).restored() > 0).then_some(())).await;
        assert_eq!(unknown(), 1.0, "the snapshot told it that, not a deadline");
        let outcome = soon("the outcome", waiting).await.expect("no panic").expect("it is applied");
        assert_eq!(unknown(), 1.0, "it asked again, and found its answer");
        cluster.settled().await;
        for (node, journal) in cluster.journals() {
            let place = journal.iter().position(|(_, command)| command == "covered").expect("it is applied");
            assert_eq!(cluster.journal(node).count("covered"), 1, "node {node}");
            assert_eq!(outcome, Applied { index: journal[place].0, reply: (place + 1).to_string().into() });
        }
    });
}

#[test]
fn messages_that_come_twice_apply_nothing_twice() {
    simulate(async {
        let cluster = Cluster::of_three(6).await;
        let leader = cluster.leader().await;
        cluster.faults.everywhere(LinkFaults { duplicate: 0.5, ..LinkFaults::default() });
        let follower = cluster.others(leader)[0];
        let session = cluster.node(follower).session().await.expect("a session");
        for nth in 0..50 {
            session.propose(format!("command {nth}")).await.expect("it is applied");
        }
        cluster.faults.clear();
        cluster.settled().await;
        for (node, journal) in cluster.journals() {
            assert_eq!(journal.len(), 50, "node {node}");
        }
    });
}

#[test]
fn a_session_that_was_not_used_for_its_time_is_told_so_and_its_command_is_never_applied() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan { seed: 7, ..Plan::default() });
        let limit = Sessions::default().with_idle_limit(Duration::from_secs(2));
        for id in cluster.members() {
            cluster.start_as(id, Journal::default(), |builder| builder.sessions(limit)).await;
        }
        let leader = cluster.leader().await;
        let session = cluster.node(leader).session().await.expect("a session");
        tokio::time::sleep(Duration::from_millis(1_900)).await;
        session.propose("in time").await.expect("it is applied");
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        assert_eq!(session.propose("too late").await, Err(SessionError::SessionExpired));
        let other = cluster.others(leader)[0];
        let again = cluster.node(other).propose("too late").by_session(session.key(), 9).await;
        assert_eq!(again, Err(SessionError::SessionExpired), "any node says so");
        cluster.settled().await;
        assert_eq!(cluster.journal(leader).count("too late"), 0);
    });
}

#[test]
fn time_without_a_leader_does_not_count() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan { seed: 8, ..Plan::default() });
        let limit = Sessions::default().with_idle_limit(Duration::from_secs(2));
        for id in cluster.members() {
            cluster.start_as(id, Journal::default(), |builder| builder.sessions(limit)).await;
        }
        let key = {
            let session = cluster.node(cluster.leader().await).session().await.expect("a session");
            session.key().clone()
        };
        cluster.settled().await;
        cluster.stop_all().await;
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        for id in cluster.members() {
            cluster.start_as(id, Journal::default(), |builder| builder.sessions(limit)).await;
        }
        let leader = cluster.leader().await;
        assert!(cluster.node(leader).propose("after an hour").by_session(&key, 1).await.is_ok());
    });
}

#[test]
fn the_bound_of_the_leader_is_that_of_all() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan { seed: 9, ..Plan::default() });
        for id in cluster.members() {
            // Each node has another setting; that of the leader decides, and all agree.
            let sessions = Sessions::default().with_max_sessions(3 + id.0 as u32);
            cluster.start_as(id, Journal::default(), |builder| builder.sessions(sessions)).await;
        }
        let leader = cluster.leader().await;
        for nth in 0..20 {
            cluster
                .node(leader)
                .propose("x")
                .by_session(&named(&format!("client {nth}")), 1)
                .await
                .expect("it is applied");
        }
        cluster.settled().await;
        // The metric is updated once a heartbeat.
        tokio::time::sleep(Duration::from_secs(1)).await;
        for id in cluster.ids() {
            let label = format!("node=\"{id}\"");
            assert_eq!(cluster.metric("quorate_sessions", &[&label]), (3 + leader.0) as f64, "node {id}");
        }
    });
}

#[test]
fn without_a_session_an_unknown_outcome_is_reported_as_such() {
    simulate(async {
        let cluster = Cluster::of_three(10).await;
        let leader = cluster.leader().await;
        cluster.faults.isolate(leader);
        let outcome = cluster.node(leader).propose("unknown").await;
        assert_eq!(outcome, Err(ProposeError::OutcomeUnknown));
        let key = named("client");
        let once = cluster.node(leader).propose("unknown, too").by_session(&key, 1).await;
        assert_eq!(once.map(|_| ()).map_err(|error| matches!(error, SessionError::Proposal(_))), Err(true));
    });
}

#[test]
fn a_session_gives_up_in_time_and_goes_on_with_the_next_command() {
    simulate(async {
        let cluster = Cluster::of_three(11).await;
        let leader = cluster.leader().await;
        let session = cluster.node(leader).session().await.expect("a session").with_patience(Duration::from_secs(4));
        cluster.faults.isolate(leader);
        let asked = tokio::time::Instant::now();
        let outcome = session.propose("into the void").await;
        assert_eq!(outcome, Err(SessionError::Proposal(ProposeError::OutcomeUnknown)));
        assert!(asked.elapsed() <= Duration::from_secs(4));
        cluster.faults.heal();
        cluster.settled().await;
        assert!(session.propose("and on it goes").await.is_ok());
    });
}

#[test]
fn a_command_that_is_too_large_is_refused_at_once_and_one_that_just_fits_is_taken_anywhere() {
    simulate(async {
        let cluster = Cluster::of_three(12).await;
        let follower = cluster.others(cluster.leader().await)[0];
        let session = cluster.node(follower).session().await.expect("a session");
        let max = quorate::Limits::default().max_command_bytes;
        let refused = session.propose(vec![b'x'; max + 1]).await;
        assert_eq!(refused, Err(ProposeError::TooLarge { bytes: max + 1, max }.into()));
        assert!(session.propose(vec![b'x'; max]).await.is_ok(), "forwarded, with all that is said around it");
        let longest = named(&"n".repeat(64));
        assert!(cluster.node(follower).propose(vec![b'x'; max]).by_session(&longest, 1).await.is_ok());
    });
}

fn named(name: &str) -> SessionKey {
    SessionKey::named(name.as_bytes()).expect("a name")
}
