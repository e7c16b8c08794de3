//! The search for a smaller plan that fails in the same way: only the parts that cause
//! the failure remain.
//!
//! Faults are left out in halves, quarters and so on down to single ones (delta debugging, Zeller
//! and Hildebrandt, 2002); then the rest is reduced: faults closer together, a shorter plan,
//! fewer nodes, clients and keys, no snapshots, shorter faults. All of it is tried again until
//! nothing helps. A smaller plan is taken if it fails *with the same property*: another property
//! means another bug.

use crate::{
    plan::{Plan, Planned},
    runs::property,
    saved::nodes_of,
};
use std::time::Duration;

/// No plan is made shorter than this: its faults would end before the first election.
const LENGTH_MIN: Duration = Duration::from_millis(50);
/// A change of time smaller than this is not worth a run.
const STEP_MIN: Duration = Duration::from_millis(2);

/// The result of shortening a plan.
#[derive(Clone, PartialEq, Debug)]
pub struct Shrunk {
    /// The smallest plan that failed.
    pub plan: Plan,
    /// The violation of that plan.
    pub violation: String,
    /// The number of plans that were tried.
    pub runs: usize,
    /// Whether nothing smaller is left to try; if false, the runs were used up.
    pub minimal: bool,
}

/// Shortens a plan; `fails` runs a plan and returns its violation. It is called `runs_max`
/// times at most.
///
/// With a violation that comes and goes, the result is the smallest plan that was seen to fail.
#[must_use]
pub fn shrink(plan: &Plan, violation: &str, runs_max: usize, fails: impl FnMut(&Plan) -> Option<String>) -> Shrunk {
    let best = Shrunk { plan: plan.clone(), violation: violation.to_owned(), runs: 0, minimal: false };
    let mut search = Search { best, runs_max, fails };
    loop {
        let before = search.best.plan.clone();
        search.fewer_faults();
        search.attempt(|plan| plan.witness = None);
        search.fewer_nodes();
        search.earlier();
        search.shorter();
        search.smaller(|plan| &mut plan.clients, 1);
        search.smaller(|plan| &mut plan.keys, 1);
        search.smaller(|plan| &mut plan.keep_entries, 0);
        search.attempt(|plan| plan.snapshot_every = 0);
        search.briefer_faults();
        if search.is_over() {
            return search.best;
        }
        if search.best.plan == before {
            return Shrunk { minimal: true, ..search.best };
        }
    }
}

/// Whether two violations show the same bug, judged by their words: the same property, and panics
/// from the same place.
#[must_use]
pub fn alike(one: &str, other: &str) -> bool {
    let place = |violation: &str| match violation.rsplit_once(", at ") {
        Some((_, place)) if property(violation) == "panic" => place.to_owned(),
        _ => String::new(),
    };
    property(one) == property(other) && place(one) == place(other)
}

struct Search<F> {
    best: Shrunk,
    runs_max: usize,
    fails: F,
}

impl<F: FnMut(&Plan) -> Option<String>> Search<F> {
    /// Whether the changed plan fails, too: then it replaces the best one.
    fn attempt(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.best.plan.clone();
        change(&mut plan);
        if plan == self.best.plan || self.is_over() {
            return false;
        }
        self.best.runs += 1;
        match (self.fails)(&plan) {
            Some(violation) if alike(&violation, &self.best.violation) => {
                self.best = Shrunk { plan, violation, ..self.best };
                true
            }
            _ => false,
        }
    }

    fn is_over(&self) -> bool {
        self.best.runs >= self.runs_max
    }

    fn fewer_faults(&mut self) {
        let mut size = self.best.plan.faults.len();
        while size > 0 && !self.is_over() {
            let mut from = 0;
            while from < self.best.plan.faults.len() {
                let to = (from + size).min(self.best.plan.faults.len());
                // If they are left out, the next ones move up.
                if !self.attempt(|plan| drop(plan.faults.drain(from..to))) {
                    from = to;
                }
            }
            size /= 2;
        }
    }

    fn fewer_nodes(&mut self) {
        for nodes in [1, 3, 5] {
            let faults = &self.best.plan.faults;
            let named = faults.iter().flat_map(|planned| nodes_of(&planned.fault)).chain(self.best.plan.witness);
            let named = named.map(|node| node.0).max();
            let fits = nodes < self.best.plan.nodes && named.is_none_or(|named| named <= nodes);
            if fits && self.attempt(|plan| plan.nodes = nodes) {
                return;
            }
        }
    }

    /// Moves each fault, and all later ones, closer to the one before: at once, or after half
    /// of the time.
    fn earlier(&mut self) {
        for nth in 0..self.best.plan.faults.len() {
            let sooner = |plan: &mut Plan, share: f64| {
                let before = nth.checked_sub(1).map_or(Duration::ZERO, |before| plan.faults[before].at);
                let gap = plan.faults[nth].at.saturating_sub(before);
                let by = if gap > STEP_MIN { gap.mul_f64(share) } else { Duration::ZERO };
                plan.faults[nth..].iter_mut().for_each(|planned| planned.at -= by);
            };
            if !self.attempt(|plan| sooner(plan, 1.0)) {
                while self.attempt(|plan| sooner(plan, 0.5)) {}
            }
        }
    }

    fn shorter(&mut self) {
        // First all time after the last fault, then ever smaller parts of the rest.
        let end = self.best.plan.faults.iter().map(|planned| planned.at + planned.lasts).max().unwrap_or_default();
        self.attempt(|plan| cut(plan, end.clamp(LENGTH_MIN, plan.length.max(LENGTH_MIN))));
        for share in [0.25, 0.5, 0.75, 0.9] {
            let cut_to = |plan: &mut Plan| cut(plan, plan.length.mul_f64(share).max(LENGTH_MIN.min(plan.length)));
            while self.attempt(cut_to) {}
        }
    }

    /// Reduces one number, to no less than `min`.
    fn smaller(&mut self, number: impl Fn(&mut Plan) -> &mut u64, min: u64) {
        if self.attempt(|plan| *number(plan) = min) {
            return;
        }
        while self.attempt(|plan| *number(plan) = (*number(plan) / 2).max(min)) {}
        while self.attempt(|plan| *number(plan) = number(plan).saturating_sub(1).max(min)) {}
    }

    fn briefer_faults(&mut self) {
        for nth in 0..self.best.plan.faults.len() {
            if self.attempt(|plan| plan.faults[nth].lasts = Duration::ZERO) {
                continue;
            }
            for share in [0.5, 0.75] {
                let briefer = |plan: &mut Plan| {
                    let lasts = &mut plan.faults[nth].lasts;
                    if *lasts > STEP_MIN {
                        *lasts = lasts.mul_f64(share);
                    }
                };
                while self.attempt(briefer) {}
            }
        }
    }
}

/// Ends the faults of a plan at a time; faults that would begin later are removed.
fn cut(plan: &mut Plan, length: Duration) {
    plan.length = length;
    plan.faults.retain(|planned| planned.at < length);
    for Planned { at, lasts, .. } in &mut plan.faults {
        *lasts = (*lasts).min(length - *at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Fault;
    use quorate_raft::NodeId;

    #[test]
    fn only_the_faults_that_it_takes_are_left() {
        let found = failing(breaks);
        assert!(found.minimal, "{found:?}");
        let kinds: Vec<_> = found.plan.faults.iter().map(|planned| planned.fault.kind()).collect();
        assert_eq!(kinds, ["crash", "partition"]);
        assert!(found.plan.faults.iter().all(|planned| planned.lasts.is_zero()), "{}", found.plan);
        assert_eq!((found.plan.nodes, found.plan.clients, found.plan.keys), (3, 2, 1));
        assert_eq!((found.plan.snapshot_every, found.plan.keep_entries), (0, 0));
        assert!(found.plan.length < Duration::from_secs(1), "{}", found.plan);
        crate::saved::check(&found.plan).expect("a plan that can be saved");
    }

    #[test]
    fn no_more_plans_are_tried_than_allowed() {
        let mut asked = 0;
        let found = shrink(&broken(), "safety: lost", 17, |plan| {
            asked += 1;
            breaks(plan)
        });
        assert_eq!((found.runs, asked, found.minimal), (17, 17, false));
        assert!(breaks(&found.plan).is_some(), "what is left fails");
    }

    #[test]
    fn another_property_is_another_bug() {
        // Without the faults of the other kind the failure is one of liveness, so they stay.
        let found = failing(|plan| {
            let pause = plan.faults.iter().any(|planned| planned.fault.kind() == "pause");
            breaks(plan).map(|safety| if pause { safety } else { "liveness: nothing commits".into() })
        });
        let mut kinds: Vec<_> = found.plan.faults.iter().map(|planned| planned.fault.kind()).collect();
        kinds.sort_unstable();
        assert_eq!((kinds, property(&found.violation)), (vec!["crash", "partition", "pause"], "safety"));
    }

    #[test]
    fn panics_are_alike_if_they_are_from_one_place() {
        assert!(alike("panic: index 3, at a.rs:1:2", "panic: index 4, at a.rs:1:2"));
        assert!(!alike("panic: index 3, at a.rs:1:2", "panic: index 3, at b.rs:1:2"));
        assert!(alike("safety: 1, at 2", "safety: 3, at 4"));
        assert!(!alike("safety: 1", "liveness: 1"));
    }

    fn failing(breaks: impl Fn(&Plan) -> Option<String>) -> Shrunk {
        let plan = broken();
        let violation = breaks(&plan).expect("fails at first");
        shrink(&plan, &violation, 5_000, |plan| {
            crate::saved::check(plan).expect("only plans that can be carried out are tried");
            breaks(plan)
        })
    }

    /// A stand-in for a layer: a crash of node 3 and a later partition, with two clients, break a
    /// cluster of three or more.
    fn breaks(plan: &Plan) -> Option<String> {
        let crash =
            plan.faults.iter().position(|planned| matches!(planned.fault, Fault::Crash { node: NodeId(3), .. }))?;
        let apart = Fault::Partition { some: vec![NodeId(1)] };
        let partition = plan.faults.iter().rposition(|planned| planned.fault == apart)?;
        (crash < partition && plan.clients >= 2 && plan.nodes >= 3)
            .then(|| format!("safety: lost with {} faults", plan.faults.len()))
    }

    /// A drawn plan with many faults, and its violation.
    fn broken() -> Plan {
        let mut plan = (0..).map(Plan::of).find(|plan| plan.nodes == 5 && plan.faults.len() > 40 && plan.clients > 2);
        let plan = plan.as_mut().expect("drawn soon");
        let third = plan.length / 3;
        let power = crate::plan::Power::Lost;
        for (at, fault) in [
            (third, Fault::Crash { node: NodeId(3), power }),
            (third / 2, Fault::Pause { node: NodeId(1) }),
            (third * 2, Fault::Partition { some: vec![NodeId(1)] }),
        ] {
            plan.faults.push(Planned { at, lasts: third, fault });
        }
        plan.faults.sort_by_key(|planned| planned.at);
        plan.clone()
    }
}
