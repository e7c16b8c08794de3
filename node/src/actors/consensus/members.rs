//! The part of `Consensus` in the members of the cluster: links, status and replicators follow the
//! configuration, and peers with other skip lists are not heard.
//!
//! All nodes must skip the same entries, or their states would differ. So nodes with different skip
//! lists do not hear each other. A node learns the commit index from a leader that it hears, or
//! from a quorum that hears it; so a quorum applies or skips alike, regardless of the entries that
//! this node applies or skips after a start. A witness applies nothing and needs no list.

use super::Consensus;
use crate::{
    error::{Failure, SnapshotError},
    events::What,
    settings::HALTED_AT,
    status::Halted,
};
use actix::Context;
use quorate_raft::{Index, NodeId, Replica, Skip};
use std::sync::Arc;

impl Consensus {
    /// The leader, if a message can reach it now.
    pub(super) fn reachable_leader(&self) -> Option<NodeId> {
        self.replica.leader().filter(|leader| self.connections.reachable.contains(leader))
    }

    /// Another configuration is in force, or it is committed now: links, status and
    /// replicators follow it.
    pub(super) fn members_changed(&mut self, ctx: &mut Context<Self>) {
        let peers = self.replica.peers();
        self.connections.peers.set_members(&peers, self.replica.membership());
        self.connections.observed.peers_are(&peers);
        self.status.members_changed(&self.replica);
        self.tell_members();
        if self.replica.membership().contains(self.replica.id()) && self.stopping.is_member() {
            self.tell(What::AddedAgain);
        }
        if !self.replica.is_as_configured() {
            self.node.lifecycle.fail(Failure::NotAsConfigured { is_witness: self.replica.is_witness() });
        }
        if self.replica.is_leader() {
            self.replicate_to(&peers, self.replica.log().last().index, ctx);
        }
    }

    /// States the cluster's id to peers, once an entry that has it is committed.
    pub(super) fn learn_cluster_id(&mut self) {
        let Some(id) = self.replica.cluster_id() else { return };
        self.tell(What::ClusterIdKnown { id: id.to_string() });
        self.connections.introduction.cluster_id = Some(id);
        self.connections.peers.introduce(self.connections.introduction.clone());
        self.status.cluster_id_known(id);
    }

    /// The entry at which this node's state machine halted.
    pub(super) fn halted_at(&self) -> Option<Index> {
        self.halted.as_ref().map(|halted| halted.entry.index)
    }

    /// The state machine halted: the node goes on without one. Peers are told, so that a leader that
    /// halted as well does not transfer leadership to this node.
    pub(super) fn machine_halted(&mut self, halted: Arc<Halted>, ctx: &mut Context<Self>) {
        if self.halted.is_some() {
            return;
        }
        let at = halted.entry.index;
        self.status.halted(Arc::clone(&halted));
        self.halted = Some(halted);
        self.connections.introduction.settings.insert(HALTED_AT.into(), at.to_string());
        self.connections.peers.introduce(self.connections.introduction.clone());
        for caller in std::mem::take(&mut self.snapshots.callers) {
            caller.tell(Err(SnapshotError::Halted { at }));
        }
        let held = self.ticking.ticks.hold_commands();
        self.ticking.ticks.machine_halted();
        self.claims.machine_halted();
        if held {
            self.retry_deferred(ctx);
        }
        self.rule(ctx, Replica::machine_halted);
    }

    /// A peer stated its skip list.
    pub(super) fn compare_skips(&mut self, peer: NodeId, theirs: &[Skip]) {
        let is_witness = self.replica.is_witness() || self.replica.witness() == Some(peer);
        if is_witness || theirs == self.connections.introduction.skips {
            if self.connections.skips_of_others.remove(&peer).is_some() {
                self.tell(What::SkipsAgree { peer });
            }
            return;
        }
        if self.connections.skips_of_others.get(&peer).is_some_and(|known| known == theirs) {
            return;
        }
        let own = listed(&self.connections.introduction.skips);
        self.tell(What::SkipsDiffer { peer, theirs: listed(theirs), own });
        self.connections.skips_of_others.insert(peer, theirs.to_vec());
    }
}

fn listed(skips: &[Skip]) -> String {
    if skips.is_empty() {
        return "no entry".to_owned();
    }
    skips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
