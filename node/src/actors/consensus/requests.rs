//! The way of a proposal through `Consensus`: it is appended here, forwarded to the leader,
//! deferred or refused, and its caller, here or on another node, is answered.

use super::{Consensus, proposals::Sent};
use crate::{
    actors::{
        messages::{Answer, Caller, Proposal},
        requests::BATCH_ENTRIES_MAX,
    },
    config::Limits,
    decisions::{
        request_ids::Arrival,
        routing::{self, Route},
    },
    error::ProposeError,
    results::Applied,
    sessions::Refusal,
};
use actix::Context;
use bytes::BytesMut;
use quorate_metrics::ProposalStage;
use quorate_raft::{
    Body, ForwardedCommand, ForwardedOutcome, Kind, Lookup, NodeId, Propose, ProposeOutcome, ProposeReply, Term,
    mutants::{Mutant, live},
    record::OVERHEAD_BYTES,
    session::{self, Stamp},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

impl Consensus {
    /// Appends proposals if this node leads, and forwards or defers them otherwise,
    /// as [`routing`] decides.
    pub(super) fn take_proposals(&mut self, mut proposals: Vec<Proposal>, ctx: &mut Context<Self>) {
        if live(Mutant::DroppedCallerCancels) {
            proposals.retain(|proposal| !proposal.caller.is_gone());
        }
        self.drop_late(&mut proposals);
        if proposals.is_empty() {
            return;
        }
        let view = self.routing_view();
        let outcomes = self.proposals.refuse_where(&mut proposals, |proposal| view.refusal(&proposal.caller));
        self.answer_forwarded(outcomes);
        if proposals.is_empty() {
            return;
        }
        match view.route_proposals() {
            Route::Here => self.append(proposals, ctx),
            Route::Forward(leader) => self.forward(leader, proposals),
            Route::Defer | Route::Refuse => {
                self.proposals.defer(proposals, Instant::now() + self.node.timing.leader_wait);
            }
        }
    }

    /// The node's part in the cluster, for the route of a request.
    pub(super) fn routing_view(&self) -> routing::View {
        let is_leader = self.replica.is_leader();
        routing::View {
            is_leader,
            term: self.replica.term(),
            leader: if is_leader { None } else { self.reachable_leader() },
            is_stopping: self.stopping.is_stopping(),
            holds_proposals: self.replica.holds_proposals(),
            is_storage_full: self.replica.is_storage_full(),
            is_alone: self.connections.peers.is_empty(),
        }
    }

    /// Refuses proposals past their deadlines: they are never started.
    fn drop_late(&mut self, proposals: &mut Vec<Proposal>) {
        if proposals.iter().all(|proposal| proposal.until.is_none()) {
            return;
        }
        let now = Instant::now();
        let late: Vec<_> = proposals.extract_if(.., |proposal| proposal.is_late(now)).collect();
        let outcomes = self.proposals.refuse(late, ProposeError::DeadlinePassed);
        self.answer_forwarded(outcomes);
    }

    /// Refuses large commands that waited for too long.
    pub(super) fn expire_large(&mut self, now: Instant) {
        let mut over = self.proposals.large.expire(now, self.node.timing.proposal_timeout);
        self.drop_late(&mut over);
        let outcomes =
            self.proposals.refuse(over, ProposeError::Overloaded { retry_after: self.proposals.gate.retry_after() });
        self.answer_forwarded(outcomes);
    }

    /// Lays proposals out as batches and passes each to the rules. Large ones may have to wait.
    pub(super) fn append(&mut self, proposals: Vec<Proposal>, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let log = (self.replica.log().last().index, self.replica.commit());
        let proposals = self.proposals.large.admit(proposals, log, self.node.limits.max_batch_bytes);
        let mut proposals = proposals.into_iter().peekable();
        while proposals.peek().is_some() {
            let capacity = (proposals.len() * (OVERHEAD_BYTES + 256)).min(self.node.limits.max_batch_bytes);
            let Some(mut builder) = self.replica.next_batch(capacity) else { return };
            let mut callers = Vec::with_capacity(proposals.len().min(BATCH_ENTRIES_MAX));
            while let Some(Proposal { kind, payload, caller, .. }) = proposals.next_if(|next| {
                builder.is_empty()
                    || (callers.len() < BATCH_ENTRIES_MAX
                        && builder.len() + OVERHEAD_BYTES + next.payload.len() <= self.node.limits.max_batch_bytes)
            }) {
                match kind {
                    Kind::Session => builder.push_parts(kind, &self.stamp().encode(), &payload),
                    _ => builder.push(kind, &payload),
                }
                callers.push(caller);
            }
            let Some(batch) = builder.finish() else { return };
            let count = callers.len() as u64;
            self.node.metrics.batch(count);
            self.node.metrics.proposal_stage_n(ProposalStage::Queue, mean_wait(&callers, now), count);
            self.proposals.stages.appended(batch.last(), count, now);
            let deadline = now + self.node.timing.proposal_timeout;
            self.proposals.appended(batch.first(), batch.term(), callers, deadline);
            let now = self.node.clock.now();
            self.rule(ctx, |replica, out| replica.propose(now, batch, out));
        }
    }

    /// The stamp of a session entry.
    fn stamp(&mut self) -> Stamp {
        let time = self.proposals.log_clock.stamp(self.node.clock.now());
        Stamp { time, idle_limit_ms: self.node.sessions.idle_limit_ms(), sessions_max: self.node.sessions.max_sessions }
    }

    pub(super) fn forward(&mut self, leader: NodeId, proposals: Vec<Proposal>) {
        let now = Instant::now();
        let latest = now + self.node.timing.proposal_timeout;
        let sent = Sent { to: leader, term: self.replica.term(), after: self.replica.commit() };
        // The refusal of an expired command by the leader has this time to arrive.
        let to_answer = self.node.timing.heartbeat_interval * 2;
        let mut proposals = proposals.into_iter().peekable();
        while proposals.peek().is_some() {
            let (mut commands, mut payloads) = (Vec::new(), BytesMut::new());
            while let Some(Proposal { kind, payload, caller, until }) = proposals.next_if(|next| {
                commands.is_empty()
                    || (commands.len() < BATCH_ENTRIES_MAX
                        && payloads.len() + next.payload.len() <= self.node.limits.max_batch_bytes)
            }) {
                let waits = until.map_or(latest, |until| until.min(latest)).saturating_duration_since(now);
                let waits_ms = u32::try_from(waits.as_millis()).unwrap_or(u32::MAX);
                let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                payloads.extend_from_slice(&payload);
                let proposal = Proposal { kind, payload, caller, until };
                let request = self.proposals.forwarded(sent, proposal, latest.min(now + waits + to_answer));
                commands.push(ForwardedCommand { request, length, kind, waits_ms });
            }
            self.say(leader, Body::Propose(Propose { commands, payloads: payloads.freeze() }));
        }
    }

    /// Another node forwarded commands of its clients. They are bounded like this node's own.
    pub(super) fn proposals_forwarded(
        &mut self,
        from: NodeId,
        term: Term,
        propose: Propose,
        is_outside: bool,
        ctx: &mut Context<Self>,
    ) {
        let Propose { commands, mut payloads } = propose;
        let Some(first) = commands.first() else { return };
        let refusal = match self.proposals.duplicates.arrived(from, first.request, term, is_outside) {
            Arrival::New => None,
            Arrival::Duplicate => return self.node.metrics.dropped(Some(from.0), "duplicate"),
            Arrival::MayBeTaken => Some(ProposeOutcome::Unknown),
            Arrival::FromOutside => Some(ProposeOutcome::NotLeader),
        };
        if let Some(refusal) = refusal {
            return self
                .answer_forwarded(commands.into_iter().map(|command| (from, command.request, refusal)).collect());
        }
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        let now = Instant::now();
        for ForwardedCommand { request, length, kind, waits_ms } in commands {
            let payload = payloads.split_to((length as usize).min(payloads.len()));
            let besides = if kind == Kind::Session { session::REQUEST_OVERHEAD_BYTES } else { 0 };
            // The limit of the node that the client asked counts; this node's may be lower.
            let max = Limits::COMMAND_BYTES_MAX;
            if payload.len() > max + besides {
                // No retry here can succeed.
                let outcome = ProposeOutcome::TooLarge { max: u32::try_from(max).unwrap_or(u32::MAX) };
                refused.push(ForwardedOutcome { request, outcome });
                continue;
            }
            match self.proposals.gate_for_others.enter(payload.len(), None) {
                Some(credit) => {
                    let caller = Caller::There { node: from, request, term, credit };
                    let until = now.checked_add(Duration::from_millis(waits_ms.into()));
                    taken.push(Proposal { kind, payload, caller, until });
                }
                None => refused.push(ForwardedOutcome { request, outcome: ProposeOutcome::Overloaded }),
            }
        }
        if !refused.is_empty() {
            self.say(from, Body::ProposeReply(ProposeReply { outcomes: refused, replies: bytes::Bytes::new() }));
        }
        self.take_proposals(taken, ctx);
    }

    /// Answers commands that other nodes forwarded, with one message for each node.
    pub(super) fn answer_forwarded(&mut self, outcomes: Vec<(NodeId, u64, ProposeOutcome)>) {
        let mut by_node: BTreeMap<NodeId, Vec<ForwardedOutcome>> = BTreeMap::new();
        for (node, request, outcome) in outcomes {
            by_node.entry(node).or_default().push(ForwardedOutcome { request, outcome });
        }
        for (node, outcomes) in by_node {
            self.say(node, Body::ProposeReply(ProposeReply { outcomes, replies: bytes::Bytes::new() }));
        }
    }

    /// Answers commands that other nodes forwarded and that were applied, with few messages, none
    /// of them large.
    pub(super) fn answer_applied(&mut self, answers: Vec<Answer>) {
        let mut by_node: BTreeMap<NodeId, (Vec<ForwardedOutcome>, BytesMut)> = BTreeMap::new();
        for Answer { node, request, outcome } in answers {
            let (outcomes, replies) = by_node.entry(node).or_default();
            let (outcome, reply) = match outcome {
                Ok(Applied { index, reply }) => {
                    let reply_bytes = u32::try_from(reply.len()).unwrap_or(u32::MAX);
                    (ProposeOutcome::Applied { index, reply_bytes }, reply)
                }
                Err(Refusal::Expired) => (ProposeOutcome::SessionExpired, bytes::Bytes::new()),
                Err(Refusal::StaleSerial) => (ProposeOutcome::StaleSerial, bytes::Bytes::new()),
                Err(Refusal::Skipped) => (ProposeOutcome::Skipped, bytes::Bytes::new()),
            };
            if !outcomes.is_empty() && replies.len() + reply.len() > self.node.limits.max_batch_bytes {
                let (outcomes, replies) = (std::mem::take(outcomes), replies.split().freeze());
                self.say(node, Body::ProposeReply(ProposeReply { outcomes, replies }));
            }
            outcomes.push(ForwardedOutcome { request, outcome });
            replies.extend_from_slice(&reply);
        }
        for (node, (outcomes, replies)) in by_node {
            self.say(node, Body::ProposeReply(ProposeReply { outcomes, replies: replies.freeze() }));
        }
    }

    /// Takes deferred proposals and reads again: a leader may be reachable now.
    pub(super) fn retry_deferred(&mut self, ctx: &mut Context<Self>) {
        let deferred = self.proposals.take_deferred();
        self.retry_proposals(deferred, ctx);
        let deferred = self.reads.take_deferred();
        self.retry_reads(deferred, ctx);
    }

    /// Takes proposals again that have had no effect. However often leaders change, a caller waits
    /// no longer than `proposal_timeout`.
    pub(super) fn retry_proposals(&mut self, proposals: Vec<Proposal>, ctx: &mut Context<Self>) {
        let patience = self.node.timing.proposal_timeout;
        let is_late = |caller: &Caller| matches!(caller, Caller::Here(waiter) if waiter.asked.elapsed() >= patience);
        let (late, rest): (Vec<_>, Vec<_>) = proposals.into_iter().partition(|proposal| is_late(&proposal.caller));
        let outcomes = self.proposals.refuse(late, self.no_leader_error());
        self.answer_forwarded(outcomes);
        self.take_proposals(rest, ctx);
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
        let Some(after) = self.proposals.stranded_after(term) else { return };
        let (mut batches, mut from) = (Vec::new(), after.next());
        while from <= commit {
            // Payloads that are not cached are not waited for: the deadline is near.
            let Lookup::Cached(batch) = log.lookup(from, commit, usize::MAX) else { return };
            from = batch.last().next();
            batches.push(batch);
        }
        let answered_by = Instant::now() + self.node.timing.heartbeat_interval * 2;
        let never_taken = self.proposals.decide(term, &batches, answered_by);
        self.retry_proposals(never_taken, ctx);
    }

    /// Whether a node that refused in `term` is still taken for the leader of that term: to ask it
    /// again is no use. Another leader, or that there is none, will be known soon.
    pub(super) fn would_refuse_again(&self, node: NodeId, term: Term) -> bool {
        self.replica.leader() == Some(node) && self.replica.term() == term
    }
}

fn mean_wait(callers: &[Caller], now: Instant) -> Duration {
    let waits = callers.iter().map(|caller| match caller {
        Caller::Here(waiter) => now.saturating_duration_since(waiter.asked),
        Caller::There { .. } => Duration::ZERO,
    });
    waits.sum::<Duration>() / u32::try_from(callers.len().max(1)).unwrap_or(u32::MAX)
}
