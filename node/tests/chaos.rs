//! All faults at once: clients write and read while disks lose power between any two writes, nodes
//! restart, the network loses, repeats, delays and cuts, and snapshots are taken and sent. In the
//! end every answer to a caller must be true.

mod support;

use quorate::{Consistency, Node, NodeId, Snapshots, storage::Wal};
use quorate_storage_testing::{Crash, SimulatedDisk};
use quorate_transport_testing::LinkFaults;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};
use support::{Cluster, Interposed, Journal, Ledger, Plan, Verdict, seeds, simulate, soon};
use tokio::{sync::mpsc, time::sleep};

#[test]
fn callers_are_told_the_truth_whatever_breaks() {
    let (mut acknowledged, mut power_cuts, mut restored, mut sent) = (0, 0, 0, 0.0);
    for seed in seeds(12) {
        println!("seed {seed}"); // shown if it fails
        simulate(async {
            let members = if seed % 3 == 2 { 5 } else { 3 };
            let mut world = World::new(seed, members).await;
            let (over, clients) = world.clients();
            for _ in 0..30 {
                world.disturb().await;
            }
            world.calm_down().await;
            over.set(true);
            for client in clients {
                soon("the end of a client", client).await.expect("a client");
            }
            world.cluster.settled().await;
            world.ledger.check(&world.cluster.journals());
            acknowledged += world.ledger.acknowledged();
            power_cuts += world.power_cuts;
            restored += world.cluster.ids().into_iter().map(|id| world.cluster.journal(id).restored()).sum::<usize>();
            sent += world.cluster.metric("quorate_snapshot_bytes_total", &["direction=\"sent\""]);
        });
    }
    assert!(acknowledged > 1000, "only {acknowledged} commands were acknowledged");
    assert!(restored > 12, "only {restored} state machines were restored from snapshots");
    assert!(sent > 0.0, "no snapshot was sent");
    println!(
        "{acknowledged} acknowledged, {power_cuts} power cuts, {restored} restored, {sent} bytes of snapshots sent"
    );
    assert!(power_cuts > 12, "the power was cut only {power_cuts} times");
}

struct World {
    cluster: Cluster,
    /// The running nodes, for the clients.
    nodes: Rc<RefCell<BTreeMap<NodeId, Node<Journal>>>>,
    ledger: Ledger,
    disks: BTreeMap<NodeId, SimulatedDisk>,
    /// The nodes that just lost power: they do and say nothing any more, and wait to
    /// be started again.
    dark: BTreeSet<NodeId>,
    cuts: (mpsc::UnboundedSender<NodeId>, mpsc::UnboundedReceiver<NodeId>),
    power_cuts: u64,
    random: SmallRng,
}

impl World {
    async fn new(seed: u64, members: u64) -> Self {
        let snapshots =
            Snapshots::default().with_every_entries(25).with_keep_entries(5).with_bytes_per_second(64 << 10);
        let cluster = Cluster::vacant(Plan { seed, members, snapshots, ..Plan::default() });
        let mut world = Self {
            nodes: Rc::default(),
            ledger: Ledger::default(),
            disks: cluster.members().map(|id| (id, SimulatedDisk::new())).collect(),
            dark: BTreeSet::new(),
            cuts: mpsc::unbounded_channel(),
            power_cuts: 0,
            random: SmallRng::seed_from_u64(seed),
            cluster,
        };
        for id in world.cluster.members() {
            world.start(id, true).await;
        }
        world
    }

    /// Starts a node. If it is doomed, its power may fail at any moment of any write.
    async fn start(&mut self, id: NodeId, doomed: bool) {
        let (disk, faults) = (self.disks[&id].clone(), self.cluster.faults.clone());
        let (cut, mut random) = (self.cuts.0.clone(), SmallRng::seed_from_u64(self.random.random()));
        let wal = Wal::at("data").segment_bytes(16 << 10).on(disk.clone());
        let storage = Interposed::around(wal, move |_| {
            if !doomed || !random.random_bool(0.004) {
                return Verdict::GoOn;
            }
            disk.crash(match random.random_range(0..4) {
                0 => Crash::Lose,
                1 => Crash::Keep,
                2 => Crash::Torn { bytes: random.random_range(0..2000) },
                _ => Crash::Scatter { seed: random.random() },
            });
            faults.isolate(id);
            let _ = cut.send(id);
            Verdict::Kill
        });
        self.cluster.start_as(id, Journal::default(), |builder| builder.storage(storage)).await;
        self.nodes.borrow_mut().insert(id, self.cluster.node(id).clone());
    }

    async fn stop(&mut self, id: NodeId) {
        self.nodes.borrow_mut().remove(&id);
        self.cluster.stop(id).await;
        // The wrapped log actor ends with its wrapper, but only after it.
        sleep(Duration::from_millis(1)).await;
    }

    /// Adds one more fault, or mends one.
    async fn disturb(&mut self) {
        while let Ok(id) = self.cuts.1.try_recv() {
            self.power_cuts += 1;
            self.dark.insert(id);
        }
        let [one, other] = std::array::from_fn(|_| NodeId(self.random.random_range(1..=self.disks.len() as u64)));
        match self.random.random_range(0..8) {
            0 => self.cluster.faults.isolate(one),
            1 => self.cluster.faults.cut(one, other),
            2 => self.cluster.faults.everywhere(bad()),
            3 if self.cluster.ids().contains(&one) && !self.dark.contains(&one) => {
                self.stop(one).await;
                self.start(one, true).await;
            }
            4..=5 => self.light_up(true).await,
            _ => self.heal(),
        }
        sleep(Duration::from_millis(self.random.random_range(10..900))).await;
    }

    /// Starts the nodes again that lost power.
    async fn light_up(&mut self, doomed: bool) {
        for id in std::mem::take(&mut self.dark) {
            self.stop(id).await;
            self.heal();
            self.start(id, doomed).await;
        }
    }

    fn heal(&mut self) {
        self.cluster.faults.heal();
        for id in &self.dark {
            self.cluster.faults.isolate(*id);
        }
    }

    /// Starts every node and mends all faults.
    async fn calm_down(&mut self) {
        for id in self.cluster.ids() {
            self.stop(id).await;
        }
        self.dark.clear();
        self.cluster.faults.clear();
        for id in self.cluster.members() {
            self.start(id, false).await;
        }
        self.cluster.leader().await;
    }

    fn clients(&mut self) -> (Rc<Cell<bool>>, Vec<tokio::task::JoinHandle<()>>) {
        let over = Rc::new(Cell::new(false));
        let client = |nth: u64| {
            let client = Client {
                nth,
                nodes: Rc::clone(&self.nodes),
                ledger: self.ledger.clone(),
                random: SmallRng::seed_from_u64(self.random.random()),
            };
            tokio::task::spawn_local(client.run(Rc::clone(&over)))
        };
        let clients = (0..4).map(client).collect();
        (over, clients)
    }
}

struct Client {
    nth: u64,
    nodes: Rc<RefCell<BTreeMap<NodeId, Node<Journal>>>>,
    ledger: Ledger,
    random: SmallRng,
}

impl Client {
    async fn run(mut self, over: Rc<Cell<bool>>) {
        let mut written = 0;
        while !over.get() {
            sleep(Duration::from_millis(self.random.random_range(0..60))).await;
            let (Some(writer), Some(reader)) = (self.any_node(), self.any_node()) else { continue };
            written += 1;
            let command = format!("{}: {written}", self.nth);
            if self.ledger.propose(&writer, command.clone()).await.is_err() {
                continue;
            }
            let read = reader.read(Consistency::Linearizable, move |journal| journal.count(&command));
            if let Ok(read) = soon("a read", read).await {
                assert_eq!(read.value, 1, "a linearizable read at {} missed an acknowledged write", read.index);
            }
        }
    }

    fn any_node(&mut self) -> Option<Node<Journal>> {
        let nodes = self.nodes.borrow();
        let nth = self.random.random_range(0..nodes.len().max(1));
        nodes.values().nth(nth).cloned()
    }
}

fn bad() -> LinkFaults {
    LinkFaults {
        drop: 0.03,
        duplicate: 0.05,
        reorder: 0.1,
        corrupt: 0.01,
        delay: Duration::ZERO..=Duration::from_millis(5),
        ..LinkFaults::default()
    }
}
