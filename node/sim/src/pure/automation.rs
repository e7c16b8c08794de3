//! Automatic steps of leaders: learners that keep up are promoted, and leadership goes to a
//! preferred leader ([`Automation`]).
//!
//! [`Automation`]: quorate::decisions::automatic::Automation

use super::{
    automatic::FASTER,
    machine::{id_of, slot},
    walk::Walk,
};
use quorate::decisions::automatic::{self, Step};
use quorate_raft::{Change, ChangeRefused, Moment, NodeId};
use quorate_world::node::Running;

impl Walk<'_> {
    /// About once a heartbeat interval: a leader takes the automatic step that is due.
    pub(super) fn take_automatic_step(&mut self, id: NodeId) -> Result<(), String> {
        let (now, Some(running)) = (self.world.now_of(id), self.world.running(id)) else { return Ok(()) };
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
        if !running.leads() || decisions.stopping.is_stopping() {
            decisions.automation.reset();
            return Ok(());
        }
        let (replica, members) = (&running.replica, running.replica.membership());
        let view = automatic::View {
            this: id,
            voters: members.incoming(),
            learners: members.learners(),
            witness: members.witness(),
            is_idle: replica.is_settled() && replica.transfer_target().is_none() && !decisions.operators.has_change(),
            keeps_up: &|id| replica.keeps_up(now, id),
            is_halted: false,
            may_be_halted: &|_| false,
        };
        let faster = Moment(now.0 * FASTER);
        let Some(step) = decisions.automation.next(faster, self.automatic.promote_after, &view) else { return Ok(()) };
        is_allowed(step, running)?;
        self.mix(77, id);
        self.say(|| format!("{id} takes a step of its own: {step:?}"));
        match step {
            Step::Promote(learner) => {
                let mut outcome = Err(ChangeRefused::NotReady);
                let stepped = self.world.change_members(id, &Change::promote(learner), &mut outcome);
                self.report.count("promoted by itself", u64::from(outcome.is_ok()));
                self.after(id, stepped)
            }
            Step::Transfer(to) => {
                self.report.count("transferred by itself", 1);
                let stepped = self.world.on(id, |node, context| {
                    let now = context.now;
                    node.rule(context, |replica, out| {
                        // A refused transfer is tried again later.
                        let _ = replica.transfer_leadership(now, Some(to), out);
                    });
                });
                self.after(id, stepped)
            }
        }
    }

    /// Ends the pauses between transfers: those that have doubled again and again would
    /// outlast the recovery.
    pub(super) fn end_pauses(&mut self) {
        for decisions in self.machines.iter_mut().filter_map(|machine| machine.decisions.as_mut()) {
            decisions.automation = self.automatic.begun();
        }
    }

    /// Whether the first of the preferred leaders that may lead does, if there is one.
    pub(super) fn is_led_as_preferred(&self, leader: NodeId) -> bool {
        let members = self.world.members();
        let may_lead = |id: &NodeId| {
            members.incoming().contains(id)
                && members.witness() != Some(*id)
                && self.machines.iter().enumerate().any(|(at, machine)| id_of(at) == *id && !machine.out)
        };
        let best = self.automatic.preferred.iter().copied().find(|id| may_lead(id));
        best.is_none_or(|best| best == leader)
    }
}

/// Checks a step against the configuration of the leader that is about to take it.
fn is_allowed(step: Step, leader: &Running) -> Result<(), String> {
    let (id, members) = (leader.replica.id(), leader.replica.membership());
    let is_allowed = match step {
        Step::Promote(learner) => members.learners().contains(&learner),
        Step::Transfer(to) => members.incoming().contains(&to) && members.witness() != Some(to) && to != id,
    };
    // One change at a time, and none during a transfer: an operator would be refused.
    let is_idle = leader.replica.is_settled() && leader.replica.transfer_target().is_none();
    if is_allowed && is_idle {
        return Ok(());
    }
    Err(format!("automatic steps: {id} takes {step:?} in {members:?}, idle {is_idle}"))
}
