//! The operator of a walk: it has a membership as its goal, and asks the leader for changes until
//! the goal is reached. It also moves leadership, upgrades nodes and changes their timing.

use super::{
    administration::{address_of, labelled},
    machine::{Afterwards, id_of, slot},
    walk::Walk,
};
use crate::plan::Plan;
use quorate_raft::{Administration, Change, MachineVersions, Member, NodeId};
use rand::Rng;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Walk<'_> {
    /// Sets the goal of the operator.
    pub(super) fn aim_at(&mut self, voters: &[NodeId]) {
        self.operator.goal = Some(voters.to_vec());
        self.operator.next_look = self.now();
    }

    /// Whether the members are those that the operator wants, and no joint configuration is left.
    pub(super) fn is_as_wanted(&self) -> bool {
        let members = self.world.members();
        self.operator.goal.as_ref().is_none_or(|goal| members.incoming() == goal && !members.is_joint())
    }

    /// Asks the leader for the next change, if the goal is not reached.
    pub(super) fn tick_operator(&mut self) -> Result<(), String> {
        if self.operator.next_look > self.now() {
            return Ok(());
        }
        self.operator.next_look = self.now() + LOOK_EVERY;
        let Some(goal) = self.operator.goal.clone() else { return Ok(()) };
        // A node that was added again may first have heard of its removal from a lagging member.
        let members = self.world.members().peers_of(NodeId(0));
        goal.iter().chain(&members).for_each(|id| self.bring_back(*id));
        self.check_refused_changes()?;
        if self.operator.waits_for_change() || self.is_as_wanted() {
            return Ok(());
        }
        let Some(node) = self.node_to_ask() else { return Ok(()) };
        let members = self.world.members();
        let newcomers: Vec<_> = goal.iter().copied().filter(|id| !members.contains(*id)).collect();
        // Where learners are promoted without a request, the operator leaves that to them.
        if self.automatic.promotes() {
            if !newcomers.is_empty() {
                let add = |number| {
                    let add = move |id: &NodeId| Change::add(*id, address_of(*id, number)).and(labelled(*id, number));
                    newcomers.iter().map(add)
                };
                return self.administer(node, |number| {
                    Administration::Change(add(number).reduce(Change::and).unwrap_or_default())
                });
            }
            if goal.iter().any(|id| members.learners().contains(id)) {
                return Ok(());
            }
        }
        self.administer(node, |number| {
            let member = |id: &NodeId| match newcomers.contains(id) {
                true => Member::from((*id, address_of(*id, number))),
                false => Member::from(*id),
            };
            let change = Change::set_voters(goal.iter().map(member));
            let moved: &[NodeId] = if newcomers.is_empty() { &goal[..goal.len().min(1)] } else { &[] };
            let change =
                moved.iter().fold(change, |change, id| change.and(Change::move_to(*id, address_of(*id, number))));
            let named = moved.iter().chain(&newcomers);
            Administration::Change(named.fold(change, |change, id| change.and(labelled(*id, number))))
        })
    }

    /// The node for the next request: mostly the leader, else any. None if it is down, or has a
    /// request already.
    fn node_to_ask(&mut self) -> Option<NodeId> {
        let (_, leader) = self.world.leaders().first().copied()?;
        let any = NodeId(self.random.random_range(1..=self.plan.nodes));
        let node = if self.healing || self.random.random_bool(0.6) { leader } else { any };
        let is_there = self.world.running(node).is_some() && self.machines[slot(node)].idle_until <= self.now();
        Some(node).filter(|node| is_there && !self.operator.waits_for(*node))
    }

    /// Stops a node and starts the next release in its place, if no node runs an older one.
    pub(super) fn upgrade(&mut self, at: usize, down_for: Duration) -> Result<bool, String> {
        if self.machines[at].stops.is_some_and(|then| then.machine.is_some()) {
            return Ok(false);
        }
        let release = |at: usize| self.world.machine_of(id_of(at)).writes;
        let next = Plan::next_release(release(at), (0..self.machines.len()).map(release));
        if next == release(at) {
            return Ok(false);
        }
        self.bring_to(at, next, down_for)
    }

    /// Ends the rollout: upgrades all nodes to the newest release that any of them runs.
    pub(super) fn upgrade_all(&mut self) -> Result<(), String> {
        let release = |walk: &Self, at: usize| {
            let later = walk.machines[at].stops.and_then(|then| then.machine);
            later.unwrap_or(walk.world.machine_of(id_of(at))).writes
        };
        let newest = (0..self.machines.len()).map(|at| release(self, at)).max().unwrap_or(0);
        for at in 0..self.machines.len() {
            if release(self, at) < newest {
                self.bring_to(at, newest, Duration::ZERO)?;
            }
        }
        Ok(())
    }

    fn bring_to(&mut self, at: usize, release: u32, down_for: Duration) -> Result<bool, String> {
        let machine = MachineVersions { writes: release, oldest: 0, newest: release };
        self.stop(at, Afterwards { down_for, machine: Some(machine), ..Afterwards::default() })
    }

    /// Stops a node; it has another election timeout from its next start on.
    pub(super) fn retime(&mut self, at: usize, shortest: Duration, down_for: Duration) -> Result<bool, String> {
        self.stop(at, Afterwards { down_for, shortest: Some(shortest), ..Afterwards::default() })
    }

    /// Asks a node for a leadership transfer.
    pub(super) fn transfer_leadership(&mut self, to: NodeId) -> Result<(), String> {
        let leads = self.world.leaders().first().is_some_and(|(_, leader)| *leader == to);
        let Some(node) = self.node_to_ask() else { return Ok(()) };
        self.administer(node, |_| Administration::TransferLeadership(Some(to).filter(|_| !leads)))
    }

    /// Restarts a node that was removed and stopped, so that it can be added again, with
    /// its old log.
    fn bring_back(&mut self, id: NodeId) {
        if self.world.removed.remove(&id) {
            let now = self.now();
            let machine = &mut self.machines[slot(id)];
            machine.out = false;
            machine.back_at = Some(now);
        }
    }

    /// Stops a node that has learned of its removal from the cluster.
    pub(super) fn was_removed(&mut self, id: NodeId) {
        self.machines[slot(id)].out = true;
        self.is_gone(id);
        self.report.count("removed", 1);
        self.say(|| format!("{id} stops: it was removed"));
    }

    /// Whether the node in this slot belongs to the cluster now.
    pub(super) fn is_member(&self, at: usize) -> bool {
        self.world.members().contains(id_of(at))
    }
}
