//! Durations of the stages of a write, for the metrics and for reports: one observation a batch and
//! stage.
//!
//! The leader measures. `Consensus` notes when a batch was taken from the queue, encoded and
//! committed ([`Stages`]); the `Applier` adds when it was applied ([`Applying`]); its last answer
//! ends it. All its stages are recorded at that moment, so the means of the stages sum to the mean
//! of the total. The clock is read a few times a batch, and never for one entry.

use super::messages::{Caller, Callers};
use crate::reports::stage_times::StageRecord;
use quorate_metrics::{NodeMetrics, ProposalStage};
use quorate_raft::Index;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// The batches that the leader has appended and that are not on their way to the state machine.
#[derive(Default)]
pub(crate) struct Stages {
    /// The last index of each batch that is not durable here, and when it was encoded.
    persisting: VecDeque<(Index, Instant)>,
    committing: VecDeque<Appended>,
    /// With the time of the commit.
    committed: VecDeque<(Appended, Instant)>,
}

/// A batch in the leader's log.
#[derive(Clone, Copy)]
struct Appended {
    first: Index,
    last: Index,
    taken: Instant,
    encoded: Instant,
}

/// The way of a batch up to its commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Way {
    taken: Instant,
    encoded: Instant,
    committed: Instant,
}

impl Stages {
    /// A batch with the entries from `first` to `last` goes to the disk and to the followers.
    pub(crate) fn appended(&mut self, (first, last): (Index, Index), taken: Instant, encoded: Instant) {
        self.persisting.push_back((last, encoded));
        self.committing.push_back(Appended { first, last, taken, encoded });
    }

    pub(crate) fn durable(&mut self, durable: Index, metrics: &NodeMetrics, record: &StageRecord) {
        while let Some((_, since)) = self.persisting.pop_front_if(|(last, _)| *last <= durable) {
            let now = Instant::now();
            let took = now.saturating_duration_since(since);
            metrics.proposal_stage(ProposalStage::Persist, took);
            record.persisted(now, took);
        }
    }

    pub(crate) fn committed(&mut self, commit: Index) {
        let now = Instant::now();
        while let Some(batch) = self.committing.pop_front_if(|batch| batch.last <= commit) {
            self.committed.push_back((batch, now));
        }
    }

    /// The entries up to `last` are on their way to the state machine: batches that have no caller
    /// left are forgotten.
    pub(crate) fn dispatched(&mut self, last: Index) {
        while self.committed.pop_front_if(|(batch, _)| batch.last <= last).is_some() {}
    }

    /// The way of the batch with this entry, if this leadership appended it. Entries are asked for
    /// in order. A batch that is committed in parts counts as committed `now`.
    pub(crate) fn way_of(&mut self, entry: Index, now: Instant) -> Option<Way> {
        while self.committed.pop_front_if(|(batch, _)| batch.last < entry).is_some() {}
        let whole = self.committed.front().map(|(batch, at)| (batch, *at));
        let (batch, committed) = whole.or_else(|| self.committing.front().map(|batch| (batch, now)))?;
        let has_entry = (batch.first..=batch.last).contains(&entry);
        has_entry.then_some(Way { taken: batch.taken, encoded: batch.encoded, committed })
    }
}

/// A batch that the state machine applies, and its callers that are not answered yet.
pub(crate) struct Applying {
    way: Way,
    /// The mean time from the calls until the batch was taken.
    queue: Duration,
    began: Instant,
    /// Whether callers of this node are among them: then they alone count.
    of_own: bool,
    unanswered: usize,
}

impl Applying {
    pub(crate) fn new(Callers { callers, .. }: &Callers, way: Way, began: Instant) -> Self {
        let waited = callers.iter().filter_map(|caller| match caller {
            Caller::Here { waiter, .. } => Some(way.taken.saturating_duration_since(waiter.asked)),
            Caller::There { .. } => None,
        });
        let (own, waited) = waited.fold((0, Duration::ZERO), |(count, sum), waited| (count + 1, sum + waited));
        let queue = u32::try_from(own).ok().and_then(|own| waited.checked_div(own)).unwrap_or_default();
        let unanswered = if own > 0 { own } else { callers.len() };
        Self { way, queue, began, of_own: own > 0, unanswered }
    }

    /// An entry is applied, and its caller is to be answered. The stages, if it is the last one.
    pub(crate) fn answers(&mut self, is_own: bool) -> Option<Measured> {
        if is_own != self.of_own {
            return None;
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        (self.unanswered == 0).then(|| {
            let (Self { way, queue, began, .. }, applied) = (&*self, Instant::now());
            Measured {
                queue: *queue,
                encode: way.encoded.saturating_duration_since(way.taken),
                quorum: way.committed.saturating_duration_since(way.encoded),
                commit: began.saturating_duration_since(way.committed),
                apply: applied.saturating_duration_since(*began),
                applied,
            }
        })
    }
}

/// The stages of a batch up to its last answer, which is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Measured {
    queue: Duration,
    encode: Duration,
    quorum: Duration,
    commit: Duration,
    apply: Duration,
    applied: Instant,
}

impl Measured {
    /// The answer has arrived: records all stages.
    pub(crate) fn arrived(self, metrics: &NodeMetrics, record: &StageRecord) {
        let now = Instant::now();
        let stages = self.stages(now);
        stages.iter().for_each(|(stage, took)| metrics.proposal_stage(*stage, *took));
        record.answered(now, stages.map(|(_, took)| took));
    }

    fn stages(self, now: Instant) -> [(ProposalStage, Duration); 7] {
        let Self { queue, encode, quorum, commit, apply, applied } = self;
        let reply = now.saturating_duration_since(applied);
        let total = queue + encode + quorum + commit + apply + reply;
        [
            (ProposalStage::Queue, queue),
            (ProposalStage::Encode, encode),
            (ProposalStage::Quorum, quorum),
            (ProposalStage::Commit, commit),
            (ProposalStage::Apply, apply),
            (ProposalStage::Reply, reply),
            (ProposalStage::Total, total),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{actors::messages::Waiter, admission::Admission};
    use quorate_raft::{Moment, NodeId, Term};
    use tokio::sync::oneshot;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn the_stages_of_a_batch_leave_no_gap_and_sum_to_the_total() {
        let start = Instant::now();
        let mut stages = Stages::default();
        stages.appended((Index(5), Index(7)), start + MS(10), start + MS(13));
        let way = stages.way_of(Index(5), start + MS(40)).expect("its way");
        assert_eq!(way, Way { taken: start + MS(10), encoded: start + MS(13), committed: start + MS(40) });
        // One waited for 10 ms, the other for 4.
        let of = callers(5, vec![here(start), there(), here(start + MS(6))]);
        let mut applying = Applying::new(&of, way, start + MS(42));
        assert_eq!(applying.answers(true), None);
        assert_eq!(applying.answers(false), None, "callers of this node count alone");
        let measured = applying.answers(true).expect("the last answer");
        let measured = Measured { apply: MS(3), applied: start + MS(45), ..measured };
        let took = measured.stages(start + MS(50)).map(|(_, took)| took.as_millis());
        assert_eq!(took, [7, 3, 27, 2, 3, 5, 47]);
        assert_eq!(took[..6].iter().sum::<u128>(), took[6]);
    }

    #[test]
    fn a_batch_of_forwarded_commands_counts_from_when_it_was_taken() {
        let start = Instant::now();
        let way = Way { taken: start, encoded: start, committed: start };
        let mut applying = Applying::new(&callers(1, vec![there(), there()]), way, start);
        assert_eq!(applying.answers(false), None);
        assert_eq!(applying.answers(false).expect("the last answer").queue, Duration::ZERO);
    }

    #[test]
    fn each_batch_keeps_its_own_times_however_they_are_committed_and_applied() {
        let start = Instant::now();
        let mut stages = Stages::default();
        for nth in 0..4 {
            let first = Index(nth * 10 + 1);
            stages.appended((first, first.plus(8)), start + MS(nth), start + MS(nth));
        }
        stages.committed(Index(25));
        let mut taken =
            |entry| stages.way_of(Index(entry), start).map(|way| way.taken.duration_since(start).as_millis());
        assert_eq!([taken(1), taken(9)], [Some(0), Some(0)]);
        assert_eq!(taken(10), None, "not an entry of a batch: a tick, or of an earlier leadership");
        assert_eq!(taken(15), Some(1), "in the middle");
        assert_eq!([taken(21), taken(25)], [Some(2), Some(2)], "committed in parts");
        stages.committed(Index(39));
        let mut taken =
            |entry| stages.way_of(Index(entry), start).map(|way| way.taken.duration_since(start).as_millis());
        assert_eq!([taken(26), taken(31)], [Some(2), Some(3)]);
        stages.dispatched(Index(38));
        assert_eq!(stages.committed.len(), 1);
        stages.dispatched(Index(39));
        assert!(stages.committing.is_empty() && stages.committed.is_empty());
        assert_eq!(stages.way_of(Index(39), start), None);
    }

    fn callers(first: u64, callers: Vec<Caller>) -> Callers {
        Callers { first: Index(first), callers }
    }

    fn here(asked: Instant) -> Caller {
        let permit = Admission::new(1, 1).enter(1, None).expect("room");
        let waiter = Waiter { answer: oneshot::channel().0, asked, permit };
        Caller::Here { asked: Moment::default(), waiter }
    }

    fn there() -> Caller {
        let permit = Admission::new(1, 1).enter(1, None).expect("room");
        Caller::There { node: NodeId(2), request: 1, term: Term(1), permit }
    }
}
