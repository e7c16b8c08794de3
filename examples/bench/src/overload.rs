//! A cluster under ten times its maximum load: three processes on loopback, as in
//! [`durable`](crate::durable), but leadership may move: elections are counted, and callers that lose
//! their leader ask again.
//!
//! 1. `alone`: a few closed-loop callers; the latency without load.
//! 2. `closed_loop`: increasing numbers of callers; `peak` is their highest throughput.
//! 3. `peak_beside_callers`: the same, beside ten times as many calls per second that are refused
//!    for their size before they reach the node. This shows the throughput that remains beside the
//!    mere cost of calling, since the callers share the processors with the nodes.
//! 4. `overload`: ten times the peak is offered, regardless of the answers: the callers do not wait
//!    for them and ignore `retry_after`.
//! 5. `after`: the few callers again, immediately, second by second.
//! 6. `beside_large`: the few callers, beside some callers with commands of the maximum size.
//!
//! `steady`: as many callers as the peak needs, for the given time; it counts
//! elections and pre-votes.
//!
//! This process runs the leader and all callers, so the leader's memory and processor figures
//! include the callers.

use crate::{
    leadership::until_led_by,
    machine_speed::resident_bytes,
    processes::{
        self, EQUAL_MEMBER, LEADER, Member, TOLD_EVERY, elections_begun, make_certificates, reserve, shut_down,
        start_equal,
    },
    workload::{self, Failed, Sink, Stage, within},
};
use bytes::Bytes;
use quorate::{Limits, Node, NodeId, ProposeError, metrics::Metrics};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    pin::Pin,
    process::{ChildStdout, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};

/// The time limit of the last answers of a stage, which may wait for elections and for room.
const STAGE_PATIENCE: Duration = Duration::from_secs(60);
/// The offered load, in multiples of the peak.
const FACTOR: f64 = 10.0;
/// The number of callers that measure latency.
const FEW: usize = 16;
/// The numbers of callers that search for the peak.
const MANY: [usize; 3] = [256, 1024, 4096];
/// The number of callers of a steady load, and the length of one count.
const STEADY: usize = 1024;
const PIECE: Duration = Duration::from_secs(10);
/// The number of callers with large commands.
const LARGE: usize = 4;
const OFFERED_EVERY: Duration = Duration::from_millis(1);
/// The number of offers between two looks at the clock.
const OFFERED_AT_ONCE: u64 = 256;
const SAMPLED_EVERY: Duration = Duration::from_millis(20);
/// The duration of the latency measurement after the load, in seconds.
const AFTER_S: u64 = 3;

/// Runs all stages, and prints one line per stage.
pub(crate) fn run(stage: &Stage) -> Result<(), Failed> {
    let value = Bytes::from(vec![7; stage.value_bytes]);
    beside_members(async |cluster| stages(cluster, stage.seconds, value).await)
}

/// Measures full load for the given time, and prints a line.
pub(crate) fn run_steady(stage: &Stage) -> Result<(), Failed> {
    let value = Bytes::from(vec![7; stage.value_bytes]);
    beside_members(async |cluster| steady(cluster, stage.seconds, value).await)
}

/// Runs the leader of three processes in this process.
fn beside_members(measures: impl AsyncFnOnce(&Cluster) -> Result<(), Failed>) -> Result<(), Failed> {
    let dir = tempfile::Builder::new().prefix("quorate-bench-").tempdir()?;
    let (_reserved, addresses) = reserve(3)?;
    make_certificates(dir.path(), addresses.len())?;
    let (mut members, mut begun_there) = (Vec::new(), Vec::new());
    for id in 2..=addresses.len() as u64 {
        let mut member = Member::start(EQUAL_MEMBER, id, dir.path(), &addresses, Stdio::piped())?;
        begun_there.push(follow_count(member.take_output().ok_or("the member has no output")?));
        members.push(member);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let metrics = Metrics::new();
        let node = start_equal(LEADER, dir.path(), &addresses, &metrics).await?;
        until_led_by(&node, NodeId(LEADER)).await?;
        // Elections before this point do not count.
        sleep(TOLD_EVERY * 3).await;
        let cluster = Cluster { node: node.clone(), metrics, begun_there };
        let outcome = measures(&cluster).await.and_then(|()| processes::check(&mut members));
        shut_down(&node).await?;
        outcome
    })
}

/// The leader, and the election counts of all nodes.
struct Cluster {
    node: Node<Sink>,
    metrics: Metrics,
    begun_there: Vec<Arc<AtomicU64>>,
}

impl Cluster {
    fn elections_begun(&self) -> u64 {
        let there = self.begun_there.iter().map(|count| count.load(Ordering::Relaxed));
        elections_begun(&self.metrics) + there.sum::<u64>()
    }
}

/// The last number that a member has printed.
fn follow_count(out: ChildStdout) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&count);
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            told.store(line.parse().unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    });
    count
}

async fn stages(cluster: &Cluster, stage: Duration, value: Bytes) -> Result<(), Failed> {
    let node = &cluster.node;
    closed_loop(node, FEW, &value, Duration::from_secs(1)).await?;
    let alone = shown("alone", stage, closed_loop(node, FEW, &value, stage)).await?;
    say("alone", latencies(&alone, stage))?;
    let (mut peak, mut callers) = (0.0, 0);
    for many in MANY {
        let called = shown("closed loop", stage, closed_loop(node, many, &value, stage)).await?;
        let per_s = called.len() as f64 / stage.as_secs_f64();
        if per_s > peak {
            (peak, callers) = (per_s, many);
        }
        say("closed_loop", json!({ "in_flight": many, "ops_per_s": per_s.round() }))?;
    }
    say("peak", json!({ "in_flight": callers, "ops_per_s": peak.round() }))?;

    let too_large = Bytes::from(vec![7; Limits::default().max_command_bytes + 1]);
    let callers_alone = offer(node, &too_large, peak * FACTOR, stage);
    let both = async { tokio::join!(closed_loop(node, callers, &value, stage), callers_alone) };
    let (beside_callers, called) = shown("peak beside callers", stage, both).await;
    let beside_callers = beside_callers?.len() as f64 / stage.as_secs_f64();
    let called = called.offered.load(Ordering::Relaxed) as f64 / stage.as_secs_f64();
    let line = json!({ "in_flight": callers, "ops_per_s": beside_callers.round(), "called_per_s": called.round() });
    say("peak_beside_callers", line)?;

    let watch = Watch::start(cluster);
    let counts = shown("overload", stage, offer(node, &value, peak * FACTOR, stage)).await;
    // Measured from the end of the load, not from when its remaining proposals are answered.
    let after = closed_loop(node, FEW, &value, Duration::from_secs(AFTER_S)).await?;
    let mut line = counts.line(stage, peak, beside_callers);
    watch.end(cluster, &mut line).await?;
    say("overload", line)?;
    for second in 0..AFTER_S {
        let within: Vec<Latency> = after.iter().filter(|took| took.asked.as_secs() == second).copied().collect();
        let mut line = latencies(&within, Duration::from_secs(1));
        line["second"] = (second + 1).into();
        say("after", line)?;
    }

    let large = Bytes::from(vec![7; Limits::default().max_command_bytes]);
    let both = async { tokio::join!(closed_loop(node, LARGE, &large, stage), closed_loop(node, FEW, &value, stage)) };
    let (beside, small) = shown("beside large commands", stage, both).await;
    let mut line = latencies(&small?, stage);
    line["large_per_s"] = (beside?.len() as f64 / stage.as_secs_f64()).round().into();
    say("beside_large", line)?;
    Ok(())
}

async fn steady(cluster: &Cluster, length: Duration, value: Bytes) -> Result<(), Failed> {
    let node = &cluster.node;
    let watch = Watch::start(cluster);
    let mut done = 0;
    let progress = crate::timed("steady", length);
    let (start, callers) = (Instant::now(), STEADY);
    // In pieces, to bound the number of latencies in memory.
    while start.elapsed() < length {
        let piece = PIECE.min(length.saturating_sub(start.elapsed()));
        done += closed_loop(node, callers, &value, piece).await?.len();
    }
    let took = start.elapsed().as_secs_f64();
    drop(progress);
    let mut line = json!({ "in_flight": callers, "seconds": took.round(), "ops_per_s": (done as f64 / took).round() });
    watch.end(cluster, &mut line).await?;
    say("steady", line)?;
    Ok(())
}

/// Shows a stage that takes this time.
async fn shown<T>(what: &str, length: Duration, stage: impl Future<Output = T>) -> T {
    let _progress = crate::timed(what, length);
    stage.await
}

fn say(stage: &str, mut line: Value) -> Result<(), Failed> {
    line["system"] = "quorate".into();
    line["stage"] = stage.into();
    workload::say(&line)
}

/// The time from a command's request until it was applied; `asked` counts from the start
/// of the stage.
#[derive(Clone, Copy)]
struct Latency {
    asked: Duration,
    took: Duration,
}

/// Callers that wait for each answer before the next command. A caller that was refused, or whose
/// leader was lost, asks again; the latency includes that.
async fn closed_loop(
    node: &Node<Sink>,
    callers: usize,
    value: &Bytes,
    length: Duration,
) -> Result<Vec<Latency>, Failed> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (node, value) = (node.clone(), value.clone());
        tasks.spawn(async move {
            let mut all = Vec::new();
            while start.elapsed() < length {
                let asked = start.elapsed();
                loop {
                    match node.propose(value.clone()).await {
                        Ok(_) => break,
                        Err(ProposeError::Overloaded { retry_after }) => sleep(retry_after).await,
                        Err(ProposeError::NoLeader | ProposeError::OutcomeUnknown) => sleep(SAMPLED_EVERY).await,
                        Err(error) => return Err(error),
                    }
                }
                all.push(Latency { asked, took: start.elapsed() - asked });
            }
            Ok(all)
        });
    }
    let answers = async {
        let mut all = Vec::new();
        while let Some(of_one) = tasks.join_next().await {
            all.append(&mut of_one??);
        }
        Ok(all)
    };
    within(length + STAGE_PATIENCE, "a stage", answers).await?
}

/// The outcomes of the offered commands.
#[derive(Default)]
struct Counts {
    offered: AtomicU64,
    refused: AtomicU64,
    applied: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    longest_retry_after_us: AtomicU64,
}

/// Offers commands at this rate, regardless of their outcomes. Returns at the end of the load,
/// while some are still in progress.
async fn offer(node: &Node<Sink>, value: &Bytes, per_s: f64, length: Duration) -> Arc<Counts> {
    let (counts, start) = (Arc::new(Counts::default()), Instant::now());
    // Offering and refused commands should cost little, to leave the processors to
    // the node's threads.
    let mut place = Box::pin(None);
    let mut offered = 0;
    while start.elapsed() < length {
        let due = (start.elapsed().as_secs_f64() * per_s) as u64;
        let at_once = due.saturating_sub(offered).min(OFFERED_AT_ONCE);
        for _ in 0..at_once {
            let (caller, value) = (node.clone(), value.clone());
            place.set(Some(async move { caller.propose(value).await.map(drop) }));
            match std::future::poll_fn(|context| Poll::Ready(poll(place.as_mut(), context))).await {
                // The command was refused at once and needs no task; its allocation is reused.
                Poll::Ready(outcome) => counts.add(&outcome),
                Poll::Pending => {
                    let (counts, mut place) = (Arc::clone(&counts), std::mem::replace(&mut place, Box::pin(None)));
                    // Answers after the end do not count.
                    tokio::spawn(async move {
                        let outcome = std::future::poll_fn(|context| poll(place.as_mut(), context)).await;
                        if start.elapsed() < length {
                            counts.add(&outcome);
                        }
                    });
                }
            }
        }
        offered += at_once;
        if offered >= due {
            sleep(OFFERED_EVERY).await;
        }
    }
    counts.offered.store(offered, Ordering::Relaxed);
    counts
}

fn poll<F: Future>(place: Pin<&mut Option<F>>, context: &mut Context<'_>) -> Poll<F::Output> {
    place.as_pin_mut().expect("something was asked").poll(context)
}

impl Counts {
    fn add(&self, outcome: &Result<(), ProposeError>) {
        let counter = match outcome {
            Ok(()) => &self.applied,
            Err(ProposeError::Overloaded { retry_after }) => {
                let us = u64::try_from(retry_after.as_micros()).unwrap_or(u64::MAX);
                self.longest_retry_after_us.fetch_max(us, Ordering::Relaxed);
                &self.refused
            }
            Err(ProposeError::OutcomeUnknown) => &self.unknown,
            Err(_) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn line(&self, length: Duration, peak: f64, beside_callers: f64) -> Value {
        let per_s = |counter: &AtomicU64| (counter.load(Ordering::Relaxed) as f64 / length.as_secs_f64()).round();
        let share = |of: f64| (per_s(&self.applied) / of * 1000.0).round() / 1000.0;
        json!({
            "offered_per_s": per_s(&self.offered),
            "goodput_per_s": per_s(&self.applied),
            "goodput_of_peak": share(peak),
            "goodput_of_peak_beside_callers": share(beside_callers),
            "refused_per_s": per_s(&self.refused),
            "failed": self.failed.load(Ordering::Relaxed),
            "unknown": self.unknown.load(Ordering::Relaxed),
            "retry_after_ms_max": self.longest_retry_after_us.load(Ordering::Relaxed) / 1000,
        })
    }
}

/// Samples memory and leadership during the load and the recovery from it.
struct Watch {
    over: Arc<AtomicBool>,
    rss_start: u64,
    elections_start: u64,
    watching: tokio::task::JoinHandle<(u64, u64)>,
}

impl Watch {
    fn start(cluster: &Cluster) -> Self {
        let (over, status) = (Arc::new(AtomicBool::new(false)), cluster.node.status());
        let (rss_start, elections_start) = (resident_bytes(std::process::id()), cluster.elections_begun());
        let ended = Arc::clone(&over);
        let watching = tokio::spawn(async move {
            let (mut rss_max, mut changes, mut leader) = (rss_start, 0, status.borrow().leader);
            while !ended.load(Ordering::Relaxed) {
                rss_max = rss_max.max(resident_bytes(std::process::id()));
                let now = status.borrow().leader;
                changes += u64::from(now != std::mem::replace(&mut leader, now));
                sleep(SAMPLED_EVERY).await;
            }
            (rss_max, changes)
        });
        Self { over, rss_start, elections_start, watching }
    }

    async fn end(self, cluster: &Cluster, line: &mut Value) -> Result<(), Failed> {
        self.over.store(true, Ordering::Relaxed);
        let (rss_max, changes) = self.watching.await?;
        line["rss_mb"] = json!({ "start": self.rss_start >> 20, "max": rss_max >> 20 });
        line["leader_changes"] = changes.into();
        // Waits for late reports of the members.
        sleep(TOLD_EVERY * 3).await;
        line["elections_begun"] = (cluster.elections_begun() - self.elections_start).into();
        Ok(())
    }
}

/// The number of commands, and their latencies.
fn latencies(all: &[Latency], length: Duration) -> Value {
    let mut us: Vec<u128> = all.iter().map(|took| took.took.as_micros()).collect();
    us.sort_unstable();
    // Without any latency the value is `null`, not zero.
    let at = |per_mille: usize| us.get(us.len().saturating_sub(1) * per_mille / 1000).map(|us| *us as u64);
    json!({
        "ops_per_s": (us.len() as f64 / length.as_secs_f64()).round(),
        "p50_us": at(500),
        "p99_us": at(990),
        "p999_us": at(999),
        "max_us": at(1000),
    })
}
