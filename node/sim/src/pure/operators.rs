//! Who changes the members and moves leadership: an operator with a goal, who asks whoever leads until it is reached.

use super::{
    Walk,
    machines::{id_of, slot},
};
use crate::plan::Plan;
use quorate_raft::{Change, MachineVersions, NodeId};
use quorate_world::{event::Event, rules::Rules};
use std::{sync::Arc, time::Duration};

/// How often the operator looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the operator wants.
#[derive(Default)]
pub(super) struct Operator {
    /// Who is to vote.
    goal: Option<Vec<NodeId>>,
    next_look: Duration,
}

impl Walk<'_> {
    /// From now on these are to vote.
    pub(super) fn aim_at(&mut self, voters: &[NodeId]) {
        self.operator.goal = Some(voters.to_vec());
        self.operator.next_look = self.now();
    }

    /// Whether the cluster has become what the operator wants.
    pub(super) fn is_as_wanted(&self) -> bool {
        let members = self.world.members();
        self.operator.goal.as_ref().is_none_or(|goal| members.incoming() == goal && !members.is_joint())
    }

    /// The operator asks for the next step, if one is missing.
    pub(super) fn tick_operator(&mut self) -> Result<(), String> {
        if self.operator.next_look > self.now() {
            return Ok(());
        }
        self.operator.next_look = self.now() + LOOK_EVERY;
        let Some(goal) = self.operator.goal.clone() else { return Ok(()) };
        // Also one that was added again, and heard of its removal before from somebody who lags behind.
        let members = self.world.members().peers_of(NodeId(0));
        goal.iter().chain(&members).for_each(|id| self.bring_back(*id));
        if self.is_as_wanted() {
            return Ok(());
        }
        let Some((_, leader)) = self.world.leaders().first().copied() else { return Ok(()) };
        let Some(running) = self.world.running(leader) else { return Ok(()) };
        let membership = running.replica.membership().clone();
        let missing = goal.iter().copied().find(|id| !membership.contains(*id));
        let before = running.replica.membership_index();
        let change = match missing {
            Some(id) => Change::add(id, format!("node-{id}")),
            None => Change::set_voters(goal),
        };
        self.say(|| format!("{leader}, in {membership:?} of {before}, is asked for {change:?}"));
        self.step(leader, Event::Change(leader, change))?;
        let taken = self.world.running(leader).is_some_and(|running| running.replica.membership_index() > before);
        if taken {
            self.report.fired("change");
        }
        Ok(())
    }

    /// The operator stops a node and starts the next release in its place, if no node is older.
    pub(super) fn upgrade(&mut self, at: usize, down_for: Duration) -> Result<bool, String> {
        let release = |at: usize| self.world.machine_of(id_of(at)).writes;
        let next = Plan::next_release(release(at), (0..self.machines.len()).map(release));
        if next == release(at) {
            return Ok(false);
        }
        self.bring_to(at, next, down_for)
    }

    /// The operator ends the rollout: all run the newest release.
    pub(super) fn upgrade_all(&mut self) -> Result<(), String> {
        let newest = (0..self.machines.len()).map(|at| self.world.machine_of(id_of(at)).writes).max().unwrap_or(0);
        for at in 0..self.machines.len() {
            if self.world.machine_of(id_of(at)).writes < newest {
                self.bring_to(at, newest, Duration::ZERO)?;
            }
        }
        Ok(())
    }

    fn bring_to(&mut self, at: usize, release: u32, down_for: Duration) -> Result<bool, String> {
        let machine = MachineVersions { writes: release, oldest: 0, newest: release };
        self.world.machines.insert(id_of(at), machine);
        self.stop(at, down_for)
    }

    /// The operator stops a node, which has another election timeout from its next start on.
    pub(super) fn retime(&mut self, at: usize, shortest: Duration, down_for: Duration) -> Result<bool, String> {
        let rules = self.world.told.get_mut(&id_of(at)).map(Arc::make_mut);
        if let Some(Rules { settings, .. }) = rules {
            (settings.election_timeout_min, settings.election_timeout_max) = (shortest, 2 * shortest);
        }
        self.stop(at, down_for)
    }

    /// The operator asks a leader to hand over.
    pub(super) fn hand_over(&mut self, to: NodeId) -> Result<bool, String> {
        let Some((_, leader)) = self.world.leaders().first().copied() else { return Ok(false) };
        self.step(leader, Event::HandOver(leader, Some(to).filter(|to| *to != leader)))?;
        Ok(self.world.running(leader).is_some_and(|running| running.replica.handing_over_to().is_some()))
    }

    /// A node that was removed, and stopped, is started again to be added: with the log that it has.
    fn bring_back(&mut self, id: NodeId) {
        if self.world.removed.remove(&id) {
            let now = self.now();
            let machine = &mut self.machines[slot(id)];
            machine.out = false;
            machine.back_at = Some(now);
        }
    }

    /// It learned that it was removed.
    pub(super) fn was_removed(&mut self, id: NodeId) {
        self.machines[slot(id)].out = true;
        self.report.count("removed", 1);
        self.say(|| format!("{id} stops: it was removed"));
    }

    /// The nodes that belong to the cluster now, by their place.
    pub(super) fn is_member(&self, at: usize) -> bool {
        self.world.members().contains(id_of(at))
    }
}
