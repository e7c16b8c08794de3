//! Snapshots: on demand, automatic, and for a follower that was down too long.

use crate::support::{PATIENCE, Running, laid_out_with, raw, run};
use quorate::NodeId;
use quorate_kv::{client::ReadMode, cluster::Signal};
use serde_json::Value;

const ON_DEMAND: &str = "[snapshot]\nevery_entries = 1000000\nkeep_entries = 10\n";
const OFTEN: &str = "[snapshot]\nevery_entries = 100\nkeep_entries = 10\n\n[storage]\nsegment_bytes = 65536\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_on_demand_by_request_and_by_command() {
    let mut cluster = started("demand", 3, ON_DEMAND).await;
    let (leader, followers) = cluster.roles().await;
    write(&cluster, 0..60).await;
    let before = cluster.converge(PATIENCE).await.expect("level")[0].clone();

    let url = cluster.endpoint(followers[0]);
    let answer = raw(&url, "POST /v1/snapshot", "content-length: 0\r\n", b"").await;
    let json: Value = serde_json::from_str(answer.text()).expect("JSON");
    assert_eq!((answer.status, json["index"].as_u64()), (200, Some(before.applied_index.0)));
    let status = cluster.status(followers[0]).await.expect("status");
    assert_eq!(status.snapshot_index, before.applied_index);
    assert!(status.first_log_index.0 > 40, "the log was cut except for a tail: {status:?}");
    assert_eq!(cluster.status(leader).await.expect("status").snapshot_index.0, 0, "other nodes take none");
    let answer = raw(&url, "GET /v1/snapshot", "", b"").await;
    assert_eq!((answer.status, &*answer.code()), (405, "method_not_allowed"));

    let [one, other] = [leader, followers[1]].map(|id| cluster.endpoint(id));
    let said = run(&["snapshot", "--endpoint", &one]).await.succeeded();
    assert_eq!(said, format!("{one}: snapshot taken, index {}\n", before.applied_index));
    let said = run(&["snapshot", "--json", "--endpoint", &one, "--endpoint", &other]).await.succeeded();
    for (line, url) in said.lines().zip([&one, &other]) {
        let json: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!((json["endpoint"].as_str(), json["index"].as_u64()), (Some(&**url), Some(before.applied_index.0)));
    }
    assert_eq!(said.lines().count(), 2);

    // After a kill, nodes start from the snapshot.
    for id in cluster.ids() {
        cluster.kill(id).await.expect("killed");
    }
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    write(&cluster, 60..70).await;
    let after = cluster.converge(PATIENCE).await.expect("level");
    assert!(after.iter().all(|status| status.state_hash == after[0].state_hash), "{after:?}");
    assert!(after.iter().all(|status| status.snapshot_index == before.applied_index), "{after:?}");
    has_all(&cluster, 0..70).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_node_that_does_not_answer_is_a_failure_in_one_line() {
    let cluster = started("silent", 1, ON_DEMAND).await;
    let id = cluster.ids()[0];
    let (url, absent) = (cluster.endpoint(id), "http://127.0.0.1:9");
    let ran = run(&["snapshot", "--endpoint", absent, "--endpoint", &url]).await;
    assert!(ran.out.starts_with(&format!("{url}: snapshot taken")), "the others are asked all the same: {ran:?}");
    assert!(ran.error_line().contains(absent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_stopped_until_the_log_was_cut_past_it_comes_back_by_a_snapshot() {
    let mut cluster = started("away", 3, OFTEN).await;
    write(&cluster, 0..20).await;
    let (_, followers) = cluster.roles().await;
    let away = followers[0];
    let last = cluster.converge(PATIENCE).await.expect("level")[0].last_log_index;
    cluster.kill(away).await.expect("killed");
    write(&cluster, 20..600).await;
    let past = |first: u64| first > last.0 + 1;
    let cut = cluster
        .eventually(PATIENCE, "logs cut past the follower", |statuses| {
            statuses.iter().all(|status| past(status.first_log_index.0)).then_some(())
        })
        .await;
    cut.expect("snapshots are taken, and logs cut, on their own");

    cluster.start_node(away).await.expect("started");
    let statuses = cluster.converge(PATIENCE).await.expect("level");
    assert!(statuses.iter().all(|status| status.state_hash == statuses[0].state_hash), "{statuses:?}");
    let back = cluster.status(away).await.expect("status");
    assert!(back.snapshot_index > last && past(back.first_log_index.0), "it got a snapshot: {back:?}");
    has_all(&cluster, 0..600).await;

    // The follower keeps the received snapshot, and can even lead from it.
    cluster.kill(away).await.expect("killed");
    cluster.start_node(away).await.expect("started");
    let (leader, _) = cluster.roles().await;
    if leader != away {
        cluster.signal(leader, Signal::STOP).expect("paused");
        write_through(&cluster, &[away], 600..605).await;
        cluster.signal(leader, Signal::CONT).expect("awake");
    }
    let statuses = cluster.converge(PATIENCE).await.expect("level");
    assert!(statuses.iter().all(|status| status.state_hash == statuses[0].state_hash), "{statuses:?}");
}

async fn started(name: &str, nodes: u64, sections: &str) -> Running {
    let mut cluster = laid_out_with(name, nodes, sections);
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    cluster
}

async fn write(cluster: &Running, keys: std::ops::Range<u32>) {
    write_through(cluster, &cluster.running(), keys).await;
}

/// Writes its own keys, each until it is acknowledged.
async fn write_through(cluster: &Running, through: &[NodeId], keys: std::ops::Range<u32>) {
    let mut client = cluster.client(through).expect("client");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for key in keys {
        while let Err(error) = client.put(&format!("k{key}"), format!("the value of k{key}")).await {
            assert!(tokio::time::Instant::now() < deadline, "{error}");
        }
    }
}

async fn has_all(cluster: &Running, keys: std::ops::Range<u32>) {
    for id in cluster.running() {
        let mut client = cluster.client(&[id]).expect("client");
        for key in keys.clone() {
            let got = client.get(&format!("k{key}"), ReadMode::Local).await.expect("read");
            assert_eq!(got.value, Some(format!("the value of k{key}").into()), "k{key} on node {id}");
        }
    }
}
