//! The entries that nodes skip: all must skip the same, or their states would differ.
//!
//! Nodes whose lists differ do not hear each other. A node learns what is committed from a leader that it hears, or from a quorum that
//! hears it; so what it applies or skips after a start, a quorum applies or skips alike. A witness applies nothing, and needs no list.

use super::Consensus;
use quorate_raft::{NodeId, Skip};

impl Consensus {
    /// A peer stated what it skips.
    pub(super) fn compare_skips(&mut self, peer: NodeId, theirs: &[Skip]) {
        let is_witness = self.replica.is_witness() || self.replica.witness() == Some(peer);
        if is_witness || theirs == self.skips {
            if self.skips_of_others.remove(&peer).is_some() {
                tracing::info!(node = %self.replica.id(), "{peer} skips the same entries as this node again, and is heard");
            }
            return;
        }
        if self.skips_of_others.get(&peer).is_some_and(|known| known == theirs) {
            return;
        }
        tracing::error!(
            node = %self.replica.id(),
            "node {peer} skips {}, this node skips {}: their states would differ, so nothing that it says is heard; name the same \
             entries on every node (Builder::skip, [[skip]]) and restart those that change",
            listed(theirs),
            listed(&self.skips)
        );
        self.skips_of_others.insert(peer, theirs.to_vec());
    }
}

fn listed(skips: &[Skip]) -> String {
    if skips.is_empty() {
        return "no entry".to_owned();
    }
    skips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
