//! The HTTP interface, request by request, against one node.

use crate::support::{PATIENCE, cluster, cluster_at_default_timing, raw};
use quorate_kv::{client::ReadMode, cluster::Signal};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_with_the_documented_status_and_body() {
    let cluster = cluster(1).await;
    let url = cluster.endpoint(cluster.ids()[0]);
    let ask = async |request: &str, body: &str| {
        let answer = raw(&url, request, &format!("content-length: {}\r\n", body.len()), body.as_bytes()).await;
        (answer.status, answer)
    };
    let parsed = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");

    let (status, answer) = ask("PUT /v1/kv/a%2Fb%20%C3%BC", "one").await;
    assert_eq!(status, 200);
    let index = parsed(answer.text())["index"].as_u64().expect("an index");
    assert!(index > 0);

    let (status, answer) = ask("GET /v1/kv/a%2Fb%20%C3%BC", "").await;
    assert_eq!((status, answer.text()), (200, "one"));
    assert!(answer.head.contains(&format!("quorate-index: {index}")), "{}", answer.head);
    for mode in ["linearizable", "lease", "local", "bounded&max_age=5s", "bounded&max_entries=0&max_age=5s"] {
        assert_eq!(ask(&format!("GET /v1/kv/a%2Fb%20%C3%BC?read={mode}"), "").await.1.text(), "one");
    }
    for mode in ["bounded", "local&max_age=5s", "lease&max_entries=1", "bounded&max_age=soon", "stale"] {
        let (status, answer) = ask(&format!("GET /v1/kv/k?read={mode}"), "").await;
        assert_eq!((status, &*answer.code()), (400, "bad_request"), "{mode}");
    }

    // Indexes rise, with gaps: the log has entries of other kinds.
    let mut last = index;
    let mut rises = |answer: &Value| {
        let index = answer["index"].as_u64().expect("an index");
        assert!(index > std::mem::replace(&mut last, index), "{answer}");
        index
    };
    let (status, answer) = ask("POST /v1/kv/k/cas", r#"{"expect":null,"value":"1"}"#).await;
    let swapped = parsed(answer.text());
    assert_eq!((status, &swapped), (200, &json!({ "swapped": true, "index": rises(&swapped) })));
    let (status, answer) = ask("POST /v1/kv/k/cas", r#"{"expect":"0","value":"2"}"#).await;
    let not_swapped = parsed(answer.text());
    assert_eq!((status, &not_swapped), (200, &json!({ "swapped": false, "index": rises(&not_swapped) })));
    let (_, answer) = ask("POST /v1/kv/k/cas", r#"{"expect":"1","value":"2"}"#).await;
    assert_eq!(parsed(answer.text())["swapped"], true);

    let (_, answer) = ask("DELETE /v1/kv/k", "").await;
    let deleted = parsed(answer.text());
    assert_eq!(deleted, json!({ "index": rises(&deleted), "existed": true }));
    let (_, answer) = ask("DELETE /v1/kv/k", "").await;
    assert_eq!(parsed(answer.text())["existed"], false);
    let (status, answer) = ask("GET /v1/kv/k", "").await;
    assert_eq!((status, &*answer.code()), (404, "not_found"));
    assert!(answer.head.contains("quorate-index: "), "{}", answer.head);

    let (status, answer) = ask("GET /v1/status", "").await;
    let fields = parsed(answer.text());
    assert_eq!(
        (status, &fields["role"], &fields["node_id"], &fields["leader_id"]),
        (200, &json!("leader"), &json!(1), &json!(1))
    );
    for number in ["term", "commit_index", "applied_index", "last_log_index", "first_log_index", "snapshot_index"] {
        assert!(fields[number].is_u64(), "{number}: {fields}");
    }
    assert_eq!((&fields["voters"], &fields["learners"]), (&json!([1]), &json!([])));
    assert_eq!(fields["state_hash"].as_str().map(str::len), Some(16));

    assert_eq!(ask("GET /livez", "").await.0, 200);
    assert_eq!(ask("GET /readyz", "").await.0, 200);
    let (status, answer) = ask("GET /metrics", "").await;
    assert_eq!(status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    assert!(answer.text().contains("quorate_term{"), "{}", answer.text());
    let deadline = Instant::now() + PATIENCE;
    let free = loop {
        let (_, answer) = ask("GET /metrics", "").await;
        let free = answer.text().lines().find_map(|line| line.strip_prefix("quorate_storage_free_bytes{node=\"1\"} "));
        if let Some(free) = free.map(|free| free.parse::<f64>().expect("a number")) {
            break free;
        }
        assert!(Instant::now() < deadline, "free space is measured at the start");
        tokio::task::yield_now().await;
    };
    assert!(free > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_with_a_code_and_a_message() {
    let cluster = cluster(1).await;
    let url = cluster.endpoint(cluster.ids()[0]);
    let long_key = format!("PUT /v1/kv/{}", "k".repeat(1025));
    let cases = [
        ("GET /v1/kv/k?read=stale", "", 400, "bad_request"),
        ("GET /v1/kv/k?raed=local", "", 400, "bad_request"),
        ("GET /v1/kv/%FF", "", 400, "bad_request"),
        ("GET /v1/kv/%zz", "", 400, "bad_request"),
        ("PUT /v1/kv/a%", "v", 400, "bad_request"),
        ("GET /v1/kv/k?read=%zz", "", 400, "bad_request"),
        ("GET /v1/kv/k?read=local&read=local", "", 400, "bad_request"),
        ("PUT /v1/kv/k?tll=30s", "v", 400, "bad_request"),
        ("PUT /v1/kv/k?read=local", "v", 400, "bad_request"),
        ("DELETE /v1/kv/k?x", "", 400, "bad_request"),
        ("GET /v1/status?x=1", "", 400, "bad_request"),
        ("GET /metrics?x=1", "", 400, "bad_request"),
        ("POST /v1/snapshot?x=1", "", 400, "bad_request"),
        ("POST /v1/snapshot", "{}", 400, "bad_request"),
        ("DELETE /v1/kv/k", "v", 400, "bad_request"),
        ("GET /v1/kv/k", "v", 400, "bad_request"),
        ("POST /v1/kv/k/cas", r#"[null,"v"]"#, 400, "bad_request"),
        ("POST /v1/kv/k/cas", r#"{"expect":null,"value":"v","value":"w"}"#, 400, "bad_request"),
        ("POST /v1/kv/k/cas", r#"{"expect":null,"value":"v"} x"#, 400, "bad_request"),
        ("POST /v1/transfer", "[1]", 400, "bad_request"),
        ("POST /v1/transfer", r#"{"To":1}"#, 400, "bad_request"),
        ("POST /v1/members", r#"[9,"127.0.0.1:1"]"#, 400, "bad_request"),
        ("POST /v1/members", r#"{"id":9,"addr":"127.0.0.1:1","expect":1}"#, 400, "bad_request"),
        ("POST /v1/members?expects=1", r#"{"id":9,"addr":"127.0.0.1:1"}"#, 400, "bad_request"),
        ("PUT /v1/members", r#"[[[1]]]"#, 400, "bad_request"),
        ("PUT /v1/members", r#"{"voters":[[1]]}"#, 400, "bad_request"),
        ("PUT /v1/members", r#"{"voters":[{"id":1},{"id":1}]}"#, 400, "bad_request"),
        ("POST /v1/members/1/promote", r#"{"expect":1}"#, 400, "bad_request"),
        ("DELETE /v1/members/+1", "", 400, "bad_request"),
        ("POST /v1/kv/k/cas", "expect", 400, "bad_request"),
        ("POST /v1/kv/k/cas", r#"{"value":"v"}"#, 400, "bad_request"),
        ("POST /v1/kv/k/cas", r#"{"expect":null,"value":"v","more":1}"#, 400, "bad_request"),
        (&long_key, "v", 413, "too_large"),
        ("GET /v1/kv/", "", 404, "not_found"),
        ("GET /v1/member", "", 404, "not_found"),
        ("GET /v1/snapshot", "", 405, "method_not_allowed"),
        ("POST /", "", 405, "method_not_allowed"),
        ("PATCH /v1/kv/k", "", 405, "method_not_allowed"),
        ("POST /v1/status", "", 405, "method_not_allowed"),
    ];
    for (request, body, status, code) in cases {
        let answer = raw(&url, request, &format!("content-length: {}\r\n", body.len()), body.as_bytes()).await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{request}");
    }
    // A misspelt header, and a header that the request does not support.
    for (request, header) in [
        ("PUT /v1/kv/k", "quorate-sesion: a"),
        ("GET /v1/kv/k", "quorate-session: a"),
        ("GET /v1/kv", "quorate-timeout: soon"),
        ("GET /v1/status", "quorate-timeout: 1s"),
        ("POST /v1/snapshot", "quorate-session: a"),
    ] {
        let answer = raw(&url, request, &format!("{header}\r\ncontent-length: 0\r\n"), b"").await;
        assert_eq!((answer.status, &*answer.code()), (400, "bad_request"), "{request} {header}");
    }
    let answer = raw(&url, "GET /v1/kv/k", "", b"").await;
    assert_eq!((answer.status, &*answer.code()), (404, "not_found"), "none of these was executed");
    let members: Value = serde_json::from_slice(&raw(&url, "GET /v1/members", "", b"").await.body).expect("JSON");
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1), "{members}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_the_limit_is_taken_and_a_longer_one_is_too_large_however_it_is_sent() {
    let cluster = cluster(1).await;
    let url = cluster.endpoint(cluster.ids()[0]);
    let limit = 1 << 20;
    let value = vec![b'v'; limit + 1];
    let length = |bytes| format!("content-length: {bytes}\r\n");

    let answer = raw(&url, "PUT /v1/kv/k", &length(limit), &value[..limit]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(raw(&url, "GET /v1/kv/k", "", b"").await.body, value[..limit]);

    let answer = raw(&url, "PUT /v1/kv/k", &length(limit + 1), &value).await;
    assert_eq!((answer.status, &*answer.code()), (413, "too_large"));

    let mut chunked = format!("{:x}\r\n", value.len()).into_bytes();
    chunked.extend(&value);
    chunked.extend(b"\r\n0\r\n\r\n");
    let answer = raw(&url, "PUT /v1/kv/k", "transfer-encoding: chunked\r\n", &chunked).await;
    assert_eq!((answer.status, &*answer.code()), (413, "too_large"));

    let cas = json!({ "expect": null, "value": "v".repeat(limit + 1) }).to_string();
    let answer = raw(&url, "POST /v1/kv/x/cas", &length(cas.len()), cas.as_bytes()).await;
    assert_eq!((answer.status, &*answer.code()), (413, "too_large"));
    // JSON may escape every byte of both values.
    let escaped = "\u{1}".repeat(limit);
    let cas = json!({ "expect": null, "value": escaped }).to_string();
    assert!(cas.len() > 6 * limit);
    let answer = raw(&url, "POST /v1/kv/x/cas", &length(cas.len()), cas.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_after_its_deadline_is_not_started() {
    let cluster = cluster(3).await;
    let (_, followers) = cluster.roles().await;
    let url = cluster.endpoint(followers[0]);
    let ask = async |headers: &str| raw(&url, "PUT /v1/kv/k", &format!("{headers}content-length: 1\r\n"), b"v").await;
    let in_session = "quorate-session: a\r\nquorate-serial: 1\r\n";
    for session in ["", in_session] {
        let late = ask(&format!("{session}quorate-timeout: 0ms\r\n")).await;
        assert_eq!((late.status, &*late.code()), (503, "deadline_passed"));
        let unreadable = ask(&format!("{session}quorate-timeout: soon\r\n")).await;
        assert_eq!((unreadable.status, &*unreadable.code()), (400, "bad_request"));
    }
    assert_eq!(raw(&url, "GET /v1/kv/k", "", b"").await.code(), "not_found");
    for session in ["", in_session] {
        let in_time = ask(&format!("{session}quorate-timeout: 10s\r\n")).await;
        assert_eq!(in_time.status, 200, "{}", in_time.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_as_long_as_its_client_says() {
    let cluster = cluster_at_default_timing().await;
    let (leader, followers) = cluster.roles().await;
    let url = cluster.endpoint(leader);
    followers.iter().for_each(|id| cluster.signal(*id, Signal::STOP).expect("paused"));
    let reads = ["GET /v1/kv/k", "GET /v1/kv"];
    for read in reads {
        let answer = raw(&url, read, "quorate-timeout: 100ms\r\n", b"").await;
        assert!(answer.status == 503 && ["no_leader", "behind"].contains(&&*answer.code()), "{}", answer.text());
    }
    let waiting = reads.map(|read| raw(&url, read, "quorate-timeout: 60s\r\n", b""));
    let [key, list] = waiting;
    // Twice as long as a read without the header waits.
    let wake = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        followers.iter().for_each(|id| cluster.signal(*id, Signal::CONT).expect("awake"));
    };
    let (key, list, ()) = tokio::join!(key, list, wake);
    assert_eq!((&*key.code(), list.status), ("not_found", 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_answer_cancels_nothing() {
    let cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let before = cluster.converge(PATIENCE).await.expect("level")[0].last_log_index;

    // With the followers paused, the leader accepts the write and cannot answer it.
    followers.iter().for_each(|id| cluster.signal(*id, Signal::STOP).expect("paused"));
    let url = cluster.endpoint(leader);
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.expect("connected");
    let request = b"PUT /v1/kv/left HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nv";
    stream.write_all(request).await.expect("sent");
    let deadline = Instant::now() + PATIENCE;
    while cluster.status(leader).await.expect("status").last_log_index == before {
        assert!(Instant::now() < deadline, "the leader never took the write");
    }
    drop(stream);
    followers.iter().for_each(|id| cluster.signal(*id, Signal::CONT).expect("awake"));

    let mut client = cluster.client(&followers).expect("client");
    while client.get("left", ReadMode::Local).await.expect("read").value.is_none() {
        assert!(Instant::now() < deadline, "the write was cancelled");
    }
}
