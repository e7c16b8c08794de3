//! Elections: a node first asks whether it would be elected (pre-vote, thesis §9.6), and only then
//! raises its term and asks for votes (paper §5.2).
//!
//! **Invariant:** a term rises here only after a won pre-vote or at the request of the term's
//! leader, so a node that reaches no quorum never inflates it.

use super::{
    effect::{Effect, Persist},
    observation::StepDown,
    start::HardState,
    state::{Replica, Role},
};
use crate::{
    ballot::Ballot,
    ids::{Moment, NodeId, Term},
    message::{Body, Message, Outgoing, Phase, RequestVote, Vote},
};
use alloc::vec::Vec;

impl Replica {
    /// Starts a campaign, as no leader was heard for an election timeout. A node that must not lead
    /// because entries are lost here asks for those instead.
    pub(super) fn campaign(&mut self, now: Moment, out: &mut Vec<Effect>) {
        // The leader is forgotten: it must not keep this node from voting for another (both
        // survivors of its crash may be at this point).
        self.step_down(StepDown::TimedOut, out);
        if !self.faults.is_empty() {
            return self.ask_for_repair(now, out);
        }
        if !self.may_be_needed_as_leader() {
            return self.ask_whether_removed(out);
        }
        if self.is_full {
            return;
        }
        self.role = Role::PreCandidate;
        self.campaign += 1;
        out.push(Effect::OpenBallot(self.ballot(Phase::PreVote)));
        out.push(Effect::CountVote { campaign: self.campaign, voter: self.id, denial: None });
        out.extend(self.vote_requests(Phase::PreVote, false).map(Effect::Send));
    }

    /// The ballot of `campaign` in `term` was won. A late result is ignored.
    pub fn election_won(&mut self, now: Moment, term: Term, campaign: u64, out: &mut Vec<Effect>) {
        if !self.is_campaign(term, campaign) {
            return;
        }
        match self.role {
            Role::PreCandidate => {
                if !self.waits_for_answers() {
                    self.stand_for_election(now, false, out);
                }
            }
            Role::Candidate => self.lead(now, out),
            Role::Follower | Role::Leader(_) => {}
        }
    }

    /// Whether this is the latest campaign: results of others are late, and ignored.
    #[must_use]
    pub fn is_campaign(&self, term: Term, campaign: u64) -> bool {
        term == self.term() && campaign == self.campaign
    }

    /// The ballot of `campaign` in `term` was lost: waits for the next timeout. A late
    /// result is ignored.
    pub fn election_lost(&mut self, term: Term, campaign: u64, out: &mut Vec<Effect>) {
        let campaigning = matches!(self.role, Role::PreCandidate | Role::Candidate);
        if self.is_campaign(term, campaign) && campaigning {
            self.step_down(StepDown::Denied, out);
        }
    }

    /// Raises the term, votes for itself, and asks for votes as soon as both are durable. Its own
    /// vote counts then, too.
    pub(super) fn stand_for_election(&mut self, now: Moment, by_transfer: bool, out: &mut Vec<Effect>) {
        self.role = Role::Candidate;
        self.campaign += 1;
        self.hard_state = HardState { term: self.term().next(), vote: Some(self.id), ..self.hard_state };
        self.forget_shown_term();
        out.push(Effect::OpenBallot(self.ballot(Phase::Vote)));
        let then = self.vote_requests(Phase::Vote, by_transfer).collect();
        let persist = Persist { hard_state: Some(self.hard_state), then, ..Persist::default() };
        self.write(now, persist, Some(self.campaign), out);
        out.push(Effect::ArmTimer);
    }

    /// A voter answered a vote request.
    pub(super) fn vote_received(&mut self, now: Moment, from: NodeId, vote: Vote, out: &mut Vec<Effect>) {
        let asked = match vote.phase {
            Phase::PreVote => matches!(self.role, Role::PreCandidate),
            Phase::Vote => matches!(self.role, Role::Candidate),
        };
        if asked && vote.campaign == self.campaign {
            if vote.phase == Phase::PreVote && self.gives_way_to_leader(&vote) {
                return self.step_down(StepDown::Denied, out);
            }
            out.push(Effect::CountVote { campaign: self.campaign, voter: from, denial: vote.denial });
            if vote.phase == Phase::PreVote && self.was_last_answer(from) {
                self.stand_for_election(now, false, out);
            }
        }
    }

    fn ballot(&self, phase: Phase) -> Ballot {
        Ballot::new(phase, self.campaign, self.term(), self.membership().clone())
    }

    pub(super) fn vote_requests(&self, phase: Phase, by_transfer: bool) -> impl Iterator<Item = Outgoing> + use<> {
        let request = RequestVote {
            phase,
            campaign: self.campaign,
            last: self.log.last(),
            by_transfer,
            machine_version: self.settings.machine.writes,
        };
        let message = Message { term: self.term(), body: Body::RequestVote(request) };
        let mut voters = self.membership().voters();
        if !self.membership().is_voter(self.id) {
            // The voters known here may be gone by now: any node of any configuration held may know
            // a later one.
            voters.extend(self.memberships.iter().flat_map(|(_, membership)| membership.peers_of(self.id)));
            voters.sort_unstable();
            voters.dedup();
        }
        voters.retain(|voter| *voter != self.id);
        voters.into_iter().map(move |to| Outgoing { to, message: message.clone() })
    }
}
