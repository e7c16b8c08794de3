//! The JSON that clients and server exchange.

use crate::object::list;
use quorate::{Index, NodeId, Term};
use serde::{Deserialize, Serialize};

/// The answer to a put.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PutAnswer {
    /// Where the write stands in the log.
    pub index: Index,
}

/// The answer to a delete.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeleteAnswer {
    /// Where the write stands in the log.
    pub index: Index,
    /// Whether the key was there before.
    pub existed: bool,
}

/// What a compare-and-swap asks. Its values are text; binary ones are put and got, not compared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CasRequest {
    /// The value that the key must have; `null`: it must not exist. Never left out: forgetting it is not asking for
    /// "must not exist".
    #[serde(deserialize_with = "Option::deserialize")]
    pub expect: Option<String>,
    /// Its value from then on.
    pub value: String,
}

/// The answer to a compare-and-swap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CasAnswer {
    /// Whether the key had the expected value, and has the new one.
    pub swapped: bool,
    /// Where the comparison stands in the log.
    pub index: Index,
}

/// The answer to `POST /v1/snapshot`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotAnswer {
    /// The last entry that the snapshot covers.
    pub index: Index,
}

/// The answer to `GET /v1/status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The node that answers.
    pub node_id: NodeId,
    /// `leader`, `follower`, `candidate`, `pre_candidate` or `learner`.
    pub role: String,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<NodeId>,
    /// The leader that it follows or is, if any.
    pub leader_id: Option<NodeId>,
    /// How far it knows the log to be committed.
    pub commit_index: Index,
    /// How far it has applied; `state_hash` is of exactly this index.
    pub applied_index: Index,
    /// How far its log is durable.
    pub durable_index: Index,
    /// The last entry of its log.
    pub last_log_index: Index,
    /// The first entry that its log still has.
    pub first_log_index: Index,
    /// The last entry covered by its newest snapshot; 0 without one.
    pub snapshot_index: Index,
    /// How many of its entries the disk lost; they heal as soon as another node sends them.
    #[serde(default)]
    pub faulty_entries: u64,
    /// Whether its disk is full: it takes no commands then, and does not lead.
    #[serde(default)]
    pub storage_full: bool,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who receives the log and does not vote.
    pub learners: Vec<NodeId>,
    /// Who of them keeps no commands, if anybody.
    #[serde(default)]
    pub witness: Option<NodeId>,
    /// The cluster's id, 32 hexadecimal digits; nothing until the node knows it. Two clusters of one name differ in it.
    #[serde(default)]
    pub cluster_id: Option<String>,
    /// 16 hexadecimal digits, equal on nodes with equal applied state. Empty on a witness, which has none.
    pub state_hash: String,
}

/// What `POST /v1/members` asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// Who is to receive the log.
    pub id: NodeId,
    /// At which address the members dial it.
    pub addr: String,
    /// Whether it keeps no commands and breaks ties alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness: bool,
}

/// The body of `PUT /v1/members/{id}/addr`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The address at which the members dial it from now on.
    pub addr: String,
}

/// What `PUT /v1/members` asks: exactly these vote, in one step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VotersRequest {
    /// Who.
    #[serde(deserialize_with = "list")]
    pub voters: Vec<VoterRequest>,
}

/// A voter of a [`VotersRequest`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoterRequest {
    /// Who.
    pub id: NodeId,
    /// At which address the members dial it; needed for who is no member yet.
    #[serde(default)]
    pub addr: Option<String>,
}

/// The answer to a change of the members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeAnswer {
    /// Where the configuration stands that is in force now.
    pub index: Index,
}

/// The answer to `GET /v1/members`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MembersAnswer {
    /// Where the configuration stands: what `?expect=` of a change compares.
    pub index: Index,
    /// Whether it is committed and no change is under way, as far as this node knows.
    pub settled: bool,
    /// The members.
    #[serde(deserialize_with = "list")]
    pub members: Vec<MemberAnswer>,
}

/// A member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberAnswer {
    /// Who.
    pub id: NodeId,
    /// At which address the members dial it, if the configuration says so.
    pub addr: Option<String>,
    /// `voter` or `learner`.
    pub role: String,
    /// Whether it is the witness.
    #[serde(default)]
    pub witness: bool,
}

/// What `POST /v1/transfer` asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// Who is to lead; without it, the voter whose log is longest.
    #[serde(default)]
    pub to: Option<NodeId>,
}

/// The answer to `POST /v1/transfer`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransferAnswer {
    /// Who leads now.
    pub leader_id: NodeId,
}

/// What every refusal says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// For machines: `bad_request`, `not_found`, `no_leader`, `too_stale`, `witness`, `overloaded`, `storage_full`, `stopping`, `too_large`,
    /// `outcome_unknown`, `conflict`, `session_expired`, `stale_serial`, …
    pub error: String,
    /// For people: one line, what and what to do.
    pub message: String,
}
