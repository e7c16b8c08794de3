//! Clients that write all the time, and their figures.

use super::PATIENCE;
use crate::{
    machine_speed::round,
    workload::{Failed, within},
};
use quorate::ServiceNode;
use quorate_kv::machine::{Command, Kv};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use tokio::task::JoinSet;

/// The number of clients.
pub(super) const WRITERS: usize = 64;
/// The length of a value that they write, in bytes.
pub(super) const VALUE_BYTES: usize = 256;

/// A command that writes a value of this length.
pub(super) fn put(key: &str, seed: u64, bytes: usize) -> Command {
    let value: Vec<u8> = seed.to_le_bytes().into_iter().cycle().take(bytes).collect();
    Command::Put { key: key.into(), value: value.into(), ttl_ms: None }
}

/// Clients that write sequentially, each its own keys.
pub(super) struct Writers {
    tasks: JoinSet<Result<Vec<Latency>, Failed>>,
    stop: Arc<AtomicBool>,
}

pub(super) struct Latency {
    answered: Instant,
    us: u32,
}

impl Writers {
    /// The number of keys of each client, which bounds the state.
    const KEYS: u64 = 100;

    pub(super) fn start(node: &ServiceNode<Kv>) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for name in 0..WRITERS {
            let (node, stop) = (node.clone(), Arc::clone(&stop));
            tasks.spawn(async move {
                let mut latencies = Vec::new();
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let command = put(&format!("writer-{name}/{}", number % Self::KEYS), number, VALUE_BYTES);
                    let sent = Instant::now();
                    node.call(command).await?;
                    let answered = Instant::now();
                    let us = u32::try_from((answered - sent).as_micros()).unwrap_or(u32::MAX);
                    latencies.push(Latency { answered, us });
                }
                Ok(latencies)
            });
        }
        Self { tasks, stop }
    }

    pub(super) async fn stop(mut self) -> Result<Vec<Latency>, Failed> {
        self.stop.store(true, Ordering::Relaxed);
        let mut latencies = Vec::new();
        while let Some(written) = within(PATIENCE, "a write", self.tasks.join_next()).await? {
            latencies.append(&mut written??);
        }
        Ok(latencies)
    }
}

/// The writes within a period. Latencies are in microseconds; without a write there are none.
pub(super) struct Figures {
    ops_per_s: f64,
    pub(super) p50: Option<u32>,
    pub(super) p99: Option<u32>,
    p999: Option<u32>,
    longest: Option<u32>,
}

impl Figures {
    pub(super) fn of(latencies: &[Latency], from: Instant, to: Instant) -> Self {
        let within = |latency: &&Latency| latency.answered >= from && latency.answered < to;
        let mut us: Vec<u32> = latencies.iter().filter(within).map(|latency| latency.us).collect();
        us.sort_unstable();
        let at = |per_mille: usize| us.get(us.len().saturating_sub(1) * per_mille / 1000).copied();
        let ops_per_s = us.len() as f64 / (to - from).as_secs_f64();
        Self { ops_per_s, p50: at(500), p99: at(990), p999: at(999), longest: at(1000) }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "ops_per_s": self.ops_per_s.round(), "p50_us": self.p50, "p99_us": self.p99, "p999_us": self.p999,
            "max_us": self.longest,
        })
    }
}

pub(super) fn ratio(of: Option<u32>, to: Option<u32>) -> Option<f64> {
    Some(round(f64::from(of?) / f64::from(to?)))
}
