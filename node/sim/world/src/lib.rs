//! A simulated cluster of the pure pieces, for tests and simulations: every message between nodes,
//! and every message between the actors of one node, is an event that the caller delivers, delays,
//! drops or repeats.
//!
//! - [`world`]: the cluster: its nodes and the wire between them, with the operations on both.
//! - [`nodes`]: the nodes, running or not, and the checks' views of them.
//! - [`events`]: the events; [`rules`]: settings of nodes, and the extent of the checks.
//! - [`node`]: one running node: the replica and the pieces beside it, wired up as a runtime wires
//!   them.
//! - [`queues`]: the messages that wait for its actors.
//! - `replicator`: one peer's replication, with its queues.
//! - [`disk`]: the durable state of a node.
//! - [`clock`]: the time, as one node sees it.
//! - [`scenario`]: the steps of scenarios.
//! - [`oracle`]: the safety properties, with the memory that they need; `step_checks`: runs the
//!   checks after each step.
//! - [`quorum`]: quorums, counted apart from the rules.
//! - [`digest`]: digests of states and messages.
//! - [`fixtures`]: builders of test data.
//!
//! The caller chooses the next event; nothing here does.

pub mod clock;
pub mod digest;
pub mod disk;
pub mod events;
pub mod fixtures;
pub mod node;
pub mod nodes;
pub mod oracle;
pub mod queues;
pub mod quorum;
mod replicator;
pub mod rules;
pub mod scenario;
mod step_checks;
pub mod world;
