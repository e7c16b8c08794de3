//! Divergence: two logs that hold different content under the same id.
//!
//! No correct cluster gets there (Log Matching, paper §5.3): a disk, a memory or a program is
//! broken, and two logs alone do not tell which. So nothing is overwritten, both sides report it,
//! and the *minority* stops: a leader that a quorum refuses, or a follower whose leader has
//! committed an entry of its own term, which takes a quorum with equal logs. (That the follower
//! knows the entry to be committed proves nothing: its own copy may have been damaged since.)
//!
//! A record's checksum covers the whole log before it, so one comparison suffices. It costs
//! nothing where entries are simply appended, and is left out where a checksum would have to be
//! read from disk.

use super::{
    effect::{Effect, Violation},
    state::{Replica, Role},
};
use crate::{
    batch::Batch,
    ids::{EntryId, Index, Moment, NodeId},
    message::{Append, AppendOutcome, Body},
    progress::Progress,
    quorum,
};
use alloc::vec::Vec;

impl Replica {
    /// The first entry at which this log differs from a leader's append; this log holds all ids of
    /// the append up to `held`.
    pub(super) fn difference_to(&self, append: &Append, held: Index) -> Option<EntryId> {
        let previous = append.previous;
        let theirs = append.batch.as_ref().map(Batch::previous_checksum).or(append.previous_checksum);
        match (theirs, self.checksum_of(previous.index)) {
            (Some(theirs), Some(ours)) if theirs != ours => Some(previous),
            _ => append.batch.as_ref().and_then(|batch| self.difference_in(batch, held)),
        }
    }

    /// The first entry of `batch` up to `held` whose content is known to differ; all of their ids
    /// are held here.
    pub(super) fn difference_in(&self, batch: &Batch, held: Index) -> Option<EntryId> {
        let common = batch.up_to(held)?;
        let differs = |id: EntryId, theirs| self.checksum_of(id.index).is_some_and(|ours| ours != theirs);
        // An equal checksum proves that everything before is equal, too; but a faulty entry is only
        // known by its own checksum.
        if self.faults.is_empty() && !differs(common.last_id(), common.checksum()) {
            return None;
        }
        common.records().find(|record| differs(record.id, record.checksum)).map(|record| record.id)
    }

    /// Reports that the leader's log differs from this one at `at`.
    pub(super) fn diverge(&mut self, now: Moment, from: NodeId, at: EntryId, append: &Append, out: &mut Vec<Effect>) {
        self.diverged = Some(at);
        out.push(Effect::Diverged { at, with: from });
        self.answer(now, from, append.epoch, AppendOutcome::Diverged { at }, out);
        if let Some(at) = self.contradicts_quorum(append) {
            out.push(self.violated_by(from, self.divergence(at, from)));
        }
    }

    /// The violation if a quorum contradicts this node. It can't be told whose log is damaged,
    /// unless the leader is known to have lost data.
    pub(super) fn divergence(&self, at: EntryId, leader: NodeId) -> Violation {
        match self.is_known_lost(leader) {
            true => Violation::CommittedConflict { index: at.index, leader },
            false => Violation::Diverged { at, leader },
        }
    }

    /// The entry at which this log differs from a quorum's: the leader has committed an entry of
    /// its own term, so a quorum holds the leader's log.
    pub(super) fn contradicts_quorum(&self, append: &Append) -> Option<EntryId> {
        let at = self.diverged?;
        let own = |id: EntryId| id.term == self.term() && id.index <= append.commit;
        let first = append.batch.as_ref().map(|batch| EntryId::new(batch.term(), batch.first()));
        (at.index <= append.commit && (own(append.previous) || first.is_some_and(own))).then_some(at)
    }

    /// A follower's log differs from this leader's at `at`.
    pub(super) fn diverged_from(&mut self, now: Moment, from: NodeId, at: EntryId, out: &mut Vec<Effect>) {
        let commit = self.commit;
        let Role::Leader(leadership) = &mut self.role else { return };
        out.push(Effect::Diverged { at, with: from });
        leadership.refused_by.insert(from);
        let refuses = |id| leadership.refused_by.contains(&id);
        if quorum::reached(self.memberships.current(), refuses) {
            return out.push(Effect::Halt(Violation::Diverged { at, leader: from }));
        }
        if commit >= leadership.first {
            // Proves to the follower that a quorum contradicts it.
            let previous = EntryId::new(self.hard_state.term, leadership.first);
            let proof = Append { epoch: Progress::NO_EPOCH, previous, previous_checksum: None, commit, batch: None };
            self.say(now, from, Body::Append(proof), out);
        }
    }
}
