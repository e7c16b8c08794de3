//! A store without a disk: for simulation, and to measure everything but a disk.

use crate::contract::{
    Completions, EntriesRead, OpenSnapshot, Persist, Persisted, ReadEntries, Recover, Recovered, Remember,
    SaveSnapshot, SnapshotSink, SnapshotSource, StorageError, StorageHandle,
};
use actix::prelude::*;
use quorate_raft::{Batch, EntryId, HardState, Index, NodeId, Term};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A storage actor whose log is in memory: it answers at once, and lives on its node's own thread.
///
/// What it holds is in a [`MemoryLog`]. Keep a clone of that, and a node can be restarted on it: [`Memory::shared`].
#[derive(Clone, Debug, Default)]
pub struct Memory {
    log: MemoryLog,
}

/// What a [`Memory`] store holds. Clones are the same log; it outlives the actor.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog(Arc<Mutex<Contents>>);

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The store over this log: what an earlier one persisted is there.
    #[must_use]
    pub fn shared(log: &MemoryLog) -> Self {
        Self { log: log.clone() }
    }

    /// The storage actor, not yet started.
    #[must_use]
    pub fn storage(self) -> StorageHandle {
        StorageHandle::actor(move || MemoryWriter { log: self.log, completions: None }).unblocking()
    }
}

impl From<Memory> for StorageHandle {
    fn from(memory: Memory) -> Self {
        memory.storage()
    }
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Contents {
    owner: Option<(String, NodeId)>,
    hard_state: HardState,
    /// In order, without a gap, from entry 1 on.
    batches: VecDeque<Batch>,
}

impl Contents {
    fn last(&self) -> (EntryId, u32) {
        self.batches.back().map_or_else(Default::default, |batch| (batch.last_id(), batch.checksum()))
    }

    fn terms(&self) -> Vec<(Index, Term)> {
        let mut terms: Vec<(Index, Term)> = self.batches.iter().map(|batch| (batch.first(), batch.term())).collect();
        terms.dedup_by_key(|(_, term)| *term);
        terms
    }

    fn persist(&mut self, persist: &quorate_raft::Persist) -> Result<(), StorageError> {
        if let Some(from) = persist.truncate_from {
            while self.batches.back().is_some_and(|batch| batch.last() >= from) {
                let cut = self.batches.pop_back();
                self.batches.extend(cut.and_then(|batch| batch.up_to(from.previous())));
            }
        }
        if let Some(batch) = &persist.batch {
            let (last, checksum) = self.last();
            if batch.first() != last.index.next() || batch.term() < last.term || batch.previous_checksum() != checksum {
                let what = format!("asked to append {batch:?} behind entry {last}, which it does not follow");
                return Err(StorageError(what + "; this is a bug of Quorate's: report it"));
            }
            self.batches.push_back(batch.clone());
        }
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
        Ok(())
    }

    fn read(&self, from: Index, to: Index, bytes_max: usize) -> Vec<Batch> {
        let (mut read, mut left) = (Vec::new(), bytes_max);
        let first = self.batches.partition_point(|batch| batch.last() < from);
        for batch in self.batches.range(first..).take_while(|batch| batch.first() <= to && from > Index(0)) {
            let Some(wanted) = batch.from(from).and_then(|batch| batch.up_to(to)) else { break };
            let fitting = wanted.within(left);
            if !read.is_empty() && fitting.bytes().len() > left {
                break;
            }
            left = left.saturating_sub(fitting.bytes().len());
            let is_cut = fitting.count() < wanted.count();
            read.push(fitting);
            if is_cut || left == 0 {
                break;
            }
        }
        read
    }
}

/// The actor. There is nothing to wait for, so every request is answered from its own handler.
struct MemoryWriter {
    log: MemoryLog,
    /// `None` before recovery, and after a failure.
    completions: Option<Completions>,
}

impl Actor for MemoryWriter {
    type Context = Context<Self>;
}

impl Handler<Recover> for MemoryWriter {
    type Result = Result<Recovered, StorageError>;

    fn handle(&mut self, recover: Recover, _: &mut Self::Context) -> Self::Result {
        let mut contents = self.log.contents();
        let wanted = (recover.cluster, recover.member);
        let (cluster, member) = contents.owner.get_or_insert_with(|| wanted.clone());
        if (&*cluster, &*member) != (&wanted.0, &wanted.1) {
            return Err(StorageError(format!(
                "the log in memory belongs to member {member} of cluster {cluster:?}, not to member {} of cluster {:?}; \
                 give each member a log of its own",
                wanted.1, wanted.0
            )));
        }
        self.completions = Some(recover.completions);
        let (last, last_checksum) = contents.last();
        Ok(Recovered {
            hard_state: contents.hard_state,
            terms: contents.terms(),
            last,
            last_checksum,
            ..Recovered::default()
        })
    }
}

impl Handler<Persist> for MemoryWriter {
    type Result = ();

    fn handle(&mut self, Persist(persist): Persist, _: &mut Self::Context) {
        let Some(completions) = &self.completions else { return };
        let outcome = self.log.contents().persist(&persist);
        match outcome {
            Ok(()) => completions.persisted(Persisted { sequence: persist.sequence, then: persist.then }),
            Err(error) => {
                completions.failed(error);
                self.completions = None;
            }
        }
    }
}

impl Handler<ReadEntries> for MemoryWriter {
    type Result = ();

    fn handle(&mut self, read: ReadEntries, _: &mut Self::Context) {
        if let Some(completions) = &self.completions {
            let batches = self.log.contents().read(read.from, read.to, read.bytes_max);
            completions.entries_read(EntriesRead { request: read.request, batches });
        }
    }
}

impl Handler<SaveSnapshot> for MemoryWriter {
    type Result = Result<Box<dyn SnapshotSink>, StorageError>;

    fn handle(&mut self, _: SaveSnapshot, _: &mut Self::Context) -> Self::Result {
        Err(StorageError("this store keeps no snapshots".into()))
    }
}

impl Handler<OpenSnapshot> for MemoryWriter {
    type Result = Result<Box<dyn SnapshotSource>, StorageError>;

    fn handle(&mut self, _: OpenSnapshot, _: &mut Self::Context) -> Self::Result {
        Err(StorageError("this store keeps no snapshots".into()))
    }
}

impl Handler<Remember> for MemoryWriter {
    type Result = ();

    fn handle(&mut self, _: Remember, _: &mut Self::Context) {}
}
