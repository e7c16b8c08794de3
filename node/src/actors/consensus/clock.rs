//! The node's clock: monotonic, and counting the time for which the machine was suspended. Rules see moments since the node started,
//! never a wall clock.

use quorate_raft::Moment;
#[cfg(target_os = "linux")]
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tokio::time::Instant;

/// Gives moments. Tokio's clock, so that tests can pause it; that one stands still while the machine is suspended, so what was slept
/// is added: a leader that wakes must find its lease over.
///
/// Where the kernel does not tell (other systems than Linux, a virtual machine that its host froze), suspended time does not count, and
/// leases must not be asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    slept_before: Slept,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), slept_before: Slept::now() }
    }

    pub(crate) fn now(self) -> Moment {
        Moment(self.started.elapsed() + self.slept_before.until_now())
    }
}

#[cfg(target_os = "linux")]
fn look(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    // The kernel's seconds and nanoseconds since boot are never negative.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// For how long the machine was suspended since it booted: at least, and at most. Two clocks can't be looked at at once.
#[derive(Clone, Copy, Default, Debug)]
struct Slept {
    at_least: Duration,
    at_most: Duration,
}

impl Slept {
    /// No machine is suspended and back in less.
    #[cfg(target_os = "linux")]
    const SHORTEST: Duration = Duration::from_micros(100);

    /// None at all unless there was some for sure, so that what is no more than the time between two looks never counts; and then as
    /// much as it may have been.
    fn since(self, before: Self) -> Duration {
        if self.at_least <= before.at_most { Duration::ZERO } else { self.at_most.saturating_sub(before.at_least) }
    }

    /// What was slept since. The careful look costs four times as much, and is taken only where a quick one shows more than it
    /// showed then by [`Self::SHORTEST`].
    #[cfg(target_os = "linux")]
    fn until_now(self) -> Duration {
        let monotonic = look(ClockId::Monotonic);
        let at_most = look(ClockId::Boottime).saturating_sub(monotonic);
        if at_most <= self.at_most + Self::SHORTEST { Duration::ZERO } else { Self::now().since(self) }
    }

    #[cfg(target_os = "linux")]
    fn now() -> Self {
        /// Who is interrupted between two looks looks again, but not for ever.
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
    use super::{Clock, Slept};
    use quorate_raft::Moment;
    use std::time::Duration;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn what_was_slept_for_sure_counts_in_full_and_what_may_be_the_time_between_two_looks_does_not() {
        let before = Slept { at_least: MS(1_000), at_most: MS(1_002) };
        let same = Slept { at_least: MS(1_001), at_most: MS(1_003) };
        assert_eq!(same.since(before), Duration::ZERO);
        let later = Slept { at_least: MS(6_000), at_most: MS(6_001) };
        assert_eq!(later.since(before), MS(5_001));
    }

    #[tokio::test(start_paused = true)]
    async fn it_shows_what_the_runtime_shows_and_stands_still_with_it() {
        let clock = Clock::start();
        std::thread::sleep(MS(5));
        assert_eq!(clock.now(), Moment::default(), "the runtime's clock is paused, and nobody suspended this machine");
        tokio::time::advance(MS(7)).await;
        assert_eq!(clock.now(), Moment(MS(7)));
    }
}
