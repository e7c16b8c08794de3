//! Raft as pure rules.
//!
//! This crate decides; it never acts. It has no clock (`now` is an argument), no randomness, no I/O, no threads and
//! no hash maps, and the compiler proves most of that: `no_std`, no unsafe code, and no dependency beyond `serde` and
//! `bytes`. So the same rules that run a node can be explored exhaustively, simulated by the million, and read beside
//! the paper (Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm*, extended version).
//!
//! Read it in this order:
//!
//! 1. [`ids`], [`record`], [`session`] and [`message`]: the words.
//! 2. [`membership`] and [`quorum`]: who decides, and how many are enough.
//!    [`change`]: how the members change.
//! 3. [`replica`]: one node's term, vote, log and role, and every rule that changes them.
//! 4. [`snapshot`]: what takes the place of a log's beginning.
//! 5. [`ballot`], `replication` and [`reads`]: the small machines beside it: one campaign, one peer, the waiting reads.
//!    A replication is made of [`progress`], the peer's log, and [`transfer`], a snapshot on its way to it.
//!    [`lease`]: when a leader need not ask whether it still leads, and why.
//! 6. [`invariants`]: what must hold whatever happens; tests check it after every step. [`mutants`]: bugs that only a build made
//!    to be tested has, to see whether they are noticed.
//!
//! Every rule has one shape: it takes facts, changes its own state, and pushes [`Effect`]s for its caller to perform
//! in order.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod address;
pub mod ballot;
pub mod change;
pub mod ids;
pub mod invariants;
pub mod lease;
pub mod log;
pub mod machine;
pub mod membership;
pub mod message;
pub mod mutants;
pub mod progress;
pub mod quorum;
pub mod reads;
pub mod record;
pub mod replica;
mod replication;
pub mod session;
pub mod snapshot;
pub mod transfer;

pub use ballot::{Ballot, Outcome};
pub use change::{Capacity, Change, ChangeRefused, Member};
pub use ids::{ClusterId, EntryId, Group, Index, Moment, NodeId, Skip, Term};
pub use lease::{ClockDrift, Promise};
pub use log::{Log, Lookup};
pub use machine::MachineVersions;
pub use membership::Membership;
pub use message::{
    Append, AppendOutcome, AppendReply, Body, Heartbeat, HeartbeatReply, Message, Outgoing, Phase, RequestVote, Vote,
};
pub use progress::{Credit, Progress, ProgressState, Want};
pub use reads::{ReadToken, Reads};
pub use record::{Batch, BatchBuilder, Checksum, Kind, Malformed};
pub use replica::{
    Cut, Effect, Entries, Faulty, HOLDINGS_EVERY, HandoverRefused, HardState, Leadership, Persist, Recovered, Replica,
    Role, Settings, Violation,
};
pub use replication::{Replication, ReplicationOutput, ReplicationStart};
pub use snapshot::{Snapshot, SnapshotBase, SnapshotChunk, SnapshotOutcome, SnapshotReply};
pub use transfer::{Transfer, TransferSettings};
