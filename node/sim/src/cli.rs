//! The command line and its exit codes. 0: every check held; 1: one did not; 2: the command
//! made no sense.

mod answer;
mod choices;
mod mutants;
mod replay;
mod run;

use answer::{Misuse, tell};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

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
