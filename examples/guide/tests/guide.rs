//! The guide, held to its word: its Rust code stands in the sources, its configuration starts three
//! processes, its shell lines work on them, and its metrics are on their pages.

use quorate_ports::Port;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

const GUIDE: &str = include_str!("../README.md");
const BINARY: &str = env!("CARGO_BIN_EXE_reminders");
/// The time for an event that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_code_of_the_guide_is_that_of_the_package() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: Vec<_> = ["src/lib.rs", "src/main.rs", "tests/service.rs", "tests/trial.rs"]
        .map(|name| fs::read_to_string(root.join(name)).expect("a source"))
        .into();
    let blocks = blocks("rust");
    assert!(blocks.len() >= 10, "the guide has code");
    for block in blocks {
        assert!(sources.iter().any(|source| source.contains(block)), "in no source:\n{block}");
    }
}

#[test]
fn the_manifest_of_the_guide_fits_the_sources() {
    let manifest = |text: &str| toml::from_str::<toml::Table>(text).expect("a manifest");
    let (guide, package) = (manifest(blocks("toml")[0]), manifest(include_str!("../Cargo.toml")));
    assert_eq!([&package["lib"]["name"], &package["bin"][0]["name"]], [&guide["package"]["name"]; 2]);
    let names = |of: &toml::Table, kind: &str| {
        of[kind].as_table().expect("dependencies").keys().cloned().collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&guide, "dependencies"), names(&package, "dependencies"));
    // Only this file needs the others.
    let others = ["quorate-ports", "tempfile"].map(str::to_owned).into();
    assert_eq!(names(&package, "dev-dependencies"), &names(&guide, "dev-dependencies") | &others);
}

#[tokio::test]
async fn the_three_processes_of_the_guide_keep_a_reminder_through_the_kill_of_one() {
    let mut cluster = Cluster::start().await;
    assert_eq!(cluster.until(1, "add 600 tea is ready", |reply| reply.starts_with("Added")).await, "Added(1)\n");
    let mut watch = cluster.client(2, "watch").await;
    assert_eq!(cluster.until(3, "add 1 look at the eggs", |reply| reply.starts_with("Added")).await, "Added(2)\n");
    let first = line(&mut watch).await;
    assert!(first.ends_with(" look at the eggs"), "{first}");
    assert_eq!(cluster.ask(1, "list").await, "1 tea is ready\n");
    assert_eq!(cluster.ask(1, "cancel 9").await, "NotPending\n");

    cluster.until(3, "add 2 bread", |reply| reply.starts_with("Added")).await;
    cluster.nodes.remove(&2).expect("it runs").child.kill().await.expect("killed");
    let index = first.split(' ').next().expect("an index");
    let mut watch = cluster.client(3, &format!("watch {index}")).await;
    let second = line(&mut watch).await;
    assert!(second.ends_with(" bread"), "it goes on at another node, after what it has: {second}");
    // An attempt before it may have had an unknown outcome.
    cluster.until(1, "cancel 1", |reply| reply == "Cancelled\n" || reply == "NotPending\n").await;
    assert_eq!(cluster.until(3, "list", |reply| !reply.starts_with("error: ")).await, "");

    for request in ["", "add", "add x y", "cancel x", "watch x", "POST / HTTP/1.1"] {
        let reply = cluster.ask(1, request).await;
        assert!(reply.starts_with("error: "), "{request}: {reply}");
    }
}

#[tokio::test]
async fn the_metrics_of_the_guide_are_on_the_page_of_a_node() {
    let cluster = Cluster::start().await;
    let page = cluster.ask(1, "GET /metrics HTTP/1.1").await;
    let (head, body) = page.split_once("\r\n\r\n").expect("a head and a page");
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains(&format!("content-length: {}", body.len())));
    let named: BTreeSet<_> = GUIDE
        .split('`')
        .filter(|word| word.starts_with("quorate_") && word.chars().all(|it| it.is_ascii_lowercase() || it == '_'))
        .collect();
    assert!(named.len() >= 5, "{named:?}");
    for name in named {
        assert!(body.contains(&format!("\n{name}")), "{name} is not on the page");
    }
}

/// The blocks of a language in the guide.
fn blocks(language: &str) -> Vec<&'static str> {
    let begin = format!("\n```{language}\n");
    let blocks = GUIDE.split(&begin).skip(1);
    blocks.map(|rest| rest.split("```").next().expect("an end").trim_end()).collect()
}

async fn line(watch: &mut Lines<BufReader<TcpStream>>) -> String {
    timeout(PATIENCE, watch.next_line()).await.expect("an event").expect("a line").expect("it goes on")
}

/// Three nodes, made by the shell lines and the configuration of the guide. They are killed when
/// this is dropped.
struct Cluster {
    nodes: BTreeMap<u64, Node>,
    _dir: TempDir,
    _ports: Vec<Port>,
}

struct Node {
    child: Child,
    address: String,
    _out: BufReader<ChildStdout>,
}

impl Cluster {
    async fn start() -> Self {
        let dir = TempDir::new().expect("a directory");
        let ports = quorate_ports::reserve(3).expect("free ports");
        let config = blocks("toml").into_iter().find(|block| block.contains("[[members]]")).expect("a configuration");
        let made = run(dir.path(), &["certs", "certs", "1", "2", "3"]).status().await.expect("the binary runs");
        assert!(made.success());
        let mut nodes = BTreeMap::new();
        for id in 1..=3 {
            let mut text =
                config.replacen("id = 1", &format!("id = {id}"), 1).replacen("data1", &format!("data{id}"), 1);
            for (member, port) in (1..).zip(&ports) {
                text = text.replace(&format!("127.0.0.1:700{member}"), &port.address().to_string());
            }
            text = text.replace("127.0.0.1:8001", "127.0.0.1:0");
            let file = format!("node{id}.toml");
            fs::write(dir.path().join(&file), text).expect("written");
            let mut child = run(dir.path(), &["node", &file]).stdout(Stdio::piped()).spawn().expect("the binary runs");
            let (mut line, mut out) = (String::new(), BufReader::new(child.stdout.take().expect("piped")));
            timeout(PATIENCE, out.read_line(&mut line)).await.expect("it serves").expect("it prints");
            let address = line.trim().strip_prefix(&format!("node {id} serves ")).expect("its line").to_owned();
            nodes.insert(id, Node { child, address, _out: out });
        }
        Self { nodes, _dir: dir, _ports: ports }
    }

    async fn client(&self, id: u64, request: &str) -> Lines<BufReader<TcpStream>> {
        let mut stream = TcpStream::connect(&self.nodes[&id].address).await.expect("it listens");
        stream.write_all(format!("{request}\n").as_bytes()).await.expect("sent");
        BufReader::new(stream).lines()
    }

    async fn ask(&self, id: u64, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.nodes[&id].address).await.expect("it listens");
        stream.write_all(format!("{request}\n").as_bytes()).await.expect("sent");
        let mut reply = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut reply)).await.expect("an answer").expect("text");
        reply
    }

    /// Asks by the command line until an answer fits, as a client does while there is no leader.
    async fn until(&self, id: u64, request: &str, fits: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        let words: Vec<_> = ["ask", &self.nodes[&id].address].into_iter().chain(request.split(' ')).collect();
        loop {
            let output = run(self._dir.path(), &words).output().await.expect("the binary runs");
            let reply = String::from_utf8(output.stdout).expect("text");
            if fits(&reply) {
                return reply;
            }
            assert!(reply.starts_with("error: ") && Instant::now() < deadline, "{request}: {reply}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn run(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(words).current_dir(dir).stdin(Stdio::null()).kill_on_drop(true);
    command
}
