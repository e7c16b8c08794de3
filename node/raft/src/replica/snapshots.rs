//! Log compaction with this node's own snapshots (paper §7), and installation of the
//! leader's (Figure 13).
//!
//! **Invariant:** only entries that a durable snapshot covers are cut, and a snapshot covers
//! only committed entries.

use super::{
    effect::{Cut, Effect, MessageRefusal, Persist, Violation},
    observation::StepDown,
    state::{Replica, Role},
};
use crate::{
    ids::{EntryId, Index, Moment, NodeId},
    message::Body,
    snapshot::{Snapshot, SnapshotBase, SnapshotChunk, SnapshotOutcome, SnapshotReply},
};
use alloc::vec::Vec;

impl Replica {
    /// A snapshot of this node's own state is durable: cuts the log up to it. It keeps the last
    /// `keep_entries` of those, which slow peers may still need, and all that a peer will need
    /// after a snapshot that it is receiving.
    pub fn snapshot_saved(&mut self, now: Moment, base: &SnapshotBase, keep_entries: u64, out: &mut Vec<Effect>) {
        if !self.log.contains(base.last) || base.last.index > self.dispatched {
            return; // overtaken by one of the leader's
        }
        self.snapshot = self.snapshot.max(base.last.index);
        let kept = Index(self.snapshot.0.saturating_sub(keep_entries));
        let to = kept.min(self.pinned_below(kept)).min(self.writes.durable());
        if let Some(to) = self.log.id_of(to).filter(|to| to.index > self.log.base().index) {
            let cut = Cut { to, checksum: self.checksum_of(to.index) };
            self.log.compact(to, cut.checksum);
            self.memberships.compact(to.index);
            self.persist(now, Persist { cut: Some(cut), ..Persist::default() }, out);
        }
    }

    /// A peer is being sent a snapshot that ends at `at`: the entries after it stay until the peer
    /// has them, or until `None` ends the pin.
    pub fn pin(&mut self, peer: NodeId, at: Option<Index>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        match at {
            Some(at) => {
                leadership.pins.insert(peer, at);
            }
            None => {
                leadership.pins.remove(&peer);
            }
        }
    }

    /// The leader of the current term sends a chunk of a snapshot.
    pub(super) fn snapshot_chunk_received(
        &mut self,
        now: Moment,
        from: NodeId,
        chunk: SnapshotChunk,
        out: &mut Vec<Effect>,
    ) {
        if !self.follow(now, from, out) {
            return;
        }
        let Snapshot { base, bytes, .. } = &*chunk.snapshot;
        let ends = chunk.offset.checked_add(chunk.bytes.len() as u64);
        let fits = base.last.index > Index(0)
            && base.last.term <= self.term()
            && !base.membership.incoming().is_empty()
            && ends.is_some_and(|ends| ends <= *bytes);
        if !fits {
            return out.push(Effect::Refused { from, reason: MessageRefusal::Malformed });
        }
        if self.is_stranger_to(now, from, (chunk.epoch, chunk.snapshot.base.last.index), out) {
            return;
        }
        match self.relation_of(base) {
            BaseRelation::Past => self.say_installed(now, from, chunk.epoch, base.last, out),
            // A full storage could not begin its log anew after the snapshot, so such a node
            // declines it for now.
            BaseRelation::Wanted if !self.is_full => out.push(Effect::SnapshotChunk { from, chunk }),
            relation => self.decline(now, from, chunk.epoch, base.last, relation, out),
        }
    }

    /// A snapshot that `from` sent is whole, checked and durable: the log and the state machine
    /// follow it, unless they are past it by now.
    ///
    /// `from` may no longer lead, and this node may campaign or even lead: a snapshot covers
    /// committed entries in any case.
    pub fn snapshot_received(
        &mut self,
        now: Moment,
        from: NodeId,
        epoch: u64,
        base: &SnapshotBase,
        out: &mut Vec<Effect>,
    ) {
        let last = base.last;
        let keeps = self.log.contains(last);
        match self.relation_of(base) {
            BaseRelation::Past => {
                if keeps && last.index <= self.dispatched {
                    self.snapshot = self.snapshot.max(last.index);
                }
                return self.say_installed(now, from, epoch, last, out);
            }
            BaseRelation::Wanted => {}
            relation => return self.decline(now, from, epoch, last, relation, out),
        }
        match self.role {
            Role::Follower => {}
            // A campaign claims the log that it began with.
            Role::PreCandidate | Role::Candidate => self.step_down(StepDown::SnapshotInstalled, out),
            Role::Leader(_) if keeps => {}
            Role::Leader(_) => {
                let violation = Violation::CommittedConflict { index: last.index, leader: from };
                return out.push(self.violated_by(from, violation));
            }
        }
        self.log.compact(last, Some(base.last_checksum));
        if self.log.base() == last {
            self.log.know_base(base.last_checksum);
        }
        self.memberships.install(base, keeps);
        self.faults.covered(if keeps { last.index } else { Index(u64::MAX) });
        self.diverged = self.diverged.filter(|at| keeps && at.index > last.index);
        self.snapshot = last.index;
        self.dispatched = self.dispatched.max(last.index);
        self.writes.covered(last.index, keeps);
        let reply = SnapshotReply { epoch, last, outcome: SnapshotOutcome::Installed { index: last.index } };
        let then = alloc::vec![self.outgoing(from, Body::SnapshotReply(reply))];
        let cut = Cut { to: last, checksum: Some(base.last_checksum) };
        self.persist(now, Persist { cut: Some(cut), then, ..Persist::default() }, out);
        out.push(Effect::MembersChanged);
        out.push(Effect::Restore(base.clone()));
        if last.index > self.commit {
            let before = core::mem::replace(&mut self.commit, last.index);
            if self.is_leader() {
                out.push(Effect::Committed(last.index));
                self.continue_change(now, before, out);
            }
        }
        self.dispatch(out);
    }

    /// A peer answered a chunk of a snapshot.
    pub(super) fn snapshot_answered(&mut self, now: Moment, from: NodeId, reply: SnapshotReply, out: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        leadership.heard.insert(from, now);
        out.push(Effect::SnapshotAnswered { peer: from, reply });
    }

    /// The relation of a snapshot to this node's log and state.
    fn relation_of(&self, base: &SnapshotBase) -> BaseRelation {
        let last = base.last;
        let differs = |ours: u32| self.log.contains(last) && ours != base.last_checksum;
        match self.log.term_of(last.index) {
            Some(term) if term != last.term && last.index <= self.known_committed().max(self.log.base().index) => {
                BaseRelation::Contradicts
            }
            _ if self.checksum_of(last.index).is_some_and(differs) => BaseRelation::Differs,
            _ if self.faults.lost().is_some_and(|lost| last.index < lost) => BaseRelation::TooOld,
            _ if self.faults.lost().is_some() || last.index > self.commit => BaseRelation::Wanted,
            // Committed here and about to be applied, unless a faulty entry blocks it.
            _ if self.faults.first().is_some_and(|faulty| faulty <= last.index) => BaseRelation::Wanted,
            _ => BaseRelation::Past,
        }
    }

    fn decline(
        &mut self,
        now: Moment,
        to: NodeId,
        epoch: u64,
        last: EntryId,
        relation: BaseRelation,
        out: &mut Vec<Effect>,
    ) {
        match relation {
            BaseRelation::Contradicts => {
                return self.contradicted(now, to, last.index, out);
            }
            BaseRelation::Differs => out.push(Effect::Diverged { at: last, with: to }),
            _ => {}
        }
        let reply = SnapshotReply { epoch, last, outcome: SnapshotOutcome::Refused };
        self.say(now, to, Body::SnapshotReply(reply), out);
    }

    fn say_installed(&mut self, now: Moment, to: NodeId, epoch: u64, last: EntryId, out: &mut Vec<Effect>) {
        let outcome = SnapshotOutcome::Installed { index: last.index };
        self.say_when_durable(now, to, Body::SnapshotReply(SnapshotReply { epoch, last, outcome }), out);
    }

    /// The last entry that may be cut while peers are receiving a snapshot. Peers that have reached
    /// `kept` need no pin any more: the entries that are kept for every peer are enough. A removed
    /// peer receives nothing more, and no replicator is left to end its pin.
    fn pinned_below(&mut self, kept: Index) -> Index {
        if !self.is_leader() {
            return kept;
        }
        let peers = self.peers();
        let Role::Leader(leadership) = &mut self.role else { return kept };
        leadership.pins.retain(|peer, pin| *pin < kept && peers.contains(peer));
        leadership.pins.values().copied().min().unwrap_or(kept)
    }
}

/// The relation of a snapshot to this node's log and state.
#[derive(Clone, Copy)]
enum BaseRelation {
    /// It takes the node further than its own log can.
    Wanted,
    /// The node is there already, or gets there without it.
    Past,
    /// It does not reach up to the state that the node lost.
    TooOld,
    /// The node holds its last entry with other content.
    Differs,
    /// The node knows another entry to be committed at its last index.
    Contradicts,
}
