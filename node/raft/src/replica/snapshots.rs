//! How a snapshot takes the place of a log's beginning: this node's own (paper §7), or the leader's (Figure 13).
//!
//! **Invariant:** nothing is cut that no durable snapshot covers, and what a snapshot covers was committed.

use super::{Cut, Effect, Persist, Replica, Role, Violation};
use crate::{
    ids::{Index, Moment, NodeId},
    message::Body,
    snapshot::{SnapshotBase, SnapshotChunk, SnapshotOutcome, SnapshotReply},
};
use alloc::vec::Vec;

impl Replica {
    /// A snapshot of this node's own state is durable: cuts the log behind it, but for `keep_entries` that slow peers may
    /// still need, and for what a peer that is receiving a snapshot will need next.
    pub fn snapshot_saved(&mut self, now: Moment, base: &SnapshotBase, keep_entries: u64, out: &mut Vec<Effect>) {
        if !self.log.contains(base.last) || base.last.index > self.applied {
            return; // overtaken by one of the leader's
        }
        self.snapshot = self.snapshot.max(base.last.index);
        let kept = Index(base.last.index.0.saturating_sub(keep_entries));
        let to = kept.min(self.pinned()).min(self.writes.durable());
        if let Some(to) = self.log.id_of(to).filter(|to| to.index > self.log.base().index) {
            let cut = Cut { to, checksum: self.log.checksum_of(to.index) };
            self.log.compact(to, cut.checksum);
            self.memberships.compact(to.index);
            self.persist(now, Persist { cut: Some(cut), ..Persist::default() }, out);
        }
    }

    /// A peer is being sent a snapshot that ends at `at`: the entries behind it stay until the peer has them, or until
    /// `None` says that it is given up.
    pub fn pin(&mut self, peer: NodeId, at: Option<Index>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        match at {
            Some(at) => drop(leadership.pins.insert(peer, at)),
            None => drop(leadership.pins.remove(&peer)),
        }
    }

    /// The leader of the current term sends a piece of a snapshot.
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
        let base = &chunk.snapshot.base;
        match self.is_past(base) {
            Err(violation) => out.push(Effect::Halt(violation(from))),
            Ok(true) => self.say_installed(now, from, chunk.epoch, base, out),
            Ok(false) => out.push(Effect::SnapshotChunk { from, chunk }),
        }
    }

    /// A snapshot that `from` sent is whole, checked and durable: the log and the state machine follow it, unless they
    /// are past it by now.
    pub fn snapshot_received(
        &mut self,
        now: Moment,
        from: NodeId,
        epoch: u64,
        base: &SnapshotBase,
        out: &mut Vec<Effect>,
    ) {
        match self.is_past(base) {
            Err(violation) => return out.push(Effect::Halt(violation(from))),
            Ok(true) => return self.say_installed(now, from, epoch, base, out),
            Ok(false) => {}
        }
        let last = base.last;
        let keeps = self.log.contains(last);
        self.log.compact(last, Some(base.last_checksum));
        self.memberships.install(last.index, base.membership.clone(), keeps);
        self.snapshot = last.index;
        self.commit = self.commit.max(last.index);
        self.released = self.released.max(last.index);
        self.writes.covered(last.index, keeps);
        let reply = SnapshotReply { epoch, last, outcome: SnapshotOutcome::Installed { index: last.index } };
        let then = alloc::vec![self.outgoing(from, Body::SnapshotReply(reply))];
        let cut = Cut { to: last, checksum: Some(base.last_checksum) };
        self.persist(now, Persist { cut: Some(cut), then, ..Persist::default() }, out);
        out.push(Effect::Restore(base.clone()));
        self.release(out);
    }

    /// A peer answered a piece of a snapshot.
    pub(super) fn snapshot_answered(&mut self, now: Moment, from: NodeId, reply: SnapshotReply, out: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        leadership.heard.insert(from, now);
        out.push(Effect::SnapshotAnswered { peer: from, reply });
    }

    /// Whether everything that a snapshot covers is committed here; an error if it contradicts that.
    fn is_past(&self, base: &SnapshotBase) -> Result<bool, impl FnOnce(NodeId) -> Violation + use<>> {
        let index = base.last.index;
        if index > self.commit {
            return Ok(false);
        }
        match self.log.term_of(index) {
            Some(term) if term != base.last.term => Err(move |leader| Violation::CommittedConflict { index, leader }),
            _ => Ok(true),
        }
    }

    fn say_installed(&mut self, now: Moment, to: NodeId, epoch: u64, base: &SnapshotBase, out: &mut Vec<Effect>) {
        let last = base.last;
        let outcome = SnapshotOutcome::Installed { index: last.index };
        self.say_when_durable(now, to, Body::SnapshotReply(SnapshotReply { epoch, last, outcome }), out);
    }

    /// The last entry that may be cut for the sake of peers that are receiving a snapshot.
    fn pinned(&self) -> Index {
        let Role::Leader(leadership) = &self.role else { return Index(u64::MAX) };
        leadership.pins.values().copied().min().unwrap_or(Index(u64::MAX))
    }
}
