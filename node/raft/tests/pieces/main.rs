//! The small pieces alone: each against a dumb twin that is obviously right, or against everything that can be done to it.

mod ballot;
mod log;
mod membership;
mod progress;
mod quorum;
mod reads;
mod record;
mod replication;
mod session;
mod transfer;
