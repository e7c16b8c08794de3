//! The network of a simulated cluster: real frames in memory, with the delays and losses
//! of the plan.
//!
//! The nodes' clocks differ, so the network keeps the cluster's own time: a message leaves at once,
//! and arrives when the driver delivers it, in a later turn. Messages of one lane keep their order
//! unless a fault breaks it; messages of different lanes have none. It keeps the messages under
//! way, and [`fate`](quorate_transport_testing::fate) decides their fate.

mod endpoint;

pub(super) use endpoint::Endpoint;

use super::{
    frames::{encoded, lane_of},
    observer::SharedObserver,
};
use crate::plan::{Fault, links};
use bytes::Bytes;
use quorate::NodeId;
use quorate_raft::Message;
use quorate_transport::network::Introduction;
use quorate_transport_testing::fate::{Fate, Order, flip};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc::UnboundedSender;

/// The network that connects all nodes of a cluster.
#[derive(Clone)]
pub(super) struct Wire(Arc<Mutex<State>>);

/// The most frames that a receiver may have unhandled; further ones are dropped.
const WAITING_MAX: usize = 8192;
/// The least time that a frame takes.
const LATENCY: Duration = Duration::from_millis(1);
/// The longest time after which a peer notices that a link is down.
const NOTICED_WITHIN: Duration = Duration::from_millis(250);

struct State {
    now: Duration,
    random: SmallRng,
    /// Parcels under way, in the order of their arrival.
    flying: BTreeMap<(Duration, u64), Parcel>,
    sent: u64,
    orders: BTreeMap<(NodeId, NodeId, u8), Order>,
    seats: BTreeMap<NodeId, Seat>,
    seats_taken: u64,
    faults: Vec<Fault>,
    /// Nodes that send nothing more: they are about to die.
    silent: BTreeSet<NodeId>,
    /// The number of messages that a node still sends before it dies.
    last_words: BTreeMap<NodeId, u16>,
    /// The time of the last arrival from one node at another.
    heard: BTreeMap<(NodeId, NodeId), Duration>,
    observer: SharedObserver,
}

/// The receiving side of a running node.
struct Seat {
    number: u64,
    lanes: [UnboundedSender<Incoming>; 3],
    waiting: Arc<AtomicUsize>,
    /// The facts that its node states about itself.
    introduction: Introduction,
}

struct Parcel {
    to: NodeId,
    /// The life of the receiver that it is meant for; `None` for the life at its arrival.
    seat: Option<u64>,
    lane: u8,
    incoming: Incoming,
}

/// An event that arrives at a node.
#[derive(Clone)]
enum Incoming {
    Frame { from: NodeId, frame: Bytes, is_corrupt: bool },
    Up(NodeId, Introduction),
    Down(NodeId),
}

impl Wire {
    pub(super) fn new(seed: u64, observer: SharedObserver) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: Duration::ZERO,
            random: SmallRng::seed_from_u64(seed ^ 0x7769_7265),
            flying: BTreeMap::new(),
            sent: 0,
            orders: BTreeMap::new(),
            seats: BTreeMap::new(),
            seats_taken: 0,
            faults: Vec::new(),
            silent: BTreeSet::new(),
            last_words: BTreeMap::new(),
            heard: BTreeMap::new(),
            observer,
        })))
    }

    /// Replaces the faults in effect.
    pub(super) fn set_faults(&self, faults: Vec<Fault>) {
        self.lock().faults = faults;
    }

    /// The node dies with its `nth` message from now on, and that one is not sent.
    pub(super) fn die_at(&self, node: NodeId, nth: u16) {
        self.lock().last_words.insert(node, nth);
    }

    /// Cancels the deaths planned with `die_at`.
    pub(super) fn forget_plans(&self) {
        self.lock().last_words.clear();
    }

    /// Whether the node died as `die_at` planned.
    pub(super) fn has_died(&self, node: NodeId) -> bool {
        self.lock().silent.contains(&node)
    }

    /// A node is gone: its peers notice after a while.
    pub(super) fn remove(&self, node: NodeId) {
        let state = &mut *self.lock();
        state.silent.remove(&node);
        state.last_words.remove(&node);
        if state.seats.remove(&node).is_some() {
            let others: Vec<_> = state.seats.iter().map(|(id, seat)| (*id, seat.number)).collect();
            for (to, seat) in others {
                let noticed = state.now + state.random.random_range(LATENCY..NOTICED_WITHIN);
                state.put(noticed, Parcel { to, seat: Some(seat), lane: 0, incoming: Incoming::Down(node) });
            }
        }
    }

    /// Advances the time to `now`, and delivers all parcels due by then.
    pub(super) fn deliver(&self, now: Duration) {
        let state = &mut *self.lock();
        state.now = now;
        while let Some(first) = state.flying.first_entry() {
            if first.key().0 > now {
                return;
            }
            let parcel = first.remove();
            state.arrive(parcel);
        }
    }

    /// Sends a message from a node that does not run. It arrives soon, before the sender can
    /// be a member.
    pub(super) fn says_from_outside(&self, from: NodeId, to: NodeId, message: &Message) {
        let state = &mut *self.lock();
        if let Some(frame) = encoded(message) {
            let incoming = Incoming::Frame { from, frame, is_corrupt: false };
            state.put(state.now + LATENCY, Parcel { to, seat: None, lane: lane_of(message), incoming });
        }
    }

    /// The number of nodes from which a message has arrived at `node` since then.
    pub(super) fn heard_since(&self, node: NodeId, since: Duration) -> usize {
        self.lock().heard.iter().filter(|((_, to), at)| *to == node && **at >= since).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, due: Duration, parcel: Parcel) {
        self.sent += 1;
        self.flying.insert((due, self.sent), parcel);
    }

    fn arrive(&mut self, parcel: Parcel) {
        let Parcel { to, seat, lane, incoming } = parcel;
        let here = self.seats.get(&to).filter(|here| seat.is_none_or(|number| number == here.number));
        let Some(here) = here else { return };
        if let Incoming::Frame { from, frame, .. } = &incoming {
            if here.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
                here.waiting.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            self.heard.insert((*from, to), self.now);
            self.observer.lock().arrived(*from, to, frame);
        }
        // A seat without tasks takes nothing: its node is about to be removed.
        let _ = here.lanes[usize::from(lane)].send(incoming);
    }

    /// Sends a message. The sender does not learn its fate.
    fn send(&mut self, from: NodeId, to: NodeId, message: &Message) {
        if self.silent.contains(&from) || !self.seats.contains_key(&from) {
            return;
        }
        if let Some(left) = self.last_words.get_mut(&from) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.silent.insert(from);
                self.observer.lock().disk(from).disk.halt();
                return;
            }
        }
        self.observer.lock().sent(from, to, message);
        if let Some(frame) = encoded(message) {
            self.fly(from, to, lane_of(message), frame);
        }
    }

    fn fly(&mut self, from: NodeId, to: NodeId, lane: u8, frame: Bytes) {
        let faults = links::on_link(self.faults.iter(), from, to, self.now);
        let fate = faults.fate(&mut self.random);
        let mut observer = self.observer.lock();
        links::fired(&faults, &fate).for_each(|kind| observer.report.fired(kind));
        drop(observer);
        let Fate::Arrives { first, second, flipped_bit } = fate else { return };
        let frame = match flipped_bit {
            Some(bit) => {
                let mut damaged = frame.to_vec();
                flip(&mut damaged, bit);
                damaged.into()
            }
            None => frame,
        };
        for arrival in [Some(first), second].into_iter().flatten() {
            let due = self.orders.entry((from, to, lane)).or_default().due(arrival, self.now + LATENCY);
            let incoming = Incoming::Frame { from, frame: frame.clone(), is_corrupt: flipped_bit.is_some() };
            self.put(due, Parcel { to, seat: None, lane, incoming });
        }
    }
}
