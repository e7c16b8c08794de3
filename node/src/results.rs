//! The results of requests to a [`Node`](crate::Node), and the promises that a read can ask for.

use bytes::Bytes;
use quorate_raft::Index;
use std::time::Duration;

/// A command that was committed and applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied<R = Bytes> {
    /// The index of its log entry.
    pub index: Index,
    /// What [`StateMachine::apply`](crate::StateMachine::apply), or that of a service, returned on the
    /// leader.
    pub reply: R,
}

/// A snapshot that is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotTaken {
    /// The last index that it covers; 0 if nothing was ever applied, and no snapshot was taken.
    pub index: Index,
}

/// Members that were changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MembersChanged {
    /// The index of the configuration in force, which is committed: for
    /// [`Change::expecting`](crate::Change::expecting).
    pub index: Index,
}

/// The result of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read<T> {
    /// The last index in the state that the query read.
    pub index: Index,
    /// The value that the query returned.
    pub value: T,
}

/// The promise of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consistency {
    /// Sees every write that was acknowledged to any caller before the read began. Costs a
    /// round of heartbeats, shared by all reads that wait (read index, Ongaro's thesis §6.4);
    /// served by any node.
    Linearizable,
    /// The same, if the clocks of no two nodes drift apart by more than
    /// [`Timing::clock_drift_max`](crate::Timing::clock_drift_max), and clocks count the time for
    /// which a machine is suspended (Linux; not a virtual machine that its host freezes). The
    /// leader answers by its lease, without a message to other nodes, and on the caller's own thread
    /// if the machine offers a [view](crate::StateMachine::view); reads by lease keep the lease alive
    /// (thesis §6.4.1). Another node asks the leader.
    Lease,
    /// Sees what this node has applied, however old that is. Costs nothing.
    Local,
    /// Sees what this node has applied, if the node can prove that it is not too old, by its own
    /// clock. Otherwise the node asks the leader first, and if no answer comes in time the read is
    /// refused with [`ReadError::TooStale`](crate::ReadError::TooStale). A read that waits for its
    /// proof is refused within a heartbeat interval after its answer could only come too late.
    Bounded {
        /// At a moment between the call and its answer, the read misses nothing that was committed
        /// longer ago than this. It costs a message to the leader only if this node answered no
        /// linearizable or bounded read within that time.
        max_age: Option<Duration>,
        /// The read misses at most this many of the entries that were committed when the node last
        /// asked the leader: at most `max_age` ago or, without that, for this very read.
        max_entries: Option<u64>,
    },
}
