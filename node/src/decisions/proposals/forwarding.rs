//! Commands that cross nodes: forwarded to the leader, taken from a node that forwarded them, and
//! answered.

use super::{BATCH_ENTRIES_MAX, Effect, Effects, Forwarded, Proposals, Sent, View, send};
use crate::{
    config::Limits,
    decisions::{
        callers::{Answer, Caller, Proposal},
        request_ids::Arrival,
    },
    error::ProposeError,
    results::Applied,
    sessions::Refusal,
};
use bytes::{Bytes, BytesMut};
use quorate_raft::{
    Batch, Body, ForwardedCommand, ForwardedOutcome, Index, Kind, Moment, NodeId, Propose, ProposeOutcome,
    ProposeReply, Term,
    session::{REQUEST_OVERHEAD_BYTES, STAMP_BYTES},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

impl<W, C> Proposals<W, C> {
    pub(super) fn forward(
        &mut self,
        leader: NodeId,
        proposals: Vec<Proposal<W, C>>,
        now: Moment,
        view: &View,
        out: &mut Effects<W, C>,
    ) {
        let timeout = self.settings.timing.proposal_timeout;
        let latest = now.plus(timeout);
        let sent = Sent { to: leader, term: view.routing.term, after: view.commit };
        let bytes_max = self.settings.limits.max_batch_bytes;
        // The refusal of an expired command by the leader has this time to arrive.
        let to_answer = self.settings.timing.heartbeat_interval * 2;
        let mut proposals = proposals.into_iter().peekable();
        while proposals.peek().is_some() {
            let (mut commands, mut payloads) = (Vec::new(), BytesMut::new());
            while let Some(proposal) = proposals.next_if(|next| {
                commands.is_empty()
                    || (commands.len() < BATCH_ENTRIES_MAX && payloads.len() + next.payload.len() <= bytes_max)
            }) {
                let waits = proposal.ends(timeout).map_or(latest, |ends| ends.min(latest)).since(now);
                let waits_ms = u32::try_from(waits.as_millis()).unwrap_or(u32::MAX);
                let length = u32::try_from(proposal.payload.len()).unwrap_or(u32::MAX);
                payloads.extend_from_slice(&proposal.payload);
                let (request, kind) = (self.ids.next(), proposal.kind);
                let deadline = latest.min(now.plus(waits + to_answer));
                self.forwarded.insert(request, Forwarded { sent, proposal, deadline, may_be_taken: false });
                commands.push(ForwardedCommand { request, length, kind, waits_ms });
            }
            out.push(send(leader, Body::Propose(Propose { commands, payloads: payloads.freeze() }), view));
        }
    }

    /// Another node forwarded commands of its callers, in a message of `term`. `is_outside` says
    /// that the configuration does not name it. `admit` gives a place to a command of this many
    /// bytes, if there is room.
    pub fn arrived(
        &mut self,
        (from, term, is_outside): (NodeId, Term, bool),
        Propose { commands, mut payloads }: Propose,
        mut admit: impl FnMut(usize) -> Option<C>,
        now: Moment,
        view: &View,
        out: &mut Effects<W, C>,
    ) {
        let Some(first) = commands.first() else { return };
        let refusal = match self.duplicates.arrived(from, first.request, term, is_outside) {
            Arrival::New => None,
            Arrival::Duplicate => return out.push(Effect::Duplicate { from }),
            Arrival::MayBeTaken => Some(ProposeOutcome::Unknown),
            Arrival::FromOutside => Some(ProposeOutcome::NotLeader),
        };
        let mut taken = Vec::new();
        for ForwardedCommand { request, length, kind, waits_ms } in commands {
            let payload = payloads.split_to((length as usize).min(payloads.len()));
            let refusal = refusal.or_else(|| too_large(kind, payload.len()));
            let admitted = match refusal {
                Some(outcome) => Err(outcome),
                None => admit(payload.len()).ok_or(ProposeOutcome::Overloaded),
            };
            match admitted {
                Ok(permit) => {
                    let caller = Caller::There { node: from, request, term, permit };
                    let until = Some(now.plus(Duration::from_millis(waits_ms.into())));
                    taken.push(Proposal { kind, payload, caller, until });
                }
                Err(outcome) => self.reply(from, request, outcome),
            }
        }
        self.place(taken, now, view, out);
        self.send_replies(view, out);
    }

    /// Entries are applied, and these answers are for other nodes. They leave with few messages, none
    /// of them large.
    pub fn applied(&mut self, answers: Vec<Answer>, view: &View, out: &mut Effects<W, C>) {
        let mut by_node: BTreeMap<NodeId, (Vec<ForwardedOutcome>, BytesMut)> = BTreeMap::new();
        for Answer { node, request, outcome } in answers {
            let (outcomes, replies) = by_node.entry(node).or_default();
            let (outcome, reply) = match outcome {
                None => (ProposeOutcome::Unknown, Bytes::new()),
                Some(Ok(Applied { index, reply })) => {
                    let reply_bytes = u32::try_from(reply.len()).unwrap_or(u32::MAX);
                    (ProposeOutcome::Applied { index, reply_bytes }, reply)
                }
                Some(Err(Refusal::Expired)) => (ProposeOutcome::SessionExpired, Bytes::new()),
                Some(Err(Refusal::StaleSerial)) => (ProposeOutcome::StaleSerial, Bytes::new()),
                Some(Err(Refusal::Skipped)) => (ProposeOutcome::Skipped, Bytes::new()),
            };
            if !outcomes.is_empty() && replies.len() + reply.len() > self.settings.limits.max_batch_bytes {
                let reply = ProposeReply { outcomes: std::mem::take(outcomes), replies: replies.split().freeze() };
                out.push(send(node, Body::ProposeReply(reply), view));
            }
            outcomes.push(ForwardedOutcome { request, outcome });
            replies.extend_from_slice(&reply);
        }
        for (node, (outcomes, replies)) in by_node {
            out.push(send(node, Body::ProposeReply(ProposeReply { outcomes, replies: replies.freeze() }), view));
        }
    }

    /// The leader answered forwarded commands, in a message of `term`. Those that it did not append
    /// take another way. A caller that it was too busy for, at once or until the timeout of
    /// proposals, is told to come again after `retry_after`.
    pub fn answered(
        &mut self,
        (from, term): (NodeId, Term),
        ProposeReply { outcomes, mut replies }: ProposeReply,
        retry_after: Duration,
        now: Moment,
        view: &View,
        out: &mut Effects<W, C>,
    ) {
        let (mut again, mut late_there) = (Vec::new(), Vec::new());
        let timeout = self.settings.timing.proposal_timeout;
        for ForwardedOutcome { request, outcome } in outcomes {
            let reply = match outcome {
                ProposeOutcome::Applied { reply_bytes, .. } => {
                    replies.split_to((reply_bytes as usize).min(replies.len()))
                }
                _ => Bytes::new(),
            };
            if self.forwarded.get(&request).is_none_or(|forwarded| forwarded.sent.to != from) {
                continue; // answered, or given up on, before
            }
            let Some(Forwarded { proposal, .. }) = self.forwarded.remove(&request) else { continue };
            let outcome = match outcome {
                ProposeOutcome::NotLeader => {
                    again.push(proposal);
                    continue;
                }
                // Every command is sent with the time that it may wait, also one without a deadline, and the
                // leader's clock may leap. It had no effect, and the leader gets it with the time that is left.
                // With less than a millisecond left it would be sent with none.
                ProposeOutcome::DeadlinePassed
                    if proposal.ends(timeout).is_none_or(|ends| ends.since(now) >= Duration::from_millis(1)) =>
                {
                    late_there.push(proposal);
                    continue;
                }
                // Its caller has set no deadline, or a later one.
                ProposeOutcome::DeadlinePassed if proposal.ends(timeout) != proposal.until => {
                    Err(ProposeError::Overloaded { retry_after })
                }
                ProposeOutcome::Applied { index, .. } => Ok(Ok(Applied { index, reply })),
                ProposeOutcome::SessionExpired => Ok(Err(Refusal::Expired)),
                ProposeOutcome::StaleSerial => Ok(Err(Refusal::StaleSerial)),
                ProposeOutcome::Skipped => Ok(Err(Refusal::Skipped)),
                ProposeOutcome::Overloaded => Err(ProposeError::Overloaded { retry_after }),
                ProposeOutcome::DeadlinePassed => Err(ProposeError::DeadlinePassed),
                ProposeOutcome::TooLarge { max } => {
                    Err(ProposeError::TooLarge { bytes: proposal.payload.len(), max: max as usize })
                }
                ProposeOutcome::Unknown => Err(ProposeError::OutcomeUnknown),
            };
            // A command that another node forwarded is never forwarded on.
            if let Caller::Here { waiter, .. } = proposal.caller {
                out.push(Effect::Answer { waiter, outcome });
            }
        }
        if view.routing.would_refuse_again(from, term) {
            self.defer(again, now);
        } else {
            self.retry(again, now, view, out);
        }
        self.place(late_there, now, view, out);
        self.send_replies(view, out);
    }

    /// The index after which the log decides the commands that were forwarded before `term`; `None`
    /// if there are none left to decide.
    pub fn stranded_after(&self, term: Term) -> Option<Index> {
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
    /// [`Proposals::stranded_after`]. The commands of earlier terms that are not among them take
    /// another way: no leader appended them, and none ever will.
    ///
    /// An entry does not name its caller: an equal payload may be another caller's. So the caller
    /// of a command that is among them waits for the leader's answer, for two heartbeat intervals,
    /// and then the outcome is unknown.
    pub fn decide_stranded(
        &mut self,
        term: Term,
        batches: &[Batch],
        now: Moment,
        view: &View,
        out: &mut Effects<W, C>,
    ) {
        let until = now.plus(self.settings.timing.heartbeat_interval * 2);
        let records = || batches.iter().flat_map(Batch::records);
        let payloads: BTreeSet<(Term, &[u8])> =
            records().filter_map(|record| Some((record.id.term, asked_for(record.kind, record.payload)?))).collect();
        // A witness keeps no payloads.
        let is_known = records().all(|record| record.kind != Kind::Stub);
        let is_absent =
            |forwarded: &Forwarded<W, C>| !payloads.contains(&(forwarded.sent.term, &forwarded.proposal.payload[..]));
        // Those that an earlier call found in the log may have been appended before these batches.
        let never =
            |_: &u64, forwarded: &mut Forwarded<W, C>| is_known && forwarded.is_stranded(term) && is_absent(forwarded);
        let never_taken = self.forwarded.extract_if(.., never).map(|(_, forwarded)| forwarded.proposal).collect();
        for forwarded in self.forwarded.values_mut().filter(|forwarded| forwarded.is_stranded(term)) {
            forwarded.may_be_taken = true;
            forwarded.deadline = forwarded.deadline.min(until);
        }
        self.has_stranded = self.forwarded.values().any(|forwarded| !forwarded.may_be_taken);
        self.retry(never_taken, now, view, out);
        self.send_replies(view, out);
    }
}

/// The refusal of a forwarded command that no node can take. The limit of the node that the client
/// asked counts; this node's may be lower.
fn too_large(kind: Kind, bytes: usize) -> Option<ProposeOutcome> {
    let besides = if kind == Kind::Session { REQUEST_OVERHEAD_BYTES } else { 0 };
    let max = Limits::COMMAND_BYTES_MAX;
    (bytes > max + besides).then(|| ProposeOutcome::TooLarge { max: u32::try_from(max).unwrap_or(u32::MAX) })
}

/// The part of an entry's payload that was forwarded: the leader puts a stamp in front
/// of a session's.
pub(super) fn asked_for(kind: Kind, payload: &[u8]) -> Option<&[u8]> {
    match kind {
        Kind::Session => payload.get(STAMP_BYTES..),
        _ => Some(payload),
    }
}
