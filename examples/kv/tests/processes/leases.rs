//! A leader that is paused (SIGSTOP) while clients read by its lease, and that resumes (SIGCONT)
//! after another leader has committed newer writes.
//!
//! An environment variable sets the number of pauses, for longer runs: `QUORATE_STOPS=200 cargo
//! test --release -p quorate-kv --test processes leases -- --nocapture`.

use crate::support::{PATIENCE, Running, cluster_at_default_timing};
use quorate_kv::{
    client::{Client, ReadMode},
    cluster::Signal,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::Instant};

const READERS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_and_wakes_answers_nothing_stale_from_its_lease() {
    let stops = std::env::var("QUORATE_STOPS").ok().and_then(|stops| stops.parse().ok()).unwrap_or(6);
    let (cluster, mut random) = (cluster_at_default_timing().await, SmallRng::seed_from_u64(7));
    let story = Arc::new(Story::default());
    let mut tasks = JoinSet::new();
    let all_nodes = cluster.client(&cluster.ids()).expect("client").with_limit(Duration::from_millis(500));
    tasks.spawn(write(all_nodes, Arc::clone(&story)));
    for id in cluster.ids() {
        for _ in 0..READERS {
            tasks.spawn(read(cluster.client(&[id]).expect("client"), Arc::clone(&story)));
        }
    }
    let mut replaced = 0;
    for _ in 0..stops {
        let (leader, followers) = cluster.roles().await;
        story.moves_on(5).await;
        cluster.signal(leader, Signal::STOP).expect("stopped");
        // Long enough for its lease to end, and mostly for another leader to be elected
        // and to commit.
        tokio::time::sleep(Duration::from_millis(random.random_range(20..900))).await;
        let asked = story.asked.load(SeqCst);
        let next = led_by(&cluster, &followers).await;
        cluster.signal(leader, Signal::CONT).expect("awake");
        replaced += u64::from(next);
        // Reads that were sent while it was paused are answered now.
        let deadline = Instant::now() + PATIENCE;
        while story.asked.load(SeqCst) < asked + 20 * READERS as u64 {
            assert!(Instant::now() < deadline, "readers stand still");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    story.ends.store(true, SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("nothing stale");
    }
    let (reads, writes) = (story.served.load(SeqCst), story.written.load(SeqCst));
    println!("{stops} stops, {replaced} with another leader when it woke, {reads} reads by lease, {writes} writes");
    assert!(reads > 100 && writes > 10, "{reads} reads, {writes} writes");
}

/// Whether one of these nodes leads.
async fn led_by(cluster: &Running, ids: &[quorate::NodeId]) -> bool {
    for id in ids {
        if cluster.client(&[*id]).expect("client").status().await.is_ok_and(|status| status.role == "leader") {
            return true;
        }
    }
    false
}

/// The writes and reads of a run.
#[derive(Default)]
struct Story {
    /// The highest index of a write that was acknowledged to any client.
    acknowledged: AtomicU64,
    written: AtomicU64,
    asked: AtomicU64,
    served: AtomicU64,
    ends: AtomicBool,
}

impl Story {
    async fn moves_on(&self, writes: u64) {
        let (from, deadline) = (self.written.load(SeqCst), Instant::now() + PATIENCE);
        while self.written.load(SeqCst) < from + writes {
            assert!(Instant::now() < deadline, "nothing is written");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Writes through any node that accepts.
async fn write(mut client: Client, story: Arc<Story>) {
    while !story.ends.load(SeqCst) {
        if let Ok(answer) = client.put("k", "v").await {
            story.acknowledged.fetch_max(answer.index.0, SeqCst);
            story.written.fetch_add(1, SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Reads by lease from one node. A read must see all writes acknowledged before it: the state it
/// read had applied them.
async fn read(mut client: Client, story: Arc<Story>) {
    while !story.ends.load(SeqCst) {
        let floor = story.acknowledged.load(SeqCst);
        let got = client.get("k", ReadMode::Lease).await;
        story.asked.fetch_add(1, SeqCst);
        if let Ok(got) = got {
            let index = got.index.expect("an index").0;
            assert!(index >= floor, "stale: read at {index}, and {floor} was acknowledged before it was asked for");
            story.served.fetch_add(1, SeqCst);
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
