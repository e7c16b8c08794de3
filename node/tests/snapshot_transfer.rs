//! Snapshot transfers to a follower that the leader's log can no longer bring up to date; the other
//! nodes are not affected.

mod support;

use quorate::{Index, NodeId, NodeRole, ProposeError, Snapshots, Timing, storage::Wal};
use quorate_transport_testing::LinkFaults;
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};
use support::{Cluster, Journal, Ledger, Plan, View, simulate, soon};
use tokio::time::Instant;

#[test]
fn a_follower_that_was_away_until_the_log_was_cut_gets_a_snapshot() {
    for seed in support::seeds(3) {
        simulate(async {
            let (mut cluster, ledger, leader, away) = log_away(Plan { seed, ..small() }).await;
            cluster.start(away).await;
            cluster.settled().await;
            let journal = cluster.journal(away);
            assert_eq!(journal.restored(), 1);
            assert!(journal.applied() <= 12, "{} were applied anew", journal.applied());
            ledger.check(&cluster.journals());
            assert!(cluster.status(away).snapshot >= Index(20));
            // The restored follower is as good as any other.
            ledger.propose(cluster.node(away), "afterwards").await.expect("an acknowledgement");
            cluster.stop(leader).await;
            cluster.leader().await;
            ledger.propose(cluster.node(away), "without the leader").await.expect("an acknowledgement");
            cluster.settled().await;
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn one_that_was_restarted_afterwards_needs_no_second_snapshot() {
    simulate(async {
        let (mut cluster, ledger, leader, away) = log_away(small()).await;
        cluster.start(away).await;
        cluster.settled().await;
        let sent = cluster.metric("quorate_snapshot_bytes_total", &["direction=\"sent\""]);
        assert!(sent > 0.0);
        cluster.stop(away).await;
        ledger.propose(cluster.node(leader), "one more").await.expect("an acknowledgement");
        cluster.start(away).await;
        assert_eq!(cluster.journal(away).restored(), 1);
        cluster.settled().await;
        assert!((cluster.metric("quorate_snapshot_bytes_total", &["direction=\"sent\""]) - sent).abs() < 0.5);
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_transfer_resumes_where_the_connection_was_cut_and_no_other_node_notices() {
    simulate(async {
        let (mut cluster, ledger, leader, away) = large_state_away(slow()).await;
        let term = cluster.status(leader).term;
        cluster.start(away).await;
        for _ in 0..3 {
            pieces_arrive(&cluster, 100_000.0).await;
            cluster.faults.partition(&[leader], &[away]);
            // Writes and heartbeats go on meanwhile, with the others.
            let began = Instant::now();
            for nth in 0..20 {
                let command = format!("{began:?}: {nth}");
                ledger.propose(cluster.node(leader), command).await.expect("an acknowledgement");
            }
            assert!(began.elapsed() < Duration::from_millis(200), "took {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_secs(2)).await;
            cluster.faults.heal();
        }
        cluster.settled().await;
        let status = cluster.status(leader);
        assert_eq!((status.role, status.term), (NodeRole::Leader, term), "no election was needed");
        let state: usize = cluster.journal(leader).entries().iter().map(|(_, command)| command.len() + 16).sum();
        let sent = cluster.metric("quorate_snapshot_bytes_total", &["direction=\"sent\""]);
        assert!(sent < state as f64 * 1.5, "{sent} bytes were sent of a state of {state}");
        assert_eq!(cluster.journal(away).restored(), 1);
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_transfer_keeps_to_its_pace() {
    simulate(async {
        let (mut cluster, _, _, away) = large_state_away(slow()).await;
        let began = Instant::now();
        cluster.start(away).await;
        cluster.settled().await;
        let took = began.elapsed().as_secs_f64();
        let sent = cluster.metric("quorate_snapshot_bytes_total", &["direction=\"sent\""]);
        let rate = sent / took;
        assert!(rate < slow().snapshots.bytes_per_second as f64 * 1.1, "{rate} bytes a second");
        assert!(rate > slow().snapshots.bytes_per_second as f64 * 0.5, "{rate} bytes a second");
    });
}

#[test]
fn a_transfer_survives_loss_reordering_and_copies() {
    for seed in support::seeds(3) {
        simulate(async {
            let (mut cluster, ledger, _, away) = large_state_away(Plan { seed, ..slow() }).await;
            let bad = LinkFaults {
                drop: 0.05,
                duplicate: 0.05,
                reorder: 0.2,
                delay: Duration::ZERO..=Duration::from_millis(5),
                ..LinkFaults::default()
            };
            cluster.faults.everywhere(bad);
            cluster.start(away).await;
            cluster.until("the snapshot", |view| (view[&away].snapshot > Index(0)).then_some(())).await;
            cluster.faults.clear();
            cluster.settled().await;
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn two_followers_are_sent_one_at_once() {
    simulate(async {
        let (mut cluster, ledger) = (Cluster::start_all(Plan { members: 5, ..small() }).await, Ledger::default());
        let leader = cluster.leader().await;
        let away: Vec<_> = cluster.others(leader)[..2].to_vec();
        for id in &away {
            cluster.stop(*id).await;
        }
        write(&cluster, &ledger, leader, 40, 2000).await;
        cut(&cluster, leader).await;
        for id in &away {
            cluster.start(*id).await;
        }
        cluster.settled().await;
        for id in &away {
            assert_eq!(cluster.journal(*id).restored(), 1);
        }
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_follower_is_sent_the_newest_snapshot_while_the_next_one_is_built() {
    support::run(async {
        let (hold, gate) = mpsc::channel::<()>();
        let gate = Arc::new((AtomicBool::new(false), AtomicBool::new(false), Mutex::new(gate)));
        let journal = || {
            let gate = Arc::clone(&gate);
            Journal::calling(move || {
                let (is_held, has_begun, gate) = &*gate;
                if !is_held.load(Ordering::SeqCst) {
                    return Ok(());
                }
                has_begun.store(true, Ordering::SeqCst);
                gate.lock().unwrap_or_else(PoisonError::into_inner).recv().map_err(io::Error::other)
            })
        };
        let plan = Plan { threads: true, timing: support::relaxed(), ..slow() };
        let (mut cluster, ledger) = (Cluster::vacant(plan), Ledger::default());
        // Dropped before the cluster, so that a failure holds no thread.
        let open = hold;
        for id in cluster.members() {
            cluster.start_as(id, journal(), |builder| builder).await;
        }
        let leader = cluster.leader().await;
        let away = stop_one_and_write(&mut cluster, &ledger, leader, 16, 100).await;
        gate.0.store(true, Ordering::SeqCst);
        ledger.propose(cluster.node(leader), "after the snapshot").await.expect("an acknowledgement");
        let node = cluster.node(leader).clone();
        let building = tokio::spawn(async move { node.snapshot().await });
        soon("the build", async {
            while !gate.1.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        cluster.start_as(away, journal(), |builder| builder).await;
        cluster.until("the snapshot", |view| (view[&away].snapshot > Index(0)).then_some(())).await;
        assert!(!building.is_finished());
        open.send(()).expect("a build that waits");
        soon("the next one", building).await.expect("a task").expect("a snapshot");
        restored_once(&cluster, &ledger, away).await;
        cluster.stop_all().await;
    });
}

#[test]
fn another_leader_completes_what_one_began() {
    for seed in support::seeds(3) {
        simulate(async {
            let (mut cluster, ledger, leader, away) = large_state_away(Plan { seed, ..slow() }).await;
            for other in cluster.others(leader) {
                soon("a snapshot", cluster.node(other).snapshot()).await.expect("a snapshot");
            }
            cluster.start(away).await;
            pieces_arrive(&cluster, 150_000.0).await;
            // The majority needs the node that is away: until it has the snapshot, no write
            // can be acknowledged.
            cluster.stop(leader).await;
            let next = cluster.leader().await;
            assert_ne!(next, away, "it lacks what is committed");
            ledger.propose(cluster.node(next), "by the next").await.expect("an acknowledgement");
            cluster.start(leader).await;
            cluster.settled().await;
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn a_receiver_that_is_restarted_in_the_middle_begins_anew_and_is_never_half_restored() {
    for seed in support::seeds(3) {
        simulate(async {
            let (mut cluster, ledger, _, away) = large_state_away(Plan { seed, ..slow() }).await;
            for arrived in [50_000.0, 250_000.0] {
                cluster.start(away).await;
                pieces_arrive(&cluster, arrived).await;
                cluster.stop(away).await;
            }
            cluster.start(away).await;
            assert_eq!(cluster.journal(away).restored(), 0);
            restored_once(&cluster, &ledger, away).await;
        });
    }
}

#[test]
fn a_follower_that_falls_behind_again_during_its_transfer_need_not_begin_again() {
    simulate(async {
        let snapshots = slow().snapshots.with_every_entries(20);
        let (mut cluster, ledger, leader, away) = large_state_away(Plan { snapshots, ..slow() }).await;
        cluster.start(away).await;
        pieces_arrive(&cluster, 50_000.0).await;
        // Many snapshots are taken while one is being sent; the log after that one stays.
        let before = cluster.status(leader).first_log;
        write(&cluster, &ledger, leader, 200, 10).await;
        let status = cluster.status(leader);
        assert!(status.snapshot >= Index(before.0 + 150), "{status:?}");
        assert_eq!(status.first_log, before, "kept for whom the snapshot is being sent");
        cluster.settled().await;
        assert_eq!(cluster.journal(away).restored(), 1);
        // The log is released once it is no longer needed.
        write(&cluster, &ledger, leader, 50, 10).await;
        cluster.until("the log to be cut", |view| (view[&leader].first_log > status.snapshot).then_some(())).await;
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_peer_that_vanishes_during_its_transfer_holds_the_log_back_for_a_minute_at_most() {
    simulate(async {
        let snapshots = slow().snapshots.with_every_entries(20);
        let (mut cluster, ledger, leader, away) = large_state_away(Plan { snapshots, ..slow() }).await;
        cluster.start(away).await;
        pieces_arrive(&cluster, 100_000.0).await;
        cluster.faults.isolate(away);
        let before = cluster.status(leader).first_log;
        write(&cluster, &ledger, leader, 100, 10).await;
        assert_eq!(cluster.status(leader).first_log, before);
        tokio::time::sleep(Duration::from_secs(61)).await;
        write(&cluster, &ledger, leader, 100, 10).await;
        let others: Vec<_> = cluster.others(away);
        let cut = |view: &View| (view[&leader].first_log > Index(before.0 + 100)).then_some(());
        cluster.until("the log to be cut", cut).await;
        // Once the node is back it gets another snapshot.
        cluster.faults.heal();
        cluster.leader_among(&others).await;
        restored_once(&cluster, &ledger, away).await;
    });
}

#[test]
fn a_caller_of_an_entry_that_a_received_snapshot_covers_learns_that_the_outcome_is_unknown() {
    simulate(async {
        // No caller gives up before: their outcomes are due to the snapshot.
        let hour = Duration::from_secs(3600);
        let timing = Timing::default().with_proposal_timeout(hour).with_leader_wait(hour);
        let (cluster, ledger) = (Cluster::start_all(Plan { timing, ..small() }).await, Ledger::default());
        let old = cluster.leader().await;
        let others = cluster.others(old);
        cluster.settled().await;
        cluster.faults.partition(&[old], &others);
        let (node, asked) = (cluster.node(old).clone(), ledger.clone());
        let waiting = tokio::task::spawn_local(async move { asked.propose(&node, "cut off").await });
        let next = cluster.leader_among(&others).await;
        write(&cluster, &ledger, next, 30, 10).await;
        cut(&cluster, next).await;
        cluster.faults.heal();
        assert_eq!(soon("an answer", waiting).await.expect("a task"), Err(ProposeError::OutcomeUnknown));
        cluster.settled().await;
        assert_eq!(cluster.journal(old).restored(), 1);
        assert_eq!(cluster.journal(old).count("cut off"), 0);
        ledger.check(&cluster.journals());
    });
}

#[test]
fn transfers_run_the_same_way_each_time() {
    let story = || {
        simulate(async {
            let (mut cluster, _, _, away) = large_state_away(Plan { seed: 7, ..slow() }).await;
            let began = Instant::now();
            cluster.start(away).await;
            cluster.settled().await;
            (began.elapsed(), cluster.metric("quorate_net_bytes_total", &[]).to_bits(), cluster.journals())
        })
    };
    assert_eq!(story(), story());
}

#[test]
fn nodes_on_threads_send_snapshots_too() {
    support::run(async {
        let plan = Plan { threads: true, timing: support::relaxed(), ..small() };
        let (mut cluster, ledger, _, away) = large_state_away(plan).await;
        cluster.start(away).await;
        restored_once(&cluster, &ledger, away).await;
        cluster.stop_all().await;
    });
}

#[test]
fn nodes_on_threads_send_snapshots_from_disk_to_disk() {
    support::run(async {
        let directory = tempfile::tempdir().expect("a directory");
        let plan = Plan { threads: true, timing: support::relaxed(), ..small() };
        let (mut cluster, ledger) = (Cluster::vacant(plan), Ledger::default());
        let wal = |id: NodeId| Wal::at(directory.path().join(id.to_string())).segment_bytes(64 << 10);
        for id in cluster.members() {
            cluster.start_as(id, Journal::default(), |builder| builder.storage(wal(id))).await;
        }
        let leader = cluster.leader().await;
        let away = stop_one_and_write(&mut cluster, &ledger, leader, 16, 32 << 10).await;
        cluster.start_as(away, Journal::default(), |builder| builder.storage(wal(away))).await;
        cluster.settled().await;
        assert_eq!(cluster.journal(away).restored(), 1);
        cluster.stop_all().await;
        for id in cluster.members() {
            cluster.start_as(id, Journal::default(), |builder| builder.storage(wal(id))).await;
            assert_eq!(cluster.journal(id).restored(), 1);
        }
        ledger.propose(cluster.node(away), "afterwards").await.expect("an acknowledgement");
        cluster.settled().await;
        ledger.check(&cluster.journals());
        cluster.stop_all().await;
    });
}

/// A snapshot every ten entries, with two entries kept in the log.
fn small() -> Plan {
    let snapshots = Snapshots::default().with_every_entries(10).with_every_bytes(0).with_keep_entries(2);
    Plan { snapshots, ..Plan::default() }
}

/// Snapshots on demand, sent at an eighth of a megabyte a second.
fn slow() -> Plan {
    let snapshots = Snapshots::default()
        .with_every_entries(0)
        .with_every_bytes(0)
        .with_keep_entries(0)
        .with_bytes_per_second(128 << 10);
    Plan { snapshots, ..Plan::default() }
}

/// A started cluster of which a follower was stopped before thirty commands, which the log no
/// longer has. Gives the leader and the follower as well.
async fn log_away(plan: Plan) -> (Cluster, Ledger, NodeId, NodeId) {
    let (mut cluster, ledger) = (Cluster::start_all(plan).await, Ledger::default());
    let leader = cluster.leader().await;
    write(&cluster, &ledger, leader, 3, 10).await;
    let away = stop_one_and_write(&mut cluster, &ledger, leader, 30, 10).await;
    (cluster, ledger, leader, away)
}

/// The same with a state of half a megabyte.
async fn large_state_away(plan: Plan) -> (Cluster, Ledger, NodeId, NodeId) {
    let (mut cluster, ledger) = (Cluster::start_all(plan).await, Ledger::default());
    let leader = cluster.leader().await;
    let away = stop_one_and_write(&mut cluster, &ledger, leader, 16, 32 << 10).await;
    (cluster, ledger, leader, away)
}

/// Stops a follower and writes until the log that it needs is cut. Gives the follower.
async fn stop_one_and_write(
    cluster: &mut Cluster,
    ledger: &Ledger,
    leader: NodeId,
    commands: usize,
    bytes: usize,
) -> NodeId {
    let away = cluster.others(leader)[0];
    cluster.settled().await;
    cluster.stop(away).await;
    write(cluster, ledger, leader, commands, bytes).await;
    cut(cluster, leader).await;
    away
}

/// Waits until all nodes agree, and checks that one snapshot was enough for this one.
async fn restored_once(cluster: &Cluster, ledger: &Ledger, id: NodeId) {
    cluster.settled().await;
    assert_eq!(cluster.journal(id).restored(), 1);
    ledger.check(&cluster.journals());
}

async fn write(cluster: &Cluster, ledger: &Ledger, at: NodeId, commands: usize, bytes: usize) {
    for nth in 0..commands {
        let told = ledger.told();
        let command = format!("{told}/{nth} {}", "x".repeat(bytes));
        ledger.propose(cluster.node(at), command).await.expect("an acknowledgement");
    }
}

/// Lets the leader take a snapshot and cut its log, so that a node that is away needs it. In
/// real time the leader may have begun to send an earlier one to no receiver, for which it keeps
/// a few entries.
async fn cut(cluster: &Cluster, leader: NodeId) {
    let taken = soon("a snapshot", cluster.node(leader).snapshot()).await.expect("a snapshot");
    let is_cut = |view: &View| (view[&leader].first_log.0 + 2 >= taken.index.0.min(11)).then_some(());
    cluster.until("the log to be cut", is_cut).await;
}

/// Waits until nodes have received this many more bytes of snapshots.
async fn pieces_arrive(cluster: &Cluster, bytes: f64) {
    let arrived = || cluster.metric("quorate_snapshot_bytes_total", &["direction=\"received\""]);
    let wanted = arrived() + bytes;
    soon("pieces of a snapshot", async {
        while arrived() < wanted {
            // Simulated time passes only while all tasks wait.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}
