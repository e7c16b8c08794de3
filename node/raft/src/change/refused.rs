//! Reasons for which a membership change is refused.

use super::Change;
use crate::ids::{Index, NodeId};
use alloc::string::String;
use core::fmt;

/// The reason why a membership change was refused. Nothing has happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ChangeRefused {
    /// This node does not lead: ask the leader.
    NotLeader,
    /// The leader has not committed an entry of its own term yet, and until then does not know
    /// which configuration is in force (the flaw in single-server changes that Ongaro announced in
    /// 2015, and a condition here as well). Try again.
    NotReady,
    /// Another change is in progress, with its configuration at `index`. Try again when
    /// it is complete.
    Pending {
        /// Index of its entry.
        index: Index,
    },
    /// The configuration is no longer the one that the change was made for: read
    /// the configuration again.
    Moved {
        /// The index that the change expected.
        expected: Index,
        /// Index of the configuration in force.
        found: Index,
    },
    /// A leadership transfer is in progress. Try again.
    HandingOver,
    /// No member of the cluster has this id.
    Unknown {
        /// The id that the change names.
        id: NodeId,
    },
    /// A new member has no address, or one that no other node could dial.
    BadAddress {
        /// Id of the new member.
        id: NodeId,
    },
    /// A node to be added is a member already, or is known at another address than the one given.
    Member {
        /// Id of the node.
        id: NodeId,
        /// Its present place in the cluster.
        capacity: Capacity,
        /// Its address in the configuration, if there is one.
        address: Option<String>,
    },
    /// Another member has the address.
    AddressTaken {
        /// The node that was to get the address.
        id: NodeId,
        /// The member that has it.
        by: NodeId,
    },
    /// A list of voters names a node twice: one of the two is probably a mistake for another node,
    /// which would be removed.
    Twice {
        /// The id listed twice.
        id: NodeId,
    },
    /// A voter would become a learner, which takes two changes.
    Demotes {
        /// Id of the voter.
        id: NodeId,
    },
    /// No voter would be left.
    NoVoters,
    /// There would be more than [`Change::MEMBERS_MAX`] members.
    TooMany,
    /// There is a witness already, or one that is just leaving.
    WitnessTaken {
        /// Id of that witness.
        id: NodeId,
    },
    /// A member that is not a witness can't become one.
    NotWitness {
        /// Id of the member.
        id: NodeId,
    },
    /// Fewer than two full copies would vote beside the witness.
    TooFewFull,
    /// A new voter lags too far behind, or an old one without which there would be no quorum: it
    /// would hold up every commit.
    Behind {
        /// Id of the voter.
        id: NodeId,
        /// Number of entries that it lacks; all of them, if it was not heard lately.
        entries: u64,
    },
}

impl fmt::Display for ChangeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader => write!(f, "this node does not lead; ask the leader"),
            Self::NotReady => {
                write!(f, "the leader is new and has committed nothing of its term yet; try again")
            }
            Self::Pending { index } => {
                write!(f, "another change, at entry {index}, is under way; try again when it is through")
            }
            Self::Moved { expected, found } => {
                write!(f, "the configuration is the one of entry {found}, not of {expected}; look at it again")
            }
            Self::HandingOver => write!(f, "leadership is being handed over; try again"),
            Self::Unknown { id } => write!(f, "node {id} is no member; see the members' list"),
            Self::BadAddress { id } => {
                write!(
                    f,
                    "node {id} needs an address at which the others can dial it: at most {} bytes, neither port 0 nor an address such \
                     as 0.0.0.0 that is no machine's",
                    Change::ADDRESS_BYTES_MAX
                )
            }
            Self::Member { id, capacity, address: Some(address) } => {
                write!(f, "node {id} is a {capacity} already, at {address}; to change its address, move it")
            }
            Self::Member { id, capacity, address: None } => {
                write!(f, "node {id} is a {capacity} already; to give it an address, move it")
            }
            Self::AddressTaken { id, by } => {
                write!(
                    f,
                    "the address of node {id} is already that of node {by}; give each its own, or remove node {by} first"
                )
            }
            Self::Twice { id } => write!(f, "node {id} is listed twice; list every voter once"),
            Self::Demotes { id } => write!(f, "node {id} votes; remove it first, and add it then"),
            Self::NoVoters => write!(f, "no voter would be left; add and promote another first"),
            Self::TooMany => write!(f, "there would be more than {} members", Change::MEMBERS_MAX),
            Self::WitnessTaken { id } => {
                write!(f, "node {id} is the witness, and there is one at most; remove it first")
            }
            Self::NotWitness { id } => {
                write!(f, "node {id} is a member and no witness; remove it, and add a witness under a new id")
            }
            Self::TooFewFull => {
                write!(f, "beside a witness two others must vote; add and promote another first, or remove the witness")
            }
            Self::Behind { id, entries } => {
                write!(
                    f,
                    "node {id} lacks {entries} entries and would hold up the cluster as a voter; see that it runs and is \
                     reachable, and try again"
                )
            }
        }
    }
}

/// The place of a member in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Capacity {
    /// Votes and keeps every entry whole.
    Voter,
    /// Receives the log and does not vote.
    Learner,
    /// Votes and keeps no commands.
    WitnessVoter,
    /// Keeps no commands and does not vote yet.
    WitnessLearner,
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::WitnessVoter => "witness (voter)",
            Self::WitnessLearner => "witness (learner)",
        })
    }
}
