//! Role, term, campaigns, votes, leases, transfers, and whether a leader is known.

use super::{NodeMetrics, float};
use crate::labels::{ElectionResult, NodeRole, Phase, TermChange, TransferResult, VoteDirection, VoteResult};
use std::time::Duration;

impl NodeMetrics {
    /// Sets the node's role. Until the first call all roles read 0.
    pub fn set_role(&self, role: NodeRole) {
        self.inner.elections.role.is(role);
    }

    /// Sets the node's current term, also the one it resumed after a restart.
    pub fn set_term(&self, term: u64) {
        self.inner.elections.term.set(float(term));
    }

    /// Counts an increase of the term; [`NodeMetrics::set_term`] sets the new term.
    pub fn term_changed(&self, cause: TermChange) {
        self.inner.elections.term_changes.of(cause).increment(1);
    }

    /// Counts the start of an election round.
    pub fn election_started(&self, phase: Phase) {
        self.inner.elections.started.of(phase).increment(1);
    }

    /// Counts the end of a round. `since_campaign_began` is the time since the first round of the
    /// campaign began; it enters the histogram if this round is the campaign's last, which is every
    /// round except a won pre-vote.
    pub fn election_finished(&self, phase: Phase, result: ElectionResult, since_campaign_began: Duration) {
        let elections = &self.inner.elections;
        elections.finished.of(phase).of(result).increment(1);
        if (phase, result) != (Phase::PreVote, ElectionResult::Won) {
            elections.duration.record(since_campaign_began);
        }
    }

    /// Counts a vote that this node cast or received. Its vote for itself is not counted.
    pub fn vote(&self, phase: Phase, direction: VoteDirection, granted: bool) {
        let result = if granted { VoteResult::Granted } else { VoteResult::Denied };
        self.inner.elections.votes.of(phase).of(direction).of(result).increment(1);
    }

    /// Counts a change of the leader that this node knows, this node included. Losing a leader is
    /// not a change, nor is finding the same leader again in the same term.
    pub fn leader_changed(&self) {
        self.inner.elections.leader_changes.increment(1);
    }

    /// Sets whether the node leads or knows its leader.
    pub fn has_leader(&self, has: bool) {
        self.inner.elections.has_leader.set(u8::from(has));
    }

    /// Sets whether the node leads with a valid lease.
    pub fn lease_held(&self, is_held: bool) {
        self.inner.elections.lease_held.set(u8::from(is_held));
    }

    /// Counts the end of a lease of this node.
    pub fn lease_lost(&self) {
        self.inner.elections.lease_losses.increment(1);
    }

    /// Counts a leadership transfer of this node that ended or was refused, with the time since its
    /// start if it had begun.
    pub fn transfer_ended(&self, result: TransferResult, took: Option<Duration>) {
        self.inner.elections.transfers.of(result).increment(1);
        if let Some(took) = took {
            self.inner.elections.transfer_duration.record(took);
        }
    }

    /// Adds time without a known leader, `elapsed` since the last call. Called when a leader is
    /// found, and about every second until then, so that the counter rises during an outage.
    pub fn leaderless_for(&self, elapsed: Duration) {
        self.inner.elections.leaderless.add(elapsed);
    }
}
