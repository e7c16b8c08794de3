//! What every storage actor must hold, as a suite that any implementation runs against itself.
//!
//! ```no_run
//! # async fn example() {
//! use quorate_storage::{Memory, MemoryLog, conformance};
//!
//! // Each call makes a new, empty place; what it returns opens that place, as often as it is called.
//! conformance::run(|| {
//!     let log = MemoryLog::new();
//!     move || Memory::shared(&log).storage()
//! })
//! .await;
//! # }
//! ```
//!
//! Run it within an actix `System` (for example under `#[actix::test]`). It panics with what did not hold.
//!
//! A store must keep the observer that came with [`Recover`] for as long as it holds anything that a second opener would
//! find locked: the suite opens a place again when the observer of the first opener is dropped.

use crate::contract::{
    Completions, EntriesRead, Persist, Persisted, ReadEntries, Recover, Recovered, Storage, StorageError,
    StorageFailed, StorageFull, StorageHandle, StorageObserver,
};
use actix::prelude::*;
use quorate_raft::{
    AppendOutcome, AppendReply, Batch, BatchBuilder, Body, EntryId, HardState, Index, Kind, Message, NodeId, Outgoing,
    Term,
};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Runs every check, each in a new place.
///
/// # Panics
/// If one does not hold.
pub async fn run<Open: Fn() -> StorageHandle>(fresh: impl Fn() -> Open) {
    a_new_store_holds_nothing(&fresh()).await;
    what_was_persisted_is_found_after_a_restart(&fresh()).await;
    persists_are_told_in_order_and_each_once(&fresh()).await;
    an_empty_persist_is_told_behind_the_ones_before_it(&fresh()).await;
    truncation_removes_entries_for_good(&fresh()).await;
    truncation_reaches_back_across_batches_and_terms(&fresh()).await;
    term_and_vote_survive_and_the_last_ones_count(&fresh()).await;
    a_range_is_read_as_far_as_it_fits(&fresh()).await;
    a_range_that_is_not_there_is_empty(&fresh()).await;
    reads_see_what_they_were_sent_behind(&fresh()).await;
    an_entry_of_any_size_comes_back(&fresh()).await;
    an_append_that_does_not_follow_fails_the_store(&fresh()).await;
    another_members_data_is_refused(&fresh()).await;
}

async fn a_new_store_holds_nothing(open: &impl Fn() -> StorageHandle) {
    for round in ["the first time", "again"] {
        let (store, recovered) = Probe::open(open).await;
        assert_eq!(recovered.hard_state, HardState::default(), "a new store has no term and no vote, {round}");
        assert_eq!((recovered.base, recovered.last), Default::default(), "a new log is empty, {round}");
        assert_eq!((recovered.last_checksum, recovered.terms.len()), (0, 0), "a new log is empty, {round}");
        store.close().await;
    }
}

async fn what_was_persisted_is_found_after_a_restart(open: &impl Fn() -> StorageHandle) {
    let mut log = Log::default();
    for restart in 1..=4 {
        let (mut store, recovered) = Probe::open(open).await;
        log.assert_is(&recovered);
        store.persist(append(log.batch(Term(restart), 3, 100)));
        store.persist(append(log.batch(Term(restart), 2, 0)));
        store.await_persisted(2).await;
        store.assert_holds(&log).await;
        store.close().await;
    }
    let (mut store, recovered) = Probe::open(open).await;
    log.assert_is(&recovered);
    assert_eq!(recovered.terms, (1..=4).map(|term| (Index(term * 5 - 4), Term(term))).collect::<Vec<_>>());
    store.assert_holds(&log).await;
    store.close().await;
}

async fn persists_are_told_in_order_and_each_once(open: &impl Fn() -> StorageHandle) {
    let (mut store, _) = Probe::open(open).await;
    let mut log = Log::default();
    for number in 0..100 {
        store.persist(quorate_raft::Persist { then: vec![reply(number)], ..append(log.batch(Term(1), 1, 20)) });
    }
    let told = store.await_persisted(100).await;
    assert!(told.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "sequences are told in order");
    let then: Vec<Outgoing> = told.into_iter().flat_map(|persisted| persisted.then).collect();
    assert_eq!(then, (0..100).map(reply).collect::<Vec<_>>(), "every reply leaves once, in order");
    store.assert_holds(&log).await;
    store.close().await;
}

async fn an_empty_persist_is_told_behind_the_ones_before_it(open: &impl Fn() -> StorageHandle) {
    let (mut store, _) = Probe::open(open).await;
    let mut log = Log::default();
    store.persist(quorate_raft::Persist { then: vec![reply(1)], ..append(log.batch(Term(1), 10, 1000)) });
    store.persist(quorate_raft::Persist { then: vec![reply(2)], ..Default::default() });
    let told = store.await_persisted(2).await;
    let then: Vec<Outgoing> = told.into_iter().flat_map(|persisted| persisted.then).collect();
    assert_eq!(then, [reply(1), reply(2)]);
    store.persist(quorate_raft::Persist { then: vec![reply(3)], ..Default::default() });
    let told = store.await_persisted(3).await;
    assert!(
        matches!(&told[..], [only] if only.then == [reply(3)]),
        "it is told although nothing was written: {told:?}"
    );
    store.close().await;
}

async fn truncation_removes_entries_for_good(open: &impl Fn() -> StorageHandle) {
    let (mut store, _) = Probe::open(open).await;
    let mut log = Log::default();
    store.persist(append(log.batch(Term(1), 10, 50)));
    log.truncate(Index(4));
    let persist = quorate_raft::Persist { truncate_from: Some(Index(4)), ..append(log.batch(Term(2), 2, 50)) };
    store.persist(persist);
    store.await_persisted(2).await;
    store.assert_holds(&log).await;
    store.close().await;

    let (mut store, recovered) = Probe::open(open).await;
    log.assert_is(&recovered);
    store.assert_holds(&log).await;
    log.truncate(Index(5));
    store.persist(truncate(Index(5)));
    log.truncate(Index(1));
    store.persist(truncate(Index(1)));
    store.await_persisted(2).await;
    store.close().await;

    let (mut store, recovered) = Probe::open(open).await;
    log.assert_is(&recovered);
    store.persist(append(log.batch(Term(3), 1, 50)));
    store.await_persisted(1).await;
    store.assert_holds(&log).await;
    store.close().await;
}

async fn truncation_reaches_back_across_batches_and_terms(open: &impl Fn() -> StorageHandle) {
    let (mut store, _) = Probe::open(open).await;
    let mut log = Log::default();
    for term in 1..=6 {
        store.persist(append(log.batch(Term(term), 7, 3000)));
    }
    for from in [40, 22, 11, 2] {
        log.truncate(Index(from));
        store.persist(truncate(Index(from)));
        store.persist(append(log.batch(Term(50 - from), 3, 40)));
    }
    store.await_persisted(14).await;
    store.assert_holds(&log).await;
    store.close().await;
    let (mut store, recovered) = Probe::open(open).await;
    log.assert_is(&recovered);
    store.assert_holds(&log).await;
    store.close().await;
}

async fn term_and_vote_survive_and_the_last_ones_count(open: &impl Fn() -> StorageHandle) {
    let mut last = HardState::default();
    for restart in 0..3u64 {
        let (mut store, recovered) = Probe::open(open).await;
        assert_eq!(recovered.hard_state, last);
        for number in 1..=5 {
            let vote = (number != 3).then_some(NodeId(number));
            last = HardState { term: Term(10 * restart + number), vote };
            store.persist(quorate_raft::Persist { hard_state: Some(last), ..Default::default() });
        }
        store.await_persisted(5).await;
        store.close().await;
    }
}

async fn a_range_is_read_as_far_as_it_fits(open: &impl Fn() -> StorageHandle) {
    let (mut store, _) = Probe::open(open).await;
    let mut log = Log::default();
    for term in [1, 1, 2, 3, 3, 3] {
        store.persist(append(log.batch(Term(term), 4, 100)));
    }
    store.await_persisted(6).await;
    let record_bytes = 140;
    for from in 1..=24 {
        for to in from..=25 {
            for entries_max in [0, 1, 2, 7, 100] {
                let batches = store.read(Index(from), Index(to), entries_max * record_bytes + 139).await;
                let count = (to.min(24) - from + 1).min(entries_max.max(1) as u64);
                log.assert_equal(&batches, Index(from), count);
            }
        }
    }
    store.close().await;
}

async fn a_range_that_is_not_there_is_empty(open: &impl Fn() -> StorageHandle) {
    let (mut store, _) = Probe::open(open).await;
    let mut log = Log::default();
    assert!(store.read(Index(1), Index(9), 1000).await.is_empty());
    store.persist(append(log.batch(Term(1), 3, 10)));
    for (from, to) in [(0, 0), (4, 4), (4, 9), (3, 2)] {
        assert!(store.read(Index(from), Index(to), 1000).await.is_empty(), "nothing is between {from} and {to}");
    }
    store.close().await;
}

async fn reads_see_what_they_were_sent_behind(open: &impl Fn() -> StorageHandle) {
    let (mut store, _) = Probe::open(open).await;
    let mut log = Log::default();
    for _ in 0..20 {
        store.persist(append(log.batch(Term(1), 2, 300)));
        let last = log.last().0.index;
        let batches = store.read(last, last, usize::MAX).await;
        log.assert_equal(&batches, last, 1);
    }
    store.close().await;
}

async fn an_entry_of_any_size_comes_back(open: &impl Fn() -> StorageHandle) {
    let (mut store, _) = Probe::open(open).await;
    let mut log = Log::default();
    for bytes in [0, 1, 511, 512, 4096, 20_000, 100_000, 3 << 20, 5] {
        store.persist(append(log.batch(Term(1), 1, bytes)));
    }
    store.await_persisted(9).await;
    store.assert_holds(&log).await;
    store.close().await;
    let (mut store, recovered) = Probe::open(open).await;
    log.assert_is(&recovered);
    store.assert_holds(&log).await;
    store.close().await;
}

async fn an_append_that_does_not_follow_fails_the_store(open: &impl Fn() -> StorageHandle) {
    let (mut store, _) = Probe::open(open).await;
    let mut log = Log::default();
    store.persist(append(log.batch(Term(1), 3, 10)));
    store.await_persisted(1).await;
    let mut other = Log::default();
    other.batch(Term(2), 3, 10);
    store.persist(append(other.batch(Term(2), 1, 10)));
    store.persist(append(log.batch(Term(1), 1, 10)));
    store.await_failed().await;
    store.persist(append(log.batch(Term(1), 1, 10)));
    store.close_failed().await;
}

async fn another_members_data_is_refused(open: &impl Fn() -> StorageHandle) {
    let (store, _) = Probe::open(open).await;
    store.close().await;
    for (cluster, member) in [("conformance", NodeId(2)), ("another", NodeId(1))] {
        let (store, outcome) = Probe::try_open(open(), cluster, member).await;
        let error = outcome.expect_err("data of another member or cluster is refused").to_string();
        assert!(!error.contains('\n') && error.contains("belongs to"), "one line that says whose it is: {error}");
        store.close().await;
    }
    let (store, _) = Probe::open(open).await;
    store.close().await;
}

/// What a log should hold.
#[derive(Default)]
struct Log {
    batches: Vec<Batch>,
}

impl Log {
    /// Appends some entries and returns them.
    fn batch(&mut self, term: Term, count: usize, payload_bytes: usize) -> Batch {
        let (last, checksum) = self.last();
        let mut builder = BatchBuilder::new(crate::checksum, term, last.index.next(), checksum, 0);
        for number in 0..count {
            let kind = if payload_bytes == 0 { Kind::Noop } else { Kind::Command };
            let salt = last.index.0 as usize + number;
            builder.push(kind, &(0..payload_bytes).map(|at| (at * 31 + salt) as u8).collect::<Vec<u8>>());
        }
        let batch = builder.finish().expect("something was pushed");
        self.batches.push(batch.clone());
        batch
    }

    fn truncate(&mut self, from: Index) {
        self.batches.retain(|batch| batch.first() < from);
        if let Some(last) = self.batches.last_mut() {
            *last = last.up_to(from.previous()).expect("it begins before");
        }
    }

    fn last(&self) -> (EntryId, u32) {
        self.batches.last().map_or_else(Default::default, |batch| (batch.last_id(), batch.checksum()))
    }

    fn assert_is(&self, recovered: &Recovered) {
        let mut terms: Vec<_> = self.batches.iter().map(|batch| (batch.first(), batch.term())).collect();
        terms.dedup_by_key(|(_, term)| *term);
        assert_eq!((recovered.last, recovered.last_checksum), self.last(), "the last entry is found");
        assert_eq!(recovered.terms, terms, "the first entry of every term is found");
    }

    /// The batches are `count` entries of this log from `from` on.
    fn assert_equal(&self, batches: &[Batch], from: Index, count: u64) {
        let read: Vec<_> = batches.iter().flat_map(Batch::records).collect();
        let own = self.batches.iter().flat_map(Batch::records);
        let wanted: Vec<_> = own.skip_while(|record| record.id.index < from).take(count as usize).collect();
        assert_eq!(read.len(), wanted.len(), "{count} entries from {from} on are read");
        assert_eq!(read, wanted, "entries are read as they were persisted");
        for batch in batches {
            Batch::parse(batch.bytes().clone(), crate::checksum).expect("a batch that was read is one");
        }
    }
}

fn append(batch: Batch) -> quorate_raft::Persist {
    quorate_raft::Persist { batch: Some(batch), ..Default::default() }
}

fn truncate(from: Index) -> quorate_raft::Persist {
    quorate_raft::Persist { truncate_from: Some(from), ..Default::default() }
}

fn reply(number: u64) -> Outgoing {
    let outcome = AppendOutcome::Matched { matched: Index(number) };
    let body = Body::AppendReply(AppendReply { epoch: 0, outcome });
    Outgoing { to: NodeId(2), message: Message { term: Term(1), body } }
}

/// A running store and what it tells.
struct Probe {
    storage: Storage,
    told: mpsc::UnboundedReceiver<Told>,
    gone: oneshot::Receiver<()>,
    sequence: u64,
    requests: u64,
}

#[derive(Debug)]
enum Told {
    Persisted(Persisted),
    Read(EntriesRead),
    Failed(StorageError),
}

impl Probe {
    async fn open(open: &impl Fn() -> StorageHandle) -> (Self, Recovered) {
        let (probe, outcome) = Self::try_open(open(), "conformance", NodeId(1)).await;
        (probe, outcome.expect("the store opens"))
    }

    async fn try_open(handle: StorageHandle, cluster: &str, member: NodeId) -> (Self, Result<Recovered, StorageError>) {
        let (tell, told) = mpsc::unbounded_channel();
        let (leave, gone) = oneshot::channel();
        let storage = handle.start();
        let completions = Completions::to(&Ear(tell).start());
        let observer = Arc::new(Presence { _leaves_when_dropped: leave });
        let recover = Recover { cluster: cluster.to_owned(), member, completions, observer };
        let outcome = storage.recover.send(recover).await.expect("the store lives");
        (Self { storage, told, gone, sequence: 0, requests: 0 }, outcome)
    }

    fn persist(&mut self, persist: quorate_raft::Persist) {
        self.sequence += 1;
        self.storage.persist.do_send(Persist(quorate_raft::Persist { sequence: self.sequence, ..persist }));
    }

    async fn await_persisted(&mut self, sequence: u64) -> Vec<Persisted> {
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

    async fn read(&mut self, from: Index, to: Index, bytes_max: usize) -> Vec<Batch> {
        self.requests += 1;
        self.storage.read_entries.do_send(ReadEntries { request: self.requests, from, to, bytes_max });
        loop {
            match self.told.recv().await {
                Some(Told::Read(read)) => {
                    assert_eq!(read.request, self.requests, "the request is echoed");
                    return read.batches;
                }
                Some(Told::Persisted(_)) => {}
                other => panic!("waited for entries {from}..={to}, was told {other:?}"),
            }
        }
    }

    async fn assert_holds(&mut self, log: &Log) {
        let last = log.last().0.index;
        let (mut next, mut all) = (Index(1), Vec::new());
        while next <= last {
            let batches = self.read(next, last, 1000).await;
            next = batches.last().map(Batch::last).unwrap_or_else(|| panic!("entry {next} is not held")).next();
            all.extend(batches);
        }
        log.assert_equal(&all, Index(1), last.0);
    }

    async fn await_failed(&mut self) {
        match self.told.recv().await {
            Some(Told::Failed(error)) => assert!(!error.to_string().contains('\n'), "an error is one line: {error}"),
            other => panic!("waited for the store to fail, was told {other:?}"),
        }
    }

    /// Lets go of the store and waits until it is gone. All that it may still say is what was persisted.
    async fn close(self) {
        for told in self.last_words().await {
            assert!(matches!(told, Told::Persisted(_)), "told without being asked: {told:?}");
        }
    }

    /// Lets go of a store that failed, which may say nothing more.
    async fn close_failed(self) {
        let told = self.last_words().await;
        assert!(told.is_empty(), "told after a failure: {told:?}");
    }

    async fn last_words(mut self) -> Vec<Told> {
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

/// Says when the store let go of it.
struct Presence {
    _leaves_when_dropped: oneshot::Sender<()>,
}

impl StorageObserver for Presence {}

/// Passes on what the store tells.
struct Ear(mpsc::UnboundedSender<Told>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<Persisted> for Ear {
    type Result = ();

    fn handle(&mut self, persisted: Persisted, _: &mut Self::Context) {
        drop(self.0.send(Told::Persisted(persisted)));
    }
}

impl Handler<EntriesRead> for Ear {
    type Result = ();

    fn handle(&mut self, read: EntriesRead, _: &mut Self::Context) {
        drop(self.0.send(Told::Read(read)));
    }
}

impl Handler<StorageFull> for Ear {
    type Result = ();

    fn handle(&mut self, _: StorageFull, _: &mut Self::Context) {}
}

impl Handler<StorageFailed> for Ear {
    type Result = ();

    fn handle(&mut self, failed: StorageFailed, _: &mut Self::Context) {
        drop(self.0.send(Told::Failed(failed.error)));
    }
}
