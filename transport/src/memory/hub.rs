//! The hub that the nodes of a process share: their seats, and the queues at them.

use crate::network::{Introduction, Lane, NetworkError};
use bytes::Bytes;
use quorate_raft::{Message, NodeId};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// Every lane, in the order in which they are kept.
pub(super) const LANES: [Lane; 3] = [Lane::Control, Lane::Append, Lane::Snapshot];
/// The bounds of [`MemoryNetwork`](super::MemoryNetwork).
pub(super) const MESSAGES_MAX: usize = 8192;
pub(super) const BYTES_MAX: usize = 64 << 20;
pub(super) const SNAPSHOT_BYTES_MAX: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Hub {
    /// Whether messages travel as frames.
    pub(super) encoded: bool,
    seats: Mutex<BTreeMap<NodeId, Seat>>,
}

impl Hub {
    pub(super) fn new(encoded: bool) -> Self {
        Self { encoded, seats: Mutex::default() }
    }

    /// Takes a seat and tells the others.
    pub(super) fn seat(&self, node: NodeId, seat: Seat) -> Result<(), NetworkError> {
        debug_assert_eq!(seat.node, node, "the seat of one node is taken by another");
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if seats.contains_key(&node) {
            return Err(NetworkError::Identity(format!(
                "node {node} runs already on this in-memory network: stop it first"
            )));
        }
        // Nodes of other clusters are not told.
        for other in seats.values().filter(|other| other.may_talk_to(&seat)) {
            other.tell(Parcel::Up(node, seat.clone()));
        }
        seats.insert(node, seat);
        Ok(())
    }

    /// A node states other facts from now on: its peers hear them, and those of another cluster
    /// find it gone.
    pub(super) fn introduce(&self, node: NodeId, seat: &Seat, introduction: Introduction) {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        *seat.introduction.lock().unwrap_or_else(PoisonError::into_inner) = introduction.clone();
        for (other, theirs) in seats.iter().filter(|(other, theirs)| **other != node && theirs.cluster == seat.cluster)
        {
            if theirs.may_talk_to(seat) {
                theirs.tell(Parcel::Introduced(node, introduction.clone()));
            } else {
                theirs.tell(Parcel::Down(node));
                seat.tell(Parcel::Down(*other));
            }
        }
    }

    /// Gives the seat back, unless another life of the node has taken one since.
    pub(super) fn leave(&self, node: NodeId, seat: &Seat) {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if seats.get(&node).is_some_and(|taken| taken.is(seat)) && seats.remove(&node).is_some() {
            for other in seats.values() {
                other.tell(Parcel::Down(node));
            }
        }
    }

    /// Where `node` can be reached, if it runs and belongs to the cluster of the node `from` there.
    pub(super) fn find(&self, node: NodeId, from: &Seat) -> Option<Seat> {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.get(&node).filter(|seat| seat.may_talk_to(from)).cloned()
    }
}

/// A node's place at the hub: a queue a lane.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// The node that receives what is put into the queues.
    pub(super) node: NodeId,
    pipes: [Pipe; LANES.len()],
    cluster: Arc<str>,
    introduction: Arc<Mutex<Introduction>>,
}

impl Seat {
    pub(super) fn new(
        node: NodeId,
        cluster: String,
        introduction: Introduction,
    ) -> (Self, [UnboundedReceiver<Parcel>; LANES.len()]) {
        let opened = LANES.map(Pipe::new);
        let pipes = opened.each_ref().map(|(pipe, _)| pipe.clone());
        let introduction = Arc::new(Mutex::new(introduction));
        (Self { node, pipes, cluster: cluster.into(), introduction }, opened.map(|(_, receiver)| receiver))
    }

    pub(super) fn pipe(&self, lane: Lane) -> &Pipe {
        &self.pipes[place(lane)]
    }

    /// Tells the seat's node that another node came, went or changed its facts.
    pub(super) fn tell(&self, parcel: Parcel) {
        let _ = self.pipe(Lane::Control).sender.send(parcel);
    }

    fn is(&self, other: &Self) -> bool {
        self.pipe(Lane::Control).sender.same_channel(&other.pipe(Lane::Control).sender)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.pipe(Lane::Control).sender.is_closed()
    }

    /// Whether both belong to one cluster, by its name and, if both know it, by its id.
    fn may_talk_to(&self, other: &Self) -> bool {
        self.cluster == other.cluster && !self.introduction().is_of_another_cluster(&other.introduction())
    }

    /// The facts that the node states about itself.
    pub(super) fn introduction(&self) -> Introduction {
        self.introduction.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where a lane stands in [`LANES`].
fn place(lane: Lane) -> usize {
    match lane {
        Lane::Control => 0,
        Lane::Append => 1,
        Lane::Snapshot => 2,
    }
}

/// The queue of a node's lane.
///
/// **Bound:** its channel has none of its own; [`Load::add`] comes before whatever is put into it.
#[derive(Clone, Debug)]
pub(super) struct Pipe {
    pub(super) sender: UnboundedSender<Parcel>,
    pub(super) load: Arc<Load>,
}

impl Pipe {
    fn new(lane: Lane) -> (Self, UnboundedReceiver<Parcel>) {
        let bytes_max = match lane {
            Lane::Control | Lane::Append => BYTES_MAX,
            Lane::Snapshot => SNAPSHOT_BYTES_MAX,
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        (
            Self {
                sender,
                load: Arc::new(Load { bytes_max, messages: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }),
            },
            receiver,
        )
    }
}

/// The messages and bytes that wait in a pipe.
#[derive(Debug)]
pub(super) struct Load {
    bytes_max: usize,
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Load {
    /// Adds a message of `bytes` if it fits; says whether it does.
    pub(super) fn add(&self, bytes: usize) -> bool {
        let messages = self.messages.fetch_add(1, Ordering::Relaxed);
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = messages < MESSAGES_MAX && waiting + bytes <= self.bytes_max;
        if !fits {
            self.remove(bytes);
        }
        fits
    }

    pub(super) fn remove(&self, bytes: usize) {
        let messages = self.messages.fetch_sub(1, Ordering::Relaxed);
        let waiting = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(
            messages > 0 && waiting >= bytes,
            "a message of {bytes} bytes leaves a queue of {messages} messages and {waiting} bytes"
        );
    }
}

#[derive(Debug)]
pub(super) enum Parcel {
    Message {
        from: NodeId,
        bytes: usize,
        content: Content,
    },
    /// With the seat, for what its node states when the link comes up.
    Up(NodeId, Seat),
    /// A node that is up states other facts.
    Introduced(NodeId, Introduction),
    Down(NodeId),
}

pub(super) enum Content {
    Value(Message),
    Frame(Bytes),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(message) => std::fmt::Debug::fmt(message, f),
            Self::Frame(frame) => write!(f, "Frame({} B)", frame.len()),
        }
    }
}
