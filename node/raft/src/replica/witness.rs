//! The witness: a voter that keeps terms, votes and the identity of entries, without their
//! payloads. It breaks the tie between two full copies when one is gone, for a fraction of the disk
//! and without a state machine. It never leads.
//!
//! It is safe because it is an ordinary voter in all that counts: its votes rest on an ordinary log
//! of ids and checksums, and it acknowledges entries once they are on its disk. But it can't bring
//! an entry back. So it must not be the only member that has an entry, and as few entries as
//! possible should be held by it and one full copy alone. Therefore:
//!
//! - **Only entries that full copies hold**, durably, go to a witness.
//! - **Only committed entries**, as long as the full voters commit by themselves: the witness never
//!   gets ahead of a node that could lead next. When they have not committed for an election
//!   timeout, because one of them is gone or slow, the leader starts a *tie-break*: it also sends
//!   the witness the entries that its acknowledgement would commit, until the full voters have
//!   caught up with all that is committed.
//! - **At most one witness**: with one, an entry that it acknowledges in a tie-break is held
//!   by a quorum.
//!
//! The limit: an entry that was committed in a tie-break has one full copy less than a quorum. If
//! that copy is lost for good before another node caught up, no node can lead until an operator
//! decides (`recover`). If it is only away, the cluster waits until it comes back.

use super::{
    effect::Effect,
    state::{Replica, Role},
};
use crate::{
    batch::Batch,
    ids::{Index, NodeId},
    quorum,
};
use alloc::vec::Vec;

impl Replica {
    /// Whether this node keeps no commands.
    #[must_use]
    pub fn is_witness(&self) -> bool {
        self.settings.is_witness
    }

    /// Whether this node is of the kind that the configuration in force says: witness or full copy.
    #[must_use]
    pub fn is_as_configured(&self) -> bool {
        let membership = self.membership();
        !membership.contains(self.id) || (membership.witness() == Some(self.id)) == self.is_witness()
    }

    /// Entries of another member in the form in which this node keeps them: stubs on a witness,
    /// whole entries elsewhere. `None` if that is impossible.
    pub(super) fn in_local_form(&self, batch: Batch) -> Option<Batch> {
        match self.is_witness() {
            true => Some(batch.to_stubs(self.settings.checksum)),
            false => Some(batch).filter(|batch| !batch.has_stubs()),
        }
    }

    /// Whether a leader sends entries in the form for the other kind of node: it takes a witness
    /// for a full copy, or the other way round.
    pub(super) fn is_mistaken_for_another(&self, batch: &Batch) -> bool {
        if self.is_witness() { batch.records().any(|record| record.kind.has_stub()) } else { batch.has_stubs() }
    }

    /// The witness of the configuration in force, or, while that is uncommitted and has none, of
    /// the committed one: it may be about to leave.
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

    /// Tells the witness's replicator if it may send more: the commit index moved, or an
    /// acknowledgement of the witness may move it.
    pub(super) fn lead_witness(&mut self, out: &mut Vec<Effect>) {
        let Some(witness) = self.witness() else { return };
        if !self.is_leader() {
            return;
        }
        let without_it = |id| if id == witness { Index(0) } else { self.reached_by(id) };
        let by_themselves = quorum::agreed(self.membership(), without_it);
        let commit = self.commit;
        if let Role::Leader(leadership) = &mut self.role {
            // The full voters hold the entries that waited and all that is committed: the witness
            // is no longer needed to commit.
            leadership.tie_break.until.take_if(|until| by_themselves >= commit.max(*until));
        }
        let to = self.witness_limit(witness);
        if let Role::Leader(leadership) = &mut self.role
            && to > leadership.tie_break.limit
        {
            leadership.tie_break.limit = to;
            out.push(Effect::ReplicateTo { peer: witness, to });
        }
    }

    /// The last entry that the witness may have now: the last committed one, or, in a tie-break,
    /// the last that its acknowledgement would commit.
    fn witness_limit(&self, witness: NodeId) -> Index {
        let is_tied = matches!(&self.role, Role::Leader(leadership) if leadership.tie_break.until.is_some());
        let with_it = |id| if id == witness { Index(u64::MAX) } else { self.reached_by(id) };
        if is_tied { self.commit.max(quorum::agreed(self.membership(), with_it)) } else { self.commit }
    }

    /// Called after an election timeout. If nothing was committed meanwhile although entries were
    /// waiting, starts a tie-break.
    pub(super) fn watch_commits(&mut self, out: &mut Vec<Effect>) {
        if self.witness().is_none() {
            return;
        }
        let (commit, durable) = (self.commit, self.writes.durable());
        let Role::Leader(leadership) = &mut self.role else { return };
        let before = core::mem::replace(&mut leadership.tie_break.commit, commit);
        if before == commit && durable > commit {
            leadership.tie_break.until.get_or_insert(durable);
        }
        self.lead_witness(out);
    }

    /// The last entry of a voter's durable log, as far as this leader knows.
    fn reached_by(&self, id: NodeId) -> Index {
        match &self.role {
            _ if id == self.id => self.writes.durable(),
            Role::Leader(leadership) => leadership.matched(id),
            _ => Index(0),
        }
    }
}
