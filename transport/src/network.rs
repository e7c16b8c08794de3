//! The seam at which the network can be replaced.
//!
//! A node is built with a [`Network`]. Starting it, on the node's own thread, gives [`Links`];
//! `Links` gives a [`Link`] for each peer; a `Link` takes messages and never waits; messages that
//! arrive go to the [`Inbox`].
//!
//! # Duties
//!
//! - **Best effort.** A link may drop, delay, duplicate or reorder messages. It reports that to
//!   the [`NetworkObserver`] alone; Raft repairs it. It never alters a message or its sender.
//! - **Identity.** The sender of a delivered message is the node that the network proved, never
//!   one that a message claims.
//! - **Bounds.** The messages that wait in a link are bounded; beyond that it drops. The
//!   messages delivered and not yet handled are bounded by the inbox's credit: [`Inbox::deliver`]
//!   waits for it.
//! - **Lanes.** Each [`Lane`] has its own queues, bounds and credit: messages that wait on one
//!   lane, at either end, neither hold back nor crowd out those of another. Within a lane the order
//!   is kept unless messages are lost; between lanes there is none.
//! - **Introductions.** The node is told the peer's facts ([`Introduction`]) before a link comes
//!   up, and before the first message of a peer that has a link to it, even if the node has none to
//!   the peer. Nodes that state different cluster ids get no connection, even with equal cluster
//!   names and valid certificates.
//! - **Never blocks.** Everything here runs on the node's thread, beside consensus.

use quorate_raft::{ClusterId, Message, NodeId, Skip};
use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A future on the node's thread.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// A network, not yet started: what a node's builder takes. Made anywhere, started on
/// the node's thread.
pub trait Network: Send + 'static {
    /// Opens sockets and begins to receive. Called once, within the node's tokio
    /// runtime and `LocalSet`.
    ///
    /// # Errors
    /// If it can't start: the address is taken, or a certificate does not fit.
    fn start(self: Box<Self>, context: NetworkContext) -> LocalFuture<Result<Box<dyn Links>, NetworkError>>;
}

/// The node that starts a network, as the network needs to know it.
pub struct NetworkContext {
    /// The cluster's name. Nodes of other clusters get no connection.
    pub cluster: String,
    /// The node's id, which its certificate must name.
    pub node: NodeId,
    /// The facts that peers are told about this node ([`Event::Introduced`]), until
    /// [`Links::introduce`] replaces them.
    pub introduction: Introduction,
    /// The longest time for which a follower waits for its leader. The network derives from it how
    /// soon it notices a broken path, and how slow a path may be.
    pub election_timeout: Duration,
    /// Where received messages go.
    pub inbox: Inbox,
    /// Receives counts and measurements, for metrics.
    pub observer: Arc<dyn NetworkObserver>,
}

/// The facts that a node states about itself on every connection. An encoded hello, which contains
/// them, is at most [`Hello::BYTES_MAX`](crate::codec::Hello::BYTES_MAX) long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// The newest version that the node's state machine can apply.
    pub machine_version: u32,
    /// A random number, drawn at each start of the node: another value is another process.
    pub incarnation: u64,
    /// The id of the node's cluster, once the node knows it to be committed.
    pub cluster_id: Option<ClusterId>,
    /// The entries that it skips, in order. Nodes with different lists would
    /// apply different commands.
    pub skips: Vec<Skip>,
    /// The settings on which nodes should agree, by name, as text. Differences are logged for
    /// operators and have no other effect.
    pub settings: BTreeMap<String, String>,
}

impl Introduction {
    /// Whether both nodes know their cluster's id, and the ids differ. The names may be equal.
    #[must_use]
    pub fn is_of_another_cluster(&self, other: &Self) -> bool {
        matches!((self.cluster_id, other.cluster_id), (Some(one), Some(two)) if one != two)
    }
}

/// A running network.
pub trait Links {
    /// Replaces the facts that peers are told about this node. They are told on the connections
    /// that are up and on later ones; a connection to a node of another cluster is closed.
    fn introduce(&self, introduction: Introduction);

    /// A link to `peer`, dialled at `address`: `HOST:PORT`, or any text that the network
    /// understands. It connects by itself, and again after a loss; dropping it ends that.
    fn link(&self, peer: NodeId, address: &str) -> Rc<dyn Link>;

    /// A link that only replies to `peer`, on the connection that the peer opened, if there is one.
    /// It does not dial and causes no [`Event::LinkUp`] or [`Event::LinkDown`]. For nodes outside
    /// the configuration that this node knows.
    fn reply_link(&self, peer: NodeId) -> Rc<dyn Link>;

    /// The address at which this node can be dialled, if the network has addresses. Of use if the
    /// system chose the port.
    fn local_address(&self) -> Option<SocketAddr>;

    /// Closes all connections, with a goodbye to the peers. Takes at most a second.
    fn close(&self) -> LocalFuture<()>;
}

/// A link to one peer.
pub trait Link {
    /// Queues a message, or drops it if the peer is not connected or the queue is
    /// full. Never waits.
    fn send(&self, message: Message);

    /// Whether the task that drives the link runs, or ended because the network was closed. `false`
    /// means that it panicked: its node must stop, too.
    fn is_running(&self) -> bool {
        true
    }

    /// Measures how long a message waits in the mailbox of the actor that drives the link, if there
    /// is one: it calls `arrived` when this message's turn comes, or drops it.
    fn probe(&self, _arrived: Box<dyn FnOnce() + Send>) {}
}

/// A message that arrived, and the credit that it holds while it is unhandled.
#[derive(Debug)]
pub struct Delivered {
    /// The sender, as proved by the network.
    pub from: NodeId,
    /// The message, as sent.
    pub message: Message,
    /// The inbox's credit for the message, returned when this is dropped.
    pub credit: Option<OwnedSemaphorePermit>,
}

/// Events that a network reports to its node.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message arrived.
    Delivered(Delivered),
    /// A link is usable from now on.
    LinkUp {
        /// The node at its other end.
        peer: NodeId,
    },
    /// A link was lost, perhaps with messages on their way.
    LinkDown {
        /// The node at its other end.
        peer: NodeId,
    },
    /// A node stated facts about itself: on every connection, and again when they change.
    Introduced {
        /// The node, member or not.
        peer: NodeId,
        /// Its facts, which replace all earlier ones.
        introduction: Introduction,
    },
}

/// The receiver of a network's events. Cheap to clone; stays on the node's thread.
#[derive(Clone)]
pub struct Inbox {
    sink: Rc<dyn Fn(Event)>,
    /// Separate, so that a heartbeat never waits for appends to be handled.
    control: Arc<Semaphore>,
    append: Arc<Semaphore>,
    /// Separate, so that appends never wait for a disk that writes a snapshot.
    snapshot: Arc<Semaphore>,
}

impl Inbox {
    /// The most bytes of unhandled messages on the append lane; [`Inbox::deliver`] waits beyond it.
    pub const CREDIT_BYTES: usize = 64 << 20;
    /// The same for the control lane, which has small messages.
    pub const CONTROL_CREDIT_BYTES: usize = 1 << 20;
    /// The same for chunks of snapshots.
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
        debug_assert!(weight as usize <= Self::credit_bytes(lane), "no credit is ever enough for {weight} bytes");
        let credit = Arc::clone(credit).acquire_many_owned(weight).await.ok();
        debug_assert!(credit.is_some(), "the credit of the {lane:?} lane is closed");
        (self.sink)(Event::Delivered(Delivered { from, message, credit }));
    }

    fn credit_bytes(lane: Lane) -> usize {
        match lane {
            Lane::Control => Self::CONTROL_CREDIT_BYTES,
            Lane::Append => Self::CREDIT_BYTES,
            Lane::Snapshot => Self::SNAPSHOT_CREDIT_BYTES,
        }
    }

    /// Reports an event as it is: for a network that wraps another.
    pub fn put(&self, event: Event) {
        (self.sink)(event);
    }

    /// Reports [`Event::Introduced`].
    pub fn introduced(&self, peer: NodeId, introduction: Introduction) {
        (self.sink)(Event::Introduced { peer, introduction });
    }

    /// Reports [`Event::LinkUp`].
    pub fn link_up(&self, peer: NodeId) {
        (self.sink)(Event::LinkUp { peer });
    }

    /// Reports [`Event::LinkDown`].
    pub fn link_down(&self, peer: NodeId) {
        (self.sink)(Event::LinkDown { peer });
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("credit", &self.append.available_permits()).finish_non_exhaustive()
    }
}

/// Errors of making or starting a network. Each is displayed as one line: the problem, its place
/// and the remedy, with the cause in [`source`](std::error::Error::source) where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The network was made for another node, or the node or the cluster can't be part of it.
    #[error("{0}")]
    Identity(String),
    /// The address can't be listened on.
    #[error("UDP {address}: {problem}")]
    Address {
        /// The address from the configuration.
        address: SocketAddr,
        /// The problem and the remedy.
        problem: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file with a certificate or a key can't be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file from the configuration.
        path: PathBuf,
        /// The problem and the remedy.
        problem: String,
        /// The error of the operating system or of TLS, if one caused it.
        source: Option<Cause>,
    },
    /// TLS or QUIC refuses the certificates or a setting.
    #[error("TLS can't be set up from these certificates: {source}: make new ones")]
    Tls {
        /// The library's error.
        source: Cause,
    },
}

impl NetworkError {
    /// The file that can't be used. With the contents of all files it tells one failure from
    /// another: the text does not, because the clock is in it if a date is the problem.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => Some(path),
            Self::Identity(_) | Self::Address { .. } | Self::Tls { .. } => None,
        }
    }
}

/// An error of another library.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A lane of a connection: a stream of messages with its own order, bounds and priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Votes, heartbeats, read index: small messages, first priority. Reports for operators, which
    /// are dropped where anything else waits.
    Control,
    /// Appends and forwarded proposals with their replies, and repaired entries.
    Append,
    /// Chunks of snapshots, sent when the other lanes have nothing to send.
    Snapshot,
}

impl Lane {
    /// The lane of a message.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        match message {
            message if message.is_control() => Self::Control,
            message if message.is_bulk() => Self::Snapshot,
            _ => Self::Append,
        }
    }
}

/// The direction in which bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the peer to this node.
    Received,
    /// From this node to the peer.
    Sent,
}

/// The result of an attempt to connect, whichever side made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ConnectionResult {
    /// This node dialled, and the connection is up.
    Connected,
    /// The peer dialled, and the connection is up.
    Accepted,
    /// Refused: no certificate, one that TLS does not accept, such as of another authority, expired or
    /// revoked; or an open connection was closed, because its certificate counts no more.
    RefusedCertificate,
    /// Refused: a certificate of another node or cluster than was claimed or expected.
    RefusedIdentity,
    /// Refused: another live process uses the id of the peer, and is connected.
    RefusedTwin,
    /// Refused: another protocol or version.
    RefusedProtocol,
    /// Refused for now: it sent malformed bytes a moment ago.
    RefusedBackOff,
    /// Refused for now: too many handshakes are in progress.
    RefusedBusy,
    /// Refused for now: too many handshakes of its address are in progress.
    RefusedAddress,
    /// More attempts arrived at once than are looked into; counted once for all that were ignored.
    RefusedBurst,
    /// The peer refused this node.
    Rejected,
    /// No answer from the address.
    Unreachable,
    /// The handshake broke off without a fault of either side.
    HandshakeFailed,
}

impl ConnectionResult {
    /// Its name in log lines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Accepted => "accepted",
            Self::RefusedCertificate => "refused_certificate",
            Self::RefusedIdentity => "refused_identity",
            Self::RefusedTwin => "refused_twin",
            Self::RefusedProtocol => "refused_protocol",
            Self::RefusedBackOff => "refused_back_off",
            Self::RefusedBusy => "refused_busy",
            Self::RefusedAddress => "refused_address",
            Self::RefusedBurst => "refused_burst",
            Self::Rejected => "rejected",
            Self::Unreachable => "unreachable",
            Self::HandshakeFailed => "handshake_failed",
        }
    }
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// No connection to the peer.
    Unconnected,
    /// The queue to the peer is full.
    QueueFull,
    /// It violates the format, or its bytes are damaged.
    Malformed,
    /// It is longer than a frame may be.
    TooLong,
    /// The connection was lost while it waited to be written, or for the inbox's credit.
    ConnectionLost,
    /// A network with faults was told to cut the link.
    FaultCut,
    /// A network with faults was told to lose some messages.
    FaultDrop,
}

impl DropReason {
    /// Its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unconnected => "unconnected",
            Self::QueueFull => "queue_full",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::ConnectionLost => "connection_lost",
            Self::FaultCut => "fault_cut",
            Self::FaultDrop => "fault_drop",
        }
    }
}

/// The result of reading a node's credentials again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReloadResult {
    /// They are in use.
    Loaded,
    /// They can't be used, and the former ones stay in use.
    Failed,
}

impl ReloadResult {
    /// Its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Failed => "failed",
        }
    }
}

/// An observer of a network, for metrics. No method measures anything by default.
pub trait NetworkObserver: Send + Sync + 'static {
    /// Frames of this many bytes were sent or received on a lane.
    fn bytes(&self, _peer: NodeId, _direction: Direction, _lane: Lane, _bytes: u64) {}
    /// Entries for a peer were written to its connection, this long after they were queued: once for
    /// all that were written at once, the time of the first.
    fn wrote_entries(&self, _peer: NodeId, _took: Duration) {}
    /// An actor or a task that drives links has a turn on the node's thread: this one, to be called
    /// once. For a measurement of the turn.
    fn link_turn(&self, turn: &mut dyn FnMut()) {
        turn();
    }
    /// A connection attempt ended. `peer` is `None` where no identity was proved.
    fn connection(&self, _peer: Option<NodeId>, _result: ConnectionResult) {}
    /// A message to or from a peer was dropped.
    fn dropped(&self, _peer: Option<NodeId>, _reason: DropReason) {}
    /// A measurement of the round-trip time.
    fn round_trip(&self, _peer: NodeId, _took: Duration) {}
    /// The end of this node's certificate, in seconds since 1970.
    fn certificate_expires(&self, _at_unix_seconds: u64) {}
    /// The time at which the first of the revocation lists must be replaced, in seconds since 1970.
    fn crl_expires(&self, _at_unix_seconds: u64) {}
    /// This node's credentials were read again while it ran.
    fn credentials_reloaded(&self, _result: ReloadResult) {}
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl NetworkObserver for Unobserved {}
