//! What a follower does: votes, and makes its log the leader's (paper §5.2, §5.3, §5.4.1; Figure 2, "Receiver
//! implementation").

use super::{Effect, Persist, Replica, Role, Violation};
use crate::{
    ids::{EntryId, Index, Moment, NodeId, Term},
    message::{
        Append, AppendOutcome, AppendReply, Body, Heartbeat, HeartbeatReply, Message, Outgoing, Phase, RequestVote,
        Vote,
    },
    record::Batch,
};
use alloc::vec::Vec;

impl Replica {
    /// A (pre-)candidate of `term` asks for a vote.
    ///
    /// Whoever hears a leader refuses, and does not even take note of the term: a node that was cut off must not depose
    /// a leader that the others hear (thesis §4.2.3).
    pub(super) fn vote_requested(
        &mut self,
        now: Moment,
        from: NodeId,
        term: Term,
        request: RequestVote,
        out: &mut Vec<Effect>,
    ) {
        let hears_leader = self.hears_leader(now);
        let up_to_date = request.last >= self.log.last();
        match request.phase {
            Phase::PreVote => {
                let granted = !hears_leader && up_to_date && term.next() > self.term();
                self.answer_pre_vote(now, from, term, Vote { granted, ..answer_to(request) }, out);
            }
            Phase::Vote if hears_leader => self.say(now, from, Body::Vote(answer_to(request)), out),
            Phase::Vote => {
                if term > self.term() {
                    self.adopt(now, term, out);
                }
                let free = self.vote().is_none_or(|vote| vote == from);
                if term == self.term() && free && up_to_date {
                    self.grant(now, from, request, out);
                } else {
                    self.say(now, from, Body::Vote(answer_to(request)), out);
                }
            }
        }
    }

    /// Says whether this node would vote for a pre-candidate. Nothing changes here, whatever the answer.
    fn answer_pre_vote(&mut self, now: Moment, to: NodeId, term: Term, vote: Vote, out: &mut Vec<Effect>) {
        if term < self.term() {
            // It must learn of the later term, or it would ask about earlier ones for ever.
            return self.say(now, to, Body::Vote(vote), out);
        }
        // The answer carries the asker's term, not this node's: it promises nothing, and must pass the asker's door.
        out.push(Effect::Send(Outgoing { to, message: Message { term, body: Body::Vote(vote) } }));
    }

    fn grant(&mut self, now: Moment, to: NodeId, request: RequestVote, out: &mut Vec<Effect>) {
        let granted = Body::Vote(Vote { granted: true, ..answer_to(request) });
        if self.vote() == Some(to) {
            return self.say(now, to, granted, out);
        }
        if matches!(self.role, Role::PreCandidate) {
            // Its own campaign would depose whom it helps to elect (Figure 2: no timeout counts behind a granted vote).
            self.step_down(out);
        }
        self.hard_state.vote = Some(to);
        let then = alloc::vec![self.outgoing(to, granted)];
        self.persist(now, Persist { hard_state: Some(self.hard_state), then, ..Persist::default() }, out);
        out.push(Effect::ArmTimer);
    }

    /// The leader of the current term sends entries, or probes.
    pub(super) fn append_received(&mut self, now: Moment, from: NodeId, append: Append, out: &mut Vec<Effect>) {
        if !self.follow(now, from, out) {
            return;
        }
        let Append { epoch, previous, commit, batch, .. } = append;
        let bytes = batch.as_ref().map_or(0, |batch| batch.bytes().len());
        let nowhere = previous.index == Index(0) && previous.term != Term(0);
        let term_fits = |batch: &Batch| batch.term() >= previous.term && batch.term() <= self.term();
        let fits = |batch: &Batch| batch.first() == previous.index.next() && term_fits(batch);
        if nowhere || !batch.as_ref().is_none_or(fits) {
            return out.push(Effect::Refused { from, reason: "malformed" });
        }
        if self.writes.pending_bytes() > 0 && self.writes.pending_bytes() + bytes > self.settings.unpersisted_bytes_max
        {
            // An honest leader's credit is far below this; it sends again what is dropped here.
            return out.push(Effect::Refused { from, reason: "unpersisted" });
        }
        // Entries up to `base` are committed and compacted: they match, whatever their terms were.
        let (previous, batch) = if previous.index < self.log.base().index {
            (self.log.base(), batch.and_then(|batch| batch.from(self.log.first())))
        } else {
            (previous, batch)
        };
        if !self.log.contains(previous) {
            if previous.index <= self.commit {
                return out.push(Effect::Halt(Violation::CommittedConflict { index: previous.index, leader: from }));
            }
            let outcome = AppendOutcome::Rejected {
                previous: previous.index,
                conflict: self.log.conflict_at(previous.index),
                last: self.log.last().index,
            };
            return self.say(now, from, Body::AppendReply(AppendReply { epoch, outcome }), out);
        }
        let matched = batch.as_ref().map_or(previous.index, Batch::last);
        let reply = Body::AppendReply(AppendReply { epoch, outcome: AppendOutcome::Matched { matched } });
        match batch.and_then(|batch| self.missing_of(&batch)) {
            None => self.say_when_durable(now, from, reply, out),
            Some(batch) => {
                if let Err(violation) = self.may_append(&batch, from) {
                    return out.push(Effect::Halt(violation));
                }
                let conflicts = batch.first() <= self.log.last().index;
                let truncate_from = conflicts.then_some(batch.first());
                self.log.replace_from(batch.clone());
                let then = alloc::vec![self.outgoing(from, reply)];
                self.persist(now, Persist { truncate_from, batch: Some(batch), then, ..Persist::default() }, out);
            }
        }
        // Only what this append covered is known to be the leader's (Figure 2: "index of last new entry").
        self.learn_commit(commit.min(matched), out);
    }

    /// The leader of the current term says that it leads.
    pub(super) fn heartbeat_received(
        &mut self,
        now: Moment,
        from: NodeId,
        heartbeat: Heartbeat,
        out: &mut Vec<Effect>,
    ) {
        if !self.follow(now, from, out) {
            return;
        }
        // The leader never names more than it has seen this log match.
        self.learn_commit(heartbeat.commit.min(self.log.last().index), out);
        self.say(now, from, Body::HeartbeatReply(HeartbeatReply { round: heartbeat.round }), out);
    }

    /// Recognises `from` as the leader of the current term; false if that can't be.
    pub(super) fn follow(&mut self, now: Moment, from: NodeId, out: &mut Vec<Effect>) -> bool {
        if let Some(known) = self.leader.filter(|known| *known != from) {
            out.push(Effect::Halt(Violation::TwoLeaders { term: self.term(), one: known, other: from }));
            return false;
        }
        if !matches!(self.role, Role::Follower) {
            self.step_down(out);
        }
        self.leader = Some(from);
        self.leader_contact = Some(now);
        out.push(Effect::LeaderHeard);
        true
    }

    /// The part of a leader's batch that this log does not hold yet. Entries that match stay, also behind the batch: it
    /// may be an old one, delivered late (Figure 2: "if an existing entry conflicts").
    fn missing_of(&self, batch: &Batch) -> Option<Batch> {
        let last_common = batch.last().min(self.log.last().index);
        let mut index = batch.first();
        while index <= last_common && self.log.term_of(index) == Some(batch.term()) {
            index = index.next();
        }
        batch.from(index)
    }

    fn may_append(&self, batch: &Batch, leader: NodeId) -> Result<(), Violation> {
        let before = batch.first().previous();
        if batch.first() <= self.commit {
            return Err(Violation::CommittedConflict { index: batch.first(), leader });
        }
        match self.log.checksum_of(before) {
            Some(checksum) if checksum != batch.previous_checksum() => {
                let term = self.log.term_of(before).unwrap_or_default();
                Err(Violation::Diverged { at: EntryId::new(term, before), leader })
            }
            _ => Ok(()),
        }
    }

    fn learn_commit(&mut self, commit: Index, out: &mut Vec<Effect>) {
        if commit > self.commit {
            self.commit = commit;
            self.release(out);
        }
    }
}

/// The denial of a request.
fn answer_to(request: RequestVote) -> Vote {
    Vote { phase: request.phase, campaign: request.campaign, granted: false }
}
