//! Recovery from disk damage: faulty entries are healed, lost states are fetched, emptied
//! directories and diverged logs are refused, full disks are survived.

mod support;

use quorate::{Consistency, Failure, Index, NodeId, NodeRole, ProposeError, Snapshots, StartError, Term};
use quorate_raft::{Append, AppendOutcome, BatchBuilder, Body, EntryId, Heartbeat, Kind, Message};
use std::time::Duration;
use support::{Cluster, Interposed, Journal, Ledger, Plan, Puppet, Tap, Verdict, View, matched, simulate, soon};

#[test]
fn a_node_with_faulty_entries_heals_without_a_restart_and_serves_then() {
    for seed in support::seeds(3) {
        for was_leader in [false, true] {
            simulate(async {
                let (mut cluster, ledger, last) = written(Plan { seed, ..Plan::default() }, 10).await;
                let leader = cluster.leader().await;
                let hurt = if was_leader { leader } else { cluster.others(leader)[0] };
                cluster.stop(hurt).await;
                for index in [2, 3, 7, last.0] {
                    assert!(cluster.log(hurt).lose(Index(index), index % 2 == 0));
                }
                cluster.start(hurt).await;
                let status = cluster.status(hurt);
                assert_eq!(status.faulty, 4, "what the slots know counts");
                // A leader that stops may have heard of its successor.
                assert!(status.last_log == last || was_leader && status.last_log == last.next(), "{status:?}");
                ledger.propose(cluster.node(hurt), "while hurt").await.expect("an acknowledgement");
                cluster.settled().await;
                assert_eq!(cluster.status(hurt).faulty, 0);
                let read = cluster.node(hurt).read(Consistency::Linearizable, |journal| journal.entries().len());
                assert_eq!(soon("a read", read).await.expect("a read").value, 11);
                ledger.check(&cluster.journals());
                let healed =
                    cluster.metric("quorate_repairs_total", &["result=\"healed\"", &format!("node=\"{hurt}\"")]);
                assert_eq!(healed as u64, 4);
                // It may lead again.
                for other in cluster.others(hurt) {
                    cluster.stop(other).await;
                    cluster.start(other).await;
                }
                cluster.settled().await;
                ledger.check(&cluster.journals());
            });
        }
    }
}

#[test]
fn nothing_from_the_first_faulty_entry_on_is_applied() {
    simulate(async {
        let (mut cluster, _, last) = written(Plan::default(), 10).await;
        cluster.stop_all().await;
        let hurt = NodeId(1);
        cluster.log(hurt).lose(Index(5), true);
        cluster.start(hurt).await;
        let mut puppet = Puppet::start(&cluster.network, NodeId(2), hurt).await;
        // The puppet leads: all entries are committed, and it has none to send.
        let term = Term(cluster.status(hurt).term.0 + 1);
        let heartbeat = Heartbeat { round: 1, commit: last };
        for _ in 0..20 {
            puppet.say(term, Body::Heartbeat(heartbeat));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let status = cluster.status(hurt);
        assert_eq!((status.applied, status.faulty, status.role), (Index(4), 1, NodeRole::Follower));
        let said = puppet.hear_for_a_second().await;
        assert!(!said.iter().any(|message| matches!(message.body, Body::RequestVote(_))), "it must not campaign");
    });
}

#[test]
fn all_three_may_lose_different_entries_and_none_is_forgotten() {
    for seed in support::seeds(5) {
        simulate(async {
            let (mut cluster, ledger, last) = written(Plan { seed, ..Plan::default() }, 8).await;
            cluster.stop_all().await;
            for id in 1..=3 {
                for index in (2..=last.0).filter(|index| index % 3 == id - 1) {
                    cluster.log(NodeId(id)).lose(Index(index), true);
                }
            }
            for id in cluster.members() {
                cluster.start(id).await;
            }
            // No node can lead until the nodes have healed each other.
            cluster.settled().await;
            assert!(cluster.ids().into_iter().all(|id| cluster.status(id).faulty == 0));
            ledger.propose(cluster.node(NodeId(1)), "afterwards").await.expect("an acknowledgement");
            cluster.settled().await;
            assert_eq!(ledger.acknowledged(), 9);
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn an_entry_that_all_have_lost_is_never_forgotten_and_no_node_leads() {
    simulate(async {
        let (mut cluster, ledger, _) = written(Plan::default(), 5).await;
        cluster.stop_all().await;
        for id in cluster.members() {
            assert!(cluster.log(id).lose(Index(4), true));
        }
        for id in cluster.members() {
            cluster.start(id).await;
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        for id in cluster.ids() {
            let status = cluster.status(id);
            assert_eq!((status.faulty, status.leader, status.applied), (1, None, Index(0)), "{status:?}");
        }
        let told = ledger.propose(cluster.node(NodeId(1)), "in vain").await;
        assert_eq!(told, Err(ProposeError::NoLeader));
    });
}

#[test]
fn a_power_cut_that_tears_the_last_write_of_all_three_does_not_leave_them_stuck() {
    for seed in support::seeds(5) {
        simulate(async {
            let (mut cluster, ledger, last) = written(Plan { seed, ..Plan::default() }, 5).await;
            // The leader appends one more entry, which reaches its own disk and that
            // of no follower.
            let leader = cluster.leader().await;
            cluster.faults.isolate(leader);
            let (node, asked) = (cluster.node(leader).clone(), ledger.clone());
            let torn = tokio::task::spawn_local(async move { asked.propose(&node, "torn").await });
            let appended = |view: &View| (view[&leader].last_log > last).then_some(view[&leader].last_log);
            let index = cluster.until("the entry", appended).await;
            cluster.stop_all().await;
            assert_eq!(soon("an answer", torn).await.expect("a task"), Err(ProposeError::OutcomeUnknown));
            cluster.faults.heal();
            // Nothing of the payload is left, nor any proof that it was ever synced.
            assert!(cluster.log(leader).lose(index, false));
            for id in cluster.members() {
                cluster.start(id).await;
            }
            cluster.settled().await;
            ledger.propose(cluster.node(leader), "afterwards").await.expect("an acknowledgement");
            cluster.settled().await;
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn a_node_whose_snapshot_is_lost_gets_another() {
    simulate(async {
        let snapshots = Snapshots::default().with_every_entries(0).with_every_bytes(0).with_keep_entries(2);
        let (mut cluster, ledger, last) = written(Plan { snapshots, ..Plan::default() }, 10).await;
        let leader = cluster.leader().await;
        let hurt = cluster.others(leader)[0];
        soon("a snapshot", cluster.node(hurt).snapshot()).await.expect("a snapshot");
        cluster.stop(hurt).await;
        assert!(cluster.log(hurt).lose_snapshot());
        // The leader's log is whole: it must take a snapshot for this node alone.
        assert_eq!(cluster.status(leader).first_log, Index(1));
        cluster.start(hurt).await;
        let status = cluster.status(hurt);
        assert_eq!((status.applied, status.last_log), (Index(0), last));
        cluster.settled().await;
        assert_eq!(cluster.journal(hurt).restored(), 1);
        ledger.propose(cluster.node(hurt), "afterwards").await.expect("an acknowledgement");
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn the_only_voter_refuses_to_start_on_a_log_that_lost_something_and_says_what_to_do() {
    simulate(async {
        for (was_durable, remedy) in [(true, "backup"), (false, "discard_unproven")] {
            let (mut cluster, _, _) = written(Plan { members: 1, ..Plan::default() }, 5).await;
            cluster.stop_all().await;
            cluster.log(NodeId(1)).lose(Index(3), was_durable);
            cluster.log(NodeId(1)).lose(Index(5), was_durable);
            let refused = cluster.try_start_as(NodeId(1), Journal::default(), |builder| builder).await;
            let (in_doubt, said) = match refused {
                Err(StartError::InDoubt(said)) => (true, said),
                Err(StartError::Storage(error)) => (false, error.to_string()),
                other => panic!("{other:?}"),
            };
            assert_eq!(in_doubt, !was_durable);
            assert!(said.contains("2 entries (3@1, 5@1, index@term)") && said.contains(remedy), "{said}");
        }
    });
}

#[test]
fn the_only_voter_refuses_to_start_without_the_snapshot_that_its_log_begins_with() {
    simulate(async {
        let snapshots = Snapshots::default().with_every_entries(0).with_every_bytes(0).with_keep_entries(2);
        let (mut cluster, _, _) = written(Plan { members: 1, snapshots, ..Plan::default() }, 5).await;
        soon("a snapshot", cluster.node(NodeId(1)).snapshot()).await.expect("a snapshot");
        cluster.stop_all().await;
        assert!(cluster.log(NodeId(1)).lose_snapshot());
        let refused = cluster.try_start_as(NodeId(1), Journal::default(), |builder| builder).await;
        let Err(StartError::Storage(error)) = refused else { panic!("{refused:?}") };
        let said = error.to_string();
        assert!(said.contains("up to 4") && said.contains("backup"), "{said}");
    });
}

#[test]
fn nodes_that_all_lost_their_state_wait_and_show_it() {
    simulate(async {
        let snapshots = Snapshots::default().with_every_entries(0).with_every_bytes(0).with_keep_entries(2);
        let (mut cluster, _, _) = written(Plan { snapshots, ..Plan::default() }, 8).await;
        for id in cluster.ids() {
            soon("a snapshot", cluster.node(id).snapshot()).await.expect("a snapshot");
        }
        cluster.stop_all().await;
        for id in cluster.members() {
            assert!(cluster.log(id).lose_snapshot());
        }
        for id in cluster.members() {
            cluster.start(id).await;
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        for id in cluster.ids() {
            let status = cluster.status(id);
            assert!(status.lost_up_to.is_some() && status.leader.is_none(), "{status:?}");
        }
    });
}

#[test]
fn a_node_whose_directory_was_emptied_is_refused_with_the_remedy() {
    for hurt_leader in [false, true] {
        simulate(async {
            let (mut cluster, ledger, _) = written(Plan::default(), 5).await;
            let leader = cluster.leader().await;
            let hurt = if hurt_leader { leader } else { cluster.others(leader)[0] };
            cluster.stop(hurt).await;
            cluster.empty(hurt);
            cluster.start(hurt).await;
            let failure = soon("a refusal", cluster.node(hurt).failed()).await;
            let Failure::DataLost(violation) = failure else { panic!("{failure:?}") };
            let said = violation.to_string();
            assert!(said.contains("remove this member and add a new one"), "{said}");
            cluster.stop(hurt).await;
            cluster.settled().await;
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn an_emptied_node_never_votes_the_others_memory_away() {
    simulate(async {
        let (mut cluster, ledger, last) = written(Plan::default(), 5).await;
        let leader = cluster.leader().await;
        let (hurt, behind) = (cluster.others(leader)[0], cluster.others(leader)[1]);
        // One follower misses an entry that the two others acknowledge; then one of these is
        // stopped, and the other is emptied.
        cluster.stop(behind).await;
        ledger.propose(cluster.node(leader), "on two of three").await.expect("an acknowledgement");
        cluster.settled().await;
        cluster.stop_all().await;
        cluster.empty(hurt);
        cluster.start(hurt).await;
        cluster.start(behind).await;
        // Neither node knows that the other one is not new; still, the emptied one votes for no
        // node with a log.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(cluster.status(behind).leader, None, "no node may lead that lacks acknowledged entries");
        assert_eq!((cluster.status(behind).last_log, cluster.status(hurt).last_log), (last, Index(0)));
        // The third node knows that the emptied one had a log.
        cluster.start(leader).await;
        soon("a refusal", cluster.node(hurt).failed()).await;
        cluster.stop(hurt).await;
        cluster.leader_among(&[leader, behind]).await;
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_node_whose_log_contradicts_a_quorum_stops_and_overwrites_nothing() {
    simulate(async {
        let (mut cluster, subject, term) = (Cluster::vacant(Plan::default()), NodeId(1), Term(3));
        let mut leader = Puppet::start(&cluster.network, NodeId(2), subject).await;
        cluster.start(subject).await;
        let mine = batch(1, 0, &["mine"]);
        let append = |epoch, previous, checksum, commit, batch| {
            Body::Append(Append { epoch, previous, previous_checksum: checksum, commit, batch })
        };
        leader.say(term, append(1, EntryId::default(), Some(0), Index(0), Some(mine.clone())));
        leader.hear("an acknowledgement", matched).await;
        // The next leader has another entry under the same id.
        let others = batch(1, 0, &["other"]);
        let next = batch(2, others.checksum(), &["next"]);
        let previous = EntryId::new(term, Index(1));
        leader.say(term, append(2, previous, Some(others.checksum()), Index(0), Some(next.clone())));
        let diverged = |message: &Message| match message.body {
            Body::AppendReply(reply) => Some(reply.outcome),
            _ => None,
        };
        let outcome = leader.hear("an answer", diverged).await;
        assert_eq!(outcome, AppendOutcome::Diverged { at: previous });
        assert_eq!(cluster.status(subject).last_log, Index(1), "nothing was appended behind it");
        assert_eq!(cluster.metric("quorate_divergences_total", &["peer=\"2\""]) as u64, 1);
        leader.say(term, append(3, previous, Some(others.checksum()), Index(0), Some(next.clone())));
        leader.hear("an answer", diverged).await;
        assert_eq!(cluster.metric("quorate_divergences_total", &["peer=\"2\""]) as u64, 1, "said once");
        // A quorum has the leader's entry: only this node has another.
        leader.say(term, append(4, previous, Some(others.checksum()), Index(1), Some(next)));
        let failure = soon("the end", cluster.node(subject).failed()).await;
        let Failure::Violation(violation) = failure else { panic!("{failure:?}") };
        let said = violation.to_string();
        assert!(said.contains("entry 1@3"), "{said}");
    });
}

#[test]
fn a_leader_whose_disk_is_full_makes_way_and_all_goes_on_when_there_is_space() {
    simulate(async {
        let (mut cluster, ledger) = (Cluster::vacant(Plan::default()), Ledger::default());
        let taps: Vec<_> = cluster.members().map(|id| (id, Tap::default())).collect();
        for (id, tap) in &taps {
            let storage = Interposed::tapped(cluster.log(*id).storage(), |_| Verdict::GoOn, tap);
            cluster.start_as(*id, Journal::default(), |builder| builder.storage(storage)).await;
        }
        let leader = cluster.leader().await;
        let tap_of = |wanted: NodeId| &taps.iter().find(|(id, _)| *id == wanted).expect("a tap").1;
        ledger.propose(cluster.node(leader), "before").await.expect("an acknowledgement");

        tap_of(leader).full(true);
        let others = cluster.others(leader);
        let next = cluster.until("another leader", |view: &View| {
            others.iter().copied().find(|other| view[other].role == NodeRole::Leader)
        });
        let next = next.await;
        assert!(cluster.status(leader).storage_full);
        ledger.propose(cluster.node(next), "at the next").await.expect("an acknowledgement");
        ledger.propose(cluster.node(leader), "through the full one").await.expect("an acknowledgement");
        assert_eq!(cluster.metric("quorate_storage_full", &[&format!("node=\"{leader}\"")]) as u64, 1);

        // With a second full disk no write can be acknowledged, and the caller gets an error.
        tap_of(next).full(true);
        cluster.until("no leader", |view: &View| (view[&next].role != NodeRole::Leader).then_some(())).await;
        let told = ledger.propose(cluster.node(leader), "in vain").await;
        assert!(matches!(told, Err(ProposeError::StorageFull | ProposeError::OutcomeUnknown)), "{told:?}");

        for (_, tap) in &taps {
            tap.full(false);
        }
        cluster.settled().await;
        ledger.propose(cluster.node(leader), "afterwards").await.expect("an acknowledgement");
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_single_node_whose_disk_is_full_says_so_definitely_and_goes_on_when_there_is_space() {
    simulate(async {
        let (mut cluster, ledger) = (Cluster::vacant(Plan { members: 1, ..Plan::default() }), Ledger::default());
        let (id, tap) = (NodeId(1), Tap::default());
        let storage = Interposed::tapped(cluster.log(id).storage(), |_| Verdict::GoOn, &tap);
        cluster.start_as(id, Journal::default(), |builder| builder.storage(storage)).await;
        cluster.leader().await;
        ledger.propose(cluster.node(id), "before").await.expect("an acknowledgement");
        tap.full(true);
        cluster.until("a full disk", |view: &View| view[&id].storage_full.then_some(())).await;
        assert_eq!(ledger.propose(cluster.node(id), "in vain").await, Err(ProposeError::StorageFull));
        tap.full(false);
        cluster.leader().await;
        ledger.propose(cluster.node(id), "afterwards").await.expect("an acknowledgement");
        ledger.check(&cluster.journals());
    });
}

/// A settled cluster with this many commands, and the last entry of its logs.
async fn written(plan: Plan, commands: usize) -> (Cluster, Ledger, Index) {
    let (cluster, ledger) = (Cluster::start_all(plan).await, Ledger::default());
    let leader = cluster.leader().await;
    for nth in 0..commands {
        ledger.propose(cluster.node(leader), format!("command {nth}")).await.expect("an acknowledgement");
    }
    cluster.settled().await;
    let last = cluster.status(leader).last_log;
    (cluster, ledger, last)
}

fn batch(first: u64, previous: u32, commands: &[&str]) -> quorate_raft::Batch {
    let mut builder = BatchBuilder::new(quorate::storage::checksum, Term(3), Index(first), previous, 64);
    commands.iter().for_each(|command| builder.push(Kind::Command, command.as_bytes()));
    builder.finish().expect("a batch")
}
