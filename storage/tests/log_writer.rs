//! The actor over the write-ahead log, seen from the node: groups, order, and the end after an error.

use actix::prelude::*;
use quorate_raft::{BatchBuilder, HardState, Index, Kind, NodeId, Term};
use quorate_storage::{
    Completions, EntriesRead, Persist, Persisted, ReadEntries, Recover, Storage, StorageFailed, StorageObserver, Wal,
    disk::{Crash, Operation, SimulatedDisk},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

#[actix::test]
async fn everything_that_is_there_costs_one_sync_and_is_told_once() {
    let disk = SimulatedDisk::new();
    let mut node = Node::start(&disk).await;
    let syncs = disk.count(Operation::Sync);
    // The store lives on this thread: nothing is handled before this test waits.
    for sequence in 1..=100 {
        node.append(sequence, 1);
    }
    node.storage.persist.do_send(Persist(quorate_raft::Persist { sequence: 101, ..Default::default() }));
    assert_eq!(node.next().await, Told::Persisted(101));
    assert_eq!(disk.count(Operation::Sync) - syncs, 1);
}

#[actix::test]
async fn a_persisted_batch_costs_exactly_one_sync_in_steady_state() {
    let disk = SimulatedDisk::new();
    let mut node = Node::start(&disk).await;
    let syncs = disk.count(Operation::Sync);
    for sequence in 1..=200 {
        node.append(sequence, 10);
        assert_eq!(node.next().await, Told::Persisted(sequence));
    }
    assert_eq!(disk.count(Operation::Sync) - syncs, 200);
    assert_eq!(disk.count(Operation::SyncDir), node.dir_syncs);
    assert_eq!(node.watch.syncs.load(Ordering::Relaxed), 200);
}

#[actix::test]
async fn nothing_is_told_as_persisted_that_a_power_cut_takes_back() {
    let disk = SimulatedDisk::new();
    let mut node = Node::start(&disk).await;
    for sequence in 1..=5 {
        node.append(sequence, 3);
        let state = HardState { term: Term(sequence), vote: Some(NodeId(sequence)) };
        let vote = quorate_raft::Persist { sequence: 100 + sequence, hard_state: Some(state), ..Default::default() };
        node.storage.persist.do_send(Persist(vote));
        assert_eq!(node.next().await, Told::Persisted(100 + sequence));
        let disk = disk.fork();
        disk.crash(Crash::Lose);
        let after = Node::start(&disk).await;
        assert_eq!(after.recovered.last.index, Index(3 * sequence));
        assert_eq!(after.recovered.hard_state, state);
    }
}

#[actix::test]
async fn after_an_error_of_any_sync_or_write_nothing_more_is_told_but_the_failure_once() {
    for operation in [Operation::Sync, Operation::Write] {
        for nth in 1..=6 {
            let disk = SimulatedDisk::new();
            let mut node = Node::start(&disk).await;
            disk.fail(operation, nth);
            let mut told = Vec::new();
            for sequence in 1..=10 {
                node.append(sequence, 1);
                // The disk works again after one error, and a retry would seem to succeed: nobody may try.
                match node.within_reach().await {
                    Some(word) => told.push(word),
                    None => assert!(told.contains(&Told::Failed), "silence comes behind a failure alone"),
                }
            }
            node.storage.read_entries.do_send(ReadEntries { request: 1, from: Index(1), to: Index(1), bytes_max: 100 });
            told.extend(node.within_reach().await);
            let good = nth - 1;
            let expected = (1..=good).map(Told::Persisted).chain([Told::Failed]).collect::<Vec<_>>();
            assert_eq!(told, expected, "{operation:?} {nth}");
            assert_eq!(node.watch.failures.load(Ordering::Relaxed), 1);
            disk.crash(Crash::Lose);
            let after = Node::start(&disk).await;
            assert!(after.recovered.last.index >= Index(good), "what was told is there");
        }
    }
}

#[actix::test]
async fn a_log_that_cannot_be_opened_says_why_in_one_line() {
    let disk = SimulatedDisk::new();
    disk.fail(Operation::Open, 1);
    let error = Node::try_start(&disk).await.err().expect("it fails");
    assert!(error.contains("can't open log/hard-state.new") && !error.contains('\n'), "{error}");
}

/// A store on this thread, and what it tells.
struct Node {
    storage: Storage,
    told: mpsc::UnboundedReceiver<Told>,
    recovered: quorate_storage::Recovered,
    watch: Arc<Watch>,
    dir_syncs: u64,
    last: (Index, u32),
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Persisted(u64),
    Read(u64),
    Failed,
}

impl Node {
    async fn start(disk: &SimulatedDisk) -> Self {
        Self::try_start(disk).await.expect("the store opens")
    }

    async fn try_start(disk: &SimulatedDisk) -> Result<Self, String> {
        let storage = Wal::at("log").on(disk.clone()).segment_bytes(4 << 20).storage().start_here();
        let (tell, told) = mpsc::unbounded_channel();
        let watch = Arc::new(Watch::default());
        let recover = Recover {
            cluster: "test".into(),
            member: NodeId(1),
            completions: Completions::to(&Ear(tell).start()),
            observer: watch.clone(),
        };
        let recovered = storage.recover.send(recover).await.expect("it lives").map_err(|error| error.to_string())?;
        let last = (recovered.last.index, recovered.last_checksum);
        Ok(Self { storage, told, recovered, watch, dir_syncs: disk.count(Operation::SyncDir), last })
    }

    fn append(&mut self, sequence: u64, count: usize) {
        let first = self.last.0.next();
        let mut builder = BatchBuilder::new(quorate_storage::checksum, Term(1), first, self.last.1, 0);
        for _ in 0..count {
            builder.push(Kind::Command, b"a command");
        }
        let batch = builder.finish();
        self.last = batch.as_ref().map_or(self.last, |batch| (batch.last(), batch.checksum()));
        self.storage.persist.do_send(Persist(quorate_raft::Persist { sequence, batch, ..Default::default() }));
    }

    async fn next(&mut self) -> Told {
        self.told.recv().await.expect("the store lives")
    }

    /// What is told once every actor on this thread had its turn; `None` if nothing is.
    async fn within_reach(&mut self) -> Option<Told> {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.told.try_recv().ok()
    }
}

#[derive(Default)]
struct Watch {
    syncs: AtomicU64,
    failures: AtomicU64,
}

impl StorageObserver for Watch {
    fn synced(&self, _: Duration) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, _: &'static str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

struct Ear(mpsc::UnboundedSender<Told>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<Persisted> for Ear {
    type Result = ();

    fn handle(&mut self, persisted: Persisted, _: &mut Self::Context) {
        drop(self.0.send(Told::Persisted(persisted.sequence)));
    }
}

impl Handler<EntriesRead> for Ear {
    type Result = ();

    fn handle(&mut self, read: EntriesRead, _: &mut Self::Context) {
        drop(self.0.send(Told::Read(read.request)));
    }
}

impl Handler<StorageFailed> for Ear {
    type Result = ();

    fn handle(&mut self, _: StorageFailed, _: &mut Self::Context) {
        drop(self.0.send(Told::Failed));
    }
}
