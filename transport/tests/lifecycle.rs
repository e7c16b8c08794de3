//! How connections come and go: crashes, replacements, and which way messages take.

mod support;

use bytes::Bytes;
use quorate_raft::NodeId;
use quorate_transport::codec::{Decoder, Frame, Limits};
use quorate_transport_testing::conformance::{Counts, Harness, TestNode, append, heartbeat, heartbeat_reply};
use std::{net::SocketAddr, rc::Rc, sync::mpsc, time::Duration};
use support::{
    Pki, run,
    stranger::{self, ALPN, closed_with, connect, introduce},
};
use tokio::{sync::oneshot, time::Instant};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

#[test]
fn a_peer_that_crashed_and_came_back_is_noticed_long_before_it_would_time_out() {
    let mut pki = Pki::new();
    let (first, address) = Doomed::start(&mut pki, TWO, None);
    run(async {
        let mut one = TestNode::start(&mut pki, ONE).await;
        let link = one.links.link(TWO, &address.to_string());
        one.until_up(TWO).await;
        first.crash();
        let (second, _) = Doomed::start(&mut pki, TWO, Some(address));
        // The new process does not dial. Its reset, the answer to a connection that it does not
        // know, is the only sign of it.
        let restarted = Instant::now();
        link.send(heartbeat(1));
        one.until_down(TWO).await;
        assert!(restarted.elapsed() < Duration::from_secs(2), "noticed after {:?}", restarted.elapsed());
        one.until_up(TWO).await;
        second.crash();
    });
}

#[test]
fn a_newer_connection_of_a_peer_takes_the_place_of_the_older() {
    run(async {
        let mut pki = Pki::new();
        let mut victim = TestNode::start(&mut pki, ONE).await;
        let address = victim.links.local_address().expect("it is bound");
        let endpoint = stranger::client(&pki, Some(&pki.issue(TWO)), ALPN);
        let older = connect(&endpoint, address).await.expect("TLS lets it in");
        let _lanes = introduce(&older, TWO).await;
        let newer = connect(&endpoint, address).await.expect("TLS lets it in");
        let mut lanes = introduce(&newer, TWO).await;
        assert_eq!(closed_with(&older).await, Some(1));
        lanes.control.0.write_chunk(bytes_of(&heartbeat(1))).await.expect("it is open");
        assert_eq!(victim.received().await, (TWO, heartbeat(1)));
        assert_eq!(victim.counts.connections("accepted"), 2);
    });
}

#[test]
fn replies_go_back_on_the_connection_that_asked_and_requests_do_not() {
    run(async {
        let mut pki = Pki::new();
        let mut victim = TestNode::start(&mut pki, ONE).await;
        let address = victim.links.local_address().expect("it is bound");
        let endpoint = stranger::client(&pki, Some(&pki.issue(TWO)), ALPN);
        let connection = connect(&endpoint, address).await.expect("TLS lets it in");
        let mut lanes = introduce(&connection, TWO).await;
        lanes.control.0.write_chunk(bytes_of(&heartbeat(1))).await.expect("it is open");
        victim.received().await;
        // No process answers at the address that the victim dials.
        let link = victim.links.link(TWO, "127.0.0.1:9");
        link.send(heartbeat(2));
        assert_eq!(victim.counts.dropped("unconnected"), 1, "a request waits for the own connection");
        link.send(heartbeat_reply(3));
        let mut piece =
            lanes.control.1.read_chunk(usize::MAX, true).await.expect("it is open").expect("it is open").bytes;
        let frame = Decoder::new(Limits::default()).feed(&mut piece).expect("a frame").expect("a whole one").frame;
        assert_eq!(frame, Frame::Message(heartbeat_reply(3)));
    });
}

#[test]
fn the_time_until_entries_are_written_is_measured_and_that_of_answers_is_not() {
    run(async {
        let mut pki = Pki::new();
        let mut one = TestNode::start(&mut pki, ONE).await;
        let mut two = TestNode::start(&mut pki, TWO).await;
        let link = one.link(&mut two).await;
        assert!(one.counts.link_turns() > 0, "dialling took turns");
        link.send(heartbeat(1));
        link.send(append(1, 0, 0));
        link.send(append(1, 3, 100));
        for _ in 0..3 {
            two.received().await;
        }
        one.counts.until(|counts| counts.wrote_entries() == 1).await;
        assert_eq!(two.counts.wrote_entries(), 0);
        let (arrived, told) = oneshot::channel();
        link.probe(Box::new(move || arrived.send(()).expect("it is waited for")));
        told.await.expect("the actor that dials handles a probe");
    });
}

#[test]
fn replies_take_the_own_connection_while_the_asker_has_none() {
    run(async {
        let mut pki = Pki::new();
        let mut one = TestNode::start(&mut pki, ONE).await;
        let mut two = TestNode::start(&mut pki, TWO).await;
        let link = two.link(&mut one).await;
        link.send(heartbeat_reply(1));
        assert_eq!(one.received().await, (TWO, heartbeat_reply(1)));
    });
}

#[test]
fn a_dropped_link_says_goodbye() {
    run(async {
        let mut pki = Pki::new();
        let mut one = TestNode::start(&mut pki, ONE).await;
        let server = stranger::server(&pki.issue(TWO));
        let link = one.links.link(TWO, &server.local_addr().expect("it is bound").to_string());
        let connection = server.accept().await.expect("it is open").await.expect("node 1 dials");
        let mut lanes = Vec::new();
        for _ in 0..2 {
            let (mut send, recv) = connection.accept_bi().await.expect("a lane");
            send.write_chunk(stranger::hello_bytes(&stranger::hello(TWO))).await.expect("it is open");
            lanes.push((send, recv));
        }
        one.until_up(TWO).await;
        drop(link);
        assert_eq!(closed_with(&connection).await, Some(0));
    });
}

#[test]
fn a_link_of_a_network_that_closes_has_not_died() {
    run(async {
        let mut pki = Pki::new();
        let mut one = TestNode::start(&mut pki, ONE).await;
        let mut two = TestNode::start(&mut pki, TWO).await;
        let link = one.link(&mut two).await;
        let (there, absent) = (Rc::clone(&link), one.links.link(NodeId(3), "127.0.0.1:9"));
        let looking = async move {
            // Long enough for the links' actors to end.
            for _ in 0..100 {
                assert!(there.is_running() && absent.is_running(), "a node must not take its own goodbye for a panic");
                tokio::task::yield_now().await;
            }
        };
        futures_util::future::join(one.links.close(), looking).await;
        assert!(link.is_running());
    });
}

#[test]
fn the_round_trip_is_reported() {
    run(async {
        let mut pki = Pki::new();
        let mut one = TestNode::start(&mut pki, ONE).await;
        let mut two = TestNode::start(&mut pki, TWO).await;
        let _link = one.link(&mut two).await;
        one.counts.until(|counts: &Counts| counts.round_trips() > 0).await;
    });
}

fn bytes_of(message: &quorate_raft::Message) -> Bytes {
    quorate_transport::codec::Encoder::default().message(message).expect("a short one").head
}

/// A node on a thread of its own. Its runtime can be dropped at any moment: no goodbye leaves,
/// as after SIGKILL.
struct Doomed {
    crash: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Doomed {
    fn start(pki: &mut Pki, node: NodeId, address: Option<SocketAddr>) -> (Self, SocketAddr) {
        let (network, cluster) = (pki.network(node, address), pki.cluster());
        let (crash, crashed) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let tasks = tokio::task::LocalSet::new();
            let node = tasks.block_on(&runtime, async {
                let node = TestNode::on(network, &cluster, node).await;
                ready.send(node.links.local_address()).expect("the test waits");
                let _ = crashed.await;
                node
            });
            // The tasks that could send a goodbye end before the node is dropped; the socket
            // goes with it.
            drop(tasks);
            drop(runtime);
            drop(node);
        });
        let address = is_ready.recv().expect("it starts").expect("it is bound");
        (Self { crash, thread }, address)
    }

    fn crash(self) {
        let _ = self.crash.send(());
        self.thread.join().expect("it ends");
    }
}
