//! The lesson of each event: a second sentence, and the section of the paper ("In Search of an
//! Understandable Consensus Algorithm", extended version) or of Ongaro's thesis that has the rule.

use super::what::{CampaignResult, LeaseEnd, TransferFailure, What};
use quorate_raft::{Denial, Phase, StepDown};

/// A sentence that explains, and the sections that it rests on.
type Lesson = (Option<&'static str>, Option<&'static str>);

const fn of(why: &'static str, reference: &'static str) -> Lesson {
    (Some(why), Some(reference))
}

/// A sentence about a part of Quorate that neither text has.
const fn own(why: &'static str) -> Lesson {
    (Some(why), None)
}

const NONE: Lesson = (None, None);

/// The lesson of a fact.
#[expect(clippy::too_many_lines, reason = "a lesson for each kind")]
pub(super) fn of_fact(what: &What) -> Lesson {
    match what {
        What::CampaignStarted { phase: Phase::PreVote, .. } => of(
            "Each timeout is random, so one node usually starts alone and votes do not split. A pre-vote raises no term: it asks \
             whether an election could be won.",
            "paper §5.2; thesis §9.6",
        ),
        What::CampaignStarted { .. } => of(
            "Term and vote are durable before the requests leave. Otherwise a crash could let one node vote twice in a term, and two \
             leaders be elected.",
            "paper §5.1, §5.2",
        ),
        What::CampaignEnded { result, phase, .. } => match (result, phase) {
            (CampaignResult::Won, Phase::PreVote) => of(
                "A majority hears no leader either and would elect it, so its new term will not disturb a working cluster.",
                "thesis §9.6",
            ),
            (CampaignResult::Won, Phase::Vote) => of(
                "Two majorities always share a node, and that node votes once a term: no other node can win it.",
                "paper §5.2",
            ),
            (CampaignResult::Lost, _) => of(
                "The voters hear a leader, or have a better log. The node waits for its next timeout.",
                "paper §5.2, §5.4.1",
            ),
            (CampaignResult::TimedOut, _) => of(
                "When several nodes campaign at once, votes can split so that none has a majority. Random timeouts make a repetition \
                 unlikely.",
                "paper §5.2",
            ),
            (CampaignResult::Superseded(cause), _) => of_step_down(*cause),
        },
        What::VoteCast { denial: Some(denial), .. } => of_denial(*denial),
        What::VoteCast { phase: Phase::PreVote, .. } => of(
            "It hears no leader, and the candidate's log is at least as up to date as its own: the last term is later, or it is the \
             same and the log is not shorter.",
            "paper §5.4.1; thesis §9.6",
        ),
        What::VoteCast { .. } => of(
            "One vote a term, to the first candidate whose log is good enough. So a leader has every committed entry: a majority \
             stored it, and one of them would deny an older log.",
            "paper §5.2, §5.4.1",
        ),
        What::VoteReceived { denial: Some(denial), .. } => of_denial(*denial),
        What::VoteReceived { .. } => of("A candidate wins with the votes of a majority of the voters.", "paper §5.2"),
        What::TermChanged { .. } => of(
            "Terms are a logical clock: a node that sees a higher one takes it and follows, whatever it was before.",
            "paper §5.1",
        ),
        What::LeaderElected { .. } => of(
            "Two majorities always share a node, and that node votes once a term: no other node can win this one. Its first entry \
             is a no-op, since entries of older terms are never committed by counting copies.",
            "paper §5.2, §5.4.2, §8",
        ),
        What::LeaderFollowed { .. } => of(
            "The leader's heartbeats reset the election timer of each follower, so none campaigns while it lives.",
            "paper §5.2",
        ),
        What::FirstCommit { .. } => of(
            "With it everything before it in the log is committed too, so the leader knows what is committed, and serves reads.",
            "paper §5.4.2, §8; thesis §6.4",
        ),
        What::SteppedDown { cause, .. } => of_step_down(*cause),
        What::MachineVersionUnknown { .. } => own(
            "A leader's entries must be applicable on a majority, so a voter elects no node whose version it does not know.",
        ),

        What::TransferBegan { .. } => of(
            "The target gets the rest of the log first. Then the leader asks it to campaign at once, without waiting for a timeout.",
            "thesis §3.10",
        ),
        What::TransferDone { .. } => {
            of("The target had the whole log, so it won the election that the leader had asked it for.", "thesis §3.10")
        }
        What::TransferFailed { cause: TransferFailure::Refused(_), .. } => {
            of("Only a voter that the leader hears, and that can catch up, can take over.", "thesis §3.10")
        }
        What::TransferFailed { .. } => {
            of("If the target does not take over within an election timeout, the leader goes on.", "thesis §3.10")
        }

        What::MembersChanged { outgoing, .. } if !outgoing.is_empty() => of(
            "In a joint configuration every decision needs a majority of the old voters and one of the new, so the two can never \
             decide apart.",
            "paper §6; thesis §4.3",
        ),
        What::MembersChanged { committed: false, .. } => {
            of("A node uses the newest configuration in its log, committed or not.", "paper §6")
        }
        What::MembersChanged { .. } => {
            of("The change is complete: a majority has it on disk. The next change may begin.", "paper §6; thesis §4.1")
        }
        What::ChangeRefused { .. } => of(
            "A leader accepts one change at a time, and only if the cluster could go on with it.",
            "paper §6; thesis §4.1, §4.2.1",
        ),
        What::LearnerPromoted { .. } | What::LearnerHeldBack { .. } => of(
            "A new member gets the log before it votes: otherwise new entries could wait for it.",
            "paper §6; thesis §4.2.1",
        ),
        What::Removed { .. } => of(
            "A removed node receives no heartbeats, so it would campaign again and again; the members tell it of its removal.",
            "paper §6; thesis §4.2.3",
        ),
        What::AddedAgain => of("Its log is still good, and the leader brings it up to date.", "paper §6"),
        What::ClusterIdKnown { .. } => {
            own("The first leader put the id into the log; nodes of clusters with another id are refused.")
        }
        What::OnlyVoter { .. } => of("The members are those of the log, and not those of the settings.", "paper §6"),
        What::AddressOverridden { .. } => {
            own("An address that an operator gave in a change of the members counts more than the settings.")
        }

        What::SnapshotBuilt { .. } => of(
            "The state after those entries is on disk, so the entries are not needed again. A follower that still needs one gets \
             the snapshot.",
            "paper §7",
        ),
        What::SnapshotFailed { .. } => of("Until a snapshot is complete, the log stays as it is.", "paper §7"),
        What::SnapshotsUnsupported { .. } => {
            of("Without snapshots the log grows, and a new member gets all of it.", "paper §7")
        }
        What::SnapshotSending { .. } => of(
            "The log does not begin early enough any more for this member: what it needs first is the state.",
            "paper §7, Figure 13",
        ),
        What::SnapshotSent { .. } | What::SnapshotReceived { .. } => of(
            "The snapshot takes the place of the log up to its end. The rest is replicated as to any follower.",
            "paper §7, Figure 13",
        ),
        What::SnapshotReceiving { .. } => of(
            "The leader has discarded entries that this node needs next, and sends the state after them instead.",
            "paper §7, Figure 13",
        ),
        What::SnapshotInstalled { .. } => {
            of("The state machine has the state after that entry, and applies the entries after it.", "paper §7")
        }
        What::SnapshotPostponed { .. } => NONE,

        What::Recovered { .. } => of(
            "Term, vote and log were on its disk. It does not know which entries are committed until a leader says so.",
            "paper §5.5, Figure 2",
        ),
        What::RecoveryRepaired { .. } => {
            own("A write that a crash cut short was never acknowledged, so it can be removed.")
        }
        What::AppendRejected { .. } => of(
            "An append names the entry before it. If the logs differ there, the leader goes back, a whole term at a time, to where \
             they agree.",
            "paper §5.3, Figure 7",
        ),
        What::EntriesRemoved { conflict: false, .. } => own(
            "A majority answered that it does not have them, so they were never committed: a write that a crash cut short.",
        ),
        What::EntriesRemoved { .. } => of(
            "No majority had them, so they were never committed. A follower's log becomes that of the leader; a leader never removes \
             entries of its own.",
            "paper §5.3",
        ),
        What::StateLost { .. }
        | What::StateDiscarded { .. }
        | What::EntriesLost { .. }
        | What::StuckWithoutData { .. } => {
            own("A committed entry is on the disks of a majority, so the others have what this disk lost.")
        }
        What::EntriesRepaired => {
            own("The identity of each lost entry was known, so a copy of any member could be checked.")
        }
        What::MemberLostData { .. } | What::LastCopy | What::LeaderLostData { .. } => of(
            "What a node acknowledged must be on its disk for good: a majority may have been counted with it.",
            "paper §5.2, Figure 2",
        ),
        What::LogsDiffer { .. } => of(
            "If two entries have the same index and term, the logs must be equal up to there.",
            "paper §5.3, Figure 3",
        ),
        What::StorageFull => of("A node with a full disk still votes, and does not lead.", "paper §5.2"),
        What::StorageFree => NONE,
        What::DiskSlow { .. } => of(
            "An entry is committed once a majority has it on disk. If the others are a majority, writes do not wait for this disk, \
             not even on the leader.",
            "paper §5.3; thesis §10.2.1",
        ),
        What::DiskFast { .. } => of("It syncs what waited in one write.", "thesis §10.2.1"),
        What::ThreadStalled { .. } => {
            own("Time in which the node itself did not run is not counted as silence of the leader, within a bound.")
        }

        What::LinkUp { .. } => NONE,
        What::LinkDown { .. } => of(
            "A cut link and a dead node look alike from here. A leader stays as long as it reaches a majority.",
            "paper §5.2; thesis §6.2",
        ),
        What::FollowerSilent { .. } => {
            of("The leader goes on as long as it hears a majority, and tries again and again.", "paper §5.3")
        }
        What::FollowerHeard { .. } => {
            of("It gets the entries that it lacks, and counts for the majority again.", "paper §5.3")
        }
        What::FollowerBehind { .. } => {
            of("An entry is committed once a majority has it; a slow member does not hold the others up.", "paper §5.3")
        }
        What::FollowerCaughtUp { .. } => of("It has what the leader has, but for what is on its way.", "paper §5.3"),
        What::SettingDiffers { .. } => {
            own("No safety depends on equal settings, but elections or waits may differ from what was meant.")
        }
        What::SkipsDiffer { .. } | What::SkipsAgree { .. } => {
            of("All state machines must apply the same commands in the same order.", "paper §5.4.3, Figure 3")
        }

        What::OverloadBegan { .. } | What::OverloadEnded { .. } => {
            own("A bounded number of requests is let in; the rest is refused at once, with a time to come again.")
        }
        What::LeaseHeld => of(
            "A majority has promised to elect no other leader for a while, so what this leader has committed is the newest there is.",
            "thesis §6.4.1",
        ),
        What::LeaseLost { cause: LeaseEnd::Transfer } => of(
            "The target may be elected although voters hear this leader, so their promises end.",
            "thesis §3.10, §6.4.1",
        ),
        What::LeaseLost { .. } => {
            of("Without a lease a read waits for a round of heartbeats, which confirms the leadership.", "thesis §6.4")
        }

        What::Halted { .. } => {
            own("All nodes apply the same command to the same state, so the others probably halt there as well.")
        }
        What::EntrySkipped { .. } | What::SkipIgnored { .. } => {
            own("Every node must skip the same entries, so an entry is named by index, term and checksum.")
        }
        What::CopiesDiffer { .. } | What::CopiesAgree => {
            of("Equal logs give equal states only if the service is deterministic.", "paper §2, §5.4.3")
        }
        What::EffectRetried { .. } | What::EffectTimedOut { .. } => own(
            "An effect is done once its result is in the log; until then the leader performs it, perhaps more than once.",
        ),
        What::LeaderTaskPanicked => NONE,
        What::VersionRaised { .. } => {
            own("An entry of a version that a member cannot apply would halt it, so the version follows the members.")
        }

        What::ShuttingDown => NONE,
        What::Failed { .. } => {
            own("A node that fails in one part stops as a whole; the others go on while they are a majority.")
        }
    }
}

fn of_denial(denial: Denial) -> Lesson {
    match denial {
        Denial::HearsLeader { .. } => of(
            "A node that was cut off would otherwise raise terms and depose a leader that a majority hears.",
            "thesis §4.2.3, §9.6",
        ),
        Denial::LogBehind { .. } => of(
            "Of two logs, the one whose last entry has the later term is more up to date; with equal terms, the longer one. So a \
             leader never lacks a committed entry.",
            "paper §5.4.1",
        ),
        Denial::VotedFor { .. } => of("One vote a term, first come, first served.", "paper §5.2"),
        Denial::OldTerm { .. } => {
            of("A request of an older term is refused, and its answer shows the later one.", "paper §5.1")
        }
        Denial::MachineVersion { .. } => own(
            "A leader's entries must be applicable on a majority, so a voter elects no node whose version it does not know.",
        ),
        Denial::LostData | Denial::MayHaveLostData => of(
            "What a node acknowledged must be on its disk for good: a majority may have been counted with it.",
            "paper §5.2, Figure 2",
        ),
        Denial::Removed | Denial::CanLeadInstead => of(
            "A removed node receives no heartbeats, so it would campaign again and again.",
            "paper §6; thesis §4.2.3",
        ),
    }
}

fn of_step_down(cause: StepDown) -> Lesson {
    match cause {
        StepDown::LaterTerm { .. } => {
            of("A node that sees a higher term takes it and follows, whatever it was before.", "paper §5.1")
        }
        StepDown::LeaderHeard { .. } => {
            of("A candidate that hears the leader of its own term knows that another has won.", "paper §5.2")
        }
        StepDown::VotedFor { .. } => {
            of("Its own campaign would depose the candidate that it helps to elect.", "paper §5.2")
        }
        StepDown::Denied => of("The voters hear a leader, or have a better log.", "paper §5.2, §5.4.1"),
        StepDown::TimedOut => of("Random timeouts make a second split of the votes unlikely.", "paper §5.2"),
        StepDown::NoQuorum => {
            of("The others may long have elected another leader, and clients should look for that.", "thesis §6.2")
        }
        StepDown::DiskStalled | StepDown::MachineStalled => {
            own("Heartbeats need no disk: they would hide for ever that nothing is completed here any more.")
        }
        StepDown::StorageFull => own("A leader that can store nothing commits nothing; another node may have room."),
        StepDown::Removed => of(
            "A leader that is not part of the new configuration leads until that is committed.",
            "paper §6; thesis §4.2.2",
        ),
        StepDown::SnapshotInstalled => of("A campaign claims the log that it began with.", "paper §5.4.1, §7"),
        StepDown::ToldToCampaign => {
            of("A leader that transfers leadership asks its target to campaign at once.", "thesis §3.10")
        }
        _ => NONE,
    }
}
