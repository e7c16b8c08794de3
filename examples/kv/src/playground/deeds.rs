//! Deeds: what a scenario or a reader of the page does to a simulated cluster.

use super::simulation::{DELAY, Simulation};
use quorate::NodeId;
use quorate_raft::Moment;
use quorate_world::events::{Actor, Ask, Event};
use std::{collections::BTreeSet, time::Duration};

impl Simulation {
    /// Starts a node that is down.
    pub(super) fn start(&mut self, id: NodeId) {
        self.down.remove(&id);
        self.world.removed.remove(&id);
        let now = self.now();
        let started = self.observers.get_mut(&id).map(|observer| observer.starts(id, &self.world.node(id).disk, now));
        self.news.extend(started);
        self.on(id, None, |world| world.step(Event::Restart(id)));
    }

    /// A node loses everything but its disk.
    pub(super) fn crash(&mut self, id: NodeId) {
        self.lose_power(id, 0, "crashes: it loses everything but its disk.");
    }

    pub(super) fn lose_power(&mut self, id: NodeId, written: usize, says: &str) {
        let now = self.now();
        if let Some(observer) = self.observers.get_mut(&id) {
            self.news.push(observer.says(id, now, format!("Node {id} {says}")));
        }
        self.traps.remove(&id);
        self.on(id, None, |world| world.lose_power(id, written, None));
    }

    /// A client gives a leader a command. Whether the leader took it.
    pub(super) fn propose(&mut self, id: NodeId) -> bool {
        let last = |simulation: &Self| simulation.world.running(id).map(|running| running.replica.log().last());
        let before = last(self);
        let command = self.commands + 1;
        self.on(id, None, |world| world.propose_to(id, std::iter::once(command)));
        let is_taken = last(self) != before;
        self.commands += u64::from(is_taken);
        is_taken
    }

    /// The election timer of a node runs out now.
    pub(super) fn fire_timer(&mut self, id: NodeId) {
        self.on(id, None, |world| world.step(Event::Timeout(id)));
        self.disarm_twice(id);
    }

    /// The election timer of a node runs out after this time, unless something arms it anew.
    pub(super) fn set_timer(&mut self, id: NodeId, after: Duration) {
        let now = self.now();
        if let Some(running) = &mut self.world.node_mut(id).running {
            running.deadline = Moment(now + after);
        }
        if let Some(observer) = self.observers.get_mut(&id) {
            observer.armed(Moment(now + after), now);
        }
    }

    /// An operator asks a leader for a change of the members.
    pub(super) fn change(&mut self, id: NodeId, change: &quorate::Change) -> Result<(), quorate::ChangeRefused> {
        let mut outcome = Err(quorate::ChangeRefused::NotLeader);
        self.on(id, None, |world| world.change_members(id, change, &mut outcome));
        outcome.map(|_| ())
    }

    /// Delivers a message now. Whether there is one with this id.
    pub(super) fn deliver(&mut self, message: u64) -> bool {
        let Some(at) = self.flight(message) else { return false };
        self.arrive(at);
        true
    }

    /// Loses a message. Whether there is one with this id.
    pub(super) fn lose(&mut self, message: u64) -> bool {
        let Some(at) = self.flight(message) else { return false };
        self.flights.remove(at);
        true
    }

    /// Delays a message. Whether there is one with this id.
    pub(super) fn delay(&mut self, message: u64) -> bool {
        let Some(at) = self.flight(message) else { return false };
        self.flights[at].due += DELAY;
        true
    }

    fn flight(&self, message: u64) -> Option<usize> {
        self.flights.iter().position(|flight| flight.id == message)
    }

    /// Nothing passes between two nodes, in both directions.
    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        let now = self.now();
        for (one, other) in [(from, to), (to, from)] {
            if self.world.cut.insert((one, other))
                && let Some(observer) = self.observers.get_mut(&one)
                && self.world.node(one).running.is_some()
            {
                self.news.push(observer.link_down(one, other, now));
            }
        }
    }

    /// Everything passes between two nodes again.
    pub(super) fn heal(&mut self, from: NodeId, to: NodeId) {
        for (one, other) in [(from, to), (to, from)] {
            if self.world.cut.remove(&(one, other)) && self.world.running(one).is_some_and(|running| running.leads()) {
                self.on(one, None, |world| {
                    world.on(one, |node, _| node.ask(Actor::Replicator(other), Ask::LinkChanged))
                });
            }
        }
    }

    /// Cuts all links between these nodes and the others.
    pub(super) fn part(&mut self, side: &[NodeId]) {
        let (these, others): (Vec<_>, Vec<_>) = self.ids().into_iter().partition(|id| side.contains(id));
        for one in these {
            others.iter().for_each(|other| self.cut(one, *other));
        }
    }

    /// Heals all links.
    pub(super) fn heal_all(&mut self) {
        let pairs: BTreeSet<_> = self.world.cut.iter().map(|(a, b)| (*a.min(b), *a.max(b))).collect();
        pairs.into_iter().for_each(|(from, to)| self.heal(from, to));
    }
}
