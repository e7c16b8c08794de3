//! `GET /v1/watch`: the changes of a key, or of all keys with a prefix, as server-sent events.
//!
//! A watch is a position in the replicated history of changes, so it goes on at any node, after its
//! last id. Nothing is queued for it: the changes of the next entry are read when the connection
//! has taken those before. A client that is too slow is told that its place in the history is gone.
//!
//! **Bounded:** at most [`WATCHES_MAX`] watches, and half of the listener's connections, because a
//! watch holds its connection for good; half of both of one client. Others get `overloaded`. The
//! share of a client is fixed, so no watch has to end when another client comes. A message has the
//! changes of one entry: no large values, but a transaction has megabytes of small ones. Its bytes are
//! charged to the budget of answers until they are sent. A watch whose next message finds no room
//! there ends with `overloaded`, and its client goes on after its last id. Messages without changes
//! are not charged, so that a quiet watch stays.

use super::{
    Api, Refusal,
    body::{Budget, Caller, Pool},
    connections::Client,
    messages::{KeyChange, WatchAnswer},
    standing::Endless,
};
use crate::{
    machine::{Change, KEY_BYTES_MAX, Kv},
    octets::Octets,
};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequestParts, Query, State},
    http::{
        HeaderMap,
        header::{CACHE_CONTROL, CONTENT_TYPE},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use quorate::{Changes, Index, Topics, Watch, WatchError};
use serde::Deserialize;
use std::{
    convert::Infallible,
    future::{poll_fn, ready},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};
use tokio::time::timeout;

/// The maximum number of watches of a node.
pub const WATCHES_MAX: usize = 1_000;
/// The interval of messages without changes: they show that the connection works, and keep the
/// client's position in the history.
const QUIET: Duration = Duration::from_secs(5);
/// The header of a browser that connects again: the last id that it got.
const LAST_EVENT_ID: &str = "last-event-id";

/// The places of the watches of a node.
#[derive(Clone, Debug)]
pub(super) struct Watches(Arc<Mutex<Pool>>);

impl Default for Watches {
    fn default() -> Self {
        Self::among(usize::MAX)
    }
}

/// A place, returned on drop.
#[derive(Debug)]
struct Place {
    watches: Watches,
    client: Client,
}

impl Watches {
    /// Places of a listener with this number of connections.
    pub(super) fn among(connections: usize) -> Self {
        let places = WATCHES_MAX.min(connections / 2).max(1);
        Self(Arc::new(Mutex::new(Pool::of(places, (places / 2).max(1)))))
    }

    fn take(&self, client: Client) -> Result<Place, Refusal> {
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).take(client, 1) {
            return Err(Refusal::Overloaded(QUIET));
        }
        Ok(Place { watches: self.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.watches.0.lock().unwrap_or_else(PoisonError::into_inner).give_back(self.client, 1);
    }
}

/// Answers with the changes, from now on or after an index, until the client or the node leaves.
pub(super) async fn watch(
    State(api): State<Api>,
    Caller(client): Caller,
    wanted: Result<Wanted, Refusal>,
) -> Result<Response, Refusal> {
    api.open()?;
    let Wanted { topics, after } = wanted?;
    let place = api.watches.take(client)?;
    let watching = api.node.watch(topics);
    let mut watch = match after {
        Some(after) => watching.after(after).await?,
        None => watching.await?,
    };
    let begin = watch.position();
    // A position that the history has left is refused before anything is sent.
    let changes = now(watch.next()).await.transpose()?;
    let source = Source { watch, place, answers: api.answers };
    let first = match changes {
        Some(changes) => source.charged([position(begin), message(&changes)].concat())?,
        None => position(begin).into(),
    };
    // A message is looked for once the connection has fewer bytes queued than it buffers.
    let further = stream::unfold(Some(source), |source| async { Some(source?.next().await) });
    let messages = stream::once(ready(first)).chain(further).map(Ok::<_, Infallible>);
    let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    let mut response = ([("quorate-index", begin.to_string())], head, Body::from_stream(messages)).into_response();
    response.extensions_mut().insert(Endless(|refusal| Some(farewell(refusal))));
    Ok(response)
}

/// The output of a future, if it has one at once.
async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchQuery {
    key: Option<String>,
    prefix: Option<String>,
    after: Option<u64>,
}

/// The keys to watch, and the index after which to begin.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    topics: Topics,
    after: Option<Index>,
}

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::<WatchQuery>::from_request_parts(parts, state).await;
        query.map_err(|error| Refusal::BadRequest(error.body_text()))?.0.wanted(&parts.headers)
    }
}

impl WatchQuery {
    fn wanted(self, headers: &HeaderMap) -> Result<Wanted, Refusal> {
        let (topics, bytes) = match (self.key, self.prefix) {
            (Some(key), None) => (Topics::One(key.clone()), key.len()),
            (None, Some(prefix)) if prefix.is_empty() => (Topics::All, 0),
            (None, Some(prefix)) => (Topics::Prefix(prefix.clone()), prefix.len()),
            _ => {
                let why = "a watch needs either key or prefix, which may be empty; give one of the two";
                return Err(Refusal::BadRequest(why.to_owned()));
            }
        };
        if bytes > KEY_BYTES_MAX {
            let why = format!("key or prefix has more than {KEY_BYTES_MAX} bytes, as no key has");
            return Err(Refusal::TooLarge(why));
        }
        let last = super::headers::one(headers, LAST_EVENT_ID)?.map(|last| {
            let last = last.to_str().ok().and_then(|last| last.parse().ok());
            last.ok_or_else(|| Refusal::BadRequest(format!("{LAST_EVENT_ID} is not an id of a watch")))
        });
        // A browser sends the first address again, with its position in the header.
        Ok(Wanted { topics, after: last.transpose()?.or(self.after).map(Index) })
    }
}

/// A watch, and what its messages take.
struct Source {
    watch: Watch<Kv>,
    place: Place,
    answers: Budget,
}

impl Source {
    fn charged(&self, message: Vec<u8>) -> Result<Bytes, Refusal> {
        Ok(self.answers.charge(self.place.client, message.len())?.with(message))
    }

    /// The next message, and the source of those after it unless it is the last.
    async fn next(mut self) -> (Bytes, Option<Self>) {
        let message = match timeout(QUIET, self.watch.next()).await {
            Ok(Ok(changes)) => self.charged(message(&changes)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Ok(position(self.watch.position()).into()),
        };
        match message {
            Ok(message) => (message, Some(self)),
            Err(refusal) => (farewell(&refusal), None),
        }
    }
}

/// The changes of an entry.
fn message(changes: &Changes<Change>) -> Vec<u8> {
    let index = changes.index;
    let answers = changes.events.iter().map(|(key, change)| {
        let key = key.to_string();
        match &**change {
            Change::Put { value, bytes, .. } => {
                let value = value.clone().map(|value| Octets(Bytes::from_owner(value)));
                let bytes = value.is_none().then_some(*bytes);
                KeyChange::Put { key, value, bytes }
            }
            Change::Delete => KeyChange::Delete { key },
            Change::Expire => KeyChange::Expire { key },
        }
    });
    let changes = WatchAnswer { index, changes: answers.collect() };
    let mut message = format!("id: {index}\ndata: ").into_bytes();
    write(&mut message, &changes);
    message
}

/// A message that only moves the client's last id: browsers see no event in it.
fn position(index: Index) -> Vec<u8> {
    format!("id: {index}\n\n").into_bytes()
}

/// The last message: the reason for which the watch ends.
pub(super) fn farewell(refusal: &Refusal) -> Bytes {
    let mut message = b"event: error\ndata: ".to_vec();
    write(&mut message, &refusal.answer());
    message.into()
}

fn write(message: &mut Vec<u8>, json: &impl serde::Serialize) {
    serde_json::to_writer(&mut *message, json).unwrap_or_else(|error| unreachable!("into memory: {error}"));
    message.extend_from_slice(b"\n\n");
}

impl From<WatchError> for Refusal {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Gone { floor, position } => Self::ChangesGone { floor, position },
            WatchError::Overloaded { retry_after } => Self::Overloaded(retry_after),
            WatchError::Witness => Self::Witness(error.to_string()),
            WatchError::Halted { .. } => Self::Halted(error.to_string()),
            _ => Self::Stopping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Limits,
        http::{ANSWERS_BYTES_MAX, messages::ErrorAnswer},
        machine::{Command, EVENT_VALUE_BYTES_MAX, Operation, Txn},
        object,
    };
    use http_body_util::BodyExt;
    use quorate::{LogTime, Node, NodeId, metrics::Metrics, storage::Memory, transport::MemoryNetwork};
    use std::net::IpAddr;

    #[test]
    fn a_message_has_the_changes_of_an_entry_in_one_line() {
        let put = |value: Option<&[u8]>, bytes| Change::Put { value: value.map(Into::into), bytes, until: None };
        let events = [
            ("a", put(Some(b"1\n2"), 3)),
            ("b\n", put(Some(b"\xff\0"), 2)),
            ("c", put(None, 5_000)),
            ("d", Change::Delete),
            ("e", Change::Expire),
        ];
        let events = events.map(|(key, change)| (key.into(), change.into())).into();
        let message = message(&Changes { index: Index(7), time: LogTime(1), events });
        let expected = concat!(
            "id: 7\ndata: {\"index\":7,\"changes\":[{\"put\":{\"key\":\"a\",\"value\":\"1\\n2\"}},",
            "{\"put\":{\"key\":\"b\\n\",\"value\":{\"base64\":\"/wA=\"}}},{\"put\":{\"key\":\"c\",\"bytes\":5000}},",
            "{\"delete\":{\"key\":\"d\"}},{\"expire\":{\"key\":\"e\"}}]}\n\n"
        );
        assert_eq!(std::str::from_utf8(&message).expect("text"), expected);
        let json = &message[b"id: 7\ndata: ".len()..];
        let read: WatchAnswer = object::from_json(json).expect("it is read back");
        assert_eq!((read.index, read.changes.len()), (Index(7), 5));
    }

    #[test]
    fn the_last_message_names_the_reason_and_the_index_to_begin_at() {
        let gone = farewell(&WatchError::Gone { floor: Index(9), position: Index(4) }.into());
        let text = std::str::from_utf8(&gone).expect("text");
        let json = text.strip_prefix("event: error\ndata: ").and_then(|json| json.strip_suffix("\n\n")).expect("one");
        let answer: ErrorAnswer = object::from_json(json.as_bytes()).expect("JSON");
        assert_eq!((&*answer.error, answer.index), ("gone", Some(Index(9))));
        assert!(answer.message.contains("up to index 9"), "{}", answer.message);
    }

    #[test]
    fn a_watch_is_of_a_key_or_a_prefix_and_the_header_comes_before_the_parameter() {
        let wanted = |key: Option<&str>, prefix: Option<&str>, after, last: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for last in last {
                headers.append(LAST_EVENT_ID, last.parse().expect("a value"));
            }
            WatchQuery { key: key.map(Into::into), prefix: prefix.map(Into::into), after }.wanted(&headers)
        };
        let key = |after: Option<u64>| Ok(Wanted { topics: Topics::One("k".into()), after: after.map(Index) });
        assert_eq!(wanted(Some("k"), None, None, &[]), key(None));
        assert_eq!(wanted(Some("k"), None, Some(0), &[]), key(Some(0)));
        assert_eq!(wanted(Some("k"), None, Some(3), &["5"]), key(Some(5)));
        let topics = Topics::Prefix("k".into());
        assert_eq!(wanted(None, Some("k"), None, &[]), Ok(Wanted { topics, after: None }));
        assert_eq!(wanted(None, Some(""), None, &[]), Ok(Wanted { topics: Topics::All, after: None }));
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        for (key, prefix, last) in [
            (None, None, &[][..]),
            (Some("k"), Some("k"), &[]),
            (Some("k"), None, &["soon"]),
            (Some("k"), None, &["-1"]),
            (Some("k"), None, &["1", "2"]),
            (Some(&*long), None, &[]),
            (None, Some(&*long), &[]),
        ] {
            assert!(wanted(key, prefix, None, last).is_err(), "{key:?} {prefix:?} {last:?}");
        }
    }

    #[test]
    fn the_places_are_bounded_and_one_client_has_half_of_them_at_most() {
        let (watches, client) = (Watches::default(), |nth: u8| Client::from(IpAddr::from([10, 0, 0, nth])));
        let of_one: Vec<_> = (0..WATCHES_MAX / 2).map(|_| watches.take(client(1)).expect("a place")).collect();
        assert_eq!(watches.take(client(1)).expect_err("its share"), Refusal::Overloaded(QUIET));
        let rest: Vec<_> = (0..WATCHES_MAX / 2).map(|_| watches.take(client(2)).expect("a place")).collect();
        assert!(watches.take(client(3)).is_err());
        drop(of_one);
        assert!(watches.take(client(1)).is_ok());
        drop(rest);
    }

    #[test]
    fn watches_take_half_of_the_connections_and_those_of_one_client_a_quarter() {
        for (connections, places, of_one) in
            [(4096, 1000, 500), (2000, 1000, 500), (112, 56, 28), (8, 4, 2), (3, 1, 1), (1, 1, 1)]
        {
            let (watches, mut held) = (Watches::among(connections), Vec::new());
            for nth in 1..=4 {
                let client = Client::from(IpAddr::from([10, 0, 0, nth]));
                let before = held.len();
                held.extend(std::iter::from_fn(|| watches.take(client).ok()));
                assert!(held.len() - before <= of_one, "{connections}: {}", held.len() - before);
            }
            assert_eq!(held.len(), places, "{connections}");
        }
    }

    #[tokio::test]
    async fn a_message_is_charged_until_it_is_sent_and_a_watch_without_room_ends_by_name() {
        let node = Node::builder(NodeId(1), "testing").voters([(NodeId(1), "")]);
        let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
        let node = node.serve(Kv::default).start().await.expect("a node");
        let api = Api::new(node.clone(), Metrics::new(), &Limits::default());
        let (client, share) = (Client::from(IpAddr::from([10, 0, 0, 1])), ANSWERS_BYTES_MAX / 2);
        let call = async |command| node.call(command).within(PATIENCE).await.expect("applied").index;
        let open = async |after| {
            let wanted = Wanted { topics: Topics::All, after };
            watch(State(api.clone()), Caller(client), Ok(wanted)).await.map(Response::into_body)
        };
        let put = |number| Operation::Put { key: format!("k/{number}").into(), value: VALUE.into() };
        let long = || Command::Txn(Txn { success: (0..32).map(put).collect(), ..Txn::default() });

        call(Command::Put { key: "k".into(), value: b"v".into(), ttl_ms: None }).await;
        let held = api.answers.charge(client, share).expect("its share");
        let mut body = open(None).await.expect("a watch");
        assert!(text(&next(&mut body).await).ends_with("\n\n"), "it is open");
        let short = call(Command::Delete { key: "k".into() }).await;
        assert!(text(&next(&mut body).await).starts_with(&format!("id: {short}\n")), "it has the room of small ones");
        let index = call(long()).await;
        let last = next(&mut body).await;
        assert!(text(&last).starts_with("event: error\n") && text(&last).contains("\"overloaded\""), "{last:?}");
        assert!(body.frame().await.is_none(), "it is over");
        let refused = open(Some(short)).await.expect_err("no room for the first one");
        assert!(matches!(refused, Refusal::Overloaded(_)), "{refused:?}");
        drop(held);

        // It goes on after its last id; the first message and a later one are charged.
        let mut body = open(Some(short)).await.expect("a watch");
        for index in [index, call(long()).await] {
            let message = next(&mut body).await;
            assert!(message.len() > 32 * EVENT_VALUE_BYTES_MAX && text(&message).contains(&format!("id: {index}\n")));
            assert!(api.answers.charge(client, share).is_err(), "it is not sent");
            drop(message);
            assert!(api.answers.charge(client, share).is_ok(), "all is given back");
        }
        node.shutdown().await;
    }

    const PATIENCE: Duration = Duration::from_secs(60);
    const VALUE: &[u8] = &[b'v'; EVENT_VALUE_BYTES_MAX];

    async fn next(body: &mut Body) -> Bytes {
        let frame = timeout(PATIENCE, body.frame()).await.expect("in time");
        frame.expect("a message").expect("it is whole").into_data().expect("data")
    }

    fn text(message: &Bytes) -> &str {
        std::str::from_utf8(message).expect("text")
    }
}
