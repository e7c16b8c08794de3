//! QUIC over paths that are slow, are cut for a while, or change the address that a node
//! is seen at.

mod support;

use quorate_raft::NodeId;
use quorate_transport::network::{Event, Link};
use quorate_transport_testing::conformance::{TestNode, append, heartbeat};
use std::{rc::Rc, time::Duration};
use support::{Pki, path::Path, run};
use tokio::time::Instant;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
/// A link that waits for QUIC's idle timeout, which is 3 s at least, is silent for longer.
const GAP_MAX: Duration = Duration::from_millis(1500);

/// Two nodes, and a path on which one dials the other.
struct Pair {
    one: TestNode,
    two: TestNode,
    path: Path,
    link: Rc<dyn Link>,
}

impl Pair {
    async fn start(pki: &mut Pki) -> Self {
        let mut one = TestNode::start(pki, ONE).await;
        let two = TestNode::start(pki, TWO).await;
        let path = Path::lay(two.links.local_address().expect("it is bound")).await;
        let link = one.links.link(TWO, &path.address());
        one.until_up(TWO).await;
        Self { one, two, path, link }
    }

    /// Says something every 10 ms until one arrives that was sent from now on, and how
    /// long that took.
    async fn silence(&mut self) -> Duration {
        let since = Instant::now();
        let first = since.elapsed().as_nanos() as u64;
        let mut round = first;
        self.two.pending();
        loop {
            self.link.send(heartbeat(round + 1_000_000));
            round += 1;
            let heard = tokio::time::timeout(Duration::from_millis(10), self.two.event()).await;
            if let Ok(Event::Delivered(delivered)) = heard
                && matches!(&delivered.message.body, quorate_raft::Body::Heartbeat(it) if it.round >= 1_000_000)
            {
                return since.elapsed();
            }
            assert!(since.elapsed() < Duration::from_secs(20), "nothing arrives any more");
        }
    }

    /// Sends 16 MiB of large values.
    fn send_large(&self) {
        for first in 0..64 {
            self.link.send(append(first + 1, 1, 256 << 10));
        }
    }

    /// How long those take to arrive on this machine, busy as it is: up to the last one, for a
    /// connection that breaks meanwhile loses some.
    async fn large_takes(&mut self) -> Duration {
        let began = Instant::now();
        let mut takes = Duration::ZERO;
        self.send_large();
        for _ in 0..64 {
            let Ok(event) = tokio::time::timeout(Duration::from_secs(5), self.two.event()).await else { break };
            if matches!(event, Event::Delivered(_)) {
                takes = began.elapsed();
            }
        }
        assert!(takes > Duration::ZERO, "no value arrives");
        takes
    }

    async fn close(self) {
        self.one.close().await;
        self.two.close().await;
    }
}

#[test]
fn a_peer_whose_source_port_changes_is_heard_again_long_before_its_connection_would_time_out() {
    run(async {
        let mut pki = Pki::new();
        let mut pair = Pair::start(&mut pki).await;
        for _ in 0..3 {
            pair.silence().await;
            pair.path.rebind();
            let gap = pair.silence().await;
            println!("silent for {gap:?} after the source port changed");
            assert!(gap < GAP_MAX, "silent for {gap:?}");
        }
        pair.close().await;
    });
}

/// The probes of a connection with large values under way come less and less often while
/// nothing comes back.
#[test]
fn after_a_cut_with_large_values_under_way_a_link_carries_again_at_once() {
    run(async {
        let mut pki = Pki::new();
        let mut pair = Pair::start(&mut pki).await;
        let gap_max = GAP_MAX + pair.large_takes().await * 2;
        for cut_ms in [1500, 2000, 2500, 2900] {
            pair.send_large();
            tokio::time::sleep(Duration::from_millis(3)).await;
            pair.path.cut(true);
            let cut = Instant::now();
            while cut.elapsed() < Duration::from_millis(cut_ms) {
                pair.link.send(append(1, 1, 1000));
                pair.link.send(heartbeat(1));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            pair.path.cut(false);
            let gap = pair.silence().await;
            let (connected, failed) =
                (pair.one.counts.connections("connected"), pair.one.counts.connections("unreachable"));
            println!(
                "silent for {gap:?} (at most {gap_max:?}) after a cut of {cut_ms} ms; {connected} connections so far, {failed} attempts failed"
            );
            assert!(gap < gap_max, "silent for {gap:?} after a cut of {cut_ms} ms, and {gap_max:?} is allowed");
        }
        pair.close().await;
    });
}

/// Each dials the other, and each accepted connection shows that the other is there.
#[test]
fn nodes_connect_both_ways_over_a_round_trip_of_600_ms() {
    run(async {
        let mut pki = Pki::new();
        let mut one = TestNode::start(&mut pki, ONE).await;
        let mut two = TestNode::start(&mut pki, TWO).await;
        let to_two = Path::lay(two.links.local_address().expect("it is bound")).await;
        let to_one = Path::lay(one.links.local_address().expect("it is bound")).await;
        to_two.delay(Duration::from_millis(300));
        to_one.delay(Duration::from_millis(300));
        let began = Instant::now();
        let link = one.links.link(TWO, &to_two.address());
        let back = two.links.link(ONE, &to_one.address());
        tokio::join!(one.until_up(TWO), two.until_up(ONE));
        println!("connected both ways after {:?}", began.elapsed());
        link.send(heartbeat(1));
        assert_eq!(two.received().await, (ONE, heartbeat(1)));
        back.send(heartbeat(2));
        assert_eq!(one.received().await, (TWO, heartbeat(2)));
        // And they stay: a slow path is not a broken one.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let lost = |node: &mut TestNode| node.pending().iter().any(|event| matches!(event, Event::LinkDown { .. }));
        assert!(!lost(&mut one) && !lost(&mut two), "a link was given up");
        one.close().await;
        two.close().await;
    });
}
