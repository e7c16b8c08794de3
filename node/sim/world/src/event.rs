//! What can happen to a world.

use super::{
    disk::{Fault, Torn},
    node::Actor,
};
use quorate_raft::{Change, Index, NodeId, ReadToken};

/// What can happen.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The message at this place on the wire arrives.
    Deliver(usize),
    /// It arrives and stays on the wire, to arrive again.
    Repeat(usize),
    /// It is lost.
    Drop(usize),
    /// An actor of a node handles its next task.
    Act(NodeId, Actor),
    /// A node's `Consensus` hears what an actor told it.
    Listen(NodeId, Actor),
    /// A node's election timer goes off.
    Timeout(NodeId),
    /// A node's pre-vote is won, whatever its voters would say: a pre-vote promises nothing.
    WinPreVote(NodeId),
    /// A leader's heartbeats are due; what was under way for too long counts as lost.
    Heartbeat(NodeId),
    /// A client gives a leader this many commands.
    Propose(NodeId, u64),
    /// An operator asks a leader for a change of the members.
    Change(NodeId, Change),
    /// An operator asks a leader to hand over, to this node or to the best.
    HandOver(NodeId, Option<NodeId>),
    /// A client asks a node to read.
    Read(NodeId, ReadToken),
    /// The same, and its lease will do.
    ReadByLease(NodeId, ReadToken),
    /// A node is to take a snapshot of its state.
    Snapshot(NodeId),
    /// A node's disk has soon no room for entries, or has again.
    Full(NodeId, bool),
    /// A node that is down loses the payload of an entry.
    Lose(NodeId, Index, Fault),
    /// A node that is down loses its snapshot.
    LoseSnapshot(NodeId),
    /// A node loses everything but its disk; the write under way may be torn.
    Crash(NodeId, Option<Torn>),
    /// It starts again.
    Restart(NodeId),
    /// A millisecond passes.
    Wait,
}
