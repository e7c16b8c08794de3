//! `certs list`: the certificates that an authority issued, with their serials, and its revocation
//! list.

use super::{CertsError, issued, revoke::summary, time};
use quorate::transport::certificates::{Authority, LIST_FILE};
use serde_json::{Value, json};
use std::{path::PathBuf, time::SystemTime};

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The directory with the authority
    #[arg(long)]
    dir: PathBuf,
}

/// Lists; returns the result for people and for machines.
///
/// # Errors
/// If the directory has no authority, or one of its files can't be read.
pub(super) fn run(args: &Args) -> Result<(String, Value), CertsError> {
    let dir = &args.dir;
    let authority = Authority::load(dir)?;
    let all = issued::all(dir, &authority)?;
    let list = authority.revocation_list(dir)?;
    let now = SystemTime::now();
    let mut known: Vec<_> = all.by_serial.iter().collect();
    known.sort_by_key(|(_, known)| (&known.holder, known.ends));
    let (mut lines, mut objects) = (Vec::new(), Vec::new());
    for (serial, known) in known {
        let (holder, until) = (&known.holder, time(known.ends));
        let role = holder.split(' ').next();
        let entry = list.as_ref().and_then(|list| list.entry(serial));
        let state = match entry {
            _ if known.ends <= now => "ended",
            Some(_) => "revoked",
            None => "valid",
        };
        let mut line = format!("{serial}: {holder}, until {until}, {state}");
        if let Some(file) = &known.file {
            line.push_str(&format!(", {}", file.display()));
        }
        lines.push(line);
        let revoked = entry.map(|entry| json!({ "at": time(entry.at), "reason": entry.reason.name() }));
        objects.push(json!({
            "serial": serial.to_string(), "holder": holder, "role": role, "until": until, "state": state,
            "revoked": revoked, "file": known.file,
        }));
    }
    let file = dir.join(LIST_FILE);
    lines.push(list.as_ref().map_or_else(
        || format!("{}: none, so nothing is revoked; `certs crl` makes one", file.display()),
        |list| summary(&file, list),
    ));
    lines.extend(all.foreign.iter().map(|(path, problem)| format!("{} {problem}", path.display())));
    let skipped = all.foreign.iter().map(|(path, problem)| json!({ "file": path, "problem": problem }));
    let skipped: Vec<_> = skipped.collect();
    let crl = list.map(|list| json!({ "file": file, "number": list.number, "next_update": time(list.next_update) }));
    Ok((lines.join("\n"), json!({ "certificates": objects, "crl": crl, "skipped": skipped })))
}
