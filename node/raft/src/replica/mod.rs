//! One node's Raft.

use crate::{
    ids::{Index, NodeId, Term},
    message::Outgoing,
    record::Batch,
};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What must survive a crash besides the log (paper, Figure 2: persistent state).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term this node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
}

/// What the storage makes durable, in this order: truncate, append, hard state; then `then` may leave.
///
/// "Persist, then speak": a reply that needs durability travels inside the request to persist, so that nobody keeps a
/// table of pending replies and nobody can get the order wrong. An empty one (nothing but `then`) is a reply that must
/// not overtake the writes before it.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Persist {
    /// Counts up by one a request; a completion names the highest one that is durable.
    pub sequence: u64,
    /// Remove the entries from here on first.
    pub truncate_from: Option<Index>,
    /// Then append these.
    pub batch: Option<Batch>,
    /// Then store this term and vote.
    pub hard_state: Option<HardState>,
    /// What may be said once all of it is durable.
    pub then: Vec<Outgoing>,
}
