//! A cluster of real nodes that serve, in simulated time, over a network and disks with faults.
//!
//! All nodes run on one thread, and time passes only while all of them wait, so a run is a function
//! of its seed. Callers call and query any node meanwhile. At the end the faults stop, all nodes
//! start again, and must agree and serve.
//!
//! - [`machine`]: the service of a node, which records the entries that it applies.
//! - [`callers`]: the calls and queries, and their answers.
//! - [`judge`]: the answers and the committed log, compared.

mod callers;
mod judge;
mod machine;

pub(crate) use judge::judge;

use crate::{
    failed::{Fault, Property},
    rng::Rng,
    spec::Spec,
    world::World,
};
use callers::{Callers, Nodes};
use machine::{Log, Recorded};
use quorate::{Node, NodeId, NodeRole, Service, Snapshots, storage::Wal};
use quorate_storage_testing::{Crash, SimulatedDisk};
use quorate_transport_testing::{FaultNetwork, Faults, LinkFaults};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io, panic,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    runtime,
    task::{JoinHandle, LocalSet},
    time::{sleep, timeout},
};

const MEMBERS: u64 = 3;
/// The faults of a run, one after the other; each lasts until another mends it.
const FAULTS: usize = 20;
/// The longest time from one fault to the next, in milliseconds.
const CALM_MS_MAX: u64 = 600;
/// The simulated time within which a cluster without faults must do its next step.
const PATIENCE: Duration = Duration::from_secs(30);

/// The record of a run.
pub(crate) struct History<S: Service> {
    /// The entries that any node applied.
    pub(crate) log: Log,
    pub(crate) callers: Callers<S>,
    pub(crate) crashes: u64,
}

/// Runs a cluster. With a fault, its history ends there.
pub(crate) fn run<S: Service>(spec: &Arc<Spec<S>>, seed: u64) -> io::Result<(History<S>, Result<(), Fault>)> {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(LocalSet::new().block_on(&runtime, async {
        let mut cluster = Cluster::new(spec, seed);
        let ended = cluster.run().await;
        let Cluster { log, callers, crashes, .. } = &cluster;
        (History { log: log.take(), callers: callers.take(), crashes: *crashes }, ended)
    }))
}

/// A cluster that does not do what it must: the runtime is to blame.
fn broken(details: impl Into<String>) -> Fault {
    Fault::new(Property::Cluster, details)
}

struct Cluster<S: Service> {
    spec: Arc<Spec<S>>,
    seed: u64,
    rng: Rng,
    network: FaultNetwork,
    faults: Faults,
    disks: BTreeMap<NodeId, SimulatedDisk>,
    /// The running nodes.
    nodes: Nodes<S>,
    /// The nodes without power.
    dark: BTreeSet<NodeId>,
    log: machine::Shared,
    callers: Rc<callers::Shared<S>>,
    starts: u64,
    crashes: u64,
}

impl<S: Service> Cluster<S> {
    fn new(spec: &Arc<Spec<S>>, seed: u64) -> Self {
        let (network, nodes) = (FaultNetwork::new(seed), Nodes::default());
        Self {
            spec: Arc::clone(spec),
            seed,
            rng: Rng::new(seed ^ 0xc1_05_7e_12),
            faults: network.faults(),
            network,
            disks: ids().map(|id| (id, SimulatedDisk::new())).collect(),
            callers: callers::Shared::new(spec, &nodes),
            nodes,
            dark: BTreeSet::new(),
            log: machine::Shared::default(),
            starts: 0,
            crashes: 0,
        }
    }

    /// Runs to the end of the faults, and on until the cluster has healed.
    async fn run(&mut self) -> Result<(), Fault> {
        for id in ids() {
            self.start(id).await?;
        }
        let calling = self.callers.call(self.seed);
        for _ in 0..FAULTS {
            self.disturb().await?;
            sleep(Duration::from_millis(self.rng.between(1..=CALM_MS_MAX))).await;
            self.look()?;
        }
        let ended = self.end(calling).await;
        self.look()?;
        ended
    }

    /// The faults stop: the cluster must serve, at the newest version of the service, and agree.
    async fn end(&mut self, mut calling: Vec<JoinHandle<()>>) -> Result<(), Fault> {
        // None ends by itself.
        for caller in calling.extract_if(.., |caller| caller.is_finished()) {
            ended(caller).await?;
        }
        for id in ids() {
            self.stop(id).await?;
        }
        self.faults.clear();
        for id in ids() {
            self.disks[&id].crash(Crash::Keep);
            self.start(id).await?;
        }
        self.dark.clear();
        self.until("a leader", |statuses| statuses.iter().any(|status| status.role == NodeRole::Leader)).await?;
        self.until("the newest version", |statuses| statuses.iter().all(|status| status.schema_version == S::VERSION))
            .await?;
        let answered = self.callers.answered();
        soon("an answer", async {
            while self.callers.answered() == answered {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await?;
        self.callers.close();
        for caller in calling {
            ended(caller).await?;
        }
        self.until("agreement", |statuses| {
            let last = statuses.iter().map(|status| status.last_log).max();
            statuses.iter().all(|status| Some(status.applied) == last && Some(status.last_log) == last)
        })
        .await
    }

    /// Adds a fault, or mends some.
    async fn disturb(&mut self) -> Result<(), Fault> {
        for id in ids() {
            if self.disks[&id].is_halted() && !self.dark.contains(&id) {
                self.crash(id).await?;
            }
        }
        let [one, other] = [NodeId(self.rng.between(1..=MEMBERS)), NodeId(self.rng.between(1..=MEMBERS))];
        let node = self.nodes.borrow().get(&one).cloned();
        match (self.rng.below(12), node) {
            (0, _) => self.faults.isolate(one),
            (1, _) => self.faults.cut(one, other),
            (2, _) => self.faults.everywhere(bad()),
            (3, Some(_)) => {
                self.stop(one).await?;
                self.start(one).await?;
            }
            (4..6, Some(_)) => self.crash(one).await?,
            (6, Some(_)) => self.disks[&one].halt_at(self.rng.between(1..=40)),
            (7, Some(node)) => drop(timeout(PATIENCE, node.snapshot()).await),
            (8, Some(node)) => drop(timeout(PATIENCE, node.transfer(Some(other))).await),
            (9..11, _) => {
                for id in std::mem::take(&mut self.dark) {
                    self.start(id).await?;
                }
                self.faults.heal();
            }
            _ => {
                self.faults.clear();
                self.dark.iter().for_each(|id| self.faults.isolate(*id));
            }
        }
        Ok(())
    }

    async fn start(&mut self, id: NodeId) -> Result<(), Fault> {
        self.starts += 1;
        let snapshots = Snapshots::default().with_every_entries(self.rng.between(5..=60)).with_keep_entries(3);
        let world = World::new(self.seed ^ self.starts << 8, self.rng.below(20));
        let machine = Recorded::new(id, &self.spec, world, &self.log);
        let started = Node::builder(id, "trial")
            .voters(ids().map(|id| (id, "")))
            .network(self.network.endpoint(id))
            .storage(Wal::at("data").segment_bytes(16 << 10).on(self.disks[&id].clone()))
            .snapshots(snapshots)
            .applies_versions(0..=S::VERSION)
            .seed(self.seed << 16 | self.starts)
            .start_local(machine)
            .await;
        match started {
            Ok(node) => drop(self.nodes.borrow_mut().insert(id, node)),
            Err(_) if self.disks[&id].is_halted() => self.lose_power(id),
            Err(error) => return Err(self.look().err().unwrap_or_else(|| broken(error.to_string()))),
        }
        Ok(())
    }

    async fn stop(&mut self, id: NodeId) -> Result<(), Fault> {
        let node = self.nodes.borrow_mut().remove(&id);
        if let Some(node) = node {
            soon("the end of a node", node.shutdown()).await?;
            self.log.fault()?;
            self.look_at(id, &node)?;
            // Its storage ends a moment later.
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// A running node loses its power.
    async fn crash(&mut self, id: NodeId) -> Result<(), Fault> {
        self.faults.isolate(id);
        self.disks[&id].halt();
        self.stop(id).await?;
        self.lose_power(id);
        Ok(())
    }

    /// Writes that were not synced meet their fate.
    fn lose_power(&mut self, id: NodeId) {
        self.crashes += 1;
        self.disks[&id].crash(match self.rng.below(4) {
            0 => Crash::Lose,
            1 => Crash::Keep,
            2 => Crash::Torn { bytes: self.rng.below(2_000) },
            _ => Crash::Scatter { seed: self.rng.next_u64() },
        });
        self.dark.insert(id);
    }

    /// Looks for faults of the service, and for nodes that failed.
    fn look(&self) -> Result<(), Fault> {
        self.log.fault()?;
        self.nodes.borrow().iter().try_for_each(|(id, node)| self.look_at(*id, node))
    }

    /// A node may fail only if its disk has lost its power.
    fn look_at(&self, id: NodeId, node: &Node<Recorded<S>>) -> Result<(), Fault> {
        if let Some(halted) = node.status().borrow().halted.clone() {
            return Err(Fault::new(Property::Panics, halted.cause.to_string()));
        }
        match pin!(node.failed()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(failure) if !self.disks[&id].is_halted() => Err(broken(format!("node {id} failed: {failure}"))),
            _ => Ok(()),
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&[quorate::Status]) -> bool) -> Result<(), Fault> {
        let reached = soon(what, async {
            loop {
                let statuses: Vec<_> =
                    self.nodes.borrow().values().map(|node| node.status().borrow().clone()).collect();
                if self.look().is_err() || holds(&statuses) {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        });
        reached.await
    }
}

fn ids() -> impl Iterator<Item = NodeId> {
    (1..=MEMBERS).map(NodeId)
}

/// Waits for the end of a caller.
///
/// # Panics
/// If it ended by a panic, which is that of a function that draws commands or queries.
async fn ended(caller: JoinHandle<()>) -> Result<(), Fault> {
    match soon("the end of a caller", caller).await? {
        Err(error) if error.is_panic() => panic::resume_unwind(error.into_panic()),
        ended => ended.map_err(|error| broken(error.to_string())),
    }
}

async fn soon<T>(what: &str, event: impl Future<Output = T>) -> Result<T, Fault> {
    let within = |_| broken(format!("without faults the cluster came to no end within {PATIENCE:?}: {what}"));
    timeout(PATIENCE, event).await.map_err(within)
}

fn bad() -> LinkFaults {
    LinkFaults {
        drop: 0.05,
        duplicate: 0.05,
        reorder: 0.1,
        corrupt: 0.01,
        delay: Duration::ZERO..=Duration::from_millis(10),
        ..LinkFaults::default()
    }
}

#[cfg(test)]
mod tests;
