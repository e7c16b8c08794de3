//! The search for a smaller log that fails in the same way: steps are left out in halves, quarters
//! and so on, and one by one, all over again until nothing helps.

use std::time::{Duration, Instant};

/// The most logs that are tried, and the longest time.
const TRIES_MAX: u32 = 1_000;
const TIME_MAX: Duration = Duration::from_secs(20);

/// The end of a search.
pub(crate) struct Ended {
    pub(crate) kept: Vec<usize>,
    /// Whether all steps together failed again.
    pub(crate) recurs: bool,
}

/// Leaves steps out so long as the rest `fails`.
pub(crate) fn shrink(mut kept: Vec<usize>, fails: impl Fn(&[usize]) -> bool) -> Ended {
    let (began, mut tries) = (Instant::now(), 0);
    if !fails(&kept) {
        return Ended { kept, recurs: false };
    }
    let mut chunk = kept.len().div_ceil(2);
    while chunk > 0 {
        let (before, mut at) = (kept.len(), 0);
        while at < kept.len() {
            tries += 1;
            if tries > TRIES_MAX || began.elapsed() > TIME_MAX {
                return Ended { kept, recurs: true };
            }
            let mut fewer = kept.clone();
            fewer.drain(at..(at + chunk).min(kept.len()));
            if fails(&fewer) {
                kept = fewer;
            } else {
                at += chunk;
            }
        }
        if kept.len() == before || chunk > 1 {
            chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
        }
    }
    Ended { kept, recurs: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_steps_that_it_takes_are_left() {
        let fails = |kept: &[usize]| [3, 17, 40].iter().all(|step| kept.contains(step));
        let Ended { kept, recurs } = shrink((0..100).collect(), fails);
        assert_eq!((kept, recurs), (vec![3, 17, 40], true));
    }

    #[test]
    fn steps_that_only_go_together_are_left_out_in_a_further_round() {
        // Step 1 can be left out only once step 2 is.
        let fails = |kept: &[usize]| kept.contains(&0) && (kept.contains(&1) || !kept.contains(&2));
        assert_eq!(shrink(vec![0, 1, 2], fails).kept, [0]);
    }

    #[test]
    fn a_log_that_does_not_fail_again_is_left_as_it_is() {
        let Ended { kept, recurs } = shrink((0..9).collect(), |_| false);
        assert_eq!((kept.len(), recurs), (9, false));
    }
}
