//! Clients that write to all nodes as fast as they are answered.

use super::ledger::{Ledger, WriteOutcome};
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

/// The pause of a writer after a refusal, so that retries do not disturb an election.
const REST: Duration = Duration::from_millis(10);
/// The interval of probes while there is no leader; the resolution of the measurement.
const PROBE_EVERY: Duration = Duration::from_millis(10);

/// The number of writers, and their rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadOptions {
    /// Writers per node. Default 4.
    pub writers: usize,
    /// The pause of a writer after an answer. Default: none.
    pub rest: Duration,
    /// The length of a value in bytes; longer if the value's name needs it. Default 0.
    pub value_bytes: usize,
}

impl Default for LoadOptions {
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
    /// Starts writers for every node. Each prefers its node and uses the others when that
    /// one cannot serve.
    ///
    /// # Errors
    /// If a client cannot be created.
    pub fn start(cluster: &Cluster, ledger: &Ledger, options: LoadOptions) -> Result<Self, ClusterError> {
        Self::start_among(cluster, cluster.ids(), ledger, options)
    }

    /// As [`Writers::start`], for the given nodes only.
    ///
    /// # Errors
    /// If a client cannot be created.
    pub fn start_among(
        cluster: &Cluster,
        mut ids: Vec<NodeId>,
        ledger: &Ledger,
        options: LoadOptions,
    ) -> Result<Self, ClusterError> {
        let (mut tasks, stop) = (JoinSet::new(), watch::Sender::new(false));
        for name in 0..ids.len() * options.writers {
            ids.rotate_left(1);
            tasks.spawn(write(name, cluster.client(&ids)?, ledger.clone(), options, stop.subscribe()));
        }
        Ok(Self { tasks, stop })
    }

    /// The number of writers.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Lets each writer finish its current write, then ends it.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.tasks.join_all().await;
    }
}

async fn write(name: usize, mut client: Client, ledger: Ledger, options: LoadOptions, stop: watch::Receiver<bool>) {
    for number in 0_u64.. {
        if *stop.borrow() {
            return;
        }
        let answer = put(&mut client, &ledger, format!("writer-{name}/{number}"), options.value_bytes).await;
        let rest =
            if WriteOutcome::of(&answer) == WriteOutcome::Acknowledged { options.rest } else { options.rest.max(REST) };
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
    ledger.end(place, WriteOutcome::of(&outcome));
    outcome.map(drop)
}

/// Sends probe writes to the survivors in turn, one every few milliseconds, until one
/// is acknowledged. Returns the time from `since` to that acknowledgement, or `None` if
/// it exceeds `limit`.
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
