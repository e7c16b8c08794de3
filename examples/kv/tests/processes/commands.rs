//! The command line, end to end.

use crate::support::{PATIENCE, cluster, run};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_written_read_swapped_and_deleted_through_any_node() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let url = cluster.endpoint(followers[0]);
    let at = async |args: &[&str]| run(&[args, &["--endpoint", &url]].concat()).await;

    assert!(at(&["put", "k", "one"]).await.well().starts_with("written, index "));
    assert_eq!(at(&["get", "k"]).await.well(), "one\n");
    assert_eq!(at(&["get", "k", "--read", "lease"]).await.well(), "one\n");
    assert_eq!(at(&["get", "k", "--read", "bounded", "--max-entries", "0"]).await.well(), "one\n");
    assert!(at(&["get", "k", "--read", "bounded"]).await.complaint().contains("max_age"));
    let got: Value = serde_json::from_str(&at(&["--json", "get", "k"]).await.well()).expect("JSON");
    assert_eq!((&got["key"], &got["value"]), (&json!("k"), &json!("one")));

    assert!(at(&["cas", "k", "--expect", "one", "two"]).await.well().starts_with("swapped"));
    assert!(at(&["cas", "k", "--absent", "three"]).await.complaint().contains("not swapped"));
    let refused = at(&["cas", "k", "--expect", "one", "three", "--json"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.out.contains(r#""swapped":false"#), "{}", refused.out);
    assert_eq!(at(&["get", "k"]).await.well(), "two\n");

    assert!(at(&["delete", "k"]).await.well().starts_with("deleted"));
    assert!(at(&["delete", "k"]).await.well().starts_with("was not there"));
    assert!(at(&["get", "k"]).await.complaint().contains("not_found"));
    let deleted: Value = serde_json::from_str(&at(&["delete", "k", "--json"]).await.well()).expect("JSON");
    assert_eq!(deleted["existed"], false);

    // A dead node is passed over; the next endpoint serves.
    cluster.kill(leader).await.expect("killed");
    cluster.leader(PATIENCE).await.expect("a leader");
    let dead = cluster.endpoint(leader);
    run(&["put", "k", "v", "--endpoint", &dead, "--endpoint", &url]).await.well();
    let line = run(&["put", "k", "v", "--endpoint", &dead]).await.complaint();
    assert!(line.contains(&dead) && line.contains("can't be reached") && line.contains("--endpoint"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_every_endpoint_that_answers() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let urls = cluster.ids().into_iter().map(|id| cluster.endpoint(id)).collect::<Vec<_>>();
    let mut args = vec!["status"];
    urls.iter().for_each(|url| args.extend(["--endpoint", url]));
    let table = run(&args).await.well();
    assert_eq!(table.lines().count(), 4, "{table}");
    assert_eq!(table.matches("leader ").count(), 2, "the head and one row: {table}");

    cluster.kill(followers[0]).await.expect("killed");
    args.push("--json");
    let ran = run(&args).await;
    assert_eq!((ran.code, ran.err.lines().count()), (Some(0), 1), "{ran:?}");
    let nodes: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(nodes.len(), 2);
    assert!(nodes.iter().any(|node| node["role"] == "leader" && node["node_id"] == leader.0));
    let dead = cluster.endpoint(followers[0]);
    run(&["status", "--endpoint", &dead]).await.complaint();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_made_once_and_added_to_and_never_overwritten() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| dir.path().join("c").join(name);
    let at = path("").display().to_string();
    let base = ["certs", "--dir", &at, "--cluster", "demo"];
    let make = async |more: &[&str]| run(&[&base, more].concat()).await;

    let said = make(&["--node", "1=10.0.0.1", "--node", "2=n2.example,10.0.0.2", "--client", "ops"]).await.well();
    assert_eq!(said.lines().count(), 8, "{said}");
    for key in ["ca.key", "node-1.key", "node-2.key", "ops.key"] {
        assert_eq!(fs::metadata(path(key)).expect(key).permissions().mode() & 0o777, 0o600, "{key}");
    }
    let authority = fs::read(path("ca.pem")).expect("readable");
    make(&["--node", "3=10.0.0.3"]).await.well();
    assert!(path("node-3.pem").exists());

    let line = make(&["--node", "4=10.0.0.4", "--node", "1=10.0.0.1"]).await.complaint();
    assert!(line.contains("node-1.pem exists") && line.contains("choose another directory"), "{line}");
    assert!(!path("node-4.pem").exists(), "nothing is written if anything is in the way");
    assert_eq!(fs::read(path("ca.pem")).expect("readable"), authority);

    for (args, names) in [
        (["--node", "1"], "ID=HOST_OR_IP"),
        (["--node", "0=h"], "ID=HOST_OR_IP"),
        (["--node", "9=n1.demo.quorate.internal"], "would name a node"),
        (["--client", "../x"], "file's name"),
        (["--client", "ca"], "taken"),
    ] {
        let line = make(&args).await.complaint();
        assert!(line.contains(names), "{line}");
    }
    let line = run(&["certs", "--dir", &at, "--cluster", "other", "--node", "9=h"]).await.complaint();
    assert!(line.contains("\"demo\", not \"other\""), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn https_serves_those_who_trust_the_authority_and_no_others() {
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
    wrote.well();
    assert_eq!(run(&["get", "k", "--endpoint", &https, "--ca", &ca]).await.well(), "v\n");
    assert!(run(&["get", "k", "--endpoint", &https]).await.complaint().contains("--ca"));
    let others = crate::support::laid_out("demo", 1);
    let line = run(&["get", "k", "--endpoint", &https, "--ca", &others.path("certs/ca.pem")]).await.complaint();
    assert!(line.contains("invalid peer certificate"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_on_the_command_line_is_one_line() {
    for (args, names) in [
        (&["put", "k"][..], "VALUE"),
        (&[], "no command"),
        (&["puts"], "puts"),
        (&["cas", "k", "v"], "--expect"),
        (&["cas", "k", "v", "--expect", "a", "--absent"], "--absent"),
        (&["get", "k", "--read", "stale"], "linearizable"),
        (&["demo", "--nodes", "2"], "3..=9"),
        (&["get", "k", "--endpoint", "ftp://x"], "http://HOST:PORT"),
        (&["get", "k", "--endpoint", "127.0.0.1:1"], "http://HOST:PORT"),
    ] {
        let line = run(args).await.complaint();
        assert!(line.contains(names), "{args:?}: {line}");
    }
    assert!(run(&["--help"]).await.well().contains("demo"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_standard_output_is_no_panic() {
    let mut command = tokio::process::Command::new(crate::support::BINARY);
    let mut child = command.arg("--help").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().await.expect("ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
