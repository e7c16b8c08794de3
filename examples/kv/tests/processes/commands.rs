//! The command line, end to end.

use crate::support::{PATIENCE, cluster, run, run_on, run_with};
use quorate_kv::cluster::Signal;
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_written_read_swapped_and_deleted_through_any_node() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let url = cluster.endpoint(followers[0]);
    let at = async |args: &[&str]| run(&[args, &["--endpoint", &url]].concat()).await;

    assert!(at(&["put", "k", "one"]).await.succeeded().starts_with("written, index "));
    assert_eq!(at(&["get", "k"]).await.succeeded(), "one");
    assert_eq!(at(&["get", "k", "--read", "lease"]).await.succeeded(), "one");
    assert_eq!(at(&["get", "k", "--read", "bounded", "--max-entries", "0"]).await.succeeded(), "one");
    assert!(at(&["get", "k", "--read", "bounded"]).await.error_line().contains("max_age"));
    let got: Value = serde_json::from_str(&at(&["--json", "get", "k"]).await.succeeded()).expect("JSON");
    assert_eq!((&got["key"], &got["value"]), (&json!("k"), &json!("one")));

    assert!(at(&["cas", "k", "--expect", "one", "two"]).await.succeeded().starts_with("swapped"));
    assert!(at(&["cas", "k", "--absent", "three"]).await.error_line().contains("not swapped"));
    let refused = at(&["cas", "k", "--expect", "one", "three", "--json"]).await;
    assert_eq!(refused.failure(), (4, "not_swapped".to_owned()));
    assert!(refused.out.contains(r#""swapped":false"#), "{}", refused.out);
    assert_eq!(at(&["get", "k"]).await.succeeded(), "two");

    assert!(at(&["delete", "k"]).await.succeeded().starts_with("deleted"));
    assert!(at(&["delete", "k"]).await.succeeded().starts_with("was not there"));
    assert!(at(&["get", "k"]).await.error_line().contains("not_found"));
    let deleted: Value = serde_json::from_str(&at(&["delete", "k", "--json"]).await.succeeded()).expect("JSON");
    assert_eq!(deleted["existed"], false);

    // The client skips a dead node and uses the next endpoint.
    cluster.kill(leader).await.expect("killed");
    cluster.leader(PATIENCE).await.expect("a leader");
    let dead = cluster.endpoint(leader);
    run(&["put", "k", "v", "--endpoint", &dead, "--endpoint", &url]).await.succeeded();
    let line = run(&["put", "k", "v", "--endpoint", &dead]).await.error_line();
    assert!(line.contains(&dead) && line.contains("cannot be reached") && line.contains("--endpoint"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_every_endpoint_that_answers() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let urls = cluster.ids().into_iter().map(|id| cluster.endpoint(id)).collect::<Vec<_>>();
    let mut args = vec!["status"];
    urls.iter().for_each(|url| args.extend(["--endpoint", url]));
    let table = run(&args).await.succeeded();
    assert_eq!(table.lines().count(), 4, "{table}");
    assert_eq!(table.matches("leader ").count(), 2, "the head and one row: {table}");

    cluster.kill(followers[0]).await.expect("killed");
    args.push("--json");
    let ran = run(&args).await;
    assert_eq!(ran.failure(), (5, "unreachable".to_owned()), "{ran:?}");
    let nodes: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(nodes.len(), 2);
    assert!(nodes.iter().any(|node| node["role"] == "leader" && node["node_id"] == leader.0));
    let dead = cluster.endpoint(followers[0]);
    run(&["status", "--endpoint", &dead]).await.error_line();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_made_once_and_added_to_and_never_overwritten() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| dir.path().join("c").join(name);
    let at = path("").display().to_string();
    let base = ["certs", "--dir", &at, "--cluster", "demo"];
    let make = async |more: &[&str]| run(&[&base, more].concat()).await;

    let said = make(&[
        "--node",
        "1=10.0.0.1",
        "--node",
        "2=n2.example,10.0.0.2",
        "--client",
        "billing",
        "--operator",
        "alice",
    ])
    .await
    .succeeded();
    assert_eq!(said.lines().count(), 10, "{said}");
    for key in ["ca.key", "node-1.key", "node-2.key", "billing.key", "alice.key"] {
        assert_eq!(fs::metadata(path(key)).expect(key).permissions().mode() & 0o777, 0o600, "{key}");
    }
    let authority = fs::read(path("ca.pem")).expect("readable");
    make(&["--node", "3=10.0.0.3"]).await.succeeded();
    assert!(path("node-3.pem").exists());

    let line = make(&["--node", "4=10.0.0.4", "--node", "1=10.0.0.1"]).await.error_line();
    assert!(line.contains("node-1.pem exists") && line.contains("choose another directory"), "{line}");
    assert!(!path("node-4.pem").exists(), "nothing is written if anything is in the way");
    assert_eq!(fs::read(path("ca.pem")).expect("readable"), authority);

    for (args, names) in [
        (["--node", "1"], "ID=HOST_OR_IP"),
        (["--node", "0=h"], "ID=HOST_OR_IP"),
        (["--node", "9=n1.demo.quorate.internal"], "would name a node"),
        (["--client", "../x"], "client name \"../x\""),
        (["--client", "Billing"], "client name \"Billing\""),
        (["--operator", "alice-"], "operator name \"alice-\""),
        (["--client", "ca"], "reserved"),
        (["--operator", "ca"], "reserved"),
    ] {
        let line = make(&args).await.error_line();
        assert!(line.contains(names), "{line}");
    }
    let line = make(&["--client", "eve", "--operator", "eve"]).await.error_line();
    assert!(line.contains("eve is given twice"), "both would be eve.pem: {line}");
    assert!(!path("eve.pem").exists());
    for (file, is) in [("node-1", "node 1"), ("billing", "client billing"), ("alice", "operator alice")] {
        assert_eq!(holder(&path(&format!("{file}.pem"))), is);
    }
    let line = run(&["certs", "--dir", &at, "--cluster", "other", "--node", "9=h"]).await.error_line();
    assert!(line.contains("\"demo\", not \"other\""), "{line}");
}

/// The role in a certificate, such as `client billing`.
fn holder(path: &std::path::Path) -> String {
    let pem = fs::read(path).expect("readable");
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
    quorate::transport::identity::identity_of(&pem.contents).expect("an identity").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn https_serves_clients_that_trust_the_authority_and_no_others() {
    let cluster = crate::support::laid_out("demo", 1);
    let id = cluster.ids()[0];
    let (cert, key, ca) =
        (cluster.path("certs/node-1.pem"), cluster.path("certs/node-1.key"), cluster.path("certs/ca.pem"));
    let mut text = fs::read_to_string(cluster.layout().config_file(id)).expect("readable");
    text.push_str(&format!("[http_tls]\ncert = {cert:?}\nkey = {key:?}\n"));
    fs::write(cluster.layout().config_file(id), text).expect("written");
    let mut cluster = cluster;
    cluster.start_all().await.expect("started");
    let https = cluster.endpoint(id).replace("http://", "https://");

    let mut wrote = run(&["put", "k", "v", "--endpoint", &https, "--ca", &ca]).await;
    // The node may not have elected itself yet.
    while wrote.err.contains("no_leader") {
        wrote = run(&["put", "k", "v", "--endpoint", &https, "--ca", &ca]).await;
    }
    wrote.succeeded();
    assert_eq!(run(&["get", "k", "--endpoint", &https, "--ca", &ca]).await.succeeded(), "v");
    let line = run(&["get", "k", "--endpoint", &https]).await.error_line();
    assert!(
        line.contains("--ca FILE, or QUORATE_CA") && !line.contains("http://"),
        "the remedy is not plain text: {line}"
    );
    // Each side names its own protocol.
    let http = https.replace("https://", "http://");
    let plain = run(&["get", "k", "--endpoint", &http, "--json"]).await;
    assert_eq!(plain.failure(), (2, "needs_https".to_owned()));
    let answer = crate::support::raw(&http, "PUT /v1/kv/k", "content-length: 1\r\n", b"v").await;
    assert_eq!((answer.status, &*answer.code()), (400, "needs_https"));
    assert!(answer.text().contains("this port speaks https"), "{}", answer.text());
    let plain = crate::support::cluster(1).await;
    let secured = plain.endpoint(plain.ids()[0]).replace("http://", "https://");
    let ran = run(&["get", "k", "--endpoint", &secured, "--ca", &ca]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.error_line().contains("does not speak https; use http://"));
    let others = crate::support::laid_out("demo", 1);
    let line = run(&["get", "k", "--endpoint", &https, "--ca", &others.path("certs/ca.pem")]).await.error_line();
    assert!(line.contains("invalid peer certificate") && line.contains("--ca"), "{line}");
    let trusted = [("QUORATE_ENDPOINTS", &*https), ("QUORATE_CA", &*ca)];
    assert_eq!(run_with(&["get", "k"], &trusted).await.succeeded(), "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_on_the_command_line_is_one_line() {
    for (args, names) in [
        (&["put", "k"][..], "VALUE"),
        (&[], "a command is missing"),
        (&["puts"], "puts"),
        (&["cas", "k", "v"], "--expect"),
        (&["cas", "k", "v", "--expect", "a", "--absent"], "--absent"),
        (&["get", "k", "--read", "stale"], "linearizable"),
        (&["demo", "--nodes", "2"], "3..=9"),
        (&["get", "k", "--endpoint", "ftp://x"], "http://HOST:PORT"),
        (&["get", "k", "--endpoint", "127.0.0.1:1"], "http://HOST:PORT"),
        (&["get", "k", "--endpoint", "https://127.0.0.1:1"], "--ca FILE"),
        (&["get", "k", "--endpoint", "http://127.0.0.1:1/v1"], "has a path"),
        (&["get", "k", "--endpoint", "http://me@127.0.0.1:1"], "user name"),
        (&["get", "k", "--ca", "/nowhere/ca.pem"], "--ca: /nowhere/ca.pem"),
        (&["put", "k", "@/nowhere/at/all"], "--literal"),
        (&["member", "set", "1", "1", "2"], "names node 1 twice"),
        (&["member", "set", "one"], "not a node id"),
    ] {
        let ran = run(args).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        let line = ran.error_line();
        assert!(line.contains(names), "{args:?}: {line}");
        assert_eq!(run(&[args, &["--json"]].concat()).await.failure(), (2, "usage".to_owned()), "{args:?}");
    }
    let line = run(&["member", "add", "4"]).await.error_line();
    assert!(line.contains("see `quorate-kv member add --help`"), "{line}");
    assert!(run(&["--help"]).await.succeeded().contains("demo"));
}

/// One command for each exit code, and the codes for programs.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_ends_with_the_documented_exit_code() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let (url, dir) = (cluster.endpoint(leader), cluster.path("certs"));
    let [large, backup] = ["large", "backup"].map(|name| cluster.path(name));
    fs::write(&large, vec![0; (1 << 20) + 1]).expect("written");
    fs::write(&backup, "in the way").expect("written");
    let large = format!("@{large}");
    let at = async |args: &[&str]| run(&[args, &["--json", "--endpoint", &url]].concat()).await;
    at(&["put", "k", "v"]).await.succeeded();
    for (args, exit, code) in [
        (&["get", "absent"][..], 3, "not_found"),
        (&["cas", "k", "--absent", "w"], 4, "not_swapped"),
        (&["cas", "absent", "--expect", "v", "w"], 4, "not_swapped"),
        (&["put", "k", &large], 7, "too_large"),
        (&["put", &"k".repeat(1025), "v"], 7, "too_large"),
        (&["get", "k", "--read", "bounded"], 7, "bad_request"),
        (&["member", "promote", "9"], 3, "not_found"),
        (&["member", "add", "9", "nowhere"], 7, "bad_request"),
        (&["transfer", "--to", "9"], 7, "bad_request"),
        (&["backup", "--out", &backup], 4, "conflict"),
        (&["backup", "--out", "/nowhere/at/all"], 1, "failed"),
    ] {
        assert_eq!(at(args).await.failure(), (exit, code.to_owned()), "{args:?}");
    }
    for (args, exit, code) in [
        (&["certs", "--dir", &*dir, "--cluster", "demo", "--node", "1=h"][..], 4, "conflict"),
        (&["certs", "--dir", &dir, "--cluster", "other", "--node", "9=h"], 2, "usage"),
        (&["serve", "--config", "/nowhere/node.toml"], 2, "usage"),
        (
            &["restore", "--from", "/nowhere", "--into", &dir, "--cluster", "n", "--node", "1", "--addr", "h:1"],
            1,
            "failed",
        ),
        (&["recover", "--from", &dir, "--into", &large, "--cluster", "n", "--node", "1", "--addr", "h:1"], 1, "failed"),
        (&["demo", "--dir", &*cluster.path("")], 4, "conflict"),
    ] {
        assert_eq!(run(&[args, &["--json"]].concat()).await.failure(), (exit, code.to_owned()), "{args:?}");
    }

    // With the followers paused, the leader accepts a write and cannot report its outcome.
    followers.iter().for_each(|id| cluster.signal(*id, Signal::STOP).expect("paused"));
    let unknown = run(&["put", "k", "w", "--json", "--timeout", "2s", "--endpoint", &url]).await;
    assert_eq!(unknown.failure(), (6, "outcome_unknown".to_owned()));
    for id in &followers {
        cluster.kill(*id).await.expect("killed");
    }
    // By now the leader has stepped down.
    assert_eq!(at(&["put", "k", "x"]).await.failure(), (5, "no_leader".to_owned()));
    cluster.kill(leader).await.expect("killed");
    assert_eq!(at(&["put", "k", "x"]).await.failure(), (5, "unreachable".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_are_put_from_a_file_or_a_pipe_and_got_as_they_are() {
    let cluster = cluster(1).await;
    let url = cluster.endpoint(cluster.ids()[0]);
    let bytes = [&[0, 0xff, b'\n', b'\r'][..], "é".as_bytes()].concat();
    let file = cluster.path("value");
    fs::write(&file, &bytes).expect("written");
    let at = async |args: &[&str], input: &[u8]| {
        let ran = run_on(&[args, &["--endpoint", &url]].concat(), &[], input).await;
        assert_eq!((ran.status.code(), &*String::from_utf8_lossy(&ran.stderr)), (Some(0), ""));
        ran.stdout
    };
    for (argument, more, input, expected) in [
        (format!("@{file}"), &[][..], &b""[..], &bytes[..]),
        ("-".to_owned(), &[], &bytes, &bytes),
        ("-".to_owned(), &[], b"", b""),
        ("-".to_owned(), &["--literal"], &bytes, b"-"),
        ("@value".to_owned(), &["--literal"], b"", b"@value"),
        ("plain".to_owned(), &[], b"", b"plain"),
    ] {
        at(&[&["put", "k", &argument], more].concat(), input).await;
        assert_eq!(at(&["get", "k"], b"").await, expected, "{argument} {more:?}");
        assert_eq!(at(&["get", "k", "--newline"], b"").await, [expected, b"\n"].concat(), "{argument} {more:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_says_where_the_cluster_is_unless_an_option_does() {
    let cluster = cluster(1).await;
    let url = cluster.endpoint(cluster.ids()[0]);
    let both = format!("http://127.0.0.1:1, {url}");
    run_with(&["put", "k", "v"], &[("QUORATE_ENDPOINTS", &both)]).await.succeeded();
    let elsewhere = [("QUORATE_ENDPOINTS", "http://127.0.0.1:1")];
    assert_eq!(run_with(&["get", "k", "--endpoint", &url], &elsewhere).await.succeeded(), "v");
    for (variable, value, says) in [
        ("QUORATE_ENDPOINTS", "somewhere", "QUORATE_ENDPOINTS: endpoint somewhere"),
        ("QUORATE_TIMEOUT", "soon", "QUORATE_TIMEOUT: `soon` is not a duration"),
        ("QUORATE_CA", "/nowhere/ca.pem", "QUORATE_CA: /nowhere/ca.pem"),
        ("QUORATE_CA", "", "QUORATE_CA: is empty"),
    ] {
        let ran = run_with(&["get", "k"], &[(variable, value)]).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        let line = ran.error_line();
        assert!(line.contains(says), "{line}");
    }
    // An unknown variable may belong to another program: it is not an error, but the likely
    // intended name is shown.
    let ran =
        run_with(&["get", "k", "--endpoint", &url], &[("QUORATE_ENDPOINT", "x"), ("QUORATE_PORT", "tcp://x")]).await;
    assert_eq!((ran.code, &*ran.out, ran.err.lines().count()), (Some(0), "v", 1), "{ran:?}");
    assert!(ran.err.contains("QUORATE_ENDPOINT is not known") && ran.err.contains("QUORATE_ENDPOINTS?"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_standard_output_causes_no_panic() {
    let mut command = tokio::process::Command::new(crate::support::BINARY);
    let mut child = command.arg("--help").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().await.expect("ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
