//! Reasons for which a change of the members is refused.

use super::Change;
use crate::ids::{Index, NodeId};
use alloc::string::String;
use core::fmt;

/// Why the members are not changed. Nothing has happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ChangeRefused {
    /// This node does not lead: ask the leader.
    NotLeader,
    /// The leader has yet to commit an entry of its own term: until then it does not know which configuration is in force
    /// (the flaw in single-server changes that Ongaro announced in 2015, and no less a condition here). Try again.
    NotReady,
    /// Another change is under way, whose configuration stands at `index`. Try again when it is through.
    Pending {
        /// Its entry.
        index: Index,
    },
    /// The configuration is no longer the one that the change was made for: look at it again.
    Moved {
        /// The one that was expected.
        expected: Index,
        /// The one that is in force.
        found: Index,
    },
    /// Leadership is being handed over. Try again.
    HandingOver,
    /// Nobody of this id belongs to the cluster.
    Unknown {
        /// Who.
        id: NodeId,
    },
    /// A new member has no address, or one that is none.
    BadAddress {
        /// Who.
        id: NodeId,
    },
    /// A node that is to be added is a member already, or is known at another address than the one given.
    Member {
        /// The node.
        id: NodeId,
        /// Its place in the cluster.
        capacity: Capacity,
        /// The address at which the configuration has it, if it says so.
        address: Option<String>,
    },
    /// Another member is dialled at the address.
    AddressTaken {
        /// The node that was to have it.
        id: NodeId,
        /// The member that has it.
        by: NodeId,
    },
    /// A list of voters names a node twice: one of the two is a mistake for another node, which would be removed.
    Twice {
        /// Which.
        id: NodeId,
    },
    /// A voter would become a learner, which takes two changes.
    Demotes {
        /// Who.
        id: NodeId,
    },
    /// Nobody would vote.
    NoVoters,
    /// There would be more than [`Change::MEMBERS_MAX`] members.
    TooMany,
    /// There is a witness already, or one that only just leaves.
    WitnessTaken {
        /// Who.
        id: NodeId,
    },
    /// A member that is no witness can't become one.
    NotWitness {
        /// Who.
        id: NodeId,
    },
    /// Beside a witness fewer than two full copies would vote.
    TooFewFull,
    /// A new voter is too far behind, or one without which there would be no quorum: it would hold up every commit.
    Behind {
        /// Who.
        id: NodeId,
        /// How many entries it lacks; all of them, if nothing was heard of it lately.
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
    /// Votes and keeps everything.
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
