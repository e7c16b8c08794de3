//! The command `quorate-sim`: runs seeds, replays one, shortens a plan that fails, hunts mutants. The rest is in the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
