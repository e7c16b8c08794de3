//! Planted bugs, one at a time, that show whether the checks of a cluster notice them.
//!
//! A test that never failed proves little. So the simulator switches on one of these at a time
//! and must catch it; one that survives is a gap in the checks. Each is one line in the rules,
//! the storage or the actors that asks [`live`] for its [`Mutant`]; most come from bugs that
//! other systems shipped.
//!
//! **Production never builds them.** Without the feature `mutants`, which no package turns on by
//! default, `live` is a constant `false`, its sites compile to nothing, and no mutant can be
//! switched on. With it, at most one mutant is live in a process: all nodes in it have the same
//! bug, as they would have in a release.

#[cfg(feature = "mutants")]
use core::sync::atomic::{AtomicU8, Ordering};

/// Whether this mutant is switched on. Never, in an ordinary build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn live(_: Mutant) -> bool {
    false
}

/// Whether this mutant is switched on.
#[cfg(feature = "mutants")]
#[must_use]
pub fn live(mutant: Mutant) -> bool {
    BRED.load(Ordering::Relaxed) == mutant as u8
}

/// Switches this mutant on in the whole process, in place of any other; `None` switches it off.
#[cfg(feature = "mutants")]
pub fn breed(mutant: Option<Mutant>) {
    BRED.store(mutant.map_or(NOBODY, |mutant| mutant as u8), Ordering::Relaxed);
}

#[cfg(feature = "mutants")]
static BRED: AtomicU8 = AtomicU8::new(NOBODY);

/// The number that stands for no mutant; there are far fewer mutants.
#[cfg(feature = "mutants")]
const NOBODY: u8 = u8::MAX;

macro_rules! mutants {
    ($($(#[$doc:meta])* $mutant:ident = $name:literal,)*) => {
        /// A planted bug, described by its wrong behaviour.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Mutant {
            $($(#[$doc])* $mutant,)*
        }

        impl Mutant {
            /// All mutants: first those in the rules, then in the storage, then in the actors.
            pub const ALL: &[Self] = &[$(Self::$mutant,)*];

            /// Its name on a command line.
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
    // In the rules: membership changes and leadership transfers.
    /// A change is accepted before the leader has committed an entry of its own term.
    ChangeBeforeFirstCommit = "change-before-first-commit",
    /// A second change is accepted while one is in progress.
    SecondChangeTaken = "second-change-taken",
    /// Voters are exchanged without a joint configuration.
    VotersChangedAtOnce = "voters-changed-at-once",
    /// No leader completes a joint configuration.
    JointNeverLeft = "joint-never-left",
    /// A leader that is not in the configuration that it appended does not campaign again, though
    /// only it has that entry.
    LeavingLeaderStaysDown = "leaving-leader-stays-down",
    /// A member that lacks most of the log is made a voter.
    PromotedThoughBehind = "promoted-though-behind",
    /// Replication to a member that was added again begins with the first epoch, not after those
    /// that it knows.
    EpochsBeginAnew = "epochs-begin-anew",
    /// A witness campaigns like any other voter.
    WitnessCampaigns = "witness-campaigns",
    /// A witness is sent the same entries as the other peers, even if no full copy holds them yet.
    WitnessAhead = "witness-ahead",
    /// A vote request from outside the configuration counts as part of a leadership transfer,
    /// though the leader is heard.
    OutsiderHandsOver = "outsider-hands-over",
    /// A node from outside the configuration that claims to lead stops a node that
    /// knows the leader.
    OutsiderEndsNode = "outsider-ends-node",
    /// A node from outside the configuration raises the term by any amount.
    OutsiderTermUnbounded = "outsider-term-unbounded",
    /// The commit index of a leader that no configuration here names is believed.
    OutsiderCommits = "outsider-commits",
    /// A node that was removed tells a member that the member was.
    OutsiderRemoves = "outsider-removes",
    /// A leadership transfer to a node that does not answer blocks proposals for ever.
    HandoverNeverGivenUp = "handover-never-given-up",
    /// The target of a leadership transfer is told to campaign before it has the whole log.
    ToldTooEarly = "told-too-early",

    // In the rules: elections.
    /// A granted vote leaves before it is durable.
    VoteBeforeDurable = "vote-before-durable",
    /// A message that promises a term leaves before that term is durable.
    SaysBeforeTermIsDurable = "says-before-term-is-durable",
    /// A term that is learnt from others is never persisted.
    AdoptedTermNotPersisted = "adopted-term-not-persisted",
    /// Stepping down within a term forgets the vote that was cast in it.
    StepDownForgetsVote = "step-down-forgets-vote",
    /// Granting a pre-vote forgets the vote of the present term.
    PreVoteForgetsVote = "pre-vote-forgets-vote",
    /// Votes and pre-votes are granted to a candidate whose version the voter can't apply.
    VoteForUnknownMachine = "vote-for-unknown-machine",
    /// Votes and pre-votes are granted to any log.
    VoteWithoutLogCheck = "vote-without-log-check",
    /// Pre-votes are granted to any log: a node that can't be elected ends terms in vain.
    PreVoteWithoutLogCheck = "pre-vote-without-log-check",
    /// A log is up-to-date if its term *and* its index are at least as high.
    LogCheckBySeparateParts = "log-check-by-separate-parts",
    /// The longer log is taken for the newer, in spite of its last term.
    LogCheckByIndexAlone = "log-check-by-index-alone",
    /// A leader that is down is never forgotten.
    LeaderNeverForgotten = "leader-never-forgotten",
    /// The election timer stays disarmed after a round without a result.
    TimerStaysDisarmed = "timer-stays-disarmed",
    /// A voter that hears a leader votes against it all the same.
    VoterDeafToLeader = "voter-deaf-to-leader",
    /// A leader that hears no follower goes on leading.
    QuorumNeverChecked = "quorum-never-checked",
    /// A leader whose disk completes no write any more goes on leading.
    StalledLeaderStays = "stalled-leader-stays",
    /// One vote less than a majority elects.
    MinorityElects = "minority-elects",
    /// A joint configuration counts the majority of its new half alone.
    JointCountsOneMajority = "joint-counts-one-majority",

    // In the rules: replication and commit.
    /// Messages of earlier terms are handled.
    StaleTermHeard = "stale-term-heard",
    /// A leader commits an entry of an earlier term by counting: Figure 8.
    CommitByCounting = "commit-by-counting",
    /// A leader commits with one less than a majority of an odd number, or with half of
    /// an even one.
    MinorityCommits = "minority-commits",
    /// A leader counts its own entries before its disk has them.
    LeaderCountsUnsynced = "leader-counts-unsynced",
    /// A follower acknowledges entries before its disk has them.
    AppendReplyBeforeDurable = "append-reply-before-durable",
    /// A truncation does not lower the durable index.
    TruncationKeepsDurable = "truncation-keeps-durable",
    /// Entries that match are replaced, and the entries after them are gone.
    MatchingEntriesReplaced = "matching-entries-replaced",
    /// A follower commits entries that the append did not check.
    CommitBeyondChecked = "commit-beyond-checked",
    /// A probe that matches is taken for a match of the whole log.
    ProbeMatchesWholeLog = "probe-matches-whole-log",
    /// Heartbeats name the whole commit index, not only the part that the peer was seen to match.
    HeartbeatNamesWholeCommit = "heartbeat-names-whole-commit",
    /// An acknowledgement from before a loss counts.
    LateAcknowledgementCounts = "late-acknowledgement-counts",
    /// Lost appends keep their place among those in flight.
    LostAppendsKeepCredit = "lost-appends-keep-credit",
    /// Acknowledged bytes still count as in flight.
    AcknowledgedBytesLeak = "acknowledged-bytes-leak",
    /// No limit bounds the entries in flight to a peer.
    CreditIgnored = "credit-ignored",
    /// The pause before lost entries are sent again doubles for ever.
    BackOffWithoutBound = "back-off-without-bound",

    // In the rules: reads.
    /// A new leader answers reads before it has committed an entry of its term.
    ReadBeforeFirstCommit = "read-before-first-commit",
    /// A leader answers reads without asking whether it still leads.
    ReadWithoutQuorum = "read-without-quorum",
    /// A late answer to an earlier round confirms the present one.
    LateRoundConfirms = "late-round-confirms",
    /// The answer to a heartbeat of an earlier term names that leadership's round.
    StaleAnswerNamesRound = "stale-answer-names-round",
    /// A lease lasts as long as the promise that it rests on, as if all clocks ran alike.
    LeaseWithoutMargin = "lease-without-margin",
    /// A lease counts from the answers to a round rather than from its beginning.
    LeaseFromAnswer = "lease-from-answer",
    /// A new leader takes the votes that it got for a lease, and serves before it has committed an
    /// entry of its term.
    LeaseBeforeFirstCommit = "lease-before-first-commit",
    /// A node that restarts has forgotten the promise that it made to a leader.
    PromiseForgottenAtRestart = "promise-forgotten-at-restart",
    /// A node that restarts with a shorter setting keeps that alone, and not the longer promise
    /// that it made.
    PromiseOfPresentSetting = "promise-of-present-setting",
    /// A promise is stated before it is durable.
    PromiseBeforeDurable = "promise-before-durable",
    /// A leader takes its own setting for the promise of its voters.
    LeaseOfOwnSetting = "lease-of-own-setting",
    /// A lease lasts as the longest promise among the answers, rather than as the one that a
    /// quorum has reached.
    LeaseOfLongestPromise = "lease-of-longest-promise",
    /// A voter that states no promise is taken for one that made the leader's own promise.
    UnstatedPromiseBacksLease = "unstated-promise-backs-lease",
    /// A later term frees a node of its promise to the leader of an earlier one.
    PromiseEndsWithTerm = "promise-ends-with-term",

    // In the rules: snapshots and lost entries.
    /// The log is cut up to the applied index rather than up to the end of a snapshot.
    CutBeyondSnapshot = "cut-beyond-snapshot",
    /// A cut names the checksum of the log's last entry.
    CutNamesLastChecksum = "cut-names-last-checksum",
    /// A lost piece of a snapshot is never asked for again.
    LostPieceNeverMissed = "lost-piece-never-missed",
    /// All of a snapshot is sent at once.
    WindowIgnored = "window-ignored",
    /// A node that lost entries stands for election.
    CampaignsWithFaultyEntries = "campaigns-with-faulty-entries",
    /// Lost entries, and those after them, are dispatched to the state machine.
    FaultyEntriesReleased = "faulty-entries-released",
    /// A follower claims to hold entries that it has lost.
    FaultyCountsAsHeld = "faulty-counts-as-held",
    /// A member that holds an entry answers that it never had it.
    AbsentThoughHeld = "absent-though-held",
    /// A node that asks whether an entry was ever there counts itself among the denials.
    DiscardCountsItself = "discard-counts-itself",
    /// An entry is forgotten because of answers in a term in which it may have been acknowledged.
    DiscardWithoutAskingAgain = "discard-without-asking-again",
    /// A member that comes with less than it acknowledged is elected and brought up to date
    /// like any other.
    LesserLogWelcome = "lesser-log-welcome",
    /// A member whose directory was rolled back goes on, though it was told that it held more.
    PutBackGoesOn = "put-back-goes-on",
    /// A member whose directory was emptied goes on, though it was told that it had a log.
    EmptiedGoesOn = "emptied-goes-on",

    // In the storage.
    /// Records count as durable when they were written, before they are synced.
    PageCacheCountsAsDisk = "page-cache-counts-as-disk",
    /// When a segment is full, the old file is synced from then on, not the new one.
    OldSegmentSynced = "old-segment-synced",
    /// A sync that failed is tried once more, and believed.
    FailedSyncRetried = "failed-sync-retried",
    /// A segment gets its name, and the directory is not synced.
    DirectoryNotSynced = "directory-not-synced",
    /// Recovery takes zeros in place of a record's header for the end of the log.
    ZerosEndLog = "zeros-end-log",
    /// Recovery takes a record for whole in spite of its checksum.
    ChecksumIgnored = "checksum-ignored",
    /// Entries have no slots with their identity.
    SlotsNotWritten = "slots-not-written",
    /// Term and vote are written and not synced.
    HardStateNotSynced = "hard-state-not-synced",
    /// Term and vote are written once instead of twice.
    HardStateInOneCopy = "hard-state-in-one-copy",
    /// A snapshot gets its name before its last bytes are synced.
    SnapshotNotSynced = "snapshot-not-synced",
    /// A disk that is getting full is not reported.
    FullDiskUntold = "full-disk-untold",

    // In the actors.
    /// Messages that wait for a write leave when the write reaches the storage, not when
    /// it is durable.
    ThenLeavesAtOnce = "then-leaves-at-once",
    /// A bounded read's proof counts from the arrival of the answer, not from the request.
    BoundedFromAnswer = "bounded-from-answer",
    /// A read runs before the index that it must see is applied.
    ReadsAtOnce = "reads-at-once",
    /// A caller gets the result of another entry that was committed at its entry's index.
    CallersByIndexAlone = "callers-by-index-alone",
    /// A command in the log that took too long is answered as if it could not take effect any more.
    LateIsDefinite = "late-is-definite",
    /// A command forwarded over a link that was lost is answered as if it could not take
    /// effect any more.
    LostLinkIsDefinite = "lost-link-is-definite",
    /// A command forwarded over a link that was lost is forwarded again.
    UnknownOutcomeRetried = "unknown-outcome-retried",
    /// A forwarded command past its deadline is answered as not started, though its leader may
    /// have started it.
    ForwardedLateIsDefinite = "forwarded-late-is-definite",
    /// Forwarded commands that arrive twice are taken twice.
    DuplicateProposalTaken = "duplicate-proposal-taken",
    /// Commands that a removed node forwards are taken.
    OutsiderForwards = "outsider-forwards",
    /// A command is dropped if its caller no longer waits for it.
    DroppedCallerCancels = "dropped-caller-cancels",
    /// A caller that stopped waiting keeps its admission for ever.
    DroppedCallerKeepsPlace = "dropped-caller-keeps-place",

    // In the actors: client sessions.
    /// Snapshots hold no sessions: a node restored from one remembers none.
    SessionsNotInSnapshot = "sessions-not-in-snapshot",
    /// A session's command that comes again is applied again.
    SessionRetryApplied = "session-retry-applied",
    /// A command of an expired session is applied.
    ExpiredSessionApplied = "expired-session-applied",
    /// Sessions expire by the clock of each node.
    SessionExpiryByLocalClock = "session-expiry-by-local-clock",
    /// A command that comes again gets the answer of the session's newest.
    AnswerOfAnotherSerial = "answer-of-another-serial",
    /// The number of sessions has no bound.
    SessionBoundIgnored = "session-bound-ignored",
}

impl Mutant {
    /// The mutant of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }
}
