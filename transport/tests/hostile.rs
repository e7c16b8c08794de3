//! Hostile peers with a valid certificate: each is disconnected and counted, and does bounded harm.

mod support;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use quinn::Connection;
use quorate_raft::NodeId;
use quorate_transport::{
    codec::{Encoder, HEADER_BYTES, Limits, Version},
    network::{Event, Inbox},
};
use quorate_transport_testing::conformance::{TestNode, append, heartbeat, piece, proposal};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use support::stranger::{ALPN, Lanes, closed_with, connect, hello, hello_bytes, introduce, try_introduce};
use support::{Pki, run};

/// A version of the frames that is not spoken here.
const NEXT: u8 = Version::NEXT.number();

/// The application error codes of the protocol.
const IDENTITY: u64 = 2;
const PROTOCOL: u64 = 3;
const MALFORMED: u64 = 4;
const STALLED: u64 = 5;
const BACK_OFF: u64 = 6;

#[test]
fn bytes_that_are_no_frames_end_the_connection_and_are_counted() {
    run(async {
        let mut world = World::new().await;
        for (case, bytes) in malformed() {
            let (_endpoint, connection, mut lanes) = world.next_peer().await;
            lanes.append.0.write_all(&bytes).await.expect("it is open");
            assert_eq!(closed_with(&connection).await, Some(MALFORMED), "{case}");
            world.expect_malformed(case).await;
        }
        world.still_works().await;
    });
}

#[test]
fn a_length_above_its_limit_is_refused_by_the_header_alone() {
    run(async {
        let mut world = World::new().await;
        for (metadata, body) in [(u32::MAX, 0), (1 << 21, 0), (0, u32::MAX), (8, 33 << 20)] {
            let (_endpoint, connection, mut lanes) = world.next_peer().await;
            // Nothing but the header comes: it is not waited for, and no memory set aside.
            lanes
                .control
                .0
                .write_all(&header(|bytes| {
                    bytes[12..16].copy_from_slice(&u32::to_le_bytes(metadata));
                    bytes[16..20].copy_from_slice(&u32::to_le_bytes(body));
                }))
                .await
                .expect("it is open");
            assert_eq!(closed_with(&connection).await, Some(MALFORMED), "lengths {metadata} and {body}");
            world.expect_malformed("oversize").await;
        }
        world.still_works().await;
    });
}

#[test]
fn a_stream_that_ends_within_a_frame_is_malformed() {
    run(async {
        let mut world = World::new().await;
        let frame = joined(&append(1, 4, 1000));
        for cut in [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 3, frame.len() - 1] {
            let (_endpoint, connection, mut lanes) = world.next_peer().await;
            lanes.append.0.write_all(&frame[..cut]).await.expect("it is open");
            lanes.append.0.finish().expect("it is open");
            assert_eq!(closed_with(&connection).await, Some(MALFORMED), "cut after {cut} bytes");
            world.expect_malformed("cut").await;
        }
    });
}

#[test]
fn a_frame_that_never_ends_ends_the_connection() {
    run(async {
        let mut world = World::new().await;
        let frame = joined(&append(1, 4, 1000));
        for part in [3, HEADER_BYTES + 3, frame.len() - 1] {
            let (_endpoint, connection, mut lanes) = world.next_peer().await;
            lanes.append.0.write_all(&frame[..part]).await.expect("it is open");
            assert_eq!(closed_with(&connection).await, Some(STALLED), "{part} bytes and no more");
            world.expect_malformed("stalled").await;
        }
        world.still_works().await;
    });
}

#[test]
fn a_frame_that_is_no_hello_of_this_peer_is_refused() {
    run(async {
        let mut world = World::new().await;
        let other_version = |node| {
            let mut bytes = hello_bytes(&hello(node)).to_vec();
            bytes[4] = NEXT;
            bytes.into()
        };
        type MakeHello<'a> = &'a dyn Fn(NodeId) -> Bytes;
        let cases: [(&str, MakeHello, u64, &'static str); 6] = [
            ("garbage", &|_| Bytes::from_static(&[7; 100]), PROTOCOL, "refused_protocol"),
            ("a frame of another version", &other_version, PROTOCOL, "refused_protocol"),
            ("a message", &|_| joined(&heartbeat(1)), PROTOCOL, "refused_protocol"),
            (
                "another cluster",
                &|node| {
                    let mut hello = hello(node);
                    hello.cluster = "other".into();
                    hello_bytes(&hello)
                },
                IDENTITY,
                "refused_identity",
            ),
            ("another node", &|_| hello_bytes(&hello(NodeId(99))), IDENTITY, "refused_identity"),
            (
                "protocols from the future",
                &|node| {
                    let mut hello = hello(node);
                    (hello.protocol_min, hello.protocol_max) = (NEXT, NEXT + 6);
                    hello_bytes(&hello)
                },
                PROTOCOL,
                "refused_protocol",
            ),
        ];
        for (case, bytes, code, result) in cases {
            let (_endpoint, connection) = world.next_connection().await;
            let (before, peer) = (world.victim.counts.connections_of(result, Some(world.peer)), world.peer);
            assert_eq!(before, 0);
            let (mut send, _recv) = connection.open_bi().await.expect("a stream");
            send.write_chunk(bytes(peer)).await.expect("it is open");
            assert_eq!(closed_with(&connection).await, Some(code), "{case}");
            world.victim.counts.until(|counts| counts.connections_of(result, Some(peer)) == 1).await;
        }
        assert_eq!(world.victim.counts.connections("accepted"), 0, "no peer was admitted");
        world.still_works().await;
    });
}

#[test]
fn a_peer_that_sent_malformed_bytes_is_refused_for_a_while() {
    run(async {
        let mut world = World::new().await;
        let (endpoint, mut connection, mut lanes) = world.next_peer().await;
        // The pause doubles with each offence. On a busy machine the first ones may be over before
        // the next dial.
        let (mut offences, mut refusals) = (0, 0);
        let code = 'refused: loop {
            lanes.append.0.write_all(&[7; 100]).await.expect("it is open");
            assert_eq!(closed_with(&connection).await, Some(MALFORMED));
            offences += 1;
            lanes = loop {
                connection = connect(&endpoint, world.address).await.expect("TLS lets it in");
                if let Some(again) = try_introduce(&connection, world.peer).await {
                    break again;
                }
                refusals += 1;
                // A close before the handshake is confirmed has no code of the application (RFC
                // 9000, 10.2.3).
                if let Some(code) = closed_with(&connection).await {
                    break 'refused code;
                }
            };
            assert!(offences < 6, "listened to at once after {offences} offences");
        };
        assert_eq!(code, BACK_OFF);
        world.victim.counts.until(|counts| counts.connections("refused_back_off") == refusals).await;
        world.still_works().await;
    });
}

#[test]
fn a_peer_opens_no_more_streams_than_there_are_lanes() {
    run(async {
        let mut world = World::new().await;
        let (_endpoint, connection, mut lanes) = world.next_peer().await;
        let snapshots = connection.open_uni().await.expect("there is a snapshot lane");
        let mut third = Box::pin(connection.open_bi());
        let mut another = Box::pin(connection.open_uni());
        for round in 0..100 {
            assert!((&mut third).now_or_never().is_none() && (&mut another).now_or_never().is_none());
            lanes.control.0.write_all(&joined(&heartbeat(round))).await.expect("it is open");
            assert_eq!(world.victim.received().await, (world.peer, heartbeat(round)));
        }
        drop(snapshots);
    });
}

#[test]
fn the_snapshot_lane_is_held_to_the_same_rules() {
    run(async {
        let mut world = World::new().await;
        let hello = |node| hello_bytes(&hello(node));
        let (chunk, huge) = (joined(&piece(u64::MAX, 5000)), header(|bytes| bytes[19] = 255));
        type MakeBytes<'a> = &'a dyn Fn(NodeId) -> Vec<u8>;
        let cases: [(&str, MakeBytes, u64); 7] = [
            ("garbage", &|_| vec![7; 100], MALFORMED),
            ("a piece before the hello", &|_| chunk.to_vec(), MALFORMED),
            ("a hello of another node", &|_| hello(NodeId(99)).to_vec(), MALFORMED),
            ("two hellos", &|node| [hello(node), hello(node)].concat(), MALFORMED),
            ("a message of another lane", &|node| [hello(node), joined(&heartbeat(1))].concat(), MALFORMED),
            ("a length above its limit", &|node| [&hello(node), &huge[..]].concat(), MALFORMED),
            ("a piece that does not end", &|node| [&hello(node), &chunk[..4000]].concat(), STALLED),
        ];
        for (case, bytes, code) in cases {
            let (_endpoint, connection, _lanes) = world.next_peer().await;
            let mut lane = connection.open_uni().await.expect("there is a snapshot lane");
            lane.write_all(&bytes(world.peer)).await.expect("it is open");
            assert_eq!(closed_with(&connection).await, Some(code), "{case}");
            world.expect_malformed(case).await;
        }
        world.still_works().await;
    });
}

#[test]
fn an_offset_and_a_length_from_the_peer_are_carried_and_not_believed() {
    run(async {
        let mut world = World::new().await;
        let (_endpoint, connection, _lanes) = world.next_peer().await;
        let mut lane = connection.open_uni().await.expect("there is a snapshot lane");
        lane.write_chunk(hello_bytes(&hello(world.peer))).await.expect("it is open");
        for message in [piece(u64::MAX, 0), piece(u64::MAX - 1, 1), piece(0, 1 << 20)] {
            lane.write_chunk(joined(&message)).await.expect("it is open");
            assert_eq!(world.victim.received().await, (world.peer, message));
        }
    });
}

#[test]
fn connections_that_never_say_hello_are_closed_and_keep_no_peer_out_for_long() {
    run(async {
        let mut world = World::new().await;
        let issued = world.pki.issue(NodeId(50));
        let endpoint = support::stranger::client(&world.pki, Some(&issued), ALPN);
        let attempts = (0..150).map(|_| connect(&endpoint, world.address));
        let connections = futures_util::future::join_all(attempts).await;
        for connection in connections.into_iter().flatten() {
            closed_with(&connection).await;
        }
        let counts = world.victim.counts.clone();
        assert!(counts.connections("refused_address") > 0, "not all are looked at: {counts:?}");
        assert_eq!(counts.connections("refused_busy"), 0, "others have a place: {counts:?}");
        assert!(counts.connections("refused_protocol") > 0, "some are, and given up: {counts:?}");
        assert_eq!(counts.connections("accepted"), 0);
        world.still_works().await;
    });
}

#[test]
fn a_flood_stops_at_the_inbox_credit_while_nothing_is_handled() {
    run(async {
        let mut world = World::new().await;
        let (_endpoint, connection, mut lanes) = world.next_peer().await;
        let frame = joined(&append(1, 1, 1 << 20));
        let flood = async { while lanes.append.0.write_chunk(frame.clone()).await.is_ok() {} };
        // The victim delivers into a queue that is not emptied, so the flood must come to a
        // stop by itself.
        let full = (Inbox::CREDIT_BYTES / frame.len() - 1) * frame.len();
        tokio::select! {
            () = flood => panic!("the connection ended: {:?}", connection.close_reason()),
            () = world.victim.counts.until(|counts| counts.bytes_received() >= full as u64) => {}
        }
        let more = async { while lanes.append.0.write_chunk(frame.clone()).await.is_ok() {} };
        assert!(tokio::time::timeout(Duration::from_millis(500), more).await.is_err(), "it is held back, not cut off");
        let received = world.victim.counts.bytes_received();
        assert!(received <= (Inbox::CREDIT_BYTES + frame.len()) as u64, "{received} bytes were taken in");
        let handled = world.victim.pending();
        assert!(handled.iter().any(|event| matches!(event, Event::Delivered(_))));
        drop(handled);
        let (_, message) = world.victim.received().await;
        assert_eq!(message, append(1, 1, 1 << 20), "once handled, it goes on");
    });
}

#[test]
fn a_server_that_answers_with_garbage_is_not_hammered() {
    run(async {
        let mut world = World::new().await;
        let garbage = support::stranger::server(&world.pki.issue(NodeId(2)));
        let address = garbage.local_addr().expect("it is bound");
        tokio::task::spawn_local(async move {
            while let Some(incoming) = garbage.accept().await {
                let Ok(connection) = incoming.await else { continue };
                let Ok((mut send, _recv)) = connection.accept_bi().await else { continue };
                let _ = send.write_all(&[7; 100]).await;
                connection.closed().await;
            }
        });
        let began = Instant::now();
        let link = world.victim.links.link(NodeId(2), &address.to_string());
        world.victim.counts.until(|counts| counts.connections("refused_protocol") == 6).await;
        // At least half of 20, 40, 80, 160 and 320 ms lie between six attempts.
        assert!(began.elapsed() >= Duration::from_millis(310), "six attempts in {:?}", began.elapsed());
        assert!(world.victim.pending().is_empty(), "the link never came up");
        drop(link);
    });
}

#[test]
fn a_message_above_the_limits_is_dropped_by_its_sender() {
    run(async {
        let mut pki = Pki::new();
        let mut one = TestNode::start(&mut pki, NodeId(1)).await;
        let mut two = TestNode::start(&mut pki, NodeId(2)).await;
        let link = one.link(&mut two).await;
        let most = u32::try_from(Limits::default().body_bytes_max).expect("a length");
        link.send(proposal(1, most + 1));
        assert_eq!(one.counts.dropped("too_long"), 1);
        link.send(proposal(2, 1000));
        assert_eq!(two.received().await.1, proposal(2, 1000));
    });
}

/// Bytes after which the beginning of the next frame is unknown.
fn malformed() -> Vec<(&'static str, Bytes)> {
    let altered = |at: usize, value: u8| {
        let mut bytes = joined(&append(1, 4, 100)).to_vec();
        bytes[at] = value;
        Bytes::from(bytes)
    };
    let payload_at = joined(&append(1, 4, 100)).len() - 60;
    vec![
        ("garbage", Bytes::from_static(&[0x5a; 300])),
        ("zeros", Bytes::from_static(&[0; 300])),
        ("an HTTP request", Bytes::from_static(b"GET / HTTP/1.1\r\nhost: quorate\r\n\r\n")),
        ("a version from the future", altered(4, NEXT)),
        ("an unknown kind", altered(5, 77)),
        ("an unknown flag", altered(7, 0x80)),
        ("a group that does not exist", altered(8, 1)),
        ("a damaged checksum", altered(20, 0)),
        ("damaged metadata", altered(HEADER_BYTES, 0xff)),
        ("a damaged batch", altered(payload_at, 0)),
        ("a second hello", hello_bytes(&hello(NodeId(2)))),
        ("bytes behind the metadata", trailing()),
        ("a body that is no batch", bad_body(&append(1, 1, 10))),
        ("a body where none belongs", bad_body(&heartbeat(1))),
        ("commands without a checksum", bad_body(&proposal(1, 100))),
        ("a piece of a snapshot without a checksum", bad_body(&piece(0, 100))),
        ("a message of another lane", joined(&heartbeat(1))),
    ]
}

/// A heartbeat with one byte too many, otherwise in order.
fn trailing() -> Bytes {
    let frame = joined(&heartbeat(1));
    sealed(&frame[HEADER_BYTES..], 1, &[])
}

/// The metadata of `message` in front of a body of hundred sevens, its checksum in order but not
/// covering the body.
fn bad_body(message: &quorate_raft::Message) -> Bytes {
    let frame = Encoder::default().message(message).expect("a short one");
    sealed(&frame.head[HEADER_BYTES..], 0, &[7; 100])
}

fn sealed(metadata: &[u8], more: usize, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::from(&*header(|bytes| {
        bytes[12..16].copy_from_slice(&u32::to_le_bytes((metadata.len() + more) as u32));
        bytes[16..20].copy_from_slice(&u32::to_le_bytes(body.len() as u32));
    }));
    frame.put_slice(metadata);
    frame.put_bytes(0, more);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&frame[..20]), &frame[HEADER_BYTES..]);
    frame[20..24].copy_from_slice(&checksum.to_le_bytes());
    frame.put_slice(body);
    frame.freeze()
}

/// The header of a message, altered.
fn header(alter: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = joined(&heartbeat(1))[..HEADER_BYTES].to_vec();
    alter(&mut bytes);
    bytes
}

fn joined(message: &quorate_raft::Message) -> Bytes {
    let frame = Encoder::default().message(message).expect("a short one");
    [frame.head, frame.body].concat().into()
}

/// Node 1, and peers that come to it, each with a valid certificate and an id of its own.
struct World {
    pki: Pki,
    victim: TestNode,
    address: SocketAddr,
    peer: NodeId,
    malformed: u64,
}

impl World {
    async fn new() -> Self {
        let mut pki = Pki::new();
        let victim = TestNode::start(&mut pki, NodeId(1)).await;
        let address = victim.links.local_address().expect("it is bound");
        Self { pki, victim, address, peer: NodeId(100), malformed: 0 }
    }

    async fn next_connection(&mut self) -> (quinn::Endpoint, Connection) {
        self.peer = NodeId(self.peer.0 + 1);
        let endpoint = support::stranger::client(&self.pki, Some(&self.pki.issue(self.peer)), ALPN);
        let connection = connect(&endpoint, self.address).await.expect("TLS lets it in");
        (endpoint, connection)
    }

    async fn next_peer(&mut self) -> (quinn::Endpoint, Connection, Lanes) {
        let (endpoint, connection) = self.next_connection().await;
        let lanes = introduce(&connection, self.peer).await;
        (endpoint, connection, lanes)
    }

    /// One more malformed frame was counted, and nothing was delivered.
    async fn expect_malformed(&mut self, case: &str) {
        self.malformed += 1;
        let expected = self.malformed;
        self.victim.counts.until(|counts| counts.dropped("malformed") == expected).await;
        let delivered = |event: &Event| matches!(event, Event::Delivered(_));
        assert!(!self.victim.pending().iter().any(delivered), "{case}: nothing was delivered");
    }

    /// A peer in good order is served as ever.
    async fn still_works(&mut self) {
        let mut good = TestNode::start(&mut self.pki, NodeId(3)).await;
        let link = good.link(&mut self.victim).await;
        link.send(heartbeat(1));
        assert_eq!(self.victim.received().await, (NodeId(3), heartbeat(1)));
    }
}
