//! The actor over the write-ahead log.
//!
//! It gathers what arrives while it is busy with the last sync, hands all of it to [`Log`], syncs once, and tells once.
//! There is no timer: actix drains the mailbox before it runs what an actor told itself, so the flush that the first
//! message of a group schedules comes behind every message that was there by then.

use crate::{
    contract::{
        Completions, EntriesRead, OpenSnapshot, Persist, Persisted, ReadEntries, Recover, Recovered, Remember,
        SaveSnapshot, SnapshotSink, SnapshotSource, StorageError,
    },
    wal::{Failure, Wal, log::Log},
};
use actix::prelude::*;
use quorate_raft::Outgoing;
use std::sync::Arc;

/// Hears what is to be persisted and read, and tells what became of it.
pub(crate) struct LogWriter {
    wal: Wal,
    open: Option<Open>,
}

/// After so many requests, or bytes of entries, a flush waits no longer for the mailbox to run dry.
const GROUP_REQUESTS_MAX: usize = 1000;
const GROUP_BYTES_MAX: usize = 8 << 20;

impl LogWriter {
    pub(crate) fn new(wal: Wal) -> Self {
        Self { wal, open: None }
    }
}

impl Actor for LogWriter {
    type Context = Context<Self>;
}

impl Handler<Recover> for LogWriter {
    type Result = Result<Recovered, StorageError>;

    fn handle(&mut self, recover: Recover, _: &mut Self::Context) -> Self::Result {
        if self.open.is_some() {
            return Err(StorageError(format!("{} was recovered already; do it once", self.wal.dir.display())));
        }
        let Recover { cluster, member, completions, observer } = recover;
        let (log, recovered) = Log::open(&self.wal, &cluster, member, Arc::clone(&observer)).map_err(|failure| {
            observer.failed(failure.op);
            failure.error
        })?;
        self.open = Some(Open { log, completions, group: Group::default(), is_failed: false });
        Ok(recovered)
    }
}

impl Handler<Persist> for LogWriter {
    type Result = ();

    fn handle(&mut self, Persist(persist): Persist, context: &mut Self::Context) {
        if let Some(open) = &mut self.open {
            open.group.bytes += persist.batch.as_ref().map_or(0, |batch| batch.bytes().len());
            open.group.persists.push(persist);
            open.schedule(context);
        }
    }
}

impl Handler<ReadEntries> for LogWriter {
    type Result = ();

    fn handle(&mut self, read: ReadEntries, context: &mut Self::Context) {
        if let Some(open) = &mut self.open {
            open.group.reads.push(read);
            open.schedule(context);
        }
    }
}

/// `LogWriter` → itself: make durable what was gathered.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

impl Handler<Flush> for LogWriter {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        if let Some(open) = &mut self.open {
            open.flush();
        }
    }
}

/// An open log and what waits for its next sync.
struct Open {
    log: Log,
    completions: Completions,
    group: Group,
    is_failed: bool,
}

#[derive(Default)]
struct Group {
    persists: Vec<quorate_raft::Persist>,
    reads: Vec<ReadEntries>,
    bytes: usize,
}

impl Open {
    fn schedule(&mut self, context: &mut Context<LogWriter>) {
        match self.group.persists.len() + self.group.reads.len() {
            1 => context.notify(Flush),
            requests if requests >= GROUP_REQUESTS_MAX || self.group.bytes >= GROUP_BYTES_MAX => self.flush(),
            _ => {}
        }
    }

    fn flush(&mut self) {
        let group = std::mem::take(&mut self.group);
        if self.is_failed {
            return;
        }
        if let Err(failure) = self.perform(group) {
            self.is_failed = true;
            tracing::error!(error = %failure.error, "the log failed, for good");
            self.log.observer().failed(failure.op);
            self.completions.failed(failure.error);
        }
    }

    /// Everything that was gathered, in order; the reads last, so that they see what they were sent behind.
    fn perform(&mut self, group: Group) -> Result<(), Failure> {
        let mut told: Option<Persisted> = None;
        for persist in group.persists {
            self.log.stage(&persist)?;
            let told = told.get_or_insert(Persisted { sequence: 0, then: Vec::new() });
            told.sequence = persist.sequence;
            join(&mut told.then, persist.then);
        }
        self.log.sync()?;
        if let Some(persisted) = told {
            self.completions.persisted(persisted);
        }
        for ReadEntries { request, from, to, bytes_max } in group.reads {
            let batches = self.log.read(from, to, bytes_max)?;
            self.completions.entries_read(EntriesRead { request, batches });
        }
        Ok(())
    }
}

fn join(all: &mut Vec<Outgoing>, more: Vec<Outgoing>) {
    if all.is_empty() {
        *all = more;
    } else {
        all.extend(more);
    }
}

impl Handler<SaveSnapshot> for LogWriter {
    type Result = Result<Box<dyn SnapshotSink>, StorageError>;

    fn handle(&mut self, _: SaveSnapshot, _: &mut Self::Context) -> Self::Result {
        Err(StorageError("this store keeps no snapshots".into()))
    }
}

impl Handler<OpenSnapshot> for LogWriter {
    type Result = Result<Box<dyn SnapshotSource>, StorageError>;

    fn handle(&mut self, _: OpenSnapshot, _: &mut Self::Context) -> Self::Result {
        Err(StorageError("this store keeps no snapshots".into()))
    }
}

impl Handler<Remember> for LogWriter {
    type Result = ();

    fn handle(&mut self, _: Remember, _: &mut Self::Context) {}
}
