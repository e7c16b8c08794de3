//! The part of `Consensus` in the repair of lost entries and in a full disk.
//!
//! The rules decide which member is asked and what an answer means. Here entries are looked up for
//! other members, and damage is told and counted.

use super::{Consensus, roles::LoadFor};
use crate::events::What;
use actix::Context;
use quorate_raft::{Batch, Entries, EntryId, Index, NodeId, Repair};

/// The most bytes of entries in one answer to a member that lost them.
const REPAIR_BYTES_MAX: usize = 1 << 20;

impl Consensus {
    /// A member asks for entries that it lost, and the rules found that this node has them.
    pub(super) fn serve_repair(&mut self, to: NodeId, repair: Repair) {
        match self.replica.entries(to, repair.from.index, REPAIR_BYTES_MAX) {
            Entries::Here { batch, .. } => self.answer_repair(to, repair, batch.into_iter().collect()),
            Entries::OnDisk { to: last, .. } => {
                let last = last.min(repair.to);
                self.load(LoadFor::Repair { to, repair }, repair.from.index, last, REPAIR_BYTES_MAX);
            }
            Entries::Compacted => self.answer_repair(to, repair, Vec::new()),
        }
    }

    pub(super) fn answer_repair(&mut self, to: NodeId, repair: Repair, found: Vec<Batch>) {
        let reply = self.replica.repair_reply(repair, found);
        self.say(to, reply);
    }

    /// Tells, once for each entry and member, that the two logs differ there; many messages
    /// find it again.
    pub(super) fn diverged(&mut self, at: EntryId, with: NodeId) {
        if self.warnings.divergences.insert(with, at) != Some(at) {
            self.node.metrics.peer(with.0).diverged();
            self.tell(What::LogsDiffer { at, peer: with });
        }
    }

    /// Tells that a member came back with less than it had acknowledged, and the consequence
    /// for the cluster.
    pub(super) fn data_lost(&self, member: NodeId, last: Index, held: Index, is_last_copy: bool) {
        self.node.metrics.peer(member.0).data_lost();
        self.tell(What::MemberLostData { member, last, held });
        if is_last_copy {
            self.tell(What::LastCopy);
        }
    }

    /// The storage has no space for entries, or has again.
    pub(super) fn storage_full(&mut self, is_full: bool, ctx: &mut Context<Self>) {
        self.tell(if is_full { What::StorageFull } else { What::StorageFree });
        self.rule(ctx, |replica, out| replica.storage_full(is_full, out));
    }
}
