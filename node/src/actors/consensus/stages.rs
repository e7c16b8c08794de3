//! Durations of the stages of a batch, for the metrics.

use quorate_metrics::{NodeMetrics, ProposalStage};
use quorate_raft::Index;
use std::collections::VecDeque;
use tokio::time::Instant;

/// For each batch that the leader is persisting or committing: its last index, its number of
/// entries, and when it was appended.
#[derive(Default)]
pub(super) struct Stages {
    persisting: VecDeque<(Index, u64, Instant)>,
    committing: VecDeque<(Index, u64, Instant)>,
}

impl Stages {
    pub(super) fn appended(&mut self, last: Index, count: u64, now: Instant) {
        self.persisting.push_back((last, count, now));
        self.committing.push_back((last, count, now));
    }

    pub(super) fn durable(&mut self, durable: Index, metrics: &NodeMetrics) {
        Self::passed(&mut self.persisting, durable, ProposalStage::Persist, metrics);
    }

    pub(super) fn committed(&mut self, commit: Index, metrics: &NodeMetrics) {
        Self::passed(&mut self.committing, commit, ProposalStage::Commit, metrics);
    }

    fn passed(queue: &mut VecDeque<(Index, u64, Instant)>, index: Index, stage: ProposalStage, metrics: &NodeMetrics) {
        while let Some((_, count, since)) = queue.pop_front_if(|(last, _, _)| *last <= index) {
            metrics.proposal_stage_n(stage, since.elapsed(), count);
        }
    }
}
