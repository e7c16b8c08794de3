//! The procedures of `transport/SECURITY.md`, followed on running clusters over https, without a
//! restart: renewal, another authority, stolen keys, a lapsed list.
//!
//! Each node has its files in a directory of its own, as on a machine of its own; the authority and
//! the operator have theirs.

use crate::roles::connector_of;
use crate::support::{PATIENCE, Ran, Running, laid_out, run};
use quorate::{
    NodeId,
    transport::certificates::{Authority, LIST_FILE, Reason},
};
use quorate_kv::{
    certs::{Args, make},
    client::{Client, Trust},
    cluster::Signal,
};
use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{
    client::TlsStream,
    rustls::{
        RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

const MONITOR: &str = "monitor-0123456789abcdef0123456789";
const STOLEN: &str = "stolen-0123456789abcdef01234567890";
/// The polling interval while waiting for other processes.
const ASK_AGAIN: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_needs_no_restart_and_fails_no_write() {
    let site = Site::start(3).await;
    let (before, writer) = (site.pids(), site.writer());
    site.certs(&["renew", "--days", "30"]).await.succeeded();
    for id in site.ids() {
        let end = site.end_of(&site.ca(&format!("node-{id}.pem")));
        site.give_pair(id, &site.dir);
        // The last one takes the files by itself.
        if id != NodeId(3) {
            site.reload(id);
        }
        for of in ["nodes", "http"] {
            let what = format!("node {id} has the new certificate, {of}");
            site.until(&what, async || site.expiry(id, of).await == Some(end)).await;
        }
        writer.go_on().await;
    }
    writer.finish().await;
    site.until("all hear a leader", async || site.all_hear_a_leader().await).await;
    assert_eq!(site.pids(), before);
}

/// The key of the old authority is lost before it begins: no step needs it.
#[tokio::test(flavor = "multi_thread")]
async fn an_authority_is_replaced_without_a_restart_and_without_its_key() {
    let site = Site::start(3).await;
    let before = site.pids();
    fs::remove_file(site.ca("ca.key")).expect("removed");
    let lost = site.certs(&["renew"]).await;
    assert!(lost.error_line().contains("ca.key"), "no more certificates, and no more lists");
    site.put("lost").await;

    let next = site.path("next");
    let nodes = site.ids().into_iter().map(|id| (id, vec!["127.0.0.1".to_owned()])).collect();
    let operators = vec!["alice".to_owned()];
    make(&Args { nodes, operators, ..Args::new(next.clone(), "demo") }).expect("certificates");
    let at = next.display().to_string();
    run(&["certs", "crl", "--dir", &at]).await.succeeded();
    let both = |file: &str| [&site.dir, &next].map(|dir| fs::read_to_string(dir.join(file)).expect("there")).concat();

    // 1. Both authorities, and a list of each.
    for id in site.ids() {
        let loads = site.loads(id).await;
        site.write(id, "ca.pem", &both("ca.pem"));
        site.write(id, "crl.pem", &both(LIST_FILE));
        site.reloaded(id, loads).await;
        site.put("first round").await;
    }
    replace(&site.path("operator/ca.pem"), &both("ca.pem"));
    site.put("with both authorities").await;
    // 2. Pairs of the new one: of the nodes, then of clients and operators.
    for id in site.ids() {
        let end = site.end_of(&next.join(format!("node-{id}.pem")));
        site.give_pair(id, &next);
        site.reload(id);
        site.until("the new pair", async || site.expiry(id, "nodes").await == Some(end)).await;
        site.put("second round").await;
    }
    let old = site.path("old");
    fs::create_dir(&old).expect("made");
    for file in ["alice.pem", "alice.key"] {
        fs::copy(site.path("operator").join(file), old.join(file)).expect("copied");
        replace(&site.path("operator").join(file), &fs::read_to_string(next.join(file)).expect("there"));
    }
    site.put("as an operator of the new authority").await;
    // 3. The new one alone, and its list.
    for id in site.ids() {
        for (file, from) in [("ca.pem", "ca.pem"), ("crl.pem", LIST_FILE)] {
            site.write(id, file, &fs::read_to_string(next.join(from)).expect("there"));
        }
        site.reload(id);
        site.until("the old authority counts no more", async || site.refuses(id, &old, "alice").await).await;
        site.put("third round").await;
    }
    replace(&site.path("operator/ca.pem"), &fs::read_to_string(next.join("ca.pem")).expect("there"));
    site.put("with the new authority alone").await;
    site.until("all hear a leader", async || site.all_hear_a_leader().await).await;
    assert_eq!(site.pids(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_key_of_an_operator_or_a_client_is_revoked_and_open_connections_with_it_end() {
    let site = Site::start(1).await;
    let (one, thief) = (NodeId(1), site.path("certs"));
    for name in ["alice", "billing"] {
        let mut open = site.connect(one, Some((&thief, name))).await.expect("it counts");
        assert!(ask(&mut open, "/v1/kv?limit=1").await.expect("an answer").starts_with("HTTP/1.1 200"));
        let cert = site.ca(&format!("{name}.pem")).display().to_string();
        site.certs(&["revoke", "--cert", &cert, "--reason", "key-compromise"]).await.succeeded();
        site.give_list(one);
        site.reload(one);
        site.until("the key counts no more", async || site.refuses(one, &thief, name).await).await;
        let ended = async { while open.read_u8().await.is_ok() {} };
        timeout(PATIENCE, ended).await.expect("an open connection ends");
        site.certs(&["renew", name]).await.succeeded();
        let renewed = [format!("{name}.pem"), format!("{name}.key")];
        for file in &renewed {
            fs::copy(site.ca(file), site.path("operator").join(file)).expect("copied");
        }
        let operator = site.path("operator");
        let mut open = site.connect(one, Some((&operator, name))).await.expect("the new one counts");
        assert!(ask(&mut open, "/v1/kv?limit=1").await.expect("an answer").starts_with("HTTP/1.1 200"));
        if name == "alice" {
            // The thief of the next round has what was stolen, and not what was renewed.
            site.put("as the operator").await;
        }
    }
}

/// The thief has all files of the node but its data, and comes from the node's own address.
#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_key_of_a_node_is_revoked_and_its_node_is_renewed() {
    let mut site = Site::start(3).await;
    let victim = site.a_follower().await;
    let others: Vec<_> = site.ids().into_iter().filter(|id| *id != victim).collect();
    let cert = site.ca(&format!("node-{victim}.pem")).display().to_string();
    site.certs(&["revoke", "--cert", &cert, "--reason", "key-compromise"]).await.succeeded();
    for id in &others {
        let loads = site.loads(*id).await;
        site.give_list(*id);
        site.reloaded(*id, loads).await;
    }
    site.put("without the victim").await;

    // The thief in its place.
    site.cluster.kill(victim).await.expect("killed");
    let data = site.cluster.layout().data_dir(victim);
    fs::rename(&data, site.path("kept")).expect("kept");
    let log = |id: &NodeId| fs::read_to_string(site.cluster.layout().log_file(*id)).expect("a log");
    let before: Vec<_> = others.iter().map(|id| log(id).len()).collect();
    site.cluster.start_node(victim).await.expect("its own list is old");
    for (id, before) in others.iter().zip(before) {
        let log = site.cluster.layout().log_file(*id);
        let log = || fs::read_to_string(&log).expect("a log").split_off(before);
        let is_refused = async || log().lines().any(|line| line.to_lowercase().contains("revoked"));
        site.until(&format!("node {id} refuses it"), is_refused).await;
    }
    let page = site.metrics(victim).await.expect("metrics");
    assert_eq!(value(&page, "quorate_last_index", &[]), Some(0), "it got no entry");
    site.cluster.kill(victim).await.expect("killed");
    fs::remove_dir_all(&data).expect("removed");
    fs::rename(site.path("kept"), &data).expect("back");
    site.put("after the thief").await;

    site.certs(&["renew", &format!("node-{victim}")]).await.succeeded();
    site.give_pair(victim, &site.dir);
    site.give_list(victim);
    site.cluster.start_node(victim).await.expect("it serves");
    site.until("all hear a leader", async || site.all_hear_a_leader().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_token_is_removed_from_the_files_of_the_nodes() {
    let site = Site::start(1).await;
    let (one, token) = (NodeId(1), site.path("stolen"));
    fs::write(&token, STOLEN).expect("written");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("changed");
    let get = async || site.run_as(&["get", "k", "--json"], &["--token-file", &token.display().to_string()]).await;
    site.put("v").await;
    get().await.succeeded();
    site.write(one, "tokens", &format!("monitor m {MONITOR}\n"));
    site.reload(one);
    site.until("the token counts no more", async || get().await.code == Some(7)).await;
    assert_eq!(get().await.failure(), (7, "unauthenticated".to_owned()));
}

/// Both halves: between nodes, and for clients.
#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_list_keeps_new_connections_out_and_no_open_ones_and_its_renewal_lets_them_in() {
    let site = Site::start(3).await;
    let (one, operator) = (NodeId(1), site.path("operator"));
    let authority = Authority::load(&site.dir).expect("an authority");
    // Long enough for all nodes to load it before it lapses.
    authority.revoke(&site.dir, &[], Reason::Unspecified, Duration::from_secs(20)).expect("a list");
    let list = authority.revocation_list(&site.dir).expect("readable").expect("there");
    let mut open = site.connect(one, Some((&operator, "alice"))).await.expect("it counts");
    for id in site.ids() {
        let loads = site.loads(id).await;
        site.give_list(id);
        site.reloaded(id, loads).await;
    }
    assert!(SystemTime::now() < list.next_update, "this machine is too slow for this test");
    site.until("the list lapses", async || site.refuses(one, &operator, "alice").await).await;
    assert!(SystemTime::now() >= list.next_update);
    // The cluster serves on, for those that are connected.
    let answer = ask(&mut open, "/v1/kv?limit=1").await.expect("the connection stays");
    assert!(answer.starts_with("HTTP/1.1 200"), "a read through the leader: {answer}");
    let config = site.cluster.layout().config_file(one).display().to_string();
    let line = run(&["serve", "--check", "--config", &config]).await.error_line();
    assert!(line.contains("crl.pem") && line.contains("expired"), "{line}");

    site.certs(&["crl"]).await.succeeded();
    for id in site.ids() {
        site.give_list(id);
        site.reload(id);
        site.until("the new list counts", async || site.connect(id, Some((&operator, "alice"))).await.is_ok()).await;
    }
    site.put("with the new list").await;
    site.until("all hear a leader", async || site.all_hear_a_leader().await).await;
}

/// A cluster over https, with lists and tokens; its authority in `dir`, and the operator alice.
struct Site {
    cluster: Running,
    dir: PathBuf,
}

impl Site {
    async fn start(nodes: u64) -> Self {
        let cluster = laid_out("demo", nodes);
        let dir = PathBuf::from(cluster.path("certs"));
        let mut site = Self { cluster, dir };
        let (clients, operators) = (vec!["billing".to_owned()], vec!["alice".to_owned()]);
        make(&Args { clients, operators, ..Args::new(site.dir.clone(), "demo") }).expect("certificates");
        site.certs(&["crl"]).await.succeeded();
        fs::create_dir(site.path("operator")).expect("made");
        for file in ["ca.pem", "alice.pem", "alice.key"] {
            fs::copy(site.ca(file), site.path("operator").join(file)).expect("copied");
        }
        for id in site.ids() {
            fs::create_dir(site.node(id, "")).expect("made");
            site.write(id, "ca.pem", &fs::read_to_string(site.ca("ca.pem")).expect("there"));
            site.write(id, "tokens", &format!("monitor m {MONITOR}\nclient shop {STOLEN}\n"));
            site.give_pair(id, &site.dir);
            site.give_list(id);
            site.configure(id);
        }
        site.cluster.start_all().await.expect("started");
        site.until("all hear a leader", async || site.all_hear_a_leader().await).await;
        site
    }

    /// The configuration names the node's own files.
    fn configure(&self, id: NodeId) {
        let file = self.cluster.layout().config_file(id);
        let own = |name: &str| format!("{:?}", self.node(id, name));
        let quoted = |name: &str| format!("{:?}", self.ca(name));
        let text = fs::read_to_string(&file).expect("readable");
        let text = text
            .replace(&quoted("ca.pem"), &own("ca.pem"))
            .replace(&quoted(&format!("node-{id}.pem")), &own("cert.pem"))
            .replace(&quoted(&format!("node-{id}.key")), &own("key.pem"))
            .replace("[tls]\n", &format!("[tls]\ncrl = {}\n", own("crl.pem")));
        let [cert, key, ca, crl, tokens] = ["cert.pem", "key.pem", "ca.pem", "crl.pem", "tokens"].map(own);
        let http = format!("[http_tls]\ncert = {cert}\nkey = {key}\nclient_ca = {ca}\nclient_crl = {crl}\n");
        fs::write(&file, format!("{text}\n{http}\n[http_auth]\ntokens = {tokens}\n")).expect("written");
    }

    fn ids(&self) -> Vec<NodeId> {
        self.cluster.ids()
    }

    fn pids(&self) -> Vec<u32> {
        self.ids().into_iter().map(|id| self.cluster.pid(id).expect("it runs")).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(self.cluster.path(name))
    }

    fn ca(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn node(&self, id: NodeId, name: &str) -> PathBuf {
        self.path(&format!("machine-{id}")).join(name)
    }

    fn end_of(&self, certificate: &Path) -> u64 {
        let pem = fs::read_to_string(certificate).expect("readable");
        let end = quorate::transport::certificates::end_of(&pem).expect("a certificate");
        end.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
    }

    /// Runs a command of `certs` where the authority is.
    async fn certs(&self, args: &[&str]) -> Ran {
        run(&[&["certs"], args, &["--dir", &self.dir.display().to_string()]].concat()).await
    }

    fn write(&self, id: NodeId, name: &str, text: &str) {
        replace(&self.node(id, name), text);
    }

    fn give_list(&self, id: NodeId) {
        self.write(id, "crl.pem", &fs::read_to_string(self.ca(LIST_FILE)).expect("there"));
    }

    /// The node's pair from a directory: first the key.
    fn give_pair(&self, id: NodeId, from: &Path) {
        for (ending, name) in [("key", "key.pem"), ("pem", "cert.pem")] {
            self.write(id, name, &fs::read_to_string(from.join(format!("node-{id}.{ending}"))).expect("there"));
        }
    }

    fn reload(&self, id: NodeId) {
        self.cluster.signal(id, Signal::HUP).expect("it runs");
    }

    /// The numbers of reloads that succeeded, of both halves.
    async fn loads(&self, id: NodeId) -> [u64; 2] {
        let page = self.metrics(id).await.expect("metrics");
        ["nodes", "http"].map(|of| {
            let labels = [format!("of=\"{of}\""), "result=\"loaded\"".to_owned()];
            value(&page, "quorate_credential_reloads_total", &labels).unwrap_or(0)
        })
    }

    /// Asks for a reload, and waits until both halves have loaded again.
    async fn reloaded(&self, id: NodeId, before: [u64; 2]) {
        self.reload(id);
        let what = format!("node {id} reloads");
        let is_done = async || self.loads(id).await.iter().zip(before).all(|(now, before)| *now > before);
        self.until(&what, is_done).await;
    }

    /// The end of a node's certificate, by its metrics.
    async fn expiry(&self, id: NodeId, of: &str) -> Option<u64> {
        let page = self.metrics(id).await?;
        value(&page, "quorate_certificate_expiry_timestamp_seconds", &[format!("of=\"{of}\"")])
    }

    async fn metrics(&self, id: NodeId) -> Option<String> {
        let mut stream = self.connect(id, None).await.ok()?;
        ask(&mut stream, "/metrics").await.ok()
    }

    /// A connection to a node, with this certificate, or with none. TLS 1.3 tells the client of a
    /// refusal only after its own side is complete, so the first answer decides.
    async fn connect(&self, id: NodeId, pair: Option<(&Path, &str)>) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for ca in CertificateDer::pem_file_iter(self.path("operator/ca.pem")).expect("readable") {
            roots.add(ca.expect("PEM")).expect("an authority");
        }
        let endpoint = self.cluster.endpoint(id);
        let stream = TcpStream::connect(endpoint.trim_start_matches("http://")).await?;
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let mut stream = connector_of(roots, pair).connect(name, stream).await?;
        ask(&mut stream, "/livez").await?;
        Ok(stream)
    }

    /// Whether a node accepts connections, and none with this certificate.
    async fn refuses(&self, id: NodeId, dir: &Path, name: &str) -> bool {
        self.connect(id, Some((dir, name))).await.is_err() && self.connect(id, None).await.is_ok()
    }

    fn endpoints(&self) -> Vec<String> {
        self.cluster.running().into_iter().map(|id| self.cluster.endpoint(id).replace("http://", "https://")).collect()
    }

    async fn run_as(&self, args: &[&str], identity: &[&str]) -> Ran {
        let ca = self.path("operator/ca.pem").display().to_string();
        let endpoints = self.endpoints();
        let endpoints: Vec<_> = endpoints.iter().flat_map(|url| ["--endpoint", url]).collect();
        run(&[args, &endpoints, &["--ca", &ca], identity].concat()).await
    }

    /// Runs a command as the operator.
    async fn run(&self, args: &[&str]) -> Ran {
        let [cert, key] = ["alice.pem", "alice.key"].map(|name| self.path("operator").join(name).display().to_string());
        self.run_as(args, &["--cert", &cert, "--key", &key]).await
    }

    /// Writes, and reads from every running node.
    async fn put(&self, text: &str) {
        self.run(&["put", "k", text]).await.succeeded();
        assert_eq!(self.run(&["get", "k"]).await.succeeded(), text);
    }

    /// Whether every node runs, and leads or hears a leader.
    async fn all_hear_a_leader(&self) -> bool {
        for id in self.ids() {
            let page = self.metrics(id).await;
            if page.and_then(|page| value(&page, "quorate_has_leader", &[])) != Some(1) {
                return false;
            }
        }
        true
    }

    async fn a_follower(&self) -> NodeId {
        for id in self.ids() {
            let page = self.metrics(id).await.expect("metrics");
            if value(&page, "quorate_role", &["role=\"follower\"".to_owned()]) == Some(1) {
                return id;
            }
        }
        panic!("no node follows");
    }

    async fn until(&self, what: &str, mut probe: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !probe().await {
            assert!(Instant::now() < deadline, "not in time: {what}");
            sleep(ASK_AGAIN).await;
        }
    }

    /// A client of all nodes that writes until it is told to end.
    fn writer(&self) -> Writer {
        let operator = self.path("operator");
        let trust = Trust::authority(&operator.join("ca.pem")).expect("an authority");
        let trust = trust.with_certificate(&operator.join("alice.pem"), &operator.join("alice.key")).expect("a pair");
        Writer::start(Client::new(&self.endpoints(), &trust).expect("a client").without_session())
    }
}

/// Writes that go on while files are replaced. None may fail.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(mut client: Client) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_over, count) = (Arc::clone(&stop), Arc::clone(&written));
        let task = tokio::spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                client.put("written", count.load(Ordering::Relaxed).to_string()).await.expect("no write fails");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, written, task }
    }

    /// Waits for a write that began after this call.
    async fn go_on(&self) {
        let seen = self.written.load(Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while self.written.load(Ordering::Relaxed) < seen + 2 {
            assert!(Instant::now() < deadline && !self.task.is_finished(), "it writes no more");
            sleep(ASK_AGAIN).await;
        }
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        timeout(PATIENCE, self.task).await.expect("it ends").expect("no write failed");
    }
}

/// Replaces a file as an operator does it, so that no node reads half of it.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("changed");
    fs::rename(new, path).expect("renamed");
}

/// Asks on a connection that stays open; returns the head and the body of the answer.
async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) -> io::Result<String> {
    let token = if path == "/metrics" { format!("authorization: Bearer {MONITOR}\r\n") } else { String::new() };
    let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{token}\r\n");
    let asked = async {
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
                if body.len() >= length.unwrap_or(0) {
                    return Ok(text.into_owned());
                }
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The value of a series with these labels on a page of metrics.
fn value(page: &str, name: &str, labels: &[String]) -> Option<u64> {
    let is_such = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
    page.lines().find(is_such)?.rsplit(' ').next()?.parse::<f64>().ok().map(|value| value as u64)
}
