//! Proposals and reads, from their callers' side and through the stages.

use super::{Each, NodeMetrics, Scope, float};
use crate::{
    catalogue,
    labels::{ProposalResult, ProposalStage, ReadMode, ReadResult},
};
use metrics::{Counter, Gauge, Histogram};
use std::time::Duration;

pub(super) struct Clients {
    proposals: Each<ProposalResult, Counter>,
    in_flight: Gauge,
    sessions: Gauge,
    stages: Each<ProposalStage, Histogram>,
    batch: Histogram,
    reads: Each<ReadMode, Each<ReadResult, Counter>>,
    read_duration: Each<ReadMode, Histogram>,
}

impl Clients {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            proposals: scope.each("result", |scope| scope.counter(&catalogue::PROPOSALS)),
            in_flight: scope.gauge(&catalogue::PROPOSALS_IN_FLIGHT),
            sessions: scope.gauge(&catalogue::SESSIONS),
            stages: scope.each("stage", |scope| scope.histogram(&catalogue::PROPOSAL_DURATION)),
            batch: scope.histogram(&catalogue::BATCH_ENTRIES),
            reads: scope.each("mode", |scope| scope.each("result", |scope| scope.counter(&catalogue::READS))),
            read_duration: scope.each("mode", |scope| scope.histogram(&catalogue::READ_DURATION)),
        }
    }
}

impl NodeMetrics {
    /// So many callers on this node were told this.
    pub fn proposals(&self, result: ProposalResult, count: u64) {
        self.inner.clients.proposals.of(result).increment(count);
    }

    /// So many proposals of this node's callers wait for their answer.
    pub fn proposals_in_flight(&self, count: u64) {
        self.inner.clients.in_flight.set(float(count));
    }

    /// So many client sessions are remembered.
    pub fn sessions(&self, count: u64) {
        self.inner.clients.sessions.set(float(count));
    }

    /// One proposal spent this long in a stage.
    pub fn proposal_stage(&self, stage: ProposalStage, took: Duration) {
        self.proposal_stage_n(stage, took, 1);
    }

    /// A batch of `count` proposals spent this long in a stage, or this long on average. It is one observation whatever
    /// `count` is, and none if that is 0: a histogram keeps each until the next upkeep. How many proposals there were
    /// tell [`NodeMetrics::proposals`] and [`NodeMetrics::batch`].
    pub fn proposal_stage_n(&self, stage: ProposalStage, took: Duration, count: u64) {
        if count > 0 {
            self.inner.clients.stages.of(stage).record(took);
        }
    }

    /// The leader took so many proposals into the log at once.
    pub fn batch(&self, entries: u64) {
        self.inner.clients.batch.record(float(entries));
    }

    /// So many readers on this node were told this.
    pub fn reads(&self, mode: ReadMode, result: ReadResult, count: u64) {
        self.inner.clients.reads.of(mode).of(result).increment(count);
    }

    /// One read took this long from call to answer.
    pub fn read_took(&self, mode: ReadMode, took: Duration) {
        self.inner.clients.read_duration.of(mode).record(took);
    }
}
