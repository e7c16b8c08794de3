//! Proposals and reads: results for their callers, and durations of their stages.

use super::{NodeMetrics, float};
use crate::labels::{ProposalResult, ProposalStage, ReadMode, ReadResult};
use std::time::Duration;

impl NodeMetrics {
    /// Counts `count` proposals of callers on this node that got this answer.
    pub fn proposals(&self, result: ProposalResult, count: u64) {
        self.inner.clients.proposals.of(result).increment(count);
    }

    /// Sets the number of proposals of this node's callers that wait for their answer.
    pub fn proposals_in_flight(&self, count: u64) {
        self.inner.clients.in_flight.set(float(count));
    }

    /// Sets the number of client sessions that the node remembers.
    pub fn sessions(&self, count: u64) {
        self.inner.clients.sessions.set(float(count));
    }

    /// Counts client sessions that the node forgot, because they were idle for too long or too many.
    pub fn sessions_expired(&self, count: u64) {
        self.inner.clients.sessions_expired.increment(count);
    }

    /// Records the time that one proposal spent in a stage.
    pub fn proposal_stage(&self, stage: ProposalStage, took: Duration) {
        self.proposal_stage_n(stage, took, 1);
    }

    /// Records the time that a batch of `count` proposals spent in a stage, or their average: one
    /// observation for any `count` above 0. [`NodeMetrics::proposals`] and [`NodeMetrics::batch`]
    /// count the proposals.
    pub fn proposal_stage_n(&self, stage: ProposalStage, took: Duration, count: u64) {
        if count > 0 {
            self.inner.clients.stages.of(stage).record(took);
        }
    }

    /// Records how many proposals the leader appended to its log in one batch.
    pub fn batch(&self, entries: u64) {
        self.inner.clients.batch.record(float(entries));
    }

    /// Counts `count` reads on this node that got this answer.
    pub fn reads(&self, mode: ReadMode, result: ReadResult, count: u64) {
        self.inner.clients.reads.of(mode).of(result).increment(count);
    }

    /// Records the time of one read from call to answer.
    pub fn read_took(&self, mode: ReadMode, took: Duration) {
        self.inner.clients.read_duration.of(mode).record(took);
    }
}
