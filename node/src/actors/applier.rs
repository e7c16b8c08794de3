//! `Applier`: owns the state machine and how far it has applied, for the life of the node.
//!
//! It hears which entries are committed, applies them in order, and answers the callers itself, from its own thread: an
//! answer is one hop from the client. It never decides what is committed.

use super::{
    consensus::Consensus,
    messages::{Answer, Applied, Caller, Callers, Committed, Stop},
};
use crate::{
    fate::{Fate, Sentinel},
    machine::StateMachine,
    node::Applied as Outcome,
};
use actix::prelude::*;
use quorate_metrics::{NodeMetrics, ProposalResult, ProposalStage};
use quorate_raft::{Index, Kind};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// The actor.
pub(crate) struct Applier<M> {
    /// Boxed, so that actix may move the actor whatever the machine is made of.
    machine: Box<M>,
    applied: Index,
    answers: Vec<Answer>,
    telling: bool,
    waiting: BTreeMap<Index, Vec<Waiting<M>>>,
    giving_up: bool,
    patience: Duration,
    consensus: Addr<Consensus>,
    metrics: NodeMetrics,
    fate: Fate,
    _sentinel: Sentinel,
}

/// A read of the machine, and of how far it has applied; without a machine, if that was not far enough for too long.
pub(crate) type Run<M> = Box<dyn FnOnce(Option<&M>, Index) + Send>;

/// A read, and since when it waits for entries.
struct Waiting<M> {
    since: Instant,
    run: Run<M>,
}

/// A handle → `Applier`: run this as soon as `index` is applied.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Query<M> {
    pub(crate) index: Index,
    pub(crate) run: Run<M>,
}

impl<M: StateMachine> Applier<M> {
    /// Reads wait about as long as `patience` for what they must see.
    pub(crate) fn new(
        machine: M,
        consensus: Addr<Consensus>,
        patience: Duration,
        metrics: NodeMetrics,
        fate: Fate,
    ) -> Self {
        Self {
            machine: Box::new(machine),
            applied: Index(0),
            answers: Vec::new(),
            telling: false,
            waiting: BTreeMap::new(),
            giving_up: false,
            patience,
            consensus,
            metrics,
            _sentinel: fate.sentinel("Applier"),
            fate,
        }
    }

    fn apply(&mut self, Committed { batch, callers, at }: Committed) {
        let mut callers = callers.into_iter().flat_map(Callers::with_indexes).peekable();
        let mut tally = Tally::default();
        for record in batch.records() {
            let index = record.id.index;
            debug_assert_eq!(index, self.applied.next(), "committed entries arrive in order");
            let reply = match record.kind {
                Kind::Command => self.machine.apply(index, record.payload),
                Kind::Noop | Kind::Membership => bytes::Bytes::new(),
            };
            self.applied = index;
            if let Some((_, caller)) = callers.next_if(|(of, _)| *of == index) {
                self.answer(caller, Outcome { index, reply }, &mut tally);
            }
        }
        if tally.answered > 0 {
            self.metrics.proposals(ProposalResult::Applied, tally.answered);
            self.metrics.proposal_stage_n(ProposalStage::Apply, at.elapsed(), tally.answered);
            let mean = tally.waited / u32::try_from(tally.answered).unwrap_or(u32::MAX);
            self.metrics.proposal_stage_n(ProposalStage::Total, mean, tally.answered);
        }
    }

    fn answer(&mut self, caller: Caller, outcome: Outcome, tally: &mut Tally) {
        match caller {
            // The node may have failed since this was committed; then nobody may be told anything.
            _ if !self.fate.is_sound() => {}
            Caller::Here(waiter) => {
                tally.answered += 1;
                tally.waited += tally.now.saturating_duration_since(waiter.asked);
                waiter.tell(Ok(outcome));
            }
            Caller::There { node, request } => self.answers.push(Answer { node, request, outcome }),
        }
    }

    fn serve_waiting(&mut self) {
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.key() <= self.applied) {
            for waiting in first.remove() {
                (waiting.run)(Some(&self.machine), self.applied);
            }
        }
    }

    /// Looks, as long as reads wait, which of them have waited too long: the node may have lost its leader for good.
    fn give_up_later(&mut self, ctx: &mut Context<Self>) {
        if !self.giving_up && !self.waiting.is_empty() {
            self.giving_up = true;
            ctx.run_later(self.patience, |this, ctx| {
                this.giving_up = false;
                for waiting in this.waiting.values_mut() {
                    for late in waiting.extract_if(.., |waiting| waiting.since.elapsed() >= this.patience) {
                        (late.run)(None, this.applied);
                    }
                }
                this.waiting.retain(|_, waiting| !waiting.is_empty());
                this.give_up_later(ctx);
            });
        }
    }
}

/// What a batch's answers add up to: metrics are recorded once a batch.
struct Tally {
    now: Instant,
    answered: u64,
    waited: Duration,
}

impl Default for Tally {
    fn default() -> Self {
        Self { now: Instant::now(), answered: 0, waited: Duration::ZERO }
    }
}

impl Callers {
    fn with_indexes(self) -> impl Iterator<Item = (Index, Caller)> {
        let first = self.first;
        self.callers.into_iter().enumerate().map(move |(offset, caller)| (first.plus(offset as u64), caller))
    }
}

/// To itself, once its mailbox is empty: tell `Consensus` how far it came. One hop between threads for all of them.
#[derive(Message)]
#[rtype(result = "()")]
struct Tell;

impl<M: StateMachine> Actor for Applier<M> {
    type Context = Context<Self>;
}

impl<M: StateMachine> Handler<Committed> for Applier<M> {
    type Result = ();

    fn handle(&mut self, committed: Committed, ctx: &mut Self::Context) {
        if !self.fate.is_sound() {
            return;
        }
        self.apply(committed);
        self.serve_waiting();
        if !self.telling {
            self.telling = true;
            ctx.notify(Tell);
        }
    }
}

impl<M: StateMachine> Handler<Tell> for Applier<M> {
    type Result = ();

    fn handle(&mut self, _: Tell, _: &mut Self::Context) {
        self.telling = false;
        let answers = std::mem::take(&mut self.answers);
        self.consensus.do_send(Applied { index: self.applied, answers });
    }
}

impl<M: StateMachine> Handler<Query<M>> for Applier<M> {
    type Result = ();

    fn handle(&mut self, Query { index, run }: Query<M>, ctx: &mut Self::Context) {
        if !self.fate.is_sound() {
            return; // whoever asks learns from its silence that the node has ended
        }
        if index <= self.applied {
            run(Some(&self.machine), self.applied);
        } else {
            self.waiting.entry(index).or_default().push(Waiting { since: Instant::now(), run });
            self.give_up_later(ctx);
        }
    }
}

impl<M: StateMachine> Handler<Stop> for Applier<M> {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
