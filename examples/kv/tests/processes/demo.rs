//! The demo as a process.

use crate::support::{PATIENCE, run};
use quorate_kv::client::{Client, Trust};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tokio::{io::AsyncBufReadExt, process::Command, time::Instant};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_loses_nothing_and_can_leave_its_cluster_running() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let at = dir.path().join("demo").display().to_string();
    let ran = run(&["demo", "--keep", "--json", "--dir", &at]).await;
    let report: Value = serde_json::from_str(&ran.succeeded()).expect("JSON");
    let pids = report["kept"]["pids"].as_array().expect("pids").iter().map(pid).collect::<Vec<_>>();
    let endpoints: Vec<String> = serde_json::from_value(report["kept"]["endpoints"].clone()).expect("endpoints");

    let mut client = Client::new(&endpoints, &Trust::none()).expect("client");
    let outcome = client.put("after", "the demo").await;
    pids.iter().for_each(|pid| kill_process(*pid, Signal::KILL).expect("it ran"));
    outcome.expect("the cluster serves on");

    assert!(report["acknowledged"].as_u64().expect("a count") >= 3000, "{report}");
    assert_eq!(report["missing"], 0);
    assert!(report["unavailable_ms"].as_u64().expect("a time") < 1000, "{report}");
    // It never overwrites the files of an earlier run.
    assert!(run(&["demo", "--dir", &at]).await.error_line().contains("exists"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_outlives_a_demo_that_ends_early() {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut command = Command::new(crate::support::BINARY);
        command.arg("demo").arg("--dir").arg(dir.path().join("demo")).kill_on_drop(true);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        let mut demo = command.spawn().expect("runs");
        let mut lines = tokio::io::BufReader::new(demo.stdout.take().expect("piped")).lines();
        let mut nodes = Vec::new();
        while let Some(line) = lines.next_line().await.expect("readable") {
            if let Some((_, rest)) = line.split_once(", process ") {
                let number = rest.split(',').next().expect("a number");
                nodes.push(Pid::from_raw(number.parse().expect("a number")).expect("a process"));
            }
            if line.contains("elected") {
                break;
            }
        }
        assert_eq!(nodes.len(), 3);
        let id = Pid::from_raw(i32::try_from(demo.id().expect("it runs")).expect("a process")).expect("a process");
        kill_process(id, signal).expect("it runs");
        assert!(!demo.wait().await.expect("it ends").success());

        let deadline = Instant::now() + PATIENCE;
        while nodes.iter().any(|node| test_kill_process(*node).is_ok() && !is_zombie(*node)) {
            assert!(Instant::now() < deadline, "after {signal:?} a node still runs");
            tokio::task::yield_now().await;
        }
    }
}

/// Whether the process has ended and only waits to be reaped.
fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

fn pid(value: &Value) -> Pid {
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok()).expect("a number");
    Pid::from_raw(number).expect("a process")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_demo_has_faults_for_its_own_pages_alone_and_ends_with_success() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut command = Command::new(crate::support::BINARY);
    command.args(["--json", "demo", "--page", "--dir"]).arg(dir.path().join("demo")).kill_on_drop(true);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::inherit());
    let mut demo = command.spawn().expect("runs");
    let mut lines = tokio::io::BufReader::new(demo.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("readable").expect("a line");
    let said: Value = serde_json::from_str(&line).expect("JSON");
    let url = said["page"].as_str().expect("an address").to_owned();
    let host = url.strip_prefix("http://").expect("HTTP").trim_end_matches('/');

    let page = ask(host, "GET / HTTP/1.1", &[], "").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("<title>Quorate</title>"), "{page}");
    let json = "content-type: application/json";
    let own = format!("origin: http://{host}");
    let fault = "POST /live/faults HTTP/1.1";
    for (what, headers, body, status) in [
        ("a node dies", &[json, &own][..], r#"{"fault":"kill","node":1}"#, "204"),
        ("it is dead", &[json, &own], r#"{"fault":"kill","node":1}"#, "400"),
        ("it starts", &[json, &own], r#"{"fault":"start","node":1}"#, "204"),
        ("it stops", &[json, &own], r#"{"fault":"pause","node":1}"#, "204"),
        ("it goes on", &[json, &own], r#"{"fault":"resume","node":1}"#, "204"),
        ("a path is cut", &[json, &own], r#"{"fault":"cut","from":1,"to":2}"#, "204"),
        ("a path heals", &[json, &own], r#"{"fault":"heal","from":1,"to":2}"#, "204"),
        ("no such node", &[json, &own], r#"{"fault":"cut","from":1,"to":9}"#, "400"),
        ("no such fault", &[json, &own], r#"{"fault":"melt","node":1}"#, "400"),
        ("a page of another site", &[json, "origin: http://evil.example"], r#"{"fault":"kill","node":2}"#, "403"),
        ("a form", &["content-type: text/plain"], r#"{"fault":"kill","node":2}"#, "415"),
    ] {
        let answer = ask(host, fault, headers, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {answer}");
    }

    let id = Pid::from_raw(i32::try_from(demo.id().expect("it runs")).expect("a process")).expect("a process");
    kill_process(id, Signal::INT).expect("it runs");
    assert!(demo.wait().await.expect("it ends").success());
}

/// The whole answer of a server.
pub(crate) async fn ask(host: &str, line: &str, headers: &[&str], body: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(host).await.expect("it listens");
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let request =
        format!("{line}\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
}
