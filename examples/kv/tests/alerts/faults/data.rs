//! Data that are lost, rot on the disk, or change in memory.

use super::{SECOND, burst, until, with_sections};
use crate::{
    episode::{Fault, PLAIN, Step, World},
    support::PATIENCE,
};
use quorate_kv::cluster::{Options, PathFault};
use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};
use tokio::task::block_in_place;

/// A value that is nowhere else.
const FRAGILE: &str = "a value that one bit of damaged memory changes: 8f4e1c0a5b6d";
const ROTTEN: &str = "a value that one bit of a damaged disk changes: 2c7d90e1f3a8";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "the data directory of a follower is emptied",
        alert: "QuorateMemberLostData",
        consequences: &["QuorateNodeDown", "QuorateNoMargin"],
        visible: SECOND.saturating_mul(3),
        options: |options| Options { joiners: 1, ..options },
        inject: |world| {
            Box::pin(async {
                let victim = world.followers[0];
                world.cluster.stop(victim).await.expect("stopped");
                fs::remove_dir_all(world.cluster.layout().data_dir(victim)).expect("removed");
                // It serves until another member tells it, or ends even before that.
                if world.cluster.start_node(victim).await.is_ok() {
                    world.cluster.ended(victim, PATIENCE).await.expect("it ends by itself");
                }
                Some(())
            })
        },
        ..PLAIN
    },
    Fault {
        name: "an entry rots on the disk of a follower that is cut off",
        alert: "QuorateFaultyEntries",
        consequences: &["QuorateNodeWithoutLeader", "QuorateNoMargin", "QuoratePeerUnreachable"],
        // Its restart may take longer than the rule permits.
        possible: &["QuorateNodeDown"],
        visible: SECOND.saturating_mul(2),
        options: |options| with_sections(Options { paths: true, ..options }, "[storage]\nsegment_bytes = 131072\n"),
        inject: |world| {
            Box::pin(async {
                let victim = world.followers[0];
                world.cluster.client(&[world.leader]).expect("a client").put("rotten", ROTTEN).await.expect("written");
                let last = world.cluster.status(world.leader).await.expect("it answers").commit_index;
                until(world, victim, "the value", |status| status.applied_index >= last).await;
                world.cluster.stop(victim).await.expect("stopped");
                let dir = world.cluster.layout().data_dir(victim);
                // The proxies go on meanwhile.
                let places = block_in_place(|| flip_files(&dir, ROTTEN.as_bytes()));
                assert!(places > 0, "the value is on the disk");
                cut(world, Some(PathFault::Cut));
                world.cluster.start_node(victim).await.expect("damage is no reason not to start");
                Some(())
            })
        },
        repair: |world| {
            Box::pin(async {
                cut(world, None);
                Some(())
            })
        },
        ..PLAIN
    },
    Fault {
        name: "a bit of the memory of a follower flips",
        alert: "QuorateCopiesDiffer",
        consequences: &["QuorateNodeDown", "QuorateNoMargin"],
        visible: SECOND,
        options: |options| Options { joiners: 1, ..options },
        inject: flip_memory,
        ..PLAIN
    },
];

/// Cuts or heals all paths of the first follower.
fn cut(world: &World, fault: Option<PathFault>) {
    let paths = world.cluster.paths().expect("proxies");
    for other in [world.leader, world.followers[1]] {
        paths.set(world.followers[0], other, fault);
        paths.set(other, world.followers[0], fault);
    }
}

/// Changes a value in the memory of a follower. A command that compares the value then has another result
/// there, which the nodes find when they compare their copies, every 1,024 entries.
fn flip_memory(world: &mut World) -> Step<'_> {
    Box::pin(async {
        let victim = world.followers[0];
        let mut client = world.cluster.client(&[world.leader]).expect("a client");
        client.put("fragile", FRAGILE).await.expect("written");
        let last = world.cluster.status(world.leader).await.expect("it answers").commit_index;
        until(world, victim, "the value", |status| status.applied_index >= last).await;
        let pid = world.cluster.pid(victim).expect("it runs");
        let places = block_in_place(|| flip_process(pid, FRAGILE.as_bytes()));
        assert!(places > 0, "the value is in its memory");
        assert!(client.cas("fragile", Some(FRAGILE), "another").await.expect("written").swapped);
        // As many as are compared, and claims of them.
        for _ in 0..10 {
            burst(world, 400, 10).await;
            if world.is_down(victim) {
                break;
            }
        }
        world.cluster.ended(victim, PATIENCE).await.expect("it ends by itself");
        Some(())
    })
}

/// Damages each occurrence of these bytes in a directory's files, and returns their number.
fn flip_files(dir: &Path, bytes: &[u8]) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() {
            count += flip_files(&entry, bytes);
            continue;
        }
        let mut content = fs::read(&entry).expect("readable");
        let places = places_of(&content, bytes);
        places.iter().for_each(|at| content[at + 3] ^= 0x40);
        if !places.is_empty() {
            fs::write(&entry, content).expect("written");
        }
        count += places.len();
    }
    count
}

/// Damages each occurrence of these bytes in the writable memory of a process, and returns their number.
fn flip_process(pid: u32, bytes: &[u8]) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    let memory = fs::OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"));
    let (mut memory, mut count) = (memory.expect("the memory of a child"), 0);
    for line in maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let range = line.split_whitespace().next().and_then(|range| range.split_once('-'));
        let address = |text: &str| u64::from_str_radix(text, 16).expect("an address");
        let (from, to) = range.map(|(from, to)| (address(from), address(to))).expect("a range");
        let mut content = vec![0; usize::try_from(to - from).expect("it fits")];
        // A region that can't be read is one of the kernel.
        if memory.seek(SeekFrom::Start(from)).is_err() || memory.read_exact(&mut content).is_err() {
            continue;
        }
        for at in places_of(&content, bytes) {
            memory.seek(SeekFrom::Start(from + at as u64 + 3)).expect("an address");
            memory.write_all(&[content[at + 3] ^ 0x40]).expect("writable");
            count += 1;
        }
    }
    count
}

fn places_of(content: &[u8], bytes: &[u8]) -> Vec<usize> {
    // Most of it is zeros; searching for the first byte is fast.
    let starts = content.iter().enumerate().filter(|(_, byte)| **byte == bytes[0]);
    starts.map(|(at, _)| at).filter(|at| content[*at..].starts_with(bytes)).collect()
}
