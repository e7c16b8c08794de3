//! What is in the file, and how it gets there: tables, transactions, checks. It hears `RedbLog` alone.
//!
//! After any error it is in no state to go on: its owner drops it.

use bytes::Bytes;
use quorate_raft::{Batch, EntryId, HardState, Index, NodeId, Persist, Term};
use quorate_storage::contract::{Recovered, StorageError, StorageObserver};
use redb::{
    AccessGuard, Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use std::{fs::File, path::Path, sync::Arc};

/// The open log.
pub(crate) struct Log {
    database: Database,
    end: End,
    // Dropped behind the database, and so behind the lock.
    pub(crate) observer: Arc<dyn StorageObserver>,
}

impl Log {
    /// Takes possession of the file, which is made if need be, and checks all that is in it.
    pub(crate) fn open(
        path: &Path,
        cluster: &str,
        member: NodeId,
        observer: Arc<dyn StorageObserver>,
    ) -> Result<(Self, Recovered), Trouble> {
        // Everything is read here anyway, and redb may panic over a damaged file that it did not check.
        let opened = Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(path);
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => Trouble(format!("it is in use; {ITS_OWN}")),
            error => error.into(),
        })?;
        // What an earlier process wrote may not be on the disk yet, and is about to be called durable.
        let path = std::path::absolute(path)?;
        for unsynced in [Some(&*path), path.parent()].into_iter().flatten() {
            File::open(unsynced)?.sync_all()?;
        }
        claim(&database, cluster, member)?;

        let (mut end, mut terms) = (End::default(), Vec::new());
        let transaction = database.begin_read()?;
        for held in transaction.open_table(BATCHES)?.iter()? {
            let batch = parse(held?)?;
            end = end
                .then(&batch)
                .ok_or_else(|| Trouble(format!("{batch:?} doesn't follow entry {}; {DAMAGED}", end.0)))?;
            if terms.last().is_none_or(|(_, term)| *term != batch.term()) {
                terms.push((batch.first(), batch.term()));
            }
        }
        let hard_state = transaction.open_table(HARD_STATE)?.get(())?.map(|held| held.value());
        let hard_state = hard_state.map(|(term, vote)| HardState { term: Term(term), vote: vote.map(NodeId) });
        drop(transaction);
        let recovered = Recovered {
            hard_state: hard_state.unwrap_or_default(),
            terms,
            last: end.0,
            last_checksum: end.1,
            ..Recovered::default()
        };
        Ok((Self { database, end, observer }, recovered))
    }

    /// Takes in the requests, in order: they are durable once the transaction is committed. `None` if they ask nothing.
    pub(crate) fn stage(&mut self, persists: &[Persist]) -> Result<Option<WriteTransaction>, Trouble> {
        let is_empty = |it: &Persist| it.truncate_from.is_none() && it.batch.is_none() && it.hard_state.is_none();
        if persists.iter().all(is_empty) {
            return Ok(None);
        }
        let transaction = self.database.begin_write()?;
        let mut batches = transaction.open_table(BATCHES)?;
        for persist in persists {
            if let Some(from) = persist.truncate_from {
                self.end = truncate(&mut batches, from)?;
            }
            if let Some(batch) = &persist.batch {
                let end = self.end.0;
                self.end = self.end.then(batch).ok_or_else(|| {
                    Trouble(format!(
                        "asked to append {batch:?}, which doesn't follow entry {end}; this is a bug: report it"
                    ))
                })?;
                batches.insert(batch.last().0, &**batch.bytes())?;
            }
            if let Some(HardState { term, vote }) = persist.hard_state {
                transaction.open_table(HARD_STATE)?.insert((), (term.0, vote.map(|node| node.0)))?;
            }
        }
        drop(batches);
        Ok(Some(transaction))
    }

    /// The entries of an inclusive range as far as they are held and fit into `bytes_max`, but at least one. Empty if
    /// the first is not held.
    pub(crate) fn read(&self, from: Index, to: Index, bytes_max: usize) -> Result<Vec<Batch>, Trouble> {
        let (mut read, mut left) = (Vec::new(), bytes_max);
        if from == Index(0) {
            return Ok(read);
        }
        for held in self.database.begin_read()?.open_table(BATCHES)?.range(from.0..)? {
            let batch = parse(held?)?;
            let Some(wanted) = batch.from(from).and_then(|batch| batch.up_to(to)) else { break };
            let fitting = wanted.within(left);
            if !read.is_empty() && fitting.bytes().len() > left {
                break;
            }
            left = left.saturating_sub(fitting.bytes().len());
            let is_cut = fitting.count() < wanted.count();
            read.push(fitting);
            if is_cut {
                break;
            }
        }
        Ok(read)
    }
}

/// Batches as they came, each under the index of its last entry: so all that reach an index are one range.
const BATCHES: TableDefinition<u64, &[u8]> = TableDefinition::new("batches");
/// Term and vote.
const HARD_STATE: TableDefinition<(), (u64, Option<u64>)> = TableDefinition::new("hard state");
/// Cluster and member.
const OWNER: TableDefinition<(), (&str, u64)> = TableDefinition::new("owner");

/// redb's default is 1 GiB; a node keeps the entries that it needs often itself.
const CACHE_BYTES: usize = 32 << 20;

/// Makes sure that the file is this member's. A new one is from now on.
fn claim(database: &Database, cluster: &str, member: NodeId) -> Result<(), Trouble> {
    let transaction = database.begin_write()?;
    {
        let mut owner = transaction.open_table(OWNER)?;
        if let Some(held) = owner.get(())? {
            let (its_cluster, its_member) = held.value();
            if (its_cluster, its_member) != (cluster, member.0) {
                let whose = format!("it belongs to member {its_member} of cluster {its_cluster:?}");
                return Err(Trouble(format!("{whose}, not to member {member} of cluster {cluster:?}; {ITS_OWN}")));
            }
        }
        owner.insert((), (cluster, member.0))?;
        transaction.open_table(BATCHES)?;
        transaction.open_table(HARD_STATE)?;
    }
    Ok(transaction.commit()?)
}

/// Removes the entries from `from` on, and says where the log ends then.
fn truncate(batches: &mut Table<u64, &[u8]>, from: Index) -> Result<End, Trouble> {
    let reaching = batches.range(from.0..)?.next().transpose()?.map(parse).transpose()?;
    batches.retain_in(from.0.., |_, _| false)?;
    if let Some(kept) = reaching.and_then(|batch| batch.up_to(from.previous())) {
        batches.insert(kept.last().0, &**kept.bytes())?;
    }
    let last = batches.last()?.map(parse).transpose()?;
    Ok(last.map_or_else(End::default, |batch| End(batch.last_id(), batch.checksum())))
}

/// The last entry and its checksum: what the next one must continue.
#[derive(Clone, Copy, Default)]
struct End(EntryId, u32);

impl End {
    /// The end behind `batch`; `None` if it does not follow.
    fn then(self, batch: &Batch) -> Option<Self> {
        let follows = batch.first() == self.0.index.next() && batch.term() >= self.0.term;
        (follows && batch.previous_checksum() == self.1).then(|| Self(batch.last_id(), batch.checksum()))
    }
}

/// The batch in a row of [`BATCHES`], every checksum checked.
fn parse((last, bytes): (AccessGuard<u64>, AccessGuard<&[u8]>)) -> Result<Batch, Trouble> {
    let batch = Batch::parse(Bytes::copy_from_slice(bytes.value()), quorate_storage::checksum)
        .map_err(|malformed| Trouble(format!("up to entry {}: {malformed}; {DAMAGED}", last.value())))?;
    let is_in_place = batch.last() == Index(last.value());
    is_in_place.then_some(batch).ok_or_else(|| Trouble(format!("entry {} is out of place; {DAMAGED}", last.value())))
}

/// What is wrong, and what to do.
pub(crate) struct Trouble(String);

const DAMAGED: &str = "the file is damaged: replace this member by one with a new id";
const ITS_OWN: &str = "give each node a file of its own";

impl<E: Into<redb::Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self(format!("{}; check the disk and the kernel log, then start the node again", error.into()))
    }
}

impl Trouble {
    /// The line that says it, for an operation on the file at `path`.
    pub(crate) fn to(&self, op: &str, path: &Path) -> StorageError {
        StorageError(format!("can't {op} {}: {}", path.display(), self.0).replace('\n', " "))
    }
}
