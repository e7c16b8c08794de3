//! The lock server as three processes over QUIC, and its command line.

use quorate::{NodeId, transport::certificates::Authority};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs::{self, Permissions},
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

const BINARY: &str = env!("CARGO_BIN_EXE_locks");
/// The time for an event that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_held_lock_survives_its_leader_and_a_silent_holders_lock_passes_on_with_a_higher_token() {
    let mut cluster = Cluster::prepare(3);
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let leader = cluster.until(1, "leader", |reply| reply.starts_with("leader ")).await;
    let leader: u64 = leader.trim_start_matches("leader ").parse().expect("an id");
    let other = leader % 3 + 1;
    let mut resource = Resource::default();

    let alice = cluster.granted(other, "acquire db alice 600000", "alice").await;
    let silent = cluster.granted(other, "acquire job silent 3000", "silent").await;
    assert!(resource.accepts(alice, "alice") && resource.accepts(silent, "silent"));
    cluster.ask(other, "acquire job next 600000 wait").await;
    cluster.kill(leader).await;

    let renewed = cluster.granted(other, &format!("renew db {alice} 600000"), "alice").await;
    assert_eq!(renewed, alice, "the hold is the same one");
    let next = cluster.granted(other, "acquire job next 600000 wait", "next").await;
    assert!(next > silent);
    assert!(resource.accepts(next, "next") && !resource.accepts(silent, "silent"));
    let late = cluster.until(other, &format!("renew job {silent} 3000"), |_| true).await;
    assert_eq!(late, "not held");

    cluster.start(leader).await;
    for (lock, owner, token) in [("db", "alice", alice), ("job", "next", next)] {
        let expected = format!("held {owner} {token}");
        assert_eq!(cluster.until(leader, &format!("holder {lock}"), |_| true).await, expected);
    }
    for id in 1..=3 {
        cluster.stop(id, if id == 1 { Signal::INT } else { Signal::TERM }).await;
    }
}

#[tokio::test]
async fn a_request_or_a_file_that_makes_no_sense_is_refused() {
    let mut cluster = Cluster::prepare(1);
    cluster.start(1).await;
    let token = cluster.granted(1, "acquire db alice 600000", "alice").await;
    assert_eq!(cluster.ask(1, "acquire db bob 1000").await, (Some(1), format!("busy alice {token}")));
    for request in
        ["", "POST / HTTP/1.1", "acquire db bob", "acquire db bob -1", "renew db x 1", "acquire db bob 1 soon"]
    {
        let (code, reply) = cluster.ask(1, request).await;
        assert!(code == Some(2) && !reply.is_empty(), "{request}: {code:?} {reply}");
    }
    let refused = (Some(2), "a request is one line of at most 1024 bytes".to_owned());
    for (name, expected) in [(1_016, (Some(1), "free".to_owned())), (1_017, refused.clone()), (100_000, refused)] {
        assert_eq!(cluster.ask(1, &format!("holder {}", "n".repeat(name))).await, expected, "{name}");
    }
    assert_eq!(cluster.ask(1, &format!("release db {token}")).await, (Some(0), "released".into()));
    assert_eq!(cluster.ask(1, "holder db").await, (Some(1), "free".into()));
    cluster.stop(1, Signal::TERM).await;
    assert_eq!(cluster.ask(1, "holder db").await.0, Some(2), "no node serves");

    let good = fs::read_to_string(cluster.dir.path().join("node1.toml")).expect("a file");
    for (bad, names) in [(format!("colour = 1\n{good}"), "colour"), (good.replacen("id = 1", "id = 7", 1), "7")] {
        fs::write(cluster.dir.path().join("bad.toml"), bad).expect("written");
        let output = cluster.run(&["--config", "bad.toml"]).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && error.contains(names), "{error}");
    }
}

#[tokio::test]
async fn other_users_are_kept_out_whatever_the_umask_and_a_socket_that_is_gone_is_no_error() {
    let mut cluster = Cluster::prepare(1);
    let data = cluster.dir.path().join("data1");
    fs::create_dir(&data).expect("created");
    fs::set_permissions(&data, Permissions::from_mode(0o777)).expect("open to all");
    let mut node = Command::new("sh");
    node.args(["-c", "umask 0; exec \"$0\" --config node1.toml", BINARY]).current_dir(cluster.dir.path());
    cluster.started(1, node).await;
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&data.join("socket"))), (0o700, 0o600));
    cluster.granted(1, "acquire db alice 600000", "alice").await;
    fs::remove_file(data.join("socket")).expect("removed");
    cluster.stop(1, Signal::TERM).await;
}

/// A protected resource: it refuses tokens lower than the highest that it has seen.
#[derive(Default)]
struct Resource {
    highest: u128,
    owners: BTreeMap<u128, String>,
}

impl Resource {
    fn accepts(&mut self, token: u128, owner: &str) -> bool {
        if token < self.highest {
            return false;
        }
        self.highest = token;
        let first = self.owners.entry(token).or_insert_with(|| owner.to_owned());
        assert_eq!(first, owner, "a token has one holder");
        true
    }
}

/// Nodes of one directory. They are killed when this is dropped.
struct Cluster {
    dir: TempDir,
    nodes: BTreeMap<u64, Child>,
    _held: Vec<UdpSocket>,
}

impl Cluster {
    /// Writes certificates, and a file for each node.
    fn prepare(count: u64) -> Self {
        let dir = TempDir::new().expect("a directory");
        let (ports, held): (Vec<_>, Vec<_>) = (0..count).map(|_| held_port()).unzip();
        let authority = Authority::create("locks").expect("an authority");
        fs::write(dir.path().join("ca.pem"), authority.certificate_pem()).expect("written");
        let mut members = String::new();
        for (id, port) in (1..).zip(&ports) {
            writeln!(members, "[[members]]\nid = {id}\naddress = \"127.0.0.1:{port}\"").expect("a string takes it");
        }
        for id in 1..=count {
            let issued = authority.issue_node(NodeId(id), &["127.0.0.1".into()]).expect("a certificate");
            issued.write(dir.path(), &format!("node-{id}")).expect("written");
            let text = format!(
                "id = {id}\ncluster = \"locks\"\ndata = \"data{id}\"\nca = \"ca.pem\"\ncert = \"node-{id}.pem\"\n\
                 key = \"node-{id}.key\"\n{members}"
            );
            fs::write(dir.path().join(format!("node{id}.toml")), text).expect("written");
        }
        Self { dir, nodes: BTreeMap::new(), _held: held }
    }

    /// Starts a node and waits until it serves.
    async fn start(&mut self, id: u64) {
        let node = self.command(&["--config", &format!("node{id}.toml")]);
        self.started(id, node).await;
    }

    async fn started(&mut self, id: u64, mut node: Command) {
        let node = node.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut node = node.spawn().expect("the binary runs");
        let (mut line, out) = (String::new(), node.stdout.take().expect("piped"));
        timeout(PATIENCE, BufReader::new(out).read_line(&mut line)).await.expect("it serves").expect("it prints");
        assert_eq!(line, format!("node {id} serves data{id}/socket\n"));
        self.nodes.insert(id, node);
    }

    async fn kill(&mut self, id: u64) {
        self.nodes.remove(&id).expect("it runs").kill().await.expect("killed");
    }

    async fn stop(&mut self, id: u64, signal: Signal) {
        let mut node = self.nodes.remove(&id).expect("it runs");
        let pid = node.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).expect("it runs");
        kill_process(pid, signal).expect("sent");
        let status = timeout(PATIENCE, node.wait()).await.expect("it stops").expect("it ends");
        assert!(status.success(), "{status}");
        assert!(!self.dir.path().join(format!("data{id}/socket")).exists());
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(words).current_dir(self.dir.path()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn run(&self, words: &[&str]) -> Output {
        timeout(PATIENCE, self.command(words).output()).await.expect("it ends").expect("the binary runs")
    }

    /// The exit code and the line that a request gets at a node.
    async fn ask(&self, id: u64, request: &str) -> (Option<i32>, String) {
        let (data, mut words) = (format!("data{id}"), Vec::new());
        words.push(data.as_str());
        words.extend(request.split(' '));
        let Output { status, stdout, stderr } = self.run(&words).await;
        let line = String::from_utf8([stdout, stderr].concat()).expect("text");
        (status.code(), line.trim_end().to_owned())
    }

    /// Asks until an answer fits, as a client does while there is no leader.
    async fn until(&self, id: u64, request: &str, fits: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (code, line) = self.ask(id, request).await;
            if code != Some(2) && fits(&line) {
                return line;
            }
            assert!(Instant::now() < deadline, "{request}: the last answer is {line}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks until the lock is granted to the owner; returns the token.
    async fn granted(&self, id: u64, request: &str, owner: &str) -> u128 {
        let prefix = format!("granted {owner} ");
        let line = self.until(id, request, |line| line.starts_with(&prefix)).await;
        line[prefix.len()..].parse().expect("a token")
    }
}

/// A port of loopback that the system chose. It is bound on another loopback address until the
/// socket is dropped, so that the system gives it to no other program while its node is down.
fn held_port() -> (u16, UdpSocket) {
    for _ in 0..100 {
        let held = UdpSocket::bind("127.0.81.2:0").expect("a free port");
        let port = held.local_addr().expect("bound").port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return (port, held);
        }
    }
    panic!("no free port on loopback");
}
