//! The storage contract: the messages of a storage actor, and its duties. This is the seam at which
//! a log store can be replaced.
//!
//! A storage actor owns the durable log, term, vote and snapshots of one node. It receives
//! [`Recover`] once, then any number of the others:
//!
//! | message | request | reply |
//! | --- | --- | --- |
//! | [`Recover`] | lock the store, and report its content | its result |
//! | [`Persist`] | cut (compact), truncate, append, repair, store the hard state | [`Persisted`] |
//! | [`ReadEntries`] | read entries | [`EntriesRead`] |
//! | [`SaveSnapshot`] | begin to write a snapshot: of this node, or received from another one | its result: a [`SnapshotSink`] |
//! | [`OpenSnapshot`] | read a snapshot: to restore from it, or to send it | its result: a [`SnapshotSource`] |
//! | [`Remember`] | store holdings of members | none |
//! | [`Probe`] | call [`Probe::arrived`] | none |
//!
//! Completions go to the [`Completions`] in [`Recover`].
//!
//! # Duties
//!
//! - **Order.** Persists take effect in the order of arrival, and the parts of each one in this
//!   order: cut, truncate, append, repair, hard state; then its `then` is due. A term is stored
//!   with its first entry, or before. A read sees the effects of all persists before it.
//! - **Chaining.** An append continues the log by index, term and checksum ([`follows`]), and a
//!   repair is the very entry that is missing, by id and checksum; any other one fails the store,
//!   and changes nothing.
//! - **Durability.** [`Persisted`] with a sequence is sent only after everything of that sequence
//!   and of every earlier one would survive a power failure. It may cover several persists: take
//!   all that arrive during a sync into one write and one sync. An empty persist costs no sync of
//!   its own, but is answered in order, after the ones before it.
//! - **Finality.** After the first error nothing more is persisted or sent but [`StorageFailed`]: a
//!   failed sync is never retried, because the kernel may have dropped the pages and report success
//!   for the retry.
//! - **Honesty.** Entries are returned only if every checksum holds. A store that knows the
//!   identity of an entry with a lost payload reports it ([`Recovered::faulty`]), and never forgets
//!   that it existed; reads end before it until it is repaired.
//! - **Snapshots.** A snapshot for which [`SnapshotSink::finish`] returned `Ok` survives a power
//!   failure, and is [`Recovered::snapshot`] if it covers more than any other. A
//!   [`Cut`](quorate_raft::Cut) names a last entry that such a snapshot covers: only then may
//!   entries up to it, and older snapshots, be dropped. More may stay: after a restart
//!   [`Recovered::base`] may be lower, unless the log was started over. A cut to an entry before
//!   the base changes nothing. A crash between snapshot and cut leaves a snapshot that is ahead of
//!   the log; then the log begins after the snapshot, unless it holds the snapshot's last entry.
//!   Snapshots never delay persists: their bytes are written and read on their callers' threads.
//! - **One owner.** The data belong to one member of one cluster from the first [`Recover`] on, and
//!   to one process at a time.
//! - **Space.** A store sends [`StorageFull`] before it runs out of room for entries, and again
//!   when there is room: meanwhile the node takes no commands, and can still vote.
//!
//! # A store of your own
//!
//! Nearly every store is better written as a [`LogStore`](crate::LogStore): a synchronous trait for
//! entries, term and vote, to which the actor of the write-ahead log adds all other duties. This
//! contract is for a store that is not like that: that is asynchronous, keeps snapshots elsewhere
//! than in files, or groups requests by rules of its own.
//!
//! Any actix actor with these seven handlers is a storage: [`StorageHandle::actor`] takes it.
//! `examples/custom-storage` has one over redb, to copy from; the suite of
//! `quorate-storage-testing` tests the duties. Helpers: [`Persist::is_empty`], [`follows`],
//! [`Recovered::append`], and [`SnapshotStore`](crate::SnapshotStore), which keeps snapshots in
//! files beside a log of any kind. A minimal one that only answers `Recover`:
//!
//! ```
//! use actix::prelude::*;
//! use quorate_storage::contract::*;
//!
//! #[derive(Default)]
//! struct Nowhere(Option<Completions>);
//!
//! impl Actor for Nowhere {
//!     type Context = Context<Self>;
//! }
//!
//! impl Handler<Recover> for Nowhere {
//!     type Result = Result<Recovered, StorageError>;
//!
//!     fn handle(&mut self, recover: Recover, _: &mut Self::Context) -> Self::Result {
//!         self.0 = Some(recover.completions);
//!         Ok(Recovered::default())
//!     }
//! }
//!
//! impl Handler<Persist> for Nowhere {
//!     type Result = ();
//!
//!     fn handle(&mut self, _: Persist, _: &mut Self::Context) {
//!         if let Some(completions) = self.0.take() {
//!             completions.failed(StorageError::new("there is nowhere to write; choose another store"));
//!         }
//!     }
//! }
//! # impl Handler<ReadEntries> for Nowhere {
//! #     type Result = ();
//! #     fn handle(&mut self, _: ReadEntries, _: &mut Self::Context) {}
//! # }
//! # impl Handler<Remember> for Nowhere {
//! #     type Result = ();
//! #     fn handle(&mut self, _: Remember, _: &mut Self::Context) {}
//! # }
//! # impl Handler<Probe> for Nowhere {
//! #     type Result = ();
//! #     fn handle(&mut self, probe: Probe, _: &mut Self::Context) { probe.arrived(); }
//! # }
//! # impl Handler<SaveSnapshot> for Nowhere {
//! #     type Result = Result<Box<dyn SnapshotSink>, StorageError>;
//! #     fn handle(&mut self, _: SaveSnapshot, _: &mut Self::Context) -> Self::Result {
//! #         Err(StorageError::new("there is nowhere to write; choose another store"))
//! #     }
//! # }
//! # impl Handler<OpenSnapshot> for Nowhere {
//! #     type Result = Result<Box<dyn SnapshotSource>, StorageError>;
//! #     fn handle(&mut self, _: OpenSnapshot, _: &mut Self::Context) -> Self::Result {
//! #         Err(StorageError::new("there is none"))
//! #     }
//! # }
//!
//! let handle = StorageHandle::actor(Nowhere::default);
//! # drop(handle);
//! ```

mod error;
mod handle;

pub use error::{StorageError, StorageOp};
pub use handle::{ActorTask, Place, Storage, StorageHandle, StorageThread, thread};

use actix::prelude::*;
use quorate_raft::{
    Batch, EntryId, Faulty, HardState, Index, Kind, Membership, NodeId, Outgoing, Snapshot, SnapshotBase, Term,
};
use std::{fmt, io, sync::Arc, time::Duration};

/// Edge → storage, once, before any other message: lock the log and report its content.
#[derive(Message)]
#[rtype(result = "Result<Recovered, StorageError>")]
pub struct Recover {
    /// The cluster that the data must belong to.
    pub cluster: String,
    /// The member that the data must belong to.
    pub member: NodeId,
    /// The recipient of completions.
    pub completions: Completions,
    /// The recipient of measurements.
    pub observer: Arc<dyn StorageObserver>,
}

/// The content of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Term, vote and promise, as persisted last; the default for a new store.
    pub hard_state: HardState,
    /// The entry before the first one held; the default for a log that was never cut.
    pub base: EntryId,
    /// For every term in the log, the first index of its entries, in order.
    pub terms: Vec<(Index, Term)>,
    /// The last entry; `base` for an empty log.
    pub last: EntryId,
    /// The checksum of the last record, to which the next one chains; 0 for a log that never
    /// had an entry.
    pub last_checksum: u32,
    /// The entries with a known identity and a lost payload, in order.
    pub faulty: Vec<Faulty>,
    /// The snapshot with the highest index, if there is one. If `base` is not 0@0 and the snapshot
    /// does not reach it, the state is lost, and the node must get it from another one.
    pub snapshot: Option<Snapshot>,
    /// The configurations in the log, in order: the decoded entries of kind 2.
    pub memberships: Vec<(Index, Membership)>,
    /// Whether a term with a vote was ever persisted: a store without one, and without entries, is
    /// new or was emptied.
    pub has_voted: bool,
    /// The holdings stored with [`Remember`], in the order of members.
    pub holdings: Vec<(NodeId, Index)>,
    /// A line for the operator per action of recovery (for example "discarded a torn tail of 312
    /// bytes in …").
    pub repairs: Vec<String>,
}

impl Recovered {
    /// Adds the next entries of a log that is being read back: for stores that read all of it at
    /// the start. Set `base`, `last` (equal to it) and `last_checksum` before.
    ///
    /// ```
    /// # use quorate_raft::{BatchBuilder, Index, Kind, Term};
    /// # use quorate_storage::{Recovered, checksum};
    /// let mut entries = BatchBuilder::new(checksum, Term(1), Index(1), 0, 0);
    /// entries.push(Kind::Command, b"the first");
    /// entries.push(Kind::Command, b"the second");
    /// let batch = entries.finish().expect("two entries");
    ///
    /// let mut recovered = Recovered::default();
    /// recovered.append(&batch)?;
    /// assert_eq!((recovered.last, recovered.last_checksum), (batch.last_id(), batch.checksum()));
    /// assert!(recovered.append(&batch).is_err(), "it does not follow itself");
    /// # Ok::<_, quorate_storage::StorageError>(())
    /// ```
    ///
    /// # Errors
    /// If they do not follow what there is, by index, term and checksum; or hold a configuration
    /// that is none.
    pub fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
        follows((self.last, self.last_checksum), batch)?;
        for record in batch.records().filter(|record| record.kind == Kind::Membership) {
            let membership = Membership::decode(record.payload).map_err(|malformed| {
                let id = record.id;
                StorageError::new(format!("entry {id}: {malformed}; find out what wrote it, or replace this member"))
            })?;
            self.memberships.push((record.id.index, membership));
        }
        if self.terms.last().is_none_or(|(_, term)| *term != batch.term()) {
            self.terms.push((batch.first(), batch.term()));
        }
        (self.last, self.last_checksum) = (batch.last_id(), batch.checksum());
        Ok(())
    }
}

/// Checks that entries continue a log with this last entry id and checksum. It is the only check
/// that a store must make of an append.
///
/// # Errors
/// If they do not, by index, term or checksum.
pub fn follows((last, checksum): (EntryId, u32), batch: &Batch) -> Result<(), StorageError> {
    let first = EntryId::new(batch.term(), batch.first());
    let is_next = first.index == last.index.next() && first.term >= last.term;
    if is_next && batch.previous_checksum() == checksum {
        return Ok(());
    }
    let what = format!("entry {first} does not follow entry {last}, the last of the log");
    Err(StorageError::new(what + "; the log is damaged, or there is a bug in Quorate: report it"))
}

/// `Consensus` → storage: make this durable, then send [`Persisted`].
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Persist(pub quorate_raft::Persist);

impl Persist {
    /// Whether there is nothing to make durable: it only must not overtake earlier ones.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let quorate_raft::Persist { cut, truncate_from, batch, repair, hard_state, .. } = &self.0;
        cut.is_none() && truncate_from.is_none() && batch.is_none() && repair.is_none() && hard_state.is_none()
    }
}

/// Storage → `Consensus`: everything up to `sequence` is durable, so `then` may be sent, in order.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Persisted {
    /// The highest sequence that is durable.
    pub sequence: u64,
    /// The replies that waited for it, concatenated in order.
    pub then: Vec<Outgoing>,
}

/// `Consensus` → storage: read durable or accepted entries that are no longer cached.
#[derive(Message, Clone, Copy, Debug, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct ReadEntries {
    /// Echoed in the reply.
    pub request: u64,
    /// The first requested entry.
    pub from: Index,
    /// The last requested entry.
    pub to: Index,
    /// The most bytes of batches to return; at least one entry is returned.
    pub bytes_max: usize,
}

/// Storage → `Consensus`: the entries from `from` on, as far as requested and within `bytes_max`.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct EntriesRead {
    /// The request's number.
    pub request: u64,
    /// Consecutive batches from the first requested entry; empty if that one is faulty, or the log
    /// no longer has it, because a truncation or a cut came first.
    pub batches: Vec<Batch>,
}

/// `Consensus` → storage: begin to write a snapshot. It counts after [`SnapshotSink::finish`];
/// dropping the sink removes it.
#[derive(Message, Clone, Debug, PartialEq, Eq)]
#[rtype(result = "Result<Box<dyn SnapshotSink>, StorageError>")]
pub struct SaveSnapshot {
    /// The last entry that it covers, and the membership there.
    pub base: SnapshotBase,
    /// Size in bytes and checksum of a snapshot that another node sends: `finish`
    /// refuses any other.
    pub expected: Option<(u64, u32)>,
}

/// A snapshot that is being written, on any thread.
pub trait SnapshotSink: io::Write + Send {
    /// Makes it durable, atomically: before, the store does not have it; afterwards it does.
    ///
    /// # Errors
    /// If it could not be written, or is not the expected one. Then nothing of it is left, and the
    /// log is unchanged.
    fn finish(self: Box<Self>) -> Result<Snapshot, StorageError>;
}

/// `Consensus` → storage: read the snapshot with the highest index.
#[derive(Message, Clone, Copy, Debug, PartialEq, Eq)]
#[rtype(result = "Result<Box<dyn SnapshotSource>, StorageError>")]
pub struct OpenSnapshot;

/// A snapshot that is being read, on any thread. It stays readable until it is dropped, even if a
/// newer one replaces it.
pub trait SnapshotSource: Send {
    /// Its base, size and checksum.
    fn snapshot(&self) -> &Snapshot;

    /// Fills `buffer` with the state's bytes from `offset` on, and returns their number, which is
    /// lower only at the end of the state. Only bytes with a good checksum are returned.
    ///
    /// # Errors
    /// If they can't be read, or are damaged.
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError>;
}

/// `Consensus` → storage: store up to which committed entry these members are known to have
/// acknowledged the log; of several indexes of a member, the highest. A crash may lose it.
#[derive(Message, Clone, Debug, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct Remember {
    /// The members and their holdings; 0 for a member that had a log, without a committed entry
    /// that is known.
    pub members: Vec<(NodeId, Index)>,
}

/// `Consensus` → storage, once a heartbeat interval at most: measures how long a message waits in the mailbox.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Probe(Box<dyn FnOnce() + Send>);

impl Probe {
    /// A probe that calls this once it is handled.
    pub fn new(arrived: impl FnOnce() + Send + 'static) -> Self {
        Self(Box::new(arrived))
    }

    /// The probe is handled: in order, after the messages before it. Takes well below a microsecond.
    pub fn arrived(self) {
        (self.0)();
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}

/// Storage → `Consensus`: there will soon be no room for further entries, or there is room again.
#[derive(Message, Clone, Copy, Debug, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct StorageFull {
    /// Whether room runs out.
    pub is_full: bool,
}

/// Storage → the node: the store failed, for good. The node stops.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct StorageFailed {
    /// The cause, with a remedy.
    pub error: StorageError,
}

/// The replies of a storage actor. Cheap to clone; every call sends a message, none waits.
#[derive(Clone)]
pub struct Completions {
    persisted: Recipient<Persisted>,
    entries_read: Recipient<EntriesRead>,
    full: Recipient<StorageFull>,
    failed: Recipient<StorageFailed>,
}

impl Completions {
    /// Completions that go to one actor.
    pub fn to<A>(actor: &Addr<A>) -> Self
    where
        A: Handler<Persisted> + Handler<EntriesRead> + Handler<StorageFull> + Handler<StorageFailed>,
        A::Context: actix::dev::ToEnvelope<A, Persisted>
            + actix::dev::ToEnvelope<A, EntriesRead>
            + actix::dev::ToEnvelope<A, StorageFull>
            + actix::dev::ToEnvelope<A, StorageFailed>,
    {
        Self {
            persisted: actor.clone().recipient(),
            entries_read: actor.clone().recipient(),
            full: actor.clone().recipient(),
            failed: actor.clone().recipient(),
        }
    }

    /// Everything up to a sequence is durable.
    pub fn persisted(&self, persisted: Persisted) {
        self.persisted.do_send(persisted);
    }

    /// Entries were read.
    pub fn entries_read(&self, read: EntriesRead) {
        self.entries_read.do_send(read);
    }

    /// There will soon be no room for further entries, or there is room again.
    pub fn full(&self, is_full: bool) {
        self.full.do_send(StorageFull { is_full });
    }

    /// Whether the node still runs. If not, the store need not wait for anything.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.failed.connected()
    }

    /// The store failed, for good.
    pub fn failed(&self, error: StorageError) {
        self.failed.do_send(StorageFailed { error });
    }
}

/// Receives measurements: from the storage actor's thread, once per batch, and from the threads
/// that write and read snapshots. Every method does nothing by default.
pub trait StorageObserver: Send + Sync + 'static {
    /// An `fdatasync` succeeded.
    fn synced(&self, _took: Duration) {}
    /// Bytes were written to the log.
    fn wrote(&self, _bytes: u64) {}
    /// Bytes were written to a snapshot.
    fn wrote_snapshot(&self, _bytes: u64) {}
    /// An operation failed.
    fn failed(&self, _op: StorageOp) {}
    /// A file could not be opened or made, or a thread could not be started, for lack of
    /// descriptors, threads or memory; it will be tried again.
    fn ran_short(&self) {}
    /// The size of the log's files in bytes.
    fn log_bytes(&self, _bytes: u64) {}
    /// The actor took a message from its mailbox, [`Recover`] among them and [`Probe`] not: so that
    /// the number of waiting ones is known. A store need not tell it.
    fn took_message(&self) {}
}

/// An observer that ignores all measurements.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl StorageObserver for Unobserved {}
