//! Many watches on one node, with the log in memory: the time from the apply of an event to the
//! return of `Watch::next`.
//!
//! Twice: each watch has a topic of its own, at 1,000 events a second; then all watches have the
//! same one, at 10 a second. The clients have another thread than the node. The cluster has this
//! node only, so an event may carry the time at which it was applied.

use crate::{
    PROGRAM,
    leadership::until_led_by,
    processes::shut_down,
    workload::{Failed, PATIENCE, keep_the_log, line, say, within},
};
use quorate::{
    At, Context, Node, NodeId, Service, ServiceNode, Watch, WatchError, storage::Memory, transport::MemoryNetwork,
};
use quorate_progress::{Progress, Unit};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Publishes, under the topic that a command names, the microsecond at which it was applied.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Stamps;

impl Service for Stamps {
    quorate::types!(u32 => (), () => (), event u64);

    fn apply(&mut self, topic: u32, cx: &mut Context<'_, Self>) {
        cx.publish(&topic.to_string(), now_us());
    }

    fn query(&self, (): (), _: At) {}
}

fn now_us() -> u64 {
    BEGAN.elapsed().as_micros() as u64
}

/// Runs both measurements and prints their lines.
pub(crate) fn run(watches: u32, length: Duration) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        measure(watches, watches, 1_000, length).await?;
        measure(watches, 1, 10, length).await
    })
}

async fn measure(watches: u32, topics: u32, per_second: u32, length: Duration) -> Result<(), Failed> {
    let node = Node::builder(NodeId(1), "bench").voters([(NodeId(1), "")]).snapshots(keep_the_log());
    let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    let node = node.serve(|| Stamps).start().await?;
    until_led_by(&node, node.id()).await?;
    let (mut tasks, delivered) = (Vec::new(), Arc::new(AtomicU64::new(0)));
    for nth in 0..watches {
        let watch = node.watch((nth % topics).to_string()).await?;
        tasks.push(tokio::spawn(follow(watch, Arc::clone(&delivered))));
    }
    let began = Instant::now();
    let events = call_for(&node, topics, per_second, length).await?;
    let elapsed = began.elapsed();
    let expected = events * u64::from(watches / topics);
    let all = async {
        while delivered.load(Ordering::Relaxed) < expected {
            sleep(Duration::from_millis(10)).await;
        }
    };
    // If some are missing, the count below fails.
    let _ = timeout(PATIENCE, all).await;
    shut_down(&node).await?;
    let mut latencies_us = Vec::new();
    for task in tasks {
        latencies_us.append(&mut task.await??);
    }
    if latencies_us.len() as u64 != expected {
        return Err(format!("{} deliveries of {expected}", latencies_us.len()).into());
    }
    let max = latencies_us.iter().max().copied();
    let mut line = line(0, latencies_us, elapsed);
    (line["watches"], line["topics"], line["events"]) = (watches.into(), topics.into(), events.into());
    line["max_us"] = max.into();
    say(&line)
}

/// One watch: the microseconds from each event's apply until it was here. Counts `delivered` up.
async fn follow(mut watch: Watch<Stamps>, delivered: Arc<AtomicU64>) -> Result<Vec<u32>, Failed> {
    let mut latencies_us = Vec::new();
    loop {
        match watch.next().await {
            Ok(changes) => {
                let now = now_us();
                let took = changes.events.iter().map(|(_, at)| now.saturating_sub(**at));
                latencies_us.extend(took.map(|us| u32::try_from(us).unwrap_or(u32::MAX)));
                delivered.fetch_add(changes.events.len() as u64, Ordering::Relaxed);
            }
            Err(WatchError::Stopped) => return Ok(latencies_us),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Calls at a steady rate, each without waiting for the answer of another. Returns their number.
async fn call_for(node: &ServiceNode<Stamps>, topics: u32, per_second: u32, length: Duration) -> Result<u64, Failed> {
    let failed = Arc::new(AtomicU64::new(0));
    let events = ((length.as_secs_f64() * f64::from(per_second)) as u64).max(1);
    let what = format!("{per_second} events/s, {topics} topics");
    let (_progress, called) = Progress::start(PROGRAM, what, Unit::Items("events"), Some(events));
    let mut ticks = interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = Vec::new();
    for nth in 0..events {
        ticks.tick().await;
        called.add(1);
        // A prime step, so that neighbours in time are none in the topics.
        let topic = (nth.wrapping_mul(7_919) % u64::from(topics)) as u32;
        let (node, failed) = (node.clone(), Arc::clone(&failed));
        calls.push(tokio::spawn(async move {
            if node.call(topic).await.is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    within(PATIENCE, "the last calls", async {
        for call in calls {
            call.await?;
        }
        Ok::<_, Failed>(())
    })
    .await??;
    match failed.load(Ordering::Relaxed) {
        0 => Ok(events),
        failed => Err(format!("{failed} of {events} calls failed").into()),
    }
}
