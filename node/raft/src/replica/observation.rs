//! Observations: decisions of the rules with their reasons, for observers alone. No rule reads one,
//! and none is made per entry.

use crate::{
    ids::{EntryId, NodeId, Term},
    message::Phase,
};
use serde::{Deserialize, Serialize};

/// A decision of a rule, with its reason.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Observation {
    /// This node answered a (pre-)candidate, or will once its vote is durable. A request that is
    /// repeated after a granted vote is answered again, and not observed.
    VoteAnswered {
        /// Id of the (pre-)candidate.
        candidate: NodeId,
        /// The phase of its request.
        phase: Phase,
        /// The term in which it asks to be elected.
        term: Term,
        /// The last entry of its log.
        last: EntryId,
        /// The reason against it; `None` if the vote was granted.
        denial: Option<Denial>,
    },
    /// This node moved to a later term that another node showed it (paper §5.1).
    TermAdopted {
        /// The node that showed it.
        from: NodeId,
        /// The term before.
        before: Term,
        /// The term that was shown: later than the one adopted if that node is from outside, or not
        /// known to be a member, and the term was too far ahead.
        shown: Term,
    },
    /// This node led or campaigned, and does so no more in this term.
    SteppedDown {
        /// Whether it led.
        led: bool,
        /// The term in which it did.
        term: Term,
        /// The reason.
        cause: StepDown,
    },
    /// A leadership transfer began.
    TransferBegan {
        /// The target.
        to: NodeId,
    },
}

/// The first reason that a voter found against a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    /// A leader leads, or was heard within the shortest election timeout (thesis §4.2.3).
    HearsLeader {
        /// Id of the leader; `None` if this node only keeps the promise that it gave to one.
        leader: Option<NodeId>,
    },
    /// The voter's log is more up to date (paper §5.4.1).
    LogBehind {
        /// The last entry of the voter's log.
        last: EntryId,
    },
    /// The voter has cast its vote in this term (paper §5.2).
    VotedFor {
        /// The candidate with its vote.
        candidate: NodeId,
    },
    /// The voter is in this later term already (paper §5.1).
    OldTerm {
        /// The voter's term.
        term: Term,
    },
    /// The voter's state machine can't apply the version that the candidate writes.
    MachineVersion {
        /// That version.
        version: u32,
    },
    /// The candidate comes with a shorter log than it once acknowledged: its disk lost data.
    LostData,
    /// The voter may have lost its data, so it can't judge logs yet.
    MayHaveLostData,
    /// The candidate was removed from the cluster.
    Removed,
    /// The candidate seems to have left the cluster, and the voter has its whole log and can lead.
    CanLeadInstead,
}

/// The reason for which a node ceased to lead or to campaign.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepDown {
    /// Another node showed it a later term (paper §5.1).
    LaterTerm {
        /// Id of that node.
        from: NodeId,
        /// The later term.
        term: Term,
    },
    /// It heard the leader of its term (paper §5.2).
    LeaderHeard {
        /// Id of the leader.
        leader: NodeId,
    },
    /// It granted its vote to another candidate.
    VotedFor {
        /// Id of that candidate.
        candidate: NodeId,
    },
    /// Too many voters denied their votes.
    Denied,
    /// The election timeout passed without a result: the votes were split or late.
    TimedOut,
    /// It heard no quorum for the longest election timeout (thesis §6.2).
    NoQuorum,
    /// A write did not become durable within the stall limit.
    DiskStalled,
    /// The state machine was at one entry for the stall limit.
    MachineStalled,
    /// Its disk is full.
    StorageFull,
    /// It is no longer a voter (paper §6).
    Removed,
    /// It took over a snapshot, so its log is no longer the one it campaigned with.
    SnapshotInstalled,
    /// A leader told it to campaign at once (thesis §3.10).
    ToldToCampaign,
}
