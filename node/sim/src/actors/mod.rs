//! The layer of real actors: whole nodes, the real codec, the real write-ahead log
//! over simulated disks.
//!
//! Every node has its own runtime, all on this thread, and only the driver lets time pass. In
//! each turn of one millisecond of the cluster's time the driver delivers the messages that are
//! due, lets clients ask, lets each node run for the time that its clock advanced, and checks
//! everything. A message sent in a turn arrives in a later one. A run is therefore a function
//! of its plan.
//!
//! - [`driver`]: a run, turn by turn, and its final checks.
//! - [`cluster`]: the parts of a run, and the deaths and starts of nodes.
//! - [`faults`]: the plan's faults of nodes, and [`damage`] of disks, where [`sound_disks`] permits it.
//! - [`member`]: the state of a node that outlives its processes: the clock, the faults in effect.
//! - [`process`]: one life of a node. Dropping it is a crash.
//! - [`machine`]: its state machine, which carries out the commands of [`registers`], has [`timers`],
//!   and a typed [`service`] beside it, with [`effects`] outside and [`releases`].
//! - [`observed_storage`]: its storage, and [`promised`]: the durability reports of the storage.
//! - [`wire`]: the network; [`frames`]: the codec.
//! - [`clients`]: the callers and their answers; [`sessions`]: their retries; [`operators`]:
//!   the member changes.
//! - [`observer`]: the properties that must hold; [`freshness`](crate::freshness): those of
//!   reads.

mod clients;
mod cluster;
mod damage;
mod driver;
mod effects;
mod faults;
mod frames;
mod machine;
mod member;
mod observed_storage;
mod observer;
mod operators;
mod process;
mod promised;
mod registers;
mod releases;
mod service;
mod sessions;
mod sound_disks;
mod timers;
mod wire;

use crate::{Outcome, plan::Plan, trace::Trace};
use cluster::Cluster;
use observer::SharedObserver;

/// Runs a plan to its end or to the first violation.
pub(crate) fn run(plan: &Plan, trace: &mut Trace) -> Outcome {
    let observer = SharedObserver::new(std::mem::take(trace), plan);
    let mut cluster = Cluster::new(plan, &observer);
    let ended = cluster.run();
    let simulated = cluster.now;
    drop(cluster);
    let mut observer = observer.lock();
    observer.report.runs = 1;
    observer.report.count("with a witness", u64::from(plan.witness.is_some()));
    observer.report.simulated = simulated;
    let violation = observer.violation().or(ended.err());
    *trace = std::mem::take(&mut observer.trace);
    Outcome { report: std::mem::take(&mut observer.report), violation }
}
