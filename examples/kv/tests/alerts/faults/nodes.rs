//! Processes that end, freeze, or get too little time.

use super::{ELECTION, SECOND, background, burst};
use crate::episode::{Fault, PLAIN, World};
use quorate::NodeId;
use quorate_kv::cluster::{Options, Signal};
use std::time::Duration;
use tokio::time::sleep;

/// A process that is stopped and continued: the timers of the node, four per heartbeat of 100 ms, are
/// on time six times, and then once late by the stop.
const STOPPED: Duration = Duration::from_millis(300);
const CONTINUED: Duration = Duration::from_millis(150);
/// More than the lag that the rule permits.
const LAG: usize = 10_500;

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "a follower is killed",
        alert: "QuorateNodeDown",
        consequences: &["QuorateNoMargin"],
        inject: |world| Box::pin(async { kill(world, &[world.followers[0]]).await }),
        ..PLAIN
    },
    Fault {
        name: "the leader is killed",
        alert: "QuorateNodeDown",
        consequences: &["QuorateNoMargin"],
        inject: |world| Box::pin(async { kill(world, &[world.leader]).await }),
        ..PLAIN
    },
    Fault {
        name: "two of three nodes are killed",
        alert: "QuorateNoLeader",
        consequences: &["QuorateNodeDown"],
        visible: ELECTION,
        inject: |world| Box::pin(async { kill(world, &[world.leader, world.followers[0]]).await }),
        ..PLAIN
    },
    Fault {
        name: "two of five nodes are killed",
        alert: "QuorateNoMargin",
        consequences: &["QuorateNodeDown"],
        options: |options| Options { nodes: 5, ..options },
        inject: |world| Box::pin(async { kill(world, &[world.followers[0], world.followers[1]]).await }),
        ..PLAIN
    },
    Fault {
        name: "the leader freezes",
        alert: "QuorateNodeDown",
        consequences: &["QuorateNoMargin"],
        inject: |world| {
            Box::pin(async {
                world.cluster.signal(world.leader, Signal::STOP).expect("it runs");
                Some(())
            })
        },
        ..PLAIN
    },
    Fault {
        name: "a follower gets too little processor time",
        alert: "QuorateEventLoopLate",
        possible: &["QuorateNodeDown"],
        // The window of the rule's rate, before which one timer in ten was not late.
        visible: SECOND.saturating_mul(16),
        inject: |world| {
            Box::pin(async {
                let pid = world.cluster.pid(world.followers[0]).expect("it runs");
                world.fault.push(background(starve(pid)));
                Some(())
            })
        },
        repair: |world| {
            Box::pin(async {
                world.fault.clear();
                world.cluster.signal(world.followers[0], Signal::CONT).expect("it runs");
                Some(())
            })
        },
        ..PLAIN
    },
    Fault {
        name: "a follower freezes under a high load",
        alert: "QuorateFollowerLag",
        consequences: &["QuorateNodeDown", "QuorateNoMargin"],
        visible: SECOND,
        inject: |world| {
            Box::pin(async {
                world.cluster.signal(world.followers[0], Signal::STOP).expect("it runs");
                burst(world, LAG, 10).await;
                Some(())
            })
        },
        ..PLAIN
    },
];

async fn kill(world: &mut World, ids: &[NodeId]) -> Option<()> {
    for id in ids {
        world.cluster.kill(*id).await.expect("killed");
    }
    Some(())
}

/// Pulses of a scheduler that has something better to do.
async fn starve(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process id");
    loop {
        for (signal, time) in [(Signal::STOP, STOPPED), (Signal::CONT, CONTINUED)] {
            if rustix::process::kill_process(pid, signal).is_err() {
                return;
            }
            sleep(time).await;
        }
    }
}
