//! Communication between nodes: the seam at which the network can be replaced, and two networks.
//!
//! - [`network`] is the seam: the duties of a network to its node.
//! - [`quic`] connects machines: QUIC with mutual TLS.
//! - [`memory`] connects nodes of one process.
//! - [`codec`] has the layout of messages on the wire; [`identity`] reads the role in a
//!   certificate; [`certificates`] makes certificates.
//!
//! `quorate-transport-testing` has the suite that every network must pass, and a network with
//! faults.
//!
//! This crate moves messages and proves their senders. It decides nothing about Raft: of a message
//! it knows the form, whether it is a reply, and its lane.
#![forbid(unsafe_code)]

pub mod certificates;
pub mod codec;
pub mod identity;
pub mod memory;
pub mod network;
pub mod quic;

pub use memory::MemoryNetwork;
pub use network::{Introduction, Link, Links, Network, NetworkContext, NetworkError, NetworkObserver};
pub use quic::{Quic, QuicOptions, Reloader};
