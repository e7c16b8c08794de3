//! A store by the trait keeps the duties of a storage actor: `LogDir` adds those that it lacks.

use quorate_raft::{Batch, BatchBuilder, EntryId, Faulty, HardState, Index, Kind, NodeId, Term};
use quorate_storage::{
    LogDir, LogStore, Opening, Persist, Recover, Recovered, Storage, StorageError, StorageHandle, StorageOp,
    Unobserved, checksum, disk::File, store_file::failed,
};
use quorate_storage_testing::{
    Crash, Operation, SimulatedDisk,
    completions::{Completion, listen},
    conformance::{self, Fault, Harness},
};
use std::{
    collections::BTreeSet,
    io::IoSlice,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;

#[actix::test]
async fn a_store_by_the_trait_conforms_with_every_fault() {
    let report = conformance::run(Place::default).await;
    assert_eq!(report.skipped, ["damage"], "its content is no bytes on a disk");
}

#[actix::test]
async fn everything_that_is_there_costs_one_sync_and_is_told_once() {
    let place = Place::default();
    let (storage, mut told) = start(&place).await.expect("it opens");
    let syncs = place.disk.count(Operation::Sync);
    let mut last = (EntryId::default(), 0);
    for sequence in 1..=100 {
        let batch = command_after(&mut last);
        storage.persist.do_send(Persist(quorate_raft::Persist { sequence, batch, ..Default::default() }));
    }
    assert_eq!(told.recv().await, Some(Told::Persisted(100)));
    assert_eq!(place.disk.count(Operation::Sync) - syncs, 1);
}

#[actix::test]
async fn a_full_store_is_told_and_so_is_that_there_is_room_again() {
    tokio::time::pause();
    let place = Place::default();
    let (storage, mut told) = start(&place).await.expect("it opens");
    place.content().is_full = true;
    let batch = command_after(&mut (EntryId::default(), 0));
    storage.persist.do_send(Persist(quorate_raft::Persist { sequence: 1, batch, ..Default::default() }));
    assert_eq!(told.recv().await, Some(Told::Persisted(1)));
    assert_eq!(told.recv().await, Some(Told::Full(true)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    place.content().is_full = false;
    let began = tokio::time::Instant::now();
    assert_eq!(told.recv().await, Some(Told::Full(false)));
    assert!(began.elapsed() <= Duration::from_secs(1), "it is asked once a second");
}

#[actix::test]
async fn a_store_that_lost_its_term_is_refused() {
    let place = Place::default();
    let (storage, mut told) = start(&place).await.expect("it opens");
    let batch = command_after(&mut (EntryId::default(), 0));
    storage.persist.do_send(Persist(quorate_raft::Persist { sequence: 1, batch, ..Default::default() }));
    assert_eq!(told.recv().await, Some(Told::Persisted(1)));
    assert_eq!(place.content().durable.hard_state.term, Term(1), "it is stored with the entry");
    drop(storage);
    place.crash(0);
    place.content().durable.hard_state = HardState::default();
    let error = start(&place).await.err().expect("it is refused").to_string();
    assert!(error.contains("term and vote are lost"), "{error}");
}

fn command_after(last: &mut (EntryId, u32)) -> Option<Batch> {
    let mut entries = BatchBuilder::new(checksum, Term(1), last.0.index.next(), last.1, 0);
    entries.push(Kind::Command, b"a command");
    let batch = entries.finish()?;
    *last = (batch.last_id(), batch.checksum());
    Some(batch)
}

/// Content with a copy that survives power cuts, and a disk for the files beside it. A file on that
/// disk is written with each change and synced with each sync: so its faults are the store's.
#[derive(Clone, Default)]
struct Place {
    disk: SimulatedDisk,
    content: Arc<Mutex<Content>>,
}

#[derive(Default)]
struct Content {
    staged: Held,
    durable: Held,
    is_full: bool,
}

#[derive(Clone, Default)]
struct Held {
    hard_state: HardState,
    has_voted: bool,
    base: (EntryId, u32),
    batches: Vec<Batch>,
    lost: BTreeSet<Index>,
}

impl Place {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Harness for Place {
    fn open(&self) -> StorageHandle {
        let content = Arc::clone(&self.content);
        LogDir::at("data").on(self.disk.clone()).storage(move |opening| Store::open(content, opening))
    }

    fn crash(&self, seed: u64) -> bool {
        let mut content = self.content();
        self.disk.crash(if seed.is_multiple_of(2) { Crash::Lose } else { Crash::Scatter { seed } });
        content.staged = content.durable.clone();
        true
    }

    fn fail_next(&self, fault: Fault) -> bool {
        self.disk.fail(fault.into(), 1);
        true
    }

    fn lose(&self, entry: Index) -> bool {
        let mut content = self.content();
        let is_held = content.durable.batches.iter().any(|batch| batch.from(entry).is_some());
        if is_held {
            content.durable.lost.insert(entry);
            content.staged = content.durable.clone();
        }
        is_held
    }
}

struct Store {
    file: Box<dyn File>,
    content: Arc<Mutex<Content>>,
    has_failed: bool,
}

impl Store {
    fn open(content: Arc<Mutex<Content>>, opening: &Opening) -> Result<(Self, Recovered), StorageError> {
        let path = opening.dir.join("scratch");
        let file =
            opening.disk.open(&path).or_else(|_| opening.disk.create(&path)).map_err(failed(StorageOp::Open, &path))?;
        let recovered = {
            let mut content = content.lock().unwrap_or_else(PoisonError::into_inner);
            // What a failed store staged is not durable.
            content.staged = content.durable.clone();
            content.staged.recovered()?
        };
        Ok((Self { file, content, has_failed: false }, recovered))
    }

    fn change(&mut self, what: impl FnOnce(&mut Held)) -> Result<(), StorageError> {
        assert!(!self.has_failed, "no method is called after an error");
        if let Err(error) = self.file.write_at(&mut [IoSlice::new(b"a change")], 0) {
            self.has_failed = true;
            return Err(StorageError::io(StorageOp::Write, Path::new("scratch"), error, "check the disk"));
        }
        what(&mut self.content.lock().unwrap_or_else(PoisonError::into_inner).staged);
        Ok(())
    }
}

impl Held {
    fn recovered(&self) -> Result<Recovered, StorageError> {
        let (base, last_checksum) = self.base;
        let Self { hard_state, has_voted, .. } = *self;
        let mut recovered =
            Recovered { hard_state, has_voted, base, last: base, last_checksum, ..Recovered::default() };
        self.batches.iter().try_for_each(|batch| recovered.append(batch))?;
        recovered.faulty = self.lost.iter().filter_map(|lost| self.faulty(*lost)).collect();
        Ok(recovered)
    }

    fn faulty(&self, index: Index) -> Option<Faulty> {
        let entry = self.batches.iter().find_map(|batch| batch.from(index))?.up_to(index)?;
        Some(Faulty { id: entry.last_id(), checksum: entry.checksum(), was_durable: true })
    }
}

impl LogStore for Store {
    fn set_hard_state(&mut self, state: HardState, has_voted: bool) -> Result<(), StorageError> {
        self.change(|held| (held.hard_state, held.has_voted) = (state, has_voted))
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.change(|held| held.batches.push(batch.clone()))
    }

    fn truncate(&mut self, from: Index) -> Result<(), StorageError> {
        self.change(|held| {
            held.batches = held.batches.iter().filter_map(|batch| batch.up_to(from.previous())).collect();
            held.lost.split_off(&from);
        })
    }

    fn cut(&mut self, to: EntryId, checksum: u32) -> Result<(), StorageError> {
        self.change(|held| {
            held.base = (to, checksum);
            held.batches = held.batches.iter().filter_map(|batch| batch.from(to.index.next())).collect();
            held.lost = held.lost.split_off(&to.index.next());
        })
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        assert!(!self.has_failed, "no method is called after an error");
        // The power is cut before or after both, as the harness holds the lock meanwhile.
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.file.sync_data() {
            self.has_failed = true;
            return Err(StorageError::io(StorageOp::Sync, Path::new("scratch"), error, "check the disk"));
        }
        content.durable = content.staged.clone();
        Ok(())
    }

    fn read(&mut self, index: Index) -> Result<Option<Batch>, StorageError> {
        assert!(!self.has_failed, "no method is called after an error");
        let held = &self.content.lock().unwrap_or_else(PoisonError::into_inner).staged;
        let found = held.batches.iter().find_map(|batch| batch.from(index));
        Ok(match held.lost.range(index..).next() {
            Some(lost) => found.and_then(|batch| batch.up_to(lost.previous())),
            None => found,
        })
    }

    fn entry(&mut self, index: Index) -> Result<(EntryId, u32), StorageError> {
        let held = &self.content.lock().unwrap_or_else(PoisonError::into_inner).staged;
        let found = held.faulty(index).map(|entry| (entry.id, entry.checksum));
        found.ok_or_else(|| StorageError::new(format!("asked for entry {index}, which is not held")))
    }

    fn repair(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.change(|held| held.lost.retain(|lost| *lost < batch.first() || *lost > batch.last()))
    }

    fn is_full(&mut self) -> Result<bool, StorageError> {
        Ok(self.content.lock().unwrap_or_else(PoisonError::into_inner).is_full)
    }
}

async fn start(place: &Place) -> Result<(Storage, mpsc::UnboundedReceiver<Told>), StorageError> {
    let (completions, told) = listen(|completion| match completion {
        Completion::Persisted(persisted) => Some(Told::Persisted(persisted.sequence)),
        Completion::Full(is_full) => Some(Told::Full(is_full)),
        Completion::Failed(error) => Some(Told::Failed(error)),
        Completion::Read(_) => None,
    });
    let storage = place.open().start_here();
    let recover = Recover { cluster: "test".into(), member: NodeId(1), completions, observer: Arc::new(Unobserved) };
    storage.recover.send(recover).await.expect("it lives")?;
    Ok((storage, told))
}

#[derive(PartialEq, Debug)]
enum Told {
    Persisted(u64),
    Full(bool),
    Failed(StorageError),
}
