//! A cluster of real processes on this machine: for the demo, and for tests that kill.
//!
//! It owns a directory (certificates, configurations, data, logs) and the child processes. Nodes find each other over
//! QUIC on loopback, as they would across machines. Every child ends with its [`Cluster`], however that ends, also with
//! the whole process: a child stops when its standard input closes.

mod ports;
mod process;

use crate::{
    certs::{self, CertsError},
    client::{Client, ClientError, Trust},
    http::messages::StatusAnswer,
};
use ports::free_ports;
use process::Process;
use quorate::NodeId;
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};
use tokio::{task::JoinSet, time::Instant};

pub use rustix::process::Signal;

/// How often a start is tried again because somebody took a port in between.
const START_TRIES: usize = 5;
/// How often to ask again while waiting for other processes, which can't tell when something happens.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// How long a status request may take: a stopped process accepts connections and never answers.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

/// What cluster to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `quorate-kv` binary.
    pub binary: PathBuf,
    /// Where everything goes; made if it is missing.
    pub dir: PathBuf,
    /// Its name.
    pub name: String,
    /// How many nodes, with ids from 1.
    pub nodes: u64,
    /// Further configuration for every node, TOML that begins with a section: `[timing]`, `[snapshot]` or `[limits]`.
    pub sections: String,
}

/// Nodes, running or not.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    nodes: BTreeMap<NodeId, Member>,
}

#[derive(Debug)]
struct Member {
    raft: String,
    http: String,
    process: Option<Process>,
}

impl Options {
    /// A cluster called "demo" of three nodes with the default configuration.
    pub fn new(binary: impl Into<PathBuf>, dir: impl Into<PathBuf>) -> Self {
        let (binary, dir) = (binary.into(), dir.into());
        Self { binary, dir, name: "demo".to_owned(), nodes: 3, sections: String::new() }
    }
}

impl Cluster {
    /// Makes certificates and configurations in the directory, starts every node, and returns when all serve. Nobody
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
                    cluster.forget()?;
                    cluster.write_configurations()?;
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
        let mut cluster = Self { options, nodes: BTreeMap::new() };
        let hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        certs::make(&certs::Args {
            dir: cluster.options.dir.join("certs"),
            cluster: cluster.options.name.clone(),
            nodes: (1..=cluster.options.nodes).map(|id| (NodeId(id), hosts.clone())).collect(),
            clients: Vec::new(),
        })?;
        cluster.write_configurations()?;
        Ok(cluster)
    }

    /// Starts every node that does not run, all at once, and returns when they serve.
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
        if self.member(id)?.process.is_some() {
            return Ok(());
        }
        self.start_these(&[id]).await
    }

    async fn start_these(&mut self, ids: &[NodeId]) -> Result<(), ClusterError> {
        let mut starting = JoinSet::new();
        for id in ids.iter().copied() {
            let (binary, config, log) = (self.options.binary.clone(), self.config_file(id), self.log_file(id));
            starting.spawn(async move { (id, Process::start(&binary, &config, &log).await) });
        }
        for (id, started) in starting.join_all().await {
            self.member(id)?.process = Some(started.map_err(|cause| ClusterError::DidNotStart { id, cause })?);
        }
        Ok(())
    }

    /// Ends a node with SIGKILL, in the middle of whatever it does.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self, id: NodeId) -> Result<(), ClusterError> {
        let mut process = self.member(id)?.process.take().ok_or(ClusterError::NotRunning { id })?;
        Ok(process.kill().await?)
    }

    /// Ends every node that runs, with SIGKILL.
    pub async fn kill_all(&mut self) {
        for member in self.nodes.values_mut() {
            if let Some(mut process) = member.process.take() {
                // One that is gone already is what was asked for.
                let _ = process.kill().await;
            }
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
        let member = self.member(id)?;
        let process = member.process.as_mut().ok_or(ClusterError::NotRunning { id })?;
        let late = |_| ClusterError::Late { within, what: format!("the end of node {id}") };
        let status = tokio::time::timeout(within, process.ended()).await.map_err(late)??;
        member.process = None;
        Ok(status)
    }

    /// Lets the nodes that run outlive this process, and returns their process ids.
    ///
    /// # Errors
    /// If one has ended already.
    pub async fn release(self) -> Result<Vec<u32>, ClusterError> {
        let mut pids = Vec::new();
        for process in self.nodes.into_values().filter_map(|member| member.process) {
            pids.extend(process.release().await?);
        }
        Ok(pids)
    }

    /// Every node.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Every node that was started and not ended by this.
    #[must_use]
    pub fn running(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, member)| member.process.is_some()).map(|(id, _)| *id).collect()
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
        self.nodes.get(&id).map(|member| format!("http://{}", member.http)).unwrap_or_default()
    }

    /// A client of these nodes, in this order.
    ///
    /// # Errors
    /// If there is none.
    pub fn client(&self, of: &[NodeId]) -> Result<Client, ClusterError> {
        let endpoints: Vec<_> = of.iter().map(|id| self.endpoint(*id)).collect();
        Ok(Client::new(&endpoints, &Trust::nobody())?)
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

    /// A node's configuration.
    #[must_use]
    pub fn config_file(&self, id: NodeId) -> PathBuf {
        self.options.dir.join(format!("node-{id}.toml"))
    }

    /// A node's data directory.
    #[must_use]
    pub fn data_dir(&self, id: NodeId) -> PathBuf {
        self.options.dir.join("data").join(id.to_string())
    }

    /// What a node says on standard error, of all its runs.
    #[must_use]
    pub fn log_file(&self, id: NodeId) -> PathBuf {
        self.options.dir.join(format!("node-{id}.log"))
    }

    /// Where everything is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    fn write_configurations(&mut self) -> Result<(), ClusterError> {
        let count = usize::try_from(self.options.nodes).unwrap_or(usize::MAX);
        let ports = free_ports(count.saturating_mul(2))?;
        self.nodes = (1..=self.options.nodes)
            .zip(ports.chunks_exact(2))
            .map(|(id, ports)| {
                let [raft, http] = [ports[0], ports[1]].map(|port| format!("127.0.0.1:{port}"));
                (NodeId(id), Member { raft, http, process: None })
            })
            .collect();
        for id in self.ids() {
            fs::write(self.config_file(id), self.configuration(id))?;
        }
        Ok(())
    }

    fn configuration(&self, id: NodeId) -> String {
        let certs = self.options.dir.join("certs");
        let Member { raft, http, .. } = &self.nodes[&id];
        let quoted = |path: PathBuf| toml::Value::String(path.display().to_string()).to_string();
        let mut text = format!(
            "node_id = {id}\ncluster = {:?}\ndata_dir = {}\nraft = {raft:?}\nhttp = {http:?}\n\n\
             [tls]\nca = {}\ncert = {}\nkey = {}\n",
            self.options.name,
            quoted(self.data_dir(id)),
            quoted(certs.join("ca.pem")),
            quoted(certs.join(format!("node-{id}.pem"))),
            quoted(certs.join(format!("node-{id}.key"))),
        );
        for (id, peer) in &self.nodes {
            let _ = write!(text, "\n[[peers]]\nid = {id}\naddr = {:?}\n", peer.raft);
        }
        text + "\n" + &self.options.sections
    }

    /// Removes what a start that failed left: addresses may be in it.
    fn forget(&self) -> Result<(), ClusterError> {
        match fs::remove_dir_all(self.options.dir.join("data")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn member(&mut self, id: NodeId) -> Result<&mut Member, ClusterError> {
        self.nodes.get_mut(&id).ok_or(ClusterError::NotRunning { id })
    }

    fn process(&self, id: NodeId) -> Result<&Process, ClusterError> {
        self.nodes.get(&id).and_then(|member| member.process.as_ref()).ok_or(ClusterError::NotRunning { id })
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
