//! What a node shows of itself.

use quorate_raft::{ClusterId, Index, NodeId, Term};
use std::{collections::BTreeMap, ops::RangeInclusive};

/// A node at one moment. Watch it through [`Node::status`](crate::Node::status).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// This node.
    pub node: NodeId,
    /// What it is doing.
    pub role: Role,
    /// Its current term.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// The leader that it knows of.
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
    /// How many entries are faulty: their identity is known, their payload was lost to the disk. They heal as soon as another
    /// member sends them.
    pub faulty: u64,
    /// If the state is lost, because no snapshot covers the beginning of the log that was cut: up to which entry. A member that has the
    /// state brings it back; if none has, a backup must be restored.
    pub lost_up_to: Option<Index>,
    /// Whether the disk is full: then the node takes no commands, and neither leads nor asks to.
    pub storage_full: bool,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who receives the log and does not vote.
    pub learners: Vec<NodeId>,
    /// Who of them keeps no commands, and never leads, if anybody.
    pub witness: Option<NodeId>,
    /// Where members are dialled, as far as the configuration says.
    pub addresses: BTreeMap<NodeId, String>,
    /// Where the configuration in force stands: its entry; 0 for the one that the node was started with, until a leader's first
    /// entry gives that the cluster's id. What
    /// [`Change::expecting`](crate::Change::expecting) compares.
    pub membership_index: Index,
    /// Whether that configuration is committed and no joint one: no change is under way, as far as this node knows.
    pub is_settled: bool,
    /// The cluster's id: stated by the first leader's first entry, and drawn anew by each restore and recovery. `None` until this
    /// node knows that entry to be committed.
    pub cluster_id: Option<ClusterId>,
    /// The newest versions that the state machines of all members can apply: from the least of them to the greatest, as far as
    /// this node heard last. `None` until it heard of every member. A service may write a new version once the least is there, and
    /// go on from then on: whoever comes later must apply it too.
    pub machine_versions: Option<RangeInclusive<u32>>,
}

/// What a node is doing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks to be elected.
    Candidate,
    /// It asks whether it would be elected.
    PreCandidate,
    /// It receives the log and does not vote.
    Learner,
}

impl Role {
    /// The word for it in interfaces: `leader`, `follower`, `candidate`, `pre_candidate` or `learner`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::PreCandidate => "pre_candidate",
            Self::Learner => "learner",
        }
    }
}
