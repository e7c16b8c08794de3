//! Tests for networks.
//!
//! - [`conformance`] is the suite that every network must pass.
//! - [`decoding`] has properties of the codec that hold for any bytes.
#![forbid(unsafe_code)]

pub mod conformance;
pub mod decoding;
