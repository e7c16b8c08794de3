//! Each recording method changes exactly the series it names, by the right value.

mod support;

use quorate_metrics::{
    ActorName, ConnectionResult, CountedMailbox, CredentialsOf, Direction, DropReason, ElectionResult, HttpRefusal,
    Lane, Metrics, NodeMetrics, NodeRole, NodeThread, PeerState, Phase, ProposalResult, ProposalStage, ReadMode,
    ReadResult, ReloadResult, Repair, Resource, Shortage, SnapshotPhase, StorageOp, TermChange, TransferResult,
    VoteDirection, Waiting, catalogue::CATALOGUE,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use support::samples;

#[test]
fn every_method_changes_exactly_its_series() {
    let mut told = BTreeSet::from(["quorate_build_info"]);
    for Step { what, act, changes } in STEPS {
        let metrics = Metrics::new();
        let node = metrics.node(1);
        let peer = node.peer(2);
        // Non-zero values, so that a step that clears or overwrites them shows.
        node.set_role(NodeRole::Follower);
        peer.matched(1, 1);
        peer.set_state(PeerState::Probe);
        let before = without_buckets(&metrics);
        act(&node);
        let after = without_buckets(&metrics);
        let mut changed = BTreeMap::new();
        for series in before.keys().chain(after.keys()) {
            if before.get(series) != after.get(series) {
                changed.insert(series.clone(), after.get(series).copied());
            }
        }
        let expected = changes.iter().map(|(series, value)| ((*series).to_owned(), Some(*value))).collect();
        assert_eq!(changed, expected, "{what}");
        for metric in CATALOGUE {
            if changes
                .iter()
                .any(|(series, _)| support::metric_of(series.split('{').next().unwrap_or("")) == metric.name)
            {
                told.insert(metric.name);
            }
        }
    }
    assert_eq!(
        told,
        CATALOGUE.iter().map(|metric| metric.name).collect(),
        "every metric has a method here that changes it"
    );
}

#[test]
fn an_empty_batch_is_no_observation() {
    let metrics = Metrics::new();
    metrics.node(1).proposal_stage_n(ProposalStage::Commit, MS(2), 0);
    assert_eq!(without_buckets(&metrics)["quorate_proposal_duration_seconds_count{stage=commit}"].to_bits(), 0);
}

#[test]
fn a_failed_reload_shows_until_credentials_of_the_same_kind_are_loaded() {
    let metrics = Metrics::new();
    let failed_after = |of, result| {
        metrics.node(1).credentials_reloaded(of, result);
        without_buckets(&metrics)["quorate_credential_reload_failed{of=http}"]
    };
    let told = [
        failed_after(CredentialsOf::Http, ReloadResult::Failed),
        failed_after(CredentialsOf::Nodes, ReloadResult::Loaded),
        failed_after(CredentialsOf::Http, ReloadResult::Loaded),
    ];
    assert_eq!(told, [1.0, 1.0, 0.0]);
}

#[test]
fn parts_of_a_second_add_up_to_milliseconds_and_seconds_and_nothing_is_lost() {
    let metrics = Metrics::new();
    let busy_after = |took: Duration| {
        metrics.node(1).actor_busy(ActorName::Consensus, took);
        let page = without_buckets(&metrics);
        ["seconds", "milliseconds"].map(|unit| page[&format!("quorate_actor_busy_{unit}_total{{actor=consensus}}")])
    };
    let told =
        [MS(999), Duration::from_micros(999), Duration::from_nanos(999), Duration::from_nanos(1), MS(3700), MS(300)];
    let expected = [[0.0, 999.0], [0.0, 999.0], [0.0, 999.0], [1.0, 1000.0], [4.0, 4700.0], [5.0, 5000.0]];
    assert_eq!(told.map(busy_after), expected);
}

struct Step {
    what: &'static str,
    act: fn(&NodeMetrics),
    /// The value of each changed series afterwards, without the label `node="1"`.
    changes: &'static [(&'static str, f64)],
}

macro_rules! steps {
    ($($act:expr => { $($series:literal = $value:expr),+ $(,)? })+) => {
        const STEPS: &[Step] = &[$(Step { what: stringify!($act), act: $act, changes: &[$(($series, $value)),+] }),+];
    };
}

const MS: fn(u64) -> Duration = Duration::from_millis;

steps! {
    |node| node.set_role(NodeRole::Leader) => {
        "quorate_role{role=follower}" = 0.0,
        "quorate_role{role=leader}" = 1.0,
    }
    |node| node.set_term(7) => { "quorate_term{}" = 7.0 }
    |node| node.term_changed(TermChange::HigherTerm) => { "quorate_term_changes_total{cause=higher_term}" = 1.0 }
    |node| node.election_started(Phase::PreVote) => { "quorate_elections_started_total{phase=pre_vote}" = 1.0 }
    |node| node.election_finished(Phase::Vote, ElectionResult::Won, MS(40)) => {
        "quorate_elections_finished_total{phase=vote,result=won}" = 1.0,
        "quorate_election_duration_seconds_count{}" = 1.0,
        "quorate_election_duration_seconds_sum{}" = 0.04,
    }
    |node| node.election_finished(Phase::PreVote, ElectionResult::Won, MS(20)) => {
        "quorate_elections_finished_total{phase=pre_vote,result=won}" = 1.0,
    }
    |node| node.election_finished(Phase::PreVote, ElectionResult::TimedOut, MS(250)) => {
        "quorate_elections_finished_total{phase=pre_vote,result=timed_out}" = 1.0,
        "quorate_election_duration_seconds_count{}" = 1.0,
        "quorate_election_duration_seconds_sum{}" = 0.25,
    }
    |node| node.vote(Phase::Vote, VoteDirection::Cast, true) => {
        "quorate_votes_total{phase=vote,direction=cast,result=granted}" = 1.0,
    }
    |node| node.vote(Phase::PreVote, VoteDirection::Received, false) => {
        "quorate_votes_total{phase=pre_vote,direction=received,result=denied}" = 1.0,
    }
    NodeMetrics::leader_changed => { "quorate_leader_changes_total{}" = 1.0 }
    |node| node.has_leader(true) => { "quorate_has_leader{}" = 1.0 }
    |node| node.leaderless_for(MS(1500)) => {
        "quorate_leaderless_seconds_total{}" = 1.0,
        "quorate_leaderless_milliseconds_total{}" = 1500.0,
    }
    |node| node.lease_held(true) => { "quorate_lease_held{}" = 1.0 }
    NodeMetrics::lease_lost => { "quorate_lease_losses_total{}" = 1.0 }
    |node| node.transfer_ended(TransferResult::Done, Some(MS(30))) => {
        "quorate_leadership_transfers_total{result=done}" = 1.0,
        "quorate_leadership_transfer_duration_seconds_count{}" = 1.0,
        "quorate_leadership_transfer_duration_seconds_sum{}" = 0.03,
    }
    |node| node.transfer_ended(TransferResult::Refused, None) => {
        "quorate_leadership_transfers_total{result=refused}" = 1.0,
    }
    |node| node.log_spans(11, 99) => { "quorate_first_index{}" = 11.0, "quorate_last_index{}" = 99.0 }
    |node| node.set_durable_index(98) => { "quorate_durable_index{}" = 98.0 }
    |node| node.set_commit_index(97) => { "quorate_commit_index{}" = 97.0 }
    |node| node.set_applied_index(96) => { "quorate_applied_index{}" = 96.0 }
    |node| node.set_snapshot_index(10) => { "quorate_snapshot_index{}" = 10.0 }
    |node| node.proposals(ProposalResult::OutcomeUnknown, 64) => {
        "quorate_proposals_total{result=outcome_unknown}" = 64.0,
    }
    |node| node.proposals_in_flight(12) => { "quorate_proposals_in_flight{}" = 12.0 }
    |node| node.sessions(3) => { "quorate_sessions{}" = 3.0 }
    |node| node.sessions_expired(2) => { "quorate_sessions_expired_total{}" = 2.0 }
    |node| node.proposal_stage(ProposalStage::Total, MS(2)) => {
        "quorate_proposal_duration_seconds_count{stage=total}" = 1.0,
        "quorate_proposal_duration_seconds_sum{stage=total}" = 0.002,
    }
    |node| node.proposal_stage_n(ProposalStage::Persist, MS(2), 64) => {
        "quorate_proposal_duration_seconds_count{stage=persist}" = 1.0,
        "quorate_proposal_duration_seconds_sum{stage=persist}" = 0.002,
    }
    |node| node.batch(64) => { "quorate_batch_entries_count{}" = 1.0, "quorate_batch_entries_sum{}" = 64.0 }
    |node| node.reads(ReadMode::Lease, ReadResult::Served, 3) => {
        "quorate_reads_total{mode=lease,result=served}" = 3.0,
    }
    |node| node.read_took(ReadMode::Linearizable, MS(4)) => {
        "quorate_read_duration_seconds_count{mode=linearizable}" = 1.0,
        "quorate_read_duration_seconds_sum{mode=linearizable}" = 0.004,
    }
    |node| node.effects_pending(5) => { "quorate_effects_pending{}" = 5.0 }
    NodeMetrics::effect_performed => { "quorate_effects_performed_total{}" = 1.0 }
    NodeMetrics::effect_retried => { "quorate_effects_retried_total{}" = 1.0 }
    |node| node.timers_pending(4) => { "quorate_timers_pending{}" = 4.0 }
    |node| node.timers_fired(3) => { "quorate_timers_fired_total{}" = 3.0 }
    |node| { node.watch_opened(); node.watch_opened(); node.watch_closed() } => { "quorate_watches{}" = 1.0 }
    |node| node.watch_events(5) => { "quorate_watch_events_total{}" = 5.0 }
    |node| node.fsync_took(MS(1)) => {
        "quorate_storage_fsync_duration_seconds_count{}" = 1.0,
        "quorate_storage_fsync_duration_seconds_sum{}" = 0.001,
    }
    |node| node.written(4096) => { "quorate_storage_written_bytes_total{}" = 4096.0 }
    |node| node.storage_error(StorageOp::Sync) => { "quorate_storage_errors_total{op=sync}" = 1.0 }
    |node| node.log_bytes(1 << 20) => { "quorate_log_bytes{}" = 1_048_576.0 }
    |node| node.storage_full(true) => { "quorate_storage_full{}" = 1.0 }
    |node| node.differing_copies(2) => { "quorate_differing_copies{}" = 2.0 }
    |node| node.copies_differed() => { "quorate_copies_differed_total{}" = 1.0 }
    |node| node.halted(true) => { "quorate_halted{}" = 1.0 }
    |node| node.faulty_entries(3) => { "quorate_faulty_entries{}" = 3.0 }
    |node| node.repaired(Repair::Healed, 2) => { "quorate_repairs_total{result=healed}" = 2.0 }
    |node| node.peer(2).diverged() => { "quorate_divergences_total{peer=2}" = 1.0 }
    |node| node.peer(2).data_lost() => { "quorate_data_losses_total{peer=2}" = 1.0 }
    |node| node.peer(2).settings_differ(2) => { "quorate_peer_settings_differing{peer=2}" = 2.0 }
    |node| node.peer(2).matched(90, 9) => {
        "quorate_peer_match_index{peer=2}" = 90.0,
        "quorate_peer_lag_entries{peer=2}" = 9.0,
    }
    |node| node.peer(2).set_state(PeerState::Replicate) => {
        "quorate_peer_state{peer=2,state=probe}" = 0.0,
        "quorate_peer_state{peer=2,state=replicate}" = 1.0,
    }
    |node| node.peer(2).replication_ended() => {
        "quorate_peer_match_index{peer=2}" = 0.0,
        "quorate_peer_lag_entries{peer=2}" = 0.0,
        "quorate_peer_state{peer=2,state=probe}" = 0.0,
    }
    |node| node.peer(2).round_trip(Duration::from_micros(500)) => { "quorate_peer_rtt_seconds{peer=2}" = 0.0005 }
    |node| node.peer(2).acknowledged(MS(2)) => {
        "quorate_peer_acknowledge_seconds_count{peer=2}" = 1.0,
        "quorate_peer_acknowledge_seconds_sum{peer=2}" = 0.002,
    }
    |node| node.peer(2).sent(MS(3)) => {
        "quorate_peer_send_seconds_count{peer=2}" = 1.0,
        "quorate_peer_send_seconds_sum{peer=2}" = 0.003,
    }
    |node| node.free_space(4096) => { "quorate_storage_free_bytes{}" = 4096.0 }
    |node| node.pressure(Resource::Io, Waiting::One, 0.25) => {
        "quorate_pressure_ratio{resource=io,waiting=some}" = 0.25,
    }
    |node| node.mailbox_waited(ActorName::Reporter, MS(2)) => {
        "quorate_actor_mailbox_wait_seconds_count{actor=reporter}" = 1.0,
        "quorate_actor_mailbox_wait_seconds_sum{actor=reporter}" = 0.002,
    }
    |node| node.peer(2).append_rejected() => { "quorate_append_rejections_total{peer=2}" = 1.0 }
    |node| node.peer(2).net_bytes(Direction::Sent, Lane::Append, 512) => {
        "quorate_net_bytes_total{peer=2,direction=sent,lane=append}" = 512.0,
    }
    |node| node.connection(Some(2), ConnectionResult::Connected) => {
        "quorate_net_connections_total{peer=2,result=connected}" = 1.0,
    }
    |node| node.connection(None, ConnectionResult::RefusedCertificate) => {
        "quorate_net_connections_total{peer=unknown,result=refused_certificate}" = 1.0,
    }
    |node| node.dropped(Some(2), DropReason::QueueFull) => {
        "quorate_net_dropped_total{peer=2,reason=queue_full}" = 1.0,
    }
    |node| node.dropped(None, DropReason::Malformed) => {
        "quorate_net_dropped_total{peer=unknown,reason=malformed}" = 1.0,
    }
    |node| node.snapshot_bytes(Direction::Received, 1000) => {
        "quorate_snapshot_bytes_total{direction=received}" = 1000.0,
    }
    |node| node.snapshot_took(SnapshotPhase::Build, MS(3000)) => {
        "quorate_snapshot_duration_seconds_count{phase=build}" = 1.0,
        "quorate_snapshot_duration_seconds_sum{phase=build}" = 3.0,
    }
    |node| node.snapshot_failed(SnapshotPhase::Restore) => {
        "quorate_snapshot_failures_total{phase=restore}" = 1.0,
    }
    |node| node.mailbox_depth(CountedMailbox::Consensus, 5) => { "quorate_actor_mailbox_depth{actor=consensus}" = 5.0 }
    |node| node.actor_busy(ActorName::Applier, MS(2250)) => {
        "quorate_actor_busy_seconds_total{actor=applier}" = 2.0,
        "quorate_actor_busy_milliseconds_total{actor=applier}" = 2250.0,
    }
    |node| node.woke(MS(700), true) => {
        "quorate_event_loop_delay_seconds_sum{}" = 0.7, "quorate_event_loop_delay_seconds_count{}" = 1.0,
        "quorate_late_wakeups_total{}" = 1.0,
    }
    |node| node.ran_short(Shortage::Storage) => { "quorate_shortages_total{what=storage}" = 1.0 }
    |node| node.thread_silent(NodeThread::Applier, MS(1500)) => {
        "quorate_thread_silence_seconds{thread=applier}" = 1.5,
    }
    |node| node.log_lines_lost(7) => { "quorate_log_lines_lost_total{}" = 7.0 }
    |node| node.http_connections(2) => { "quorate_http_connections{}" = 2.0 }
    |node| node.http_refused(HttpRefusal::ContentType) => { "quorate_http_refused_total{reason=content_type}" = 1.0 }
    |node| node.certificate_expires(CredentialsOf::Nodes, 1_900_000_000) => {
        "quorate_certificate_expiry_timestamp_seconds{of=nodes}" = 1_900_000_000.0,
    }
    |node| node.crl_expires(CredentialsOf::Http, 1_800_000_000) => {
        "quorate_crl_expiry_timestamp_seconds{of=http}" = 1_800_000_000.0,
    }
    |node| node.credentials_reloaded(CredentialsOf::Tokens, ReloadResult::Failed) => {
        "quorate_credential_reloads_total{of=tokens,result=failed}" = 1.0,
        "quorate_credential_reload_failed{of=tokens}" = 1.0,
    }
    |node| node.credentials_reloaded(CredentialsOf::Tokens, ReloadResult::Loaded) => {
        "quorate_credential_reloads_total{of=tokens,result=loaded}" = 1.0,
    }
}

/// All samples except buckets (other tests check those), as `name{label=value,…}` without
/// the label `node`.
fn without_buckets(metrics: &Metrics) -> BTreeMap<String, f64> {
    let samples = samples(&metrics.render());
    let kept = samples.into_iter().filter(|(series, _)| series.label("le").is_none());
    let written = kept.map(|(series, value)| {
        let labels = series.labels.iter().filter(|(name, _)| name != "node");
        let labels: Vec<_> = labels.map(|(name, value)| format!("{name}={value}")).collect();
        (format!("{}{{{}}}", series.name, labels.join(",")), value)
    });
    written.collect()
}
