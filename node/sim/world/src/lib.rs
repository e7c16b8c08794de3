//! A whole cluster made of the pure pieces, for tests and simulations: every message between nodes, and every message
//! between the actors of one node, is an event that somebody delivers, delays, drops or repeats as they like.
//!
//! - [`world`]: the nodes, what is on the wire, and what may be done to both.
//! - [`event`]: what can happen; [`rules`]: what all nodes are told.
//! - [`node`]: one node: the replica and the pieces beside it, wired up as a runtime wires them.
//! - [`words`]: what its actors are told, and what they tell.
//! - [`queues`]: what its actors have yet to handle.
//! - [`replicator`]: one peer's, and what it tells.
//! - [`disk`]: what survives a crash.
//! - [`clock`]: what time it is, as one node sees it.
//! - [`story`]: what scenarios say.
//! - `checks`: when it is looked whether what must hold does; [`witness`]: what that is; [`watch`] looks only at what a step changed.
//! - `judge`: how a node takes what it hears, and when it may serve reads.
//! - `outside`: what a message from outside the configuration may bring about.
//! - [`quorum`]: how many are enough, counted apart from the rules.
//! - [`digest`]: what tells states apart.
//! - [`make`]: small builders.
//!
//! It is scheduled from outside: nothing here chooses what happens next.

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
pub mod replicator;
pub mod rules;
pub mod story;
pub mod watch;
pub mod witness;
pub mod words;
pub mod world;
