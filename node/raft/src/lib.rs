//! Raft as pure rules.
//!
//! This crate decides and never acts. It has no clock (`now` is an argument), no randomness, no
//! I/O, no threads and no hash maps, and the compiler enforces most of that: `no_std`, no unsafe
//! code, no dependency beyond `serde` and `bytes`. So the rules that run a node can also be
//! explored exhaustively, simulated by the million, and read beside the paper (Ongaro and
//! Ousterhout, *In Search of an Understandable Consensus Algorithm*, extended version).
//!
//! Every public name is exported by one path: types at the root; functions, constants and the
//! layouts of entries ([`record`], [`session`], [`tick`], [`internal`]) in the module that they
//! belong to. The sources are best read in this order:
//!
//! 1. `ids`, `entry`, [`record`], `batch`, [`session`], [`tick`], [`internal`], `message` and
//!    `forwarded`: terms, entries and messages.
//! 2. `membership` and [`quorum`]: the voters, and how many of them make a quorum.
//!    `metadata`: facts about members that no rule reads. `change` and `refused`: membership
//!    changes, and why the leader refuses one.
//! 3. `replica`: one node's term, vote, log and role, and every rule that changes them.
//! 4. `snapshot`: the state that takes the place of a log's beginning.
//! 5. `ballot`, `replication` (with `progress` and `snapshot_transfer`) and `reads`: small state
//!    machines beside the replica: one campaign, replication to one peer with its snapshots, the
//!    waiting reads. `lease`: when a leader may serve reads without asking.
//!
//! Every rule has one shape: it takes facts, changes its own state, and pushes [`Effect`]s for its
//! caller to perform in order.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod ballot;
mod batch;
mod change;
mod entry;
mod forwarded;
mod ids;
mod lease;
mod log;
mod machine;
mod membership;
mod message;
mod metadata;
mod progress;
mod reads;
mod refused;
mod replica;
mod replication;
mod snapshot;
mod snapshot_transfer;

pub mod address;
pub mod internal;
pub mod quorum;
pub mod record;
pub mod session;
pub mod tick;

pub use ballot::{Ballot, BallotOutcome};
pub use batch::{Batch, BatchBuilder};
pub use change::{Change, ChangeStep, ExpectedConfiguration, Member};
pub use entry::{Checksum, Kind, Malformed};
pub use forwarded::{
    Administer, AdministerOutcome, Administered, Administration, ForwardedCommand, ForwardedOutcome, Propose,
    ProposeOutcome, ProposeReply, ReadIndex, ReadIndexReply,
};
pub use ids::{ClusterId, EntryId, Group, Index, Moment, NodeId, Skip, Term};
pub use lease::{ClockDrift, Held, Promise};
pub use log::{Log, Lookup};
pub use machine::MachineVersions;
pub use membership::Membership;
pub use message::{
    Append, AppendOutcome, AppendReply, Body, Emptied, Heartbeat, HeartbeatReply, Holdings, Message, Observe, Outgoing,
    Phase, Removed, Repair, RepairOutcome, RepairReply, Report, RequestVote, TimeoutNow, Vote, Wanted,
};
pub use metadata::{MemberDescription, MemberMetadata, MetadataFlaw, MetadataUpdate};
pub use progress::{Credit, NextAppend, Progress, ProgressState, Want};
pub use reads::{ReadToken, Reads};
pub use refused::{ChangeRefused, MemberKind, TransferRefused};
pub use replica::{
    Cut, Denial, Effect, Entries, Faulty, HardState, Leadership, MessageRefusal, Observation, Persist, Recovered,
    Replica, Role, Settings, StepDown, Violation,
};
pub use replication::{Replication, ReplicationOutput, ReplicationStart};
pub use snapshot::{Snapshot, SnapshotBase, SnapshotChunk, SnapshotOutcome, SnapshotReply};
pub use snapshot_transfer::{SnapshotTransfer, SnapshotTransferSettings};
