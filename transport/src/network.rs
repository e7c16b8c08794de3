//! The seam at which the network can be swapped.
//!
//! A [`Network`] is what a node is built with. Starting it, on the node's own thread, gives [`Links`]; `Links` gives a
//! [`Link`] a peer; a `Link` takes messages and never waits; what arrives goes to the [`Inbox`].
//!
//! # Duties
//!
//! - **Best effort.** A link may drop, delay, duplicate or reorder messages, and says nothing when it does, but counts it
//!   with the [`NetworkObserver`]. Raft repairs it. What it never does is alter a message or its sender.
//! - **Identity.** The sender of a delivered message is who the network proved it to be, never what a message claims.
//! - **Bounds.** What waits in a link is bounded; beyond that it drops. What was delivered and not yet handled is
//!   bounded by the inbox's credit: [`Inbox::deliver`] waits for it.
//! - **Lanes.** Each [`Lane`] has its own queues, bounds and credit: what waits on one, at either end, never holds back, and
//!   never crowds out, what is sent on another. Within a lane the order is kept as long as nothing is lost; between lanes there
//!   is none.
//! - **Introductions.** Before a link comes up, the node is told what the peer states about itself ([`Introduction`]); and before it is
//!   delivered anything from a peer that has a link to it, also if it has none to the peer. Nodes that state different cluster ids
//!   get no connection, whatever the cluster's name and their certificates say.
//! - **Never blocks.** Everything here runs on the node's thread, beside consensus.

use quorate_raft::{ClusterId, Message, NodeId, Skip};
use std::{collections::BTreeMap, fmt, future::Future, net::SocketAddr, pin::Pin, rc::Rc, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A future on the node's thread.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// A network, not yet started: what a node's builder takes. Made anywhere, started on the node's thread.
pub trait Network: Send + 'static {
    /// Opens sockets and begins to receive. Called once, within the node's tokio runtime and `LocalSet`.
    ///
    /// # Errors
    /// If it can't: the address is taken, a certificate does not fit.
    fn start(self: Box<Self>, context: NetworkContext) -> LocalFuture<Result<Box<dyn Links>, NetworkError>>;
}

/// Who starts a network.
pub struct NetworkContext {
    /// The cluster's name. Nobody of another cluster gets through.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// The facts that peers are told about this node ([`Event::Introduced`]), until [`Links::introduce`] replaces them.
    pub introduction: Introduction,
    /// The longest time for which a follower waits for its leader: the measure of how soon a broken path must be noticed, and of how
    /// slow a path the operator expects.
    pub election_timeout: Duration,
    /// Where received messages go.
    pub inbox: Inbox,
    /// Who watches: metrics.
    pub observer: Arc<dyn NetworkObserver>,
}

/// The facts that a node states about itself whenever it connects to a peer. An encoded hello, which contains them, is at
/// most [`Hello::BYTES_MAX`](crate::codec::Hello::BYTES_MAX) long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// The newest version that the node's state machine can apply.
    pub machine_version: u32,
    /// A random number, drawn at each start of the node: another value means another process.
    pub incarnation: u64,
    /// The id of the node's cluster, once the node knows it to be committed.
    pub cluster_id: Option<ClusterId>,
    /// The entries that it skips, in order. Nodes whose lists differ would apply different commands.
    pub skips: Vec<Skip>,
    /// The settings on which nodes should agree, by name, as text: for operators, who are told where two nodes differ. Nothing rests
    /// on them.
    pub settings: BTreeMap<String, String>,
}

impl Introduction {
    /// Whether the two nodes belong to different clusters, though these have one name.
    #[must_use]
    pub fn is_of_another_cluster(&self, other: &Self) -> bool {
        matches!((self.cluster_id, other.cluster_id), (Some(one), Some(two)) if one != two)
    }
}

/// A running network.
pub trait Links {
    /// Replaces the facts that peers are told about this node. They are told on the connections that are up and on later ones;
    /// a connection to a node of another cluster is closed.
    fn introduce(&self, introduction: Introduction);

    /// A link to `peer`, dialled at `address` (`HOST:PORT`; what it means is the network's business). It connects by
    /// itself, and again after it was lost; dropping it ends that.
    fn link(&self, peer: NodeId, address: &str) -> Rc<dyn Link>;

    /// A way to answer `peer` and no more: on the connection that it opened, if there is one. It dials nobody, and tells of no
    /// link that comes or goes. For nodes that are no members of this node's cluster, as far as it knows.
    fn reply_link(&self, peer: NodeId) -> Rc<dyn Link>;

    /// Where this node can be dialled, if the network has such addresses; useful when the port was chosen by the system.
    fn local_address(&self) -> Option<SocketAddr>;

    /// Says goodbye to the peers and ends everything, within a second.
    fn close(&self) -> LocalFuture<()>;
}

/// A way to one peer.
pub trait Link {
    /// Sends a message, or drops it: unconnected, or too much waits already. Never waits.
    fn send(&self, message: Message);

    /// Whether whatever drives the link still lives, or ended because the network was closed. One that does not has panicked,
    /// and its node must stop too.
    fn is_alive(&self) -> bool {
        true
    }
}

/// A message that arrived, and the credit that it holds while it is unhandled.
#[derive(Debug)]
pub struct Delivered {
    /// Who sent it: proved, not claimed.
    pub from: NodeId,
    /// What it says.
    pub message: Message,
    /// Given back when this is dropped.
    pub credit: Option<OwnedSemaphorePermit>,
}

/// What a network tells its node.
#[derive(Debug)]
pub enum Event {
    /// A message arrived.
    Delivered(Delivered),
    /// A link to `peer` is usable from now on.
    LinkUp {
        /// The peer.
        peer: NodeId,
    },
    /// The link to `peer` was lost: what was under way may have been lost with it.
    LinkDown {
        /// The peer.
        peer: NodeId,
    },
    /// `peer`, member or not, stated these facts about itself. It states them on every connection, and other ones after a
    /// restart or after a change.
    Introduced {
        /// The peer.
        peer: NodeId,
        /// The facts.
        introduction: Introduction,
    },
}

/// Where a network puts what arrives. Cheap to clone; lives on the node's thread.
#[derive(Clone)]
pub struct Inbox {
    sink: Rc<dyn Fn(Event)>,
    /// Of its own, so that a heartbeat never waits behind appends that are not handled yet.
    control: Arc<Semaphore>,
    append: Arc<Semaphore>,
    /// Of its own, so that appends never wait behind a disk that is writing a snapshot.
    snapshot: Arc<Semaphore>,
}

impl Inbox {
    /// The most bytes of unhandled messages of the append lane that [`Inbox::deliver`] lets in before it waits.
    pub const CREDIT_BYTES: usize = 64 << 20;
    /// The same for messages of the control lane, each of which is small.
    pub const CONTROL_CREDIT_BYTES: usize = 1 << 20;
    /// The same for pieces of snapshots.
    pub const SNAPSHOT_CREDIT_BYTES: usize = 8 << 20;

    /// An inbox that hands events to `sink`.
    pub fn new(sink: impl Fn(Event) + 'static) -> Self {
        let [control, append, snapshot] = [Lane::Control, Lane::Append, Lane::Snapshot]
            .map(|lane| Arc::new(Semaphore::new(Self::credit_bytes(lane))));
        Self { sink: Rc::new(sink), control, append, snapshot }
    }

    /// Delivers a message of about `bytes`, after waiting until there is credit for it on its lane.
    pub async fn deliver(&self, from: NodeId, message: Message, bytes: usize) {
        let lane = Lane::of(&message);
        let credit = match lane {
            Lane::Control => &self.control,
            Lane::Append => &self.append,
            Lane::Snapshot => &self.snapshot,
        };
        let weight = u32::try_from(bytes.clamp(1, Self::credit_bytes(lane))).unwrap_or(u32::MAX);
        let credit = Arc::clone(credit).acquire_many_owned(weight).await.ok();
        (self.sink)(Event::Delivered(Delivered { from, message, credit }));
    }

    fn credit_bytes(lane: Lane) -> usize {
        match lane {
            Lane::Control => Self::CONTROL_CREDIT_BYTES,
            Lane::Append => Self::CREDIT_BYTES,
            Lane::Snapshot => Self::SNAPSHOT_CREDIT_BYTES,
        }
    }

    /// Hands on an event as it is: for a network around another.
    pub fn put(&self, event: Event) {
        (self.sink)(event);
    }

    /// A peer stated facts about itself.
    pub fn introduced(&self, peer: NodeId, introduction: Introduction) {
        (self.sink)(Event::Introduced { peer, introduction });
    }

    /// A link became usable.
    pub fn link_up(&self, peer: NodeId) {
        (self.sink)(Event::LinkUp { peer });
    }

    /// A link was lost.
    pub fn link_down(&self, peer: NodeId) {
        (self.sink)(Event::LinkDown { peer });
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("credit", &self.append.available_permits()).finish_non_exhaustive()
    }
}

/// Why a network can't be used, in one line that says what, where and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NetworkError(pub String);

/// Which lane of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Votes, heartbeats, read index: small, first.
    Control,
    /// Appends, forwarded proposals and their replies.
    Append,
    /// Pieces of snapshots: whenever nothing else is to be sent.
    Snapshot,
}

impl Lane {
    /// The lane on which a message belongs.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        match message {
            message if message.is_control() => Self::Control,
            message if message.is_bulk() => Self::Snapshot,
            _ => Self::Append,
        }
    }
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the peer to us.
    Received,
    /// From us to the peer.
    Sent,
}

/// Who watches a network. Every method defaults to nothing.
pub trait NetworkObserver: Send + Sync + 'static {
    /// Bytes of frames went over a lane.
    fn bytes(&self, _peer: NodeId, _direction: Direction, _lane: Lane, _bytes: u64) {}
    /// A connection attempt ended: `connected`, `accepted`, `refused_certificate`, `refused_identity`, `refused_twin`,
    /// `refused_protocol`, `unreachable`, … `peer` is `None` where no identity was proved.
    fn connection(&self, _peer: Option<NodeId>, _result: &'static str) {}
    /// A message was dropped: `unconnected`, `queue_full`, `malformed`, …
    fn dropped(&self, _peer: Option<NodeId>, _reason: &'static str) {}
    /// The round-trip time as the network measured it.
    fn round_trip(&self, _peer: NodeId, _took: Duration) {}
    /// This node's own certificate ends then: seconds since 1970.
    fn certificate_expires(&self, _at_unix_seconds: u64) {}
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl NetworkObserver for Unobserved {}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_raft::{Body, Heartbeat, Index, Term, message::Propose};
    use std::cell::RefCell;

    #[tokio::test]
    async fn a_heartbeat_never_waits_for_the_credit_of_bulk() {
        let unhandled = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&unhandled);
        let inbox = Inbox::new(move |event| kept.borrow_mut().push(event));
        let bulk = Body::Propose(Propose { commands: Vec::new(), payloads: bytes::Bytes::new() });
        inbox.deliver(NodeId(2), Message { term: Term(1), body: bulk.clone() }, Inbox::CREDIT_BYTES).await;

        let heartbeat = Body::Heartbeat(Heartbeat { round: 1, commit: Index(0) });
        inbox.deliver(NodeId(2), Message { term: Term(1), body: heartbeat }, 64).await;
        assert_eq!(unhandled.borrow().len(), 2);

        let more = inbox.deliver(NodeId(2), Message { term: Term(1), body: bulk }, 1);
        assert!(futures_util::FutureExt::now_or_never(more).is_none(), "bulk waits until some of it was handled");
    }

    #[tokio::test]
    async fn an_append_never_waits_for_the_credit_of_snapshots() {
        let unhandled = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&unhandled);
        let inbox = Inbox::new(move |event| kept.borrow_mut().push(event));
        let piece = crate::conformance::piece(0, 100);
        inbox.deliver(NodeId(2), piece.clone(), Inbox::SNAPSHOT_CREDIT_BYTES).await;

        inbox.deliver(NodeId(2), crate::conformance::append(1, 1, 10), Inbox::CREDIT_BYTES).await;
        assert_eq!(unhandled.borrow().len(), 2);
        let more = inbox.deliver(NodeId(2), piece.clone(), 1);
        assert!(futures_util::FutureExt::now_or_never(more).is_none(), "pieces wait until some were handled");
        unhandled.borrow_mut().remove(0);
        inbox.deliver(NodeId(2), piece, 1).await;
    }
}
