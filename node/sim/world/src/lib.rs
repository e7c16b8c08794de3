//! A whole cluster made of the pure pieces, for tests: every message between nodes, and every message between the
//! actors of one node, is an event that a test delivers, delays, drops or repeats as it likes.
//!
//! - [`world`]: the nodes, what is on the wire, and what tests may do to both.
//! - [`node`]: one node: the replica and the pieces beside it, wired up as a runtime wires them.
//! - [`replicator`]: one peer's, and what it tells.
//! - [`disk`]: what survives a crash.
//! - [`story`]: what scenarios say.
//! - [`witness`]: what must hold, checked after every step.
//! - [`digest`]: what tells states apart.
//! - [`make`]: small builders.

#![allow(missing_docs)]

pub mod digest;
pub mod disk;
pub mod make;
pub mod node;
pub mod replicator;
pub mod story;
pub mod witness;
pub mod world;
