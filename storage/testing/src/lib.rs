//! Tests for storage actors, and a disk for tests.
//!
//! - [`conformance`] is the suite that every storage actor must pass.
//! - [`SimulatedDisk`] is a disk in memory that loses, tears, flips and fails on demand.

pub mod conformance;
mod simulated;

pub use simulated::{Crash, Operation, SimulatedDisk};
