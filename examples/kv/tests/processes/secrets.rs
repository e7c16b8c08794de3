//! Logs and metrics without the data of callers: values, keys, names of sessions, and tokens.

use crate::support::{BINARY, PATIENCE, RELAXED, Running, laid_out_as, raw};
use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use quorate::NodeId;
use quorate_kv::{
    client::{ListRequest, WatchRequest, Watched},
    cluster::Options,
    http::messages::CasRequest,
    machine,
    octets::Octets,
};
use std::{fs, os::unix::fs::PermissionsExt, process::Stdio, time::Duration};
use tokio::process::Command;

/// The log level of every target, of other crates too.
const LEVEL: &str = "trace";
const SNAPSHOTS: &str = "[snapshot]\nevery_entries = 1000000\nkeep_entries = 1\n\n[storage]\nsegment_bytes = 65536\n";

/// Random texts, one for each kind of data that must not be logged.
struct Markers {
    key: String,
    value: String,
    session: String,
    token: String,
    /// The data of refused requests.
    refused: String,
}

impl Markers {
    fn new() -> Self {
        let marker = |kind: char| {
            let random = std::iter::repeat_with(|| char::from(rand::random_range(b'a'..=b'z'))).take(32);
            std::iter::once(kind).chain(random).collect::<String>()
        };
        Self { key: marker('k'), value: marker('v'), session: marker('s'), token: marker('t'), refused: marker('r') }
    }

    /// The markers that a text contains, in any form.
    fn found_in(&self, text: &str) -> Vec<(&'static str, String)> {
        let all = [
            ("key", &self.key),
            ("value", &self.value),
            ("session", &self.session),
            ("token", &self.token),
            ("refused", &self.refused),
        ];
        let forms = all.iter().flat_map(|(kind, marker)| forms(marker).into_iter().map(|form| (*kind, form)));
        forms.filter(|(_, form)| text.contains(form)).collect()
    }
}

/// The forms in which bytes appear in texts.
fn forms(marker: &str) -> Vec<String> {
    let bytes = marker.as_bytes();
    let joined = |separator: &str, each: fn(&u8) -> String| bytes.iter().map(each).collect::<Vec<_>>().join(separator);
    let mut forms = vec![
        marker.to_owned(),
        HEXLOWER.encode(bytes),
        HEXUPPER.encode(bytes),
        joined(", ", u8::to_string),
        joined(",", u8::to_string),
        joined(", ", |byte| format!("{byte:x}")),
        joined("%", |byte| format!("{byte:X}")),
        joined("\\x", |byte| format!("{byte:x}")),
    ];
    // Base64 of a text that contains it has one of three forms, but for the characters at its ends.
    for before in 0..3 {
        let text = [&b"xx"[..before], bytes].concat();
        let encoded = BASE64.encode(&text);
        forms.push(encoded[4..encoded.len() - 4].to_owned());
    }
    forms
}

#[test]
fn a_marker_is_found_in_each_form() {
    let markers = Markers::new();
    let bytes = markers.value.as_bytes();
    for text in [
        format!("{:?}", bytes::Bytes::copy_from_slice(bytes)),
        format!("{bytes:?}"),
        format!("{bytes:x?}"),
        HEXLOWER.encode(&[&b"before"[..], bytes].concat()),
        BASE64.encode(bytes),
        BASE64.encode(&[&b"a"[..], bytes, b"after"].concat()),
        BASE64.encode(&[&b"ab"[..], bytes].concat()),
        format!("/v1/kv/{}", bytes.iter().map(|byte| format!("%{byte:X}")).collect::<String>()),
    ] {
        assert!(!markers.found_in(&text).is_empty(), "{text}");
    }
    assert_eq!(markers.found_in("v 118, 97"), []);
}

#[test]
fn the_debug_output_of_commands_and_requests_shows_no_key_and_no_value() {
    let markers = Markers::new();
    let (key, value) = (&markers.key, &markers.value);
    let command = machine::Command::Cas {
        key: key.as_str().into(),
        expect: Some(value.as_bytes().into()),
        value: value.as_bytes().into(),
    };
    let request = CasRequest { expect: Some(value.clone()), value: value.clone() };
    let shown = format!("{command:?} {request:?} {:?}", Octets(value.clone()));
    assert_eq!(markers.found_in(&shown), [], "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_key_session_or_token_is_logged_at_any_level_or_shown_in_metrics() {
    let markers = Markers::new();
    let Markers { key, value, session, token, refused } = &markers;
    let mut cluster = tracing_cluster(token);
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    let bearer = format!("authorization: Bearer {token}\r\n");

    // Every kind of write and read, at each node: those at followers are forwarded.
    for id in cluster.ids() {
        let url = cluster.endpoint(id);
        let send = async |request: String, headers: &str, body: &str| {
            let headers = format!("{bearer}{headers}content-length: {}\r\n", body.len());
            raw(&url, &request, &headers, body.as_bytes()).await
        };
        let path = format!("/v1/kv/{key}%2F%C3%BC{id}");
        let named = format!("quorate-session: {session}\r\nquorate-serial: {id}\r\n");
        for (request, headers, body) in [
            (format!("PUT {path}"), &*named, value.clone()),
            (format!("PUT {path}?ttl=1s"), "", value.clone()),
            (format!("POST {path}/cas"), "", format!(r#"{{"expect":"{value}","value":"{value}2"}}"#)),
            (
                "POST /v1/txn".to_owned(),
                "",
                format!(
                    r#"{{"compare":[{{"key":"{key}","exists":false}}],"success":[{{"put":{{"key":"{key}{id}","value":"{value}"}}}},{{"get":{{"key":"{key}"}}}}]}}"#
                ),
            ),
            (format!("GET {path}"), "", String::new()),
            (format!("GET /v1/kv?prefix={key}"), "", String::new()),
            (format!("DELETE {path}"), "", String::new()),
        ] {
            let answer = send(request.clone(), headers, &body).await;
            assert!(matches!(answer.status, 200 | 404), "{request}: {}", answer.text());
        }
        // Requests that are refused for each part of theirs.
        let open = format!("authorization: Bearer {refused}\r\n");
        for (request, headers, body) in [
            (format!("PUT /v1/kv/{}", refused.repeat(40)), "", value.clone()),
            (format!("PUT /v1/kv/k?ttl={refused}"), "", value.clone()),
            (format!("PUT /v1/kv/k?{refused}=1"), "", value.clone()),
            (format!("POST /v1/kv/{refused}/cas"), "", format!(r#"{{"expect":"{refused}"}}"#)),
            ("POST /v1/txn".to_owned(), "", format!(r#"{{"{refused}":"{value}"}}"#)),
            (format!("PUT /v1/kv/{refused}"), &*format!("quorate-session: {refused}\r\n"), value.clone()),
            (format!("PUT /v1/kv/{refused}"), &*open, value.clone()),
            (format!("PATCH /v1/kv/{refused}"), "", String::new()),
        ] {
            let answer = send(request.clone(), headers, &body).await;
            assert!((400..500).contains(&answer.status), "{request}: {}", answer.text());
        }
        let _ = raw(&url, &format!("POST /v1/snapshot?{refused}"), &open, b"").await;
    }

    // A watch and a listing, while keys are written, and one expires.
    let ids = cluster.ids();
    let mut watcher = cluster.client(&ids).expect("client");
    let mut watching =
        watcher.watch(WatchRequest { watched: Watched::Prefix(key.clone()), after: None }).await.expect("watch");
    let mut client = cluster.client(&ids).expect("client");
    client.put_for(&format!("{key}-ttl"), value.clone(), Some(Duration::from_millis(50))).await.expect("put");
    for _ in 0..2 {
        watching.next().await.expect("an event");
    }
    client.list(&ListRequest { prefix: Some(key.clone()), ..ListRequest::default() }).await.expect("a list");

    // A follower that gets a snapshot, and a leader that is killed.
    let (leader, followers) = cluster.roles().await;
    cluster.kill(followers[0]).await.expect("killed");
    let mut client = cluster.client(&[leader]).expect("client");
    for number in 0..40 {
        client.put(&format!("{key}-{number}"), value.repeat(200)).await.expect("put");
    }
    client.snapshot().await.expect("a snapshot");
    cluster.start_node(followers[0]).await.expect("started");
    cluster.converge(PATIENCE).await.expect("level");
    let back = cluster.status(followers[0]).await.expect("status");
    assert!(back.snapshot_index.0 > 40, "it got a snapshot: {back:?}");
    cluster.kill(leader).await.expect("killed");
    let leads = cluster.leader(PATIENCE).await.expect("a leader").node_id;
    cluster.start_node(leader).await.expect("started");
    cluster.converge(PATIENCE).await.expect("level");

    // The command line, with the token: its log must be as clean as that of a node.
    let url = cluster.endpoint(leads);
    let token_file = cluster.path("token");
    private(&token_file, token);
    let backup = cluster.path("backup");
    for args in [&["put", &format!("{key}-cli"), value][..], &["list", "--prefix", key], &["backup", "--out", &backup]]
    {
        let said = traced(&[args, &["--endpoint", &url, "--token-file", &token_file]].concat()).await;
        assert_eq!(markers.found_in(&said), [], "{args:?}: {said}");
    }
    assert!(fs::metadata(&backup).expect("a backup").len() > 0);

    for id in cluster.ids() {
        let metrics = cluster.client(&[id]).expect("client").text("/metrics").await.expect("metrics");
        assert_eq!(markers.found_in(&metrics), [], "metrics of node {id}: {metrics}");
    }
    for id in cluster.ids() {
        cluster.stop(id).await.expect("stopped");
        is_clean(&cluster, id, &markers);
    }
}

/// The log of a node is that of all targets, and has no marker.
fn is_clean(cluster: &Running, id: NodeId, markers: &Markers) {
    let log = fs::read(cluster.layout().log_file(id)).expect("a log");
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("TRACE"), "node {id} logs everything");
    let leaks = markers.found_in(&log);
    let line = leaks.first().and_then(|(_, form)| log.lines().find(|line| line.contains(form)));
    assert!(leaks.is_empty(), "node {id} logged {leaks:?}: {line:?}");
}

/// Three nodes that log all that they and their libraries have to say, and know this token.
fn tracing_cluster(token: &str) -> Running {
    laid_out_as(|options| {
        let (tokens, script) = (options.dir.join("tokens"), options.dir.join("traced"));
        private(&tokens.display().to_string(), &format!("operator test {token}\n"));
        // The variable reaches no other process of this test binary.
        let text = format!("#!/bin/sh\nRUST_LOG={LEVEL} exec '{BINARY}' \"$@\"\n");
        fs::write(&script, text).expect("written");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).expect("changed");
        let sections = format!("{RELAXED}{SNAPSHOTS}\n[http_auth]\ntokens = {tokens:?}\nloopback = \"operator\"\n");
        Options { sections, binary: script, ..options }
    })
}

/// Runs a command of a client to its end; what it wrote to its log.
async fn traced(args: &[&str]) -> String {
    let mut command = Command::new(BINARY);
    command.args(args).env("RUST_LOG", LEVEL).env("XDG_CONFIG_HOME", "/nowhere/at/all");
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {said}");
    said
}

fn private(path: &str, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("changed");
}
