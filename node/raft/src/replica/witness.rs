//! The witness: a voter that keeps terms, votes and the identity of entries, and nothing of what they say. With two full copies it
//! breaks the tie when one is gone, for a fraction of the disk and without a state machine. It never leads.
//!
//! It is safe because it is an ordinary voter in everything that counts: it votes by an ordinary log, of ordinary ids and
//! checksums, and it acknowledges what is on its disk. What it can't do is bring an entry back; so it must not be the only one
//! that has it, and as few as possible should be held by it and one full copy alone. Therefore:
//!
//! - **Only what full copies hold**, durably, goes to a witness.
//! - **Only what is committed**, as long as the full voters commit by themselves: it never gets ahead of any that could lead next.
//!   When they have not, for an election timeout, because one of them is gone or slow, it is *called on*: then it also gets what it
//!   takes to commit, until the full voters have caught up with what is committed.
//! - **One at most**: what one that is called on acknowledges is held by a quorum then.
//!
//! The limit of it: what was committed while the witness was called on has one full copy less than a quorum. If that is lost for
//! good before another caught up, nobody can lead until an operator decides (`recover`). If it is only away, so is the cluster,
//! until it comes back.

use super::{Effect, Replica, Role};
use crate::{
    batch::Batch,
    entry::Kind,
    ids::{Index, NodeId},
    mutants::{Mutant, live},
    quorum,
    record::Record,
};
use alloc::vec::Vec;

/// What a leader knows of its witness's part.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct TieBreak {
    /// Up to where the full voters must have everything by themselves before it is called on no more. A new leader calls on it:
    /// whoever led before may be the one that is gone.
    called_until: Option<Index>,
    /// How far it may go. It never goes back: its replicator counts on what it was told.
    limit: Index,
    /// What was committed when this was looked at last.
    commit: Index,
}

impl TieBreak {
    /// That of a leadership that begins with the entry at `first`.
    pub(super) fn new(first: Index) -> Self {
        Self { called_until: Some(first), limit: Index(0), commit: Index(0) }
    }
}

impl Replica {
    /// Whether this node keeps no commands.
    #[must_use]
    pub fn is_witness(&self) -> bool {
        self.settings.is_witness
    }

    /// Whether this node is what the configuration in force has it down for.
    #[must_use]
    pub fn is_as_configured(&self) -> bool {
        let membership = self.membership();
        !membership.contains(self.id) || (membership.witness() == Some(self.id)) == self.is_witness()
    }

    /// Entries of a member as they may be kept here: by a witness as outlines, by anybody else whole. `None` if they can't be.
    pub(super) fn as_kept_here(&self, batch: Batch) -> Option<Batch> {
        match self.is_witness() {
            true => Some(batch.outline(self.settings.checksum)),
            false => Some(batch).filter(|batch| !batch.is_outlined()),
        }
    }

    /// Whether a leader sends entries as to somebody else than this node is: what it takes this one's word for is not so.
    pub(super) fn is_mistaken_for_another(&self, batch: &Batch) -> bool {
        let is_kept_whole = |record: Record<'_>| matches!(record.kind, Kind::Command | Kind::Session);
        if self.is_witness() { batch.records().any(is_kept_whole) } else { batch.is_outlined() }
    }

    /// The witness by the configuration in force, or, while that may be taken back, by the last that is committed: it may be about to
    /// leave.
    #[must_use]
    pub fn witness(&self) -> Option<NodeId> {
        self.membership().witness().or_else(|| self.memberships.at(self.commit).1.witness())
    }

    /// The last entry that may be sent to a peer now.
    #[must_use]
    pub fn goes_to(&self, peer: NodeId) -> Index {
        let last = self.log.last().index;
        let Role::Leader(leadership) = &self.role else { return last };
        if self.witness() != Some(peer) {
            return last;
        }
        leadership.tie_break.limit.max(self.commit)
    }

    /// Something was committed, or may be with the witness. Tells its replicator, if it may go further.
    pub(super) fn lead_witness(&mut self, out: &mut Vec<Effect>) {
        let Some(witness) = self.witness() else { return };
        if !self.is_leader() {
            return;
        }
        let without_it = |id| if id == witness { Index(0) } else { self.reached_by(id) };
        let by_themselves = quorum::agreed(self.membership(), without_it);
        let commit = self.commit;
        if let Role::Leader(leadership) = &mut self.role {
            // They have what waited for it, and what is committed: nothing hangs on the witness any more.
            leadership.tie_break.called_until.take_if(|until| by_themselves >= commit.max(*until));
        }
        let to = self.may_have(witness);
        if let Role::Leader(leadership) = &mut self.role
            && to > leadership.tie_break.limit
        {
            leadership.tie_break.limit = to;
            out.push(Effect::ReplicateTo { peer: witness, to });
        }
    }

    /// How far the witness may go as things are: to what is committed, or what its word would commit.
    fn may_have(&self, witness: NodeId) -> Index {
        let is_called = matches!(&self.role, Role::Leader(leadership) if leadership.tie_break.called_until.is_some());
        if live(Mutant::WitnessAhead) {
            return self.log.last().index;
        }
        let with_it = |id| if id == witness { Index(u64::MAX) } else { self.reached_by(id) };
        if is_called { self.commit.max(quorum::agreed(self.membership(), with_it)) } else { self.commit }
    }

    /// An election timeout has passed. If nothing was committed meanwhile though there was something to commit, calls on the
    /// witness.
    pub(super) fn look_at_commits(&mut self, out: &mut Vec<Effect>) {
        if self.witness().is_none() {
            return;
        }
        let (commit, durable) = (self.commit, self.writes.durable());
        let Role::Leader(leadership) = &mut self.role else { return };
        let before = core::mem::replace(&mut leadership.tie_break.commit, commit);
        if before == commit && durable > commit {
            leadership.tie_break.called_until.get_or_insert(durable);
        }
        self.lead_witness(out);
    }

    /// How far a voter's durable log is known to go, if this node leads.
    fn reached_by(&self, id: NodeId) -> Index {
        match &self.role {
            _ if id == self.id => self.writes.durable(),
            Role::Leader(leadership) => leadership.matched(id),
            _ => Index(0),
        }
    }
}
