//! Planned shutdowns of nodes ([`Stopping`]): leadership is transferred first, callers are
//! answered, and the node ends once it has nothing left to do, or at its deadline.
//!
//! [`Stopping`]: quorate::decisions::stopping::Stopping

use super::{
    machine::{Afterwards, id_of, slot},
    walk::Walk,
};
use crate::plan::Power;
use quorate::decisions::stopping::{Decision, View};
use quorate_raft::NodeId;
use quorate_world::{events::Event, node::Actor, rules::Rules};
use std::{sync::Arc, time::Duration};

impl Walk<'_> {
    /// Asks a node to shut down. It starts again as `then` says; so does one that is
    /// down already, at its next start. Returns whether it is about to stop because of this.
    pub(super) fn stop(&mut self, at: usize, then: Afterwards) -> Result<bool, String> {
        let (id, now) = (id_of(at), self.world.now_of(id_of(at)));
        let machine = &mut self.machines[at];
        let Some(decisions) = machine.decisions.as_mut() else {
            self.changes_at_start(at, then);
            return Ok(false);
        };
        if let Some(before) = &mut machine.stops {
            before.changes_to(then);
            return Ok(false);
        }
        decisions.stopping.shutdown_requested(now, &decisions.timing);
        decisions.stops_by = Some(now.plus(decisions.timing.leader_wait));
        machine.stops = Some(then);
        self.mix(78, id);
        self.say(|| format!("{id} is to shut down"));
        // Without a successor it ends as it is.
        self.step(id, Event::TransferLeadership(id, None))?;
        self.end_if_done(id)?;
        Ok(true)
    }

    /// Ends a node that is to stop and has nothing left to do.
    pub(super) fn end_if_done(&mut self, id: NodeId) -> Result<(), String> {
        let (now, Some(running)) = (self.world.now_of(id), self.world.running(id)) else { return Ok(()) };
        let Some(decisions) = &self.machines[slot(id)].decisions else { return Ok(()) };
        let replica = &running.replica;
        let view = View {
            has_proposals: !decisions.commands.is_empty(),
            has_unapplied: replica.applied_index() != replica.dispatched(),
            has_operators: !decisions.operators.are_answered(),
            is_leader: replica.is_leader(),
            is_transferring: replica.transfer_target().is_some(),
            follows: false,
        };
        match decisions.stopping.decide(now, &decisions.timing, &view) {
            Decision::GoOn if decisions.stops_by.is_some_and(|by| by <= now) => {
                Err(format!("planned shutdowns: {id} runs though its deadline is over"))
            }
            Decision::GoOn => Ok(()),
            Decision::ShutDown | Decision::EndAsRemoved(_) => {
                let is_early = decisions.stops_by.is_some_and(|by| now < by);
                let (callers, moves) = (decisions.callers, replica.transfer_target());
                let Some(then) = self.machines[slot(id)].stops.take() else { return Ok(()) };
                if is_early && (callers > 0 || moves.is_some()) {
                    return Err(format!(
                        "planned shutdowns: {id} ends before its deadline, while {callers} commands have no outcome and \
                         leadership is on its way to {moves:?}"
                    ));
                }
                self.report.count("shut down early", u64::from(is_early));
                self.end_in_order(id, then)
            }
        }
    }

    /// Makes the changes that were to be made while a node is down.
    pub(super) fn changes_at_start(&mut self, at: usize, then: Afterwards) {
        if let Some(machine) = then.machine {
            self.world.machines.insert(id_of(at), machine);
        }
        if let (Some(shortest), Some(rules)) = (then.shortest, self.world.told.get_mut(&id_of(at))) {
            let Rules { settings, .. } = Arc::make_mut(rules);
            (settings.election_timeout_min, settings.election_timeout_max) = (shortest, 2 * shortest);
        }
    }

    /// Ends a node in an orderly way: its pending writes are carried out first.
    fn end_in_order(&mut self, id: NodeId, then: Afterwards) -> Result<(), String> {
        while self.world.running(id).is_some_and(|running| running.asked.has(Actor::Disk)) {
            self.step(id, Event::Act(id, Actor::Disk))?;
        }
        let down_for = if self.healing { Duration::ZERO } else { then.down_for };
        self.changes_at_start(slot(id), then);
        self.crash(slot(id), Power::Lost, down_for)?;
        Ok(())
    }
}
