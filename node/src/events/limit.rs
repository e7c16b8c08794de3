//! The limit on repeated log lines: of events of one kind and peer, the first few of a period are
//! logged and the rest are counted.
//!
//! The stream of events is not limited: its readers see every event, or are told how many they
//! lost.

use quorate_raft::NodeId;
use std::collections::BTreeMap;

/// The time for which lines of one key count together, in milliseconds.
pub(super) const PERIOD_MS: u64 = 10_000;
/// The lines of one key that are logged within a period. An election has fewer of each.
pub(super) const LINES_MAX: u32 = 5;

/// Lines that repeat one another.
pub(super) type Key = (&'static str, Option<NodeId>);

/// The lines of the last periods. It holds at most an entry for each kind and peer.
#[derive(Debug)]
pub(super) struct Limiter<T> {
    seen: BTreeMap<Key, Seen<T>>,
}

#[derive(Debug)]
struct Seen<T> {
    began_ms: u64,
    logged: u32,
    /// The last line that was not logged, and the number of such lines before it.
    held: Option<Held<T>>,
}

/// Lines that were held back, to be summed up in one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Held<T> {
    /// The last of them.
    pub(super) last: T,
    /// The number of the others.
    pub(super) more: u32,
}

impl<T> Default for Limiter<T> {
    fn default() -> Self {
        Self { seen: BTreeMap::new() }
    }
}

impl<T> Limiter<T> {
    /// Whether a line is logged now. If not, it is held back, and `line` says what it is. Call
    /// [`Limiter::overdue`] first.
    pub(super) fn admits(&mut self, key: Key, now_ms: u64, line: impl FnOnce() -> T) -> bool {
        let seen = self.seen.entry(key).or_insert(Seen { began_ms: now_ms, logged: 0, held: None });
        if seen.logged < LINES_MAX {
            seen.logged += 1;
            return true;
        }
        let more = seen.held.as_ref().map_or(0, |held| held.more.saturating_add(1));
        seen.held = Some(Held { last: line(), more });
        false
    }

    /// Ends the periods that are over, and gives what they held back.
    pub(super) fn overdue(&mut self, now_ms: u64) -> Vec<Held<T>> {
        let is_over = |_: &Key, seen: &mut Seen<T>| now_ms.saturating_sub(seen.began_ms) >= PERIOD_MS;
        self.seen.extract_if(.., is_over).filter_map(|(_, seen)| seen.held).collect()
    }

    /// Ends all periods.
    pub(super) fn all(&mut self) -> Vec<Held<T>> {
        std::mem::take(&mut self.seen).into_values().filter_map(|seen| seen.held).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = ("vote_cast", Some(NodeId(2)));

    #[test]
    fn the_first_lines_of_a_period_are_logged_and_the_rest_is_summed_up_at_its_end() {
        let mut limiter = Limiter::default();
        let admitted: Vec<_> = (1..=8).map(|line| limiter.admits(KEY, 100 + line, || line)).collect();
        assert_eq!(admitted, [true, true, true, true, true, false, false, false]);
        assert_eq!(limiter.overdue(100 + PERIOD_MS), [], "the period began with the first line, at 101");
        assert_eq!(limiter.overdue(101 + PERIOD_MS), [Held { last: 8, more: 2 }]);
        assert!(limiter.admits(KEY, 101 + PERIOD_MS, || 9), "another period");
    }

    #[test]
    fn other_kinds_and_peers_have_periods_of_their_own() {
        let mut limiter = Limiter::default();
        for key in [KEY, ("vote_cast", Some(NodeId(3))), ("vote_cast", None), ("link_up", Some(NodeId(2)))] {
            assert_eq!((1..=9).filter(|line| limiter.admits(key, 5, || *line)).count(), LINES_MAX as usize);
        }
        assert_eq!(limiter.all().len(), 4);
        assert_eq!(limiter.all(), []);
    }

    #[test]
    fn a_period_without_held_lines_leaves_nothing() {
        let mut limiter = Limiter::default();
        limiter.admits(KEY, 0, || 1);
        assert_eq!(limiter.overdue(PERIOD_MS), []);
        assert!(limiter.seen.is_empty());
    }
}
