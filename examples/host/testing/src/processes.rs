//! Nodes of an example as processes over QUIC, in one directory.

use quorate::{NodeId, transport::certificates::Authority};
use quorate_ports::Port;
pub use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// The time for an event that takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes of one directory. They are killed when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    binary: &'static str,
    dir: TempDir,
    nodes: BTreeMap<u64, Child>,
    _ports: Vec<Port>,
}

impl Cluster {
    /// Writes certificates, and a file for each node, `nodeID.toml`; `binary` is the program.
    #[must_use]
    pub fn prepare(binary: &'static str, count: u64) -> Self {
        let dir = TempDir::new().expect("a directory");
        let ports: Vec<_> = (0..count).map(|_| quorate_ports::reserve_one().expect("a free port")).collect();
        let authority = Authority::create("testing").expect("an authority");
        fs::write(dir.path().join("ca.pem"), authority.certificate_pem()).expect("written");
        let mut members = String::new();
        for (id, port) in (1..).zip(&ports) {
            writeln!(members, "[[members]]\nid = {id}\naddress = \"{}\"", port.address()).expect("a string takes it");
        }
        for id in 1..=count {
            let issued = authority.issue_node(NodeId(id), &["127.0.0.1".into()]).expect("a certificate");
            issued.write(dir.path(), &format!("node-{id}")).expect("written");
            let text = format!(
                "id = {id}\ncluster = \"testing\"\ndata = \"data{id}\"\nca = \"ca.pem\"\ncert = \"node-{id}.pem\"\n\
                 key = \"node-{id}.key\"\n{members}"
            );
            fs::write(dir.path().join(format!("node{id}.toml")), text).expect("written");
        }
        Self { binary, dir, nodes: BTreeMap::new(), _ports: ports }
    }

    /// Adds a table to the file of each node of a cluster of this many.
    pub fn configure(&self, count: u64, table: &str) {
        for id in 1..=count {
            let file = self.dir.path().join(format!("node{id}.toml"));
            let text = fs::read_to_string(&file).expect("a file");
            fs::write(file, format!("{text}\n{table}\n")).expect("written");
        }
    }

    /// The directory of all files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory of a node.
    #[must_use]
    pub fn data(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("data{id}"))
    }

    /// Starts a node and waits until it serves.
    pub async fn start(&mut self, id: u64) {
        let node = self.command(&["--config", &format!("node{id}.toml")]);
        self.started(id, node).await;
    }

    /// Starts a node by a command, and waits until it serves.
    pub async fn started(&mut self, id: u64, mut node: Command) {
        let node = node.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut node = node.spawn().expect("the binary runs");
        let (mut line, out) = (String::new(), node.stdout.take().expect("piped"));
        timeout(PATIENCE, BufReader::new(out).read_line(&mut line)).await.expect("it serves").expect("it prints");
        assert_eq!(line, format!("node {id} serves data{id}/socket\n"));
        self.nodes.insert(id, node);
    }

    /// Kills a node with SIGKILL.
    pub async fn kill(&mut self, id: u64) {
        let mut node = self.nodes.remove(&id).expect("it runs");
        assert_eq!(node.try_wait().expect("its status"), None, "node {id} has ended by itself");
        node.kill().await.expect("killed");
    }

    /// Stops a node with a signal, and waits for its end in order.
    pub async fn stop(&mut self, id: u64, signal: Signal) {
        let mut node = self.nodes.remove(&id).expect("it runs");
        let pid = node.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).expect("it runs");
        kill_process(pid, signal).expect("sent");
        let status = timeout(PATIENCE, node.wait()).await.expect("it stops").expect("it ends");
        assert!(status.success(), "{status}");
        assert!(!self.data(id).join("socket").exists());
    }

    /// Stops all nodes in order.
    pub async fn stop_all(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop(id, Signal::TERM).await;
        }
    }

    /// The program with arguments, in the directory.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.binary);
        command.args(words).current_dir(self.dir.path()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs the program to its end.
    pub async fn run(&self, words: &[&str]) -> Output {
        timeout(PATIENCE, self.command(words).output()).await.expect("it ends").expect("the binary runs")
    }

    /// The exit code and the lines that a request gets from a node, through the command line.
    pub async fn ask(&self, id: u64, request: &str) -> (Option<i32>, String) {
        let (data, mut words) = (format!("data{id}"), Vec::new());
        words.push(data.as_str());
        words.extend(request.split(' '));
        let Output { status, stdout, stderr } = self.run(&words).await;
        let line = String::from_utf8([stdout, stderr].concat()).expect("text");
        (status.code(), line.trim_end().to_owned())
    }

    /// Asks until an answer fits, as a client does while there is no leader.
    pub async fn until(&self, id: u64, request: &str, fits: impl Fn(&str) -> bool) -> String {
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

    /// The leader, once node `id` knows one.
    pub async fn leader(&self, id: u64) -> u64 {
        let leader = self.until(id, "leader", |reply| reply.starts_with("leader ")).await;
        leader.trim_start_matches("leader ").parse().expect("an id")
    }
}
