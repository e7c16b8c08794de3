//! The stalls of the node's thread, measured as late wake-ups, and the part of them that is
//! excused: time in which the thread did not run does not count as silence of other nodes.
//!
//! **Bound.** Excused time comes out of an allowance. Time in which the thread does run refills it,
//! up to `excused_max`. So of any time `t`, at least `(t - excused_max) / 2` counts as silence, at
//! any load of the machine: a silence of `s` is noticed within `2 s + excused_max`.

use std::time::Duration;
use tokio::time::Instant;

/// The lateness from which a wake-up counts as a stall: less than this is within the resolution
/// of the timer.
pub(crate) const LATE_MIN: Duration = Duration::from_millis(5);
/// The least time between two reports of late wake-ups.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The measurements of one thread.
#[derive(Debug)]
pub(crate) struct Stalls {
    allowance: Duration,
    excused_max: Duration,
    woke_at: Instant,
    /// The lateness from which a wake-up is reported.
    report_min: Duration,
    reported_at: Option<Instant>,
    unreported: Report,
}

/// A measured wake-up of the thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Woke {
    /// The time since it was due.
    pub(crate) late: Duration,
    /// The part of `late` that does not count as silence of other nodes.
    pub(crate) excused: Duration,
}

/// Late wake-ups since the last report.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Report {
    pub(crate) count: u32,
    pub(crate) longest: Duration,
}

impl Stalls {
    pub(crate) fn new(excused_max: Duration, report_min: Duration, now: Instant) -> Self {
        Self {
            allowance: excused_max,
            excused_max,
            woke_at: now,
            report_min,
            reported_at: None,
            unreported: Report::default(),
        }
    }

    /// Records a wake-up at `now` that was due at `due`.
    pub(crate) fn woke(&mut self, due: Instant, now: Instant) -> Woke {
        let late = now.saturating_duration_since(due);
        let ran = now.saturating_duration_since(self.woke_at).saturating_sub(late);
        self.woke_at = now;
        self.allowance = (self.allowance + ran).min(self.excused_max);
        let excused = if late < LATE_MIN { Duration::ZERO } else { late.min(self.allowance) };
        self.allowance -= excused;
        if late >= self.report_min.max(LATE_MIN) {
            self.unreported.count += 1;
            self.unreported.longest = self.unreported.longest.max(late);
        }
        Woke { late, excused }
    }

    /// The late wake-ups to report now, if a report is due.
    pub(crate) fn report(&mut self, now: Instant) -> Option<Report> {
        let is_due = self.reported_at.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_EVERY);
        if self.unreported.count == 0 || !is_due {
            return None;
        }
        self.reported_at = Some(now);
        Some(std::mem::take(&mut self.unreported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const ALLOWED: Duration = Duration::from_millis(600);

    /// The part of `total` that counts as silence on a thread that alternately runs for `runs` and
    /// stalls for `stands`.
    fn counted(runs: Duration, stands: Duration, total: Duration) -> Duration {
        let mut now = Instant::now();
        let (began, mut excused) = (now, Duration::ZERO);
        let mut stalls = Stalls::new(ALLOWED, MS(50), now);
        while now - began < total {
            let due = now + runs;
            now = due + stands;
            excused += stalls.woke(due, now).excused;
        }
        (now - began) - excused
    }

    #[test]
    fn a_stall_is_excused_in_full_and_the_resolution_of_timers_is_none() {
        let now = Instant::now();
        let mut stalls = Stalls::new(ALLOWED, MS(50), now);
        assert_eq!(stalls.woke(now + MS(10), now + MS(11)), Woke { late: MS(1), excused: MS(0) });
        assert_eq!(stalls.woke(now + MS(20), now + MS(220)), Woke { late: MS(200), excused: MS(200) });
    }

    #[test]
    fn however_busy_the_machine_silence_counts_within_the_stated_bound() {
        for (runs, stands) in [(10, 0), (10, 10), (10, 90), (1, 500), (1, 5_000), (30, 6)] {
            let total = Duration::from_secs(20);
            let counted = counted(MS(runs), MS(stands), total);
            assert!(counted >= (total - ALLOWED) / 2, "of {total:?}, {counted:?} count at {runs} to {stands}");
        }
        assert_eq!(counted(MS(30), MS(6), MS(3_600)), MS(3_000), "a thread that mostly runs is excused in full");
    }

    #[test]
    fn the_allowance_comes_back_with_time_in_which_the_thread_runs() {
        let mut now = Instant::now();
        let mut stalls = Stalls::new(ALLOWED, MS(50), now);
        now += MS(5_000);
        assert_eq!(stalls.woke(now - MS(4_990), now).excused, ALLOWED);
        now += MS(100);
        assert_eq!(stalls.woke(now - MS(100), now).excused, MS(0));
        now += MS(300);
        assert_eq!(stalls.woke(now, now).excused, MS(0));
        now += MS(1_000);
        assert_eq!(stalls.woke(now - MS(1_000), now).excused, MS(300));
    }

    #[test]
    fn late_wake_ups_are_reported_at_once_and_then_together() {
        let now = Instant::now();
        let mut stalls = Stalls::new(ALLOWED, MS(50), now);
        stalls.woke(now, now + MS(49));
        assert_eq!(stalls.report(now + MS(49)), None);
        stalls.woke(now, now + MS(60));
        assert_eq!(stalls.report(now + MS(60)), Some(Report { count: 1, longest: MS(60) }));
        for late in [80, 70] {
            stalls.woke(now, now + MS(late));
            assert_eq!(stalls.report(now + MS(100)), None);
        }
        let later = now + MS(60) + REPORT_EVERY;
        assert_eq!(stalls.report(later), Some(Report { count: 2, longest: MS(80) }));
        assert_eq!(stalls.report(later + REPORT_EVERY), None);
    }
}
