//! The time without writes after the leader's death: three processes on loopback, QUIC with mutual
//! TLS, write-ahead logs, default timing.
//!
//! This process runs node 1 and the callers. In each round one of the children leads, in turn, and
//! is killed with SIGKILL during writes. It is then restarted, and has caught up when the next
//! round begins. A line's figure is the time from the kill until a command is applied that was
//! proposed after it.

use crate::{
    PROGRAM,
    leadership::until_led_by,
    processes::{self, EQUAL_MEMBER, LEADER, Member, make_certificates, reserve, shut_down, start_equal},
    workload::{Failed, PATIENCE, Sink, say},
};
use quorate::{Node, NodeId, metrics::Metrics};
use quorate_progress::{Progress, Unit};
use serde_json::json;
use std::{
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    time::{interval, timeout},
};

/// The interval of proposals, independent of earlier answers.
const ASKED_EVERY: Duration = Duration::from_millis(1);
/// The time of proposals before the kill.
const BEFORE: Duration = Duration::from_millis(300);
const VALUE_BYTES: usize = 256;

/// Runs the measurement; prints one line per round and a summary.
pub(crate) fn run(rounds: u32) -> Result<(), Failed> {
    let dir = tempfile::Builder::new().prefix("quorate-bench-").tempdir()?;
    let (_reserved, addresses) = reserve(3)?;
    make_certificates(dir.path(), addresses.len())?;
    let start = |id| Member::start(EQUAL_MEMBER, id, dir.path(), &addresses, Stdio::null());
    let (mut leads, mut follows) = ((2, start(2)?), (3, start(3)?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let node = start_equal(LEADER, dir.path(), &addresses, &Metrics::new()).await?;
        let mut all_ms = Vec::new();
        let (progress, done) = Progress::start(PROGRAM, "failover", Unit::Items("rounds"), Some(rounds.into()));
        for round in 1..=rounds {
            // A leader has the whole log. After each child has led once, both have it, and either
            // survivor may be elected.
            until_led_by(&node, NodeId(follows.0)).await?;
            until_led_by(&node, NodeId(leads.0)).await?;
            let (id, member) = leads;
            let ms = unavailable(&node, member).await?.as_secs_f64() * 1000.0;
            let line = json!({ "system": "quorate", "round": round, "unavailable_ms": tenths(ms) });
            let mut said = Ok(());
            progress.aside(|| said = say(&line));
            said?;
            done.add(1);
            all_ms.push(ms);
            processes::check([&mut follows.1])?;
            (leads, follows) = (follows, (id, start(id)?));
        }
        drop(progress);
        all_ms.sort_by(f64::total_cmp);
        let at = |percent: usize| tenths(all_ms[(all_ms.len() - 1) * percent / 100]);
        let (median, p90, max) = (at(50), at(90), at(100));
        say(&json!({ "system": "quorate", "rounds": rounds, "median_ms": median, "p90_ms": p90, "max_ms": max }))?;
        shut_down(&node).await
    })
}

/// Kills the leader during writes. Returns the time until the next write was applied.
async fn unavailable(node: &Node<Sink>, leader: Member) -> Result<Duration, Failed> {
    let (applied, mut answers) = mpsc::unbounded_channel();
    let mut pace = interval(ASKED_EVERY);
    let (began, mut leader, mut killed) = (Instant::now(), Some(leader), None);
    timeout(PATIENCE, async {
        loop {
            if began.elapsed() >= BEFORE
                && let Some(leader) = leader.take()
            {
                killed = Some(Instant::now());
                leader.kill()?;
            }
            tokio::select! {
                biased;
                Some((asked, done)) = answers.recv() => match killed {
                    Some(killed) if asked > killed => return Ok(done - killed),
                    _ => {}
                },
                _ = pace.tick() => {
                    let (node, applied, asked) = (node.clone(), applied.clone(), Instant::now());
                    tokio::spawn(async move {
                        if node.propose(vec![7; VALUE_BYTES]).await.is_ok() {
                            // Only the first answer counts; after it the receiver is gone.
                            let _ = applied.send((asked, Instant::now()));
                        }
                    });
                }
            }
        }
    })
    .await
    .map_err(|_| format!("no write was applied within {PATIENCE:?} after the kill"))?
}

fn tenths(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}
