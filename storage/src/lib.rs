//! The durable log.
pub mod contract;
