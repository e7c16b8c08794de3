//! What this node can prove about how far behind it may be.
//!
//! Only an answer proves anything, and of the moment at which it was asked for: a leader that confirmed, after it was asked, that it
//! leads, named an index that covers everything committed by then. So who has applied that index misses nothing that was
//! committed when this node asked. How long the answer took, or a heartbeat that arrives, says nothing: both may be old.
//!
//! **Invariant:** ages count from the question, by this node's clock. Every linearizable or bounded read of this node that is
//! answered renews the proof, so bounded reads cost a question only when nobody asked anything for as long as they allow.

use crate::error::ReadError;
use quorate_raft::{
    Index, Moment,
    mutants::{Mutant, live},
};
use std::{collections::VecDeque, time::Duration};

/// How far behind a read may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_entries: Option<u64>,
}

/// What a read may be served at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Granted {
    /// As soon as this is applied.
    pub(crate) index: Index,
    /// What else must hold then, of a bounded read.
    pub(crate) bounded: Option<Bounded>,
}

/// What a bounded read rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounded {
    /// Until when it may be served.
    until: Option<Moment>,
    newest: Proof,
}

/// Everything that was committed at `asked` is covered by `index`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Proof {
    asked: Moment,
    index: Index,
}

/// What was proven lately, oldest first. The newest is always there; of those before it so many, so far apart, that a node that
/// applies late finds one that it has reached.
#[derive(Default, Debug)]
pub(super) struct Freshness {
    proofs: VecDeque<Proof>,
}

const PROOFS_MAX: usize = 16;
const PROOFS_APART: Duration = Duration::from_millis(20);

impl Freshness {
    /// An index was asked for at `asked`, and `index` is the answer, which arrives `now`.
    pub(super) fn proven(&mut self, asked: Moment, index: Index, now: Moment) {
        let asked = if live(Mutant::BoundedFromAnswer) { now } else { asked };
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

    /// At what a read within these bounds, called for at `called`, may be served by what is proven, on a node that has applied so
    /// much; `None` if nothing proves enough.
    pub(super) fn grant(&self, bounds: Bounds, called: Moment, now: Moment, applied: Index) -> Option<Granted> {
        let newest = *self.proofs.back()?;
        let behind = |entries: u64| Index(newest.index.0.saturating_sub(entries));
        let (index, until) = match bounds {
            Bounds { max_age: Some(max_age), max_entries } => {
                let mut young = self.proofs.iter().rev().filter(|proof| now.since(proof.asked) <= max_age);
                // If none is reached, the newest will be, and holds for longest.
                let proof = young.clone().find(|proof| proof.index <= applied).or_else(|| young.next())?;
                (proof.index.max(max_entries.map_or(Index(0), behind)), Some(proof.asked.plus(max_age)))
            }
            Bounds { max_age: None, max_entries: Some(max) } if newest.asked >= called => (behind(max), None),
            Bounds { max_age: None, max_entries: Some(_) } => return None,
            Bounds { max_age: None, max_entries: None } => (Index(0), None),
        };
        Some(Granted { index, bounded: Some(Bounded { until, newest }) })
    }

    /// The refusal of a read that nothing proven allows, on a node that has applied so much.
    pub(super) fn too_stale(&self, now: Moment, applied: Index) -> ReadError {
        let newest = self.proofs.back();
        newest.map_or(ReadError::TooStale { age: None, entries: None }, |proof| proof.too_stale(now, applied))
    }
}

impl Bounded {
    /// Whether it may still be served.
    pub(crate) fn holds(&self, now: Moment) -> bool {
        self.until.is_none_or(|until| now <= until)
    }

    /// The refusal, if it may not.
    pub(crate) fn too_stale(&self, now: Moment, applied: Index) -> ReadError {
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
    fn an_age_counts_from_the_question_and_not_from_the_answer() {
        let mut freshness = Freshness::default();
        freshness.proven(AT(100), Index(7), AT(190));
        let bounds = Bounds { max_age: Some(MS(50)), max_entries: None };
        let grant = |now| freshness.grant(bounds, AT(now), AT(now), Index(7));
        assert!(grant(150).is_some_and(|granted| granted.index == Index(7)));
        assert_eq!(grant(151), None, "though the answer came later than that");
        let stale = ReadError::TooStale { age: Some(MS(91)), entries: Some(3) };
        assert_eq!(freshness.too_stale(AT(191), Index(4)), stale);
        assert_eq!(Freshness::default().too_stale(AT(1), Index(4)), ReadError::TooStale { age: None, entries: None });
    }

    #[test]
    fn a_granted_read_that_waits_too_long_for_what_it_must_see_holds_no_more() {
        let mut freshness = Freshness::default();
        freshness.proven(AT(100), Index(7), AT(110));
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
        freshness.proven(AT(100), Index(7), AT(110));
        let index = |called| freshness.grant(bounds, AT(called), AT(120), Index(0)).map(|granted| granted.index);
        assert_eq!((index(100), index(101)), (Some(Index(4)), None));
    }

    #[test]
    fn with_both_bounds_both_hold() {
        let mut freshness = Freshness::default();
        freshness.proven(AT(100), Index(10), AT(101));
        freshness.proven(AT(130), Index(30), AT(131));
        let index = |max_entries, now| {
            let bounds = Bounds { max_age: Some(MS(50)), max_entries };
            freshness.grant(bounds, AT(now), AT(now), Index(12)).map(|granted| granted.index)
        };
        assert_eq!(index(None, 150), Some(Index(10)), "an older proof that is reached will do");
        assert_eq!(index(Some(5), 150), Some(Index(25)), "but not if it is known to be too far behind");
        assert_eq!(index(None, 151), Some(Index(30)), "and not when it is too old");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_is_among_it() {
        let mut freshness = Freshness::default();
        for at in 0..2_000 {
            freshness.proven(AT(at), Index(at), AT(at));
            let newest = freshness.proofs.back().expect("one").index;
            assert_eq!(newest, Index(at));
        }
        assert!(freshness.proofs.len() <= super::PROOFS_MAX);
        let oldest = freshness.proofs.front().expect("one").index;
        assert!(oldest.0 < 1_800, "they reach back, to {oldest}");
        freshness.proven(AT(1_000), Index(9_999), AT(3_000));
        assert_eq!(freshness.proofs.back().expect("one").index, Index(1_999), "an overtaken answer changes nothing");
    }
}
