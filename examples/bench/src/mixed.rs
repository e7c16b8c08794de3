//! Reads by lease beside writes, on the leader: three processes on loopback, as in [`reads`].
//!
//! Writes are measured at their peak first. Then half of that rate of writes is offered alone, a rate
//! of reads alone, and both at once: open-loop, so a slow answer holds no later request back. An
//! output line has what was offered and served in a second, and the latencies; the lines of both at
//! once have the growth of the 99th percentile too. The same with local reads, which wait for nothing,
//! shows how much of that growth is the wait for a processor.

use crate::{
    leadership::{until_led_by, while_led},
    processes::{self, LEADER, Member, make_certificates, reserve, shut_down},
    reads::{self, Holder, ReadAll},
    workload::{Failed, Request, Stage, line, measured, say},
};
use bytes::Bytes;
use quorate::{Consistency, Limits, Node, NodeId};
use serde_json::{Value, json};
use std::{
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};

/// The proposals in flight at the peak.
const PEAK_IN_FLIGHT: usize = 256;
const READS_PER_S: f64 = 100_000.0;
/// The most requests of one kind without an answer: a node that does not keep up is not flooded.
const WAITING_MAX: usize = 20_000;
const OFFERED_EVERY: Duration = Duration::from_millis(1);

/// Runs the measurement and prints its lines.
pub(crate) fn run(&Stage { seconds, value_bytes }: &Stage) -> Result<(), Failed> {
    let dir = tempfile::Builder::new().prefix("quorate-bench-").tempdir()?;
    let (_reserved, addresses) = reserve(3)?;
    make_certificates(dir.path(), addresses.len())?;
    let start_member = |id| Member::start(reads::MEMBER, id, dir.path(), &addresses, Stdio::null());
    let mut members = [start_member(2)?, start_member(3)?];
    let limits = Limits::default().with_max_in_flight_proposals(2 * WAITING_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let node = reads::start(LEADER, dir.path(), &addresses, limits, true).await?;
        let outcome = measure(&node, seconds, value_bytes).await;
        shut_down(&node).await?;
        processes::check(&mut members)?;
        outcome
    })
}

async fn measure(node: &Node<Holder>, length: Duration, bytes: usize) -> Result<(), Failed> {
    let leader = NodeId(LEADER);
    until_led_by(node, leader).await?;
    let write = Write { node: node.clone(), value: vec![7; bytes].into() };
    let read = |consistency| ReadAll { node: node.clone(), consistency, bytes };
    // So that the reads find the value.
    write.send().await?;
    let mut peak = measured(node, leader, "writes at their peak", &write, PEAK_IN_FLIGHT, length).await?;
    (peak["mode"], peak["value_bytes"]) = ("write".into(), bytes.into());
    say(&peak)?;
    let writes_per_s = peak["ops_per_s"].as_f64().unwrap_or_default() / 2.0;
    let writes = async || offered("write", &write, writes_per_s, length).await;
    for (mode, consistency) in [("lease", Consistency::Lease), ("local", Consistency::Local)] {
        let read = read(consistency);
        let reads = async || offered(mode, &read, READS_PER_S, length).await;
        let steps = async || Ok((writes().await?, reads().await?, tokio::try_join!(writes(), reads())?));
        let (written, read, together) = while_led(node, leader, length * 3, steps).await?;
        for (mut alone, mut beside) in [(written, together.0), (read, together.1)] {
            (alone["beside"], beside["beside"]) = ("nothing".into(), "the other".into());
            let p99 = |line: &Value| line["p99_us"].as_f64().unwrap_or_default().max(1.0);
            beside["p99_of_alone"] = json!((p99(&beside) / p99(&alone) * 100.0).round() / 100.0);
            for line in [&mut alone, &mut beside] {
                line["value_bytes"] = bytes.into();
                say(line)?;
            }
        }
    }
    Ok(())
}

#[derive(Clone)]
struct Write {
    node: Node<Holder>,
    value: Bytes,
}

impl Request for Write {
    async fn send(&self) -> Result<(), Failed> {
        self.node.propose(self.value.clone()).await?;
        Ok(())
    }
}

/// Offers requests at this rate, in steps of [`OFFERED_EVERY`], and waits for all answers. Requests
/// are left out while too many wait.
async fn offered(mode: &str, request: &impl Request, per_s: f64, length: Duration) -> Result<Value, Failed> {
    let _progress = crate::timed(format!("{per_s:.0} requests a second: {mode}"), length);
    let (mut latencies_us, mut left_out) = (Vec::new(), 0);
    let (mut waiting, mut made, start) = (JoinSet::new(), 0, Instant::now());
    while start.elapsed() < length {
        let due = (start.elapsed().as_secs_f64() * per_s) as usize;
        for _ in made..due {
            if waiting.len() >= WAITING_MAX {
                left_out += 1;
                continue;
            }
            let (request, sent) = (request.clone(), Instant::now());
            waiting.spawn(async move {
                request.send().await?;
                Ok::<_, Failed>(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX))
            });
        }
        made = due;
        sleep(OFFERED_EVERY).await;
        while let Some(ended) = waiting.try_join_next() {
            latencies_us.push(ended??);
        }
    }
    while let Some(ended) = waiting.join_next().await {
        latencies_us.push(ended??);
    }
    let mut line = line(0, latencies_us, start.elapsed());
    line["mode"] = mode.into();
    (line["offered_per_s"], line["left_out"]) = (per_s.round().into(), left_out.into());
    Ok(line)
}
