//! Nodes of one process in simulated time, with logs in memory.

use quorate::{
    Builder, Node, NodeId, NodeRole, Serve, Service, ServiceNode,
    storage::{Memory, MemoryLog},
};
use quorate_transport_testing::FaultNetwork;
use std::time::Duration;
use tokio::time::timeout;

/// Some nodes, and the caller's view of them.
pub struct Nodes<S: Service> {
    serve: fn(Builder) -> Serve<S>,
    network: FaultNetwork,
    logs: Vec<MemoryLog>,
    nodes: Vec<ServiceNode<S>>,
}

impl<S: Service> Nodes<S> {
    /// Starts this many nodes, in a task of [`simulate`].
    pub async fn start(count: usize, serve: fn(Builder) -> Serve<S>) -> Self {
        let logs = (0..count).map(|_| MemoryLog::new()).collect();
        let mut nodes = Self { serve, network: FaultNetwork::new(1), logs, nodes: Vec::new() };
        for nth in 0..count {
            nodes.nodes.push(nodes.start_one(nth).await);
        }
        nodes
    }

    async fn start_one(&self, nth: usize) -> ServiceNode<S> {
        let (ids, id) = ((1..=self.logs.len() as u64).map(NodeId), NodeId(nth as u64 + 1));
        let node = Node::builder(id, "testing").voters(ids.map(|id| (id, ""))).seed(id.0);
        let node = node.network(self.network.endpoint(id)).storage(Memory::shared(&self.logs[nth]));
        (self.serve)(node).start_local().await.expect("a node")
    }

    /// The first node.
    #[must_use]
    pub fn first(&self) -> &ServiceNode<S> {
        &self.nodes[0]
    }

    /// The last node.
    #[must_use]
    pub fn last(&self) -> &ServiceNode<S> {
        &self.nodes[self.nodes.len() - 1]
    }

    /// Ends the leader, and starts its node again from its log.
    pub async fn lose_leader(&mut self) {
        let is_leader = |node: &ServiceNode<S>| node.status().borrow().role == NodeRole::Leader;
        let leader = self.nodes.iter().position(is_leader).expect("a leader");
        self.restart(leader).await;
    }

    /// Ends a node, counted from 0, and starts another from its log. Handles of the first are stopped.
    pub async fn restart(&mut self, nth: usize) {
        soon("the end", self.nodes[nth].shutdown()).await;
        self.nodes[nth] = self.start_one(nth).await;
    }

    /// The reply to a command, which is sent to the first node until its outcome is known.
    pub async fn call(&self, command: S::Command) -> S::Reply {
        let session = soon("a session", self.first().session()).await.expect("a session");
        soon("an answer", session.call(command)).await.expect("it is applied").reply
    }

    /// The answer to a query of the last node.
    pub async fn query(&self, query: S::Query) -> S::Answer {
        soon("an answer", self.last().query(query).into_future()).await.expect("it is served").value
    }

    /// Ends all nodes.
    pub async fn stop(&self) {
        for node in &self.nodes {
            soon("the end", node.shutdown()).await;
        }
    }
}

/// Runs a test in simulated time: the clock goes on to the next timer when all tasks wait.
pub fn simulate(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), test);
}

/// Waits for an event that must happen; simulated seconds cost nothing.
pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), event).await.unwrap_or_else(|_| panic!("{what}: it does not happen"))
}

impl<S: Service> std::fmt::Debug for Nodes<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nodes").field("count", &self.nodes.len()).finish_non_exhaustive()
    }
}
