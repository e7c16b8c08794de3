//! Clusters of several releases: with different versions of the frames, over QUIC, and of
//! the state machine.

mod support;

use quorate::{
    Builder, Node, NodeId, NodeRole, StartError,
    transport::{
        Quic, QuicOptions,
        certificates::Authority,
        codec::{Version, Versions},
    },
};
use quorate_ports::Port;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use support::{CLUSTER, Cluster, Journal, Ledger, Plan, relaxed, run, simulate, soon};
use tempfile::TempDir;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

/// A change from this release to one that also speaks the next version, and then to one that speaks
/// only that, while clients write.
#[test]
fn a_cluster_is_upgraded_node_by_node_and_no_acknowledged_write_is_lost() {
    run(async {
        let mut releases = Releases::new();
        for node in [ONE, TWO, THREE] {
            releases.start(node, old()).await;
        }
        releases.cluster.leader().await;
        let ledger = Ledger::default();
        for (step, speaks) in [both(), new()].into_iter().enumerate() {
            for node in [ONE, TWO, THREE] {
                let writers = Writers::start(&ledger, &releases.cluster, node, &format!("{step}-{node}"));
                writers.acknowledged(10).await;
                releases.cluster.stop(node).await;
                writers.acknowledged(10).await;
                releases.start(node, speaks).await;
                releases.cluster.leader().await;
                writers.acknowledged(20).await;
                writers.stop().await;
            }
        }
        releases.cluster.settled().await;
        ledger.check(&releases.cluster.journals());
        assert!(ledger.acknowledged() >= 6 * 40);
        assert_eq!(releases.cluster.metric("quorate_net_dropped_total", &["reason=\"malformed\""]), 0.0);
        assert_eq!(releases.refused(), 0.0, "neighbouring releases never refuse each other");
    });
}

/// Two nodes that share no version refuse each other, and go on with the node that speaks both.
#[test]
fn two_releases_that_share_no_version_work_through_one_that_speaks_both() {
    run(async {
        let mut releases = Releases::new();
        for (node, speaks) in [(ONE, old()), (TWO, both()), (THREE, new())] {
            releases.start(node, speaks).await;
        }
        let (ledger, cluster) = (Ledger::default(), &releases.cluster);
        let write = async {
            for number in 0.. {
                if ledger.propose(cluster.node(TWO), format!("{number}")).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                } else if ledger.acknowledged() == 50 {
                    break;
                }
            }
        };
        soon("50 acknowledged writes", write).await;
        assert!(cluster.metric("quorate_net_connections_total", &["node=\"1\"", "peer=\"3\"", REFUSED]) > 0.0);
        assert!(cluster.metric("quorate_net_connections_total", &["node=\"3\"", "peer=\"1\"", REFUSED]) > 0.0);
        // The current leader transfers leadership to the node that speaks both versions: all others
        // can follow that one.
        let led = async {
            while cluster.status(TWO).role != NodeRole::Leader {
                let leader = cluster.status(TWO).leader.filter(|leader| *leader != TWO);
                if let Some(leader) = leader {
                    let _ = cluster.node(leader).transfer(Some(TWO)).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        soon("that 2 leads", led).await;
        assert_eq!(cluster.settled().await, TWO);
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_newer_state_machine_leads_once_a_quorum_applies_what_it_writes() {
    simulate(async {
        let mut cluster = Cluster::of_three(7).await;
        let ledger = Ledger::default();
        cluster.until("all state machines are known", all_are(0, 0)).await;
        let upgraded = |builder: Builder| builder.writes_version(1);

        cluster.stop(ONE).await;
        cluster.start_as(ONE, Journal::default(), upgraded).await;
        cluster.until("one is newer", all_are(0, 1)).await;
        let leader = cluster.settled().await;
        assert_ne!(leader, ONE);
        // The older of the two remaining nodes must lead.
        cluster.stop(leader).await;
        let other = cluster.others(ONE)[0];
        let denied = [format!("node=\"{other}\""), "reason=\"machine_version\"".into()];
        for number in 0..20 {
            assert_eq!(cluster.leader().await, other);
            ledger.propose(cluster.node(ONE), format!("{number}")).await.expect("an acknowledgement");
            // Long enough for both to give up, and to try again.
            cluster.faults.isolate(ONE);
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.faults.heal();
        }
        let denied = cluster.metric("quorate_net_dropped_total", &denied.each_ref().map(String::as_str));
        assert!(denied > 0.0, "the newer one tried, and was counted");

        cluster.start_as(leader, Journal::default(), upgraded).await;
        cluster.settled().await;
        cluster.stop(other).await;
        cluster.leader_among(&[ONE, leader]).await;
        cluster.start_as(other, Journal::default(), upgraded).await;
        cluster.until("all are newer", all_are(1, 1)).await;
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn until_every_member_was_heard_no_node_says_which_versions_all_can_apply() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        cluster.start(ONE).await;
        cluster.start_as(TWO, Journal::default(), |builder| builder.applies_versions(0..=4)).await;
        cluster.settled().await;
        assert!(cluster.ids().iter().all(|id| cluster.status(*id).machine_versions.is_none()));
        cluster.start_as(THREE, Journal::default(), |builder| builder.writes_version(2)).await;
        cluster.until("all are known", all_are(0, 4)).await;
        // A node that is away counts with its last known versions.
        cluster.stop(THREE).await;
        cluster.settled().await;
        assert!(cluster.ids().iter().all(|id| cluster.status(*id).machine_versions == Some(0..=4)));
    });
}

#[test]
fn a_machine_that_does_not_apply_what_it_writes_is_refused() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        let wrong = |builder: Builder| builder.writes_version(3).applies_versions(0..=2);
        match cluster.try_start_as(ONE, Journal::default(), wrong).await {
            Err(StartError::Config(why)) => assert!(why.contains("writes version 3 and applies only 0 to 2"), "{why}"),
            other => panic!("{other:?}"),
        }
    });
}

const REFUSED: &str = "result=\"refused_protocol\"";

fn all_are(least: u32, greatest: u32) -> impl Fn(&support::View) -> Option<()> {
    move |view| view.values().all(|status| status.machine_versions == Some(least..=greatest)).then_some(())
}

/// Three nodes over QUIC, each with the versions of its release.
struct Releases {
    cluster: Cluster,
    ports: BTreeMap<NodeId, Port>,
    certificates: TempDir,
}

impl Releases {
    fn new() -> Self {
        let (certificates, authority) = (tempfile::tempdir().expect("a directory"), Authority::create(CLUSTER));
        let authority = authority.expect("an authority");
        authority.write(certificates.path()).expect("files");
        let ports = [ONE, TWO, THREE].map(|id| (id, quorate_ports::reserve_one().expect("a free port")));
        let ports = BTreeMap::from(ports);
        for id in ports.keys() {
            let issued = authority.issue_node(*id, &[]).expect("a certificate");
            issued.write(certificates.path(), &format!("{id}")).expect("files");
        }
        let cluster = Cluster::vacant(Plan { threads: true, timing: relaxed(), ..Plan::default() });
        Self { cluster, ports, certificates }
    }

    async fn start(&mut self, id: NodeId, speaks: Versions) {
        let file = |name: String| self.certificates.path().join(name);
        let (ca, cert, key) = (file("ca.pem".into()), file(format!("{id}.pem")), file(format!("{id}.key")));
        let options = QuicOptions::new(self.ports[&id].address(), ca, cert, key).speaking(speaks);
        let network = Quic::new(options).expect("a network");
        let voters: Vec<_> = self.ports.iter().map(|(id, port)| (*id, port.address().to_string())).collect();
        let change = |builder: Builder| builder.voters(voters).network(network);
        self.cluster.start_as(id, Journal::default(), change).await;
    }

    fn refused(&self) -> f64 {
        self.cluster.metric("quorate_net_connections_total", &[REFUSED])
    }
}

/// Clients of all nodes but one, each with one write at a time.
struct Writers {
    ledger: Ledger,
    is_over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    fn start(ledger: &Ledger, cluster: &Cluster, but: NodeId, name: &str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let others = cluster.others(but).into_iter();
        let tasks = others.map(|id| {
            let (node, ledger, is_over) = (cluster.node(id).clone(), ledger.clone(), Arc::clone(&is_over));
            tokio::spawn(write(node, ledger, is_over, format!("{name}-{id}")))
        });
        Self { ledger: ledger.clone(), tasks: tasks.collect(), is_over }
    }

    /// Waits until this many more writes were acknowledged.
    async fn acknowledged(&self, more: usize) {
        let wanted = self.ledger.acknowledged() + more;
        let there = async {
            while self.ledger.acknowledged() < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("writes go on", there).await;
    }

    async fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            soon("the last write", task).await.expect("no panic");
        }
    }
}

async fn write(node: Node<Journal>, ledger: Ledger, is_over: Arc<AtomicBool>, name: String) {
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        if ledger.propose(&node, format!("{name}-{number}")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // A bound on the number of writes: the check searches the whole ledger for each.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The versions that this release speaks.
fn old() -> Versions {
    Versions::SPOKEN
}

/// A release that speaks the current and the next version.
fn both() -> Versions {
    Versions::between(Version::CURRENT, Version::NEXT).expect("in order")
}

/// A release that speaks only the next version.
fn new() -> Versions {
    Versions::between(Version::NEXT, Version::NEXT).expect("in order")
}
