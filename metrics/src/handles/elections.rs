//! Role, term, campaigns, votes, and whether there is a leader.

use super::{Chosen, Each, NodeMetrics, Scope, TimeCounter, float};
use crate::{
    catalogue,
    labels::{ElectionResult, Phase, Role, TermChange, VoteDirection, VoteResult},
};
use metrics::{Counter, Gauge, Histogram};
use std::time::Duration;

pub(super) struct Elections {
    role: Chosen<Role>,
    term: Gauge,
    term_changes: Each<TermChange, Counter>,
    started: Each<Phase, Counter>,
    finished: Each<Phase, Each<ElectionResult, Counter>>,
    duration: Histogram,
    votes: Each<Phase, Each<VoteDirection, Each<VoteResult, Counter>>>,
    leader_changes: Counter,
    has_leader: Gauge,
    leaderless: TimeCounter,
}

impl Elections {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            role: scope.choice(&catalogue::ROLE, "role"),
            term: scope.gauge(&catalogue::TERM),
            term_changes: scope.each("cause", |scope| scope.counter(&catalogue::TERM_CHANGES)),
            started: scope.each("phase", |scope| scope.counter(&catalogue::ELECTIONS_STARTED)),
            finished: scope
                .each("phase", |scope| scope.each("result", |scope| scope.counter(&catalogue::ELECTIONS_FINISHED))),
            duration: scope.histogram(&catalogue::ELECTION_DURATION),
            votes: scope.each("phase", |scope| {
                scope.each("direction", |scope| scope.each("result", |scope| scope.counter(&catalogue::VOTES)))
            }),
            leader_changes: scope.counter(&catalogue::LEADER_CHANGES),
            has_leader: scope.gauge(&catalogue::HAS_LEADER),
            leaderless: scope.time_counter(&catalogue::LEADERLESS),
        }
    }
}

impl NodeMetrics {
    /// The node has this role from now on. Until the first call every role reads 0.
    pub fn role_is(&self, role: Role) {
        self.inner.elections.role.is(role);
    }

    /// The node's current term, also the one that it resumed after a restart.
    pub fn term_is(&self, term: u64) {
        self.inner.elections.term.set(float(term));
    }

    /// The term went up for this reason; [`NodeMetrics::term_is`] tells to what.
    pub fn term_changed(&self, cause: TermChange) {
        self.inner.elections.term_changes.of(cause).increment(1);
    }

    /// The node began to ask for votes.
    pub fn election_started(&self, phase: Phase) {
        self.inner.elections.started.of(phase).increment(1);
    }

    /// A round ended. `since_campaign_began` is the time since the campaign's first round began: it enters the
    /// histogram when the round was the campaign's last, which is every round but a pre-vote that was won.
    pub fn election_finished(&self, phase: Phase, result: ElectionResult, since_campaign_began: Duration) {
        let elections = &self.inner.elections;
        elections.finished.of(phase).of(result).increment(1);
        if (phase, result) != (Phase::PreVote, ElectionResult::Won) {
            elections.duration.record(since_campaign_began);
        }
    }

    /// A vote was cast by this node, or received by it; its own vote for itself is none.
    pub fn vote(&self, phase: Phase, direction: VoteDirection, granted: bool) {
        let result = if granted { VoteResult::Granted } else { VoteResult::Denied };
        self.inner.elections.votes.of(phase).of(direction).of(result).increment(1);
    }

    /// The node came to follow another leader than it last did, or became one itself. Losing a leader is no change,
    /// nor is finding the same one again in the same term.
    pub fn leader_changed(&self) {
        self.inner.elections.leader_changes.increment(1);
    }

    /// Whether the node leads or knows whom it follows.
    pub fn has_leader(&self, has: bool) {
        self.inner.elections.has_leader.set(u8::from(has));
    }

    /// The node had no leader for this long since it last said so. Called when a leader is found, and every second or
    /// so meanwhile, so that the counter grows while it matters.
    pub fn leaderless_for(&self, elapsed: Duration) {
        self.inner.elections.leaderless.add(elapsed);
    }
}
