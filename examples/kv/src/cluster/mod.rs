//! A cluster of real processes on this machine: for the demo, and for tests that kill nodes.
//!
//! A [`Cluster`] owns a directory (certificates, configurations, data, logs) and the child
//! processes. The nodes use QUIC on loopback, as they would across machines. Every child
//! ends with its [`Cluster`], even if the whole process is killed: a child stops when its
//! standard input closes.

mod layout;
mod paths;
mod process;

pub use layout::{Layout, Options};
pub use paths::{PathFault, Paths};

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

/// The number of attempts to start if a port is taken in between.
const START_TRIES: usize = 5;
/// The polling interval while waiting for other processes.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// The time limit of a status request: a stopped process accepts connections and never answers.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

/// The nodes of a cluster, running or not.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    processes: BTreeMap<NodeId, Process>,
    paths: Option<Paths>,
}

impl Cluster {
    /// Creates certificates and configurations in the directory, starts all nodes except those that
    /// may join, and returns when all serve. There may be no leader yet: see [`Cluster::leader`].
    ///
    /// # Errors
    /// If files are in the way, or a node does not start.
    pub async fn start(options: Options) -> Result<Self, ClusterError> {
        let mut cluster = Self::lay_out(options)?;
        for attempt in 1.. {
            match cluster.start_all().await {
                Err(ClusterError::DidNotStart { cause, .. }) if attempt < START_TRIES && is_taken_port(&cause) => {
                    cluster.kill_all().await;
                    cluster.paths = None;
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

    /// Creates certificates and configurations, and starts nothing, so that the caller can
    /// change files first.
    ///
    /// # Errors
    /// If files are in the way.
    pub fn lay_out(options: Options) -> Result<Self, ClusterError> {
        Ok(Self { layout: Layout::make(options)?, processes: BTreeMap::new(), paths: None })
    }

    /// Starts all nodes that do not run, except those that may join, and returns when all serve.
    ///
    /// # Errors
    /// The first node that does not start, with its output.
    pub async fn start_all(&mut self) -> Result<(), ClusterError> {
        let ids: Vec<_> = self.ids().into_iter().filter(|id| !self.running().contains(id)).collect();
        self.start_these(&ids).await
    }

    /// Starts a node, unless it runs, and returns when it serves.
    ///
    /// # Errors
    /// If it does not start, with its output.
    pub async fn start_node(&mut self, id: NodeId) -> Result<(), ClusterError> {
        let ids: &[NodeId] = if self.processes.contains_key(&id) { &[] } else { &[id] };
        self.start_these(ids).await
    }

    async fn start_these(&mut self, ids: &[NodeId]) -> Result<(), ClusterError> {
        let ways = self.layout.paths();
        if self.paths.is_none() && !ways.is_empty() {
            self.paths = Some(Paths::open(ways).await?);
        }
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

    /// Ends a node with SIGKILL, at any point of its work.
    ///
    /// # Errors
    /// If the node does not run.
    pub async fn kill(&mut self, id: NodeId) -> Result<(), ClusterError> {
        let mut process = self.processes.remove(&id).ok_or(ClusterError::NotRunning { id })?;
        Ok(process.kill().await?)
    }

    /// Ends all running nodes with SIGKILL.
    pub async fn kill_all(&mut self) {
        for mut process in std::mem::take(&mut self.processes).into_values() {
            // The process may have ended already.
            let _ = process.kill().await;
        }
    }

    /// Sends a signal to a node: `STOP` and `CONT` suspend and resume it. After `STOP` the whole
    /// process is stopped when this returns.
    ///
    /// # Errors
    /// If the node does not run.
    pub fn signal(&self, id: NodeId, signal: Signal) -> Result<(), ClusterError> {
        Ok(self.process(id)?.signal(signal)?)
    }

    /// Stops a node with SIGTERM and waits for its end.
    ///
    /// # Errors
    /// If it does not run, or does not end within 30 seconds.
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

    /// Lets the running nodes outlive this process; returns their process ids.
    ///
    /// # Errors
    /// If a node has already ended.
    pub async fn release(self) -> Result<Vec<u32>, ClusterError> {
        let mut pids = Vec::new();
        for process in self.processes.into_values() {
            pids.extend(process.release().await?);
        }
        Ok(pids)
    }

    /// The ids of the initial nodes.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.layout.ids()
    }

    /// The ids of the nodes that may join: [`Cluster::start_node`] starts one, which then waits
    /// to be added.
    #[must_use]
    pub fn joiners(&self) -> Vec<NodeId> {
        self.layout.joiners()
    }

    /// The ids of all nodes that were started and not stopped through this value.
    #[must_use]
    pub fn running(&self) -> Vec<NodeId> {
        self.processes.keys().copied().collect()
    }

    /// The process id of a node.
    ///
    /// # Errors
    /// If the node does not run.
    pub fn pid(&self, id: NodeId) -> Result<u32, ClusterError> {
        self.process(id)?.pid().ok_or(ClusterError::NotRunning { id })
    }

    /// The URL at which a node serves clients; the same after a restart. Empty for an unknown id.
    #[must_use]
    pub fn endpoint(&self, id: NodeId) -> String {
        self.layout.endpoint(id)
    }

    /// A client of these nodes, in this order, without a session, so that unknown
    /// outcomes are reported.
    ///
    /// # Errors
    /// If the list is empty.
    pub fn client(&self, of: &[NodeId]) -> Result<Client, ClusterError> {
        let endpoints: Vec<_> = of.iter().map(|id| self.endpoint(*id)).collect();
        Ok(Client::new(&endpoints, &Trust::none())?.without_session())
    }

    /// The status of a node.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn status(&self, id: NodeId) -> Result<StatusAnswer, ClusterError> {
        Ok(self.client(&[id])?.with_limit(STATUS_LIMIT).status().await?)
    }

    /// Waits until one node leads and all other running nodes follow it; returns
    /// the leader's status.
    ///
    /// # Errors
    /// If this does not happen `within` this time.
    pub async fn leader(&self, within: Duration) -> Result<StatusAnswer, ClusterError> {
        self.eventually(within, "a leader that all follow", |statuses| {
            let leader = statuses.iter().find(|status| status.role == "leader")?;
            let same = |status: &StatusAnswer| status.leader_id == Some(leader.node_id) && status.term == leader.term;
            statuses.iter().all(same).then(|| leader.clone())
        })
        .await
    }

    /// Waits until all running nodes have applied the same log; returns their statuses, which have
    /// equal indexes and, if the nodes agree, equal state hashes. Writers must be stopped.
    ///
    /// # Errors
    /// If this does not happen `within` this time.
    pub async fn converge(&self, within: Duration) -> Result<Vec<StatusAnswer>, ClusterError> {
        self.eventually(within, "equal applied indexes", |statuses| {
            let first = statuses.first()?;
            let same = |status: &StatusAnswer| {
                status.applied_index == first.applied_index && status.applied_index == status.last_log_index
            };
            statuses.iter().all(same).then(|| statuses.to_vec())
        })
        .await
    }

    /// Polls the status of all running nodes until `probe` returns a value.
    ///
    /// # Errors
    /// If it returns none `within` this time, or a node does not answer during it.
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

    /// The paths between the nodes, if [`Options::paths`] asked for proxies and a node was started.
    #[must_use]
    pub fn paths(&self) -> Option<&Paths> {
        self.paths.as_ref()
    }

    /// The files and addresses of all nodes.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn process(&self, id: NodeId) -> Result<&Process, ClusterError> {
        self.processes.get(&id).ok_or(ClusterError::NotRunning { id })
    }
}

/// An error of a cluster of processes.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Certificates could not be created.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// A file or process could not be used.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A client could not be created, or a node did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A node ended before it served.
    #[error("node {id} did not start: {cause}")]
    DidNotStart {
        /// The node's id.
        id: NodeId,
        /// The last line of its output.
        cause: String,
    },
    /// The node does not run.
    #[error("node {id} does not run")]
    NotRunning {
        /// The node's id.
        id: NodeId,
    },
    /// A condition was not met in time.
    #[error("waited {within:?} for {what} without success")]
    Late {
        /// The time limit.
        within: Duration,
        /// The awaited condition.
        what: String,
    },
}

fn is_taken_port(cause: &str) -> bool {
    cause.contains("in use") && cause.contains("listen")
}
