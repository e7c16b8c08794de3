//! A watched storage: the real log, wrapped in an actor that records its durability reports
//! ([`promised`](super::promised)) and can be slow.

use super::observer::SharedObserver;
use actix::prelude::*;
use quorate::storage::{
    Completions, EntriesRead, OpenSnapshot, Persist, Persisted, Probe, ReadEntries, Recover, Recovered, Remember,
    SaveSnapshot, SnapshotSink, SnapshotSource, Storage, StorageError, StorageFailed, StorageFull, StorageHandle,
};
use quorate_raft::{NodeId, Snapshot};
use std::{
    collections::VecDeque,
    io::{self, Write},
    time::Duration,
};
use tokio::time::Instant;

/// The actor between a node and its log.
pub(super) struct ObservedStorage {
    node: NodeId,
    inner: Option<StorageHandle>,
    storage: Option<Storage>,
    observer: SharedObserver,
    /// Requests that a slow disk has not begun.
    late: VecDeque<(Instant, Late)>,
}

enum Late {
    Persist(Persist),
    Read(ReadEntries),
}

impl ObservedStorage {
    /// A handle to `inner` with this actor in between.
    pub(super) fn around(inner: impl Into<StorageHandle>, node: NodeId, observer: SharedObserver) -> StorageHandle {
        let inner = Some(inner.into());
        StorageHandle::actor(move || Self { node, inner, storage: None, observer, late: VecDeque::new() })
    }

    fn hand_on(&mut self, late: Late, ctx: &mut Context<Self>) {
        let takes = self.observer.lock().disk(self.node).syncs_take;
        if takes.is_zero() && self.late.is_empty() {
            return self.do_now(late);
        }
        self.late.push_back((Instant::now() + takes, late));
        ctx.run_later(takes, Self::do_due);
    }

    /// Passes requests on in the order of their arrival, also if a later one is due earlier.
    fn do_due(&mut self, ctx: &mut Context<Self>) {
        while let Some((_, late)) = self.late.pop_front_if(|(due, _)| *due <= Instant::now()) {
            self.do_now(late);
        }
        if let Some((due, _)) = self.late.front() {
            ctx.run_later(due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)), Self::do_due);
        }
    }

    fn do_now(&mut self, late: Late) {
        let Some(storage) = &self.storage else { return };
        match late {
            Late::Persist(persist) => {
                self.observer.lock().promised(self.node).asked(&persist.0);
                storage.persist.do_send(persist);
            }
            Late::Read(read) => storage.read_entries.do_send(read),
        }
    }
}

impl Actor for ObservedStorage {
    type Context = Context<Self>;
}

impl Handler<Recover> for ObservedStorage {
    type Result = ResponseFuture<Result<Recovered, StorageError>>;

    fn handle(&mut self, mut recover: Recover, _: &mut Self::Context) -> Self::Result {
        let (node, observer) = (self.node, self.observer.clone());
        let told = Told { node, told: recover.completions, observer: observer.clone() };
        recover.completions = Completions::to(&told.start());
        let Some(inner) = self.inner.take() else {
            return Box::pin(async { Err(StorageError::new("it was recovered already")) });
        };
        let storage = inner.start_here();
        let answer = storage.recover.send(recover);
        self.storage = Some(storage);
        Box::pin(async move {
            let recovered = answer.await.unwrap_or_else(|error| Err(StorageError::new(error.to_string())))?;
            observer.lock().recovered(node, &recovered, |promised, is_damaged| promised.check(&recovered, is_damaged));
            Ok(recovered)
        })
    }
}

impl Handler<Persist> for ObservedStorage {
    type Result = ();

    fn handle(&mut self, persist: Persist, ctx: &mut Self::Context) {
        let mut observer = self.observer.lock();
        observer.disk(self.node).waiting += 1;
        observer.writes(self.node, &persist.0);
        drop(observer);
        self.hand_on(Late::Persist(persist), ctx);
    }
}

impl Handler<ReadEntries> for ObservedStorage {
    type Result = ();

    fn handle(&mut self, read: ReadEntries, ctx: &mut Self::Context) {
        self.hand_on(Late::Read(read), ctx);
    }
}

impl Handler<SaveSnapshot> for ObservedStorage {
    type Result = ResponseFuture<Result<Box<dyn SnapshotSink>, StorageError>>;

    fn handle(&mut self, save: SaveSnapshot, _: &mut Self::Context) -> Self::Result {
        let Some(storage) = &self.storage else {
            return Box::pin(async { Err(StorageError::new("it was not recovered")) });
        };
        let (answer, node, observer) = (storage.save_snapshot.send(save), self.node, self.observer.clone());
        Box::pin(async move {
            let sink = answer.await.unwrap_or_else(|error| Err(StorageError::new(error.to_string())))?;
            Ok(Box::new(Sink { sink, node, checksum: 0, observer }) as Box<dyn SnapshotSink>)
        })
    }
}

impl Handler<OpenSnapshot> for ObservedStorage {
    type Result = ResponseFuture<Result<Box<dyn SnapshotSource>, StorageError>>;

    fn handle(&mut self, open: OpenSnapshot, _: &mut Self::Context) -> Self::Result {
        let Some(storage) = &self.storage else {
            return Box::pin(async { Err(StorageError::new("it was not recovered")) });
        };
        let answer = storage.open_snapshot.send(open);
        Box::pin(async move { answer.await.unwrap_or_else(|error| Err(StorageError::new(error.to_string()))) })
    }
}

impl Handler<Probe> for ObservedStorage {
    type Result = ();

    fn handle(&mut self, probe: Probe, _: &mut Self::Context) {
        probe.arrived();
    }
}

impl Handler<Remember> for ObservedStorage {
    type Result = ();

    fn handle(&mut self, remember: Remember, _: &mut Self::Context) {
        if let Some(storage) = &self.storage {
            storage.remember.do_send(remember);
        }
    }
}

/// A snapshot is promised once it was reported durable.
struct Sink {
    sink: Box<dyn SnapshotSink>,
    node: NodeId,
    /// The checksum of all bytes written.
    checksum: u32,
    observer: SharedObserver,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.checksum = quorate_storage::checksum(self.checksum, &bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl SnapshotSink for Sink {
    fn finish(self: Box<Self>) -> Result<Snapshot, StorageError> {
        let Self { sink, node, checksum, observer } = *self;
        let snapshot = sink.finish()?;
        let mut observer = observer.lock();
        let promised = observer.promised(node);
        promised.snapshot = promised.snapshot.max(snapshot.base.last.index);
        observer.written(node, snapshot.base.last.index, checksum);
        Ok(snapshot)
    }
}

/// The way back to the node: completions that pass here are promises from then on.
struct Told {
    node: NodeId,
    told: Completions,
    observer: SharedObserver,
}

impl Actor for Told {
    type Context = Context<Self>;
}

impl Handler<Persisted> for Told {
    type Result = ();

    fn handle(&mut self, persisted: Persisted, _: &mut Self::Context) {
        let mut observer = self.observer.lock();
        let disk = observer.disk(self.node);
        disk.finished += 1;
        let before = disk.promised.unfinished();
        disk.promised.persisted(persisted.sequence);
        disk.waiting = disk.waiting.saturating_sub(before - disk.promised.unfinished());
        drop(observer);
        self.told.persisted(persisted);
    }
}

impl Handler<EntriesRead> for Told {
    type Result = ();

    fn handle(&mut self, read: EntriesRead, _: &mut Self::Context) {
        self.told.entries_read(read);
    }
}

impl Handler<StorageFull> for Told {
    type Result = ();

    fn handle(&mut self, StorageFull { is_full }: StorageFull, _: &mut Self::Context) {
        self.told.full(is_full);
    }
}

impl Handler<StorageFailed> for Told {
    type Result = ();

    fn handle(&mut self, StorageFailed { error }: StorageFailed, _: &mut Self::Context) {
        self.told.failed(error);
    }
}
