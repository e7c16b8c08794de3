//! The effect of each planned fault on a walk.

use super::{
    agenda::Turn,
    machine::{Afterwards, id_of, slot},
    walk::Walk,
};
use crate::{
    outsiders::{self, Receiver},
    plan::{Fault, Power},
};
use quorate_raft::NodeId;
use quorate_world::{
    events::Event,
    fixtures,
    node::{Actor, Ask},
    world::Envelope,
};
use rand::{
    Rng,
    seq::{IndexedRandom, SliceRandom},
};
use std::{sync::Arc, time::Duration};

/// The chance, of 100, that an outsider sends a message in a tick.
const SAY_SOMETHING: u32 = 15;

impl Walk<'_> {
    /// Lets outsiders send messages to the nodes that an active fault exposes to them.
    pub(super) fn tick_outsiders(&mut self) -> Result<(), String> {
        let hears = |fault: &usize| match self.plan.faults[*fault].fault {
            Fault::Outsider { to } => Some(to),
            _ => None,
        };
        let hear: Vec<_> = self.agenda.active.iter().filter_map(hears).collect();
        for to in hear {
            if self.random.random_ratio(SAY_SOMETHING, 100) {
                self.hear_from_outside(to)?;
            }
        }
        Ok(())
    }

    fn hear_from_outside(&mut self, to: NodeId) -> Result<(), String> {
        let now = self.world.now_of(to);
        let Some(replica) = self.world.running(to).map(|running| &running.replica) else { return Ok(()) };
        let outside: Vec<_> =
            (1..=self.plan.nodes + 1).map(NodeId).filter(|id| *id != to && replica.is_outside(*id)).collect();
        let (term, last, is_led) = (replica.term(), replica.log().last(), replica.is_led(now));
        let Some(from) = outside.choose(&mut self.random).copied() else { return Ok(()) };
        let message = match self.random.random_ratio(1, 10) {
            true => outsiders::command(&mut self.random, term),
            false => outsiders::message(&mut self.random, &Receiver { term, last, is_led }, fixtures::crc),
        };
        self.report.fired("outsider");
        self.report.count("heard from removed nodes", u64::from(from.0 <= self.plan.nodes));
        self.arrive(Arc::new(Envelope { from, to, message, digest: 0 }))
    }

    /// Begins and ends the faults that are due.
    pub(super) fn turn_what_is_due(&mut self) -> Result<(), String> {
        while self.agenda.next_at() <= self.now() {
            let (_, turn, fault) = self.agenda.turns[self.agenda.next];
            self.agenda.next += 1;
            if self.trace.has_text() && turn != Turn::Flap {
                let word = if turn == Turn::Begin { "begins" } else { "is over" };
                self.trace.say(self.world.now.0, &format!("{:?} {word}", self.plan.faults[fault].fault));
            }
            match turn {
                Turn::Begin => {
                    self.agenda.active.push(fault);
                    self.begin(fault)?;
                }
                Turn::Flap => {}
                Turn::End => {
                    self.agenda.active.retain(|active| *active != fault);
                    self.end(fault)?;
                }
            }
            self.now_at_work()?;
        }
        Ok(())
    }

    /// Applies the immediate effect of a fault; lasting effects are set by `now_at_work`.
    fn begin(&mut self, fault: usize) -> Result<(), String> {
        let planned = &self.plan.faults[fault];
        let (kind, lasts, now) = (planned.fault.kind(), planned.lasts, self.now());
        let mut fired = false;
        match &planned.fault {
            Fault::Crash { node, power } => fired = self.crash(slot(*node), *power, lasts)?,
            Fault::CrashAtEffect { node, nth, power } => {
                self.machines[slot(*node)].dies_after.get_or_insert(((*nth).max(1), *power, lasts));
            }
            Fault::CrashAll { power } => {
                for at in 0..self.machines.len() {
                    fired |= self.crash(at, *power, lasts)?;
                }
            }
            Fault::Pause { node } if self.world.running(*node).is_some() => {
                self.machines[slot(*node)].idle_until = now + lasts;
                fired = true;
            }
            Fault::Flip { node } | Fault::Zero { node } | Fault::Misdirect { node } | Fault::ReadError { node } => {
                let power = [Power::Kept, Power::Lost][self.random.random_range(0..2)];
                self.crash(slot(*node), power, lasts)?;
                if !self.reshapes {
                    self.machines[slot(*node)].harm.push(kind);
                }
            }
            Fault::SyncFailure { node, power } => {
                self.machines[slot(*node)].sync_fails.get_or_insert((*power, lasts));
            }
            Fault::Jump { node, by } => {
                self.world.clocks[slot(*node)].leap(*by);
                fired = true;
            }
            Fault::Restart { node } => {
                fired = self.stop(slot(*node), Afterwards { down_for: lasts, ..Afterwards::default() })?;
            }
            Fault::RestartAll => {
                let mut order: Vec<_> = (0..self.machines.len()).collect();
                order.shuffle(&mut self.random);
                for at in order {
                    let down_for = self.random.random_range(Duration::ZERO..=lasts);
                    fired |= self.stop(at, Afterwards { down_for, ..Afterwards::default() })?;
                }
            }
            Fault::Upgrade { node } => fired = self.upgrade(slot(*node), lasts)?,
            Fault::Retime { node, shortest } => fired = self.retime(slot(*node), *shortest, lasts)?,
            Fault::Snapshot { node } => fired = self.ask_for_snapshot(*node)?,
            Fault::Change { voters } => self.aim_at(voters),
            Fault::LeadershipTransfer { to } => self.transfer_leadership(*to)?,
            Fault::Wipe { node } if !self.reshapes => {
                self.crash(slot(*node), Power::Lost, lasts)?;
                self.machines[slot(*node)].empties = !self.machines[slot(*node)].out;
            }
            Fault::PutBack { node } if !self.reshapes => {
                self.machines[slot(*node)].copy = Some(self.world.node(*node).disk.clone());
            }
            _ => {}
        }
        if fired {
            self.report.fired(kind);
        }
        Ok(())
    }

    /// The last act of a fault that has one.
    fn end(&mut self, fault: usize) -> Result<(), String> {
        let Fault::PutBack { node } = self.plan.faults[fault].fault else { return Ok(()) };
        let at = slot(node);
        if self.machines[at].copy.is_none() || self.machines[at].out {
            return Ok(());
        }
        let down_for = Duration::from_millis(self.random.random_range(5..1_500));
        self.crash(at, Power::Lost, down_for)?;
        self.machines[at].puts_back = true;
        Ok(())
    }

    /// Applies the lasting effects of the active faults, and ends those of all others.
    pub(super) fn now_at_work(&mut self) -> Result<(), String> {
        let plan = self.plan;
        let active = || self.agenda.active.iter().map(|fault| &plan.faults[*fault]);
        let now = self.now();
        let healed = self.network.apply(active().map(|planned| &planned.fault), now);
        let mut drifts = vec![0; self.machines.len()];
        let mut fills = vec![false; self.machines.len()];
        for machine in &mut self.machines {
            (machine.slow_by, machine.disk_slow_by) = (Duration::ZERO, Duration::ZERO);
        }
        for planned in active() {
            match &planned.fault {
                Fault::SlowNode { node, by } => self.machines[slot(*node)].slow_by = *by,
                Fault::SlowDisk { node, by } => self.machines[slot(*node)].disk_slow_by = *by,
                Fault::Drift { node, per_mille } => drifts[slot(*node)] = *per_mille,
                Fault::Full { node } => fills[slot(*node)] = true,
                _ => {}
            }
        }
        for at in 0..self.machines.len() {
            if self.world.clocks[at].drifts_by() != drifts[at] {
                self.world.clocks[at].drift(now, drifts[at]);
                if drifts[at] != 0 {
                    self.report.fired("drift");
                }
            }
            if self.machines[at].full != fills[at] {
                self.machines[at].full = fills[at];
                self.fill(id_of(at), fills[at])?;
            }
        }
        for (from, to) in healed {
            self.link_changed(from, to)?;
        }
        Ok(())
    }

    /// Fills a disk, or gives it room again. It counts as an effect if the node led; a refusal by
    /// a follower counts as one, too.
    fn fill(&mut self, id: NodeId, full: bool) -> Result<(), String> {
        let led = self.world.running(id).is_some_and(|running| running.leads());
        self.step(id, Event::Full(id, full))?;
        if full && led {
            self.report.fired("full");
        }
        Ok(())
    }

    /// A cut link works again; the sender may or may not notice that the connection was lost.
    fn link_changed(&mut self, from: NodeId, to: NodeId) -> Result<(), String> {
        let leads = self.world.running(from).is_some_and(|running| running.leads());
        if leads && (self.healing || self.random.random_bool(0.5)) {
            let stepped = self.world.on(from, |node, _| node.ask(Actor::Replicator(to), Ask::LinkChanged));
            self.after(from, stepped)?;
        }
        // The link broke and is there again: answers may have been lost with it.
        self.peer_lost(from, to)?;
        if self.world.running(from).is_some_and(|running| running.replica.leader() == Some(to)) {
            self.leader_reachable(from)?;
        }
        Ok(())
    }
}
