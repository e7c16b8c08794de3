//! Environment variables with the prefix `QUORATE_`: the known ones, and warnings about others.
//!
//! An unknown variable is not an error: Kubernetes sets `QUORATE_PORT` and others for a
//! service named "quorate".

use crate::config::{ConfigError, KEYS};
use std::{env, ffi::OsString};

pub(crate) const PREFIX: &str = "QUORATE_";
/// The endpoints of client commands, separated by commas.
pub(crate) const ENDPOINTS: &str = "QUORATE_ENDPOINTS";
/// The certificate authority that client commands trust.
pub(crate) const CA: &str = "QUORATE_CA";
/// The certificate that client commands show, its key, and the file of a token.
pub(crate) const CERT: &str = "QUORATE_CERT";
pub(crate) const CERT_KEY: &str = "QUORATE_KEY";
pub(crate) const TOKEN_FILE: &str = "QUORATE_TOKEN_FILE";
/// The time limit of client commands for an answer.
pub(crate) const TIMEOUT: &str = "QUORATE_TIMEOUT";

const OF_CLIENTS: [&str; 6] = [ENDPOINTS, CA, CERT, CERT_KEY, TOKEN_FILE, TIMEOUT];

/// The maximum edit distance at which a name counts as misspelt.
const NEAR_MAX: usize = 3;

/// The process's variables with the prefix.
///
/// # Errors
/// If the value of a known variable is not UTF-8.
pub(crate) fn variables() -> Result<Vec<(String, String)>, ConfigError> {
    read(env::vars_os())
}

fn read(all: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>, ConfigError> {
    let named = all.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    named
        .filter(|(name, _)| name.starts_with(PREFIX))
        .filter_map(|(name, value)| match value.into_string() {
            Ok(value) => Some(Ok((name, value))),
            Err(_) if is_known(&name) => Some(Err(ConfigError::new(name, "is not UTF-8", "correct or unset it"))),
            Err(_) => None,
        })
        .collect()
}

/// Whether a configuration key or a client option has this variable name.
pub(crate) fn is_known(name: &str) -> bool {
    known().any(|known| known == name)
}

/// Warns of variables that no setting reads.
pub(crate) fn warn_of_unknown<'a>(names: impl Iterator<Item = &'a str>) {
    for name in names.filter(|name| name.starts_with(PREFIX) && !is_known(name)) {
        let nearest = nearest(name, known()).map(|(nearest, _)| nearest).unwrap_or_default();
        tracing::warn!("{name} is not a configuration key and is ignored; the nearest known name is {nearest}");
    }
}

/// Warns of variables that are probably misspelt client options; client commands ignore all others.
pub(crate) fn warn_of_misspelt() {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| name.starts_with(PREFIX) && !is_known(name)) {
        let clients = OF_CLIENTS.map(str::to_owned).into_iter();
        if let Some((nearest, _)) = nearest(&name, clients).filter(|(_, distance)| is_near(&name, *distance)) {
            tracing::warn!("{name} is not known and is ignored; did you mean {nearest}?");
        }
    }
}

/// Whether a name is so near to a known one that it was probably meant: half of it must be right,
/// because `QUORATE_PORT` is not a misspelt `QUORATE_CERT`.
fn is_near(name: &str, distance: usize) -> bool {
    distance <= NEAR_MAX && distance * 2 < name.len().saturating_sub(PREFIX.len())
}

fn known() -> impl Iterator<Item = String> {
    KEYS.iter().map(|key| key.variable()).chain(OF_CLIENTS.map(str::to_owned))
}

/// The most similar name, and its edit distance. A name that starts with the given one wins
/// over all others.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<(String, usize)> {
    let measured = known.map(|known| (!known.starts_with(name), strsim::damerau_levenshtein(name, &known), known));
    measured.min().map(|(_, distance, known)| (known, distance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        for (given, meant) in [
            ("QUORATE_ENDPOINT", ENDPOINTS),
            ("QUORATE_NODEID", "QUORATE_NODE_ID"),
            ("QUORATE_TIMING_HEARTBEAT", "QUORATE_TIMING_HEARTBEAT_INTERVAL"),
            ("QUORATE_LIMITS_MAX_VALUES_BYTES", "QUORATE_LIMITS_MAX_VALUE_BYTES"),
        ] {
            assert_eq!(nearest(given, known()).expect("some are known").0, meant);
        }
        assert!(!is_known("QUORATE_PORT"));
        for (name, is_meant) in [
            ("QUORATE_ENDPOINT", true),
            ("QUORATE_CRET", true),
            ("QUORATE_TOKEN", false),
            ("QUORATE_PORT", false),
            ("QUORATE_PORT_7001_TCP", false),
        ] {
            let (_, distance) = nearest(name, OF_CLIENTS.map(str::to_owned).into_iter()).expect("one");
            assert_eq!(is_near(name, distance), is_meant, "{name}");
        }
    }

    #[test]
    fn a_value_that_is_no_text_is_refused_if_its_name_is_known() {
        let bytes = || OsString::from_vec(vec![0xff]);
        let all = |name: &str| [(OsString::from(name), bytes())].into_iter();
        let error = read(all("QUORATE_DATA_DIR")).expect_err("no text").to_string();
        assert!(error.starts_with("QUORATE_DATA_DIR: is not UTF-8"), "{error}");
        assert_eq!(read(all("QUORATE_OTHER")), Ok(vec![]));
        assert_eq!(read(all("OTHER")), Ok(vec![]));
    }
}
