//! The time that the disk takes to make a write durable, now and usually: an operator sees a slow
//! disk by the difference.

use super::report::SyncTimes;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Seconds with writes over which the usual time is a mean.
const USUAL_SECONDS: u32 = 600;

/// The syncs of a node's storage. Written by its thread, read for reports.
#[derive(Debug, Default)]
pub(crate) struct SyncRecord(Mutex<Record>);

/// A change of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DiskChange {
    /// It is slow: the mean of the last second or two with writes, and the usual one.
    Slow { recent: Duration, usual: Duration },
    /// It is fast again, after this time.
    Fast { after: Duration },
}

#[derive(Debug, Default)]
struct Record {
    /// The syncs of the second that runs, and when it began.
    present: Option<(Instant, Second)>,
    /// Those of the last second with writes before it.
    last: Second,
    usual: Duration,
    /// Seconds in `usual`, up to [`USUAL_SECONDS`].
    seconds: u32,
    slow_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    syncs: u32,
    took: Duration,
}

impl SyncRecord {
    /// A sync ended now, and the disk became slow or fast with it.
    pub(crate) fn synced(&self, took: Duration) -> Option<DiskChange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).synced(Instant::now(), took)
    }

    /// The times, once there was a sync.
    pub(crate) fn times(&self) -> Option<SyncTimes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).times()
    }
}

impl Record {
    fn synced(&mut self, now: Instant, took: Duration) -> Option<DiskChange> {
        self.add(now, took);
        let SyncTimes { recent, usual, .. } = self.times()?;
        match (self.slow_since, is_slow(recent, usual, self.slow_since.is_some())) {
            (None, true) => {
                self.slow_since = Some(now);
                Some(DiskChange::Slow { recent, usual })
            }
            (Some(since), false) => {
                self.slow_since = None;
                Some(DiskChange::Fast { after: now.saturating_duration_since(since) })
            }
            _ => None,
        }
    }

    fn add(&mut self, now: Instant, took: Duration) {
        let (since, mut second) = self.present.unwrap_or((now, Second::default()));
        if now.saturating_duration_since(since) < Duration::from_secs(1) {
            second.add(took);
            self.present = Some((since, second));
            return;
        }
        if let Some(mean) = second.mean() {
            self.seconds = (self.seconds + 1).min(USUAL_SECONDS);
            self.usual = (self.usual * (self.seconds - 1) + mean) / self.seconds;
        }
        self.last = second;
        self.present = Some((now, Second { syncs: 1, took }));
    }

    fn times(&self) -> Option<SyncTimes> {
        let (_, present) = self.present?;
        let both = Second { syncs: present.syncs + self.last.syncs, took: present.took + self.last.took };
        let recent = both.mean()?;
        let usual = if self.seconds == 0 { recent } else { self.usual };
        Some(SyncTimes { recent, usual, is_slow: self.slow_since.is_some() })
    }
}

/// The one rule of a slow disk. One that was slow stays so until it is clearly faster, so that a time
/// at a bound makes no flood of events.
fn is_slow(recent: Duration, usual: Duration, was_slow: bool) -> bool {
    let part = if was_slow { 2 } else { 1 };
    recent >= SyncTimes::SLOW_MIN / part && recent >= usual.saturating_mul(SyncTimes::SLOW_TIMES / part)
}

impl Second {
    fn add(&mut self, took: Duration) {
        self.syncs = self.syncs.saturating_add(1);
        self.took = self.took.saturating_add(took);
    }

    fn mean(self) -> Option<Duration> {
        (self.syncs > 0).then(|| self.took / self.syncs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_becomes_slow_shows_at_once_and_stays_unusual_for_minutes() {
        let (mut record, begun, ms) = (Record::default(), Instant::now(), Duration::from_millis);
        assert_eq!(record.times(), None);
        for at in 0..6_000 {
            record.synced(begun + ms(at * 100), Duration::from_micros(600));
        }
        let times = record.times().expect("it was written");
        assert_eq!((times.recent, times.usual), (Duration::from_micros(600), Duration::from_micros(600)));
        for at in 6_000..6_600 {
            record.synced(begun + ms(at * 100), ms(180));
        }
        let times = record.times().expect("it was written");
        assert_eq!(times.recent, ms(180));
        assert!(times.usual < ms(30), "after a minute {:?} is taken for usual", times.usual);
    }

    #[test]
    fn a_disk_is_slow_by_its_mean_and_by_what_is_usual_for_it() {
        let (ms, us) = (Duration::from_millis, Duration::from_micros);
        assert!(is_slow(ms(50), us(6_250), false));
        assert!(!is_slow(us(49_999), us(600), false), "less than 50 ms is never slow");
        assert!(!is_slow(ms(180), ms(23), false), "less than eight times the usual time");
        assert!(!is_slow(Duration::MAX / 2, Duration::MAX / 4, false), "no overflow");
        assert!(is_slow(ms(30), us(600), true), "it is not clearly faster");
        assert!(!is_slow(us(24_999), us(600), true));
        assert!(!is_slow(ms(90), ms(23), true), "that is usual now");
    }

    #[test]
    fn a_slow_disk_is_told_once_and_so_is_its_end() {
        let (mut record, begun, ms) = (Record::default(), Instant::now(), Duration::from_millis);
        let mut told = Vec::new();
        let mut sync = |at: u64, took| {
            let change = record.synced(begun + ms(at), took);
            assert_eq!(record.times().map(|times| times.is_slow), Some(record.slow_since.is_some()));
            told.extend(change.map(|change| (at, change)));
        };
        (0..100).for_each(|nth| sync(nth * 100, ms(1)));
        // One slow sync among many fast ones makes no slow disk.
        sync(10_000, ms(180));
        (101..200).for_each(|nth| sync(nth * 100, ms(1)));
        (200..230).for_each(|nth| sync(nth * 100, ms(180)));
        (230..300).for_each(|nth| sync(nth * 100, ms(1)));
        let [(slow_at, DiskChange::Slow { recent, usual }), (fast_at, DiskChange::Fast { after })] = told[..] else {
            panic!("{told:?}")
        };
        assert!((20_000..22_000).contains(&slow_at), "slow at {slow_at} ms");
        assert!(recent >= SyncTimes::SLOW_MIN && usual < ms(20), "{recent:?}, {usual:?}");
        assert!((23_000..25_000).contains(&fast_at) && after == ms(fast_at - slow_at), "fast at {fast_at} ms");
    }
}
