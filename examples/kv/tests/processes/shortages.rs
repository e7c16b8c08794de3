//! Nodes with too few file descriptors, and nodes whose log output is not read.

use crate::support::{BINARY, PATIENCE, Running, laid_out_as, raw};
use quorate::NodeId;
use quorate_kv::{client::ReadMode, cluster::Options, descriptors::ConnectionLimit};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use tempfile::TempDir;
use tokio::{net::TcpStream, time::Instant};

/// Small, so that the log often needs new files.
const SMALL_SEGMENTS: &str = "[storage]\nsegment_bytes = 16384\n";

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_block_no_client_and_end_no_node_with_few_descriptors() {
    // The test process holds the other end of each connection.
    let _ = ConnectionLimit::claim(4096);
    let (scripts, cluster) = started_by("ulimit -S -n 64; ulimit -H -n 160").await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", cluster.pid(NodeId(1)).expect("it runs")));
    let limits = limits.expect("the limits of a child");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    assert_eq!(files.split_whitespace().nth(3), Some("160"), "the soft limit was raised: {files}");

    let mut idle = Vec::new();
    for id in cluster.ids() {
        let address = cluster.endpoint(id).trim_start_matches("http://").to_owned();
        for _ in 0..200 {
            idle.push(TcpStream::connect(&address).await.expect("connected"));
        }
    }
    let mut client = cluster.client(&cluster.ids()).expect("a client");
    for number in 0..40 {
        client.put(&format!("k{number}"), "v".repeat(4096)).await.expect("written");
        for id in cluster.ids() {
            assert_eq!(raw(&cluster.endpoint(id), "GET /livez", "", b"").await.status, 200);
        }
    }
    for id in cluster.ids() {
        let answer = raw(&cluster.endpoint(id), "GET /metrics", "", b"").await;
        let open = value_of(answer.text(), "quorate_http_connections{");
        assert!((100..=112).contains(&open), "most of the idle ones stay: {open}");
    }
    cluster.converge(PATIENCE).await.expect("all nodes run and have all");
    drop((idle, scripts));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_runs_out_of_descriptors_waits_and_goes_on() {
    let mut cluster = laid_out_as(|options| Options { sections: SMALL_SEGMENTS.to_owned(), ..options });
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    let mut client = cluster.client(&cluster.ids()).expect("a client").with_limit(std::time::Duration::from_secs(2));
    client.put("before", "v").await.expect("written");
    let limits: Vec<_> = cluster.ids().into_iter().map(|id| (id, limit(&cluster, id, None))).collect();
    for id in cluster.ids() {
        limit(&cluster, id, Some(3));
    }
    let mut failed = 0;
    for number in 0..200 {
        // The kept connection works; once each log needs a new file, no write succeeds.
        failed += u32::from(client.put(&format!("k{number}"), "v".repeat(4096)).await.is_err());
        if failed == 2 {
            break;
        }
    }
    assert_eq!(failed, 2, "there are descriptors left");
    for (id, before) in limits {
        limit(&cluster, id, before);
    }
    let deadline = Instant::now() + PATIENCE;
    while client.put("after", "v").await.is_err() {
        assert!(Instant::now() < deadline, "the cluster does not recover");
    }
    assert_eq!(cluster.running(), cluster.ids());
    cluster.converge(PATIENCE).await.expect("all nodes run and have all");
    let mut short = 0;
    for id in cluster.ids() {
        let answer = raw(&cluster.endpoint(id), "GET /metrics", "", b"").await;
        short += value_of(answer.text(), "quorate_shortages_total{node=\"");
        assert!(fs::read_to_string(cluster.layout().log_file(id)).is_ok_and(|log| !log.contains("failed, for good")));
    }
    assert!(short > 0, "the shortage was counted");
    assert_eq!(client.get("before", ReadMode::Linearizable).await.expect("read").value.as_deref(), Some(&b"v"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_whose_log_output_is_not_read_serve_answer_probes_and_stop() {
    let dir = TempDir::new().expect("a directory");
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("a pipe");
    // The pipe is held open and never read.
    let unread = fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("the pipe");
    let lines = format!("export RUST_LOG=info,hyper=trace,quinn_proto=trace; exec 2>{}", pipe.display());
    let (scripts, mut cluster) = started_by(&lines).await;
    let mut client = cluster.client(&cluster.ids()).expect("a client");
    let deadline = Instant::now() + PATIENCE * 2;
    let lost = async |id| {
        let answer = raw(&cluster.endpoint(id), "GET /metrics", "", b"").await;
        value_of(answer.text(), "quorate_log_lines_lost_total{")
    };
    for id in cluster.ids() {
        while lost(id).await == 0 {
            client.put("k", "v").await.expect("written");
            assert!(Instant::now() < deadline, "it says too little");
        }
    }
    for number in 0..20 {
        client.put(&format!("k{number}"), "v").await.expect("written");
    }
    for id in cluster.ids() {
        for probe in ["GET /livez", "GET /readyz"] {
            assert_eq!(raw(&cluster.endpoint(id), probe, "", b"").await.status, 200, "{probe}");
        }
    }
    for id in cluster.ids() {
        let status = cluster.stop(id).await.expect("SIGTERM ends it");
        assert!(status.success(), "{status}");
    }
    drop((unread, scripts));
}

/// Three nodes, each started by a shell that first runs these commands; and the directory
/// of its script.
async fn started_by(before: &str) -> (TempDir, Running) {
    let dir = TempDir::new().expect("a directory");
    let binary = script(dir.path(), before);
    let mut cluster = laid_out_as(|options| Options { binary, sections: SMALL_SEGMENTS.to_owned(), ..options });
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    (dir, cluster)
}

fn script(dir: &Path, before: &str) -> std::path::PathBuf {
    let path = dir.join("started-by");
    fs::write(&path, format!("#!/bin/sh\n{before}\nexec {BINARY} \"$@\"\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

/// Sets a node's soft limit of open files to `to`, if given; returns the previous one.
fn limit(cluster: &Running, id: NodeId, to: Option<u64>) -> Option<u64> {
    let pid = Pid::from_raw(cluster.pid(id).expect("it runs").cast_signed());
    let before = prlimit(pid, Resource::Nofile, own_limit(pid, to)).expect("a limit");
    before.current
}

/// The new soft limit; the hard limit is unchanged.
fn own_limit(pid: Option<Pid>, to: Option<u64>) -> Rlimit {
    let limits = fs::read_to_string(format!("/proc/{}/limits", pid.map_or(0, |pid| pid.as_raw_nonzero().get())));
    let limits = limits.expect("the limits of a child");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let number = |nth| files.split_whitespace().nth(nth).and_then(|text: &str| text.parse().ok());
    Rlimit { current: to.or(number(3)), maximum: number(4) }
}

/// The sum of the values of all series whose lines start with `series`.
fn value_of(page: &str, series: &str) -> u64 {
    let values = page.lines().filter(|line| line.starts_with(series)).filter_map(|line| line.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<u64>().expect("a whole number")).sum()
}
