//! The time that the disk takes to make a write durable, now and usually: an operator sees a slow
//! disk by the difference.

use super::report::SyncTimes;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The syncs of a node's storage. Written by its thread, read for reports.
#[derive(Debug, Default)]
pub(crate) struct SyncRecord(Mutex<Record>);

/// Seconds with writes over which the usual time is a mean.
const USUAL_SECONDS: u32 = 600;

#[derive(Debug, Default)]
struct Record {
    /// The syncs of the second that runs, and when it began.
    present: Option<(Instant, Second)>,
    /// Those of the last second with writes before it.
    last: Second,
    usual: Duration,
    /// Seconds in `usual`, up to [`USUAL_SECONDS`].
    seconds: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    syncs: u32,
    took: Duration,
}

impl SyncRecord {
    /// A sync ended now. Returns the usual time of the syncs before it, once there was one.
    pub(crate) fn synced(&self, took: Duration) -> Option<Duration> {
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = record.times();
        record.synced(Instant::now(), took);
        before.map(|times| times.usual)
    }

    /// The times, once there was a sync.
    pub(crate) fn times(&self) -> Option<SyncTimes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).times()
    }
}

impl Record {
    fn synced(&mut self, now: Instant, took: Duration) {
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
        Some(SyncTimes { recent, usual })
    }
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
}
