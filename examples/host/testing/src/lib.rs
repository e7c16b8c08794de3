//! Nodes of a service for tests: in simulated time ([`nodes`]), as processes over QUIC
//! ([`processes`]), and through kills of the leader, again and again ([`kills`]).

pub mod kills;
pub mod nodes;
pub mod processes;
