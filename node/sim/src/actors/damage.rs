//! The damage to disks, where [`sound_disks`](super::sound_disks) permits it.
//!
//! A damaged stretch is shorter than the distance between the two places of an entry, so no damage
//! covers both. For less than a second, until its slot is in the table, an entry has them in different
//! sectors alone: so of these entries one sector is damaged.

use super::{cluster::Cluster, member::Copied, sound_disks::may_lose};
use crate::plan::{Fault, Power};
use quorate::{Index, NodeId, Term};
use quorate_raft::record::OVERHEAD_BYTES;
use quorate_storage::internals::{COPY_AT, Header, slot::Table};
use quorate_storage_testing::{Crash, Operation, SimulatedDisk};
use rand::{Rng, rngs::SmallRng};
use std::{path::PathBuf, time::Duration};

/// The longest damaged stretch, in bytes.
const STRETCH_MAX: usize = 2048;
const SECTOR: usize = 512;

impl Cluster<'_> {
    /// Kills a node and damages its disk; the node starts again after `down`.
    pub(super) fn damage(&mut self, node: NodeId, fault: &Fault, down: Duration) {
        if !may_lose(node, &self.members, &self.observer) {
            return self.observer.lock().report.count("damage held back", 1);
        }
        self.kill(node, Power::Kept, down);
        let mut observer = self.observer.lock();
        let disk = observer.disk(node).disk.clone();
        let Some(place) = Place::of(&disk, &mut self.random) else { return };
        let Place { path, from, bytes } = &place;
        let range = *from..from + bytes;
        let done = match fault {
            Fault::Flip { .. } => {
                let flips = (0..self.random.random_range(1..4)).map(|_| self.random.random_range(range.clone()));
                flips.collect::<Vec<_>>().into_iter().all(|at| disk.flip(path, at, 1 << self.random.random_range(0..8)))
            }
            Fault::Zero { .. } => disk.zero(path, range),
            Fault::Misdirect { .. } => {
                let other = Place::of(&disk, &mut self.random);
                other.is_some_and(|other| disk.misplace(path, range, &other.path, other.from))
            }
            _ => {
                disk.wear_out(path, range.start as u64..range.end as u64);
                true
            }
        };
        if done {
            let disk = observer.disk(node);
            disk.is_damaged = true;
            disk.is_misplaced |= matches!(fault, Fault::Misdirect { .. });
            observer.report.fired(fault.kind());
            observer.trace.hash(&(node, &place.path, place.from, place.bytes));
            observer
                .say(format_args!("of {node}, {bytes} bytes of {} from byte {from} on are damaged", path.display()));
        }
    }

    /// Empties a node's directory. The others remember its log: they must tell it, and
    /// it must stop.
    pub(super) fn wipe(&mut self, node: NodeId, down: Duration) {
        if !may_lose(node, &self.members, &self.observer) || self.plan.nodes < 3 {
            return;
        }
        self.kill(node, Power::Kept, down);
        let member = self.member(node);
        member.lost_by = Some("wipe");
        let mut observer = self.observer.lock();
        observer.wiped(node);
        observer.say(format_args!("the directory of {node} is emptied"));
    }

    /// Copies the durable part of a node's directory.
    pub(super) fn copy(&mut self, node: NodeId) {
        let led =
            self.led_by_another(node).filter(|_| may_lose(node, &self.members, &self.observer) && self.plan.nodes >= 3);
        let mut observer = self.observer.lock();
        let copied = led.map(|led| Copied {
            disk: observer.disk(node).disk.fork(),
            promised: observer.promised(node).clone(),
            led,
        });
        drop(observer);
        if let Some(copied) = &copied {
            copied.disk.crash(Crash::Lose);
        }
        self.member(node).copy = copied;
    }

    /// Puts a node's directory back to its copy, if the current leader knows that the node held
    /// more, so that no vote is lost. The others must tell the node, and it must stop.
    pub(super) fn put_back(&mut self, node: NodeId) {
        let Some(Copied { disk, promised, led }) = self.member(node).copy.take() else { return };
        let acknowledged = self.member(node).status().map_or(Index(0), |status| status.commit);
        let lacks = promised.last() > Index(0) && promised.last() < acknowledged;
        if !lacks || self.led_by_another(node) != Some(led) || !may_lose(node, &self.members, &self.observer) {
            return self.observer.lock().report.count("damage held back", 1);
        }
        let down = Duration::from_millis(self.random.random_range(5..1_500));
        self.kill(node, Power::Kept, down);
        self.member(node).lost_by = Some("put-back");
        let mut observer = self.observer.lock();
        observer.wiped(node);
        observer.say(format_args!("the directory of {node} is put back to where its log ended at {}", promised.last()));
        let place = observer.disk(node);
        (place.disk, place.promised) = (disk, promised);
    }

    /// The leader that all members follow, if it is another node, and its term.
    fn led_by_another(&self, node: NodeId) -> Option<(NodeId, Term)> {
        let status = self.members.first()?.status()?;
        let led = (status.leader?, status.term);
        let follows = |status: quorate::Status| (status.leader, status.term) == (Some(led.0), led.1);
        let all_follow = self.members.iter().all(|member| member.status().is_some_and(follows));
        Some(led).filter(|_| led.0 != node && all_follow)
    }
}

/// The disk operation that is to fail, mostly a sync, and its ordinal among its kind.
pub(super) fn failing(random: &mut SmallRng) -> (Operation, u64) {
    let operation = match random.random_range(0..10) {
        0 => Operation::Write,
        1 => Operation::SyncDir,
        2 => Operation::Rename,
        3 => Operation::Open,
        _ => Operation::Sync,
    };
    (operation, random.random_range(1..8))
}

/// A stretch of a file that holds data.
struct Place {
    path: PathBuf,
    from: usize,
    bytes: usize,
}

impl Place {
    fn of(disk: &SimulatedDisk, random: &mut SmallRng) -> Option<Self> {
        let paths = disk.paths();
        let path = paths.get(random.random_range(0..paths.len().max(1)))?.clone();
        let contents = disk.contents(&path)?;
        let written: Vec<_> = (0..contents.len().div_ceil(SECTOR))
            .filter(|sector| contents[sector * SECTOR..].iter().take(SECTOR).any(|byte| *byte != 0))
            .collect();
        let from = written.get(random.random_range(0..written.len().max(1)))? * SECTOR;
        let longest = if from + STRETCH_MAX > in_table_to(&contents) { SECTOR } else { STRETCH_MAX };
        let bytes = random.random_range(1..=STRETCH_MAX).min(longest).min(contents.len() - from);
        Some(Self { path, from, bytes })
    }
}

/// The end of the records in a segment whose slots are in its table. No limit for any other file.
fn in_table_to(contents: &[u8]) -> usize {
    let copies = [0, COPY_AT].into_iter().filter_map(|at| contents.get(at..));
    let Some(header) = copies.filter_map(|copy| Header::decode(copy).ok()).next() else { return usize::MAX };
    let table = Table::of(contents, &header);
    let used = table.indexes_from(header.first()).take_while(|index| table.is_used(*index));
    let ends = used.filter_map(|index| table.get(index));
    let ends = ends.map(|slot| slot.offset as usize + OVERHEAD_BYTES + slot.payload_bytes as usize);
    ends.max().unwrap_or(header.layout.records_at as usize)
}
