//! Whole nodes under test, and what can be put around them.
//!
//! - [`Cluster`]: nodes over one in-memory network, on one thread with simulated time, or on threads of their own.
//! - [`Journal`]: the state machine that remembers; [`Ledger`]: what callers were told, checked against journals.
//! - [`Puppet`]: a peer that says exactly what a test wants said.
//! - [`Recorder`] and [`Interposed`]: a network and a storage that can be watched, and fail when told to.
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
pub use puppet::Puppet;
pub use recorder::{Record, Recorder};

use std::{future::Future, pin::Pin, task::Poll, time::Duration};

pub const CLUSTER: &str = "testing";

/// How long anything may take that a test waits for. Simulated seconds cost nothing.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on one thread, where time stands still until everybody waits for it.
pub fn simulate<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// Runs a test whose nodes have threads of their own, on an ordinary runtime.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(test)
}

/// Waits for what must happen, and says so if it does not.
pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// For nodes with threads of their own, which share the processors with whatever else runs: elections take their time.
pub fn relaxed() -> quorate::Timing {
    let ms = Duration::from_millis;
    quorate::Timing {
        election_timeout: (ms(600), ms(1200)),
        leader_wait: Duration::from_secs(5),
        ..quorate::Timing::default()
    }
}

/// Looks at a future once.
pub async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let mut future = Pin::new(future);
    std::future::poll_fn(|wake| Poll::Ready(future.as_mut().poll(wake))).await
}

/// Seeds to try: so many, or as many as the environment variable `SEEDS` says, to look for what is rare.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let wanted = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    0..wanted.unwrap_or(count)
}
