//! The result of a run: its violation, and counts of its events. A clean result means little unless
//! the faults had effects.

use crate::plan::KINDS;
use std::{collections::BTreeMap, fmt, time::Duration};

/// The result of one run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Counts of the events of the run.
    pub report: Report,
    /// The violation, if there is one, as in `election safety: 1 and 2 both led term 3`: the
    /// property, a colon, the facts.
    pub violation: Option<String>,
}

/// Counts of one run, or of many together.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Report {
    /// The number of runs counted here.
    pub runs: u64,
    /// Simulated time within the runs.
    pub simulated: Duration,
    /// The number of events that happened.
    pub steps: u64,
    /// By kind of fault, how often it had an effect: a message lost, a node crashed,
    /// a byte flipped.
    pub fired: BTreeMap<&'static str, u64>,
    /// Other counts: elections won, entries committed, snapshots taken, reads checked, …
    pub counts: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Counts one effect of a kind of fault.
    pub fn fired(&mut self, kind: &'static str) {
        *self.fired.entry(kind).or_default() += 1;
    }

    /// Adds `more` to the count named `what`.
    pub fn count(&mut self, what: &'static str, more: u64) {
        *self.counts.entry(what).or_default() += more;
    }

    /// Adds the counts of another report.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.simulated += other.simulated;
        self.steps += other.steps;
        other.fired.iter().for_each(|(kind, count)| *self.fired.entry(kind).or_default() += count);
        other.counts.iter().for_each(|(what, count)| self.count(what, *count));
    }

    /// The kinds of faults that had no effect in any run.
    #[must_use]
    pub fn dead(&self) -> Vec<&'static str> {
        KINDS.into_iter().filter(|kind| self.fired.get(kind).is_none_or(|count| *count == 0)).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<&'static str, u64>| {
            counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
        };
        let hours = self.simulated.as_secs_f64() / 3600.0;
        writeln!(f, "{} runs, {hours:.2} simulated hours, {} steps", self.runs, self.steps)?;
        writeln!(f, "  {}", list(&self.counts))?;
        write!(f, "  faults: {}", list(&self.fired))
    }
}
