//! Paths that are cut, slow, or flap.

use super::{ELECTION, SECOND, burst, with_sections};
use crate::{
    episode::{Fault, PLAIN, World},
    support::PATIENCE,
};
use quorate::NodeId;
use quorate_kv::{
    cluster::{Options, PathFault},
    http::messages::StatusAnswer,
};
use std::time::Duration;

const CUT: Option<PathFault> = Some(PathFault::Cut);
/// Together more than half a second for a round trip, alone less than an election timeout.
const SLOW: Option<PathFault> = Some(PathFault::Slow(Duration::from_millis(320)));
/// Until attempts to connect failed, and the last one that succeeded is outside of the rule's window of 15 s.
const ATTEMPTS: Duration = Duration::from_secs(25);
/// One more than the changes that the rule permits, and two in reserve: they must be within 30 s.
const FLAPS: usize = 8;

const WITH_PATHS: Fault = Fault { options: |options| Options { paths: true, ..options }, repair: heal, ..PLAIN };

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "a follower is cut off",
        alert: "QuorateNodeWithoutLeader",
        consequences: &["QuorateNoMargin", "QuoratePeerUnreachable"],
        visible: ELECTION,
        inject: |world| {
            Box::pin(async {
                let cut_off = world.followers[0];
                set_all(world, cut_off, CUT);
                Some(())
            })
        },
        ..WITH_PATHS
    },
    Fault {
        name: "the path from the leader to a follower is cut, in this direction only",
        alert: "QuorateNodeWithoutLeader",
        consequences: &["QuorateNoMargin", "QuoratePeerUnreachable"],
        visible: ELECTION,
        inject: |world| {
            Box::pin(async {
                set(world, world.leader, world.followers[0], CUT);
                Some(())
            })
        },
        ..WITH_PATHS
    },
    Fault {
        name: "the path between two followers is cut",
        alert: "QuoratePeerUnreachable",
        visible: ATTEMPTS,
        inject: |world| {
            Box::pin(async {
                let (one, other) = (world.followers[0], world.followers[1]);
                set(world, one, other, CUT);
                set(world, other, one, CUT);
                Some(())
            })
        },
        ..WITH_PATHS
    },
    Fault {
        name: "all paths are slow",
        alert: "QuorateSlowCommits",
        visible: SECOND.saturating_mul(5),
        inject: |world| {
            Box::pin(async {
                for id in world.cluster.ids() {
                    set_all(world, id, SLOW);
                }
                Some(())
            })
        },
        ..WITH_PATHS
    },
    Fault {
        name: "the network of each leader flaps",
        alert: "QuorateFrequentTermChanges",
        possible: &["QuorateNodeWithoutLeader", "QuorateNoLeader", "QuorateNoMargin", "QuorateSlowCommits"],
        visible: SECOND,
        inject: |world| {
            Box::pin(async {
                for _ in 0..FLAPS {
                    let leader = world.cluster.leader(PATIENCE).await.expect("a leader").node_id;
                    set_all(world, leader, CUT);
                    let leads = |status: &StatusAnswer| status.role == "leader" && status.node_id != leader;
                    let next = |statuses: &[StatusAnswer]| statuses.iter().any(leads).then_some(());
                    world.cluster.eventually(PATIENCE, "another leader", next).await.expect("two hear each other");
                    set_all(world, leader, None);
                }
                Some(())
            })
        },
        ..WITH_PATHS
    },
    Fault {
        name: "a follower that needs a snapshot is cut off",
        alert: "QuorateSnapshotStuck",
        consequences: &["QuorateNodeWithoutLeader", "QuorateNoMargin", "QuoratePeerUnreachable"],
        // The first bytes may have been sent: the window of the rule, 15 s.
        visible: SECOND.saturating_mul(16),
        options: |options| {
            let sections = "[snapshot]\nevery_entries = 200\nkeep_entries = 10\n\n[storage]\nsegment_bytes = 65536\n";
            with_sections(Options { paths: true, ..options }, sections)
        },
        inject: |world| {
            Box::pin(async {
                let cut_off = world.followers[0];
                let last = world.cluster.status(cut_off).await.expect("it answers").last_log_index;
                set_all(world, cut_off, CUT);
                burst(world, 1200, 100).await;
                let leader = world.leader;
                super::until(world, leader, "a log that is cut", |status| status.first_log_index > last).await;
                Some(())
            })
        },
        ..WITH_PATHS
    },
];

fn set(world: &World, from: NodeId, to: NodeId, fault: Option<PathFault>) {
    world.cluster.paths().expect("proxies").set(from, to, fault);
}

/// All paths to and from a node.
fn set_all(world: &World, id: NodeId, fault: Option<PathFault>) {
    for other in world.cluster.ids().into_iter().filter(|other| *other != id) {
        set(world, id, other, fault);
        set(world, other, id, fault);
    }
}

fn heal(world: &mut World) -> crate::episode::Step<'_> {
    Box::pin(async {
        for id in world.cluster.ids() {
            set_all(world, id, None);
        }
        Some(())
    })
}
