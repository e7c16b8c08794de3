//! Stalls of a node's thread: a short one does not cause an election, and repeated ones are
//! not excused forever.

mod support;

use quorate::NodeRole;
use std::time::Duration;
use support::{Cluster, seeds, simulate};
use tokio::time::{Instant, advance, sleep};

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn stalls_of_the_nodes_thread_cost_no_election() {
    for seed in seeds(20) {
        simulate(async {
            let cluster = Cluster::of_three(seed).await;
            let leader = cluster.leader().await;
            let term = cluster.status(leader).term;
            for stall in [200, 320, 450, 550] {
                sleep(MS(1_000 + seed)).await;
                // No timer of any node fires in time: all share this thread.
                advance(MS(stall)).await;
            }
            sleep(MS(1_000)).await;
            assert_eq!((cluster.leader().await, cluster.status(leader).term), (leader, term), "seed {seed}");
            assert!(cluster.metric("quorate_late_wakeups_total", &[]) >= 12.0, "each is counted by each node");
        });
    }
}

/// The bound that `Stalls` states: twice the longest election timeout, plus the greatest excused
/// time. A candidate may need a second attempt.
#[test]
fn a_new_leader_is_elected_within_the_stated_bound_however_often_the_thread_stalls() {
    for (runs, stalls) in [(20, 80), (5, 200), (100, 150)] {
        for seed in seeds(10) {
            simulate(async {
                let cluster = Cluster::of_three(seed).await;
                let leader = cluster.leader().await;
                sleep(MS(1_000)).await;
                cluster.faults.isolate(leader);
                let (died, others) = (Instant::now(), cluster.others(leader));
                let is_led = || others.iter().any(|id| cluster.status(*id).role == NodeRole::Leader);
                while !is_led() {
                    sleep(MS(runs)).await;
                    advance(MS(stalls)).await;
                    let bound = (MS(300) * 2 + MS(600)) * 2 + MS(stalls) * 2;
                    assert!(died.elapsed() < bound, "seed {seed}: {runs} ms in {} ms", runs + stalls);
                }
            });
        }
    }
}
