//! Values on the command line: given as an argument, from standard input or from a file; and the
//! output of values.

use crate::{
    config::Limits,
    exit::{Exit, Failure},
    output,
};
use std::{
    fmt,
    fs::File,
    io::{self, IsTerminal, Read},
};

/// The bytes of a value argument: `-` is standard input and `@FILE` a file, unless
/// `literally` is set.
pub(super) fn read(argument: String, literally: bool) -> Result<Vec<u8>, Failure> {
    match argument.strip_prefix('@') {
        _ if literally => Ok(argument.into_bytes()),
        Some(file) => {
            let remedy = "name a readable file, or add --literal if the value itself begins with @";
            let refuse = |error: io::Error| Failure::new(Exit::Usage, format_args!("{file}: {error}; {remedy}"));
            let opened = File::open(file).map_err(refuse)?;
            bounded(opened, &file)?.map_err(refuse)
        }
        None if argument == "-" => Ok(bounded(io::stdin().lock(), &"standard input")??),
        None => Ok(argument.into_bytes()),
    }
}

/// The limit matches the most that any server accepts, so an endless input cannot fill the memory.
fn bounded(from: impl Read, name: &dyn fmt::Display) -> Result<io::Result<Vec<u8>>, Failure> {
    let max = Limits::VALUE_BYTES_MAX;
    let mut bytes = Vec::new();
    match from.take(max as u64 + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() > max => {
            let problem = format_args!("{name} has more than {max} bytes, the maximum of every server; send less");
            Err(Failure::coded(Exit::Refused, "too_large", problem))
        }
        Ok(_) => Ok(Ok(bytes)),
        Err(error) => Ok(Err(error)),
    }
}

/// Prints the exact bytes of a value, and a newline on a terminal or on request.
pub(super) fn print(value: &[u8], newline: bool) -> io::Result<()> {
    output::bytes(value)?;
    if newline || io::stdout().is_terminal() { output::bytes(b"\n") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_value_is_what_it_says_or_the_bytes_of_a_file() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"\x00\xff\n").expect("written");
        let at = format!("@{}", file.path().display());
        assert_eq!(read(at.clone(), false), Ok(b"\x00\xff\n".to_vec()));
        assert_eq!(read(at.clone(), true), Ok(at.into_bytes()));
        assert_eq!(read("v".to_owned(), false), Ok(b"v".to_vec()));
        assert_eq!(read("-".to_owned(), true), Ok(b"-".to_vec()));
        let missing = read("@/nowhere/at/all".to_owned(), false).expect_err("no such file");
        assert!(missing.exit == Exit::Usage && missing.message.contains("--literal"), "{missing:?}");
    }

    #[test]
    fn an_endless_input_is_too_large() {
        let endless = bounded(io::repeat(0), &"it").expect_err("too large");
        assert_eq!((endless.exit, &*endless.code), (Exit::Refused, "too_large"));
    }
}
