//! The events of a world.

use super::{
    disk::{Fault, Torn},
    node::Actor,
};
use quorate_raft::{Change, Index, NodeId, ReadToken};

/// An event, chosen by the caller. Places on the wire count from 0.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The message at this place on the wire arrives.
    Deliver(usize),
    /// The message arrives and stays on the wire, to arrive again.
    Repeat(usize),
    /// The message is lost.
    Drop(usize),
    /// An actor of a node handles its next task.
    Act(NodeId, Actor),
    /// A node's `Consensus` handles the next message of an actor.
    Listen(NodeId, Actor),
    /// A node's election timer expires.
    Timeout(NodeId),
    /// A node's pre-vote is won, whatever its voters would say: a pre-vote promises nothing.
    WinPreVote(NodeId),
    /// A leader's heartbeats are due; messages under way for too long count as lost.
    Heartbeat(NodeId),
    /// A client gives a leader this many commands.
    Propose(NodeId, u64),
    /// An operator asks a leader for a change of the members.
    Change(NodeId, Change),
    /// An operator asks a leader for a leadership transfer, to this node or to the best one.
    HandOver(NodeId, Option<NodeId>),
    /// A client asks a node to read.
    Read(NodeId, ReadToken),
    /// The same, where a lease suffices.
    ReadByLease(NodeId, ReadToken),
    /// A node is to take a snapshot of its state.
    Snapshot(NodeId),
    /// A node's disk is about to be full (true), or has room again (false).
    Full(NodeId, bool),
    /// A node that is down loses the payload of an entry.
    Lose(NodeId, Index, Fault),
    /// A node that is down loses its snapshot.
    LoseSnapshot(NodeId),
    /// A node loses everything but its disk; the write under way may be torn.
    Crash(NodeId, Option<Torn>),
    /// A node that is down starts again.
    Restart(NodeId),
    /// A millisecond passes.
    Wait,
}
