//! A running store and its completions.

use super::{Harness, model::Log};
use crate::completions::{Completion, listen};
use quorate_raft::{
    AppendOutcome, AppendReply, Batch, Body, Index, Message, NodeId, Outgoing, Snapshot, SnapshotBase, Term,
};
use quorate_storage::contract::{
    EntriesRead, OpenSnapshot, Persist, Persisted, ReadEntries, Recover, Recovered, Remember, SaveSnapshot,
    SnapshotSink, SnapshotSource, Storage, StorageError, StorageHandle, StorageObserver, StorageOp,
};
use std::{sync::Arc, thread};
use tokio::sync::{mpsc, oneshot};

pub(super) struct Probe {
    storage: Storage,
    told: mpsc::UnboundedReceiver<Told>,
    gone: oneshot::Receiver<()>,
    sequence: u64,
    requests: u64,
}

#[derive(Debug)]
pub(super) enum Told {
    Persisted(Persisted),
    Read(EntriesRead),
    Failed(StorageError),
}

impl Probe {
    pub(super) async fn open(place: &impl Harness) -> (Self, Recovered) {
        let (probe, outcome) = Self::try_open(place.open(), "conformance", NodeId(1)).await;
        (probe, outcome.expect("the store opens"))
    }

    pub(super) async fn try_open(
        handle: StorageHandle,
        cluster: &str,
        member: NodeId,
    ) -> (Self, Result<Recovered, StorageError>) {
        let (completions, told) = listen(|completion| match completion {
            Completion::Persisted(persisted) => Some(Told::Persisted(persisted)),
            Completion::Read(read) => Some(Told::Read(read)),
            Completion::Failed(error) => Some(Told::Failed(error)),
            Completion::Full(_) => None,
        });
        let (leave, gone) = oneshot::channel();
        let storage = handle.start().expect("a thread");
        let observer = Arc::new(Presence { _leaves_when_dropped: leave });
        let recover = Recover { cluster: cluster.to_owned(), member, completions, observer };
        let outcome = storage.recover.send(recover).await.expect("the store lives");
        if let Err(error) = &outcome {
            assert!(!error.to_string().contains('\n'), "an error is one line: {error}");
        }
        (Self { storage, told, gone, sequence: 0, requests: 0 }, outcome)
    }

    /// Closes the store, opens it again, and asserts that it holds this log.
    pub(super) async fn restarted(self, place: &impl Harness, log: &Log) -> Self {
        self.close().await;
        let (mut store, recovered) = Self::open(place).await;
        log.assert_is(&recovered);
        store.assert_holds(log).await;
        store
    }

    /// Sends a persist, and returns its sequence.
    pub(super) fn persist(&mut self, persist: quorate_raft::Persist) -> u64 {
        self.sequence += 1;
        self.storage.persist.do_send(Persist(quorate_raft::Persist { sequence: self.sequence, ..persist }));
        self.sequence
    }

    /// Sends persists for all entries of a log that the store lacks.
    pub(super) async fn persist_all(&mut self, log: &Log) {
        for batch in log.batches() {
            self.persist(super::model::append(batch.clone()));
        }
        self.await_all().await;
    }

    /// Waits until all requests are persisted.
    pub(super) async fn await_all(&mut self) -> Vec<Persisted> {
        if self.sequence == 0 {
            return Vec::new();
        }
        self.await_persisted(self.sequence).await
    }

    pub(super) async fn await_persisted(&mut self, sequence: u64) -> Vec<Persisted> {
        let mut all = Vec::new();
        loop {
            match self.told.recv().await {
                Some(Told::Persisted(persisted)) => all.push(persisted),
                other => panic!("waited for sequence {sequence} to be persisted, was told {other:?}"),
            }
            match all.last().map(|persisted| persisted.sequence) {
                Some(last) if last == sequence => return all,
                Some(last) => assert!(last < sequence, "sequence {last} was never asked for"),
                None => {}
            }
        }
    }

    pub(super) async fn read(&mut self, from: Index, to: Index, bytes_max: usize) -> Vec<Batch> {
        self.try_read(from, to, bytes_max).await.unwrap_or_else(|error| panic!("can't read {from}..={to}: {error}"))
    }

    pub(super) async fn try_read(
        &mut self,
        from: Index,
        to: Index,
        bytes_max: usize,
    ) -> Result<Vec<Batch>, StorageError> {
        self.requests += 1;
        self.storage.read_entries.do_send(ReadEntries { request: self.requests, from, to, bytes_max });
        loop {
            match self.told.recv().await {
                Some(Told::Read(read)) => {
                    assert_eq!(read.request, self.requests, "the request is echoed");
                    return Ok(read.batches);
                }
                Some(Told::Persisted(_)) => {}
                Some(Told::Failed(error)) => return Err(error),
                None => panic!("waited for entries {from}..={to}, and the store is gone"),
            }
        }
    }

    /// Asserts that every entry of the log can be read.
    pub(super) async fn assert_holds(&mut self, log: &Log) {
        let (first, last) = (log.base.0.index.next(), log.last().0.index);
        let all = self.read_all(first, last).await;
        log.assert_equal(&all, first, last.since(log.base.0.index));
    }

    /// Reads every entry of a range, in as many requests as needed.
    pub(super) async fn read_all(&mut self, first: Index, last: Index) -> Vec<Batch> {
        let (mut next, mut all) = (first, Vec::new());
        while next <= last {
            let batches = self.read(next, last, 1000).await;
            next = batches.last().map(Batch::last).unwrap_or_else(|| panic!("entry {next} is not held")).next();
            all.extend(batches);
        }
        all
    }

    pub(super) fn remember(&self, member: NodeId, index: Index) {
        self.storage.remember.do_send(Remember { members: vec![(member, index)] });
    }

    pub(super) async fn begin(&self, base: SnapshotBase, expected: Option<(u64, u32)>) -> Box<dyn SnapshotSink> {
        let sink = self.storage.save_snapshot.send(SaveSnapshot { base, expected }).await.expect("the store lives");
        sink.unwrap_or_else(|error| panic!("a snapshot can be begun: {error}"))
    }

    /// Saves a snapshot, on another thread.
    pub(super) async fn try_save(&self, base: SnapshotBase, state: &[u8]) -> Result<Snapshot, StorageError> {
        let mut sink =
            self.storage.save_snapshot.send(SaveSnapshot { base, expected: None }).await.expect("the store lives")?;
        let state = state.to_owned();
        elsewhere(move || {
            for piece in state.chunks(77_777) {
                sink.write_all(piece).map_err(|error| StorageError::within(error, StorageOp::Write))?;
            }
            sink.finish()
        })
    }

    pub(super) async fn save(&self, base: SnapshotBase, state: &[u8]) -> Snapshot {
        let saved = self.try_save(base.clone(), state).await.expect("a snapshot can be saved");
        let wanted = Snapshot { base, bytes: state.len() as u64, checksum: quorate_storage::checksum(0, state) };
        assert_eq!(saved, wanted, "what was saved is what was written");
        saved
    }

    pub(super) async fn source(&self) -> Result<Box<dyn SnapshotSource>, StorageError> {
        self.storage.open_snapshot.send(OpenSnapshot).await.expect("the store lives")
    }

    /// Asserts that this is the newest snapshot.
    pub(super) async fn assert_holds_snapshot(&self, snapshot: &Snapshot, state: &[u8]) {
        let source = self.source().await.expect("there is a snapshot");
        assert_eq!(source.snapshot(), snapshot, "the snapshot that covers most is opened");
        assert!(read_snapshot(source).expect("it can be read") == state, "a snapshot is read as it was written");
    }

    /// Waits for the failure; returns the sequence that was persisted before it.
    pub(super) async fn await_failed(&mut self) -> u64 {
        let mut persisted = 0;
        loop {
            match self.told.recv().await {
                Some(Told::Failed(error)) => {
                    assert!(!error.to_string().contains('\n'), "an error is one line: {error}");
                    return persisted;
                }
                Some(Told::Persisted(told)) => persisted = told.sequence,
                other => panic!("waited for the store to fail, was told {other:?}"),
            }
        }
    }

    /// The next completion, or `None` if the store is gone.
    pub(super) async fn next(&mut self) -> Option<Told> {
        self.told.recv().await
    }

    /// Drops the store and waits for its end. Only `Persisted` may still arrive.
    pub(super) async fn close(self) {
        for told in self.last_words().await {
            assert!(matches!(told, Told::Persisted(_)), "told without being asked: {told:?}");
        }
    }

    /// Drops a store that failed; no completion may follow.
    pub(super) async fn close_failed(self) {
        let told = self.last_words().await;
        assert!(told.is_empty(), "told after a failure: {told:?}");
    }

    /// Drops the store, and returns its completions until its end.
    pub(super) async fn last_words(mut self) -> Vec<Told> {
        let thread = self.storage.take_thread();
        drop(self.storage);
        let _ = self.gone.await;
        if let Some(thread) = thread {
            thread.end();
        }
        let mut told = Vec::new();
        while let Some(word) = self.told.recv().await {
            told.push(word);
        }
        told
    }
}

/// Runs work on another thread, as users of sinks and sources do.
pub(super) fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Reads a snapshot to its end, on another thread, in pieces that fit no chunk.
pub(super) fn read_snapshot(mut source: Box<dyn SnapshotSource>) -> Result<Vec<u8>, StorageError> {
    elsewhere(move || {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 99_991]);
        loop {
            let count = source.read_at(&mut buffer, all.len() as u64)?;
            if count == 0 {
                return Ok(all);
            }
            all.extend_from_slice(&buffer[..count]);
        }
    })
}

pub(super) fn reply(number: u64) -> Outgoing {
    let outcome = AppendOutcome::Matched { matched: Index(number) };
    let body = Body::AppendReply(AppendReply { epoch: 0, outcome });
    Outgoing { to: NodeId(2), message: Message { term: Term(1), body } }
}

/// An observer that signals when the store drops it.
struct Presence {
    _leaves_when_dropped: oneshot::Sender<()>,
}

impl StorageObserver for Presence {}
