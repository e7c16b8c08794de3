//! Nodes of a service for tests: in simulated time ([`nodes`]), and as processes over QUIC
//! ([`processes`]).

pub mod nodes;
pub mod processes;
