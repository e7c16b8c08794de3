//! Two live processes that use one node's id: named with both addresses, and kept apart.

mod support;

use quorate_raft::NodeId;
use quorate_transport::network::Event;
use quorate_transport_testing::conformance::{TestNode, heartbeat};
use std::time::Duration;
use support::{Log, Pki, run};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

#[test]
fn of_two_live_processes_of_one_id_the_one_at_the_members_address_stays_and_both_are_named() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let [original, copy] = run(async {
        let mut pki = Pki::new();
        let mut one = TestNode::start(&mut pki, ONE).await;
        let mut two = TestNode::start(&mut pki, TWO).await;
        let link = one.link(&mut two).await;
        let _back = two.link(&mut one).await;
        let copy = TestNode::start(&mut pki, TWO).await;
        let at = |node: &TestNode| node.links.local_address().expect("it is bound").to_string();
        let _from_copy = copy.links.link(ONE, &at(&one));
        one.counts.until(|counts| counts.connections_of("refused_twin", Some(TWO)) >= 3).await;

        // The copy tries on, and disturbs nothing any more.
        let settled = |node: &TestNode| (node.counts.connections("accepted"), node.counts.connections("connected"));
        let before = settled(&one);
        let refused = one.counts.connections("refused_twin");
        one.counts.until(|counts| counts.connections("refused_twin") >= refused + 3).await;
        assert_eq!(settled(&one), before, "no other takes the original's place again");
        let mut round = 0;
        let is_heard = |event: &Event| matches!(event, Event::Delivered(_));
        while !two.pending().iter().any(is_heard) {
            round += 1;
            assert!(round < 1000, "the original hears its peer");
            link.send(heartbeat(round));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(copy.counts.dropped("malformed"), 0);
        [at(&two), at(&copy)]
    });
    let text = log.text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("two live processes use the id 2")).collect();
    let errors: Vec<_> = lines.iter().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "one line, however often they alternate: {text}");
    assert!(errors[0].contains(&original) && errors[0].contains(&copy), "it names both addresses: {}", errors[0]);
}

#[test]
fn a_node_that_is_restarted_is_no_twin() {
    run(async {
        let mut pki = Pki::new();
        let mut one = TestNode::start(&mut pki, ONE).await;
        let mut two = TestNode::start(&mut pki, TWO).await;
        let address = two.links.local_address();
        let _link = one.link(&mut two).await;
        for _ in 0..4 {
            let _back = two.link(&mut one).await;
            two.close().await;
            one.until_down(TWO).await;
            two = TestNode::start_at(&mut pki, TWO, address).await;
            one.until_up(TWO).await;
        }
        assert_eq!(one.counts.connections("refused_twin"), 0);
    });
}
