//! The scheduling delay of this machine, by which tests widen their time limits.

use rustix::time::{ClockId, clock_gettime};
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A thread that sleeps, works a little, and measures by how much that took longer than planned:
/// delays of its wake-up and interruptions of its work.
#[derive(Debug)]
pub struct MachineDelay {
    longest_us: Arc<AtomicU64>,
}

impl MachineDelay {
    /// The duration of one sleep.
    pub const NAP: Duration = Duration::from_millis(10);
    /// The processor time used after each sleep: 2 % of a processor.
    const WORK: Duration = Duration::from_micros(200);
    /// The delay from which a machine counts as busy: a healthy one wakes a thread
    /// within a millisecond.
    const BUSY_MIN: Duration = Duration::from_millis(20);

    /// Starts measuring, until this value is dropped.
    #[must_use]
    pub fn watch() -> Self {
        let longest_us = Arc::new(AtomicU64::new(0));
        let measured = Arc::downgrade(&longest_us);
        // Without the thread nothing is measured, and no limit is widened.
        let _ = std::thread::Builder::new().name("machine-delay".to_owned()).spawn(move || measure(&measured));
        Self { longest_us }
    }

    /// The longest delay that was measured.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_us.load(Ordering::Relaxed))
    }

    /// The longest delay, if it shows that the machine is busy.
    #[must_use]
    pub fn busy(&self) -> Option<Duration> {
        Some(self.longest()).filter(|late| *late >= Self::BUSY_MIN)
    }
}

fn measure(longest_us: &Weak<AtomicU64>) {
    while let Some(longest_us) = longest_us.upgrade() {
        let (asleep, worked) = (Instant::now(), processor_time());
        std::thread::sleep(MachineDelay::NAP);
        while processor_time().saturating_sub(worked) < MachineDelay::WORK {
            std::hint::spin_loop();
        }
        let own = MachineDelay::NAP + processor_time().saturating_sub(worked);
        let late = asleep.elapsed().saturating_sub(own);
        longest_us.fetch_max(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The processor time that this thread has used.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_is_what_passes_beside_sleep_and_work() {
        let (delay, began) = (MachineDelay::watch(), Instant::now());
        std::thread::sleep(Duration::from_millis(200));
        assert!(delay.longest() > Duration::ZERO, "no thread wakes at once");
        assert!(delay.longest() < began.elapsed());
    }
}
