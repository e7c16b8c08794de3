//! Shared helpers: parsing a page and expressions, calling every method once, running promtool.
#![allow(dead_code, reason = "no test uses all of it")]

pub(crate) mod promql;

use quorate_metrics::{
    ActorName, ConnectionResult, CountedMailbox, CredentialsOf, Direction, DropReason, ElectionResult, HttpRefusal,
    Label, Lane, Metrics, NodeMetrics, NodeRole, NodeThread, PeerState, Phase, ProposalResult, ProposalStage, ReadMode,
    ReadResult, ReloadResult, Repair, Resource, Shortage, SnapshotPhase, StorageOp, TermChange, TransferResult,
    VoteDirection, Waiting,
};
use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

/// The name and labels of a sample.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
}

impl Series {
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    /// The metric that the sample belongs to: its name without a histogram's suffix.
    pub(crate) fn metric(&self) -> &str {
        metric_of(&self.name)
    }
}

/// The metric that a sample's name belongs to; valid for the names in our catalogue.
pub(crate) fn metric_of(name: &str) -> &str {
    let suffixes = ["_bucket", "_sum", "_count"];
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// Every sample of a page.
///
/// # Panics
/// If a line is neither a comment nor a sample, or a sample stands twice.
pub(crate) fn samples(page: &str) -> BTreeMap<Series, f64> {
    let mut samples = BTreeMap::new();
    for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, rest) = line.split_once('{').unwrap_or_else(|| panic!("no labels: {line}"));
        let (labels, value) = rest.rsplit_once("} ").unwrap_or_else(|| panic!("no value: {line}"));
        let labels = labels.split("\",").map(|label| {
            let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("not a label: {label} in {line}"));
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        });
        let series = Series { name: name.to_owned(), labels: labels.collect() };
        let value = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
        assert_eq!(samples.insert(series, value), None, "twice: {line}");
    }
    samples
}

/// A page with every metric and every label value: two nodes with two peers each.
pub(crate) fn full_page() -> String {
    let metrics = Metrics::new();
    for id in [1, 2] {
        record_everything(&metrics.node(id));
    }
    metrics.render()
}

/// Calls every method of a node's handles, with every label value.
pub(crate) fn record_everything(node: &NodeMetrics) {
    let took = Duration::from_micros(300);
    NodeRole::ALL.iter().for_each(|role| node.set_role(*role));
    node.set_term(3);
    TermChange::ALL.iter().for_each(|cause| node.term_changed(*cause));
    for phase in Phase::ALL {
        node.election_started(*phase);
        ElectionResult::ALL.iter().for_each(|result| node.election_finished(*phase, *result, took));
        for direction in VoteDirection::ALL {
            [true, false].iter().for_each(|granted| node.vote(*phase, *direction, *granted));
        }
    }
    node.leader_changed();
    node.has_leader(true);
    node.leaderless_for(took);
    node.lease_held(true);
    node.lease_lost();
    TransferResult::ALL.iter().for_each(|result| node.transfer_ended(*result, Some(took)));
    node.log_spans(1, 9);
    node.set_durable_index(8);
    node.set_commit_index(7);
    node.set_applied_index(6);
    node.set_snapshot_index(5);
    ProposalResult::ALL.iter().for_each(|result| node.proposals(*result, 2));
    node.proposals_in_flight(4);
    node.sessions(3);
    node.sessions_expired(2);
    node.timers_pending(4);
    node.timers_fired(3);
    node.watch_opened();
    node.watch_events(5);
    ProposalStage::ALL.iter().for_each(|stage| node.proposal_stage(*stage, took));
    node.batch(64);
    CountedMailbox::ALL.iter().for_each(|actor| node.mailbox_depth(*actor, 2));
    node.free_space(1 << 30);
    for resource in Resource::ALL {
        Waiting::ALL.iter().for_each(|waiting| node.pressure(*resource, *waiting, 0.5));
    }
    for mode in ReadMode::ALL {
        ReadResult::ALL.iter().for_each(|result| node.reads(*mode, *result, 1));
        node.read_took(*mode, took);
    }
    node.fsync_took(took);
    node.written(4096);
    StorageOp::ALL.iter().for_each(|op| node.storage_error(*op));
    node.log_bytes(1 << 26);
    node.storage_full(true);
    node.halted(true);
    node.faulty_entries(3);
    Repair::ALL.iter().for_each(|how| node.repaired(*how, 1));
    for peer in [2, 3] {
        let peer = node.peer(peer);
        peer.matched(5, 4);
        PeerState::ALL.iter().for_each(|state| peer.set_state(*state));
        peer.sent(took);
        peer.acknowledged(took);
        peer.append_rejected();
        peer.diverged();
        peer.data_lost();
        peer.round_trip(took);
        for direction in Direction::ALL {
            Lane::ALL.iter().for_each(|lane| peer.net_bytes(*direction, *lane, 100));
        }
    }
    for peer in [None, Some(2)] {
        ConnectionResult::ALL.iter().for_each(|result| node.connection(peer, *result));
        DropReason::ALL.iter().for_each(|reason| node.dropped(peer, *reason));
    }
    Direction::ALL.iter().for_each(|direction| node.snapshot_bytes(*direction, 1));
    for phase in SnapshotPhase::ALL {
        node.snapshot_took(*phase, took);
        node.snapshot_failed(*phase);
    }
    for actor in ActorName::ALL {
        node.mailbox_waited(*actor, took);
        node.actor_busy(*actor, took);
    }
    node.woke(Duration::from_millis(2), false);
    Shortage::ALL.iter().for_each(|what| node.ran_short(*what));
    NodeThread::ALL.iter().for_each(|thread| node.thread_silent(*thread, took));
    node.log_lines_lost(3);
    node.http_connections(2);
    HttpRefusal::ALL.iter().for_each(|reason| node.http_refused(*reason));
    for of in CredentialsOf::ALL {
        node.certificate_expires(*of, 2_000_000_000);
        node.crl_expires(*of, 2_000_000_000);
        ReloadResult::ALL.iter().for_each(|result| node.credentials_reloaded(*of, *result));
    }
}

/// Runs promtool, which must succeed and print no problem. Skipped with a message where promtool is
/// not installed; other tests make the same checks natively.
pub(crate) fn promtool(arguments: &[&str], input: &str) {
    let Some(promtool) = in_path("promtool") else {
        eprintln!("promtool is not installed: not run with {arguments:?}");
        return;
    };
    let mut child = Command::new(promtool)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    assert!(!arguments.contains(&"metrics") || said.is_empty(), "promtool {arguments:?}: {said}");
}

fn in_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}
