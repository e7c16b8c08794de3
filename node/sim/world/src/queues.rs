//! Queues between the actors of a node.

use super::node::Actor;
use quorate_raft::NodeId;
use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
};

/// A queue for every actor. Finding an actor with something to do costs a bit test.
#[derive(Debug)]
pub struct Queues<T> {
    /// A bit for every queue that is not empty.
    waiting: u64,
    queues: Vec<VecDeque<T>>,
}

/// The queues of actors beside the replicators.
const FIXED: usize = 4;

impl<T> Queues<T> {
    /// Puts a message at the end of the queue of `actor`.
    ///
    /// # Panics
    /// If the actor is the replicator of a node above 60: worlds are small.
    pub fn push(&mut self, actor: Actor, item: T) {
        let slot = slot_of(actor);
        assert!(slot < 64, "{actor:?} in a world of fewer nodes");
        if slot >= self.queues.len() {
            self.queues.resize_with(slot + 1, VecDeque::new);
        }
        self.queues[slot].push_back(item);
        self.waiting |= 1 << slot;
    }

    /// Takes the first message for `actor`.
    pub fn pop(&mut self, actor: Actor) -> Option<T> {
        let slot = slot_of(actor);
        let queue = self.queues.get_mut(slot)?;
        let first = queue.pop_front();
        if queue.is_empty() {
            self.waiting &= !(1 << slot);
        }
        first
    }

    /// The messages for `actor`, in order.
    pub fn of(&self, actor: Actor) -> impl ExactSizeIterator<Item = &T> {
        self.queues.get(slot_of(actor)).map_or_else(Default::default, VecDeque::iter)
    }

    /// Whether the queue of `actor` holds a message.
    #[must_use]
    pub fn has(&self, actor: Actor) -> bool {
        slot_of(actor) < 64 && self.waiting & 1 << slot_of(actor) != 0
    }

    /// The actors with a message, a bit each: see [`nth`].
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// The same, in order.
    pub fn actors(&self) -> impl Iterator<Item = Actor> + use<T> {
        let waiting = self.waiting;
        (0..waiting.count_ones()).map(move |n| nth(waiting, n))
    }

    /// The length of the longest queue.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.queues.iter().map(VecDeque::len).max().unwrap_or_default()
    }
}

impl<T> Default for Queues<T> {
    fn default() -> Self {
        Self { waiting: 0, queues: Vec::new() }
    }
}

impl<T: Clone> Clone for Queues<T> {
    /// Explorations clone millions, most of them empty: room for later is not cloned.
    fn clone(&self) -> Self {
        let used = (u64::BITS - self.waiting.leading_zeros()) as usize;
        Self { waiting: self.waiting, queues: self.queues[..used].to_vec() }
    }
}

impl<T: Hash> Hash for Queues<T> {
    /// A queue that is empty is like one that never was.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.waiting.hash(state);
        self.queues.iter().filter(|queue| !queue.is_empty()).for_each(|queue| queue.hash(state));
    }
}

/// The bits of the actors that write: the disk and the keeper.
pub const WRITERS: u64 = 0b110;

/// The actor at position `n` of a set of bits, counted from 0.
#[must_use]
pub fn nth(mut actors: u64, n: u32) -> Actor {
    for _ in 0..n {
        actors &= actors.wrapping_sub(1);
    }
    actor_of(actors.trailing_zeros() as usize)
}

fn slot_of(actor: Actor) -> usize {
    match actor {
        Actor::Collector => 0,
        Actor::Disk => 1,
        Actor::Keeper => 2,
        Actor::Applier => 3,
        Actor::Replicator(peer) => usize::try_from(peer.0).unwrap_or(usize::MAX - FIXED) + FIXED,
    }
}

fn actor_of(slot: usize) -> Actor {
    match slot {
        0 => Actor::Collector,
        1 => Actor::Disk,
        2 => Actor::Keeper,
        3 => Actor::Applier,
        _ => Actor::Replicator(NodeId((slot - FIXED) as u64)),
    }
}
