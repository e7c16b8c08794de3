//! The facts that events state: one variant for each kind.

use quorate_raft::{Denial, EntryId, Index, NodeId, Phase, Skip, StepDown, Term};
use serde::{Deserialize, Serialize};

/// A fact, without its place and time. [`Event`](super::Event) adds those, and the sentences.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum What {
    // ---- elections
    /// The node asks for pre-votes, or has raised its term and asks for votes.
    CampaignStarted {
        /// Pre-vote or vote.
        phase: Phase,
        /// The term in which it asks to be elected.
        for_term: Term,
        /// The last entry of its log.
        last: EntryId,
        /// The time since it last heard a leader, or since its start, if its election timer ran out.
        silence_ms: Option<u64>,
    },
    /// A round of votes is over.
    CampaignEnded {
        /// Pre-vote or vote.
        phase: Phase,
        /// The term in which it asked to be elected.
        for_term: Term,
        /// Result of the round.
        result: CampaignResult,
        /// The voters that granted their vote until then, itself among them.
        granted: Vec<NodeId>,
        /// The voters that denied it until then.
        denied: Vec<NodeId>,
    },
    /// The node answered a (pre-)candidate. A granted vote leaves once it is durable.
    VoteCast {
        /// Pre-vote or vote.
        phase: Phase,
        /// Id of the (pre-)candidate.
        candidate: NodeId,
        /// The term in which that asks to be elected.
        for_term: Term,
        /// The last entry of the candidate's log.
        last: EntryId,
        /// The reason against it; `None` if the vote was granted.
        denial: Option<Denial>,
        /// Denials of the same candidate, phase and kind of reason since the last event of that
        /// kind, this one not counted: one is told in ten seconds at most.
        more: u64,
    },
    /// A voter answered this node's campaign.
    VoteReceived {
        /// Pre-vote or vote.
        phase: Phase,
        /// Id of the voter.
        voter: NodeId,
        /// The last entry of this node's log, as the request named it.
        last: EntryId,
        /// The voter's reason against it; `None` if it granted its vote.
        denial: Option<Denial>,
        /// The time between the request and this answer.
        took_ms: u64,
    },
    /// Another node showed the node a later term. (A term that it begins by itself is in
    /// [`What::CampaignStarted`].)
    TermChanged {
        /// The term before.
        before: Term,
        /// The node that showed a later term.
        from: NodeId,
        /// The term that it showed. One too far ahead, of a node that is not known to be a member,
        /// is taken over in part.
        shown: Term,
    },
    /// This node was elected. At most one in the whole cluster for each term.
    LeaderElected {
        /// The voters that elected it, itself among them.
        votes: Vec<NodeId>,
    },
    /// The node recognised the leader of its term.
    LeaderFollowed {
        /// Id of the leader.
        leader: NodeId,
    },
    /// The first entry of a leader's own term is committed, and with it all before it.
    FirstCommit {
        /// The entry.
        index: Index,
        /// The time since the election.
        after_ms: u64,
    },
    /// A leader does not lead any more.
    SteppedDown {
        /// The term that it led.
        led: Term,
        /// Reason, as a part of a sentence.
        cause: StepDown,
    },
    /// A candidate got no vote, because the state machine here can't apply the version that it
    /// writes.
    MachineVersionUnknown {
        /// Id of the candidate.
        candidate: NodeId,
        /// The version that it writes.
        version: u32,
        /// The oldest version that is applied here.
        oldest: u32,
        /// The newest version that is applied here.
        newest: u32,
    },

    // ---- leadership transfer
    /// A leader began to transfer leadership.
    TransferBegan {
        /// Id of the target.
        to: NodeId,
        /// The reason of a transfer that no operator asked for.
        why: Option<String>,
    },
    /// The target leads.
    TransferDone {
        /// Id of the target.
        to: NodeId,
    },
    /// A transfer was refused, or given up.
    TransferFailed {
        /// The target, if one was named or chosen.
        to: Option<NodeId>,
        /// Reason, as a part of a sentence.
        cause: TransferFailure,
    },

    // ---- members
    /// Another configuration is in force here, or it is committed now.
    MembersChanged {
        /// The entry with the configuration; 0 for the one of the start.
        at: Index,
        /// Ids of the voters.
        voters: Vec<NodeId>,
        /// In a joint configuration the voters of the old one, otherwise empty.
        outgoing: Vec<NodeId>,
        /// Ids of the learners.
        learners: Vec<NodeId>,
        /// The voter that is a witness.
        witness: Option<NodeId>,
        /// Whether the entry is known to be committed.
        committed: bool,
        /// Whether addresses or metadata alone differ from the configuration before.
        only_described: bool,
    },
    /// The leader refused a change of the members.
    ChangeRefused {
        /// Reason, as a part of a sentence.
        why: String,
    },
    /// The leader made a learner that kept up a voter.
    LearnerPromoted {
        /// Id of the learner.
        learner: NodeId,
        /// The entry with the configuration.
        at: Index,
    },
    /// A learner that kept up does not vote yet.
    LearnerHeldBack {
        /// Id of the learner.
        learner: NodeId,
        /// Reason, as a part of a sentence.
        why: String,
    },
    /// This node was removed from the cluster.
    Removed {
        /// The entry with the configuration without it.
        at: Index,
    },
    /// This node was removed, and is a member again.
    AddedAgain,
    /// The entry that states the cluster's id is committed.
    ClusterIdKnown {
        /// The id, in hexadecimal digits.
        id: String,
    },
    /// The configuration names this node as the only voter, and the settings list others.
    OnlyVoter {
        /// The other nodes that are listed.
        listed: Vec<NodeId>,
    },
    /// A member is dialled at another address than the settings of this node have.
    AddressOverridden {
        /// Id of the member.
        peer: NodeId,
        /// The address at which it is dialled.
        address: String,
        /// The address in the settings of this node.
        configured: String,
    },

    // ---- snapshots
    /// The node wrote a snapshot of its state.
    SnapshotBuilt {
        /// The last entry that it covers.
        last: EntryId,
        /// Bytes of the state.
        bytes: u64,
        /// Milliseconds from its begin to its durable end.
        took_ms: u64,
    },
    /// A snapshot was not taken, sent or received.
    SnapshotFailed {
        /// The step that failed.
        step: SnapshotStep,
        /// The last entry that it covers, if that is known.
        last: Option<EntryId>,
        /// The peer to or from which it was sent.
        peer: Option<NodeId>,
        /// Error, as a part of a sentence.
        why: String,
    },
    /// The state machine makes no snapshots.
    SnapshotsUnsupported {
        /// A peer that needs one.
        peer: Option<NodeId>,
    },
    /// A leader sends a peer a snapshot.
    SnapshotSending {
        /// Id of the peer.
        peer: NodeId,
        /// The last entry that it covers.
        last: EntryId,
        /// Bytes of the state.
        bytes: u64,
    },
    /// A peer has installed the snapshot that this leader sent.
    SnapshotSent {
        /// Id of the peer.
        peer: NodeId,
        /// The last entry that it covers.
        last: Index,
        /// Milliseconds since its first byte.
        took_ms: u64,
    },
    /// A leader's snapshot begins to arrive.
    SnapshotReceiving {
        /// Id of the leader.
        from: NodeId,
        /// The last entry that it covers.
        last: EntryId,
        /// Bytes of the state.
        bytes: u64,
    },
    /// A leader's snapshot is whole and durable here.
    SnapshotReceived {
        /// Id of the leader.
        from: NodeId,
        /// The last entry that it covers.
        last: EntryId,
        /// Milliseconds since its first byte.
        took_ms: u64,
    },
    /// The state machine has the state of a snapshot.
    SnapshotInstalled {
        /// The last entry that it covers.
        last: EntryId,
    },
    /// The state machine halted, so a snapshot is restored by the next start.
    SnapshotPostponed {
        /// The last entry that it covers.
        last: EntryId,
    },

    // ---- the log, the disk, and lost data
    /// The node has read its log and state.
    Recovered {
        /// The last entry of its log.
        last: EntryId,
    },
    /// Recovery repaired a file.
    RecoveryRepaired {
        /// The file, the damage and the remedy.
        what: String,
    },
    /// The node rejected an append: its log differs from the leader's, or lacks entries.
    AppendRejected {
        /// The node.
        peer: NodeId,
        /// The entry that it lacks.
        previous: Index,
        /// The entry from which the leader sends next.
        next: Index,
    },
    /// Uncommitted entries were removed from the log's end.
    EntriesRemoved {
        /// The first entry that was removed.
        from: Index,
        /// The last one.
        to: Index,
        /// Whether a leader sent others in their place; otherwise they are the remains of a write
        /// that a crash cut short, and a majority does not have them.
        conflict: bool,
    },
    /// The state up to an entry is lost, and the log begins after it.
    StateLost {
        /// That entry.
        up_to: Index,
        /// The files with damage.
        found: String,
    },
    /// The state of the newest snapshot is left out, as this start was told.
    StateDiscarded {
        /// The last entry that it covered.
        last: EntryId,
    },
    /// The disk lost the payload of entries.
    EntriesLost {
        /// The number of entries.
        count: u64,
        /// The first of them.
        first: EntryId,
    },
    /// All entries that lost their payload were fetched from others, or cut off.
    EntriesRepaired,
    /// The node hears no leader that could bring back data that is lost here.
    StuckWithoutData {
        /// The loss and the remedy.
        why: String,
    },
    /// A member came with less than it had acknowledged.
    MemberLostData {
        /// Id of the member.
        member: NodeId,
        /// The last entry of its log.
        last: Index,
        /// The last committed entry that it had acknowledged.
        held: Index,
    },
    /// Too many members lost data to leave a quorum.
    LastCopy,
    /// The leader's log lacks an entry that is committed here.
    LeaderLostData {
        /// Id of the leader.
        leader: NodeId,
        /// The last entry that it committed.
        last: Index,
        /// The last entry that is committed here.
        committed: Index,
    },
    /// Two logs differ in the content of one entry.
    LogsDiffer {
        /// The entry.
        at: EntryId,
        /// Id of the other node.
        peer: NodeId,
    },
    /// The disk has no room for entries.
    StorageFull,
    /// The disk has room again.
    StorageFree,
    /// The disk takes long for a sync, by the rule of [`SyncTimes::is_slow`](crate::SyncTimes::is_slow).
    DiskSlow {
        /// The mean of the last second or two with writes.
        took_ms: u64,
        /// The usual time of a sync, in microseconds.
        usual_us: u64,
    },
    /// Syncs take their usual time again.
    DiskFast {
        /// The time for which the disk was slow.
        after_ms: u64,
    },
    /// The node's thread ran late.
    ThreadStalled {
        /// The number of late wake-ups.
        count: u32,
        /// The longest delay.
        longest_ms: u64,
    },

    // ---- other nodes
    /// Messages to and from the peer pass.
    LinkUp {
        /// Id of the peer.
        peer: NodeId,
    },
    /// The connection to the peer is lost.
    LinkDown {
        /// Id of the peer.
        peer: NodeId,
    },
    /// The leader does not hear a member.
    FollowerSilent {
        /// Id of the member.
        peer: NodeId,
    },
    /// The leader hears a member that was silent, and how much it lacks.
    FollowerHeard {
        /// Id of the member.
        peer: NodeId,
        /// The entries that it lacks.
        lacks: u64,
    },
    /// A member lacks many entries, and not only for a moment.
    FollowerBehind {
        /// Id of the member.
        peer: NodeId,
        /// The entries that it lacks.
        lacks: u64,
    },
    /// A member that lacked many entries has nearly all.
    FollowerCaughtUp {
        /// Id of the member.
        peer: NodeId,
        /// The time for which it lagged.
        after_ms: u64,
    },
    /// A peer has another value of a setting.
    SettingDiffers {
        /// Id of the peer.
        peer: NodeId,
        /// The name of the setting.
        setting: String,
        /// The value here.
        own: String,
        /// The value there.
        other: String,
        /// The remedy.
        advice: String,
    },
    /// A peer skips other entries than this node, so it is not heard.
    SkipsDiffer {
        /// Id of the peer.
        peer: NodeId,
        /// The entries that it skips.
        theirs: String,
        /// The entries that this node skips.
        own: String,
    },
    /// A peer skips the same entries as this node again.
    SkipsAgree {
        /// Id of the peer.
        peer: NodeId,
    },

    // ---- callers
    /// Admission control refuses callers.
    OverloadBegan {
        /// The requests that wait for an answer.
        inside: u64,
    },
    /// Admission control has refused no caller for a while.
    OverloadEnded {
        /// The time for which it refused callers.
        after_ms: u64,
    },
    /// The leader holds a lease: it answers reads without asking others.
    LeaseHeld,
    /// The leader's lease is over.
    LeaseLost {
        /// Reason, as a part of a sentence.
        cause: LeaseEnd,
    },

    // ---- the state machine
    /// The state machine panicked in an entry, and is not used any more.
    Halted {
        /// The entry.
        entry: Skip,
        /// The cause and the remedy.
        why: String,
    },
    /// An entry is skipped, as its operator wants.
    EntrySkipped {
        /// The entry.
        entry: Skip,
    },
    /// An entry that is to be skipped is not the one in the log, or holds no command.
    SkipIgnored {
        /// The entry in the list.
        named: Skip,
        /// The entry in the log, if it is another one.
        found: Option<Skip>,
    },
    /// Full copies of the state differ.
    CopiesDiffer {
        /// The copies and the remedy.
        why: String,
    },
    /// The full copies agree again.
    CopiesAgree,
    /// An effect of the service is performed again.
    EffectRetried {
        /// Id of the effect.
        effect: String,
        /// The number of the attempt that failed, from 1.
        attempt: u32,
        /// Reason, as a part of a sentence.
        why: String,
    },
    /// A call of an effect's handler took too long, and was dropped. It is made again.
    EffectTimedOut {
        /// Id of the effect.
        effect: String,
    },
    /// A task that runs while the node leads panicked. The next leadership starts it again.
    LeaderTaskPanicked,
    /// The leader raises the version of the service's commands.
    VersionRaised {
        /// The version.
        version: u32,
    },

    // ---- the end
    /// The node was asked to shut down, and ends.
    ShuttingDown,
    /// The node failed, and ends.
    Failed {
        /// The cause.
        why: String,
    },
}

/// How a campaign ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CampaignResult {
    /// A quorum granted its vote.
    Won,
    /// No quorum was possible any more, as too many voters denied.
    Lost,
    /// The election timeout passed without a result.
    TimedOut,
    /// Something else decided the election.
    Superseded(StepDown),
}

/// Why leadership was not transferred.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TransferFailure {
    /// The target did not catch up, or did not take over in time.
    TimedOut,
    /// Another node than the target leads.
    AnotherLeads(NodeId),
    /// It could not begin, for this reason.
    Refused(String),
}

/// A step in the life of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStep {
    /// The node writes it.
    Build,
    /// A leader reads it, and sends it.
    Send,
    /// A follower receives it.
    Receive,
}

/// Why a lease ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeaseEnd {
    /// The node does not lead any more.
    NotLeading,
    /// Leadership is being transferred.
    Transfer,
    /// No quorum renewed it, or no read asked for that.
    NotRenewed,
}

/// How much an event matters to an operator, and the level of its line in the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the curious.
    Debug,
    /// A change in normal operation.
    Info,
    /// The cluster copes, and an operator should look.
    Warn,
    /// An operator has to act.
    Error,
}

impl What {
    /// Name, severity and peer of the fact.
    pub(super) fn traits(&self) -> (&'static str, Severity, Option<NodeId>) {
        use Severity::{Debug, Error, Info, Warn};
        match self {
            Self::CampaignStarted { .. } => ("campaign_started", Info, None),
            Self::CampaignEnded { result: CampaignResult::Won, .. } => ("campaign_ended", Debug, None),
            Self::CampaignEnded { .. } => ("campaign_ended", Info, None),
            Self::VoteCast { candidate, .. } => ("vote_cast", Info, Some(*candidate)),
            Self::VoteReceived { voter, .. } => ("vote_received", Debug, Some(*voter)),
            Self::TermChanged { from, .. } => ("term_changed", Debug, Some(*from)),
            Self::LeaderElected { .. } => ("leader_elected", Info, None),
            Self::LeaderFollowed { leader } => ("leader_followed", Info, Some(*leader)),
            Self::FirstCommit { .. } => ("first_commit", Info, None),
            Self::SteppedDown { .. } => ("stepped_down", Warn, None),
            Self::MachineVersionUnknown { candidate, .. } => ("machine_version_unknown", Warn, Some(*candidate)),
            Self::TransferBegan { to, .. } => ("transfer_began", Info, Some(*to)),
            Self::TransferDone { to } => ("transfer_done", Info, Some(*to)),
            Self::TransferFailed { to, .. } => ("transfer_failed", Warn, *to),
            Self::MembersChanged { .. } => ("members_changed", Info, None),
            Self::ChangeRefused { .. } => ("change_refused", Info, None),
            Self::LearnerPromoted { learner, .. } => ("learner_promoted", Info, Some(*learner)),
            Self::LearnerHeldBack { learner, .. } => ("learner_held_back", Warn, Some(*learner)),
            Self::Removed { .. } => ("removed", Warn, None),
            Self::AddedAgain => ("added_again", Info, None),
            Self::ClusterIdKnown { .. } => ("cluster_id_known", Info, None),
            Self::OnlyVoter { .. } => ("only_voter", Warn, None),
            Self::AddressOverridden { peer, .. } => ("address_overridden", Warn, Some(*peer)),
            Self::SnapshotBuilt { .. } => ("snapshot_built", Info, None),
            Self::SnapshotFailed { peer, .. } => ("snapshot_failed", Warn, *peer),
            Self::SnapshotsUnsupported { peer: None } => ("snapshots_unsupported", Info, None),
            Self::SnapshotsUnsupported { peer } => ("snapshots_unsupported", Warn, *peer),
            Self::SnapshotSending { peer, .. } => ("snapshot_sending", Info, Some(*peer)),
            Self::SnapshotSent { peer, .. } => ("snapshot_sent", Info, Some(*peer)),
            Self::SnapshotReceiving { from, .. } => ("snapshot_receiving", Info, Some(*from)),
            Self::SnapshotReceived { from, .. } => ("snapshot_received", Info, Some(*from)),
            Self::SnapshotInstalled { .. } => ("snapshot_installed", Info, None),
            Self::SnapshotPostponed { .. } => ("snapshot_postponed", Warn, None),
            Self::Recovered { .. } => ("recovered", Info, None),
            Self::RecoveryRepaired { .. } => ("recovery_repaired", Warn, None),
            Self::AppendRejected { peer, .. } => ("append_rejected", Debug, Some(*peer)),
            Self::EntriesRemoved { .. } => ("entries_removed", Info, None),
            Self::StateLost { .. } => ("state_lost", Error, None),
            Self::StateDiscarded { .. } => ("state_discarded", Warn, None),
            Self::EntriesLost { .. } => ("entries_lost", Error, None),
            Self::EntriesRepaired => ("entries_repaired", Info, None),
            Self::StuckWithoutData { .. } => ("stuck_without_data", Error, None),
            Self::MemberLostData { member, .. } => ("member_lost_data", Error, Some(*member)),
            Self::LastCopy => ("last_copy", Error, None),
            Self::LeaderLostData { leader, .. } => ("leader_lost_data", Error, Some(*leader)),
            Self::LogsDiffer { peer, .. } => ("logs_differ", Error, Some(*peer)),
            Self::StorageFull => ("storage_full", Error, None),
            Self::StorageFree => ("storage_free", Info, None),
            Self::DiskSlow { .. } => ("disk_slow", Warn, None),
            Self::DiskFast { .. } => ("disk_fast", Info, None),
            Self::ThreadStalled { .. } => ("thread_stalled", Warn, None),
            Self::LinkUp { peer } => ("link_up", Debug, Some(*peer)),
            Self::LinkDown { peer } => ("link_down", Debug, Some(*peer)),
            Self::FollowerSilent { peer } => ("follower_silent", Warn, Some(*peer)),
            Self::FollowerHeard { peer, .. } => ("follower_heard", Info, Some(*peer)),
            Self::FollowerBehind { peer, .. } => ("follower_behind", Warn, Some(*peer)),
            Self::FollowerCaughtUp { peer, .. } => ("follower_caught_up", Info, Some(*peer)),
            Self::SettingDiffers { peer, .. } => ("setting_differs", Warn, Some(*peer)),
            Self::SkipsDiffer { peer, .. } => ("skips_differ", Error, Some(*peer)),
            Self::SkipsAgree { peer } => ("skips_agree", Info, Some(*peer)),
            Self::OverloadBegan { .. } => ("overload_began", Warn, None),
            Self::OverloadEnded { .. } => ("overload_ended", Info, None),
            Self::LeaseHeld => ("lease_held", Debug, None),
            Self::LeaseLost { .. } => ("lease_lost", Debug, None),
            Self::Halted { .. } => ("halted", Error, None),
            Self::EntrySkipped { .. } => ("entry_skipped", Warn, None),
            Self::SkipIgnored { .. } => ("skip_ignored", Error, None),
            Self::CopiesDiffer { .. } => ("copies_differ", Error, None),
            Self::CopiesAgree => ("copies_agree", Info, None),
            Self::EffectRetried { .. } => ("effect_retried", Warn, None),
            Self::EffectTimedOut { .. } => ("effect_timed_out", Warn, None),
            Self::LeaderTaskPanicked => ("leader_task_panicked", Error, None),
            Self::VersionRaised { .. } => ("version_raised", Info, None),
            Self::ShuttingDown => ("shutting_down", Info, None),
            Self::Failed { .. } => ("failed", Error, None),
        }
    }

    /// The entry that the fact is about.
    pub(super) fn index(&self) -> Option<Index> {
        match self {
            Self::CampaignStarted { last, .. }
            | Self::SnapshotBuilt { last, .. }
            | Self::SnapshotSending { last, .. }
            | Self::SnapshotReceiving { last, .. }
            | Self::SnapshotReceived { last, .. }
            | Self::SnapshotInstalled { last }
            | Self::SnapshotPostponed { last }
            | Self::Recovered { last }
            | Self::StateDiscarded { last }
            | Self::EntriesLost { first: last, .. }
            | Self::LogsDiffer { at: last, .. } => Some(last.index),
            Self::SnapshotFailed { last, .. } => last.map(|last| last.index),
            Self::FirstCommit { index, .. } => Some(*index),
            Self::MembersChanged { at, .. } | Self::LearnerPromoted { at, .. } | Self::Removed { at } => Some(*at),
            Self::SnapshotSent { last, .. } | Self::MemberLostData { last, .. } => Some(*last),
            Self::LeaderLostData { committed, .. } => Some(*committed),
            Self::AppendRejected { previous, .. } => Some(*previous),
            Self::EntriesRemoved { from, .. } => Some(*from),
            Self::StateLost { up_to, .. } => Some(*up_to),
            Self::Halted { entry, .. } | Self::EntrySkipped { entry } => Some(entry.index),
            Self::SkipIgnored { named, .. } => Some(named.index),
            _ => None,
        }
    }
}
