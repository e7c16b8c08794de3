//! What a snapshot stands for, and how it travels.
//!
//! A snapshot is the state machine's state after a prefix of the log (paper §7). Its bytes are the state machine's
//! business; here is what the rules need to know of it: which entry is the last one that it covers, so that the log can
//! begin behind that, and the configuration as of that entry.

use crate::{
    ids::{EntryId, Index},
    membership::Membership,
};
use alloc::boxed::Box;
use bytes::Bytes;

/// The prefix of the log that a snapshot stands for.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct SnapshotBase {
    /// The last entry that it covers.
    pub last: EntryId,
    /// The checksum of that entry's record: what the next one chains to.
    pub last_checksum: u32,
    /// The configuration as of that entry, never a later one: one that is not committed may still be taken back.
    pub membership: Membership,
    /// Where that configuration stands: its entry; 0 for the one that the cluster began with.
    pub membership_index: Index,
}

/// A whole snapshot.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Snapshot {
    /// What it stands for.
    pub base: SnapshotBase,
    /// How many bytes the state has.
    pub bytes: u64,
    /// The checksum of those bytes.
    pub checksum: u32,
}

/// A piece of a snapshot, from the leader: "InstallSnapshot" of the paper (§7, Figure 13).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotChunk {
    /// Which run of this peer's replication it belongs to, echoed by the reply.
    pub epoch: u64,
    /// The snapshot that it is a piece of. Boxed: it would make every message larger.
    pub snapshot: Box<Snapshot>,
    /// Where the piece begins in the state.
    pub offset: u64,
    /// The piece. Empty to ask how much of it the follower has.
    pub bytes: Bytes,
}

/// Answers a [`SnapshotChunk`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotReply {
    /// The chunk's epoch.
    pub epoch: u64,
    /// The last entry that the snapshot covers.
    pub last: EntryId,
    /// How far it got.
    pub outcome: SnapshotOutcome,
}

/// How far a transfer got.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SnapshotOutcome {
    /// So many bytes from the beginning on have arrived; send on from there.
    Received {
        /// How many.
        bytes: u64,
    },
    /// The follower's log and state reach this far, durably: installed, or it was there already.
    Installed {
        /// How far.
        index: Index,
    },
    /// The follower could not keep it (a full disk, bytes that do not match the checksum): begin again, later.
    Refused,
}
