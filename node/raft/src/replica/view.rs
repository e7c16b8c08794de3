//! Getters of a replica. Nothing here changes anything.

use super::state::{Replica, Role};
use crate::{
    ids::{ClusterId, EntryId, Index, Moment, NodeId, Term},
    log::Log,
    machine::MachineVersions,
    membership::Membership,
    progress::Progress,
    snapshot::SnapshotBase,
};

impl Replica {
    /// Id of this node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The versions that its state machine writes and applies.
    #[must_use]
    pub fn machine(&self) -> MachineVersions {
        self.settings.machine
    }

    /// The current term, which may not be durable yet.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The vote cast in the current term.
    #[must_use]
    pub fn vote(&self) -> Option<NodeId> {
        self.hard_state.vote
    }

    /// The role, with the leader's state if it leads.
    #[must_use]
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Whether it leads in the current term.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The latest read round, if it leads: the heartbeats of every replicator carry it, also of one
    /// that starts now.
    #[must_use]
    pub fn read_round(&self) -> u64 {
        match &self.role {
            Role::Leader(leadership) => leadership.round(),
            _ => 0,
        }
    }

    /// The first epoch of replication to a peer that starts now, if it leads.
    #[must_use]
    pub fn first_epoch(&self) -> u64 {
        match &self.role {
            Role::Leader(leadership) => leadership.first_epoch(),
            _ => Progress::NO_EPOCH,
        }
    }

    /// Whether a leader was heard lately: by a leader, itself, while it hears a quorum.
    #[must_use]
    pub fn is_led(&self, now: Moment) -> bool {
        self.hears_leader(now)
    }

    /// Whether it follows a leader that it heard lately.
    #[must_use]
    pub fn follows(&self, now: Moment) -> bool {
        !self.is_leader() && self.hears_leader(now)
    }

    /// The leader of the current term, if known. A leader that no configuration here names yet (see
    /// `outside`) is not returned: nothing may be asked of it.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leader.filter(|_| self.leader_is_member)
    }

    /// The configuration in force, committed or not.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.memberships.current()
    }

    /// The cluster's id, once the entry that states it is known to be committed: until then another
    /// leader may state another.
    #[must_use]
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.membership_at(self.commit).cluster_id()
    }

    /// The configuration as of the entry at `index`, which is not before the newest snapshot: the
    /// one for a snapshot that ends there.
    #[must_use]
    pub fn membership_at(&self, index: Index) -> &Membership {
        &self.memberships.at(index).1
    }

    /// The base of a snapshot that ends at this applied entry, whose record has this checksum.
    #[must_use]
    pub fn base_at(&self, last: EntryId, last_checksum: u32) -> SnapshotBase {
        let (membership_index, membership) = self.memberships.at(last.index).clone();
        SnapshotBase { last, last_checksum, membership, membership_index }
    }

    /// The last entry that the newest snapshot covers; 0 if there is none.
    #[must_use]
    pub fn snapshot_index(&self) -> Index {
        self.snapshot
    }

    /// Bounds and terms of the log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The last entry known to be committed.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// The last entry dispatched to the state machine.
    #[must_use]
    pub fn dispatched(&self) -> Index {
        self.dispatched
    }

    /// The last entry that the state machine has applied.
    #[must_use]
    pub fn applied_index(&self) -> Index {
        self.applied
    }

    /// The last entry that is durable here.
    #[must_use]
    pub fn durable(&self) -> Index {
        self.writes.durable()
    }

    /// Since when a write has been waiting to become durable; `None` if none is.
    #[must_use]
    pub fn writing_since(&self) -> Option<Moment> {
        self.writes.waiting_since()
    }

    /// Whether the storage is about to run out of room for entries.
    #[must_use]
    pub fn is_storage_full(&self) -> bool {
        self.is_full
    }
}
