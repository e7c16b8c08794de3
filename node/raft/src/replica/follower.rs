//! Rules of a follower: it votes, and makes its log equal to the leader's (paper §5.2, §5.3,
//! §5.4.1; Figure 2, "Receiver implementation").

use super::{Effect, MessageRefusal, Persist, Replica, Role, Violation};
use crate::{
    batch::Batch,
    ids::{EntryId, Index, Moment, NodeId, Term},
    lease::Promise,
    membership::Membership,
    message::{
        Append, AppendOutcome, AppendReply, Body, Heartbeat, HeartbeatReply, Message, Outgoing, Phase, RequestVote,
        Vote,
    },
    progress::Progress,
    reads::Reads,
};
use alloc::vec::Vec;

/// Why an append does not continue this log.
enum Rejection {
    /// The entry before it is not held here: the leader goes back, as this outcome says.
    Mismatch(AppendOutcome),
    /// The entry at this index is committed here under another id.
    ContradictsCommitted(Index),
}

impl Replica {
    /// A (pre-)candidate of `term` asks for a vote.
    ///
    /// A voter that hears a leader denies it and does not even adopt the term: a node that was cut
    /// off must not depose a leader that the others hear (thesis §4.2.3), and that leader may rely
    /// on it (§6.4.1).
    pub(super) fn vote_requested(
        &mut self,
        now: Moment,
        from: NodeId,
        term: Term,
        request: RequestVote,
        out: &mut Vec<Effect>,
    ) {
        if self.tells_removed(now, from, request.last, out) {
            return;
        }
        if self.comes_with_less(now, from, request.last.index, request.last.index == Index(0), out) {
            // This answer may stop the candidate before the leader hears of its loss.
            self.name_lost(from, request.last.index, out);
            return self.say(now, from, Body::Vote(answer_to(request)), out);
        }
        if request.phase == Phase::Vote {
            // The candidate's vote for itself is durable, and its log with it: if it comes without
            // a log later, it lost it. A pre-candidate may have nothing on its disk yet.
            self.learn_log_of(from, request.last.index, out);
        }
        let refuses = self.refuses_elections(now);
        let by_transfer = request.by_transfer && self.may_be_told_to_campaign(from);
        // A node that may have been emptied must not take part in decisions about entries that it
        // may once have acknowledged. It votes only for an empty log, and not while it waits to be
        // added: then it is not one of the members with which a cluster begins.
        let begins = request.last.index == Index(0) && !self.membership().is_empty();
        let may_judge = !self.guard.is_new || begins;
        let up_to_date = may_judge && is_up_to_date(request.last, self.log.last());
        // Otherwise entries and snapshots of that leader would stop this node's state machine.
        let can_apply = self.settings.machine.apply(request.machine_version);
        if !can_apply && (!refuses || by_transfer) {
            out.push(Effect::MachineUnknown { candidate: from, version: request.machine_version });
        }
        let up_to_date = up_to_date && !self.replaces(now, from, request.last);
        match request.phase {
            Phase::PreVote => {
                let granted = !refuses && up_to_date && can_apply && term.next() > self.term();
                self.answer_pre_vote(now, from, term, Vote { granted, ..answer_to(request) }, out);
            }
            Phase::Vote if refuses && !by_transfer => self.say(now, from, Body::Vote(answer_to(request)), out),
            Phase::Vote => {
                if term > self.term() {
                    self.adopt(now, term, out);
                }
                let free = self.vote().is_none_or(|vote| vote == from);
                if term == self.term() && free && up_to_date && can_apply {
                    self.grant(now, from, request, out);
                } else {
                    self.say(now, from, Body::Vote(answer_to(request)), out);
                }
            }
        }
    }

    /// Answers a pre-vote. Nothing changes here, whether it is granted or not.
    fn answer_pre_vote(&mut self, now: Moment, to: NodeId, term: Term, vote: Vote, out: &mut Vec<Effect>) {
        if term < self.term() {
            // The asker must learn of the later term, or it would ask about earlier ones for ever.
            return self.say(now, to, Body::Vote(vote), out);
        }
        // The answer carries the asker's term, not this node's: it promises nothing, and must pass
        // the asker's comparison of terms.
        out.push(Effect::Send(Outgoing { to, message: Message { term, body: Body::Vote(vote) } }));
    }

    fn grant(&mut self, now: Moment, to: NodeId, request: RequestVote, out: &mut Vec<Effect>) {
        let granted = Body::Vote(Vote { granted: true, ..answer_to(request) });
        if self.vote() == Some(to) {
            return self.say(now, to, granted, out);
        }
        if matches!(self.role, Role::PreCandidate) {
            // This node's own campaign would depose the candidate that it helps to elect (Figure 2:
            // no election timeout after a granted vote).
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
        if append.batch.as_ref().is_some_and(|batch| self.is_mistaken_for_another(batch)) {
            return out
                .push(self.violated_by(from, Violation::Mistaken { leader: from, is_witness: self.is_witness() }));
        }
        let (epoch, commit) = (append.epoch, append.commit);
        if append.previous.index == Index(0) && self.is_stranger_to(now, from, (epoch, Index(0)), out) {
            return;
        }
        let changes = match self.checked(&append) {
            Ok(changes) => changes,
            Err(reason) => return out.push(Effect::Refused { from, reason }),
        };
        if let Some(at) = self.contradicts_quorum(&append) {
            return out.push(self.violated_by(from, self.divergence(at, from)));
        }
        if let Some(lost) = self.faults.lost() {
            return self.answer(now, from, epoch, AppendOutcome::NeedsSnapshot { from: lost }, out);
        }
        let append = self.behind_base(append);
        let previous = append.previous;
        if let Some(rejected) = self.rejects(previous) {
            return match rejected {
                Rejection::Mismatch(outcome) => self.answer(now, from, epoch, outcome, out),
                Rejection::ContradictsCommitted(index) => self.contradicted(now, from, index, out),
            };
        }
        let held = append.batch.as_ref().map_or(previous.index, |batch| self.held_of(batch));
        if let Some(at) = self.difference_to(&append, held) {
            return self.diverge(now, from, at, &append, out);
        }
        let matched = append.batch.as_ref().map_or(previous.index, Batch::last);
        let missing = append.batch.as_ref().filter(|_| matched > held).and_then(|batch| batch.from(held.next()));
        let repair = append.batch.as_ref().and_then(|batch| self.repair_in(batch, held));
        if let Some(missing) = &missing {
            if missing.first() <= self.known_committed() {
                return self.contradicted(now, from, missing.first(), out);
            }
            if self.is_full {
                // An entry without room can't be kept and must not be acknowledged; the leader
                // sends it again.
                return out.push(Effect::Refused { from, reason: MessageRefusal::StorageFull });
            }
        }
        let reply = Body::AppendReply(AppendReply { epoch, outcome: AppendOutcome::Matched { matched } });
        if missing.is_none() && repair.is_none() {
            self.say_when_durable(now, from, reply, out);
        } else {
            let version = self.memberships.version();
            let truncate_from = missing.as_ref().and_then(|missing| self.take(missing));
            for (index, membership) in changes {
                if index > held {
                    self.memberships.appended(index, membership);
                } else if repair.is_some() {
                    self.memberships.repaired(index, membership);
                }
            }
            let then = alloc::vec![self.outgoing(from, reply)];
            self.persist(now, Persist { truncate_from, batch: missing, repair, then, ..Persist::default() }, out);
            if self.memberships.version() != version {
                out.push(Effect::MembersChanged);
            }
        }
        // A leader has voted for itself, durably: if it comes without a log later, it lost it.
        self.learn_log_of(from, matched, out);
        self.recognise_leader(now);
        // Only entries that this append covered are known to be the leader's (Figure 2: "index of
        // last new entry").
        if self.believes_commit() {
            self.learn_commit(commit.min(matched), out);
        }
    }

    /// Checks that a leader can have sent this append, and that there is room for it; returns the
    /// configurations in it.
    fn checked(&self, append: &Append) -> Result<Vec<(Index, Membership)>, MessageRefusal> {
        let Append { previous, previous_checksum, batch, .. } = append;
        if previous.index == Index(0) && previous.term != Term(0) {
            return Err(MessageRefusal::Malformed);
        }
        let Some(batch) = batch else { return Ok(Vec::new()) };
        let fits = batch.first() == previous.index.next()
            && batch.term() >= previous.term
            && batch.term() <= self.term()
            && previous_checksum.is_none_or(|checksum| checksum == batch.previous_checksum());
        if !fits {
            return Err(MessageRefusal::Malformed);
        }
        let pending = self.writes.pending_bytes();
        if pending > 0 && pending + batch.bytes().len() > self.settings.unpersisted_bytes_max {
            // An honest leader's credit is far below this; it sends again an append that
            // is dropped here.
            return Err(MessageRefusal::Unpersisted);
        }
        batch.memberships().map_err(|_| MessageRefusal::Malformed)
    }

    /// The part of an append after the log's base. Entries up to the base are committed and
    /// compacted: they match, whatever their terms were.
    fn behind_base(&self, append: Append) -> Append {
        let base = self.log.base();
        if append.previous.index >= base.index {
            return append;
        }
        let batch = append.batch.and_then(|batch| batch.from(base.index.next()));
        Append { previous: base, previous_checksum: None, batch, ..append }
    }

    /// The reason to reject an append after `previous`, if there is one.
    fn rejects(&self, previous: EntryId) -> Option<Rejection> {
        if let Some(faulty) = self.faults.first_open().map(|first| first.id.index).filter(|at| *at <= previous.index) {
            // The leader must go back and send the lost entry again: until then it does not
            // count as held.
            let (conflict, last) = (self.log.conflict_at(faulty), faulty.previous());
            let log_last = self.log.last().index;
            let outcome = AppendOutcome::Rejected { previous: previous.index, conflict, last, log_last };
            return Some(Rejection::Mismatch(outcome));
        }
        if self.log.contains(previous) {
            return None;
        }
        if previous.index <= self.known_committed() {
            return Some(Rejection::ContradictsCommitted(previous.index));
        }
        let last = self.log.last().index;
        let conflict = self.conflict_at(previous.index);
        let outcome = AppendOutcome::Rejected { previous: previous.index, conflict, last, log_last: last };
        Some(Rejection::Mismatch(outcome))
    }

    /// The conflict that a rejection of `previous` names. It distinguishes the empty log of a
    /// member with a past from that of a new member.
    pub(super) fn conflict_at(&self, previous: Index) -> EntryId {
        match self.log.last().index {
            Index(0) if !self.guard.is_new => EntryId::new(Term(0), Index(1)),
            _ => self.log.conflict_at(previous),
        }
    }

    /// The last entry of a leader's batch that this log holds, or the one before the batch.
    /// Matching entries stay, and so do entries after the batch: the append may be an old one,
    /// delivered late (Figure 2: "if an existing entry conflicts").
    fn held_of(&self, batch: &Batch) -> Index {
        let last_common = batch.last().min(self.log.last().index);
        let mut index = batch.first();
        while index <= last_common && self.log.term_of(index) == Some(batch.term()) {
            index = index.next();
        }
        index.previous()
    }

    /// Appends the entries that the log lacks, replacing those that conflict; returns the
    /// first index replaced.
    fn take(&mut self, missing: &Batch) -> Option<Index> {
        let truncate_from = (missing.first() <= self.log.last().index).then_some(missing.first());
        if let Some(from) = truncate_from {
            self.memberships.truncate_from(from);
            self.faults.truncated_from(from);
        }
        self.log.replace_from(missing.clone());
        truncate_from
    }

    pub(super) fn answer(
        &mut self,
        now: Moment,
        to: NodeId,
        epoch: u64,
        outcome: AppendOutcome,
        out: &mut Vec<Effect>,
    ) {
        self.say(now, to, Body::AppendReply(AppendReply { epoch, outcome }), out);
    }

    /// The leader of the current term asserts its leadership.
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
        // The leader never names more than it has seen this log match, durably.
        let last = self.log.last().index;
        if heartbeat.commit > last && self.membership().contains(from) {
            // This disk was emptied or rolled back. The rejection lets the leader report this
            // member before it tells the member, which stops then.
            let (previous, conflict) = (heartbeat.commit, self.log.conflict_at(heartbeat.commit));
            let outcome = AppendOutcome::Rejected { previous, conflict, last, log_last: last };
            return self.answer(now, from, Progress::NO_EPOCH, outcome, out);
        }
        if self.believes_commit() {
            self.learn_commit(heartbeat.commit.min(last), out);
        }
        // A node that may have been emptied could have promised a later term to another candidate,
        // so it confirms no leadership. Nor does a node that protects no leader, because no
        // configuration here names its leader yet.
        if self.guard.is_new || !self.leader_is_member {
            let reply = HeartbeatReply { round: Reads::NO_ROUND, promise: Promise::NONE };
            return self.say(now, from, Body::HeartbeatReply(reply), out);
        }
        // Answers do not wait for the disk: they confirm the round, and state the promise
        // that is durable.
        let reply = HeartbeatReply { round: heartbeat.round, promise: self.stated_promise() };
        self.say(now, from, Body::HeartbeatReply(reply), out);
        self.write_promise(now, out);
    }

    /// Recognises `from` as the leader of the current term; false if another node already leads it.
    pub(super) fn follow(&mut self, now: Moment, from: NodeId, out: &mut Vec<Effect>) -> bool {
        if let Some(known) = self.leader.filter(|known| *known != from) {
            // Two members can't both lead; against a node from outside, a member prevails.
            if self.leader_is_member || self.is_outside(from) {
                let violation = Violation::TwoLeaders { term: self.term(), one: known, other: from };
                out.push(self.violated_by(from, violation));
                return false;
            }
            self.diverged = None;
        }
        if !matches!(self.role, Role::Follower) {
            self.step_down(out);
        }
        self.leader_is_member = !self.is_outside(from);
        self.leader = Some(from);
        self.leader_contact = if self.leader_is_member { Some(now) } else { self.leader_contact };
        out.push(Effect::LeaderHeard);
        true
    }

    fn learn_commit(&mut self, commit: Index, out: &mut Vec<Effect>) {
        if commit > self.commit {
            let before = core::mem::replace(&mut self.commit, commit);
            self.dispatch(out);
            if (before.next()..=commit).contains(&self.memberships.current_index()) {
                out.push(Effect::MembersChanged);
            }
        }
    }
}

/// Whether a candidate's log is at least as up-to-date as this node's (paper §5.4.1).
fn is_up_to_date(theirs: EntryId, ours: EntryId) -> bool {
    theirs >= ours
}

/// The denial of a request.
fn answer_to(request: RequestVote) -> Vote {
    Vote { phase: request.phase, campaign: request.campaign, granted: false }
}
