//! A store without a disk: for simulation, and to measure everything else.

mod contents;

use crate::contract::{
    Completions, EntriesRead, OpenSnapshot, Persist, Persisted, Probe, ReadEntries, Recover, Recovered, Remember,
    SaveSnapshot, SnapshotSink, SnapshotSource, StorageError, StorageHandle, StorageObserver,
};
use actix::prelude::*;
use bytes::Bytes;
use contents::Contents;
use quorate_raft::Snapshot;
use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A storage actor with its log in memory: it answers at once, and lives on its node's own thread.
///
/// Its data are in a [`MemoryLog`]. A node can be restarted on a clone of that: [`Memory::shared`].
#[derive(Clone, Debug, Default)]
pub struct Memory {
    log: MemoryLog,
}

/// The data of a [`Memory`] store: entries, term and vote, the newest snapshot. Clones share them;
/// they outlive the actor.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog(Arc<Mutex<Contents>>);

impl Memory {
    /// A store without data.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The store over this log, with all that earlier stores persisted there.
    #[must_use]
    pub fn shared(log: &MemoryLog) -> Self {
        Self { log: log.clone() }
    }

    /// The storage actor, not yet started.
    #[must_use]
    pub fn storage(self) -> StorageHandle {
        StorageHandle::actor(move || MemoryWriter { log: self.log, open: None }).unblocking()
    }
}

impl From<Memory> for StorageHandle {
    fn from(memory: Memory) -> Self {
        memory.storage()
    }
}

impl MemoryLog {
    /// A log without entries, term or vote.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The actor. It never waits, so every handler replies at once.
struct MemoryWriter {
    log: MemoryLog,
    /// `None` before recovery, and after a failure.
    open: Option<(Completions, Arc<dyn StorageObserver>)>,
}

impl Actor for MemoryWriter {
    type Context = Context<Self>;
}

impl Handler<Recover> for MemoryWriter {
    type Result = Result<Recovered, StorageError>;

    fn handle(&mut self, recover: Recover, _: &mut Self::Context) -> Self::Result {
        recover.observer.took_message();
        let mut contents = self.log.contents();
        let wanted = (recover.cluster, recover.member);
        let (cluster, member) = contents.owner.get_or_insert_with(|| wanted.clone());
        if (&*cluster, &*member) != (&wanted.0, &wanted.1) {
            return Err(StorageError::new(format!(
                "the log in memory belongs to member {member} of cluster {cluster:?}, not to member {} of cluster {:?}; \
                 give each member a log of its own",
                wanted.1, wanted.0
            )));
        }
        self.open = Some((recover.completions, recover.observer));
        Ok(contents.recover())
    }
}

impl Handler<Persist> for MemoryWriter {
    type Result = ();

    fn handle(&mut self, Persist(persist): Persist, _: &mut Self::Context) {
        let Some((completions, observer)) = &self.open else { return };
        observer.took_message();
        let outcome = self.log.contents().persist(&persist);
        match outcome {
            Ok(()) => completions.persisted(Persisted { sequence: persist.sequence, then: persist.then }),
            Err(error) => {
                completions.failed(error);
                self.open = None;
            }
        }
    }
}

impl Handler<ReadEntries> for MemoryWriter {
    type Result = ();

    fn handle(&mut self, read: ReadEntries, _: &mut Self::Context) {
        if let Some((completions, observer)) = &self.open {
            observer.took_message();
            let batches = self.log.contents().read(read.from, read.to, read.bytes_max);
            completions.entries_read(EntriesRead { request: read.request, batches });
        }
    }
}

impl Handler<SaveSnapshot> for MemoryWriter {
    type Result = Result<Box<dyn SnapshotSink>, StorageError>;

    fn handle(&mut self, save: SaveSnapshot, _: &mut Self::Context) -> Self::Result {
        let Some((_, observer)) = &self.open else { return Err(not_open()) };
        observer.took_message();
        let observer = Arc::clone(observer);
        Ok(Box::new(MemorySink { log: self.log.clone(), save, bytes: Vec::new(), observer }))
    }
}

impl Handler<OpenSnapshot> for MemoryWriter {
    type Result = Result<Box<dyn SnapshotSource>, StorageError>;

    fn handle(&mut self, _: OpenSnapshot, _: &mut Self::Context) -> Self::Result {
        let Some((_, observer)) = &self.open else { return Err(not_open()) };
        observer.took_message();
        let found = self.log.contents().snapshot();
        let (snapshot, bytes) =
            found.ok_or_else(|| StorageError::new("the store holds no snapshot; there is one once it was saved"))?;
        Ok(Box::new(MemorySource { snapshot, bytes }))
    }
}

impl Handler<Probe> for MemoryWriter {
    type Result = ();

    fn handle(&mut self, probe: Probe, _: &mut Self::Context) {
        probe.arrived();
    }
}

impl Handler<Remember> for MemoryWriter {
    type Result = ();

    fn handle(&mut self, Remember { members }: Remember, _: &mut Self::Context) {
        if let Some((_, observer)) = &self.open {
            observer.took_message();
            let holdings = &mut self.log.contents().holdings;
            for (member, index) in members {
                let highest = holdings.entry(member).or_default();
                *highest = index.max(*highest);
            }
        }
    }
}

fn not_open() -> StorageError {
    StorageError::new("the log in memory is not open, or has failed; recover it first")
}

/// A snapshot that is being written.
struct MemorySink {
    log: MemoryLog,
    save: SaveSnapshot,
    bytes: Vec<u8>,
    observer: Arc<dyn StorageObserver>,
}

impl Write for MemorySink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        self.observer.wrote_snapshot(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotSink for MemorySink {
    fn finish(self: Box<Self>) -> Result<Snapshot, StorageError> {
        let SaveSnapshot { base, expected } = self.save;
        let (bytes, checksum) = (self.bytes.len() as u64, crate::checksum(0, &self.bytes));
        if let Some(expected) = expected.filter(|expected| *expected != (bytes, checksum)) {
            return Err(StorageError::new(format!(
                "the snapshot up to entry {} has {bytes} bytes with checksum {checksum:08x}, not {} with {:08x}, as was announced; \
                 send it again",
                base.last, expected.0, expected.1
            )));
        }
        let snapshot = Snapshot { base, bytes, checksum };
        self.log.contents().save(snapshot.clone(), self.bytes.into());
        Ok(snapshot)
    }
}

/// A snapshot that is being read.
struct MemorySource {
    snapshot: Snapshot,
    bytes: Bytes,
}

impl SnapshotSource for MemorySource {
    fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..)).unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }
}
