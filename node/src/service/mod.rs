//! The typed layer: a service in one file, on a [`StateMachine`](crate::StateMachine).
//!
//! The pure pieces stand first: each is a part of the replicated state and its rules, with the time
//! and the bounds as arguments, no clock, no channel, no actor.
//!
//! - [`envelope`]: the bytes of a command and of its outcome, and the verdict on bytes;
//!   [`internal`]: the bytes of the layer's own entries.
//! - [`timers`]: the pending timers.
//! - [`outbox`]: the effects that are to be performed; [`performer`]: which one is performed when.
//! - [`history`]: the latest events, by entry.
//! - [`windows`]: the comparison of replicas; `comparing`: one node's part in it.
//! - [`tables`]: all of these together, with the output of the entry that is being applied and its
//!   [`trace`]; the layout in snapshots.
//!
//! On them stands what an author sees: `interface` and `context`, and `hosted`, the machine that
//! joins the author's code with the tables. `call`, `watch` and `serve` are the node's side; `hub`
//! publishes the history to the watches of a node. `effects` has the author's handler, which
//! `performing` calls; `leaderships` tells a node's tasks when it leads.

mod call;
mod comparing;
mod context;
mod effects;
mod encoding;
#[doc(hidden)]
pub mod envelope;
mod errors;
#[doc(hidden)]
pub mod history;
mod hosted;
mod hub;
mod interface;
#[doc(hidden)]
pub mod internal;
#[doc(hidden)]
pub mod layout;
mod leaderships;
#[doc(hidden)]
pub mod outbox;
#[doc(hidden)]
pub mod performer;
mod performing;
mod random;
mod serve;
mod state;
#[doc(hidden)]
pub mod tables;
#[doc(hidden)]
pub mod timers;
#[doc(hidden)]
pub mod trace;
mod watch;
#[doc(hidden)]
pub mod windows;

pub use call::{Ask, Call, ServiceNode};
pub use context::{Cause, Context, Token};
pub use effects::{Perform, Retry, Ticket};
pub use errors::{CallError, QueryError, Refused};
pub use history::{Changes, Published, Topics};
pub use hosted::Hosted;
pub use interface::{Message, Never, Service};
pub use leaderships::LeaderTask;
pub use outbox::{EffectId, OutboxFull};
pub use random::Random;
pub use serve::Serve;
pub use state::State;
pub use watch::{Watch, WatchError, Watching};
