#![allow(unreachable_pub, reason = "each test binary uses its own part")]

pub const CLUSTER: &str = "testing";

/// Runs a test with paused time, which advances when every task waits.
pub fn run_paused<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}
