//! `demo --page`: a cluster at a pace that an eye can follow, the live page, and faults to try.
//!
//! This process serves the page, and passes on what a node tells it. It does the faults: it signals
//! the nodes' processes, and owns the paths between them. A node has no switch for a fault.

use super::{DemoError, Story};
use crate::{
    client::{Client, ClientError, Download, Trust},
    cluster::{Cluster, ClusterError, PathFault, Signal},
    http::{
        Refusal,
        guard::{Hosts, is_json, is_own_page},
    },
    live::document::document,
    load::{Ledger, LoadOptions, Writers},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Request, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use quorate::NodeId;
use serde::Deserialize;
use std::{
    io::IsTerminal,
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
};

/// Heartbeats and elections that an eye can follow.
pub(super) const PACE: &str = "[timing]\nheartbeat_interval = \"500ms\"\nelection_timeout = [\"2s\", \"4s\"]\n";
/// A load that shows that writes go on: each writer rests so long after an answer.
const REST: Duration = Duration::from_millis(100);
/// The delay of a slow path, each way.
const SLOW_BY: Duration = Duration::from_millis(300);
/// The longest body of a request for a fault.
const BODY_BYTES_MAX: usize = 1024;
/// Requests for faults that wait for the one before.
const FAULTS_MAX: usize = 16;
/// The time after which there may be room for another one.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A fault to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
enum Fault {
    /// SIGKILL.
    Kill { node: NodeId },
    /// Starts a node that was killed.
    Start { node: NodeId },
    /// SIGSTOP: the process exists, and does nothing.
    Pause { node: NodeId },
    /// SIGCONT.
    Resume { node: NodeId },
    /// Nothing passes between two nodes.
    Cut { from: NodeId, to: NodeId },
    /// Nothing passes from one to the other; the way back is open.
    OneWay { from: NodeId, to: NodeId },
    /// Each datagram between two nodes is delayed.
    Slow { from: NodeId, to: NodeId },
    /// The path between two nodes is as before.
    Heal { from: NodeId, to: NodeId },
}

impl Fault {
    async fn inflict(self, cluster: &mut Cluster) -> Result<(), ClusterError> {
        let (between, way, back) = match self {
            Self::Kill { node } => return cluster.kill(node).await,
            Self::Start { node } => return cluster.start_node(node).await,
            Self::Pause { node } => return cluster.signal(node, Signal::STOP),
            Self::Resume { node } => return cluster.signal(node, Signal::CONT),
            Self::Cut { from, to } => ((from, to), Some(PathFault::Cut), Some(PathFault::Cut)),
            Self::OneWay { from, to } => ((from, to), Some(PathFault::Cut), None),
            Self::Slow { from, to } => ((from, to), Some(PathFault::Slow(SLOW_BY)), Some(PathFault::Slow(SLOW_BY))),
            Self::Heal { from, to } => ((from, to), None, None),
        };
        let (from, to) = between;
        if let Some(node) = [from, to].into_iter().find(|node| !cluster.ids().contains(node)) {
            return Err(ClusterError::NotRunning { id: node });
        }
        if let Some(paths) = cluster.paths() {
            paths.set(from, to, way);
            paths.set(to, from, back);
        }
        Ok(())
    }
}

/// A fault, and where its result goes.
type Asked = (Fault, oneshot::Sender<Result<(), ClusterError>>);

#[derive(Clone)]
struct Shared {
    faults: mpsc::Sender<Asked>,
    /// The endpoints of the nodes that run, as the cluster's owner knows them.
    endpoints: watch::Receiver<Vec<String>>,
}

/// Serves the page until this future is dropped.
pub(super) async fn show(mut cluster: Cluster, story: &Story) -> Result<(), DemoError> {
    let (faults, mut asked) = mpsc::channel::<Asked>(FAULTS_MAX);
    let (running, endpoints) = watch::channel(endpoints_of(&cluster));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let router = router(Shared { faults, endpoints });
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });

    let ledger = Ledger::new();
    let load = LoadOptions { writers: 1, rest: REST, ..LoadOptions::default() };
    let _writers = Writers::start(&cluster, &ledger, load)?;
    story.tell("page", format_args!("{url} (Ctrl-C ends the cluster)"))?;
    story.page(&url)?;
    open(&url);
    while let Some((fault, told)) = asked.recv().await {
        let result = fault.inflict(&mut cluster).await;
        running.send_replace(endpoints_of(&cluster));
        match &result {
            Ok(()) => story.tell("fault", format_args!("{fault:?}"))?,
            Err(error) => story.tell("fault", format_args!("{fault:?} failed: {error}"))?,
        }
        // The page may be gone.
        let _ = told.send(result);
    }
    serving.abort();
    Ok(())
}

fn endpoints_of(cluster: &Cluster) -> Vec<String> {
    cluster.running().into_iter().map(|id| cluster.endpoint(id)).collect()
}

/// Opens a browser, if this runs on a terminal of a desktop.
pub(crate) fn open(url: &str) {
    let has_desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    if std::io::stdout().is_terminal() && (has_desktop || cfg!(target_os = "macos")) {
        let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        // The address is on the terminal, too.
        let _ = Command::new(program).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/", get(document))
        .route("/live", get(live))
        .route("/live/faults", post(fault))
        .layer(from_fn(guard))
        .with_state(shared)
}

/// Only pages of this server may do faults, or read: a page of another site is refused.
async fn guard(request: Request<Body>, next: Next) -> Response {
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    match Hosts::default().check(local, false, request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn fault(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<StatusCode, Refusal> {
    is_json(&headers)?;
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
    let body = body.map_err(|_| Refusal::BadRequest(format!("the body is longer than {BODY_BYTES_MAX} bytes")))?;
    let fault: Fault = serde_json::from_slice(&body).map_err(|error| {
        Refusal::BadRequest(format!("the body is no fault such as {{\"fault\":\"kill\",\"node\":1}}: {error}"))
    })?;
    let (told, result) = oneshot::channel();
    shared.faults.try_send((fault, told)).map_err(|error| match error {
        TrySendError::Full(_) => Refusal::Overloaded(ASK_AGAIN),
        TrySendError::Closed(_) => Refusal::Stopping,
    })?;
    match result.await {
        Ok(Ok(())) => Ok(StatusCode::NO_CONTENT),
        Ok(Err(error)) => Err(Refusal::BadRequest(error.to_string())),
        Err(_) => Err(Refusal::Stopping),
    }
}

/// The events of a running node, passed on as they come. The snapshots say that this is a demo, so
/// that the page offers faults.
async fn live(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    // Unlike a node, the demo has no other pages that may read here.
    if let Err(refusal) = is_own_page(&headers) {
        return refusal.into_response();
    }
    let endpoints = shared.endpoints.borrow().clone();
    let download = async { Client::new(&endpoints, &Trust::none())?.live().await };
    match download.await {
        Ok(download) => {
            let pieces = stream::unfold(Passing { download, rest: Vec::new() }, |mut passing| async {
                Some((passing.next().await?, passing))
            });
            (
                [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")],
                Body::from_stream(pieces),
            )
                .into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

struct Passing {
    download: Download,
    rest: Vec<u8>,
}

impl Passing {
    /// The next whole events; `None` at the end.
    async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        loop {
            match self.download.next().await {
                Ok(Some(piece)) => self.rest.extend_from_slice(&piece),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
            let Some(end) = self.rest.windows(2).rposition(|two| two == b"\n\n") else { continue };
            let whole: Vec<u8> = self.rest.drain(..end + 2).collect();
            return Some(Ok(as_of_demo(&whole).into()));
        }
    }
}

/// The same events; a snapshot in them says that this is a demo.
fn as_of_demo(events: &[u8]) -> Vec<u8> {
    const OF_NODE: &[u8] = b"\"demo\":false";
    const SNAPSHOT: &[u8] = b"event: snapshot\n";
    let mut result = Vec::with_capacity(events.len());
    for event in events.split_inclusive(|byte| *byte == b'\n') {
        let begins_snapshot = result.ends_with(SNAPSHOT);
        match event.windows(OF_NODE.len()).position(|part| part == OF_NODE).filter(|_| begins_snapshot) {
            Some(at) => {
                result.extend_from_slice(&event[..at]);
                result.extend_from_slice(b"\"demo\":true");
                result.extend_from_slice(&event[at + OF_NODE.len()..]);
            }
            None => result.extend_from_slice(event),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_page_of_another_site_reads_nothing_and_a_fault_too_many_is_told_to_wait() {
        let (faults, queue) = mpsc::channel(1);
        let (_running, endpoints) = watch::channel(Vec::new());
        let shared = State(Shared { faults: faults.clone(), endpoints });
        for (site, status) in [("cross-site", 403), ("same-site", 403), ("same-origin", 502), ("none", 502)] {
            let mut headers = HeaderMap::new();
            headers.insert("sec-fetch-site", site.parse().expect("a value"));
            assert_eq!(live(shared.clone(), headers).await.status(), status, "{site}");
        }
        let ask = async || {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, "application/json".parse().expect("a value"));
            fault(shared.clone(), headers, Body::from(r#"{"fault":"kill","node":1}"#)).await
        };
        let (told, _result) = oneshot::channel();
        faults.try_send((Fault::Kill { node: NodeId(1) }, told)).expect("room for one");
        assert_eq!(ask().await, Err(Refusal::Overloaded(ASK_AGAIN)));
        drop(queue);
        assert_eq!(ask().await, Err(Refusal::Stopping));
    }
}
