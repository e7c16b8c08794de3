//! `Consensus`: owns term, vote, role, membership, match indexes and commit index: the [`Replica`].
//!
//! Every handler has the same three steps: call one rule, perform the effects that it returned, look whether anything
//! changed that somebody waits for ([`Consensus::settle`]). It decides nothing by itself; what it adds to the rules is who
//! waits for what ([`Proposals`], [`Reads`]) and what the world sees ([`Seen`]).

mod clock;
mod names;
mod proposals;
mod reads;
mod seen;
#[cfg(test)]
mod tests;

pub(crate) use clock::Clock;
pub(crate) use seen::status_of;

use super::{
    Requests,
    election_timer::ElectionTimer,
    messages::{
        Acknowledged, Answer, Applied, Arm, Caller, CommitAdvanced, Committed, ElectionLost, ElectionTimeout,
        ElectionWon, Fetch, Fetched, Heard, HeartbeatNow, LeaderHeard, LinkChanged, Matched, Proposal, ReadCaller,
        Rejected, Replicate, Request, Stop, VoteDenied, VoteGranted,
    },
    replicator::{Assignment, Replicator},
    vote_collector::VoteCollector,
};
use crate::{
    config::{Limits, Timing},
    error::{Failure, ProposeError, ReadError},
    fate::{Fate, Sentinel},
    gate::Gate,
    status::Status,
};
use actix::prelude::*;
use bytes::BytesMut;
use names::{Arrived, Names};
use proposals::Proposals;
use quorate_metrics::{NodeMetrics, ProposalStage};
use quorate_raft::{
    Body, Credit, Effect, Entries, EntryId, Index, Kind, Message, NodeId, Outgoing, Replica, Term,
    message::{Propose, ProposeOutcome, ProposeReply, ReadIndex, ReadIndexReply},
    record::OVERHEAD_BYTES,
};
use quorate_storage::contract::{EntriesRead, Persist, Persisted, ReadEntries, Storage, StorageFailed};
use quorate_transport::network::{Delivered, Event, Link};
use reads::Reads;
use seen::Seen;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    sync::Arc,
};
use tokio::{sync::watch, time::Instant};

/// The most commands that enter the log, or are forwarded, as one batch.
pub(crate) const BATCH_ENTRIES_MAX: usize = 4096;

/// The actor.
pub(crate) struct Consensus {
    replica: Replica,
    requests: Option<Requests>,
    effects: Vec<Effect>,
    proposals: Proposals,
    reads: Reads,
    arrived: Arrived,
    seen: Seen,
    links: BTreeMap<NodeId, Rc<dyn Link>>,
    reachable: BTreeSet<NodeId>,
    storage: Storage,
    loads: BTreeMap<u64, LoadFor>,
    next_load: u64,
    timer: Addr<ElectionTimer>,
    collector: Option<Addr<VoteCollector>>,
    replicators: BTreeMap<NodeId, Addr<Replicator>>,
    applier: Recipient<Committed>,
    /// Batches that the leader is persisting or committing, for the metrics of those stages.
    stages: Stages,
    stopping: Option<Instant>,
    clock: Clock,
    timing: Timing,
    limits: Limits,
    gate: Arc<Gate>,
    metrics: NodeMetrics,
    fate: Fate,
    _sentinel: Sentinel,
}

/// What a `Consensus` is made of.
pub(crate) struct Parts {
    pub(crate) replica: Replica,
    pub(crate) requests: Requests,
    pub(crate) links: BTreeMap<NodeId, Rc<dyn Link>>,
    pub(crate) storage: Storage,
    pub(crate) timer: Addr<ElectionTimer>,
    pub(crate) applier: Recipient<Committed>,
    pub(crate) status: watch::Sender<Status>,
    /// Random: no other life of this node has had it.
    pub(crate) life: u32,
    pub(crate) clock: Clock,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    pub(crate) gate: Arc<Gate>,
    pub(crate) metrics: NodeMetrics,
    pub(crate) fate: Fate,
}

/// For whom entries are being read from the storage.
enum LoadFor {
    Applier,
    Peer { peer: NodeId, term: Term, previous: EntryId },
}

/// When the leader's latest batches got their indexes.
#[derive(Default)]
struct Stages {
    persisting: VecDeque<(Index, u64, Instant)>,
    committing: VecDeque<(Index, u64, Instant)>,
}

impl Consensus {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            replica,
            requests,
            links,
            storage,
            timer,
            applier,
            status,
            life,
            clock,
            timing,
            limits,
            gate,
            metrics,
            fate,
        } = parts;
        Self {
            seen: Seen::new(&replica, status, metrics.clone()),
            replica,
            requests: Some(requests),
            effects: Vec::new(),
            proposals: Proposals::new(Names::new(life), metrics.clone()),
            reads: Reads::new(Names::new(life)),
            arrived: Arrived::default(),
            links,
            reachable: BTreeSet::new(),
            storage,
            loads: BTreeMap::new(),
            next_load: 0,
            timer,
            collector: None,
            replicators: BTreeMap::new(),
            applier,
            stages: Stages::default(),
            stopping: None,
            clock,
            timing,
            limits,
            gate,
            metrics,
            _sentinel: fate.sentinel("Consensus"),
            fate,
        }
    }

    /// Calls a rule, performs what it wants done, and looks what has changed.
    fn rule(&mut self, ctx: &mut Context<Self>, rule: impl FnOnce(&mut Replica, &mut Vec<Effect>)) {
        if !self.fate.is_sound() {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        rule(&mut self.replica, &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect, ctx);
        }
        self.effects = effects;
        self.settle(ctx);
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        if !self.fate.is_sound() {
            return;
        }
        match effect {
            Effect::Send(outgoing) => self.send(outgoing),
            Effect::Persist(persist) => {
                self.seen.votes_cast(&persist.then);
                self.storage.persist.do_send(Persist(persist));
            }
            Effect::ArmTimer => self.timer.do_send(Arm { term: self.replica.term() }),
            Effect::LeaderHeard => self.timer.do_send(LeaderHeard { term: self.replica.term() }),
            Effect::OpenBallot(ballot) => {
                self.seen.ballot_opened(ballot.phase);
                let sentinel = self.fate.sentinel("VoteCollector");
                self.collector = Some(VoteCollector::new(ballot, ctx.address(), sentinel).start());
            }
            Effect::CountVote { campaign, voter, granted } => self.count_vote(campaign, voter, granted),
            Effect::CloseBallot => {
                self.seen.ballot_closed();
                self.collector = None;
            }
            Effect::StartReplicators { term, log_last } => self.start_replicators(term, log_last, ctx),
            Effect::StopReplicators => {
                self.stop_replicators();
                self.stages = Stages::default();
            }
            Effect::Replicate { previous, batch } => {
                for replicator in self.replicators.values() {
                    replicator.do_send(Replicate { previous, batch: batch.clone() });
                }
            }
            Effect::Committed(commit) => {
                self.stages.committed(commit, &self.metrics);
                self.tell_replicators(CommitAdvanced { commit });
            }
            Effect::HeartbeatNow { round } => self.tell_replicators(HeartbeatNow { round }),
            Effect::Acknowledged { peer, epoch, matched } => {
                self.tell_replicator(peer, Acknowledged { epoch, matched });
            }
            Effect::Rejected { peer, epoch, previous, next, last } => {
                self.tell_replicator(peer, Rejected { epoch, previous, next, last });
            }
            Effect::Apply(batch) => {
                let callers = self.proposals.committed(&batch);
                self.applier.do_send(Committed { batch, callers, at: Instant::now() });
            }
            Effect::Load { from, to } => self.load(LoadFor::Applier, from, to, self.limits.max_batch_bytes * 4),
            Effect::ReadsReady { index, tokens } => {
                let answers = self.reads.ready(index, tokens);
                self.answer_reads(answers);
            }
            Effect::ReadsFailed { tokens } => {
                let answers = self.reads.failed(tokens);
                self.answer_reads(answers);
            }
            Effect::Refused { from, reason } => self.metrics.dropped(Some(from.0), reason),
            Effect::Halt(violation) => self.fate.fail(Failure::Violation(violation.to_string())),
        }
    }

    /// Looks what the last rule changed: tells the world, and lets those who waited for a leader go on.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        let change = self.seen.look(&self.replica);
        if change.leader {
            // Those whose leader is gone learn soon that the outcome is unknown; it may still be told until then.
            let soon = Instant::now() + self.timing.election_timeout.1 * 2;
            self.proposals.leader_changed(self.replica.leader(), soon);
            let stranded = self.reads.leader_changed();
            self.take_reads_again(stranded, ctx);
            if self.replica.leader().is_some() {
                self.take_parked(ctx);
            }
        }
        // Callers whose command is committed and not yet applied wait at the state machine.
        let drained = || self.proposals.is_empty() && self.replica.applied_index() == self.replica.released();
        if self.stopping.is_some_and(|deadline| drained() || deadline <= Instant::now()) {
            self.fate.shut_down();
        }
    }

    fn send(&mut self, outgoing: Outgoing) {
        self.seen.votes_cast(std::slice::from_ref(&outgoing));
        if let Some(link) = self.links.get(&outgoing.to).filter(|_| self.fate.is_sound()) {
            link.send(outgoing.message);
        }
    }

    fn say(&mut self, to: NodeId, body: Body) {
        self.send(Outgoing { to, message: Message { term: self.replica.term(), body } });
    }

    fn count_vote(&mut self, campaign: u64, voter: NodeId, granted: bool) {
        if voter != self.replica.id() {
            self.seen.vote_received(granted);
        }
        if let Some(collector) = &self.collector {
            if granted {
                collector.do_send(VoteGranted { campaign, voter });
            } else {
                collector.do_send(VoteDenied { campaign, voter });
            }
        }
    }

    fn start_replicators(&mut self, term: Term, log_last: Index, ctx: &mut Context<Self>) {
        for peer in self.replica.membership().peers_of(self.replica.id()) {
            let Some(link) = self.links.get(&peer) else { continue };
            let replicator = Replicator::new(Assignment {
                peer,
                term,
                log_last,
                commit: self.replica.commit(),
                link: Rc::clone(link),
                consensus: ctx.address(),
                clock: self.clock,
                heartbeat_interval: self.timing.heartbeat_interval,
                credit: Credit { retry_after: self.timing.heartbeat_interval * 4, ..Credit::default() },
                metrics: self.metrics.peer(peer.0),
                fate: self.fate.clone(),
            });
            self.replicators.insert(peer, replicator.start());
        }
    }

    fn stop_replicators(&mut self) {
        for replicator in std::mem::take(&mut self.replicators).into_values() {
            replicator.do_send(Stop);
        }
    }

    fn tell_replicator<T>(&self, peer: NodeId, message: T)
    where
        T: actix::Message<Result = ()> + Send + 'static,
        Replicator: Handler<T>,
    {
        if let Some(replicator) = self.replicators.get(&peer) {
            replicator.do_send(message);
        }
    }

    fn tell_replicators<T>(&self, message: T)
    where
        T: actix::Message<Result = ()> + Send + Copy + 'static,
        Replicator: Handler<T>,
    {
        for replicator in self.replicators.values() {
            replicator.do_send(message);
        }
    }

    fn load(&mut self, whom: LoadFor, from: Index, to: Index, bytes_max: usize) {
        self.next_load += 1;
        self.loads.insert(self.next_load, whom);
        self.storage.read_entries.do_send(ReadEntries { request: self.next_load, from, to, bytes_max });
    }

    /// Appends proposals if this node leads, forwards them to the leader if it knows one that it reaches, and lets them
    /// wait for one otherwise. What was forwarded to this node is never forwarded on: it goes back.
    fn take_proposals(&mut self, proposals: Vec<Proposal>, ctx: &mut Context<Self>) {
        if proposals.is_empty() {
            return;
        }
        if self.stopping.is_some() {
            let outcomes = self.proposals.refuse(proposals, ProposeError::Stopped);
            return self.answer_forwarded(outcomes);
        }
        if self.replica.is_leader() {
            return self.append(proposals, ctx);
        }
        let (here, there): (Vec<_>, Vec<_>) =
            proposals.into_iter().partition(|proposal| matches!(proposal.caller, Caller::Here(_)));
        let outcomes = self.proposals.refuse(there, ProposeError::NoLeader);
        self.answer_forwarded(outcomes);
        match self.replica.leader().filter(|leader| self.reachable.contains(leader)) {
            Some(leader) => self.forward(leader, here),
            None => self.proposals.park(here, Instant::now() + self.timing.leader_wait),
        }
    }

    /// Somebody may take now what waited for that.
    fn take_parked(&mut self, ctx: &mut Context<Self>) {
        let parked = self.proposals.unpark();
        self.take_proposals_again(parked, ctx);
        let parked = self.reads.unpark();
        self.take_reads_again(parked, ctx);
    }

    /// Nothing has happened to these yet. Leaders may come and go for ever, but nobody waits for as long.
    fn take_proposals_again(&mut self, proposals: Vec<Proposal>, ctx: &mut Context<Self>) {
        let patience = self.timing.proposal_timeout;
        let is_late = |caller: &Caller| matches!(caller, Caller::Here(waiter) if waiter.asked.elapsed() >= patience);
        let (late, rest): (Vec<_>, Vec<_>) = proposals.into_iter().partition(|proposal| is_late(&proposal.caller));
        let outcomes = self.proposals.refuse(late, ProposeError::NoLeader);
        self.answer_forwarded(outcomes);
        self.take_proposals(rest, ctx);
    }

    /// The same for reads.
    fn take_reads_again(&mut self, callers: Vec<ReadCaller>, ctx: &mut Context<Self>) {
        let patience = self.timing.proposal_timeout;
        let is_late =
            |caller: &ReadCaller| matches!(caller, ReadCaller::Here { asked, .. } if asked.elapsed() >= patience);
        let (late, rest): (Vec<_>, Vec<_>) = callers.into_iter().partition(is_late);
        self.answer_reads(late.into_iter().map(|caller| (caller, Err(ReadError::NoLeader))).collect());
        self.take_reads(rest, ctx);
    }

    /// Lays proposals out as batches and hands each to the rules.
    fn append(&mut self, proposals: Vec<Proposal>, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let mut proposals = proposals.into_iter().peekable();
        while proposals.peek().is_some() {
            let capacity = (proposals.len() * (OVERHEAD_BYTES + 256)).min(self.limits.max_batch_bytes);
            let Some(mut builder) = self.replica.next_batch(capacity) else { return };
            let mut callers = Vec::with_capacity(proposals.len().min(BATCH_ENTRIES_MAX));
            while let Some(Proposal { payload, caller }) = proposals.next_if(|next| {
                builder.is_empty()
                    || (callers.len() < BATCH_ENTRIES_MAX
                        && builder.len() + OVERHEAD_BYTES + next.payload.len() <= self.limits.max_batch_bytes)
            }) {
                builder.push(Kind::Command, &payload);
                callers.push(caller);
            }
            let Some(batch) = builder.finish() else { return };
            let count = callers.len() as u64;
            self.metrics.batch(count);
            self.metrics.proposal_stage_n(ProposalStage::Queue, mean_wait(&callers, now), count);
            self.stages.appended(batch.last(), count, now);
            let deadline = now + self.timing.proposal_timeout;
            self.proposals.appended(batch.first(), batch.term(), callers, deadline);
            let now = self.clock.now();
            self.rule(ctx, |replica, out| replica.propose(now, batch, out));
        }
    }

    fn forward(&mut self, leader: NodeId, proposals: Vec<Proposal>) {
        let deadline = Instant::now() + self.timing.proposal_timeout;
        let mut proposals = proposals.into_iter().peekable();
        while proposals.peek().is_some() {
            let (mut commands, mut payloads) = (Vec::new(), BytesMut::new());
            while let Some(Proposal { payload, caller }) = proposals.next_if(|next| {
                commands.is_empty()
                    || (commands.len() < BATCH_ENTRIES_MAX
                        && payloads.len() + next.payload.len() <= self.limits.max_batch_bytes)
            }) {
                let request = self.proposals.forwarded(leader, &payload, caller, deadline);
                commands.push((request, u32::try_from(payload.len()).unwrap_or(u32::MAX)));
                payloads.extend_from_slice(&payload);
            }
            self.say(leader, Body::Propose(Propose { commands, payloads: payloads.freeze() }));
        }
    }

    /// Another node's clients' commands. They are bounded like this node's own.
    fn proposals_forwarded(&mut self, from: NodeId, propose: Propose, ctx: &mut Context<Self>) {
        let Propose { commands, mut payloads } = propose;
        let Some(&(name, _)) = commands.first().filter(|_| self.links.contains_key(&from)) else { return };
        if !self.arrived.is_new(from, name) {
            return self.metrics.dropped(Some(from.0), "duplicate");
        }
        let room = self.limits.max_in_flight_proposals.saturating_sub(self.proposals.of_other_nodes());
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        for (request, length) in commands {
            let payload = payloads.split_to((length as usize).min(payloads.len()));
            if taken.len() < room && payload.len() <= self.limits.max_command_bytes {
                taken.push(Proposal { payload, caller: Caller::There { node: from, request } });
            } else {
                refused.push((request, ProposeOutcome::Overloaded));
            }
        }
        if !refused.is_empty() {
            self.say(from, Body::ProposeReply(ProposeReply { outcomes: refused, replies: bytes::Bytes::new() }));
        }
        self.take_proposals(taken, ctx);
    }

    /// Tells other nodes the outcomes of what they forwarded: of a node's, all in one message.
    fn answer_forwarded(&mut self, outcomes: Vec<(NodeId, u64, ProposeOutcome)>) {
        let mut by_node: BTreeMap<NodeId, Vec<(u64, ProposeOutcome)>> = BTreeMap::new();
        for (node, request, outcome) in outcomes {
            by_node.entry(node).or_default().push((request, outcome));
        }
        for (node, outcomes) in by_node {
            self.say(node, Body::ProposeReply(ProposeReply { outcomes, replies: bytes::Bytes::new() }));
        }
    }

    /// Tells other nodes what the commands that they forwarded came to: each in few messages, none of them large.
    fn answer_applied(&mut self, answers: Vec<Answer>) {
        let mut by_node: BTreeMap<NodeId, (Vec<(u64, ProposeOutcome)>, BytesMut)> = BTreeMap::new();
        self.proposals.answered_other_nodes(answers.len());
        for Answer { node, request, outcome } in answers {
            let (outcomes, replies) = by_node.entry(node).or_default();
            if !outcomes.is_empty() && replies.len() + outcome.reply.len() > self.limits.max_batch_bytes {
                let (outcomes, replies) = (std::mem::take(outcomes), replies.split().freeze());
                self.say(node, Body::ProposeReply(ProposeReply { outcomes, replies }));
            }
            let reply_bytes = u32::try_from(outcome.reply.len()).unwrap_or(u32::MAX);
            outcomes.push((request, ProposeOutcome::Applied { index: outcome.index, reply_bytes }));
            replies.extend_from_slice(&outcome.reply);
        }
        for (node, (outcomes, replies)) in by_node {
            self.say(node, Body::ProposeReply(ProposeReply { outcomes, replies: replies.freeze() }));
        }
    }

    fn take_reads(&mut self, callers: Vec<ReadCaller>, ctx: &mut Context<Self>) {
        if callers.is_empty() {
            return;
        }
        let deadline = Instant::now() + self.timing.leader_wait;
        if self.replica.is_leader() {
            let token = self.reads.asked_here(callers, deadline);
            return self.rule(ctx, |replica, out| replica.read(token, out));
        }
        let (here, there): (Vec<_>, Vec<_>) =
            callers.into_iter().partition(|caller| matches!(caller, ReadCaller::Here { .. }));
        self.answer_reads(there.into_iter().map(|caller| (caller, Err(ReadError::NoLeader))).collect());
        match self.replica.leader().filter(|leader| self.reachable.contains(leader)) {
            Some(leader) if !here.is_empty() => {
                let request = self.reads.asked_leader(leader, here, deadline);
                self.say(leader, Body::ReadIndex(ReadIndex { request }));
            }
            _ => self.reads.park(here, deadline),
        }
    }

    fn answer_reads(&mut self, answers: Vec<(ReadCaller, Result<Index, ReadError>)>) {
        for (caller, outcome) in answers {
            match caller {
                // Whoever asked may have lost patience.
                ReadCaller::Here { answer, .. } => drop(answer.send(outcome)),
                ReadCaller::There { node, request } => {
                    self.say(node, Body::ReadIndexReply(ReadIndexReply { request, index: outcome.ok() }));
                }
            }
        }
    }

    fn delivered(&mut self, Delivered { from, message, credit }: Delivered, ctx: &mut Context<Self>) {
        let (now, term) = (self.clock.now(), message.term);
        // What the rules have no business with is kept aside: they see its term, then it is acted on here.
        let (message, rest) = match message.body {
            Body::Propose(propose) => (empty(message.term), Some(Body::Propose(propose))),
            Body::ProposeReply(reply) => (empty(message.term), Some(Body::ProposeReply(reply))),
            Body::ReadIndex(_) | Body::ReadIndexReply(_) => (empty(message.term), Some(message.body)),
            _ => (message, None),
        };
        self.rule(ctx, |replica, out| replica.receive(now, from, message, out));
        match rest.filter(|_| self.fate.is_sound()) {
            Some(Body::Propose(propose)) => self.proposals_forwarded(from, propose, ctx),
            Some(Body::ProposeReply(reply)) => {
                let again = self.proposals.outcomes_arrived(from, reply, self.retry_after());
                if self.would_refuse_again(from, term) {
                    self.proposals.park(again, Instant::now() + self.timing.leader_wait);
                } else {
                    self.take_proposals_again(again, ctx);
                }
            }
            Some(Body::ReadIndex(ReadIndex { request })) => {
                self.take_reads(vec![ReadCaller::There { node: from, request }], ctx);
            }
            Some(Body::ReadIndexReply(ReadIndexReply { request, index })) => {
                let callers = self.reads.leader_answered(from, request);
                match index {
                    Some(index) => {
                        self.answer_reads(callers.into_iter().map(|caller| (caller, Ok(index))).collect());
                    }
                    None if self.would_refuse_again(from, term) => {
                        self.reads.park(callers, Instant::now() + self.timing.leader_wait);
                    }
                    None => self.take_reads_again(callers, ctx),
                }
            }
            _ => {}
        }
        drop(credit);
    }

    /// Whether it would be no use to ask a node again that refused in `term`: it is still taken for the leader. That it
    /// is not, or another is, will be known soon.
    fn would_refuse_again(&self, node: NodeId, term: Term) -> bool {
        self.replica.leader() == Some(node) && self.replica.term() == term
    }

    fn link_changed(&mut self, peer: NodeId, up: bool, ctx: &mut Context<Self>) {
        if up {
            self.reachable.insert(peer);
        } else {
            self.reachable.remove(&peer);
            self.proposals.peer_lost(peer);
            let stranded = self.reads.peer_lost(peer);
            self.take_reads_again(stranded, ctx);
        }
        self.tell_replicator(peer, LinkChanged);
        if up && self.replica.leader() == Some(peer) {
            self.take_parked(ctx);
        }
    }

    fn fetch(&mut self, Fetch { term, peer, from, bytes_max }: Fetch) {
        if term != self.replica.term() || !self.replica.is_leader() {
            return;
        }
        match self.replica.entries(from, bytes_max) {
            Entries::Here { previous, batch } => self.tell_replicator(peer, Fetched::Entries { previous, batch }),
            Entries::OnDisk { previous, to } => self.load(LoadFor::Peer { peer, term, previous }, from, to, bytes_max),
            Entries::Compacted => self.tell_replicator(peer, Fetched::Compacted),
        }
    }

    fn entries_read(&mut self, EntriesRead { request, batches }: EntriesRead, ctx: &mut Context<Self>) {
        match self.loads.remove(&request) {
            Some(LoadFor::Applier) => self.rule(ctx, |replica, out| replica.loaded(batches, out)),
            Some(LoadFor::Peer { peer, term, previous }) if term == self.replica.term() => {
                // One append carries one batch; the replicator asks for what follows it.
                let fetched = match batches.into_iter().next() {
                    Some(batch) => Fetched::Entries { previous, batch: Some(batch) },
                    None => Fetched::Overtaken,
                };
                self.tell_replicator(peer, fetched);
            }
            Some(LoadFor::Peer { .. }) | None => {}
        }
    }

    /// What is looked at every heartbeat interval: deadlines of callers, and whether the others still live.
    fn housekeep(&mut self, ctx: &mut Context<Self>) {
        if !self.storage.is_alive() {
            self.fate.fail(Failure::ActorDied { actor: "storage" });
        }
        if self.links.values().any(|link| !link.is_alive()) {
            self.fate.fail(Failure::ActorDied { actor: "PeerLink" });
        }
        let now = Instant::now();
        let outcomes = self.proposals.expire(now);
        self.answer_forwarded(outcomes);
        let answers = self.reads.expire(now);
        self.answer_reads(answers);
        self.seen.time_passed(&self.replica, self.gate.inside() as u64);
        self.settle(ctx);
    }

    fn retry_after(&self) -> std::time::Duration {
        self.timing.election_timeout.0
    }
}

/// A message that tells the rules nothing but its sender's term.
fn empty(term: Term) -> Message {
    Message { term, body: Body::ReadIndex(ReadIndex { request: 0 }) }
}

fn mean_wait(callers: &[Caller], now: Instant) -> std::time::Duration {
    let waits = callers.iter().map(|caller| match caller {
        Caller::Here(waiter) => now.saturating_duration_since(waiter.asked),
        Caller::There { .. } => std::time::Duration::ZERO,
    });
    waits.sum::<std::time::Duration>() / u32::try_from(callers.len().max(1)).unwrap_or(u32::MAX)
}

impl Stages {
    fn appended(&mut self, last: Index, count: u64, now: Instant) {
        self.persisting.push_back((last, count, now));
        self.committing.push_back((last, count, now));
    }

    fn durable(&mut self, durable: Index, metrics: &NodeMetrics) {
        Self::passed(&mut self.persisting, durable, ProposalStage::Persist, metrics);
    }

    fn committed(&mut self, commit: Index, metrics: &NodeMetrics) {
        Self::passed(&mut self.committing, commit, ProposalStage::Commit, metrics);
    }

    fn passed(queue: &mut VecDeque<(Index, u64, Instant)>, index: Index, stage: ProposalStage, metrics: &NodeMetrics) {
        while let Some((_, count, since)) = queue.pop_front_if(|(last, _, _)| *last <= index) {
            metrics.proposal_stage_n(stage, since.elapsed(), count);
        }
    }
}

impl Actor for Consensus {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.timer.do_send(Arm { term: self.replica.term() });
        ctx.run_interval(self.timing.heartbeat_interval, Self::housekeep);
        if let Some(requests) = self.requests.take() {
            Self::add_stream(requests, ctx);
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.stop_replicators();
        self.timer.do_send(Stop);
    }
}

impl StreamHandler<Vec<Request>> for Consensus {
    fn handle(&mut self, requests: Vec<Request>, ctx: &mut Self::Context) {
        let (mut proposals, mut reads) = (Vec::with_capacity(requests.len()), Vec::new());
        for request in requests {
            match request {
                Request::Propose(proposal) => proposals.push(proposal),
                Request::ReadIndex(caller) => reads.push(caller),
                Request::Shutdown => {
                    self.stopping.get_or_insert(Instant::now() + self.timing.leader_wait);
                }
            }
        }
        self.take_proposals(proposals, ctx);
        self.take_reads(reads, ctx);
        self.settle(ctx);
    }

    /// Every handle is gone: nobody can ask anything of this node any more.
    fn finished(&mut self, ctx: &mut Self::Context) {
        self.stopping.get_or_insert(Instant::now());
        self.settle(ctx);
    }
}

/// `Handler<$message>`: call one rule, perform its effects.
macro_rules! hear {
    ($($message:ty: |$this:ident, $pattern:pat_param, $ctx:ident| $body:expr;)+) => {$(
        impl Handler<$message> for Consensus {
            type Result = ();

            fn handle(&mut self, $pattern: $message, $ctx: &mut Self::Context) {
                let $this = self;
                $body;
            }
        }
    )+};
}

hear! {
    Heard: |this, Heard(event), ctx| match event {
        Event::Delivered(delivered) => this.delivered(delivered, ctx),
        Event::LinkUp { peer } => this.link_changed(peer, true, ctx),
        Event::LinkDown { peer } => this.link_changed(peer, false, ctx),
    };
    ElectionTimeout: |this, ElectionTimeout { term }, ctx| {
        let now = this.clock.now();
        if term == this.replica.term() {
            this.seen.ballot_timed_out();
        }
        this.rule(ctx, |replica, out| replica.election_timeout(now, term, out));
    };
    ElectionWon: |this, ElectionWon { term, campaign }, ctx| {
        let now = this.clock.now();
        this.seen.ballot_decided(true);
        this.rule(ctx, |replica, out| replica.election_won(now, term, campaign, out));
    };
    ElectionLost: |this, ElectionLost { term, campaign }, ctx| {
        this.seen.ballot_decided(false);
        this.rule(ctx, |replica, out| replica.election_lost(term, campaign, out));
    };
    Persisted: |this, Persisted { sequence, then }, ctx| {
        for outgoing in then {
            this.send_persisted(outgoing);
        }
        this.rule(ctx, |replica, out| replica.persisted(sequence, out));
        this.stages.durable(this.replica.durable(), &this.metrics);
    };
    EntriesRead: |this, read, ctx| this.entries_read(read, ctx);
    StorageFailed: |this, StorageFailed { error }, _ctx| this.fate.fail(Failure::Storage(error.to_string()));
    Matched: |this, Matched { term, peer, index }, ctx| if term == this.replica.term() {
        this.rule(ctx, |replica, out| replica.matched(peer, index, out));
    };
    Fetch: |this, fetch, _ctx| this.fetch(fetch);
    Stop: |_this, Stop, ctx| ctx.stop();
    Applied: |this, Applied { index, answers }, ctx| {
        if this.fate.is_sound() {
            this.answer_applied(answers);
        }
        this.rule(ctx, |replica, out| replica.applied(index, out));
    };
}

impl Consensus {
    /// What waited for durability leaves. Votes in it were counted when they were handed to the storage.
    fn send_persisted(&mut self, Outgoing { to, message }: Outgoing) {
        if let Some(link) = self.links.get(&to).filter(|_| self.fate.is_sound()) {
            link.send(message);
        }
    }
}
