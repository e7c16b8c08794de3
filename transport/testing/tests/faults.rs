//! Faults of a network: they occur as set, and the same way under the same seed.

mod support;

use quorate_raft::{Body, NodeId};
use quorate_transport::{
    MemoryNetwork, Network,
    network::{Delivered, Event, Link},
};
use quorate_transport_testing::{
    FaultNetwork, Faults, FaultyEndpoint, LinkFaults,
    conformance::{self, Harness, TestNode, append, heartbeat, heartbeat_reply},
};
use std::{net::SocketAddr, rc::Rc, time::Duration};
use support::{CLUSTER, run_paused};
use tokio::time::Instant;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

#[test]
fn the_same_seed_gives_the_same_deliveries_at_the_same_times() {
    let faults = LinkFaults {
        drop: 0.1,
        duplicate: 0.1,
        reorder: 0.2,
        corrupt: 0.05,
        delay: Duration::from_millis(1)..=Duration::from_millis(30),
        ..LinkFaults::default()
    };
    let story = |seed| run_paused(story(seed, faults.clone()));
    assert_eq!(story(1), story(1));
    assert_ne!(story(1), story(2));
}

#[test]
fn a_dropped_message_is_gone_and_counted() {
    run_paused(async {
        let mut pair = Pair::new().await;
        pair.network.faults().between(ONE, TWO, LinkFaults { drop: 0.5, ..LinkFaults::default() });
        let received = pair.send_and_drain(1000).await;
        assert_eq!(received.len() as u64 + pair.two.counts.dropped("fault_drop"), 1000);
        assert!((400..600).contains(&received.len()), "about half arrive: {}", received.len());
        assert!(received.is_sorted(), "those that arrive keep their order");
    });
}

#[test]
fn a_duplicated_message_arrives_twice() {
    run_paused(async {
        let mut pair = Pair::new().await;
        pair.network.faults().everywhere(LinkFaults { duplicate: 1.0, ..LinkFaults::default() });
        let mut received = pair.send_and_drain(3).await;
        received.sort_unstable();
        assert_eq!(received, [0, 0, 1, 1, 2, 2]);
    });
}

#[test]
fn a_delay_takes_its_time_and_keeps_the_order() {
    run_paused(async {
        let mut pair = Pair::new().await;
        let delay = Duration::from_millis(10)..=Duration::from_millis(50);
        pair.network.faults().everywhere(LinkFaults { delay, ..LinkFaults::default() });
        let sent = Instant::now();
        pair.link.send(heartbeat(0));
        pair.two.received().await;
        let took = sent.elapsed();
        assert!(took >= Duration::from_millis(10) && took <= Duration::from_millis(52), "it took {took:?}");
        assert_eq!(pair.send_and_drain(200).await, (0..200).collect::<Vec<_>>());
    });
}

#[test]
fn nothing_overtakes_what_is_delayed_once_the_delay_ends() {
    run_paused(async {
        let mut pair = Pair::new().await;
        let faults = pair.network.faults();
        let delay = Duration::from_millis(50)..=Duration::from_millis(50);
        faults.everywhere(LinkFaults { delay, ..LinkFaults::default() });
        pair.link.send(heartbeat(0));
        tokio::time::sleep(Duration::from_millis(1)).await;
        faults.clear();
        pair.link.send(heartbeat(1));
        assert_eq!(pair.drain().await, [0, 1]);
    });
}

#[test]
fn reordered_messages_overtake_each_other_and_none_is_lost() {
    run_paused(async {
        let mut pair = Pair::new().await;
        pair.network.faults().everywhere(LinkFaults { reorder: 0.5, ..LinkFaults::default() });
        let mut received = pair.send_and_drain(100).await;
        assert!(!received.is_sorted());
        received.sort_unstable();
        assert_eq!(received, (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn every_corrupted_message_is_found_and_dropped() {
    run_paused(async {
        let mut pair = Pair::new().await;
        pair.network.faults().everywhere(LinkFaults { corrupt: 1.0, ..LinkFaults::default() });
        for round in 0..500 {
            pair.link.send(heartbeat(round));
            pair.link.send(append(1, 3, 50));
        }
        assert_eq!(pair.drain().await, []);
        assert_eq!(pair.two.counts.dropped("malformed"), 1000);
    });
}

#[test]
fn a_cut_goes_one_way() {
    run_paused(async {
        let mut pair = Pair::new().await;
        let faults = pair.network.faults();
        let back = pair.two.link(&mut pair.one).await;
        faults.cut(ONE, TWO);
        assert_eq!(pair.send_and_drain(5).await, []);
        assert_eq!(pair.two.counts.dropped("fault_cut"), 5);
        back.send(heartbeat_reply(1));
        assert_eq!(pair.one.received().await, (TWO, heartbeat_reply(1)));
        faults.mend(ONE, TWO);
        assert_eq!(pair.send_and_drain(2).await, [0, 1]);
    });
}

#[test]
fn a_partition_goes_both_ways_and_heals() {
    run_paused(async {
        let mut pair = Pair::new().await;
        let back = pair.two.link(&mut pair.one).await;
        let faults = pair.network.faults();
        faults.partition(&[ONE], &[TWO, NodeId(3)]);
        back.send(heartbeat_reply(1));
        assert_eq!(pair.send_and_drain(5).await, []);
        assert!(!pair.one.pending().iter().any(|event| matches!(event, Event::Delivered(_))));
        faults.heal();
        assert_eq!(pair.send_and_drain(1).await, [0]);
        faults.isolate(TWO);
        back.send(heartbeat_reply(1));
        assert_eq!(pair.send_and_drain(1).await, []);
        let cut = [&pair.one, &pair.two].map(|node| node.counts.dropped("fault_cut"));
        assert_eq!(cut, [2, 6], "counted where they would have arrived");
    });
}

#[test]
fn a_delayed_message_outlives_its_sender_and_is_lost_with_its_receiver() {
    run_paused(async {
        let mut pair = Pair::new().await;
        let delay = Duration::from_millis(50)..=Duration::from_millis(50);
        pair.network.faults().everywhere(LinkFaults { delay, ..LinkFaults::default() });
        pair.link.send(heartbeat(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
        pair.one.close().await;
        assert_eq!(pair.two.received().await, (ONE, heartbeat(1)));
        pair.one = TestNode::on(Box::new(pair.network.endpoint(ONE)), CLUSTER, ONE).await;
        pair.link = pair.one.link(&mut pair.two).await;
        pair.link.send(heartbeat(2));
        tokio::time::sleep(Duration::from_millis(1)).await;
        pair.two.close().await;
        pair.two = TestNode::on(Box::new(pair.network.endpoint(TWO)), CLUSTER, TWO).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!pair.two.pending().iter().any(|event| matches!(event, Event::Delivered(_))));
    });
}

#[test]
fn a_network_with_faults_that_are_off_conforms() {
    run_paused(conformance::run(&mut Around { faults: Faults::new(1), network: MemoryNetwork::new() }));
}

#[test]
fn a_network_with_faults_that_are_over_conforms() {
    let faults = Faults::new(1);
    faults.isolate(ONE);
    faults.clear();
    run_paused(conformance::run(&mut Around { faults, network: MemoryNetwork::new() }));
}

/// Networks with shared faults.
struct Around {
    faults: Faults,
    network: MemoryNetwork,
}

impl Harness for Around {
    fn network(&mut self, node: NodeId, _: Option<SocketAddr>) -> Box<dyn Network> {
        Box::new(FaultyEndpoint::around(self.network.endpoint(node), &self.faults))
    }

    fn cluster(&self) -> String {
        CLUSTER.into()
    }
}

/// When what arrived, with mixed faults.
async fn story(seed: u64, faults: LinkFaults) -> Vec<(Duration, u64)> {
    let (mut pair, start) = (Pair::seeded(seed).await, Instant::now());
    pair.network.faults().everywhere(faults);
    for round in 0..300 {
        pair.link.send(heartbeat(round));
    }
    let mut arrived = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_secs(1), pair.two.received()).await {
            Ok((_, message)) => arrived.push((start.elapsed(), round_of(&message))),
            Err(_) => return arrived,
        }
    }
}

/// Two nodes, and a link from the first to the second.
struct Pair {
    network: FaultNetwork,
    one: TestNode,
    two: TestNode,
    link: Rc<dyn Link>,
}

impl Pair {
    async fn new() -> Self {
        Self::seeded(42).await
    }

    async fn seeded(seed: u64) -> Self {
        let network = FaultNetwork::new(seed);
        let mut one = TestNode::on(Box::new(network.endpoint(ONE)), CLUSTER, ONE).await;
        let mut two = TestNode::on(Box::new(network.endpoint(TWO)), CLUSTER, TWO).await;
        let link = one.link(&mut two).await;
        Self { network, one, two, link }
    }

    async fn send_and_drain(&mut self, count: u64) -> Vec<u64> {
        for round in 0..count {
            self.link.send(heartbeat(round));
        }
        self.drain().await
    }

    /// The rounds of all that arrives until the network is silent: time is paused, so
    /// waiting costs none.
    async fn drain(&mut self) -> Vec<u64> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let delivered = self.two.pending().into_iter().filter_map(|event| match event {
            Event::Delivered(Delivered { message, .. }) => Some(round_of(&message)),
            _ => None,
        });
        delivered.collect()
    }
}

fn round_of(message: &quorate_raft::Message) -> u64 {
    match &message.body {
        Body::Heartbeat(heartbeat) => heartbeat.round,
        other => panic!("only heartbeats are sent, not {other:?}"),
    }
}
