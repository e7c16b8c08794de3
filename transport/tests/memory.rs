//! The in-memory network: nodes on several threads, and of several clusters.

mod support;

use quorate_raft::{Body, NodeId};
use quorate_transport::MemoryNetwork;
use quorate_transport_testing::conformance::{TestNode, heartbeat, heartbeat_reply};
use std::time::Duration;
use support::{CLUSTER, run_paused};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

#[test]
fn nodes_on_different_threads_reach_each_other() {
    let hub = MemoryNetwork::by_value();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let endpoint = hub.endpoint(TWO);
    let echo = std::thread::spawn(move || {
        support::run(async move {
            let mut two = TestNode::on(Box::new(endpoint), CLUSTER, TWO).await;
            let link = two.links.link(ONE, "");
            ready.send(()).expect("the test waits");
            for _ in 0..1000 {
                let (from, message) = two.received().await;
                assert_eq!(from, ONE);
                let Body::Heartbeat(heartbeat) = message.body else { panic!("only heartbeats are sent") };
                link.send(heartbeat_reply(heartbeat.round));
            }
        });
    });
    is_ready.recv().expect("node 2 starts");
    support::run(async {
        let mut one = TestNode::on(Box::new(hub.endpoint(ONE)), CLUSTER, ONE).await;
        let link = one.links.link(TWO, "");
        one.until_up(TWO).await;
        for round in 0..1000 {
            link.send(heartbeat(round));
            assert_eq!(one.received().await, (TWO, heartbeat_reply(round)));
        }
    });
    echo.join().expect("node 2 ends well");
}

#[test]
fn nodes_of_different_clusters_do_not_meet() {
    run_paused(async {
        let hub = MemoryNetwork::new();
        let one = TestNode::on(Box::new(hub.endpoint(ONE)), "here", ONE).await;
        let mut two = TestNode::on(Box::new(hub.endpoint(TWO)), "there", TWO).await;
        one.links.link(TWO, "").send(heartbeat(1));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(two.pending().is_empty());
        assert_eq!(one.counts.dropped("unconnected"), 1);
    });
}
