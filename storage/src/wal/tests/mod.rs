//! The log on a simulated disk, with every fault of a write, a sync or a byte.

mod both_places;
mod crafted;
mod crashes;
mod cut;
mod damage;
mod errors;
mod formats;
mod groups;
mod layout;
mod named_ahead;
mod repair;
mod speed;

use super::{Outcome, Sizes, Wal, log::Log};
use crate::contract::{Recovered, Unobserved};
use bytes::{Bytes, BytesMut};
use quorate_raft::{Batch, BatchBuilder, Cut, EntryId, HardState, Index, Kind, NodeId, Persist, Term};
use quorate_storage_testing::SimulatedDisk;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const SIZES: Sizes = Sizes { segment: 16 << 10, gap: 512, headroom: 1 << 10, has_slots: true };
/// The size of a segment's file.
const FILE_BYTES: u64 = SIZES.segment + SIZES.gap + 8192;
/// Start of its records.
const RECORDS_AT: usize = 8192 + 2048 + 512;

fn wal(disk: &SimulatedDisk) -> Wal {
    Wal { sizes: SIZES, ..Wal::at("log").on(disk.clone()) }
}

fn open(disk: &SimulatedDisk) -> Outcome<(Log, Recovered)> {
    open_with(wal(disk))
}

fn open_with(wal: Wal) -> Outcome<(Log, Recovered)> {
    Log::open(&wal, "test", NodeId(1), Arc::new(Unobserved))
}

fn opened(disk: &SimulatedDisk) -> (Log, Recovered) {
    open(disk).unwrap_or_else(|failure| panic!("the log opens: {}", failure.error))
}

fn persist(log: &mut Log, persists: &[Persist]) -> Outcome<()> {
    persists.iter().try_for_each(|persist| log.stage(persist))?;
    log.sync()
}

/// [`persist`], and then the log is idle for a while.
fn persist_idly(log: &mut Log, persists: &[Persist]) -> Outcome<()> {
    persist(log, persists)?;
    log.settle()
}

fn newest(disk: &SimulatedDisk) -> PathBuf {
    segments(disk).pop().expect("there is a segment")
}

/// The segments that were ever written: one that was named ahead is all zeros.
fn segments(disk: &SimulatedDisk) -> Vec<PathBuf> {
    named_segments(disk).into_iter().filter(|path| !is_unwritten(disk, path)).collect()
}

fn named_segments(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "segment");
    disk.paths().into_iter().filter(is_segment).collect()
}

fn is_unwritten(disk: &SimulatedDisk, path: &Path) -> bool {
    disk.contents(path).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
}

fn in_log(name: &str) -> PathBuf {
    Path::new("log").join(name)
}

/// The expected content of a store: hard state and entries.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct Model {
    hard_state: HardState,
    base: (EntryId, u32),
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    id: EntryId,
    checksum: u32,
    /// The record; empty for a faulty entry.
    bytes: Bytes,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        // The checksum stands for the bytes, which faulty entries lack.
        (self.id, self.checksum) == (other.id, other.checksum)
    }
}

impl Eq for Entry {}

impl Model {
    fn last(&self) -> (EntryId, u32) {
        self.entries.last().map_or(self.base, |entry| (entry.id, entry.checksum))
    }

    /// Appends `count` entries of `term` to this model. Like a log, it stores the term first.
    fn append(&mut self, term: u64, count: usize, payload_bytes: usize) -> Persist {
        let (last, checksum) = self.last();
        let mut builder = BatchBuilder::new(crate::checksum, Term(term), last.index.next(), checksum, 0);
        for number in 0..count {
            let salt = 131 * term as usize + 17 * number + 1;
            let payload: Vec<u8> = (0..payload_bytes).map(|at| (at * 7 + salt) as u8 | 1).collect();
            builder.push(if payload_bytes == 0 { Kind::Noop } else { Kind::Command }, &payload);
        }
        let batch = builder.finish().expect("something was pushed");
        self.take(&batch);
        if self.hard_state.term < Term(term) {
            self.hard_state = HardState::new(Term(term), None);
        }
        Persist { batch: Some(batch), ..Persist::default() }
    }

    /// Like [`Model::append`], with stubs as a witness keeps them.
    fn append_stubs(&mut self, term: u64, count: usize, payload_bytes: usize) -> Persist {
        let after = self.entries.len();
        let whole = self.append(term, count, payload_bytes);
        self.entries.truncate(after);
        let batch = whole.batch.map(|batch| batch.to_stubs(crate::checksum));
        batch.iter().for_each(|batch| self.take(batch));
        Persist { batch, ..whole }
    }

    fn take(&mut self, batch: &Batch) {
        let mut at = 0;
        for record in batch.records() {
            let end = at + quorate_raft::record::OVERHEAD_BYTES + record.payload.len();
            let bytes = batch.bytes().slice(at..end);
            self.entries.push(Entry { id: record.id, checksum: record.checksum, bytes });
            at = end;
        }
    }

    /// Removes the entries from `from` on.
    fn truncate(&mut self, from: u64) -> Persist {
        self.entries.truncate((from - self.base.0.index.0) as usize - 1);
        Persist { truncate_from: Some(Index(from)), ..Persist::default() }
    }

    fn vote(&mut self, term: u64, vote: u64) -> Persist {
        self.hard_state = HardState::new(Term(term), Some(NodeId(vote)));
        Persist { hard_state: Some(self.hard_state), ..Persist::default() }
    }

    /// Begins after `to`, which the log holds.
    fn cut(&mut self, to: u64) -> Persist {
        let gone: Vec<Entry> = self.entries.drain(..(to - self.base.0.index.0) as usize).collect();
        let last = gone.last().expect("something goes");
        self.base = (last.id, last.checksum);
        Persist { cut: Some(Cut { to: last.id, checksum: None }), ..Persist::default() }
    }

    /// Begins after an entry that the log does not hold.
    fn start_over(&mut self, to: EntryId, checksum: u32) -> Persist {
        (self.base, self.entries) = ((to, checksum), Vec::new());
        Persist { cut: Some(Cut { to, checksum: Some(checksum) }), ..Persist::default() }
    }

    /// The records of these entries, which are of one term.
    fn records(&self, from: u64, to: u64) -> Batch {
        let mut bytes = BytesMut::new();
        let held = self.entries.iter().filter(|entry| (from..=to).contains(&entry.id.index.0));
        held.for_each(|entry| bytes.extend_from_slice(&entry.bytes));
        Batch::parse(bytes.freeze(), crate::checksum).expect("the model's records are whole")
    }

    /// Requests that repair every faulty entry.
    fn repairs(&self, recovered: &Recovered) -> Vec<Persist> {
        let indexes = recovered.faulty.iter().map(|faulty| faulty.id.index.0);
        let repair = |index| Persist { repair: Some(self.records(index, index)), ..Persist::default() };
        indexes.map(repair).collect()
    }

    /// The content of an open log, read back entry by entry; of faulty entries, their identity.
    fn of(log: &Log, recovered: &Recovered) -> Self {
        let mut this =
            Self { hard_state: recovered.hard_state, base: (recovered.base, log.base_checksum), entries: Vec::new() };
        let mut next = recovered.base.index.next();
        while next <= recovered.last.index {
            if let Some(faulty) = recovered.faulty.iter().find(|faulty| faulty.id.index == next) {
                assert!(log.read(next, next, 0).expect("it can be asked for").is_empty(), "a faulty entry is not read");
                this.entries.push(Entry { id: faulty.id, checksum: faulty.checksum, bytes: Bytes::new() });
            } else {
                let batches =
                    log.read(next, recovered.last.index, 1 << 20).expect("what recovery accepted can be read");
                assert!(!batches.is_empty(), "what recovery found is there");
                batches.iter().for_each(|batch| this.take(batch));
            }
            next = this.last().0.index.next();
        }
        assert_eq!(this.last(), (recovered.last, recovered.last_checksum));
        let mut terms: Vec<_> = this.entries.iter().map(|entry| (entry.id.index, entry.id.term)).collect();
        terms.dedup_by_key(|(_, term)| *term);
        assert_eq!(recovered.terms, terms);
        this
    }

    /// The content on a disk, with faulty entries.
    fn of_any(disk: &SimulatedDisk) -> Self {
        let (log, recovered) = opened(disk);
        Self::of(&log, &recovered)
    }

    fn on(disk: &SimulatedDisk) -> Self {
        let (log, recovered) = opened(disk);
        assert_eq!(recovered.faulty, [], "nothing is lost");
        Self::of(&log, &recovered)
    }
}

/// The found state is one of the requested ones, or between two adjacent ones; the hard state,
/// which is written first, may be ahead.
fn assert_was_asked_for(found: &Model, asked: &[Model], context: &str) {
    let is_between = |pair: &[Model]| {
        let [before, after] = pair else { return false };
        after.entries.starts_with(&found.entries) && found.entries.starts_with(&before.entries)
    };
    let is_one = asked.iter().any(|asked| asked.entries == found.entries);
    assert!(is_one || asked.windows(2).any(is_between), "{context}: {found:?} is none of {asked:?}");
    assert!(asked.iter().any(|asked| asked.hard_state == found.hard_state), "{context}");
}

/// Only unacknowledged entries are lost, and none of them counts as durable.
fn assert_unacknowledged(recovered: &Recovered, acknowledged: &Model, context: &str) {
    for faulty in &recovered.faulty {
        assert!(!faulty.was_durable && faulty.id.index > acknowledged.last().0.index, "{context}: {faulty:?}");
    }
}
