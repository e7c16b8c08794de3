//! `GET /live`: the streams of the live page's data. [`live`](crate::live) makes the messages.
//!
//! **Bounded:** at most [`STREAMS_MAX`] streams, and half of the connections of the listener, or a
//! quarter where watches have half; half of both of one client. Their messages are shared. A stream whose connection does not take them misses some, is told how many, and gets the
//! whole page again.

use super::{
    Api, Refusal,
    body::{Caller, Pool},
    connections::Client,
    guard::Origin,
    headers::one,
    standing::Endless,
    watch::farewell,
};
use crate::{
    live::{Hub, Joined, message},
    machine::Kv,
};
use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, VARY,
        },
    },
    response::{IntoResponse, IntoResponseParts, Response, ResponseParts},
};
use futures_util::{StreamExt, stream};
use quorate::{MemberMetadata, ServiceNode};
use serde_json::json;
use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
};

/// The most streams of a node.
pub const STREAMS_MAX: usize = 64;
/// After this long without a message a comment shows that the connection works.
const QUIET: Duration = Duration::from_secs(5);
/// The time after which a browser connects again.
const RETRY: &[u8] = b"retry: 1000\n\n";

/// The streams of a node.
#[derive(Clone)]
pub(super) struct Streams {
    hub: Hub,
    places: Arc<Mutex<Pool>>,
}

impl Streams {
    pub(super) fn of(node: &ServiceNode<Kv>) -> Self {
        Self { hub: Hub::new(node.cluster().to_owned()), places: places_among(usize::MAX) }
    }

    /// The same with places of a listener with this number of connections.
    pub(super) fn among(self, connections: usize) -> Self {
        Self { places: places_among(connections), ..self }
    }

    /// Records the history while there is no stream, until the node ends.
    pub(super) fn keep_history(&self, node: &ServiceNode<Kv>) -> impl Future<Output = ()> + use<> {
        self.hub.keep_history(node.status(), node.events())
    }

    fn take(&self, client: Client) -> Result<Place, Refusal> {
        if !self.places.lock().unwrap_or_else(PoisonError::into_inner).take(client, 1) {
            return Err(Refusal::Overloaded(QUIET));
        }
        Ok(Place { places: Arc::clone(&self.places), client })
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").finish_non_exhaustive()
    }
}

fn places_among(connections: usize) -> Arc<Mutex<Pool>> {
    let places = STREAMS_MAX.min(connections / 2).max(1);
    Arc::new(Mutex::new(Pool::of(places, (places / 2).max(1))))
}

/// A stream's place, returned on drop.
struct Place {
    places: Arc<Mutex<Pool>>,
    client: Client,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).give_back(self.client, 1);
    }
}

/// Answers a browser that asks whether a page of another node may send its token here.
pub(super) async fn preflight(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Refusal> {
    let shared = Shared::with(&api, &headers)?;
    let may = [(ACCESS_CONTROL_ALLOW_HEADERS, "authorization"), (ACCESS_CONTROL_ALLOW_METHODS, "GET")];
    Ok(if shared.0.is_some() { (shared, may).into_response() } else { shared.into_response() })
}

/// The page of another node that may read the answer: a page moves to another node when its own
/// ends. It is one at the client address of a member.
struct Shared(Option<HeaderValue>);

impl Shared {
    fn with(api: &Api, headers: &HeaderMap) -> Result<Self, Refusal> {
        let status = api.node.status();
        let status = status.borrow();
        let members = status.metadata.values().filter_map(MemberMetadata::client_address);
        shared_with(members, headers).map(Self)
    }
}

impl IntoResponseParts for Shared {
    type Error = Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.0 {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        Ok(response)
    }
}

impl IntoResponse for Shared {
    fn into_response(self) -> Response {
        (self, StatusCode::NO_CONTENT).into_response()
    }
}

/// The origin of a request from a page of a member; `None` if the request is of no other site.
fn shared_with<'a>(
    mut members: impl Iterator<Item = &'a str>,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>, Refusal> {
    let site = one(headers, "sec-fetch-site")?;
    let is_foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
    let origin = one(headers, ORIGIN.as_str())?;
    let page = origin.and_then(|origin| Origin::parse(origin.to_str().ok()?));
    let is_member = page.is_some() && members.any(|member| Origin::parse(member) == page);
    match origin.filter(|_| is_member) {
        Some(origin) => Ok(Some(origin.clone())),
        None if is_foreign => {
            let why = "pages of sites that are no member's client address may not read here";
            Err(Refusal::Forbidden(why.to_owned()))
        }
        None => Ok(None),
    }
}

/// Answers with the state of the cluster, until the client or the node leaves.
pub(super) async fn live(
    State(api): State<Api>,
    Caller(client): Caller,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    api.open()?;
    let shared = Shared::with(&api, &headers)?;
    let place = api.streams.take(client)?;
    let Joined { messages, snapshot, is_first } = api.streams.hub.join();
    if is_first {
        let status = api.node.status();
        let metadata = move || Arc::clone(&status.borrow().metadata);
        tokio::spawn(api.streams.hub.clone().run(api.node.watch_cluster(), metadata));
    }
    let waiting = [Some(Bytes::from_static(RETRY)), snapshot].into_iter().flatten().collect();
    let source = Source { hub: api.streams.hub, messages, waiting, _place: place };
    let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    // A message is looked for once the connection has fewer bytes queued than it buffers.
    let messages = stream::unfold(source, Source::next).map(Ok::<_, Infallible>);
    let mut response = (shared, head, Body::from_stream(messages)).into_response();
    response.extensions_mut().insert(Endless(|refusal| Some(farewell(refusal))));
    Ok(response)
}

struct Source {
    hub: Hub,
    messages: Receiver<Bytes>,
    /// Messages that come before those of the hub.
    waiting: VecDeque<Bytes>,
    _place: Place,
}

impl Source {
    /// The next message, and the source of those after it; `None` once the node has ended.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if let Some(message) = self.waiting.pop_front() {
            return Some((message, self));
        }
        match timeout(QUIET, self.messages.recv()).await {
            Ok(Ok(message)) => Some((message, self)),
            Ok(Err(RecvError::Closed)) => None,
            Ok(Err(RecvError::Lagged(lost))) => {
                let Joined { messages, snapshot, .. } = self.hub.join_again()?;
                self.messages = messages;
                self.waiting.extend(snapshot);
                Some((message("gap", &json!({ "lost": lost })), self))
            }
            Err(_) => Some((Bytes::from_static(b":\n\n"), self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Limits, descriptors::ConnectionLimit, live::patch};
    use http_body_util::BodyExt;
    use quorate::{Node, NodeId, Timing, metrics::Metrics, storage::Memory, transport::MemoryNetwork};
    use serde_json::Value;
    use std::{collections::BTreeMap, net::IpAddr};

    mod split_vote;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_shows_the_death_of_the_leader_the_election_and_the_new_leader() {
        let nodes = three().await;
        let (old, at) = roles(&nodes);
        let mut stream = Stream::open(&api(&nodes[&at])).await;
        let nodes_of = |page: &Value| page["nodes"].as_object().map_or(0, serde_json::Map::len);
        stream
            .until("all nodes", |stream| nodes_of(&stream.page) == 3 && stream.page["verdict"]["level"] == "ok")
            .await;
        assert_eq!(stream.page["leader"], old.0);
        assert_eq!(stream.page["cluster"], "testing");
        assert_eq!(stream.page["served_by"], at.0);
        let links = stream.page["links"].as_object().expect("links");
        assert!(links.keys().all(|name| name.starts_with(&format!("{old}>"))) && links.len() == 2, "{links:?}");

        nodes[&old].shutdown().await;
        stream.until("a new leader", |stream| stream.page["leader"].as_u64().is_some_and(|new| new != old.0)).await;
        let new = stream.page["leader"].as_u64().expect("a leader");
        let is = |of: &Value, kind: &str| of["kind"] == kind;
        stream
            .until("its election", |stream| {
                let mut elected = stream.events.iter().filter(|event| is(event, "leader_elected"));
                let mut votes = stream.ballots.iter().filter(|ballot| is(ballot, "vote") && ballot["to"] == new);
                elected.any(|event| event["node"] == new) && votes.any(|ballot| ballot["answer"] == "yes")
            })
            .await;
        stream
            .until("the node that is gone", |stream| {
                let needs = stream.page["needs"].as_array().expect("a list");
                stream.page["nodes"][old.to_string()]["up"] == false && needs.iter().any(|need| need["node"] == old.0)
            })
            .await;
        assert_eq!(stream.page["verdict"]["word"], "Degraded");

        nodes[&at].shutdown().await;
        while stream.next().await {}
        for node in nodes.values() {
            node.shutdown().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_late_stream_begins_with_the_page_that_the_others_have() {
        let nodes = three().await;
        let api = api(&nodes[&NodeId(1)]);
        let mut first = Stream::open(&api).await;
        first.until("all nodes", |stream| stream.page["nodes"].as_object().is_some_and(|nodes| nodes.len() == 3)).await;
        let mut second = Stream::open(&api).await;
        second.until("a page", |stream| stream.page.is_object()).await;
        assert_eq!(second.page["nodes"].as_object().map(serde_json::Map::len), Some(3), "{}", second.page);
        assert!(second.page["events"].as_array().is_some_and(|events| !events.is_empty()));
        assert!(second.page["history"]["spans"].as_array().is_some_and(|spans| !spans.is_empty()));
        for node in nodes.values() {
            node.shutdown().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_first_stream_has_what_its_node_knew_before() {
        let nodes = three().await;
        let (leader, at) = roles(&nodes);
        let api = api(&nodes[&at]);
        let recording = tokio::spawn(api.keep_history());
        let waiting = async {
            while api.streams.hub.points() < 2 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("recorded once a second");
        let mut stream = Stream::open(&api).await;
        stream.until("a page", |stream| stream.page.is_object()).await;
        let history = &stream.page["history"];
        assert!(history["series"].as_array().is_some_and(|points| points.len() >= 2), "{history}");
        let mut spans = history["spans"].as_array().expect("a list").iter();
        let has_led =
            |span: &Value| span["what"] == "leader" && span["node"] == leader.0 && span["from_ms"] != span["to_ms"];
        assert!(spans.any(has_led), "{history}");
        for node in nodes.values() {
            node.shutdown().await;
        }
        timeout(PATIENCE, recording).await.expect("it ends with its node").expect("no panic");
    }

    /// As a panic ends it.
    #[tokio::test(flavor = "multi_thread")]
    async fn streams_end_with_the_task_that_makes_their_pages_and_a_later_one_begins_anew() {
        let nodes = three().await;
        let hub = Hub::new("testing".into());
        let node = &nodes[&NodeId(1)];
        let run = || tokio::spawn(hub.clone().run(node.watch_cluster(), Arc::default));
        let mut first = hub.join();
        assert!(first.is_first);
        let making = run();
        timeout(PATIENCE, first.messages.recv()).await.expect("in time").expect("a page");
        making.abort();
        let ended = async { while !matches!(first.messages.recv().await, Err(RecvError::Closed)) {} };
        timeout(PATIENCE, ended).await.expect("the stream ends");
        let mut second = hub.join();
        assert!(second.is_first, "it runs the hub");
        let making = run();
        timeout(PATIENCE, second.messages.recv()).await.expect("in time").expect("a page");
        making.abort();
        for node in nodes.values() {
            node.shutdown().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_reader_is_told_what_it_missed_and_gets_the_whole_page_again() {
        let nodes = three().await;
        let api = api(&nodes[&NodeId(1)]);
        let (mut slow, mut quick) = (Stream::open(&api).await, Stream::open(&api).await);
        slow.until("a page", |stream| stream.page.is_object()).await;
        // More messages than wait for a stream; this one does not read them.
        quick.until("many messages", |stream| stream.messages > 2 * crate::live::MESSAGES_MAX).await;
        slow.until("a gap", |stream| stream.lost > 0).await;
        let snapshots = slow.snapshots;
        slow.until("the page again", |stream| stream.snapshots > snapshots).await;
        slow.until("a patch of it", |stream| stream.last == "delta").await;
        for node in nodes.values() {
            node.shutdown().await;
        }
    }

    #[test]
    fn a_page_of_a_member_may_read_and_one_of_another_site_may_not() {
        let members = ["https://10.0.0.1:8080", "https://10.0.0.2:8080", "https://KV.example:443", "nonsense"];
        let check = |origin: Option<&'static str>, site: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            origin.map(|origin| headers.insert(ORIGIN, HeaderValue::from_static(origin)));
            site.map(|site| headers.insert("sec-fetch-site", HeaderValue::from_static(site)));
            shared_with(members.into_iter(), &headers)
                .map(|origin| origin.map(|origin| origin.to_str().unwrap_or_default().to_owned()))
        };
        let member = Some(members[1]);
        assert_eq!(check(member, Some("same-site")).ok().flatten().as_deref(), member);
        assert_eq!(check(member, None).ok().flatten().as_deref(), member);
        // A browser writes a host in lower case, and leaves out the port of the scheme.
        let normal = Some("https://kv.example");
        assert_eq!(check(normal, Some("same-site")).ok().flatten().as_deref(), normal);
        assert_eq!(check(None, None).ok(), Some(None), "no browser");
        assert_eq!(check(None, Some("same-origin")).ok(), Some(None), "its own page");
        for foreign in [
            Some("https://evil.example"),
            Some("https://10.0.0.2:8081"),
            Some("http://10.0.0.2:8080"),
            Some("http://kv.example"),
            Some("http://kv.example:443"),
            Some("nonsense"),
            Some("null"),
            None,
        ] {
            assert!(check(foreign, Some("cross-site")).is_err(), "{foreign:?}");
        }
    }

    #[test]
    fn streams_take_half_of_the_listener_s_places_at_most_half_of_these_of_one_client_and_give_them_back() {
        let client = |nth: u8| Client::from(IpAddr::from([10, 0, 0, nth]));
        for (connections, places) in [(usize::MAX, STREAMS_MAX), (4096, STREAMS_MAX), (64, 32), (8, 4)] {
            let streams = Streams { hub: Hub::new("testing".into()), places: places_among(usize::MAX) };
            let streams = streams.among(connections);
            let of_one: Vec<_> = (0..places / 2).map(|_| streams.take(client(1)).expect("a place")).collect();
            assert!(streams.take(client(1)).is_err(), "its share");
            let rest: Vec<_> = (0..places / 2).map(|_| streams.take(client(2)).expect("a place")).collect();
            assert!(streams.take(client(3)).is_err(), "{connections}");
            drop(of_one);
            assert!(streams.take(client(1)).is_ok());
            drop(rest);
        }
        let least = Streams { hub: Hub::new("testing".into()), places: places_among(1) };
        assert!(least.take(client(1)).is_ok(), "one at least");
    }

    /// Without a listener for operators, watches and streams share one.
    #[tokio::test]
    async fn watches_and_streams_leave_a_quarter_of_a_listener_that_serves_both() {
        let node = Node::builder(NodeId(1), "testing").voters([(NodeId(1), "")]).storage(Memory::new());
        let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).serve(Kv::default).start().await;
        let node = node.expect("a node");
        let places = |api: &Api| {
            let of = |nth: u8| Client::from(IpAddr::from([10, 0, 0, nth]));
            (0..=u8::MAX).map_while(|nth| api.streams.take(of(nth)).ok()).collect::<Vec<_>>().len()
        };
        let (all, clients) = ConnectionLimit::claim(24).split(8);
        let shared = api(&node).for_connections(ConnectionLimit::claim(24));
        assert_eq!(places(&shared), 6);
        assert_eq!(places(&api(&node).for_connections(all).for_administration(clients)), 4);
        node.shutdown().await;
    }

    /// A reader of a stream, which keeps the page as a browser does.
    struct Stream {
        body: Body,
        page: Value,
        events: Vec<Value>,
        ballots: Vec<Value>,
        messages: usize,
        snapshots: usize,
        lost: u64,
        last: String,
    }

    impl Stream {
        async fn open(api: &Api) -> Self {
            let client = Client::from(IpAddr::from([10, 0, 0, 1]));
            let body = live(State(api.clone()), Caller(client), HeaderMap::new()).await.expect("a stream").into_body();
            let (events, ballots, last) = (Vec::new(), Vec::new(), String::new());
            Self { body, page: Value::Null, events, ballots, messages: 0, snapshots: 0, lost: 0, last }
        }

        /// Takes the next message; `false` at the end.
        async fn next(&mut self) -> bool {
            let Some(frame) = timeout(PATIENCE, self.body.frame()).await.expect("in time") else { return false };
            let bytes = frame.expect("it is whole").into_data().expect("data");
            let text = std::str::from_utf8(&bytes).expect("text");
            let Some(message) = text.strip_prefix("event: ") else { return true };
            let (event, data) = message.split_once("\ndata: ").expect("data");
            let data: Value = serde_json::from_str(data.strip_suffix("\n\n").expect("an end")).expect("JSON");
            self.messages += 1;
            self.last = event.to_owned();
            match event {
                "snapshot" => {
                    self.snapshots += 1;
                    self.events = data["events"].as_array().expect("events").clone();
                    self.page = data;
                }
                "delta" => patch::apply(&mut self.page, &data),
                "event" => self.events.push(data),
                "ballot" => self.ballots.push(data),
                "gap" => self.lost += data["lost"].as_u64().expect("a number"),
                other => panic!("{other}: {data}"),
            }
            true
        }

        async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
            let waiting = async {
                while !holds(self) {
                    assert!(self.next().await, "the stream ended before {what}");
                }
            };
            let found = timeout(PATIENCE, waiting).await;
            assert!(found.is_ok(), "{what}: not within {PATIENCE:?}; the page is {:#}", self.page);
        }
    }

    fn api(node: &ServiceNode<Kv>) -> Api {
        Api::new(node.clone(), Metrics::new(), &Limits::default())
    }

    /// Three nodes with a leader. They share processors with other tests, so elections take longer.
    async fn three() -> BTreeMap<NodeId, ServiceNode<Kv>> {
        let (network, mut nodes) = (MemoryNetwork::new(), BTreeMap::new());
        let ms = Duration::from_millis;
        for id in [1, 2, 3].map(NodeId) {
            let node = Node::builder(id, "testing").voters([1, 2, 3].map(|id| (NodeId(id), "")));
            let node = node.network(network.endpoint(id)).storage(Memory::new());
            let node = node.timing(Timing::default().with_election_timeout((ms(600), ms(1_200))));
            nodes.insert(id, node.serve(Kv::default).start().await.expect("a node"));
        }
        for node in nodes.values() {
            let mut status = node.status();
            let led = timeout(PATIENCE, status.wait_for(|status| status.leader.is_some())).await;
            led.expect("in time").expect("it runs");
        }
        nodes
    }

    /// The leader and another node.
    fn roles(nodes: &BTreeMap<NodeId, ServiceNode<Kv>>) -> (NodeId, NodeId) {
        let leader = nodes[&NodeId(1)].status().borrow().leader.expect("a leader");
        (leader, *nodes.keys().find(|id| **id != leader).expect("another"))
    }
}
