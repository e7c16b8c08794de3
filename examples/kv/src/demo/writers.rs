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

/// Writers a node.
const WRITERS: usize = 4;
/// How long a writer rests after a refusal: long enough not to drown the election in retries.
const REST: Duration = Duration::from_millis(10);
/// How often a new probe is sent while there is no leader: the precision of the measurement.
const PROBE_EVERY: Duration = Duration::from_millis(10);

/// Running writers.
pub(super) struct Writers {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Writers {
    /// Starts some for every node; each prefers its node and turns to the others when that can't serve.
    pub(super) fn start(cluster: &Cluster, ledger: &Ledger) -> Result<Self, ClusterError> {
        let (mut tasks, stop) = (JoinSet::new(), watch::Sender::new(false));
        let mut ids = cluster.ids();
        for name in 0..ids.len() * WRITERS {
            ids.rotate_left(1);
            tasks.spawn(write(name, cluster.client(&ids)?, ledger.clone(), stop.subscribe()));
        }
        Ok(Self { tasks, stop })
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Lets each finish the write it is at.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        self.tasks.join_all().await;
    }
}

async fn write(name: usize, mut client: Client, ledger: Ledger, stop: watch::Receiver<bool>) {
    for number in 0_u64.. {
        if *stop.borrow() {
            return;
        }
        let told = put(&mut client, &ledger, format!("writer-{name}/{number}")).await;
        if Told::of(&told) != Told::Acknowledged {
            tokio::time::sleep(REST).await;
        }
    }
}

async fn put(client: &mut Client, ledger: &Ledger, key: String) -> Result<(), ClientError> {
    let value = format!("the value of {key}");
    let place = ledger.begin(key.clone(), value.clone());
    let outcome = client.put(&key, value).await;
    ledger.end(place, Told::of(&outcome));
    outcome.map(drop)
}

/// Sends a write to one of `survivors` after the other, a new one every few milliseconds whatever became of those
/// before, until one is acknowledged; returns how long after `since` that was, or `None` if it took longer than `limit`.
pub(super) async fn first_write(
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
            probes.spawn(async move { put(&mut client, &ledger, format!("probe/{number}")).await });
        }
    }
    Ok(None)
}
