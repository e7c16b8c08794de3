//! Bugs bred on purpose, one at a time, to see whether what watches the cluster notices them.
//!
//! A test that never failed proves little. So the simulator switches on one of these at a time and must catch it; one that
//! survives is a hole in what is checked. Each is one line somewhere in the rules, the storage or the actors that asks
//! [`live`] for its [`Mutant`]; most are drawn from bugs that other systems shipped, as their docs say.
//!
//! **Production never builds them.** Without the feature `mutants`, which nothing turns on by default, `live` is a constant
//! `false`, its sites compile to nothing, and there is no way to breed one. With it, one mutant at most lives in a whole
//! process: all nodes in it have the same bug, as they would have in a release.

#[cfg(feature = "mutants")]
use core::sync::atomic::{AtomicU8, Ordering};

/// Whether this mutant is the one that was bred. Never, in an ordinary build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn live(_: Mutant) -> bool {
    false
}

/// Whether this mutant is the one that was bred.
#[cfg(feature = "mutants")]
#[must_use]
pub fn live(mutant: Mutant) -> bool {
    BRED.load(Ordering::Relaxed) == mutant as u8
}

/// Lets this mutant live from now on, in the whole process, instead of any other; with `None` no one does.
#[cfg(feature = "mutants")]
pub fn breed(mutant: Option<Mutant>) {
    BRED.store(mutant.map_or(NOBODY, |mutant| mutant as u8), Ordering::Relaxed);
}

#[cfg(feature = "mutants")]
static BRED: AtomicU8 = AtomicU8::new(NOBODY);

/// There are far fewer mutants.
#[cfg(feature = "mutants")]
const NOBODY: u8 = u8::MAX;

macro_rules! mutants {
    ($($(#[$doc:meta])* $mutant:ident = $name:literal,)*) => {
        /// A bug. Numbers in brackets are the scenarios that it is drawn from: what went wrong elsewhere.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Mutant {
            $($(#[$doc])* $mutant,)*
        }

        impl Mutant {
            /// All of them: first those in the rules, then in the storage, then in the actors.
            pub const ALL: &[Self] = &[$(Self::$mutant,)*];

            /// What it is called on a command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$mutant => $name,)*
                }
            }
        }
    };
}

mutants! {
    // In the rules: members and handovers.
    /// A change is accepted before the leader has committed an entry of its own term. (28)
    ChangeBeforeFirstCommit = "change-before-first-commit",
    /// A second change is accepted while one is under way.
    SecondChangeTaken = "second-change-taken",
    /// Voters are exchanged without a joint configuration.
    VotersChangedAtOnce = "voters-changed-at-once",
    /// Nobody completes a joint configuration. (29)
    JointNeverLeft = "joint-never-left",
    /// A leader that is not in the configuration that it appended does not campaign again, though only it has it.
    LeavingLeaderStaysDown = "leaving-leader-stays-down",
    /// A member that lacks most of the log is made a voter.
    PromotedThoughBehind = "promoted-though-behind",
    /// Replication to a member that was added again begins with the first epoch, not behind those that it knows.
    EpochsBeginAnew = "epochs-begin-anew",
    /// A witness campaigns like any other voter.
    WitnessCampaigns = "witness-campaigns",
    /// A witness is sent whatever the others are, whether or not anybody else has it.
    WitnessAhead = "witness-ahead",
    /// A vote request from outside the configuration counts as handed over, though the leader is heard. (57)
    OutsiderHandsOver = "outsider-hands-over",
    /// A node from outside the configuration that claims to lead ends a node that knows the leader. (57)
    OutsiderEndsNode = "outsider-ends-node",
    /// A node from outside the configuration raises the term as far as it says. (57)
    OutsiderTermUnbounded = "outsider-term-unbounded",
    /// The commit index of a leader that no configuration here names is believed. (57)
    OutsiderCommits = "outsider-commits",
    /// A node that was removed tells a member that it was. (57)
    OutsiderRemoves = "outsider-removes",
    /// A handover to a node that does not answer blocks proposals for ever. (35)
    HandoverNeverGivenUp = "handover-never-given-up",
    /// The target of a handover is told to campaign before it has the whole log. (35)
    ToldTooEarly = "told-too-early",

    // In the rules: elections.
    /// A granted vote leaves before it is durable. (1)
    VoteBeforeDurable = "vote-before-durable",
    /// What promises a term leaves before that term is durable. (1)
    SaysBeforeTermIsDurable = "says-before-term-is-durable",
    /// A term that is learnt from others is never written down. (1)
    AdoptedTermNotPersisted = "adopted-term-not-persisted",
    /// Stepping down within a term forgets the vote that was cast in it. (2)
    StepDownForgetsVote = "step-down-forgets-vote",
    /// Granting a pre-vote forgets the vote of the present term. (3)
    PreVoteForgetsVote = "pre-vote-forgets-vote",
    /// Votes and pre-votes are granted to whoever writes what the voter can't apply.
    VoteForUnknownMachine = "vote-for-unknown-machine",
    /// Votes and pre-votes are granted to any log. (4)
    VoteWithoutLogCheck = "vote-without-log-check",
    /// Pre-votes are granted to any log: who can't be elected ends terms in vain. (4)
    PreVoteWithoutLogCheck = "pre-vote-without-log-check",
    /// A log is up-to-date if its term *and* its index are at least as high. (5, 6)
    LogCheckBySeparateParts = "log-check-by-separate-parts",
    /// The longer log is taken for the newer, whatever its last term. (5)
    LogCheckByIndexAlone = "log-check-by-index-alone",
    /// A leader that is dead is believed in for ever. (7)
    LeaderNeverForgotten = "leader-never-forgotten",
    /// The election timer stays disarmed behind a round that nobody decided. (8)
    TimerStaysDisarmed = "timer-stays-disarmed",
    /// Who hears a leader votes against it all the same. (10, 11)
    VoterDeafToLeader = "voter-deaf-to-leader",
    /// A leader that hears nobody goes on leading. (12)
    QuorumNeverChecked = "quorum-never-checked",
    /// A leader whose disk takes nothing any more goes on leading. (52)
    StalledLeaderStays = "stalled-leader-stays",
    /// One vote less than a majority elects.
    MinorityElects = "minority-elects",
    /// A joint configuration counts the majority of its new half alone. (30)
    JointCountsOneMajority = "joint-counts-one-majority",

    // In the rules: replication and commit.
    /// Messages of earlier terms are heard. (17)
    StaleTermHeard = "stale-term-heard",
    /// A leader commits an entry of an earlier term by counting: Figure 8. (15)
    CommitByCounting = "commit-by-counting",
    /// A leader commits with one less than a majority of an odd number, or with half of an even one. (16)
    MinorityCommits = "minority-commits",
    /// A leader counts its own entries before its disk has them. (23)
    LeaderCountsUnsynced = "leader-counts-unsynced",
    /// A follower acknowledges entries before its disk has them. (50)
    AppendReplyBeforeDurable = "append-reply-before-durable",
    /// A truncation leaves what counts as durable as it was. (18)
    TruncationKeepsDurable = "truncation-keeps-durable",
    /// Entries that match are replaced, and what stands behind them is gone. (19)
    MatchingEntriesReplaced = "matching-entries-replaced",
    /// A follower commits entries that the append did not check. (20)
    CommitBeyondChecked = "commit-beyond-checked",
    /// A probe that matches is taken for a match of the whole log. (20)
    ProbeMatchesWholeLog = "probe-matches-whole-log",
    /// Heartbeats name all that is committed, not only what the peer was seen to match. (20)
    HeartbeatNamesWholeCommit = "heartbeat-names-whole-commit",
    /// An acknowledgement from before something was lost counts. (17)
    LateAcknowledgementCounts = "late-acknowledgement-counts",
    /// Appends that were lost keep their place among those under way. (25)
    LostAppendsKeepCredit = "lost-appends-keep-credit",
    /// Bytes that were acknowledged still count as under way. (25)
    AcknowledgedBytesLeak = "acknowledged-bytes-leak",
    /// Nothing bounds what is under way to a peer. (51)
    CreditIgnored = "credit-ignored",
    /// The pause before what was lost is sent again doubles for ever. (26)
    BackOffWithoutBound = "back-off-without-bound",

    // In the rules: reads.
    /// A new leader answers reads before it has committed anything in its term. (36)
    ReadBeforeFirstCommit = "read-before-first-commit",
    /// A leader answers reads without asking whether it still leads. (38)
    ReadWithoutQuorum = "read-without-quorum",
    /// A late answer to an earlier round confirms the present one. (37)
    LateRoundConfirms = "late-round-confirms",
    /// The answer to a heartbeat of an earlier term names that leadership's round. (37)
    StaleAnswerNamesRound = "stale-answer-names-round",
    /// A lease lasts as long as the promise that it rests on, as if all clocks ran alike. (39)
    LeaseWithoutMargin = "lease-without-margin",
    /// A lease counts from the answers to a round rather than from its beginning. (39)
    LeaseFromAnswer = "lease-from-answer",
    /// A new leader takes the votes that it got for a lease, and serves before it has committed anything in its term. (36)
    LeaseBeforeFirstCommit = "lease-before-first-commit",
    /// Who starts again has forgotten what it promised a leader. (13)
    PromiseForgottenAtRestart = "promise-forgotten-at-restart",
    /// Who starts again with a shorter setting keeps that alone, and not the longer promise that it made.
    PromiseOfPresentSetting = "promise-of-present-setting",
    /// A promise is stated before it is durable.
    PromiseBeforeDurable = "promise-before-durable",
    /// A leader takes its own setting for the promise of its voters.
    LeaseOfOwnSetting = "lease-of-own-setting",
    /// A lease lasts as the longest promise of those who answered, rather than as what a quorum has reached.
    LeaseOfLongestPromise = "lease-of-longest-promise",
    /// A voter that states no promise is taken for one that promised what the leader would.
    UnstatedPromiseBacksLease = "unstated-promise-backs-lease",
    /// Who learns of a later term is free of what it promised the leader of an earlier one. (13)
    PromiseEndsWithTerm = "promise-ends-with-term",

    // In the rules: snapshots and lost entries.
    /// The log is cut behind what was applied rather than behind what a snapshot covers. (44)
    CutBeyondSnapshot = "cut-beyond-snapshot",
    /// A cut names the checksum of the log's last entry.
    CutNamesLastChecksum = "cut-names-last-checksum",
    /// A piece of a snapshot that was lost is never asked for again. (40)
    LostPieceNeverMissed = "lost-piece-never-missed",
    /// All of a snapshot is sent at once. (51)
    WindowIgnored = "window-ignored",
    /// A node that lost entries stands for election.
    CampaignsWithFaultyEntries = "campaigns-with-faulty-entries",
    /// Lost entries, and those behind them, are handed to the state machine.
    FaultyEntriesReleased = "faulty-entries-released",
    /// A follower says that it holds what it has lost.
    FaultyCountsAsHeld = "faulty-counts-as-held",
    /// A member says of an entry that it holds that it never had it.
    AbsentThoughHeld = "absent-though-held",
    /// Who asks whether an entry was ever there counts itself among those who say no.
    DiscardCountsItself = "discard-counts-itself",
    /// An entry is forgotten on what others said in a term in which it may have been acknowledged.
    DiscardWithoutAskingAgain = "discard-without-asking-again",
    /// A member that comes with less than it acknowledged is elected and brought up like any other. (61)
    LesserLogWelcome = "lesser-log-welcome",
    /// A member whose directory was put back goes on, though it was told that it held more. (61)
    PutBackGoesOn = "put-back-goes-on",
    /// A member whose directory was emptied goes on, though it was told that it had a log. (61)
    EmptiedGoesOn = "emptied-goes-on",

    // In the storage.
    /// Records are durable when they were written, whether or not they were synced. (50)
    PageCacheCountsAsDisk = "page-cache-counts-as-disk",
    /// When a segment is full, the old file is synced from then on, not the new one. (47)
    OldSegmentSynced = "old-segment-synced",
    /// A sync that failed is tried once more, and believed. (46)
    FailedSyncRetried = "failed-sync-retried",
    /// A segment gets its name, and the directory is not synced. (47)
    DirectoryNotSynced = "directory-not-synced",
    /// Recovery takes zeros where a record's header should be for the end of the log. (48)
    ZerosEndLog = "zeros-end-log",
    /// Recovery takes a record for whole whatever its checksum says.
    ChecksumIgnored = "checksum-ignored",
    /// Entries have no second place.
    SlotsNotWritten = "slots-not-written",
    /// Term and vote are written and not synced. (1)
    HardStateNotSynced = "hard-state-not-synced",
    /// Term and vote are written once instead of twice.
    HardStateInOneCopy = "hard-state-in-one-copy",
    /// A snapshot gets its name before its last bytes are synced. (44)
    SnapshotNotSynced = "snapshot-not-synced",
    /// Nobody is told that the disk is getting full.
    FullDiskUntold = "full-disk-untold",

    // In the actors.
    /// What waits for a write leaves when it is handed to the storage, not when it is durable. (1, 50)
    ThenLeavesAtOnce = "then-leaves-at-once",
    /// What a bounded read rests on counts from when it arrived, not from when it was asked for.
    BoundedFromAnswer = "bounded-from-answer",
    /// A read runs before what it must see is applied.
    ReadsAtOnce = "reads-at-once",
    /// A caller gets the answer of whatever was committed in its entry's place. (54)
    CallersByIndexAlone = "callers-by-index-alone",
    /// Of a command in the log that took too long it is said that it will not take effect. (54)
    LateIsDefinite = "late-is-definite",
    /// Of a command that was forwarded over a link that was lost it is said that it will not take effect. (54)
    LostLinkIsDefinite = "lost-link-is-definite",
    /// A command that was forwarded over a link that was lost is forwarded again. (54)
    UnknownOutcomeRetried = "unknown-outcome-retried",
    /// A forwarded command whose time is over is said not to have been begun with, though its leader may have. (54)
    ForwardedLateIsDefinite = "forwarded-late-is-definite",
    /// Forwarded commands that arrive twice are taken twice. (54)
    DuplicateProposalTaken = "duplicate-proposal-taken",
    /// Commands that a removed node forwards are taken. (57)
    OutsiderForwards = "outsider-forwards",
    /// A command is dropped if nobody waits for it any more. (53)
    DroppedCallerCancels = "dropped-caller-cancels",
    /// A caller that lost patience keeps its place inside for ever. (25)
    DroppedCallerKeepsPlace = "dropped-caller-keeps-place",

    // In the actors: client sessions.
    /// Snapshots have no sessions in them: who is restored from one remembers nobody.
    SessionsNotInSnapshot = "sessions-not-in-snapshot",
    /// A command of a session that comes again is applied again. (54)
    SessionRetryApplied = "session-retry-applied",
    /// A command of a session that is not known any more is applied. (54)
    ExpiredSessionApplied = "expired-session-applied",
    /// Sessions end by the clock of each node. (39)
    SessionExpiryByLocalClock = "session-expiry-by-local-clock",
    /// A command that comes again gets the answer of the session's newest.
    AnswerOfAnotherSerial = "answer-of-another-serial",
    /// There may be any number of sessions. (51)
    SessionBoundIgnored = "session-bound-ignored",
}

impl Mutant {
    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }
}
