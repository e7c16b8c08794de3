//! Freshness: proofs of the age of this node's state, for bounded reads.
//!
//! Only an answer to a question is a proof, and it dates from the question: a leader that confirmed
//! its leadership after it was asked names an index that covers everything committed by then. A
//! node that has applied that index misses nothing that was committed when it asked. A heartbeat
//! that arrives proves nothing: it may be old.
//!
//! **Invariant:** ages count from the question, by this node's clock. Every linearizable or bounded
//! read of this node that is answered renews the proof, so a bounded read asks only if no read
//! asked within its bound.

use crate::error::ReadError;
use quorate_raft::{Index, Moment};
use std::{collections::VecDeque, time::Duration};

/// The staleness that a read allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    pub max_age: Option<Duration>,
    pub max_entries: Option<u64>,
}

/// The permission to serve a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    /// The read may run when this index is applied.
    pub index: Index,
    /// The further condition of a bounded read.
    pub bounded: Option<Bounded>,
}

/// The proofs of a bounded read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounded {
    /// The read may be served until then.
    until: Option<Moment>,
    newest: Proof,
}

/// Everything that was committed at `asked` is covered by `index`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Proof {
    asked: Moment,
    index: Index,
}

/// The latest proofs, oldest first. The newest is always kept; the others lie apart, so that a node
/// that applies late finds one that it has reached.
#[derive(Default, Debug)]
pub struct Freshness {
    proofs: VecDeque<Proof>,
}

const PROOFS_MAX: usize = 16;
const PROOFS_APART: Duration = Duration::from_millis(20);

impl Freshness {
    /// The answer to a question of the moment `asked` is `index`.
    pub fn proven(&mut self, asked: Moment, index: Index) {
        let mut newest = self.proofs.iter().rev();
        let (last, before) = (newest.next().copied(), newest.next().copied());
        if last.is_some_and(|last| last.asked > asked) {
            return; // overtaken
        }
        if let (Some(last), Some(before)) = (last, before)
            && last.asked.since(before.asked) < PROOFS_APART
        {
            self.proofs.pop_back();
        }
        self.proofs.push_back(Proof { asked, index });
        if self.proofs.len() > PROOFS_MAX {
            self.proofs.pop_front();
        }
    }

    /// The index at which a bounded read that was called for at `called` can be served from the
    /// proofs there are; `None` if none suffices.
    pub fn grant(&self, bounds: Bounds, called: Moment, now: Moment, applied: Index) -> Option<Granted> {
        let newest = *self.proofs.back()?;
        let behind = |entries: u64| Index(newest.index.0.saturating_sub(entries));
        let (index, until) = match bounds {
            Bounds { max_age: Some(max_age), max_entries } => {
                let mut young = self.proofs.iter().rev().filter(|proof| now.since(proof.asked) <= max_age);
                // If none is applied, the newest will be, and holds for longest.
                let proof = young.clone().find(|proof| proof.index <= applied).or_else(|| young.next())?;
                (proof.index.max(max_entries.map_or(Index(0), behind)), Some(proof.asked.plus(max_age)))
            }
            Bounds { max_age: None, max_entries: Some(max) } if newest.asked >= called => (behind(max), None),
            Bounds { max_age: None, max_entries: Some(_) } => return None,
            Bounds { max_age: None, max_entries: None } => (Index(0), None),
        };
        Some(Granted { index, bounded: Some(Bounded { until, newest }) })
    }

    /// The refusal of a read that no proof allows.
    pub fn too_stale(&self, now: Moment, applied: Index) -> ReadError {
        let newest = self.proofs.back();
        newest.map_or(ReadError::TooStale { age: None, entries: None }, |proof| proof.too_stale(now, applied))
    }
}

impl Bounded {
    /// Whether the read may still be served.
    pub fn holds(&self, now: Moment) -> bool {
        self.until.is_none_or(|until| now <= until)
    }

    /// The refusal of a read that may not.
    pub fn too_stale(&self, now: Moment, applied: Index) -> ReadError {
        self.newest.too_stale(now, applied)
    }
}

impl Proof {
    fn too_stale(self, now: Moment, applied: Index) -> ReadError {
        ReadError::TooStale { age: Some(now.since(self.asked)), entries: Some(self.index.since(applied)) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Freshness};
    use crate::error::ReadError;
    use quorate_raft::{Index, Moment};
    use std::time::Duration;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const AT: fn(u64) -> Moment = |ms| Moment(MS(ms));

    #[test]
    fn an_age_counts_from_the_question() {
        let mut freshness = Freshness::default();
        freshness.proven(AT(100), Index(7));
        let bounds = Bounds { max_age: Some(MS(50)), max_entries: None };
        let grant = |now| freshness.grant(bounds, AT(now), AT(now), Index(7));
        assert!(grant(150).is_some_and(|granted| granted.index == Index(7)));
        assert_eq!(grant(151), None);
        let stale = ReadError::TooStale { age: Some(MS(91)), entries: Some(3) };
        assert_eq!(freshness.too_stale(AT(191), Index(4)), stale);
        assert_eq!(Freshness::default().too_stale(AT(1), Index(4)), ReadError::TooStale { age: None, entries: None });
    }

    #[test]
    fn a_granted_read_that_waits_too_long_for_what_it_must_see_holds_no_more() {
        let mut freshness = Freshness::default();
        freshness.proven(AT(100), Index(7));
        let bounds = Bounds { max_age: Some(MS(50)), max_entries: None };
        let granted = freshness.grant(bounds, AT(120), AT(120), Index(5)).and_then(|granted| granted.bounded);
        let granted = granted.expect("proven 20 ms ago");
        assert!(granted.holds(AT(150)) && !granted.holds(AT(151)));
    }

    #[test]
    fn entries_count_against_an_answer_to_a_question_of_this_read() {
        let mut freshness = Freshness::default();
        let bounds = Bounds { max_age: None, max_entries: Some(3) };
        assert_eq!(freshness.grant(bounds, AT(0), AT(0), Index(0)), None);
        freshness.proven(AT(100), Index(7));
        let index = |called| freshness.grant(bounds, AT(called), AT(120), Index(0)).map(|granted| granted.index);
        assert_eq!((index(100), index(101)), (Some(Index(4)), None));
    }

    #[test]
    fn with_both_bounds_both_hold() {
        let mut freshness = Freshness::default();
        freshness.proven(AT(100), Index(10));
        freshness.proven(AT(130), Index(30));
        let index = |max_entries, now| {
            let bounds = Bounds { max_age: Some(MS(50)), max_entries };
            freshness.grant(bounds, AT(now), AT(now), Index(12)).map(|granted| granted.index)
        };
        assert_eq!(index(None, 150), Some(Index(10)), "an older proof that is reached will do");
        assert_eq!(index(Some(5), 150), Some(Index(25)), "but not if it is known to be too far behind");
        assert_eq!(index(None, 151), Some(Index(30)), "and not when it is too old");
    }

    #[test]
    fn the_proofs_are_bounded_and_the_newest_is_among_them() {
        let mut freshness = Freshness::default();
        for at in 0..2_000 {
            freshness.proven(AT(at), Index(at));
            let newest = freshness.proofs.back().expect("one").index;
            assert_eq!(newest, Index(at));
        }
        assert!(freshness.proofs.len() <= super::PROOFS_MAX);
        let oldest = freshness.proofs.front().expect("one").index;
        assert!(oldest.0 < 1_800, "they reach back, to {oldest}");
        freshness.proven(AT(1_000), Index(9_999));
        assert_eq!(freshness.proofs.back().expect("one").index, Index(1_999), "an overtaken answer changes nothing");
    }
}
