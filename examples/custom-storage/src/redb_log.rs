//! A node's log, term and vote in one [redb](https://docs.rs/redb) file: a storage actor to copy from.
//!
//! The contract is [`quorate_storage::contract`]. What one must take care of, here and in `log.rs`:
//!
//! - **One commit for a group.** What arrived during the last commit goes into one transaction, and one `Persisted`
//!   tells of it, every `then` in order. There is no timer: actix drains the mailbox before it runs what an actor told
//!   itself, so `Flush` comes behind everything that was there. Bounds on the group keep a flood from putting that off.
//! - **Order.** Truncate, append, hard state, one request behind the other; the reads behind them all (`Log::stage`,
//!   `perform`).
//! - **The first error is the last word.** It is told once, the file is let go of, and nothing is tried again
//!   (`State::Failed`).
//! - **Durable means after a power cut.** A redb commit is durable unless one asks for less. What is found at the start
//!   is not: a process that was killed leaves writes, and the name of a new file, in the kernel's cache alone. So both
//!   are synced before anything is said of them (`Log::open`).
//! - **One at a time.** Two nodes on one log could vote twice. redb locks its file; the observer is kept for as long as
//!   the lock, because from its end others can tell that the place is free (see [`quorate_storage::conformance`]).
//! - **Whose it is.** The first `Recover` writes cluster and member into the file; any other is refused (`claim`).
//! - **Only what follows is appended**, by index, term and checksum: anything else means that something is badly wrong
//!   (`End::then`).
//! - **Only undamaged entries are returned.** `Batch::parse` checks every record, and recovery that they are a chain.
//!
//! It never decides what to store. It may block, for it has a thread of its own.

use crate::log::{Log, Trouble};
use actix::prelude::*;
use quorate_storage::contract::{
    Completions, EntriesRead, OpenSnapshot, Persist, Persisted, ReadEntries, Recover, Recovered, Remember,
    SaveSnapshot, SnapshotSink, SnapshotSource, StorageError, StorageHandle,
};
use std::{path::PathBuf, sync::Arc, time::Instant};

/// The storage actor over a redb file. Hand it to a node: `.storage(RedbLog::at("data/1.redb"))`.
pub struct RedbLog {
    path: PathBuf,
    state: State,
}

enum State {
    New,
    Open { log: Log, completions: Completions, group: Group },
    Failed,
}

impl RedbLog {
    /// The log in this file, which is made if need be; its directory must exist. Nothing happens before `Recover`.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), state: State::New }
    }
}

impl From<RedbLog> for StorageHandle {
    fn from(log: RedbLog) -> Self {
        Self::actor(move || log)
    }
}

impl Actor for RedbLog {
    type Context = Context<Self>;
}

impl Handler<Recover> for RedbLog {
    type Result = Result<Recovered, StorageError>;

    fn handle(&mut self, recover: Recover, _: &mut Self::Context) -> Self::Result {
        if !matches!(self.state, State::New) {
            return Err(StorageError(format!("{} was recovered already; do it once", self.path.display())));
        }
        let Recover { cluster, member, completions, observer } = recover;
        let (log, recovered) = Log::open(&self.path, &cluster, member, Arc::clone(&observer)).map_err(|trouble| {
            observer.failed("open");
            trouble.to("open", &self.path)
        })?;
        self.state = State::Open { log, completions, group: Group::default() };
        Ok(recovered)
    }
}

impl Handler<Persist> for RedbLog {
    type Result = ();

    fn handle(&mut self, Persist(persist): Persist, context: &mut Self::Context) {
        self.gather(context, |group| {
            group.bytes += persist.batch.as_ref().map_or(0, |batch| batch.bytes().len());
            group.persists.push(persist);
        });
    }
}

impl Handler<ReadEntries> for RedbLog {
    type Result = ();

    fn handle(&mut self, read: ReadEntries, context: &mut Self::Context) {
        self.gather(context, |group| group.reads.push(read));
    }
}

/// `RedbLog` → itself: perform what was gathered.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

impl Handler<Flush> for RedbLog {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        self.flush();
    }
}

/// What waits for the next commit.
#[derive(Default)]
struct Group {
    persists: Vec<quorate_raft::Persist>,
    reads: Vec<ReadEntries>,
    bytes: usize,
}

/// After so many requests, or bytes of entries, a flush waits no longer for the mailbox to run dry.
const GROUP_REQUESTS_MAX: usize = 1000;
const GROUP_BYTES_MAX: usize = 8 << 20;

impl RedbLog {
    fn gather(&mut self, context: &mut Context<Self>, add: impl FnOnce(&mut Group)) {
        let State::Open { group, .. } = &mut self.state else { return };
        add(group);
        match group.persists.len() + group.reads.len() {
            requests if requests >= GROUP_REQUESTS_MAX || group.bytes >= GROUP_BYTES_MAX => self.flush(),
            1 => context.notify(Flush),
            _ => {}
        }
    }

    fn flush(&mut self) {
        let State::Open { log, completions, group } = &mut self.state else { return };
        if let Err((op, trouble)) = perform(log, completions, std::mem::take(group)) {
            let error = trouble.to(op, &self.path);
            tracing::error!(%error, "the log failed, for good");
            log.observer.failed(op);
            completions.failed(error);
            self.state = State::Failed;
        } else if let Ok(file) = self.path.metadata() {
            log.observer.log_bytes(file.len());
        }
    }
}

/// Makes everything durable that was gathered and tells so, then reads: so reads see what they were sent behind.
fn perform(log: &mut Log, completions: &Completions, group: Group) -> Result<(), (&'static str, Trouble)> {
    if let Some(transaction) = log.stage(&group.persists).map_err(|trouble| ("write", trouble))? {
        let began = Instant::now();
        transaction.commit().map_err(|error| ("sync", error.into()))?;
        log.observer.synced(began.elapsed());
        log.observer.wrote(group.bytes as u64);
    }
    if let Some(sequence) = group.persists.last().map(|last| last.sequence) {
        let then = group.persists.into_iter().flat_map(|persist| persist.then).collect();
        completions.persisted(Persisted { sequence, then });
    }
    for ReadEntries { request, from, to, bytes_max } in group.reads {
        let batches = log.read(from, to, bytes_max).map_err(|trouble| ("read", trouble))?;
        completions.entries_read(EntriesRead { request, batches });
    }
    Ok(())
}

impl Handler<SaveSnapshot> for RedbLog {
    type Result = Result<Box<dyn SnapshotSink>, StorageError>;

    fn handle(&mut self, _: SaveSnapshot, _: &mut Self::Context) -> Self::Result {
        Err(StorageError("this store keeps no snapshots".into()))
    }
}

impl Handler<OpenSnapshot> for RedbLog {
    type Result = Result<Box<dyn SnapshotSource>, StorageError>;

    fn handle(&mut self, _: OpenSnapshot, _: &mut Self::Context) -> Self::Result {
        Err(StorageError("this store keeps no snapshots".into()))
    }
}

impl Handler<Remember> for RedbLog {
    type Result = ();

    fn handle(&mut self, _: Remember, _: &mut Self::Context) {}
}
