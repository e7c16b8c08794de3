//! Invalid configurations: each ends the process with one line that names the key or file,
//! and the remedy.

use crate::support::{Running, laid_out, run, run_with};
use quorate::NodeId;
use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
};

const ONE: NodeId = NodeId(1);

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_configuration_is_refused_in_one_line_with_its_remedy() {
    let cluster = laid_out("demo", 3);
    let good = fs::read_to_string(cluster.layout().config_file(ONE)).expect("readable");
    let [key, other_key] = ["certs/node-1.key", "certs/node-2.key"].map(|name| cluster.path(name));
    let [cert, other_cert] = ["certs/node-1.pem", "certs/node-2.pem"].map(|name| cluster.path(name));
    let [garbage, open, directory] = ["garbage", "open.key", "directory"].map(|name| cluster.path(name));
    fs::create_dir(&directory).expect("made");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("mode");
    fs::write(&garbage, "not PEM").expect("written");
    fs::set_permissions(&garbage, fs::Permissions::from_mode(0o600)).expect("mode");
    fs::copy(&key, &open).expect("copied");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("mode");
    let [raft, http] = ["raft", "http"].map(|key| value(&good, key));
    let (holds_http, holds_raft) = (TcpListener::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
    let (holds_http, holds_raft) = (holds_http.expect("bound"), holds_raft.expect("bound"));
    let taken_http = holds_http.local_addr().expect("bound").to_string();
    let taken_raft = holds_raft.local_addr().expect("bound").to_string();

    // The text to replace, its replacement, the place that the line must name, and a part
    // of the remedy.
    let cases: &[(&str, &str, &str, &str)] = &[
        ("node_id", "nodeid = 1\nnode_id", "nodeid: unknown key", "known keys"),
        ("[tls]", "[tls]\npassword = \"x\"", "tls.password: unknown key", "known keys"),
        ("node_id = 1", "node_id = 1 = 2", "node-1.toml:1", "correct the TOML"),
        (&cert, "/nowhere/cert.pem", "/nowhere/cert.pem", "check the path"),
        ("id = 2", "id = 3", "peers: two entries have id 3", "its own id"),
        ("node_id = 1", "node_id = 9", "peers: node_id 9", "add this node to [[peers]]"),
        (&key, "/nowhere/node.key", "/nowhere/node.key", "check the path"),
        (&key, &garbage, "garbage", "give the key"),
        (&key, &directory, "directory: can't be read", "check the path"),
        (&key, &open, "open.key", "chmod 600"),
        (&key, &other_key, "node-2.key", "give the one made with it"),
        (&http, &taken_http, "http: cannot listen at", "choose another port"),
        (
            &format!("raft = \"{raft}"),
            &format!("raft = \"{taken_raft}"),
            "raft: cannot listen at",
            "choose another port",
        ),
        (&http, "192.0.2.1:8001", "http: 192.0.2.1:8001", "[http_tls]"),
        (&http, "localhost:8001", "http: ", "correct the value"),
        ("[tls]", "allow_plaintext_http = 1\n[tls]", "allow_plaintext_http: ", "correct the value"),
        ("interval = \"100ms\"", "interval = \"400ms\"", "timing.heartbeat_interval: ", "a third"),
        ("[tls]", &format!("[http_tls]\ncert = {cert:?}\nkey = {open:?}\n[tls]"), "http_tls.key: ", "chmod 600"),
        ("[tls]", &format!("[http_tls]\ncert = {cert:?}\nkey = {other_key:?}\n[tls]"), "http_tls: ", "its private key"),
        (
            "[tls]",
            &format!("[http_tls]\ncert = {cert:?}\nkey = {key:?}\nclient_ca = {garbage:?}\n[tls]"),
            "http_tls.client_ca: ",
            "the clients' authority",
        ),
        (
            "[tls]",
            &format!(
                "[http_tls]\ncert = {cert:?}\nkey = {key:?}\nclient_ca = {cert:?}\nclient_crl = {garbage:?}\n[tls]"
            ),
            "http_tls.client_crl: ",
            "revocation lists",
        ),
        ("[tls]", &format!("[tls]\ncrl = {garbage:?}"), "garbage", "revocation list"),
        ("[tls]", &format!("[http_auth]\ntokens = {open:?}\n[tls]"), "http_auth.tokens: ", "chmod 600"),
        ("[tls]", &format!("[http_auth]\ntokens = {garbage:?}\n[tls]"), "garbage: line 1: ", "ROLE NAME TOKEN"),
        ("[tls]", "[http_auth]\nloopback = \"client\"\n[tls]", "http_auth.loopback: ", "correct the value"),
        ("cluster = \"demo\"", "cluster = \"other\"", "node-1.pem", "give its own"),
    ];
    for (from, to, names, remedy) in cases {
        assert!(good.contains(from), "the configuration has no {from}");
        fs::write(cluster.layout().config_file(ONE), good.replacen(from, to, 1)).expect("written");
        let line = serve(&cluster, ONE, &[]).await;
        assert!(line.contains(names) && line.contains(remedy), "{names} / {remedy}: {line}");
    }
    // Certificate and key of another node: they match each other, but not this node.
    let text = good.replacen(&cert, &other_cert, 1).replacen(&key, &other_key, 1);
    fs::write(cluster.layout().config_file(ONE), text).expect("written");
    let line = serve(&cluster, ONE, &[]).await;
    assert!(line.contains("node-2.pem") && line.contains("give its own"), "{line}");

    let line = run(&["serve", "--config", "/nowhere/node.toml"]).await.error_line();
    assert!(line.contains("/nowhere/node.toml: cannot be read") && line.contains("--config"), "{line}");
    assert!(!cluster.layout().data_dir(ONE).exists(), "no bad configuration may touch the data directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_another_node_is_refused() {
    let mut cluster = laid_out("demo", 1);
    cluster.start_all().await.expect("started");
    let data = cluster.layout().data_dir(ONE).display().to_string();

    // In use by the running node, with the same configuration except for the ports.
    let line = serve(&cluster, ONE, &["--raft", "127.0.0.1:0", "--http", "127.0.0.1:0"]).await;
    assert!(line.contains(&data) && line.contains("in use"), "{line}");
    cluster.stop(ONE).await.expect("stopped");

    let others = laid_out("demo", 2);
    let line = serve(&others, NodeId(2), &["--data-dir", &data]).await;
    assert!(line.contains(&data) && line.contains("member 1"), "another node's: {line}");

    let other = laid_out("other", 1);
    let line = serve(&other, ONE, &["--data-dir", &data]).await;
    assert!(line.contains(&data) && line.contains("demo"), "another cluster's: {line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_that_a_good_configuration_is_valid_and_starts_nothing() {
    let cluster = laid_out("demo", 3);
    let config = cluster.layout().config_file(ONE).display().to_string();
    let said = run(&["serve", "--config", &config, "--check"]).await.succeeded();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("valid"), "{said}");
    assert!(!cluster.layout().data_dir(ONE).exists());

    let args = ["serve", "--config", &config, "--check"];
    let line = run_with(&args, &[("QUORATE_NODE_ID", "7")]).await.error_line();
    assert!(line.contains("QUORATE_NODE_ID: 7 is not among peers"), "{line}");
    let line = run(&["serve", "--config", &config, "--check", "--node-id", "7"]).await.error_line();
    assert!(line.contains("--node-id: 7 is not among peers"), "{line}");
    let said = run_with(&args, &[("QUORATE_PORT", "tcp://10.0.0.1:7001"), ("QUORATE_CLUSTR", "x")]).await;
    assert_eq!((said.code, said.err.lines().count()), (Some(0), 2), "{said:?}");
    assert!(said.err.contains("nearest known name is QUORATE_CLUSTER"), "{said:?}");
    let args = ["serve", "--config", &config, "--check", "--node-id", "1"];
    run_with(&args, &[("QUORATE_NODE_ID", "7")]).await.succeeded();
}

/// `--check` reports everything that prevents a start, except sockets and data, in the same words
/// as the start.
#[tokio::test(flavor = "multi_thread")]
async fn check_refuses_what_a_start_refuses_in_the_same_words() {
    let mut cluster = laid_out("demo", 1);
    let most = quorate_kv::config::Limits::VALUE_BYTES_MAX;
    let open = cluster.path("open.key");
    fs::copy(cluster.path("certs/node-1.key"), &open).expect("copied");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("mode");
    let [more, frame] = [most + 1, 8 << 20].map(|bytes| format!("--limits-max-value-bytes={bytes}"));
    for flag in [
        &*more,
        &frame,
        "--limits-max-in-flight-proposals=0",
        "--snapshot-max-bytes-per-second=1",
        "--storage-segment-bytes=1",
        "--timing-election-timeout=2m,3m",
        "--cluster=other",
        "--peers=1=h:1,1=h:2",
        &format!("--tls-key={open}"),
        "--tls-ca=/nowhere/ca.pem",
        "--http=0.0.0.0:1",
        "--no-such-key=1",
    ] {
        let (checked, started) = (serve(&cluster, ONE, &["--check", flag]).await, serve(&cluster, ONE, &[flag]).await);
        assert_eq!(checked, started, "{flag}");
    }
    let line = serve(&cluster, ONE, &["--check", &more]).await;
    assert!(line.contains(&format!("--limits-max-value-bytes: {} is more than {most}", most + 1)), "{line}");
    assert!(!cluster.layout().data_dir(ONE).exists());

    // The largest accepted value works.
    let config = cluster.layout().config_file(ONE);
    let text = fs::read_to_string(&config).expect("readable") + &format!("[limits]\nmax_value_bytes = {most}\n");
    fs::write(&config, text).expect("written");
    cluster.start_all().await.expect("started");
    cluster.leader(crate::support::PATIENCE).await.expect("a leader");
    let mut client = cluster.client(&[ONE]).expect("client");
    client.put("k", vec![7; most]).await.expect("written");
}

/// Starts a node that must refuse, and returns its error line.
async fn serve(cluster: &Running, id: NodeId, more: &[&str]) -> String {
    let config = cluster.layout().config_file(id).display().to_string();
    run(&[&["serve", "--config", &config], more].concat()).await.error_line()
}

fn value(config: &str, key: &str) -> String {
    let line = config.lines().find(|line| line.starts_with(&format!("{key} = "))).expect("there");
    line.split('"').nth(1).expect("quoted").to_owned()
}
