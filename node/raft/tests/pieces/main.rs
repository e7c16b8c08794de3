//! The small pieces alone: each compared with a brute-force twin that is obviously right, or
//! exposed to every possible input.

mod ballot;
mod log;
mod membership;
mod progress;
mod quorum;
mod reads;
mod record;
mod replication;
mod session;
mod snapshot_transfer;
mod tick;
