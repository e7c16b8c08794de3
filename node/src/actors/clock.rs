//! The node's clock: monotonic, with the time for which the machine was suspended. Rules see
//! moments since the node started, never a wall clock.

use quorate_raft::Moment;
#[cfg(target_os = "linux")]
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tokio::time::Instant;

/// The source of moments: tokio's clock, so that tests can pause it, and the time of suspensions,
/// for which tokio's clock stands still: a leader that wakes must find its lease over.
///
/// Where the kernel does not tell it (other systems than Linux, a virtual machine that its host
/// froze), suspended time does not count, and lease reads must not be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    slept_before: Slept,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), slept_before: Slept::now() }
    }

    /// The present on this clock and on that of the runtime, by which callers count.
    pub(crate) fn both_now(self) -> Both {
        let instant = Instant::now();
        Both { moment: self.at(instant), instant }
    }

    /// The time until the next multiple of `every` since the start. Actors that look at something again and
    /// again do so at these times, together: each alone would wake an idle thread.
    pub(crate) fn left_of(self, every: Duration) -> Duration {
        let every = every.as_nanos().max(1);
        let left = every - self.started.elapsed().as_nanos() % every;
        Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
    }

    pub(crate) fn now(self) -> Moment {
        self.at(Instant::now())
    }

    /// The present on this clock, of which the time of the runtime was read just before.
    pub(crate) fn at(self, instant: Instant) -> Moment {
        Moment(instant.saturating_duration_since(self.started) + self.slept_before.until_now())
    }
}

/// One time on two clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Both {
    pub(crate) moment: Moment,
    instant: Instant,
}

impl Both {
    /// Another time of the runtime's clock. A suspension of the machine in between does not count.
    pub(crate) fn moment_of(self, instant: Instant) -> Moment {
        let later = instant.saturating_duration_since(self.instant);
        let earlier = self.instant.saturating_duration_since(instant);
        Moment(self.moment.plus(later).0.saturating_sub(earlier))
    }
}

#[cfg(target_os = "linux")]
fn look(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    // The kernel's seconds and nanoseconds since boot are never negative.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The time of suspensions since the machine booted, with its bounds: two clocks can't be
/// read at once.
#[derive(Clone, Copy, Default, Debug)]
struct Slept {
    at_least: Duration,
    at_most: Duration,
}

impl Slept {
    /// No machine is suspended and resumed in less.
    #[cfg(target_os = "linux")]
    const SHORTEST: Duration = Duration::from_micros(100);

    /// Zero unless there surely was a suspension, so that the time between two readings never
    /// counts; then the longest that it may have been.
    fn since(self, before: Self) -> Duration {
        if self.at_least <= before.at_most { Duration::ZERO } else { self.at_most.saturating_sub(before.at_least) }
    }

    /// The time of suspensions since. The exact reading is made only if a quick one, which reads
    /// each clock once, shows at least [`Self::SHORTEST`] more than before.
    #[cfg(target_os = "linux")]
    fn until_now(self) -> Duration {
        let monotonic = look(ClockId::Monotonic);
        let at_most = look(ClockId::Boottime).saturating_sub(monotonic);
        if at_most <= self.at_most + Self::SHORTEST { Duration::ZERO } else { Self::now().since(self) }
    }

    #[cfg(target_os = "linux")]
    fn now() -> Self {
        /// A thread that is interrupted between two readings reads again, this often at most.
        const LOOKS_MAX: usize = 8;
        const APART_MAX: Duration = Duration::from_micros(20);
        let mut slept = Self::default();
        for _ in 0..LOOKS_MAX {
            let before = look(ClockId::Monotonic);
            let with_sleep = look(ClockId::Boottime);
            let after = look(ClockId::Monotonic);
            slept = Self { at_least: with_sleep.saturating_sub(after), at_most: with_sleep.saturating_sub(before) };
            if after.saturating_sub(before) <= APART_MAX {
                break;
            }
        }
        slept
    }

    #[cfg(not(target_os = "linux"))]
    fn until_now(self) -> Duration {
        Duration::ZERO
    }

    #[cfg(not(target_os = "linux"))]
    fn now() -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, Instant, Slept};
    use quorate_raft::Moment;
    use std::time::Duration;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_sure_suspension_counts_in_full_and_the_time_between_two_readings_does_not() {
        let before = Slept { at_least: MS(1_000), at_most: MS(1_002) };
        let same = Slept { at_least: MS(1_001), at_most: MS(1_003) };
        assert_eq!(same.since(before), Duration::ZERO);
        let later = Slept { at_least: MS(6_000), at_most: MS(6_001) };
        assert_eq!(later.since(before), MS(5_001));
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_of_the_runtime_is_a_moment_as_far_from_the_present() {
        let (clock, asked) = (Clock::start(), Instant::now());
        tokio::time::advance(MS(7)).await;
        let now = clock.both_now();
        assert_eq!(now.moment_of(asked), Moment::default());
        assert_eq!(now.moment_of(Instant::now()), now.moment);
        assert_eq!(now.moment_of(asked + MS(10)), Moment(MS(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn it_shows_what_the_runtime_shows_and_stands_still_with_it() {
        let clock = Clock::start();
        std::thread::sleep(MS(5));
        assert_eq!(clock.now(), Moment::default(), "the runtime's clock is paused, and the machine was not suspended");
        tokio::time::advance(MS(7)).await;
        assert_eq!(clock.now(), Moment(MS(7)));
    }
}
