//! The network between the nodes of a walk: each link delivers in order, different links in any
//! order, and the faults of the plan interfere.
//!
//! The network keeps the messages under way, and [`fate`](quorate_transport_testing::fate) decides
//! their fate. The walk decides which of the messages that may arrive comes next.

use crate::{
    Report,
    plan::{Fault, links},
};
use quorate_raft::{Message, NodeId};
use quorate_transport_testing::{
    LinkFaults,
    fate::{Arrival, Fate, Order, read_damaged},
};
use quorate_world::world::Envelope;
use rand::{Rng, rngs::SmallRng};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// The most messages in flight between two nodes; a lane that is full loses further ones.
const LANE_MAX: usize = 256;
/// The most messages that left the order of their lane; no more than these leave it.
const STRAYS_MAX: usize = 256;

pub(super) struct Network {
    nodes: usize,
    lanes: Vec<Lane>,
    /// A bit for every lane with a first message that may arrive now.
    ready: u32,
    /// A bit for every lane with a first message that is not due yet. `next_due` is a lower
    /// bound of their times.
    waiting: u32,
    next_due: Duration,
    /// Messages outside the order of their lanes, each with its earliest arrival.
    strays: Vec<(Duration, Arc<Envelope>)>,
    next_stray: Duration,
}

/// The link from one node to another.
struct Lane {
    envelopes: VecDeque<(Duration, Arc<Envelope>)>,
    order: Order,
    faults: LinkFaults,
    is_perfect: bool,
}

impl Default for Lane {
    fn default() -> Self {
        Self { envelopes: VecDeque::new(), order: Order::default(), faults: LinkFaults::default(), is_perfect: true }
    }
}

impl Network {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            nodes,
            lanes: (0..nodes * nodes).map(|_| Lane::default()).collect(),
            ready: 0,
            waiting: 0,
            next_due: Duration::MAX,
            strays: Vec::new(),
            next_stray: Duration::MAX,
        }
    }

    /// Sends a message; a fault may drop, delay, duplicate, reorder or corrupt it.
    ///
    /// # Errors
    /// If the receiver would accept a corrupted message.
    pub(super) fn post(
        &mut self,
        envelope: Arc<Envelope>,
        now: Duration,
        random: &mut SmallRng,
        report: &mut Report,
    ) -> Result<(), String> {
        let at = self.lane(envelope.from, envelope.to);
        let lane = &mut self.lanes[at];
        let fate = if lane.is_perfect { Fate::UNHARMED } else { lane.faults.fate(random) };
        links::fired(&lane.faults, &fate).for_each(|kind| report.fired(kind));
        let Fate::Arrives { first, second, flipped_bit } = fate else { return Ok(()) };
        if let Some(bit) = flipped_bit {
            return must_be_refused(&envelope.message, bit);
        }
        if let Some(copy) = second
            && self.strays.len() < STRAYS_MAX
        {
            let due = lane.order.due(copy, now);
            self.stray(Arc::clone(&envelope), due);
        }
        self.send(at, envelope, first, now, report);
        Ok(())
    }

    fn send(&mut self, at: usize, envelope: Arc<Envelope>, arrival: Arrival, now: Duration, report: &mut Report) {
        let lane = &mut self.lanes[at];
        let due = lane.order.due(arrival, now);
        if arrival.held_back.is_some() && self.strays.len() < STRAYS_MAX {
            return self.stray(envelope, due);
        }
        if lane.envelopes.len() >= LANE_MAX {
            return report.count("lane full", 1);
        }
        lane.envelopes.push_back((due, envelope));
        if lane.envelopes.len() == 1 {
            self.judge(at, now);
        }
    }

    fn stray(&mut self, envelope: Arc<Envelope>, due: Duration) {
        self.next_stray = self.next_stray.min(due);
        self.strays.push((due, envelope));
    }

    /// A bit for every lane with a first message that may arrive now.
    pub(super) fn ready(&mut self, now: Duration) -> u32 {
        if now >= self.next_due {
            self.next_due = Duration::MAX;
            let mut waiting = self.waiting;
            while waiting != 0 {
                self.judge(waiting.trailing_zeros() as usize, now);
                waiting &= waiting - 1;
            }
        }
        self.ready
    }

    pub(super) fn lanes_to(&self, node: usize) -> u32 {
        (0..self.nodes).map(|from| 1 << (from * self.nodes + node)).sum()
    }

    /// The earliest time at which a message that is not due yet may arrive, or `Duration::MAX`.
    pub(super) fn next_due(&self) -> Duration {
        self.next_due.min(self.next_stray)
    }

    /// Takes the first message of a lane.
    pub(super) fn take(&mut self, lane: usize, now: Duration) -> Option<Arc<Envelope>> {
        let (_, envelope) = self.lanes[lane].envelopes.pop_front()?;
        self.judge(lane, now);
        Some(envelope)
    }

    pub(super) fn has_stray(&self, now: Duration) -> bool {
        self.next_stray <= now
    }

    /// Takes a message outside the order; none if the receiver is idle.
    pub(super) fn take_stray(
        &mut self,
        now: Duration,
        idle_until: impl Fn(NodeId) -> Duration,
    ) -> Option<Arc<Envelope>> {
        let at = self.strays.iter().position(|(due, _)| *due <= now)?;
        let (_, envelope) = self.strays.swap_remove(at);
        let idle_until = idle_until(envelope.to);
        let is_idle = idle_until > now;
        if is_idle {
            self.strays.push((idle_until, Arc::clone(&envelope)));
        }
        self.next_stray = self.strays.iter().map(|(due, _)| *due).min().unwrap_or(Duration::MAX);
        (!is_idle).then_some(envelope)
    }

    /// Drops the messages in flight on some of the links of a node that died.
    pub(super) fn lose_links_of(&mut self, node: NodeId, now: Duration, random: &mut SmallRng) {
        for at in 0..self.lanes.len() {
            let of_node = slot(node) == at / self.nodes || slot(node) == at % self.nodes;
            if of_node && random.random_bool(0.5) {
                self.lanes[at].envelopes.clear();
                self.judge(at, now);
            }
        }
    }

    /// Applies exactly these faults to all links. Returns the links that were cut and
    /// no longer are.
    pub(super) fn apply<'a>(
        &mut self,
        active: impl Iterator<Item = &'a Fault> + Clone,
        now: Duration,
    ) -> Vec<(NodeId, NodeId)> {
        let (nodes, mut healed) = (self.nodes, Vec::new());
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let (from, to) = (NodeId((at / nodes) as u64 + 1), NodeId((at % nodes) as u64 + 1));
            let faults = links::on_link(active.clone(), from, to, now);
            if lane.faults.cut.is_some() && faults.cut.is_none() {
                healed.push((from, to));
            }
            (lane.is_perfect, lane.faults) = (faults.is_perfect(), faults);
        }
        healed
    }

    fn judge(&mut self, at: usize, now: Duration) {
        let bit = 1 << at;
        (self.ready, self.waiting) = (self.ready & !bit, self.waiting & !bit);
        match self.lanes[at].envelopes.front() {
            Some((due, _)) if *due <= now => self.ready |= bit,
            Some((due, _)) => {
                self.waiting |= bit;
                self.next_due = self.next_due.min(*due);
            }
            None => {}
        }
    }

    fn lane(&self, from: NodeId, to: NodeId) -> usize {
        slot(from) * self.nodes + slot(to)
    }
}

/// Checks that the real codec notices a flipped bit of this message, which then counts as lost.
fn must_be_refused(message: &Message, bit: u64) -> Result<(), String> {
    match read_damaged(message, bit) {
        Ok(None) => Ok(()),
        Ok(Some(frame)) => Err(format!("codec: bit {bit} of {message:?} flipped, and it was read as {frame:?}")),
        Err(error) => Err(format!("codec: {error} for {message:?}")),
    }
}

fn slot(node: NodeId) -> usize {
    node.0 as usize - 1
}
