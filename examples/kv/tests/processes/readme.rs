//! The README, followed literally on an https cluster of three nodes: every `sh` block in order,
//! and its shown output.
//!
//! Machines are directories here. The differences from the README are in one table,
//! [`Reader::here`]; the steps that its text describes between the blocks are in
//! [`Reader::prepare`]. A block that is not run is listed with the reason.

use crate::support::{BINARY, PATIENCE, RELAXED};
use quorate::transport::certificates::Request;
use quorate_kv::client::{Client, Trust};
use quorate_ports::Port;
use std::{
    collections::BTreeMap,
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

const README: &str = include_str!("../../README.md");

/// Blocks that are not run, and the reason.
const NOT_RUN: &[(&str, &str)] =
    &[("cargo run --release -p quorate-kv -- demo", "it builds the release; the demo has a test of its own")];

/// The number of machines in the README.
const MACHINES: u64 = 7;
/// The machine of node 3 under its new address.
const MOVED: u64 = 13;
/// The polling interval while waiting for other processes.
const ASK_AGAIN: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_can_be_followed_to_the_letter() {
    let mut reader = Reader::new();
    let (mut run, mut not_run) = (0, Vec::new());
    let lacks_curl = std::process::Command::new("curl").arg("--version").output().is_err();
    for block in blocks() {
        let listed = NOT_RUN.iter().find(|(command, _)| block.text.trim() == *command).copied();
        let of_curl =
            Some(("curl", "curl is not installed here")).filter(|_| lacks_curl && block.text.contains("curl "));
        match listed.or(of_curl) {
            Some((command, why)) => {
                println!("not run: `{command}`, for {why}");
                not_run.push(command);
            }
            None => {
                println!("{}:\n{}", block.heading, block.text);
                reader.follow(&block).await;
                run += 1;
            }
        }
    }
    let expected = NOT_RUN.iter().map(|(command, _)| *command).chain(lacks_curl.then_some("curl"));
    assert_eq!(not_run, expected.collect::<Vec<_>>());
    let fences = README.lines().filter(|line| line.trim() == "```sh").count();
    assert!(run + not_run.len() == fences && run >= 12, "{run} blocks of {fences} were run");
}

#[test]
fn blocks_are_read_with_what_they_show_and_without_their_indentation() {
    let text = "## A\n\n   ```sh\n   one\n     two\n   ```\n\n   ```text\n   shown\n   ```\n```toml\nx\n```\n```text\nof x\n```\n";
    let found = blocks_of(text);
    let (block, shown) = (&found[0], found[0].shown.as_deref());
    assert_eq!((found.len(), &*block.heading, &*block.text, shown), (1, "A", "one\n  two\n", Some("shown\n")));
    assert_eq!(shape("node 12 is at  3\n"), shape("node 7 is at 45"));
    assert_ne!(shape("node 12 leads"), shape("node 12 follows"));
}

/// A block of commands.
struct Block {
    heading: String,
    text: String,
    /// The `text` block that follows: the expected output.
    shown: Option<String>,
}

fn blocks() -> Vec<Block> {
    blocks_of(README)
}

fn blocks_of(text: &str) -> Vec<Block> {
    let (mut found, mut heading) = (Vec::<Block>::new(), String::new());
    // Whether the last block was of commands, so that the next one may show their output.
    let mut is_open = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title.to_owned();
        }
        let Some(language) = line.trim_start().strip_prefix("```") else { continue };
        let indentation = line.len() - line.trim_start().len();
        let inner = lines.by_ref().take_while(|line| line.trim() != "```");
        let inner: String = inner.map(|line| format!("{}\n", line.get(indentation..).unwrap_or_default())).collect();
        match (language, found.last_mut().filter(|_| is_open)) {
            ("sh", _) => found.push(Block { heading: heading.clone(), text: inner, shown: None }),
            ("text", Some(block)) => block.shown = Some(inner),
            _ => {}
        }
        is_open = language == "sh";
    }
    found
}

#[test]
fn the_ports_of_the_reader_s_nodes_stay_reserved_while_they_are_down() {
    let reader = Reader::new();
    for (raft, http) in reader.addresses.values() {
        for port in [raft, http] {
            Port::at(port.number()).expect_err("no other test is given it");
        }
    }
}

/// The configuration of step 2.
fn configuration() -> String {
    let (_, rest) = README.split_once("```toml\n").expect("a configuration");
    let (inner, _) = rest.split_once("```").expect("its end");
    inner.lines().map(|line| format!("{}\n", line.trim_start())).collect()
}

/// A reader at a shell, with machines to run nodes on.
struct Reader {
    dir: TempDir,
    /// The ports of each machine's node, for nodes and for clients.
    addresses: BTreeMap<u64, (Port, Port)>,
    /// The `export` lines so far.
    exported: String,
    nodes: BTreeMap<u64, Child>,
}

impl Reader {
    fn new() -> Self {
        let dir = TempDir::new().expect("temporary directory");
        for place in (1..=MACHINES).map(|id| id.to_string()).chain(["operator".to_owned(), "bin".to_owned()]) {
            fs::create_dir(dir.path().join(place)).expect("made");
        }
        std::os::unix::fs::symlink(BINARY, dir.path().join("bin/quorate-kv")).expect("linked");
        let port = || quorate_ports::reserve_one().expect("a free port");
        let addresses = (1..=MACHINES).chain([MOVED]).map(|machine| (machine, (port(), port()))).collect();
        Self { dir, addresses, exported: String::new(), nodes: BTreeMap::new() }
    }

    /// Replaces the README's addresses by local ones, PID by the process id, and SHA256 by the
    /// fingerprint that node 2 was shown; nothing else.
    fn here(&self, text: &str, machine: Option<u64>) -> String {
        let mut text = text.to_owned();
        // Longest first, because one address may be a prefix of another.
        for (id, (raft, http)) in self.addresses.iter().rev() {
            let [raft, http] = [raft, http].map(|port| port.address().to_string());
            text = text.replace(&format!("10.0.0.{id}:7001"), &raft).replace(&format!("10.0.0.{id}:8001"), &http);
            text = text.replace(&format!("10.0.0.{id}"), "127.0.0.1");
        }
        if text.contains("SHA256") {
            let request = fs::read_to_string(self.machine(2).join("next/node-2.csr")).expect("a request");
            text = text.replace("SHA256", &Request::parse(&request).expect("in order").fingerprint());
        }
        let pid = machine.and_then(|id| self.nodes.get(&id)?.id());
        pid.map_or(text.clone(), |pid| text.replace("PID", &pid.to_string()))
    }

    fn machine(&self, id: u64) -> PathBuf {
        self.dir.path().join(node_of(id).to_string())
    }

    fn operator(&self) -> PathBuf {
        self.dir.path().join("operator")
    }

    async fn follow(&mut self, block: &Block) {
        let text = block.text.replace("\\\n", " ");
        let place = text.lines().next().and_then(|line| line.strip_prefix("# on "));
        let machines: Vec<u64> = place.map_or(vec![], |place| {
            let addresses = place.split(|c: char| !(c.is_ascii_digit() || c == '.'));
            addresses.filter_map(|address| address.strip_prefix("10.0.0.")?.parse().ok()).collect()
        });
        assert_eq!(place.is_some(), !machines.is_empty(), "{text}");
        let mut printed = String::new();
        match machines.split_first() {
            None => printed = self.run(&text, None).await,
            Some((first, others)) => {
                self.run(&text, Some(*first)).await;
                for other in others {
                    self.run(&text.replace(&format!("node-{first}"), &format!("node-{other}")), Some(*other)).await;
                }
            }
        }
        let Some(shown) = &block.shown else { return };
        let (expected, deadline) = (self.here(shown, None), Instant::now() + PATIENCE);
        // A node may learn of the newest configuration only after the command was answered.
        while shape(&printed) != shape(&expected) {
            assert!(Instant::now() < deadline, "the README shows\n{expected}and it is\n{printed}");
            let last = text.trim_end().lines().last().expect("a command");
            assert_eq!(last, "quorate-kv member list", "the README shows\n{expected}and it is\n{printed}");
            sleep(ASK_AGAIN).await;
            let again = self.run(last, None).await;
            let kept = expected.lines().count() - again.lines().count();
            printed = printed.lines().take(kept).map(|line| format!("{line}\n")).collect::<String>() + &again;
        }
    }

    /// Runs all lines in order, and returns their output.
    async fn run(&mut self, text: &str, machine: Option<u64>) -> String {
        let mut printed = String::new();
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let command = line.split(" #").next().unwrap_or_default().trim();
            self.prepare(command, machine).await;
            if command.starts_with("export ") {
                self.exported += &format!("{}\n", self.here(line, None));
            } else if command.starts_with("quorate-kv serve") && !command.contains("--check") {
                self.serve(line, machine.expect("a machine")).await;
            } else {
                let output = self.command(line, machine).await;
                printed += &String::from_utf8(output.stdout).expect("text");
            }
            let removed = command.strip_prefix("quorate-kv member remove ").and_then(|id| id.parse().ok());
            let stopped = machine.filter(|_| command.starts_with("kill -TERM"));
            if let Some(id) = removed.or(stopped) {
                let mut node = self.nodes.remove(&id).expect("it runs");
                let status = timeout(PATIENCE, node.wait()).await.expect("it ends soon").expect("it ends");
                assert!(status.success(), "{line}: {status}");
            }
        }
        printed
    }

    /// Runs a line to its end. It must succeed, or end with the exit code named in its comment.
    async fn command(&self, line: &str, machine: Option<u64>) -> Output {
        let expected = line.split_once("# exit code ").map_or(0, |(_, code)| code.trim().parse().expect("a code"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut shell = self.shell(&self.here(line, machine), machine);
            let output = timeout(PATIENCE * 2, shell.output()).await.expect(line).expect("a shell");
            let code = output.status.code();
            if code == Some(expected) {
                return output;
            }
            // Code 5 means "nothing happened; try again": a busy machine may lose its leader
            // at any time.
            let says = String::from_utf8_lossy(&output.stderr);
            assert!(code == Some(5) && Instant::now() < deadline, "{line}: exit code {code:?}: {says}");
            println!("tried again: {says}");
        }
    }

    fn shell(&self, line: &str, machine: Option<u64>) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        for (variable, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"QUORATE_")) {
            shell.env_remove(variable);
        }
        let exported = if machine.is_none() { &*self.exported } else { "" };
        shell.env("XDG_CONFIG_HOME", self.dir.path());
        shell.arg("-c").arg(format!("{exported}{line}")).env_remove("RUST_LOG");
        shell.env("PATH", format!("{}:{path}", self.dir.path().join("bin").display()));
        shell.current_dir(machine.map_or(self.operator(), |id| self.machine(id)));
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        shell
    }

    /// Starts a node in the background, and waits until it serves and has a leader; a joining node
    /// waits without a leader.
    async fn serve(&mut self, line: &str, id: u64) {
        let log = self.machine(id).join("log");
        let said = fs::OpenOptions::new().append(true).create(true).open(&log).expect("a file");
        let mut shell = self.shell(&format!("exec {}", self.here(line, Some(id))), Some(id));
        let mut node = shell.stderr(said).spawn().expect("it runs");
        let mut announced = String::new();
        let mut lines = BufReader::new(node.stdout.take().expect("piped"));
        timeout(PATIENCE * 2, lines.read_line(&mut announced)).await.expect(line).expect("text");
        let log = || fs::read_to_string(&log).unwrap_or_default();
        assert!(announced.starts_with(&format!("node {} of cluster ", node_of(id))), "{line}: {announced}{}", log());
        self.nodes.insert(node_of(id), node);
        if matches!(id, 4 | 5) {
            return;
        }
        // The clusters of 6 and 7 have authorities of their own, on those machines.
        let certs = if matches!(id, 6 | 7) { self.machine(id) } else { self.operator() }.join("certs");
        let trust = Trust::authority(&certs.join("ca.pem")).expect("an authority");
        let trust = trust.with_certificate(&certs.join("alice.pem"), &certs.join("alice.key")).expect("a certificate");
        let url = format!("https://{}", self.addresses[&node_of(id)].1.address());
        let mut client = Client::new(&[url], &trust).expect("a client");
        let deadline = Instant::now() + PATIENCE;
        // The first of three nodes has no leader before the second one runs.
        while id != 1
            && client.status().await.unwrap_or_else(|error| panic!("{line}: {error}: {}", log())).leader_id.is_none()
        {
            assert!(Instant::now() < deadline, "{line}: no leader: {}", log());
            sleep(ASK_AGAIN).await;
        }
    }

    /// Does the steps that the README describes in words before a command: copies files, writes
    /// configurations, loses nodes.
    async fn prepare(&mut self, command: &str, machine: Option<u64>) {
        if command.starts_with("quorate-kv certs sign") {
            fs::copy(self.machine(2).join("next/node-2.csr"), self.operator().join("node-2.csr")).expect("copied");
        }
        let Some(id) = machine else { return };
        let dir = self.machine(id);
        if command.starts_with("quorate-kv restore") {
            fs::copy(self.operator().join("monday.backup"), dir.join("monday.backup")).expect("copied");
        }
        if command.starts_with("quorate-kv recover") && !dir.join("node-3").exists() {
            for mut node in std::mem::take(&mut self.nodes).into_values() {
                node.kill().await.expect("killed");
            }
            for survivor in [3, 4] {
                copy(&self.machine(survivor).join("data"), &dir.join(format!("node-{survivor}/data")));
            }
        }
        if !command.starts_with("quorate-kv serve") {
            return;
        }
        if !dir.join("certs").exists() {
            fs::create_dir(dir.join("certs")).expect("made");
            for file in ["ca.pem".to_owned(), format!("node-{id}.pem"), format!("node-{id}.key")] {
                fs::copy(self.operator().join("certs").join(&file), dir.join("certs").join(&file)).expect("copied");
            }
        }
        let file = dir.join(format!("node-{}.toml", node_of(id)));
        if id == MOVED {
            let text = fs::read_to_string(&file).expect("a configuration");
            let [before, after] = [node_of(id), id].map(|id| self.addresses[&id].0.address().to_string());
            let text = text.replace(&before, &after);
            fs::write(file, text).expect("written");
        } else if !file.exists() {
            fs::write(file, self.configuration_of(id)).expect("written");
        }
    }

    /// The configuration of step 2 for another node, as the README describes: 4 and 5 join, 6 and 7
    /// are alone in new clusters. With timing for a busy machine.
    fn configuration_of(&self, id: u64) -> String {
        let of_one = configuration();
        let (head, peers) = of_one.split_at(of_one.find("[[peers]]").expect("peers"));
        let head = head.replace("node_id = 1", &format!("node_id = {id}")).replace("node-1", &format!("node-{id}"));
        let head = head.replace("https://10.0.0.1", &format!("https://10.0.0.{id}"));
        let (head, peers) = match id {
            4 | 5 => (head.replace("[tls]", "state = \"join\"\n[tls]"), String::new()),
            6 | 7 => {
                let name = format!("\"demo-{}\"", id - 4);
                (head.replace("\"demo\"", &name), format!("[[peers]]\nid = {id}\naddr = \"10.0.0.{id}:7001\"\n"))
            }
            _ => (head, peers.to_owned()),
        };
        let own = head.replace("0.0.0.0", &format!("10.0.0.{id}"));
        self.here(&(own + &peers + "\n" + RELAXED), None)
    }
}

/// The node that runs on a machine.
const fn node_of(machine: u64) -> u64 {
    if machine == MOVED { 3 } else { machine }
}

/// Copies all files of a directory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
}

/// An output without its numbers and column widths.
fn shape(text: &str) -> Vec<String> {
    let mut shape = Vec::new();
    for line in text.lines() {
        let words = line.split_whitespace().map(|word| {
            let parts = word.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty());
            parts.collect::<Vec<_>>().join("#") + if word.ends_with(|c: char| c.is_ascii_digit()) { "#" } else { "" }
        });
        shape.push(words.collect::<Vec<_>>().join(" "));
    }
    shape
}
