//! Logs on simulated disks, as a start for edits.

use crate::{Crash, SimulatedDisk};
use bytes::Bytes;
use quorate_raft::{
    Batch, BatchBuilder, Cut, EntryId, HardState, Index, Kind, Membership, NodeId, Persist, SnapshotBase, Term, record,
};
use quorate_storage::{
    Recovered,
    internals::{
        Header, Identity, Layout, Log, Mark, Outcome, Sizes, open_log,
        slot::{self, Slot},
    },
};
use std::path::PathBuf;

pub(super) const DIR: &str = "log";
/// Start of the slots of a segment.
pub(super) const SLOTS_AT: usize = 8192;

pub(super) fn identity() -> Identity {
    Identity { cluster: "test".into(), member: NodeId(1) }
}

const SIZES: Sizes = Sizes { segment: 16 << 10, gap: 512, headroom: 1 << 10, has_slots: true };

/// Space left on each disk: allocating by a damaged length exceeds it.
const SPACE_BYTES: u64 = 1 << 20;

/// Opens the log on `disk`, as a node does when it starts.
pub(super) fn open(disk: &SimulatedDisk) -> Outcome<(Log, Recovered)> {
    disk.fill_after(SPACE_BYTES);
    open_log(disk.clone(), DIR, SIZES, &identity())
}

/// The header of a first segment with this layout.
pub(super) fn header(sequence: u64, layout: Layout) -> Header {
    Header {
        identity: identity(),
        sequence,
        previous: EntryId::default(),
        previous_checksum: 0,
        starts_over: false,
        layout,
        published_bytes: 0,
    }
}

/// `count` entries of a term after the given entry; the last one of more than four is a membership.
pub(super) fn batch(term: u64, after: (EntryId, u32), count: usize, payload_bytes: usize) -> Batch {
    let (last, checksum) = after;
    let mut builder = BatchBuilder::new(quorate_storage::checksum, Term(term), last.index.next(), checksum, 0);
    for number in 0..count {
        let payload: Vec<u8> = (0..payload_bytes).map(|at| (at * 7 + number) as u8 | 1).collect();
        match number {
            4 => builder.push(Kind::Membership, &Membership::of_voters([NodeId(1), NodeId(2)]).encode()),
            _ if payload.is_empty() => builder.push(Kind::Noop, &payload),
            _ => builder.push(Kind::Command, &payload),
        }
    }
    builder.finish().expect("there is an entry")
}

/// A good segment with three groups of entries.
pub(super) fn a_segment() -> (Vec<u8>, Header) {
    let records_at = SLOTS_AT as u64 + 512 + 512;
    let layout = Layout { slots_at: SLOTS_AT as u64, slots_bytes: 512, records_at, capacity: records_at + 4096 };
    let header = header(7, layout);
    let (mut bytes, mut slots, mut after) = (vec![0; records_at as usize], Vec::new(), (EntryId::default(), 0));
    for (number, count) in (0u32..).zip([3, 1, 5]) {
        let batch = batch(1 + u64::from(number) / 2, after, count, 60);
        let mark = Mark { segment: 7, number, count: batch.count(), bytes: batch.bytes().len() as u32 };
        let (seed, extent) = (slot::group_seed(7, after.1), mark.extent(bytes.len() as u64));
        bytes.extend(mark.encode());
        let (mut at, mut in_group) = (bytes.len(), Vec::new());
        for record in batch.records() {
            let slot = Slot::of(&record, at as u64);
            slots.extend(slot.encode(slot::seed(7)));
            in_group.extend(slot.encode(seed));
            at += record::OVERHEAD_BYTES + record.payload.len();
        }
        bytes.extend_from_slice(batch.bytes());
        bytes.resize(extent.slots_at as usize, 0);
        bytes.extend(in_group);
        after = (batch.last_id(), batch.checksum());
    }
    bytes[SLOTS_AT..SLOTS_AT + slots.len()].copy_from_slice(&slots);
    for at in [0, 4096] {
        bytes[at..at + 512].copy_from_slice(&header.encode());
    }
    bytes.resize(layout.capacity as usize, 0);
    (bytes, header)
}

/// Disks with logs of nodes, and an empty one.
pub(super) fn disks() -> Vec<SimulatedDisk> {
    let disks = [SimulatedDisk::new(), truncated(), cut(), torn()];
    disks.iter().for_each(|disk| disk.crash(Crash::Keep));
    disks.to_vec()
}

/// Writes to a log, and tracks its end.
struct Writer {
    log: Log,
    last: (EntryId, u32),
}

impl Writer {
    fn on(disk: &SimulatedDisk) -> Self {
        let (log, recovered) = open(disk).unwrap_or_else(|failure| panic!("it opens: {}", failure.error));
        Self { log, last: (recovered.last, recovered.last_checksum) }
    }

    fn append(&mut self, term: u64, count: usize, payload_bytes: usize) {
        let batch = batch(term, self.last, count, payload_bytes);
        self.last = (batch.last_id(), batch.checksum());
        self.persist(Persist { batch: Some(batch), ..Persist::default() });
    }

    fn persist(&mut self, persist: Persist) {
        let done = self.log.stage(&persist).and_then(|()| self.log.sync()).and_then(|()| self.log.settle());
        done.unwrap_or_else(|failure| panic!("it is persisted: {}", failure.error));
    }
}

/// Three segments, from two truncations, and a vote.
fn truncated() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let mut writer = Writer::on(&disk);
    for (term, count, payload_bytes) in [(1, 5, 40), (1, 2, 300), (2, 3, 0)] {
        let before = writer.last;
        writer.append(term, count, payload_bytes);
        if term == 1 {
            writer.persist(Persist { truncate_from: Some(before.0.index.next()), ..Persist::default() });
            writer.last = before;
            writer.append(1, count, payload_bytes + 1);
        }
    }
    let vote = HardState::new(Term(3), Some(NodeId(2)));
    writer.persist(Persist { hard_state: Some(vote), ..Persist::default() });
    writer.append(3, 6, 20);
    disk
}

/// A log that begins after a snapshot, and known members.
fn cut() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let mut writer = Writer::on(&disk);
    writer.append(1, 6, 30);
    let (last, last_checksum) = writer.last;
    let base = SnapshotBase {
        last,
        last_checksum,
        membership: Membership::of_voters([NodeId(1), NodeId(2)]),
        membership_index: Index(0),
    };
    let mut sink = writer.log.snapshots().begin(base, None).expect("begun");
    std::io::Write::write_all(&mut sink, b"the state so far").expect("written");
    sink.finish().expect("finished");
    writer.append(2, 3, 30);
    writer.persist(Persist { cut: Some(Cut { to: last, checksum: None }), ..Persist::default() });
    writer.log.remember(&[(NodeId(2), Index(4))]).unwrap_or_else(|failure| panic!("{}", failure.error));
    disk
}

/// The segments with a header: one that was named ahead has none yet.
fn segments(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let is_used = |path: &PathBuf| disk.contents(path).is_some_and(|bytes| bytes.starts_with(b"QUORSEGM"));
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|name| name == "segment");
    disk.paths().into_iter().filter(is_segment).filter(is_used).collect()
}

/// A torn write at the end, and an entry with a lost record before.
fn torn() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let mut writer = Writer::on(&disk);
    writer.append(1, 3, 200);
    writer.append(2, 4, 90);
    drop(writer);
    let path = segments(&disk).pop().expect("there is a segment");
    let bytes = disk.contents(&path).expect("it is there");
    let lost = Bytes::from(vec![1u8; 16]);
    let at = bytes.windows(4).rposition(|window| window == b"MARK").expect("there is a mark") + 100;
    let mut damaged = bytes;
    damaged[at..at + lost.len()].copy_from_slice(&lost);
    damaged[at + 200..].fill(0);
    disk.put(&path, damaged);
    disk
}
