//! A store in memory that loses payloads and snapshots on demand.

use actix::prelude::*;
use quorate_raft::{Cut, EntryId, Faulty, Index, Snapshot};
use quorate_storage::{
    Memory, MemoryLog, OpenSnapshot, Persist, ReadEntries, Recover, Recovered, Remember, SaveSnapshot, SnapshotSink,
    SnapshotSource, Storage, StorageError, StorageHandle, contract::Probe,
};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The data of a [`Memory`] store on a disk that damages them: entries lose their payload, but not
/// their identity, and the snapshot is gone. Clones share the data; they outlive the store.
#[derive(Clone, Debug, Default)]
pub struct LossyLog {
    log: MemoryLog,
    losses: Arc<Mutex<Losses>>,
}

#[derive(Debug, Default)]
struct Losses {
    base: Index,
    /// The id and checksum of every entry in the log.
    held: BTreeMap<Index, (EntryId, u32)>,
    /// The entries with a lost payload, and whether each is proven to have been durable.
    entries: BTreeMap<Index, bool>,
    /// Whether the newest snapshot is lost; `None` without a snapshot.
    is_snapshot_lost: Option<bool>,
}

impl LossyLog {
    /// A log without entries, term or vote.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store over this log, not yet started, with all that earlier stores persisted there.
    #[must_use]
    pub fn storage(&self) -> StorageHandle {
        let this = self.clone();
        StorageHandle::actor(move || Lossy { log: this, storage: None }).unblocking()
    }

    /// Marks an entry as one with a lost payload, until it is repaired: the next store over this
    /// log reports it as [faulty](Recovered::faulty), and reads end before it. `was_durable` says
    /// whether it is proven to have been durable once. To be called while no store runs. Returns
    /// whether the entry exists.
    pub fn lose(&self, entry: Index, was_durable: bool) -> bool {
        let mut losses = self.losses();
        let is_held = losses.held.contains_key(&entry);
        if is_held {
            losses.entries.insert(entry, was_durable);
        }
        is_held
    }

    /// Loses the snapshot, until another one is saved. Returns whether there was one.
    pub fn lose_snapshot(&self) -> bool {
        let mut losses = self.losses();
        let was_there = losses.is_snapshot_lost == Some(false);
        losses.is_snapshot_lost = losses.is_snapshot_lost.map(|_| true);
        was_there
    }

    fn losses(&self) -> MutexGuard<'_, Losses> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Losses {
    /// Follows a request, in the order in which a store does its parts.
    fn follow(&mut self, persist: &quorate_raft::Persist) {
        if let Some(Cut { to, .. }) = persist.cut.filter(|cut| cut.to.index > self.base) {
            let is_held = self.held.get(&to.index).is_some_and(|(id, _)| *id == to);
            self.begin_after(if is_held { to.index } else { Index(u64::MAX) });
            self.base = to.index;
        }
        if let Some(from) = persist.truncate_from {
            self.held.split_off(&from);
            self.entries.split_off(&from);
        }
        for record in persist.batch.iter().flat_map(|batch| batch.records()) {
            self.held.insert(record.id.index, (record.id, record.checksum));
        }
        for record in persist.repair.iter().flat_map(|batch| batch.records()) {
            // Any other payload fails the store, and repairs nothing.
            if self.held.get(&record.id.index) == Some(&(record.id, record.checksum)) {
                self.entries.remove(&record.id.index);
            }
        }
    }

    fn begin_after(&mut self, index: Index) {
        self.held.retain(|held, _| *held > index);
        self.entries.retain(|lost, _| *lost > index);
    }

    /// Takes what is lost out of what was recovered.
    fn take_out_of(&mut self, recovered: &mut Recovered) {
        self.base = recovered.base.index;
        self.begin_after(self.base);
        recovered.memberships.retain(|(index, _)| !self.entries.contains_key(index));
        let faulty = self.entries.iter().filter_map(|(index, was_durable)| {
            let (id, checksum) = *self.held.get(index)?;
            Some(Faulty { id, checksum, was_durable: *was_durable })
        });
        recovered.faulty = faulty.collect();
        recovered.snapshot = recovered.snapshot.take().filter(|_| self.is_snapshot_lost != Some(true));
    }
}

/// The actor: it passes every request on to a [`Memory`] store, but for what is lost.
struct Lossy {
    log: LossyLog,
    storage: Option<Storage>,
}

impl Lossy {
    fn storage(&self) -> Result<&Storage, StorageError> {
        self.storage.as_ref().ok_or_else(|| StorageError::new("it was not recovered; recover it first"))
    }
}

impl Actor for Lossy {
    type Context = Context<Self>;
}

impl Handler<Recover> for Lossy {
    type Result = ResponseFuture<Result<Recovered, StorageError>>;

    fn handle(&mut self, recover: Recover, _: &mut Self::Context) -> Self::Result {
        let storage = Memory::shared(&self.log.log).storage().start_here();
        let answer = storage.recover.send(recover);
        self.storage = Some(storage);
        let log = self.log.clone();
        Box::pin(async move {
            let mut recovered = answer.await.unwrap_or_else(|error| Err(StorageError::new(error.to_string())))?;
            log.losses().take_out_of(&mut recovered);
            Ok(recovered)
        })
    }
}

impl Handler<Persist> for Lossy {
    type Result = ();

    fn handle(&mut self, persist: Persist, _: &mut Self::Context) {
        if let Some(storage) = &self.storage {
            self.log.losses().follow(&persist.0);
            storage.persist.do_send(persist);
        }
    }
}

impl Handler<ReadEntries> for Lossy {
    type Result = ();

    fn handle(&mut self, read: ReadEntries, _: &mut Self::Context) {
        if let Some(storage) = &self.storage {
            let first_lost = self.log.losses().entries.range(read.from..).next().map(|(index, _)| *index);
            let to = first_lost.map_or(read.to, |lost| read.to.min(lost.previous()));
            storage.read_entries.do_send(ReadEntries { to, ..read });
        }
    }
}

impl Handler<SaveSnapshot> for Lossy {
    type Result = ResponseFuture<Result<Box<dyn SnapshotSink>, StorageError>>;

    fn handle(&mut self, save: SaveSnapshot, _: &mut Self::Context) -> Self::Result {
        let (answer, log) = (self.storage().map(|storage| storage.save_snapshot.send(save)), self.log.clone());
        Box::pin(async move {
            let inner = answer?.await.unwrap_or_else(|error| Err(StorageError::new(error.to_string())))?;
            Ok(Box::new(LossySink { inner, log }) as Box<dyn SnapshotSink>)
        })
    }
}

impl Handler<OpenSnapshot> for Lossy {
    type Result = ResponseFuture<Result<Box<dyn SnapshotSource>, StorageError>>;

    fn handle(&mut self, open: OpenSnapshot, _: &mut Self::Context) -> Self::Result {
        let is_lost = self.log.losses().is_snapshot_lost == Some(true);
        let answer = self.storage().map(|storage| storage.open_snapshot.send(open));
        Box::pin(async move {
            let source = answer?.await.unwrap_or_else(|error| Err(StorageError::new(error.to_string())))?;
            if is_lost { Err(StorageError::new("the snapshot is lost; save another one")) } else { Ok(source) }
        })
    }
}

impl Handler<Probe> for Lossy {
    type Result = ();

    fn handle(&mut self, probe: Probe, _: &mut Self::Context) {
        probe.arrived();
    }
}

impl Handler<Remember> for Lossy {
    type Result = ();

    fn handle(&mut self, remember: Remember, _: &mut Self::Context) {
        if let Some(storage) = &self.storage {
            storage.remember.do_send(remember);
        }
    }
}

/// A snapshot that is being written; with it, a lost one no longer matters.
struct LossySink {
    inner: Box<dyn SnapshotSink>,
    log: LossyLog,
}

impl Write for LossySink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl SnapshotSink for LossySink {
    fn finish(self: Box<Self>) -> Result<Snapshot, StorageError> {
        let snapshot = self.inner.finish()?;
        self.log.losses().is_snapshot_lost = Some(false);
        Ok(snapshot)
    }
}
