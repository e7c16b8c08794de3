//! The times at which the faults of a plan begin and end.

use crate::plan::{Fault, Plan, Power};
use std::time::Duration;

/// The times at which the faults of a plan begin and end.
pub(super) struct Agenda {
    /// In order of time; the last field is the position of the fault in the plan.
    pub(super) turns: Vec<(Duration, Turn, usize)>,
    pub(super) next: usize,
    pub(super) active: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Begin,
    /// A flapping link is cut or restored.
    Flap,
    End,
}

impl Agenda {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut turns = Vec::new();
        for (fault, planned) in plan.faults.iter().enumerate() {
            let ends = planned.at + planned.lasts;
            turns.push((planned.at, Turn::Begin, fault));
            if let Fault::Flap { every, .. } = planned.fault {
                // At least a millisecond, the interval of ticks.
                let every = every.max(Duration::from_millis(1));
                let flaps = (1..).map(|n| planned.at + every * n).take_while(|at| *at < ends);
                turns.extend(flaps.map(|at| (at, Turn::Flap, fault)));
            }
            turns.push((ends, Turn::End, fault));
        }
        turns.sort_by_key(|(at, ..)| *at);
        Self { turns, next: 0, active: Vec::new() }
    }

    /// The time of the next turn, or `Duration::MAX`.
    pub(super) fn next_at(&self) -> Duration {
        self.turns.get(self.next).map_or(Duration::MAX, |(at, ..)| *at)
    }

    /// Ends all faults; none begins any more.
    pub(super) fn finish(&mut self) {
        self.next = self.turns.len();
        self.active.clear();
    }
}

/// The fate of unsynced writes with a fault that stops a node; none for other faults.
pub(super) fn power_of(fault: &Fault) -> Option<Power> {
    match fault {
        Fault::Crash { power, .. }
        | Fault::CrashAtEffect { power, .. }
        | Fault::CrashAll { power }
        | Fault::SyncFailure { power, .. } => Some(*power),
        _ => None,
    }
}
