//! Tests for networks, and a network for tests.
//!
//! - [`conformance`] is the suite that every network must pass.
//! - [`FaultNetwork`] is the in-memory network with [`Faults`]: cuts, loss, delay, repetition,
//!   reordering and damage on demand, under a seed. [`FaultyEndpoint`] adds them to any network.
//! - [`fate`] is the pure model of these faults, which the simulated worlds of `node/sim` share.
//! - [`decoding`] has properties of the codec that hold for any bytes.
#![forbid(unsafe_code)]

pub mod conformance;
pub mod decoding;
pub mod fate;
mod fault_network;
mod faults;

pub use fate::LinkFaults;
pub use fault_network::{FaultNetwork, FaultyEndpoint};
pub use faults::Faults;
