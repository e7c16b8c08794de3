//! Log time on whole nodes: it goes on through every fault, fires what is due at the same entry
//! everywhere, and costs nothing where it is not used.

mod support;

use quorate::{Index, NodeId, NodeRole, Snapshots};
use quorate_transport_testing::LinkFaults;
use std::time::Duration;
use support::{Cluster, Journal, Plan, View, simulate, soon};
use tokio::time::{Instant, sleep};

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_timer_fires_in_time_at_the_same_entry_on_every_node() {
    simulate(async {
        let cluster = with_time(Plan::default()).await;
        let leader = cluster.leader().await;
        let set = Instant::now();
        for id in cluster.ids() {
            cluster.node(id).propose(format!("after 400 {id}")).await.expect("an acknowledgement");
        }
        let fired = fired(&cluster, 3).await;
        assert!((MS(400)..MS(480)).contains(&set.elapsed()), "{:?}", set.elapsed());
        cluster.settled().await;
        for id in cluster.ids() {
            assert_eq!(cluster.journal(id).fired(), fired, "node {id}");
        }
        assert_times_rise(&cluster);
        assert_eq!(cluster.leader().await, leader);
    });
}

#[test]
fn a_slow_link_makes_a_timer_no_earlier() {
    simulate(async {
        let cluster = with_time(Plan::default()).await;
        let leader = cluster.leader().await;
        let one_way = MS(20);
        cluster.faults.everywhere(LinkFaults { delay: one_way..=one_way, ..LinkFaults::default() });
        let set = Instant::now();
        cluster.node(leader).propose("after 400 x").await.expect("an acknowledgement");
        fired(&cluster, 1).await;
        // The tick that fires it takes another round trip; followers hear of its commit with the next
        // heartbeat.
        assert!((MS(440)..MS(515)).contains(&set.elapsed()), "{:?}", set.elapsed());
    });
}

#[test]
fn an_idle_log_stays_idle_and_a_pending_timer_costs_a_tick_a_second() {
    simulate(async {
        let cluster = with_time(Plan::default()).await;
        let leader = cluster.leader().await;
        cluster.node(leader).propose("a command").await.expect("an acknowledgement");
        cluster.settled().await;
        let last = cluster.status(leader).last_log;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(cluster.status(leader).last_log, last, "nothing waits");
        cluster.node(leader).propose("after 3600000 far").await.expect("an acknowledgement");
        let last = cluster.status(leader).last_log;
        sleep(Duration::from_secs(10)).await;
        let ticks = cluster.status(leader).last_log.since(last);
        assert!((9..=10).contains(&ticks), "{ticks} ticks in ten seconds");
    });
}

#[test]
fn a_machine_that_does_not_use_time_gets_no_tick() {
    simulate(async {
        let cluster = Cluster::of_three(1).await;
        let leader = cluster.settled().await;
        let last = cluster.status(leader).last_log;
        for nth in 0..10 {
            cluster.node(leader).propose(format!("{nth}")).await.expect("an acknowledgement");
            sleep(MS(30)).await;
        }
        assert_eq!(cluster.settled().await, leader);
        assert_eq!(cluster.status(leader).last_log, last.plus(10));
    });
}

#[test]
fn log_time_goes_on_when_the_leader_is_cut_off_and_no_timer_is_lost() {
    for seed in support::seeds(4) {
        simulate(async {
            let cluster = with_time(Plan { seed, ..Plan::default() }).await;
            let first = cluster.settled().await;
            let set = Instant::now();
            cluster.node(first).propose("after 3000 x").await.expect("an acknowledgement");
            sleep(MS(900)).await;
            cluster.faults.isolate(first);
            let others = cluster.others(first);
            let leads = |view: &View| others.iter().copied().find(|id| view[id].role == NodeRole::Leader);
            let next = cluster.until("another leader", leads).await;
            cluster.node(next).propose("between").await.expect("an acknowledgement");
            let heard = *cluster.journal(next).times().last().expect("the command");
            assert!((700..=950).contains(&heard), "it counts that the first leader was heard: {heard}");
            sleep(MS(500)).await;
            cluster.faults.heal();
            fired(&cluster, 1).await;
            let took = set.elapsed();
            assert!((MS(3_000)..MS(4_500)).contains(&took), "seed {seed}: {took:?}");
            cluster.settled().await;
            assert_times_rise(&cluster);
            let fired = cluster.journal(next).fired();
            assert!(cluster.ids().into_iter().all(|id| cluster.journal(id).fired() == fired), "seed {seed}");
        });
    }
}

#[test]
fn timers_and_log_time_survive_a_restart_of_all_nodes() {
    simulate(async {
        let mut cluster = with_time(Plan::default()).await;
        let leader = cluster.settled().await;
        cluster.node(leader).propose("after 2000 x").await.expect("an acknowledgement");
        sleep(MS(1_500)).await;
        cluster.stop_all().await;
        sleep(Duration::from_secs(3_600)).await;
        for id in cluster.members() {
            cluster.start_as(id, Journal::with_time(), |builder| builder).await;
        }
        let begun = Instant::now();
        let leader = cluster.leader().await;
        cluster.node(leader).propose("again").await.expect("an acknowledgement");
        assert!(cluster.journal(leader).fired().is_empty(), "time without a leader does not count");
        fired(&cluster, 1).await;
        assert!(begun.elapsed() < MS(2_500), "a stop costs a second of log time: {:?}", begun.elapsed());
        cluster.settled().await;
        assert_times_rise(&cluster);
    });
}

#[test]
fn a_snapshot_brings_log_time_and_timers_to_a_node_that_then_leads() {
    simulate(async {
        let snapshots = Snapshots::default().with_keep_entries(0);
        let mut cluster = with_time(Plan { snapshots, ..Plan::default() }).await;
        let leader = cluster.settled().await;
        let late = cluster.others(leader)[0];
        cluster.stop(late).await;
        cluster.node(leader).propose("after 60000 far").await.expect("an acknowledgement");
        sleep(MS(5_000)).await;
        cluster.node(leader).propose("a command").await.expect("an acknowledgement");
        soon("a snapshot", cluster.node(leader).snapshot()).await.expect("a snapshot");
        cluster.start_as(late, Journal::with_time(), |builder| builder).await;
        cluster.settled().await;
        assert_eq!(cluster.journal(late).restored(), 1);
        cluster.node(leader).transfer(Some(late)).await.expect("a transfer");
        assert_eq!(cluster.leader().await, late);
        cluster.node(late).propose("after 100 near").await.expect("an acknowledgement");
        fired(&cluster, 1).await;
        cluster.settled().await;
        assert_times_rise(&cluster);
        assert!(cluster.journal(late).times().iter().all(|time| *time < 7_000), "time did not leap");
    });
}

#[test]
fn what_is_due_at_once_fires_in_order_and_in_parts() {
    simulate(async {
        let cluster = with_time(Plan::default()).await;
        let leader = cluster.settled().await;
        let timers = (0..10).map(|nth| cluster.node(leader).propose(format!("after 300 timer-{nth}")));
        for outcome in futures_util::future::join_all(timers).await {
            outcome.expect("an acknowledgement");
        }
        let fired = fired(&cluster, 10).await;
        cluster.settled().await;
        let mut at: Vec<Index> = fired.iter().map(|(index, _)| *index).collect();
        at.dedup();
        assert_eq!(at.len(), 10usize.div_ceil(Journal::FIRES_MAX), "ticks by three: {fired:?}");
        for id in cluster.ids() {
            assert_eq!(cluster.journal(id).fired(), fired, "node {id}");
        }
        assert_times_rise(&cluster);
    });
}

/// All nodes of a plan, with journals that use time.
async fn with_time(plan: Plan) -> Cluster {
    let mut cluster = Cluster::vacant(plan);
    for id in cluster.members() {
        cluster.start_as(id, Journal::with_time(), |builder| builder).await;
    }
    cluster
}

/// Waits until every node has fired this many timers, and gives those of the first.
async fn fired(cluster: &Cluster, count: usize) -> Vec<(Index, String)> {
    let all_have = |_: &View| {
        let of = |id: NodeId| cluster.journal(id).fired();
        cluster.ids().into_iter().all(|id| of(id).len() >= count).then(|| of(cluster.ids()[0]))
    };
    cluster.until("timers", all_have).await
}

fn assert_times_rise(cluster: &Cluster) {
    for id in cluster.ids() {
        let times = cluster.journal(id).times();
        assert!(times.is_sorted(), "node {id}: {times:?}");
    }
}
