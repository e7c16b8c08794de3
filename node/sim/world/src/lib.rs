//! A simulated cluster of the pure pieces, for tests and simulations: every message between nodes,
//! and every message between the actors of one node, is an event that the caller delivers, delays,
//! drops or repeats.
//!
//! - [`world`]: the nodes and the wire between them, with the operations on both.
//! - [`event`]: the events; [`rules`]: settings of nodes, and the checks after every step.
//! - [`node`]: one node: the replica and the pieces beside it, wired up as a runtime wires them.
//! - [`words`]: the messages between its actors; [`queues`]: those that wait.
//! - `replicator`: one peer's replication, with its queues.
//! - [`disk`]: the durable state of a node.
//! - [`clock`]: the time, as one node sees it.
//! - [`story`]: the steps of scenarios.
//! - `checks`: runs the checks after each step; [`witness`]: the safety properties; [`watch`]: the
//!   same for the changes of a step.
//! - `judge`: checks of how a node takes a message, and of when it may serve reads.
//! - `outside`: checks of messages from outside the configuration.
//! - [`quorum`]: quorums, counted apart from the rules.
//! - [`digest`]: digests of states and messages.
//! - [`make`]: builders of test data.
//!
//! The caller chooses the next event; nothing here does.

mod checks;
pub mod clock;
pub mod digest;
pub mod disk;
pub mod event;
mod judge;
pub mod make;
pub mod node;
mod outside;
pub mod queues;
pub mod quorum;
mod replicator;
pub mod rules;
pub mod story;
pub mod watch;
pub mod witness;
pub mod words;
pub mod world;
