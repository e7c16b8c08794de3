//! `playground`: a simulated cluster on the live page, for readers of the Raft paper. The nodes are
//! those of `quorate-world`: the rules of Raft that real nodes run, with simulated disks, clocks and
//! links. Time can stand, go in single steps, and go back.
//!
//! - `simulation`: the cluster and its time: one step is one delivery, timer or write;
//!   `deeds`: what is done to it.
//! - `scenarios`: clusters with a story that the paper tells; `stages`: how each goes on.
//! - `news`: what happened in a step, as events of a node; `words`: messages and steps in words.
//! - `tape`: the simulation with its past, so that it can be rewound; `player`: pace and commands.
//! - `view`: the reports of the nodes for the page, and what the page has for the playground alone.
//! - `server`: the page, its stream and its commands.
//!
//! All but `server` is pure: no clock, no chance but that of a seed.

mod deeds;
mod news;
mod player;
mod scenarios;
mod server;
mod simulation;
mod stages;
mod tape;
#[cfg(test)]
mod tests;
mod view;
mod words;

use crate::{
    demo::open,
    exit::{Exit, Failure},
    output,
};
use player::Player;
use rand::Rng;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The number of nodes; some scenarios have their own
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=7))]
    pub nodes: u64,
    /// The seed of all chance: equal seeds and equal commands show the same
    #[arg(long)]
    pub seed: Option<u64>,
    /// The port of the page on this machine; default: one that is free
    #[arg(long, conflicts_with = "http")]
    pub port: Option<u16>,
    /// The address of the page. All that reach it may use the playground, which has no data
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<SocketAddr>,
}

/// Serves the page until SIGINT or SIGTERM.
///
/// # Errors
/// If the address can't be listened at.
pub async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), args.port.unwrap_or(0));
    let at = args.http.unwrap_or(local);
    let listener = TcpListener::bind(at).await.map_err(|error| {
        Failure::new(
            Exit::Usage,
            format_args!("cannot listen at {at}: {error}; name another address with --http or --port"),
        )
    })?;
    let seed = args.seed.unwrap_or_else(|| rand::rng().random_range(0..100_000));
    let url = format!("http://{}/", listener.local_addr()?);
    match json {
        true => output::line(json!({ "page": url, "seed": seed }))?,
        false => output::line(format_args!("{url} (seed {seed}; Ctrl-C ends the playground)"))?,
    }
    open(&url);
    tokio::select! {
        served = server::serve(listener, Player::new(args.nodes, seed)) => Ok(served?),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}
