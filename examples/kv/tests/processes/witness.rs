//! Two full copies and a witness, as processes: one of the two copies is killed, and
//! the other continues.

use crate::support::{PATIENCE, laid_out_as, raw, run};
use quorate::NodeId;
use quorate_kv::{
    cluster::Options,
    load::{Ledger, LoadOptions, Writers, check},
};
use std::{fs, path::Path, time::Duration};

const WITNESS: NodeId = NodeId(3);
/// The number of acknowledged writes that must follow each kill.
const WRITES: usize = 100;

fn with_witness(nodes: u64, joiners: u64) -> impl FnOnce(Options) -> Options {
    move |options| Options { nodes, joiners, witness: Some(WITNESS), ..options }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_and_either_copy_go_on_when_the_other_is_killed() {
    let mut cluster = laid_out_as(with_witness(3, 0));
    cluster.start_all().await.expect("started");
    let ledger = Ledger::new();
    let pace = LoadOptions { writers: 4, rest: Duration::from_millis(1), value_bytes: 2000 };
    for _ in 0..4 {
        let writers = Writers::start(&cluster, &ledger, pace).expect("writers");
        let written = tokio::time::timeout(PATIENCE, ledger.reaches(ledger.acknowledged() + WRITES)).await;
        written.expect("writes are acknowledged");
        let leader = cluster.leader(PATIENCE).await.expect("a leader").node_id;
        assert_ne!(leader, WITNESS);
        cluster.kill(leader).await.expect("killed");
        let written = tokio::time::timeout(PATIENCE, ledger.reaches(ledger.acknowledged() + WRITES)).await;
        written.expect("one copy and the witness go on");
        writers.stop().await;
        cluster.start_all().await.expect("started");
        cluster.converge(PATIENCE).await.expect("level");
    }
    let copies = [NodeId(1), NodeId(2)];
    let verdict = check(&cluster, &copies, ledger.writes()).await.expect("read");
    assert!(verdict.broken.is_empty(), "{verdict:?}");

    // The witness stores no commands.
    let status = cluster.status(WITNESS).await.expect("its status");
    assert_eq!((status.witness, &*status.state_hash), (Some(WITNESS), ""));
    let bytes = |id| written_bytes(&cluster.layout().data_dir(id));
    let (full, witness) = (bytes(NodeId(1)), bytes(WITNESS));
    assert!(witness * 5 < full, "{witness} bytes of {full}");
    let answer = raw(&cluster.endpoint(WITNESS), "GET /v1/kv/k?read=local", "", b"").await;
    assert_eq!((answer.status, &*answer.code()), (503, "witness"), "{}", answer.text());
    let url = cluster.endpoint(WITNESS);
    run(&["put", "k", "through the witness", "--endpoint", &url]).await.succeeded();
    assert_eq!(run(&["get", "k", "--endpoint", &cluster.endpoint(NodeId(1))]).await.succeeded(), "through the witness");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_is_added_by_a_command() {
    let mut cluster = laid_out_as(with_witness(2, 1));
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    cluster.start_node(WITNESS).await.expect("it waits to be added");
    let (url, address) = (cluster.endpoint(NodeId(1)), cluster.layout().address(WITNESS));
    let added = run(&["member", "add", "3", &address, "--witness", "--endpoint", &url]).await.succeeded();
    assert!(added.starts_with("node 3 is a learner, and a witness, configuration "), "{added}");
    run(&["member", "promote", "3", "--endpoint", &url]).await.succeeded();
    let list = run(&["member", "list", "--endpoint", &url]).await.succeeded();
    assert!(list.lines().any(|line| line.contains("voter, witness") && line.contains(&address)), "{list}");
    let line = run(&["member", "remove", "2", "--endpoint", &url]).await.error_line();
    assert!(line.contains("bad_request") && line.contains("witness"), "{line}");
    let line = run(&["transfer", "--to", "3", "--endpoint", &url]).await.error_line();
    assert!(line.contains("bad_request") && line.contains("witness"), "{line}");
}

/// The number of non-zero bytes in a directory's files: log segments are preallocated with zeros.
fn written_bytes(dir: &Path) -> usize {
    let files = fs::read_dir(dir).expect("a data directory").map(|entry| entry.expect("an entry").path());
    let contents = files.filter(|path| path.is_file()).map(|path| fs::read(path).expect("readable"));
    contents.map(|bytes| bytes.iter().filter(|byte| **byte != 0).count()).sum()
}
