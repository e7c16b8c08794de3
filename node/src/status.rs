//! The status of a node, as its handle and its interfaces show it.

use crate::{comparison::Disagreement, machine::HaltCause};
use quorate_metrics::NodeRole;
use quorate_raft::{ClusterId, Index, MemberMetadata, NodeId, Skip, Term};
use std::{collections::BTreeMap, fmt, ops::RangeInclusive, sync::Arc};

/// The state of a node at one moment. Watch it through [`Node::status`](crate::Node::status).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Id of this node.
    pub node: NodeId,
    /// Role in the current term.
    pub role: NodeRole,
    /// Current term of the node.
    pub term: Term,
    /// Candidate that it voted for in that term.
    pub vote: Option<NodeId>,
    /// Leader that the node knows of.
    pub leader: Option<NodeId>,
    /// The last entry that it knows to be committed.
    pub commit: Index,
    /// The last entry that its state machine has applied.
    pub applied: Index,
    /// The last entry that is durable on it.
    pub durable: Index,
    /// The last entry of its log.
    pub last_log: Index,
    /// The first entry that its log still has.
    pub first_log: Index,
    /// The last entry that the newest snapshot covers; 0 without one.
    pub snapshot: Index,
    /// Number of faulty entries: their identity is known, but their payload was lost to the disk.
    /// They heal as soon as another member sends them.
    pub faulty: u64,
    /// Last entry of the lost state, if no snapshot covers the log's compacted beginning. Another
    /// member that has the state restores it; if none has, a backup must be restored.
    pub lost_up_to: Option<Index>,
    /// Whether the disk is full: if so, the node takes no commands, and neither leads nor asks to.
    pub storage_full: bool,
    /// The entry at which the state machine halted. If it did, the node votes and replicates, and
    /// applies and serves nothing until it is started again.
    pub halted: Option<Arc<Halted>>,
    /// The full copies of the cluster disagree by the latest claims in the log: an alarm. Replicas of a [`Service`](crate::Service) are compared, no others.
    pub disagreement: Option<Arc<Disagreement>>,
    /// Members that vote.
    pub voters: Vec<NodeId>,
    /// Members that receive the log and do not vote.
    pub learners: Vec<NodeId>,
    /// Voter that keeps no commands and never leads, if there is one.
    pub witness: Option<NodeId>,
    /// Addresses at which members are dialled, as far as the configuration has them.
    pub addresses: BTreeMap<NodeId, String>,
    /// Client addresses and labels of the members that have any: see
    /// [`Builder::metadata`](crate::Builder::metadata).
    pub metadata: Arc<BTreeMap<NodeId, MemberMetadata>>,
    /// Index of the entry with the configuration in force; 0 for the one that the node was started
    /// with, until a leader's first entry adds the cluster's id to it.
    /// [`Change::expecting`](crate::Change::expecting) compares it.
    pub membership_index: Index,
    /// Whether that configuration is committed and not a joint one: as far as this node knows, no
    /// change of the members is in progress.
    pub is_settled: bool,
    /// Id of the cluster: stated by the first leader's first entry, and drawn anew by each restore
    /// and recovery. `None` until this node knows that entry to be committed.
    pub cluster_id: Option<ClusterId>,
    /// Schema version of commands that a service has reached, as far as this node has applied: see
    /// [`Service::VERSION`](crate::Service::VERSION). 0 for other state machines, and on a witness.
    pub schema_version: u32,
    /// The newest versions that the members' state machines can apply: from the least of them to
    /// the greatest, as last reported to this node. `None` until every member has reported. A
    /// service may write a new version once the least is there, and from then on: a member that is
    /// added later must apply it too.
    pub machine_versions: Option<RangeInclusive<u32>>,
}

/// The entry at which a node's state machine halted. The machine is not used any more: its state
/// may be spoilt. A restart applies the entry again.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Halted {
    /// Identity of the entry, in the form that [`Builder::skip`](crate::Builder::skip) takes.
    pub entry: Skip,
    /// Bytes of the command in the log.
    pub bytes: usize,
    /// The reason for which the entry was not applied.
    pub cause: HaltCause,
    /// Whether an operator can have the entry skipped: it holds a command that made the machine
    /// panic.
    pub can_be_skipped: bool,
}

impl fmt::Display for Halted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, bytes, cause, can_be_skipped } = self;
        write!(f, "the state machine halted at {entry}, of {bytes} bytes: {cause}")?;
        if *can_be_skipped {
            let Skip { index, term, checksum } = entry;
            write!(
                f,
                "; or let every node skip it (Builder::skip; for quorate-kv, [[skip]] with index = {index}, term = {term}, \
                 checksum = \"0x{checksum:08x}\"), which answers its caller with an error. Then restart this node, which votes and \
                 replicates meanwhile"
            )?;
        }
        Ok(())
    }
}
