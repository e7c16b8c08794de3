//! Disks that are slow, hang, fail, or have too little space.

use super::{SECOND, small_disk::SmallDisk, until, with_sections};
use crate::{
    episode::{Fault, Kept, PLAIN, Step, World},
    strace::Strace,
    support::{PATIENCE, Running},
};
use quorate::NodeId;
use std::{path::Path, time::Duration};

/// The interval at which a node measures its free space, twice.
const MEASURED: Duration = Duration::from_secs(10);
/// Small segments, so that a full disk is noticed soon: within one, no space is needed.
const SMALL_SEGMENTS: &str = "[storage]\nsegment_bytes = 131072\n";
/// Snapshots are always due.
const SNAPSHOTS: &str = "[snapshot]\nevery_entries = 100\nkeep_entries = 50\n\n[storage]\nsegment_bytes = 4194304\n";
/// A state that does not fit twice on the disk that is left.
const STATE_BYTES: usize = 40 << 20;
const LEFT: u64 = 24 << 20;

const ON_DISKS: Fault = Fault { prepare: mount, repair: free, ..PLAIN };
const TRACED: Fault = Fault { repair: detach, ..PLAIN };

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "the disk of a follower is slow",
        alert: "QuorateSlowFsync",
        visible: SECOND.saturating_mul(5),
        inject: |world| Box::pin(async { slow(world, world.followers[0], Duration::from_millis(250)).await }),
        ..TRACED
    },
    Fault {
        name: "all disks are slow",
        alert: "QuorateSlowCommits",
        consequences: &["QuorateSlowFsync"],
        visible: SECOND.saturating_mul(5),
        inject: |world| {
            Box::pin(async {
                for id in world.cluster.ids() {
                    slow(world, id, Duration::from_millis(550)).await?;
                }
                Some(())
            })
        },
        ..TRACED
    },
    Fault {
        name: "the disk of a follower hangs",
        alert: "QuorateThreadStuck",
        possible: &["QuorateSlowFsync"],
        // The silence at which the rule begins, and the second between two looks.
        visible: SECOND.saturating_mul(8),
        inject: |world| Box::pin(async { slow(world, world.followers[0], SECOND * 60).await }),
        ..TRACED
    },
    Fault {
        name: "fdatasync fails on a follower",
        alert: "QuorateNodeDown",
        consequences: &["QuorateNoMargin"],
        // The process ends a moment after the count; a scrape may come between.
        possible: &["QuorateStorageErrors"],
        visible: SECOND,
        inject: |world| {
            Box::pin(async {
                let victim = world.followers[0];
                let (pid, notes) = (world.cluster.pid(victim).expect("it runs"), world.cluster.path("strace"));
                world.fault.push(Box::new(Strace::fail_fdatasync(pid, 3, Path::new(&notes)).await?));
                world.cluster.ended(victim, PATIENCE).await.expect("it ends by itself");
                Some(())
            })
        },
        ..TRACED
    },
    Fault {
        name: "the disk of the leader is full",
        alert: "QuorateStorageFull",
        // Shown until the next measurement.
        possible: &["QuorateLowSpace"],
        visible: SECOND,
        options: |options| with_sections(options, SMALL_SEGMENTS),
        inject: |world| {
            Box::pin(async {
                let full = world.leader;
                SmallDisk::leave(&world.cluster.layout().data_dir(full), 0);
                let mut client = world.cluster.client(&[world.leader]).expect("a client").with_limit(SECOND);
                while !world.cluster.status(full).await.is_ok_and(|status| status.storage_full) {
                    // It is noticed once the log needs a new segment.
                    let _ = client.put("large", "v".repeat(10_000)).await;
                }
                Some(())
            })
        },
        ..ON_DISKS
    },
    Fault {
        name: "the disk of a follower has little space",
        alert: "QuorateLowSpace",
        visible: MEASURED,
        inject: |world| {
            Box::pin(async {
                SmallDisk::leave(&world.cluster.layout().data_dir(world.followers[0]), 500 << 20);
                Some(())
            })
        },
        ..ON_DISKS
    },
    Fault {
        name: "the disk of a follower has no space for a snapshot",
        alert: "QuorateSnapshotsFailing",
        consequences: &["QuorateLowSpace", "QuorateStorageErrors"],
        possible: &["QuorateStorageFull"],
        // Three failures, a second and two apart.
        visible: SECOND.saturating_mul(10),
        options: |options| with_sections(options, SNAPSHOTS),
        inject: |world| {
            Box::pin(async {
                let victim = world.followers[0];
                let mut client = world.cluster.client(&world.cluster.ids()).expect("a client");
                for number in 0..STATE_BYTES / 1_000_000 {
                    client.put(&format!("large-{number}"), vec![b'v'; 1_000_000]).await.expect("written");
                }
                let last = world.cluster.status(world.leader).await.expect("it answers").commit_index;
                until(world, victim, "the large state", |status| status.applied_index >= last).await;
                // A snapshot that was written meanwhile makes room for the next one.
                let mut client = world.cluster.client(&[victim]).expect("a client");
                loop {
                    SmallDisk::leave(&world.cluster.layout().data_dir(victim), LEFT);
                    if client.snapshot().await.is_err() {
                        return Some(());
                    }
                }
            })
        },
        ..ON_DISKS
    },
];

fn mount<'a>(cluster: &'a mut Running, kept: &'a mut Kept) -> Step<'a> {
    Box::pin(async {
        for id in cluster.ids() {
            kept.push(Box::new(SmallDisk::mount(&cluster.layout().data_dir(id))?));
        }
        Some(())
    })
}

fn free(world: &mut World) -> Step<'_> {
    Box::pin(async {
        for id in world.cluster.ids() {
            SmallDisk::free(&world.cluster.layout().data_dir(id));
        }
        Some(())
    })
}

/// Makes each `fdatasync` of a node take this much longer.
async fn slow(world: &mut World, id: NodeId, by: Duration) -> Option<()> {
    let (pid, notes) = (world.cluster.pid(id).expect("it runs"), world.cluster.path(&format!("strace-{id}")));
    world.fault.push(Box::new(Strace::delay_fdatasync(pid, by, Path::new(&notes)).await?));
    Some(())
}

fn detach(world: &mut World) -> Step<'_> {
    Box::pin(async {
        world.fault.clear();
        Some(())
    })
}
