//! How nodes talk.
pub mod network;
