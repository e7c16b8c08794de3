//! Whole nodes under test, and the fixtures around them.
//!
//! - [`Cluster`]: nodes over one in-memory network, on one thread with simulated time, or on
//!   threads of their own.
//! - [`Journal`]: a state machine that remembers its commands; [`Ledger`]: the answers to callers,
//!   checked against journals.
//! - [`Puppet`]: a peer that sends the messages that a test scripts.
//! - [`Recorder`] and [`Interposed`]: a network and a storage that can be watched, and
//!   fail on request.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test binary uses its own part")]

mod cluster;
mod interposed;
mod journal;
mod ledger;
mod puppet;
mod recorder;

pub use cluster::{Cluster, Plan, View};
pub use interposed::{Interposed, Seen, Tap, Verdict};
pub use journal::Journal;
pub use ledger::Ledger;
pub use puppet::{Puppet, matched};
pub use recorder::{Record, Recorder};

use std::{future::Future, pin::Pin, task::Poll, time::Duration};

pub const CLUSTER: &str = "testing";

/// The time that a test waits for any event. Simulated seconds cost nothing.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on one thread with simulated time, which passes only while all tasks wait.
pub fn simulate<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// Runs a test of nodes with their own threads, on an ordinary runtime.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(test)
}

/// Waits for an event that must happen, and fails with its name if it does not.
pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Timings for nodes with their own threads, which share the processors with other programs:
/// elections may take longer.
pub fn relaxed() -> quorate::Timing {
    let ms = Duration::from_millis;
    quorate::Timing::default().with_election_timeout((ms(600), ms(1200))).with_leader_wait(Duration::from_secs(5))
}

/// Polls a future a single time.
pub async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let mut future = Pin::new(future);
    std::future::poll_fn(|wake| Poll::Ready(future.as_mut().poll(wake))).await
}

/// The seeds to try: `count`, or as many as the environment variable `SEEDS` says, to
/// find rare failures.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let wanted = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    0..wanted.unwrap_or(count)
}
