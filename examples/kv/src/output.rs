//! Standard output that may be closed: whoever pipes into `head` wants silence after it, not a panic.

use std::{
    fmt,
    io::{self, Write},
};

/// Prints a line.
///
/// # Errors
/// If standard output can't be written, but for a reader that went away.
pub(crate) fn line(text: impl fmt::Display) -> io::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints bytes as they are.
///
/// # Errors
/// As [`line`].
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// The same for machines: an object, alone in its line.
pub(crate) fn complain_json(object: &serde_json::Value) {
    last_line(&object.to_string());
}

/// Prints a line on standard error, if there is one.
pub(crate) fn complain(text: impl fmt::Display) {
    last_line(&format!("quorate-kv: {text}"));
}

fn last_line(line: &str) {
    if !crate::logging::last_line(line) {
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}
