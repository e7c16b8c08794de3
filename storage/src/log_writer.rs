//! The actor over a log: the write-ahead log, or a [`LogStore`](crate::LogStore) of one's own.
//!
//! It gathers the requests that arrive during a sync, passes all of them to its [`DrivenLog`],
//! syncs once, and replies once. No timer gathers them: actix empties the mailbox before it handles
//! a message that an actor sent to itself, so the flush that a group's first message schedules
//! follows every message that was there by then. There are three timers: one checks once a second
//! whether a full disk has space again, one twice a second whether the open files are still those of
//! the directory, and one brings second places of entries to the disk, as the end of the actor does.

use crate::{
    contract::{
        Completions, EntriesRead, OpenSnapshot, Persist, Persisted, Probe, ReadEntries, Recover, Recovered, Remember,
        SaveSnapshot, SnapshotSink, SnapshotSource, StorageError, StorageObserver,
    },
    wal::{Failure, Outcome, RETRY_AFTER},
};
use actix::prelude::*;
use quorate_raft::{Batch, Index, NodeId, Outgoing, SnapshotBase};
use std::{
    path::{Path, PathBuf},
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};

/// The storage actor over a [`DrivenLog`].
pub(crate) struct LogWriter {
    dir: PathBuf,
    /// Whether other processes can change the directory.
    is_shared: bool,
    open_log: Option<OpenLog>,
    open: Option<Open>,
}

type OpenLog = Box<dyn FnOnce(&Recover) -> Outcome<(Box<dyn DrivenLog>, Recovered)>>;

/// A log below the actor. After an error of any method but those of snapshots, none is called
/// again.
pub(crate) trait DrivenLog {
    fn dir(&self) -> &Path;

    fn observer(&self) -> &dyn StorageObserver;

    /// Stages one request. Its effects are durable once [`DrivenLog::sync`] returns.
    fn stage(&mut self, persist: &quorate_raft::Persist) -> Outcome<()>;

    /// Makes the staged requests durable; syncs nothing if there are none.
    fn sync(&mut self) -> Outcome<()>;

    /// Reads what [`ReadEntries`] asks for, while nothing is staged.
    fn read(&mut self, from: Index, to: Index, bytes_max: usize) -> Outcome<Vec<Batch>>;

    fn remember(&mut self, members: &[(NodeId, Index)]) -> Outcome<()>;

    fn begin_snapshot(
        &mut self,
        base: SnapshotBase,
        expected: Option<(u64, u32)>,
    ) -> Result<Box<dyn SnapshotSink>, StorageError>;

    fn open_newest_snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, StorageError>;

    /// A change in whether there is soon no room for further entries, if there was one.
    fn check_space(&mut self) -> Outcome<Option<bool>>;

    /// Whether to call [`DrivenLog::check_space`] again after a while.
    fn awaits_space(&mut self) -> bool;

    /// Called before that.
    fn retry_space(&mut self) {}

    /// Whether [`DrivenLog::settle`] has something to do.
    fn is_unsettled(&self) -> bool {
        false
    }

    /// Called a few times a second while there is something to do, and nothing staged, and before the
    /// log is closed: brings second places of entries to the disk, in at most two calls.
    fn settle(&mut self) -> Outcome<()> {
        Ok(())
    }

    /// Checks that the open files are still those of the directory.
    fn check_place(&self) -> Outcome<()>;
}

/// The most requests of a group, and the most bytes of its entries: a flush then no longer waits
/// for the mailbox to be empty.
const GROUP_REQUESTS_MAX: usize = 1000;
const GROUP_BYTES_MAX: usize = 8 << 20;

impl LogWriter {
    /// An actor for the log in this directory; `open` locks and opens it.
    pub(crate) fn new(
        dir: PathBuf,
        is_shared: bool,
        open: impl FnOnce(&Recover) -> Outcome<(Box<dyn DrivenLog>, Recovered)> + 'static,
    ) -> Self {
        Self { dir, is_shared, open_log: Some(Box::new(open)), open: None }
    }
}

impl Actor for LogWriter {
    type Context = Context<Self>;
}

impl Handler<Recover> for LogWriter {
    type Result = Result<Recovered, StorageError>;

    fn handle(&mut self, recover: Recover, context: &mut Self::Context) -> Self::Result {
        recover.observer.took_message();
        let Some(open_log) = self.open_log.take() else {
            return Err(StorageError::new(format!("{} was recovered already; do it once", self.dir.display())));
        };
        let (log, recovered) = open_log(&recover).map_err(|failure| {
            recover.observer.failed(failure.op);
            failure.error
        })?;
        let (completions, group) = (recover.completions, Group::default());
        let open = Open { log, completions, group, is_failed: false, awaits_settling: false, awaits_space: false };
        self.open.insert(open).watch_space(context);
        if self.is_shared {
            context.spawn(WatchPlace { due: Box::pin(sleep(LOOK_EVERY)) });
        }
        Ok(recovered)
    }
}

impl Handler<Persist> for LogWriter {
    type Result = ();

    fn handle(&mut self, Persist(persist): Persist, context: &mut Self::Context) {
        self.took_message();
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
        self.took_message();
        if let Some(open) = &mut self.open {
            open.group.reads.push(read);
            open.schedule(context);
        }
    }
}

/// `LogWriter` → itself: make the gathered requests durable.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

impl Handler<Flush> for LogWriter {
    type Result = ();

    fn handle(&mut self, _: Flush, context: &mut Self::Context) {
        if let Some(open) = &mut self.open {
            open.flush(context);
        }
    }
}

impl Handler<SaveSnapshot> for LogWriter {
    type Result = Result<Box<dyn SnapshotSink>, StorageError>;

    fn handle(&mut self, save: SaveSnapshot, _: &mut Self::Context) -> Self::Result {
        self.took_message();
        self.working()?.log.begin_snapshot(save.base, save.expected)
    }
}

impl Handler<OpenSnapshot> for LogWriter {
    type Result = Result<Box<dyn SnapshotSource>, StorageError>;

    fn handle(&mut self, _: OpenSnapshot, _: &mut Self::Context) -> Self::Result {
        self.took_message();
        self.working()?.log.open_newest_snapshot()
    }
}

impl Handler<Remember> for LogWriter {
    type Result = ();

    fn handle(&mut self, Remember { members }: Remember, _: &mut Self::Context) {
        self.took_message();
        if let Some(open) = &mut self.open {
            open.attempt(|log, _| log.remember(&members));
        }
    }
}

impl Handler<Probe> for LogWriter {
    type Result = ();

    fn handle(&mut self, probe: Probe, _: &mut Self::Context) {
        probe.arrived();
    }
}

/// Interval of the check that the open files are still those of the directory.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Checks the open files regularly, until the actor has no address left: a timer of actix would
/// keep the actor, and with it the lock on the directory, until it is due.
struct WatchPlace {
    due: Pin<Box<Sleep>>,
}

impl ActorFuture<LogWriter> for WatchPlace {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        writer: &mut LogWriter,
        context: &mut Context<LogWriter>,
        task: &mut task::Context<'_>,
    ) -> Poll<()> {
        if !context.connected() {
            return Poll::Ready(());
        }
        while self.due.as_mut().poll(task).is_ready() {
            if let Some(open) = &mut writer.open {
                open.attempt(|log, _| log.check_place());
            }
            self.due.as_mut().reset(Instant::now() + LOOK_EVERY);
        }
        Poll::Pending
    }
}

/// Calls of [`DrivenLog::settle`] after which nothing is left to do: one writes, the next one syncs.
const SETTLES: usize = 2;
/// Their interval: so each entry has its second place within a second.
const SETTLE_EVERY: Duration = Duration::from_millis(300);

/// Settles the log, until it is settled or the actor has no address left, as for [`WatchPlace`].
struct Settle {
    due: Pin<Box<Sleep>>,
}

impl ActorFuture<LogWriter> for Settle {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        writer: &mut LogWriter,
        context: &mut Context<LogWriter>,
        task: &mut task::Context<'_>,
    ) -> Poll<()> {
        let Some(open) = &mut writer.open else { return Poll::Ready(()) };
        while context.connected() && open.awaits_settling {
            if self.due.as_mut().poll(task).is_pending() {
                return Poll::Pending;
            }
            open.attempt(|log, _| log.settle());
            open.awaits_settling = !open.is_failed && open.log.is_unsettled();
            self.due.as_mut().reset(Instant::now() + SETTLE_EVERY);
        }
        Poll::Ready(())
    }
}

impl LogWriter {
    fn took_message(&self) {
        if let Some(open) = &self.open {
            open.log.observer().took_message();
        }
    }

    /// The open log, or the error.
    fn working(&mut self) -> Result<&mut Open, StorageError> {
        let dir = self.dir.display();
        match &mut self.open {
            Some(open) if open.is_failed => {
                Err(StorageError::new(format!("the log in {dir} has failed; start the node again")))
            }
            Some(open) => Ok(open),
            None => Err(StorageError::new(format!("the log in {dir} was not recovered yet; do that first"))),
        }
    }
}

/// An open log and the requests for its next sync.
struct Open {
    log: Box<dyn DrivenLog>,
    completions: Completions,
    group: Group,
    is_failed: bool,
    /// Whether [`Settle`] runs.
    awaits_settling: bool,
    /// Whether the timer for [`DrivenLog::check_space`] runs.
    awaits_space: bool,
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
            requests if requests >= GROUP_REQUESTS_MAX || self.group.bytes >= GROUP_BYTES_MAX => self.flush(context),
            _ => {}
        }
    }

    fn flush(&mut self, context: &mut Context<LogWriter>) {
        let group = std::mem::take(&mut self.group);
        self.attempt(|log, completions| perform(log, completions, group));
        if !self.is_failed && !self.awaits_settling && self.log.is_unsettled() {
            self.awaits_settling = true;
            context.spawn(Settle { due: Box::pin(sleep(SETTLE_EVERY)) });
        }
        self.watch_space(context);
    }

    /// Runs `what` on the log, unless the log failed before; an error is the last message sent.
    fn attempt(&mut self, what: impl FnOnce(&mut dyn DrivenLog, &Completions) -> Outcome<()>) {
        if self.is_failed {
            return;
        }
        // Until it returns: a log that panicked is not written to either, not even to close it.
        self.is_failed = true;
        match what(&mut *self.log, &self.completions) {
            Ok(()) => self.is_failed = false,
            Err(failure) => {
                tracing::error!(error = %failure.error, "the log failed, for good");
                self.log.observer().failed(failure.op);
                self.completions.failed(failure.error);
            }
        }
    }

    /// Sends [`StorageFull`] when that changes, and checks again after a while if it may
    /// change by itself.
    fn watch_space(&mut self, context: &mut Context<LogWriter>) {
        self.attempt(|log, completions| {
            if let Some(is_full) = log.check_space()? {
                tell_full(completions, log.dir(), is_full);
            }
            Ok(())
        });
        if !self.is_failed && !self.awaits_space && self.log.awaits_space() {
            self.awaits_space = true;
            context.run_later(RETRY_AFTER, |this, context| {
                let Some(open) = &mut this.open else { return };
                open.awaits_space = false;
                open.log.retry_space();
                open.watch_space(context);
            });
        }
    }
}

impl Drop for Open {
    /// Settles the log, unless it failed: the next start may be far off, and until then the last
    /// entries would have both places near each other.
    fn drop(&mut self) {
        for _ in 0..SETTLES {
            self.attempt(|log, _| if log.is_unsettled() { log.settle() } else { Ok(()) });
        }
    }
}

pub(crate) fn tell_full(completions: &Completions, dir: &Path, is_full: bool) {
    let dir = dir.display();
    match is_full {
        true => tracing::debug!(%dir, "the disk is full: no more commands are taken until there is space"),
        false => tracing::debug!(%dir, "the disk has space again"),
    }
    completions.full(is_full);
}

/// Carries out the gathered requests, in order; the reads last, so that they see the effects of all
/// persists before them.
fn perform(log: &mut dyn DrivenLog, completions: &Completions, group: Group) -> Result<(), Failure> {
    let mut told: Option<Persisted> = None;
    for persist in group.persists {
        log.stage(&persist)?;
        let told = told.get_or_insert(Persisted { sequence: 0, then: Vec::new() });
        told.sequence = persist.sequence;
        join(&mut told.then, persist.then);
    }
    log.sync()?;
    if let Some(persisted) = told {
        completions.persisted(persisted);
    }
    for ReadEntries { request, from, to, bytes_max } in group.reads {
        let batches = log.read(from, to, bytes_max)?;
        completions.entries_read(EntriesRead { request, batches });
    }
    Ok(())
}

fn join(all: &mut Vec<Outgoing>, more: Vec<Outgoing>) {
    if all.is_empty() {
        *all = more;
    } else {
        all.extend(more);
    }
}
