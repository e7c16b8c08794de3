//! The series of a node by family, and their registration. The methods that record to them are in
//! the files of the families.

use super::scope::{Chosen, Each, LateGauge, Scope, TimeCounter};
use crate::{
    catalogue,
    labels::{
        ActorName, CountedMailbox, CredentialsOf, Direction, ElectionResult, HttpRefusal, NodeRole, NodeThread, Phase,
        ProposalResult, ProposalStage, ReadMode, ReadResult, ReloadResult, Repair, Shortage, SnapshotPhase, StorageOp,
        TermChange, TransferResult, VoteDirection, VoteResult,
    },
};
use metrics::{Counter, Gauge, Histogram};

/// Load of the actors, delays of their threads, and shortages of the process.
pub(super) struct Actors {
    pub(super) mailbox_depth: Each<CountedMailbox, LateGauge>,
    pub(super) mailbox_wait: Each<ActorName, Histogram>,
    pub(super) busy: Each<ActorName, TimeCounter>,
    pub(super) event_loop_delay: Histogram,
    pub(super) late_wakeups: Counter,
    pub(super) shortages: Each<Shortage, Counter>,
    pub(super) silence: Each<NodeThread, Gauge>,
    pub(super) lines_lost: Counter,
    pub(super) http_connections: Gauge,
    pub(super) http_refused: Each<HttpRefusal, Counter>,
}

impl Actors {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            mailbox_depth: scope.each("actor", |scope| scope.late_gauge(&catalogue::MAILBOX_DEPTH)),
            mailbox_wait: scope.each("actor", |scope| scope.histogram(&catalogue::MAILBOX_WAIT)),
            busy: scope.each("actor", |scope| scope.time_counter(&catalogue::ACTOR_BUSY, &catalogue::ACTOR_BUSY_MS)),
            event_loop_delay: scope.histogram(&catalogue::EVENT_LOOP_DELAY),
            late_wakeups: scope.counter(&catalogue::LATE_WAKEUPS),
            shortages: scope.each("what", |scope| scope.counter(&catalogue::SHORTAGES)),
            silence: scope.each("thread", |scope| scope.gauge(&catalogue::THREAD_SILENCE)),
            lines_lost: scope.counter(&catalogue::LOG_LINES_LOST),
            http_connections: scope.gauge(&catalogue::HTTP_CONNECTIONS),
            http_refused: scope.each("reason", |scope| scope.counter(&catalogue::HTTP_REFUSED)),
        }
    }
}

/// Proposals and reads: results for their callers, and durations of their stages.
pub(super) struct Clients {
    pub(super) proposals: Each<ProposalResult, Counter>,
    pub(super) in_flight: Gauge,
    pub(super) sessions: Gauge,
    pub(super) sessions_expired: Counter,
    pub(super) stages: Each<ProposalStage, Histogram>,
    pub(super) batch: Histogram,
    pub(super) reads: Each<ReadMode, Each<ReadResult, Counter>>,
    pub(super) read_duration: Each<ReadMode, Histogram>,
}

impl Clients {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            proposals: scope.each("result", |scope| scope.counter(&catalogue::PROPOSALS)),
            in_flight: scope.gauge(&catalogue::PROPOSALS_IN_FLIGHT),
            sessions: scope.gauge(&catalogue::SESSIONS),
            sessions_expired: scope.counter(&catalogue::SESSIONS_EXPIRED),
            stages: scope.each("stage", |scope| scope.histogram(&catalogue::PROPOSAL_DURATION)),
            batch: scope.histogram(&catalogue::BATCH_ENTRIES),
            reads: scope.each("mode", |scope| scope.each("result", |scope| scope.counter(&catalogue::READS))),
            read_duration: scope.each("mode", |scope| scope.histogram(&catalogue::READ_DURATION)),
        }
    }
}

/// Ends of certificates and revocation lists, and reloads of both and of tokens.
pub(super) struct Credentials {
    pub(super) certificate_expiry: Each<CredentialsOf, LateGauge>,
    pub(super) crl_expiry: Each<CredentialsOf, LateGauge>,
    pub(super) reloads: Each<CredentialsOf, Each<ReloadResult, Counter>>,
    pub(super) reload_failed: Each<CredentialsOf, Gauge>,
}

impl Credentials {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            certificate_expiry: scope.each("of", |scope| scope.late_gauge(&catalogue::CERTIFICATE_EXPIRY)),
            crl_expiry: scope.each("of", |scope| scope.late_gauge(&catalogue::CRL_EXPIRY)),
            reloads: scope
                .each("of", |scope| scope.each("result", |scope| scope.counter(&catalogue::CREDENTIAL_RELOADS))),
            reload_failed: scope.each("of", |scope| scope.gauge(&catalogue::CREDENTIAL_RELOAD_FAILED)),
        }
    }
}

/// Role, term, campaigns, votes, leases, transfers, and whether a leader is known.
pub(super) struct Elections {
    pub(super) role: Chosen<NodeRole>,
    pub(super) term: Gauge,
    pub(super) term_changes: Each<TermChange, Counter>,
    pub(super) started: Each<Phase, Counter>,
    pub(super) finished: Each<Phase, Each<ElectionResult, Counter>>,
    pub(super) duration: Histogram,
    pub(super) votes: Each<Phase, Each<VoteDirection, Each<VoteResult, Counter>>>,
    pub(super) leader_changes: Counter,
    pub(super) has_leader: Gauge,
    pub(super) leaderless: TimeCounter,
    pub(super) lease_held: Gauge,
    pub(super) lease_losses: Counter,
    pub(super) transfers: Each<TransferResult, Counter>,
    pub(super) transfer_duration: Histogram,
}

impl Elections {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            role: scope.choice(&catalogue::ROLE, "role"),
            term: scope.gauge(&catalogue::TERM),
            term_changes: scope.each("cause", |scope| scope.counter(&catalogue::TERM_CHANGES)),
            started: scope.each("phase", |scope| scope.counter(&catalogue::ELECTIONS_STARTED)),
            finished: scope
                .each("phase", |scope| scope.each("result", |scope| scope.counter(&catalogue::ELECTIONS_FINISHED))),
            duration: scope.histogram(&catalogue::ELECTION_DURATION),
            votes: scope.each("phase", |scope| {
                scope.each("direction", |scope| scope.each("result", |scope| scope.counter(&catalogue::VOTES)))
            }),
            leader_changes: scope.counter(&catalogue::LEADER_CHANGES),
            has_leader: scope.gauge(&catalogue::HAS_LEADER),
            leaderless: scope.time_counter(&catalogue::LEADERLESS, &catalogue::LEADERLESS_MS),
            lease_held: scope.gauge(&catalogue::LEASE_HELD),
            lease_losses: scope.counter(&catalogue::LEASE_LOSSES),
            transfers: scope.each("result", |scope| scope.counter(&catalogue::TRANSFERS)),
            transfer_duration: scope.histogram(&catalogue::TRANSFER_DURATION),
        }
    }
}

/// Indexes of the log: written, durable, committed, applied, compacted.
pub(super) struct Log {
    pub(super) first: Gauge,
    pub(super) last: Gauge,
    pub(super) durable: Gauge,
    pub(super) commit: Gauge,
    pub(super) applied: Gauge,
    pub(super) snapshot: Gauge,
}

impl Log {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            first: scope.gauge(&catalogue::FIRST_INDEX),
            last: scope.gauge(&catalogue::LAST_INDEX),
            durable: scope.gauge(&catalogue::DURABLE_INDEX),
            commit: scope.gauge(&catalogue::COMMIT_INDEX),
            applied: scope.gauge(&catalogue::APPLIED_INDEX),
            snapshot: scope.gauge(&catalogue::SNAPSHOT_INDEX),
        }
    }
}

/// Building, transfer and restore of snapshots.
pub(super) struct Snapshots {
    pub(super) bytes: Each<Direction, Counter>,
    pub(super) duration: Each<SnapshotPhase, Histogram>,
    pub(super) failures: Each<SnapshotPhase, Counter>,
}

impl Snapshots {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            bytes: scope.each("direction", |scope| scope.counter(&catalogue::SNAPSHOT_BYTES)),
            duration: scope.each("phase", |scope| scope.histogram(&catalogue::SNAPSHOT_DURATION)),
            failures: scope.each("phase", |scope| scope.counter(&catalogue::SNAPSHOT_FAILURES)),
        }
    }
}

/// The timers and watches of a service.
pub(super) struct Service {
    pub(super) timers_pending: Gauge,
    pub(super) timers_fired: Counter,
    pub(super) watches: Gauge,
    pub(super) watch_events: Counter,
}

impl Service {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            timers_pending: scope.gauge(&catalogue::TIMERS_PENDING),
            timers_fired: scope.counter(&catalogue::TIMERS_FIRED),
            watches: scope.gauge(&catalogue::WATCHES),
            watch_events: scope.counter(&catalogue::WATCH_EVENTS),
        }
    }
}

/// The effects of a service.
pub(super) struct Effects {
    pub(super) pending: Gauge,
    pub(super) performed: Counter,
    pub(super) retried: Counter,
}

impl Effects {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            pending: scope.gauge(&catalogue::EFFECTS_PENDING),
            performed: scope.counter(&catalogue::EFFECTS_PERFORMED),
            retried: scope.counter(&catalogue::EFFECTS_RETRIED),
        }
    }
}

/// The disk of the durable log.
pub(super) struct Storage {
    pub(super) fsync: Histogram,
    pub(super) written: Counter,
    pub(super) errors: Each<StorageOp, Counter>,
    pub(super) log_bytes: Gauge,
    pub(super) full: Gauge,
    pub(super) halted: Gauge,
    pub(super) differing_copies: Gauge,
    pub(super) copies_differed: Counter,
    pub(super) faulty: Gauge,
    pub(super) repairs: Each<Repair, Counter>,
}

impl Storage {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            fsync: scope.histogram(&catalogue::FSYNC_DURATION),
            written: scope.counter(&catalogue::WRITTEN),
            errors: scope.each("op", |scope| scope.counter(&catalogue::STORAGE_ERRORS)),
            log_bytes: scope.gauge(&catalogue::LOG_BYTES),
            full: scope.gauge(&catalogue::STORAGE_FULL),
            halted: scope.gauge(&catalogue::HALTED),
            differing_copies: scope.gauge(&catalogue::DIFFERING_COPIES),
            copies_differed: scope.counter(&catalogue::COPIES_DIFFERED),
            faulty: scope.gauge(&catalogue::FAULTY),
            repairs: scope.each("result", |scope| scope.counter(&catalogue::REPAIRS)),
        }
    }
}
