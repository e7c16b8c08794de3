//! Rules of a leader: it appends, replicates and commits (paper §5.3, §5.4.2; Figure 2, "Leaders"),
//! and steps down when it hears no quorum (thesis §6.2). Its reads are in `reads`.

use super::{
    effect::{Effect, Persist},
    leadership::{Leadership, TieBreak},
    observation::StepDown,
    state::{Replica, Role},
};
use crate::{
    batch::{Batch, BatchBuilder},
    entry::Kind,
    ids::{EntryId, Index, Moment, NodeId},
    log::Lookup,
    message::{AppendOutcome, AppendReply},
    quorum,
    reads::Reads,
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

impl Replica {
    /// Begins to lead, with an entry of the new term so that everything before it can be committed:
    /// a no-op, or, in a cluster without an id, the configuration in force with one. Its voters are
    /// the same, so no majority differs.
    pub(super) fn lead(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let previous = self.log.last();
        let first = previous.index.next();
        self.role = Role::Leader(Leadership {
            first,
            reads: Reads::default(),
            pins: BTreeMap::new(),
            refused_by: BTreeSet::new(),
            matched: BTreeMap::new(),
            heard: BTreeMap::new(),
            transfer: None,
            tie_break: TieBreak::new(first),
            changes: 0,
            since: now,
        });
        self.leader = Some(self.id);
        self.leader_is_member = true;
        out.push(Effect::CloseBallot);
        out.push(Effect::StartReplicators { term: self.term(), log_last: previous.index });
        let mut entry = BatchBuilder::new(self.settings.checksum, self.term(), first, self.log.last_checksum(), 64);
        match self.settings.cluster_id.filter(|_| self.membership().cluster_id().is_none()) {
            Some(id) => {
                let membership = self.membership().clone().with_cluster_id(Some(id));
                entry.push(Kind::Membership, &membership.encode());
            }
            None => entry.push(Kind::Noop, &[]),
        }
        if let Some(batch) = entry.finish() {
            self.append(now, batch, out);
        }
        out.push(Effect::ArmTimer);
        self.dispatch(out);
    }

    /// A builder for the next batch of proposals, at the end of the log; `None` if this node
    /// does not lead.
    #[must_use]
    pub fn next_batch(&self, capacity_bytes: usize) -> Option<BatchBuilder> {
        self.is_leader().then(|| {
            let first = self.log.last().index.next();
            BatchBuilder::new(self.settings.checksum, self.term(), first, self.log.last_checksum(), capacity_bytes)
        })
    }

    /// Appends a batch that was begun with [`Replica::next_batch`], with no append in between.
    ///
    /// # Panics
    /// If this node does not lead, the batch does not follow its log, or a configuration in it is
    /// malformed: all are mistakes of the caller.
    pub fn propose(&mut self, now: Moment, batch: Batch, out: &mut Vec<Effect>) {
        let fits = batch.term() == self.term() && batch.first() == self.log.last().index.next();
        assert!(self.is_leader() && fits, "a batch is proposed to the leader it was begun with");
        self.append(now, batch, out);
    }

    pub(super) fn append(&mut self, now: Moment, batch: Batch, out: &mut Vec<Effect>) {
        let previous = self.log.last();
        let changes = batch.memberships().expect("what is proposed was encoded here");
        let is_changed = !changes.is_empty();
        for (index, membership) in changes {
            self.memberships.appended(index, membership);
            self.end_lease();
        }
        self.log.replace_from(batch.clone());
        // The peers first: their disks and this node's then work at the same time.
        out.push(Effect::Replicate { previous, batch: batch.clone() });
        self.persist(now, Persist { batch: Some(batch), ..Persist::default() }, out);
        if is_changed {
            if let Role::Leader(leadership) = &mut self.role {
                leadership.changes = leadership.changes.saturating_add(1);
            }
            out.push(Effect::MembersChanged);
            // A smaller quorum may suffice now, and none of its members may answer again.
            self.confirm_reads(Some(now), out);
        }
    }

    /// A peer answered an append; its replicator judges what that means for its progress.
    pub(super) fn append_answered(&mut self, now: Moment, from: NodeId, reply: AppendReply, out: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        leadership.heard.insert(from, now);
        let epoch = reply.epoch;
        let effect = match reply.outcome {
            AppendOutcome::Matched { matched } => {
                self.note_acknowledged(from, epoch);
                Effect::Acknowledged { peer: from, epoch, matched }
            }
            AppendOutcome::Rejected { previous, conflict, last, log_last } => {
                // A peer that lost data must not be brought up as if it were new, or only lagging.
                let is_new = log_last == Index(0) && conflict.index == Index(0);
                if self.comes_with_less(now, from, log_last, is_new, out) {
                    if self.proves_loss(from, epoch) {
                        self.name_lost(from, log_last, out);
                    }
                    return;
                }
                let next = self.log.next_after_conflict(conflict);
                Effect::Rejected { peer: from, epoch, previous, next, last }
            }
            AppendOutcome::Diverged { at } => return self.diverged_from(now, from, at, out),
            AppendOutcome::NeedsSnapshot { from: at_least } => {
                Effect::NeedsSnapshot { peer: from, epoch, from: at_least }
            }
        };
        out.push(effect);
    }

    /// A peer's replicator found that the peer's durable log matches up to `index`. A lower index
    /// than before means that the peer's log went back, and the entries after it no longer count.
    pub fn matched(&mut self, now: Moment, peer: NodeId, index: Index, out: &mut Vec<Effect>) {
        let last = self.log.last().index;
        let Role::Leader(leadership) = &mut self.role else { return };
        if index < leadership.matched(peer) {
            self.remember_holdings(out);
        }
        let Role::Leader(leadership) = &mut self.role else { return };
        leadership.matched.insert(peer, index.min(last));
        if let Some(pin) = leadership.pins.get_mut(&peer) {
            *pin = index.max(*pin);
        }
        self.learn_log_of(peer, index, out);
        self.advance_commit(now, out);
    }

    /// Commits the entries that a quorum holds, if the last of them is of the current term: earlier
    /// entries are committed only along with one of it, never by counting (paper §5.4.2, Figure 8).
    pub(super) fn advance_commit(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &self.role else { return };
        let reached = |id| if id == self.id { self.writes.durable() } else { leadership.matched(id) };
        let agreed = quorum::agreed(self.membership(), reached);
        if agreed > self.commit && self.log.term_of(agreed) == Some(self.term()) {
            let before = core::mem::replace(&mut self.commit, agreed);
            out.push(Effect::Committed(agreed));
            self.dispatch(out);
            self.open_read_round(None, out);
            self.continue_change(now, before, out);
        }
        self.lead_witness(out);
        self.continue_transfer(now, out);
    }

    /// Steps down if no quorum was heard for an election timeout: the others may long have elected
    /// another leader, and clients should look for it (thesis §6.2).
    pub(super) fn check_quorum(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &self.role else { return };
        if !self.hears_quorum(now, leadership) {
            self.step_down(StepDown::NoQuorum, out);
        }
    }

    /// Whether a quorum was heard within the longest election timeout; a new leader has that long
    /// to hear one.
    pub(super) fn hears_quorum(&self, now: Moment, leadership: &Leadership) -> bool {
        let recently = |contact: Moment| now.since(contact) < self.settings.election_timeout_max;
        let heard = |id| id == self.id || leadership.heard.get(&id).is_some_and(|contact| recently(*contact));
        recently(leadership.since) || quorum::reached(self.membership(), heard)
    }

    /// Entries for the replicator of `peer`: those from `from` on that it may have, and the entry
    /// before them. If `from` is the index after the last of them, it is a bare probe.
    #[must_use]
    pub fn entries(&self, peer: NodeId, from: Index, bytes_max: usize) -> Entries {
        let last = self.goes_to(peer);
        match (self.log.lookup(from, last, bytes_max), self.log.id_of(from.previous())) {
            (Lookup::Cached(batch), Some(previous)) => {
                Entries::Here { previous, checksum: Some(batch.previous_checksum()), batch: Some(batch) }
            }
            (Lookup::Beyond, Some(previous)) => {
                Entries::Here { previous, checksum: self.log.checksum_of(previous.index), batch: None }
            }
            (Lookup::OnDisk(to), Some(previous)) => Entries::OnDisk { previous, to },
            (Lookup::Beyond, None) => Entries::Here {
                previous: self.log.id_of(last).unwrap_or_default(),
                checksum: self.log.checksum_of(last),
                batch: None,
            },
            _ => Entries::Compacted,
        }
    }
}

/// The place of a replicator's entries.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Entries {
    /// In memory, ready to be sent.
    Here {
        /// The entry before them.
        previous: EntryId,
        /// Checksum of that entry's record, if it is known without reading the disk.
        checksum: Option<u32>,
        /// The entries; `None` if the log ends before them.
        batch: Option<Batch>,
    },
    /// On disk, to be read from the storage.
    OnDisk {
        /// The entry before them.
        previous: EntryId,
        /// The last entry that the storage certainly has.
        to: Index,
    },
    /// Compacted away; only a snapshot has their effect.
    Compacted,
}
