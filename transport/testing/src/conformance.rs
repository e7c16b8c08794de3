//! The conformance suite of networks: every [`Network`] must pass it in its tests.
//!
//! [`run`] starts nodes on the networks that a [`Harness`] makes, sends between them, and panics
//! with a sentence where a duty of [`quorate_transport::network`] is not met. It needs a tokio
//! runtime with time, and a `LocalSet`. It waits for events, at most for [`PATIENCE`]; where
//! nothing must happen, it waits for a second and a half.
//!
//! Not checked: admission of peers, and damaged bytes. Each network has its own tests of these.

mod links;

use bytes::Bytes;
use quorate_raft::{
    Append, BatchBuilder, Body, ClusterId, EntryId, ForwardedCommand, Heartbeat, HeartbeatReply, Index, Kind,
    Membership, Message, NodeId, Promise, Propose, Snapshot, SnapshotBase, SnapshotChunk, Term,
};
use quorate_transport::network::{
    ConnectionResult, Delivered, Direction, DropReason, Event, Inbox, Introduction, Lane, Link, Links, Network,
    NetworkContext, NetworkObserver, ReloadResult,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

/// The longest wait for an event. The suite fails after it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Makes the networks under test.
pub trait Harness {
    /// A network for `node`. A node that is started again gets the `address` at which it listened
    /// before: its peers dial that.
    fn network(&mut self, node: NodeId, address: Option<SocketAddr>) -> Box<dyn Network>;

    /// The name of the cluster that all of them belong to.
    fn cluster(&self) -> String;
}

/// Runs every check.
///
/// # Panics
/// If a network does not fulfil a duty.
pub async fn run(harness: &mut dyn Harness) {
    messages_arrive_both_ways_with_their_sender(harness).await;
    each_lane_keeps_its_order(harness).await;
    a_large_batch_arrives_unharmed(harness).await;
    a_full_queue_drops_and_never_waits(harness).await;
    a_lane_that_is_not_read_holds_no_other_back(harness).await;
    links_go_down_and_up_with_their_peer(harness).await;
    a_message_to_an_absent_peer_is_dropped(harness).await;
    a_peer_is_introduced_before_it_can_be_talked_to(harness).await;
    a_node_that_learns_a_fact_states_it(harness).await;
    nodes_of_two_clusters_with_one_name_never_talk(harness).await;
    links::each_side_of_a_connection_is_introduced_to_the_other(harness).await;
    links::a_node_that_is_not_dialled_is_answered_on_the_way_that_it_opened(harness).await;
    links::a_link_that_was_dropped_dials_no_more(harness).await;
    links::a_link_leads_to_the_node_that_it_names(harness).await;
    links::bytes_are_counted_and_messages_hold_credit(harness).await;
    links::a_closed_network_delivers_nothing(harness).await;
}

async fn messages_arrive_both_ways_with_their_sender(harness: &mut dyn Harness) {
    let mut nodes = [TestNode::start(harness, NodeId(1)).await, TestNode::start(harness, NodeId(2)).await];
    let mut third = TestNode::start(harness, NodeId(3)).await;
    let [one, two] = &mut nodes;
    let (to_two, to_one) = (one.link(two).await, two.link(one).await);
    let three_to_one = third.link(one).await;
    for round in 0..100 {
        to_two.send(heartbeat(round));
        assert_eq!(two.received().await, (NodeId(1), heartbeat(round)), "a request arrives with its sender");
        to_one.send(heartbeat_reply(round));
        assert_eq!(one.received().await, (NodeId(2), heartbeat_reply(round)), "a reply arrives with its sender");
    }
    three_to_one.send(heartbeat(7));
    assert_eq!(one.received().await, (NodeId(3), heartbeat(7)), "a third node is told apart");
    close(nodes.into_iter().chain([third])).await;
}

async fn each_lane_keeps_its_order(harness: &mut dyn Harness) {
    const MESSAGES: u64 = 3000;
    let (mut one, mut two) = (TestNode::start(harness, NodeId(1)).await, TestNode::start(harness, NodeId(2)).await);
    let link = one.link(&mut two).await;
    let (mut control, mut append, mut snapshot) = (0, 0, 0);
    // Few enough at a time that no queue's bound is met.
    for chunk in 0..MESSAGES / 100 {
        let end = (chunk + 1) * 100;
        for round in chunk * 100..end {
            link.send(heartbeat(round));
            link.send(proposal(round, 300));
            link.send(piece(round, 300));
        }
        while control < end || append < end || snapshot < end {
            match two.received().await.1.body {
                Body::Heartbeat(heartbeat) => {
                    assert_eq!(heartbeat.round, control, "the control lane keeps its order and loses nothing");
                    control += 1;
                }
                Body::Propose(propose) => {
                    assert_eq!(
                        propose.commands[0].request, append,
                        "the append lane keeps its order and loses nothing"
                    );
                    append += 1;
                }
                Body::SnapshotChunk(chunk) => {
                    assert_eq!(chunk.offset, snapshot, "the snapshot lane keeps its order and loses nothing");
                    snapshot += 1;
                }
                other => panic!("{other:?} was never sent"),
            }
        }
    }
    close([one, two]).await;
}

async fn a_large_batch_arrives_unharmed(harness: &mut dyn Harness) {
    let (mut one, mut two) = (TestNode::start(harness, NodeId(1)).await, TestNode::start(harness, NodeId(2)).await);
    let link = one.link(&mut two).await;
    for (first, entries, bytes) in [(1, 64, 64 << 10), (65, 1, 4 << 20), (66, 4096, 10)] {
        let message = append(first, entries, bytes);
        link.send(message.clone());
        let (_, received) = two.received().await;
        assert!(received == message, "a batch of {entries} entries of {bytes} bytes arrives as it was sent");
    }
    close([one, two]).await;
}

async fn a_full_queue_drops_and_never_waits(harness: &mut dyn Harness) {
    let (mut one, mut two) = (TestNode::start(harness, NodeId(1)).await, TestNode::start(harness, NodeId(2)).await);
    let link = one.link(&mut two).await;
    let message = append(1, 1, 1 << 20);
    // Nothing else runs meanwhile, so nothing can drain: what is not dropped is kept.
    for _ in 0..500 {
        link.send(message.clone());
    }
    let dropped = one.counts.dropped("queue_full");
    assert!((100..500).contains(&dropped), "of 500 MiB at once, some is kept and most is dropped: {dropped} of 500");
    for _ in dropped..500 {
        two.received().await;
    }
    link.send(heartbeat(1));
    assert_eq!(two.received().await.1, heartbeat(1), "the link works on after its queue was full");
    close([one, two]).await;
}

async fn a_lane_that_is_not_read_holds_no_other_back(harness: &mut dyn Harness) {
    let (mut one, mut two) = (TestNode::start(harness, NodeId(1)).await, TestNode::start(harness, NodeId(2)).await);
    let link = one.link(&mut two).await;
    // Messages that arrive are kept unhandled, with their credit, until a lane is full
    // at both ends.
    let mut unhandled = Vec::new();
    let floods = [(piece(0, 1 << 20), Inbox::SNAPSHOT_CREDIT_BYTES), (append(1, 1, 1 << 20), Inbox::CREDIT_BYTES)];
    for (message, credit_bytes) in floods {
        let before = one.counts.dropped("queue_full");
        // As many as the inbox has credit for, and then more than there are queues for.
        for _ in 0..credit_bytes / (message.bulk().len() + 100) {
            link.send(message.clone());
            unhandled.push(two.delivered().await);
        }
        for _ in 0..200 {
            link.send(message.clone());
        }
        assert!(one.counts.dropped("queue_full") > before, "a lane that is not read is full in the end");
        for round in 0..100 {
            link.send(heartbeat(round));
            let delivered = two.delivered().await;
            assert_eq!(delivered.message, heartbeat(round), "a heartbeat passes what waits on another lane");
        }
        if Lane::of(&message) == Lane::Snapshot {
            link.send(proposal(1, 300));
            assert_eq!(two.delivered().await.message, proposal(1, 300), "an append passes pieces that wait");
        }
    }
    let waiting = unhandled.len();
    drop(unhandled);
    for _ in 0..waiting / 2 {
        two.received().await;
    }
    close([one, two]).await;
}

async fn links_go_down_and_up_with_their_peer(harness: &mut dyn Harness) {
    let mut one = TestNode::start(harness, NodeId(1)).await;
    let mut two = TestNode::start(harness, NodeId(2)).await;
    let link = one.link(&mut two).await;
    for restart in 0..3 {
        let address = two.links.local_address();
        two.close().await;
        one.until_down(NodeId(2)).await;
        link.send(heartbeat(restart));
        assert_eq!(one.counts.dropped("unconnected"), restart + 1, "without a peer, messages are dropped");
        two = TestNode::start_at(harness, NodeId(2), address).await;
        one.until_up(NodeId(2)).await;
        link.send(heartbeat(restart));
        assert_eq!(two.received().await, (NodeId(1), heartbeat(restart)), "a restarted peer is found again");
        let back = two.link(&mut one).await;
        back.send(heartbeat_reply(restart));
        assert_eq!(one.received().await, (NodeId(2), heartbeat_reply(restart)), "and answers");
    }
    close([one, two]).await;
}

async fn a_message_to_an_absent_peer_is_dropped(harness: &mut dyn Harness) {
    let one = TestNode::start(harness, NodeId(1)).await;
    // Port 9 is "discard"; no node of this cluster listens there.
    let link = one.links.link(NodeId(2), "127.0.0.1:9");
    link.send(heartbeat(1));
    assert_eq!(one.counts.dropped("unconnected"), 1, "a message to an absent peer is dropped and counted");
    drop(link);
    one.close().await;
}

async fn a_peer_is_introduced_before_it_can_be_talked_to(harness: &mut dyn Harness) {
    let mut nodes = [TestNode::start(harness, NodeId(1)).await, TestNode::start(harness, NodeId(2)).await];
    let addresses = nodes.each_ref().map(|node| node.links.local_address());
    let addresses = addresses.map(|address| address.map(|address| address.to_string()).unwrap_or_default());
    let _links = [nodes[0].links.link(NodeId(2), &addresses[1]), nodes[1].links.link(NodeId(1), &addresses[0])];
    let [one, two] = nodes.each_ref().map(|node| (node.id, node.introduction.clone()));
    for (node, other) in nodes.iter_mut().zip([two, one]) {
        loop {
            match node.event().await {
                Event::Introduced { peer, introduction } => {
                    let (id, stated) = &other;
                    break assert_eq!((peer, &introduction), (*id, stated), "a peer is introduced as what it is");
                }
                Event::LinkUp { .. } => panic!("a peer is introduced before it can be talked to"),
                _ => {}
            }
        }
    }
    close(nodes).await;
}

async fn a_node_that_learns_a_fact_states_it(harness: &mut dyn Harness) {
    let mut one = TestNode::start(harness, NodeId(1)).await;
    let two = TestNode::start(harness, NodeId(2)).await;
    let address = two.links.local_address();
    let learned = Introduction { machine_version: 77, ..two.introduction.clone() };
    two.links.introduce(learned.clone());
    let dialled = address.map(|address| address.to_string()).unwrap_or_default();
    let _link = one.links.link(NodeId(2), &dialled);
    assert_eq!(one.introduced().await, (NodeId(2), learned.clone()), "the newer facts are stated");
    one.until_up(NodeId(2)).await;
    let learned = Introduction { cluster_id: Some(ClusterId(7)), ..learned };
    two.links.introduce(learned.clone());
    // The former ones may be stated twice.
    while one.introduced().await != (NodeId(2), learned.clone()) {}
    close([one, two]).await;
}

async fn nodes_of_two_clusters_with_one_name_never_talk(harness: &mut dyn Harness) {
    let mut nodes = [TestNode::start(harness, NodeId(1)).await, TestNode::start(harness, NodeId(2)).await];
    let [one, two] = &mut nodes;
    let link = one.link(two).await;
    let id = |id| Introduction { cluster_id: Some(ClusterId(id)), ..Introduction::default() };
    one.links.introduce(id(1));
    two.links.introduce(id(1));
    link.send(heartbeat(1));
    assert_eq!(two.received().await, (NodeId(1), heartbeat(1)), "nodes of one cluster talk on");
    two.links.introduce(id(2));
    one.until_down(NodeId(2)).await;
    let again = two.links.link(NodeId(1), &one.links.local_address().map(|at| at.to_string()).unwrap_or_default());
    for _ in 0..3 {
        link.send(heartbeat(2));
        again.send(heartbeat(3));
    }
    let third = TestNode::start(harness, NodeId(3)).await;
    let others = nodes.each_mut().map(TestNode::pending).into_iter().flatten();
    let is_talk = |event: &Event| matches!(event, Event::LinkUp { .. } | Event::Delivered(_));
    assert_eq!(others.filter(is_talk).count(), 0, "nodes of two clusters don't talk");
    close(nodes.into_iter().chain([third])).await;
}

/// A node that consists of its end of a network alone.
pub struct TestNode {
    /// Its id, also stated as the machine version in its introduction.
    pub id: NodeId,
    /// Its running network: the test sends through it.
    pub links: Box<dyn Links>,
    /// The facts with which it was started.
    pub introduction: Introduction,
    /// The counts of its network's reports.
    pub counts: Arc<Counts>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl TestNode {
    /// Starts a node at a new address.
    ///
    /// # Panics
    /// If its network can't be started.
    pub async fn start(harness: &mut dyn Harness, id: NodeId) -> Self {
        Self::start_at(harness, id, None).await
    }

    /// Starts a node at `address`, where it was before.
    ///
    /// # Panics
    /// If its network can't be started.
    pub async fn start_at(harness: &mut dyn Harness, id: NodeId, address: Option<SocketAddr>) -> Self {
        let (network, cluster) = (harness.network(id, address), harness.cluster());
        Self::on(network, &cluster, id).await
    }

    /// Starts a node on the given network.
    ///
    /// # Panics
    /// If the network can't be started.
    pub async fn on(network: Box<dyn Network>, cluster: &str, id: NodeId) -> Self {
        let counts = Arc::new(Counts::default());
        let (sender, events) = mpsc::unbounded_channel();
        let inbox = Inbox::new(move |event| {
            let _ = sender.send(event);
        });
        let (machine_version, incarnation) = (id.0 as u32, rand::random());
        let introduction = Introduction { machine_version, incarnation, ..Introduction::default() };
        let context = NetworkContext {
            cluster: cluster.to_owned(),
            node: id,
            introduction: introduction.clone(),
            election_timeout: Duration::from_millis(300),
            inbox,
            observer: counts.clone(),
        };
        let links = network.start(context).await.unwrap_or_else(|error| panic!("node {id} can't start: {error}"));
        Self { id, links, introduction, counts, events }
    }

    /// A link to a peer; waits until it is up.
    pub async fn link(&mut self, peer: &mut Self) -> Rc<dyn Link> {
        let link = self.links.link(peer.id, &peer.address());
        self.until_up(peer.id).await;
        link
    }

    /// Where it can be dialled; empty on a network without addresses.
    #[must_use]
    pub fn address(&self) -> String {
        self.links.local_address().map(|address| address.to_string()).unwrap_or_default()
    }

    /// The next message and its sender. Events of links that come first are skipped.
    pub async fn received(&mut self) -> (NodeId, Message) {
        let Delivered { from, message, .. } = self.delivered().await;
        (from, message)
    }

    /// The same with the credit that it holds.
    pub async fn delivered(&mut self) -> Delivered {
        loop {
            if let Event::Delivered(delivered) = self.event().await {
                return delivered;
            }
        }
    }

    /// The next facts that a peer states about itself. Other events that come first are lost.
    pub async fn introduced(&mut self) -> (NodeId, Introduction) {
        loop {
            if let Event::Introduced { peer, introduction } = self.event().await {
                return (peer, introduction);
            }
        }
    }

    /// Waits until the link to `peer` comes up. Messages that come first are lost.
    pub async fn until_up(&mut self, peer: NodeId) {
        while !matches!(self.event().await, Event::LinkUp { peer: up } if up == peer) {}
    }

    /// Waits until the link to `peer` goes down. Messages that come first are lost.
    pub async fn until_down(&mut self, peer: NodeId) {
        while !matches!(self.event().await, Event::LinkDown { peer: down } if down == peer) {}
    }

    /// The next event.
    ///
    /// # Panics
    /// If none comes in time.
    pub async fn event(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event.ok().flatten().unwrap_or_else(|| panic!("node {} waited for an event, and none came", self.id))
    }

    /// The events that wait to be received.
    pub fn pending(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// Closes the network.
    ///
    /// # Panics
    /// If that takes more than two seconds.
    pub async fn close(self) {
        let closing = tokio::time::timeout(Duration::from_secs(2), self.links.close());
        assert!(closing.await.is_ok(), "node {} closes within a second", self.id);
    }
}

async fn close(nodes: impl IntoIterator<Item = TestNode>) {
    for node in nodes {
        node.close().await;
    }
}

/// An observer that counts the network's reports and wakes the tests that wait for a count.
#[derive(Debug, Default)]
pub struct Counts {
    counts: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    peers: Mutex<BTreeMap<(&'static str, Option<NodeId>), u64>>,
    changed: Notify,
}

impl Counts {
    /// How many messages were dropped for `reason`.
    pub fn dropped(&self, reason: &'static str) -> u64 {
        self.get("dropped", reason)
    }

    /// How many connection attempts ended with `result`.
    pub fn connections(&self, result: &'static str) -> u64 {
        self.get("connection", result)
    }

    /// How many connection attempts with that peer ended with `result`.
    pub fn connections_of(&self, result: &'static str, peer: Option<NodeId>) -> u64 {
        *self.peers.lock().unwrap_or_else(PoisonError::into_inner).get(&(result, peer)).unwrap_or(&0)
    }

    /// How many bytes of frames were received.
    pub fn bytes_received(&self) -> u64 {
        self.get("bytes", "received")
    }

    /// How many bytes of frames went that way over a lane.
    pub fn bytes(&self, direction: Direction, lane: Lane) -> u64 {
        self.get("bytes of a lane", label_of(direction, lane))
    }

    /// How many round-trip times were reported.
    pub fn round_trips(&self) -> u64 {
        self.get("round_trip", "")
    }

    /// How many writes of entries were reported.
    pub fn wrote_entries(&self) -> u64 {
        self.get("wrote_entries", "")
    }

    /// How many turns of actors and tasks that drive links were reported.
    pub fn link_turns(&self) -> u64 {
        self.get("link_turn", "")
    }

    /// When the certificate ends, in seconds since 1970; 0 if that was not reported.
    pub fn certificate_expires(&self) -> u64 {
        self.get("certificate_expires", "")
    }

    /// When the first revocation list must be replaced, in seconds since 1970; 0 if that was not
    /// reported.
    pub fn crl_expires(&self) -> u64 {
        self.get("crl_expires", "")
    }

    /// How many times credentials were read again with `result`.
    pub fn reloads(&self, result: &'static str) -> u64 {
        self.get("reload", result)
    }

    /// Waits until `what` holds.
    ///
    /// # Panics
    /// If it does not in time.
    pub async fn until(&self, what: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if what(self) {
                    return;
                }
                changed.await;
            }
        };
        assert!(
            tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
            "waited for a count, but there is only {self:?}"
        );
    }

    fn get(&self, family: &'static str, label: &'static str) -> u64 {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).get(&(family, label)).unwrap_or(&0)
    }

    fn set(&self, family: &'static str, value: u64) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).insert((family, ""), value);
        self.changed.notify_waiters();
    }

    fn add(&self, family: &'static str, label: &'static str, by: u64) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry((family, label)).or_default() += by;
        self.changed.notify_waiters();
    }
}

impl NetworkObserver for Counts {
    fn bytes(&self, _: NodeId, direction: Direction, lane: Lane, bytes: u64) {
        let label = if direction == Direction::Received { "received" } else { "sent" };
        self.add("bytes", label, bytes);
        self.add("bytes of a lane", label_of(direction, lane), bytes);
    }

    fn connection(&self, peer: Option<NodeId>, result: ConnectionResult) {
        let result = result.as_str();
        *self.peers.lock().unwrap_or_else(PoisonError::into_inner).entry((result, peer)).or_default() += 1;
        self.add("connection", result, 1);
    }

    fn dropped(&self, _: Option<NodeId>, reason: DropReason) {
        self.add("dropped", reason.as_str(), 1);
    }

    fn round_trip(&self, _: NodeId, _: Duration) {
        self.add("round_trip", "", 1);
    }

    fn wrote_entries(&self, _: NodeId, _: Duration) {
        self.add("wrote_entries", "", 1);
    }

    fn link_turn(&self, turn: &mut dyn FnMut()) {
        self.add("link_turn", "", 1);
        turn();
    }

    fn certificate_expires(&self, at_unix_seconds: u64) {
        self.set("certificate_expires", at_unix_seconds);
    }

    fn crl_expires(&self, at_unix_seconds: u64) {
        self.set("crl_expires", at_unix_seconds);
    }

    fn credentials_reloaded(&self, result: ReloadResult) {
        self.add("reload", result.as_str(), 1);
    }
}

fn label_of(direction: Direction, lane: Lane) -> &'static str {
    match (direction, lane) {
        (Direction::Sent, Lane::Control) => "sent, control",
        (Direction::Sent, Lane::Append) => "sent, append",
        (Direction::Sent, Lane::Snapshot) => "sent, snapshot",
        (Direction::Received, Lane::Control) => "received, control",
        (Direction::Received, Lane::Append) => "received, append",
        (Direction::Received, Lane::Snapshot) => "received, snapshot",
    }
}

/// A message of the control lane.
#[must_use]
pub fn heartbeat(round: u64) -> Message {
    Message { term: Term(1), body: Body::Heartbeat(Heartbeat { round, commit: Index(0) }) }
}

/// A reply on the control lane.
#[must_use]
pub fn heartbeat_reply(round: u64) -> Message {
    Message { term: Term(1), body: Body::HeartbeatReply(HeartbeatReply { round, promise: Promise(150_000) }) }
}

/// A message of the append lane with a bulk other than log records.
#[must_use]
pub fn proposal(request: u64, length: u32) -> Message {
    let payloads = Bytes::from(vec![request as u8; length as usize]);
    let commands = vec![ForwardedCommand { request, length, kind: Kind::Command, waits_ms: 5000 }];
    Message { term: Term(1), body: Body::Propose(Propose { commands, payloads }) }
}

/// A message of the append lane: a batch of `entries` entries of `bytes` bytes each.
#[must_use]
pub fn append(first: u64, entries: u64, bytes: usize) -> Message {
    let mut builder = BatchBuilder::new(crc32c::crc32c_append, Term(1), Index(first), 0, 0);
    for entry in 0..entries {
        let payload: Vec<u8> = (0..bytes).map(|at| (at as u64 * 31 + entry) as u8).collect();
        builder.push(Kind::Command, &payload);
    }
    let previous = EntryId::new(Term(u64::from(first > 1)), Index(first - 1));
    let batch = builder.finish();
    Message {
        term: Term(1),
        body: Body::Append(Append { epoch: 1, previous, previous_checksum: None, commit: Index(0), batch }),
    }
}

/// A message of the snapshot lane with `bytes` bytes of state.
#[must_use]
pub fn piece(offset: u64, bytes: usize) -> Message {
    let base = SnapshotBase {
        last: EntryId::new(Term(1), Index(7)),
        last_checksum: 3,
        membership: Membership::of_voters([NodeId(1), NodeId(2)]),
        membership_index: Index(2),
    };
    let snapshot = Snapshot { base, bytes: u64::MAX, checksum: 5 }.into();
    let bytes = Bytes::from(vec![offset as u8; bytes]);
    Message { term: Term(1), body: Body::SnapshotChunk(SnapshotChunk { epoch: 1, snapshot, offset, bytes }) }
}
