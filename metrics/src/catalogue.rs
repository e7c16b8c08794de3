//! The table of all metrics: name, kind, unit, labels, help.
//!
//! The handles are made from this table; tests check the README's table, the dashboard, the alert
//! rules and the rendered page against it. Every metric also has the label `node`, the id of the
//! node it describes.

use crate::labels::{
    ActorName, ConnectionResult, CountedMailbox, CredentialsOf, Direction, DropReason, ElectionResult, HttpRefusal,
    Label as _, Lane, NodeRole, NodeThread, PeerState, Phase, ProposalResult, ProposalStage, ReadMode, ReadResult,
    ReloadResult, Repair, Resource, Shortage, SnapshotPhase, StorageOp, TermChange, TransferResult, VoteDirection,
    VoteResult, Waiting,
};
use Unit::{Bytes, Count, Entries, Index, Milliseconds, Ratio, Seconds, Term, UnixSeconds, Yes};

/// One row of the table: all properties of a metric.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Metric {
    /// The full name: prefix `quorate_`, then Prometheus' suffixes for base units and counters.
    pub name: &'static str,
    /// The type, and for a histogram its buckets.
    pub kind: Kind,
    /// The unit of the values, or of a histogram's bounds and sum.
    pub unit: Unit,
    /// The labels in addition to `node`.
    pub labels: &'static [Label],
    /// The text of the `# HELP` line, one sentence.
    pub help: &'static str,
}

/// The type of a metric, in Prometheus' sense.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// Increases only, from 0 at the node's start, by whole numbers.
    Counter,
    /// Can increase and decrease.
    Gauge,
    /// Counts observations in buckets with these inclusive upper bounds, in the metric's unit; the
    /// last, `+Inf`, is implied.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word in a page's `# TYPE` line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// The unit of a metric's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// 1 for yes, 0 for no.
    Yes,
    /// A number of things; the metric's name says of which.
    Count,
    /// A number of log entries.
    Entries,
    /// A log index.
    Index,
    /// A Raft term number.
    Term,
    /// A number of bytes.
    Bytes,
    /// A duration in seconds.
    Seconds,
    /// A duration in milliseconds: of counters of time, which count whole numbers.
    Milliseconds,
    /// A part of a whole, from 0 to 1.
    Ratio,
    /// A point in time, in seconds since 1970.
    UnixSeconds,
}

/// A label: its name and the values it can have.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Label {
    /// The name in the exported text.
    pub name: &'static str,
    /// All values that can occur.
    pub values: Values,
}

/// The set of values of a label.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Values {
    /// Exactly these values.
    OneOf(&'static [&'static str]),
    /// The id of a peer: a member, or a node that proved its id.
    Peer,
    /// The id of a peer, or `unknown` where no id was proved.
    PeerOrUnknown,
    /// The version of the running software.
    Version,
}

/// The value of a `peer` label if no id was proved.
pub const UNKNOWN_PEER: &str = "unknown";

macro_rules! catalogue {
    ($($id:ident: $kind:expr, $unit:expr, $name:literal $({$($label:expr),+})?, $help:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help)]
            pub static $id: Metric =
                Metric { name: $name, kind: $kind, unit: $unit, labels: &[$($($label),+)?], help: $help };
        )+

        /// All metrics, grouped by family.
        pub static CATALOGUE: &[&Metric] = &[$(&$id,)+];
    };
}

const fn closed(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values: Values::OneOf(values) }
}

const VERSION: Label = Label { name: "version", values: Values::Version };
const PEER: Label = Label { name: "peer", values: Values::Peer };
const PEER_OR_UNKNOWN: Label = Label { name: "peer", values: Values::PeerOrUnknown };
const ROLES: Label = closed("role", NodeRole::VALUES);
const CAUSE: Label = closed("cause", TermChange::VALUES);
const PHASE: Label = closed("phase", Phase::VALUES);
const ELECTION_RESULT: Label = closed("result", ElectionResult::VALUES);
const TRANSFER_RESULT: Label = closed("result", TransferResult::VALUES);
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
const COUNTED_MAILBOX: Label = closed("actor", CountedMailbox::VALUES);
const RESOURCE: Label = closed("resource", Resource::VALUES);
const WAITING: Label = closed("waiting", Waiting::VALUES);
const SHORT_OF: Label = closed("what", Shortage::VALUES);
const THREAD: Label = closed("thread", NodeThread::VALUES);
const CREDENTIALS: Label = closed("of", CredentialsOf::VALUES);
const RELOAD_RESULT: Label = closed("result", ReloadResult::VALUES);
const HTTP_REFUSAL: Label = closed("reason", HttpRefusal::VALUES);

const COUNTER: Kind = Kind::Counter;
const GAUGE: Kind = Kind::Gauge;
/// From one hop between threads to a stuck disk: 25 us to 10 s, denser in the range of a healthy
/// proposal or `fdatasync`.
const LATENCY: Kind = Kind::Histogram(&[
    0.000_025, 0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_6, 0.000_8, 0.001, 0.001_5, 0.002, 0.003, 0.005, 0.0075,
    0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
]);
/// Around the usual election timeout of 150 to 300 ms: a healthy campaign takes two round trips
/// and two syncs.
const ELECTION: Kind =
    Kind::Histogram(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0]);
/// From a state of a few kilobytes to one of many gigabytes.
const TRANSFER: Kind = Kind::Histogram(&[0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0]);
/// Powers of two up to the default limit of proposals in flight.
const BATCH: Kind =
    Kind::Histogram(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0]);

catalogue! {
    BUILD_INFO: GAUGE, Yes, "quorate_build_info" {VERSION}, "Always 1; the label is the version of the running software.";

    // Elections.
    ROLE: GAUGE, Yes, "quorate_role" {ROLES}, "1 for the node's current role, 0 for the others.";
    TERM: GAUGE, Term, "quorate_term", "The node's current term.";
    TERM_CHANGES: COUNTER, Count, "quorate_term_changes_total" {CAUSE},
        "Increases of the node's term, by its own campaign or because of a message with a higher term.";
    ELECTIONS_STARTED: COUNTER, Count, "quorate_elections_started_total" {PHASE},
        "Election rounds that the node started as a candidate.";
    ELECTIONS_FINISHED: COUNTER, Count, "quorate_elections_finished_total" {PHASE, ELECTION_RESULT},
        "Election rounds of the node that ended, by result.";
    ELECTION_DURATION: ELECTION, Seconds, "quorate_election_duration_seconds",
        "Time from the start of a campaign, pre-vote included, to its end, for every result.";
    VOTES: COUNTER, Count, "quorate_votes_total" {PHASE, VOTE_DIRECTION, VOTE_RESULT},
        "Votes that the node cast for other candidates and received for itself.";
    LEADER_CHANGES: COUNTER, Count, "quorate_leader_changes_total",
        "Times that the node started to follow a different leader or became the leader.";
    HAS_LEADER: GAUGE, Yes, "quorate_has_leader", "1 while the node leads or knows its leader.";
    LEADERLESS: COUNTER, Seconds, "quorate_leaderless_seconds_total", "Time without a known leader, in whole seconds.";
    LEADERLESS_MS: COUNTER, Milliseconds, "quorate_leaderless_milliseconds_total", "The same in whole milliseconds.";
    LEASE_HELD: GAUGE, Yes, "quorate_lease_held",
        "1 while the node leads with a valid lease, looked at once per heartbeat interval; reads begin and renew it, so without reads there is none.";
    LEASE_LOSSES: COUNTER, Count, "quorate_lease_losses_total",
        "Times that the node's lease ended: with its leadership, by a transfer, or because nothing renewed it for ten seconds.";
    TRANSFERS: COUNTER, Count, "quorate_leadership_transfers_total" {TRANSFER_RESULT},
        "Leadership transfers that this node made as the leader and that ended, or that it refused, by result.";
    TRANSFER_DURATION: ELECTION, Seconds, "quorate_leadership_transfer_duration_seconds",
        "Time from the start of a leadership transfer until another node led or it was given up, for every result but refused.";

    // The log.
    FIRST_INDEX: GAUGE, Index, "quorate_first_index", "Index of the first entry in the log.";
    LAST_INDEX: GAUGE, Index, "quorate_last_index", "Index of the last entry in the log, durable or not.";
    DURABLE_INDEX: GAUGE, Index, "quorate_durable_index", "Index of the last entry that would survive a power cut of this node.";
    COMMIT_INDEX: GAUGE, Index, "quorate_commit_index", "Index of the last entry that the node knows to be committed.";
    APPLIED_INDEX: GAUGE, Index, "quorate_applied_index", "Index of the last entry that the state machine has applied.";
    SNAPSHOT_INDEX: GAUGE, Index, "quorate_snapshot_index", "Index of the last entry in the latest snapshot; 0 without a snapshot.";

    // Clients.
    PROPOSALS: COUNTER, Count, "quorate_proposals_total" {PROPOSAL_RESULT},
        "Proposals made on this node that were answered, by result.";
    PROPOSALS_IN_FLIGHT: GAUGE, Count, "quorate_proposals_in_flight", "Proposals made on this node that wait for their answer.";
    SESSIONS: GAUGE, Count, "quorate_sessions", "Client sessions that this node remembers; equal on nodes with the same applied index.";
    SESSIONS_EXPIRED: COUNTER, Count, "quorate_sessions_expired_total",
        "Client sessions that this node forgot because they were idle for too long or too many; entries that are applied again after a restart count again.";
    PROPOSAL_DURATION: LATENCY, Seconds, "quorate_proposal_duration_seconds" {STAGE},
        "Time that a batch of proposals spent in a stage, one observation per batch, on the leader; the means of queue, encode, quorum, commit, apply and reply sum to that of total, and persist is the leader's own disk.";
    BATCH_ENTRIES: BATCH, Entries, "quorate_batch_entries", "Proposals that the leader appended to its log in one batch.";
    READS: COUNTER, Count, "quorate_reads_total" {MODE, READ_RESULT}, "Reads made on this node, by result.";
    READ_DURATION: LATENCY, Seconds, "quorate_read_duration_seconds" {MODE}, "Time from the call of a read to its answer.";

    // Effects of a service.
    EFFECTS_PENDING: GAUGE, Count, "quorate_effects_pending", "Effects that a service asked for and that are not completed; 0 unless the node leads.";
    EFFECTS_PERFORMED: COUNTER, Count, "quorate_effects_performed_total", "Effects that the handler on this node performed.";
    EFFECTS_RETRIED: COUNTER, Count, "quorate_effects_retried_total",
        "Calls of the handler on this node that failed, panicked or took too long; the effect is performed again.";

    // Timers and watches of a service.
    TIMERS_PENDING: GAUGE, Count, "quorate_timers_pending", "Timers of the service that are set and did not fire yet; equal on nodes with the same applied index.";
    TIMERS_FIRED: COUNTER, Count, "quorate_timers_fired_total",
        "Timers of the service that fired in entries that this node applied; entries that are applied again after a restart count again.";
    WATCHES: GAUGE, Count, "quorate_watches", "Open watches of this node's service.";
    WATCH_EVENTS: COUNTER, Count, "quorate_watch_events_total", "Events that the watches of this node returned to their callers.";

    // Storage.
    FSYNC_DURATION: LATENCY, Seconds, "quorate_storage_fsync_duration_seconds", "Time that one fdatasync of the log took.";
    WRITTEN: COUNTER, Bytes, "quorate_storage_written_bytes_total", "Bytes written to the log.";
    STORAGE_ERRORS: COUNTER, Count, "quorate_storage_errors_total" {OP}, "Storage operations that failed; the first failure of the log stops the node, and a failed snapshot is repeated.";
    LOG_BYTES: GAUGE, Bytes, "quorate_log_bytes", "Disk space used by the log.";

    STORAGE_FULL: GAUGE, Yes, "quorate_storage_full",
        "1 while the disk has no space for entries; the node then accepts no commands and does not lead or campaign.";
    HALTED: GAUGE, Yes, "quorate_halted",
        "1 once the state machine halted at an entry that it can't apply; the node then votes and replicates, and serves no reads.";
    DIFFERING_COPIES: GAUGE, Count, "quorate_differing_copies",
        "Full copies that differ from the majority, or from one another without one, in the last window of the log that showed it; 0 once a later window agrees.";
    COPIES_DIFFERED: COUNTER, Count, "quorate_copies_differed_total",
        "Windows of the log in which this node found that full copies differ; entries that are applied again after a restart count again.";
    FAULTY: GAUGE, Entries, "quorate_faulty_entries",
        "Entries whose payload was lost to this node's disk; the node applies nothing from the first of them on until other members send them.";
    REPAIRS: COUNTER, Count, "quorate_repairs_total" {REPAIR}, "Faulty entries that were repaired or discarded.";
    DIVERGENCES: COUNTER, Count, "quorate_divergences_total" {PEER},
        "Entries with equal ids that differ between this node's log and the peer's; one of the two logs is damaged.";
    DATA_LOSSES: COUNTER, Count, "quorate_data_losses_total" {PEER},
        "Times that the peer came back without entries it had acknowledged; its data directory was emptied or replaced by an old copy.";

    // Peers.
    PEER_MATCH_INDEX: GAUGE, Index, "quorate_peer_match_index" {PEER},
        "Index of the last entry known to be durable on the peer; 0 unless the node leads.";
    PEER_LAG: GAUGE, Entries, "quorate_peer_lag_entries" {PEER},
        "Entries of the leader's log that are not known to be durable on the peer; 0 unless the node leads.";
    PEER_SETTINGS: GAUGE, Count, "quorate_peer_settings_differing" {PEER},
        "Settings that should be equal on all nodes and differ between this node and the peer, as of its last connection.";
    PEER_STATE: GAUGE, Yes, "quorate_peer_state" {PEER, STATE},
        "1 for the current state of replication to the peer, 0 for the others; all 0 unless the node leads.";
    PEER_RTT: GAUGE, Seconds, "quorate_peer_rtt_seconds" {PEER}, "Last round-trip time that the network measured; absent before the first.";
    PEER_SEND: LATENCY, Seconds, "quorate_peer_send_seconds" {PEER},
        "Time from queueing entries for the peer until the connection took them over to send, one observation per write, of its first entries; none unless the node leads, and none on a network in memory.";
    PEER_ACKNOWLEDGE: LATENCY, Seconds, "quorate_peer_acknowledge_seconds" {PEER},
        "Time from sending entries to the peer until it acknowledged them as durable, one observation per acknowledgement; none unless the node leads.";
    APPEND_REJECTIONS: COUNTER, Count, "quorate_append_rejections_total" {PEER},
        "Appends that the peer rejected because its log did not match.";
    NET_BYTES: COUNTER, Bytes, "quorate_net_bytes_total" {PEER, DIRECTION, LANE}, "Bytes of frames, by peer, direction and lane.";
    NET_CONNECTIONS: COUNTER, Count, "quorate_net_connections_total" {PEER_OR_UNKNOWN, CONNECTION_RESULT},
        "Connection attempts, by result.";
    NET_DROPPED: COUNTER, Count, "quorate_net_dropped_total" {PEER_OR_UNKNOWN, REASON}, "Messages that were dropped, by reason.";

    // Snapshots.
    SNAPSHOT_BYTES: COUNTER, Bytes, "quorate_snapshot_bytes_total" {DIRECTION}, "Bytes of snapshots transferred over the network.";
    SNAPSHOT_DURATION: TRANSFER, Seconds, "quorate_snapshot_duration_seconds" {SNAPSHOT_PHASE}, "Time that a snapshot spent in a phase.";

    SNAPSHOT_FAILURES: COUNTER, Count, "quorate_snapshot_failures_total" {SNAPSHOT_PHASE},
        "Snapshots that failed in a phase; the node retries, except after a failed restore, which stops it.";

    // The process.
    MAILBOX_DEPTH: GAUGE, Count, "quorate_actor_mailbox_depth" {COUNTED_MAILBOX},
        "Messages in the actor's mailbox when the last measuring message entered it; absent before the first, and for a storage actor that does not count.";
    MAILBOX_WAIT: LATENCY, Seconds, "quorate_actor_mailbox_wait_seconds" {ACTOR},
        "Time that a measuring message waited in the actor's mailbox, behind the messages before it; one per heartbeat interval and actor while it runs, or every twenty intervals while it has nothing to do.";
    ACTOR_BUSY: COUNTER, Seconds, "quorate_actor_busy_seconds_total" {ACTOR},
        "Time of the actor's turns on its thread, in whole seconds; of log_writer and applier with their waits for the disk and the state machine, of peer_link with the tasks that read and write connections.";
    ACTOR_BUSY_MS: COUNTER, Milliseconds, "quorate_actor_busy_milliseconds_total" {ACTOR}, "The same in whole milliseconds.";
    EVENT_LOOP_DELAY: LATENCY, Seconds, "quorate_event_loop_delay_seconds",
        "Delay of a timer on the node's own thread; measured twice per heartbeat interval.";
    LATE_WAKEUPS: COUNTER, Count, "quorate_late_wakeups_total",
        "Times that this timer was 5 ms or more late because the machine was busy or suspended.";
    SHORTAGES: COUNTER, Count, "quorate_shortages_total" {SHORT_OF},
        "Times that a file, thread or connection could not be opened for lack of descriptors, threads or memory; the node retries each.";
    THREAD_SILENCE: GAUGE, Seconds, "quorate_thread_silence_seconds" {THREAD},
        "Time since a thread of the node last responded; checked about once a second.";
    LOG_LINES_LOST: COUNTER, Count, "quorate_log_lines_lost_total",
        "Log lines that were dropped because standard error was blocked.";
    HTTP_CONNECTIONS: GAUGE, Count, "quorate_http_connections", "Open client connections.";
    FREE_SPACE: GAUGE, Bytes, "quorate_storage_free_bytes",
        "Space that this process may use on the file system of the data directory; absent where it is not measured.";
    PRESSURE: GAUGE, Ratio, "quorate_pressure_ratio" {RESOURCE, WAITING},
        "Part of the last ten seconds in which some, or all, of the machine's busy tasks waited for a resource, by the kernel's pressure stall information; absent without it.";
    HTTP_REFUSED: COUNTER, Count, "quorate_http_refused_total" {HTTP_REFUSAL},
        "Requests and connections of clients that were refused or cut off, by reason.";
    CERTIFICATE_EXPIRY: GAUGE, UnixSeconds, "quorate_certificate_expiry_timestamp_seconds" {CREDENTIALS},
        "Expiry time of the node's own certificate; absent without a certificate.";
    CRL_EXPIRY: GAUGE, UnixSeconds, "quorate_crl_expiry_timestamp_seconds" {CREDENTIALS},
        "Time at which the first of the certificate revocation lists in use must be replaced; absent without a list.";
    CREDENTIAL_RELOADS: COUNTER, Count, "quorate_credential_reloads_total" {CREDENTIALS, RELOAD_RESULT},
        "Times that changed credentials were read while the node ran; after a failure the former ones stay in use.";
    CREDENTIAL_RELOAD_FAILED: GAUGE, Yes, "quorate_credential_reload_failed" {CREDENTIALS},
        "1 while the newest credentials can't be used and the former ones are.";
}
