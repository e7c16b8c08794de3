//! Decisions of `Consensus` beside the rules of Raft: an event, the time and a view of the node go
//! in, a decision comes out, and the actor carries it out.
//!
//! - Commands of clients: [`proposals`], with [`routing`], [`request_ids`] and [`large_commands`].
//! - Reads: [`reads`], [`freshness`].
//! - Members and leadership: [`membership_change`], [`automatic`].
//! - The rest of a node's life: [`snapshot_policy`], [`stopping`].

pub(crate) mod automatic;
pub(crate) mod callers;
pub(crate) mod freshness;
pub(crate) mod large_commands;
pub(crate) mod membership_change;
pub(crate) mod proposals;
pub(crate) mod reads;
pub(crate) mod request_ids;
pub(crate) mod routing;
pub(crate) mod snapshot_policy;
pub(crate) mod stopping;
