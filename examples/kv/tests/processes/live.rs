//! The live page's data, over HTTP and real connections between processes.

use crate::support::{PATIENCE, cluster, raw};
use quorate_kv::live::patch;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

#[tokio::test(flavor = "multi_thread")]
async fn one_node_shows_the_cluster_while_its_leader_is_killed_and_the_stream_ends_with_that_node() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let at = followers[0];
    let mut stream = Stream::open(&cluster.endpoint(at)).await;
    stream.until("all nodes", |page| up(page) == 3 && page["leader"] == leader.0).await;
    assert_eq!(stream.page["verdict"]["word"], "Healthy", "{:#}", stream.page);
    let link = &stream.page["links"][format!("{leader}>{at}")];
    assert!(link["state"] == "up" && link["match"].is_u64(), "{link}");

    cluster.kill(leader).await.expect("killed");
    stream.until("a new leader", |page| page["leader"].as_u64().is_some_and(|new| new != leader.0)).await;
    stream.until("the dead one", |page| up(page) == 2 && page["verdict"]["word"] == "Degraded").await;
    let new = stream.page["leader"].as_u64().expect("a leader");
    let said = stream.page["verdict"]["says"].as_str().expect("a sentence").to_owned();
    assert!(said.starts_with(&format!("Node {new} leads term ")) && said.ends_with(" does not answer."), "{said}");
    while !stream.events.iter().any(|event| event["kind"] == "leader_elected" && event["node"] == new) {
        assert!(stream.next().await, "the stream ended before the election was told");
    }
    assert!(stream.ballots.iter().any(|ballot| ballot["to"] == new && ballot["answer"] == "yes"), "its votes");

    cluster.kill(at).await.expect("killed");
    while stream.next().await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_where_the_time_of_a_write_goes() {
    let cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let mut stream = Stream::open(&cluster.endpoint(followers[0])).await;
    stream.until("all nodes", |page| up(page) == 3 && page["leader"] == leader.0).await;
    let url = cluster.endpoint(leader);
    for _ in 0..20 {
        let answer = raw(&url, "PUT /v1/kv/k", "content-length: 1\r\n", b"v").await;
        assert_eq!(answer.status, 200, "{}", answer.code());
    }
    let has_all = |page: &Value| page["stages_ms"]["voters"].as_object().is_some_and(|voters| voters.len() == 3);
    stream.until("the stages of a write", |page| has_all(page) && page["p99_ms"].is_f64()).await;
    let stages = &stream.page["stages_ms"];
    let of = |time: &Value| (time[0].as_f64().expect("a mean"), time[1].as_f64().expect("a percentile"));
    for name in ["queue", "encode", "quorum", "commit", "apply", "reply"] {
        let (mean, p99) = of(&stages[name]);
        assert!(mean >= 0.0 && p99 >= 0.0 && mean < 60_000.0, "{name}: {stages}");
    }
    // A quorum is two of the three disks, this leader's among them or not.
    let mut voters: Vec<_> = (1..=3).map(|id| of(&stages["voters"][id.to_string()]).0).collect();
    voters.sort_by(f64::total_cmp);
    let (quorum, _) = of(&stages["quorum"]);
    assert!(voters[0] > 0.0 && quorum >= voters[0], "{stages}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_asked_for_without_parameters_and_only_read() {
    let cluster = cluster(1).await;
    let url = cluster.endpoint(cluster.ids()[0]);
    let answer = raw(&url, "GET /live?since=1", "", b"").await;
    assert_eq!((answer.status, &*answer.code()), (400, "bad_request"));
    let answer = raw(&url, "POST /live", "", b"").await;
    assert_eq!((answer.status, &*answer.code()), (405, "method_not_allowed"));
}

fn up(page: &Value) -> usize {
    page["nodes"].as_object().map_or(0, |nodes| nodes.values().filter(|node| node["up"] == true).count())
}

struct Stream {
    lines: BufReader<TcpStream>,
    page: Value,
    events: Vec<Value>,
    ballots: Vec<Value>,
}

impl Stream {
    async fn open(url: &str) -> Self {
        let address = url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.expect("connected");
        // Of this version answers are not chunked.
        let request = format!("GET /live HTTP/1.0\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut stream =
            Self { lines: BufReader::new(stream), page: Value::Null, events: Vec::new(), ballots: Vec::new() };
        let mut head = Vec::new();
        while head.last().is_none_or(|line: &String| !line.is_empty()) {
            head.push(stream.line().await.expect("an answer"));
        }
        assert!(head[0].contains(" 200 ") && head.iter().any(|line| line.ends_with("text/event-stream")), "{head:?}");
        stream
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.lines.read_line(&mut line)).await.expect("in time").unwrap_or(0);
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Takes a message; `false` at the end of the stream.
    async fn next(&mut self) -> bool {
        let mut event = String::new();
        while let Some(line) = self.line().await {
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut event);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).expect("JSON");
                match &*event {
                    "snapshot" => {
                        self.events = data["events"].as_array().expect("events").clone();
                        self.page = data;
                    }
                    "delta" => patch::apply(&mut self.page, &data),
                    "event" => self.events.push(data),
                    "ballot" => self.ballots.push(data),
                    other => panic!("{other}: {data}"),
                }
                return true;
            }
        }
        false
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&Value) -> bool) {
        let waiting = async {
            while !holds(&self.page) {
                assert!(self.next().await, "the stream ended before {what}");
            }
        };
        let found = timeout(PATIENCE, waiting).await;
        assert!(found.is_ok(), "{what}: not within {PATIENCE:?}; the page is {:#}", self.page);
    }
}
