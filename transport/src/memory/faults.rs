//! Faults of the in-memory network, decided message by message under a seed.

use super::{LANES, hub::place};
use crate::network::Lane;
use quorate_raft::NodeId;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// A handle to the faults: clone it, and change them while the nodes run. None is on at first.
#[derive(Clone, Debug)]
pub struct Faults {
    shared: Arc<Shared>,
}

/// Faults in one direction between two nodes. Probabilities lie in `0.0..=1.0`.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkFaults {
    /// The probability that a message is lost.
    pub drop: f64,
    /// The probability that it arrives twice.
    pub duplicate: f64,
    /// The probability that it may be overtaken: it is held back for up to `reorder_within` more.
    pub reorder: f64,
    /// See `reorder`. Default: 20 ms.
    pub reorder_within: Duration,
    /// The probability that one bit of it flips. The receiver's decoder finds that and drops it.
    /// Without effect where messages travel by value.
    pub corrupt: f64,
    /// How long it takes: drawn evenly from here. Without `reorder` the order within a lane stays.
    pub delay: RangeInclusive<Duration>,
}

impl Default for LinkFaults {
    /// A perfect link.
    fn default() -> Self {
        Self {
            drop: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_within: Duration::from_millis(20),
            corrupt: 0.0,
            delay: Duration::ZERO..=Duration::ZERO,
        }
    }
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        let state = State {
            seed,
            everywhere: LinkFaults::default(),
            between: BTreeMap::new(),
            cuts: BTreeSet::new(),
            isolated: BTreeSet::new(),
            links: BTreeMap::new(),
        };
        Self { shared: Arc::new(Shared { on: AtomicBool::new(false), state: Mutex::new(state) }) }
    }

    /// Sets the faults between all nodes for which [`Faults::between`] sets none.
    pub fn everywhere(&self, faults: LinkFaults) {
        self.change(|state| state.everywhere = faults);
    }

    /// Sets the faults from one node to another. The way back has its own.
    pub fn between(&self, from: NodeId, to: NodeId, faults: LinkFaults) {
        self.change(|state| {
            state.between.insert((from, to), faults);
        });
    }

    /// Loses everything on the way from one node to another, and nothing on the way back.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.change(|state| {
            state.cuts.insert((from, to));
        });
    }

    /// Ends a [`Faults::cut`].
    pub fn mend(&self, from: NodeId, to: NodeId) {
        self.change(|state| {
            state.cuts.remove(&(from, to));
        });
    }

    /// Loses everything between two groups of nodes, both ways.
    pub fn partition(&self, some: &[NodeId], others: &[NodeId]) {
        self.change(|state| {
            for (&one, &other) in some.iter().flat_map(|one| others.iter().map(move |other| (one, other))) {
                state.cuts.extend([(one, other), (other, one)]);
            }
        });
    }

    /// Loses everything that one node sends and everything sent to it.
    pub fn isolate(&self, node: NodeId) {
        self.change(|state| {
            state.isolated.insert(node);
        });
    }

    /// Ends every cut, partition and isolation; other faults stay.
    pub fn heal(&self) {
        self.change(|state| {
            state.cuts.clear();
            state.isolated.clear();
        });
    }

    /// Ends every fault.
    pub fn clear(&self) {
        self.change(|state| {
            state.cuts.clear();
            state.isolated.clear();
            state.between.clear();
            state.everywhere = LinkFaults::default();
        });
    }

    /// Whether anything can go wrong, or something that was delayed is still on its way.
    pub(super) fn are_on(&self) -> bool {
        self.shared.on.load(Ordering::Relaxed)
    }

    /// The fate of the next message on a link.
    pub(super) fn decide(&self, from: NodeId, to: NodeId, lane: Lane, now: Instant) -> Fate {
        self.lock().decide(from, to, lane, now)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        // It stays on: a message sent after the faults ended must not overtake one that
        // was delayed before.
        self.shared.on.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fate of one message.
#[derive(Debug, PartialEq)]
pub(super) enum Fate {
    /// Lost, and counted as dropped for this reason.
    Lost(&'static str),
    /// Delivered, perhaps late, twice or damaged.
    Arrives {
        /// When: an instant a copy, `None` at once.
        copies: Vec<Option<Instant>>,
        /// Which bit flips, modulo its length.
        corrupt_at: Option<u64>,
    },
}

#[derive(Debug)]
struct Shared {
    on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seed: u64,
    everywhere: LinkFaults,
    between: BTreeMap<(NodeId, NodeId), LinkFaults>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    isolated: BTreeSet<NodeId>,
    links: BTreeMap<(NodeId, NodeId), LinkState>,
}

#[derive(Debug)]
struct LinkState {
    random: StdRng,
    /// When the last message that keeps its place arrives, lane by lane.
    last_due: [Option<Instant>; LANES.len()],
}

impl State {
    fn decide(&mut self, from: NodeId, to: NodeId, lane: Lane, now: Instant) -> Fate {
        let faults = self.between.get(&(from, to)).unwrap_or(&self.everywhere);
        let seed = self.seed;
        let link = self.links.entry((from, to)).or_insert_with(|| LinkState::new(seed, from, to));
        // As many draws whatever is set, so that turning one fault on does not change when
        // the others strike.
        let [drop, duplicate, reorder, corrupt] = std::array::from_fn(|_| link.random.random::<f64>());
        let bit = link.random.random::<u64>();
        let delays: [f64; 3] = std::array::from_fn(|_| link.random.random());
        if self.cuts.contains(&(from, to)) || self.isolated.contains(&from) || self.isolated.contains(&to) {
            return Fate::Lost("fault_cut");
        }
        if drop < faults.drop {
            return Fate::Lost("fault_drop");
        }
        let held_back = (reorder < faults.reorder).then(|| faults.reorder_within.mul_f64(delays[2]));
        let mut copies = vec![link.due(lane, now, faults, delays[0], held_back)];
        if duplicate < faults.duplicate {
            copies.push(link.due(lane, now, faults, delays[1], held_back));
        }
        Fate::Arrives { copies, corrupt_at: (corrupt < faults.corrupt).then_some(bit) }
    }
}

impl LinkState {
    fn new(seed: u64, from: NodeId, to: NodeId) -> Self {
        let mut bytes = [0u8; 32];
        bytes[0..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&from.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&to.0.to_le_bytes());
        Self { random: StdRng::from_seed(bytes), last_due: [None; LANES.len()] }
    }

    fn due(
        &mut self,
        lane: Lane,
        now: Instant,
        faults: &LinkFaults,
        at: f64,
        held_back: Option<Duration>,
    ) -> Option<Instant> {
        let (shortest, longest) = (*faults.delay.start(), *faults.delay.end());
        let due = now + shortest + longest.saturating_sub(shortest).mul_f64(at);
        let last_due = &mut self.last_due[place(lane)];
        let due = match held_back {
            Some(more) => due + more,
            None => {
                let due = last_due.map_or(due, |last| last.max(due));
                *last_due = Some(due);
                due
            }
        };
        (due > now).then_some(due)
    }
}
