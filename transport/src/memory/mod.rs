//! The network within a process: nodes on one thread or several, and faults on demand.
//!
//! Owns the hub that the nodes of a process share, and a queue a node. Opens no socket and reads no clock but tokio's;
//! without faults it touches no timer at all.
//!
//! By default messages travel as encoded frames, so that what tests send is what the wire would carry;
//! [`MemoryNetwork::by_value`] hands them over as they are.
//!
//! **Determinism:** with all nodes on one current-thread runtime with paused time, the same seed and the same sends give
//! the same deliveries: each direction of each pair of nodes has its own random numbers, and no hash map or wall clock
//! decides anything.
//!
//! A cut between two nodes loses what is sent, silently: the links stay up, as they would on a network for a while.

mod faults;

pub use faults::{Faults, LinkFaults};

use crate::{
    codec::{Decoder, Encoder, Frame, Limits},
    network::{Direction, Inbox, Lane, Link, Links, Local, LocalFuture, Network, NetworkError, NetworkObserver},
};
use bytes::{Bytes, BytesMut};
use faults::Fate;
use quorate_raft::{Message, NodeId};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::{AbortHandle, spawn_local},
    time::{Instant, sleep_until},
};

/// The hub that nodes of a process share. Cloning it shares it.
#[derive(Clone, Debug)]
pub struct MemoryNetwork {
    hub: Arc<Hub>,
}

impl MemoryNetwork {
    /// The most messages that wait at a node, on the way ones included; more are dropped.
    pub const MESSAGES_MAX: usize = 8192;
    /// The most bytes of messages that wait at a node; more are dropped.
    pub const BYTES_MAX: usize = 64 << 20;

    /// A hub on which messages travel encoded. `seed` decides every fault.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { hub: Arc::new(Hub { encoded: true, seats: Mutex::default(), faults: Faults::new(seed) }) }
    }

    /// A hub on which messages travel as they are: fast. Nothing can be corrupted on it.
    #[must_use]
    pub fn by_value(seed: u64) -> Self {
        Self { hub: Arc::new(Hub { encoded: false, seats: Mutex::default(), faults: Faults::new(seed) }) }
    }

    /// The network as `node` sees it. Addresses mean nothing on it.
    #[must_use]
    pub fn endpoint(&self, node: NodeId) -> MemoryEndpoint {
        MemoryEndpoint { hub: Arc::clone(&self.hub), node }
    }

    /// What goes wrong, adjustable at any time from any thread.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.hub.faults.clone()
    }
}

/// The in-memory network of one node.
#[derive(Debug)]
pub struct MemoryEndpoint {
    hub: Arc<Hub>,
    node: NodeId,
}

impl Network for MemoryEndpoint {
    fn start(self: Box<Self>, local: Local) -> LocalFuture<Result<Box<dyn Links>, NetworkError>> {
        Box::pin(async move {
            if local.node != self.node {
                let (node, endpoint) = (local.node, self.node);
                return Err(NetworkError(format!(
                    "node {node} was given the endpoint of node {endpoint}: give it its own"
                )));
            }
            let (sender, receiver) = mpsc::unbounded_channel();
            let seat = Seat { sender, load: Arc::default(), cluster: local.cluster.into() };
            self.hub.seat(self.node, seat.clone())?;
            let linked = Rc::new(RefCell::new(BTreeMap::new()));
            let receiving = Receiving {
                load: Arc::clone(&seat.load),
                inbox: local.inbox,
                observer: Arc::clone(&local.observer),
                linked: Rc::clone(&linked),
                held: BTreeMap::new(),
                arrived: 0,
            };
            let task = spawn_local(receiving.run(receiver)).abort_handle();
            let here = Here { hub: self.hub, node: self.node, seat, observer: local.observer, linked };
            Ok(Box::new(MemoryLinks { here: Rc::new(here), task }) as Box<dyn Links>)
        })
    }
}

#[derive(Debug)]
struct Hub {
    encoded: bool,
    seats: Mutex<BTreeMap<NodeId, Seat>>,
    faults: Faults,
}

impl Hub {
    /// Takes a seat and tells the others.
    fn seat(&self, node: NodeId, seat: Seat) -> Result<(), NetworkError> {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if seats.contains_key(&node) {
            return Err(NetworkError(format!("node {node} runs already on this in-memory network: stop it first")));
        }
        for other in seats.values() {
            let _ = other.sender.send(Parcel::Up(node));
        }
        seats.insert(node, seat);
        Ok(())
    }

    fn leave(&self, node: NodeId) {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if seats.remove(&node).is_some() {
            for other in seats.values() {
                let _ = other.sender.send(Parcel::Down(node));
            }
        }
    }

    /// Where `node` can be reached, if it runs and belongs to `cluster`.
    fn find(&self, node: NodeId, cluster: &str) -> Option<Seat> {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.get(&node).filter(|seat| &*seat.cluster == cluster).cloned()
    }
}

/// A node's place at the hub.
#[derive(Clone, Debug)]
struct Seat {
    sender: UnboundedSender<Parcel>,
    load: Arc<Load>,
    cluster: Arc<str>,
}

/// What waits at a node.
#[derive(Debug, Default)]
struct Load {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Load {
    fn add(&self, bytes: usize) -> bool {
        let messages = self.messages.fetch_add(1, Ordering::Relaxed);
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = messages < MemoryNetwork::MESSAGES_MAX && waiting + bytes <= MemoryNetwork::BYTES_MAX;
        if !fits {
            self.remove(bytes);
        }
        fits
    }

    fn remove(&self, bytes: usize) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Parcel {
    Message { from: NodeId, due: Option<Instant>, bytes: usize, content: Content },
    Up(NodeId),
    Down(NodeId),
}

#[derive(Debug)]
enum Content {
    Value(Message),
    Frame(Bytes),
}

/// What a node's links share.
struct Here {
    hub: Arc<Hub>,
    node: NodeId,
    seat: Seat,
    observer: Arc<dyn NetworkObserver>,
    linked: Rc<RefCell<BTreeMap<NodeId, Linked>>>,
}

/// Links to one peer, usually one.
#[derive(Default)]
struct Linked {
    count: usize,
    up: bool,
}

struct MemoryLinks {
    here: Rc<Here>,
    task: AbortHandle,
}

impl Links for MemoryLinks {
    fn link(&self, peer: NodeId, _address: &str) -> Rc<dyn Link> {
        self.here.linked.borrow_mut().entry(peer).or_default().count += 1;
        if self.here.hub.find(peer, &self.here.seat.cluster).is_some() {
            let _ = self.here.seat.sender.send(Parcel::Up(peer));
        }
        Rc::new(MemoryLink { here: Rc::clone(&self.here), peer, route: RefCell::new(None) })
    }

    fn local_address(&self) -> Option<SocketAddr> {
        None
    }

    fn close(&self) -> LocalFuture<()> {
        self.here.hub.leave(self.here.node);
        self.task.abort();
        Box::pin(std::future::ready(()))
    }
}

impl Drop for MemoryLinks {
    fn drop(&mut self) {
        self.here.hub.leave(self.here.node);
        self.task.abort();
    }
}

struct MemoryLink {
    here: Rc<Here>,
    peer: NodeId,
    /// Where the peer was found last; looked up again once it is gone.
    route: RefCell<Option<Seat>>,
}

impl MemoryLink {
    fn route(&self) -> Option<Seat> {
        let mut route = self.route.borrow_mut();
        if route.as_ref().is_none_or(|seat| seat.sender.is_closed()) {
            *route = self.here.hub.find(self.peer, &self.here.seat.cluster);
        }
        route.clone()
    }

    fn put(&self, to: &Seat, due: Option<Instant>, bytes: usize, content: Content) {
        if !to.load.add(bytes) {
            return self.dropped("queue_full");
        }
        let parcel = Parcel::Message { from: self.here.node, due, bytes, content };
        if to.sender.send(parcel).is_err() {
            to.load.remove(bytes);
            self.dropped("unconnected");
        }
    }

    fn dropped(&self, reason: &'static str) {
        self.here.observer.dropped(Some(self.peer), reason);
    }
}

impl Link for MemoryLink {
    fn send(&self, message: Message) {
        let Here { hub, node, observer, .. } = &*self.here;
        let Some(to) = self.route() else {
            return self.dropped("unconnected");
        };
        let lane = Lane::of(&message);
        let (content, bytes) = if hub.encoded {
            let Ok(frame) = Encoder::default().message(&message) else {
                return self.dropped("too_long");
            };
            let mut joined = BytesMut::with_capacity(frame.len());
            joined.extend_from_slice(&frame.head);
            joined.extend_from_slice(&frame.body);
            (Content::Frame(joined.freeze()), frame.len())
        } else {
            let bytes = message.bulk().len() + size_of::<Message>();
            (Content::Value(message), bytes)
        };
        observer.bytes(self.peer, Direction::Sent, lane, bytes as u64);
        if !hub.faults.are_on() {
            return self.put(&to, None, bytes, content);
        }
        match hub.faults.decide(*node, self.peer, Instant::now()) {
            Fate::Lost(reason) => self.dropped(reason),
            Fate::Arrives { copies, corrupt_at } => {
                for due in copies {
                    self.put(&to, due, bytes, copy(&content, corrupt_at));
                }
            }
        }
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        let mut linked = self.here.linked.borrow_mut();
        if let Some(links) = linked.get_mut(&self.peer) {
            links.count -= 1;
            if links.count == 0 {
                linked.remove(&self.peer);
            }
        }
    }
}

/// A copy, with one bit flipped at a place that `corrupt_at` chooses. A value has no bits to flip.
fn copy(content: &Content, corrupt_at: Option<u64>) -> Content {
    match (content, corrupt_at) {
        (Content::Value(message), _) => Content::Value(message.clone()),
        (Content::Frame(frame), None) => Content::Frame(frame.clone()),
        (Content::Frame(frame), Some(at)) => {
            let mut damaged = frame.to_vec();
            let bit = at % (damaged.len() as u64 * 8);
            damaged[(bit / 8) as usize] ^= 1 << (bit % 8);
            Content::Frame(damaged.into())
        }
    }
}

/// A node's receiving end: one task.
struct Receiving {
    load: Arc<Load>,
    inbox: Inbox,
    observer: Arc<dyn NetworkObserver>,
    linked: Rc<RefCell<BTreeMap<NodeId, Linked>>>,
    /// What arrived and is not due yet, in the order in which it will be; equal instants in the order of arrival.
    held: BTreeMap<(Instant, u64), (NodeId, usize, Content)>,
    arrived: u64,
}

impl Receiving {
    async fn run(mut self, mut receiver: UnboundedReceiver<Parcel>) {
        loop {
            let parcel = match self.held.first_key_value() {
                None => receiver.recv().await,
                Some((&(due, _), _)) => tokio::select! {
                    biased;
                    () = sleep_until(due) => {
                        self.deliver_due().await;
                        continue;
                    }
                    parcel = receiver.recv() => parcel,
                },
            };
            match parcel {
                None => return,
                Some(Parcel::Up(peer)) => self.changed(peer, true),
                Some(Parcel::Down(peer)) => self.changed(peer, false),
                Some(Parcel::Message { from, due: None, bytes, content }) if self.held.is_empty() => {
                    self.deliver(from, bytes, content).await;
                }
                Some(Parcel::Message { from, due, bytes, content }) => {
                    // One that is due at once waits its turn too: timers are coarse, and it must not overtake.
                    self.arrived += 1;
                    let due = due.unwrap_or_else(Instant::now);
                    self.held.insert((due, self.arrived), (from, bytes, content));
                }
            }
        }
    }

    async fn deliver_due(&mut self) {
        let now = Instant::now();
        while let Some(next) = self.held.first_entry() {
            if next.key().0 > now {
                return;
            }
            let (from, bytes, content) = next.remove();
            self.deliver(from, bytes, content).await;
        }
    }

    async fn deliver(&self, from: NodeId, bytes: usize, content: Content) {
        let message = match content {
            Content::Value(message) => Some(message),
            Content::Frame(frame) => decode(frame),
        };
        match message {
            Some(message) => {
                let lane = Lane::of(&message);
                self.observer.bytes(from, Direction::Received, lane, bytes as u64);
                self.inbox.deliver(from, message, bytes).await;
            }
            None => self.observer.dropped(Some(from), "malformed"),
        }
        self.load.remove(bytes);
    }

    fn changed(&self, peer: NodeId, up: bool) {
        let changed = match self.linked.borrow_mut().get_mut(&peer) {
            Some(links) => std::mem::replace(&mut links.up, up) != up,
            None => false,
        };
        match (changed, up) {
            (false, _) => {}
            (true, true) => self.inbox.link_up(peer),
            (true, false) => self.inbox.link_down(peer),
        }
    }
}

/// The message of a buffer that should hold exactly one frame.
fn decode(mut frame: Bytes) -> Option<Message> {
    match Decoder::new(Limits::default()).feed(&mut frame) {
        Ok(Some(decoded)) if frame.is_empty() => match decoded.frame {
            Frame::Message(message) => Some(message),
            Frame::Hello(_) => None,
        },
        _ => None,
    }
}
