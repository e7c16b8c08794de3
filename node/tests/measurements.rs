//! The metrics of leases, transfers, sessions, services and the load of actors on whole nodes, and
//! the cost of a scrape.

mod support;

use quorate::{
    At, Consistency, Context, Node, NodeId, Service, ServiceNode, Sessions, TransferError, storage::Memory,
    transport::MemoryNetwork,
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use support::{CLUSTER, Cluster, Journal, Plan, relaxed, run, simulate, soon};
use tokio::time::sleep;

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_lease_shows_while_it_is_held_and_its_loss_and_each_transfer_are_counted() {
    simulate(async {
        let cluster = Cluster::of_three(3).await;
        let old = cluster.leader().await;
        let read = |id: NodeId, name: &str, labels: &[&str]| {
            let node = format!("node=\"{id}\"");
            cluster.metric(name, &[labels, &[&node]].concat())
        };
        let held = |id| read(id, "quorate_lease_held", &[]);
        cluster.node(old).propose("a").await.expect("an acknowledgement");
        assert_eq!(held(old), 0.0, "no read has begun one");
        for _ in 0..2 {
            cluster.node(old).read(Consistency::Lease, |_| ()).await.expect("a read");
            sleep(MS(60)).await;
        }
        let others = cluster.others(old);
        assert_eq!((held(old), held(others[0])), (1.0, 0.0));

        let transfers = |id, result| read(id, "quorate_leadership_transfers_total", &[&format!("result=\"{result}\"")]);
        let refused = soon("a refusal", cluster.node(old).transfer(Some(NodeId(9)))).await;
        assert!(matches!(refused, Err(TransferError::Refused(_))), "{refused:?}");
        assert_eq!(soon("a transfer", cluster.node(old).transfer(Some(others[0]))).await, Ok(others[0]));
        sleep(MS(200)).await;
        assert_eq!((held(old), read(old, "quorate_lease_losses_total", &[])), (0.0, 1.0));
        assert_eq!((transfers(old, "refused"), transfers(old, "done")), (1.0, 1.0));

        // The target does not take over.
        cluster.faults.isolate(others[1]);
        soon("its end", cluster.node(others[0]).transfer(Some(others[1]))).await.expect_err("it is given up");
        assert_eq!((transfers(others[0], "timed_out"), transfers(others[0], "done")), (1.0, 0.0));
        let took = |id| read(id, "quorate_leadership_transfer_duration_seconds_sum", &[]);
        assert!((0.0..0.1).contains(&took(old)), "{} s", took(old));
        assert!((0.1..10.0).contains(&took(others[0])), "{} s", took(others[0]));
        let count = "quorate_leadership_transfer_duration_seconds_count";
        assert_eq!((read(old, count, &[]), read(others[0], count, &[])), (1.0, 1.0), "one was refused");
    });
}

#[test]
fn a_session_that_a_node_forgets_is_counted_on_each_node() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan { seed: 4, ..Plan::default() });
        let sessions = Sessions::default().with_idle_limit(Duration::from_secs(2)).with_max_sessions(2);
        for id in cluster.members() {
            cluster.start_as(id, Journal::default(), |builder| builder.sessions(sessions)).await;
        }
        let leader = cluster.leader().await;
        let open = async || drop(cluster.node(leader).session().await.expect("a session"));
        let expired = async || {
            cluster.settled().await;
            sleep(MS(100)).await;
            cluster.metric("quorate_sessions_expired_total", &[])
        };
        open().await;
        open().await;
        assert_eq!(expired().await, 0.0);
        open().await;
        assert_eq!(expired().await, 3.0, "one too many, on three nodes");
        sleep(Duration::from_secs(3)).await;
        open().await;
        assert_eq!(expired().await, 9.0, "two were idle");
    });
}

/// Counts alarms. Each is an event.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Alarms(u64);

impl Service for Alarms {
    quorate::types!(u64 => (), () => u64, event u64, signal u64);

    fn apply(&mut self, after_ms: u64, cx: &mut Context<'_, Self>) {
        cx.after(MS(after_ms), after_ms);
    }

    fn signal(&mut self, after_ms: u64, cx: &mut Context<'_, Self>) {
        self.0 += 1;
        cx.publish("alarms", after_ms);
        cx.publish("alarms", after_ms);
    }

    fn query(&self, (): (), _: At) -> u64 {
        self.0
    }
}

#[test]
fn timers_and_watches_of_a_service_are_counted() {
    simulate(async {
        let metrics = quorate::metrics::Metrics::new();
        let node = Node::builder(NodeId(1), CLUSTER).voters([(NodeId(1), "")]).metrics(&metrics);
        let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
        let node: ServiceNode<Alarms> = node.serve(Alarms::default).start_local().await.expect("a node");
        let read = |name: &str| {
            let page = metrics.render();
            let series = format!("{name}{{node=\"1\"}} ");
            let value = page.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or_else(|| panic!("no {name}"));
            value.parse::<f64>().expect("a number")
        };
        let timers = || (read("quorate_timers_pending"), read("quorate_timers_fired_total"));
        let watches = || (read("quorate_watches"), read("quorate_watch_events_total"));
        let mut watch = node.watch("alarms").await.expect("a watch");
        let (_, other) = node.watch("nothing").seeing(()).await.expect("a watch");
        assert_eq!((timers(), watches()), ((0.0, 0.0), (2.0, 0.0)));
        for after_ms in [100, 200, 60_000] {
            node.call(after_ms).await.expect("it is applied");
        }
        sleep(MS(20)).await;
        assert_eq!(timers(), (3.0, 0.0));
        for _ in 0..2 {
            soon("an alarm", watch.next()).await.expect("an event");
        }
        sleep(MS(20)).await;
        assert_eq!((timers(), watches()), ((1.0, 2.0), (2.0, 4.0)));
        drop(other);
        assert_eq!(watches(), (1.0, 4.0));
        drop(watch);
        assert_eq!(watches(), (0.0, 4.0));
        node.shutdown().await;
    });
}

#[test]
fn the_turns_and_the_mailbox_of_every_actor_are_measured() {
    run(async {
        let mut cluster = Cluster::start_all(Plan { threads: true, timing: relaxed(), ..Plan::default() }).await;
        let leader = cluster.leader().await;
        let node = format!("node=\"{leader}\"");
        let read = |name: &str, actor: &str| cluster.metric(name, &[&node, &format!("actor=\"{actor}\"")]);
        let busy = |actor| read("quorate_actor_busy_milliseconds_total", actor);
        let probes = |actor| read("quorate_actor_mailbox_wait_seconds_count", actor);
        let worked = async {
            while !["consensus", "replicator", "log_writer", "applier"].iter().all(|actor| busy(actor) > 0.0) {
                let each = (0..64).map(|nth| cluster.node(leader).propose(format!("{nth}")));
                futures_util::future::join_all(each).await.into_iter().for_each(|of| drop(of.expect("applied")));
            }
        };
        soon("a millisecond of each", worked).await;
        let all =
            ["consensus", "election_timer", "replicator", "log_writer", "applier", "snapshot_receiver", "reporter"];
        let probed = async {
            while !all.iter().all(|actor| probes(actor) > 2.0) {
                sleep(MS(10)).await;
            }
        };
        soon("probes of each", probed).await;
        for (milliseconds, seconds) in all.map(|actor| (busy(actor), read("quorate_actor_busy_seconds_total", actor))) {
            assert!((milliseconds - seconds * 1000.0).abs() < 2_000.0, "{milliseconds} ms and {seconds} s");
        }
        let page = cluster.metrics.render();
        let depths =
            page.lines().filter(|line| line.starts_with("quorate_actor_mailbox_depth{") && line.contains(&node));
        assert_eq!(depths.count(), 3, "of consensus, log_writer and applier");
        cluster.stop_all().await;
    });
}

#[test]
fn a_campaign_without_an_answer_measures_the_mailbox_of_its_collector() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        cluster.start(NodeId(1)).await;
        sleep(Duration::from_secs(2)).await;
        let labels = ["node=\"1\"", "actor=\"vote_collector\""];
        assert!(cluster.metric("quorate_actor_mailbox_wait_seconds_count", &labels) > 2.0);
        assert!(cluster.metric("quorate_leaderless_milliseconds_total", &labels[..1]) > 1_000.0);
    });
}

/// Whatever else the machine does: no leader is lost to scrapes, every page is whole, and a scrape
/// takes less than 20 ms of a processor.
#[test]
fn scrapes_of_nodes_at_full_load_cost_little_and_no_leader() {
    let Scraped { without, with, cpu, .. } = scraped(MS(1_500));
    assert!(with.writes > 0.0 && without.writes > 0.0);
    let half = cpu.get(cpu.len() / 2);
    assert!(half.is_none_or(|half| *half < MS(20)), "{half:?} of a processor");
}

/// The strict bounds, for an idle machine.
#[test]
#[ignore = "takes its time, and an idle machine: cargo test --release -p quorate --test measurements -- --ignored"]
fn a_scrape_at_full_load_takes_less_than_20_ms_and_delays_no_heartbeat() {
    let Scraped { without, with, took, .. } = scraped(Duration::from_secs(10));
    let slowest = took.last().expect("scrapes");
    assert!(*slowest < MS(20), "the slowest scrape took {slowest:?}");
    // A heartbeat interval is 50 ms.
    assert!(with.delay < without.delay * 2.0 + 0.001, "{} s, and {} s without scrapes", with.delay, without.delay);
    assert!(with.late <= without.late + 2.0, "{} late wake-ups, and {} without scrapes", with.late, without.late);
}

struct Scraped {
    without: Phase,
    with: Phase,
    /// The durations of the scrapes, sorted.
    took: Vec<Duration>,
    /// The times that they ran on a processor, sorted; none where the system does not tell it.
    cpu: Vec<Duration>,
}

/// The time that this thread ran on a processor.
fn on_processor() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    told.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// A time of load, with or without scrapes: of the leader's node.
struct Phase {
    /// Writes a second.
    writes: f64,
    /// The mean delay of the event loop in seconds.
    delay: f64,
    /// Wake-ups of it that were 5 ms or more late.
    late: f64,
}

/// Three nodes with 512 writes in flight, for the given time without scrapes, and with one every
/// 50 ms. A page has the series of all three.
fn scraped(each: Duration) -> Scraped {
    run(async {
        let mut cluster = Cluster::start_all(Plan { threads: true, timing: relaxed(), ..Plan::default() }).await;
        let leader = cluster.leader().await;
        let term = cluster.status(leader).term;
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..512)
            .map(|nth| {
                let (node, stop) = (cluster.node(leader).clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        node.propose(format!("{nth}")).await.expect("an acknowledgement");
                    }
                })
            })
            .collect();
        let series = |page: &str| page.lines().filter(|line| !line.starts_with('#')).count();
        let node = format!("node=\"{leader}\"");
        let counters = || {
            let read = |name: &str| cluster.metric(name, &[&node]);
            let writes = cluster.metric("quorate_proposals_total", &[&node, "result=\"applied\""]);
            let delay = ["sum", "count"].map(|of| read(&format!("quorate_event_loop_delay_seconds_{of}")));
            (writes, delay, read("quorate_late_wakeups_total"))
        };
        let phase = async |during: &mut dyn FnMut(Duration)| {
            let (began, before) = (Instant::now(), counters());
            tokio::task::block_in_place(|| during(each));
            let (took, after) = (began.elapsed().as_secs_f64(), counters());
            Phase {
                writes: (after.0 - before.0) / took,
                delay: (after.1[0] - before.1[0]) / (after.1[1] - before.1[1]),
                late: after.2 - before.2,
            }
        };
        // The first load creates the last series: depths of the mailboxes that are counted, three a node.
        let depths = || cluster.metrics.render().matches("\nquorate_actor_mailbox_depth{").count();
        let complete = async {
            while depths() < 9 {
                sleep(MS(10)).await;
            }
        };
        soon("every series", complete).await;
        let whole = series(&cluster.metrics.render());
        let without = phase(&mut |each| std::thread::sleep(each)).await;
        let (mut took, mut cpu, mut bytes) = (Vec::new(), Vec::new(), 0);
        let with = phase(&mut |each| {
            let began = Instant::now();
            while began.elapsed() < each {
                let (scraped, before) = (Instant::now(), on_processor());
                let page = cluster.metrics.render();
                took.push(scraped.elapsed());
                cpu.extend(on_processor().zip(before).map(|(after, before)| after.saturating_sub(before)));
                bytes = page.len();
                assert_eq!(series(&page), whole, "every series is on each page");
                std::thread::sleep(MS(50));
            }
        })
        .await;
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.expect("a writer");
        }
        took.sort_unstable();
        cpu.sort_unstable();
        println!("{} scrapes of {bytes} bytes and {whole} series", took.len());
        for (what, times) in [("by the clock", &took), ("on a processor", &cpu)] {
            let [half, most] = [times.get(times.len() / 2), times.last()];
            println!("{what}: {half:?} in the median, {most:?} at most");
        }
        for (what, Phase { writes, delay, late }) in [("without", &without), ("with", &with)] {
            println!("{what} scrapes: {writes:.0} writes/s, event loop {:.3} ms late, {late} times 5 ms", delay * 1e3);
        }
        assert_eq!(cluster.status(leader).term, term, "no election");
        assert_eq!(cluster.metric("quorate_leader_changes_total", &[&node]), 1.0);
        cluster.stop_all().await;
        Scraped { without, with, took, cpu }
    })
}
