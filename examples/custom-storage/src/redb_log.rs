//! A storage actor by the [actor contract](quorate_storage::contract): log, term and vote in a
//! [redb](https://docs.rs/redb) file, snapshots in files beside it. Two of its duties:
//! - **One commit per group**: the requests that arrived during the last commit. Actix empties the
//!   mailbox before it runs a future that an actor spawned, so the flush follows every message that
//!   was there. Reads flush first, so they see the effects of all persists before them.
//! - **Durable means after a power failure.** A commit is durable; pages that a killed process left
//!   in the cache are synced first (`create`).

use actix::prelude::*;
use bytes::Bytes;
use quorate_raft::{Batch, Cut, EntryId, HardState, Index, NodeId};
use quorate_storage::{contract::*, disk::Disk, disk::RealDisk, snapshots::SnapshotStore};
use redb::{AccessGuard, Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, error::Error, fs::File, path::Path, path::PathBuf, sync::Arc, time::Instant};

/// The storage actor over a redb file. Pass it to a node: `.storage(RedbLog::at("data/1.redb"))`.
pub struct RedbLog {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    create: fn(&dyn Disk, &Path) -> Outcome<Database>,
    open: Option<Log>,
    asked: Vec<Persist>,
}

/// A result with any error of redb, postcard or the disk.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

impl RedbLog {
    /// The log in this file, which is created if it does not exist; its directory must exist. The
    /// file is opened by `Recover`.
    pub fn at(path: impl Into<PathBuf>) -> StorageHandle {
        Self::on(RealDisk, path.into(), create)
    }

    /// [`RedbLog::at`] with snapshots on `disk`, and a database that `create` makes: for tests,
    /// which inject faults there.
    pub fn on(disk: impl Disk, path: PathBuf, create: fn(&dyn Disk, &Path) -> Outcome<Database>) -> StorageHandle {
        StorageHandle::actor(move || Self { path, disk: Arc::new(disk), create, open: None, asked: Vec::new() })
    }

    /// Makes all gathered persists durable, then runs `then`. The first error is reported and
    /// closes the log.
    fn flush(&mut self, then: impl FnOnce(&mut Log) -> Outcome<()>) {
        let (asked, Some(log)) = (std::mem::take(&mut self.asked), &mut self.open) else { return };
        if let Err(error) = log.persist(asked).and_then(|()| then(log)) {
            log.completions.failed(line(&self.path, error));
            self.open = None;
        }
    }
}

fn line(path: &Path, what: impl ToString) -> StorageError {
    StorageError::new(format!(
        "{}: {}; check disk and configuration",
        path.display(),
        what.to_string().replace('\n', " ")
    ))
}

fn create(disk: &dyn Disk, path: &Path) -> Outcome<Database> {
    // redb would create it with access for all users of the machine. It takes an empty file for
    // a new one.
    drop(disk.create(path).or_else(|_| disk.open(path))?);
    // All of it is read at the start anyway, and redb may panic over a damaged file that it
    // did not check.
    let database = Database::builder().set_check_integrity_on_open(true).create(path)?;
    File::open(path)?.sync_all()?;
    File::open(std::path::absolute(path)?.parent().unwrap_or(path))?.sync_all()?;
    Ok(database)
}

impl Actor for RedbLog {
    type Context = Context<Self>;
}

impl Handler<Recover> for RedbLog {
    type Result = Result<Recovered, StorageError>;
    fn handle(&mut self, recover: Recover, _: &mut Self::Context) -> Self::Result {
        let (log, recovered) = Log::open(self, recover).map_err(|error| line(&self.path, error))?;
        self.open = Some(log);
        Ok(recovered)
    }
}

impl Handler<Persist> for RedbLog {
    type Result = ();
    fn handle(&mut self, persist: Persist, context: &mut Self::Context) {
        self.asked.push(persist);
        if self.asked.len() == 1 {
            context.spawn(async {}.into_actor(self).map(|(), this, _| this.flush(|_| Ok(()))));
        }
    }
}

impl Handler<ReadEntries> for RedbLog {
    type Result = ();
    fn handle(&mut self, read: ReadEntries, _: &mut Self::Context) {
        self.flush(|log| log.read(read));
    }
}

impl Handler<Probe> for RedbLog {
    type Result = ();
    fn handle(&mut self, probe: Probe, _: &mut Self::Context) {
        probe.arrived();
    }
}

impl Handler<Remember> for RedbLog {
    type Result = ();
    fn handle(&mut self, Remember { members }: Remember, _: &mut Self::Context) {
        self.flush(|log| {
            for (member, index) in members {
                log.state.holdings.entry(member).and_modify(|known| *known = index.max(*known)).or_insert(index);
            }
            log.commit(log.database.begin_write()?)
        });
    }
}

impl Handler<SaveSnapshot> for RedbLog {
    type Result = Result<Box<dyn SnapshotSink>, StorageError>;
    fn handle(&mut self, SaveSnapshot { base, expected }: SaveSnapshot, _: &mut Self::Context) -> Self::Result {
        let log = self.open.as_ref().ok_or_else(|| line(&self.path, "it is not open"))?;
        log.snapshots.begin(base, expected)
    }
}

impl Handler<OpenSnapshot> for RedbLog {
    type Result = Result<Box<dyn SnapshotSource>, StorageError>;
    fn handle(&mut self, _: OpenSnapshot, _: &mut Self::Context) -> Self::Result {
        let log = self.open.as_ref().ok_or_else(|| line(&self.path, "it is not open"))?;
        log.snapshots.open_newest()
    }
}

/// Entries by index, each as a batch of one; and one row, a [`State`] encoded by postcard.
const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
const STATE: TableDefinition<(), &[u8]> = TableDefinition::new("state");

/// The open log. The observer is dropped last, so that the file is unlocked when the
/// observer is gone.
struct Log {
    completions: Completions,
    snapshots: SnapshotStore,
    database: Database,
    state: State,
    end: (EntryId, u32),
    observer: Arc<dyn StorageObserver>,
}

/// The data beside the entries. An entry's row ends with its checksum, to which the
/// next one chains.
#[derive(Default, Serialize, Deserialize)]
struct State {
    owner: (String, NodeId),
    hard_state: HardState,
    has_voted: bool,
    holdings: BTreeMap<NodeId, Index>,
    base: (EntryId, u32),
}

impl Log {
    /// Checks the owner of the file and every row. The log begins after a snapshot that is
    /// ahead of it.
    fn open(at: &RedbLog, Recover { cluster, member, completions, observer }: Recover) -> Outcome<(Self, Recovered)> {
        let (database, dir) = ((at.create)(&*at.disk, &at.path)?, at.path.with_extension("snapshots"));
        let (snapshots, found) = SnapshotStore::open(at.disk.clone(), dir, &cluster, member, observer.clone())?;
        let (transaction, owner) = (database.begin_write()?, (cluster, member));
        let held = transaction.open_table(STATE)?.get(())?.map(|row| postcard::from_bytes(row.value())).transpose()?;
        let state = held.unwrap_or_else(|| State { owner: owner.clone(), ..State::default() });
        let is_ours = (state.owner == owner).then_some(());
        is_ours.ok_or_else(|| format!("it belongs to {:?}, not to {owner:?}", state.owner))?;
        let mut log = Self { completions, snapshots, database, end: state.base, state, observer };
        let (mut entries, snapshot) = (transaction.open_table(ENTRIES)?, found.snapshots.into_iter().next());
        if let Some(base) = snapshot.as_ref().map(|snapshot| &snapshot.base) {
            let ahead = Cut { to: base.last, checksum: Some(base.last_checksum) };
            find(&entries, base.last)?.map_or_else(|| log.cut(&mut entries, ahead), |_| Ok(()))?;
        }
        let State { hard_state, has_voted, base: (base, last_checksum), .. } = log.state;
        let read = Recovered { hard_state, has_voted, base, last: base, last_checksum, ..Recovered::default() };
        let holdings = log.state.holdings.clone().into_iter().collect();
        let mut recovered = Recovered { snapshot, holdings, repairs: found.repairs, ..read };
        for row in entries.iter()? {
            recovered.append(&parse(row?.1)?)?;
        }
        log.end = (recovered.last, recovered.last_checksum);
        drop(entries);
        log.commit(transaction)?;
        Ok((log, recovered))
    }

    /// Makes the persists durable, in order, with one commit, and replies.
    fn persist(&mut self, asked: Vec<Persist>) -> Outcome<()> {
        if !asked.iter().all(Persist::is_empty) {
            let transaction = self.database.begin_write()?;
            asked.iter().try_for_each(|Persist(it)| self.stage(&mut transaction.open_table(ENTRIES)?, it))?;
            self.commit(transaction)?;
        }
        asked.iter().filter_map(|it| it.0.cut).for_each(|cut| self.snapshots.remove_older_than(cut.to.index));
        if let Some(sequence) = asked.last().map(|last| last.0.sequence) {
            self.completions
                .persisted(Persisted { sequence, then: asked.into_iter().flat_map(|it| it.0.then).collect() });
        }
        Ok(())
    }

    fn stage(&mut self, entries: &mut Table<u64, &[u8]>, asked: &quorate_raft::Persist) -> Outcome<()> {
        asked.cut.map_or(Ok(()), |cut| self.cut(entries, cut))?;
        if let Some(from) = asked.truncate_from {
            entries.retain_in(from.0.., |_, _| false)?;
            let last = entries.last()?.map(|row| parse(row.1)).transpose()?;
            self.end = last.map_or(self.state.base, |entry| (entry.last_id(), entry.checksum()));
        }
        let mut rest = asked.batch.clone();
        while let Some(batch) = rest {
            let entry = batch.within(0);
            follows(self.end, &entry)?;
            entries.insert(entry.last().0, &**entry.bytes())?;
            self.end = (entry.last_id(), entry.checksum());
            rest = batch.from(entry.last().next());
        }
        // Nothing can need repair: a file with a damaged entry is not opened.
        self.state.hard_state = asked.hard_state.unwrap_or(self.state.hard_state);
        self.state.has_voted |= self.state.hard_state.vote.is_some();
        Ok(())
    }

    /// Drops the entries up to `to`; or all, if that one is not among them.
    fn cut(&mut self, entries: &mut Table<u64, &[u8]>, Cut { to, checksum }: Cut) -> Outcome<()> {
        if to.index > self.state.base.0.index {
            let held = find(entries, to)?.map(|entry| entry.checksum());
            entries.retain_in(..=held.map_or(u64::MAX, |_| to.index.0), |_, _| false)?;
            self.state.base = (to, held.or(checksum).ok_or("asked to cut after an entry that is not held")?);
            self.end = held.map_or(self.state.base, |_| self.end);
        }
        Ok(())
    }

    fn commit(&self, transaction: WriteTransaction) -> Outcome<()> {
        let began = Instant::now();
        transaction.open_table(STATE)?.insert((), &*postcard::to_allocvec(&self.state)?)?;
        transaction.commit()?;
        self.observer.synced(began.elapsed());
        Ok(())
    }

    fn read(&self, ReadEntries { request, from, to, bytes_max }: ReadEntries) -> Outcome<()> {
        let (mut batches, mut bytes) = (Vec::new(), 0);
        let entries = self.database.begin_read()?.open_table(ENTRIES)?;
        for row in entries.range(from.0..to.0.saturating_add(1))?.take_while(|_| from > self.state.base.0.index) {
            let entry = parse(row?.1)?;
            bytes += entry.bytes().len();
            if bytes > bytes_max && !batches.is_empty() {
                break;
            }
            batches.push(entry);
        }
        self.completions.entries_read(EntriesRead { request, batches });
        Ok(())
    }
}

fn find(entries: &impl ReadableTable<u64, &'static [u8]>, id: EntryId) -> Outcome<Option<Batch>> {
    Ok(entries.get(id.index.0)?.map(parse).transpose()?.filter(|entry| entry.last_id() == id))
}

/// The entry in a row, with every checksum checked.
fn parse(row: AccessGuard<&[u8]>) -> Outcome<Batch> {
    let parsed = Batch::parse(Bytes::copy_from_slice(row.value()), quorate_storage::checksum);
    parsed.map_err(|what| format!("it is damaged ({what}): replace this member by one with a new id").into())
}
