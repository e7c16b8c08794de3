//! Hostile and careless clients: silent ones, greedy ones, and web pages.

use crate::{
    roles::{MONITOR, serving},
    support::{PATIENCE, cluster, raw},
};
use quorate_kv::{client::ReadMode, http::ENDPOINTS};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream as BlockingStream,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_announced_and_not_sent_stop_no_write() {
    let cluster = cluster(3).await;
    let mut silent = Vec::new();
    for id in cluster.ids() {
        let mut open = |request: &str, bytes: usize| {
            let head = format!(
                "{request} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {bytes}\r\n\r\nx"
            );
            silent.push(sent(&cluster.endpoint(id), head.as_bytes()));
        };
        (0..40).for_each(|_| open("POST /v1/kv/k/cas", 12 << 20));
        (0..300).for_each(|_| open("PUT /v1/kv/k", 1 << 20));
    }
    let mut client = cluster.client(&cluster.ids()).expect("a client");
    for number in 0..20 {
        client.put(&format!("k{number}"), "v").await.expect("written");
    }
    client.put("large", "v".repeat(1 << 20)).await.expect("written");
    let silent_still = silent.iter_mut().all(|stream| {
        stream.set_nonblocking(true).expect("a socket");
        stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    });
    assert!(silent_still, "none was answered yet: they were all pending");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_read_by_a_client_that_sends_all_of_its_body_first() {
    let cluster = cluster(1).await;
    let url = cluster.endpoint(cluster.ids()[0]);
    let body = vec![b'v'; 24 << 20];
    let chunked = {
        let mut chunked = format!("{:x}\r\n", body.len()).into_bytes();
        chunked.extend(&body);
        chunked.extend(b"\r\n0\r\n\r\n");
        chunked
    };
    let length = format!("content-length: {}\r\n", body.len());
    let typed = |mime: &str| format!("content-type: {mime}\r\n{length}");
    let cases = [
        ("PUT /v1/kv/k", &length, &body, 413),
        ("PUT /v1/kv/k", &"transfer-encoding: chunked\r\n".to_owned(), &chunked, 413),
        ("POST /v1/kv/k/cas", &typed("application/json"), &body, 413),
        ("POST /v1/kv/k/cas", &typed("text/plain"), &body, 415),
        ("PUT /v1/kv/k", &format!("origin: https://evil.example\r\n{length}"), &body, 403),
        ("PUT /v1/kv/k", &format!("quorate-timeout: soon\r\n{length}"), &body, 400),
        ("PUT /v1/none", &length, &body, 404),
        ("PATCH /v1/kv/k", &length, &body, 405),
    ];
    let address = url.trim_start_matches("http://").to_owned();
    for (request, headers, body, status) in cases {
        for attempt in 0..5 {
            let request = format!("{request} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n").into_bytes();
            let (body, endpoint) = (body.clone(), url.clone());
            let answered = tokio::task::spawn_blocking(move || {
                let mut stream = sent(&endpoint, &request);
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                stream.write_all(&body).map_err(|error| format!("the body could not be sent: {error}"))?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).map_err(|error| format!("{answer:?}, then {error}"))?;
                Ok::<_, String>(answer)
            });
            let answer = timeout(PATIENCE * 2, answered).await.expect("answered").expect("no panic");
            let answer = answer.unwrap_or_else(|error| panic!("{status}, attempt {attempt}: {error}"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(answer.contains("connection: close"), "{answer}");
        }
    }
    let malformed = tokio::task::spawn_blocking(move || {
        let mut stream = sent(&url, b"what is this?\r\n\r\n");
        let _ = stream.write_all(&[b'v'; 1 << 20]);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    });
    let answer = malformed.await.expect("no panic").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_changes_nothing_and_reads_nothing() {
    let cluster = cluster(1).await;
    let url = cluster.endpoint(cluster.ids()[0]);
    let address = url.trim_start_matches("http://");
    let cas = r#"{"expect":null,"value":"v"}"#;
    let json = "content-type: application/json";
    let (own, foreign) = (format!("host: {address}"), format!("host: {address}\r\norigin: https://evil.example"));
    let evil = "host: evil.example".to_owned();
    let cases = [
        ("POST /v1/kv/k/cas", format!("{foreign}\r\ncontent-type: text/plain"), cas, 403),
        ("POST /v1/kv/k/cas", format!("{foreign}\r\n{json}"), cas, 403),
        ("POST /v1/kv/k/cas", format!("{own}\r\norigin: null\r\n{json}"), cas, 403),
        ("POST /v1/kv/k/cas", format!("{own}\r\ncontent-type: text/plain"), cas, 415),
        ("POST /v1/kv/k/cas", format!("{own}\r\ncontent-type: application/x-www-form-urlencoded"), cas, 415),
        ("POST /v1/kv/k/cas", own.clone(), cas, 415),
        ("POST /v1/kv/k/cas", format!("{evil}\r\n{json}"), cas, 421),
        ("POST /v1/kv/k/cas", format!("{evil}\r\norigin: http://evil.example\r\n{json}"), cas, 421),
        ("PUT /v1/kv/k", foreign.clone(), "v", 403),
        ("PUT /v1/kv/k", evil.clone(), "v", 421),
        ("DELETE /v1/kv/k", foreign.clone(), "", 403),
        ("DELETE /v1/kv/k", evil.clone(), "", 421),
        ("POST /v1/transfer", foreign.clone(), "{}", 403),
        ("POST /v1/transfer", own.clone(), "{}", 415),
        ("POST /v1/snapshot", foreign.clone(), "", 403),
        ("POST /v1/members", format!("{own}\r\ncontent-type: text/plain"), r#"{"id":4,"addr":"10.0.0.4:7001"}"#, 415),
        ("POST /v1/members/1/promote", evil.clone(), "", 421),
        ("DELETE /v1/members/1", foreign.clone(), "", 403),
        ("GET /v1/status", evil.clone(), "", 421),
        ("GET /v1/kv/k", evil.clone(), "", 421),
        ("GET /v1/kv/k", format!("{own}\r\nsec-fetch-site: cross-site"), "", 403),
        ("GET /metrics", format!("{own}\r\nsec-fetch-site: same-site"), "", 403),
        ("GET /readyz", format!("{own}\r\nsec-fetch-site: cross-site"), "", 200),
        ("GET /metrics", evil.clone(), "", 421),
        ("GET /metrics", own.clone(), "", 200),
        // A link leads to the page from anywhere; its data is for pages of the members.
        ("GET /", format!("{own}\r\nsec-fetch-site: cross-site"), "", 200),
        ("GET /", evil.clone(), "", 421),
        ("GET /live", format!("{own}\r\nsec-fetch-site: cross-site"), "", 403),
        ("GET /live", format!("{foreign}\r\nsec-fetch-site: cross-site"), "", 403),
        ("GET /live", evil.clone(), "", 421),
        ("OPTIONS /live", format!("{foreign}\r\nsec-fetch-site: cross-site"), "", 403),
        ("OPTIONS /live", evil.clone(), "", 421),
        ("POST /", format!("{foreign}\r\n{json}"), "{}", 403),
        ("POST /live", format!("{foreign}\r\n{json}"), "{}", 403),
    ];
    for (request, headers, body, status) in cases {
        assert_eq!(ask(&url, request, &headers, body).await, status, "{request} {headers}");
    }
    // The same for every change that there is.
    let changes = ENDPOINTS.iter().filter(|(method, ..)| !["GET", "OPTIONS"].contains(method));
    for (method, path, _) in changes {
        let request = format!("{method} {}", path.replace("{key}", "k").replace("{id}", "1"));
        for (headers, status) in [
            (format!("{foreign}\r\n{json}"), 403),
            (format!("{own}\r\nsec-fetch-site: cross-site\r\n{json}"), 403),
            (format!("{evil}\r\n{json}"), 421),
            (json.to_owned(), 400),
        ] {
            assert_eq!(ask(&url, &request, &headers, "{}").await, status, "{request} {headers}");
        }
        // A value may have any type, and a request without a body needs none.
        let has_json =
            ["/cas", "/txn", "/transfer", "/addr", "/metadata", "/members"].iter().any(|end| path.ends_with(end));
        let typed = ask(&url, &request, &format!("{own}\r\ncontent-type: text/plain"), "{}").await;
        assert_eq!(typed == 415, has_json, "{request}: {typed}");
    }
    let mut client = cluster.client(&cluster.ids()).expect("a client");
    client.delete("k").await.expect("the value of any type");
    assert_eq!(client.get("k", ReadMode::Linearizable).await.expect("read").value, None, "no write took effect");

    let form = format!("{own}\r\ncontent-type: application/x-www-form-urlencoded");
    assert_eq!(ask(&url, "PUT /v1/kv/k", &form, "v").await, 200, "what curl sends by itself");
    let same = format!("{own}\r\norigin: http://{address}\r\n{json}; charset=utf-8");
    assert_eq!(ask(&url, "POST /v1/kv/k/cas", &same, cas).await, 200, "a page of its own may");
    for probe in ["GET /livez", "GET /readyz"] {
        assert_eq!(ask(&url, probe, "host: prober.example", "").await, 200);
    }
    // Each refusal is counted, and a few lines say what is going on.
    let page = raw(&url, "GET /metrics", "", b"").await;
    let mut log = String::new();
    let deadline = Instant::now() + PATIENCE;
    // A line is written a little after the answer.
    while !["host", "origin"].iter().all(|reason| log.contains(&format!("reason=\"{reason}\""))) {
        assert!(Instant::now() < deadline, "{log}");
        assert_eq!(ask(&url, "GET /livez", &own, "").await, 200);
        log = fs::read_to_string(cluster.layout().log_file(cluster.ids()[0])).expect("a log");
    }
    for (reason, says) in [("host", "not known as"), ("origin", "pages of"), ("content_type", "")] {
        let series = format!("quorate_http_refused_total{{node=\"1\",reason=\"{reason}\"}} ");
        let count = page.text().lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok());
        assert!(count.is_some_and(|count| count > 5), "{reason}: {}", page.text());
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&format!("reason=\"{reason}\""))).collect();
        let is_logged = !says.is_empty();
        assert!(lines.iter().all(|line| line.contains("request refused") && line.contains(says)), "{lines:?}");
        assert!(if is_logged { (1..=4).contains(&lines.len()) } else { lines.is_empty() }, "{lines:?}");
    }
}

/// The node takes each to be idle, so it closes one for a new connection. All are behind one address.
#[tokio::test(flavor = "multi_thread")]
async fn callers_without_an_identity_close_no_connection_of_one_with_an_identity() {
    const CONNECTIONS: usize = 8;
    let node = serving(&["tokens"], &format!("\n[limits]\nmax_http_connections = {CONNECTIONS}\n")).await;
    let address = node.endpoint(node.ids()[0]).trim_start_matches("http://").to_owned();
    let mut kept = TcpStream::connect(&address).await.expect("connected");
    let request = format!("GET /v1/status HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {MONITOR}\r\n\r\n");
    let mut idle = Vec::new();
    for round in 0..20 {
        kept.write_all(request.as_bytes()).await.unwrap_or_else(|error| panic!("{round}: {error}"));
        let mut answer = vec![0; 64 << 10];
        let length = timeout(PATIENCE, kept.read(&mut answer)).await.expect("in time").expect("it is open");
        assert!(answer[..length].starts_with(b"HTTP/1.1 200 "), "{round}: {}", answer[..length].escape_ascii());
        // Each answer shows that the node has taken the connection in.
        for _ in 0..CONNECTIONS {
            let mut other = TcpStream::connect(&address).await.expect("connected");
            other.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
            let read = timeout(PATIENCE, other.read(&mut answer)).await.expect("in time");
            assert!(read.is_ok_and(|length| length > 0), "{round}: a newcomer is served");
            idle.push(other);
        }
    }
    let token = format!("authorization: Bearer {MONITOR}\r\n");
    let page = raw(&node.endpoint(node.ids()[0]), "GET /metrics", &token, b"").await;
    let replaced = page.text().lines().find_map(|line| {
        line.strip_prefix("quorate_http_refused_total{node=\"1\",reason=\"replaced\"} ")?.parse::<usize>().ok()
    });
    assert!(replaced.is_some_and(|replaced| replaced >= idle.len() - CONNECTIONS), "{}", page.text());
}

/// The status of the answer to a request with exactly these headers, plus the length.
async fn ask(endpoint: &str, request: &str, headers: &str, body: &str) -> u16 {
    let length = body.len();
    let request =
        format!("{request} HTTP/1.1\r\n{headers}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    let endpoint = endpoint.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = sent(&endpoint, request.as_bytes());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    });
    let deadline = Instant::now() + PATIENCE;
    let answer =
        tokio::time::timeout_at(deadline, asked).await.expect("in time").expect("no panic").expect("an answer");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

/// A connection on which these bytes were sent.
fn sent(endpoint: &str, bytes: &[u8]) -> BlockingStream {
    let mut stream = BlockingStream::connect(endpoint.trim_start_matches("http://")).expect("connected");
    stream.write_all(bytes).expect("sent");
    stream
}
