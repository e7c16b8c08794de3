//! The faults. Each is a short script: what breaks, and what repairs it.

mod clients;
mod credentials;
mod data;
mod disks;
mod network;
mod nodes;
mod small_disk;

use crate::{
    episode::{Fault, World},
    support::{PATIENCE, RELAXED},
};
use quorate::NodeId;
use quorate_kv::{
    cluster::Options,
    http::messages::StatusAnswer,
    load::{Ledger, LoadOptions, Writers},
};
use std::{future::Future, time::Duration};
use tokio::task::JoinSet;

const SECOND: Duration = Duration::from_secs(1);
/// Until a node notices that its leader is gone, and an election is over: the longer election timeout twice.
const ELECTION: Duration = Duration::from_millis(2400);
/// Until a node looks at its credentials again, and once more: it is sure of a problem at the second look.
const LOOK: Duration = Duration::from_secs(7);

/// All faults, in the order of the matrix.
pub(crate) fn all() -> impl Iterator<Item = &'static Fault> {
    let groups = [nodes::FAULTS, network::FAULTS, disks::FAULTS, data::FAULTS, credentials::FAULTS, clients::FAULTS];
    groups.into_iter().flatten()
}

/// Options with these sections beside the usual timing.
fn with_sections(options: Options, sections: &str) -> Options {
    Options { sections: format!("{RELAXED}{sections}"), ..options }
}

/// A task that ends when this is dropped.
fn background(task: impl Future<Output = ()> + Send + 'static) -> Box<JoinSet<()>> {
    let mut tasks = Box::new(JoinSet::new());
    tasks.spawn(task);
    tasks
}

/// Writes as fast as the nodes answer, until this many writes are acknowledged.
async fn burst(world: &World, writes: usize, value_bytes: usize) {
    let ledger = Ledger::new();
    let among: Vec<_> = world.cluster.running().into_iter().filter(|id| is_well(world, *id)).collect();
    let options = LoadOptions { writers: 100, rest: Duration::ZERO, value_bytes };
    let writers = Writers::start_among(&world.cluster, among, &ledger, options).expect("writers");
    tokio::time::timeout(PATIENCE * 10, ledger.reaches(writes)).await.expect("writes go on");
    drop(writers);
}

/// Whether the process of a node runs and is not stopped.
fn is_well(world: &World, id: NodeId) -> bool {
    let stat = world.cluster.pid(id).map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")));
    let Ok(Ok(stat)) = stat else { return false };
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['T', 't', 'Z']))
}

/// Waits until the status of a node shows something.
async fn until(world: &World, id: NodeId, what: &str, holds: impl Fn(&StatusAnswer) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE * 4;
    loop {
        let status = world.cluster.status(id).await;
        if status.as_ref().is_ok_and(&holds) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited for {what}: {status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes a file so that a reader sees the old or the new content.
fn replace(file: &std::path::Path, content: impl AsRef<[u8]>) {
    let new = file.with_extension("new");
    std::fs::write(&new, content).expect("written");
    // A key must stay readable by its owner only.
    let permissions = std::fs::metadata(file).expect("it exists").permissions();
    std::fs::set_permissions(&new, permissions).expect("changed");
    std::fs::rename(new, file).expect("renamed");
}
