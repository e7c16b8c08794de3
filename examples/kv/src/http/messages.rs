//! The JSON bodies of requests and answers.

use super::TXN_ITEMS_MAX;
use crate::{
    object::{bounded, list, object},
    octets::Octets,
};
use bytes::Bytes;
use quorate::{Index, NodeId, Term};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The answer to a put.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PutAnswer {
    /// The log index of the write.
    pub index: Index,
}

/// The answer to a delete.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeleteAnswer {
    /// The log index of the write.
    pub index: Index,
    /// Whether the key existed before.
    pub existed: bool,
}

/// The body of a compare-and-swap. Its values are text; binary values can be put and
/// read, not compared.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CasRequest {
    /// The value that the key must have; `null`: the key must not exist. The field is required, so
    /// that an omission is not taken for `null`.
    #[serde(deserialize_with = "Option::deserialize")]
    pub expect: Option<String>,
    /// The new value.
    pub value: String,
}

impl std::fmt::Debug for CasRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let expect = self.expect.as_ref().map(String::len);
        f.debug_struct("CasRequest").field("expect_bytes", &expect).field("value_bytes", &self.value.len()).finish()
    }
}

/// The answer to a compare-and-swap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CasAnswer {
    /// Whether the key had the expected value, and so was set.
    pub swapped: bool,
    /// The log index of the comparison.
    pub index: Index,
}

/// The body of `POST /v1/txn`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TxnRequest {
    /// The comparisons; without any, they hold.
    #[serde(default, deserialize_with = "bounded::<_, _, TXN_ITEMS_MAX>")]
    pub compare: Vec<CompareRequest>,
    /// The operations if all comparisons hold. They are executed in order, and each sees the
    /// effects of those before it.
    #[serde(default, deserialize_with = "bounded::<_, _, TXN_ITEMS_MAX>")]
    pub success: Vec<OperationRequest>,
    /// The operations if one does not hold.
    #[serde(default, deserialize_with = "bounded::<_, _, TXN_ITEMS_MAX>")]
    pub failure: Vec<OperationRequest>,
}

/// A comparison of a [`TxnRequest`], with either `value` or `exists`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareRequest {
    /// The key to compare.
    pub key: String,
    /// The value that the key must have; `null`: the key must not exist.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub value: Option<Option<Octets>>,
    /// Whether the key must exist.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
}

/// `deserialize_with` for a field that may be absent, so that `null` is read as its type says.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// An operation of a [`TxnRequest`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationRequest {
    /// Sets a key.
    #[serde(deserialize_with = "object")]
    Put(PairRequest),
    /// Removes a key.
    #[serde(deserialize_with = "object")]
    Delete(KeyRequest),
    /// Reads a key.
    #[serde(deserialize_with = "object")]
    Get(KeyRequest),
}

impl OperationRequest {
    /// The key that it sets, removes or reads.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put(pair) => &pair.key,
            Self::Delete(key) | Self::Get(key) => &key.key,
        }
    }
}

/// A key to set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairRequest {
    /// The key, of 1 to 1024 bytes.
    pub key: String,
    /// The new value.
    pub value: Octets,
}

/// A key to read or to remove.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// The key, of 1 to 1024 bytes.
    pub key: String,
}

/// The answer to a transaction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TxnAnswer {
    /// Whether all comparisons held, so that `success` was executed.
    pub succeeded: bool,
    /// The log index of the comparisons and operations.
    pub index: Index,
    /// The result of each executed operation, in order.
    #[serde(deserialize_with = "list")]
    pub results: Vec<OperationAnswer>,
}

/// The result of an [`OperationRequest`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationAnswer {
    /// The key was set.
    Put {
        /// The key of the request.
        key: String,
    },
    /// The key does not exist any more.
    Delete {
        /// The key of the request.
        key: String,
        /// Whether it existed before.
        existed: bool,
    },
    /// The key was read.
    Get {
        /// The key of the request.
        key: String,
        /// The value; `null` if the key does not exist.
        value: Option<Octets>,
    },
}

/// The answer to `GET /v1/kv`: one page of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListAnswer {
    /// The log index of the state that was listed.
    pub index: Index,
    /// The pairs, ordered by key.
    #[serde(deserialize_with = "list")]
    pub pairs: Vec<PairAnswer<Bytes>>,
    /// Whether the range has further keys, after the last of these.
    pub more: bool,
}

/// A pair of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "T: AsRef<[u8]>", deserialize = "Octets<T>: Deserialize<'de>"))]
pub struct PairAnswer<T> {
    /// The key; text, because requests have no others.
    pub key: Octets<T>,
    /// The value; absent if the client asked for keys only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Octets<T>>,
}

/// The changes of one entry, in a message of `GET /v1/watch`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WatchAnswer {
    /// The log index of the entry.
    pub index: Index,
    /// The changes of the watched keys, in order.
    #[serde(deserialize_with = "list")]
    pub changes: Vec<KeyChange>,
}

/// A change of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyChange {
    /// The key was set.
    Put {
        /// The key.
        key: String,
        /// The value; absent if it is too long for a message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<Octets>,
        /// Length of such a value in bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u32>,
    },
    /// The key was removed.
    Delete {
        /// The key.
        key: String,
    },
    /// The key expired.
    Expire {
        /// The key.
        key: String,
    },
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
    /// The id of the answering node.
    pub node_id: NodeId,
    /// `leader`, `follower`, `candidate`, `pre_candidate` or `learner`.
    pub role: String,
    /// The node's current term.
    pub term: Term,
    /// The candidate for which the node voted in this term.
    pub voted_for: Option<NodeId>,
    /// The leader that the node knows, possibly itself.
    pub leader_id: Option<NodeId>,
    /// The last entry that the node knows to be committed.
    pub commit_index: Index,
    /// The last applied entry; `state_hash` belongs to exactly this index.
    pub applied_index: Index,
    /// The last durable entry.
    pub durable_index: Index,
    /// The last entry of the log.
    pub last_log_index: Index,
    /// The first entry in the log.
    pub first_log_index: Index,
    /// The last entry that the newest snapshot covers; 0 without a snapshot.
    pub snapshot_index: Index,
    /// The number of entries that this node's disk lost; other nodes send them again.
    #[serde(default)]
    pub faulty_entries: u64,
    /// Whether the disk is full: the node then accepts no commands and does not lead.
    #[serde(default)]
    pub storage_full: bool,
    /// The entry at which the state machine halted, the reason, and the remedy, in one line. The
    /// node then votes and replicates, and serves no reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// The ids of the voters.
    pub voters: Vec<NodeId>,
    /// The ids of the learners, which receive the log and do not vote.
    pub learners: Vec<NodeId>,
    /// The id of the witness, which stores no commands.
    #[serde(default)]
    pub witness: Option<NodeId>,
    /// The URLs at which members serve clients, by id, as far as they are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub client_addrs: BTreeMap<NodeId, String>,
    /// The cluster's id, 32 hexadecimal digits; absent until the node knows it. It differs between
    /// clusters with the same name.
    #[serde(default)]
    pub cluster_id: Option<String>,
    /// 16 hexadecimal digits, equal on nodes with equal applied state. Empty on a witness, which
    /// has no state.
    pub state_hash: String,
}

/// The body of `POST /v1/members`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// The id of the new learner.
    pub id: NodeId,
    /// The address at which the members dial it.
    pub addr: String,
    /// Whether it joins as the witness, which stores no commands and breaks ties.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness: bool,
    /// The URL at which it serves clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_addr: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The body of `PATCH /v1/members/{id}/metadata`. Fields and labels that it does not name stay.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetadataRequest {
    /// The URL at which the member serves clients; `null` removes it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub client_addr: Option<Option<String>>,
    /// Labels to set; `null` removes one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
}

/// The body of `PUT /v1/members/{id}/addr`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The new address at which the members dial it.
    pub addr: String,
}

/// The body of `PUT /v1/members`: the complete set of voters, changed in one step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VotersRequest {
    /// The complete set of voters.
    #[serde(deserialize_with = "list")]
    pub voters: Vec<VoterRequest>,
}

/// A voter of a [`VotersRequest`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoterRequest {
    /// The id of the voter.
    pub id: NodeId,
    /// The address at which the members dial it; required for a node that is not a member yet.
    #[serde(default)]
    pub addr: Option<String>,
}

/// The answer to a change of the members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeAnswer {
    /// The log index of the configuration in force.
    pub index: Index,
}

/// The answer to `GET /v1/members`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MembersAnswer {
    /// The log index of the configuration; the value that `?expect=` of a change is compared with.
    pub index: Index,
    /// Whether it is committed and no change is in progress, as far as this node knows.
    pub settled: bool,
    /// All members, voters and learners.
    #[serde(deserialize_with = "list")]
    pub members: Vec<MemberAnswer>,
}

/// One member, voter or learner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberAnswer {
    /// The id of the member.
    pub id: NodeId,
    /// The address at which the members dial it, if the configuration has one.
    pub addr: Option<String>,
    /// `voter` or `learner`.
    pub role: String,
    /// Whether the member is the witness.
    #[serde(default)]
    pub witness: bool,
    /// The URL at which the member serves clients, if it is known.
    #[serde(default)]
    pub client_addr: Option<String>,
    /// The labels of the member.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The body of `POST /v1/transfer`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// The new leader; if absent, the voter with the longest log.
    #[serde(default)]
    pub to: Option<NodeId>,
}

/// The answer to `POST /v1/transfer`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransferAnswer {
    /// The id of the new leader.
    pub leader_id: NodeId,
}

/// The body of every refusal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// The code for programs: `bad_request`, `not_found`, `gone`, `no_leader`, `too_stale`,
    /// `witness`, `overloaded`, `storage_full`, `stopping`, `too_large`, `outcome_unknown`,
    /// `conflict`, `session_expired`, `stale_serial`, …
    pub error: String,
    /// The message for people: one line with problem and remedy.
    pub message: String,
    /// For `gone` of a watch: the index of the last entry whose changes are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Index>,
}
