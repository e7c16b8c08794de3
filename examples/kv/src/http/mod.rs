//! The HTTP interface: requests of clients, operators and Prometheus, each translated to one call
//! of the node.
//!
//! This module owns the routes, limits on input, and the format of answers. It decides nothing
//! about consistency: any node answers any request, because the node itself forwards to the leader.
//! The listener is in [`listen`].

pub mod access;
mod backup;
mod body;
mod clients;
mod connections;
pub mod credentials;
pub mod guard;
pub mod headers;
mod health;
mod linger;
mod list;
pub mod listen;
mod live;
mod members;
pub mod messages;
mod permission;
mod plaintext;
mod refusal;
mod routes;
mod standing;
mod strict;
mod throttle;
pub mod tls;
pub mod tokens;
mod txn;
mod versions;
mod watch;

pub use list::{LIMIT_MAX, Listing};
pub use live::STREAMS_MAX;
pub use permission::{ENDPOINTS, Permission, required};
pub use refusal::Refusal;
pub use strict::refuse_unknown;
pub(crate) use tokens::is_token;
pub use txn::TXN_ITEMS_MAX;
pub use watch::WATCHES_MAX;

use crate::{
    config::Limits,
    descriptors::ConnectionLimit,
    machine::{Command, KEY_BYTES_MAX, Kv, Reply, TTL_MS_MAX},
    object,
};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::{FromRequestParts, Path, Query, State, rejection::QueryRejection},
    http::{Request, header::CONTENT_TYPE, request::Parts},
    response::{IntoResponse, Response},
};
use body::Budget;
use headers::{MutationHeaders, ReadTimeout};
use messages::{CasAnswer, CasRequest, DeleteAnswer, PutAnswer, SnapshotAnswer, StatusAnswer, TxnRequest};
use quorate::{
    Applied, Consistency, Hosted, Index, Read, ReadError, ServiceNode,
    metrics::{CONTENT_TYPE as METRICS_TYPE, Label as _, Metrics},
};
use serde::Deserialize;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::time::Instant;

/// The memory budget of all request bodies in bytes; at least twice the share of one client.
const BODIES_BYTES_MAX: usize = 256 << 20;

/// The memory budget of all pages, answers of transactions and messages of watches that are being
/// made or sent, in bytes; a client may have half of it. While the answer of a transaction is made,
/// its values count: its JSON may be six times as long.
const ANSWERS_BYTES_MAX: usize = 256 << 20;
/// The length from which on JSON is parsed and written off the task, where it delays no other.
const LONG_JSON_BYTES: usize = 64 << 10;

/// The shared state of the handlers.
#[derive(Clone)]
pub struct Api {
    node: ServiceNode<Kv>,
    metrics: Metrics,
    value_bytes_max: usize,
    /// Of request bodies, from their arrival until the request is done.
    bodies: Budget,
    /// Of pages, transactions and messages of watches, until their bytes are sent.
    answers: Budget,
    backups: backup::BackupPermits,
    versions: versions::Versions,
    watches: watch::Watches,
    streams: live::Streams,
    stopping: Arc<AtomicBool>,
}

impl Api {
    /// An interface to `node`, which records to `metrics`.
    #[must_use]
    pub fn new(node: ServiceNode<Kv>, metrics: Metrics, limits: &Limits) -> Self {
        let value_bytes_max = limits.max_value_bytes;
        // One client may send a body of the maximum length, and fill the node's limit of
        // writes in flight.
        let share_min = TxnRequest::body_bytes_max(value_bytes_max).max(limits.max_in_flight_bytes);
        let bodies = Budget::of_bytes(BODIES_BYTES_MAX.max(share_min * 2), share_min);
        Self {
            streams: live::Streams::of(&node),
            node,
            metrics,
            value_bytes_max,
            bodies,
            answers: Budget::of_bytes(ANSWERS_BYTES_MAX, ANSWERS_BYTES_MAX / 2),
            backups: Default::default(),
            versions: Default::default(),
            watches: Default::default(),
            stopping: Arc::default(),
        }
    }

    /// Records the history of the live page while nothing reads it, until the node ends.
    pub fn keep_history(&self) -> impl Future<Output = ()> + use<> {
        self.streams.keep_history(&self.node)
    }

    /// The same for clients that have this number of connections: watches take half of them at most,
    /// and streams of the live page a quarter.
    #[must_use]
    pub fn for_connections(mut self, limit: ConnectionLimit) -> Self {
        self.watches = watch::Watches::among(limit.connections_max());
        self.streams = self.streams.among(limit.connections_max() / 2);
        self
    }

    /// The same with a listener for operators that has this number of connections: streams of the live
    /// page take half of them at most, and none of those of clients.
    #[must_use]
    pub fn for_administration(mut self, limit: ConnectionLimit) -> Self {
        self.streams = self.streams.among(limit.connections_max());
        self
    }

    /// From now on `/readyz` fails, and `/v1` answers `stopping`; requests in
    /// progress are completed.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Calls the service and waits for the outcome, within the limits of node and client. Within a
    /// session, a repeated serial gets the first answer. If the client disconnects, only the wait
    /// ends: the node already has the command.
    async fn call(&self, headers: MutationHeaders, command: Command) -> Result<(Index, Reply), Refusal> {
        self.open()?;
        let mut call = self.node.call(command);
        if let Some(until) = headers.until {
            call = call.within(until.saturating_duration_since(Instant::now()));
        }
        if let Some((session, serial)) = &headers.session {
            call = call.numbered(session, *serial);
        }
        let Applied { index, reply } = call.await?;
        Ok((index, reply))
    }

    fn open(&self) -> Result<(), Refusal> {
        if self.stopping.load(Ordering::Relaxed) { Err(Refusal::Stopping) } else { Ok(()) }
    }
}

async fn put(
    State(api): State<Api>,
    Key(key): Key,
    headers: MutationHeaders,
    lasting: Result<Lasting, Refusal>,
    request: Request<Body>,
) -> Result<Json<PutAnswer>, Refusal> {
    let Lasting(ttl_ms) = lasting?;
    let value = api.bodies.read(request, api.value_bytes_max).await?;
    let command = Command::Put { key: key.into(), value: value.bytes[..].into(), ttl_ms };
    let (index, _) = api.call(headers, command).await?;
    Ok(Json(PutAnswer { index }))
}

/// The time to live of a key in milliseconds, from the parameters of the query.
struct Lasting(Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for Lasting {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::<PutQuery>::from_request_parts(parts, state).await;
        let Query(PutQuery { ttl }) = query.map_err(|error| Refusal::BadRequest(error.body_text()))?;
        ttl.as_deref().map(ttl_ms).transpose().map(Self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutQuery {
    ttl: Option<String>,
}

fn ttl_ms(ttl: &str) -> Result<u64, Refusal> {
    let ms =
        humantime::parse_duration(ttl).map_err(|_| "ttl is not a duration such as 30s".to_owned()).and_then(|ttl| {
            let ms = u64::try_from(ttl.as_millis()).ok().filter(|ms| (1..=TTL_MS_MAX).contains(ms));
            ms.ok_or_else(|| format!("ttl={ttl:?} is not from 1ms to 3650days"))
        });
    ms.map_err(Refusal::BadRequest)
}

async fn delete(
    State(api): State<Api>,
    Key(key): Key,
    headers: MutationHeaders,
) -> Result<Json<DeleteAnswer>, Refusal> {
    let (index, reply) = api.call(headers, Command::Delete { key: key.into() }).await?;
    Ok(Json(DeleteAnswer { index, existed: reply == Reply::Delete { existed: true } }))
}

async fn cas(
    State(api): State<Api>,
    Key(key): Key,
    headers: MutationHeaders,
    request: Request<Body>,
) -> Result<Json<CasAnswer>, Refusal> {
    guard::is_json(request.headers())?;
    let max = api.value_bytes_max;
    let whole = api.bodies.read(request, CasRequest::body_bytes_max(max)).await?;
    let body = whole.bytes.clone();
    let parse = move || CasRequest::parse(&body, max);
    let CasRequest { expect, value } = off_task(whole.bytes.len(), parse).await.ok_or_else(stuck)??;
    let expect = expect.map(|expect| expect.into_bytes().into());
    let command = Command::Cas { key: key.into(), expect, value: value.into_bytes().into() };
    let (index, reply) = api.call(headers, command).await?;
    Ok(Json(CasAnswer { index, swapped: reply == Reply::Cas { swapped: true } }))
}

impl CasRequest {
    /// Parses a body, with values of at most `value_bytes_max` bytes.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] if it is none, [`Refusal::TooLarge`] if a value is longer.
    pub fn parse(body: &[u8], value_bytes_max: usize) -> Result<Self, Refusal> {
        let request: Self = object::from_json(body).map_err(|error| {
            Refusal::BadRequest(format!("the body is not {{\"expect\":TEXT or null,\"value\":TEXT}}: {error}"))
        })?;
        for value in request.expect.iter().chain([&request.value]) {
            check_value(value.len(), value_bytes_max)?;
        }
        Ok(request)
    }

    /// The maximum length of a body in bytes: JSON may encode a byte as `\u00XX`, six bytes, and
    /// the body has two values.
    #[must_use]
    pub fn body_bytes_max(value_bytes_max: usize) -> usize {
        value_bytes_max * 12 + 1024
    }
}

async fn read(
    State(api): State<Api>,
    Key(key): Key,
    ReadTimeout(within): ReadTimeout,
    reading: Result<Reading, Refusal>,
) -> Result<Response, Refusal> {
    api.open()?;
    let Reading(consistency) = reading?;
    let mut ask = api.node.query(key.into()).consistency(consistency);
    if let Some(within) = within {
        ask = ask.within(within);
    }
    let read = ask.await?;
    let index = [("quorate-index", read.index.to_string())];
    Ok(match read.value {
        Some(value) => (index, [(CONTENT_TYPE, "application/octet-stream")], Bytes::from_owner(value)).into_response(),
        None => (index, Refusal::NotFound("no such key".to_owned())).into_response(),
    })
}

/// The consistency of a read, from the parameters of the query.
pub struct Reading(pub Consistency);

impl<S: Send + Sync> FromRequestParts<S> for Reading {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        consistency(Query::from_request_parts(parts, state).await).map(Self)
    }
}

fn consistency(query: Result<Query<ReadQuery>, QueryRejection>) -> Result<Consistency, Refusal> {
    let refuse = |why: String| Err(Refusal::BadRequest(why));
    let Query(ReadQuery { read, max_age, max_entries }) =
        query.map_err(|error| Refusal::BadRequest(error.body_text()))?;
    let is_bounded = max_age.is_some() || max_entries.is_some();
    let consistency = match read.as_deref() {
        None | Some("linearizable") => Consistency::Linearizable,
        Some("lease") => Consistency::Lease,
        Some("local") => Consistency::Local,
        Some("bounded") if !is_bounded => {
            return refuse("read=bounded needs max_age (such as 500ms), max_entries (such as 100), or both".to_owned());
        }
        Some("bounded") => {
            let max_age = max_age
                .as_deref()
                .map(humantime::parse_duration)
                .transpose()
                .map_err(|_| Refusal::BadRequest("max_age is not a duration such as 500ms".to_owned()))?;
            return Ok(Consistency::Bounded { max_age, max_entries });
        }
        Some(other) => {
            let other = other.escape_debug();
            return refuse(format!("read={other} is not linearizable, lease, local or bounded"));
        }
    };
    if is_bounded {
        return refuse(
            "max_age and max_entries are for read=bounded only; leave them out, or use read=bounded".to_owned(),
        );
    }
    Ok(consistency)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadQuery {
    read: Option<String>,
    max_age: Option<String>,
    max_entries: Option<u64>,
}

async fn status(State(api): State<Api>) -> Result<Json<StatusAnswer>, Refusal> {
    // The hash belongs to the index at which it was read, so that index is reported.
    let hash = api.node.read(Consistency::Local, |kv: &Hosted<Kv>| kv.service().state_hash()).await;
    let status = api.node.status().borrow().clone();
    let (applied, state_hash) = match hash {
        Ok(Read { index, value }) => (index, format!("{value:016x}")),
        Err(ReadError::Witness | ReadError::Halted { .. }) => (status.applied, String::new()),
        Err(error) => return Err(error.into()),
    };
    Ok(Json(StatusAnswer {
        role: status.role.as_str().to_owned(),
        node_id: status.node,
        term: status.term,
        voted_for: status.vote,
        leader_id: status.leader,
        commit_index: status.commit.max(applied),
        applied_index: applied,
        durable_index: status.durable,
        last_log_index: status.last_log.max(applied),
        first_log_index: status.first_log,
        snapshot_index: status.snapshot,
        faulty_entries: status.faulty,
        storage_full: status.storage_full,
        halted: status.halted.map(|halted| halted.to_string()),
        voters: status.voters,
        learners: status.learners,
        witness: status.witness,
        client_addrs: members::client_addrs(&status.metadata),
        cluster_id: status.cluster_id.map(|id| id.to_string()),
        state_hash,
    }))
}

/// Takes a snapshot of this node and cuts its log up to it. Answers when both are durable.
async fn snapshot(State(api): State<Api>) -> Result<Json<SnapshotAnswer>, Refusal> {
    api.open()?;
    Ok(Json(SnapshotAnswer { index: api.node.snapshot().await?.index }))
}

async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], api.metrics.render())
}

async fn method_not_allowed() -> Refusal {
    Refusal::MethodNotAllowed
}

/// A key from the path: percent-decoded text of 1 to [`KEY_BYTES_MAX`] bytes.
pub struct Key(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(key) = Path::<String>::from_request_parts(parts, state).await.map_err(|error| {
            Refusal::BadRequest(format!("the key is not percent-encoded UTF-8: {}", error.body_text()))
        })?;
        check_key(&key)?;
        Ok(Self(key))
    }
}

fn check_key(key: &str) -> Result<(), Refusal> {
    match key.len() {
        0 => Err(Refusal::BadRequest("a key is empty; a key has at least one byte".to_owned())),
        1..=KEY_BYTES_MAX => Ok(()),
        _ => Err(Refusal::TooLarge(format!("a key has more than {KEY_BYTES_MAX} bytes; use a shorter one"))),
    }
}

fn check_value(bytes: usize, bytes_max: usize) -> Result<(), Refusal> {
    if bytes > bytes_max {
        return Err(Refusal::TooLarge(format!("a value has more than {bytes_max} bytes; send less")));
    }
    Ok(())
}

/// Does work on `bytes` of JSON; `None` if it panics, or the process ends.
async fn off_task<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if bytes < LONG_JSON_BYTES {
        return Some(work());
    }
    tokio::task::spawn_blocking(work).await.ok()
}

fn stuck() -> Refusal {
    Refusal::Stuck("the request could not be handled; see the log of this node".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_a_duration_within_its_bounds() {
        for (text, ms) in [("1ms", 1), ("30s", 30_000), ("1h 30m", 5_400_000), ("3650days", TTL_MS_MAX)] {
            assert_eq!(ttl_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "0s", "999us", "30", "-1s", "soon", "3651days", "584554531y"] {
            assert!(matches!(ttl_ms(text), Err(Refusal::BadRequest(_))), "{text}");
        }
    }
}
