//! Floods: peers that take places, memory and computation, before and after they prove an identity.
//! Each attack comes from a thread and an address of its own, while two nodes exchange heartbeats;
//! it prints their delay and the memory that the process gained. The bounds are far from both.

mod support;

use bytes::Bytes;
use quinn::{
    Connection, Endpoint,
    udp::{Transmit, UdpSocketState},
};
use quorate_raft::NodeId;
use quorate_transport::{certificates::Authority, codec::Encoder, network::Inbox};
use quorate_transport_testing::conformance::{PATIENCE, TestNode, append, heartbeat};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use support::Pki;
use support::stranger::{ALPN, Lanes, client, closed_with, connect, hello, hello_bytes, introduce};

/// The address of attackers; the nodes are at 127.0.0.1.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Where a node is dialled that is not there.
const MEMBER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// The median of heartbeats on their way, at most: half of the election timeout.
const MEDIAN_MAX: Duration = Duration::from_millis(150);
const MEMORY_MAX: usize = 96 << 20;
/// Longer than a handshake may take at these nodes, 3 s.
const HANDSHAKE: Duration = Duration::from_secs(4);
const REPLACED: u64 = 1;

/// Runs one test at a time: each measures the memory of the process.
fn run(test: impl Future<Output = ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    support::run(test);
}

/// Quinn alone permits three times the bytes received, and a part of one more datagram.
#[test]
fn an_answer_to_an_address_that_is_not_proved_is_shorter_than_the_packet() {
    run(async {
        let mut pki = Pki::new();
        let victim = TestNode::start(&mut pki, NodeId(1)).await;
        // The address of a member may be forged as any other.
        let _member = victim.links.link(NodeId(9), &SocketAddr::from((MEMBER, 9)).to_string());
        let to = victim.links.local_address().expect("it is bound");
        let initials = initials(&pki, 65).await;
        let mut unknown_version = initials[0].clone();
        unknown_version[1..5].copy_from_slice(&[0x1a; 4]);
        let cases = [
            ("one Initial packet", initials[..1].to_vec()),
            ("64 Initial packets", initials[1..].to_vec()),
            ("a version that does not exist", vec![unknown_version; 50]),
            ("Initial packets that are too short", initials.iter().map(|one| one[..300].to_vec()).collect()),
            ("packets of no connection", (0..50).map(|of| [&[0x40 | of][..], &[of; 200][..]].concat()).collect()),
        ];
        for from in [ELSEWHERE, MEMBER] {
            let attacks = cases.iter().map(|(case, datagrams)| async move {
                let socket = tokio::net::UdpSocket::bind((from, 0)).await.expect("a port");
                let (mut sent, mut received) = (0, 0);
                for datagram in datagrams {
                    sent += socket.send_to(datagram, to).await.expect("it is sent");
                }
                let (end, mut buffer) = (tokio::time::Instant::now() + HANDSHAKE, vec![0; 64 << 10]);
                while let Ok(length) = tokio::time::timeout_at(end, socket.recv(&mut buffer)).await {
                    received += length.expect("a datagram");
                }
                println!("{case}, from {from}: {sent} bytes sent, {received} received");
                assert!(received < sent, "{case}, from {from}: {received} bytes answer {sent}");
                assert!(received > 0 || datagrams[0].len() < 1200, "{case}, from {from}: the node answers at all");
            });
            futures_util::future::join_all(attacks).await;
        }
    });
}

#[test]
fn forged_initial_packets_are_dropped() {
    run(async {
        let mut world = World::new().await;
        let initials = initials(&world.pki, 50).await;
        let to = world.to;
        // The address of a member may be forged as any other.
        let _member = world.victim.links.link(NodeId(9), &SocketAddr::from((ELSEWHERE, 9)).to_string());
        let attack = std::thread::spawn(move || {
            let socket = UdpSocket::bind((ELSEWHERE, 0)).expect("a port");
            for round in 0..400_u32 {
                for initial in &initials {
                    let mut forged = initial.clone();
                    // Another connection id, and a payload that no key fits.
                    forged[6..10].copy_from_slice(&round.to_le_bytes());
                    let _ = socket.send_to(&forged, to);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        world.beat("20,000 forged Initial packets", attack).await;
        assert_eq!(world.victim.counts.connections("handshake_failed"), 0, "no handshake was begun");
        world.admits_a_member().await;
    });
}

/// Quinn ignores those beyond the first 64, and tells nothing of them.
#[test]
fn attempts_that_arrive_at_once_beyond_the_bound_of_quinn_are_counted_as_one_refusal() {
    run(async {
        let mut world = World::new().await;
        let initials = initials(&world.pki, 80).await;
        let socket = UdpSocket::bind((ELSEWHERE, 0)).expect("a port");
        let before = world.victim.counts.connections("refused_burst");
        // The node's thread is this one. It takes what the kernel coalesced in one turn.
        let state = UdpSocketState::new((&socket).into()).expect("its options can be set");
        for initials in initials.chunks(initials.len() / 2) {
            let (segment_size, contents) = (initials.first().map(Vec::len), initials.concat());
            assert!(initials.iter().all(|initial| Some(initial.len()) == segment_size), "segments are equally long");
            let to = Transmit { destination: world.to, ecn: None, contents: &contents, segment_size, src_ip: None };
            state.send((&socket).into(), &to).expect("it is sent");
        }
        world.victim.counts.until(|counts| counts.connections("refused_burst") > before).await;
        world.admits_a_member().await;
    });
}

#[test]
fn a_member_that_connects_from_another_address_than_it_is_dialled_at_has_a_part_of_the_reserve() {
    run(async {
        let mut world = World::new().await;
        let (to, pki) = (world.to, world.stranger());
        // Both proved their id; the node has a link to one of them, at an address where it is not.
        let _member = world.victim.links.link(NodeId(9), &SocketAddr::from((MEMBER, 9)).to_string());
        let [member, other] = [(9, ELSEWHERE), (10, Ipv4Addr::new(127, 0, 0, 4))];
        let endpoint = |(id, from): (u64, Ipv4Addr)| {
            let endpoint = client(&pki, Some(&world.pki.issue(NodeId(id))), ALPN);
            endpoint.rebind(UdpSocket::bind((from, 0)).expect("a port")).expect("a socket");
            endpoint
        };
        let endpoints = [member, other].map(endpoint);
        for (endpoint, (id, _)) in endpoints.iter().zip([member, other]) {
            let connection = connect(endpoint, to).await.expect("TLS lets it in");
            let _lanes = introduce(&connection, NodeId(id)).await;
            connection.close(0_u32.into(), b"seen");
        }
        let busy = world.victim.counts.connections("refused_busy");
        let strangers = world.stranger();
        let attackers = (10..14).map(|last| {
            let strangers = &strangers;
            async move {
                let relay = halfway_from(Ipv4Addr::new(127, 0, 0, last), to).await;
                let endpoint = client(strangers, None, ALPN);
                let attempts = (0..20).map(|_| connect(&endpoint, relay));
                futures_util::future::join_all(attempts).await;
            }
        });
        let attack = futures_util::future::join_all(attackers);
        let returns = async {
            world.victim.counts.until(|counts| counts.connections("refused_busy") > busy).await;
            assert!(connect(&endpoints[1], to).await.is_err(), "the other has no part of it");
            let connection = connect(&endpoints[0], to).await.expect("the member has");
            let _lanes = introduce(&connection, NodeId(9)).await;
        };
        tokio::select! {
            _ = attack => panic!("the places were given back too early"),
            () = returns => {}
        }
        world.admits_a_member().await;
    });
}

#[test]
fn handshakes_that_stop_halfway_take_the_places_of_their_address_alone() {
    run(async {
        let mut world = World::new().await;
        let to = world.to;
        let pki = world.stranger();
        let attack = attacker(async move {
            let relay = halfway(to).await;
            let endpoint = client(&pki, None, ALPN);
            let attempts = (0..150).map(|_| connect(&endpoint, relay));
            let _ = tokio::time::timeout(HANDSHAKE, futures_util::future::join_all(attempts)).await;
        });
        world.beat("150 handshakes that stop halfway", attack).await;
        assert!(world.victim.counts.connections("refused_address") > 0, "{:?}", world.victim.counts);
        assert_eq!(world.victim.counts.connections("refused_busy"), 0, "others have a place");
        world.admits_a_member().await;
    });
}

#[test]
fn hellos_that_come_byte_by_byte_are_cut_off() {
    run(async {
        let mut world = World::new().await;
        let to = world.to;
        let endpoints: Vec<_> = (100..112).map(NodeId).map(|id| (id, world.stranger(), world.pki.issue(id))).collect();
        let attack = attacker(async move {
            let peers = endpoints.into_iter().map(|(id, pki, issued)| async move {
                let endpoint = elsewhere(client(&pki, Some(&issued), ALPN));
                let connection = connect(&endpoint, to).await.expect("TLS lets it in");
                let (mut send, _recv) = connection.open_bi().await.expect("a stream");
                for byte in hello_bytes(&hello(id)) {
                    if send.write_all(&[byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                assert!(connection.close_reason().is_some(), "a whole hello took longer than a handshake may");
            });
            futures_util::future::join_all(peers).await;
        });
        world.beat("12 peers that say their hellos slowly", attack).await;
        let counts = &world.victim.counts;
        assert_eq!((counts.connections("refused_protocol"), counts.connections("accepted")), (12, 1), "{counts:?}");
        world.admits_a_member().await;
    });
}

#[test]
fn one_node_keeps_few_connections_that_await_its_hellos() {
    run(async {
        let mut world = World::new().await;
        let (to, pki, issued) = (world.to, world.stranger(), world.pki.issue(NodeId(100)));
        let attack = attacker(async move {
            let endpoint = elsewhere(client(&pki, Some(&issued), ALPN));
            let mut connections = Vec::new();
            for _ in 0..24 {
                connections.push(connect(&endpoint, to).await.expect("TLS lets it in"));
            }
            // The newest four are left to the time limit.
            for connection in &connections[..20] {
                assert_eq!(closed_with(connection).await, Some(REPLACED));
            }
        });
        world.beat("24 silent connections of one node", attack).await;
        assert_eq!(world.victim.counts.connections("refused_address"), 0, "the places are given back");
        world.admits_a_member().await;
    });
}

#[test]
fn a_peer_that_connects_again_and_again_keeps_one_connection() {
    run(async {
        let mut world = World::new().await;
        let (to, pki, issued) = (world.to, world.stranger(), world.pki.issue(NodeId(100)));
        let attack = attacker(async move {
            let endpoint = elsewhere(client(&pki, Some(&issued), ALPN));
            let mut older: Option<(Connection, Lanes)> = None;
            for _ in 0..100 {
                let connection = connect(&endpoint, to).await.expect("TLS lets it in");
                let lanes = introduce(&connection, NodeId(100)).await;
                if let Some((older, _lanes)) = older.replace((connection, lanes)) {
                    assert_eq!(closed_with(&older).await, Some(REPLACED));
                }
            }
        });
        world.beat("100 connections of one node", attack).await;
        world.admits_a_member().await;
    });
}

#[test]
fn streams_beyond_the_lanes_are_never_opened() {
    run(async {
        let mut world = World::new().await;
        let (to, pki, issued) = (world.to, world.stranger(), world.pki.issue(NodeId(100)));
        let attack = attacker(async move {
            let endpoint = elsewhere(client(&pki, Some(&issued), ALPN));
            let connection = connect(&endpoint, to).await.expect("TLS lets it in");
            let _lanes = introduce(&connection, NodeId(100)).await;
            let _snapshots = connection.open_uni().await.expect("there is a snapshot lane");
            let two_way = futures_util::future::select_all((0..1000).map(|_| Box::pin(connection.open_bi())));
            let one_way = futures_util::future::select_all((0..1000).map(|_| Box::pin(connection.open_uni())));
            let opened = async {
                tokio::select! { _ = two_way => (), _ = one_way => () }
            };
            assert!(tokio::time::timeout(Duration::from_secs(2), opened).await.is_err());
        });
        world.beat("2,000 streams of one node", attack).await;
    });
}

/// The victim handles nothing here, so messages that it took in stay.
#[test]
fn messages_of_replaced_connections_do_not_pile_up_beyond_the_credit() {
    run(async {
        let mut pki = Pki::patient();
        let victim = TestNode::start(&mut pki, NodeId(1)).await;
        let to = victim.links.local_address().expect("it is bound");
        let issued = pki.issue(NodeId(100));
        let endpoint = elsewhere(client(&pki, Some(&issued), ALPN));
        let mebibyte = append(1, 1, 1 << 20);
        let frame = Encoder::default().message(&mebibyte).expect("a short one");
        let frame: Bytes = [frame.head, frame.body].concat().into();
        let full = (Inbox::CREDIT_BYTES / frame.len() - 1) * frame.len();
        let mut before = None;
        for _ in 0..40 {
            let connection = connect(&endpoint, to).await.expect("TLS lets it in");
            let mut lanes = introduce(&connection, NodeId(100)).await;
            let flood = async { while lanes.append.0.write_chunk(frame.clone()).await.is_ok() {} };
            if before.is_none() {
                tokio::select! {
                    () = flood => panic!("the connection ended"),
                    () = victim.counts.until(|counts| counts.bytes_received() >= full as u64) => {}
                }
                before = Some(resident());
            } else {
                let _ = tokio::time::timeout(Duration::from_millis(100), flood).await;
            }
        }
        let gained = resident().saturating_sub(before.expect("it was filled"));
        println!("40 connections with appends beyond the credit: {} KiB gained", gained >> 10);
        assert!(gained <= MEMORY_MAX, "{gained} bytes are kept beyond the credit");
        // One waiting message for each connection that was replaced.
        victim.counts.until(|counts| counts.dropped("connection_lost") >= 30).await;
    });
}

/// Two nodes in good order, the first of which is attacked.
struct World {
    pki: Pki,
    victim: TestNode,
    other: TestNode,
    to: SocketAddr,
}

impl World {
    async fn new() -> Self {
        let mut pki = Pki::new();
        let victim = TestNode::start(&mut pki, NodeId(1)).await;
        let other = TestNode::start(&mut pki, NodeId(2)).await;
        let to = victim.links.local_address().expect("it is bound");
        Self { pki, victim, other, to }
    }

    /// What an attacker's client needs of the certificates: it trusts the same authority.
    fn stranger(&self) -> Pki {
        let authority = Authority::load(self.pki.dir.path()).expect("an authority");
        Pki { authority, ..Pki::new() }
    }

    /// Heartbeats until the attack ends, each sent when the one before arrived.
    async fn beat(&mut self, attack: &str, attacker: JoinHandle<()>) {
        let link = self.other.link(&mut self.victim).await;
        let (before, mut delays) = (resident(), Vec::new());
        while !attacker.is_finished() || delays.len() < 20 {
            let (round, sent) = (delays.len() as u64, Instant::now());
            loop {
                // A link that a busy machine held up may be replaced, and a message lost with it.
                link.send(heartbeat(round));
                let received = tokio::time::timeout(Duration::from_secs(1), self.victim.received()).await;
                if received.is_ok_and(|received| received == (NodeId(2), heartbeat(round))) {
                    break;
                }
                assert!(sent.elapsed() < PATIENCE, "{attack}: no heartbeat arrives");
            }
            delays.push(sent.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let gained = resident().saturating_sub(before);
        attacker.join().expect("the attack went as planned");
        delays.sort();
        let (median, longest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
        println!(
            "{attack}: {} heartbeats, median {median:?}, longest {longest:?}; {} KiB gained",
            delays.len(),
            gained >> 10
        );
        assert!(median <= MEDIAN_MAX, "{attack}: heartbeats take {median:?}");
        assert!(gained <= MEMORY_MAX, "{attack}: {gained} bytes gained");
    }

    async fn admits_a_member(&mut self) {
        let mut member = TestNode::start(&mut self.pki, NodeId(3)).await;
        let link = member.link(&mut self.victim).await;
        link.send(heartbeat(1));
        assert_eq!(self.victim.received().await, (NodeId(3), heartbeat(1)));
    }
}

/// Runs an attack on a thread of its own.
fn attacker(attack: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(attack);
    })
}

/// The memory of the process, attackers included: the second number of statm, in pages.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
}

fn elsewhere(endpoint: Endpoint) -> Endpoint {
    endpoint.rebind(UdpSocket::bind((ELSEWHERE, 0)).expect("a port")).expect("a socket");
    endpoint
}

/// The first datagrams of as many handshakes, made by a real client and sent nowhere.
async fn initials(pki: &Pki, count: usize) -> Vec<Vec<u8>> {
    let sink = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let endpoint = client(pki, None, ALPN);
    let address = sink.local_addr().expect("it is bound");
    let (mut ids, mut initials, mut buffer) = (BTreeSet::new(), Vec::new(), vec![0; 64 << 10]);
    while initials.len() < count {
        let attempt = endpoint.connect(address, "n1.testing.quorate.internal").expect("a valid name");
        // A repeated one is of a connection whose first was seen.
        let length = sink.recv(&mut buffer).await.expect("a datagram");
        let id_end = 6 + usize::from(buffer[5]);
        if buffer[0] & 0xf0 == 0xc0 && ids.insert(buffer[6..id_end].to_vec()) {
            initials.push(buffer[..length].to_vec());
        }
        drop(attempt);
    }
    initials
}

/// A way to `to` on which clients get retries, prove their address by them, and hear no more.
async fn halfway(to: SocketAddr) -> SocketAddr {
    halfway_from(ELSEWHERE, to).await
}

async fn halfway_from(address: Ipv4Addr, to: SocketAddr) -> SocketAddr {
    let front = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let back = tokio::net::UdpSocket::bind((address, 0)).await.expect("a port");
    let address = front.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let (mut there, mut here) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((length, from)) = front.recv_from(&mut there) => {
                    client = Some(from);
                    let _ = back.send_to(&there[..length], to).await;
                }
                Ok(length) = back.recv(&mut here) => {
                    // A retry has the long header's type 3 (RFC 9000, 17.2.5).
                    if let Some(client) = client.filter(|_| here[0] & 0xf0 == 0xf0) {
                        let _ = front.send_to(&here[..length], client).await;
                    }
                }
                else => {}
            }
        }
    });
    address
}
