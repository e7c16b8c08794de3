//! The durations of the stages of a write over the last ten seconds, for reports.
//!
//! A [`Window`] has a slot for each second, with a sum and a histogram; a new second takes the slot
//! of the oldest. One observation is a batch: none allocates, and nothing is kept for an entry.

use serde::{Deserialize, Serialize};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The seconds of a window, the present one included.
const SECONDS: u64 = 10;
/// The seconds of [`StageTimes::lately`], the present one included.
const LATELY_SECONDS: u64 = 2;
/// The unit of the histogram: a duration below it is in the first bucket.
const UNIT_NANOS: u64 = 256;
/// Four buckets for each doubling, so that a bucket is at most a quarter wider than its lower end;
/// the last one takes all above 68 s.
const BUCKETS: usize = 108;

/// The duration of a stage, of all batches of a time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StageTime {
    /// The mean.
    pub mean: Duration,
    /// The 99th percentile, by a histogram: at most a quarter off.
    pub p99: Duration,
}

/// The durations of the stages of a write on the leader, of the batches whose last answer left in
/// the last ten seconds. The means of the first six sum to that of the whole.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StageTimes {
    /// From the call until the batch is taken.
    pub queue: StageTime,
    /// Until the batch is encoded.
    pub encode: StageTime,
    /// Until it is durable on a quorum of the voters.
    pub quorum: StageTime,
    /// Until it is on its way to the state machine.
    pub commit: StageTime,
    /// Until the state machine has applied it.
    pub apply: StageTime,
    /// Until the answer has reached the caller.
    pub reply: StageTime,
    /// From the call to the answer.
    pub total: StageTime,
    /// The same, of the last two seconds.
    pub lately: Option<StageTime>,
    /// From the end of the encoding until the batch is durable on the leader's own disk.
    pub persist: Option<StageTime>,
}

/// The number of stages that follow one another, and their total.
pub(crate) const STAGES: usize = 7;

/// The stages of the last ten seconds: about 40 KB, allocated once. Written by the threads on which
/// answers arrive, read for reports.
#[derive(Debug)]
pub(crate) struct StageRecord {
    begun: Instant,
    windows: Mutex<Windows>,
}

#[derive(Debug, Default)]
struct Windows {
    stages: [Window; STAGES],
    persist: Window,
}

impl StageRecord {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), windows: Mutex::default() }
    }

    /// A batch was answered now: queue, encode, quorum, commit, apply, reply, and their total.
    pub(crate) fn answered(&self, now: Instant, stages: [Duration; STAGES]) {
        let second = self.second(now);
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.stages.iter_mut().zip(stages).for_each(|(window, took)| window.add(second, took));
    }

    /// A batch is durable on this node now.
    pub(crate) fn persisted(&self, now: Instant, took: Duration) {
        let second = self.second(now);
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).persist.add(second, took);
    }

    /// The times, if a batch was answered in the last ten seconds.
    pub(crate) fn times(&self) -> Option<StageTimes> {
        let second = self.second(Instant::now());
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let [queue, encode, quorum, commit, apply, reply, total] = &windows.stages;
        let of = |window: &Window| window.time(second);
        Some(StageTimes {
            queue: of(queue)?,
            encode: of(encode)?,
            quorum: of(quorum)?,
            commit: of(commit)?,
            apply: of(apply)?,
            reply: of(reply)?,
            total: of(total)?,
            lately: total.over(second, LATELY_SECONDS),
            persist: of(&windows.persist),
        })
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_secs()
    }
}

/// The durations of one stage over the last ten seconds. The caller numbers the seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window([Slot; SECONDS as usize]);

#[derive(Clone, Debug)]
struct Slot {
    second: u64,
    count: u32,
    /// Nanoseconds.
    sum: u64,
    longest: u64,
    buckets: [u32; BUCKETS],
}

impl Default for Slot {
    fn default() -> Self {
        Self::of(0)
    }
}

impl Slot {
    fn of(second: u64) -> Self {
        Self { second, count: 0, sum: 0, longest: 0, buckets: [0; BUCKETS] }
    }
}

impl Window {
    pub(crate) fn add(&mut self, second: u64, took: Duration) {
        let slot = &mut self.0[(second % SECONDS) as usize];
        if slot.second != second {
            *slot = Slot::of(second);
        }
        let nanos = nanos_of(took);
        slot.count = slot.count.saturating_add(1);
        slot.sum = slot.sum.saturating_add(nanos);
        slot.longest = slot.longest.max(nanos);
        let bucket = &mut slot.buckets[bucket_of(nanos)];
        *bucket = bucket.saturating_add(1);
    }

    /// The time of the last ten seconds up to this one; `None` if nothing was observed in them.
    pub(crate) fn time(&self, second: u64) -> Option<StageTime> {
        self.over(second, SECONDS)
    }

    fn over(&self, second: u64, seconds: u64) -> Option<StageTime> {
        let is_recent = |slot: &&Slot| slot.count > 0 && slot.second <= second && slot.second + seconds > second;
        let slots = || self.0.iter().filter(is_recent);
        let count = slots().map(|slot| u64::from(slot.count)).sum::<u64>();
        let mean = slots().map(|slot| slot.sum).fold(0, u64::saturating_add).checked_div(count)?;
        let longest = slots().map(|slot| slot.longest).max()?;
        let rank = (count * 99).div_ceil(100);
        let mut before = 0;
        for bucket in 0..BUCKETS {
            let inside = slots().map(|slot| u64::from(slot.buckets[bucket])).sum::<u64>();
            if before + inside >= rank {
                let (from, to) = (start_of(bucket), start_of(bucket + 1));
                let part = u128::from(to - from) * u128::from(rank - before) / u128::from(inside);
                let p99 = u64::try_from((u128::from(from) + part) * u128::from(UNIT_NANOS)).unwrap_or(u64::MAX);
                let [mean, p99] = [mean, p99.min(longest)].map(Duration::from_nanos);
                return Some(StageTime { mean, p99 });
            }
            before += inside;
        }
        None
    }
}

/// The bucket of a duration: four linear parts of each doubling.
fn bucket_of(nanos: u64) -> usize {
    let units = nanos / UNIT_NANOS;
    let Some(octave) = units.checked_ilog2().filter(|octave| *octave >= 2) else { return units as usize };
    let part = (units >> (octave - 2)) & 3;
    (4 * (octave as usize - 1) + part as usize).min(BUCKETS - 1)
}

/// The first duration of a bucket, in units.
fn start_of(bucket: usize) -> u64 {
    let octave = bucket / 4;
    if octave == 0 { bucket as u64 } else { (4 + bucket as u64 % 4) << (octave - 1) }
}

fn nanos_of(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    const US: fn(u64) -> Duration = Duration::from_micros;

    #[test]
    fn each_bucket_begins_where_the_one_before_ends_and_is_at_most_a_quarter_wide() {
        for bucket in 0..BUCKETS {
            let (from, to) = (start_of(bucket), start_of(bucket + 1));
            let at = |units: u64| bucket_of(units * UNIT_NANOS);
            assert_eq!((at(from), at(to - 1)), (bucket, bucket));
            assert!(from < 4 || (to - from) * 4 <= from, "{from} to {to}");
        }
        assert_eq!(bucket_of(nanos_of(Duration::MAX)), BUCKETS - 1);
    }

    #[test]
    fn the_percentile_is_at_most_a_quarter_off_the_exact_one() {
        let mut random = SmallRng::seed_from_u64(7);
        for count in [1, 2, 50, 100, 101, 5_000] {
            let mut all: Vec<_> = (0..count).map(|_| US(1 << random.random_range(0..20)) * 3 / 2).collect();
            let mut window = Window::default();
            all.iter().enumerate().for_each(|(nth, took)| window.add(nth as u64 % SECONDS, *took));
            all.sort_unstable();
            let exact = all[(count as usize * 99).div_ceil(100) - 1].as_secs_f64();
            let time = window.time(SECONDS - 1).expect("observed");
            let off = (time.p99.as_secs_f64() - exact).abs() / exact;
            assert!(off <= 0.25, "{count}: {:?} for {exact}", time.p99);
            assert_eq!(time.mean, all.iter().sum::<Duration>() / count);
        }
    }

    #[test]
    fn a_second_counts_for_ten_and_a_late_one_is_not_mixed_with_another() {
        let mut window = Window::default();
        assert_eq!(window.time(0), None);
        window.add(3, US(100));
        window.add(12, US(300));
        assert_eq!(window.time(12).expect("both").mean, US(200));
        assert_eq!(window.over(12, LATELY_SECONDS).expect("one").mean, US(300));
        assert_eq!(window.time(13).expect("the later one").mean, US(300));
        assert_eq!(window.time(22), None);
        window.add(22, US(500));
        assert_eq!(window.time(22).expect("its slot is of one second").mean, US(500));
    }

    #[tokio::test(start_paused = true)]
    async fn the_means_of_the_stages_sum_to_that_of_the_whole_and_end_ten_seconds_after_the_last_batch() {
        let record = StageRecord::new();
        record.persisted(Instant::now(), US(700));
        assert_eq!(record.times(), None, "nothing was answered");
        for scale in 1..=40 {
            let stages = [80, 30, 960, 20, 50, 100].map(|us| US(us) * scale);
            let total = stages.iter().sum();
            let [queue, encode, quorum, commit, apply, reply] = stages;
            record.answered(Instant::now(), [queue, encode, quorum, commit, apply, reply, total]);
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        let times = record.times().expect("answered");
        let StageTimes { queue, encode, quorum, commit, apply, reply, total, lately, persist } = times;
        let sum: Duration = [queue, encode, quorum, commit, apply, reply].iter().map(|stage| stage.mean).sum();
        assert!(total.mean.abs_diff(sum) < Duration::from_nanos(7), "{sum:?} of {:?}", total.mean);
        assert!(lately.expect("in the last seconds").mean > total.mean);
        assert_eq!(persist, Some(StageTime { mean: US(700), p99: US(700) }));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(record.times(), None);
    }
}
