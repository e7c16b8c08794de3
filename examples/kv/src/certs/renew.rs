//! `certs renew`: a new certificate and a new key for the same names, where authority and keys are.
//!
//! The old certificate counts up to its end, or until it is revoked. One that is revoked is replaced
//! only if it is named: its holder may be gone for good.
//!
//! A pair is replaced so that a crash leaves one that is usable, or that the next run completes:
//! [`Issued::replace`].

use super::{CertsError, DAYS, days, issued, lock, stems, time};
use quorate::transport::certificates::{Authority, Issued, RevocationList};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The directory with the authority, its certificates and their keys
    #[arg(long)]
    dir: PathBuf,
    /// The days that the new certificates last; not beyond the authority's own end
    #[arg(long, default_value = DAYS, value_parser = days)]
    days: Duration,
    /// The certificates to renew, by the names of their files without .pem; all if none is given
    #[arg(value_name = "NAME", value_parser = stem)]
    names: Vec<String>,
}

/// Renews; returns the result for people and for machines.
///
/// # Errors
/// Before the first change: a name is given twice, or a certificate that is named is not this
/// authority's, or its key is not here; without names such files and revoked certificates are left
/// alone, and it is an error if no other is there. During the changes: a file cannot be written; repeat the command.
pub(super) fn run(args: &Args) -> Result<(String, Value), CertsError> {
    let dir = &args.dir;
    let _lock = lock(dir)?;
    let authority = Authority::load(dir)?.issuing_for(args.days);
    let is_all = args.names.is_empty();
    let names = if is_all { stems(dir)? } else { args.names.clone() };
    let revoked = if is_all { authority.revocation_list(dir)? } else { None };
    if let Some(twice) = names.iter().enumerate().find_map(|(at, name)| names[..at].contains(name).then_some(name)) {
        return Err(CertsError::Twice(twice.clone()));
    }
    let (mut renewed, mut skipped) = (Vec::new(), Vec::new());
    for name in &names {
        match again(&authority, dir, name, revoked.as_ref()) {
            Ok(issued) => renewed.push((name, issued)),
            Err(CertsError::Foreign { path, problem }) if is_all => skipped.push((path, problem)),
            Err(CertsError::Revoked(path)) if is_all => {
                skipped.push((path, "is revoked: name it to replace it".to_owned()));
            }
            Err(CertsError::KeyElsewhere(key)) if is_all => {
                skipped.push((dir.join(format!("{name}.pem")), format!("has its key elsewhere: no {}", key.display())));
            }
            Err(error) => return Err(error),
        }
    }
    if renewed.is_empty() {
        let problem = "has no certificate of this authority with its key".to_owned();
        return Err(CertsError::NotRenewable { path: dir.clone(), problem });
    }
    let mut certified = Vec::new();
    for (name, issued) in &renewed {
        let path = dir.join(format!("{name}.pem"));
        certified.push(issued::read_back(&authority, &path, &issued.certificate_pem)?);
    }
    issued::record(dir, &certified)?;
    let (mut lines, mut objects) = (Vec::new(), Vec::new());
    for ((name, issued), (serial, known)) in renewed.iter().zip(&certified) {
        issued.replace(dir, name)?;
        let (holder, until) = (&known.holder, time(known.ends));
        lines.push(format!("{}: {holder}, until {until}, serial {serial}", dir.join(format!("{name}.pem")).display()));
        objects.push(json!({ "name": name, "holder": holder, "until": until, "serial": serial.to_string() }));
    }
    lines.extend(skipped.iter().map(|(path, problem)| format!("{} {problem}: not renewed", path.display())));
    let skipped = skipped.iter().map(|(path, problem)| json!({ "file": path, "problem": problem }));
    Ok((lines.join("\n"), json!({ "renewed": objects, "skipped": skipped.collect::<Vec<_>>() })))
}

/// A certificate and key for the names in an existing one, unless it is in the list.
fn again(
    authority: &Authority,
    dir: &Path,
    name: &str,
    revoked: Option<&RevocationList>,
) -> Result<Issued, CertsError> {
    let (path, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    let refused = |problem: String| CertsError::NotRenewable { path: path.clone(), problem };
    let old = fs::read(&path).map_err(|error| refused(format!("can't be read ({error})")))?;
    let old = authority
        .examine(&String::from_utf8_lossy(&old))
        .map_err(|problem| CertsError::Foreign { path: path.clone(), problem })?;
    if revoked.is_some_and(|list| list.entry(&old.serial).is_some()) {
        return Err(CertsError::Revoked(path));
    }
    let subject = old.subject;
    if !key.exists() {
        return Err(CertsError::KeyElsewhere(key));
    }
    let issued = authority.issue(&subject)?;
    if authority.names_in(&issued.certificate_pem).as_ref() != Ok(&subject) {
        return Err(refused("can't be replaced by one with the same names that verifies".to_owned()));
    }
    Ok(issued)
}

fn stem(name: &str) -> Result<String, String> {
    if name.is_empty() || name.contains('/') || name == "ca" {
        return Err("give the name of a certificate's file without .pem, such as node-1, and not ca".to_owned());
    }
    Ok(name.strip_suffix(".pem").unwrap_or(name).to_owned())
}
