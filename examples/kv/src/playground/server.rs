//! The server of the playground: the live page, its stream, and the commands of the page.
//!
//! **Bounds.** At most [`STREAMS_MAX`] streams. A stream for which more than 128 messages wait misses
//! some, is told how many, and gets the whole page again. Without a stream time stands.

use super::player::{Asked, Player};
use crate::{
    http::{
        Refusal,
        guard::{Hosts, is_json, is_own_page},
    },
    live::{document::document, message},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Request, StatusCode, header, uri::Authority},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use serde_json::json;
use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::broadcast::{self, Receiver, error::RecvError},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// The most streams.
const STREAMS_MAX: usize = 32;
/// The most messages that wait for the slowest stream.
const MESSAGES_MAX: usize = 128;
/// The time between two messages while the simulated time passes.
const EVERY: Duration = Duration::from_millis(100);
/// Real time that passes at once, at most: a process that was stopped does not run ahead.
const PASS_MAX: Duration = Duration::from_millis(500);
/// After this long without a message a comment shows that the connection works.
const QUIET: Duration = Duration::from_secs(5);
/// The longest body of a command.
const BODY_BYTES_MAX: usize = 1024;

#[derive(Clone)]
struct Shared {
    player: Arc<Mutex<Player>>,
    messages: broadcast::Sender<Bytes>,
    local: IpAddr,
}

impl Shared {
    fn player(&self) -> MutexGuard<'_, Player> {
        self.player.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To all streams; they may leave at any time.
    fn publish(&self, messages: Vec<Bytes>) {
        for message in messages {
            let _ = self.messages.send(message);
        }
    }

    /// A place in the messages, and the page up to it.
    fn join(&self) -> (Receiver<Bytes>, Option<Bytes>) {
        let player = self.player();
        (self.messages.subscribe(), player.snapshot())
    }
}

/// Serves the playground until this future is dropped.
pub(super) async fn serve(listener: TcpListener, player: Player) -> io::Result<()> {
    let local = listener.local_addr()?.ip();
    let messages = broadcast::channel(MESSAGES_MAX).0;
    let shared = Shared { player: Arc::new(Mutex::new(player)), messages, local };
    let serving = axum::serve(listener, router(shared.clone())).into_future();
    tokio::select! {
        served = serving => served,
        () = pass(shared) => Ok(()),
    }
}

/// Lets time pass while there is a stream.
async fn pass(shared: Shared) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Instant::now();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let passed = now.saturating_duration_since(std::mem::replace(&mut before, now)).min(PASS_MAX);
        if shared.messages.receiver_count() > 0 {
            // Published under the lock: a stream that joins has no message twice, and misses none.
            let mut player = shared.player();
            let messages = player.pass(passed);
            shared.publish(messages);
        }
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/", get(document))
        .route("/live", get(live))
        .route("/live/play", post(play))
        .layer(from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

/// Only pages of this server may command, or read: a page of another site is refused.
async fn guard(State(shared): State<Shared>, request: Request<Body>, next: Next) -> Response {
    let local = if shared.local.is_unspecified() { named(request.headers()) } else { None };
    let local = local.unwrap_or(shared.local);
    match Hosts::default().check(local, false, request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// The address by which a request names this server. A page of another site could give its own name
/// the address of this server, but can't be at an address that is not its own.
fn named(headers: &HeaderMap) -> Option<IpAddr> {
    let authority: Authority = headers.get(header::HOST)?.to_str().ok()?.parse().ok()?;
    let host = authority.host();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

async fn play(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<StatusCode, Refusal> {
    is_json(&headers)?;
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
    let body = body.map_err(|_| Refusal::BadRequest(format!("the body is longer than {BODY_BYTES_MAX} bytes")))?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|_| {
        let known = "{\"command\":\"step\"} or {\"deed\":\"crash\",\"node\":1}";
        Refusal::BadRequest(format!("the body is no command or deed such as {known}"))
    })?;
    let mut player = shared.player();
    let messages = player.ask(asked).map_err(Refusal::BadRequest)?;
    shared.publish(messages);
    Ok(StatusCode::NO_CONTENT)
}

async fn live(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    if let Err(refusal) = is_own_page(&headers) {
        return refusal.into_response();
    }
    if shared.messages.receiver_count() >= STREAMS_MAX {
        return Refusal::Overloaded(QUIET).into_response();
    }
    let (messages, snapshot) = shared.join();
    let source = Source { shared, messages, waiting: snapshot.into_iter().collect() };
    let head = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (head, Body::from_stream(stream::unfold(source, Source::next))).into_response()
}

struct Source {
    shared: Shared,
    messages: Receiver<Bytes>,
    /// Messages that come before the others.
    waiting: VecDeque<Bytes>,
}

impl Source {
    /// The next message, and the source of those after it.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if let Some(message) = self.waiting.pop_front() {
            return Some((Ok(message), self));
        }
        match timeout(QUIET, self.messages.recv()).await {
            Ok(Ok(message)) => Some((Ok(message), self)),
            Ok(Err(RecvError::Closed)) => None,
            Ok(Err(RecvError::Lagged(lost))) => {
                let (messages, snapshot) = self.shared.join();
                self.messages = messages;
                self.waiting.extend(snapshot);
                Some((Ok(message("gap", &json!({ "lost": lost }))), self))
            }
            Err(_) => Some((Ok(Bytes::from_static(b":\n\n")), self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_at_all_addresses_is_known_by_each_of_them_and_by_no_name() {
        let named = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a value"));
            named(&headers).map(|address| address.to_string())
        };
        assert_eq!(named("10.0.0.1:8000").as_deref(), Some("10.0.0.1"));
        assert_eq!(named("[fd00::1]:8000").as_deref(), Some("fd00::1"));
        assert_eq!(named("evil.example:8000"), None);
        assert_eq!(named("a b"), None);
    }
}
