//! The cost of authentication: requests over kept-alive TLS connections, with and without it.
//!
//! `cargo test --release -p quorate-kv --test processes authentication_costs -- --ignored --nocapture`

use crate::{
    roles::{connector, issue, write},
    support::{PATIENCE, Running, laid_out_with},
};
use quorate::NodeId;
use std::{fs, path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{client::TlsStream, rustls::pki_types::ServerName};

const ONE: NodeId = NodeId(1);
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 8;
const TOKENS: usize = 10;
/// The share of the requests per second. The processor time is printed: it hardly depends on other
/// load of the machine.
const COST_MAX: f64 = 0.03;

/// A node, and a connection's worth of its callers.
struct Side {
    name: &'static str,
    node: Running,
    connections: Vec<TlsStream<TcpStream>>,
    request: String,
    /// The length of each answer in bytes.
    answer: usize,
}

/// The results of a round: requests per second, and the processor time of the node in microseconds
/// for each request.
#[derive(Clone, Copy)]
struct Speed {
    per_second: f64,
    cost_us: f64,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; of use in a release build on a machine that does nothing else"]
async fn authentication_costs_less_than_three_percent_of_requests_over_connections_that_are_kept() {
    let mut sides = [
        side("anonymous", "allow_anonymous = true\n", "", None, None).await,
        side("certificate", "", "client_ca", Some("billing"), None).await,
        side("token", "", "tokens", None, Some(TOKENS - 1)).await,
    ];
    let mut rounds: Vec<[Speed; 3]> = Vec::new();
    for round in 0..=ROUNDS {
        let mut speeds = [Speed { per_second: 0.0, cost_us: 0.0 }; 3];
        for nth in 0..3 {
            // Alternating, so that a drift of the machine meets all alike.
            let nth = if round % 2 == 0 { nth } else { 2 - nth };
            speeds[nth] = sides[nth].run().await;
        }
        // The first round warms up.
        if round > 0 {
            rounds.push(speeds);
        }
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (nth, side) in sides.iter().enumerate() {
        let of = |value: fn(&Speed) -> f64| median(rounds.iter().map(|round| value(&round[nth])).collect());
        let ratio = |value: fn(&Speed) -> f64| {
            median(rounds.iter().map(|round| value(&round[nth]) / value(&round[0])).collect())
        };
        let (speed, cost) = (ratio(|speed| speed.per_second), ratio(|speed| speed.cost_us));
        println!(
            "{}: {:.0} requests/s, {:.1} us of the node's processor time each; median of the ratios of {ROUNDS} pairs: \
             {speed:.3} of the requests, {cost:.3} of the time",
            side.name,
            of(|speed| speed.per_second),
            of(|speed| speed.cost_us),
        );
        assert!(speed > 1.0 - COST_MAX, "{} costs too much", side.name);
    }
}

/// A node with this in `[http_auth]`, with this kind of identity, and callers with this certificate
/// or token.
async fn side(name: &'static str, auth: &str, kind: &str, certificate: Option<&str>, token: Option<usize>) -> Side {
    let mut node = laid_out_with("demo", 1, "");
    issue(&node);
    let token_of = |nth: usize| format!("token-{nth}-0123456789abcdef0123456789abcdef");
    let (tokens, lines) = (node.path("tokens"), (0..TOKENS).map(|nth| format!("client c{nth} {}\n", token_of(nth))));
    write(&tokens, &lines.collect::<String>(), 0o600);
    let [cert, key, ca] = ["node-1.pem", "node-1.key", "ca.pem"].map(|name| node.path(&format!("certs/{name}")));
    let client_ca = if kind == "client_ca" { format!("client_ca = {ca:?}\n") } else { String::new() };
    let tokens = if kind == "tokens" { format!("tokens = {tokens:?}\n") } else { String::new() };
    let file = node.layout().config_file(ONE);
    let text = fs::read_to_string(&file).expect("readable");
    let tls = format!("\n[http_tls]\ncert = {cert:?}\nkey = {key:?}\n{client_ca}");
    fs::write(&file, format!("{text}{tls}\n[http_auth]\n{tokens}{auth}")).expect("written");
    node.start_all().await.expect("started");
    let address = node.endpoint(ONE).trim_start_matches("http://").to_owned();
    let token = token.map(|nth| format!("authorization: Bearer {}\r\n", token_of(nth))).unwrap_or_default();
    let request = |line: &str| format!("{line} HTTP/1.1\r\nhost: {address}\r\n{token}\r\n");
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(&address).await.expect("connected");
        stream.set_nodelay(true).expect("a socket");
        let tls = connector(Path::new(&node.path("certs")), certificate);
        connections
            .push(tls.connect(ServerName::try_from("127.0.0.1").expect("a name"), stream).await.expect("secured"));
    }
    let deadline = Instant::now() + PATIENCE;
    let put =
        format!("PUT /v1/kv/k HTTP/1.1\r\nhost: {address}\r\n{token}content-length: 100\r\n\r\n{}", "v".repeat(100));
    while !ask(&mut connections[0], &put).await.starts_with("HTTP/1.1 200 ") {
        assert!(Instant::now() < deadline, "{name}: no leader");
    }
    let request = request("GET /v1/kv/k?read=local");
    let answer = ask(&mut connections[0], &request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{name}: {answer}");
    Side { name, node, connections, request, answer: answer.len() }
}

/// An answer, which arrives in one piece.
async fn ask(connection: &mut TlsStream<TcpStream>, request: &str) -> String {
    connection.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = vec![0; 64 << 10];
    let length = timeout(PATIENCE, connection.read(&mut answer)).await.expect("in time").expect("an answer");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

impl Side {
    async fn run(&mut self) -> Speed {
        let (before, began) = (self.worked(), Instant::now());
        let end = began + ROUND;
        let callers = std::mem::take(&mut self.connections).into_iter().map(|mut connection| {
            let (request, mut answer) = (self.request.clone(), vec![0; self.answer]);
            tokio::spawn(async move {
                let mut requests = 0_u32;
                while Instant::now() < end {
                    connection.write_all(request.as_bytes()).await.expect("sent");
                    connection.read_exact(&mut answer).await.expect("an answer");
                    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
                    requests += 1;
                }
                (connection, requests)
            })
        });
        let mut requests = 0;
        for caller in callers.collect::<Vec<_>>() {
            let (connection, of_one) = caller.await.expect("no panic");
            self.connections.push(connection);
            requests += of_one;
        }
        let (took, worked) = (began.elapsed(), self.worked().saturating_sub(before));
        let requests = f64::from(requests);
        Speed { per_second: requests / took.as_secs_f64(), cost_us: worked.as_secs_f64() * 1e6 / requests }
    }

    /// The processor time of the node's process: the sum of its threads' run times.
    fn worked(&self) -> Duration {
        let tasks = format!("/proc/{}/task", self.node.pid(ONE).expect("it runs"));
        let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("schedstat")).ok();
        let nanoseconds = fs::read_dir(tasks).expect("Linux").flatten().filter_map(of_task);
        let parsed = nanoseconds.filter_map(|text| text.split(' ').next().and_then(|first| first.parse::<u64>().ok()));
        Duration::from_nanos(parsed.sum())
    }
}
