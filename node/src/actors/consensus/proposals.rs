//! The callers that wait for the outcome of a command, and the place of the command.
//!
//! A command is in one of four places: *deferred* until a leader can be reached, among the *large*
//! commands of a leader, *forwarded* to the leader, or *in the log* here. In the first two it has
//! had no effect, so to give up is a definite failure. A command that was forwarded or appended may
//! take effect at any later time, under any leader, so to give up is an unknown outcome. Two facts
//! prove that it never will: another entry is committed at its index; or, for a forwarded command,
//! an entry of a later term is committed and no entry has the command. Then it is forwarded again:
//! a leader appends a forwarded command in the term in which it was sent, or never.

use super::stages::Stages;
use crate::{
    actors::messages::{Caller, Callers, Proposal},
    config::Limits,
    decisions::{
        large_commands::LargeCommands,
        request_ids::{DuplicateFilter, RequestIds},
    },
    error::ProposeError,
    gate::Gate,
    results::Applied,
    sessions::{LogClock, Refusal},
};
use bytes::Bytes;
use quorate_metrics::{NodeMetrics, ProposalResult};
use quorate_raft::{
    Batch, ForwardedOutcome, Index, Kind, NodeId, ProposeOutcome, ProposeReply, Term,
    mutants::{Mutant, live},
    session::STAMP_BYTES,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// The callers that wait for an outcome.
pub(super) struct Proposals {
    deferred: VecDeque<Deferred>,
    forwarded: BTreeMap<u64, Forwarded>,
    ids: RequestIds,
    in_log: VecDeque<InLog>,
    /// Commands were forwarded in an earlier term, and whether they were appended is not known yet.
    has_stranded: bool,
    pub(super) large: LargeCommands,
    pub(super) duplicates: DuplicateFilter,
    /// Admission of this node's own callers.
    pub(super) gate: Arc<Gate>,
    /// Admission of commands that other nodes forward, until they are answered.
    pub(super) gate_for_others: Arc<Gate>,
    pub(super) log_clock: LogClock,
    /// Batches that the leader is persisting or committing, for the metrics of those stages.
    pub(super) stages: Stages,
    metrics: NodeMetrics,
}

struct Deferred {
    proposal: Proposal,
    deadline: Instant,
}

impl Deferred {
    fn is_over(&self, now: Instant) -> bool {
        self.deadline <= now || self.proposal.is_late(now)
    }
}

struct Forwarded {
    sent: Sent,
    proposal: Proposal,
    deadline: Instant,
    /// A committed entry may be this command.
    may_be_taken: bool,
}

/// How a command was forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sent {
    pub(super) to: NodeId,
    /// The leader appends it in this term or never.
    pub(super) term: Term,
    /// The commit index known then: the entry of the command, if there is one, lies after it.
    pub(super) after: Index,
}

/// The callers of consecutive entries of one batch.
struct InLog {
    first: Index,
    term: Term,
    callers: Vec<Caller>,
    deadline: Instant,
}

impl Forwarded {
    /// Whether it was forwarded before `term`, and whether it was appended is not known.
    fn is_stranded(&self, term: Term) -> bool {
        self.sent.term < term && !self.may_be_taken
    }
}

/// The part of an entry's payload that was forwarded: the leader puts a stamp in front
/// of a session's.
fn asked_for(kind: Kind, payload: &[u8]) -> Option<&[u8]> {
    match kind {
        Kind::Session => payload.get(STAMP_BYTES..),
        _ => Some(payload),
    }
}

type ForOtherNodes = Vec<(NodeId, u64, ProposeOutcome)>;

impl Proposals {
    /// Of a node that starts with what it had in the term `recovered_in`. `life` is random: it
    /// differs from that of every earlier process of this node.
    pub(super) fn new(life: u32, recovered_in: Term, gate: Arc<Gate>, limits: &Limits, metrics: NodeMetrics) -> Self {
        Self {
            deferred: VecDeque::new(),
            forwarded: BTreeMap::new(),
            ids: RequestIds::new(life),
            in_log: VecDeque::new(),
            has_stranded: false,
            large: LargeCommands::default(),
            duplicates: DuplicateFilter::since(recovered_in),
            gate,
            gate_for_others: Gate::new(limits.max_in_flight_proposals, limits.max_in_flight_bytes),
            log_clock: LogClock::default(),
            stages: Stages::default(),
            metrics,
        }
    }

    /// Whether no caller waits for an outcome.
    pub(super) fn is_empty(&self) -> bool {
        self.deferred.is_empty() && self.forwarded.is_empty() && self.in_log.is_empty() && self.large.is_empty()
    }

    /// No leader can be reached: these wait for one.
    pub(super) fn defer(&mut self, proposals: Vec<Proposal>, deadline: Instant) {
        self.deferred.extend(proposals.into_iter().map(|proposal| Deferred { proposal, deadline }));
    }

    /// All deferred commands, taken out.
    pub(super) fn take_deferred(&mut self) -> Vec<Proposal> {
        self.deferred.drain(..).map(|deferred| deferred.proposal).collect()
    }

    /// A command is being forwarded: gives the id under which the leader will answer it.
    pub(super) fn forwarded(&mut self, sent: Sent, proposal: Proposal, deadline: Instant) -> u64 {
        let name = self.ids.next();
        self.forwarded.insert(name, Forwarded { sent, proposal, deadline, may_be_taken: false });
        name
    }

    /// The index after which the log decides the commands that were forwarded before `term`; `None`
    /// if there are none left to decide.
    pub(super) fn stranded_after(&self, term: Term) -> Option<Index> {
        if !self.has_stranded {
            return None;
        }
        self.forwarded
            .values()
            .filter(|forwarded| forwarded.is_stranded(term))
            .map(|forwarded| forwarded.sent.after)
            .min()
    }

    /// An entry of `term` is committed, and the `batches` are all that is committed after
    /// [`Proposals::stranded_after`]. Gives the commands of earlier terms that are not among them:
    /// no leader appended them, and none ever will.
    ///
    /// An entry does not name its caller: an equal payload may be another caller's. So the caller
    /// of a command that is among them waits for the leader's answer until `until`, and then the
    /// outcome is unknown.
    pub(super) fn decide(&mut self, term: Term, batches: &[Batch], until: Instant) -> Vec<Proposal> {
        let records = || batches.iter().flat_map(Batch::records);
        let payloads: BTreeSet<(Term, &[u8])> =
            records().filter_map(|record| Some((record.id.term, asked_for(record.kind, record.payload)?))).collect();
        // A witness keeps no payloads.
        let is_known = records().all(|record| record.kind != Kind::Stub);
        let is_absent =
            |forwarded: &Forwarded| !payloads.contains(&(forwarded.sent.term, &forwarded.proposal.payload[..]));
        for forwarded in self.forwarded.values_mut().filter(|forwarded| forwarded.is_stranded(term)) {
            forwarded.may_be_taken = true;
            if !is_known || !is_absent(forwarded) {
                forwarded.deadline = forwarded.deadline.min(until);
            }
        }
        let never = |_: &u64, forwarded: &mut Forwarded| is_known && forwarded.sent.term < term && is_absent(forwarded);
        let never_taken = self.forwarded.extract_if(.., never).map(|(_, forwarded)| forwarded.proposal).collect();
        self.has_stranded = self.forwarded.values().any(|forwarded| !forwarded.may_be_taken);
        never_taken
    }

    /// The commands of these callers were appended, from index `first` on.
    pub(super) fn appended(&mut self, first: Index, term: Term, callers: Vec<Caller>, deadline: Instant) {
        self.in_log.push_back(InLog { first, term, callers, deadline });
    }

    /// Entries are committed: gives their callers. The caller of another entry at the same index is
    /// told that it never will be committed.
    ///
    /// Callers of an earlier leadership may stand before the wanted ones and wait for later
    /// indexes: they stay.
    pub(super) fn committed(&mut self, batch: &Batch) -> Vec<Callers> {
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
            if front.term == batch.term() || live(Mutant::CallersByIndexAlone) {
                taken.push(Callers { first: front.first, callers: front.callers });
            } else {
                // Nodes that forwarded a command watch its deadline themselves.
                for caller in front.callers {
                    self.tell(caller, ProposeError::NoLeader);
                }
            }
        }
        taken
    }

    /// The leader answered forwarded commands. Gives those that it did not append, to be forwarded
    /// to the next leader.
    pub(super) fn outcomes_arrived(
        &mut self,
        from: NodeId,
        reply: ProposeReply,
        retry_after: Duration,
    ) -> Vec<Proposal> {
        let ProposeReply { outcomes, mut replies } = reply;
        let mut again = Vec::new();
        for ForwardedOutcome { request, outcome } in outcomes {
            let value = match outcome {
                ProposeOutcome::Applied { reply_bytes, .. } => {
                    replies.split_to((reply_bytes as usize).min(replies.len()))
                }
                _ => Bytes::new(),
            };
            if self.forwarded.get(&request).is_none_or(|forwarded| forwarded.sent.to != from) {
                continue; // answered, or given up on, before
            }
            let Some(Forwarded { proposal, .. }) = self.forwarded.remove(&request) else { continue };
            let error = match outcome {
                ProposeOutcome::Applied { index, .. } => {
                    self.metrics.proposals(ProposalResult::Applied, 1);
                    if let Caller::Here(waiter) = proposal.caller {
                        waiter.tell(Ok(Ok(Applied { index, reply: value })));
                    }
                    continue;
                }
                ProposeOutcome::NotLeader => {
                    again.push(proposal);
                    continue;
                }
                ProposeOutcome::SessionExpired => {
                    refuse(proposal.caller, Refusal::Expired);
                    continue;
                }
                ProposeOutcome::StaleSerial => {
                    refuse(proposal.caller, Refusal::StaleSerial);
                    continue;
                }
                ProposeOutcome::Skipped => {
                    refuse(proposal.caller, Refusal::Skipped);
                    continue;
                }
                ProposeOutcome::Overloaded => ProposeError::Overloaded { retry_after },
                ProposeOutcome::DeadlinePassed => ProposeError::DeadlinePassed,
                ProposeOutcome::TooLarge { max } => {
                    ProposeError::TooLarge { bytes: proposal.payload.len(), max: max as usize }
                }
                ProposeOutcome::Unknown => ProposeError::OutcomeUnknown,
            };
            self.tell(proposal.caller, error);
        }
        again
    }

    /// A snapshot took the place of the entries up to `index`: their outcomes are unknown here.
    /// Gives the answers to other nodes.
    pub(super) fn covered(&mut self, index: Index) -> ForOtherNodes {
        let (mut outcomes, mut kept) = (Vec::new(), VecDeque::new());
        for mut in_log in std::mem::take(&mut self.in_log) {
            let within = (index.next().since(in_log.first) as usize).min(in_log.callers.len());
            let later = in_log.callers.split_off(within);
            for caller in in_log.callers {
                outcomes.extend(self.tell(caller, ProposeError::OutcomeUnknown));
            }
            if !later.is_empty() {
                kept.push_back(InLog { first: in_log.first.max(index.next()), callers: later, ..in_log });
            }
        }
        self.in_log = kept;
        outcomes
    }

    /// Another node leads, or none: commands that the leader before has, or that are in the log,
    /// have until `soon`.
    pub(super) fn leader_changed(&mut self, leader: Option<NodeId>, soon: Instant) {
        self.has_stranded = !self.forwarded.is_empty();
        for forwarded in self.forwarded.values_mut().filter(|forwarded| Some(forwarded.sent.to) != leader) {
            forwarded.deadline = forwarded.deadline.min(soon);
        }
        for in_log in &mut self.in_log {
            in_log.deadline = in_log.deadline.min(soon);
        }
    }

    /// The link to `peer` was lost, and with it answers that may have been on their way.
    pub(super) fn peer_lost(&mut self, peer: NodeId) {
        let lost: Vec<_> =
            self.forwarded.iter().filter(|(_, f)| f.sent.to == peer).map(|(request, _)| *request).collect();
        for request in lost {
            if let Some(Forwarded { proposal, deadline, .. }) = self.forwarded.remove(&request) {
                if live(Mutant::UnknownOutcomeRetried) {
                    self.defer(vec![proposal], deadline);
                    continue;
                }
                let lost = if live(Mutant::LostLinkIsDefinite) {
                    ProposeError::NoLeader
                } else {
                    ProposeError::OutcomeUnknown
                };
                self.tell(proposal.caller, lost);
            }
        }
    }

    /// Gives up on commands past their deadlines; deferred ones fail with `because`. Gives the
    /// answers to other nodes.
    pub(super) fn expire(&mut self, now: Instant, because: ProposeError) -> ForOtherNodes {
        let mut outcomes = Vec::new();
        // Deadlines differ: a late one may stand anywhere.
        let (over, deferred): (Vec<_>, Vec<_>) = self.deferred.drain(..).partition(|deferred| deferred.is_over(now));
        self.deferred = deferred.into();
        for Deferred { proposal, deadline } in over {
            let because = if deadline <= now { because } else { ProposeError::DeadlinePassed };
            outcomes.extend(self.tell(proposal.caller, because));
        }
        let late: Vec<_> =
            self.forwarded.iter().filter(|(_, f)| f.deadline <= now).map(|(request, _)| *request).collect();
        let unknown = match live(Mutant::ForwardedLateIsDefinite) {
            true => ProposeError::DeadlinePassed,
            false => ProposeError::OutcomeUnknown,
        };
        for request in late {
            if let Some(forwarded) = self.forwarded.remove(&request) {
                outcomes.extend(self.tell(forwarded.proposal.caller, unknown));
            }
        }
        // Their entries may be committed later; then no caller waits.
        let late = if live(Mutant::LateIsDefinite) { ProposeError::NoLeader } else { ProposeError::OutcomeUnknown };
        while let Some(in_log) = self.in_log.pop_front_if(|in_log| in_log.deadline <= now) {
            for caller in in_log.callers {
                outcomes.extend(self.tell(caller, late));
            }
        }
        outcomes
    }

    /// Tells the callers of commands that were not appended. Gives the answers to other nodes.
    pub(super) fn refuse(&mut self, proposals: Vec<Proposal>, error: ProposeError) -> ForOtherNodes {
        proposals.into_iter().filter_map(|proposal| self.tell(proposal.caller, error)).collect()
    }

    /// Takes out the commands for which `why` has an error, and tells their callers. Gives the
    /// answers to other nodes.
    pub(super) fn refuse_where(
        &self,
        proposals: &mut Vec<Proposal>,
        why: impl Fn(&Proposal) -> Option<ProposeError>,
    ) -> ForOtherNodes {
        let refused = proposals.extract_if(.., |proposal| why(proposal).is_some());
        refused.filter_map(|proposal| why(&proposal).and_then(|error| self.tell(proposal.caller, error))).collect()
    }

    /// Tells a caller of this node at once; gives the answer to a caller of another node.
    fn tell(&self, caller: Caller, error: ProposeError) -> Option<(NodeId, u64, ProposeOutcome)> {
        match caller {
            Caller::Here(waiter) => {
                waiter.tell(Err(error));
                None
            }
            Caller::There { node, request, credit, .. } => {
                drop(credit);
                let outcome = match error {
                    ProposeError::Overloaded { .. } => ProposeOutcome::Overloaded,
                    ProposeError::TooLarge { max, .. } => {
                        ProposeOutcome::TooLarge { max: u32::try_from(max).unwrap_or(u32::MAX) }
                    }
                    // The next leader may append it: the other node asks that one.
                    ProposeError::NoLeader | ProposeError::StorageFull | ProposeError::Stopped => {
                        ProposeOutcome::NotLeader
                    }
                    ProposeError::DeadlinePassed => ProposeOutcome::DeadlinePassed,
                    ProposeError::Skipped => ProposeOutcome::Skipped,
                    ProposeError::OutcomeUnknown => ProposeOutcome::Unknown,
                };
                Some((node, request, outcome))
            }
        }
    }
}

/// Tells a caller of this node that its command was committed, and refused when it was applied.
fn refuse(caller: Caller, refusal: Refusal) {
    if let Caller::Here(waiter) = caller {
        waiter.tell(Ok(Err(refusal)));
    }
}

#[cfg(test)]
mod tests;
