//! Whole nodes over write-ahead logs on disks that lose their power, or are full.

mod support;

use quorate::{Consistency, Index, NodeId, NodeRole, ProposeError, ReadError, Snapshots, storage::Wal};
use quorate_storage_testing::{Crash, Operation, SimulatedDisk};
use std::{collections::BTreeMap, time::Duration};
use support::{Cluster, Journal, Ledger, Plan, View, simulate, soon};

#[test]
fn a_receiver_that_loses_its_power_at_any_step_of_installing_has_the_old_state_or_the_new() {
    let operations = simulate(async {
        let mut world = Receiving::prepare().await;
        let counts = |disk: &SimulatedDisk| OPERATIONS.map(|operation| disk.count(operation));
        let at_first = counts(&world.disk);
        start(&mut world.cluster, RECEIVER, &world.disk).await;
        world.cluster.settled().await;
        assert_eq!(world.cluster.journal(RECEIVER).restored(), 1);
        let after = counts(&world.disk);
        [0, 1, 2, 3, 4].map(|nth| (OPERATIONS[nth], after[nth] - at_first[nth]))
    });
    let mut tried = 0;
    for (operation, nth) in
        operations.into_iter().flat_map(|(operation, count)| (1..=count).map(move |nth| (operation, nth)))
    {
        let crash = [Crash::Lose, Crash::Keep, Crash::Scatter { seed: nth }][tried % 3];
        simulate(async { Receiving::prepare().await.loses_power_at(operation, nth, crash).await });
        tried += 1;
    }
    assert!(tried > 20, "only {tried} moments");
}

const RECEIVER: NodeId = NodeId(3);

/// A cluster with a third member that was away, and is sent a snapshot when it starts. Each moment
/// gets a world of its own: a leader remembers the acknowledgements of the member, and takes an
/// earlier state of its disk for a loss.
struct Receiving {
    cluster: Cluster,
    /// The disk of the receiver.
    disk: SimulatedDisk,
    covered: Index,
    whole: Vec<(Index, String)>,
}

impl Receiving {
    async fn prepare() -> Self {
        let (mut cluster, ledger, disk) = (Cluster::vacant(plan()), Ledger::default(), SimulatedDisk::new());
        cluster.start(NodeId(1)).await;
        cluster.start(NodeId(2)).await;
        let leader = cluster.leader().await;
        start(&mut cluster, RECEIVER, &disk).await;
        cluster.settled().await;
        cluster.stop(RECEIVER).await;
        for nth in 0..20 {
            ledger.propose(cluster.node(leader), format!("command {nth}")).await.expect("an acknowledgement");
        }
        let covered = soon("a snapshot", cluster.node(leader).snapshot()).await.expect("a snapshot").index;
        let whole = cluster.journal(leader).entries();
        Self { cluster, disk, covered, whole }
    }

    async fn loses_power_at(self, operation: Operation, nth: u64, crash: Crash) {
        let Self { mut cluster, disk, covered, whole } = self;
        let at_first = disk.count(operation);
        disk.fail(operation, nth);
        let storage = wal(&disk);
        let started = cluster.try_start_as(RECEIVER, Journal::default(), |builder| builder.storage(storage)).await;
        if started.is_ok() {
            // A failure ends the node, or the transfer for ten seconds: this is the moment.
            let reached = async {
                while disk.count(operation) < at_first + nth {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            soon("the operation that fails", reached).await;
            cluster.faults.isolate(RECEIVER);
            disk.crash(crash);
            cluster.stop(RECEIVER).await;
            cluster.faults.heal();
        } else {
            disk.crash(crash);
        }
        start(&mut cluster, RECEIVER, &disk).await;
        let found = cluster.journal(RECEIVER).entries();
        let (of, all) = (found.len(), whole.len());
        assert!(
            found.is_empty() || found == whole,
            "{operation:?} {nth}, {crash:?}: half a state: {of} of {all} entries"
        );
        cluster.settled().await;
        assert_eq!(cluster.journal(RECEIVER).entries(), whole, "{operation:?} {nth}, {crash:?}");
        assert!(cluster.status(RECEIVER).snapshot >= covered);
    }
}

const OPERATIONS: [Operation; 5] =
    [Operation::Open, Operation::Write, Operation::Sync, Operation::SyncDir, Operation::Rename];

#[test]
fn a_power_cut_of_all_three_in_the_middle_of_a_write_loses_nothing_that_was_acknowledged() {
    let torn = [0, 40, 70, 100, 500, 521, 545, 600].map(|bytes| Crash::Torn { bytes });
    let scattered = (0..8).map(|seed| Crash::Scatter { seed });
    let mut discarded = 0.0;
    for (nth, crash) in torn.into_iter().chain(scattered).chain([Crash::Lose, Crash::Keep]).enumerate() {
        discarded += simulate(async {
            let disks: BTreeMap<_, _> = (1..=3).map(|id| (NodeId(id), SimulatedDisk::new())).collect();
            let plan = Plan { seed: nth as u64, ..Plan::default() };
            let (mut cluster, ledger) = (Cluster::vacant(plan), Ledger::default());
            for (id, disk) in &disks {
                start(&mut cluster, *id, disk).await;
            }
            let leader = cluster.leader().await;
            for command in ["one", "two", "three"] {
                ledger.propose(cluster.node(leader), command).await.expect("an acknowledgement");
            }
            cluster.settled().await;
            // All nodes write the next entry, and none of them syncs it.
            disks.values().for_each(|disk| disk.fail(Operation::Sync, 1));
            let told = ledger.propose(cluster.node(leader), format!("torn {:x>500}", "")).await;
            assert!(matches!(told, Err(ProposeError::OutcomeUnknown)), "{told:?}");
            for (id, disk) in &disks {
                soon("its end", cluster.node(*id).failed()).await;
                disk.crash(match crash {
                    Crash::Scatter { seed } => Crash::Scatter { seed: seed * 3 + id.0 },
                    Crash::Torn { bytes } => Crash::Torn { bytes: bytes + id.0 * 3 },
                    other => other,
                });
            }
            cluster.stop_all().await;
            for (id, disk) in &disks {
                start(&mut cluster, *id, disk).await;
            }
            cluster.settled().await;
            ledger.propose(cluster.node(leader), "afterwards").await.expect("an acknowledgement");
            cluster.settled().await;
            assert_eq!(ledger.acknowledged(), 4);
            ledger.check(&cluster.journals());
            cluster.metric("quorate_repairs_total", &["result=\"discarded\""])
        });
    }
    assert!(discarded > 0.0, "some left only the slot of what they tore");
}

#[test]
fn the_only_voter_goes_on_after_a_torn_write_once_its_operator_says_that_it_may() {
    let mut refused = 0;
    for seed in 0..16 {
        simulate(async {
            let (disk, id, ledger) = (SimulatedDisk::new(), NodeId(1), Ledger::default());
            let mut cluster = Cluster::vacant(Plan { members: 1, ..Plan::default() });
            start(&mut cluster, id, &disk).await;
            cluster.leader().await;
            ledger.propose(cluster.node(id), "acknowledged").await.expect("an acknowledgement");
            disk.fail(Operation::Sync, 1);
            let told = ledger.propose(cluster.node(id), format!("torn {:x>500}", "")).await;
            assert!(matches!(told, Err(ProposeError::OutcomeUnknown)), "{told:?}");
            soon("its end", cluster.node(id).failed()).await;
            disk.crash(Crash::Scatter { seed });
            cluster.stop(id).await;
            let storage = wal(&disk);
            let started = cluster.try_start_as(id, Journal::default(), |builder| builder.storage(storage)).await;
            if let Err(error) = started {
                assert!(error.to_string().contains("Wal::discard_unproven"), "{error}");
                refused += 1;
                let storage = wal(&disk).discard_unproven(true);
                cluster.start_as(id, Journal::default(), |builder| builder.storage(storage)).await;
            }
            cluster.settled().await;
            ledger.propose(cluster.node(id), "afterwards").await.expect("an acknowledgement");
            ledger.check(&cluster.journals());
        });
    }
    assert!(refused > 0, "some left only the slot of what they tore");
}

#[test]
fn a_power_cut_of_all_three_while_they_take_snapshots_loses_nothing() {
    for seed in support::seeds(10) {
        simulate(async {
            let disks: BTreeMap<_, _> = (1..=3).map(|id| (NodeId(id), SimulatedDisk::new())).collect();
            let snapshots = Snapshots::default().with_every_entries(5).with_every_bytes(0).with_keep_entries(1);
            let (mut cluster, ledger) =
                (Cluster::vacant(Plan { seed, snapshots, ..Plan::default() }), Ledger::default());
            for (id, disk) in &disks {
                start(&mut cluster, *id, disk).await;
            }
            for round in 0..6 {
                let leader = cluster.leader().await;
                for nth in 0..7 {
                    let command = format!("{round}: {nth}");
                    ledger.propose(cluster.node(leader), command).await.expect("an acknowledgement");
                }
                for (id, disk) in &disks {
                    disk.crash(Crash::Scatter { seed: seed * 100 + round * 3 + id.0 });
                }
                cluster.faults.clear();
                cluster.stop_all().await;
                for (id, disk) in &disks {
                    start(&mut cluster, *id, disk).await;
                }
                cluster.settled().await;
            }
            let after: Vec<_> = cluster.ids().into_iter().map(|id| cluster.status(id).snapshot).collect();
            assert!(after.iter().all(|snapshot| *snapshot > Index(20)), "{after:?}");
            assert_eq!(ledger.acknowledged(), 42);
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn a_full_disk_of_the_leader_or_a_follower_costs_no_acknowledged_write_and_heals_in_place() {
    for of_leader in [true, false] {
        simulate(async {
            let disks: BTreeMap<_, _> = (1..=3).map(|id| (NodeId(id), SimulatedDisk::new())).collect();
            let (mut cluster, ledger) = (Cluster::vacant(Plan::default()), Ledger::default());
            for (id, disk) in &disks {
                start(&mut cluster, *id, disk).await;
            }
            let leader = cluster.leader().await;
            cluster.settled().await;
            let full = if of_leader { leader } else { cluster.others(leader)[0] };
            disks[&full].fill_after(10_000);
            let command = |nth: usize| format!("{nth} {}", "x".repeat(500));
            let mut nth = 0;
            // Writes until the disk is full; each outcome is definite, or the leader
            // was lost meanwhile.
            while !cluster.status(full).storage_full {
                assert!(nth < 1000, "never full");
                let told = ledger.propose(cluster.node(full), command(nth)).await;
                assert!(told.is_ok() || told == Err(ProposeError::OutcomeUnknown), "{told:?}");
                nth += 1;
            }
            let others = cluster.others(full);
            let leads = |view: &View| others.iter().copied().find(|id| view[id].role == NodeRole::Leader);
            let next = cluster.until("a leader with space", leads).await;
            for _ in 0..20 {
                ledger.propose(cluster.node(next), command(nth)).await.expect("an acknowledgement");
                nth += 1;
            }
            assert!(cluster.status(full).last_log < cluster.status(next).last_log, "it keeps nothing more");
            assert_eq!(cluster.status(full).leader, Some(next), "and it still follows");
            let asked = tokio::time::Instant::now();
            let read = cluster.node(full).read(Consistency::Linearizable, |_| ()).await;
            assert_eq!(read, Err(ReadError::StorageFull), "it will not get what it must see");
            assert!(asked.elapsed() < Duration::from_millis(200), "and need not be waited for: {:?}", asked.elapsed());

            disks[&full].fill_after(u64::MAX);
            cluster.settled().await;
            assert!(!cluster.status(full).storage_full);
            ledger.propose(cluster.node(full), "afterwards").await.expect("an acknowledgement");
            cluster.settled().await;
            ledger.check(&cluster.journals());
            // The same must hold after a restart.
            cluster.stop_all().await;
            for (id, disk) in &disks {
                start(&mut cluster, *id, disk).await;
            }
            cluster.settled().await;
            ledger.check(&cluster.journals());
        });
    }
}

fn plan() -> Plan {
    let snapshots = Snapshots::default().with_every_entries(0).with_every_bytes(0).with_keep_entries(0);
    Plan { snapshots, ..Plan::default() }
}

fn wal(disk: &SimulatedDisk) -> Wal {
    Wal::at("data").segment_bytes(16 << 10).on(disk.clone())
}

async fn start(cluster: &mut Cluster, id: NodeId, disk: &SimulatedDisk) {
    let storage = wal(disk);
    cluster.start_as(id, Journal::default(), |builder| builder.storage(storage)).await;
}
