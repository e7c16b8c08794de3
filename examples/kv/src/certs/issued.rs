//! The certificates that an authority issued, by serial: those in its directory, and those whose
//! files are elsewhere or were replaced.
//!
//! `ca.issued` beside `ca.key` has a line `SERIAL END HOLDER` for each, written before the
//! certificate is. It gives serials a name, and is no proof: that is in the certificates. Lines of
//! ended certificates stay.

use super::{CertsError, stems, time};
use quorate::transport::certificates::{Authority, CERTIFICATE_MODE, CertificateError, Certified, Serial, replace};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The file's name.
pub(super) const FILE: &str = "ca.issued";

/// What is known about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Such as `node 1`.
    pub(super) holder: String,
    pub(super) ends: SystemTime,
    /// Its file in the directory of the authority, if it is there.
    pub(super) file: Option<PathBuf>,
}

/// All certificates that are known in a directory, and its files that are none of its authority,
/// each with the reason.
pub(super) struct All {
    pub(super) by_serial: BTreeMap<Serial, Known>,
    pub(super) foreign: Vec<(PathBuf, String)>,
}

/// Reads all of them.
///
/// # Errors
/// If the directory or `ca.issued` can't be read.
pub(super) fn all(dir: &Path, authority: &Authority) -> Result<All, CertsError> {
    let (mut by_serial, mut foreign) = (recorded(dir)?, Vec::new());
    for stem in stems(dir)? {
        let path = dir.join(format!("{stem}.pem"));
        match examine(authority, &path) {
            Ok((serial, known)) => by_serial.insert(serial, known).map_or((), drop),
            Err(problem) => foreign.push((path, problem)),
        }
    }
    Ok(All { by_serial, foreign })
}

/// A certificate of the authority in a file.
///
/// # Errors
/// The reason, as a predicate.
pub(super) fn examine(authority: &Authority, path: &Path) -> Result<(Serial, Known), String> {
    let pem = fs::read(path).map_err(|error| format!("can't be read ({error})"))?;
    let (serial, known) = of(authority.examine(&String::from_utf8_lossy(&pem))?);
    Ok((serial, Known { file: Some(path.to_owned()), ..known }))
}

/// A new certificate, read back before it is written to `path`.
///
/// # Errors
/// [`CertsError::Unverified`].
pub(super) fn read_back(authority: &Authority, path: &Path, pem: &str) -> Result<(Serial, Known), CertsError> {
    let unverified = |problem| CertsError::Unverified { path: path.to_owned(), problem };
    authority.examine(pem).map(of).map_err(unverified)
}

/// Serial, holder and end of a certificate.
fn of(certified: Certified) -> (Serial, Known) {
    let holder = certified.subject.identity.to_string();
    (certified.serial, Known { holder, ends: certified.ends, file: None })
}

/// Adds lines for certificates that have none. The caller has the directory's lock.
///
/// # Errors
/// If `ca.issued` can't be read or written, or has a malformed line.
pub(super) fn record(dir: &Path, certificates: &[(Serial, Known)]) -> Result<(), CertsError> {
    let (path, known) = (dir.join(FILE), recorded(dir)?);
    let new = certificates.iter().filter(|(serial, _)| !known.contains_key(serial));
    let lines: String =
        new.map(|(serial, known)| format!("{serial} {} {}\n", time(known.ends), known.holder)).collect();
    if !lines.is_empty() {
        let mut text = read(&path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        replace(&path, &(text + &lines), CERTIFICATE_MODE)?;
    }
    Ok(())
}

fn recorded(dir: &Path) -> Result<BTreeMap<Serial, Known>, CertsError> {
    let path = dir.join(FILE);
    let text = read(&path)?;
    let parse = |(at, text): (usize, &str)| {
        line(text).ok_or_else(|| CertsError::NotARecord { path: path.clone(), line: at + 1 })
    };
    text.lines().enumerate().map(parse).collect()
}

fn read(path: &Path) -> Result<String, CertsError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(|source| CertificateError::Io { path: path.to_owned(), source }.into()),
    }
}

fn line(text: &str) -> Option<(Serial, Known)> {
    let mut words = text.splitn(3, ' ');
    let (serial, ends, holder) = (words.next()?.parse().ok()?, words.next()?, words.next()?.to_owned());
    Some((serial, Known { holder, ends: humantime::parse_rfc3339(ends).ok()?, file: None }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_is_added_to_a_file_without_a_final_newline_as_a_line_of_its_own() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let known = |holder: &str| Known {
            holder: holder.to_owned(),
            ends: SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000),
            file: None,
        };
        let [one, two] = ["0a", "0b"].map(|serial| serial.parse::<Serial>().expect("a serial"));
        record(dir.path(), &[(one.clone(), known("node 1"))]).expect("written");
        let text = read(&dir.path().join(FILE)).expect("readable");
        fs::write(dir.path().join(FILE), text.trim_end()).expect("written");
        record(dir.path(), &[(two.clone(), known("node 2"))]).expect("written");
        let all = recorded(dir.path()).expect("two lines");
        assert_eq!(all, [(one, known("node 1")), (two, known("node 2"))].into());
    }
}
