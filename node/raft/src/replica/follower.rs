//! Rules of a follower: it makes its log equal to the leader's (paper §5.3; Figure 2, "Receiver
//! implementation"), and every role returns to it (§5.1). Its votes are in `voter`.

use super::{
    effect::{Effect, MessageRefusal, Persist, Violation},
    observation::{Observation, StepDown},
    start::HardState,
    state::{Replica, Role},
};
use crate::{
    batch::Batch,
    ids::{EntryId, Index, Moment, NodeId, Term},
    lease::Promise,
    membership::Membership,
    message::{Append, AppendOutcome, AppendReply, Body, Heartbeat, HeartbeatReply},
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
            self.step_down(StepDown::LeaderHeard { leader: from }, out);
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

    /// Follows in a later term, which `from` has shown: all that belonged to the old one is over (paper §5.1).
    pub(super) fn adopt(&mut self, now: Moment, from: NodeId, term: Term, out: &mut Vec<Effect>) {
        self.adopt_of(now, from, term, term, out);
    }

    /// Follows in `term`, which may be an earlier one than `from` has shown.
    pub(super) fn adopt_of(&mut self, now: Moment, from: NodeId, term: Term, shown: Term, out: &mut Vec<Effect>) {
        debug_assert!(term > self.term() && shown >= term);
        self.step_down(StepDown::LaterTerm { from, term: shown }, out);
        out.push(Effect::Observed(Observation::TermAdopted { from, before: self.term(), shown }));
        self.hard_state = HardState { term, vote: None, ..self.hard_state };
        self.forget_shown_term();
        self.diverged = None;
        self.faults.term_changed();
        self.persist(now, Persist { hard_state: Some(self.hard_state), ..Persist::default() }, out);
        out.push(Effect::ArmTimer);
    }

    /// Becomes a follower. The term stays, and with it the vote: forgetting it would allow
    /// a second one.
    pub(super) fn step_down(&mut self, cause: StepDown, out: &mut Vec<Effect>) {
        if !matches!(self.role, Role::Follower) {
            out.push(Effect::Observed(Observation::SteppedDown { led: self.is_leader(), term: self.term(), cause }));
        }
        if self.is_leader() {
            // A later leadership of this node knows only the holdings that are remembered.
            self.remember_holdings(out);
        }
        self.leader = None;
        self.leader_is_member = false;
        match core::mem::replace(&mut self.role, Role::Follower) {
            Role::Follower => {}
            Role::PreCandidate | Role::Candidate => out.push(Effect::CloseBallot),
            Role::Leader(mut leadership) => {
                out.push(Effect::StopReplicators);
                if self.has_left() && !self.membership().contains(self.id) {
                    out.push(Effect::Removed { at: self.membership_index() });
                }
                let tokens = leadership.reads.abandon();
                if !tokens.is_empty() {
                    out.push(Effect::ReadsFailed { tokens });
                }
            }
        }
    }

    /// Whether the leader of the current term, a member, was heard lately. A leader counts as heard
    /// while it hears a quorum.
    pub(super) fn hears_leader(&self, now: Moment) -> bool {
        let recently = |contact: Moment| now.since(contact) < self.settings.election_timeout_min;
        match &self.role {
            Role::Leader(leadership) => self.hears_quorum(now, leadership),
            _ => self.leader_is_member && self.leader_contact.is_some_and(recently),
        }
    }
}
