//! The comparison of replicas as the node sees it: the claims that its state machine owes to the
//! log, the windows that are not agreed on yet, and the difference that the claims show.
//!
//! The layer of services makes it (`service::windows` has the rules). Other machines are not
//! compared, and pay nothing.

use bytes::Bytes;
use quorate_raft::{Index, NodeId};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// The comparison as of one entry, on one node.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Comparison {
    /// The claims of this node that no applied entry has, oldest first. At most those of the
    /// windows that are remembered.
    pub owed: Vec<Owed>,
    /// The oldest window that takes claims.
    pub oldest: u64,
    /// The windows of each node of which a claim was applied, as far as they are remembered.
    pub claimed: BTreeMap<NodeId, BTreeSet<u64>>,
    /// The first window that is over, and that no majority has agreed on, nor on a later one.
    pub open: Option<Open>,
    /// The copies that a majority differed from, each with the entry that showed it last.
    pub found: BTreeMap<NodeId, Index>,
    /// That of the latest window with one, if no later window agreed.
    pub disagreement: Option<Arc<Disagreement>>,
}

/// A claim that is to be appended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owed {
    /// Number of its window.
    pub window: u64,
    /// The payload of its entry.
    pub payload: Bytes,
}

/// A window that is over and not agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Open {
    /// The last entry with a state that no such window precedes.
    pub sound_up_to: Index,
    /// The nodes with claims of it, or of a later window, that differ without a majority.
    pub disputing: BTreeSet<NodeId>,
    /// The nodes that have claimed the last window that is over.
    pub claimed: BTreeSet<NodeId>,
}

/// Full copies that differ from one another, by the claims in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Disagreement {
    /// The entries that were compared begin after this one.
    pub after: Index,
    /// The last of the entries that were compared.
    pub up_to: Index,
    /// Whether the digests are those of the state after these entries; if not, they are those of
    /// the outcomes of these entries.
    pub is_of_state: bool,
    /// The digest of each copy that has stated one.
    pub digests: BTreeMap<NodeId, u64>,
    /// The digest of a majority of the full copies, if a majority agrees. Copies with another one
    /// stop.
    pub majority: Option<u64>,
}

impl Disagreement {
    /// The copies that differ: from the majority, or from one another if there is none.
    pub fn differing(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.digests.iter().filter(|(_, digest)| self.majority != Some(**digest)).map(|(node, _)| *node)
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, up_to, is_of_state, digests, majority } = self;
        let of = if *is_of_state { "state after" } else { "outcomes of" };
        write!(f, "the full copies differ in the {of} the entries after {after} up to {up_to}:")?;
        for (node, digest) in digests {
            write!(f, " node {node} has {digest:#018x},")?;
        }
        match majority {
            Some(majority) => write!(
                f,
                " and a majority has {majority:#018x}: the others stop. Find the cause (a service that is not deterministic, \
                 another build, damaged memory), then restart each with its state discarded (Builder::discard_state)"
            ),
            None => f.write_str(
                " and no majority agrees: none of them stops, and no snapshot is sent. Find the copy that is wrong, and restart it \
                 with its state discarded (Builder::discard_state)",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_the_entries_the_digests_and_the_remedy() {
        let digests = [(1, 7), (2, 8), (3, 7)].map(|(node, digest)| (NodeId(node), digest)).into();
        let disagreement =
            Disagreement { after: Index(1_023), up_to: Index(2_047), is_of_state: false, digests, majority: Some(7) };
        assert_eq!(disagreement.differing().collect::<Vec<_>>(), [NodeId(2)]);
        let text = disagreement.to_string();
        for part in ["after 1023 up to 2047", "node 2 has 0x0000000000000008", "majority has 0x0000000000000007"] {
            assert!(text.contains(part), "{text}");
        }
        let disputed = Disagreement { majority: None, ..disagreement };
        assert_eq!(disputed.differing().count(), 3);
        assert!(disputed.to_string().contains("no snapshot is sent"), "{disputed}");
    }
}
