//! Proposals: where each command is, and the outcome that its caller is told.
//!
//! A command is in one of four places: *deferred* until a leader can be reached, among the *large*
//! commands of a leader, *forwarded* to the leader, or *in the log* here. In the first two it has
//! had no effect, so to give up is a definite failure. A command that was forwarded or appended may
//! take effect at any later time, under any leader, so to give up is an unknown outcome. Two facts
//! prove that it never will: another entry is committed at its index; or, for a forwarded command,
//! an entry of a later term is committed and no entry has the command. Then it is forwarded again:
//! a leader appends a forwarded command in the term in which it was sent, or never.

mod forwarding;

use super::{
    callers::{Caller, Callers, Outcome, Proposal},
    large_commands::LargeCommands,
    request_ids::{DuplicateFilter, RequestIds},
    routing::{self, Route},
};
use crate::{
    config::{Limits, Sessions, Timing},
    error::ProposeError,
};
use bytes::Bytes;
use quorate_raft::{
    Batch, BatchBuilder, Body, ForwardedOutcome, Index, Kind, Message, Moment, NodeId, Outgoing, ProposeOutcome,
    ProposeReply, Term,
    record::OVERHEAD_BYTES,
    session::{LogTime, Stamp},
    tick::Tick,
};
use std::{
    collections::{BTreeMap, VecDeque},
    iter::Peekable,
    time::Duration,
    vec,
};

/// The most commands that enter the log, or are forwarded, as one batch.
pub const BATCH_ENTRIES_MAX: usize = 4096;

/// The commands of a node that have no outcome yet. A method takes one event and pushes
/// [`Effect`]s, which its caller performs in order.
#[derive(Debug)]
pub struct Proposals<W, C> {
    deferred: VecDeque<Deferred<W, C>>,
    forwarded: BTreeMap<u64, Forwarded<W, C>>,
    ids: RequestIds,
    in_log: VecDeque<InLog<W, C>>,
    /// Commands were forwarded in an earlier term, and whether they were appended is not known yet.
    has_stranded: bool,
    large: LargeCommands<W, C>,
    duplicates: DuplicateFilter,
    /// Outcomes that leave at the end of the event that runs, with one message for each node.
    replies: BTreeMap<NodeId, Vec<ForwardedOutcome>>,
    settings: Settings,
}

/// The settings of the node that decisions about commands depend on.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub timing: Timing,
    pub limits: Limits,
    pub sessions: Sessions,
}

/// The node's part in the cluster, and its log.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub routing: routing::View,
    pub last_log: Index,
    pub commit: Index,
}

/// A decision, to be carried out.
#[derive(Debug)]
pub enum Effect<W, C> {
    /// Append these commands: [`Proposals::lay_out`] makes batches of them.
    Append(Vec<Proposal<W, C>>),
    Send(Outgoing),
    /// Tell a caller of this node the outcome.
    Answer {
        waiter: W,
        outcome: Result<Outcome, ProposeError>,
    },
    /// Count a message that was dropped, because its commands had arrived before.
    Duplicate {
        /// The node that sent it.
        from: NodeId,
    },
}

/// A batch for the log.
#[derive(Debug)]
pub struct LaidOut {
    pub batch: Batch,
    /// Its number of commands.
    pub count: u64,
}

#[derive(Debug)]
struct Deferred<W, C> {
    proposal: Proposal<W, C>,
    deadline: Moment,
}

impl<W, C> Deferred<W, C> {
    fn is_over(&self, now: Moment) -> bool {
        self.deadline <= now || self.proposal.is_late(now)
    }
}

#[derive(Debug)]
struct Forwarded<W, C> {
    sent: Sent,
    proposal: Proposal<W, C>,
    deadline: Moment,
    /// A committed entry may be this command.
    may_be_taken: bool,
}

/// How a command was forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sent {
    to: NodeId,
    /// The leader appends it in this term or never.
    term: Term,
    /// The commit index known then: the entry of the command, if there is one, lies after it.
    after: Index,
}

/// The callers of consecutive entries of one batch.
#[derive(Debug)]
struct InLog<W, C> {
    first: Index,
    term: Term,
    callers: Vec<Caller<W, C>>,
    deadline: Moment,
}

impl<W, C> Forwarded<W, C> {
    /// Whether it was forwarded before `term`, and whether it was appended is not known.
    fn is_stranded(&self, term: Term) -> bool {
        self.sent.term < term && !self.may_be_taken
    }
}

type Effects<W, C> = Vec<Effect<W, C>>;

impl<W, C> Proposals<W, C> {
    /// Of a node that starts with what it had in the term `recovered_in`. `life` is random: it
    /// differs from that of every earlier process of this node.
    pub fn new(life: u32, recovered_in: Term, settings: Settings) -> Self {
        Self {
            deferred: VecDeque::new(),
            forwarded: BTreeMap::new(),
            ids: RequestIds::new(life),
            in_log: VecDeque::new(),
            has_stranded: false,
            large: LargeCommands::new(),
            duplicates: DuplicateFilter::since(recovered_in),
            replies: BTreeMap::new(),
            settings,
        }
    }

    /// Whether no caller waits for an outcome.
    pub fn is_empty(&self) -> bool {
        self.deferred.is_empty() && self.forwarded.is_empty() && self.in_log.is_empty() && self.large.is_empty()
    }

    /// Callers of this node propose these, or none of them could be appended when they were to be.
    pub fn offered(&mut self, proposals: Vec<Proposal<W, C>>, now: Moment, view: &View, out: &mut Effects<W, C>) {
        self.place(proposals, now, view, out);
        self.send_replies(view, out);
    }

    /// A leader can be reached: deferred commands take another way.
    pub fn leader_reachable(&mut self, now: Moment, view: &View, out: &mut Effects<W, C>) {
        let deferred = self.deferred.drain(..).map(|deferred| deferred.proposal).collect();
        self.retry(deferred, now, view, out);
        self.send_replies(view, out);
    }

    /// Whether large commands that wait may be appended at this commit index.
    pub fn is_large_due(&self, commit: Index) -> bool {
        self.large.is_due(commit)
    }

    /// Large commands that wait may be appended.
    pub fn large_due(&mut self, now: Moment, view: &View, out: &mut Effects<W, C>) {
        let due = self.large.take();
        self.retry(due, now, view, out);
        self.send_replies(view, out);
    }

    /// Makes one batch of the next of these commands, which are appended with it: after a tick, if
    /// one stands first. `time` is that of the stamps. `None` if this node leads no more, so that
    /// there is no `builder` of a batch with this capacity.
    pub fn lay_out(
        &mut self,
        commands: &mut Peekable<vec::IntoIter<Proposal<W, C>>>,
        builder: impl FnOnce(usize) -> Option<BatchBuilder>,
        (first, time): (Option<Tick>, LogTime),
        now: Moment,
    ) -> Option<LaidOut> {
        let bytes_max = self.settings.limits.max_batch_bytes;
        let mut builder = builder((commands.len() * (OVERHEAD_BYTES + 256)).min(bytes_max))?;
        if let Some(tick) = first {
            builder.push(Kind::Tick, &tick.encode());
        }
        let mut callers = Vec::with_capacity(commands.len().min(BATCH_ENTRIES_MAX));
        while let Some(Proposal { kind, payload, caller, .. }) = commands.next_if(|next| {
            callers.is_empty()
                || (callers.len() < BATCH_ENTRIES_MAX
                    && builder.len() + OVERHEAD_BYTES + next.payload.len() <= bytes_max)
        }) {
            match kind {
                Kind::Session => builder.push_parts(kind, &self.stamp(time).encode(), &payload),
                _ => builder.push(kind, &payload),
            }
            callers.push(caller);
        }
        let batch = builder.finish()?;
        let count = callers.len() as u64;
        let of_callers = batch.first().plus(u64::from(first.is_some()));
        self.appended(of_callers, batch.term(), callers, now);
        Some(LaidOut { batch, count })
    }

    /// Entries are committed: gives their callers. The caller of another entry at the same index is
    /// told that it never will be committed.
    ///
    /// Callers of an earlier leadership may stand before the wanted ones and wait for later
    /// indexes: they stay.
    pub fn committed(&mut self, batch: &Batch, out: &mut Effects<W, C>) -> Vec<Callers<W, C>> {
        let (mut taken, mut at) = (Vec::new(), 0);
        while let Some(next) = self.in_log.get(at) {
            if next.first > batch.last() {
                if next.term >= batch.term() {
                    break;
                }
                at += 1;
                continue;
            }
            let Some(mut front) = self.in_log.remove(at) else { break };
            let within = usize::try_from(batch.last().since(front.first) + 1).unwrap_or(usize::MAX);
            if within < front.callers.len() {
                let callers = front.callers.split_off(within);
                self.in_log.insert(at, InLog { first: batch.last().next(), callers, ..front });
            }
            if front.term == batch.term() {
                taken.push(Callers { first: front.first, callers: front.callers });
            } else {
                for caller in front.callers {
                    // Nodes that forwarded a command watch its deadline themselves.
                    if let Caller::Here { waiter, .. } = caller {
                        out.push(Effect::Answer { waiter, outcome: Err(ProposeError::NoLeader) });
                    }
                }
            }
        }
        taken
    }

    /// A snapshot took the place of the entries up to `index`: their outcomes are unknown here.
    pub fn covered(&mut self, index: Index, view: &View, out: &mut Effects<W, C>) {
        let mut kept = VecDeque::new();
        for mut in_log in std::mem::take(&mut self.in_log) {
            let within = (index.next().since(in_log.first) as usize).min(in_log.callers.len());
            let later = in_log.callers.split_off(within);
            for caller in in_log.callers {
                self.fail(caller, ProposeError::OutcomeUnknown, out);
            }
            if !later.is_empty() {
                kept.push_back(InLog { first: in_log.first.max(index.next()), callers: later, ..in_log });
            }
        }
        self.in_log = kept;
        self.send_replies(view, out);
    }

    /// Another node leads, none does, or the same one leads another term. The leader before may
    /// still answer for a while; then the outcomes of the commands that it has, or that are in the
    /// log, are unknown.
    pub fn leader_changed(&mut self, now: Moment, view: &View) {
        self.large.leader_changed();
        let soon = now.plus(self.settings.timing.election_timeout.1 * 2);
        self.has_stranded = !self.forwarded.is_empty();
        let leader = view.routing.known_leader;
        for forwarded in self.forwarded.values_mut().filter(|forwarded| Some(forwarded.sent.to) != leader) {
            forwarded.deadline = forwarded.deadline.min(soon);
        }
        for in_log in &mut self.in_log {
            in_log.deadline = in_log.deadline.min(soon);
        }
    }

    /// The link to `peer` was lost, and with it answers that may have been on their way.
    pub fn peer_lost(&mut self, peer: NodeId, out: &mut Effects<W, C>) {
        let lost = self.forwarded.extract_if(.., |_, forwarded| forwarded.sent.to == peer);
        for forwarded in lost.map(|(_, forwarded)| forwarded).collect::<Vec<_>>() {
            self.fail(forwarded.proposal.caller, ProposeError::OutcomeUnknown, out);
        }
    }

    /// Gives up on commands past their deadlines. The caller of a large command that waited for too
    /// long is told to come again after `retry_after`.
    pub fn expire(&mut self, retry_after: Duration, now: Moment, view: &View, out: &mut Effects<W, C>) {
        // Deadlines differ: a late one may stand anywhere.
        let (over, deferred): (Vec<_>, Vec<_>) = self.deferred.drain(..).partition(|deferred| deferred.is_over(now));
        self.deferred = deferred.into();
        for Deferred { proposal, deadline } in over {
            let because = if deadline <= now { no_leader(view) } else { ProposeError::DeadlinePassed };
            self.fail(proposal.caller, because, out);
        }
        let late = self.forwarded.extract_if(.., |_, forwarded| forwarded.deadline <= now);
        for forwarded in late.map(|(_, forwarded)| forwarded).collect::<Vec<_>>() {
            self.fail(forwarded.proposal.caller, ProposeError::OutcomeUnknown, out);
        }
        // Their entries may be committed later; then no caller waits.
        while let Some(in_log) = self.in_log.pop_front_if(|in_log| in_log.deadline <= now) {
            for caller in in_log.callers {
                self.fail(caller, ProposeError::OutcomeUnknown, out);
            }
        }
        for proposal in self.large.expire(now, self.settings.timing.proposal_timeout) {
            let late = proposal.is_late(now);
            let because = if late { ProposeError::DeadlinePassed } else { ProposeError::Overloaded { retry_after } };
            self.fail(proposal.caller, because, out);
        }
        self.send_replies(view, out);
    }

    /// The node was removed from the cluster: deferred commands are refused.
    pub fn removed(&mut self, view: &View, out: &mut Effects<W, C>) {
        for Deferred { proposal, .. } in std::mem::take(&mut self.deferred) {
            self.fail(proposal.caller, ProposeError::Stopped, out);
        }
        self.send_replies(view, out);
    }

    /// Takes commands again that have had no effect. A caller waits no longer than
    /// `proposal_timeout`, regardless of the number of leaders.
    fn retry(&mut self, mut proposals: Vec<Proposal<W, C>>, now: Moment, view: &View, out: &mut Effects<W, C>) {
        let patience = self.settings.timing.proposal_timeout;
        let late: Vec<_> = proposals.extract_if(.., |proposal| proposal.caller.has_waited(patience, now)).collect();
        for proposal in late {
            self.fail(proposal.caller, no_leader(view), out);
        }
        self.place(proposals, now, view, out);
    }

    /// Refuses commands that are late or that no node may take, and finds a place for the others.
    fn place(&mut self, mut proposals: Vec<Proposal<W, C>>, now: Moment, view: &View, out: &mut Effects<W, C>) {
        let refusal = |proposal: &Proposal<W, C>| match proposal.is_late(now) {
            true => Some(ProposeError::DeadlinePassed),
            false => view.routing.refusal(&proposal.caller),
        };
        let refused: Vec<_> = proposals.extract_if(.., |proposal| refusal(proposal).is_some()).collect();
        for proposal in refused {
            if let Some(error) = refusal(&proposal) {
                self.fail(proposal.caller, error, out);
            }
        }
        if proposals.is_empty() {
            return;
        }
        match view.routing.route_proposals() {
            Route::Here => {
                let log = (view.last_log, view.commit);
                let admitted = self.large.admit(proposals, log, self.settings.limits.max_batch_bytes);
                if !admitted.is_empty() {
                    out.push(Effect::Append(admitted));
                }
            }
            Route::Forward(leader) => self.forward(leader, proposals, now, view, out),
            Route::Defer | Route::Refuse => self.defer(proposals, now),
        }
    }

    /// No leader can be reached: these wait for one.
    fn defer(&mut self, proposals: Vec<Proposal<W, C>>, now: Moment) {
        let deadline = now.plus(self.settings.timing.leader_wait);
        self.deferred.extend(proposals.into_iter().map(|proposal| Deferred { proposal, deadline }));
    }

    /// The commands of these callers were appended, from index `first` on.
    fn appended(&mut self, first: Index, term: Term, callers: Vec<Caller<W, C>>, now: Moment) {
        let deadline = now.plus(self.settings.timing.proposal_timeout);
        self.in_log.push_back(InLog { first, term, callers, deadline });
    }

    /// The stamp of a session entry.
    fn stamp(&self, time: LogTime) -> Stamp {
        let Sessions { max_sessions, .. } = self.settings.sessions;
        let idle_limit_ms = self.settings.sessions.idle_limit_ms();
        Stamp { time, idle_limit_ms, sessions_max: max_sessions }
    }

    /// Tells a caller that its command has no result.
    fn fail(&mut self, caller: Caller<W, C>, error: ProposeError, out: &mut Effects<W, C>) {
        match caller {
            Caller::Here { waiter, .. } => out.push(Effect::Answer { waiter, outcome: Err(error) }),
            Caller::There { node, request, .. } => self.reply(node, request, in_reply(error)),
        }
    }

    fn reply(&mut self, node: NodeId, request: u64, outcome: ProposeOutcome) {
        self.replies.entry(node).or_default().push(ForwardedOutcome { request, outcome });
    }

    fn send_replies(&mut self, view: &View, out: &mut Effects<W, C>) {
        for (node, outcomes) in std::mem::take(&mut self.replies) {
            out.push(send(node, Body::ProposeReply(ProposeReply { outcomes, replies: Bytes::new() }), view));
        }
    }
}

fn send<W, C>(to: NodeId, body: Body, view: &View) -> Effect<W, C> {
    Effect::Send(Outgoing { to, message: Message { term: view.routing.term, body } })
}

/// The error of a command for which no leader was found.
fn no_leader(view: &View) -> ProposeError {
    match view.routing {
        routing::View { is_storage_full: true, .. } => ProposeError::StorageFull,
        // There is a leader, and it took nothing for as long.
        routing::View { halted_at: Some(at), known_leader: Some(_), .. } => ProposeError::Halted { at },
        _ => ProposeError::NoLeader,
    }
}

/// An error as the node that forwarded the command is told it.
fn in_reply(error: ProposeError) -> ProposeOutcome {
    match error {
        ProposeError::Overloaded { .. } => ProposeOutcome::Overloaded,
        ProposeError::TooLarge { max, .. } => ProposeOutcome::TooLarge { max: u32::try_from(max).unwrap_or(u32::MAX) },
        // The next leader may append it: the other node asks that one.
        ProposeError::NoLeader | ProposeError::StorageFull | ProposeError::Halted { .. } | ProposeError::Stopped => {
            ProposeOutcome::NotLeader
        }
        ProposeError::DeadlinePassed => ProposeOutcome::DeadlinePassed,
        ProposeError::Skipped => ProposeOutcome::Skipped,
        ProposeError::OutcomeUnknown => ProposeOutcome::Unknown,
    }
}

#[cfg(test)]
mod tests;
