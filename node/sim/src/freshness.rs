//! The freshness of reads: the least index that each kind of read must see.

use crate::plan::Plan;
use quorate::{Consistency, Index};
use rand::{Rng, rngs::SmallRng};
use std::time::Duration;

/// The entries known to be committed, and since when, in the cluster's own time.
pub(crate) struct Past {
    known: Vec<(Duration, Index)>,
    /// The thousandths by which the slowest clock is slow: an interval that it shows took
    /// that much longer.
    slow_per_mille: u32,
    /// Whether clients may read by lease: no clock leaps.
    pub(crate) leases: bool,
}

/// A node reads its clock once a turn, and an answer of one turn counts in the next.
const LOOKS: Duration = Duration::from_millis(3);

impl Past {
    pub(crate) fn new(plan: &Plan) -> Self {
        let (slowest, _) = plan.drifts();
        Self {
            known: Vec::new(),
            slow_per_mille: slowest.min(0).unsigned_abs().into(),
            leases: plan.clock_drift().is_some(),
        }
    }

    /// A caller was told of the entry at `index`.
    pub(crate) fn told(&mut self, now: Duration, index: Index) {
        if self.known.last().is_none_or(|(_, last)| *last < index) {
            self.known.push((now, index));
        }
    }

    /// The least index that a read must see if it is invoked at `now`.
    pub(crate) fn floor(&self, now: Duration, consistency: Consistency) -> Index {
        match consistency {
            Consistency::Linearizable | Consistency::Lease => self.known_by(now),
            Consistency::Local | Consistency::Bounded { max_age: None, max_entries: None } => Index(0),
            Consistency::Bounded { max_age, max_entries } => {
                let age = max_age.unwrap_or_default() * 1000 / (1000 - self.slow_per_mille.min(999)) + LOOKS;
                let by_age = self.known_by(now.saturating_sub(age));
                match (max_age, max_entries) {
                    (None, Some(max)) => Index(self.known_by(now).0.saturating_sub(max)),
                    _ => by_age,
                }
            }
        }
    }

    fn known_by(&self, time: Duration) -> Index {
        let count = self.known.partition_point(|(at, _)| *at <= time);
        self.known[..count].last().map_or(Index(0), |(_, index)| *index)
    }
}

/// Random bounds for a bounded read.
pub(crate) fn bounded(random: &mut SmallRng) -> Consistency {
    let max_age = random.random_bool(0.8).then(|| Duration::from_millis(random.random_range(0..400)));
    let max_entries = (max_age.is_none() || random.random_bool(0.3)).then(|| random.random_range(0..10));
    Consistency::Bounded { max_age, max_entries }
}

#[cfg(test)]
mod tests {
    use super::Past;
    use crate::Plan;
    use quorate::{Consistency, Index};
    use std::time::Duration;

    #[test]
    fn each_kind_of_read_must_see_what_it_promises() {
        let ms = Duration::from_millis;
        let mut past = Past::new(&Plan { faults: Vec::new(), ..Plan::of(0) });
        past.told(ms(100), Index(5));
        past.told(ms(100), Index(4));
        past.told(ms(200), Index(9));
        let floor = |now, consistency| past.floor(ms(now), consistency).0;
        let bounded = |age: Option<u64>, entries| Consistency::Bounded { max_age: age.map(ms), max_entries: entries };
        assert_eq!(floor(200, Consistency::Linearizable), 9);
        assert_eq!(floor(199, Consistency::Lease), 5);
        assert_eq!(floor(900, Consistency::Local), 0);
        assert_eq!((floor(252, bounded(Some(50), None)), floor(253, bounded(Some(50), None))), (5, 9));
        assert_eq!((floor(200, bounded(None, Some(3))), floor(900, bounded(None, None))), (6, 0));
    }
}
