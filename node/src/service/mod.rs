//! The typed layer: a service in one file, on a [`StateMachine`](crate::StateMachine).
//!
//! The pure pieces stand first: each is a part of the replicated state and its rules, with the time
//! and the bounds as arguments, no clock, no channel, no actor.
//!
//! - `encoding`: messages in postcard; [`envelope`]: the bytes of a command and of its outcome, and
//!   the verdict on bytes; [`internal`]: the bytes of the layer's own entries.
//! - [`timers`]: the pending timers.
//! - [`outbox`]: the effects that are to be performed; [`performer`]: which one is performed when.
//! - [`history`]: the latest events, by entry.
//! - [`windows`]: the comparison of replicas; `comparing`: one node's part in it.
//! - [`tables`]: all of these together, with the output of the entry that is being applied and its
//!   [`trace`]; [`layout`]: their form in snapshots.
//!
//! On them stands what an author sees: `interface` and `context`, and `hosted`, the machine that
//! joins the author's code with the tables. `call`, `watch` and `serve` are the node's side; `hub`
//! publishes the history to the watches of a node. `effects` has the author's handler, which
//! `performing` calls; `leaderships` tells a node's tasks when it leads.
//!
//! An author finds all of it at the root of the crate. The test kit alone reads the tables here.

pub(crate) mod call;
mod comparing;
pub(crate) mod context;
pub(crate) mod effects;
mod encoding;
pub mod envelope;
pub(crate) mod errors;
pub mod history;
pub(crate) mod hosted;
mod hub;
pub(crate) mod interface;
pub mod internal;
pub mod layout;
pub(crate) mod leaderships;
pub mod outbox;
pub mod performer;
pub mod performing;
pub(crate) mod random;
pub(crate) mod serve;
pub(crate) mod state;
pub mod tables;
pub mod timers;
pub mod trace;
pub(crate) mod watch;
pub mod windows;
