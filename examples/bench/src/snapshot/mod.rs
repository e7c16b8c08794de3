//! The cost of bringing back a follower that was away until the log was cut past it: three
//! processes on loopback, a state of the given size, 64 writers all the time.
//!
//! 1. The third node stops; the state is written; the leader takes a snapshot and cuts its log.
//! 2. Writes are measured for a while. Then the third node starts, and writes are measured until it
//!    has installed the snapshot.
//! 3. The third node stops again until a further snapshot exists. When half of that has arrived,
//!    the wire to it is cut for longer than a connection survives.
//!
//! This process runs the leader, the [`writers`] and the wire, so the leader's memory
//! figures include those.

mod writers;

use crate::{
    PROGRAM,
    leadership::{in_term, until_led_by},
    machine_speed::{resident_bytes, round, send_over_loopback, speed, write_sequentially},
    processes::{self, LEADER, Member, Place, builder, make_certificates, reserve, shut_down},
    proxy::Wire,
    workload::{Failed, keep_the_log, say, within},
};
use quorate::{Consistency, Hosted, NodeId, ServiceNode, Snapshots};
use quorate_kv::machine::Kv;
use quorate_progress::{Counter, Progress, Unit};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};
use writers::{Figures, VALUE_BYTES, WRITERS, Writers, put, ratio};

/// The command with which a child runs a member.
pub(crate) const MEMBER: &str = "snapshot-member";
const AWAY: u64 = 3;
const FILLERS: usize = 64;
/// The length of a value in the state, in bytes.
const STATE_VALUE_BYTES: usize = 1024;
/// The duration of the measurement without other load.
const BEFORE: Duration = Duration::from_secs(5);
/// Longer than a connection survives without traffic.
const CUT: Duration = Duration::from_secs(5);
/// The number of bytes that shows that a snapshot transfer has started.
const BEGUN_BYTES: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(600);
const COUNT_EVERY: Duration = Duration::from_millis(200);
const RSS_EVERY: Duration = Duration::from_millis(20);

/// Runs the measurement and prints one line. `bytes_per_second` limits the snapshot transfer.
pub(crate) fn run(bytes: u64, bytes_per_second: u64) -> Result<(), Failed> {
    let dir = tempfile::Builder::new().prefix("quorate-bench-").tempdir()?;
    let disk = speed(bytes, write_sequentially(dir.path(), bytes)?);
    let loopback = speed(bytes, send_over_loopback(bytes)?);
    let (_reserved, addresses) = reserve(4)?;
    let (nodes, front) = (&addresses[..3], addresses[3]);
    make_certificates(dir.path(), nodes.len())?;
    let wire = Wire::default();
    let broken = wire.lay(front, nodes[2])?;
    // The leader dials the third node through the wire; the other two are connected directly.
    let from_leader = [nodes[0], nodes[1], front];
    let mut second = Member::start(MEMBER, 2, dir.path(), nodes, Stdio::null())?;
    let third = ThirdNode::start(dir.path(), nodes)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let node = start(LEADER, dir.path(), &from_leader, bytes_per_second).await?;
        let term = until_led_by(&node, NodeId(LEADER)).await?;
        let run = Run { node: node.clone(), wire, dir: dir.path(), nodes, bytes, disk, loopback };
        let measured = async {
            tokio::select! {
                outcome = run.measure(third) => outcome,
                Ok(error) = broken => Err(error),
            }
        };
        // Another leader would not send through the wire.
        let moved = || Err("leadership moved; run it again, with less load on this machine".into());
        let outcome = in_term(&node, NodeId(LEADER), term, measured).await.unwrap_or_else(moved);
        let outcome = outcome.and_then(|line| processes::check([&mut second]).map(|()| line));
        shut_down(&node).await?;
        say(&outcome?)
    })
}

/// Runs one of the other members, which prints a line of JSON after each change.
pub(crate) fn run_member(place: &Place) -> Result<(), Failed> {
    let default = Snapshots::default().bytes_per_second;
    processes::run_member(place, async |id, dir, addresses| start(id, dir, addresses, default).await, tell)
}

async fn start(
    id: u64,
    dir: &Path,
    addresses: &[SocketAddr],
    bytes_per_second: u64,
) -> Result<ServiceNode<Kv>, Failed> {
    // Snapshots on demand only, so that every run sends the intended one.
    let snapshots = keep_the_log().with_bytes_per_second(bytes_per_second);
    Ok(builder(id, dir, addresses)?.snapshots(snapshots).serve(Kv::default).start().await?)
}

/// The progress of a member.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct MemberState {
    applied: u64,
    snapshot: u64,
    hash: u64,
}

async fn tell(node: &ServiceNode<Kv>) -> Result<(), Failed> {
    let mut told = MemberState::default();
    loop {
        let snapshot = node.status().borrow().snapshot.0;
        let read = node.read(Consistency::Local, state_hash).await?;
        let has = MemberState { applied: read.index.0, snapshot, hash: read.value };
        if has != told {
            println!("{}", serde_json::to_string(&has)?);
            told = has;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The node that stops and starts.
struct ThirdNode {
    member: Member,
    has: watch::Receiver<MemberState>,
}

impl ThirdNode {
    fn start(dir: &Path, nodes: &[SocketAddr]) -> Result<Self, Failed> {
        let mut member = Member::start(MEMBER, AWAY, dir, nodes, Stdio::piped())?;
        let out = member.take_output().ok_or("the member has no output")?;
        let (heard, has) = watch::channel(MemberState::default());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = heard.send(serde_json::from_str(&line).unwrap_or_default());
            }
        });
        Ok(Self { member, has })
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&MemberState) -> bool) -> Result<MemberState, Failed> {
        let waited = tokio::time::timeout(PATIENCE, self.has.wait_for(holds)).await;
        let waited = waited.map_err(|_| format!("the third node did not {what} within {PATIENCE:?}"))?;
        Ok(*waited.map_err(|_| format!("the third node ended before it did {what}"))?)
    }
}

struct Run<'a> {
    node: ServiceNode<Kv>,
    wire: Wire,
    dir: &'a Path,
    nodes: &'a [SocketAddr],
    bytes: u64,
    disk: f64,
    loopback: f64,
}

impl Run<'_> {
    async fn measure(&self, mut third: ThirdNode) -> Result<Value, Failed> {
        self.put("first", 0).await?;
        third.until("begin", |has| has.applied > 0).await?;
        stop(third).await?;
        let begun = Instant::now();
        self.fill().await?;
        progress("written, with the third node away", begun);
        let begun = Instant::now();
        let taken = self.node.snapshot().await?.index.0;
        let taking = begun.elapsed();
        progress("a snapshot", begun);
        let first = self.node.status().borrow().first_log.0;
        if first < 2 {
            return Err("the log was not cut".into());
        }

        let writers = Writers::start(&self.node);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (quiet, leader_before) = (Instant::now(), resident_bytes(std::process::id()));
        tokio::time::sleep(BEFORE).await;
        let calm = Instant::now();

        let mut third = ThirdNode::start(self.dir, self.nodes)?;
        let memory = Memory::watch(third.member.pid());
        let sent_before = self.wire.bytes();
        self.until_sent(&mut third, sent_before + BEGUN_BYTES.min(self.bytes / 2)).await?;
        let begun = Instant::now();
        {
            let (_progress, sent) = Progress::start(PROGRAM, "the snapshot is sent", Unit::Bytes, Some(self.bytes));
            self.while_sent(&sent, sent_before, third.until("install", |has| has.snapshot >= taken)).await?;
        }
        let installed = Instant::now();
        let target = self.node.status().borrow().commit.0;
        third.until("catch up", |has| has.applied >= target).await?;
        let caught_up = installed.elapsed();
        progress("sent and caught up", begun);
        let (leader_max, follower_max) = memory.end();
        let sent = self.wire.bytes() - sent_before;
        // The leader keeps its log for a while for a follower that was sent a snapshot, unless a
        // later snapshot finds it caught up.
        self.node.snapshot().await?;
        let reached = third.has.borrow().applied;
        stop(third).await?;

        let cut = self.cut_in_the_middle(reached).await?;
        let latencies = writers.stop().await?;
        let (before, during) = (Figures::of(&latencies, quiet, calm), Figures::of(&latencies, begun, installed));
        let transfer = installed - begun;
        let transfer_speed = speed(self.bytes, transfer);
        Ok(json!({
            "system": "quorate", "bytes": self.bytes, "writers": WRITERS, "value_bytes": VALUE_BYTES,
            "snapshot_taken_s": round(taking.as_secs_f64()), "log_begins_at": first, "snapshot_index": taken,
            "before": before.json(), "during": during.json(),
            "p50_ratio": ratio(during.p50, before.p50), "p99_ratio": ratio(during.p99, before.p99),
            "transfer_s": round(transfer.as_secs_f64()), "transfer_mb_per_s": round(transfer_speed),
            "wire_bytes": sent, "catch_up_s": round(caught_up.as_secs_f64()),
            "loopback_tcp_mb_per_s": round(self.loopback), "ratio_to_loopback": round(transfer_speed / self.loopback),
            "disk_write_mb_per_s": round(self.disk), "ratio_to_disk": round(transfer_speed / self.disk),
            "rss_mb": {
                "leader_before": leader_before / 1_000_000, "leader_max": leader_max / 1_000_000,
                "follower_max": follower_max / 1_000_000,
            },
            "cut": cut,
        }))
    }

    /// Lets the third node, whose log ends at `reached`, miss another snapshot, and cuts the wire
    /// while that is sent.
    async fn cut_in_the_middle(&self, reached: u64) -> Result<Value, Failed> {
        // The cut log keeps some entries, and none of them may be its next one.
        let missed = reached + Snapshots::default().keep_entries + 2 * WRITERS as u64;
        let mut status = self.node.status();
        within(PATIENCE, "writes after the third node's end", status.wait_for(|now| now.applied.0 > missed)).await??;
        let taken = self.node.snapshot().await?.index.0;
        let first = self.node.status().borrow().first_log.0;
        if first <= reached + WRITERS as u64 {
            return Err(format!("the log still begins at {first}, which the third node has").into());
        }
        let snapshot_bytes = self.snapshot_bytes(taken)?;
        let (sent_before, begun) = (self.wire.bytes(), Instant::now());
        let mut third = ThirdNode::start(self.dir, self.nodes)?;
        let half = self.bytes / 2;
        self.until_sent(&mut third, sent_before + half).await?;
        self.wire.cut(true);
        tokio::time::sleep(CUT).await;
        self.wire.cut(false);
        {
            let (_progress, sent) = Progress::start(PROGRAM, "the rest is sent", Unit::Bytes, Some(snapshot_bytes));
            let installed = third.until("install after the cut", |has| has.snapshot >= taken);
            self.while_sent(&sent, sent_before, installed).await?;
        }
        let took = begun.elapsed();
        let sent = self.wire.bytes() - sent_before;
        let hash = self.node.read(Consistency::Linearizable, state_hash).await?;
        third.until("catch up after the cut", |has| has.applied >= hash.index.0).await?;
        progress("sent again, with a cut in the middle", begun);
        stop(third).await?;
        Ok(json!({
            "after_bytes": half, "cut_s": CUT.as_secs(), "wire_bytes": sent, "took_s": round(took.as_secs_f64()),
            // A transfer that restarts would send these bytes again.
            "snapshot_bytes": snapshot_bytes, "resumed": sent < snapshot_bytes + half / 2,
        }))
    }

    /// Waits until this many bytes were sent to the third node.
    async fn until_sent(&self, third: &mut ThirdNode, bytes: u64) -> Result<(), Failed> {
        tokio::select! {
            () = self.wire.until_bytes(bytes) => Ok(()),
            // It never holds, so this is the error if the node ends, or gets too little in time.
            ended = third.until("receive the snapshot", |_| false) => ended.map(drop),
        }
    }

    /// Counts the bytes on the wire while a step lasts.
    async fn while_sent<T>(&self, sent: &Counter, before: u64, step: impl Future<Output = T>) -> T {
        let counting = async {
            loop {
                sent.set(self.wire.bytes() - before);
                tokio::time::sleep(COUNT_EVERY).await;
            }
        };
        tokio::select! {
            done = step => done,
            () = counting => unreachable!("it counts for ever"),
        }
    }

    /// Length of the leader's snapshot that ends at this entry: the state, and the history of its events.
    fn snapshot_bytes(&self, ends: u64) -> Result<u64, Failed> {
        let begin = format!("{ends:020}-");
        for file in fs::read_dir(self.dir.join(format!("data-{LEADER}")))? {
            let file = file?;
            let name = file.file_name().into_string().unwrap_or_default();
            if name.starts_with(&begin) && name.ends_with(".snapshot") {
                return Ok(file.metadata()?.len());
            }
        }
        Err(format!("the leader has no snapshot that ends at entry {ends}").into())
    }

    /// Writes all keys of the state.
    async fn fill(&self) -> Result<(), Failed> {
        let (next, keys) = (Arc::new(AtomicU64::new(0)), self.bytes / STATE_VALUE_BYTES as u64);
        let (_progress, filled) = Progress::start(PROGRAM, "the state is written", Unit::Items("keys"), Some(keys));
        let mut fillers = JoinSet::new();
        for _ in 0..FILLERS {
            let (node, next, filled) = (self.node.clone(), Arc::clone(&next), filled.clone());
            fillers.spawn(async move {
                loop {
                    let key = next.fetch_add(1, Ordering::Relaxed);
                    if key >= keys {
                        return Ok::<_, Failed>(());
                    }
                    node.call(put(&format!("state-{key:012}"), key, STATE_VALUE_BYTES)).await?;
                    filled.add(1);
                }
            });
        }
        while let Some(filled) = fillers.join_next().await {
            filled??;
        }
        Ok(())
    }

    async fn put(&self, key: &str, seed: u64) -> Result<(), Failed> {
        self.node.call(put(key, seed, VALUE_BYTES)).await?;
        Ok(())
    }
}

/// Stops a member orderly, without blocking the writers.
async fn stop(third: ThirdNode) -> Result<(), Failed> {
    Ok(tokio::task::spawn_blocking(move || drop(third.member)).await?)
}

/// Reports progress on standard error, because a run takes minutes.
fn progress(what: &str, since: Instant) {
    eprintln!("{PROGRAM}: {what}: {:.1} s", since.elapsed().as_secs_f64());
}

fn state_hash(kv: &Hosted<Kv>) -> u64 {
    kv.service().state_hash()
}

/// The maximum memory of this process and another one during the measurement.
struct Memory {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(u64, u64)>,
}

impl Memory {
    fn watch(other: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut max = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                max = (resident_bytes(std::process::id()).max(max.0), resident_bytes(other).max(max.1));
                std::thread::sleep(RSS_EVERY);
            }
            max
        });
        Self { stop, thread }
    }

    /// The maxima of this process and of the other one, in bytes.
    fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
