//! Planned restarts: a leader that is told to stop transfers leadership, with little
//! effect on clients.

use crate::support::{MachineDelay, PATIENCE, Running, cluster};
use quorate_kv::{
    http::messages::StatusAnswer,
    load::{Ledger, LoadOptions, WriteOutcome, Writers, check},
};
use std::time::Duration;

/// The number of restarts, unless `QUORATE_RESTARTS` is set:
/// `QUORATE_RESTARTS=20 cargo test --release -p quorate-kv --test processes
/// planned -- --nocapture`.
const RESTARTS: u32 = 3;
/// The maximum time without an acknowledged write, in addition to the machine's delays. An idle
/// machine needs a few milliseconds.
const GAP_MAX: Duration = Duration::from_secs(1);
/// The maximum number of consecutive thread wake-ups between the old leader's last write and the
/// new leader's first.
const HOPS: u32 = 32;
/// The maximum lag of a node in entries when the next one is restarted.
const LAG_MAX: u64 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_restart_of_the_leader_fails_no_write_and_is_hardly_noticed() {
    let restarts = std::env::var("QUORATE_RESTARTS").map_or(RESTARTS, |count| count.parse().expect("a number"));
    let (mut cluster, ledger) = (cluster(3).await, Ledger::new());
    let writers = Writers::start(&cluster, &ledger, LoadOptions::default()).expect("writers");
    let (first_term, delay) = (cluster.leader(PATIENCE).await.expect("a leader").term, MachineDelay::watch());
    let (mut gaps, mut slowest) = (Vec::new(), Vec::new());
    for nth in 0..restarts {
        written(&ledger, 200).await;
        let (leader, _) = cluster.roles().await;
        ledger.watch();
        let status = cluster.stop(leader).await.expect("it stops");
        assert_eq!(status.code(), Some(0), "restart {nth}");
        written(&ledger, 100).await;
        cluster.start_node(leader).await.expect("it starts");
        caught_up(&cluster).await;
        written(&ledger, 100).await;
        let service = ledger.service();
        gaps.push(service.longest_gap);
        slowest.push(service.slowest_write);
    }
    writers.stop().await;
    let statuses = cluster.converge(PATIENCE).await.expect("level");
    let (unplanned, delay) = (statuses[0].term.0.saturating_sub(first_term.0 + u64::from(restarts)), delay.longest());
    let writes = ledger.writes();
    let count = |outcome: WriteOutcome| writes.iter().filter(|write| write.outcome == outcome).count();
    let (refused, unknown) = (count(WriteOutcome::Refused), count(WriteOutcome::Unknown));
    println!(
        "{restarts} restarts of the leader, {} writes acknowledged, {refused} refused by all, {unknown} of unknown outcome",
        ledger.acknowledged()
    );
    println!("nothing acknowledged for at most {gaps:.1?}\nthe slowest writes took {slowest:.1?}");
    println!("{unplanned} elections caused by the machine's load; a thread woke up to {delay:.1?} late");
    let verdict = check(&cluster, &cluster.ids(), writes).await.expect("read");
    assert!(verdict.broken.is_empty(), "{verdict:?}");
    assert!((refused, unknown) == (0, 0) || unplanned > 0, "{refused} refused, {unknown} unknown");
    let gap_max = GAP_MAX + delay * HOPS;
    assert!(
        gaps.iter().all(|gap| *gap < gap_max) || unplanned > 0,
        "{gaps:?}, with up to {delay:?} for a thread to wake"
    );
}

/// Waits until all nodes have about the same log, as a rolling restart must: while one lags much,
/// the loss of another leaves no quorum.
async fn caught_up(cluster: &Running) {
    let near = |statuses: &[StatusAnswer]| {
        let most = statuses.iter().map(|status| status.commit_index.0).max()?;
        let is_near = |status: &StatusAnswer| status.applied_index.0 + LAG_MAX >= most && status.leader_id.is_some();
        statuses.iter().all(is_near).then_some(())
    };
    cluster.eventually(PATIENCE, "all to have caught up", near).await.expect("it catches up");
}

/// Waits until this many more writes are acknowledged.
async fn written(ledger: &Ledger, more: usize) {
    let count = ledger.acknowledged() + more;
    tokio::time::timeout(PATIENCE, ledger.reaches(count)).await.expect("writes go on");
}
