//! The typed layer: a service in one file, on a [`StateMachine`](crate::StateMachine).
//!
//! The pure pieces stand first: each is a part of the replicated state and its rules, with the time
//! and the bounds as arguments, no clock, no channel, no actor.
//!
//! - [`envelope`]: the bytes of a command and of its outcome, and the verdict on bytes.
//! - [`timers`]: the pending timers.
//! - [`outbox`]: the effects that are to be performed; [`performer`]: which one is performed when.
//! - [`history`]: the latest events, by entry.
//! - [`windows`]: the comparison of replicas.

#[doc(hidden)]
pub mod envelope;
#[doc(hidden)]
pub mod history;
#[doc(hidden)]
pub mod layout;
#[doc(hidden)]
pub mod outbox;
#[doc(hidden)]
pub mod performer;
#[doc(hidden)]
pub mod timers;
#[doc(hidden)]
pub mod windows;
