//! How nodes talk: the seam at which the network can be swapped, and two networks behind it.
//!
//! - [`network`] is the seam: what a network owes its node, and what a node owes its network.
//! - [`quic`] talks across machines: QUIC with mutual TLS.
//! - [`memory`] talks within a process, and goes wrong on demand, under a seed.
//! - [`conformance`] is what any network must pass.
//! - [`codec`] says how messages lie on the wire; [`identity`] who a certificate speaks for; [`certificates`] makes some.
//!
//! This crate moves messages and proves who sent them. It never decides anything about Raft: of a message it knows the
//! shape, whether it is a reply, and on which lane it belongs.
#![forbid(unsafe_code)]

pub mod certificates;
pub mod codec;
pub mod conformance;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod decoding;
pub mod identity;
pub mod memory;
pub mod network;
pub mod quic;

pub use memory::{Faults, LinkFaults, MemoryNetwork};
pub use network::{Introduction, Link, Links, Network, NetworkContext, NetworkError, NetworkObserver};
pub use quic::{Quic, QuicOptions};
