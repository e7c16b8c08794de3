//! Tests for storage actors, and a disk for tests.
//!
//! - [`conformance`] is the suite that every storage actor must pass.
//! - [`completions`] has the answers of a storage actor as a queue.
//! - [`SimulatedDisk`] is a disk in memory that loses, tears, flips and fails on demand.
//! - [`LossyLog`] is a store in memory that loses payloads and snapshots on demand.
//! - [`decoding`] has properties of the log's decoders that hold for files of any bytes.

pub mod completions;
pub mod conformance;
pub mod decoding;
mod lossy;
mod simulated;

pub use lossy::LossyLog;
pub use simulated::{Crash, Operation, SimulatedDisk};
