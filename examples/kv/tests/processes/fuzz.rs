//! A fuzzer of the HTTP interface: valid requests, mutated, cut into pieces and sent to a real node.
//!
//! No mutation may cause a panic or an answer that says that the server failed; afterwards the node
//! works and holds no connection. The default is short: `QUORATE_FUZZ_SECONDS=3600` runs for an
//! hour, and `QUORATE_FUZZ_SEED` repeats the requests of a seed (not their timing).

use crate::support::{PATIENCE, Running, cluster, raw};
use quorate::NodeId;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

const ONE: NodeId = NodeId(1);
const SECONDS: u64 = 5;
const WORKERS: u64 = 8;
/// The silence after which no further answer is waited for: a watch never ends.
const SILENCE: Duration = Duration::from_millis(20);
const MUTATIONS_MAX: usize = 6;
/// The codes of answers with a status of 500 or more that a single node may give to a caller.
const FAILURES: &[&str] = &["no_leader", "overloaded", "deadline_passed", "outcome_unknown", "too_stale", "behind"];

/// Requests to begin with: the first line, headers, the body.
const CORPUS: &[(&str, &str, &str)] = &[
    ("GET /livez", "", ""),
    ("GET /readyz", "", ""),
    ("GET /metrics", "", ""),
    ("GET /v1/status", "", ""),
    ("GET /v1/kv?prefix=f&limit=10&keys=true", "", ""),
    ("GET /v1/kv?start=a&end=z&limit=2&after=fuzz&read=local", "", ""),
    ("GET /v1/kv/fuzz?read=bounded&max_age=500ms&max_entries=10", "", ""),
    ("GET /v1/kv/fuzz%2F1?read=lease", "quorate-timeout: 100ms\r\n", ""),
    ("HEAD /v1/kv/fuzz", "", ""),
    ("GET /v1/watch?prefix=f&after=1", "last-event-id: 1\r\n", ""),
    ("PUT /v1/kv/fuzz?ttl=30s", "quorate-session: s\r\nquorate-serial: 1\r\n", "a value"),
    ("PUT /v1/kv/fuzz%2F1", "content-type: text/plain\r\nexpect: 100-continue\r\n", "another"),
    ("DELETE /v1/kv/fuzz", "", ""),
    ("POST /v1/kv/fuzz/cas", JSON, r#"{"expect":null,"value":"v"}"#),
    (
        "POST /v1/txn",
        JSON,
        r#"{"compare":[{"key":"fuzz","value":null}],"success":[{"put":{"key":"fuzz","value":{"base64":"/wA="}}},{"get":{"key":"a"}}],"failure":[{"delete":{"key":"fuzz"}}]}"#,
    ),
    ("GET /v1/members", "", ""),
    ("POST /v1/members?expect=1", JSON, r#"{"id":9,"addr":"nowhere"}"#),
    ("PUT /v1/members", JSON, r#"{"voters":[]}"#),
    ("DELETE /v1/members/9", "", ""),
    ("POST /v1/members/9/promote", "", ""),
    ("PUT /v1/members/9/addr", JSON, r#"{"addr":"127.0.0.1:1"}"#),
    ("POST /v1/transfer", JSON, r#"{"to":9}"#),
    ("POST /v1/snapshot", "", ""),
    ("GET /v1/backup", "", ""),
];
const JSON: &str = "content-type: application/json\r\n";

const METHODS: &[&str] =
    &["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PRI", "get", "", "G\0T"];
const TARGETS: &[&str] = &[
    "/",
    "*",
    "//",
    "/../etc/passwd",
    "/v1/kv/",
    "/v1/kv/%",
    "/v1/kv/%00",
    "/v1/kv/%ff",
    "/v1/kv/..%2f",
    "/v1/kv?",
    "/v1/kv?limit=-1",
    "/v1/kv?limit=99999999999999999999",
    "/v1/kv?index=18446744073709551615",
    "/v1/kv?after=%zz",
    "/v1/watch",
    "/v1/watch?key=a&prefix=b",
    "/v1/watch?prefix=&after=18446744073709551615",
    "/v1/members/18446744073709551616",
    "/v1/members/-1/promote",
    "http://evil.example/v1/status",
    "localhost:80",
    "/v1/kv/a?ttl=99999999999days",
    "/v1/kv/a#b",
    "/v1/kv/k/cas/cas",
    "/metrics?x",
    "/v1/txn/",
    "?",
    "/\u{fffd}",
];
const HEADERS: &[&str] = &[
    "content-length: 0",
    "content-length: 5",
    "content-length: -1",
    "content-length: 99999999999999999999",
    "content-length: 1, 1",
    "transfer-encoding: chunked",
    "transfer-encoding: gzip, chunked",
    "transfer-encoding: identity",
    "Transfer-Encoding : chunked",
    "connection: close",
    "connection: keep-alive, upgrade",
    "upgrade: h2c",
    "upgrade: websocket",
    "expect: 100-continue",
    "expect: 200-ok",
    "host:",
    "host: evil.example",
    "host: a b",
    "host: [::1",
    "origin: null",
    "origin: https://evil.example",
    "sec-fetch-site: cross-site",
    "authorization: Bearer x",
    "authorization: Basic eDp5",
    "quorate-timeout: 0s",
    "quorate-timeout: 1ns",
    "quorate-timeout: 99999999999999y",
    "quorate-serial: -1",
    "quorate-session: \u{e9}",
    "quorate-unknown: 1",
    "content-type: text/plain",
    "content-type: application/json; charset=x",
    "range: bytes=0-1",
    "te: trailers",
    "trailer: x",
    "x: \0",
    ": x",
    "x",
    " folded",
    "last-event-id: -1",
    "cookie: a=b",
    "accept-encoding: gzip",
    "http2-settings: AAMAAABk",
];
const BODIES: &[&str] = &[
    "",
    "{",
    "null",
    "[]",
    "{}",
    "{\"expect\":1}",
    "{\"expect\":null,\"value\":null}",
    "{\"id\":-1,\"addr\":\"\"}",
    "\u{fffd}",
    "{\"to\":18446744073709551616}",
    "{\"success\":[{\"get\":{\"key\":\"\"}}]}",
    "{\"voters\":[1,1]}",
    "{\"a\":1,\"a\":2}",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_mutation_of_a_request_ends_a_node_or_holds_a_connection() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seconds = number("QUORATE_FUZZ_SECONDS").unwrap_or(SECONDS);
    let seed = number("QUORATE_FUZZ_SEED").unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}");
    let cluster = cluster(1).await;
    let url = cluster.endpoint(ONE);
    let address = url.trim_start_matches("http://").to_owned();
    let end = Instant::now() + Duration::from_secs(seconds);
    let counts = Arc::new(Counts::default());
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (address, counts) = (address.clone(), Arc::clone(&counts));
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed.wrapping_add(worker));
                while Instant::now() < end {
                    let bytes = requests(&mut random, &address);
                    if let Err(why) = exchange(&mut random, &address, &bytes, &counts).await {
                        panic!("seed {seed}, worker {worker}: {why} to {}", bytes.escape_ascii());
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no answer is wrong");
    }
    println!("{counts:?}");
    healthy(&cluster, &url).await;
    let Counts { exchanges, answered, served, refused } = &*counts;
    let (exchanges, answered) = (exchanges.load(Relaxed), answered.load(Relaxed));
    assert!(answered > exchanges / 4 && served.load(Relaxed) > 0 && refused.load(Relaxed) > 0, "{counts:?}");
}

#[derive(Debug, Default)]
struct Counts {
    exchanges: AtomicU64,
    /// Exchanges with an answer at least.
    answered: AtomicU64,
    /// Answers below 400, and from there on.
    served: AtomicU64,
    refused: AtomicU64,
}

/// The node works, has logged no panic, and gives back all connections.
async fn healthy(cluster: &Running, url: &str) {
    let mut client = cluster.client(&[ONE]).expect("a client");
    client.put("after", "v").await.expect("written");
    assert_eq!(raw(url, "GET /readyz", "", b"").await.status, 200);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = raw(url, "GET /metrics", "", b"").await;
        let line = page.text().lines().find(|line| line.starts_with("quorate_http_connections{"));
        let open = line.and_then(|line| line.rsplit_once(' ')).and_then(|(_, open)| open.parse::<u64>().ok());
        // That of this request, and that which the client keeps.
        if open.expect("a number") <= 2 {
            break;
        }
        assert!(Instant::now() < deadline, "connections stay open: {open:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = fs::read_to_string(cluster.layout().log_file(ONE)).expect("a log");
    let bad = log.lines().find(|line| line.contains("panicked") || line.contains(" ERROR "));
    assert_eq!(bad, None);
    assert_eq!(cluster.running(), [ONE]);
}

/// One to three requests in a row, most of them mutated.
fn requests(random: &mut StdRng, address: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.random_range(1..=3) {
        let (line, headers, body) = CORPUS.choose(random).expect("not empty");
        let (method, target) = line.split_once(' ').expect("a request line");
        let mut request = Request {
            method: (*method).to_owned(),
            target: (*target).to_owned(),
            version: "HTTP/1.1",
            headers: format!("host: {address}\r\n{headers}"),
            body: body.as_bytes().to_vec(),
            is_chunked: false,
            has_length: true,
        };
        // Many stay valid up to the damage, so that handlers run too.
        for _ in 0..if random.random_bool(0.5) { random.random_range(1..=MUTATIONS_MAX) } else { 0 } {
            request.mutate(random);
        }
        let from = bytes.len();
        request.write(random, &mut bytes);
        for _ in 0..if random.random_bool(0.2) { random.random_range(1..=4) } else { 0 } {
            damage(random, &mut bytes, from);
        }
    }
    bytes
}

struct Request {
    method: String,
    target: String,
    version: &'static str,
    headers: String,
    body: Vec<u8>,
    is_chunked: bool,
    has_length: bool,
}

impl Request {
    fn mutate(&mut self, random: &mut StdRng) {
        let mut pick = |of: &[&'static str]| *of.choose(random).expect("not empty");
        let (method, target, header, body) = (pick(METHODS), pick(TARGETS), pick(HEADERS), pick(BODIES));
        match random.random_range(0..12) {
            0 => method.clone_into(&mut self.method),
            1 => target.clone_into(&mut self.target),
            2..=4 => self.headers += &format!("{header}\r\n"),
            5 => self.body = body.as_bytes().to_vec(),
            6 => self.is_chunked = !self.is_chunked,
            7 => self.has_length = !self.has_length,
            8 => {
                self.version = ["HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1 ", "ICY", ""].choose(random).expect("one")
            }
            9 => {
                self.target +=
                    &format!("{}x={}", if self.target.contains('?') { '&' } else { '?' }, random.random::<u8>())
            }
            10 => self.body.resize(random.random_range(0..100_000), b'v'),
            _ => self.headers += &format!("x-long: {}\r\n", "x".repeat(random.random_range(0..80_000))),
        }
    }

    fn write(&self, random: &mut StdRng, bytes: &mut Vec<u8>) {
        let Self { method, target, version, headers, body, .. } = self;
        bytes.extend(format!("{method} {target} {version}\r\n{headers}").into_bytes());
        if !self.is_chunked {
            if self.has_length && !body.is_empty() {
                bytes.extend(format!("content-length: {}\r\n", body.len()).into_bytes());
            }
            bytes.extend(b"\r\n");
            bytes.extend(body);
            return;
        }
        bytes.extend(b"transfer-encoding: chunked\r\n\r\n");
        let mut rest = &body[..];
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(random.random_range(1..=rest.len()));
            rest = after;
            let size = match random.random_range(0..20) {
                0 => "ffffffffffffffffff".to_owned(),
                1 => format!("{:x};extension=1", chunk.len()),
                2 => format!("-{:x}", chunk.len()),
                _ => format!("{:x}", chunk.len()),
            };
            bytes.extend(size.into_bytes());
            bytes.extend(b"\r\n");
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(["0\r\n\r\n", "0\r\nx-trailer: 1\r\n\r\n", "0\r\n", ""].choose(random).expect("one").as_bytes());
    }
}

/// Changes bytes after `from`.
fn damage(random: &mut StdRng, bytes: &mut Vec<u8>, from: usize) {
    if bytes.len() <= from {
        return;
    }
    let at = random.random_range(from..bytes.len());
    let until = random.random_range(at..bytes.len().min(at + 64));
    match random.random_range(0..5) {
        0 => bytes[at] = random.random(),
        1 => drop(bytes.drain(at..until)),
        2 => {
            drop(bytes.splice(at..at, [b"\r\n", b"\n\n", b": ", b"%0", b"\0\0"].choose(random).expect("one").to_vec()))
        }
        3 => {
            let again = bytes[at..until].to_vec();
            bytes.splice(at..at, again);
        }
        _ => bytes.truncate(at),
    }
}

/// Sends the bytes in pieces, and checks the answers.
async fn exchange(random: &mut StdRng, address: &str, bytes: &[u8], counts: &Counts) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("no connection: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (mut from, mut to) = stream.into_split();
    let leaves = random.random_bool(0.1);
    let mut cuts: Vec<_> = (0..random.random_range(0..4)).map(|_| random.random_range(0..=bytes.len())).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let send = async {
        for pair in cuts.windows(2) {
            // The node may end the connection before it has all.
            if to.write_all(&bytes[pair[0]..pair[1]]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let mut answers = Vec::new();
    let receive = async {
        // An answer that is never read in full is one of the cases.
        let limit = if leaves { 1 } else { 4 << 20 };
        let mut has_asked = false;
        while answers.len() < limit {
            match timeout(SILENCE, from.read_buf(&mut answers)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(_)) => {}
                // A busy machine is late: another answer shows that the node had its turn.
                Err(_) if answers.is_empty() && !has_asked => {
                    has_asked = true;
                    assert_eq!(raw(&format!("http://{address}"), "GET /livez", "", b"").await.status, 200);
                }
                Err(_) => break,
            }
        }
    };
    let both = async { tokio::join!(send, receive) };
    timeout(PATIENCE, both).await.map_err(|_| "neither an answer nor an end".to_owned())?;
    counts.exchanges.fetch_add(1, Relaxed);
    counts.answered.fetch_add(u64::from(!answers.is_empty()), Relaxed);
    let text = String::from_utf8_lossy(&answers);
    for (at, _) in text.match_indices("HTTP/1.1 ") {
        let answer = &text[at..];
        let status: u16 = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        counts.served.fetch_add(u64::from(status < 400), Relaxed);
        counts.refused.fetch_add(u64::from(status >= 400), Relaxed);
        let is_whole = answer.contains("\"error\":");
        let is_documented = FAILURES.iter().any(|code| answer.contains(&format!("\"error\":\"{code}\"")));
        if status >= 500 && !(matches!(status, 503 | 504) && (is_documented || !is_whole)) {
            return Err(format!("{:.300} is the answer", answer));
        }
    }
    Ok(())
}
