//! A cluster of real processes on this machine: for the demo, and for tests that kill.
//!
//! It owns a directory (certificates, configurations, data, logs) and the child processes. Nodes find each other over
//! QUIC on loopback, as they would across machines. Every child ends with its [`Cluster`], however that ends, also with
//! the whole process: a child stops when its standard input closes.

mod layout;
mod ports;
mod process;

pub use layout::{Layout, Options};

use crate::{
    certs::CertsError,
    client::{Client, ClientError, Trust},
    http::messages::StatusAnswer,
};
use process::Process;
use quorate::NodeId;
use std::{collections::BTreeMap, io, process::ExitStatus, time::Duration};
use tokio::{task::JoinSet, time::Instant};

pub use rustix::process::Signal;

/// How often a start is tried again because somebody took a port in between.
const START_TRIES: usize = 5;
/// How often to ask again while waiting for other processes, which can't tell when something happens.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// How long a status request may take: a stopped process accepts connections and never answers.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

/// Nodes, running or not.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    processes: BTreeMap<NodeId, Process>,
}

impl Cluster {
    /// Makes certificates and configurations in the directory, starts every node but those that may join, and returns when all serve. Nobody
    /// need lead yet: see [`Cluster::leader`].
    ///
    /// # Errors
    /// If files are in the way, or a node does not start.
    pub async fn start(options: Options) -> Result<Self, ClusterError> {
        let mut cluster = Self::lay_out(options)?;
        for attempt in 1.. {
            match cluster.start_all().await {
                Err(ClusterError::DidNotStart { cause, .. }) if attempt < START_TRIES && is_taken_port(&cause) => {
                    cluster.kill_all().await;
                    cluster.layout.choose_ports()?;
                }
                result => {
                    result?;
                    break;
                }
            }
        }
        Ok(cluster)
    }

    /// Makes certificates and configurations, and starts nothing: for who wants to change something first.
    ///
    /// # Errors
    /// If files are in the way.
    pub fn lay_out(options: Options) -> Result<Self, ClusterError> {
        Ok(Self { layout: Layout::make(options)?, processes: BTreeMap::new() })
    }

    /// Starts every node that does not run, but those that may join, all at once, and returns when they serve.
    ///
    /// # Errors
    /// The first that does not start, with what it said.
    pub async fn start_all(&mut self) -> Result<(), ClusterError> {
        let ids: Vec<_> = self.ids().into_iter().filter(|id| !self.running().contains(id)).collect();
        self.start_these(&ids).await
    }

    /// Starts a node, unless it runs, and returns when it serves.
    ///
    /// # Errors
    /// If it does not start, with what it said.
    pub async fn start_node(&mut self, id: NodeId) -> Result<(), ClusterError> {
        let ids: &[NodeId] = if self.processes.contains_key(&id) { &[] } else { &[id] };
        self.start_these(ids).await
    }

    async fn start_these(&mut self, ids: &[NodeId]) -> Result<(), ClusterError> {
        let mut starting = JoinSet::new();
        for id in ids.iter().copied() {
            let layout = self.layout.clone();
            starting.spawn(async move {
                let started = Process::start(layout.binary(), &layout.config_file(id), &layout.log_file(id)).await;
                (id, started.map_err(|cause| ClusterError::DidNotStart { id, cause }))
            });
        }
        for (id, started) in starting.join_all().await {
            self.processes.insert(id, started?);
        }
        Ok(())
    }

    /// Ends a node with SIGKILL, in the middle of whatever it does.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self, id: NodeId) -> Result<(), ClusterError> {
        let mut process = self.processes.remove(&id).ok_or(ClusterError::NotRunning { id })?;
        Ok(process.kill().await?)
    }

    /// Ends every node that runs, with SIGKILL.
    pub async fn kill_all(&mut self) {
        for mut process in std::mem::take(&mut self.processes).into_values() {
            // One that is gone already is what was asked for.
            let _ = process.kill().await;
        }
    }

    /// Sends a node a signal: `STOP` and `CONT` make it pause, as a suspended machine does.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, id: NodeId, signal: Signal) -> Result<(), ClusterError> {
        Ok(self.process(id)?.signal(signal)?)
    }

    /// Asks a node to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// If it does not run, or does not end within half a minute.
    pub async fn stop(&mut self, id: NodeId) -> Result<ExitStatus, ClusterError> {
        self.signal(id, Signal::TERM)?;
        self.ended(id, Duration::from_secs(30)).await
    }

    /// Waits for a node to end by itself.
    ///
    /// # Errors
    /// If it does not run, or does not end `within` this time.
    pub async fn ended(&mut self, id: NodeId, within: Duration) -> Result<ExitStatus, ClusterError> {
        let process = self.processes.get_mut(&id).ok_or(ClusterError::NotRunning { id })?;
        let late = |_| ClusterError::Late { within, what: format!("the end of node {id}") };
        let status = tokio::time::timeout(within, process.ended()).await.map_err(late)??;
        self.processes.remove(&id);
        Ok(status)
    }

    /// Lets the nodes that run outlive this process, and returns their process ids.
    ///
    /// # Errors
    /// If one has ended already.
    pub async fn release(self) -> Result<Vec<u32>, ClusterError> {
        let mut pids = Vec::new();
        for process in self.processes.into_values() {
            pids.extend(process.release().await?);
        }
        Ok(pids)
    }

    /// Every node that the cluster begins with.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.layout.ids()
    }

    /// Every node that may join it: [`Cluster::start_node`] lets one wait to be added.
    #[must_use]
    pub fn joiners(&self) -> Vec<NodeId> {
        self.layout.joiners()
    }

    /// Every node that was started and not ended by this.
    #[must_use]
    pub fn running(&self) -> Vec<NodeId> {
        self.processes.keys().copied().collect()
    }

    /// A node's process id.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pid(&self, id: NodeId) -> Result<u32, ClusterError> {
        self.process(id)?.pid().ok_or(ClusterError::NotRunning { id })
    }

    /// Where a node serves clients; the same after a restart. Empty for a node that is not of this cluster.
    #[must_use]
    pub fn endpoint(&self, id: NodeId) -> String {
        self.layout.endpoint(id)
    }

    /// A client of these nodes, in this order, without a session: it tells which outcomes are unknown.
    ///
    /// # Errors
    /// If there is none.
    pub fn client(&self, of: &[NodeId]) -> Result<Client, ClusterError> {
        let endpoints: Vec<_> = of.iter().map(|id| self.endpoint(*id)).collect();
        Ok(Client::new(&endpoints, &Trust::nobody())?.without_session())
    }

    /// What a node says of itself.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn status(&self, id: NodeId) -> Result<StatusAnswer, ClusterError> {
        Ok(self.client(&[id])?.with_limit(STATUS_LIMIT).status().await?)
    }

    /// Waits until one node leads and every other one that runs follows it, and returns it.
    ///
    /// # Errors
    /// If that is not so `within` this time.
    pub async fn leader(&self, within: Duration) -> Result<StatusAnswer, ClusterError> {
        self.eventually(within, "a leader that all follow", |statuses| {
            let leader = statuses.iter().find(|status| status.role == "leader")?;
            let same = |status: &StatusAnswer| status.leader_id == Some(leader.node_id) && status.term == leader.term;
            statuses.iter().all(same).then(|| leader.clone())
        })
        .await
    }

    /// Waits until every node that runs has applied the same log, and returns their statuses, which have one index and,
    /// if all is well, one state hash. It needs writers to be quiet.
    ///
    /// # Errors
    /// If that is not so `within` this time.
    pub async fn level(&self, within: Duration) -> Result<Vec<StatusAnswer>, ClusterError> {
        self.eventually(within, "equal applied indexes", |statuses| {
            let first = statuses.first()?;
            let same = |status: &StatusAnswer| {
                status.applied_index == first.applied_index && status.applied_index == status.last_log_index
            };
            statuses.iter().all(same).then(|| statuses.to_vec())
        })
        .await
    }

    /// Asks every node that runs for its status, again and again, until `probe` finds what it looks for.
    ///
    /// # Errors
    /// If it does not `within` this time, or a node does not answer for so long.
    pub async fn eventually<T>(
        &self,
        within: Duration,
        what: &str,
        mut probe: impl FnMut(&[StatusAnswer]) -> Option<T>,
    ) -> Result<T, ClusterError> {
        let deadline = Instant::now() + within;
        loop {
            let mut statuses = Vec::new();
            for id in self.running() {
                statuses.extend(self.status(id).await);
            }
            let all_answered = statuses.len() == self.running().len();
            if let Some(found) = all_answered.then(|| probe(&statuses)).flatten() {
                return Ok(found);
            }
            if Instant::now() > deadline {
                return Err(ClusterError::Late { within, what: what.to_owned() });
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Where each node's files are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn process(&self, id: NodeId) -> Result<&Process, ClusterError> {
        self.processes.get(&id).ok_or(ClusterError::NotRunning { id })
    }
}

/// What went wrong with a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Certificates could not be made.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// A file or process could not be worked with.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A client could not be made, or a node did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A node ended before it served.
    #[error("node {id} did not start: {cause}")]
    DidNotStart {
        /// Which.
        id: NodeId,
        /// What it said.
        cause: String,
    },
    /// A node was to be worked with that does not run.
    #[error("node {id} does not run")]
    NotRunning {
        /// Which.
        id: NodeId,
    },
    /// Something did not happen in time.
    #[error("waited {within:?} in vain for {what}")]
    Late {
        /// How long.
        within: Duration,
        /// For what.
        what: String,
    },
}

fn is_taken_port(cause: &str) -> bool {
    cause.contains("in use") && cause.contains("listen")
}
