//! When the requests that have arrived are taken as one batch.
//!
//! Each batch has a cost of its own on all nodes and between them. Callers that are answered together ask
//! again together, one after the other: without a wait, the first of them alone would make a batch.

use std::time::Duration;

/// With so many requests, more of them would save little.
const ENOUGH: usize = 256;
/// The most turns of the node's thread for which requests wait. In a turn the thread does what else is ready.
const TURNS_MAX: u32 = 16;
/// The time after which no further turn is waited for: others may share the thread, and their turns last.
const TIME_MAX: Duration = Duration::from_micros(500);

/// Whether `waiting` requests, which have waited for `turns` turns and this time, wait for another turn.
///
/// Of the callers, `inside` are inside the node. A caller that is alone waits for none, and so do callers
/// of whom all have asked. Readers that join one group make one request, which waits as if they had not asked.
pub(crate) fn waits_for_more(waiting: usize, inside: usize, turns: u32, waited: Duration) -> bool {
    (1..ENOUGH).contains(&waiting) && waiting < inside && turns < TURNS_MAX && waited < TIME_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(waiting: usize, inside: usize, turns: u32) -> bool {
        waits_for_more(waiting, inside, turns, Duration::ZERO)
    }

    #[test]
    fn callers_that_have_all_asked_wait_for_none() {
        assert!(!waits(0, 0, 0));
        assert!(!waits(0, 5, 0), "nothing waits");
        assert!(!waits(1, 1, 0));
        assert!(!waits(7, 7, 3));
        assert!(!waits(1, 0, 0), "requests of operators are not counted as inside");
    }

    #[test]
    fn a_request_waits_while_others_are_inside_for_a_bounded_number_of_turns() {
        assert!(waits(1, 2, 0));
        assert_eq!((0..).take_while(|turns| waits(1, 2, *turns)).count(), TURNS_MAX as usize);
        assert!(!waits(1, 2, u32::MAX));
    }

    #[test]
    fn a_large_batch_does_not_wait() {
        assert!(waits(ENOUGH - 1, 10 * ENOUGH, 0));
        assert!(!waits(ENOUGH, 10 * ENOUGH, 0));
    }

    #[test]
    fn turns_that_last_are_not_waited_for() {
        let after = |waited| waits_for_more(1, 2, 1, waited);
        assert!(after(TIME_MAX - Duration::from_nanos(1)));
        assert!(!after(TIME_MAX));
    }
}
