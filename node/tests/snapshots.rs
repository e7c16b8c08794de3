//! Snapshots of whole nodes: the policy that takes them, the log that they leave, and restarts that
//! begin with them.

mod support;

use quorate::{At, Index, NodeId, SnapshotError, Snapshots, StartError};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
};
use support::{Cluster, Journal, Ledger, Plan, relaxed, run, simulate, soon};

#[test]
fn a_snapshot_is_taken_after_so_many_entries_and_the_log_is_cut_behind_it() {
    simulate(async {
        let (cluster, ledger) = (Cluster::start_all(every(10, 3)).await, Ledger::default());
        let leader = cluster.leader().await;
        for nth in 0..25 {
            ledger.propose(cluster.node(leader), format!("{nth}")).await.expect("an acknowledgement");
        }
        cluster.settled().await;
        let cut = |view: &support::View| {
            let is_cut = |status: &quorate::Status| {
                status.snapshot >= Index(20) && status.first_log == Index(status.snapshot.0 - 3 + 1)
            };
            view.values().all(is_cut).then_some(())
        };
        cluster.until("every log to be cut", cut).await;
        assert!(cluster.metric("quorate_snapshot_duration_seconds_count", &["phase=\"build\""]) >= 6.0);
        assert_eq!(ledger.acknowledged(), 25);
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_snapshot_is_taken_after_so_many_bytes() {
    simulate(async {
        let snapshots = Snapshots::default().with_every_entries(0).with_every_bytes(10_000).with_keep_entries(0);
        let (cluster, ledger) = (Cluster::start_all(with(snapshots)).await, Ledger::default());
        let leader = cluster.leader().await;
        for nth in 0..9 {
            ledger.propose(cluster.node(leader), format!("{nth:1000}")).await.expect("an acknowledgement");
        }
        cluster.settled().await;
        assert_eq!(cluster.status(leader).snapshot, Index(0), "9 kB are not enough");
        ledger.propose(cluster.node(leader), format!("{:1000}", 9)).await.expect("an acknowledgement");
        let taken = |view: &support::View| view.values().all(|status| status.snapshot > Index(0)).then_some(());
        cluster.until("snapshots", taken).await;
        let status = cluster.status(leader);
        assert_eq!(status.first_log, status.snapshot.next());
    });
}

#[test]
fn a_snapshot_on_demand_covers_what_was_acknowledged_before_and_the_log_is_cut_when_it_resolves() {
    simulate(async {
        let (cluster, ledger) = (Cluster::start_all(every(0, 2)).await, Ledger::default());
        let leader = cluster.leader().await;
        for nth in 0..10 {
            let applied = ledger.propose(cluster.node(leader), format!("{nth}")).await.expect("an acknowledgement");
            let taken = soon("a snapshot", cluster.node(leader).snapshot()).await.expect("a snapshot");
            assert_eq!(taken.index, applied.index);
            let status = cluster.status(leader);
            assert_eq!((status.snapshot, status.first_log), (taken.index, Index((taken.index.0 - 2 + 1).max(1))));
            let again = soon("a snapshot", cluster.node(leader).snapshot()).await.expect("a snapshot");
            assert_eq!(again.index, taken.index, "nothing was applied since");
        }
        let follower = cluster.others(leader)[0];
        cluster.settled().await;
        let taken = soon("a snapshot", cluster.node(follower).snapshot()).await.expect("a follower's snapshot");
        assert_eq!(taken.index, cluster.status(leader).last_log);
    });
}

#[test]
fn a_machine_without_snapshots_keeps_its_log() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan { members: 1, ..every(5, 0) });
        cluster.start_as(NodeId(1), Journal::without_snapshots(), |builder| builder).await;
        let (node, ledger) = (cluster.node(NodeId(1)), Ledger::default());
        for nth in 0..20 {
            ledger.propose(node, format!("{nth}")).await.expect("an acknowledgement");
        }
        assert_eq!(soon("an answer", node.snapshot()).await, Err(SnapshotError::Unsupported));
        assert_eq!(cluster.status(NodeId(1)).first_log, Index(1));
    });
}

#[test]
fn a_restart_begins_with_the_snapshot_and_applies_only_what_is_behind_it() {
    simulate(async {
        let (mut cluster, ledger) = (Cluster::start_all(every(0, 2)).await, Ledger::default());
        let leader = cluster.leader().await;
        for nth in 0..10 {
            ledger.propose(cluster.node(leader), format!("{nth}")).await.expect("an acknowledgement");
        }
        cluster.settled().await;
        for id in cluster.ids() {
            soon("a snapshot", cluster.node(id).snapshot()).await.expect("a snapshot");
        }
        for nth in 10..15 {
            ledger.propose(cluster.node(leader), format!("{nth}")).await.expect("an acknowledgement");
        }
        cluster.settled().await;
        cluster.stop_all().await;
        for id in cluster.members() {
            cluster.start(id).await;
            let (journal, status) = (cluster.journal(id), cluster.status(id));
            assert_eq!((journal.entries().len(), journal.restored(), journal.applied()), (10, 1, 0));
            assert_eq!(status.applied, status.snapshot);
        }
        cluster.settled().await;
        for id in cluster.ids() {
            assert_eq!(cluster.journal(id).applied(), 5, "only what the snapshot does not cover");
        }
        ledger.propose(cluster.node(NodeId(2)), "after").await.expect("an acknowledgement");
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_machine_that_refuses_the_snapshot_refuses_to_start() {
    simulate(async {
        let mut cluster = Cluster::start_all(Plan { members: 1, ..every(0, 0) }).await;
        cluster.leader().await;
        Ledger::default().propose(cluster.node(NodeId(1)), "command").await.expect("an acknowledgement");
        soon("a snapshot", cluster.node(NodeId(1)).snapshot()).await.expect("a snapshot");
        cluster.stop_all().await;
        let refused = cluster.try_start_as(NodeId(1), Journal::refusing(), |builder| builder).await;
        let Err(StartError::Restore(error)) = refused else { panic!("{refused:?}") };
        let said = error.to_string();
        assert!(said.contains("entry 2@1") && said.contains("told to refuse"), "{said}");
        cluster.start(NodeId(1)).await;
        assert_eq!(cluster.journal(NodeId(1)).entries().len(), 1, "nothing was held by the one that refused");
    });
}

#[test]
fn building_blocks_no_applying_and_a_snapshot_asked_for_meanwhile_follows() {
    run(async {
        let (open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&begun);
        let journal = Journal::calling(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            gate.lock().unwrap_or_else(PoisonError::into_inner).recv().map_err(io::Error::other)
        });
        let plan = Plan { members: 1, threads: true, timing: relaxed(), ..every(0, 0) };
        let mut cluster = Cluster::vacant(plan);
        cluster.start_as(NodeId(1), journal, |builder| builder).await;
        let (node, ledger) = (cluster.node(NodeId(1)).clone(), Ledger::default());
        let before = ledger.propose(&node, "before").await.expect("an acknowledgement");
        let ask = || {
            let node = node.clone();
            tokio::spawn(async move { node.snapshot().await })
        };
        let first = ask();
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let mut last = before.index;
        for nth in 0..50 {
            last = ledger.propose(&node, format!("during {nth}")).await.expect("an acknowledgement").index;
        }
        let second = ask();
        // The request comes while the first snapshot is being written, so that one must
        // not answer it.
        let asked = node.clone();
        asked.read(quorate::Consistency::Linearizable, |_| ()).await.expect("a read");
        assert!(!first.is_finished() && !second.is_finished());
        open.send(()).and_then(|()| open.send(())).expect("two builds that wait");
        let (first, second) = (soon("one", first).await.expect("a task"), soon("two", second).await.expect("a task"));
        assert_eq!(first.expect("a snapshot").index, before.index);
        assert_eq!(second.expect("a snapshot").index, last);
        assert_eq!(begun.load(Ordering::SeqCst), 2);
        cluster.stop_all().await;
    });
}

#[test]
fn a_build_that_fails_or_panics_fails_alone() {
    for panics in [false, true] {
        simulate(async {
            let healthy = Arc::new(AtomicBool::new(false));
            let is_healthy = Arc::clone(&healthy);
            let journal = Journal::calling(move || match is_healthy.load(Ordering::SeqCst) {
                true => Ok(()),
                false if panics => panic!("told to panic"),
                false => Err(io::Error::other("told to fail")),
            });
            let mut cluster = Cluster::vacant(Plan { members: 1, ..every(5, 0) });
            cluster.start_as(NodeId(1), journal, |builder| builder).await;
            let (node, ledger) = (cluster.node(NodeId(1)).clone(), Ledger::default());
            for nth in 0..10 {
                ledger.propose(&node, format!("{nth}")).await.expect("an acknowledgement");
            }
            let failed = soon("an answer", node.snapshot()).await;
            assert!(
                matches!(&failed, Err(SnapshotError::Failed(why)) if why.to_string().contains("told to")),
                "{failed:?}"
            );
            assert_eq!(cluster.status(NodeId(1)).first_log, Index(1), "the log is as it was");
            assert!(cluster.metric("quorate_snapshot_failures_total", &["phase=\"build\""]) >= 1.0);
            healthy.store(true, Ordering::SeqCst);
            // No request is needed: a snapshot that was due stays due.
            let taken = |view: &support::View| (view[&NodeId(1)].snapshot >= Index(10)).then_some(());
            cluster.until("the snapshot that was due", taken).await;
        });
    }
}

#[test]
fn a_shutdown_does_not_wait_for_a_state_to_be_written_to_its_end() {
    run(async {
        let written = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicBool::new(false));
        let machine = Endless { begun: Arc::clone(&begun), ended: Arc::clone(&written) };
        let network = quorate::transport::MemoryNetwork::new();
        let node = quorate::Node::builder(NodeId(1), support::CLUSTER)
            .voters([(NodeId(1), "")])
            .network(network.endpoint(NodeId(1)))
            .storage(quorate::storage::Memory::new())
            .start(machine)
            .await
            .expect("a node");
        soon("an acknowledgement", node.propose("command")).await.expect("an acknowledgement");
        let asked = node.clone();
        let asking = tokio::spawn(async move { asked.snapshot().await });
        while !begun.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        soon("the end", node.shutdown()).await;
        assert!(written.load(Ordering::SeqCst), "nothing of the node runs any more");
        assert_eq!(soon("an answer", asking).await.expect("a task"), Err(SnapshotError::Stopped));
    });
}

/// A machine with a state that never ends.
struct Endless {
    begun: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl quorate::StateMachine for Endless {
    fn apply(&mut self, _: &At, _: &[u8]) -> bytes::Bytes {
        bytes::Bytes::new()
    }

    fn snapshot(&self) -> Option<quorate::WriteState> {
        let (begun, ended) = (Arc::clone(&self.begun), Arc::clone(&self.ended));
        Some(Box::new(move |writer| {
            begun.store(true, Ordering::SeqCst);
            let outcome = (0..).try_for_each(|_: u64| writer.write_all(&[0]));
            ended.store(true, Ordering::SeqCst);
            outcome
        }))
    }
}

fn every(entries: u64, keep: u64) -> Plan {
    with(Snapshots::default().with_every_entries(entries).with_every_bytes(0).with_keep_entries(keep))
}

fn with(snapshots: Snapshots) -> Plan {
    Plan { snapshots, ..Plan::default() }
}
