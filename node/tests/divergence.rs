//! A service that computes something else on one node: the copies are compared through the log, a
//! minority stops by name, and the state of no disputed copy is sent.

mod support;

use quorate::{
    At, Builder, Change, Consistency, Context, Disagreement, Failure, Index, Node, NodeId, NodeRole, Service,
    ServiceNode, Snapshots, State, Timing, WriteState,
    metrics::Metrics,
    service::windows::WINDOW,
    storage::{Memory, MemoryLog},
};
use quorate_raft::{Body, Kind};
use quorate_transport_testing::FaultNetwork;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use support::{CLUSTER, Record, Recorder, relaxed, simulate, soon};
use tokio::time::{Instant, sleep};

/// A sum. The `odd` one adds one too much for some commands.
struct Sum {
    shown: u64,
    hidden: u64,
    odd: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Command {
    Add(u64),
    /// An odd copy answers something else.
    Trip,
    /// An odd copy differs in its state alone.
    Hide,
}

impl Service for Sum {
    quorate::types!(Command => u64, () => (u64, u64));

    fn apply(&mut self, command: Command, _: &mut Context<'_, Self>) -> u64 {
        match command {
            Command::Add(n) => self.shown += n,
            Command::Trip => self.shown += 1 + u64::from(self.odd),
            Command::Hide => self.hidden += 1 + u64::from(self.odd),
        }
        self.shown
    }

    fn query(&self, (): (), _: At) -> (u64, u64) {
        (self.shown, self.hidden)
    }
}

impl State for Sum {
    fn save(&self) -> WriteState {
        let (shown, hidden) = (self.shown, self.hidden);
        Box::new(move |to| to.write_all(&[shown.to_le_bytes(), hidden.to_le_bytes()].concat()))
    }

    fn load(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        for number in [&mut self.shown, &mut self.hidden] {
            let mut bytes = [0; 8];
            from.read_exact(&mut bytes)?;
            *number = u64::from_le_bytes(bytes);
        }
        Ok(())
    }

    fn digest(&self) -> Option<u64> {
        Some(self.shown.wrapping_mul(31).wrapping_add(self.hidden))
    }
}

/// The nodes of a cluster; node 1 campaigns long before the others.
struct World {
    voters: u64,
    network: FaultNetwork,
    record: Record,
    logs: BTreeMap<u64, MemoryLog>,
    nodes: BTreeMap<u64, ServiceNode<Sum>>,
    metrics: Metrics,
}

impl World {
    async fn start(voters: u64, odd: u64) -> Self {
        let (network, record, metrics) = (FaultNetwork::new(1), Record::default(), Metrics::new());
        let mut world = Self { voters, network, record, logs: BTreeMap::new(), nodes: BTreeMap::new(), metrics };
        for id in 1..=voters {
            world.start_one(id, id == odd, |builder| builder).await;
        }
        assert_eq!(world.leader().await, 1);
        world
    }

    async fn start_one(&mut self, id: u64, odd: bool, change: impl FnOnce(Builder) -> Builder) {
        let (log, timing) = (self.logs.entry(id).or_default(), if id == 1 { Timing::default() } else { relaxed() });
        let voters = (1..=self.voters).map(|id| (NodeId(id), ""));
        let builder = Node::builder(NodeId(id), CLUSTER).voters(voters).join(id > self.voters).seed(id);
        let network = Recorder::around(self.network.endpoint(NodeId(id)), &self.record);
        let builder = builder.network(network).storage(Memory::shared(log)).timing(timing);
        // Snapshots are taken where a test asks for one.
        let asked = Snapshots::default().with_every_entries(0).with_every_bytes(0).with_keep_entries(0);
        let builder = change(builder.metrics(&self.metrics).snapshots(asked));
        let node = builder.serve(move || Sum { shown: 0, hidden: 0, odd }).start_local().await.expect("a node");
        self.nodes.insert(id, node);
    }

    async fn restart(&mut self, id: u64, odd: bool, change: impl FnOnce(Builder) -> Builder) {
        let node = self.nodes.remove(&id).expect("it ran");
        soon("the end", node.shutdown()).await;
        self.start_one(id, odd, change).await;
    }

    /// Adds node 4 as a learner, which has no log and needs a snapshot.
    async fn add_learner(&mut self) {
        self.start_one(4, false, |builder| builder).await;
        soon("the change", self.nodes[&1].change(Change::add(NodeId(4), "4"))).await.expect("it is added");
    }

    async fn leader(&self) -> u64 {
        soon("a leader", async {
            loop {
                let leads = |(_, node): &(&u64, &ServiceNode<Sum>)| node.status().borrow().role == NodeRole::Leader;
                if let Some((id, _)) = self.nodes.iter().find(leads) {
                    return *id;
                }
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// Through a session, so that it may be sent while a leader is lost.
    async fn call(&self, at: u64, command: Command) -> u64 {
        let session = soon("a session", self.nodes[&at].session()).await.expect("a session");
        soon("an answer", session.call(command)).await.expect("it is applied").reply
    }

    /// Adds nothing, until the window of the last entry is over.
    async fn fill(&self, at: u64) {
        let end = (self.last_log(at) / WINDOW + 1) * WINDOW;
        let session = soon("a session", self.nodes[&at].session()).await.expect("a session");
        while self.last_log(at) <= end {
            soon("an answer", session.call(Command::Add(0))).await.expect("it is applied");
        }
        sleep(Duration::from_secs(2)).await;
    }

    fn applied(&self, at: u64) -> Index {
        self.nodes[&at].status().borrow().applied
    }

    fn last_log(&self, at: u64) -> u64 {
        self.nodes[&at].status().borrow().last_log.0
    }

    fn disagreement(&self, at: u64) -> Option<Arc<Disagreement>> {
        self.nodes[&at].status().borrow().disagreement.clone()
    }

    async fn diverged(&self, id: u64) -> (Index, Index, u64, u64) {
        match soon("its end", self.nodes[&id].failed()).await {
            Failure::Diverged { after, up_to, mine, theirs } => (after, up_to, mine, theirs),
            other => panic!("node {id}: {other}"),
        }
    }

    async fn sums(&self, at: u64) -> (u64, u64) {
        let read = self.nodes[&at].query(()).consistency(Consistency::Local);
        soon("an answer", read.into_future()).await.expect("it is served").value
    }

    /// The windows that each of these nodes has claimed, as node `at` applied them.
    async fn claimed(&self, at: u64, nodes: &[u64]) -> Vec<Vec<u64>> {
        let windows = 0..=self.last_log(at) / WINDOW;
        let nodes = nodes.to_vec();
        let read = self.nodes[&at].read(Consistency::Local, move |machine| {
            let claims = &machine.tables().claims;
            let of =
                |node: &u64| windows.clone().filter(|window| claims.of(*window, NodeId(*node)).is_some()).collect();
            nodes.iter().map(of).collect()
        });
        soon("an answer", read).await.expect("it is served").value
    }

    fn differing_copies(&self, id: u64) -> f64 {
        self.metric("quorate_differing_copies", id)
    }

    fn metric(&self, name: &str, id: u64) -> f64 {
        let text = self.metrics.render();
        let line = format!("{name}{{node=\"{id}\"}} ");
        let value = text.lines().find_map(|shown| shown.strip_prefix(&line));
        value.unwrap_or_else(|| panic!("no {line}in {text}")).parse().expect("a number")
    }
}

#[test]
fn equal_copies_claim_every_window_once_and_an_idle_log_stays_idle() {
    simulate(async {
        let mut world = World::start(3, 0).await;
        world.call(1, Command::Trip).await;
        for _ in 0..2 {
            world.fill(2).await;
        }
        assert_eq!(world.claimed(3, &[1, 2, 3]).await, [[0, 1], [0, 1], [0, 1]]);
        let last = world.last_log(1);
        assert!(last < 2 * WINDOW + 20, "{last}: the claims are few");
        sleep(Duration::from_secs(300)).await;
        assert_eq!(world.last_log(1), last);
        // A restart applies the entries again, and claims nothing twice.
        world.restart(3, false, |builder| builder).await;
        sleep(Duration::from_secs(10)).await;
        assert_eq!(world.last_log(1), last);
        assert_eq!((world.disagreement(1), world.differing_copies(1)), (None, 0.0));
    });
}

#[test]
fn claims_outlast_the_leader_that_was_to_append_them() {
    simulate(async {
        let mut world = World::start(3, 0).await;
        world.call(1, Command::Trip).await;
        // The window ends while no claim can reach the leader any more.
        while world.last_log(1) < WINDOW {
            soon("an answer", world.nodes[&1].call(Command::Add(0)).into_future()).await.expect("it is applied");
        }
        for follower in [2, 3] {
            world.network.faults().cut(NodeId(follower), NodeId(1));
        }
        sleep(Duration::from_millis(200)).await;
        assert_eq!(world.claimed(2, &[2, 3]).await, [[0u64; 0]; 2]);
        let node = world.nodes.remove(&1).expect("it ran");
        soon("the end", node.shutdown()).await;
        let leader = world.leader().await;
        world.call(leader, Command::Add(0)).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(world.claimed(leader, &[2, 3]).await, [[0], [0]]);
    });
}

#[test]
fn a_follower_that_differs_from_the_majority_stops_and_takes_the_state_of_another() {
    for planted in [Command::Trip, Command::Hide] {
        simulate(async {
            let mut world = World::start(3, 3).await;
            world.call(1, Command::Add(7)).await;
            world.call(1, planted.clone()).await;
            sleep(Duration::from_secs(1)).await;
            // Its own snapshot has the wrong state by now.
            soon("a snapshot", world.nodes[&3].snapshot()).await.expect("a snapshot");
            world.fill(1).await;
            let (after, up_to, mine, theirs) = world.diverged(3).await;
            assert_eq!((after, up_to), (Index(0), Index(WINDOW - 1)));
            assert_ne!(mine, theirs);
            let found = world.disagreement(1).expect("an alarm");
            assert_eq!((found.after, found.up_to, found.majority), (after, up_to, Some(theirs)));
            assert_eq!(found.digests[&NodeId(3)], mine);
            assert_eq!(found.is_of_state, matches!(planted, Command::Hide));
            assert_eq!((found.differing().collect::<Vec<_>>(), world.differing_copies(1)), (vec![NodeId(3)], 1.0));
            world.call(2, Command::Add(1)).await;

            // A restart alone has the same state, though the cause is gone.
            world.restart(3, false, |builder| builder).await;
            assert_eq!(world.diverged(3).await, (after, up_to, mine, theirs));
            world.restart(3, false, Builder::discard_state).await;
            sleep(Duration::from_secs(5)).await;
            assert_eq!(world.sums(3).await, world.sums(1).await);
            assert!(world.nodes[&3].status().borrow().snapshot > Index(WINDOW), "it came from another node");
            world.restart(3, false, |builder| builder).await;
            // It claims no window that began before its state.
            for _ in 0..2 {
                world.fill(1).await;
            }
            assert_eq!(world.claimed(1, &[3]).await, [[0, 2]]);
            for id in 1..=3 {
                assert_eq!((world.disagreement(id), world.differing_copies(id)), (None, 0.0), "node {id}");
                assert_eq!(world.sums(id).await, world.sums(1).await);
            }
            // For an alarm that reads the metrics less often than windows end.
            assert_eq!(world.metric("quorate_copies_differed_total", 1), 1.0);
        });
    }
}

#[test]
fn a_leader_that_differs_from_the_majority_stops_before_its_snapshot_spreads() {
    simulate(async {
        let mut world = World::start(3, 1).await;
        world.call(1, Command::Trip).await;
        world.record.lose(Some(states_claims));
        world.fill(2).await;
        soon("a snapshot", world.nodes[&1].snapshot()).await.expect("a snapshot");
        world.add_learner().await;
        // No difference shows yet.
        sleep(Duration::from_secs(5)).await;
        assert_eq!((world.disagreement(1), world.applied(4)), (None, Index(0)));
        world.record.lose(None);
        let (after, up_to, mine, theirs) = world.diverged(1).await;
        assert_eq!((after, up_to), (Index(0), Index(WINDOW - 1)));
        assert_ne!(mine, theirs);
        assert_eq!(world.applied(4), Index(0));
        world.nodes.remove(&1);
        let leader = world.leader().await;
        world.call(leader, Command::Trip).await;
        assert_eq!(world.sums(leader).await, (2, 0));
        world.start_one(1, false, Builder::discard_state).await;
        sleep(Duration::from_secs(5)).await;
        for id in [1, 4] {
            assert_eq!(world.sums(id).await, (2, 0), "node {id}");
        }
        world.fill(leader).await;
        assert_eq!((world.disagreement(leader), world.differing_copies(leader)), (None, 0.0));
    });
}

#[test]
fn two_copies_that_differ_alarm_and_no_snapshot_is_sent_until_one_is_discarded() {
    simulate(async {
        let mut world = World::start(2, 2).await;
        world.call(1, Command::Trip).await;
        world.fill(1).await;
        for id in [1, 2] {
            soon("a snapshot", world.nodes[&id].snapshot()).await.expect("a snapshot");
        }
        world.add_learner().await;
        sleep(Duration::from_secs(120)).await;
        for id in [1, 2] {
            let found = world.disagreement(id).expect("an alarm");
            assert_eq!((found.majority, found.digests.len(), world.differing_copies(id)), (None, 2, 2.0));
            assert_ne!(found.digests[&NodeId(1)], found.digests[&NodeId(2)]);
            assert_eq!(world.call(id, Command::Add(0)).await, 1, "both go on");
        }
        assert_eq!(world.applied(4), Index(0), "it may not be the right state");

        // The operator found node 2 to be wrong.
        world.restart(2, false, Builder::discard_state).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!((world.sums(2).await, world.leader().await), ((1, 0), 1));
        // It claims no window that began before its state.
        for _ in 0..2 {
            world.fill(1).await;
        }
        for id in [1, 2] {
            assert_eq!((world.disagreement(id), world.differing_copies(id)), (None, 0.0));
        }
        sleep(Duration::from_secs(60)).await;
        assert_eq!(world.sums(4).await, (1, 0), "the copies agree, so a snapshot is sent");
    });
}

#[test]
fn a_snapshot_waits_until_a_majority_agreed_on_the_last_window() {
    simulate(async {
        let mut world = World::start(3, 0).await;
        world.record.lose(Some(states_claims));
        world.fill(1).await;
        soon("a snapshot", world.nodes[&1].snapshot()).await.expect("a snapshot");
        world.add_learner().await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(world.claimed(1, &[1, 2, 3]).await, [&[0][..], &[], &[]]);
        assert_eq!(world.applied(4), Index(0));
        // The wait for claims alone would last 5 s more.
        world.record.lose(None);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(world.claimed(1, &[1, 2, 3]).await, [[0], [0], [0]]);
        assert!(world.applied(4) > Index(WINDOW));
    });
}

#[test]
fn a_snapshot_of_the_last_copy_that_is_up_waits_for_no_claims() {
    simulate(async {
        let mut world = World::start(3, 0).await;
        world.record.lose(Some(states_claims));
        world.fill(1).await;
        // Without a snapshot, a node applies its log anew and needs no other's state.
        soon("a snapshot", world.nodes[&2].snapshot()).await.expect("a snapshot");
        for id in [2, 3] {
            let node = world.nodes.remove(&id).expect("it ran");
            soon("the end", node.shutdown()).await;
        }
        let start = Instant::now();
        world.start_one(2, false, Builder::discard_state).await;
        assert_eq!(world.call(1, Command::Add(5)).await, 5);
        let state = async {
            while world.applied(2) < world.applied(1) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        soon("the state", state).await;
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!((world.sums(2).await, world.leader().await), ((5, 0), 1));
        assert_eq!(world.claimed(1, &[2, 3]).await, [[0u64; 0]; 2]);
    });
}

/// Whether a follower states claims to the leader by this.
fn states_claims(body: &Body) -> bool {
    matches!(body, Body::Propose(propose) if propose.commands.iter().any(|command| command.kind == Kind::Internal))
}
