//! Clients that write as fast as they are answered, to all nodes.

use super::ledger::{Ledger, Told};
use crate::{
    client::{Client, ClientError},
    cluster::{Cluster, ClusterError},
};
use quorate::NodeId;
use std::time::Duration;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

/// How long a writer rests after a refusal: long enough not to drown the election in retries.
const REST: Duration = Duration::from_millis(10);
/// How often a new probe is sent while there is no leader: the precision of the measurement.
const PROBE_EVERY: Duration = Duration::from_millis(10);

/// How many writers, and how fast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Writers a node. Default 4.
    pub writers: usize,
    /// How long a writer rests after an answer. Default: not at all.
    pub rest: Duration,
    /// Bytes of a value, or more where its name takes more. Default 0.
    pub value_bytes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { writers: 4, rest: Duration::ZERO, value_bytes: 0 }
    }
}

/// Running writers.
#[derive(Debug)]
pub struct Writers {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Writers {
    /// Starts some for every node; each prefers its node and turns to the others when that can't serve.
    ///
    /// # Errors
    /// If no client can be made.
    pub fn start(cluster: &Cluster, ledger: &Ledger, pace: Pace) -> Result<Self, ClusterError> {
        Self::start_among(cluster, cluster.ids(), ledger, pace)
    }

    /// The same, for these nodes.
    ///
    /// # Errors
    /// If no client can be made.
    pub fn start_among(
        cluster: &Cluster,
        mut ids: Vec<NodeId>,
        ledger: &Ledger,
        pace: Pace,
    ) -> Result<Self, ClusterError> {
        let (mut tasks, stop) = (JoinSet::new(), watch::Sender::new(false));
        for name in 0..ids.len() * pace.writers {
            ids.rotate_left(1);
            tasks.spawn(write(name, cluster.client(&ids)?, ledger.clone(), pace, stop.subscribe()));
        }
        Ok(Self { tasks, stop })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Lets each finish the write it is at.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.tasks.join_all().await;
    }
}

async fn write(name: usize, mut client: Client, ledger: Ledger, pace: Pace, stop: watch::Receiver<bool>) {
    for number in 0_u64.. {
        if *stop.borrow() {
            return;
        }
        let told = put(&mut client, &ledger, format!("writer-{name}/{number}"), pace.value_bytes).await;
        let rest = if Told::of(&told) == Told::Acknowledged { pace.rest } else { pace.rest.max(REST) };
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
}

async fn put(client: &mut Client, ledger: &Ledger, key: String, bytes: usize) -> Result<(), ClientError> {
    let value = format!("the value of {key}");
    let value = format!("{value:bytes$}");
    let place = ledger.begin(key.clone(), value.clone());
    let outcome = client.put(&key, value).await;
    ledger.end(place, Told::of(&outcome));
    outcome.map(drop)
}

/// Sends a write to one of `survivors` after the other, a new one every few milliseconds whatever became of those
/// before, until one is acknowledged; returns how long after `since` that was, or `None` if it took longer than `limit`.
pub async fn first_write(
    cluster: &Cluster,
    survivors: &[NodeId],
    ledger: &Ledger,
    since: Instant,
    limit: Duration,
) -> Result<Option<Duration>, ClusterError> {
    let mut probes = JoinSet::new();
    let mut ticks = interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut targets = survivors.iter().cycle();
    for number in 0_u64.. {
        tokio::select! {
            biased;
            Some(Ok(Ok(()))) = probes.join_next() => return Ok(Some(since.elapsed())),
            _ = ticks.tick() => {}
        }
        if since.elapsed() > limit {
            break;
        }
        if let Some(target) = targets.next() {
            let (mut client, ledger) = (cluster.client(&[*target])?, ledger.clone());
            probes.spawn(async move { put(&mut client, &ledger, format!("probe/{number}"), 0).await });
        }
    }
    Ok(None)
}
