//! Reasons for which a membership change or a leadership transfer is refused.

use crate::{
    address,
    ids::{Index, NodeId},
    membership,
    metadata::MetadataFlaw,
};
use alloc::string::String;
use core::fmt;

/// The reason why a membership change was refused. Nothing has happened.
///
/// Exhaustive, like all that travels between nodes: a new reason is a new version of the wire, and
/// does not compile until the codec has it.
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
    TransferInProgress,
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
        kind: MemberKind,
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
    /// There would be more than [`Change::MEMBERS_MAX`](crate::Change::MEMBERS_MAX) members.
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
    /// The metadata of a member would be out of bounds.
    BadMetadata {
        /// Id of the member.
        id: NodeId,
        /// The bound.
        flaw: MetadataFlaw,
    },
}

impl core::error::Error for ChangeRefused {}

impl fmt::Display for ChangeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader => write!(f, "this node does not lead; ask the leader"),
            Self::NotReady => {
                write!(f, "the leader is new and has not committed an entry of its term yet; try again")
            }
            Self::Pending { index } => {
                write!(f, "another change, at entry {index}, is in progress; try again when it is complete")
            }
            Self::Moved { expected, found } => {
                write!(
                    f,
                    "the configuration in force is that of entry {found}, not {expected}; read it again and repeat the change"
                )
            }
            Self::TransferInProgress => write!(f, "a leadership transfer is in progress; try again"),
            Self::Unknown { id } => write!(f, "node {id} is not a member; check the list of members"),
            Self::BadAddress { id } => {
                write!(
                    f,
                    "node {id} needs an address that the others can dial: at most {} bytes, and neither port 0 nor an address \
                     such as 0.0.0.0 that names no machine",
                    address::BYTES_MAX
                )
            }
            Self::Member { id, kind, address: Some(address) } => {
                write!(f, "node {id} is a {kind} already, at {address}; use a move to change its address")
            }
            Self::Member { id, kind, address: None } => {
                write!(f, "node {id} is a {kind} already; use a move to give it an address")
            }
            Self::AddressTaken { id, by } => {
                write!(
                    f,
                    "the address of node {id} is already that of node {by}; give each its own, or remove node {by} first"
                )
            }
            Self::Twice { id } => write!(f, "node {id} is listed twice; list every voter once"),
            Self::Demotes { id } => write!(f, "node {id} is a voter; remove it first, then add it as a learner"),
            Self::NoVoters => write!(f, "no voter would be left; add and promote another first"),
            Self::TooMany => write!(f, "the cluster would have more than {} members", membership::MEMBERS_MAX),
            Self::WitnessTaken { id } => {
                write!(f, "node {id} is the witness, and a cluster has one at most; remove it first")
            }
            Self::NotWitness { id } => {
                write!(f, "node {id} is a member without being a witness; remove it, and add a witness under a new id")
            }
            Self::TooFewFull => {
                write!(
                    f,
                    "a cluster with a witness needs two other voters; add and promote another first, or remove the witness"
                )
            }
            Self::Behind { id, entries } => {
                write!(
                    f,
                    "node {id} lacks {entries} entries and would hold up the cluster as a voter; check that it runs and is \
                     reachable, and try again"
                )
            }
            Self::BadMetadata { id, flaw } => write!(f, "node {id} can't have this metadata: {flaw}"),
        }
    }
}

/// The place of a member in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemberKind {
    /// Votes and keeps every entry whole.
    Voter,
    /// Receives the log and does not vote.
    Learner,
    /// Votes and keeps no commands.
    WitnessVoter,
    /// Keeps no commands and does not vote yet.
    WitnessLearner,
}

impl fmt::Display for MemberKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::WitnessVoter => "witness (voter)",
            Self::WitnessLearner => "witness (learner)",
        })
    }
}

/// The reason why leadership is not transferred. Nothing has happened,
/// except for [`TransferRefused::GivenUp`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TransferRefused {
    /// This node does not lead: ask the leader.
    NotLeader,
    /// A transfer to another node is in progress.
    Pending {
        /// The target of that transfer.
        to: NodeId,
    },
    /// The node is not a voter, and may not lead.
    NotVoter {
        /// Id of the node.
        id: NodeId,
    },
    /// The node is a witness, and never leads.
    Witness {
        /// Id of the witness.
        id: NodeId,
    },
    /// The node, or, if none was named, every other voter, was not heard lately.
    Unreachable,
    /// The target did not take over in time, and this node still leads. The target may have been
    /// told to campaign, and may do so when the message arrives.
    GivenUp {
        /// The target of the transfer.
        to: NodeId,
    },
}

impl core::error::Error for TransferRefused {}

impl fmt::Display for TransferRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader => write!(f, "this node does not lead; ask the leader"),
            Self::Pending { to } => write!(f, "a leadership transfer to node {to} is in progress; try again"),
            Self::NotVoter { id } => write!(f, "node {id} does not vote and can't lead; promote it first"),
            Self::Witness { id } => write!(f, "node {id} is a witness and can't lead; choose another"),
            Self::Unreachable => write!(f, "that node was not heard lately; check that it runs and is reachable"),
            Self::GivenUp { to } => {
                write!(
                    f,
                    "node {to} did not take over in time, and the leader is unchanged; node {to} may still take over if the \
                     leader's message reaches it late; check the status, and try again"
                )
            }
        }
    }
}
