//! SIGKILL at random times, under load, on a real disk.

use crate::support::{PATIENCE, laid_out_with};
use quorate::NodeId;
use quorate_kv::load::{Ledger, LoadOptions, Writers, check};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::time::Duration;

/// The number of kills, unless `QUORATE_KILLS` is set. 200 take some minutes:
/// `QUORATE_KILLS=200 cargo test --release -p quorate-kv --test processes random -- --nocapture`.
const KILLS: u32 = 15;
/// Small, so that kills hit segment changes, snapshot writes and log cuts.
const SECTIONS: &str = "[snapshot]\nevery_entries = 300\nkeep_entries = 50\n\n[storage]\nsegment_bytes = 131072\n";
/// The number of acknowledged writes between two kills.
const WRITES: usize = 100;
/// Above this number of writes only one node is read; equal state hashes cover the others.
const READ_EVERYWHERE_MAX: usize = 30_000;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_killed_at_random_under_load_lose_nothing_acknowledged() {
    let kills = std::env::var("QUORATE_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = laid_out_with("kills", 3, SECTIONS);
    cluster.start_all().await.expect("started");
    let ledger = Ledger::new();
    let pace = LoadOptions { writers: 4, rest: Duration::from_millis(1), value_bytes: 200 };
    let writers = Writers::start(&cluster, &ledger, pace).expect("writers");

    let mut killed = 0;
    while killed < kills {
        let count = ledger.acknowledged() + WRITES;
        let written = tokio::time::timeout(PATIENCE, ledger.reaches(count)).await;
        assert!(written.is_ok(), "nothing is written any more after {killed} kills (seed {seed})");
        // A random moment, unrelated to the cluster's activity.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..100))).await;
        for id in victims(&mut random, &cluster.ids()) {
            cluster.kill(id).await.expect("killed");
            killed += 1;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..100))).await;
        cluster.start_all().await.expect("started");
    }
    let count = ledger.acknowledged() + WRITES;
    tokio::time::timeout(PATIENCE, ledger.reaches(count)).await.expect("writes continue after the last kill");
    writers.stop().await;

    let statuses = cluster.converge(PATIENCE).await.expect("level");
    assert!(statuses.iter().all(|status| status.state_hash == statuses[0].state_hash), "seed {seed}: {statuses:?}");
    let (writes, ids) = (ledger.writes(), cluster.ids());
    let on = if writes.len() > READ_EVERYWHERE_MAX { &ids[..1] } else { &ids[..] };
    let verdict = check(&cluster, on, writes).await.expect("read");
    assert!(verdict.broken.is_empty(), "seed {seed}: {verdict:?}");
    let snapshots: Vec<_> = statuses.iter().map(|status| status.snapshot_index.0).collect();
    println!(
        "{killed} kills, {} acknowledged writes, 0 lost; {} of unknown outcome took effect, {} did not; log up to {}, snapshots at {snapshots:?}",
        verdict.acknowledged, verdict.unknown_present, verdict.unknown_absent, statuses[0].last_log_index,
    );
    assert!(snapshots.iter().all(|index| *index > 0), "kills met snapshots");
}

/// Mostly one node, sometimes two, sometimes all.
fn victims(random: &mut StdRng, ids: &[NodeId]) -> Vec<NodeId> {
    let count = match random.random_range(0..10) {
        0..7 => 1,
        7 | 8 => 2,
        _ => ids.len(),
    };
    ids.choose_multiple(random, count).copied().collect()
}
