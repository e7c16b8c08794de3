//! A client of the HTTP interface, with one connection at a time.
//!
//! It tries the next endpoint after a definite failure that another node may not have: the request
//! was not sent, no leader was known, the node is stopping. Its writes belong to a session, so a
//! write of unknown outcome is repeated and still takes effect once. Only if the repetition does
//! not help is it reported as [`ClientError::OutcomeUnknown`].

mod connection;
mod events;
mod live;
mod token;
mod watch;

use crate::http::{
    headers::{SERIAL, SESSION},
    messages::{
        AddRequest, CasAnswer, CasRequest, ChangeAnswer, DeleteAnswer, ErrorAnswer, ListAnswer, MembersAnswer,
        MetadataRequest, MoveRequest, PutAnswer, SnapshotAnswer, StatusAnswer, TransferAnswer, TransferRequest,
        TxnAnswer, TxnRequest, VoterRequest, VotersRequest,
    },
};
use crate::object;
use bytes::Bytes;
use connection::{Endpoint, Exchange};
use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quorate::{Index, NodeId};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt, path::Path, time::Duration};
use tokio::time::{Instant, sleep};

pub use connection::{Download, Trust};
pub use live::{Live, LiveMessage, LiveNews};
pub use token::Token;
pub use watch::{WatchRequest, Watched, Watching};

/// The default time limit for an answer; longer than a server takes to report an unknown outcome.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// The time limit for the head of a backup: the server first writes its whole state.
const BACKUP_LIMIT: Duration = Duration::from_secs(600);
/// The pause before a write is repeated: about the time in which a cluster elects a new leader.
const PAUSE: Duration = Duration::from_millis(100);

/// A client of one or more nodes of a cluster.
#[derive(Debug)]
pub struct Client {
    endpoints: Vec<Endpoint>,
    /// The endpoint of the last success, used first by the next request.
    current: usize,
    limit: Duration,
    session: Option<Session>,
    token: Option<Token>,
    /// For endpoints that become known later, too.
    trust: Trust,
    /// Whether the token may go to endpoints where other machines can read it.
    allows_plaintext: bool,
}

/// The session of a client's writes.
#[derive(Debug)]
struct Session {
    /// The session's name, random and therefore unique.
    name: String,
    /// The serial of the last write.
    serial: u64,
}

/// The consistency of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum ReadMode {
    /// All writes acknowledged before the read began are seen.
    #[default]
    Linearizable,
    /// The same, if clocks drift apart by no more than configured: the leader relies on its lease.
    Lease,
    /// The state that this node has applied, which may be old.
    Local,
    /// The state that this node has applied, if it provably lags by no more than the read allows.
    Bounded,
}

impl fmt::Display for ReadMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linearizable => "linearizable",
            Self::Lease => "lease",
            Self::Local => "local",
            Self::Bounded => "bounded",
        })
    }
}

/// The result of a read.
#[derive(Clone, PartialEq, Eq)]
pub struct Got {
    /// The index up to which the state that was read had applied the log.
    pub index: Option<Index>,
    /// The value; `None` if the key does not exist.
    pub value: Option<Bytes>,
}

impl std::fmt::Debug for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Got")
            .field("index", &self.index)
            .field("value_bytes", &self.value.as_ref().map(Bytes::len))
            .finish()
    }
}

/// A page of a listing: by default the first one of all keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListRequest {
    /// Only keys that begin with this; excludes `start` and `end`.
    pub prefix: Option<String>,
    /// Only keys from this one.
    pub start: Option<String>,
    /// Only keys before this one.
    pub end: Option<String>,
    /// Only keys after this one: the last key of the previous page.
    pub after: Option<String>,
    /// The maximum number of pairs, at most [`LIMIT_MAX`](crate::http::LIMIT_MAX); `None`: 1000.
    pub limit: Option<usize>,
    /// Leaves out the values.
    pub keys_only: bool,
    /// The state to list.
    pub state: ListState,
}

/// The state that a [`ListRequest`] is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListState {
    /// The current one, read with this consistency.
    Current(ReadMode, ReadBounds),
    /// That of an earlier page, by its index; only the node that answered with that page is sure
    /// to keep it, for half a minute.
    Kept(Index),
}

impl Default for ListState {
    fn default() -> Self {
        Self::Current(ReadMode::default(), ReadBounds::default())
    }
}

/// The bounds of a read with [`ReadMode::Bounded`], which needs at least one of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::Args)]
pub struct ReadBounds {
    /// With `--read bounded`: the maximum age of the state, such as 500ms
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub max_age: Option<Duration>,
    /// With `--read bounded`: the maximum number of missing entries
    #[arg(long, value_name = "N")]
    pub max_entries: Option<u64>,
}

impl Client {
    /// A client of `endpoints`, tried in this order: `http://HOST:PORT`, or `https://…` with an
    /// authority to trust.
    ///
    /// # Errors
    /// [`ClientError::Setup`] if the list is empty or has an invalid URL, or one of `http` beside a
    /// certificate, which would not be shown there.
    pub fn new(endpoints: &[String], trust: &Trust) -> Result<Self, ClientError> {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|url| Endpoint::parse(url, trust).map_err(ClientError::Setup))
            .collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(ClientError::Setup("no endpoint is given; use --endpoint URL".to_owned()));
        }
        let session = Session { name: format!("client-{:032x}", rand::random::<u128>()), serial: 0 };
        let (session, trust) = (Some(session), trust.clone());
        Ok(Self { endpoints, current: 0, limit: ANSWER_LIMIT, session, token: None, trust, allows_plaintext: false })
    }

    /// The same client without a session: it repeats no write of unknown outcome, but reports it.
    #[must_use]
    pub fn without_session(self) -> Self {
        Self { session: None, ..self }
    }

    /// The same client, with a token in every request.
    ///
    /// # Errors
    /// [`ClientError::Setup`] if an endpoint is `http` and not at a loopback address, where other
    /// machines could read the token: any endpoint, because requests move to the next one.
    pub fn with_token(self, token: Token) -> Result<Self, ClientError> {
        match self.endpoints.iter().find(|endpoint| endpoint.is_exposed()) {
            None => Ok(Self { token: Some(token), ..self }),
            Some(endpoint) => Err(ClientError::Setup(format!(
                "endpoint {endpoint} would get the token in clear text; use https:// and --ca FILE, or permit it \
                 with --allow-plaintext-token"
            ))),
        }
    }

    /// As [`Client::with_token`], also where other machines can read the token: for networks that
    /// encrypt by themselves.
    #[must_use]
    pub fn with_plaintext_token(self, token: Token) -> Self {
        Self { token: Some(token), allows_plaintext: true, ..self }
    }

    /// The same client with this time limit for an answer, and again for repetitions of a write
    /// of unknown outcome.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Sets a key to a value.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put(&mut self, key: &str, value: impl Into<Bytes>) -> Result<PutAnswer, ClientError> {
        self.put_for(key, value, None).await
    }

    /// Sets a key to a value, which expires after `ttl` of log time: at least a millisecond, and at
    /// most ten years.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_for(
        &mut self,
        key: &str,
        value: impl Into<Bytes>,
        ttl: Option<Duration>,
    ) -> Result<PutAnswer, ClientError> {
        let ttl = ttl.map_or(String::new(), |ttl| format!("?ttl={}ns", ttl.as_nanos()));
        let path = format!("{}{ttl}", key_path(key));
        json(self.change(ApiRequest { body: value.into(), ..ApiRequest::new(Method::PUT, path) }).await?)
    }

    /// Reads the value of a key.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&mut self, key: &str, mode: ReadMode) -> Result<Got, ClientError> {
        self.get_within(key, mode, ReadBounds::default()).await
    }

    /// Reads a key from a node that lags by no more than these bounds: for [`ReadMode::Bounded`].
    ///
    /// # Errors
    /// See [`ClientError`]; `too_stale` if no endpoint can prove that it is within the bounds.
    pub async fn get_within(&mut self, key: &str, mode: ReadMode, bounds: ReadBounds) -> Result<Got, ClientError> {
        let path = format!("{}?{}", key_path(key), read_query(mode, bounds));
        let exchange = self.ask(&ApiRequest::new(Method::GET, path)).await?;
        if exchange.status == StatusCode::NOT_FOUND && !exchange.headers.contains_key("quorate-index") {
            // The answer of another server, or about a path that this server lacks: it does not say
            // whether the key exists.
            return Err(refused(&exchange));
        }
        let index = exchange.headers.get("quorate-index").and_then(|index| index.to_str().ok()?.parse().ok());
        let value = (exchange.status == StatusCode::OK).then_some(exchange.body);
        Ok(Got { index: index.map(Index), value })
    }

    /// Removes a key and its value.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&mut self, key: &str) -> Result<DeleteAnswer, ClientError> {
        json(self.change(ApiRequest::new(Method::DELETE, key_path(key))).await?)
    }

    /// Sets a key if its value is `expect`; with `None`, if the key does not exist.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cas(&mut self, key: &str, expect: Option<&str>, value: &str) -> Result<CasAnswer, ClientError> {
        let request = CasRequest { expect: expect.map(str::to_owned), value: value.to_owned() };
        json(self.change(ApiRequest::json(Method::POST, format!("{}/cas", key_path(key)), &request)?).await?)
    }

    /// Compares several keys, and then reads, sets and removes several, at one log index.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn txn(&mut self, txn: &TxnRequest) -> Result<TxnAnswer, ClientError> {
        json(self.change(ApiRequest::json(Method::POST, "/v1/txn".to_owned(), txn)?).await?)
    }

    /// Lists keys and their values, page by page. Later pages are asked with the index and the last
    /// key of the page before, and come from the same node; if that lost the state, the error has
    /// the code `gone`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(&mut self, page: &ListRequest) -> Result<ListAnswer, ClientError> {
        let exchange = self.ask(&ApiRequest::new(Method::GET, page.path())).await?;
        if exchange.status == StatusCode::NOT_FOUND {
            return Err(refused(&exchange));
        }
        json(exchange)
    }

    /// The status of a node.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&mut self) -> Result<StatusAnswer, ClientError> {
        json(self.ask(&ApiRequest::new(Method::GET, "/v1/status".to_owned())).await?)
    }

    /// Takes a snapshot on a node, and cuts its log up to it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn snapshot(&mut self) -> Result<SnapshotAnswer, ClientError> {
        json(self.ask(&ApiRequest::new(Method::POST, "/v1/snapshot".to_owned())).await?)
    }

    /// The members, as a node knows them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn members(&mut self) -> Result<MembersAnswer, ClientError> {
        json(self.ask(&ApiRequest::new(Method::GET, "/v1/members".to_owned())).await?)
    }

    /// Adds a member that receives the log and does not vote.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn add_member(&mut self, id: NodeId, addr: &str) -> Result<ChangeAnswer, ClientError> {
        let (addr, labels) = (addr.to_owned(), BTreeMap::new());
        self.add(&AddRequest { id, addr, witness: false, client_addr: None, labels }).await
    }

    /// Adds a member that does not vote yet: with metadata, or as the witness, which stores no
    /// commands.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn add(&mut self, request: &AddRequest) -> Result<ChangeAnswer, ClientError> {
        json(self.ask(&ApiRequest::json(Method::POST, "/v1/members".to_owned(), request)?).await?)
    }

    /// Changes the metadata of a member.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn describe_member(
        &mut self,
        id: NodeId,
        request: &MetadataRequest,
    ) -> Result<ChangeAnswer, ClientError> {
        json(self.ask(&ApiRequest::json(Method::PATCH, format!("/v1/members/{id}/metadata"), request)?).await?)
    }

    /// Changes the address at which the others dial a member.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn move_member(&mut self, id: NodeId, addr: &str) -> Result<ChangeAnswer, ClientError> {
        let request = MoveRequest { addr: addr.to_owned() };
        json(self.ask(&ApiRequest::json(Method::PUT, format!("/v1/members/{id}/addr"), &request)?).await?)
    }

    /// Replaces the set of voters in one step.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_voters(&mut self, voters: Vec<VoterRequest>) -> Result<ChangeAnswer, ClientError> {
        let request = VotersRequest { voters };
        json(self.ask(&ApiRequest::json(Method::PUT, "/v1/members".to_owned(), &request)?).await?)
    }

    /// Makes a member a voter, once it has caught up.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn promote_member(&mut self, id: NodeId) -> Result<ChangeAnswer, ClientError> {
        json(self.ask(&ApiRequest::new(Method::POST, format!("/v1/members/{id}/promote"))).await?)
    }

    /// Removes a member from the cluster.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_member(&mut self, id: NodeId) -> Result<ChangeAnswer, ClientError> {
        json(self.ask(&ApiRequest::new(Method::DELETE, format!("/v1/members/{id}"))).await?)
    }

    /// Transfers leadership to this member, or to the voter with the longest log.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn transfer(&mut self, to: Option<NodeId>) -> Result<TransferAnswer, ClientError> {
        json(self.ask(&ApiRequest::json(Method::POST, "/v1/transfer".to_owned(), &TransferRequest { to })?).await?)
    }

    /// The file of a backup, as it arrives.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn backup(&mut self) -> Result<Download, ClientError> {
        let ask = ApiRequest::new(Method::GET, "/v1/backup".to_owned());
        self.download(&ask, self.limit.max(BACKUP_LIMIT), self.limit).await
    }

    /// Sends `ask` to one endpoint after the other, from the one of the last success on, and
    /// returns the answer as it arrives.
    async fn download(
        &mut self,
        ask: &ApiRequest,
        head_limit: Duration,
        limit: Duration,
    ) -> Result<Download, ClientError> {
        let mut last = None;
        for offset in 0..self.endpoints.len() {
            let at = (self.current + offset) % self.endpoints.len();
            match self.download_from(at, ask, head_limit, limit).await {
                Ok(download) => {
                    self.current = at;
                    return Ok(download);
                }
                Err(error) if error.may_do_better_elsewhere() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Setup("no endpoint is given".to_owned())))
    }

    async fn download_from(
        &self,
        at: usize,
        ask: &ApiRequest,
        head_limit: Duration,
        limit: Duration,
    ) -> Result<Download, ClientError> {
        let endpoint = &self.endpoints[at];
        let request = ask.request(endpoint, self.token.as_ref())?;
        let arriving = endpoint.download(request, head_limit, limit).await;
        let arriving = arriving.map_err(|lost| lost.into_error(endpoint.to_string(), false))?;
        arriving.refusal().await.map_err(|exchange| refused(&exchange))
    }

    /// The events of a node's live page, from the first endpoint that answers.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn live(&mut self) -> Result<Download, ClientError> {
        self.download(&ApiRequest::new(Method::GET, "/live".to_owned()), self.limit, self.limit).await
    }

    /// The text at `path`, for example `/metrics`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn text(&mut self, path: &str) -> Result<String, ClientError> {
        let exchange = self.ask(&ApiRequest::new(Method::GET, path.to_owned())).await?;
        Ok(String::from_utf8_lossy(&exchange.body).into_owned())
    }

    /// Sends a write. Within a session it is repeated, at one endpoint after the other, until its
    /// outcome is known.
    async fn change(&mut self, mut ask: ApiRequest) -> Result<Exchange, ClientError> {
        if let Some(session) = &mut self.session {
            session.serial += 1;
            ask.session = Some((session.name.clone(), session.serial));
        }
        let unknown = match self.ask(&ask).await {
            Err(unknown @ ClientError::OutcomeUnknown { .. }) if ask.session.is_some() => unknown,
            known => return known,
        };
        let deadline = Instant::now() + self.limit;
        while Instant::now() + PAUSE < deadline {
            sleep(PAUSE).await;
            self.current = (self.current + 1) % self.endpoints.len();
            match self.ask(&ask).await {
                Err(error) if error.may_know_later() => {}
                // This failure says nothing about the earlier attempts.
                Err(_) => break,
                known => return known,
            }
        }
        Err(unknown)
    }

    async fn ask(&mut self, ask: &ApiRequest) -> Result<Exchange, ClientError> {
        let mut last = None;
        for offset in 0..self.endpoints.len() {
            let at = (self.current + offset) % self.endpoints.len();
            match self.ask_one(at, ask).await {
                Ok(exchange) => {
                    self.current = at;
                    return Ok(exchange);
                }
                Err(error) if error.may_do_better_elsewhere() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Setup("no endpoint is given".to_owned())))
    }

    async fn ask_one(&mut self, at: usize, ask: &ApiRequest) -> Result<Exchange, ClientError> {
        let endpoint = &mut self.endpoints[at];
        let request = ask.request(endpoint, self.token.as_ref())?;
        let exchanged = endpoint.exchange(request, self.limit).await;
        let mut exchange = exchanged.map_err(|lost| lost.into_error(endpoint.to_string(), ask.changes()))?;
        exchange.is_change = ask.changes();
        if exchange.status.is_success() || (ask.method == Method::GET && exchange.status == StatusCode::NOT_FOUND) {
            return Ok(exchange);
        }
        Err(refused(&exchange))
    }
}

/// The error of an answer that is not a success.
fn refused(exchange: &Exchange) -> ClientError {
    let (endpoint, status) = (exchange.endpoint.clone(), exchange.status);
    let Ok(ErrorAnswer { error: code, message, .. }) = object::from_json(&exchange.body) else {
        let message = format!("HTTP status {status}: is this a quorate-kv server?");
        // A proxy in between may have forwarded the change and lost the answer.
        if exchange.is_change && !status.is_client_error() {
            return ClientError::OutcomeUnknown { endpoint, cause: message };
        }
        return ClientError::Refused { endpoint, code: "unexpected".to_owned(), status: status.as_u16(), message };
    };
    if code == "outcome_unknown" {
        return ClientError::OutcomeUnknown { endpoint, cause: message };
    }
    ClientError::Refused { endpoint, code, status: status.as_u16(), message }
}

/// The failure of a request. For a write, all except [`ClientError::OutcomeUnknown`] and
/// [`ClientError::Unreadable`] mean that it did not and will not take effect.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClientError {
    /// The client cannot be created with these arguments.
    #[error("{0}")]
    Setup(String),
    /// The endpoint uses another protocol than its URL says, or is not trusted. No
    /// request was sent.
    #[error("{endpoint}: {cause}")]
    Mismatch {
        /// The endpoint's URL.
        endpoint: String,
        /// The problem and its remedy.
        cause: String,
    },
    /// The endpoint could not be reached, or a read was not answered.
    #[error("{endpoint} cannot be reached: {cause}; check the endpoint, or name another one with --endpoint")]
    Unreachable {
        /// The endpoint's URL.
        endpoint: String,
        /// The cause in words.
        cause: String,
    },
    /// The server refused the request.
    #[error("{endpoint}: {code}: {message}")]
    Refused {
        /// The endpoint's URL.
        endpoint: String,
        /// The server's code, such as `no_leader`.
        code: String,
        /// The HTTP status of the answer.
        status: u16,
        /// The server's message.
        message: String,
    },
    /// The write may or may not take effect.
    #[error("{endpoint}: outcome_unknown: {cause}")]
    OutcomeUnknown {
        /// The endpoint's URL.
        endpoint: String,
        /// The reason why the outcome is unknown.
        cause: String,
    },
    /// The request was executed, but its answer was not understood.
    #[error("{endpoint}: the answer is not a quorate-kv server's: {cause}; check the endpoint")]
    Unreadable {
        /// The endpoint's URL.
        endpoint: String,
        /// The problem with the answer.
        cause: String,
    },
}

impl ClientError {
    /// Whether the request had no effect here, and may succeed at another endpoint.
    fn may_do_better_elsewhere(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Mismatch { .. } => true,
            Self::Refused { code, .. } => {
                ["no_leader", "behind", "too_stale", "witness", "halted", "stopping", "storage_full"].contains(&&**code)
            }
            Self::Setup(_) | Self::OutcomeUnknown { .. } | Self::Unreadable { .. } => false,
        }
    }

    /// Whether a repetition of the write may still give its outcome.
    fn may_know_later(&self) -> bool {
        match self {
            Self::OutcomeUnknown { .. } => true,
            Self::Refused { code, .. } if code == "overloaded" => true,
            error => error.may_do_better_elsewhere(),
        }
    }
}

struct ApiRequest {
    /// The session's name, and the write's serial.
    session: Option<(String, u64)>,
    method: Method,
    path: String,
    body: Bytes,
    content_type: &'static str,
}

impl ApiRequest {
    fn new(method: Method, path: String) -> Self {
        Self { session: None, method, path, body: Bytes::new(), content_type: "application/octet-stream" }
    }

    fn json(method: Method, path: String, body: &impl Serialize) -> Result<Self, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Setup(error.to_string()))?;
        Ok(Self { body: body.into(), content_type: "application/json", ..Self::new(method, path) })
    }

    fn changes(&self) -> bool {
        self.method != Method::GET
    }

    fn request(&self, endpoint: &Endpoint, token: Option<&Token>) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .header(HOST, endpoint.authority())
            .header(CONTENT_TYPE, self.content_type);
        if let Some((name, serial)) = &self.session {
            request = request.header(SESSION, name).header(SERIAL, *serial);
        }
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, HeaderValue::from(token));
        }
        request.body(Full::new(self.body.clone())).map_err(|error| ClientError::Setup(format!("{endpoint}: {error}")))
    }
}

fn json<T: DeserializeOwned>(exchange: Exchange) -> Result<T, ClientError> {
    let Exchange { endpoint, body, is_change, .. } = exchange;
    object::from_json(&body).map_err(|error| match is_change {
        // The change was executed with an unknown result.
        true => ClientError::OutcomeUnknown { endpoint, cause: format!("the answer is not understood: {error}") },
        false => ClientError::Unreadable { endpoint, cause: error.to_string() },
    })
}

/// All characters except those that RFC 3986 calls unreserved.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path of a key in the HTTP interface: for requests that [`Client`] does not make.
#[must_use]
pub fn key_path(key: &str) -> String {
    format!("/v1/kv/{}", utf8_percent_encode(key, SEGMENT))
}

fn read_query(mode: ReadMode, ReadBounds { max_age, max_entries }: ReadBounds) -> String {
    let mut query = format!("read={mode}");
    if let Some(age) = max_age {
        query += &format!("&max_age={}ns", age.as_nanos());
    }
    if let Some(entries) = max_entries {
        query += &format!("&max_entries={entries}");
    }
    query
}

impl ListRequest {
    fn path(&self) -> String {
        let Self { prefix, start, end, after, limit, keys_only, state } = self;
        let mut query = match *state {
            ListState::Current(mode, bounds) => read_query(mode, bounds),
            ListState::Kept(index) => format!("index={index}"),
        };
        for (name, key) in [("prefix", prefix), ("start", start), ("end", end), ("after", after)] {
            if let Some(key) = key {
                query += &format!("&{name}={}", utf8_percent_encode(key, SEGMENT));
            }
        }
        if let Some(limit) = limit {
            query += &format!("&limit={limit}");
        }
        format!("/v1/kv?{query}&keys={keys_only}")
    }
}

/// Trust for `https` endpoints, from the option `--ca`.
///
/// # Errors
/// [`ClientError::Setup`] if the file cannot be read or has no certificate.
pub fn trust(ca: Option<&Path>) -> Result<Trust, ClientError> {
    let refuse = |error| ClientError::Setup(format!("--ca {error}"));
    ca.map_or(Ok(Trust::none()), |ca| Trust::authority(ca).map_err(refuse))
}
