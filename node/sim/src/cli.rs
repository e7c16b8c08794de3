//! The command line and its exit codes. 0: every check held; 1: one did not; 2: the command
//! made no sense.

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
    /// Plant known bugs in a copy of the sources, and turn on one at a time; each must be caught
    Mutants(mutants::Args),
}

/// The layers that carry plans out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
enum Layers {
    /// The pure pieces
    Pure,
    /// The real actors
    Actors,
    /// Both layers, for every seed
    #[default]
    Both,
}

/// The layer that carries a plan out.
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

/// A command that can't be carried out: the mistake, its place and the remedy, in one line.
#[derive(Debug)]
struct Misuse(String);

/// Whether all checks held.
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

/// The number of threads asked for, else one for each processor.
fn threads(jobs: Option<NonZeroUsize>) -> NonZeroUsize {
    jobs.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

/// The beginning of the command that repeats a run, up to its subcommand.
const COMMAND: &str = "cargo run --release -p quorate-sim --";

/// Prints a line for people on standard error.
fn tell(line: &str) {
    eprintln!("quorate-sim: {line}");
}

/// Prints a line of the result on standard output.
fn say(line: &str) {
    // The reader may close its end early, as `head` does.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// The first line of a violation, with its seed and layer. A violation may have further lines.
fn in_a_line(failure: &Failure) -> String {
    let Failure { seed, layer, violation } = failure;
    let first = violation.lines().next().unwrap_or_default();
    format!("seed {seed} failed ({}): {first}", quorate_sim::runs::name(*layer))
}
