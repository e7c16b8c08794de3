//! Requests of operators, and automatic steps: [`Operators`] and
//! [`Automation`](crate::decisions::automatic::Automation) decide; here the rules are asked,
//! messages leave, and operators are answered.

use super::{Consensus, status_publisher::StatusPublisher};
use crate::{
    actors::messages::OperatorAnswer,
    decisions::{
        automatic::{self, Step},
        membership_change,
        operators::{Effect, Operators, View},
    },
    events::{TransferFailure, What},
};
use actix::Context;
use quorate_metrics::DropReason;
use quorate_raft::{AdministerOutcome, Change, ChangeRefused, Moment, NodeId, Replica, TransferRefused};

impl Consensus {
    /// Calls one decision about operators' requests, and performs its effects.
    pub(super) fn decide_operators(
        &mut self,
        ctx: &mut Context<Self>,
        event: impl FnOnce(&mut Operators<OperatorAnswer>, Moment, &View<'_>, &mut Vec<Effect<OperatorAnswer>>),
    ) {
        let (now, routing, mut effects) = (self.node.clock.now(), self.routing_view(), Vec::new());
        let change = membership_change::View {
            membership: self.replica.membership(),
            index: self.replica.membership_index(),
            is_settled: self.replica.is_settled(),
            is_leader: self.replica.is_leader(),
        };
        event(&mut self.operators, now, &View { this: self.replica.id(), routing, change }, &mut effects);
        for effect in effects {
            self.perform_for_operators(effect, ctx);
        }
    }

    fn perform_for_operators(&mut self, effect: Effect<OperatorAnswer>, ctx: &mut Context<Self>) {
        let now = self.node.clock.now();
        match effect {
            Effect::Send(outgoing) => self.send(outgoing),
            // The caller may have left.
            Effect::Answer { waiter, outcome } => {
                if let AdministerOutcome::ChangeRefused(why) = &outcome
                    && !waiter.is_automatic
                {
                    self.tell(What::ChangeRefused { why: why.to_string() });
                }
                // The caller may have left.
                let _ = waiter.answer.send(outcome);
            }
            Effect::Duplicate { from } => self.dropped(from, DropReason::Duplicate),
            Effect::Change(change) => {
                let mut outcome = Err(ChangeRefused::NotReady);
                self.rule(ctx, |replica, out| outcome = replica.change(now, &change, out));
                self.decide_operators(ctx, |operators, now, view, out| operators.change_tried(outcome, now, view, out));
            }
            Effect::Transfer { to, operator } => {
                let (to, mut outcome) = (to.or_else(|| self.successor()), Err(TransferRefused::NotLeader));
                self.rule(ctx, |replica, out| outcome = replica.transfer_leadership(now, to, out));
                if let Err(why) = &outcome {
                    self.tell(What::TransferFailed { to, cause: TransferFailure::Refused(why.to_string()) });
                }
                self.decide_operators(ctx, |operators, now, view, out| {
                    operators.transfer_tried(operator, outcome, now, view, out);
                });
            }
        }
    }

    /// About once a heartbeat interval: takes the step that automatic promotion or
    /// transfer has due.
    pub(super) fn take_automatic_step(&mut self, ctx: &mut Context<Self>) {
        if !self.replica.is_leader() || self.stopping.is_stopping() {
            return self.automation.reset();
        }
        let (now, promote_after) = (self.node.clock.now(), self.node.timing.promote_after);
        let (has_change, is_halted) = (self.operators.has_change(), self.halted.is_some());
        let step = with_view(&self.replica, &self.status, now, has_change, is_halted, |view| {
            self.automation.next(now, promote_after, view)
        });
        let why = if is_halted { "its state machine halted" } else { "that is a preferred leader" };
        match step {
            None => {}
            Some(Step::Promote(learner)) => {
                let change = Change::promote(learner);
                let mut outcome = Ok(self.replica.membership_index());
                self.rule(ctx, |replica, out| outcome = replica.change(now, &change, out));
                match outcome {
                    Ok(at) => self.tell(What::LearnerPromoted { learner, at }),
                    Err(why) => self.tell(What::LearnerHeldBack { learner, why: why.to_string() }),
                }
            }
            Some(Step::Transfer(to)) => {
                self.told.transfer_why = Some(why);
                self.rule(ctx, |replica, out| {
                    // A refused transfer is tried again later.
                    let _ = replica.transfer_leadership(now, Some(to), out);
                });
                self.told.transfer_why = None;
            }
        }
    }
    /// The target of a leadership transfer for which the caller names none; `None` leaves the
    /// choice to the rules.
    pub(super) fn successor(&self) -> Option<NodeId> {
        let (now, has_change, is_halted) = (self.node.clock.now(), self.operators.has_change(), self.halted.is_some());
        // A second transfer without a target is taken for the one under way.
        let is_free = self.replica.transfer_target().is_none();
        let choose = |view: &automatic::View<'_>| self.automation.successor(view);
        is_free.then(|| with_view(&self.replica, &self.status, now, has_change, is_halted, choose)).flatten()
    }
}

/// Lets `decide` see this node's configuration and the progress of its members.
fn with_view<T>(
    replica: &Replica,
    status: &StatusPublisher,
    now: Moment,
    has_change: bool,
    is_halted: bool,
    decide: impl FnOnce(&automatic::View<'_>) -> T,
) -> T {
    let membership = replica.membership();
    decide(&automatic::View {
        this: replica.id(),
        voters: membership.incoming(),
        learners: membership.learners(),
        witness: membership.witness(),
        is_idle: replica.is_settled() && replica.transfer_target().is_none() && !has_change,
        keeps_up: &|id| replica.keeps_up(now, id),
        is_halted,
        may_be_halted: &|id| status.may_be_halted(id),
    })
}
