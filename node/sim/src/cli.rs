//! The command line: what it takes, and exit codes. 0: all held; 1: something did not; 2: the command made no sense.

mod mutants;
mod replay;
mod run;

use clap::{Parser, Subcommand, ValueEnum};
use quorate_sim::{Layer, runs::Failure};
use std::{
    io::{self, Write},
    num::NonZeroUsize,
    process::ExitCode,
    thread,
};

/// Whole clusters under every fault, each a function of one seed.
#[derive(Debug, Parser)]
#[command(name = "quorate-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many seeds
    Run(run::Args),
    /// Run one seed, or the plan in a file, again
    Replay(replay::Args),
    /// Let bugs that were bred on purpose live, one at a time; each must be caught
    Mutants(mutants::Args),
}

/// Which layers carry plans out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
enum Layers {
    /// The pure pieces
    Pure,
    /// The real actors
    Actors,
    /// Either, for every seed
    #[default]
    Both,
}

/// Which layer carries a plan out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum OneLayer {
    /// The pure pieces
    Pure,
    /// The real actors
    Actors,
}

/// Parses the command line and runs the command.
pub(crate) fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Mutants(args) => mutants::run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(Misuse(why)) => {
            tell(&why);
            ExitCode::from(2)
        }
    }
}

/// A command that can't be carried out: what, where, what to do, in one line.
#[derive(Debug)]
struct Misuse(String);

/// Whether all held.
type Held = Result<bool, Misuse>;

impl Layers {
    fn all(self) -> Vec<Layer> {
        match self {
            Self::Pure => vec![Layer::Pure],
            Self::Actors => vec![Layer::Actors],
            Self::Both => vec![Layer::Pure, Layer::Actors],
        }
    }
}

impl From<OneLayer> for Layer {
    fn from(layer: OneLayer) -> Self {
        match layer {
            OneLayer::Pure => Self::Pure,
            OneLayer::Actors => Self::Actors,
        }
    }
}

/// As many threads as wanted, or one for each processor.
fn threads(jobs: Option<NonZeroUsize>) -> NonZeroUsize {
    jobs.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

/// How a run is repeated by hand, up to what it says.
const COMMAND: &str = "cargo run --release -p quorate-sim --";

/// One line to people, beside what the command prints.
fn tell(line: &str) {
    eprintln!("quorate-sim: {line}");
}

/// One line of what the command prints.
fn say(line: &str) {
    // Whoever reads may have seen enough, as `head` has.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// What did not hold, in one line. A violation may say more in further ones.
fn in_a_line(failure: &Failure) -> String {
    let Failure { seed, layer, violation } = failure;
    let first = violation.lines().next().unwrap_or_default();
    format!("seed {seed} failed ({}): {first}", quorate_sim::runs::name(*layer))
}
