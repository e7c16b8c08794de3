use super::{CLUSTER, Journal, PATIENCE};
use futures_util::future::{pending, select_all};
use quorate::{
    Builder, Index, Limits, Node, NodeId, NodeRole, Snapshots, StartError, Status, Timing, metrics::Metrics,
};
use quorate_storage_testing::LossyLog;
use quorate_transport_testing::{FaultNetwork, Faults};
use std::collections::BTreeMap;

/// The settings that a cluster is started with.
#[derive(Clone, Debug)]
pub struct Plan {
    pub members: u64,
    /// Further nodes that wait to be added.
    pub joiners: u64,
    pub seed: u64,
    /// Nodes have threads of their own; time is real.
    pub threads: bool,
    /// Messages are not encoded.
    pub by_value: bool,
    pub timing: Timing,
    pub limits: Limits,
    pub snapshots: Snapshots,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            members: 3,
            joiners: 0,
            seed: 1,
            threads: false,
            by_value: false,
            timing: Timing::default(),
            limits: Limits::default(),
            snapshots: Snapshots::default(),
        }
    }
}

/// Nodes over one in-memory network, each with a log that survives it.
pub struct Cluster {
    pub network: FaultNetwork,
    pub faults: Faults,
    pub metrics: Metrics,
    plan: Plan,
    logs: BTreeMap<NodeId, LossyLog>,
    running: BTreeMap<NodeId, Running>,
    starts: u64,
}

struct Running {
    node: Node<Journal>,
    journal: Journal,
}

/// The statuses of all running nodes at one moment.
pub type View = BTreeMap<NodeId, Status>;

impl Cluster {
    /// Three nodes, all running.
    pub async fn of_three(seed: u64) -> Self {
        Self::start_all(Plan { seed, ..Plan::default() }).await
    }

    /// Starts every node of the plan.
    pub async fn start_all(plan: Plan) -> Self {
        let mut cluster = Self::vacant(plan);
        for id in cluster.members() {
            cluster.start(id).await;
        }
        cluster
    }

    /// A cluster of the plan, with no node started.
    pub fn vacant(plan: Plan) -> Self {
        let network = if plan.by_value { FaultNetwork::by_value(plan.seed) } else { FaultNetwork::new(plan.seed) };
        let logs = (1..=plan.members + plan.joiners).map(|id| (NodeId(id), LossyLog::new())).collect();
        let (faults, metrics) = (network.faults(), Metrics::new());
        Self { network, faults, metrics, plan, logs, running: BTreeMap::new(), starts: 0 }
    }

    /// Starts a node on the log that it left.
    pub async fn start(&mut self, id: NodeId) {
        self.start_as(id, Journal::default(), |builder| builder).await;
    }

    /// Starts a node with another state machine, storage or network.
    pub async fn start_as(&mut self, id: NodeId, journal: Journal, change: impl FnOnce(Builder) -> Builder) {
        self.try_start_as(id, journal, change).await.expect("a node");
    }

    /// Starts a node that may refuse to start.
    pub async fn try_start_as(
        &mut self,
        id: NodeId,
        journal: Journal,
        change: impl FnOnce(Builder) -> Builder,
    ) -> Result<(), StartError> {
        self.starts += 1;
        let described = Node::builder(id, CLUSTER);
        let described = match id.0 <= self.plan.members {
            true => described.voters(self.members().map(|id| (id, ""))),
            false => described.join(true),
        };
        let builder = change(
            described
                .network(self.network.endpoint(id))
                .storage(self.logs[&id].storage())
                .timing(self.plan.timing)
                .limits(self.plan.limits)
                .snapshots(self.plan.snapshots)
                .metrics(&self.metrics)
                .seed(self.plan.seed << 16 | self.starts),
        );
        let machine = journal.clone();
        let started = if self.plan.threads { builder.start(machine).await } else { builder.start_local(machine).await };
        assert!(self.running.insert(id, Running { node: started?, journal }).is_none(), "node {id} runs already");
        Ok(())
    }

    /// The log that a node keeps, for tests that damage it while the node does not run.
    pub fn log(&self, id: NodeId) -> &LossyLog {
        &self.logs[&id]
    }

    /// Replaces a node's storage with an empty one.
    pub fn empty(&mut self, id: NodeId) {
        self.logs.insert(id, LossyLog::new());
    }

    /// Records that a node has ended by itself.
    pub fn ended(&mut self, id: NodeId) {
        self.running.remove(&id).expect("a running node");
    }

    /// The plan for nodes that are started from now on.
    pub fn plan(&mut self) -> &mut Plan {
        &mut self.plan
    }

    /// Shuts a running node down.
    pub async fn stop(&mut self, id: NodeId) {
        self.running.remove(&id).expect("a running node").node.shutdown().await;
    }

    /// Ends all nodes, the leader last: it then has no successor to transfer leadership to, and
    /// nothing more is written.
    pub async fn stop_all(&mut self) {
        let mut ids = self.ids();
        ids.sort_by_key(|id| self.status(*id).role == NodeRole::Leader);
        for id in ids {
            self.stop(id).await;
        }
    }

    /// The members that the cluster begins with.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.plan.members).map(NodeId)
    }

    /// The nodes that run now.
    pub fn ids(&self) -> Vec<NodeId> {
        self.running.keys().copied().collect()
    }

    /// The running nodes except this one.
    pub fn others(&self, id: NodeId) -> Vec<NodeId> {
        self.ids().into_iter().filter(|other| *other != id).collect()
    }

    pub fn node(&self, id: NodeId) -> &Node<Journal> {
        &self.running[&id].node
    }

    pub fn journal(&self, id: NodeId) -> &Journal {
        &self.running[&id].journal
    }

    pub fn status(&self, id: NodeId) -> Status {
        self.node(id).status().borrow().clone()
    }

    /// The entries that every running node has applied.
    pub fn journals(&self) -> Vec<(NodeId, Vec<(Index, String)>)> {
        self.running.iter().map(|(id, running)| (*id, running.journal.entries())).collect()
    }

    /// Waits until all running nodes follow one leader.
    pub async fn leader(&self) -> NodeId {
        self.leader_among(&self.ids()).await
    }

    /// Waits until these nodes follow one leader among them.
    pub async fn leader_among(&self, ids: &[NodeId]) -> NodeId {
        self.until("a leader that all follow", |view| leader_of(view, ids)).await
    }

    /// The sum of a metric over all its series that have these labels, as in `node="1"`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.metrics.render();
        let series = page.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        let wanted = series.filter(|line| labels.iter().all(|label| line.contains(label)));
        wanted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until all running nodes follow one leader and have applied everything in its log.
    pub async fn settled(&self) -> NodeId {
        self.until("a settled cluster", |view| {
            let leader = leader_of(view, &self.ids())?;
            let last = view[&leader].last_log;
            view.values().all(|status| status.applied == last && status.last_log == last).then_some(leader)
        })
        .await
    }

    /// Waits until `found` returns a value.
    pub async fn until<T>(&self, what: &str, found: impl Fn(&View) -> Option<T>) -> T {
        let mut watched: Vec<_> = self.running.values().map(|running| running.node.status()).collect();
        let waiting = async {
            loop {
                let look = watched.iter_mut().map(|status| status.borrow_and_update().clone());
                let view: View = look.map(|status| (status.node, status)).collect();
                if let Some(found) = found(&view) {
                    return found;
                }
                let changes = watched.iter_mut().map(|status| {
                    Box::pin(async {
                        // A node that has ended changes no more.
                        if status.changed().await.is_err() {
                            pending().await
                        }
                    })
                });
                select_all(changes).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => {
                let view: Vec<_> = self.ids().into_iter().map(|id| self.status(id)).collect();
                panic!("{what}: not within {PATIENCE:?}: {view:#?}")
            }
        }
    }
}

fn leader_of(view: &View, ids: &[NodeId]) -> Option<NodeId> {
    let leader = *ids.iter().find(|id| view[id].role == NodeRole::Leader)?;
    let follows = |id: &NodeId| view[id].leader == Some(leader) && view[id].term == view[&leader].term;
    ids.iter().all(follows).then_some(leader)
}
