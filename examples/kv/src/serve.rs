//! `serve`: one node in the foreground, from its configuration to its orderly end.
//!
//! It owns the process: logging, signals, the order of starting and stopping, the exit code. What a node does is in the
//! `quorate` crate, what clients see in [`crate::http`].

use crate::{
    config::{Config, ConfigError, Overrides, Tls},
    descriptors::Places,
    environment,
    http::{
        Api,
        guard::Hosts,
        listen::{HttpListener, Terms, unbindable},
        tls::{names_in, tls_acceptor},
    },
    logging,
    machine::Kv,
    output,
};
use quorate::{
    Failure, Node, StartError, Turns,
    metrics::{Metrics, NodeMetrics, NodeThread},
    transport::{NetworkError, Quic, QuicOptions},
};
use serde::{Deserialize, Serialize};
use std::{io, net::UdpSocket, path::PathBuf, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::MissedTickBehavior,
};

/// How long HTTP requests under way may take to finish once the node has stopped.
const HTTP_PATIENCE: Duration = Duration::from_secs(3);
/// For how long at least clients are told to go elsewhere before their connections are closed.
const REDIRECT_FOR: Duration = Duration::from_millis(200);
/// How long answers may take to leave when the node has failed.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long the node may take to hand over and to drain.
const NODE_PATIENCE: Duration = Duration::from_secs(10);

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration file, TOML
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check the configuration and the files it names, and exit
    #[arg(long)]
    pub check: bool,
    /// Stop when standard input closes without having said anything: how a cluster of child processes ends with its parent
    #[arg(long, hide = true)]
    pub attached: bool,
    /// Values that take precedence over file and environment
    #[command(flatten)]
    pub overrides: Overrides,
}

/// What is printed, in JSON if asked for, once the node serves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The node.
    pub node_id: quorate::NodeId,
    /// The URL for clients.
    pub http: String,
    /// The address for other nodes.
    pub raft: String,
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// If the configuration is bad, the node can't start, or it failed.
pub async fn run(args: Args, json: bool) -> Result<(), ServeError> {
    let (config, sources) = Config::load(&args.config, environment::variables()?, &args.overrides)?;
    let places = Places::claim(config.limits.max_http_connections);
    let tls = config.http_tls.as_ref().map(tls_acceptor).transpose().map_err(|error| sources.locate(error))?;
    let hosts = hosts(&config).map_err(|error| sources.locate(error))?;
    let network = network(&config)?;
    if args.check {
        let Config { node_id, cluster, peers, .. } = &config;
        let file = args.config.display();
        return Ok(output::line(format_args!(
            "{file} is valid: node {node_id} of {} in cluster {cluster}",
            peers.len()
        ))?);
    }
    let mut signals = StopSignals::listen(args.attached)?;

    // The cheap reasons not to start come before the data directory is touched.
    let http = HttpListener::bind(config.http, tls).await.map_err(|error| sources.locate(error))?;
    UdpSocket::bind(config.raft).map_err(|error| sources.locate(unbindable("raft", config.raft, &error)))?;
    let metrics = Metrics::new();
    let node = start(&config, network, &metrics).await.map_err(|error| match error {
        StartError::InDoubt(why) => ServeError::InDoubt { why, config: args.config.clone() },
        error => ServeError::Start(error),
    })?;
    let own = metrics.node(config.node_id.0);
    tokio::spawn(watch(node.clone(), own.clone()));

    let ready = Ready { node_id: config.node_id, http: http.url()?, raft: config.raft.to_string() };
    let announced = announced(ready, config.cluster.clone(), json)?;
    let api = Api::new(node.clone(), metrics, &config.limits);
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { stopped.await.unwrap_or_default() };
    let terms = Terms { places, hosts, metrics: own };
    let serving = tokio::spawn(http.serve(api.clone().router(), terms, stopped, HTTP_PATIENCE));

    let why = tokio::select! {
        biased;
        failure = node.failed() => Err(failure),
        why = signals.next() => Ok(why),
        Err(error) = announced => return Err(error.into()),
    };
    api.stop();
    let why = match why {
        Ok(why) => why,
        Err(failure) => {
            // Whoever waited has an answer by now; let it reach them. Who comes now is told to go elsewhere.
            tokio::time::sleep(REDIRECT_FOR).await;
            drop(stop);
            let _ = tokio::time::timeout(FAREWELL, serving).await;
            if let Failure::Removed { .. } = failure {
                // As its operator wanted.
                output::complain(failure);
                return Ok(());
            }
            return Err(ServeError::Failed(failure));
        }
    };
    tracing::info!("stopping: {why}");
    let end = async {
        // Leadership first, so that writes through other nodes hardly wait. Meanwhile clients are told to go elsewhere: if their
        // connections were closed at once, those whose request is on its way could not know what became of it.
        let (drained, ()) =
            tokio::join!(tokio::time::timeout(NODE_PATIENCE, node.shutdown()), tokio::time::sleep(REDIRECT_FOR));
        if drained.is_err() {
            tracing::warn!("the node did not drain within {NODE_PATIENCE:?}; leaving all the same");
        }
        drop(stop);
        let _ = serving.await;
    };
    tokio::select! {
        () = end => Ok(()),
        failure = node.failed() => Err(ServeError::Failed(failure)),
        again = signals.next() => Err(ServeError::Impatient(again)),
    }
}

/// Every name by which clients may call this node over HTTP, beside its address and those of loopback.
fn hosts(config: &Config) -> Result<Hosts, ConfigError> {
    let own = config.peers.iter().find(|peer| peer.id == config.node_id);
    let own = own.and_then(|own| own.addr.rsplit_once(':')).map(|(host, _)| host.to_owned());
    let certified = config.http_tls.as_ref().map(names_in).transpose()?.unwrap_or_default();
    Ok(Hosts::new(config.http_hosts.iter().cloned().chain(own).chain(certified)))
}

fn network(config: &Config) -> Result<Quic, NetworkError> {
    let Tls { ca, cert, key } = &config.tls;
    let network = Quic::new(QuicOptions::new(config.raft, ca, cert, key))?;
    network.check(&config.cluster, config.node_id)?;
    Ok(network)
}

async fn start(config: &Config, network: Quic, metrics: &Metrics) -> Result<Node<Kv>, StartError> {
    config.builder().network(network).metrics(metrics).start(Kv::default()).await
}

/// Once a second: asks the node's threads for a turn, so that a probe finds out at once that one hangs, and counts lost log lines.
/// It ends with the node.
async fn watch(node: Node<Kv>, metrics: NodeMetrics) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let look = async {
        loop {
            seconds.tick().await;
            let Turns { consensus, log_writer, applier } = node.turns();
            for (thread, silence) in [
                (NodeThread::Consensus, consensus),
                (NodeThread::LogWriter, log_writer),
                (NodeThread::Applier, applier),
            ] {
                metrics.thread_silent(thread, silence.unwrap_or_default());
            }
            metrics.log_lines_lost(logging::lines_lost());
        }
    };
    tokio::select! {
        _ = node.failed() => {}
        () = look => {}
    }
}

/// Prints that the node serves, on a thread of its own: nobody may read standard output, and the node serves all the same. Resolves
/// with an error if it can't be written.
fn announced(ready: Ready, cluster: String, json: bool) -> io::Result<impl Future<Output = io::Result<()>>> {
    let (tell, told) = oneshot::channel();
    let print = move || drop(tell.send(announce(&ready, &cluster, json)));
    std::thread::Builder::new().name("quorate-announce".into()).spawn(print)?;
    Ok(async { told.await.unwrap_or(Ok(())) })
}

fn announce(ready: &Ready, cluster: &str, json: bool) -> io::Result<()> {
    let Ready { node_id, http, raft } = ready;
    if json {
        return output::line(serde_json::to_string(ready)?);
    }
    output::line(format_args!("node {node_id} of cluster {cluster} serves {http} (clients) and {raft} (nodes, QUIC)"))
}

/// Everything that tells the process to stop.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    parent_left: Option<oneshot::Receiver<()>>,
}

impl StopSignals {
    fn listen(attached: bool) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            parent_left: attached.then(parent_left).transpose()?,
        })
    }

    /// Waits for one, and names it.
    async fn next(&mut self) -> &'static str {
        let parent_left = async {
            let left = match &mut self.parent_left {
                Some(left) => left.await.is_ok(),
                None => false,
            };
            // The sender is dropped unused when the parent wants the node to outlive it.
            if !left {
                std::future::pending().await
            }
        };
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = parent_left => {
                self.parent_left = None;
                "standard input closed"
            }
        }
    }
}

/// Reads standard input on a thread of its own, which ends with the process: reading can't be cancelled.
fn parent_left() -> io::Result<oneshot::Receiver<()>> {
    let (left, receiver) = oneshot::channel();
    let read = move || {
        if matches!(io::Read::read(&mut io::stdin(), &mut [0]), Ok(0)) {
            let _ = left.send(());
        }
    };
    std::thread::Builder::new().name("quorate-parent".into()).spawn(read)?;
    Ok(receiver)
}

/// Why a node does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration, or what it points to, can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificates for other nodes can't be used.
    #[error("{0}")]
    Network(#[from] NetworkError),
    /// The node could not start.
    #[error("{0}")]
    Start(#[from] StartError),
    /// The end of the only voter's log is in doubt.
    #[error("{why}; `quorate-kv discard-unproven --config {}` shows what is in doubt, and discards it with --yes", config.display())]
    InDoubt {
        /// What the node says.
        why: String,
        /// The configuration that it was started with.
        config: PathBuf,
    },
    /// The node failed while it ran.
    #[error("the node failed: {0}")]
    Failed(Failure),
    /// It was told to stop while it was stopping.
    #[error("{0} again: leaving without draining")]
    Impatient(&'static str),
    /// Signals or standard output can't be used.
    #[error("{0}")]
    Io(#[from] io::Error),
}
