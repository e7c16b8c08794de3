//! Nodes that are killed, stopped and paused.

use crate::support::{MachineDelay, PATIENCE, cluster, laid_out};
use quorate_kv::{
    client::{ClientError, ReadMode},
    cluster::Signal,
};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_write_succeeds_with_one_of_three_nodes_down_and_never_with_two() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    cluster.kill(followers[0]).await.expect("killed");
    cluster.client(&[followers[1]]).expect("client").put("one-down", "v").await.expect("written");
    cluster.client(&[leader]).expect("client").put("one-down", "v").await.expect("written");

    cluster.kill(followers[1]).await.expect("killed");
    let mut client = cluster.client(&[leader]).expect("client");
    let delay = MachineDelay::watch();
    // The first write may still find a leader, which cannot know its outcome; later ones find none.
    for number in 0..3 {
        let asked = Instant::now();
        let outcome = client.put(&format!("two-down-{number}"), "v").await;
        let took = asked.elapsed();
        match outcome {
            Err(ClientError::OutcomeUnknown { .. }) => {}
            Err(ClientError::Refused { code, .. }) => assert_eq!(code, "no_leader"),
            other => panic!("two of three nodes are down: {other:?}"),
        }
        let limit = Duration::from_secs(6) + delay.longest() * 32;
        assert!(took < limit, "an answer took {took:?}, and {limit:?} were allowed");
    }
    let read = client.get("one-down", ReadMode::Linearizable).await;
    assert!(matches!(read, Err(ClientError::Refused { code, .. }) if code == "no_leader"));
    let local = client.get("one-down", ReadMode::Local).await.expect("served locally");
    assert_eq!(local.value.as_deref(), Some(&b"v"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_returns_with_its_term_and_log() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let mut client = cluster.client(&followers).expect("client");
    for number in 0..50 {
        client.put(&format!("k{number}"), "v").await.expect("written");
    }
    cluster.converge(PATIENCE).await.expect("level");
    let before = cluster.status(leader).await.expect("status");
    assert_eq!(before.voted_for, Some(leader));

    for id in cluster.ids() {
        cluster.kill(id).await.expect("killed");
    }
    cluster.start_node(leader).await.expect("started");
    // Alone it cannot be elected, so it shows the state that was on its disk. A pre-vote changes
    // neither term nor vote.
    let after = cluster.status(leader).await.expect("status");
    assert_eq!((after.term, after.voted_for), (before.term, before.voted_for));
    assert_eq!(after.last_log_index, before.last_log_index);

    cluster.start_all().await.expect("started");
    assert!(cluster.leader(PATIENCE).await.expect("a leader").term > before.term);
    let statuses = cluster.converge(PATIENCE).await.expect("level");
    assert!(statuses.iter().all(|status| status.state_hash == before.state_hash), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_told_to_stop_drains_and_ends_well_and_others_serve_on() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let mut client = cluster.client(&[leader, followers[0], followers[1]]).expect("client");
    client.put("before", "v").await.expect("written");
    let status = cluster.stop(leader).await.expect("ended");
    assert!(status.success(), "{status}");
    // A write between two leaders is refused with a definite error.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = client.put("after", "v").await {
        assert!(Instant::now() < deadline, "{error}");
    }
    let got = client.get("before", ReadMode::Linearizable).await.expect("read");
    assert_eq!(got.value.as_deref(), Some(&b"v"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_is_replaced_and_follows_after_it_wakes() {
    let cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    cluster.signal(leader, Signal::STOP).expect("paused");
    let mut client = cluster.client(&followers).expect("client");
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = client.put("k", "v").await {
        assert!(Instant::now() < deadline, "{error}");
    }
    cluster.signal(leader, Signal::CONT).expect("awake");
    // It reads the value written during its pause, or reports that it cannot.
    let mut sleeper = cluster.client(&[leader]).expect("client");
    loop {
        match sleeper.get("k", ReadMode::Linearizable).await {
            Ok(got) => break assert_eq!(got.value.as_deref(), Some(&b"v"[..])),
            Err(error) => assert!(Instant::now() < deadline + PATIENCE, "{error}"),
        }
    }
    let statuses = cluster.converge(PATIENCE).await.expect("level");
    assert_eq!(statuses.iter().filter(|status| status.role == "leader").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_serves_alone_and_keeps_its_data() {
    let mut cluster = laid_out("alone", 1);
    cluster.start_all().await.expect("started");
    let id = cluster.leader(PATIENCE).await.expect("a leader").node_id;
    cluster.client(&[id]).expect("client").put("k", "v").await.expect("written");
    cluster.kill(id).await.expect("killed");
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    let got = cluster.client(&[id]).expect("client").get("k", ReadMode::Linearizable).await.expect("read");
    assert_eq!(got.value.as_deref(), Some(&b"v"[..]));
}
