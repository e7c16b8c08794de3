//! The single table of every metric: name, kind, unit, labels, help.
//!
//! Handles are made from it, and the README's table, the dashboard, the alert rules and the rendered page are checked
//! against it by tests. Every metric also carries the label `node`: the id of the node that it speaks of.

use crate::labels::{
    ActorName, ConnectionResult, Direction, DropReason, ElectionResult, Label as _, Lane, NodeThread, PeerState, Phase,
    ProposalResult, ProposalStage, ReadMode, ReadResult, Repair, Role, Shortage, SnapshotPhase, StorageOp, TermChange,
    VoteDirection, VoteResult,
};
use Unit::{Bytes, Count, Entries, Index, Seconds, Term, UnixSeconds, Yes};

/// One row: everything that there is to know of a metric.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Metric {
    /// Its name, with the prefix `quorate_` and Prometheus' suffixes for base units and counters.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// What its values, or a histogram's bounds and sum, are in.
    pub unit: Unit,
    /// Its labels beside `node`.
    pub labels: &'static [Label],
    /// What it says, in a sentence.
    pub help: &'static str,
}

/// What kind of metric.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// Only goes up, from 0 at the node's start, by whole numbers.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets with these inclusive upper bounds, in the metric's unit; the last, `+Inf`, is implied.
    Histogram(&'static [f64]),
}

impl Kind {
    /// As in a page's `# TYPE` line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// What values are in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// 1 for yes, 0 for no.
    Yes,
    /// A number of things that the name tells.
    Count,
    /// A number of log entries.
    Entries,
    /// An index of the log.
    Index,
    /// A term.
    Term,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Seconds since 1970.
    UnixSeconds,
}

/// A label.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// The values that it can have.
    pub values: Values,
}

/// The values that a label can have.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Values {
    /// These and no others.
    OneOf(&'static [&'static str]),
    /// The id of a peer: a member, or a node that proved its id.
    Peer,
    /// The id of a peer, or `unknown` where no id was proved.
    PeerOrUnknown,
    /// A version of this software.
    Version,
}

/// What a peer's label says where no id was proved.
pub const UNKNOWN_PEER: &str = "unknown";

macro_rules! catalogue {
    ($($id:ident: $kind:expr, $unit:expr, $name:literal $({$($label:expr),+})?, $help:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help)]
            pub static $id: Metric =
                Metric { name: $name, kind: $kind, unit: $unit, labels: &[$($($label),+)?], help: $help };
        )+

        /// Every metric, by family.
        pub static CATALOGUE: &[&Metric] = &[$(&$id,)+];
    };
}

const fn closed(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values: Values::OneOf(values) }
}

const VERSION: Label = Label { name: "version", values: Values::Version };
const PEER: Label = Label { name: "peer", values: Values::Peer };
const PEER_OR_UNKNOWN: Label = Label { name: "peer", values: Values::PeerOrUnknown };
const ROLES: Label = closed("role", Role::VALUES);
const CAUSE: Label = closed("cause", TermChange::VALUES);
const PHASE: Label = closed("phase", Phase::VALUES);
const ELECTION_RESULT: Label = closed("result", ElectionResult::VALUES);
const VOTE_DIRECTION: Label = closed("direction", VoteDirection::VALUES);
const VOTE_RESULT: Label = closed("result", VoteResult::VALUES);
const PROPOSAL_RESULT: Label = closed("result", ProposalResult::VALUES);
const STAGE: Label = closed("stage", ProposalStage::VALUES);
const MODE: Label = closed("mode", ReadMode::VALUES);
const READ_RESULT: Label = closed("result", ReadResult::VALUES);
const OP: Label = closed("op", StorageOp::VALUES);
const STATE: Label = closed("state", PeerState::VALUES);
const DIRECTION: Label = closed("direction", Direction::VALUES);
const LANE: Label = closed("lane", Lane::VALUES);
const CONNECTION_RESULT: Label = closed("result", ConnectionResult::VALUES);
const REASON: Label = closed("reason", DropReason::VALUES);
const SNAPSHOT_PHASE: Label = closed("phase", SnapshotPhase::VALUES);
const REPAIR: Label = closed("result", Repair::VALUES);
const ACTOR: Label = closed("actor", ActorName::VALUES);
const SHORT_OF: Label = closed("what", Shortage::VALUES);
const THREAD: Label = closed("thread", NodeThread::VALUES);

const COUNTER: Kind = Kind::Counter;
const GAUGE: Kind = Kind::Gauge;
/// From one memory-speed hop to a stuck disk: 25 us to 10 s, denser where a healthy proposal or `fdatasync` lies.
const LATENCY: Kind = Kind::Histogram(&[
    0.000_025, 0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_6, 0.000_8, 0.001, 0.001_5, 0.002, 0.003, 0.005, 0.0075,
    0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
]);
/// Around the usual election timeout of 150 to 300 ms: a healthy campaign takes two round trips and two syncs.
const ELECTION: Kind =
    Kind::Histogram(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0]);
/// From a state of kilobytes to one of many gigabytes.
const TRANSFER: Kind = Kind::Histogram(&[0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0]);
/// Powers of two up to the most proposals that a node has in flight by default.
const BATCH: Kind =
    Kind::Histogram(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0]);

catalogue! {
    BUILD_INFO: GAUGE, Yes, "quorate_build_info" {VERSION}, "Always 1; the label tells the version that runs.";

    // Elections.
    ROLE: GAUGE, Yes, "quorate_role" {ROLES}, "1 for the role that the node has, 0 for the others.";
    TERM: GAUGE, Term, "quorate_term", "The node's current term.";
    TERM_CHANGES: COUNTER, Count, "quorate_term_changes_total" {CAUSE},
        "How often the node's term went up: by its own campaign, or because a message came from a higher term.";
    ELECTIONS_STARTED: COUNTER, Count, "quorate_elections_started_total" {PHASE},
        "Rounds in which the node asked for votes.";
    ELECTIONS_FINISHED: COUNTER, Count, "quorate_elections_finished_total" {PHASE, ELECTION_RESULT},
        "How those rounds ended.";
    ELECTION_DURATION: ELECTION, Seconds, "quorate_election_duration_seconds",
        "Time from a campaign's start, pre-vote included, to its end, whatever the result.";
    VOTES: COUNTER, Count, "quorate_votes_total" {PHASE, VOTE_DIRECTION, VOTE_RESULT},
        "Votes that the node cast on others' requests, and received on its own.";
    LEADER_CHANGES: COUNTER, Count, "quorate_leader_changes_total",
        "How often the node came to follow another leader than before, or became one.";
    HAS_LEADER: GAUGE, Yes, "quorate_has_leader", "1 while the node leads or knows whom it follows.";
    LEADERLESS: COUNTER, Seconds, "quorate_leaderless_seconds_total", "Time without a known leader, in whole seconds.";

    // The log.
    FIRST_INDEX: GAUGE, Index, "quorate_first_index", "The first entry that the log still has.";
    LAST_INDEX: GAUGE, Index, "quorate_last_index", "The last entry of the log, durable or not.";
    DURABLE_INDEX: GAUGE, Index, "quorate_durable_index", "The last entry that would survive a power cut of the node.";
    COMMIT_INDEX: GAUGE, Index, "quorate_commit_index", "The last entry that the node knows to be committed.";
    APPLIED_INDEX: GAUGE, Index, "quorate_applied_index", "The last entry that the state machine has applied.";
    SNAPSHOT_INDEX: GAUGE, Index, "quorate_snapshot_index", "The last entry that the latest snapshot covers; 0 without.";

    // Clients.
    PROPOSALS: COUNTER, Count, "quorate_proposals_total" {PROPOSAL_RESULT},
        "Proposals made on this node, by what their caller was told.";
    PROPOSALS_IN_FLIGHT: GAUGE, Count, "quorate_proposals_in_flight", "Proposals made on this node and not yet answered.";
    SESSIONS: GAUGE, Count, "quorate_sessions", "Client sessions that this node remembers: as many as all that have applied as much.";
    PROPOSAL_DURATION: LATENCY, Seconds, "quorate_proposal_duration_seconds" {STAGE},
        "Time that a batch of proposals spent in a stage, one observation a batch; queue and total where the proposals were made, the rest on the leader.";
    BATCH_ENTRIES: BATCH, Entries, "quorate_batch_entries", "Proposals that the leader took into the log at once.";
    READS: COUNTER, Count, "quorate_reads_total" {MODE, READ_RESULT}, "Reads made on this node, by what their caller was told.";
    READ_DURATION: LATENCY, Seconds, "quorate_read_duration_seconds" {MODE}, "Time from the call of a read to its answer.";

    // Storage.
    FSYNC_DURATION: LATENCY, Seconds, "quorate_storage_fsync_duration_seconds", "Time that one fdatasync of the log took.";
    WRITTEN: COUNTER, Bytes, "quorate_storage_written_bytes_total", "Bytes written to the log.";
    STORAGE_ERRORS: COUNTER, Count, "quorate_storage_errors_total" {OP}, "Operations of the store that failed; the first one ends the node.";
    LOG_BYTES: GAUGE, Bytes, "quorate_log_bytes", "Space that the log takes.";

    STORAGE_FULL: GAUGE, Yes, "quorate_storage_full",
        "1 while the disk has no room for entries: the node takes no commands, and neither leads nor asks to.";
    FAULTY: GAUGE, Entries, "quorate_faulty_entries",
        "Entries whose identity the node knows and whose payload its disk lost; until others send them, nothing from the first of them on is applied.";
    REPAIRS: COUNTER, Count, "quorate_repairs_total" {REPAIR}, "Faulty entries of the node, by what became of them.";
    DIVERGENCES: COUNTER, Count, "quorate_divergences_total" {PEER},
        "Entries at which this node's log and the peer's were found to differ though their ids are equal: one of the two is damaged.";
    DATA_LOSSES: COUNTER, Count, "quorate_data_losses_total" {PEER},
        "Times that the peer came with less than it had acknowledged: its data directory was emptied or put back.";

    // Peers.
    PEER_MATCH_INDEX: GAUGE, Index, "quorate_peer_match_index" {PEER},
        "The last entry that the peer is known to have durably; 0 unless the node leads.";
    PEER_LAG: GAUGE, Entries, "quorate_peer_lag_entries" {PEER},
        "How many entries of the leader's log the peer is not known to have; 0 unless the node leads.";
    PEER_SETTINGS: GAUGE, Count, "quorate_peer_settings_differing" {PEER},
        "Settings on which nodes should agree and that this node and the peer have differently, as the peer stated when it connected last.";
    PEER_STATE: GAUGE, Yes, "quorate_peer_state" {PEER, STATE},
        "1 for how the leader replicates to the peer, 0 for the other ways; all 0 unless the node leads.";
    PEER_RTT: GAUGE, Seconds, "quorate_peer_rtt_seconds" {PEER}, "Round-trip time as the network measured it last; absent until then, 0 once the peer left.";
    APPEND_REJECTIONS: COUNTER, Count, "quorate_append_rejections_total" {PEER},
        "Appends that the peer rejected because its log did not match.";
    NET_BYTES: COUNTER, Bytes, "quorate_net_bytes_total" {PEER, DIRECTION, LANE}, "Bytes of frames, by peer, direction and lane.";
    NET_CONNECTIONS: COUNTER, Count, "quorate_net_connections_total" {PEER_OR_UNKNOWN, CONNECTION_RESULT},
        "Attempts at connections, by how they ended.";
    NET_DROPPED: COUNTER, Count, "quorate_net_dropped_total" {PEER_OR_UNKNOWN, REASON}, "Messages that were dropped.";

    // Snapshots.
    SNAPSHOT_BYTES: COUNTER, Bytes, "quorate_snapshot_bytes_total" {DIRECTION}, "Bytes of snapshots that went over the network.";
    SNAPSHOT_DURATION: TRANSFER, Seconds, "quorate_snapshot_duration_seconds" {SNAPSHOT_PHASE}, "Time that a snapshot spent in a phase.";

    SNAPSHOT_FAILURES: COUNTER, Count, "quorate_snapshot_failures_total" {SNAPSHOT_PHASE},
        "Snapshots that a phase failed on; the node tries again, but for a failed restore, which ends it.";

    // The process.
    MAILBOX_DEPTH: GAUGE, Count, "quorate_actor_mailbox_depth" {ACTOR}, "Messages that waited for the actor when it last looked.";
    ACTOR_BUSY: COUNTER, Seconds, "quorate_actor_busy_seconds_total" {ACTOR}, "Time that the actor spent handling messages, in whole seconds.";
    EVENT_LOOP_DELAY: LATENCY, Seconds, "quorate_event_loop_delay_seconds",
        "How long after it was due a timer of the node's own thread fired; looked at four times a heartbeat interval.";
    LATE_WAKEUPS: COUNTER, Count, "quorate_late_wakeups_total",
        "How often that timer fired 5 ms or more late: the machine is busy, or stood still.";
    SHORTAGES: COUNTER, Count, "quorate_shortages_total" {SHORT_OF},
        "How often a file, a thread or a connection could not be opened or started for want of descriptors, threads or memory; each is tried again.";
    THREAD_SILENCE: GAUGE, Seconds, "quorate_thread_silence_seconds" {THREAD},
        "How long a thread of the node has not taken a turn; asked about once a second.";
    LOG_LINES_LOST: COUNTER, Count, "quorate_log_lines_lost_total",
        "Lines of the process's log that were dropped because standard error took no more.";
    HTTP_CONNECTIONS: GAUGE, Count, "quorate_http_connections", "Connections of clients that are open.";
    CERTIFICATE_EXPIRY: GAUGE, UnixSeconds, "quorate_certificate_expiry_timestamp_seconds",
        "When the node's own certificate ends; absent without one.";
}
