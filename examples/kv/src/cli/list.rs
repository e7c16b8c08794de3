//! `list`: all pages of a listing, or as many as are asked for.

use super::connection::Connection;
use crate::{
    client::{ListRequest, ListState, ReadBounds, ReadMode},
    exit::{Exit, Failure},
    http::LIMIT_MAX,
    output,
};
use quorate::Index;
use serde_json::json;
use std::fmt::Write;

/// The range, and how much of it to print.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only keys that begin with this
    #[arg(long, conflicts_with_all = ["start", "end"])]
    prefix: Option<String>,
    /// Only keys from this one
    #[arg(long, value_name = "KEY")]
    start: Option<String>,
    /// Only keys before this one
    #[arg(long, value_name = "KEY")]
    end: Option<String>,
    /// Only keys after this one: goes on with an earlier listing
    #[arg(long, value_name = "KEY")]
    after: Option<String>,
    /// The state at this index, which an earlier listing showed; needs the same endpoint
    #[arg(long, value_name = "N", conflicts_with_all = ["read", "max_age", "max_entries"])]
    index: Option<u64>,
    /// Stop after this number of keys
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Print keys only
    #[arg(long)]
    keys: bool,
    /// The consistency of the read
    #[arg(long, default_value_t, value_enum)]
    read: ReadMode,
    #[command(flatten)]
    bounds: ReadBounds,
    #[command(flatten)]
    connection: Connection,
}

/// Prints page by page: lines, or with `json` the pages as the server answers them. All are of the
/// state of the first one; if that is lost on the way, the listing fails with `gone`.
pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let Args { prefix, start, end, after, index, limit, keys, read, bounds, connection } = args;
    let state = index.map_or(ListState::Current(read, bounds), |index| ListState::Kept(Index(index)));
    let mut page = ListRequest { prefix, start, end, after, limit: None, keys_only: keys, state };
    let (mut client, mut left) = (connection.client()?, limit);
    loop {
        page.limit = left.map(|left| usize::try_from(left).unwrap_or(usize::MAX).min(LIMIT_MAX));
        let answer = client.list(&page).await?;
        if json {
            output::line(json!(answer))?;
        } else {
            let mut lines = String::new();
            for pair in &answer.pairs {
                let value = pair.value.as_ref().map_or(String::new(), |value| format!("\t{value}"));
                let _ = writeln!(lines, "{}{value}", pair.key);
            }
            output::bytes(lines.as_bytes())?;
        }
        left = left.map(|left| left.saturating_sub(answer.pairs.len() as u64));
        let Some(last) = answer.pairs.last().filter(|_| answer.more && left != Some(0)) else { return Ok(()) };
        let Ok(key) = std::str::from_utf8(&last.key.0) else {
            let problem = format_args!("the key {} is not text; list the keys after it with --start", last.key);
            return Err(Failure::new(Exit::Failed, problem));
        };
        (page.after, page.state) = (Some(key.to_owned()), ListState::Kept(answer.index));
    }
}
