//! Clusters and commands of the binary under test. [`Cluster`] does the work; this module supplies
//! the binary and the directory.

use quorate::NodeId;
pub(crate) use quorate_kv::load::MachineDelay;
use quorate_kv::{
    cluster::{Cluster, Options},
    http::messages::StatusAnswer,
};
use std::{
    ops::{Deref, DerefMut},
    process::{Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_quorate-kv");

/// The time limit for operations that normally take milliseconds; test machines are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Timing for nodes that share the processors with other programs. With the default timing, a
/// busy machine would cause elections that these tests do not expect; tests of the default
/// timing say so.
pub(crate) const RELAXED: &str =
    "[timing]\nheartbeat_interval = \"100ms\"\nelection_timeout = [\"600ms\", \"1200ms\"]\n\n";

/// A cluster in a temporary directory; both end when this is dropped.
pub(crate) struct Running {
    cluster: Cluster,
    dir: TempDir,
}

/// A cluster of this many nodes, all serving, with a leader.
pub(crate) async fn cluster(nodes: u64) -> Running {
    cluster_with_joiners(nodes, 0).await
}

/// As [`cluster`], with further nodes prepared that may join, not started.
pub(crate) async fn cluster_with_joiners(nodes: u64, joiners: u64) -> Running {
    start(|options| Options { nodes, joiners, sections: RELAXED.to_owned(), ..options }).await
}

/// A cluster of three with default timing: for tests that depend on its timeouts.
pub(crate) async fn cluster_at_default_timing() -> Running {
    start(|options| options).await
}

async fn start(options: impl FnOnce(Options) -> Options) -> Running {
    let dir = TempDir::new().expect("temporary directory");
    let cluster = Cluster::start(options(Options::new(BINARY, dir.path()))).await.expect("a cluster");
    cluster.leader(PATIENCE).await.expect("a leader");
    published(&cluster).await;
    Running { cluster, dir }
}

/// Waits until every running node knows where each of them serves clients: they publish it by
/// themselves, in configurations of their own.
pub(crate) async fn published(cluster: &Cluster) {
    let all = |status: &StatusAnswer| cluster.running().iter().all(|id| status.client_addrs.contains_key(id));
    cluster
        .eventually(PATIENCE, "the nodes' metadata", |statuses| statuses.iter().all(all).then_some(()))
        .await
        .expect("they publish it");
}

/// A prepared cluster, not started.
pub(crate) fn laid_out(name: &str, nodes: u64) -> Running {
    laid_out_with(name, nodes, "")
}

/// As [`laid_out`], with these sections in every node's configuration.
pub(crate) fn laid_out_with(name: &str, nodes: u64, sections: &str) -> Running {
    let (name, sections) = (name.to_owned(), format!("{RELAXED}{sections}"));
    laid_out_as(|options| Options { nodes, name, sections, ..options })
}

/// As [`laid_out`], with these options; without sections, they get the relaxed timing.
pub(crate) fn laid_out_as(options: impl FnOnce(Options) -> Options) -> Running {
    let dir = TempDir::new().expect("temporary directory");
    let mut options = options(Options::new(BINARY, dir.path()));
    if options.sections.is_empty() {
        RELAXED.clone_into(&mut options.sections);
    }
    Running { cluster: Cluster::lay_out(options).expect("certificates"), dir }
}

impl Running {
    /// The ids of the leader and of the others.
    pub(crate) async fn roles(&self) -> (NodeId, Vec<NodeId>) {
        let leader = self.leader(PATIENCE).await.expect("a leader").node_id;
        (leader, self.ids().into_iter().filter(|id| *id != leader).collect())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

impl Deref for Running {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the binary to its end.
pub(crate) async fn run(args: &[&str]) -> Ran {
    run_with(args, &[]).await
}

/// Runs the binary to its end, with these environment variables.
pub(crate) async fn run_with(args: &[&str], environment: &[(&str, &str)]) -> Ran {
    let output = run_on(args, environment, b"").await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code(), out: text(output.stdout), err: without_progress(&text(output.stderr)) }
}

/// Standard error without the lines of progress, which a command prints on a machine so busy that
/// it takes more than five seconds.
fn without_progress(err: &str) -> String {
    let is_progress = |line: &str| line.contains(": ") && (line.ends_with(" s left") || line.contains("/s, after "));
    err.split_inclusive('\n').filter(|line| !is_progress(line.trim_end())).collect()
}

/// The binary, without the settings of the user of this machine.
pub(crate) fn command_alone() -> Command {
    let mut command = Command::new(BINARY);
    // Variables set for the tests must not reach the binary.
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"QUORATE_")) {
        command.env_remove(variable);
    }
    // The contexts of the user of this machine are not those of a test.
    command.env("XDG_CONFIG_HOME", "/nowhere/at/all");
    command
}

/// Runs the binary to its end, with this standard input.
pub(crate) async fn run_on(args: &[&str], environment: &[(&str, &str)], input: &[u8]) -> Output {
    let mut command = command_alone();
    command.args(args).envs(environment.iter().copied()).env_remove("RUST_LOG");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("piped");
    let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let ended = async {
        let written = async {
            // A command that reads no input may end before all input is written.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let (_, out, err) = tokio::join!(written, out.read_to_end(&mut stdout), err.read_to_end(&mut stderr));
        out.and(err).expect("read");
        child.wait().await.expect("it ends")
    };
    match tokio::time::timeout(PATIENCE * 2, ended).await {
        Ok(status) => Output { status, stdout, stderr },
        Err(_) => {
            let text = String::from_utf8_lossy;
            panic!("{args:?} did not end; it printed {:?} and {:?}", text(&stdout), text(&stderr))
        }
    }
}

impl Ran {
    /// The standard output; the command must have succeeded without errors.
    pub(crate) fn succeeded(self) -> String {
        assert_eq!((self.code, &*self.err), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// The exit code of a failure, and the code for programs on standard error.
    pub(crate) fn failure(&self) -> (i32, String) {
        let error: serde_json::Value = serde_json::from_str(&self.err).unwrap_or_else(|_| panic!("no JSON: {self:?}"));
        assert!(error["message"].as_str().is_some_and(|message| message.lines().count() == 1), "{self:?}");
        (self.code.expect("an exit code"), error["error"].as_str().expect("a code").to_owned())
    }

    /// The one line on standard error; the command must have failed.
    pub(crate) fn error_line(self) -> String {
        assert!(self.code.is_some_and(|code| code != 0), "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "{self:?}");
        self.err
    }
}

/// An HTTP answer, unparsed except for the status.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Sends a request byte for byte, with `connection: close`, and reads to the end. JSON bodies get
/// their content type.
pub(crate) async fn raw(endpoint: &str, request: &str, headers: &str, body: &[u8]) -> Answer {
    let address = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let is_json = request.starts_with("POST") || request.starts_with("PUT /v1/members");
    let json = if is_json { "content-type: application/json\r\n" } else { "" };
    let head = format!("{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{json}{headers}\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    // A server that refuses a body does not read all of it.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an HTTP answer");
    let head = String::from_utf8(answer[..end].to_vec()).expect("text").to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head, body: answer[end + 4..].to_vec() }
}

impl Answer {
    /// The body as text; answers under test are never chunked.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The code of an error answer.
    pub(crate) fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        assert!(json["message"].as_str().is_some_and(|message| !message.is_empty()), "{json}");
        json["error"].as_str().expect("a code").to_owned()
    }
}
