//! The plan's faults of nodes, disks and clocks. [`wire`](super::wire) has those of messages, and
//! [`damage`](super::damage) decides which damage is permitted.

use super::{cluster::Cluster, damage, operators};
use crate::{
    outsiders::{self, Receiver},
    plan::Fault,
};
use quorate::NodeId;
use quorate_raft::EntryId;
use rand::Rng;
use std::time::Duration;

/// The most free bytes on a disk that is about to be full.
const LEFT_BYTES_MAX: u64 = 100_000;
/// The chance, in percent, that an outsider sends a message in a turn.
const SAY_SOMETHING: u32 = 5;

impl Cluster<'_> {
    /// Begins the faults that are due, and ends those that are over.
    pub(super) fn begin_and_end_faults(&mut self) {
        let before = self.under_way.len();
        let now = self.now;
        let ending: Vec<_> = self.under_way.extract_if(.., |(ends, _)| *ends <= now).collect();
        ending.iter().for_each(|(_, fault)| self.end(fault));
        let mut changed = before != self.under_way.len();
        while let Some(planned) = self.ahead.as_slice().first().filter(|planned| planned.at <= self.now) {
            self.ahead.next();
            self.observer.lock().say(format_args!("FAULT {:?} for {:?}", planned.fault, planned.lasts));
            self.begin(&planned.fault, planned.lasts);
            self.under_way.push((self.now + planned.lasts, &planned.fault));
            changed = true;
        }
        if changed {
            self.wire.set_faults(self.under_way.iter().map(|(_, fault)| (*fault).clone()).collect());
        }
    }

    /// Outsiders send messages to the nodes that are exposed to them now.
    pub(super) fn let_outsiders_speak(&mut self) {
        let hear = self.under_way.iter().filter_map(|(_, fault)| match fault {
            Fault::Outsider { to } => Some(*to),
            _ => None,
        });
        for to in hear.collect::<Vec<_>>() {
            if self.random.random_ratio(SAY_SOMETHING, 100) {
                self.say_from_outside(to);
            }
        }
    }

    fn say_from_outside(&mut self, to: NodeId) {
        let Some(status) = self.member(to).status() else { return };
        // The node's configuration is certain only while no change is under way.
        if status.voters.is_empty() || !status.is_settled {
            return;
        }
        let is_outside = |id: &NodeId| *id != to && !status.voters.contains(id) && !status.learners.contains(id);
        let mut outside: Vec<_> = (1..=self.plan.nodes).map(NodeId).filter(is_outside).collect();
        // A leader that was removed leads on for a moment, and a node that is added may be a member by the
        // time the message arrives.
        outside.retain(|id| status.leader != Some(*id) && !self.is_up(*id) && !self.operator.wants(*id));
        outside.push(NodeId(self.plan.nodes + 1));
        let from = outside[self.random.random_range(0..outside.len())];
        let removed = u64::from(from.0 <= self.plan.nodes);
        let last = EntryId::new(status.term, status.last_log);
        let message = if self.random.random_ratio(1, 5) {
            outsiders::command(&mut self.random, status.term)
        } else {
            let receiver = Receiver { term: status.term, last, is_led: false };
            outsiders::message(&mut self.random, &receiver, quorate_storage::checksum)
        };
        self.wire.says_from_outside(from, to, &message);
        let mut observer = self.observer.lock();
        observer.report.fired("outsider");
        observer.report.count("said by removed nodes", removed);
    }

    fn begin(&mut self, fault: &Fault, lasts: Duration) {
        let kind = fault.kind();
        let fired = |this: &Self| this.observer.lock().report.fired(kind);
        match *fault {
            Fault::Change { ref voters } => self.operator.aim_at(voters),
            Fault::LeadershipTransfer { to } => operators::transfer(to, &mut self.members, &self.observer),
            Fault::Crash { node, power } if self.is_up(node) => {
                fired(self);
                self.kill(node, power, lasts);
            }
            Fault::CrashAll { power } => {
                fired(self);
                for id in self.ids() {
                    let more = Duration::from_millis(self.random.random_range(0..200));
                    self.kill(id, power, lasts + more);
                }
            }
            Fault::CrashAtEffect { node, nth, power } if self.is_up(node) => {
                self.member(node).dies_with = (power, lasts);
                if self.random.random_bool(0.5) {
                    self.wire.die_at(node, nth);
                } else {
                    self.observer.lock().disk(node).disk.halt_at(nth.into());
                }
            }
            Fault::SyncFailure { node, power } if self.is_up(node) => {
                self.member(node).fails_with = Some((power, lasts));
                let (operation, nth) = damage::failing(&mut self.random);
                self.observer.lock().disk(node).disk.fail(operation, nth);
            }
            Fault::Pause { node } if self.is_up(node) => {
                fired(self);
                self.member(node).is_paused = true;
            }
            Fault::SlowNode { node, by } => {
                fired(self);
                self.member(node).slow_by = by;
            }
            Fault::Drift { node, per_mille } => {
                fired(self);
                self.member(node).drift_per_mille = per_mille.into();
            }
            Fault::Jump { node, by } if self.is_up(node) => {
                fired(self);
                self.member(node).leap(by);
            }
            Fault::SlowDisk { node, by } => {
                fired(self);
                self.observer.lock().disk(node).syncs_take = by;
            }
            Fault::Full { node } => {
                fired(self);
                let left = self.random.random_range(0..LEFT_BYTES_MAX);
                self.member(node).is_full = true;
                self.observer.lock().disk(node).disk.fill_after(left);
            }
            Fault::Restart { node } if self.is_up(node) => {
                fired(self);
                self.member(node).shut_down(lasts);
            }
            Fault::Upgrade { node }
                if self.is_up(node) && operators::upgrade(node, lasts, &mut self.members, &self.observer) =>
            {
                fired(self);
            }
            Fault::Retime { node, shortest } => {
                self.member(node).told.shortest = shortest;
                if self.is_up(node) {
                    fired(self);
                    self.member(node).shut_down(lasts);
                }
            }
            Fault::RestartAll => {
                fired(self);
                for id in self.ids() {
                    let more = Duration::from_millis(self.random.random_range(0..300));
                    self.member(id).shut_down(lasts + more);
                }
            }
            Fault::Snapshot { node } if self.is_up(node) => {
                fired(self);
                if let Some(process) = self.member(node).process_mut() {
                    let handle = process.node().clone();
                    process.call(async move { drop(handle.snapshot().await) });
                }
            }
            // These plans must not lose durable data.
            Fault::Flip { .. }
            | Fault::Zero { .. }
            | Fault::Misdirect { .. }
            | Fault::ReadError { .. }
            | Fault::Wipe { .. }
            | Fault::PutBack { .. }
                if self.plan.spares_disks() => {}
            Fault::Flip { node } | Fault::Zero { node } | Fault::Misdirect { node } | Fault::ReadError { node } => {
                self.damage(node, fault, lasts);
            }
            Fault::Wipe { node } => self.wipe(node, lasts),
            Fault::PutBack { node } => self.copy(node),
            _ => {}
        }
    }

    pub(super) fn end(&mut self, fault: &Fault) {
        match *fault {
            Fault::PutBack { node } => self.put_back(node),
            Fault::Pause { node } => self.member(node).is_paused = false,
            Fault::SlowNode { node, .. } => self.member(node).slow_by = Duration::ZERO,
            Fault::Drift { node, .. } => self.member(node).drift_per_mille = 0,
            Fault::SlowDisk { node, .. } => self.observer.lock().disk(node).syncs_take = Duration::ZERO,
            Fault::Full { node } => {
                self.member(node).is_full = false;
                self.observer.lock().disk(node).disk.fill_after(u64::MAX);
            }
            _ => {}
        }
    }
}
