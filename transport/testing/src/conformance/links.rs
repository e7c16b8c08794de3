//! Duties that concern links, and what is told of them: that nodes which are not dialled can be
//! answered, that a dropped link stays down, that a link leads to the node that it names, and that
//! both sides are introduced and everything is counted.

use super::{Harness, TestNode, append, close, heartbeat, heartbeat_reply, piece, proposal};
use quorate_raft::NodeId;
use quorate_transport::network::{Delivered, Direction, Event, Lane};
use std::time::Duration;

/// How long nothing may happen where nothing must: longer than a network pauses between attempts.
const QUIET: Duration = Duration::from_millis(1500);

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

pub(super) async fn a_node_that_is_not_dialled_is_answered_on_the_way_that_it_opened(harness: &mut dyn Harness) {
    let (mut one, mut two) = (TestNode::start(harness, ONE).await, TestNode::start(harness, TWO).await);
    two.links.reply_link(NodeId(7)).send(heartbeat_reply(1));
    assert_eq!(two.counts.dropped("unconnected"), 1, "an answer to an absent peer is dropped and counted");
    let link = one.link(&mut two).await;
    link.send(heartbeat(1));
    assert_eq!(two.received().await, (ONE, heartbeat(1)), "a request arrives");
    let reply_link = two.links.reply_link(ONE);
    for message in [heartbeat_reply(2), proposal(3, 300), heartbeat(4)] {
        reply_link.send(message.clone());
        assert_eq!(one.received().await, (TWO, message), "what is said to a node that dialled arrives there");
    }
    let is_link = |event: &Event| matches!(event, Event::LinkUp { .. } | Event::LinkDown { .. });
    nothing(&mut two, "a link that only answers dials no peer and reports no link", is_link).await;
    close([one, two]).await;
}

pub(super) async fn a_link_that_was_dropped_dials_no_more(harness: &mut dyn Harness) {
    let (mut one, two) = (TestNode::start(harness, ONE).await, TestNode::start(harness, TWO).await);
    let address = two.links.local_address();
    let dialled = address.map(|address| address.to_string()).unwrap_or_default();
    two.close().await;
    drop(one.links.link(TWO, &dialled));
    let mut two = TestNode::start_at(harness, TWO, address).await;
    nothing(&mut one, "a link that was dropped before its peer was there stays down", is_link_up).await;
    drop(one.link(&mut two).await);
    two.close().await;
    let two = TestNode::start_at(harness, TWO, address).await;
    nothing(&mut one, "a link that was dropped while it was up stays down", is_link_up).await;
    close([one, two]).await;
}

pub(super) async fn a_link_leads_to_the_node_that_it_names(harness: &mut dyn Harness) {
    let (mut one, mut two) = (TestNode::start(harness, ONE).await, TestNode::start(harness, TWO).await);
    let link = one.links.link(NodeId(9), &two.address());
    let is_of_nine =
        |event: &Event| matches!(event, Event::LinkUp { peer } | Event::Introduced { peer, .. } if *peer == NodeId(9));
    nothing(&mut one, "another node at the address is not believed to be node 9", is_of_nine).await;
    link.send(heartbeat(1));
    assert_eq!(one.counts.dropped("unconnected"), 1, "and it is sent nothing");
    assert!(!two.pending().iter().any(is_delivered), "and it is sent nothing");
    close([one, two]).await;
}

/// Only one of the two dials, so each introduction has one occasion.
pub(super) async fn each_side_of_a_connection_is_introduced_to_the_other(harness: &mut dyn Harness) {
    let (mut one, mut two) = (TestNode::start(harness, ONE).await, TestNode::start(harness, TWO).await);
    let link = one.links.link(TWO, &two.address());
    loop {
        match one.event().await {
            Event::Introduced { peer, introduction } => {
                break assert_eq!((peer, &introduction), (TWO, &two.introduction), "the dialled node is introduced");
            }
            Event::LinkUp { .. } => panic!("a node that is dialled is introduced before it can be talked to"),
            _ => {}
        }
    }
    one.until_up(TWO).await;
    link.send(heartbeat(1));
    loop {
        match two.event().await {
            Event::Introduced { peer, introduction } => {
                break assert_eq!((peer, &introduction), (ONE, &one.introduction), "the dialling node is introduced");
            }
            Event::Delivered(_) => panic!("a node that dials is introduced before it is heard"),
            _ => {}
        }
    }
    close([one, two]).await;
}

pub(super) async fn bytes_are_counted_and_messages_hold_credit(harness: &mut dyn Harness) {
    let (mut one, mut two) = (TestNode::start(harness, ONE).await, TestNode::start(harness, TWO).await);
    let link = one.link(&mut two).await;
    for message in [heartbeat(1), append(1, 1, 1000), piece(0, 1000)] {
        let (lane, bytes) = (Lane::of(&message), message.bulk().len().max(1) as u64);
        link.send(message.clone());
        let Delivered { from, message: received, credit } = two.delivered().await;
        assert_eq!((from, received), (ONE, message), "a message of each lane arrives");
        assert!(credit.is_some(), "what is not handled yet holds credit");
        one.counts.until(|counts| counts.bytes(Direction::Sent, lane) >= bytes).await;
        two.counts.until(|counts| counts.bytes(Direction::Received, lane) >= bytes).await;
    }
    close([one, two]).await;
}

pub(super) async fn a_closed_network_delivers_nothing(harness: &mut dyn Harness) {
    let (mut one, mut two) = (TestNode::start(harness, ONE).await, TestNode::start(harness, TWO).await);
    let link = one.link(&mut two).await;
    link.send(heartbeat(1));
    two.received().await;
    two.links.close().await;
    two.pending();
    link.send(heartbeat(2));
    nothing(&mut two, "a network that is closed delivers nothing", is_delivered).await;
    close([one]).await;
}

fn is_link_up(event: &Event) -> bool {
    matches!(event, Event::LinkUp { .. })
}

fn is_delivered(event: &Event) -> bool {
    matches!(event, Event::Delivered(_))
}

/// Waits a while, in which no such event may come.
async fn nothing(node: &mut TestNode, what: &str, such: impl Fn(&Event) -> bool) {
    let comes = async {
        while let Some(event) = node.events.recv().await {
            if such(&event) {
                return event;
            }
        }
        std::future::pending().await
    };
    if let Ok(event) = tokio::time::timeout(QUIET, comes).await {
        panic!("{what}: {event:?}");
    }
}
