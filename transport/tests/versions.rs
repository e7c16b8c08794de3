//! Nodes of several releases: they speak the newest version that both know, and refuse each other
//! by name if there is none.

mod support;

use quorate_raft::NodeId;
use quorate_transport::{
    codec::{Version, Versions},
    network::Event,
};
use quorate_transport_testing::conformance::{self, TestNode, append, heartbeat, piece};
use support::stranger::{ALPN, closed_with, connect, hello, hello_bytes};
use support::{Log, Pki, run};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

#[test]
fn neighbouring_releases_talk_on_every_lane() {
    run(async {
        for (one, two) in [(old(), both()), (both(), old()), (both(), new()), (new(), both()), (both(), both())] {
            let mut pki = Pki::new();
            let mut nodes = [started(&mut pki, ONE, one).await, started(&mut pki, TWO, two).await];
            let [one, two] = &mut nodes;
            let link = one.link(two).await;
            // The versions write heartbeats differently: a node that spoke the wrong one
            // would be disconnected.
            for round in 0..20 {
                for message in [heartbeat(round), append(round + 1, 3, 100), piece(round, 100)] {
                    link.send(message.clone());
                    assert_eq!(two.received().await, (ONE, message));
                }
            }
            assert_eq!(two.counts.dropped("malformed"), 0);
            for node in nodes {
                node.close().await;
            }
        }
    });
}

#[test]
fn releases_that_share_no_version_refuse_each_other_by_name_and_log_it_once() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    run(async {
        let mut pki = Pki::new();
        let mut one = started(&mut pki, ONE, old()).await;
        let mut two = started(&mut pki, TWO, new()).await;
        let [at_one, at_two] = [&one, &two].map(|node| node.links.local_address().expect("it is bound").to_string());
        let _links = [one.links.link(TWO, &at_two), two.links.link(ONE, &at_one)];
        for (node, peer) in [(&one, TWO), (&two, ONE)] {
            node.counts.until(|counts| counts.connections_of("refused_protocol", Some(peer)) >= 4).await;
            assert_eq!((node.counts.connections("accepted"), node.counts.connections("connected")), (0, 0));
        }
        let is_quiet = |node: &mut TestNode| !node.pending().iter().any(|event| matches!(event, Event::LinkUp { .. }));
        assert!(is_quiet(&mut one) && is_quiet(&mut two));
    });
    let text = log.text();
    for line in [
        "node 1 speaks frame version 6, this node version 7: run releases on both that share one",
        "node 2 speaks frame version 7, this node version 6: run releases on both that share one",
    ] {
        let lines = text.lines().filter(|logged| logged.contains("refused_protocol") && logged.contains(line)).count();
        assert_eq!(lines, 1, "{line}: {text}");
    }
}

#[test]
fn a_peer_that_comes_back_with_another_release_is_spoken_to_accordingly() {
    run(async {
        let mut pki = Pki::new();
        let mut one = started(&mut pki, ONE, both()).await;
        let mut two = started(&mut pki, TWO, old()).await;
        let address = two.links.local_address().expect("it is bound");
        let link = one.link(&mut two).await;
        for speaks in [new(), both(), old()] {
            link.send(heartbeat(7));
            assert_eq!(two.received().await, (ONE, heartbeat(7)));
            two.close().await;
            one.until_down(TWO).await;
            pki.speaks = speaks;
            two = TestNode::start_at(&mut pki, TWO, Some(address)).await;
            one.until_up(TWO).await;
        }
        link.send(heartbeat(8));
        assert_eq!(two.received().await, (ONE, heartbeat(8)));
        assert_eq!(two.counts.dropped("malformed"), 0);
    });
}

#[test]
fn a_claim_to_speak_versions_that_makes_no_sense_is_refused() {
    run(async {
        let mut pki = Pki::new();
        let victim = started(&mut pki, ONE, both()).await;
        let address = victim.links.local_address().expect("it is bound");
        for (nth, (min, max)) in [(3, 2), (0, 0), (0, 255), (255, 0), (255, 2), (8, 255)].into_iter().enumerate() {
            let peer = NodeId(10 + nth as u64);
            let endpoint = support::stranger::client(&pki, Some(&pki.issue(peer)), ALPN);
            let connection = connect(&endpoint, address).await.expect("TLS lets it in");
            let (mut send, _recv) = connection.open_bi().await.expect("a stream");
            let mut hello = hello(peer);
            (hello.protocol_min, hello.protocol_max) = (min, max);
            send.write_chunk(hello_bytes(&hello)).await.expect("it is open");
            assert_eq!(closed_with(&connection).await, Some(3), "{min} to {max}");
            victim.counts.until(|counts| counts.connections_of("refused_protocol", Some(peer)) == 1).await;
        }
        assert_eq!(victim.counts.connections("accepted"), 0);
    });
}

#[test]
fn a_connection_whose_lanes_claim_different_versions_is_refused() {
    run(async {
        let mut pki = Pki::new();
        let victim = started(&mut pki, ONE, both()).await;
        let address = victim.links.local_address().expect("it is bound");
        let endpoint = support::stranger::client(&pki, Some(&pki.issue(TWO)), ALPN);
        let connection = connect(&endpoint, address).await.expect("TLS lets it in");
        let mut lanes = Vec::new();
        for version in [Version::CURRENT, Version::NEXT] {
            let (mut send, recv) = connection.open_bi().await.expect("a stream");
            let mut hello = hello(TWO);
            (hello.protocol_min, hello.protocol_max) = (version.number(), version.number());
            send.write_chunk(hello_bytes(&hello)).await.expect("it is open");
            lanes.push((send, recv));
        }
        assert_eq!(closed_with(&connection).await, Some(3));
        victim.counts.until(|counts| counts.connections_of("refused_protocol", Some(TWO)) == 1).await;
    });
}

#[test]
fn the_next_version_does_what_any_network_must() {
    run(conformance::run(&mut Pki { speaks: new(), ..Pki::patient() }));
}

async fn started(pki: &mut Pki, node: NodeId, speaks: Versions) -> TestNode {
    pki.speaks = speaks;
    TestNode::start(pki, node).await
}

/// The versions of this release.
fn old() -> Versions {
    Versions::SPOKEN
}

/// The next one, which still speaks what this one does.
fn both() -> Versions {
    Versions::between(Version::CURRENT, Version::NEXT).expect("in order")
}

/// The one after it.
fn new() -> Versions {
    Versions::between(Version::NEXT, Version::NEXT).expect("in order")
}
