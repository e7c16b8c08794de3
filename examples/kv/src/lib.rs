//! A replicated key-value server on [Quorate](quorate): a complete service to read, to run and
//! to test with.
//!
//! - [`machine`] is the replicated state; [`serve`] runs it as a node, and [`http`] is
//!   the client interface;
//! - [`config`] is a node's configuration, `reload` its credentials, which may change while it runs,
//!   [`certs`] makes certificates;
//! - [`client`] and [`cli`] are the client side, `watch_status` the cluster in a terminal; [`backup`] saves a copy of the state, [`restore`]
//!   and [`recover`] start a new cluster from a backup or from surviving directories, [`discard`]
//!   cuts a torn write from the end of a single voter's log;
//! - [`cluster`] runs nodes as processes of this machine, and [`load`] writes to them, for [`demo`]
//!   and for tests;
//! - [`playground`] shows a simulated cluster on the live page.

pub mod backup;
pub mod certs;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
mod counted_disk;
pub mod demo;
pub mod descriptors;
pub mod discard;
mod environment;
pub mod exit;
mod host;
pub mod http;
pub mod live;
pub mod load;
mod logging;
pub mod machine;
mod object;
pub mod octets;
mod output;
pub mod playground;
pub mod recover;
mod reload;
pub mod restore;
pub mod serve;
mod watch_status;
