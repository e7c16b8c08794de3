//! Rules of a voter: for which candidate it votes (paper §5.2, §5.4.1; Figure 2, "RequestVote
//! RPC"), and when for none. Another reason to deny a vote has a second place: the oracle of the
//! simulator lists all of them (`node/sim/world/src/oracle/deliveries.rs`).

use super::{
    effect::{Effect, Persist},
    observation::{Denial, Observation, StepDown},
    state::{Replica, Role},
};
use crate::{
    ids::{EntryId, Index, Moment, NodeId, Term},
    message::{Body, Emptied, Message, Outgoing, Phase, RequestVote, Vote},
};
use alloc::vec::Vec;

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
            return observe(from, term, request, Some(Denial::Removed), out);
        }
        let last = request.last.index;
        let held = self.held_more(from, last, last == Index(0));
        // A leader finds a loss by its own appends. This request may be old and proves none, and a
        // candidate that is told could stop before the leader names it.
        let is_led = self.is_leader() || self.refuses_elections(now);
        if let Some(known_at) = held.filter(|_| !is_led) {
            self.say(now, from, Body::Emptied(Emptied { known_at }), out);
            self.name_lost(from, last, out);
            observe(from, term, request, Some(Denial::LostData), out);
            return self.deny(now, from, request, Denial::LostData, out);
        }
        if request.phase == Phase::Vote {
            // The candidate's vote for itself is durable, and its log with it: if it comes without
            // a log later, it lost it. A pre-candidate may have nothing on its disk yet.
            self.learn_log_of(from, last, out);
        }
        let refuses = self.refuses_elections(now) || held.is_some();
        let by_transfer = request.by_transfer && held.is_none() && self.may_be_told_to_campaign(from);
        // A node that may have been emptied must not take part in decisions about entries that it
        // may once have acknowledged. It votes only for an empty log, and not while it waits to be
        // added: then it is not one of the members with which a cluster begins.
        let begins = last == Index(0) && !self.membership().is_empty();
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
                let denial = (!granted).then(|| self.denial(from, term.next(), request, (refuses, may_judge)));
                observe(from, term, request, denial, out);
                self.answer_pre_vote(now, from, term, answer_to(request, denial), out);
            }
            Phase::Vote if refuses && !by_transfer => {
                let denial = self.denial(from, term, request, (true, may_judge));
                observe(from, term, request, Some(denial), out);
                self.deny(now, from, request, denial, out);
            }
            Phase::Vote => {
                if term > self.term() {
                    self.adopt(now, from, term, out);
                }
                let free = self.vote().is_none_or(|vote| vote == from);
                if term == self.term() && free && up_to_date && can_apply {
                    self.grant(now, from, request, out);
                } else {
                    let denial = self.denial(from, term, request, (false, may_judge));
                    observe(from, term, request, Some(denial), out);
                    self.deny(now, from, request, denial, out);
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
        let granted = Body::Vote(answer_to(request, None));
        if self.vote() == Some(to) {
            return self.say(now, to, granted, out);
        }
        if matches!(self.role, Role::PreCandidate) {
            // This node's own campaign would depose the candidate that it helps to elect (Figure 2:
            // no election timeout after a granted vote).
            self.step_down(StepDown::VotedFor { candidate: to }, out);
        }
        observe(to, self.term(), request, None, out);
        self.hard_state.vote = Some(to);
        let then = alloc::vec![self.outgoing(to, granted)];
        self.persist(now, Persist { hard_state: Some(self.hard_state), then, ..Persist::default() }, out);
        out.push(Effect::ArmTimer);
    }

    fn deny(&mut self, now: Moment, to: NodeId, request: RequestVote, denial: Denial, out: &mut Vec<Effect>) {
        self.say(now, to, Body::Vote(answer_to(request, Some(denial))), out);
    }

    /// The reason for a denied vote in `term`, for observers: the first that holds. The decision was
    /// made before, and does not depend on it.
    fn denial(
        &self,
        candidate: NodeId,
        term: Term,
        request: RequestVote,
        (refuses, may_judge): (bool, bool),
    ) -> Denial {
        let voted_for = self.vote().filter(|vote| *vote != candidate && term == self.term());
        match voted_for {
            _ if refuses => Denial::HearsLeader { leader: self.leader() },
            _ if !may_judge => Denial::MayHaveLostData,
            _ if !is_up_to_date(request.last, self.log.last()) => Denial::LogBehind { last: self.log.last() },
            _ if !self.settings.machine.apply(request.machine_version) => {
                Denial::MachineVersion { version: request.machine_version }
            }
            Some(candidate) if request.phase == Phase::Vote => Denial::VotedFor { candidate },
            _ if term < self.term() || (request.phase == Phase::PreVote && term == self.term()) => {
                Denial::OldTerm { term: self.term() }
            }
            _ => Denial::CanLeadInstead,
        }
    }

    /// Whether this node grants no vote and does not campaign: it leads, or it promised so to a
    /// leader that it heard lately. A later term does not end the promise, for that leader may not
    /// know of it (thesis §4.2.3, §6.4.1).
    pub(super) fn refuses_elections(&self, now: Moment) -> bool {
        self.hears_leader(now) || (!self.is_leader() && self.is_promised(now))
    }
}

/// Whether a candidate's log is at least as up-to-date as this node's (paper §5.4.1).
fn is_up_to_date(theirs: EntryId, ours: EntryId) -> bool {
    theirs >= ours
}

/// Tells observers of an answer. The term of a pre-vote is that before the one asked about.
fn observe(candidate: NodeId, term: Term, request: RequestVote, denial: Option<Denial>, out: &mut Vec<Effect>) {
    let RequestVote { phase, last, .. } = request;
    let term = if phase == Phase::PreVote { term.next() } else { term };
    out.push(Effect::Observed(Observation::VoteAnswered { candidate, phase, term, last, denial }));
}

fn answer_to(request: RequestVote, denial: Option<Denial>) -> Vote {
    Vote { phase: request.phase, campaign: request.campaign, denial }
}
