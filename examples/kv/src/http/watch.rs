//! `GET /v1/watch`: the changes of a key, or of all keys with a prefix, as server-sent events.
//!
//! A watch is a position in the replicated history of changes, so it goes on at any node, after its
//! last id. Nothing is queued for it: the changes of the next entry are read when the connection
//! has taken those before. A client that is too slow is told that its place in the history is gone.
//!
//! **Bounded:** at most [`WATCHES_MAX`] watches, half of them of one client; each has one message
//! in memory, with the changes of one entry, which have no large values.

use super::{
    Api, Refusal,
    body::{Caller, Pool},
    connections::Client,
    messages::{KeyChange, WatchAnswer},
};
use crate::{
    machine::{Change, KEY_BYTES_MAX, Kv},
    octets::Octets,
};
use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{FromRequestParts, Query, State},
    http::{
        HeaderMap,
        header::{CACHE_CONTROL, CONTENT_TYPE},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use hyper::body::Frame;
use quorate::{Changes, Index, Topics, Watch, WatchError};
use serde::Deserialize;
use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
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
        Self(Arc::new(Mutex::new(Pool::of(WATCHES_MAX, WATCHES_MAX / 2))))
    }
}

/// A place, returned on drop.
#[derive(Debug)]
struct Place {
    watches: Watches,
    client: Client,
}

impl Watches {
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
    let first = match now(watch.next()).await {
        Some(first) => Some(message(&first?)),
        None => None,
    };
    let messages = Messages { next: Some(Box::pin(begun(begin, first, watch, place))) };
    let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok(([("quorate-index", begin.to_string())], head, Body::new(messages)).into_response())
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

/// The next message, and all that is needed for those after it.
type Next = Pin<Box<dyn Future<Output = (Bytes, Option<(Watch<Kv>, Place)>)> + Send>>;

/// The body of an answer. The next message is looked for only when the one before is taken.
struct Messages {
    next: Option<Next>,
}

async fn begun(
    begin: Index,
    first: Option<Bytes>,
    watch: Watch<Kv>,
    place: Place,
) -> (Bytes, Option<(Watch<Kv>, Place)>) {
    let mut message = position(begin);
    if let Some(first) = first {
        message.extend_from_slice(&first);
    }
    (message.into(), Some((watch, place)))
}

async fn next(mut watch: Watch<Kv>, place: Place) -> (Bytes, Option<(Watch<Kv>, Place)>) {
    match timeout(QUIET, watch.next()).await {
        Ok(Ok(changes)) => (message(&changes), Some((watch, place))),
        Ok(Err(error)) => (farewell(error), None),
        Err(_) => (position(watch.position()).into(), Some((watch, place))),
    }
}

impl HttpBody for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(looking) = &mut self.next else { return Poll::Ready(None) };
        let (message, rest) = ready!(looking.as_mut().poll(cx));
        self.next = rest.map(|(watch, place)| Box::pin(next(watch, place)) as Next);
        Poll::Ready(Some(Ok(Frame::data(message))))
    }
}

/// The changes of an entry.
fn message(changes: &Changes<Change>) -> Bytes {
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
    message.into()
}

/// A message that only moves the client's last id: browsers see no event in it.
fn position(index: Index) -> Vec<u8> {
    format!("id: {index}\n\n").into_bytes()
}

/// The last message: the reason for which the watch ends.
fn farewell(error: WatchError) -> Bytes {
    let mut message = b"event: error\ndata: ".to_vec();
    write(&mut message, &Refusal::from(error).answer());
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
    use crate::{http::messages::ErrorAnswer, object};
    use quorate::LogTime;
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
        let gone = farewell(WatchError::Gone { floor: Index(9), position: Index(4) });
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
}
