//! A service over two releases: rolling upgrade, rollback, and nodes that are too old.
//!
//! `first` and `second` are the two releases of one service, as their repository had them. The bytes
//! of every command that a release may have left in a log are kept below.

mod support;

use quorate::{
    At, CallError, Consistency, Context, HaltCause, Hosted, Index, Node, NodeId, NodeRole, Refused, RestoreError,
    Service, ServiceNode, StartError, StateMachine, Status,
    storage::{Memory, MemoryLog},
};
use quorate_transport_testing::FaultNetwork;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use support::{CLUSTER, simulate, soon};
use tokio::time::sleep;

mod first {
    use super::*;

    #[derive(Clone, Default, Debug, Serialize, Deserialize)]
    pub(crate) struct Total {
        total: u64,
    }

    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub(crate) enum Command {
        Add(u64),
    }

    impl Service for Total {
        quorate::types!(Command => u64, () => u64);

        fn apply(&mut self, Command::Add(add): Command, _: &mut Context<'_, Self>) -> u64 {
            self.total += add;
            self.total
        }

        fn query(&self, (): (), _: At) -> u64 {
            self.total
        }
    }
}

/// It adds the command `Reset`, and keeps the total at 1,000 at most.
mod second {
    use super::*;

    #[derive(Clone, Default, Debug, Serialize, Deserialize)]
    pub(crate) struct Total {
        total: u64,
        #[serde(default)]
        resets: u32,
    }

    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub(crate) enum Command {
        Add(u64),
        Reset,
    }

    impl Service for Total {
        quorate::types!(Command => u64, () => u64);
        const VERSION: u32 = 1;

        fn since(command: &Command) -> u32 {
            matches!(command, Command::Reset).into()
        }

        fn apply(&mut self, command: Command, cx: &mut Context<'_, Self>) -> u64 {
            match command {
                Command::Add(add) if cx.at().version >= 1 => self.total = (self.total + add).min(1_000),
                Command::Add(add) => self.total += add,
                Command::Reset => {
                    self.total = 0;
                    self.resets += 1;
                }
            }
            self.total
        }

        fn query(&self, (): (), _: At) -> u64 {
            self.total
        }
    }
}

/// The bytes of commands as the first release wrote them. Never changed.
const OF_FIRST: &[(u64, &[u8])] = &[(0, &[0xf1, 0, 0, 0]), (300, &[0xf1, 0, 0, 0xac, 2])];
/// Those that the second release added.
const RESET: &[u8] = &[0xf1, 1, 1];

#[test]
fn every_command_of_every_release_keeps_its_bytes() {
    for (add, bytes) in OF_FIRST {
        assert_eq!(Hosted::<first::Total>::encode(&first::Command::Add(*add)), *bytes);
        assert_eq!(Hosted::<second::Total>::encode(&second::Command::Add(*add)), *bytes);
    }
    assert_eq!(Hosted::<second::Total>::encode(&second::Command::Reset), RESET);
}

#[test]
fn each_release_gives_the_same_outcome_so_long_as_both_run() {
    let (mut first, mut second) = (Hosted::new(first::Total::default), Hosted::new(second::Total::default));
    let commands = OF_FIRST.iter().map(|(_, bytes)| *bytes).chain([RESET, &[0xf1, 0, 9], b"none"]);
    for (index, bytes) in (1..).zip(commands) {
        let at = At { index: Index(index), ..At::default() };
        assert_eq!(first.apply(&at, bytes), second.apply(&at, bytes), "{bytes:?}");
    }
    assert_eq!((first.query(()), second.query(())), (300, 300));
}

/// A node of one of the releases.
enum Release {
    First(ServiceNode<first::Total>),
    Second(ServiceNode<second::Total>),
}

impl Release {
    async fn add(&self, add: u64) -> Result<u64, CallError> {
        Ok(match self {
            Self::First(node) => soon("an answer", node.call(first::Command::Add(add)).into_future()).await?.reply,
            Self::Second(node) => soon("an answer", node.call(second::Command::Add(add)).into_future()).await?.reply,
        })
    }

    fn second(&self) -> &ServiceNode<second::Total> {
        match self {
            Self::First(node) => panic!("node {} is of the first release", node.id()),
            Self::Second(node) => node,
        }
    }

    async fn reset(&self) -> Result<u64, CallError> {
        let call = self.second().call(second::Command::Reset);
        soon("an answer", call.into_future()).await.map(|applied| applied.reply)
    }

    async fn total(&self, consistency: Consistency) -> u64 {
        match self {
            Self::First(node) => node.query(()).consistency(consistency).await.expect("it is served").value,
            Self::Second(node) => node.query(()).consistency(consistency).await.expect("it is served").value,
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::First(node) => node.status().borrow().clone(),
            Self::Second(node) => node.status().borrow().clone(),
        }
    }

    async fn snapshot(&self) {
        match self {
            Self::First(node) => drop(node.snapshot().await.expect("a snapshot")),
            Self::Second(node) => drop(node.snapshot().await.expect("a snapshot")),
        }
    }

    async fn shutdown(&self) {
        match self {
            Self::First(node) => node.shutdown().await,
            Self::Second(node) => node.shutdown().await,
        }
    }
}

struct Three {
    network: FaultNetwork,
    logs: Vec<MemoryLog>,
    nodes: Vec<Release>,
    starts: u64,
}

impl Three {
    async fn of_first() -> Self {
        let logs = (0..3).map(|_| MemoryLog::new()).collect();
        let mut three = Self { network: FaultNetwork::new(1), logs, nodes: Vec::new(), starts: 0 };
        for nth in 0..3 {
            let node = three.start(nth, false).await.expect("a node");
            three.nodes.push(node);
        }
        three
    }

    async fn start(&mut self, nth: usize, is_second: bool) -> Result<Release, StartError> {
        self.starts += 1;
        let (ids, id) = ([1, 2, 3].map(NodeId), NodeId(nth as u64 + 1));
        let node = Node::builder(id, CLUSTER).voters(ids.map(|id| (id, ""))).seed(id.0 + 10 * self.starts);
        let node = node.network(self.network.endpoint(id)).storage(Memory::shared(&self.logs[nth]));
        Ok(match is_second {
            false => Release::First(node.serve(first::Total::default).start_local().await?),
            true => Release::Second(node.serve(second::Total::default).start_local().await?),
        })
    }

    /// Restarts a node with a release.
    async fn change(&mut self, nth: usize, is_second: bool) {
        soon("the end", self.nodes[nth].shutdown()).await;
        self.nodes[nth] = self.start(nth, is_second).await.expect("a node");
        self.settled().await;
    }

    /// Waits until a node leads, and every node has heard every other.
    async fn settled(&self) {
        let settled = async {
            let is_settled = |node: &Release| {
                let status = node.status();
                status.leader.is_some() && (status.machine_versions.is_some() || status.halted.is_some())
            };
            while !self.nodes.iter().all(is_settled) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        soon("a leader that all know", settled).await;
        sleep(Duration::from_millis(500)).await;
    }

    async fn totals(&self) -> Vec<u64> {
        sleep(Duration::from_millis(500)).await;
        let mut totals = Vec::new();
        for node in &self.nodes {
            totals.push(node.total(Consistency::Local).await);
        }
        totals
    }

    fn schema_versions(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.status().schema_version).collect()
    }

    fn leader(&self) -> usize {
        self.nodes.iter().position(|node| node.status().role == NodeRole::Leader).expect("a leader")
    }
}

#[test]
fn a_rolling_upgrade_takes_new_commands_once_every_member_applies_them() {
    simulate(async {
        let mut three = Three::of_first().await;
        three.settled().await;
        assert_eq!(three.nodes[0].add(1_200).await, Ok(1_200));
        let too_new = CallError::Refused(Refused::TooNew { needs: 1, cluster: 0 });
        for nth in [0, 1] {
            three.change(nth, true).await;
            assert_eq!(three.schema_versions(), [0, 0, 0], "node 3 applies no more");
            let before = three.nodes[nth].status().last_log;
            assert_eq!(three.nodes[nth].reset().await, Err(too_new), "at the caller");
            assert_eq!(three.nodes[nth].status().last_log, before, "nothing is sent");
            let session = three.nodes[nth].second().session().await.expect("a session");
            let refused = soon("an answer", session.call(second::Command::Reset)).await;
            assert_eq!(refused.map(|applied| applied.reply), Err(too_new), "by every node alike");
            assert_eq!(three.nodes[nth].add(10).await, Ok(1_210 + 10 * nth as u64), "in the old way");
        }
        assert_eq!(three.totals().await, [1_220; 3]);
        three.change(2, true).await;
        assert_eq!(three.schema_versions(), [1, 1, 1]);
        assert_eq!(three.nodes[0].add(1).await, Ok(1_000), "in the new way");
        assert_eq!(three.totals().await, [1_000; 3]);
        assert_eq!(three.nodes[1].reset().await, Ok(0));
        assert_eq!(three.nodes[2].add(7).await, Ok(7));
        assert_eq!(three.totals().await, [7; 3]);
        // After a restart the log, or the snapshot, has the version.
        three.nodes[0].snapshot().await;
        for nth in [0, 1] {
            three.change(nth, true).await;
            assert_eq!(three.nodes[nth].add(0).await, Ok(7));
            assert_eq!(three.schema_versions(), [1, 1, 1]);
        }
    });
}

#[test]
fn nodes_go_back_to_the_first_release_so_long_as_one_never_left_it() {
    simulate(async {
        let mut three = Three::of_first().await;
        three.settled().await;
        for nth in [0, 1] {
            three.change(nth, true).await;
        }
        assert_eq!(three.nodes[0].add(1_200).await, Ok(1_200));
        for nth in [0, 1] {
            // It restores a snapshot of the second release.
            three.nodes[nth].snapshot().await;
            three.change(nth, false).await;
        }
        assert_eq!(three.nodes[0].add(5).await, Ok(1_205));
        assert_eq!((three.totals().await, three.schema_versions()), (vec![1_205; 3], vec![0; 3]));
    });
}

#[test]
fn a_node_that_is_too_old_for_the_cluster_stops_by_name_and_the_others_go_on() {
    simulate(async {
        let mut three = Three::of_first().await;
        for nth in 0..3 {
            three.change(nth, true).await;
        }
        assert_eq!(three.nodes[0].reset().await, Ok(0));
        three.settled().await;
        let old = (three.leader() + 1) % 3;
        three.change(old, false).await;
        let halted = async {
            loop {
                match three.nodes[old].status().halted {
                    Some(halted) => return halted,
                    None => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let halted = soon("a halt", halted).await;
        assert_eq!(halted.cause, HaltCause::TooOld { needs: 1, release: 0 });
        let said = halted.to_string();
        assert!(said.contains("needs version 1") && said.contains("reads up to 0"), "{said}");
        let others = [(old + 1) % 3, (old + 2) % 3];
        assert_eq!(three.nodes[others[0]].add(3).await, Ok(3));
        assert_eq!(three.nodes[others[1]].reset().await, Ok(0), "the version never falls");

        // With a snapshot that names the version it does not start.
        three.change(old, true).await;
        three.nodes[old].snapshot().await;
        three.nodes[old].shutdown().await;
        let refused = three.start(old, false).await.map(drop);
        let Err(StartError::Restore(RestoreError::Unreadable { source, .. })) = refused else { panic!("{refused:?}") };
        assert!(source.to_string().contains("version 1"), "{source}");
    });
}
