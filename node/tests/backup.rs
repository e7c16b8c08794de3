//! Backups of whole nodes: they are consistent, and suffice to begin another cluster.

mod support;

use quorate::{
    BackupError, ClusterId, Node, NodeId, Snapshots,
    storage::{
        Wal,
        salvage::{NewMember, restore},
        snapshots::{Backup, Export},
    },
    transport::MemoryNetwork,
};
use quorate_storage_testing::SimulatedDisk;
use std::{
    path::Path,
    time::{Duration, SystemTime},
};
use support::{Cluster, Journal, Ledger, Plan, simulate, soon};

#[test]
fn a_backup_of_any_node_has_what_was_acknowledged_before_and_goes_on_while_others_write() {
    simulate(async {
        let (cluster, ledger) = (Cluster::start_all(plan(3)).await, Ledger::default());
        let leader = cluster.leader().await;
        for round in 0..10 {
            for id in cluster.ids() {
                let applied =
                    ledger.propose(cluster.node(leader), format!("{round}")).await.expect("an acknowledgement");
                let (backup, other) = tokio::join!(
                    soon("a backup", cluster.node(id).backup()),
                    ledger.propose(cluster.node(leader), format!("{round}, meanwhile"))
                );
                let backup = backup.expect("a backup");
                other.expect("an acknowledgement");
                assert!(backup.snapshot().base.last.index >= applied.index, "node {id} had not applied it yet");
                let (disk, bytes) = (SimulatedDisk::new(), backup.file_bytes());
                let read = opened(&disk, backup);
                assert_eq!((read.cluster(), read.member(), read.file_bytes()), (support::CLUSTER, id, bytes));
            }
        }
    });
}

#[test]
fn a_new_cluster_begins_with_a_backup_and_takes_writes() {
    simulate(async {
        let (mut cluster, ledger) = (Cluster::start_all(plan(3)).await, Ledger::default());
        let leader = cluster.leader().await;
        for nth in 0..20 {
            ledger.propose(cluster.node(leader), format!("{nth}")).await.expect("an acknowledgement");
        }
        let backup = soon("a backup", cluster.node(leader).backup()).await.expect("a backup");
        let kept = cluster.journal(leader).entries();
        ledger.propose(cluster.node(leader), "behind the backup").await.expect("an acknowledgement");
        cluster.stop_all().await;

        let disk = SimulatedDisk::new();
        let wal = Wal::at("new").on(disk.clone());
        let (now, random) = (SystemTime::UNIX_EPOCH + Duration::from_secs(9), 7777);
        let to = NewMember { cluster: "new".into(), member: NodeId(7), address: "there".into(), now, random };
        restore(opened(&disk, backup), &wal, &to).expect("it is restored");
        let journal = Journal::default();
        let node = start(NodeId(7), "new", wal.clone(), journal.clone()).await.expect("it starts");
        let applied = soon("a write", node.propose("first")).await.expect("it takes writes");
        let entries = journal.entries();
        assert_eq!(entries[..kept.len()], kept);
        assert_eq!(entries[kept.len()..], [(applied.index, "first".to_owned())]);
        let status = node.status().borrow().clone();
        assert_eq!((status.voters, status.cluster_id), (vec![NodeId(7)], Some(ClusterId::new(9, 7777))));
        node.shutdown().await;

        let refused = start(NodeId(1), support::CLUSTER, wal, Journal::default()).await.map(drop);
        assert!(refused.expect_err("it is another's").to_string().contains("belongs to member 7 of cluster \"new\""));
    });
}

#[test]
fn without_a_leader_or_a_machine_that_makes_snapshots_there_is_no_backup() {
    simulate(async {
        let mut cluster = Cluster::vacant(plan(3));
        cluster.start(NodeId(1)).await;
        let error = soon("an answer", cluster.node(NodeId(1)).backup()).await.expect_err("no node leads");
        assert_eq!(error, BackupError::NoLeader);

        let mut cluster = Cluster::vacant(plan(1));
        cluster.start_as(NodeId(1), Journal::without_snapshots(), |builder| builder).await;
        cluster.leader().await;
        let error = soon("an answer", cluster.node(NodeId(1)).backup()).await.expect_err("it makes none");
        assert_eq!(error, BackupError::Unsupported);
        let node = cluster.node(NodeId(1)).clone();
        cluster.stop_all().await;
        assert_eq!(node.backup().await.expect_err("it has ended"), BackupError::Stopped);
    });
}

fn plan(members: u64) -> Plan {
    let snapshots = Snapshots::default().with_every_entries(0).with_every_bytes(0).with_keep_entries(2);
    Plan { members, snapshots, ..Plan::default() }
}

fn opened(disk: &SimulatedDisk, backup: Export) -> Backup {
    let pieces: Result<Vec<_>, _> = backup.collect();
    disk.put(Path::new("backup"), pieces.expect("it can be read").concat());
    Backup::open_on(disk, "backup").expect("it is whole")
}

async fn start(id: NodeId, cluster: &str, wal: Wal, journal: Journal) -> Result<Node<Journal>, quorate::StartError> {
    let network = MemoryNetwork::new().endpoint(id);
    let builder = Node::builder(id, cluster).voters([(id, "there")]).network(network).storage(wal).seed(1);
    builder.start_local(journal).await
}
