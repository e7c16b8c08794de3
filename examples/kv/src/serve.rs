//! `serve`: one node in the foreground, from its configuration to its orderly end.
//!
//! This module owns the process: logging, signals, the order of start and stop, the exit code, and
//! the reloads of credentials. The node itself is in the `quorate` crate, the client interface in
//! [`crate::http`].

use crate::{
    config::{Config, ConfigError, HttpAdmin, Overrides, Tls},
    descriptors::ConnectionLimit,
    environment, host,
    http::{
        Api, Permission,
        access::Access,
        credentials::Credentials,
        guard::Hosts,
        listen::{HttpListener, ListenerOptions, unbindable},
    },
    logging,
    machine::Kv,
    output,
    reload::{Look, Reload},
};
use quorate::{
    Failure, ServiceNode, StartError, Turns,
    metrics::{CredentialsOf, Label as _, Metrics, NodeMetrics, NodeThread, ReloadResult},
    transport::{NetworkError, Quic, QuicOptions, Reloader},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    future::poll_fn,
    io,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
    time::{MissedTickBehavior, sleep},
};

/// The number of connections that are kept for operators, metrics and probes.
const ADMIN_CONNECTIONS: usize = 64;
/// The time limit for HTTP requests in progress after the node has stopped.
const HTTP_PATIENCE: Duration = Duration::from_secs(3);
/// The minimum time for which clients are answered `stopping` before their connections are closed.
const REDIRECT_FOR: Duration = Duration::from_millis(200);
/// The time limit for answers to be sent after the node has failed.
const FAREWELL: Duration = Duration::from_millis(500);
/// The interval at which the files of credentials are compared with what was loaded.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// The time after which the log says that a look at these files hangs.
const SLOW_LOOK: Duration = Duration::from_secs(30);
/// The time limit for the node's leadership transfer and drain.
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
    /// Stop when standard input closes without any input: child processes of a cluster end with
    /// their parent this way
    #[arg(long, hide = true)]
    pub attached: bool,
    /// Values that take precedence over file and environment
    #[command(flatten)]
    pub overrides: Overrides,
}

/// The startup message, printed as JSON if requested, once the node serves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The id of the node.
    pub node_id: quorate::NodeId,
    /// The URL for clients.
    pub http: String,
    /// The address for other nodes.
    pub raft: String,
    /// The URL for operators, if they have one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_admin: Option<String>,
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// If the configuration is invalid, the node cannot start, or it fails.
pub async fn run(args: Args, json: bool) -> Result<(), ServeError> {
    // By default the signal ends the process, at any time before it is listened for.
    let hangups = signal(SignalKind::hangup())?;
    let (config, sources) = Config::load(&args.config, environment::variables()?, &args.overrides)?;
    let connections = ConnectionLimit::claim(config.limits.max_http_connections);
    let reload = Reload::start(config.clone(), sources.clone(), hosts(&config))?;
    let (replace, credentials) = watch::channel(Arc::new(reload.credentials()));
    let access = Access::of(&config, credentials.clone());
    let network = network(&config)?;
    if args.check {
        reload.check_dates(SystemTime::now())?;
        let Config { node_id, cluster, peers, .. } = &config;
        let file = args.config.display();
        return Ok(output::line(format_args!(
            "{file} is valid: node {node_id} of {} in cluster {cluster}",
            peers.len()
        ))?);
    }
    let mut signals = StopSignals::listen(args.attached)?;

    // Cheap checks come before the data directory is touched.
    let http = HttpListener::bind("http", config.http).await.map_err(|error| sources.locate(error))?;
    let admin = match &config.http_admin {
        None => None,
        Some(HttpAdmin { listen }) => {
            let bound = HttpListener::bind("http_admin.listen", *listen).await;
            let access = Access::of_admin(&config, *listen, credentials);
            Some((bound.map_err(|error| sources.locate(error))?, access))
        }
    };
    UdpSocket::bind(config.raft).map_err(|error| sources.locate(unbindable("raft", config.raft, &error)))?;
    let metrics = Metrics::new();
    let reloader = network.reloader();
    let url = http.url(&access)?;
    let node = start(&config, network, &metrics, &url).await.map_err(|error| match error {
        StartError::InDoubt(why) => ServeError::InDoubt { why, config: args.config.clone() },
        error => ServeError::Start(error),
    })?;
    let own = metrics.node(config.node_id.0);
    tokio::spawn(watch(node.clone(), own.clone()));
    let (reload, said) = (Arc::new(Mutex::new(reload)), BTreeSet::new());
    let reloading = Reloading { reload, network: reloader, replace, metrics: own.clone(), said };
    tokio::spawn(reloading.run(hangups));
    host::watch(config.data_dir.clone(), own.clone());

    warn_of_open(&config, &access, config.http);
    if let (Some((_, access)), Some(HttpAdmin { listen })) = (&admin, &config.http_admin) {
        warn_of_open(&config, access, *listen);
    }
    let raft = config.raft.to_string();
    let http_admin = admin.as_ref().map(|(admin, access)| admin.url(access)).transpose()?;
    let ready = Ready { node_id: config.node_id, http: url, raft, http_admin };
    let announced = announced(ready, config.cluster.clone(), json)?;
    let open = Arc::new(AtomicU64::new(0));
    let (connections, of_admin) = match &admin {
        None => (connections, connections),
        Some(_) => connections.split(ADMIN_CONNECTIONS),
    };
    let api = Api::new(node.clone(), metrics, &config.limits).for_connections(connections);
    let api = if admin.is_some() { api.for_administration(of_admin) } else { api };
    tokio::spawn(api.keep_history());
    // Dropping the sender stops all listeners.
    let (stop, stopped) = watch::channel(());
    let router = api.clone().router();
    let serve = move |http: HttpListener, access, connections| {
        let (metrics, open, mut stopped) = (own.clone(), Arc::clone(&open), stopped.clone());
        let options = ListenerOptions { connections, access, metrics, open };
        http.serve(router.clone(), options, async move { while stopped.changed().await.is_ok() {} }, HTTP_PATIENCE)
    };
    let admin = admin.map(|(admin, access)| tokio::spawn(serve(admin, access, of_admin)));
    let clients = tokio::spawn(serve(http, access, connections));
    let serving = async {
        let _ = clients.await;
        if let Some(admin) = admin {
            let _ = admin.await;
        }
    };

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
            // All waiting callers have an answer now; this lets the answers leave. New requests
            // are answered `stopping`.
            tokio::time::sleep(REDIRECT_FOR).await;
            drop(stop);
            let _ = tokio::time::timeout(FAREWELL, serving).await;
            if let Failure::Removed { .. } = failure {
                // The operator removed the node, so this is a normal end.
                output::complain(failure);
                return Ok(());
            }
            return Err(ServeError::Failed(failure));
        }
    };
    tracing::info!("stopping: {why}");
    let end = async {
        // The leader transfers leadership first, so that writes through other nodes hardly wait.
        // Connections stay open meanwhile: if they were closed at once, clients could not know the
        // outcome of requests that are on their way.
        let (drained, ()) =
            tokio::join!(tokio::time::timeout(NODE_PATIENCE, node.shutdown()), tokio::time::sleep(REDIRECT_FOR));
        if drained.is_err() {
            tracing::warn!("the node did not drain within {NODE_PATIENCE:?}; exiting anyway");
        }
        drop(stop);
        serving.await;
    };
    tokio::select! {
        () = end => Ok(()),
        failure = node.failed() => Err(ServeError::Failed(failure)),
        again = signals.next() => Err(ServeError::Impatient(again)),
    }
}

/// Says that callers need no identity at an address that other machines can reach.
fn warn_of_open(config: &Config, access: &Access, address: SocketAddr) {
    if access.anonymous() == Permission::Operate && !address.ip().is_loopback() {
        let first =
            if config.http_auth.allow_anonymous == Some(true) { "remove http_auth.allow_anonymous and " } else { "" };
        tracing::warn!(
            "every caller that reaches {address} counts as an operator, because the configuration says so; to change \
             that, {first}set http_tls.client_ca or http_auth.tokens"
        );
    }
}

/// The names by which clients may call this node over HTTP, in addition to its address, loopback
/// names and those in its certificate.
fn hosts(config: &Config) -> Hosts {
    let own = config.peers.iter().find(|peer| peer.id == config.node_id);
    let own = own.and_then(|own| own.addr.rsplit_once(':')).map(|(host, _)| host.to_owned());
    let advertised = config.advertise_http.as_deref().and_then(host_of).map(ToOwned::to_owned);
    Hosts::new(config.http_hosts.iter().cloned().chain(own).chain(advertised))
}

/// The host in a URL without a path.
fn host_of(url: &str) -> Option<&str> {
    let (_, place) = url.split_once("://")?;
    let end = place.find(']').map_or_else(|| place.find(':').unwrap_or(place.len()), |end| end + 1);
    place.get(..end)
}

fn network(config: &Config) -> Result<Quic, NetworkError> {
    let Tls { ca, cert, key, crl } = &config.tls;
    let mut options = QuicOptions::new(config.raft, ca, cert, key);
    options.crl.clone_from(crl);
    let network = Quic::new(options)?;
    network.check(&config.cluster, config.node_id)?;
    Ok(network)
}

async fn start(config: &Config, network: Quic, metrics: &Metrics, url: &str) -> Result<ServiceNode<Kv>, StartError> {
    let metadata = config.metadata(url).map_err(|flaw| StartError::Config(flaw.to_string()))?;
    config.builder().metadata(metadata).network(network).metrics(metrics).serve(Kv::default).start().await
}

/// Polls the node's threads once a second, so that a probe detects a stuck thread at once, and
/// counts lost log lines. Ends with the node.
async fn watch(node: ServiceNode<Kv>, metrics: NodeMetrics) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let look = async {
        loop {
            seconds.tick().await;
            let Turns { consensus, log_writer, applier, .. } = node.turns();
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

/// The credentials of this process, loaded again when their files change, and on SIGHUP.
struct Reloading {
    reload: Arc<Mutex<Reload>>,
    network: Reloader,
    replace: watch::Sender<Arc<Credentials>>,
    metrics: NodeMetrics,
    /// The ends and problems that the log already has.
    said: BTreeSet<String>,
}

impl Reloading {
    /// Looks every few seconds, and at each hangup. Ends with the process.
    async fn run(mut self, mut hangups: Signal) {
        self.observe(None);
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_asked_again = false;
        loop {
            let is_asked = is_asked_again
                || tokio::select! {
                    _ = hangups.recv() => {
                        self.network.reload();
                        true
                    }
                    _ = ticks.tick() => false,
                };
            let looks;
            (looks, is_asked_again) =
                meanwhile(self.look(is_asked), |cx| hangups.poll_recv(cx).map(drop), || self.network.reload()).await;
            match looks {
                Ok(looks) => {
                    self.report(is_asked, &looks);
                    self.observe(None);
                }
                Err(error) => {
                    let remedy = "raise the limit of processes (ulimit -u, TasksMax)";
                    self.observe(Some(format!("no thread can read the files of credentials: {error}; {remedy}")));
                }
            }
        }
    }

    /// Looks at the files on a thread of its own: they may be slow, such as those of a network file
    /// system. The pool of tokio would panic if no thread can be started.
    async fn look(&self, is_asked: bool) -> io::Result<Vec<(CredentialsOf, Look)>> {
        let (tell, told) = oneshot::channel();
        let reload = Arc::clone(&self.reload);
        let look = move || drop(tell.send(lock(&reload).look(SystemTime::now(), is_asked)));
        std::thread::Builder::new().name("quorate-reload".into()).spawn(look)?;
        told.await.map_err(io::Error::other)
    }

    /// Puts new credentials into force, and says what a look has found.
    fn report(&mut self, is_asked: bool, looks: &[(CredentialsOf, Look)]) {
        if looks.iter().any(|(_, look)| *look == Look::Loaded) {
            self.replace.send_replace(Arc::new(lock(&self.reload).credentials()));
        }
        for (of, look) in looks {
            let result = match look {
                Look::Unchanged => continue,
                Look::Failed { is_due: false, .. } => continue,
                Look::Loaded | Look::Restored => ReloadResult::Loaded,
                Look::Failed { .. } => ReloadResult::Failed,
            };
            self.metrics.credentials_reloaded(*of, result);
            let of = of.as_str();
            match look {
                Look::Failed { problem, .. } => {
                    tracing::error!(of, "credentials cannot be loaded, and the former ones stay in force: {problem}");
                }
                Look::Restored => tracing::info!(of, "the files of the credentials are again those in force"),
                _ => tracing::info!(of, "new credentials are in force"),
            }
        }
        if is_asked {
            let named = |wanted: fn(&Look) -> bool| {
                let of = looks.iter().filter(|(_, look)| wanted(look)).map(|(of, _)| of.as_str());
                of.collect::<Vec<_>>().join(",")
            };
            let loaded = named(|look| matches!(look, Look::Loaded | Look::Restored));
            let unchanged = named(|look| *look == Look::Unchanged);
            let failed = named(|look| matches!(look, Look::Failed { .. }));
            tracing::info!(
                loaded,
                unchanged,
                failed,
                "SIGHUP: looked at the files of all credentials; of=nodes follows"
            );
        }
    }

    /// Shows the ends of certificate and revocation lists in the metrics; and those that are near or
    /// past, and this problem, once in the log.
    fn observe(&mut self, problem: Option<String>) {
        let now = SystemTime::now();
        let seconds = |end: SystemTime| end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Some(tls) = &self.replace.borrow().tls {
            self.metrics.certificate_expires(CredentialsOf::Http, seconds(tls.ends()));
            if let Some(list) = tls.list() {
                self.metrics.crl_expires(CredentialsOf::Http, list.ends);
            }
        }
        let (past, soon) = {
            let reload = lock(&self.reload);
            (reload.check_dates(now).err().map(|error| error.to_string()), reload.soon(now))
        };
        let wrong: Vec<_> = past.into_iter().chain(problem).collect();
        for wrong in wrong.iter().filter(|wrong| !self.said.contains(*wrong)) {
            tracing::error!("{wrong}");
        }
        for soon in soon.iter().filter(|soon| !self.said.contains(*soon)) {
            tracing::warn!("{soon}");
        }
        self.said = wrong.into_iter().chain(soon).collect();
    }
}

/// The result of a look, and whether an operator has asked for another one before it was there. The
/// files of the network are reloaded at once then: a look may hang, such as at a network file system
/// that does not answer.
async fn meanwhile<T>(
    look: impl Future<Output = T>,
    mut asked: impl FnMut(&mut Context<'_>) -> Poll<()>,
    reload: impl Fn(),
) -> (T, bool) {
    let (mut look, mut slow) = (pin!(look), pin!(sleep(SLOW_LOOK)));
    let (mut is_asked, mut is_said) = (false, false);
    loop {
        tokio::select! {
            biased;
            result = &mut look => return (result, is_asked),
            () = poll_fn(&mut asked) => {
                is_asked = true;
                reload();
            }
            () = &mut slow, if !is_said => {
                is_said = true;
                tracing::error!(
                    "the files of credentials of HTTP could not be read within {SLOW_LOOK:?}, and the former ones stay \
                     in force: check the file system that they are on"
                );
            }
        }
    }
}

fn lock(reload: &Mutex<Reload>) -> MutexGuard<'_, Reload> {
    reload.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints the startup message on a separate thread, because standard output may be a pipe that is
/// not read. Resolves with an error if the message cannot be written.
fn announced(ready: Ready, cluster: String, json: bool) -> io::Result<impl Future<Output = io::Result<()>>> {
    let (tell, told) = oneshot::channel();
    let print = move || drop(tell.send(announce(&ready, &cluster, json)));
    std::thread::Builder::new().name("quorate-announce".into()).spawn(print)?;
    Ok(async { told.await.unwrap_or(Ok(())) })
}

fn announce(ready: &Ready, cluster: &str, json: bool) -> io::Result<()> {
    let Ready { node_id, http, raft, http_admin } = ready;
    if json {
        return output::line(serde_json::to_string(ready)?);
    }
    let admin = http_admin.as_ref().map_or(String::new(), |url| format!(", {url} (operators)"));
    output::line(format_args!(
        "node {node_id} of cluster {cluster} serves {http} (clients){admin} and {raft} (nodes, QUIC)"
    ))
}

/// All signals that stop the process.
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

    /// Waits for a signal, and returns its name.
    async fn next(&mut self) -> &'static str {
        let parent_left = async {
            let left = match &mut self.parent_left {
                Some(left) => left.await.is_ok(),
                None => false,
            };
            // The sender is dropped unused if the parent wants the node to outlive it.
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

/// Reads standard input on a separate thread, because the read cannot be cancelled. The thread ends
/// with the process.
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

/// An error of `serve`.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration, or a file it names, cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificates for other nodes cannot be used.
    #[error("{0}")]
    Network(#[from] NetworkError),
    /// The node could not start.
    #[error("{0}")]
    Start(#[from] StartError),
    /// The end of a single voter's log is in doubt.
    #[error("{why}; `quorate-kv discard-unproven --config {}` shows what is in doubt, and discards it with --yes", config.display())]
    InDoubt {
        /// The node's error message.
        why: String,
        /// The configuration file of the node.
        config: PathBuf,
    },
    /// The node failed while it ran.
    #[error("the node failed: {0}")]
    Failed(Failure),
    /// A second stop signal arrived while the node was stopping.
    #[error("{0} while stopping: exiting without draining")]
    Impatient(&'static str),
    /// Signals or standard output cannot be used.
    #[error("{0}")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_delays_no_reload_of_the_network_that_an_operator_asks_for() {
        let (ask, mut asked) = tokio::sync::mpsc::channel(4);
        let (end, ended) = oneshot::channel();
        let reloads = Cell::new(0);
        let reload = || {
            reloads.set(reloads.get() + 1);
        };
        let asking = async {
            for already in 0..3 {
                assert_eq!(reloads.get(), already);
                sleep(SLOW_LOOK).await;
                ask.send(()).await.expect("it is heard");
                sleep(Duration::from_millis(1)).await;
            }
            end.send("looked").expect("it is awaited");
        };
        let next = |cx: &mut Context<'_>| asked.poll_recv(cx).map(|asked| asked.expect("held open"));
        let (result, ()) = tokio::join!(meanwhile(ended, next, reload), asking);
        assert_eq!((result, reloads.get()), ((Ok("looked"), true), 3));
        assert_eq!(meanwhile(async { 1 }, |_| Poll::Pending, || ()).await, (1, false));
    }
}
