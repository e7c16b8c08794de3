//! The actor over the write-ahead log, from the node's view: groups, order, and the end
//! after an error.

use quorate_raft::{BatchBuilder, EntryId, HardState, Index, Kind, Membership, NodeId, SnapshotBase, Term};
use quorate_storage::{
    OpenSnapshot, Persist, ReadEntries, Recover, Remember, SaveSnapshot, Storage, StorageHandle, StorageObserver,
    StorageOp, Wal,
};
use quorate_storage_testing::{
    Crash, Operation, SimulatedDisk,
    completions::{Completion, listen},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

#[actix::test]
async fn everything_that_is_there_costs_one_sync_and_is_told_once() {
    let disk = SimulatedDisk::new();
    let mut node = Node::start(&disk).await;
    let syncs = disk.count(Operation::Sync);
    // The store lives on this thread: it handles no message before this test waits.
    for sequence in 1..=100 {
        node.append(sequence, 1);
    }
    node.storage.persist.do_send(Persist(quorate_raft::Persist { sequence: 101, ..Default::default() }));
    assert_eq!(node.next().await, Told::Persisted(101));
    assert_eq!(disk.count(Operation::Sync) - syncs, 1);
}

#[actix::test]
async fn a_persisted_batch_costs_exactly_one_sync_in_steady_state() {
    tokio::time::pause();
    let disk = SimulatedDisk::new();
    let mut node = Node::start(&disk).await;
    let syncs = disk.count(Operation::Sync);
    let writes = disk.count(Operation::Write);
    for sequence in 1..=200 {
        node.append(sequence, 4);
        assert_eq!(node.next().await, Told::Persisted(sequence));
    }
    assert_eq!(disk.count(Operation::Sync) - syncs, 200);
    assert_eq!(disk.count(Operation::Write) - writes, 200, "records and slots are one write");
    assert_eq!(disk.count(Operation::SyncDir), node.dir_syncs);
    assert_eq!(node.watch.syncs.load(Ordering::Relaxed), 200);
}

#[actix::test]
async fn a_log_under_load_puts_its_slots_into_the_table_a_few_times_a_second_without_a_sync() {
    tokio::time::pause();
    let disk = SimulatedDisk::new();
    let mut node = Node::start(&disk).await;
    let (writes, syncs) = (disk.count(Operation::Write), disk.count(Operation::Sync));
    for sequence in 1..=100 {
        node.append(sequence, 1);
        assert_eq!(node.next().await, Told::Persisted(sequence));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(disk.count(Operation::Sync) - syncs, 100);
    assert_eq!(disk.count(Operation::Write) - writes, 103);
}

#[actix::test]
async fn an_idle_log_has_both_places_of_an_entry_far_apart_on_the_disk_within_a_second() {
    tokio::time::pause();
    let disk = SimulatedDisk::new();
    let mut node = Node::start(&disk).await;
    for sequence in 1..=3 {
        node.append(sequence, 1);
        assert_eq!(node.next().await, Told::Persisted(sequence));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let syncs = disk.count(Operation::Sync);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(disk.count(Operation::Sync), syncs, "then there is nothing left to do");
        let disk = disk.fork();
        disk.crash(Crash::Lose);
        let segment = segments(&disk).pop().expect("there is a segment");
        let bytes = disk.contents(&segment).expect("it is there");
        let last = bytes.windows(8).rposition(|window| window == b"QUORMARK").expect("there is a group");
        assert!(disk.zero(&segment, last..bytes.len()));
        let after = Node::start(&disk).await;
        let lost: Vec<_> =
            after.recovered.faulty.iter().map(|faulty| (faulty.id.index.0, faulty.was_durable)).collect();
        assert_eq!(lost, [(sequence, true)], "all is lost of its group, and nothing of its slot in the table");
    }
}

/// A stopped node may stay stopped for long: its last entries do not wait for the next start.
#[actix::test]
async fn a_closed_log_has_both_places_of_an_entry_far_apart_on_the_disk() {
    type Start = fn(StorageHandle) -> Storage;
    type Close = fn(Storage);
    // The end of the last address, and of the thread.
    let ways: [(Start, Close); 2] = [
        (StorageHandle::start_here, drop),
        (|store| store.start().expect("a thread"), |mut storage| storage.take_thread().expect("it has one").end()),
    ];
    // The last groups begin a segment, too: the full one before it is closed then.
    for (groups, (start, close)) in [1, 2, 20, 60].into_iter().flat_map(|groups| ways.map(|way| (groups, way))) {
        let disk = SimulatedDisk::new();
        let mut node = Node::start_with(&disk, start).await.expect("the store opens");
        for sequence in 1..=groups {
            node.append_of(sequence, 1, 100_000);
            while node.next().await != Told::Persisted(sequence) {}
        }
        node.close(close).await;
        disk.crash(Crash::Lose);
        // Everything but the tables.
        for segment in segments(&disk) {
            let bytes = disk.contents(&segment).expect("it is there");
            let first = bytes.windows(8).position(|window| window == b"QUORMARK");
            assert!(first.is_none_or(|first| disk.zero(&segment, first..bytes.len())));
        }
        let after = Node::start(&disk).await;
        let lost: Vec<_> =
            after.recovered.faulty.iter().map(|faulty| (faulty.id.index.0, faulty.was_durable)).collect();
        assert_eq!(lost, (1..=groups).map(|index| (index, true)).collect::<Vec<_>>());
    }
}

#[actix::test]
async fn after_an_error_nothing_is_written_to_a_log_that_is_closed() {
    tokio::time::pause();
    for operation in [Operation::Sync, Operation::Write] {
        let (disk, mut node) = Node::with_a_group_not_in_the_table().await;
        disk.fail(operation, 1);
        node.append(2, 3);
        assert_eq!(node.next().await, Told::Failed);
        let work = [Operation::Write, Operation::Sync, Operation::Rename].map(|operation| disk.count(operation));
        assert_eq!(node.close(drop).await, [], "the failure is told once");
        let after = [Operation::Write, Operation::Sync, Operation::Rename].map(|operation| disk.count(operation));
        assert_eq!(after, work, "{operation:?}");
    }
}

#[actix::test]
async fn an_error_while_a_log_is_closed_is_told_and_loses_nothing() {
    tokio::time::pause();
    for operation in [Operation::Sync, Operation::Write] {
        let (disk, node) = Node::with_a_group_not_in_the_table().await;
        disk.fail(operation, 1);
        let watch = node.watch.clone();
        assert_eq!(node.close(drop).await, [Told::Failed]);
        assert_eq!(watch.failures.load(Ordering::Relaxed), 1);
        disk.crash(Crash::Lose);
        let after = Node::start(&disk).await;
        assert_eq!((after.recovered.last.index, &after.recovered.faulty[..]), (Index(3), &[][..]), "{operation:?}");
    }
}

#[actix::test]
async fn writes_that_arrive_during_a_slow_sync_share_the_next_one() {
    let disk = SimulatedDisk::new();
    let mut node = Node::start_with(&disk, |store| store.start().expect("a thread")).await.expect("the store opens");
    let syncs = disk.count(Operation::Sync);
    disk.slow_down(Duration::from_millis(30));
    for sequence in 1..=100 {
        node.append(sequence, 1);
    }
    while node.next().await != Told::Persisted(100) {}
    assert!(disk.count(Operation::Sync) - syncs < 50, "a hundred requests are a few groups");
}

/// No write is acknowledged that only the page cache has.
#[actix::test]
async fn nothing_is_told_as_persisted_that_a_power_cut_takes_back() {
    let disk = SimulatedDisk::new();
    let mut node = Node::start(&disk).await;
    for sequence in 1..=5 {
        node.append(sequence, 3);
        let state = HardState::new(Term(sequence), Some(NodeId(sequence)));
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

/// A sync that fails once and would succeed on retry is never retried: its data are lost
/// all the same.
#[actix::test]
async fn after_an_error_of_any_sync_or_write_nothing_more_is_told_but_the_failure_once() {
    // So no slots go to the table meanwhile: a group takes one sync and one write.
    tokio::time::pause();
    for operation in [Operation::Sync, Operation::Write] {
        for nth in 1..=6 {
            let disk = SimulatedDisk::new();
            let mut node = Node::start(&disk).await;
            disk.fail(operation, nth);
            let mut told = Vec::new();
            for sequence in 1..=10 {
                node.append(sequence, 1);
                // The disk works again after one error, and a retry would seem to succeed: there
                // must be none.
                match node.within_reach().await {
                    Some(word) => told.push(word),
                    None => assert!(told.contains(&Told::Failed), "silence comes after a failure alone"),
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
async fn a_full_disk_is_told_and_so_is_that_there_is_space_again_without_a_restart() {
    tokio::time::pause();
    let disk = SimulatedDisk::new();
    let mut node = Node::start(&disk).await;
    disk.fill_after(100_000);
    let (mut sequence, mut told) = (0, Vec::new());
    while !told.contains(&Told::Full(true)) {
        sequence += 1;
        node.append_of(sequence, 1, 100_000);
        told.push(node.next().await);
        told.extend(node.within_reach().await);
        assert!(sequence < 30, "it is told while there is room for most of a segment");
    }
    // A process with an open file can still write.
    node.append(sequence + 1, 1);
    assert_eq!(node.next().await, Told::Persisted(sequence + 1));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(node.within_reach().await, None, "nothing changes by itself");
    disk.fill_after(100 << 20);
    let began = tokio::time::Instant::now();
    assert_eq!(node.next().await, Told::Full(false));
    assert!(began.elapsed() <= Duration::from_secs(2), "it looks about once a second");
    for more in 2..=60 {
        node.append_of(sequence + more, 1, 100_000);
        assert_eq!(node.next().await, Told::Persisted(sequence + more));
    }
    disk.crash(Crash::Lose);
    assert_eq!(Node::start(&disk).await.recovered.last.index, Index(sequence + 60));
}

#[actix::test]
async fn a_disk_that_is_really_out_of_space_is_the_end() {
    let disk = SimulatedDisk::new();
    let mut node = Node::start(&disk).await;
    disk.fill_after(1000);
    let mut acknowledged = 0;
    for sequence in 1..=60 {
        node.append_of(sequence, 1, 100_000);
        let mut told = vec![node.next().await];
        told.extend(node.within_reach().await);
        if told.contains(&Told::Failed) {
            disk.fill_after(100 << 20);
            disk.crash(Crash::Lose);
            assert!(Node::start(&disk).await.recovered.last.index >= Index(acknowledged), "what was told is there");
            return;
        }
        acknowledged = sequence;
    }
    panic!("there can't have been space");
}

#[actix::test]
async fn snapshots_are_saved_and_opened_beside_the_log_and_members_are_remembered() {
    let disk = SimulatedDisk::new();
    let mut node = Node::start(&disk).await;
    assert!(node.storage.open_snapshot.send(OpenSnapshot).await.expect("it lives").is_err(), "there is none yet");
    node.append(1, 3);
    assert_eq!(node.next().await, Told::Persisted(1));
    let last = EntryId::new(Term(1), Index(3));
    let base = SnapshotBase {
        last,
        last_checksum: node.last.1,
        membership: Membership::of_voters([NodeId(1)]),
        membership_index: Index(0),
    };
    let save = SaveSnapshot { base, expected: None };
    let mut sink = node.storage.save_snapshot.send(save).await.expect("it lives").expect("it begins");
    std::io::Write::write_all(&mut sink, b"the state").expect("it is written");
    let saved = sink.finish().expect("it is saved");
    node.storage.remember.do_send(Remember { members: vec![(NodeId(2), Index(9))] });
    let cut = quorate_raft::Cut { to: last, checksum: None };
    node.storage.persist.do_send(Persist(quorate_raft::Persist { sequence: 2, cut: Some(cut), ..Default::default() }));
    assert_eq!(node.next().await, Told::Persisted(2));
    let mut source = node.storage.open_snapshot.send(OpenSnapshot).await.expect("it lives").expect("there is one");
    let mut state = [0; 20];
    assert_eq!(source.read_at(&mut state, 4).expect("it is whole"), 5);
    assert_eq!(&state[..5], b"state");
    drop(source);
    disk.crash(Crash::Lose);
    let after = Node::start(&disk).await;
    assert_eq!(after.recovered.snapshot, Some(saved));
    assert_eq!(after.recovered.holdings, [(NodeId(2), Index(9))]);
}

#[actix::test]
async fn a_log_that_cannot_be_opened_says_why_in_one_line() {
    let disk = SimulatedDisk::new();
    disk.fail(Operation::Open, 1);
    let error = Node::try_start(&disk).await.err().expect("it fails");
    assert!(error.contains("can't create log/hard-state.new") && !error.contains('\n'), "{error}");
}

#[actix::test]
async fn a_directory_that_is_taken_away_from_an_idle_log_is_noticed() {
    type TakeAway = fn(&Path);
    let cases: [(&str, TakeAway); 5] = [
        ("deleted", |dir| fs::remove_dir_all(dir).expect("removed")),
        ("moved", |dir| fs::rename(dir, dir.with_extension("moved")).expect("moved")),
        ("replaced by an empty one", |dir| {
            fs::rename(dir, dir.with_extension("moved")).expect("moved");
            fs::create_dir(dir).expect("made");
        }),
        ("emptied of segments", |dir| {
            for path in files(dir).filter(|path| path.extension().is_some_and(|end| end == "segment")) {
                fs::remove_file(path).expect("removed");
            }
        }),
        ("replaced by a copy of its files", |dir| {
            for path in files(dir) {
                let copy = path.with_extension("copy");
                fs::copy(&path, &copy).expect("copied");
                fs::rename(&copy, &path).expect("replaced");
            }
        }),
    ];
    for (case, take_away) in cases {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = temporary.path().join("data");
        let mut node = Node::in_dir(&dir).await;
        node.append(1, 3);
        assert_eq!(node.next().await, Told::Persisted(1));
        let since = Instant::now();
        take_away(&dir);
        assert_eq!(node.next().await, Told::Failed, "{case}");
        println!("{case}: noticed after {:?}", since.elapsed());
        node.append(2, 1);
        assert!(node.told.try_recv().is_err(), "{case}: it is the end");
    }
}

#[actix::test]
async fn no_write_to_a_log_whose_directory_was_deleted_is_acknowledged() {
    for nth in 0..20 {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = temporary.path().join("data");
        let mut node = Node::in_dir(&dir).await;
        for sequence in 1..=nth {
            node.append(sequence, 1);
            assert_eq!(node.next().await, Told::Persisted(sequence));
        }
        fs::remove_dir_all(&dir).expect("removed");
        node.append(nth + 1, 1);
        assert_eq!(node.next().await, Told::Failed);
    }
}

fn segments(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "segment");
    disk.paths().into_iter().filter(is_segment).collect()
}

fn files(dir: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>().into_iter()
}

/// A store on this thread, and its completions.
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
    Full(bool),
    Failed,
}

impl Node {
    async fn start(disk: &SimulatedDisk) -> Self {
        Self::try_start(disk).await.expect("the store opens")
    }

    async fn try_start(disk: &SimulatedDisk) -> Result<Self, String> {
        Self::start_with(disk, StorageHandle::start_here).await
    }

    async fn start_with(disk: &SimulatedDisk, start: fn(StorageHandle) -> Storage) -> Result<Self, String> {
        Self::of(start(Wal::at("log").on(disk.clone()).segment_bytes(4 << 20).storage()), || {
            disk.count(Operation::SyncDir)
        })
        .await
    }

    /// On a directory of the operating system, with the store on a thread of its own.
    async fn in_dir(dir: &Path) -> Self {
        Self::of(Wal::at(dir).segment_bytes(1 << 20).storage().start().expect("a thread"), || 0)
            .await
            .expect("the store opens")
    }

    async fn of(storage: Storage, dir_syncs: impl Fn() -> u64) -> Result<Self, String> {
        let (completions, told) = listen(|completion| {
            Some(match completion {
                Completion::Persisted(persisted) => Told::Persisted(persisted.sequence),
                Completion::Read(read) => Told::Read(read.request),
                Completion::Full(is_full) => Told::Full(is_full),
                Completion::Failed(_) => Told::Failed,
            })
        });
        let watch = Arc::new(Watch::default());
        let recover = Recover { cluster: "test".into(), member: NodeId(1), completions, observer: watch.clone() };
        let recovered = storage.recover.send(recover).await.expect("it lives").map_err(|error| error.to_string())?;
        let last = (recovered.last.index, recovered.last_checksum);
        let dir_syncs = dir_syncs();
        let mut node = Self { storage, told, recovered, watch, dir_syncs, last };
        if node.recovered.hard_state.term == Term(0) {
            // A term is stored before its entries.
            let state = Some(HardState::new(Term(1), None));
            node.storage.persist.do_send(Persist(quorate_raft::Persist { hard_state: state, ..Default::default() }));
            assert_eq!(node.next().await, Told::Persisted(0));
            node.watch.syncs.store(0, Ordering::Relaxed);
        }
        Ok(node)
    }

    fn append(&mut self, sequence: u64, count: usize) {
        self.append_of(sequence, count, 9);
    }

    fn append_of(&mut self, sequence: u64, count: usize, bytes: usize) {
        let first = self.last.0.next();
        let mut builder = BatchBuilder::new(quorate_storage::checksum, Term(1), first, self.last.1, 0);
        for _ in 0..count {
            builder.push(Kind::Command, &vec![7; bytes]);
        }
        let batch = builder.finish();
        self.last = batch.as_ref().map_or(self.last, |batch| (batch.last(), batch.checksum()));
        self.storage.persist.do_send(Persist(quorate_raft::Persist { sequence, batch, ..Default::default() }));
    }

    /// A store with one group of three entries, synced. Its slots wait for the table while the time of the
    /// runtime is paused.
    async fn with_a_group_not_in_the_table() -> (SimulatedDisk, Self) {
        let disk = SimulatedDisk::new();
        let mut node = Self::start(&disk).await;
        node.append(1, 3);
        assert_eq!(node.next().await, Told::Persisted(1));
        (disk, node)
    }

    /// Closes the store in order, and returns what it told until its end.
    async fn close(mut self, close: impl FnOnce(Storage)) -> Vec<Told> {
        close(self.storage);
        let mut told = Vec::new();
        while let Some(word) = self.told.recv().await {
            told.push(word);
        }
        told
    }

    async fn next(&mut self) -> Told {
        self.told.recv().await.expect("the store lives")
    }

    /// The next completion after every actor on this thread had its turn; `None` if there is none.
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

    fn failed(&self, _: StorageOp) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}
