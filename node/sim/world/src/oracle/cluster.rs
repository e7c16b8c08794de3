//! A cluster, as the checks of messages see it: the durable state of its nodes, and the logs of its
//! leaders where they can be seen.

use quorate_raft::{EntryId, HardState, Index, Log, NodeId, Term};

/// The durable state of one node, as far as an observer knows it.
pub trait Durable {
    /// The durable term, vote and promise.
    fn hard_state(&self) -> HardState;

    /// Whether this very entry is durable and whole, or covered by a snapshot.
    fn holds(&self, entry: EntryId) -> bool;

    /// Whether the node holds the entry, or knows that it lost it.
    fn remembers(&self, entry: EntryId) -> bool;

    /// The last index of the log or of the newest snapshot.
    fn reaches(&self) -> Index;

    /// The first index from which it may hold less than when it was last examined.
    fn less_from(&self) -> Option<Index> {
        None
    }
}

/// One cluster, as an observer sees it beside the messages.
pub trait Cluster {
    /// The durable state of a node.
    type Disk: Durable;

    /// The disks of all nodes.
    fn disks(&self) -> impl Iterator<Item = (NodeId, &Self::Disk)>;

    /// The disk of one node; `None` before anything is known of it.
    fn disk(&self, node: NodeId) -> Option<&Self::Disk>;

    /// The member that is started as a witness.
    fn witness(&self) -> Option<NodeId>;

    /// Whether the directory of the node was emptied or put back: it may lack what others count on.
    fn was_emptied(&self, node: NodeId) -> bool;

    /// Whether the logs of leaders can be seen.
    fn sees_logs(&self) -> bool {
        false
    }

    /// The log of the node if it leads this term, and if its log can be seen.
    fn log_of_leader(&self, node: NodeId, term: Term) -> Option<&Log> {
        let _ = (node, term);
        None
    }

    /// Whether entries that were found durable need not be examined again.
    fn trusts_earlier_checks(&self) -> bool {
        false
    }
}

/// Whether some node has a later term: a deposed leader does not know which entries the other nodes
/// have removed since.
pub(super) fn is_over(term: Term, cluster: &impl Cluster) -> bool {
    cluster.disks().any(|(_, disk)| disk.hard_state().term > term)
}
