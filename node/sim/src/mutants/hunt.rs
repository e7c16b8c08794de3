//! The hunt for one mutant after the other: seeds run until one of them fails.
//!
//! A mutant is on for the whole process, so all threads hunt the same one. The caller turns it on.

use super::Mutant;
use crate::{
    Layer,
    runs::{self, Carry, Failure, Look, Settings, name, property},
};
use std::{
    fmt,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

/// The limits of a hunt.
#[derive(Clone, Copy, Debug)]
pub struct Hunt {
    /// Seeds of the pure layer, at most.
    pub pure_max: u64,
    /// Seeds of the layer of actors, at most.
    pub actors_max: u64,
    /// The number of worker threads.
    pub jobs: NonZeroUsize,
    /// The function that carries a plan out.
    pub carry: Carry,
}

/// The result of the hunt for one mutant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The name of the mutant that was on.
    pub mutant: String,
    /// The first failure that it caused; none if it survived.
    pub caught: Option<Failure>,
    /// Seeds run on all layers, up to and including the one that failed.
    pub seeds: u64,
    /// Wall time of the hunt.
    pub took: Duration,
}

impl Hunt {
    /// Hunts the mutant that is on, first on one layer, then on the other.
    #[must_use]
    pub fn hunt(&self, mutant: &Mutant, mut look: impl FnMut(Layer, Look)) -> Row {
        let begun = Instant::now();
        let name = &mutant.name;
        let mut seeds = 0;
        for layer in layers(mutant) {
            let seeds_max = self.seeds_max(layer);
            let caught = self.run(layer, seeds_max, |progress| look(layer, progress));
            seeds += caught.as_ref().map_or(seeds_max, |failure| failure.seed + 1);
            if caught.is_some() {
                return Row { mutant: name.clone(), caught, seeds, took: begun.elapsed() };
            }
        }
        Row { mutant: name.clone(), caught: None, seeds, took: begun.elapsed() }
    }

    /// Runs the first `seeds` seeds of a layer and returns the failure with the lowest seed.
    #[must_use]
    pub fn run(&self, layer: Layer, seeds: u64, look: impl FnMut(Look)) -> Option<Failure> {
        let settings = Settings {
            seeds: 0..seeds,
            layers: vec![layer],
            jobs: self.jobs,
            twice_every: None,
            time_max: None,
            failures_max: NonZeroUsize::MIN,
            carry: self.carry,
        };
        runs::run(&settings, look).failures.into_iter().next()
    }

    /// The most seeds that run on a layer.
    #[must_use]
    pub const fn seeds_max(&self, layer: Layer) -> u64 {
        match layer {
            Layer::Pure => self.pure_max,
            Layer::Actors => self.actors_max,
        }
    }
}

/// The layers, in the order in which they hunt a mutant.
fn layers(mutant: &Mutant) -> [Layer; 2] {
    let is_pure = mutant.is_of_rules() || mutant.is_of_judged_decisions();
    if is_pure { [Layer::Pure, Layer::Actors] } else { [Layer::Actors, Layer::Pure] }
}

/// The head of the Markdown table, above rows from [`Row::to_markdown`].
pub const MARKDOWN_HEAD: &str =
    "| mutant | caught by | layer | seed | seeds run | time |\n| --- | --- | --- | --: | --: | --: |";

impl Row {
    /// This row of the Markdown table.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        format!("| {} |", self.cells().join(" | "))
    }

    fn cells(&self) -> [String; 6] {
        let (property, layer, seed) = match &self.caught {
            Some(Failure { seed, layer, violation }) => (property(violation), name(*layer), seed.to_string()),
            None => ("SURVIVED", "-", "-".into()),
        };
        let took = format!("{:.1} s", self.took.as_secs_f64());
        [self.mutant.clone(), property.into(), layer.into(), seed, self.seeds.to_string(), took]
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [mutant, property, layer, seed, seeds, took] = self.cells();
        write!(f, "{mutant:<40} {property:<32} {layer:<6} seed {seed:>5} {seeds:>6} seeds {took:>9}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Outcome, Report, mutants::table};

    #[test]
    fn the_first_seed_that_shows_a_mutant_is_found_on_any_number_of_threads() {
        for jobs in 1..=4 {
            let row = hunt(jobs, |layer, plan, _| outcome(layer == Layer::Pure && plan.seed % 40 == 37));
            let caught = row.caught.expect("caught");
            assert_eq!((caught.seed, caught.layer, row.seeds), (37, Layer::Pure, 38));
        }
    }

    #[test]
    fn a_mutant_that_one_layer_lets_live_is_hunted_by_the_other() {
        let row = hunt(2, |layer, plan, _| outcome(layer == Layer::Actors && plan.seed == 5));
        let caught = row.caught.clone().expect("caught");
        assert_eq!((caught.seed, caught.layer, row.seeds), (5, Layer::Actors, 106));
        assert!(
            row.to_markdown().starts_with("| minority-elects | safety | actors | 5 | 106 | "),
            "{}",
            row.to_markdown()
        );
    }

    #[test]
    fn a_survivor_has_run_all_seeds_of_both_layers() {
        let row = hunt(2, |_, _, _| outcome(false));
        assert_eq!((row.caught.clone(), row.seeds), (None, 130));
        assert!(row.to_string().contains("SURVIVED"), "{row}");
    }

    #[test]
    fn mutants_are_hunted_first_where_they_show_soonest() {
        for (name, first) in [
            ("minority-elects", Layer::Pure),
            ("faulty-counts-as-held", Layer::Pure),
            ("learner-never-promoted", Layer::Pure),
            ("page-cache-counts-as-disk", Layer::Actors),
            ("reads-at-once", Layer::Actors),
        ] {
            assert_eq!(layers(&mutant(name))[0], first, "{name}");
        }
    }

    fn hunt(jobs: usize, carry: Carry) -> Row {
        let jobs = NonZeroUsize::new(jobs).expect("above zero");
        Hunt { pure_max: 100, actors_max: 30, jobs, carry }.hunt(&mutant("minority-elects"), |_, _| ())
    }

    fn mutant(name: &str) -> Mutant {
        let mut all = table::all().expect("well-formed");
        all.retain(|mutant| mutant.name == name);
        all.pop().expect("in the table")
    }

    fn outcome(failed: bool) -> Outcome {
        Outcome {
            report: Report { runs: 1, ..Report::default() },
            violation: failed.then(|| "safety: two leaders".into()),
        }
    }
}
