//! `certs revoke` and `certs crl`: the authority's list of revoked certificates, extended or only
//! renewed.
//!
//! Nodes go by their copies of the list: it has to be copied to each node after each run.

use super::{CertsError, days, issued, lock, time};
use quorate::transport::certificates::{Authority, LIST_FILE, Reason, RevocationList, Serial};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// The default of `--days`, the default of the library.
const DAYS: &str = "30";

/// The arguments of `certs revoke`.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["certs", "serials"]))]
pub struct Args {
    /// The directory with the authority
    #[arg(long)]
    dir: PathBuf,
    /// The file of a certificate to revoke; repeatable
    #[arg(long = "cert", value_name = "FILE")]
    certs: Vec<PathBuf>,
    /// The serial of a certificate to revoke, as `certs list` shows it; repeatable
    #[arg(long = "serial", value_name = "HEX")]
    serials: Vec<Serial>,
    /// The reason, for people: unspecified, key-compromise, affiliation-changed, superseded,
    /// cessation-of-operation or privilege-withdrawn
    #[arg(long, default_value_t)]
    reason: Reason,
    /// Also revoke a serial that no certificate has that is known in the directory
    #[arg(long)]
    unknown: bool,
    /// The days from now on after which nodes no longer take the list; not beyond the authority's
    /// own end
    #[arg(long, default_value = DAYS, value_parser = days)]
    days: Duration,
}

/// The arguments of `certs crl`.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// The directory with the authority
    #[arg(long)]
    dir: PathBuf,
    /// The days from now on after which nodes no longer take the list; not beyond the authority's
    /// own end
    #[arg(long, default_value = DAYS, value_parser = days)]
    days: Duration,
}

/// Revokes; returns the whole list for people and for machines.
///
/// # Errors
/// Before the first change: a file is no certificate of the authority, or a serial is of none that
/// is known; or as [`Authority::revoke`].
pub(super) fn run(args: &Args) -> Result<(String, Value), CertsError> {
    let dir = &args.dir;
    let _lock = lock(dir)?;
    let authority = Authority::load(dir)?;
    let mut known = issued::all(dir, &authority)?.by_serial;
    let (mut serials, mut named) = (args.serials.clone(), Vec::new());
    for path in &args.certs {
        let refused = |problem| CertsError::NotRevocable { path: path.clone(), problem };
        let (serial, certificate) = issued::examine(&authority, path).map_err(refused)?;
        serials.push(serial.clone());
        named.push((serial.clone(), certificate.clone()));
        known.insert(serial, certificate);
    }
    if let Some(serial) = serials.iter().find(|serial| !args.unknown && !known.contains_key(serial)) {
        return Err(CertsError::UnknownSerial { serial: serial.clone(), dir: dir.clone() });
    }
    // A file that is named here may be the only one.
    issued::record(dir, &named)?;
    let before = authority.revocation_list(dir)?;
    let list = authority.revoke(dir, &serials, args.reason, args.days)?;
    let is_new = |serial: &Serial| before.as_ref().is_none_or(|before| before.entry(serial).is_none());
    Ok(shown(dir, &list, &known, is_new))
}

/// Renews the list, or makes the first; returns it for people and for machines.
///
/// # Errors
/// As [`Authority::revoke`].
pub(super) fn renew(args: &ListArgs) -> Result<(String, Value), CertsError> {
    let dir = &args.dir;
    let _lock = lock(dir)?;
    let authority = Authority::load(dir)?;
    let known = issued::all(dir, &authority)?.by_serial;
    let list = authority.revoke(dir, &[], Reason::Unspecified, args.days)?;
    Ok(shown(dir, &list, &known, |_| false))
}

fn shown(
    dir: &Path,
    list: &RevocationList,
    known: &BTreeMap<Serial, issued::Known>,
    is_new: impl Fn(&Serial) -> bool,
) -> (String, Value) {
    let file = dir.join(LIST_FILE);
    let mut lines = vec![summary(&file, list)];
    let mut objects = Vec::new();
    for entry in &list.revoked {
        let (serial, at, reason) = (entry.serial.to_string(), time(entry.at), entry.reason.name());
        let holder = known.get(&entry.serial).map(|known| &known.holder);
        let is_new = is_new(&entry.serial);
        let now = if is_new { "revoked now" } else { "revoked before" };
        let shown = holder.map_or("of no known certificate", |holder| holder);
        lines.push(format!("{serial}: {shown}, {now}, at {at} ({reason})"));
        objects.push(json!({ "serial": serial, "holder": holder, "at": at, "reason": reason, "new": is_new }));
    }
    let next_update = time(list.next_update);
    let machine = json!({ "file": file, "number": list.number, "next_update": next_update, "revoked": objects });
    (lines.join("\n"), machine)
}

pub(super) fn summary(file: &Path, list: &RevocationList) -> String {
    let (number, next) = (list.number, time(list.next_update));
    format!("{}: number {number}, {} revoked, counts until {next}", file.display(), list.revoked.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate::transport::certificates::LIST_LASTS;

    #[test]
    fn the_default_of_days_is_the_library_s() {
        assert_eq!(days(DAYS), Ok(LIST_LASTS));
    }
}
