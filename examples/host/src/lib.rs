//! The `main` of the example services: a node from a TOML file, and the command line of its clients.
//!
//! Clients reach a node through a Unix socket in its data directory, which is closed to other users
//! of the machine. A connection has one request, a line of words, and the lines of its answer
//! ([`Line`]); a client that closes its side is not answered any more.

mod client;
mod server;

pub use client::{Asking, Line, ask};
pub use server::WATCHES_MAX;

use quorate::{Builder, Index, Serve, Service, ServiceNode, Topics};
use serde::de::DeserializeOwned;
use std::{error::Error, process::ExitCode, time::Duration};

/// The time for a command to be accepted by a leader, for a query to be answered, and for a
/// change that a request waits for.
pub const WITHIN: Duration = Duration::from_secs(5);

/// The reason why a request has no answer.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The front of a service: its requests as words, its answers and events as text.
pub trait Front: Send + Sync + 'static {
    /// The service that it hosts.
    type Service: Service;
    /// The table `service` of the configuration file, which may be absent.
    type Settings: DeserializeOwned + Default;

    /// The forms of the command line: those of the program, then the requests. `leader` is
    /// answered for every service.
    const USAGE: &'static str;
    /// The most bytes of a request, with its line feed.
    const LINE_MAX: u64 = 1024;

    /// Hosts the service.
    fn serve(&self, builder: Builder, settings: Self::Settings) -> Serve<Self::Service>;

    /// Answers a request. Its errors are the client's exit code 2; a request in another form than
    /// [`Front::USAGE`] has is one. Dropped after 10 s.
    fn answer(
        &self,
        node: &ServiceNode<Self::Service>,
        words: &[&str],
    ) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// An event as a line of a watch.
    fn show(&self, topic: &str, event: &<Self::Service as Service>::Event) -> String;
}

/// The answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// The request is fulfilled: the client's exit code is 0. It may have several lines.
    Yes(String),
    /// It is not, though nothing failed: the client's exit code is 1.
    No(String),
    /// The events after this index, or from now on, a line each with its index, until the client
    /// leaves or the watch ends. An error if the node has [`WATCHES_MAX`] already.
    Watch(Topics, Option<Index>),
}

/// Runs the program by its arguments: `--config FILE` is a node, `DATA_DIRECTORY REQUEST` a client.
pub async fn main<F: Front>(front: F) -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let done = match &words[..] {
        [flag, file] if flag == "--config" => server::serve(front, file).await.map(|()| ExitCode::SUCCESS),
        [data, request @ ..] if !request.is_empty() && !data.starts_with('-') => {
            client::print(data, request, F::LINE_MAX).await
        }
        _ => Err(F::USAGE.into()),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}
