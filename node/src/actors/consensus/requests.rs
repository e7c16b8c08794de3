//! The way of a command through `Consensus`: [`Proposals`] decides; here batches reach the rules,
//! messages leave, and callers are answered.

use super::Consensus;
use crate::{
    actors::messages::{Offer, Waiter},
    admission::Permit,
    decisions::{
        callers::{Caller, Proposal},
        proposals::{Effect, Proposals, View},
        reads::Reads,
        routing,
    },
};
use actix::Context;
use quorate_metrics::{DropReason, ProposalResult};
use quorate_raft::{Lookup, Moment, NodeId, Propose, Term};
use std::sync::Arc;
use tokio::time::Instant;

impl Consensus {
    /// Calls one decision about commands, and performs its effects.
    pub(super) fn decide_commands(
        &mut self,
        ctx: &mut Context<Self>,
        event: impl FnOnce(&mut Proposals<Waiter, Permit>, Moment, &View, &mut Vec<Effect<Waiter, Permit>>),
    ) {
        let (now, view) = (self.node.clock.now(), self.proposals_view());
        let mut effects = std::mem::take(&mut self.clients.proposal_effects);
        event(&mut self.clients.proposals, now, &view, &mut effects);
        for effect in effects.drain(..) {
            self.perform_for_commands(effect, ctx);
        }
        self.clients.proposal_effects = effects;
    }

    fn perform_for_commands(&mut self, effect: Effect<Waiter, Permit>, ctx: &mut Context<Self>) {
        match effect {
            Effect::Append(commands) => self.append(commands, ctx),
            Effect::Send(outgoing) => self.send(outgoing),
            Effect::Answer { waiter, outcome } => {
                if matches!(outcome, Ok(Ok(_))) {
                    self.node.metrics.proposals(ProposalResult::Applied, 1);
                }
                waiter.tell(outcome);
            }
            Effect::Duplicate { from } => self.dropped(from, DropReason::Duplicate),
        }
    }

    fn proposals_view(&self) -> View {
        View { routing: self.routing_view(), last_log: self.replica.log().last().index, commit: self.replica.commit() }
    }

    /// The node's part in the cluster, for the route of a request.
    pub(super) fn routing_view(&self) -> routing::View {
        let is_leader = self.replica.is_leader();
        routing::View {
            is_leader,
            term: self.replica.term(),
            known_leader: self.replica.leader(),
            leader: if is_leader { None } else { self.reachable_leader() },
            is_stopping: self.stopping.is_stopping(),
            holds_proposals: self.replica.holds_proposals() || self.ticking.ticks.hold_commands(),
            is_storage_full: self.replica.is_storage_full(),
            halted_at: self.halted_at(),
            is_alone: self.connections.peers.is_empty(),
        }
    }

    /// Callers of this node's handle propose commands.
    pub(super) fn take_offers(&mut self, offers: Vec<Offer>, ctx: &mut Context<Self>) {
        if offers.is_empty() {
            return;
        }
        let both = self.node.clock.both_now();
        let proposal = |Offer { kind, payload, waiter, until }| {
            let asked = both.moment_of(waiter.asked);
            Proposal {
                kind,
                payload,
                caller: Caller::Here { asked, waiter },
                until: until.map(|until| both.moment_of(until)),
            }
        };
        let proposals = offers.into_iter().map(proposal).collect();
        self.decide_commands(ctx, |commands, now, view, out| commands.offered(proposals, now, view, out));
    }

    /// Another node forwarded commands of its clients. They are bounded like this node's own.
    pub(super) fn proposals_forwarded(
        &mut self,
        (from, term, is_outside): (NodeId, Term, bool),
        propose: Propose,
        ctx: &mut Context<Self>,
    ) {
        let admission = Arc::clone(&self.clients.admission_for_others);
        let admit = |bytes| admission.enter(bytes, None);
        self.decide_commands(ctx, |commands, now, view, out| {
            commands.arrived((from, term, is_outside), propose, admit, now, view, out);
        });
    }

    /// Passes commands to the rules, batch by batch.
    fn append(&mut self, commands: Vec<Proposal<Waiter, Permit>>, ctx: &mut Context<Self>) {
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            let (now, taken) = (self.node.clock.now(), Instant::now());
            let view = self.ticks_view();
            let builder = |capacity| self.replica.next_batch(capacity);
            let time = self.ticking.before_batch(&view, now);
            let Some(laid_out) = self.clients.proposals.lay_out(&mut commands, builder, time, now) else {
                let left = commands.collect();
                return self.decide_commands(ctx, |commands, now, view, out| commands.offered(left, now, view, out));
            };
            let (batch, count) = (laid_out.batch, laid_out.count);
            self.node.metrics.batch(count);
            self.clients.stages.appended((batch.first(), batch.last()), taken, Instant::now());
            self.rule(ctx, |replica, out| replica.propose(now, batch, out));
        }
    }

    /// Decides the commands that were forwarded to the leader of an earlier term, once an entry of
    /// a later term is committed: then the log has all of them that will ever take effect. Commands
    /// that it lacks are forwarded again.
    ///
    /// The outcome of the others is known to the earlier leader alone; if that is alive, its answer
    /// is on the way.
    pub(super) fn decide_stranded(&mut self, ctx: &mut Context<Self>) {
        let (log, commit) = (self.replica.log(), self.replica.commit());
        let Some(term) = log.term_of(commit) else { return };
        let Some(after) = self.clients.proposals.stranded_after(term) else { return };
        let (mut batches, mut from) = (Vec::new(), after.next());
        while from <= commit {
            // Payloads that are not cached are not waited for: the deadline is near.
            let Lookup::Cached(batch) = log.lookup(from, commit, usize::MAX) else { return };
            from = batch.last().next();
            batches.push(batch);
        }
        self.decide_commands(ctx, |commands, now, view, out| commands.decide_stranded(term, &batches, now, view, out));
    }

    /// Takes deferred proposals and reads again: a leader may be reachable now.
    pub(super) fn retry_deferred(&mut self, ctx: &mut Context<Self>) {
        self.decide_commands(ctx, Proposals::leader_reachable);
        self.decide_reads(ctx, Reads::leader_reachable);
    }
}
