//! A replicated key-value server on [Quorate](quorate): a complete service to read, to run and to test with.
//!
//! - [`machine`] is the replicated state; [`serve`] makes it a node, and [`http`] is how clients reach it;
//! - [`config`] is what a node is told, [`certs`] how it proves who it is;
//! - [`client`] and [`cli`] are the other side; [`backup`] keeps a copy of the state, [`restore`] and [`recover`] begin a new cluster
//!   with what is left of one, [`discard`] ends a single node's log before a torn write;
//! - [`cluster`] runs nodes as processes of this machine, and [`load`] writes to them, for [`demo`] and for tests.

pub mod backup;
pub mod certs;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod decoding;
pub mod demo;
pub mod descriptors;
pub mod discard;
mod environment;
pub mod exit;
pub mod http;
pub mod load;
mod logging;
pub mod machine;
mod object;
mod output;
pub mod recover;
pub mod restore;
pub mod serve;
