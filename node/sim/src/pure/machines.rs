//! The machine that a node runs on: its timers, pauses, slowness, crashes and restarts.

use super::{
    decisions::Decisions,
    machine::{id_of, slot},
    walk::{TICK, Walk},
};
use crate::plan::Power;
use quorate_raft::NodeId;
use quorate_world::{
    disk::Torn,
    events::Event,
    node::{Actor, Ask},
};
use rand::Rng;
use std::time::Duration;

/// Interval between the heartbeats of a leader, by its own clock.
const HEARTBEAT: Duration = Duration::from_millis(50);

impl Walk<'_> {
    /// Handles all that is due at this time.
    pub(super) fn tick(&mut self) -> Result<(), String> {
        self.turn_what_is_due()?;
        self.tick_outsiders()?;
        if self.past.leases {
            self.world.check_leases()?;
        }
        self.next_tick = (self.now() + TICK).min(self.agenda.next_at().max(self.now()));
        for at in 0..self.machines.len() {
            self.tick_machine(at)?;
        }
        self.tick_operator()?;
        if self.healing { Ok(()) } else { self.tick_clients() }
    }

    fn tick_machine(&mut self, at: usize) -> Result<(), String> {
        let (now, id) = (self.now(), id_of(at));
        let machine = &self.machines[at];
        if machine.out {
            return Ok(());
        }
        let Some(running) = self.world.running(id) else {
            if machine.empties {
                self.empty_if_survivable(at)?;
            }
            if self.machines[at].puts_back {
                self.put_back_if_survivable(at)?;
            }
            let is_back = self.machines[at].back_at.is_some_and(|back| back <= now);
            return if is_back { self.restart(at) } else { Ok(()) };
        };
        if machine.idle_until > now {
            return Ok(());
        }
        let shows = self.world.now_of(id);
        let (is_due, leads) = (running.deadline <= shows, running.leads());
        self.decide_in_time(at)?;
        if is_due {
            self.step(id, Event::Timeout(id))?;
        }
        if leads && self.machines[at].beat_at <= shows {
            self.machines[at].beat_at = shows.plus(HEARTBEAT);
            self.step(id, Event::Heartbeat(id))?;
        }
        if is_due {
            self.rest(id);
        }
        Ok(())
    }

    /// The time of the next event that depends on time alone.
    pub(super) fn next_wake(&self) -> Duration {
        let now = self.now();
        let machines = self.machines.iter().enumerate().filter(|(_, machine)| !machine.out);
        let machines = machines.map(|(at, machine)| match self.world.running(id_of(at)) {
            None => machine.back_at.unwrap_or(Duration::MAX),
            Some(_) if machine.idle_until > now => machine.idle_until,
            Some(running) => {
                let beat = if running.leads() { machine.beat_at } else { running.deadline };
                let timer = self.world.clocks[at].until(now, running.deadline.min(beat));
                (now + timer).min(machine.disk_ready.filter(|ready| *ready > now).unwrap_or(Duration::MAX))
            }
        });
        let clients = if self.healing { now + TICK } else { self.clients.next_wake() };
        let others = self.network.next_due().min(self.agenda.next_at()).min(clients);
        machines.min().unwrap_or(Duration::MAX).min(others)
    }

    /// Keeps a slow node idle for a while, after each task.
    pub(super) fn rest(&mut self, id: NodeId) {
        let now = self.now();
        let machine = &mut self.machines[slot(id)];
        if !machine.slow_by.is_zero() {
            machine.idle_until = machine.idle_until.max(now + machine.slow_by);
            self.report.fired("slow-node");
        }
    }

    /// Ends the task of the disk: the next one is delayed anew.
    pub(super) fn wrote(&mut self, id: NodeId) {
        self.machines[slot(id)].disk_ready = None;
    }

    /// Stops a node without warning, if it runs; it starts again after `down_for`.
    pub(super) fn crash(&mut self, at: usize, power: Power, down_for: Duration) -> Result<bool, String> {
        let (id, now) = (id_of(at), self.now());
        let Some(running) = self.world.running(id) else { return Ok(false) };
        let writes = running.asked.of(Actor::Disk).filter(|ask| matches!(ask, Ask::Persist(_))).count();
        let written = match power {
            Power::Lost => 0,
            _ => self.random.random_range(0..=writes),
        };
        let torn = match power {
            Power::Kept | Power::Lost => None,
            // With one node emptied, a torn entry can't be told from one that both have lost.
            Power::Scattered if self.tears && self.world.emptied.is_empty() => Some(Torn::Named),
            Power::Torn | Power::Scattered => Some([Torn::Truncated, Torn::Appended][self.random.random_range(0..2)]),
        };
        self.say(|| format!("{id} dies; of {writes} writes {written} are there, and of the next {torn:?}"));
        let stepped = self.world.lose_power(id, written, torn);
        self.network.lose_links_of(id, now, &mut self.random);
        let machine = &mut self.machines[at];
        (machine.idle_until, machine.disk_ready) = (Duration::ZERO, None);
        (machine.sync_fails, machine.dies_after) = (None, None);
        machine.back_at = Some(now + down_for);
        self.is_gone(id);
        self.after(id, stepped)?;
        for other in (0..self.machines.len()).map(id_of).filter(|other| *other != id) {
            self.peer_lost(other, id)?;
        }
        Ok(true)
    }

    /// Starts a node, after its disk has suffered the faults that were saved up while it was down.
    pub(super) fn restart(&mut self, at: usize) -> Result<(), String> {
        let id = id_of(at);
        for kind in std::mem::take(&mut self.machines[at].harm) {
            self.harm(at, kind)?;
        }
        if self.machines.len() == 1 {
            // No other node could say that a torn write never counted.
            let discarded = self.world.node_mut(id).disk.discard_unproven();
            self.report.count("discarded by the operator", discarded);
        }
        self.machines[at].back_at = None;
        self.say(|| format!("{id} starts"));
        self.step(id, Event::Restart(id))?;
        self.lives += 1;
        let now = self.world.now_of(id);
        self.machines[at].decisions = self
            .world
            .running(id)
            .map(|running| Decisions::new(self.lives, running, self.plan.snapshot_every, self.automatic.begun(), now));
        if self.machines[at].full {
            self.step(id, Event::Full(id, true))?;
        }
        Ok(())
    }

    /// The volatile state of a node is gone, and what was to change at its next start does.
    pub(super) fn is_gone(&mut self, id: NodeId) {
        self.machines[slot(id)].decisions = None;
        self.operator.lost(id);
        if let Some(then) = self.machines[slot(id)].stops.take() {
            self.changes_at_start(slot(id), then);
        }
    }

    /// The node halted, as it must when it was emptied: it never starts again.
    pub(super) fn went_out(&mut self, id: NodeId) {
        self.machines[slot(id)].out = true;
        self.is_gone(id);
        self.report.count("told to be emptied", 1);
    }

    /// Whether the node dies with this effect, which is visible outside.
    pub(super) fn dies_with_this_effect(&mut self, id: NodeId) -> bool {
        match &mut self.machines[slot(id)].dies_after {
            Some((left, ..)) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            None => false,
        }
    }

    pub(super) fn die_with_an_effect(&mut self, id: NodeId) -> Result<(), String> {
        if let Some((_, power, down_for)) = self.machines[slot(id)].dies_after.take() {
            self.report.fired("crash-at-effect");
            self.crash(slot(id), power, down_for)?;
        }
        Ok(())
    }

    /// Whether the next sync fails; the node is then down.
    pub(super) fn sync_fails(&mut self, id: NodeId) -> Result<bool, String> {
        let Some((power, down_for)) = self.machines[slot(id)].sync_fails.take() else { return Ok(false) };
        self.report.fired("sync-failure");
        self.crash(slot(id), power, down_for)
    }
}
