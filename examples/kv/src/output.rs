//! Standard output that may be closed: after the reader of a pipe (such as `head`) has ended,
//! output is dropped silently instead of causing a panic.

use std::{
    fmt,
    io::{self, Write},
};

/// The name with which lines on standard error begin.
pub(crate) const PROGRAM: &str = "quorate-kv";

/// Prints a line.
///
/// # Errors
/// If standard output cannot be written, unless its reader has closed it.
pub(crate) fn line(text: impl fmt::Display) -> io::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints bytes unchanged.
///
/// # Errors
/// As for [`line`].
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<()> {
    part(bytes).map(drop)
}

/// Prints bytes that are one of many parts. Returns whether the reader is still there.
///
/// # Errors
/// As for [`line`].
pub(crate) fn part(bytes: &[u8]) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true),
    }
}

/// Prints a JSON object on one line of standard error.
pub(crate) fn complain_json(object: &serde_json::Value) {
    last_line(&object.to_string());
}

/// Prints a line on standard error, if standard error is open.
pub(crate) fn complain(text: impl fmt::Display) {
    last_line(&format!("{PROGRAM}: {text}"));
}

fn last_line(line: &str) {
    if !crate::logging::last_line(line) {
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}
