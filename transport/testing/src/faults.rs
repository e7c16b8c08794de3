//! The faults of a whole network: a handle with which a test changes them while the nodes run.

use crate::fate::{Arrival, Fate, LinkFaults, Loss, Order};
use quorate_raft::NodeId;
use quorate_transport::network::{DropReason, Lane};
use rand::{SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::time::Instant;

/// A handle to the faults: clone it, and change them from any thread. None is on at first.
#[derive(Clone, Debug)]
pub struct Faults {
    shared: Arc<Shared>,
}

impl Faults {
    /// No faults yet; `seed` decides which messages the later ones strike.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            seed,
            began: None,
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

    /// Whether a fault was ever on: without any, a message needs no decision and no timer.
    pub(crate) fn are_on(&self) -> bool {
        self.shared.on.load(Ordering::Relaxed)
    }

    /// Decides the fate of the next message on a link, with the times of its copies.
    pub(crate) fn decide(&self, from: NodeId, to: NodeId, lane: Lane, now: Instant) -> Decided {
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

/// The fate of one message, in time.
pub(crate) enum Decided {
    /// Lost, and counted as dropped for this reason.
    Lost(DropReason),
    /// At these times, with this bit of every copy flipped: see [`flip`](crate::fate::flip).
    Arrives { first: Instant, second: Option<Instant>, flipped_bit: Option<u64> },
}

#[derive(Debug)]
struct Shared {
    on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seed: u64,
    /// The time of the first decision: [`Order`] counts from it.
    began: Option<Instant>,
    everywhere: LinkFaults,
    between: BTreeMap<(NodeId, NodeId), LinkFaults>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    isolated: BTreeSet<NodeId>,
    links: BTreeMap<(NodeId, NodeId), LinkState>,
}

#[derive(Debug)]
struct LinkState {
    random: StdRng,
    control: Order,
    append: Order,
    snapshot: Order,
}

impl State {
    fn decide(&mut self, from: NodeId, to: NodeId, lane: Lane, now: Instant) -> Decided {
        let mut faults = self.between.get(&(from, to)).unwrap_or(&self.everywhere).clone();
        if self.cuts.contains(&(from, to)) || self.isolated.contains(&from) || self.isolated.contains(&to) {
            faults.cut = Some("fault_cut");
        }
        let (seed, began) = (self.seed, *self.began.get_or_insert(now));
        let link = self.links.entry((from, to)).or_insert_with(|| LinkState::new(seed, from, to));
        let fate = faults.fate(&mut link.random);
        let order = match lane {
            Lane::Control => &mut link.control,
            Lane::Append => &mut link.append,
            Lane::Snapshot => &mut link.snapshot,
        };
        let mut due = |arrival: Arrival| began + order.due(arrival, now - began);
        match fate {
            Fate::Lost(Loss::Cut(_)) => Decided::Lost(DropReason::FaultCut),
            Fate::Lost(Loss::Dropped) => Decided::Lost(DropReason::FaultDrop),
            Fate::Arrives { first, second, flipped_bit } => {
                Decided::Arrives { first: due(first), second: second.map(due), flipped_bit }
            }
        }
    }
}

impl LinkState {
    fn new(seed: u64, from: NodeId, to: NodeId) -> Self {
        let mut bytes = [0u8; 32];
        bytes[0..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&from.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&to.0.to_le_bytes());
        let [control, append, snapshot] = [Order::default(); 3];
        Self { random: StdRng::from_seed(bytes), control, append, snapshot }
    }
}
