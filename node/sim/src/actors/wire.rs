//! The network of a simulated cluster: real frames, in memory, that take as long and fare as badly as the plan says.
//!
//! The nodes' clocks are not one, so the network keeps the cluster's own time: what is sent leaves now, and arrives when the
//! driver hands it over, in a later turn. Within a lane the order is kept unless it is to be broken; between lanes there is none.

mod endpoint;

pub(super) use endpoint::{Endpoint, decode};

use super::witness::SharedWitness;
use crate::plan::Fault;
use bytes::{Bytes, BytesMut};
use quorate::NodeId;
use quorate_raft::Message;
use quorate_transport::{
    codec::Encoder,
    network::{Introduction, Lane},
};
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

/// What all nodes of a cluster are connected by.
#[derive(Clone)]
pub(super) struct Wire(Arc<Mutex<State>>);

/// The most frames that wait at a node, on their way or unhandled; more are dropped.
const WAITING_MAX: usize = 8192;
/// The least that a frame takes.
const LATENCY: Duration = Duration::from_millis(1);
/// A message that may be overtaken is held back by up to this much.
const REORDER_WITHIN: Duration = Duration::from_millis(40);
/// After this long without the other end a link counts as down, at the latest.
const NOTICED_WITHIN: Duration = Duration::from_millis(250);

struct State {
    now: Duration,
    random: SmallRng,
    /// What is on its way, in the order in which it arrives.
    flying: BTreeMap<(Duration, u64), Parcel>,
    sent: u64,
    last_due: BTreeMap<(NodeId, NodeId, u8), Duration>,
    seats: BTreeMap<NodeId, Seat>,
    seats_taken: u64,
    faults: Vec<Fault>,
    /// Nodes that say nothing any more: they are about to be dead.
    silent: BTreeSet<NodeId>,
    /// How many more messages a node says before it dies.
    last_words: BTreeMap<NodeId, u16>,
    /// When something from one node last arrived at another.
    heard: BTreeMap<(NodeId, NodeId), Duration>,
    witness: SharedWitness,
}

/// Where a running node receives.
struct Seat {
    number: u64,
    lanes: [UnboundedSender<Incoming>; 3],
    waiting: Arc<AtomicUsize>,
    /// The facts that its node states about itself.
    introduction: Introduction,
}

struct Parcel {
    to: NodeId,
    /// Of which life of the receiver; `None`: of whichever there is then.
    seat: Option<u64>,
    lane: u8,
    incoming: Incoming,
}

/// What arrives at a node.
#[derive(Clone)]
enum Incoming {
    Frame { from: NodeId, frame: Bytes, is_corrupt: bool },
    Up(NodeId, Introduction),
    Down(NodeId),
}

impl Wire {
    pub(super) fn new(seed: u64, witness: SharedWitness) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: Duration::ZERO,
            random: SmallRng::seed_from_u64(seed ^ 0x7769_7265),
            flying: BTreeMap::new(),
            sent: 0,
            last_due: BTreeMap::new(),
            seats: BTreeMap::new(),
            seats_taken: 0,
            faults: Vec::new(),
            silent: BTreeSet::new(),
            last_words: BTreeMap::new(),
            heard: BTreeMap::new(),
            witness,
        })))
    }

    /// What goes wrong from now on.
    pub(super) fn set_faults(&self, faults: Vec<Fault>) {
        self.lock().faults = faults;
    }

    /// A node dies with the `nth` message from now on: that one is not sent.
    pub(super) fn die_at(&self, node: NodeId, nth: u16) {
        self.lock().last_words.insert(node, nth);
    }

    /// Nobody dies so any more.
    pub(super) fn forget_plans(&self) {
        self.lock().last_words.clear();
    }

    /// Whether a node died so.
    pub(super) fn has_died(&self, node: NodeId) -> bool {
        self.lock().silent.contains(&node)
    }

    /// A node is no more: its peers notice after a while.
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

    /// Time passes: what is due by now arrives.
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

    /// A node that does not run says something. It arrives soon, or the sender might be a member by then.
    pub(super) fn says_from_outside(&self, from: NodeId, to: NodeId, message: &Message) {
        let state = &mut *self.lock();
        if let Some(frame) = encoded(message) {
            let incoming = Incoming::Frame { from, frame, is_corrupt: false };
            state.put(state.now + LATENCY, Parcel { to, seat: None, lane: lane_of(message), incoming });
        }
    }

    /// From how many others something has arrived at a node since then.
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
            self.witness.lock().arrived(*from, to, frame);
        }
        // A seat whose tasks are gone takes nothing: its node is about to be removed.
        let _ = here.lanes[usize::from(lane)].send(incoming);
    }

    /// `from` says something. It knows of nothing that becomes of it.
    fn send(&mut self, from: NodeId, to: NodeId, message: &Message) {
        if self.silent.contains(&from) || !self.seats.contains_key(&from) {
            return;
        }
        if let Some(left) = self.last_words.get_mut(&from) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.silent.insert(from);
                self.witness.lock().disk(from).disk.halt();
                return;
            }
        }
        self.witness.lock().sent(from, to, message);
        if let Some(frame) = encoded(message) {
            self.fly(from, to, lane_of(message), frame);
        }
    }

    fn fly(&mut self, from: NodeId, to: NodeId, lane: u8, frame: Bytes) {
        let (now, mut takes, mut copies, mut corrupt, mut overtaken) = (self.now, LATENCY, 1, false, false);
        let random = &mut self.random;
        let mut fired = Vec::new();
        for fault in &self.faults {
            let mut chance = |per_mille: u16| random.random_range(0..1000) < per_mille;
            let between = |one: &NodeId, other: &NodeId| [(*one, *other), (*other, *one)].contains(&(from, to));
            let fires = match fault {
                Fault::Drop { way, per_mille } if way.leads(from, to) && chance(*per_mille) => {
                    copies = 0;
                    true
                }
                Fault::CutOneWay { from: one, to: other } if (*one, *other) == (from, to) => {
                    copies = 0;
                    true
                }
                Fault::CutLink { one, other } if between(one, other) => {
                    copies = 0;
                    true
                }
                Fault::Partition { some } if some.contains(&from) != some.contains(&to) => {
                    copies = 0;
                    true
                }
                Fault::Flap { one, other, every } if between(one, other) => {
                    let is_down = (now.as_millis() / every.as_millis().max(1)) % 2 == 1;
                    copies = if is_down { 0 } else { copies };
                    is_down
                }
                Fault::Duplicate { way, per_mille } if way.leads(from, to) && chance(*per_mille) => {
                    copies *= 2;
                    true
                }
                Fault::Corrupt { way, per_mille } if way.leads(from, to) && chance(*per_mille) => {
                    corrupt = true;
                    true
                }
                Fault::Reorder { way, per_mille } if way.leads(from, to) && chance(*per_mille) => {
                    overtaken = true;
                    true
                }
                Fault::Delay { way, up_to } if way.leads(from, to) => {
                    takes += up_to.mul_f64(random.random_range(0.0..1.0));
                    true
                }
                Fault::SlowLink { way, by } if way.leads(from, to) => {
                    takes += *by;
                    true
                }
                _ => false,
            };
            if fires {
                fired.push(fault.kind());
            }
        }
        let bit = corrupt.then(|| random.random_range(0..frame.len() * 8));
        let frame = bit.map_or(frame.clone(), |bit| {
            let mut damaged = frame.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            damaged.into()
        });
        for copy in 0..copies.min(4) {
            let last = self.last_due.entry((from, to, lane)).or_default();
            let mut due = (now + takes).max(*last);
            if overtaken || copy > 0 {
                due += REORDER_WITHIN.mul_f64(self.random.random_range(0.0..1.0));
            } else {
                *last = due;
            }
            let incoming = Incoming::Frame { from, frame: frame.clone(), is_corrupt: corrupt };
            self.put(due, Parcel { to, seat: None, lane, incoming });
        }
        let mut witness = self.witness.lock();
        fired.into_iter().for_each(|kind| witness.report.fired(kind));
    }
}

fn encoded(message: &Message) -> Option<Bytes> {
    let frame = Encoder::default().message(message).ok()?;
    let mut joined = BytesMut::with_capacity(frame.len());
    joined.extend_from_slice(&frame.head);
    joined.extend_from_slice(&frame.body);
    Some(joined.freeze())
}

fn lane_of(message: &Message) -> u8 {
    match Lane::of(message) {
        Lane::Control => 0,
        Lane::Append => 1,
        Lane::Snapshot => 2,
    }
}
