//! Watches and times to live: over HTTP and on the command line, while a leader is killed, and
//! beyond their bounds.

use crate::support::{PATIENCE, Running, cluster, laid_out_with, raw, run};
use quorate::{Index, NodeId};
use quorate_kv::{
    client::{Client, ReadMode, WatchRequest, Watched, Watching},
    cluster::Signal,
    http::{
        WATCHES_MAX,
        messages::{CompareRequest, KeyChange, OperationRequest, PairRequest, TxnRequest, WatchAnswer},
    },
    octets::Octets,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_another_node_when_its_leader_is_killed_and_has_every_write_once() {
    const WRITES: usize = 200;
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let (mut writer, mut watcher) =
        (cluster.client(&followers).expect("a client"), cluster.client(&of(leader, &followers)).expect("a client"));
    let mut watching = watcher.watch(prefixed("k/")).await.expect("a watch");
    let write = async {
        let mut written = Vec::new();
        for number in 0..WRITES {
            if number == WRITES / 2 {
                cluster.kill(leader).await.expect("killed");
            }
            let (key, value) = (format!("k/{}", number % 7), format!("{number}"));
            let index = writer.put(&key, value.clone()).await.expect("written").index;
            writer.put("other", value.clone()).await.expect("written");
            written.push((index, key, value));
        }
        written
    };
    let watch = async {
        let mut told = Vec::new();
        while told.len() < WRITES {
            told.extend(puts(&next(&mut watching).await));
        }
        told
    };
    let (written, told) = tokio::join!(write, watch);
    assert_eq!(told, written, "every write once, in the order of the log");

    // From any index on, at any node, it is the same history.
    let (after, last) = (written[WRITES / 3].0, written[WRITES - 1].0);
    for node in followers {
        let mut client = cluster.client(&[node]).expect("a client");
        let request = WatchRequest { after: Some(after), ..prefixed("k/") };
        let mut watching = client.watch(request).await.expect("a watch");
        let mut told = Vec::new();
        while watching.position() < Some(last) {
            told.extend(puts(&next(&mut watching).await));
        }
        assert_eq!(told, written[WRITES / 3 + 1..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_to_live_outlives_its_leader_and_ends_at_one_index_for_everybody() {
    const TTL: Duration = Duration::from_secs(4);
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let [url, leader_url] = [followers[0], leader].map(|id| cluster.endpoint(id));
    let mut watchers: Vec<_> = followers.iter().map(|id| cluster.client(&[*id]).expect("a client")).collect();
    let [one, other] = &mut watchers[..] else { panic!("two followers") };
    let (mut one, mut other) =
        (one.watch(keyed("lease")).await.expect("a watch"), other.watch(keyed("lease")).await.expect("a watch"));

    let put = Instant::now();
    run(&["put", "lease", "mine", "--ttl", "4s", "--endpoint", &leader_url]).await.succeeded();
    run(&["put", "kept", "mine", "--ttl", "4s", "--endpoint", &leader_url]).await.succeeded();
    run(&["put", "kept", "for good", "--endpoint", &url]).await.succeeded();
    for watching in [&mut one, &mut other] {
        assert!(matches!(&next(watching).await.changes[..], [KeyChange::Put { .. }]));
    }
    cluster.kill(leader).await.expect("killed");

    let mut client = cluster.client(&followers).expect("a client");
    let held = TxnRequest {
        compare: vec![CompareRequest { key: "lease".into(), value: Some(Some(octets("mine"))), exists: None }],
        ..TxnRequest::default()
    };
    cluster.leader(PATIENCE).await.expect("a leader");
    let holds = client.txn(&held).await.expect("answered").succeeded;
    // Log time may be counted for less than real time, never for more than the clocks drift.
    assert!(holds || put.elapsed() > TTL * 9 / 10, "it ended after {:?}", put.elapsed());
    let ended = [next(&mut one).await, next(&mut other).await];
    assert!(put.elapsed() > TTL * 9 / 10, "it ended after {:?}", put.elapsed());
    assert_eq!(ended[0], ended[1], "at one index on both nodes");
    assert_eq!(ended[0].changes, [KeyChange::Expire { key: "lease".into() }]);

    assert!(!client.txn(&held).await.expect("answered").succeeded);
    assert_eq!(client.get("lease", ReadMode::Linearizable).await.expect("read").value, None);
    assert_eq!(
        client.get("kept", ReadMode::Linearizable).await.expect("read").value.as_deref(),
        Some(&b"for good"[..])
    );
    let swapped = client.cas("lease", None, "yours").await.expect("answered").swapped;
    assert!(swapped, "the key is free");
    assert_eq!(puts(&next(&mut one).await)[0].2, "yours");
    for id in &followers {
        let local = client_of(&cluster, *id).get("lease", ReadMode::Linearizable).await.expect("read");
        assert_eq!(local.value.as_deref(), Some(&b"yours"[..]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_print_changes_and_refuse_a_bad_time_to_live() {
    let cluster = cluster(1).await;
    let url = cluster.endpoint(cluster.ids()[0]);
    let mut client = cluster.client(&cluster.ids()).expect("a client");
    let first = client.put("a/1", "one\ttwo").await.expect("written").index;
    let pairs = [("a/2", "v"), ("b", "v"), ("a/3", &*"v".repeat(5_000))];
    let second = client.txn(&putting(&pairs)).await.expect("executed").index;
    let third = client.delete("a/1").await.expect("removed").index;
    let watch = async |more: &[&str]| {
        let args = [&["watch", "--endpoint", &url, "--after", "0", "--limit", "4"][..], more].concat();
        run(&args).await.succeeded()
    };
    let lines =
        format!("{first}\tput\ta/1\tone\\ttwo\n{second}\tput\ta/2\tv\n{second}\tput-long\ta/3\n{third}\tdelete\ta/1\n");
    assert_eq!(watch(&["--prefix", "a/"]).await, lines);
    let answers = watch(&["--prefix", "a/", "--json"]).await;
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let long = json!({ "put": { "key": "a/3", "bytes": 5_000 } });
    assert_eq!(answers[1], json!({ "index": second, "changes": [{ "put": { "key": "a/2", "value": "v" } }, long] }));
    assert_eq!(
        run(&["watch", "a/1", "--endpoint", &url, "--after", &first.to_string(), "--limit", "1"]).await.succeeded(),
        format!("{third}\tdelete\ta/1\n")
    );
    for args in [&["watch"][..], &["watch", "a", "--prefix", "b"], &["put", "a", "b", "--ttl", "soon"]] {
        assert_eq!(run(args).await.code, Some(2), "{args:?}");
    }
    for ttl in ["0s", "100000days"] {
        let refused = run(&["put", "a", "b", "--ttl", ttl, "--json", "--endpoint", &url]).await;
        assert_eq!(refused.failure(), (7, "bad_request".to_owned()), "{ttl}");
    }
    for query in ["", "?key=a&prefix=b", "?key=a&after=soon", "?prefix=a&read=local"] {
        let answer = raw(&url, &format!("GET /v1/watch{query}"), "", b"").await;
        assert_eq!((answer.status, &*answer.code()), (400, "bad_request"), "{query}");
    }
    for query in ["ttl=0s", "ttl=30", "ttl=1s&ttl=1s", "tll=1s"] {
        let answer = raw(&url, &format!("PUT /v1/kv/a?{query}"), "content-length: 1\r\n", b"v").await;
        assert_eq!((answer.status, &*answer.code()), (400, "bad_request"), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_too_slow_or_begins_too_early_is_told_where_the_history_begins() {
    let cluster = cluster(1).await;
    let (node, url) = (cluster.ids()[0], cluster.endpoint(cluster.ids()[0]));
    let mut client = cluster.client(&[node]).expect("a client");
    let first = client.put("k", "v").await.expect("written").index;
    let mut slow = open(&url, "prefix=").await;
    // More than the history, and more than the buffers of the connection hold.
    let value = "v".repeat(4 << 10);
    let keys: Vec<_> = (0..128).map(|number| format!("filler/{number}")).collect();
    let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), &*value)).collect();
    let mut last = first;
    for _ in 0..100 {
        last = client.txn(&putting(&pairs)).await.expect("executed").index;
    }

    let answer = raw(&url, &format!("GET /v1/watch?key=k&after={first}"), "", b"").await;
    let refusal: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let floor = Index(refusal["index"].as_u64().expect("an index"));
    assert_eq!((answer.status, &*answer.code()), (410, "gone"));
    assert!(floor > first && floor < last, "{refusal}");
    let watched = run(&["watch", "k", "--after", &first.to_string(), "--json", "--endpoint", &url]).await;
    assert_eq!(watched.failure(), (4, "gone".to_owned()));
    // After that index the history is whole.
    let mut watching = client.watch(WatchRequest { after: Some(floor), ..prefixed("filler/") }).await.expect("a watch");
    while watching.position() < Some(last) {
        assert_eq!(next(&mut watching).await.changes.len(), 128);
    }

    let mut answer = Vec::new();
    timeout(PATIENCE * 2, slow.read_to_end(&mut answer)).await.expect("it ends").expect("it is read");
    let end = String::from_utf8_lossy(&answer[answer.len().saturating_sub(2_000)..]).into_owned();
    let reason = end.split("event: error\ndata: ").nth(1).unwrap_or_else(|| panic!("no reason: {end}"));
    let reason: Value = serde_json::from_str(reason.lines().next().expect("a line")).expect("JSON");
    assert!(reason["error"] == "gone" && reason["index"].as_u64() <= Some(floor.0), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watches_of_one_client_are_bounded_and_a_stopping_node_ends_them_by_name() {
    let mut cluster = cluster(1).await;
    let (node, url) = (cluster.ids()[0], cluster.endpoint(cluster.ids()[0]));
    let mut open_ones = Vec::new();
    for _ in 0..WATCHES_MAX / 2 {
        open_ones.push(open(&url, "key=k").await);
    }
    let refused = raw(&url, "GET /v1/watch?key=k", "", b"").await;
    assert_eq!((refused.status, &*refused.code()), (503, "overloaded"));
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    let mut client = cluster.client(&[node]).expect("a client");
    client.put("k", "v").await.expect("other requests are served");
    // A place is free once its client leaves.
    open_ones.pop();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && !opens(&url).await {
        sleep(Duration::from_millis(50)).await;
    }
    assert!(Instant::now() < deadline, "no place was returned");

    cluster.signal(node, Signal::TERM).expect("sent");
    let status = cluster.ended(node, PATIENCE).await.expect("it ends");
    assert!(status.success(), "{status}");
    for mut stream in open_ones {
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("it ends").expect("it is whole");
        assert!(answer.contains("\"value\":\"v\"") && answer.contains("\"error\":\"stopping\""), "{answer}");
        assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    }
}

/// Whether a further watch is opened.
/// A watch holds its connection for good, so watches alone must not use up the connections.
#[tokio::test(flavor = "multi_thread")]
async fn watches_leave_half_of_the_connections_to_other_requests() {
    const CONNECTIONS: usize = 16;
    let mut cluster = laid_out_with("watches", 1, &format!("[limits]\nmax_http_connections = {CONNECTIONS}\n"));
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    let url = cluster.endpoint(NodeId(1));
    let mut watches = Vec::new();
    for _ in 0..CONNECTIONS / 4 {
        watches.push(open(&url, "prefix=").await);
    }
    for _ in 0..CONNECTIONS {
        let refused = raw(&url, "GET /v1/watch?prefix=", "", b"").await;
        assert_eq!((refused.status, refused.code()), (503, "overloaded".to_owned()));
        assert!(refused.head.contains("retry-after: "), "{}", refused.head);
        assert_eq!(raw(&url, "PUT /v1/kv/k", "", b"").await.status, 200);
    }
    let page = raw(&url, "GET /metrics", "", b"").await;
    let counted = format!("quorate_http_refused_total{{node=\"1\",reason=\"overloaded\"}} {CONNECTIONS}\n");
    assert!(page.text().contains(&counted), "{}", page.text());
    drop(watches.pop());
    let deadline = Instant::now() + PATIENCE;
    while !opens(&url).await {
        assert!(Instant::now() < deadline, "the place is not given back");
    }
}

async fn opens(url: &str) -> bool {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = format!("GET /v1/watch?key=k HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut begin = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut begin)).await.expect("answered").expect("it is read");
    begin.ends_with(b"200")
}

/// A watch, of which the head is read.
async fn open(url: &str, query: &str) -> TcpStream {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = format!("GET /v1/watch?{query} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(PATIENCE, stream.read_u8()).await.expect("answered").expect("a head"));
    }
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("text/event-stream"), "{answer}");
    stream
}

async fn next(watching: &mut Watching<'_>) -> WatchAnswer {
    timeout(PATIENCE, watching.next()).await.expect("in time").expect("changes")
}

fn puts(answer: &WatchAnswer) -> Vec<(Index, String, String)> {
    let put = |change: &KeyChange| match change {
        KeyChange::Put { key, value: Some(value), .. } => (answer.index, key.clone(), value.to_string()),
        other => panic!("{other:?}"),
    };
    answer.changes.iter().map(put).collect()
}

fn putting(pairs: &[(&str, &str)]) -> TxnRequest {
    let put = |(key, value): &(&str, &str)| {
        OperationRequest::Put(PairRequest { key: (*key).to_owned(), value: octets(value) })
    };
    TxnRequest { success: pairs.iter().map(put).collect(), ..TxnRequest::default() }
}

fn octets(text: &str) -> Octets {
    Octets(text.to_owned().into())
}

fn keyed(key: &str) -> WatchRequest {
    WatchRequest { watched: Watched::Key(key.to_owned()), after: None }
}

fn prefixed(prefix: &str) -> WatchRequest {
    WatchRequest { watched: Watched::Prefix(prefix.to_owned()), after: None }
}

fn of(first: NodeId, rest: &[NodeId]) -> Vec<NodeId> {
    [&[first], rest].concat()
}

fn client_of(cluster: &Running, id: NodeId) -> Client {
    cluster.client(&[id]).expect("a client")
}
