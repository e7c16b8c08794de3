//! The way of a read through `Consensus`: [`Reads`] decides; here the rules are asked for an index,
//! messages leave, and callers are answered.

use super::Consensus;
use crate::{
    actors::messages::{ReadAnswer, ReadCaller},
    decisions::reads::{Effect, Reader, Reads, View},
    events::What,
};
use actix::Context;
use quorate_raft::Moment;

impl Consensus {
    /// Calls one decision about reads, and performs its effects. The clock is read here, after the
    /// event was taken from its queue.
    pub(super) fn decide_reads(
        &mut self,
        ctx: &mut Context<Self>,
        event: impl FnOnce(&mut Reads<ReadAnswer>, Moment, &View, &mut Vec<Effect<ReadAnswer>>),
    ) {
        let (now, view) = (self.node.clock.now(), self.reads_view());
        let mut effects = std::mem::take(&mut self.clients.read_effects);
        event(&mut self.clients.reads, now, &view, &mut effects);
        for effect in effects.drain(..) {
            self.perform_for_reads(effect, ctx);
        }
        self.clients.read_effects = effects;
    }

    fn perform_for_reads(&mut self, effect: Effect<ReadAnswer>, ctx: &mut Context<Self>) {
        match effect {
            Effect::Ask { asked, token, by_lease } => self.rule(ctx, |replica, out| match by_lease {
                true => replica.read_by_lease(asked, token, out),
                false => replica.read(asked, token, out),
            }),
            Effect::Send(outgoing) => self.send(outgoing),
            // The caller may have left.
            Effect::Answer { waiter, outcome } => {
                // The caller may have left.
                let _ = waiter.send(outcome);
            }
            Effect::DataLost { leader, index: last, committed } => {
                self.tell(What::LeaderLostData { leader, last, committed });
            }
        }
    }

    /// A group of readers waits at the gate, and grows while it would not be answered sooner.
    pub(super) fn readers_wait(&mut self, ctx: &mut Context<Self>) {
        self.at_gate.waits = true;
        if !self.clients.reads.may_gather(&self.reads_view()) {
            self.let_readers_in(ctx);
        }
    }

    /// Lets the group at the gate ask, if there is one.
    pub(super) fn let_readers_in(&mut self, ctx: &mut Context<Self>) {
        if std::mem::take(&mut self.at_gate.waits)
            && let Some(group) = self.at_gate.gate.take()
        {
            self.take_reads(vec![group], ctx);
        }
    }

    /// A caller reads by the published lease, and less than half of it is left.
    pub(super) fn renew_lease(&mut self, ctx: &mut Context<Self>) {
        let now = self.node.clock.now();
        self.rule(ctx, |replica, out| replica.renew_lease(now, out));
    }

    fn reads_view(&self) -> View {
        View {
            routing: self.routing_view(),
            applied: self.replica.applied_index(),
            last_log: self.replica.log().last().index,
            committed: self.replica.known_committed(),
            is_confirming: self.replica.is_confirming(),
        }
    }

    /// Callers of this node's handle want to read.
    pub(super) fn take_reads(&mut self, callers: Vec<ReadCaller>, ctx: &mut Context<Self>) {
        if callers.is_empty() {
            return;
        }
        let both = self.node.clock.both_now();
        let reader = |ReadCaller { answer, asked, wants, until }| Reader::Here {
            waiter: answer,
            asked: both.moment_of(asked),
            wants,
            until: until.map(|until| both.moment_of(until)),
        };
        let readers = callers.into_iter().map(reader).collect();
        self.decide_reads(ctx, |reads, now, view, out| reads.offered(readers, now, view, out));
    }
}
