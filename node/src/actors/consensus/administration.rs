//! Requests of operators: membership changes and leadership transfers. Any node takes one and
//! forwards it to the leader, which carries it out and answers when it is committed, refused, or
//! its outcome is unknown.
//!
//! [`ChangeUnderWay`] decides the steps of a change. There is one change at a time: a second one is
//! refused as pending.

use super::Consensus;
use crate::{
    actors::messages::{Administer, Operator},
    decisions::{
        automatic::{self, Step},
        membership_change::{self, ChangeUnderWay, Next, Tried},
        routing::Route,
    },
};
use actix::Context;
use quorate_raft::{
    AdministerOutcome, Administered, Administration, Body, Change, ChangeRefused, NodeId, TransferRefused,
};

impl Consensus {
    /// An operator of this node or of another wants a change or a transfer.
    pub(super) fn administer(&mut self, Administer { what, operator }: Administer, ctx: &mut Context<Self>) {
        if self.operators.are_too_many() {
            return self.answer_operator(operator, refused(&what));
        }
        match self.routing_view().route(matches!(operator, Operator::There { .. })) {
            Route::Here => match what {
                Administration::Change(change) => self.begin_change(change, operator, ctx),
                Administration::TransferLeadership(to) => self.begin_transfer(to, operator, ctx),
            },
            Route::Forward(leader) => {
                let request = self.operators.ids.next();
                // The leader may have to undo a change before it refuses it.
                let wait = self.node.timing.catch_up_wait + self.node.timing.leader_wait * 2;
                self.operators.at_leader.insert(request, (leader, operator, self.node.clock.now().plus(wait)));
                self.say(leader, Body::Administer(quorate_raft::Administer { request, what }));
            }
            Route::Defer => {
                let deadline = self.node.clock.now().plus(self.node.timing.leader_wait);
                self.operators.deferred.push((Administer { what, operator }, deadline));
            }
            Route::Refuse => self.answer_operator(operator, refused(&what)),
        }
    }

    /// Another node forwarded an operator's request.
    pub(super) fn administer_forwarded(
        &mut self,
        node: NodeId,
        quorate_raft::Administer { request, what }: quorate_raft::Administer,
        ctx: &mut Context<Self>,
    ) {
        self.administer(Administer { what, operator: Operator::There { node, request } }, ctx);
    }

    /// Refuses an operator's request that a node outside the configuration forwarded.
    pub(super) fn refuse_administer(
        &mut self,
        node: NodeId,
        quorate_raft::Administer { request, what }: &quorate_raft::Administer,
    ) {
        self.answer_operator(Operator::There { node, request: *request }, refused(what));
    }

    /// The leader answered a request that was forwarded to it.
    pub(super) fn administered(&mut self, from: NodeId, Administered { request, outcome }: Administered) {
        if self.operators.at_leader.get(&request).is_some_and(|(leader, ..)| *leader == from)
            && let Some((_, operator, _)) = self.operators.at_leader.remove(&request)
        {
            self.answer_operator(operator, outcome);
        }
    }

    fn begin_change(&mut self, change: Change, operator: Operator, ctx: &mut Context<Self>) {
        let view = self.change_view();
        let begun = match &self.operators.change {
            Some(_) => Err(ChangeRefused::Pending { index: view.index }),
            None => ChangeUnderWay::begin(change, self.node.clock.now().plus(self.node.timing.catch_up_wait), &view),
        };
        match begun {
            Ok(change) => {
                self.operators.change = Some((change, operator));
                self.continue_change(ctx);
            }
            Err(why) => self.answer_operator(operator, AdministerOutcome::ChangeRefused(why)),
        }
    }

    fn change_view(&self) -> membership_change::View<'_> {
        membership_change::View {
            membership: self.replica.membership(),
            index: self.replica.membership_index(),
            is_settled: self.replica.is_settled(),
            is_leader: self.replica.is_leader(),
        }
    }

    /// Takes the next step of the change under way, if it can be taken now.
    fn continue_change(&mut self, ctx: &mut Context<Self>) {
        self.end_change_if_done();
        // Not in its place while a rule runs: the effects of a step are judged when all of
        // them are performed.
        let Some((mut change, operator)) = self.operators.change.take() else { return };
        let tried = match change.next(&self.change_view()) {
            None | Some(Next::Undone) => Tried::Wait,
            Some(next @ (Next::Add(..) | Next::Last(_) | Next::Undo(_))) => {
                let (now, mut outcome) = (self.node.clock.now(), Err(ChangeRefused::NotReady));
                self.rule(ctx, |replica, out| {
                    if let Next::Add(step, _) | Next::Last(step) | Next::Undo(step) = &next {
                        outcome = replica.change(now, step, out);
                    }
                });
                let now = self.node.clock.now();
                change.tried(next, outcome, now, now.plus(self.node.timing.leader_wait))
            }
        };
        match tried {
            Tried::Over(outcome) => self.answer_operator(operator, outcome),
            Tried::Wait => {
                self.operators.change = Some((change, operator));
                self.end_change_if_done();
            }
            Tried::Again => {
                self.operators.change = Some((change, operator));
                self.continue_change(ctx);
            }
        }
    }

    /// Answers the operator of a change that is committed, or that this node can't bring
    /// about any more.
    pub(super) fn end_change_if_done(&mut self) {
        let Some((change, _)) = &self.operators.change else { return };
        if let Some(outcome) = change.outcome(self.node.clock.now(), &self.change_view())
            && let Some((_, operator)) = self.operators.change.take()
        {
            self.answer_operator(operator, outcome);
        }
    }

    fn begin_transfer(&mut self, to: Option<NodeId>, operator: Operator, ctx: &mut Context<Self>) {
        let now = self.node.clock.now();
        let mut outcome = Err(TransferRefused::NotLeader);
        self.rule(ctx, |replica, out| outcome = replica.transfer_leadership(now, to, out));
        match outcome {
            Ok(to) if to == self.replica.id() => self.answer_operator(operator, AdministerOutcome::Transferred(to)),
            Ok(to) => {
                let deadline = now.plus(self.node.timing.leader_wait + self.node.timing.election_timeout.1 * 10);
                self.operators.transfers.push((operator, to, deadline));
            }
            Err(why) => self.answer_operator(operator, AdministerOutcome::TransferRefused(why)),
        }
    }

    /// The target of a transfer did not take over.
    pub(super) fn transfer_ended(&mut self, to: NodeId, ctx: &mut Context<Self>) {
        for (operator, ..) in std::mem::take(&mut self.operators.transfers) {
            let why = TransferRefused::GivenUp { to };
            self.answer_operator(operator, AdministerOutcome::TransferRefused(why));
        }
        self.retry_deferred(ctx);
    }

    /// Another node leads, or none.
    pub(super) fn leader_changed_for_operators(&mut self, ctx: &mut Context<Self>) {
        let Some(leader) = self.replica.leader() else { return };
        // If the leader before is still there, its answer comes within this time.
        let soon = self.node.clock.now().plus(self.node.timing.election_timeout.1 * 2);
        for (asked, _, deadline) in self.operators.at_leader.values_mut() {
            if *asked != leader {
                *deadline = (*deadline).min(soon);
            }
        }
        if leader != self.replica.id() {
            for (operator, ..) in std::mem::take(&mut self.operators.transfers) {
                self.answer_operator(operator, AdministerOutcome::Transferred(leader));
            }
        }
        for (administer, _) in std::mem::take(&mut self.operators.deferred) {
            self.administer(administer, ctx);
        }
    }

    /// Gives up on requests past their deadlines, and continues the change under way: its new
    /// members may have caught up.
    pub(super) fn expire_operators(&mut self, ctx: &mut Context<Self>) {
        let now = self.node.clock.now();
        for (administer, _) in
            self.operators.deferred.extract_if(.., |(_, deadline)| *deadline <= now).collect::<Vec<_>>()
        {
            let outcome = refused(&administer.what);
            self.answer_operator(administer.operator, outcome);
        }
        let late = self.operators.transfers.extract_if(.., |(_, _, deadline)| *deadline <= now);
        let late: Vec<_> = late.map(|(operator, ..)| operator).collect();
        let lost = self.operators.at_leader.extract_if(.., |_, (_, _, deadline)| *deadline <= now);
        let lost: Vec<_> = lost.map(|(_, (_, operator, _))| operator).collect();
        for operator in late.into_iter().chain(lost) {
            self.answer_operator(operator, AdministerOutcome::Unknown);
        }
        self.continue_change(ctx);
    }

    /// The link to `peer` was lost, and with it answers that may have been on their way.
    pub(super) fn operators_peer_lost(&mut self, peer: NodeId) {
        let lost = self.operators.at_leader.extract_if(.., |_, (leader, ..)| *leader == peer);
        for operator in lost.map(|(_, (_, operator, _))| operator).collect::<Vec<_>>() {
            self.answer_operator(operator, AdministerOutcome::Unknown);
        }
    }

    /// About once a heartbeat interval: takes the step that automatic promotion or
    /// transfer has due.
    pub(super) fn take_automatic_step(&mut self, ctx: &mut Context<Self>) {
        if !self.replica.is_leader() || self.stopping.is_stopping() {
            return self.automation.reset();
        }
        let now = self.node.clock.now();
        let membership = self.replica.membership();
        let view = automatic::View {
            this: self.replica.id(),
            voters: membership.incoming(),
            learners: membership.learners(),
            witness: membership.witness(),
            is_idle: self.replica.is_settled()
                && self.replica.transfer_target().is_none()
                && self.operators.change.is_none(),
            keeps_up: &|id| self.replica.keeps_up(now, id),
        };
        match self.automation.next(self.node.clock.now(), self.node.timing.promote_after, &view) {
            None => {}
            Some(Step::Promote(learner)) => {
                let change = Change::promote(learner);
                let mut outcome = Ok(self.replica.membership_index());
                self.rule(ctx, |replica, out| outcome = replica.change(now, &change, out));
                match outcome {
                    Ok(index) => tracing::info!(%learner, %index, "a learner that kept up votes from now on"),
                    Err(why) => tracing::warn!(%learner, "a learner that kept up does not vote yet: {why}"),
                }
            }
            Some(Step::Transfer(to)) => {
                tracing::info!(%to, "leadership goes to a node that is preferred");
                self.rule(ctx, |replica, out| {
                    // A refused transfer is tried again later.
                    let _ = replica.transfer_leadership(now, Some(to), out);
                });
            }
        }
    }

    fn answer_operator(&mut self, operator: Operator, outcome: AdministerOutcome) {
        match operator {
            // The caller may have left.
            Operator::Here(answer) => drop(answer.send(outcome)),
            Operator::There { node, request } => self.say(node, Body::Administered(Administered { request, outcome })),
        }
    }
}

/// The refusal of a request that no leader has seen.
fn refused(what: &Administration) -> AdministerOutcome {
    match what {
        Administration::Change(_) => AdministerOutcome::ChangeRefused(ChangeRefused::NotLeader),
        Administration::TransferLeadership(_) => AdministerOutcome::TransferRefused(TransferRefused::NotLeader),
    }
}
