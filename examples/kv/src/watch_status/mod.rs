//! `status --watch`: the cluster in a terminal, with the facts and sentences of the live page; lines
//! if the output is no terminal.
//!
//! - [`page`]: the page as the server sends it; [`facts`]: the facts that a stream has told.
//! - [`screen`] and [`nodes`]: facts become a buffer; [`lines`]: changes become lines. These are
//!   pure, and time is an argument.
//! - [`terminal`]: the terminal, its keys, and its state afterwards.

mod facts;
#[cfg(test)]
mod fixtures;
mod lines;
mod nodes;
mod page;
mod screen;
mod terminal;
mod words;

use crate::{
    client::{Client, ClientError, Live, LiveNews},
    exit::Failure,
    output,
};
use facts::{Change, Facts};
use std::{
    env,
    io::{self, IsTerminal},
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// Shows the cluster until a key or a signal ends it, or prints lines until their reader leaves.
///
/// # Errors
/// If no endpoint answers at first, a node refuses the caller, or the terminal fails.
pub(crate) async fn run(client: Client, json: bool) -> Result<(), Failure> {
    let live = Live::open(client).await?;
    let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    if !json && !is_dumb && io::stdout().is_terminal() {
        return terminal::show(live).await;
    }
    print(live, json).await
}

async fn print(mut live: Live, json: bool) -> Result<(), Failure> {
    let (began, mut facts) = (Instant::now(), Facts::of(live.endpoint()));
    loop {
        let news = live.next().await?;
        for change in take(&mut facts, &mut live, news, began.elapsed())? {
            let wall = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            let line = match json {
                true => lines::json(&change, &facts, &wall).to_string(),
                false => lines::text(&change, &facts, &wall),
            };
            // It would go on for ever, after `head` for example has ended.
            if !output::part(format!("{line}\n").as_bytes())? {
                return Ok(());
            }
        }
    }
}

/// Takes a step of the stream, which learns the addresses of the members.
fn take(facts: &mut Facts, live: &mut Live, news: LiveNews, now: Duration) -> Result<Vec<Change>, ClientError> {
    let unreadable = |cause| ClientError::Unreadable { endpoint: live.endpoint(), cause };
    let changes = facts.take(news, now).map_err(unreadable)?;
    live.learn(&facts.addresses());
    Ok(changes)
}
