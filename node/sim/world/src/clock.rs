//! One node's clock: it may run fast or slow, or leap ahead, and never goes back.

use quorate_raft::Moment;
use std::time::Duration;

/// A node's clock as a function of the true time. By default it shows the true time.
#[derive(Clone, Copy, Default, Debug)]
pub struct Clock {
    /// The true time at which the rate last changed, and the time shown then.
    since: Duration,
    shown: Duration,
    /// The drift in thousandths: fast if positive, slow if negative.
    per_mille: i16,
}

impl Clock {
    /// The time that the clock shows at the true time `now`.
    #[must_use]
    pub fn at(&self, now: Duration) -> Moment {
        let passed = now.saturating_sub(self.since);
        if self.per_mille == 0 {
            return Moment(self.shown + passed);
        }
        let nanos = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX / 2000);
        Moment(self.shown + Duration::from_nanos(nanos / 1000 * self.rate() + nanos % 1000 * self.rate() / 1000))
    }

    /// The true time from `now` until the clock shows `moment`; zero if it does already.
    #[must_use]
    pub fn until(&self, now: Duration, moment: Moment) -> Duration {
        let left = moment.since(self.at(now));
        if self.per_mille == 0 {
            return left;
        }
        let nanos = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX / 2000);
        // A microsecond too late does no harm, and too early would make the
        // caller ask again forever.
        Duration::from_nanos(
            nanos / self.rate() * 1000 + nanos % self.rate() * 1000 / self.rate() + 1000 * u64::from(nanos > 0),
        )
    }

    /// Makes the clock drift from `now` on, by `per_mille` thousandths: between -500 and 500.
    pub fn drift(&mut self, now: Duration, per_mille: i16) {
        (self.shown, self.since) = (self.at(now).0, now);
        self.per_mille = per_mille.clamp(-500, 500);
    }

    /// The drift in thousandths: fast if positive, slow if negative.
    #[must_use]
    pub fn drifts_by(&self) -> i16 {
        self.per_mille
    }

    /// Moves the clock ahead.
    pub fn leap(&mut self, by: Duration) {
        self.shown += by;
    }

    fn rate(&self) -> u64 {
        u64::try_from(1000 + i64::from(self.per_mille)).unwrap_or(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;
    use std::time::Duration;

    #[test]
    fn a_clock_never_goes_back_and_shows_a_moment_when_it_says_so() {
        let mut clock = Clock::default();
        let (mut now, mut shown) = (Duration::from_millis(10_000), Duration::ZERO);
        for per_mille in [0, 150, -150, 37, -500, 500, 0] {
            clock.drift(now, per_mille);
            assert!(clock.at(now).0 >= shown, "a change of rate moved it back");
            let moment = clock.at(now).plus(Duration::from_millis(123));
            let until = clock.until(now, moment);
            assert!(clock.at(now + until) >= moment, "it was asked too early at {per_mille}");
            assert!(clock.at(now + until) <= moment.plus(Duration::from_micros(3)), "much too late at {per_mille}");
            now += Duration::from_millis(777);
            shown = clock.at(now).0;
            clock.leap(Duration::from_millis(5));
        }
        assert!(clock.at(now).0 >= shown + Duration::from_millis(5));
    }
}
