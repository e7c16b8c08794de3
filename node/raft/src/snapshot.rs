//! Snapshots as the rules see them, and the messages that carry one.
//!
//! A snapshot is the state machine's state after a prefix of the log (paper §7). Its bytes are
//! opaque to the rules, which need only the last entry that it covers, so that the log can begin
//! after that, and the configuration as of that entry.

use crate::{
    ids::{EntryId, Index},
    membership::Membership,
};
use alloc::boxed::Box;
use bytes::Bytes;

/// The prefix of the log that a snapshot replaces.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct SnapshotBase {
    /// The last entry that it covers.
    pub last: EntryId,
    /// The checksum of that entry's record, which the next one chains to.
    pub last_checksum: u32,
    /// The configuration as of that entry, never a later one: an uncommitted one may still
    /// be taken back.
    pub membership: Membership,
    /// Index of that configuration's entry; 0 for the one that the cluster began with.
    pub membership_index: Index,
}

/// A whole snapshot, without its bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Snapshot {
    /// The prefix of the log that it replaces.
    pub base: SnapshotBase,
    /// Length of the state in bytes.
    pub bytes: u64,
    /// The checksum of those bytes.
    pub checksum: u32,
}

/// A chunk of a snapshot, from the leader: "InstallSnapshot" of the paper (§7, Figure 13).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SnapshotChunk {
    /// The epoch of this peer's replication, echoed by the reply.
    pub epoch: u64,
    /// The snapshot that it is a chunk of. Boxed to keep every other message small.
    pub snapshot: Box<Snapshot>,
    /// Offset of the chunk in the state, in bytes.
    pub offset: u64,
    /// The bytes. Empty to ask how much of the snapshot the follower has.
    pub bytes: Bytes,
}

impl core::fmt::Debug for SnapshotChunk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SnapshotChunk")
            .field("epoch", &self.epoch)
            .field("snapshot", &self.snapshot)
            .field("offset", &self.offset)
            .field("bytes", &format_args!("{} B", self.bytes.len()))
            .finish()
    }
}

/// Answers a [`SnapshotChunk`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotReply {
    /// The chunk's epoch.
    pub epoch: u64,
    /// The last entry that the snapshot covers.
    pub last: EntryId,
    /// The progress of the snapshot.
    pub outcome: SnapshotOutcome,
}

/// The progress of a snapshot at the follower.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SnapshotOutcome {
    /// The first `bytes` bytes have arrived; continue from there.
    Received {
        /// Number of bytes, from the beginning on.
        bytes: u64,
    },
    /// The follower's log and state durably reach up to `index`: the snapshot is installed, or
    /// was not needed.
    Installed {
        /// The last entry that the state covers.
        index: Index,
    },
    /// The follower could not keep it (a full disk, bytes that do not match the checksum):
    /// start again, later.
    Refused,
}
