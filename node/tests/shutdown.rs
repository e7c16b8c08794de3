//! The shutdown of a node: it leaves no port, lock, thread or waiting caller.

mod support;

use bytes::Bytes;
use quorate::{
    At, Index, Node, NodeId, ProposeError, StateMachine,
    storage::Wal,
    transport::{MemoryNetwork, Quic, QuicOptions, certificates::Authority},
};
use quorate_ports::Port;
use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};
use support::{CLUSTER, Cluster, Journal, Ledger, Plan, run, simulate, soon};
use tempfile::TempDir;

#[test]
fn ports_and_files_are_free_when_shutdown_returns() {
    let _alone = alone();
    run(async {
        let (dir, port) = (certificates(), free_port());
        let (address, mut before) = (port.address(), Index(0));
        for round in 0..3 {
            let node = durable(dir.path(), address, &[(NodeId(1), address)]).await;
            let applied = soon("a command", node.propose(format!("{round}"))).await.expect("an acknowledgement");
            assert!(applied.index > before, "the log of the round before is there");
            assert_eq!(applied.reply, (round + 1).to_string(), "and its state");
            before = applied.index;
            soon("the end", node.shutdown()).await;
            UdpSocket::bind(address).expect("a free port");
        }
    });
}

#[test]
fn ports_and_files_of_a_node_without_threads_are_free_too() {
    simulate(async {
        let disk = quorate_storage_testing::SimulatedDisk::new();
        let mut cluster = Cluster::vacant(Plan { members: 1, ..Plan::default() });
        for round in 0..3 {
            let wal = Wal::at("data").segment_bytes(32 << 10).on(disk.clone());
            cluster.start_as(NodeId(1), Journal::default(), |builder| builder.storage(wal)).await;
            let applied = cluster.node(NodeId(1)).propose(format!("{round}")).await.expect("an acknowledgement");
            assert_eq!(applied.reply, (round + 1).to_string());
            cluster.stop(NodeId(1)).await;
        }
    });
}

#[test]
fn a_node_whose_last_handle_is_dropped_ends() {
    let _alone = alone();
    run(async {
        let (dir, port) = (certificates(), free_port());
        let address = port.address();
        let node = durable(dir.path(), address, &[(NodeId(1), address)]).await;
        let mut status = node.status();
        drop(node);
        soon("the end", async { while status.changed().await.is_ok() {} }).await;
        soon("a free port", async {
            while UdpSocket::bind(address).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    });
}

#[test]
fn shutdown_does_not_wait_for_peers_that_are_dead() {
    let _alone = alone();
    run(async {
        let (dir, [own, absent, silent]) = (certificates(), [(); 3].map(|()| free_port()));
        // One peer does not run; the machine of the other drops every packet.
        let _drops = UdpSocket::bind(silent.address()).expect("a socket");
        let (address, others) = (own.address(), [(NodeId(2), absent.address()), (NodeId(3), silent.address())]);
        let peers = [(NodeId(1), address), others[0], others[1]];
        let node = durable(dir.path(), address, &peers).await;
        let waiting = tokio::spawn({
            let node = node.clone();
            async move { node.propose("a lost command").await }
        });
        node.status().changed().await.expect("a node that tries");
        let began = Instant::now();
        soon("the end", node.shutdown()).await;
        assert!(began.elapsed() < Duration::from_secs(4), "took {:?}", began.elapsed());
        let outcome = soon("an answer", waiting).await.expect("a caller");
        assert!(matches!(outcome, Err(ProposeError::NoLeader | ProposeError::Stopped)), "{outcome:?}");
    });
}

#[test]
fn a_node_leaves_no_thread_behind() {
    let _alone = alone();
    run(async {
        let before = threads();
        for _ in 0..5 {
            let mut cluster = Cluster::start_all(Plan { threads: true, ..Plan::default() }).await;
            cluster.leader().await;
            assert!(threads().iter().any(|name| name == "quorate-1"), "{:?}", threads());
            cluster.stop_all().await;
        }
        ends_with(before).await;
    });
}

#[test]
fn a_node_that_could_not_start_leaves_nothing_behind() {
    let _alone = alone();
    run(async {
        let (dir, before, port) = (certificates(), threads(), free_port());
        let address = port.address();
        let taken = UdpSocket::bind(address).expect("a socket");
        let error = builder(dir.path(), address, &[(NodeId(1), address)]).start(Journal::default()).await;
        let error = error.expect_err("a port that is taken").to_string();
        assert!(error.contains(&address.to_string()), "it names the port: {error}");
        ends_with(before).await;
        drop(taken);
        // Neither the directory nor the port is held.
        durable(dir.path(), address, &[(NodeId(1), address)]).await.shutdown().await;
    });
}

#[test]
fn a_task_of_a_node_outlives_nothing() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut cluster = Cluster::of_three(1).await;
        cluster.leader().await;
        cluster.stop_all().await;
    });
    // Every task of the nodes has ended: a set is awaited until all of its tasks have.
    runtime.block_on(async { soon("the end of every task", local).await });
}

#[test]
fn work_in_progress_is_finished_first() {
    let _alone = alone();
    run(async {
        for forwarded in [false, true] {
            let network = MemoryNetwork::new();
            let mut nodes = Vec::new();
            let mut gates = Vec::new();
            for id in [1, 2, 3].map(NodeId) {
                let (machine, gate) = Slow::new();
                let voters = [1, 2, 3].map(|id| (NodeId(id), ""));
                let node = Node::builder(id, CLUSTER).voters(voters).network(network.endpoint(id));
                // The test opens the gate in time also on a slow machine.
                let node = node.timing(support::relaxed().with_leader_wait(Duration::from_secs(25)));
                let node = node.storage(quorate::storage::Memory::new()).start(machine).await.expect("a node");
                nodes.push(node);
                gates.push(gate);
            }
            let leads = |node: &Node<Slow>| node.status().borrow().leader == Some(node.id());
            let mut status = nodes[0].status();
            soon("a leader", status.wait_for(|status| status.leader.is_some())).await.expect("a live node");
            let leader = nodes.iter().position(leads).expect("a leader");
            let asked = if forwarded { (leader + 1) % 3 } else { leader };
            let caller = tokio::spawn({
                let node = nodes[asked].clone();
                async move { node.propose("slow").await }
            });
            // The leader's state machine has begun the command, and has not finished.
            gates[leader].entered().await;
            let node = nodes[leader].clone();
            let mut ending = Box::pin(node.shutdown());
            assert!(support::poll_once(&mut ending).await.is_pending());
            let more = soon("an answer", node.propose("more")).await;
            assert_eq!(more, Err(ProposeError::Stopped), "who stops takes no more");
            assert!(support::poll_once(&mut ending).await.is_pending(), "it ended with a command under way");
            gates[leader].open();
            let outcome = soon("an answer", caller).await.expect("a caller");
            assert_eq!(outcome.expect("an acknowledgement").reply, "done", "forwarded: {forwarded}");
            soon("the end", ending).await;
            gates.iter().for_each(Gate::open);
            for node in nodes {
                soon("the end", node.shutdown()).await;
            }
        }
    });
}

#[test]
fn shutdown_twice_or_after_the_end_returns() {
    simulate(async {
        let mut cluster = Cluster::of_three(1).await;
        let ledger = Ledger::default();
        let leader = cluster.leader().await;
        let node = cluster.node(leader).clone();
        tokio::join!(node.shutdown(), node.shutdown());
        node.shutdown().await;
        assert_eq!(ledger.propose(&node, "too late").await, Err(ProposeError::Stopped));
        cluster.stop(leader).await;
        cluster.leader().await;
    });
}

/// Threads and ports belong to the process: these tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sorted names of the threads of nodes, cut to the 15 bytes that the system keeps.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a list of threads");
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let ours = |name: &String| name.starts_with("quorate-") || name.starts_with("actix-rt");
    let mut names: Vec<_> = names.map(|name| name.trim_end().to_owned()).filter(ours).collect();
    names.sort();
    names
}

/// The resources of a node are free when it reports its end; its thread may run a
/// few instructions more.
async fn ends_with(expected: Vec<String>) {
    soon("no thread but those before", async {
        while threads() != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn free_port() -> Port {
    quorate_ports::reserve_one().expect("a free port")
}

fn certificates() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(CLUSTER).expect("an authority");
    authority.write(dir.path()).expect("files");
    authority.issue_node(NodeId(1), &[]).expect("a certificate").write(dir.path(), "node").expect("files");
    dir
}

fn builder(dir: &Path, address: SocketAddr, members: &[(NodeId, SocketAddr)]) -> quorate::Builder {
    let options = QuicOptions::new(address, dir.join("ca.pem"), dir.join("node.pem"), dir.join("node.key"));
    Node::builder(NodeId(1), CLUSTER)
        .voters(members.iter().map(|(id, address)| (*id, address.to_string())))
        .network(Quic::new(options).expect("a network"))
        .storage(Wal::at(dir.join("data")).segment_bytes(1 << 20))
}

async fn durable(dir: &Path, address: SocketAddr, members: &[(NodeId, SocketAddr)]) -> Node<Journal> {
    builder(dir, address, members).start(Journal::default()).await.expect("a node")
}

/// A state machine that blocks while its gate is shut.
struct Slow {
    entered: tokio::sync::mpsc::UnboundedSender<()>,
    shut: mpsc::Receiver<()>,
}

struct Gate {
    entered: tokio::sync::Mutex<tokio::sync::mpsc::UnboundedReceiver<()>>,
    /// The gate is shut while this is `Some`.
    shut: Mutex<Option<mpsc::Sender<()>>>,
}

impl Slow {
    fn new() -> (Self, Gate) {
        let (entered, entering) = tokio::sync::mpsc::unbounded_channel();
        let (shuts, shut) = mpsc::channel();
        (Self { entered, shut }, Gate { entered: entering.into(), shut: Some(shuts).into() })
    }
}

impl StateMachine for Slow {
    fn apply(&mut self, _: &At, _: &[u8]) -> Bytes {
        let _ = self.entered.send(());
        let _ = self.shut.recv();
        Bytes::from_static(b"done")
    }
}

impl Gate {
    async fn entered(&self) {
        soon("a command in the machine", async { self.entered.lock().await.recv().await }).await;
    }

    fn open(&self) {
        self.shut.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
