//! The answer of a command: the lines that it prints, and the reason why it can't be carried out.

use quorate_progress::Counter;
use quorate_sim::runs::{Failure, Look, name};
use std::{
    error::Error,
    fmt,
    io::{self, Write},
};

/// A command that can't be carried out: the mistake, its place and the remedy, in one line.
#[derive(Debug)]
pub(super) struct Misuse(pub(super) String);

/// Whether all checks held.
pub(super) type Held = Result<bool, Misuse>;

/// The beginning of the command that repeats a run, up to its subcommand.
pub(super) const COMMAND: &str = "cargo run --release -p quorate-sim --";

/// The name with which lines on standard error begin.
pub(super) const PROGRAM: &str = "quorate-sim";

/// Prints a line for people on standard error.
pub(super) fn tell(line: &str) {
    eprintln!("{PROGRAM}: {line}");
}

/// Shows how far a run is.
pub(super) fn show_look(counter: &Counter, look: Look) {
    counter.set(look.done);
    counter.set_total(look.total);
    counter.note(look.note);
}

/// Prints a line of the result on standard output.
pub(super) fn say(line: &str) {
    // The reader may close its end early, as `head` does.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// The first line of a violation, with its seed and layer. A violation may have further lines.
pub(super) fn in_a_line(failure: &Failure) -> String {
    let Failure { seed, layer, violation } = failure;
    let first = violation.lines().next().unwrap_or_default();
    format!("seed {seed} failed ({}): {first}", name(*layer))
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Misuse {}
