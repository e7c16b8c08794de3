//! The command `quorate-sim mutants`: it hunts every mutant, or one.

use super::{Held, Misuse};
use std::num::NonZeroUsize;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this mutant
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// At most this many seeds of each layer for each mutant; by default 5,000 pure and
    /// 600 of actors
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Threads, by default one for each processor
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Print the table in Markdown as well
    #[arg(long)]
    markdown: bool,
}

/// Refuses, and says how to build with mutants.
#[cfg(not(feature = "mutants"))]
pub(super) fn run(_: &Args) -> Held {
    Err(not_built())
}

/// Refuses, and says how to build with mutants.
#[cfg(not(feature = "mutants"))]
pub(super) fn breed(_: &str) -> Result<(), Misuse> {
    Err(not_built())
}

#[cfg(not(feature = "mutants"))]
fn not_built() -> Misuse {
    Misuse(
        "no mutant is built in: run `cargo run --release -p quorate-sim --features mutants -- mutants` (or `replay`) instead"
            .into(),
    )
}

#[cfg(feature = "mutants")]
pub(super) use built_in::{breed, run};

#[cfg(feature = "mutants")]
mod built_in {
    use super::{
        super::{in_a_line, say, tell, threads},
        Args, Held, Misuse,
    };
    use quorate_raft::mutants::{self, Mutant};
    use quorate_sim::{
        Layer,
        hunt::{Hunt, MARKDOWN_HEAD},
    };

    /// Most seeds of each layer for one mutant.
    const PURE_MAX: u64 = 5_000;
    const ACTORS_MAX: u64 = 600;

    /// With no mutant enabled, this many seeds of each layer must pass: else a catch
    /// would mean nothing.
    const CLEAN: u64 = 300;

    pub(in super::super) fn run(args: &Args) -> Held {
        let these = match &args.only {
            Some(name) => vec![named(name)?],
            None => Mutant::ALL.to_vec(),
        };
        let hunt = Hunt {
            pure_max: args.seeds.unwrap_or(PURE_MAX),
            actors_max: args.seeds.unwrap_or(ACTORS_MAX),
            jobs: threads(args.jobs),
            carry: Layer::run,
        };
        if !clean(&hunt) {
            return Ok(false);
        }

        let (pure, actors) = (hunt.pure_max, hunt.actors_max);
        say(&format!("{} mutants, each hunted with at most {pure} pure seeds and {actors} of actors", these.len()));
        let mut rows = Vec::new();
        for mutant in these {
            mutants::breed(Some(mutant));
            let row = hunt.hunt(mutant, tell);
            mutants::breed(None);
            say(&row.to_string());
            rows.push(row);
        }
        if args.markdown {
            say(&format!("\n{MARKDOWN_HEAD}"));
            rows.iter().for_each(|row| say(&row.to_markdown()));
        }
        let survivors: Vec<_> = rows.iter().filter(|row| row.caught.is_none()).map(|row| row.mutant.name()).collect();
        say(&format!("{} of {} mutants were caught", rows.len() - survivors.len(), rows.len()));
        if !survivors.is_empty() {
            tell(&format!("survived: {}; check more, or run more seeds", survivors.join(", ")));
        }
        Ok(survivors.is_empty())
    }

    /// Enables a mutant in this process.
    pub(in super::super) fn breed(name: &str) -> Result<(), Misuse> {
        mutants::breed(Some(named(name)?));
        Ok(())
    }

    fn clean(hunt: &Hunt) -> bool {
        mutants::breed(None);
        for layer in [Layer::Pure, Layer::Actors] {
            let seeds = hunt.seeds_max(layer).min(CLEAN);
            if let Some(failure) = hunt.run(layer, seeds, tell) {
                tell(&format!("{}, with no mutant alive; mend that first", in_a_line(&failure)));
                return false;
            }
        }
        true
    }

    fn named(name: &str) -> Result<Mutant, Misuse> {
        Mutant::named(name).ok_or_else(|| {
            let names: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
            Misuse(format!("there is no mutant `{name}`; there are {}", names.join(", ")))
        })
    }
}
