//! Clusters of two full copies and a witness: the use of the witness, the data that it keeps, and
//! the requests that it refuses.

mod support;

use quorate::{
    Change, Consistency, Failure, Index, NodeId, NodeRole, ReadError, Snapshots, StartError, Term, TransferError,
    storage::Wal,
};
use quorate_storage_testing::SimulatedDisk;
use std::time::Duration;
use support::{Cluster, Journal, Ledger, Plan, simulate, soon};

const WITNESS: NodeId = NodeId(3);

/// Nodes 1 and 2, and the witness with its disk.
async fn with_witness(plan: Plan) -> (Cluster, SimulatedDisk) {
    let (mut cluster, disk) = (Cluster::vacant(plan), SimulatedDisk::new());
    for id in [1, 2].map(NodeId) {
        cluster.start_as(id, Journal::default(), |builder| builder.witness(WITNESS)).await;
    }
    start_witness(&mut cluster, &disk).await;
    (cluster, disk)
}

async fn start_witness(cluster: &mut Cluster, disk: &SimulatedDisk) {
    let wal = Wal::at("data").segment_bytes(32 << 10).on(disk.clone());
    cluster.start_as(WITNESS, Journal::default(), |builder| builder.witness(WITNESS).storage(wal)).await;
}

/// All bytes that a disk holds.
fn bytes_on(disk: &SimulatedDisk) -> Vec<u8> {
    disk.paths().iter().filter_map(|path| disk.contents(path)).flatten().collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn with_one_copy_gone_the_other_goes_on_and_nothing_is_lost() {
    simulate(async {
        let (mut cluster, disk) = with_witness(Plan::default()).await;
        let ledger = Ledger::default();
        let leader = cluster.leader().await;
        assert_ne!(leader, WITNESS);
        for nth in 0..20 {
            ledger.propose(cluster.node(leader), format!("both {nth}")).await.expect("an acknowledgement");
        }
        let other = NodeId(3 - leader.0);
        cluster.stop(other).await;
        for nth in 0..20 {
            ledger.propose(cluster.node(leader), format!("one {nth}")).await.expect("the witness breaks the tie");
        }
        // A node without the entries that the two committed does not lead: the restarted copy must
        // be brought up to date first.
        cluster.start_as(other, Journal::default(), |builder| builder.witness(WITNESS)).await;
        cluster.settled().await;
        cluster.stop(leader).await;
        assert_eq!(cluster.leader_among(&[other, WITNESS]).await, other);
        ledger.propose(cluster.node(other), "the other, alone").await.expect("the witness breaks the tie");
        assert_eq!(cluster.journal(WITNESS).applied(), 0, "it has no state machine");
        let copies = cluster.journals().into_iter().filter(|(id, _)| *id != WITNESS).collect::<Vec<_>>();
        ledger.check(&copies);
        let bytes = bytes_on(&disk);
        assert!(!holds(&bytes, "both 1") && !holds(&bytes, "one 1"), "it keeps what is needed, and no more");
    });
}

#[test]
fn the_survivor_is_elected_when_the_leader_dies_under_load() {
    simulate(async {
        let (mut cluster, _) = with_witness(Plan::default()).await;
        let ledger = Ledger::default();
        let mut leader = cluster.leader().await;
        for round in 0..6 {
            for nth in 0..10 {
                ledger.propose(cluster.node(leader), format!("{round}: {nth}")).await.expect("an acknowledgement");
            }
            let survivor = NodeId(3 - leader.0);
            cluster.stop(leader).await;
            assert_eq!(cluster.leader_among(&[survivor, WITNESS]).await, survivor);
            ledger.propose(cluster.node(survivor), format!("{round}: alone")).await.expect("an acknowledgement");
            cluster.start_as(leader, Journal::default(), |builder| builder.witness(WITNESS)).await;
            leader = cluster.settled().await;
        }
        let copies = cluster.journals().into_iter().filter(|(id, _)| *id != WITNESS).collect::<Vec<_>>();
        ledger.check(&copies);
    });
}

#[test]
fn a_witness_forwards_writes_and_serves_no_reads() {
    simulate(async {
        let (cluster, _) = with_witness(Plan::default()).await;
        let leader = cluster.leader().await;
        cluster.settled().await;
        let witness = cluster.node(WITNESS);
        witness.propose("through the witness").await.expect("it is forwarded");
        let bounds = Consistency::Bounded { max_age: None, max_entries: Some(1) };
        for consistency in [Consistency::Linearizable, Consistency::Lease, Consistency::Local, bounds] {
            assert_eq!(witness.read(consistency, |_| ()).await.map(|_| ()), Err(ReadError::Witness), "{consistency:?}");
        }
        assert!(witness.backup().await.is_err(), "there is no state to be backed up");
        let refused = soon("a refusal", cluster.node(leader).transfer(Some(WITNESS))).await;
        assert!(matches!(refused, Err(TransferError::Refused(_))), "{refused:?}");
        let status = cluster.status(WITNESS);
        assert_eq!((status.role, status.witness), (NodeRole::Follower, Some(WITNESS)));
        assert_eq!(cluster.status(leader).witness, Some(WITNESS));
    });
}

/// The witness was away for longer than logs are kept, and is brought up to date without a byte of
/// state. Its own log is cut, too.
#[test]
fn a_witness_catches_up_without_state_and_cuts_its_log() {
    simulate(async {
        let snapshots = Snapshots::default().with_every_entries(10).with_keep_entries(0);
        let (mut cluster, disk) = with_witness(Plan { snapshots, ..Plan::default() }).await;
        let leader = cluster.leader().await;
        cluster.settled().await;
        cluster.stop(WITNESS).await;
        for nth in 0..60 {
            cluster.node(leader).propose(format!("secret {nth}")).await.expect("an acknowledgement");
        }
        assert!(cluster.status(leader).first_log > Index(30));
        start_witness(&mut cluster, &disk).await;
        cluster.settled().await;
        for nth in 0..40 {
            cluster.node(leader).propose(format!("secret {nth}")).await.expect("an acknowledgement");
        }
        cluster.until("the witness to cut its log", |view| (view[&WITNESS].first_log > Index(80)).then_some(())).await;
        assert!(!holds(&bytes_on(&disk), "secret"));
        cluster.stop(WITNESS).await;
        start_witness(&mut cluster, &disk).await;
        cluster.settled().await;
    });
}

#[test]
fn a_witness_joins_and_leaves_while_the_cluster_serves() {
    simulate(async {
        let plan = Plan { members: 2, joiners: 1, ..Plan::default() };
        let mut cluster = Cluster::start_all(plan).await;
        cluster.start_as(WITNESS, Journal::default(), |builder| builder.witness(WITNESS)).await;
        let leader = cluster.leader_among(&[1, 2].map(NodeId)).await;
        cluster.node(leader).propose("before").await.expect("an acknowledgement");
        let change = async |change| soon("a change", cluster.node(leader).change(change)).await;
        change(Change::add_witness(WITNESS, "node-3").and(Change::promote(WITNESS))).await.expect("it is added");
        cluster.until("it to vote", |view| (view[&WITNESS].voters.len() == 3).then_some(())).await;
        cluster.stop(NodeId(3 - leader.0)).await;
        cluster.node(leader).propose("with one copy").await.expect("the witness breaks the tie");
        assert_eq!(cluster.journal(WITNESS).applied(), 0);
        cluster.start(NodeId(3 - leader.0)).await;
        cluster.settled().await;
        let change = async |change| soon("a change", cluster.node(leader).change(change)).await;
        change(Change::remove(WITNESS)).await.expect("two copies are left");
        let failure = soon("a removed witness to stop", cluster.node(WITNESS).failed()).await;
        assert!(matches!(failure, Failure::Removed { .. }), "{failure}");
    });
}

/// A node that is started in the wrong role refuses: at once where it can know its role, else when
/// it is told.
#[test]
fn a_node_that_is_not_what_the_cluster_takes_it_for_stops() {
    simulate(async {
        let (mut cluster, disk) = with_witness(Plan::default()).await;
        cluster.leader().await;
        cluster.settled().await;
        cluster.stop(WITNESS).await;
        // Its own configuration names no witness, so it takes itself for a full copy; but the log
        // is that of a witness.
        let wal = Wal::at("data").segment_bytes(32 << 10).on(disk.clone());
        cluster.node(NodeId(1)).propose("one more").await.expect("an acknowledgement");
        let started = cluster.try_start_as(WITNESS, Journal::default(), |builder| builder.storage(wal)).await;
        let refused = started.expect_err("its log has the cluster's configuration").to_string();
        assert!(refused.contains("as a full copy, and the cluster's configuration says otherwise"), "{refused}");

        let mut cluster = Cluster::start_all(Plan { members: 2, joiners: 1, ..Plan::default() }).await;
        cluster.start(WITNESS).await;
        let leader = cluster.leader_among(&[1, 2].map(NodeId)).await;
        let adding = cluster.node(leader).clone();
        let _ = soon("a change", adding.change(Change::add_witness(WITNESS, "node-3"))).await;
        let failure = soon("it to find out", cluster.node(WITNESS).failed()).await;
        assert_eq!(failure, Failure::NotAsConfigured { is_witness: false });

        let mut cluster = Cluster::vacant(Plan { members: 2, ..Plan::default() });
        let refused = |outcome: Result<(), StartError>| outcome.expect_err("it makes no sense").to_string();
        let start = cluster.try_start_as(NodeId(1), Journal::default(), |builder| builder.witness(NodeId(2))).await;
        assert!(refused(start).contains("two full copies"));
        let start = cluster.try_start_as(NodeId(1), Journal::default(), |builder| builder.witness(NodeId(7))).await;
        assert!(refused(start).contains("not among the voters"));
    });
}

/// The limit of a witness: entries that only one copy and the witness have wait for that copy.
#[test]
fn entries_of_one_copy_and_the_witness_wait_for_that_copy() {
    simulate(async {
        let (mut cluster, _) = with_witness(Plan::default()).await;
        let leader = cluster.leader().await;
        cluster.settled().await;
        let other = NodeId(3 - leader.0);
        cluster.stop(other).await;
        cluster.node(leader).propose("in one copy").await.expect("the witness breaks the tie");
        cluster.stop(leader).await;
        cluster.start_as(other, Journal::default(), |builder| builder.witness(WITNESS)).await;
        let before = cluster.status(WITNESS).term;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(cluster.status(other).role != NodeRole::Leader && cluster.status(other).leader.is_none());
        assert!(cluster.status(WITNESS).term <= Term(before.0 + 1), "no term is driven up meanwhile");
        cluster.start_as(leader, Journal::default(), |builder| builder.witness(WITNESS)).await;
        cluster.settled().await;
        assert_eq!(cluster.journal(other).count("in one copy"), 1);
    });
}
