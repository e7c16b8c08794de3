//! A limit on the rate of log lines about refused callers: a few at once, then one per interval,
//! which says how many were left out.
//!
//! **Bounded:** at most [`KEYS_MAX`] keys are remembered. Beyond, the one with the oldest line is
//! forgotten, and its lines that were left out are counted with the next line of any key.

use std::{collections::HashMap, hash::Hash, time::Duration};
use tokio::time::Instant;

/// The maximum number of keys.
const KEYS_MAX: usize = 1_000;

/// A limit for each key.
#[derive(Debug)]
pub(super) struct Throttle<K> {
    at_once: u32,
    every: Duration,
    keys: HashMap<K, Lines>,
    /// Lines that were left out, of keys that are forgotten.
    forgotten: u64,
}

#[derive(Debug)]
struct Lines {
    allowed: u32,
    /// The time up to which `allowed` was raised.
    counted_at: Instant,
    said_at: Instant,
    left_out: u64,
}

impl<K: Copy + Eq + Hash> Throttle<K> {
    /// Allows `at_once` lines of a key, and a further one per interval.
    pub(super) fn new(at_once: u32, every: Duration) -> Self {
        Self { at_once, every, keys: HashMap::new(), forgotten: 0 }
    }

    /// The number of lines that were left out since the last one, if a line may be logged.
    pub(super) fn may_say(&mut self, key: K, now: Instant) -> Option<u64> {
        if self.keys.len() >= KEYS_MAX && !self.keys.contains_key(&key) {
            let oldest = self.keys.iter().min_by_key(|(_, lines)| lines.said_at).map(|(key, _)| *key);
            let gone = oldest.and_then(|oldest| self.keys.remove(&oldest));
            self.forgotten += gone.map_or(0, |lines| lines.left_out);
        }
        let fresh = Lines { allowed: self.at_once, counted_at: now, said_at: now, left_out: 0 };
        let lines = self.keys.entry(key).or_insert(fresh);
        let intervals = now.duration_since(lines.counted_at).as_nanos() / self.every.as_nanos().max(1);
        if intervals > 0 {
            let more = u32::try_from(intervals).unwrap_or(u32::MAX);
            lines.allowed = lines.allowed.saturating_add(more).min(self.at_once);
            lines.counted_at = now;
        }
        if lines.allowed == 0 {
            lines.left_out += 1;
            return None;
        }
        lines.allowed -= 1;
        lines.said_at = now;
        Some(std::mem::take(&mut lines.left_out) + std::mem::take(&mut self.forgotten))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(1);

    #[test]
    fn a_few_lines_come_at_once_then_one_per_interval_with_the_number_of_those_left_out() {
        let (mut throttle, start) = (Throttle::new(3, EVERY), Instant::now());
        let said = |throttle: &mut Throttle<u32>, after: Duration| throttle.may_say(1, start + after);
        for _ in 0..3 {
            assert_eq!(said(&mut throttle, Duration::ZERO), Some(0));
        }
        for _ in 0..100 {
            assert_eq!(said(&mut throttle, EVERY / 2), None);
        }
        assert_eq!(throttle.may_say(2, start), Some(0), "another key has its own limit");
        assert_eq!(said(&mut throttle, EVERY), Some(100));
        assert_eq!(said(&mut throttle, EVERY), None);
        for expected in [Some(1), Some(0), Some(0), None] {
            assert_eq!(said(&mut throttle, EVERY * 100), expected);
        }
    }

    #[test]
    fn the_keys_are_bounded_and_lines_of_forgotten_ones_stay_counted() {
        let (mut throttle, start) = (Throttle::new(1, EVERY), Instant::now());
        for key in 0..KEYS_MAX {
            let now = start + Duration::from_micros(key as u64);
            assert_eq!(throttle.may_say(key, now), Some(0));
            assert_eq!(throttle.may_say(key, now), None);
        }
        assert_eq!(throttle.may_say(KEYS_MAX, start), Some(1), "the line that key 0 left out");
        assert_eq!(throttle.keys.len(), KEYS_MAX);
        assert_eq!(throttle.may_say(1, start + EVERY * 2), Some(1));
    }
}
