//! Totals of many runs, the seeds that failed, and the speed of the simulation.

use super::cage::Run;
use crate::{Layer, Report};
use std::{fmt, num::NonZeroUsize, time::Duration};

/// Totals of the runs on one layer.
#[derive(Clone, Default, Debug)]
pub struct Figures {
    /// The counts of all runs, added up.
    pub report: Report,
    /// Their time, added up, each on one thread. Second runs are left out, here and in the report.
    pub busy: Duration,
    /// The number of runs that were repeated for comparison.
    pub repeated: u64,
}

/// The result of a whole command, on all its layers.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The totals of each layer.
    pub figures: Vec<(Layer, Figures)>,
    /// The seeds that failed, in order, at most the number that was asked for.
    pub failures: Vec<Failure>,
    /// Wall time from the first run to the last.
    pub wall: Duration,
    /// The number of worker threads.
    pub jobs: NonZeroUsize,
}

/// A seed that failed, on one layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The seed of the plan.
    pub seed: u64,
    /// The layer that ran it.
    pub layer: Layer,
    /// The property that did not hold, a colon, and the details.
    pub violation: String,
}

/// The name of a layer on the command line and in reports.
#[must_use]
pub const fn name(layer: Layer) -> &'static str {
    match layer {
        Layer::Pure => "pure",
        Layer::Actors => "actors",
    }
}

/// The property that a violation is about: the text before its first colon.
#[must_use]
pub fn property(violation: &str) -> &str {
    violation.split_once(": ").map_or(violation, |(property, _)| property)
}

impl Figures {
    pub(super) fn took(&mut self, run: &Run) {
        // The report of a layer that ended early may lack the count of its run.
        self.report.add(&Report { runs: 1, ..run.outcome.report.clone() });
        self.busy += run.took;
    }

    /// Simulated hours an hour, runs a minute and steps a second, if the runs took `time`.
    #[must_use]
    pub fn speed(&self, time: Duration) -> Speed {
        let a_second = |count: f64| count / time.as_secs_f64().max(f64::MIN_POSITIVE);
        Speed {
            simulated_hours_an_hour: a_second(self.report.simulated.as_secs_f64()),
            runs_a_minute: a_second(self.report.runs as f64) * 60.0,
            steps_a_second: a_second(self.report.steps as f64),
        }
    }
}

/// The speed of runs, simulated and real.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Speed {
    /// Simulated time for each hour of real time.
    pub simulated_hours_an_hour: f64,
    /// Seeds, each on one layer, a minute.
    pub runs_a_minute: f64,
    /// Steps a second of real time.
    pub steps_a_second: f64,
}

impl Summary {
    /// The totals of all layers, added up.
    #[must_use]
    pub fn together(&self) -> Figures {
        self.figures.iter().fold(Figures::default(), |mut all, (_, figures)| {
            all.report.add(&figures.report);
            all.busy += figures.busy;
            all.repeated += figures.repeated;
            all
        })
    }

    /// The summary as JSON, for programs.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::json;
        let of = |figures: &Figures| {
            let Report { runs, simulated, steps, fired, counts } = &figures.report;
            let per_thread = figures.speed(figures.busy);
            json!({
                "runs": runs, "repeated": figures.repeated, "simulated_s": simulated.as_secs_f64(), "steps": steps,
                "busy_s": figures.busy.as_secs_f64(), "faults": fired, "dead": figures.report.dead(), "counts": counts,
                "per_thread": per_thread.to_json(),
            })
        };
        let together = self.together();
        let layers: serde_json::Map<_, _> =
            self.figures.iter().map(|(layer, figures)| (name(*layer).to_owned(), of(figures))).collect();
        let failures: Vec<_> = self.failures.iter().map(Failure::to_json).collect();
        json!({
            "wall_s": self.wall.as_secs_f64(), "threads": self.jobs, "layers": layers, "together": of(&together),
            "in_all": together.speed(self.wall).to_json(), "failures": failures,
        })
    }
}

impl Speed {
    fn to_json(self) -> serde_json::Value {
        serde_json::json!({
            "simulated_hours_per_hour": self.simulated_hours_an_hour,
            "runs_per_minute": self.runs_a_minute,
            "steps_per_s": self.steps_a_second,
        })
    }
}

impl Failure {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "seed": self.seed, "layer": name(self.layer), "violation": self.violation })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |f: &mut fmt::Formatter<'_>, what: &str, figures: &Figures| {
            writeln!(f, "{what}: {}", figures.report)?;
            if figures.repeated > 0 {
                writeln!(f, "  {} of them ran twice", figures.repeated)?;
            }
            let silent = figures.report.dead();
            if !silent.is_empty() {
                writeln!(f, "  never fired: {}", silent.join(", "))?;
            }
            writeln!(f, "  on one thread: {}", figures.speed(figures.busy))
        };
        for (layer, figures) in &self.figures {
            part(f, name(*layer), figures)?;
        }
        let together = self.together();
        if self.figures.len() > 1 {
            part(f, "together", &together)?;
        }
        let (wall, threads) = (self.wall.as_secs_f64(), self.jobs);
        writeln!(f, "in all, on {threads} threads in {wall:.1} s: {}", together.speed(self.wall))
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { simulated_hours_an_hour, runs_a_minute, steps_a_second } = self;
        write!(
            f,
            "{simulated_hours_an_hour:.1} simulated hours an hour, {runs_a_minute:.0} seeds a minute, {steps_a_second:.0} steps a \
             second"
        )
    }
}
