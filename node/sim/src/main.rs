//! The command `quorate-sim`: runs seeds, replays one, shortens a plan that fails, hunts mutants.
//! All else is in the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
