//! The network between the nodes of a walk: each link delivers in order, different links in any
//! order, and the faults of the plan interfere.
//!
//! The network decides when a message may arrive, and whether it does. The walk decides which of the
//! messages that may arrive comes next.

use super::corruption;
use crate::{
    Report,
    plan::{Fault, Planned, Way},
};
use quorate_raft::NodeId;
use quorate_world::world::Envelope;
use rand::{Rng, rngs::SmallRng};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// The most messages in flight between two nodes; a lane that is full loses further ones.
const LANE_MAX: usize = 256;
/// The most messages that left the order of their lane; no more than these leave it.
const STRAYS_MAX: usize = 256;
/// The longest delay of a message that was duplicated or reordered, in milliseconds.
const STRAY_MS_MAX: u64 = 150;

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
#[derive(Default)]
struct Lane {
    envelopes: VecDeque<(Duration, Arc<Envelope>)>,
    weather: Weather,
}

/// Faults of a link. Chances are in 1,000.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Weather {
    drop: u16,
    duplicate: u16,
    reorder: u16,
    corrupt: u16,
    delay: Duration,
    slow: Duration,
    cut: Option<&'static str>,
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
        let (last_due, weather) =
            (self.lanes[at].envelopes.back().map_or(Duration::ZERO, |last| last.0), self.lanes[at].weather);
        let mut due = last_due;
        if weather != Weather::default() {
            let mut happens = |per_mille: u16| per_mille > 0 && random.random_range(0..1_000) < per_mille;
            if happens(weather.drop) {
                report.fired("drop");
                return Ok(());
            }
            if happens(weather.corrupt) {
                report.fired("corrupt");
                return corruption::must_be_refused(&envelope.message, random);
            }
            if happens(weather.duplicate) && self.strays.len() < STRAYS_MAX {
                report.fired("duplicate");
                self.stray(Arc::clone(&envelope), now, random);
            }
            if random.random_range(0..1_000) < weather.reorder && self.strays.len() < STRAYS_MAX {
                report.fired("reorder");
                self.stray(envelope, now, random);
                return Ok(());
            }
            if !weather.slow.is_zero() {
                report.fired("slow-link");
                due = due.max(now + weather.slow);
            }
            if !weather.delay.is_zero() {
                report.fired("delay");
                due = due.max(now + weather.slow + random.random_range(Duration::ZERO..=weather.delay));
            }
        }
        let envelopes = &mut self.lanes[at].envelopes;
        if envelopes.len() >= LANE_MAX {
            report.count("lane full", 1);
            return Ok(());
        }
        envelopes.push_back((due, envelope));
        if envelopes.len() == 1 {
            self.judge(at, now);
        }
        Ok(())
    }

    fn stray(&mut self, envelope: Arc<Envelope>, now: Duration, random: &mut SmallRng) {
        let due = now + Duration::from_micros(random.random_range(0..STRAY_MS_MAX * 1_000));
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

    /// Takes the first message of a lane; none if the link is cut.
    pub(super) fn take(&mut self, lane: usize, now: Duration, report: &mut Report) -> Option<Arc<Envelope>> {
        let (_, envelope) = self.lanes[lane].envelopes.pop_front()?;
        self.judge(lane, now);
        self.arrives(envelope, report)
    }

    pub(super) fn has_stray(&self, now: Duration) -> bool {
        self.next_stray <= now
    }

    /// Takes a message outside the order; none if the link is cut or the receiver is idle.
    pub(super) fn take_stray(
        &mut self,
        now: Duration,
        idle_until: impl Fn(NodeId) -> Duration,
        report: &mut Report,
    ) -> Option<Arc<Envelope>> {
        let at = self.strays.iter().position(|(due, _)| *due <= now)?;
        let (_, envelope) = self.strays.swap_remove(at);
        let idle_until = idle_until(envelope.to);
        if idle_until > now {
            self.strays.push((idle_until, envelope));
            self.next_stray = self.strays.iter().map(|(due, _)| *due).min().unwrap_or(Duration::MAX);
            return None;
        }
        self.next_stray = self.strays.iter().map(|(due, _)| *due).min().unwrap_or(Duration::MAX);
        self.arrives(envelope, report)
    }

    fn arrives(&self, envelope: Arc<Envelope>, report: &mut Report) -> Option<Arc<Envelope>> {
        match self.lanes[self.lane(envelope.from, envelope.to)].weather.cut {
            Some(kind) => {
                report.fired(kind);
                None
            }
            None => Some(envelope),
        }
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
    pub(super) fn weather<'a>(
        &mut self,
        faults: impl Iterator<Item = &'a Planned>,
        now: Duration,
    ) -> Vec<(NodeId, NodeId)> {
        let mut weather = vec![Weather::default(); self.lanes.len()];
        for planned in faults {
            for (at, lane) in weather.iter_mut().enumerate() {
                let (from, to) = (NodeId((at / self.nodes) as u64 + 1), NodeId((at % self.nodes) as u64 + 1));
                lane.suffer(planned, from, to, now);
            }
        }
        let mut healed = Vec::new();
        for (at, (lane, weather)) in self.lanes.iter_mut().zip(weather).enumerate() {
            if lane.weather.cut.is_some() && weather.cut.is_none() {
                healed.push((NodeId((at / self.nodes) as u64 + 1), NodeId((at % self.nodes) as u64 + 1)));
            }
            lane.weather = weather;
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

impl Weather {
    /// Adds the effect of a fault on the link between two nodes. Of two faults of a kind
    /// the worse counts.
    fn suffer(&mut self, planned: &Planned, from: NodeId, to: NodeId, now: Duration) {
        let per_mille = |worst: &mut u16, way: &Way, per_mille: u16| {
            if way.leads(from, to) {
                *worst = (*worst).max(per_mille);
            }
        };
        let between = |one: NodeId, other: NodeId| (from, to) == (one, other) || (from, to) == (other, one);
        let kind = planned.fault.kind();
        match &planned.fault {
            Fault::Drop { way, per_mille: chance } => per_mille(&mut self.drop, way, *chance),
            Fault::Duplicate { way, per_mille: chance } => per_mille(&mut self.duplicate, way, *chance),
            Fault::Reorder { way, per_mille: chance } => per_mille(&mut self.reorder, way, *chance),
            Fault::Corrupt { way, per_mille: chance } => per_mille(&mut self.corrupt, way, *chance),
            Fault::Delay { way, up_to } if way.leads(from, to) => self.delay = self.delay.max(*up_to),
            Fault::SlowLink { way, by } if way.leads(from, to) => self.slow = self.slow.max(*by),
            Fault::CutOneWay { from: one, to: other } if (from, to) == (*one, *other) => self.cut = Some(kind),
            Fault::CutLink { one, other } if between(*one, *other) => self.cut = Some(kind),
            Fault::Partition { some } if some.contains(&from) != some.contains(&to) => self.cut = Some(kind),
            Fault::Flap { one, other, every } if between(*one, *other) => {
                let turns = now.saturating_sub(planned.at).as_nanos() / every.as_nanos().max(1);
                if turns.is_multiple_of(2) {
                    self.cut = Some(kind);
                }
            }
            _ => {}
        }
    }
}

fn slot(node: NodeId) -> usize {
    node.0 as usize - 1
}
