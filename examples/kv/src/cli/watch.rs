//! `watch`: the changes of keys, as they happen.

use super::connection::Connection;
use crate::{
    client::{WatchRequest, Watched},
    exit::Failure,
    http::messages::{KeyChange, WatchAnswer},
    octets::Octets,
    output,
};
use quorate::Index;
use serde_json::json;
use std::fmt::Write;

/// The keys, and the part of their changes to print.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The key to watch
    #[arg(required_unless_present = "prefix")]
    key: Option<String>,
    /// Watch all keys that begin with this; all keys if it is empty
    #[arg(long, conflicts_with = "key")]
    prefix: Option<String>,
    /// Begin after this index, of a listing or of an earlier watch, instead of now
    #[arg(long, value_name = "N")]
    after: Option<u64>,
    /// Stop once this number of changes is printed; those of one entry are not divided
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

/// Prints a line for each change: index, kind, key and value; with `json`, one for each entry. It
/// goes on at another endpoint when one fails, and ends with `gone` if it misses changes.
pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let Args { key, prefix, after, limit, connection } = args;
    let watched = match key {
        Some(key) => Watched::Key(key),
        None => Watched::Prefix(prefix.unwrap_or_default()),
    };
    let (mut client, mut printed) = (connection.client()?, 0);
    let mut watching = client.watch(WatchRequest { watched, after: after.map(Index) }).await?;
    while limit.is_none_or(|limit| printed < limit) {
        let answer = watching.next().await?;
        printed += answer.changes.len() as u64;
        let lines = if json { format!("{}\n", json!(answer)) } else { lines(&answer) };
        // It would go on for ever, after `head` for example has ended.
        if !output::part(lines.as_bytes())? {
            return Ok(());
        }
    }
    Ok(())
}

fn lines(answer: &WatchAnswer) -> String {
    let mut lines = String::new();
    for change in &answer.changes {
        let (kind, key, value) = match change {
            KeyChange::Put { key, value: Some(value), .. } => ("put", key, format!("\t{value}")),
            KeyChange::Put { key, .. } => ("put-long", key, String::new()),
            KeyChange::Delete { key } => ("delete", key, String::new()),
            KeyChange::Expire { key } => ("expire", key, String::new()),
        };
        let key = Octets(bytes::Bytes::copy_from_slice(key.as_bytes()));
        let _ = writeln!(lines, "{}\t{kind}\t{key}{value}", answer.index);
    }
    lines
}
