//! The command `quorate-sim mutants`: it hunts every mutant, or some.
//!
//! In the sources themselves it makes the copy that has the mutants, builds this program there, and
//! becomes that program, with the same arguments.

use super::{
    answer::{Held, Misuse, PROGRAM, in_a_line, say, show_look, tell},
    choices::threads,
};
use quorate_progress::{Progress, Unit};
use quorate_sim::{
    Layer,
    mutants::{
        Mutant,
        hunt::{Hunt, MARKDOWN_HEAD},
        plant, table,
    },
    runs::name,
};
use std::{
    env, io,
    num::NonZeroUsize,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this mutant; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// At most this many seeds of each layer for each mutant; by default 20,000 pure and
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

/// Most seeds of each layer for one mutant.
const PURE_MAX: u64 = 20_000;
const ACTORS_MAX: u64 = 600;

/// With all mutants off, this many seeds of each layer must pass: else a catch would mean nothing.
const CLEAN: u64 = 300;

pub(super) fn run(args: &Args) -> Held {
    let all = table::all().map_err(Misuse)?;
    let numbers = args.only.iter().map(|name| number_of(name, &all)).collect::<Result<Vec<_>, _>>()?;
    go_to_the_copy(&all)?;

    let numbers = if numbers.is_empty() { (0..all.len()).collect() } else { numbers };
    let (of_tests, numbers): (Vec<usize>, Vec<usize>) =
        numbers.into_iter().partition(|number| all[*number].test.is_some());
    let hunt = Hunt {
        pure_max: args.seeds.unwrap_or(PURE_MAX),
        actors_max: args.seeds.unwrap_or(ACTORS_MAX),
        jobs: threads(args.jobs),
        carry: Layer::run,
    };
    if !numbers.is_empty() && !clean(&hunt) {
        return Ok(false);
    }

    let (pure, actors) = (hunt.pure_max, hunt.actors_max);
    say(&format!("{} mutants, each hunted with at most {pure} pure seeds and {actors} of actors", numbers.len()));
    let total = (numbers.len() + of_tests.len()) as u64;
    let (progress, hunted) = Progress::start(PROGRAM, "hunt", Unit::Items("mutants"), Some(total));
    let mut rows = Vec::new();
    for number in numbers {
        quorate_switch::turn_on(u16::try_from(number).ok());
        let mutant = &all[number];
        hunted.note(&*mutant.name);
        let row = hunt.hunt(mutant, |layer, look| {
            hunted.note(format!("{}: {} of {} runs ({})", mutant.name, look.done, look.total, name(layer)));
        });
        quorate_switch::turn_on(None);
        hunted.add(1);
        progress.aside(|| say(&row.to_string()));
        rows.push(row);
    }
    if args.markdown {
        progress.aside(|| {
            say(&format!("\n{MARKDOWN_HEAD}"));
            rows.iter().for_each(|row| say(&row.to_markdown()));
        });
    }
    let mut survivors: Vec<_> = rows.iter().filter(|row| row.caught.is_none()).map(|row| &*row.mutant).collect();
    for number in &of_tests {
        let Mutant { name, test: Some(test), .. } = &all[*number] else { continue };
        hunted.note(name);
        // With all mutants off it must pass: else its failure would mean nothing.
        let is_caught = passes(test, None)? && !passes(test, Some(*number))?;
        let end = if is_caught { "caught by" } else { "SURVIVED" };
        hunted.add(1);
        progress.aside(|| say(&format!("{name:<40} {end} cargo test {test}")));
        if !is_caught {
            survivors.push(name);
        }
    }
    drop(progress);
    let hunted = rows.len() + of_tests.len();
    say(&format!("{} of {hunted} mutants were caught", hunted - survivors.len()));
    if !survivors.is_empty() {
        tell(&format!("survived: {}; check more, or run more seeds", survivors.join(", ")));
    }
    Ok(survivors.is_empty())
}

/// Whether `cargo test` with these arguments passes in the copy with this mutant on.
fn passes(test: &str, on: Option<usize>) -> Result<bool, Misuse> {
    let copy = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
    let number = on.map_or_else(String::new, |number| number.to_string());
    let ran = cargo("test", &copy.join("../build"))
        .args(test.split_whitespace())
        .env(quorate_switch::VARIABLE, number)
        .current_dir(copy)
        .output()
        .map_err(|error| Misuse(format!("running cargo test {test} in {}: {error}", copy.display())))?;
    let said = String::from_utf8_lossy(&ran.stdout);
    if !ran.status.success() && !said.contains("test result: FAILED") {
        return Err(Misuse(format!("cargo test {test} ran no test: {}", String::from_utf8_lossy(&ran.stderr))));
    }
    if !said.contains(" 1 passed") && !said.contains(" 1 failed") {
        return Err(Misuse(format!("cargo test {test} runs no test, or several: name one")));
    }
    Ok(ran.status.success())
}

fn cargo(command: &str, target: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([command, "--release", "--quiet", "--target-dir"]).arg(target);
    cargo
}

/// Turns a mutant on in this process, which continues in the copy.
pub(super) fn turn_on(name: &str) -> Result<(), Misuse> {
    let all = table::all().map_err(Misuse)?;
    let number = number_of(name, &all)?;
    go_to_the_copy(&all)?;
    quorate_switch::turn_on(u16::try_from(number).ok());
    Ok(())
}

fn number_of(name: &str, all: &[Mutant]) -> Result<usize, Misuse> {
    all.iter().position(|mutant| mutant.name == name).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|mutant| &*mutant.name).collect();
        Misuse(format!("there is no mutant `{name}`; there are {}", names.join(", ")))
    })
}

fn clean(hunt: &Hunt) -> bool {
    for layer in [Layer::Pure, Layer::Actors] {
        let seeds = hunt.seeds_max(layer).min(CLEAN);
        let what = format!("without a mutant ({})", name(layer));
        let (progress, counter) = Progress::start(PROGRAM, what, Unit::Items("runs"), Some(seeds));
        let failure = hunt.run(layer, seeds, |look| show_look(&counter, look));
        drop(progress);
        if let Some(failure) = failure {
            tell(&format!("{}, with all mutants off; mend that first", in_a_line(&failure)));
            return false;
        }
    }
    true
}

/// Makes and builds the copy with the mutants and replaces this process by its program. Returns
/// only in that program, or if there is none.
fn go_to_the_copy(all: &[Mutant]) -> Result<(), Misuse> {
    if quorate_switch::IS_PLANTED {
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let (copy, build) = (target.join("mutants/src"), target.join("mutants/build"));
    let failed = |doing: &str, path: &Path, error: io::Error| {
        Misuse(format!(
            "{doing} {}: {error}; mend that, or remove {}",
            path.display(),
            target.join("mutants").display()
        ))
    };

    let begun = Instant::now();
    let mut sources = plant::read(root, &target).map_err(|error| failed("reading", root, error))?;
    plant::plant(all, &mut sources).map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(plant::Problem::to_string).collect();
        Misuse(problems.join("\n"))
    })?;
    plant::write(&sources, &copy).map_err(|error| failed("writing", &copy, error))?;
    tell(&format!("planted {} mutants in {}; building", all.len(), copy.display()));

    let built = cargo("build", &build)
        .args(["-p", "quorate-sim", "--bin", "quorate-sim"])
        .current_dir(&copy)
        .status()
        .map_err(|error| failed("building", &copy, error))?;
    if !built.success() {
        return Err(Misuse(format!(
            "the copy with the mutants does not build; mend the entries in {root}/node/sim/mutants",
            root = root.display()
        )));
    }
    tell(&format!("built after {:.0} s", begun.elapsed().as_secs_f64()));
    let program = build.join("release/quorate-sim");
    let error = Command::new(&program).args(env::args_os().skip(1)).exec();
    Err(failed("running", &program, error))
}
