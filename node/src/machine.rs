//! What a user brings.

use bytes::Bytes;
use quorate_raft::Index;

/// The service that is replicated: the one trait that a user implements.
///
/// Every node applies the same commands in the same order to its own copy, so all copies are equal as long as `apply` is
/// deterministic: no clock, no randomness, no I/O whose result matters, no iteration order of a hash map.
///
/// It lives on a thread of its own, where it may take its time; consensus goes on meanwhile.
pub trait StateMachine: Send + 'static {
    /// Applies the committed command at `index` and returns the reply for whoever proposed it.
    ///
    /// Indexes rise, with gaps: the log has entries of Raft's own. After a restart commands are applied again, from the
    /// beginning of the log, to the machine that the node was started with.
    ///
    /// Copy what is kept: `command` is a part of a much larger buffer. A panic here stops the node.
    fn apply(&mut self, index: Index, command: &[u8]) -> Bytes;
}
