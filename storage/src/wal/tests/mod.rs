//! The log on a simulated disk: every fate that a write, a sync or a byte can meet.

mod crashes;
mod damage;
mod errors;
mod layout;

use super::{Outcome, Wal, log::Log};
use crate::{
    contract::{Recovered, Unobserved},
    disk::SimulatedDisk,
};
use quorate_raft::{Batch, BatchBuilder, EntryId, HardState, Index, Kind, NodeId, Persist, Term};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const SEGMENT_BYTES: u64 = 16 << 10;

fn open(disk: &SimulatedDisk) -> Outcome<(Log, Recovered)> {
    let wal = Wal::at("log").on(disk.clone()).segment_bytes(SEGMENT_BYTES);
    Log::open(&wal, "test", NodeId(1), Arc::new(Unobserved))
}

fn opened(disk: &SimulatedDisk) -> (Log, Recovered) {
    open(disk).unwrap_or_else(|failure| panic!("the log opens: {}", failure.error))
}

fn persist(log: &mut Log, persists: &[Persist]) -> Outcome<()> {
    persists.iter().try_for_each(|persist| log.stage(persist))?;
    log.sync()
}

/// The newest segment's path.
fn newest(disk: &SimulatedDisk) -> PathBuf {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "segment");
    disk.paths().into_iter().rfind(is_segment).expect("there is a segment")
}

fn in_log(name: &str) -> PathBuf {
    Path::new("log").join(name)
}

/// What a store should hold: term and vote, and for each entry its id and checksum.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct Model {
    hard_state: HardState,
    entries: Vec<(EntryId, u32)>,
}

impl Model {
    fn last(&self) -> (EntryId, u32) {
        self.entries.last().copied().unwrap_or_default()
    }

    /// The next `count` entries of `term`, and this model with them.
    fn append(&mut self, term: u64, count: usize, payload_bytes: usize) -> Persist {
        let (last, checksum) = self.last();
        let mut builder = BatchBuilder::new(crate::checksum, Term(term), last.index.next(), checksum, 0);
        for number in 0..count {
            let salt = 131 * term as usize + 17 * number + 1;
            let payload: Vec<u8> = (0..payload_bytes).map(|at| (at * 7 + salt) as u8 | 1).collect();
            builder.push(if payload_bytes == 0 { Kind::Noop } else { Kind::Command }, &payload);
        }
        let batch = builder.finish().expect("something was pushed");
        self.entries.extend(batch.records().map(|record| (record.id, record.checksum)));
        Persist { batch: Some(batch), ..Persist::default() }
    }

    /// Removes the entries from `from` on.
    fn truncate(&mut self, from: u64) -> Persist {
        self.entries.truncate(from as usize - 1);
        Persist { truncate_from: Some(Index(from)), ..Persist::default() }
    }

    fn vote(&mut self, term: u64, vote: u64) -> Persist {
        self.hard_state = HardState { term: Term(term), vote: Some(NodeId(vote)) };
        Persist { hard_state: Some(self.hard_state), ..Persist::default() }
    }

    /// What an open log really holds, read back entry by entry.
    fn of(log: &Log, recovered: &Recovered) -> Self {
        let (mut next, mut entries) = (Index(1), Vec::new());
        while next <= recovered.last.index {
            let batches = log.read(next, recovered.last.index, 1 << 20).expect("what recovery accepted can be read");
            next = batches.last().map(Batch::last).expect("what recovery found is there").next();
            entries.extend(batches.iter().flat_map(Batch::records).map(|record| (record.id, record.checksum)));
        }
        let this = Self { hard_state: recovered.hard_state, entries };
        assert_eq!(this.last(), (recovered.last, recovered.last_checksum));
        let mut terms: Vec<_> = this.entries.iter().map(|(id, _)| (id.index, id.term)).collect();
        terms.dedup_by_key(|(_, term)| *term);
        assert_eq!(recovered.terms, terms);
        this
    }

    fn on(disk: &SimulatedDisk) -> Self {
        let (log, recovered) = opened(disk);
        Self::of(&log, &recovered)
    }
}

/// What is found is one of the states that were asked for, in this order, or on the way from one to the next; term and
/// vote, which are written first, may be ahead.
fn assert_was_asked_for(found: &Model, asked: &[Model], context: &str) {
    let is_between = |pair: &[Model]| {
        let [before, after] = pair else { return false };
        after.entries.starts_with(&found.entries) && found.entries.starts_with(&before.entries)
    };
    let is_one = asked.iter().any(|asked| asked.entries == found.entries);
    assert!(is_one || asked.windows(2).any(is_between), "{context}: {found:?} is none of {asked:?}");
    assert!(asked.iter().any(|asked| asked.hard_state == found.hard_state), "{context}");
}
