//! Credentials that are replaced while a node runs: certificates, keys, authorities, revocation
//! lists and tokens, by SIGHUP and by a change of contents alone.

use crate::roles::connector;
use crate::support::{BINARY, PATIENCE, Running, laid_out_with};
use quorate::{
    NodeId,
    transport::certificates::{Authority, Issued},
};
use quorate_kv::cluster::Signal;
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevocationReason, RevokedCertParams, SerialNumber,
};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{
    client::TlsStream,
    rustls::pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use x509_parser::prelude::FromDer;

const ONE: NodeId = NodeId(1);
const SHOP: &str = "shop-0123456789abcdef0123456789ab";
const BANK: &str = "bank-0123456789abcdef0123456789ab";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The interval at which a condition of another process is looked at.
const ASK_AGAIN: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_new_http_certificate_is_served_to_the_next_connection_while_an_open_one_goes_on() {
    let node = Node::start().await;
    let mut open = node.connect(Some("alice")).await;
    let before = open.leaf();
    assert_eq!(open.get("/v1/status").await.status, 200);
    assert_eq!(open.ask("GET /v1/status", "host: kv.example\r\n", "").await.status, 421);

    node.issue(&["127.0.0.1", "kv.example"], DAY * 30).replace(&node.live(), "node-1").expect("replaced");
    node.hang_up();
    node.until("the new certificate", async || node.connect(Some("alice")).await.leaf() != before).await;
    assert_eq!(open.get("/v1/status").await.status, 200, "the same connection goes on");
    assert_eq!(open.ask("GET /v1/status", "host: kv.example\r\n", "").await.status, 200, "its names are known");
    node.until_logged(&["new credentials are in force", "of=\"http\""]).await;
    node.until_logged(&["SIGHUP: looked at", "loaded=\"http\"", "unchanged=\"tokens\"", "failed=\"\""]).await;
    let metrics = open.get("/metrics").await.body;
    let reloads = "quorate_credential_reloads_total{node=\"1\",of=\"http\",result=\"loaded\"} 1";
    assert!(metrics.contains(reloads), "{metrics}");
    let expiry = metrics.lines().find_map(|line| {
        line.strip_prefix("quorate_certificate_expiry_timestamp_seconds{node=\"1\",of=\"http\"} ")?.parse::<f64>().ok()
    });
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let days = (expiry.expect("an expiry") - seconds) / DAY.as_secs_f64();
    assert!((29.0..=30.0).contains(&days), "{days}");

    // Without a change, nothing is loaded.
    node.hang_up();
    node.until_logged(&["SIGHUP: looked at", "loaded=\"\"", "unchanged=\"http,tokens\""]).await;
    assert_eq!(open.get("/v1/status").await.status, 200);
}

/// A removed token counts no more at the next request, its watch ends, and those of others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_counts_and_a_removed_one_does_not_by_a_signal_and_by_the_contents_alone() {
    let node = Node::start().await;
    let mut kept = node.connect(None).await;
    let status = async |wire: &mut Wire, token: &str| wire.ask("GET /v1/kv/k", &bearer(token), "").await.status;
    assert_eq!([status(&mut kept, SHOP).await, status(&mut kept, BANK).await], [404, 401]);
    let mut others = Watch::open(&node, Some("billing"), "").await;
    for (by_signal, removed, added) in [(true, SHOP, BANK), (false, BANK, SHOP)] {
        let mut watch = Watch::open(&node, None, &bearer(removed)).await;
        node.replace("tokens", &format!("client new {added}\n"));
        if by_signal {
            node.hang_up();
        }
        let end = watch.end().await;
        assert!(end.contains("event: error") && end.contains("the token counts no more"), "{end}");
        assert_eq!([status(&mut kept, removed).await, status(&mut kept, added).await], [401, 404]);
        assert_eq!(kept.ask("PUT /v1/kv/seen", &bearer(added), added).await.status, 200);
        others.until(added).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_client_is_cut_off_and_the_others_go_on() {
    let node = Node::start().await;
    let [mut alice, mut billing] = [node.connect(Some("alice")).await, node.connect(Some("billing")).await];
    let mut watch = Watch::open(&node, Some("billing"), "").await;
    let mut others = Watch::open(&node, Some("alice"), "").await;
    assert_eq!(billing.ask("PUT /v1/kv/k", "", "1").await.status, 200);

    node.replace("clients.crl", &node.list(&["billing"], DAY * 30));
    node.hang_up();
    let end = watch.end().await;
    assert!(end.contains("event: error") && end.contains("was revoked: connect again"), "{end}");
    watch.wire.closed().await;
    // A request on it is refused with the reason, or it is closed already.
    if let Some(answer) = billing.try_ask("PUT /v1/kv/k", "", "2").await {
        assert!(answer.status == 401 && answer.body.contains("the certificate of the connection was revoked"));
        assert!(answer.head.contains("connection: close"), "{}", answer.head);
    }
    billing.closed().await;
    assert!(node.try_connect(Some("billing")).await.is_none(), "no new connection either");
    node.until_logged(&["closing a connection", "caller=client billing", "was revoked"]).await;
    node.until_logged(&["refused a client by its certificate", "its certificate is revoked"]).await;
    assert_eq!(alice.ask("PUT /v1/kv/k", "", "3").await.status, 200);
    others.until("\"3\"").await;
    assert_eq!(alice.get("/v1/kv/k").await.body, "3");
    assert!(alice.get("/metrics").await.body.contains("quorate_crl_expiry_timestamp_seconds{node=\"1\",of=\"http\"}"));
}

/// The live page's data goes on for as long as the proof of its reader counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_ends_with_the_token_or_the_certificate_of_its_reader() {
    let node = Node::start().await;
    let open = async |certificate: Option<&str>, headers: &str| {
        let mut stream = Watch::at(&node, "/live", certificate, headers).await;
        stream.until("event: snapshot").await;
        stream
    };
    let [mut by_token, mut others] = [open(None, &bearer(SHOP)).await, open(Some("alice"), "").await];
    node.replace("tokens", &format!("client new {BANK}\n"));
    node.hang_up();
    let end = by_token.end().await;
    assert!(end.contains("event: error") && end.contains("the token counts no more"), "{end}");
    assert_eq!(by_token.wire.ask("GET /live", &bearer(SHOP), "").await.status, 401, "what the page gets then");

    let mut by_certificate = open(Some("billing"), "").await;
    node.replace("clients.crl", &node.list(&["billing"], DAY * 30));
    node.hang_up();
    let end = by_certificate.end().await;
    assert!(end.contains("event: error") && end.contains("was revoked: connect again"), "{end}");
    by_certificate.wire.closed().await;
    let told = others.text.len();
    while others.text.len() == told {
        assert!(others.read().await, "that of another caller ended: {}", others.text);
    }

    let authority = node.authority().issuing_for(Duration::from_secs(8));
    authority.issue_client("brief").expect("issued").write(&node.certs(), "brief").expect("written");
    let mut brief = open(Some("brief"), "").await;
    let end = brief.end().await;
    assert!(end.contains("the certificate of the connection has expired"), "{end}");
}

/// Without the second voter there is no leader, so a write waits for one in vain.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_execution_gets_its_answer_and_one_that_has_not_arrived_is_refused() {
    let mut node = Node::prepared(2);
    node.cluster.start_node(ONE).await.expect("started");
    let [mut executed, mut arriving] = [node.connect(Some("billing")).await, node.connect(Some("billing")).await];
    executed.send("PUT /v1/kv/k", "", "1").await.expect("sent");
    arriving.send("PUT /v1/kv/k", "content-length: 2\r\n", "").await.expect("sent");
    arriving.stream.write_all(b"2").await.expect("sent");
    // The node has read what came before.
    node.connect(Some("alice")).await;
    node.replace("clients.crl", &node.list(&["billing"], DAY * 30));
    node.hang_up();
    let refused = arriving.answer().await.expect("an answer");
    assert!(refused.status == 401 && refused.body.contains("was revoked: connect again"), "{}", refused.body);
    let answered = executed.answer().await.expect("an answer");
    assert!(answered.status == 503 && answered.body.contains("no_leader"), "{}", answered.body);
    assert!(answered.head.contains("connection: close"), "{}", answered.head);
    arriving.closed().await;
    executed.closed().await;
}

/// Kubernetes replaces a link to the directory of mounted files.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_replaced_by_a_link_to_another_directory_are_loaded() {
    let node = Node::start().await;
    let before = node.connect(Some("alice")).await.leaf();
    let next = PathBuf::from(node.cluster.path("v2"));
    fs::create_dir(&next).expect("made");
    for file in fs::read_dir(node.live()).expect("readable").map(|file| file.expect("a file")) {
        fs::copy(file.path(), next.join(file.file_name())).expect("copied");
    }
    node.issue(&["127.0.0.1"], DAY).replace(&next, "node-1").expect("replaced");
    let link = node.cluster.path("live.next");
    symlink("v2", &link).expect("linked");
    fs::rename(link, node.live()).expect("renamed");
    node.until("the new certificate", async || node.connect(Some("alice")).await.leaf() != before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_keeps_the_former_credentials_and_log_and_metrics_say_so() {
    let node = Node::start().await;
    let mut open = node.connect(Some("alice")).await;
    let before = open.leaf();
    let failed = async |wire: &mut Wire, of: &str, failed: u8| {
        let line = format!("quorate_credential_reload_failed{{node=\"1\",of=\"{of}\"}} {failed}");
        wire.get("/metrics").await.body.contains(&line)
    };
    for (name, of, problem, remedy) in [
        ("node-1.pem", "http", "http_tls.cert", "name a PEM certificate"),
        ("clients.pem", "http", "http_tls.client_ca", "the clients' authority"),
        ("clients.crl", "http", "http_tls.client_crl", "revocation lists"),
        ("tokens", "tokens", "http_auth.tokens", "ROLE NAME TOKEN"),
    ] {
        let good = fs::read_to_string(node.live().join(name)).expect("readable");
        assert!(failed(&mut open, of, 0).await, "{name}");
        node.replace(name, "garbage");
        node.hang_up();
        let stays = "the former ones stay in force";
        node.until_logged(&[" ERROR ", stays, problem, name, remedy, &format!("of=\"{of}\"")]).await;
        assert!(failed(&mut open, of, 1).await, "{name}");
        assert_eq!(node.connect(Some("alice")).await.leaf(), before, "{name}");
        assert_eq!(open.ask("GET /v1/kv/k", &bearer(SHOP), "").await.status, 404, "{name}");
        node.replace(name, &good);
        node.hang_up();
        node.until("recovery", async || {
            let mut wire = node.connect(Some("alice")).await;
            failed(&mut wire, of, 0).await
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_cut_off_when_its_certificate_expires_and_the_log_names_both_clocks() {
    let node = Node::start().await;
    let authority = node.authority().issuing_for(Duration::from_secs(8));
    authority.issue_client("brief").expect("issued").write(&node.certs(), "brief").expect("written");
    let mut watch = Watch::open(&node, Some("brief"), "").await;
    let mut open = node.connect(Some("brief")).await;
    assert_eq!(open.ask("PUT /v1/kv/k", "", "1").await.status, 200);
    let end = watch.end().await;
    assert!(end.contains("the certificate of the connection has expired"), "{end}");
    watch.wire.closed().await;
    if let Some(answer) = open.try_ask("PUT /v1/kv/k", "", "2").await {
        assert!(answer.status == 401 && answer.body.contains("has expired"), "{}", answer.body);
    }
    open.closed().await;
    assert!(node.try_connect(Some("brief")).await.is_none());
    node.until_logged(&["refused a client by its certificate", "expired at", "this machine's clock says", "later"])
        .await;
    assert_eq!(node.connect(Some("alice")).await.get("/v1/kv/k").await.body, "1");
}

/// A list that is out of date refuses new connections, and no open one.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_list_out_of_date_refuses_new_connections_and_a_newer_one_permits_them_again() {
    let node = Node::start().await;
    let mut open = node.connect(Some("alice")).await;
    node.replace("clients.crl", &node.list(&[], Duration::from_secs(8)));
    node.hang_up();
    node.until_logged(&[" WARN ", "a list in", "put a newer one into its place before"]).await;
    node.until("a refusal", async || node.try_connect(Some("alice")).await.is_none()).await;
    node.until_logged(&[" ERROR ", "http_tls.client_crl", "a list ended at"]).await;
    node.until_logged(&["refused a client by its certificate", "revocation list expired at"]).await;
    assert_eq!(open.get("/v1/status").await.status, 200);
    node.replace("clients.crl", &node.list(&[], DAY * 30));
    node.hang_up();
    node.until("a connection", async || node.try_connect(Some("alice")).await.is_some()).await;
}

/// A pipe without a writer hangs as a file of a network file system that does not answer does.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_hangs_keeps_no_certificate_of_nodes_from_being_loaded_and_is_loaded_once_it_does_not() {
    let node = Node::start().await;
    let mut open = node.connect(Some("alice")).await;
    let loaded = async |wire: &mut Wire| {
        let metrics = wire.get("/metrics").await.body;
        let series = "quorate_credential_reloads_total{node=\"1\",of=\"nodes\",result=\"loaded\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(series)?.parse::<u32>().ok()).unwrap_or(0)
    };
    let [pipe, tokens] = ["pipe", "tokens"].map(|name| node.live().join(name));
    assert!(Command::new("mkfifo").arg("-m").arg("600").arg(&pipe).status().await.expect("it runs").success());
    let new = node.live().join("tokens.new");
    fs::hard_link(&pipe, &new).expect("linked");
    fs::rename(&new, &tokens).expect("renamed");
    // The second one comes while the look for the first one hangs.
    for _ in 0..2 {
        let before = loaded(&mut open).await;
        node.hang_up();
        node.until("a reload of the nodes' certificates", async || loaded(&mut open).await > before).await;
    }
    assert_eq!(open.ask("GET /v1/kv/k", &bearer(SHOP), "").await.status, 404, "the former tokens stay in force");
    node.replace("tokens", &format!("client new {BANK}\n"));
    drop(tokio::fs::OpenOptions::new().write(true).open(&pipe).await.expect("there is a reader"));
    let counts = async || node.connect(None).await.ask("GET /v1/kv/k", &bearer(BANK), "").await.status == 404;
    node.until("the new tokens", counts).await;
}

/// The configuration comes over a pipe, so the process is still at its very beginning.
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_before_the_node_serves_does_not_end_it() {
    let cluster = laid_out_with("demo", 1, "");
    let file = cluster.layout().config_file(ONE);
    let text = fs::read(&file).expect("readable");
    let pipe = cluster.path("pipe.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().await.expect("it runs").success());
    let mut command = Command::new(BINARY);
    command.args(["serve", "--attached", "--json", "--config", &pipe]).env_remove("RUST_LOG");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("it runs");
    let pid = child.id().expect("it runs");
    let is_caught = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a line");
        u64::from_str_radix(caught.trim(), 16).expect("a mask") & 1 == 1
    };
    let deadline = Instant::now() + PATIENCE;
    while !is_caught() {
        assert!(Instant::now() < deadline, "the signal is not listened for");
        sleep(ASK_AGAIN).await;
    }
    let id = rustix::process::Pid::from_raw(pid.try_into().expect("an id")).expect("an id");
    rustix::process::kill_process(id, Signal::HUP).expect("sent");
    tokio::fs::write(&pipe, text).await.expect("written");
    // It stops when this closes.
    let _leash = child.stdin.take();
    let mut line = String::new();
    let out = child.stdout.take().expect("piped");
    timeout(PATIENCE, BufReader::new(out).read_line(&mut line)).await.expect("in time").expect("a line");
    assert!(line.contains("\"node_id\":1"), "{line}");
    rustix::process::kill_process(id, Signal::HUP).expect("sent");
    rustix::process::kill_process(id, Signal::TERM).expect("sent");
    assert!(timeout(PATIENCE, child.wait()).await.expect("in time").expect("it ends").success());
}

/// One node with HTTPS, certificates and tokens of clients, whose files are in a directory of
/// their own.
struct Node {
    cluster: Running,
}

impl Node {
    async fn start() -> Self {
        let mut node = Self::prepared(1);
        node.cluster.start_all().await.expect("started");
        let is_ready = async || node.connect(None).await.get("/readyz").await.status == 200;
        node.until("a leader", is_ready).await;
        node
    }

    /// Its files, in a cluster of this many voters.
    fn prepared(voters: u64) -> Self {
        let node = Self { cluster: laid_out_with("demo", voters, "") };
        let authority = node.authority();
        authority.issue_client("billing").expect("issued").write(&node.certs(), "billing").expect("written");
        authority.issue_operator("alice").expect("issued").write(&node.certs(), "alice").expect("written");
        let first = PathBuf::from(node.cluster.path("v1"));
        fs::create_dir(&first).expect("made");
        symlink("v1", node.live()).expect("linked");
        for (from, to) in [("node-1.pem", "node-1.pem"), ("node-1.key", "node-1.key"), ("ca.pem", "clients.pem")] {
            fs::copy(node.certs().join(from), first.join(to)).expect("copied");
        }
        node.replace("tokens", &format!("client shop {SHOP}\n"));
        node.replace("clients.crl", &node.list(&[], DAY * 30));
        let file = node.cluster.layout().config_file(ONE);
        let text = fs::read_to_string(&file).expect("readable");
        let [cert, key, ca, crl, tokens] = ["node-1.pem", "node-1.key", "clients.pem", "clients.crl", "tokens"]
            .map(|name| node.live().join(name).display().to_string());
        let http = format!(
            "\n[http_tls]\ncert = {cert:?}\nkey = {key:?}\nclient_ca = {ca:?}\nclient_crl = {crl:?}\n\n\
             [http_auth]\ntokens = {tokens:?}\n"
        );
        fs::write(&file, text + &http).expect("written");
        node
    }

    fn certs(&self) -> PathBuf {
        self.cluster.path("certs").into()
    }

    fn live(&self) -> PathBuf {
        self.cluster.path("live").into()
    }

    fn authority(&self) -> Authority {
        Authority::load(&self.certs()).expect("loaded")
    }

    fn issue(&self, hosts: &[&str], lasts: Duration) -> Issued {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        self.authority().issuing_for(lasts).issue_node(ONE, &hosts).expect("issued")
    }

    /// Replaces a file as a whole.
    fn replace(&self, name: &str, text: &str) {
        let (new, file) = (self.live().join(format!("{name}.new")), self.live().join(name));
        fs::write(&new, text).expect("written");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("changed");
        fs::rename(new, file).expect("renamed");
    }

    /// A revocation list of the cluster's authority, PEM.
    fn list(&self, revoked: &[&str], lasts: Duration) -> String {
        revocation_list(&self.certs(), &self.certs(), revoked, lasts)
    }

    fn hang_up(&self) {
        self.cluster.signal(ONE, Signal::HUP).expect("it runs");
    }

    async fn connect(&self, certificate: Option<&str>) -> Wire {
        self.try_connect(certificate).await.expect("a connection")
    }

    /// A connection on which a request is answered; `None` if TLS refuses it.
    async fn try_connect(&self, certificate: Option<&str>) -> Option<Wire> {
        let address = self.cluster.endpoint(ONE).trim_start_matches("http://").to_owned();
        Wire::open(&address, &self.certs(), certificate).await
    }

    async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so().await {
            let log = fs::read_to_string(self.cluster.layout().log_file(ONE)).unwrap_or_default();
            assert!(Instant::now() < deadline, "waited for {what} in vain: {log}");
            sleep(ASK_AGAIN).await;
        }
    }

    /// Waits for a line of the log with all of these.
    async fn until_logged(&self, parts: &[&str]) {
        let file = self.cluster.layout().log_file(ONE);
        self.until(&format!("{parts:?}"), async || {
            let log = fs::read_to_string(&file).expect("a log");
            log.lines().any(|line| parts.iter().all(|part| line.contains(part)))
        })
        .await;
    }
}

/// A list of the authority in `authority` that revokes the certificates `revoked` in `certs`, PEM.
pub(crate) fn revocation_list(authority: &Path, certs: &Path, revoked: &[&str], lasts: Duration) -> String {
    let read = |name: &str| fs::read_to_string(authority.join(name)).expect("readable");
    let key = KeyPair::from_pem(&read("ca.key")).expect("a key");
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), key).expect("an authority");
    let now = SystemTime::now();
    let revoked_certs = revoked.iter().map(|name| {
        let der = CertificateDer::from_pem_file(certs.join(format!("{name}.pem"))).expect("a certificate");
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&der).expect("a certificate");
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(parsed.raw_serial()),
            revocation_time: now.into(),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        }
    });
    let list = CertificateRevocationListParams {
        this_update: (now - Duration::from_secs(3600)).into(),
        next_update: (now + lasts).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(&issuer).expect("signed").pem().expect("PEM")
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

/// A connection that is kept for several requests.
struct Wire {
    stream: TlsStream<TcpStream>,
    address: String,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Wire {
    async fn open(address: &str, certs: &Path, certificate: Option<&str>) -> Option<Self> {
        let stream = TcpStream::connect(address).await.expect("connected");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let stream = connector(certs, certificate).connect(name, stream).await.ok()?;
        let mut wire = Self { stream, address: address.to_owned() };
        // A client learns only from the first answer that its certificate was accepted.
        wire.try_ask("GET /livez", "", "").await.map(|_| wire)
    }

    /// The certificate of the server.
    fn leaf(&self) -> Vec<u8> {
        self.stream.get_ref().1.peer_certificates().expect("certificates")[0].to_vec()
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "", "").await
    }

    async fn ask(&mut self, request: &str, headers: &str, body: &str) -> Answer {
        self.try_ask(request, headers, body).await.expect("an answer")
    }

    /// The answer to a request; `None` if the connection is closed before it.
    async fn try_ask(&mut self, request: &str, headers: &str, body: &str) -> Option<Answer> {
        self.send(request, headers, body).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Option<Answer> {
        let head = self.head().await?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let mut body = vec![0; length.expect("a length")];
        timeout(PATIENCE, self.stream.read_exact(&mut body)).await.expect("in time").ok()?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Some(Answer { status, head, body: String::from_utf8(body).expect("text") })
    }

    async fn send(&mut self, request: &str, headers: &str, body: &str) -> Option<()> {
        let host = if headers.contains("host:") { String::new() } else { format!("host: {}\r\n", self.address) };
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let request = format!("{request} HTTP/1.1\r\n{host}{headers}{length}\r\n{body}");
        self.stream.write_all(request.as_bytes()).await.ok()
    }

    async fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, self.stream.read_u8()).await.expect("in time").ok()?);
        }
        Some(String::from_utf8(head).expect("text").to_lowercase())
    }

    /// Waits until the server has closed the connection.
    async fn closed(&mut self) {
        let closed = async { while self.stream.read_u8().await.is_ok() {} };
        timeout(PATIENCE, closed).await.expect("it is closed");
    }
}

/// A watch of all keys, with the text that has arrived.
struct Watch {
    wire: Wire,
    text: String,
}

impl Watch {
    async fn open(node: &Node, certificate: Option<&str>, headers: &str) -> Self {
        Self::at(node, "/v1/watch?prefix=", certificate, headers).await
    }

    /// Another answer without an end.
    async fn at(node: &Node, path: &str, certificate: Option<&str>, headers: &str) -> Self {
        let mut wire = node.connect(certificate).await;
        wire.send(&format!("GET {path}"), headers, "").await.expect("sent");
        let head = wire.head().await.expect("a head");
        assert!(head.starts_with("http/1.1 200"), "{head}");
        Self { wire, text: String::new() }
    }

    /// Reads until the text has this part.
    async fn until(&mut self, part: &str) {
        while !self.text.contains(part) {
            assert!(self.read().await, "it ended before {part}: {}", self.text);
        }
    }

    /// The text at the end of the answer.
    async fn end(&mut self) -> String {
        // The last chunk of a body is empty.
        while !self.text.ends_with("0\r\n\r\n") {
            assert!(self.read().await, "it broke off: {}", self.text);
        }
        self.text.clone()
    }

    async fn read(&mut self) -> bool {
        let mut bytes = Vec::with_capacity(4096);
        let read = timeout(PATIENCE, self.wire.stream.read_buf(&mut bytes)).await.expect("in time").unwrap_or(0);
        // A read may end within a character.
        self.text += &String::from_utf8_lossy(&bytes);
        read > 0
    }
}
