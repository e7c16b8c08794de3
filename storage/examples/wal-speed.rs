//! What the table of slots costs: the same groups of records written and synced with it and without it, in turns.
//!
//! ```text
//! cargo run --release -p quorate-storage --example wal-speed -- DIR SECONDS
//! ```
//!
//! "Without" is the log as it would be if each entry had one place: one write of a mark and the records, one `fdatasync`, into a
//! file of zeros of the same size. "With" writes the slots as well, and when there is time a proof, as the log does. A JSON line
//! a shape of groups; `ratio` is with over without.

use quorate_raft::{BatchBuilder, Index, Kind, Term};
use quorate_storage::disk::{Disk, File, Pace, RealDisk};
use std::{
    env,
    error::Error,
    io::IoSlice,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let dir: PathBuf = args.next().unwrap_or_else(|| ".".into()).into();
    let seconds: u64 = args.next().map_or(Ok(10), |seconds| seconds.parse())?;
    for (entries, payload_bytes) in [(1, 256), (64, 256), (1024, 256), (1, 16), (64, 16), (1024, 16), (8, 65_536)] {
        let group = Group::new(entries, payload_bytes);
        let mut both = [Lane::new(&dir, "wal-speed-with", true)?, Lane::new(&dir, "wal-speed-without", false)?];
        let end = Instant::now() + Duration::from_secs(seconds);
        // In turns, a few groups each, so that whatever else the disk does meets both.
        while Instant::now() < end {
            for lane in &mut both {
                lane.run(&group, 16)?;
            }
        }
        let [with, without] = both.map(|lane| lane.entries_per_s());
        println!(
            "{{\"entries\":{entries},\"payload_bytes\":{payload_bytes},\"with_per_s\":{with:.0},\"without_per_s\":{without:.0},\"ratio\":{:.3}}}",
            with / without
        );
    }
    Ok(())
}

const SLOT_BYTES: usize = 40;
const MARK_BYTES: usize = 32;
const SEGMENT_BYTES: u64 = 64 << 20;
const SLOTS_AT: u64 = 8192;
const SLOTS_BYTES: u64 = SEGMENT_BYTES / 8;
const RECORDS_AT: u64 = SLOTS_AT + SLOTS_BYTES + (1 << 20);

/// Records as one sync takes them.
struct Group {
    bytes: bytes::Bytes,
    entries: usize,
    batch: quorate_raft::Batch,
}

impl Group {
    fn new(entries: usize, payload_bytes: usize) -> Self {
        let mut builder = BatchBuilder::new(quorate_storage::checksum, Term(1), Index(1), 0, 0);
        let payload: Vec<u8> = (0..payload_bytes).map(|at| at as u8 | 1).collect();
        (0..entries).for_each(|_| builder.push(Kind::Command, &payload));
        let batch = builder.finish().expect("there are entries");
        Self { bytes: batch.bytes().clone(), entries, batch }
    }
}

/// A file that is written to, from the beginning again when it is full.
struct Lane {
    file: Box<dyn File>,
    path: PathBuf,
    has_slots: bool,
    records_end: u64,
    slots_end: u64,
    slots: Vec<u8>,
    entries: usize,
    took: Duration,
}

impl Lane {
    fn new(dir: &Path, name: &str, has_slots: bool) -> Result<Self, Box<dyn Error>> {
        let path = dir.join(name);
        drop(RealDisk.remove(&path));
        let file = RealDisk.create(&path)?;
        file.allocate(RECORDS_AT + SEGMENT_BYTES - SLOTS_BYTES, Pace::AtOnce)?;
        file.sync_data()?;
        let (records_end, slots_end) = (RECORDS_AT, SLOTS_AT);
        Ok(Self { file, path, has_slots, records_end, slots_end, slots: Vec::new(), entries: 0, took: Duration::ZERO })
    }

    fn run(&mut self, group: &Group, groups: usize) -> Result<(), Box<dyn Error>> {
        for _ in 0..groups {
            let (bytes, slots) = ((MARK_BYTES + group.bytes.len()) as u64, (group.entries * SLOT_BYTES) as u64);
            if self.records_end + bytes > RECORDS_AT + SEGMENT_BYTES - SLOTS_BYTES
                || self.slots_end + slots + SLOT_BYTES as u64 > SLOTS_AT + SLOTS_BYTES
            {
                (self.records_end, self.slots_end) = (RECORDS_AT, SLOTS_AT);
            }
            let began = Instant::now();
            let mark = [7; MARK_BYTES];
            let mut slices = [IoSlice::new(&mark), IoSlice::new(&group.bytes)];
            if self.has_slots {
                self.slots.clear();
                let mut offset = self.records_end + MARK_BYTES as u64;
                for record in group.batch.records() {
                    let mut slot = [0; SLOT_BYTES];
                    slot[0..4].copy_from_slice(&record.checksum.to_le_bytes());
                    slot[4..8].copy_from_slice(&u32::try_from(offset)?.to_le_bytes());
                    slot[8..16].copy_from_slice(&record.id.term.0.to_le_bytes());
                    slot[16..24].copy_from_slice(&record.id.index.0.to_le_bytes());
                    slot[24..28].copy_from_slice(&u32::try_from(record.payload.len())?.to_le_bytes());
                    let sum = quorate_storage::checksum(3, &slot[..36]);
                    slot[36..].copy_from_slice(&sum.to_le_bytes());
                    self.slots.extend_from_slice(&slot);
                    offset += (quorate_raft::record::OVERHEAD_BYTES + record.payload.len()) as u64;
                }
            }
            self.file.write_at(&mut slices, self.records_end)?;
            if self.has_slots {
                self.file.write_at(&mut [IoSlice::new(&self.slots)], self.slots_end)?;
            }
            self.file.sync_data()?;
            self.records_end += bytes;
            self.slots_end += if self.has_slots { slots } else { 0 };
            if self.has_slots {
                let proof = [9; SLOT_BYTES];
                self.file.write_at(&mut [IoSlice::new(&proof)], self.slots_end)?;
            }
            self.took += began.elapsed();
            self.entries += group.entries;
        }
        Ok(())
    }

    fn entries_per_s(self) -> f64 {
        drop(RealDisk.remove(&self.path));
        self.entries as f64 / self.took.as_secs_f64()
    }
}
