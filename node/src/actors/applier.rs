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
    waiting: BTreeMap<Index, Vec<Run<M>>>,
    consensus: Addr<Consensus>,
    metrics: NodeMetrics,
    fate: Fate,
    _sentinel: Sentinel,
}

/// A read of the machine, and of how far it has applied.
pub(crate) type Run<M> = Box<dyn FnOnce(&M, Index) + Send>;

/// A handle → `Applier`: run this as soon as `index` is applied.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Query<M> {
    pub(crate) index: Index,
    pub(crate) run: Run<M>,
}

impl<M: StateMachine> Applier<M> {
    pub(crate) fn new(machine: M, consensus: Addr<Consensus>, metrics: NodeMetrics, fate: Fate) -> Self {
        Self {
            machine: Box::new(machine),
            applied: Index(0),
            answers: Vec::new(),
            telling: false,
            waiting: BTreeMap::new(),
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
            for run in first.remove() {
                run(&self.machine, self.applied);
            }
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

    fn handle(&mut self, Query { index, run }: Query<M>, _: &mut Self::Context) {
        if index <= self.applied {
            run(&self.machine, self.applied);
        } else {
            self.waiting.entry(index).or_default().push(run);
        }
    }
}

impl<M: StateMachine> Handler<Stop> for Applier<M> {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
