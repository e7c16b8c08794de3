//! What a storage actor hears and says: the seam at which a log store can be swapped.
//!
//! A storage actor owns the durable log, term, vote and snapshots of one node. It hears [`Recover`] once, then any number of
//! the others:
//!
//! | message | asks to | answered by |
//! | --- | --- | --- |
//! | [`Recover`] | take possession, and say what is there | its result |
//! | [`Persist`] | cut (compact), truncate, append, repair, store term and vote | [`Persisted`] |
//! | [`ReadEntries`] | read back | [`EntriesRead`] |
//! | [`SaveSnapshot`] | begin to write a snapshot: of this node, or of one that is being received | its result: a [`SnapshotSink`] |
//! | [`OpenSnapshot`] | read a snapshot: to restore from it, or to send it | its result: a [`SnapshotSource`] |
//! | [`Remember`] | keep what the members held | nothing |
//!
//! Completions go to the [`Completions`] that came with [`Recover`].
//!
//! # Duties
//!
//! - **Order.** Persists take effect in the order in which they arrive, each one: cut, then truncate, then append, then
//!   repair, then hard state, then its `then` is due. A term is stored with the first of its entries, or before. A read sees what
//!   it was sent behind.
//! - **Only what follows.** An append continues the log by index, term and checksum ([`follows`]), and a repair is the very entry
//!   that is held, by id and checksum; anything else fails the store, and changes nothing.
//! - **Durability.** [`Persisted`] with a sequence is told only after everything of that sequence and of every earlier
//!   one would survive a power cut. It may cover several persists: take what arrived during the last sync into one
//!   write and one sync. An empty persist costs no sync of its own, but is told in order behind the ones before it.
//! - **Finality.** After the first error nothing more is persisted or told but [`StorageFailed`]: a failed sync is never
//!   retried, for the kernel may have dropped the pages and call the retry a success.
//! - **Honesty.** Entries are returned only if every checksum holds. A store that knows the identity of an entry whose
//!   payload it lost says so ([`Recovered::faulty`]), and never forgets that there was one; reads end before it until it is
//!   repaired.
//! - **Snapshots.** What [`SnapshotSink::finish`] returned well would survive a power cut, and is what [`Recovered::snapshot`]
//!   names if it covers more than any other. A [`Cut`](quorate_raft::Cut) names a last entry that such a snapshot covers: only
//!   then may entries up to it, and older snapshots, be dropped. Larger pieces may stay: after a restart [`Recovered::base`] may be
//!   lower, unless the log was started over. A cut to what is gone already changes nothing. A crash between the two leaves a
//!   snapshot that is ahead of the log; then the log begins behind the snapshot, unless it holds the snapshot's last entry.
//!   Snapshots never delay persists: their bytes are written and read on their callers' threads.
//! - **One owner.** The data belong to one member of one cluster from the first [`Recover`] on, and to one process at a time.
//! - **Space.** When there is soon no room for entries, a store says [`StorageFull`] while there still is, and again when
//!   there is room: the node then takes no more commands, and can still vote.
//!
//! # A store of your own
//!
//! Any actix actor with these six handlers is a storage: [`StorageHandle::actor`] takes it. `examples/custom-storage` is one over
//! redb, to copy from; [`conformance`](crate::conformance) proves the duties. What helps: [`Persist::is_empty`], [`follows`],
//! [`Recovered::append`], and [`SnapshotStore`](crate::SnapshotStore), which keeps snapshots in files beside a log of any kind.
//! One that answers `Recover`, and nothing else yet:
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
//!             completions.failed(StorageError("there is nowhere to write; choose another store".into()));
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
//! # impl Handler<SaveSnapshot> for Nowhere {
//! #     type Result = Result<Box<dyn SnapshotSink>, StorageError>;
//! #     fn handle(&mut self, _: SaveSnapshot, _: &mut Self::Context) -> Self::Result {
//! #         Err(StorageError("there is nowhere to write; choose another store".into()))
//! #     }
//! # }
//! # impl Handler<OpenSnapshot> for Nowhere {
//! #     type Result = Result<Box<dyn SnapshotSource>, StorageError>;
//! #     fn handle(&mut self, _: OpenSnapshot, _: &mut Self::Context) -> Self::Result {
//! #         Err(StorageError("there is none".into()))
//! #     }
//! # }
//!
//! let handle = StorageHandle::actor(Nowhere::default);
//! # drop(handle);
//! ```

mod handle;

pub use handle::{Place, Storage, StorageHandle, StorageThread, thread};

use actix::prelude::*;
use quorate_raft::{
    Batch, EntryId, Faulty, HardState, Index, Kind, Membership, NodeId, Outgoing, Snapshot, SnapshotBase, Term,
};
use std::{io, sync::Arc, time::Duration};

/// Edge → storage, once, before anything else: take possession of the log and say what is in it.
#[derive(Message)]
#[rtype(result = "Result<Recovered, StorageError>")]
pub struct Recover {
    /// The cluster that the data must belong to.
    pub cluster: String,
    /// The member that the data must belong to.
    pub member: NodeId,
    /// Where outcomes are told.
    pub completions: Completions,
    /// Who watches: metrics.
    pub observer: Arc<dyn StorageObserver>,
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Term, vote and promise, as they were persisted last; the default for a store that never held any.
    pub hard_state: HardState,
    /// The entry before the first one held; the default for a log that was never cut.
    pub base: EntryId,
    /// For every term in the log, the first index of its entries, in order.
    pub terms: Vec<(Index, Term)>,
    /// The last entry; `base` for an empty log.
    pub last: EntryId,
    /// The checksum of the last record, to which the next one chains; 0 for a log that never held one.
    pub last_checksum: u32,
    /// The entries whose identity is known and whose payload is lost, in order.
    pub faulty: Vec<Faulty>,
    /// The snapshot that covers most, if there is one. If `base` is not 0@0 and this does not reach it, the state is lost, and
    /// the node must get it from another.
    pub snapshot: Option<Snapshot>,
    /// The configurations that are in the log, in order: the entries of kind 2, decoded.
    pub memberships: Vec<(Index, Membership)>,
    /// Whether a term with a vote was ever persisted here: a store without one, and without entries, is new or was emptied.
    pub has_voted: bool,
    /// What [`Remember`] was told, in order of members.
    pub known: Vec<(NodeId, Index)>,
    /// One line on what recovery had to do, if it had to do anything (for example "discarded a torn tail of 312 bytes in …").
    pub repairs: Vec<String>,
}

impl Recovered {
    /// Takes in the next entries of a log that is being read back: for stores that go through all of it at the start. `base`,
    /// `last` (equal to it) and `last_checksum` are set before.
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
    /// If they do not follow what there is, by index, term and checksum; or hold a configuration that is none.
    pub fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
        follows((self.last, self.last_checksum), batch)?;
        for record in batch.records().filter(|record| record.kind == Kind::Membership) {
            let membership = Membership::decode(record.payload).map_err(|malformed| {
                let id = record.id;
                StorageError(format!("entry {id}: {malformed}; find out what wrote it, or replace this member"))
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

/// Whether entries continue a log that ends with an entry of this id and checksum: all that a store must check of an append.
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
    Err(StorageError(what + "; the log is damaged, or there is a bug in Quorate: report it"))
}

/// `Consensus` → storage: make this durable, then tell [`Persisted`].
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Persist(pub quorate_raft::Persist);

impl Persist {
    /// Whether there is nothing to make durable: it only must not overtake those before it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let quorate_raft::Persist { cut, truncate_from, batch, repair, hard_state, .. } = &self.0;
        cut.is_none() && truncate_from.is_none() && batch.is_none() && repair.is_none() && hard_state.is_none()
    }
}

/// Storage → `Consensus`: everything up to `sequence` is durable, so `then` may leave, in order.
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
    /// Echoed in the answer.
    pub request: u64,
    /// The first entry wanted.
    pub from: Index,
    /// The last entry wanted.
    pub to: Index,
    /// Stop before the batches have more bytes than this; at least one entry is returned.
    pub bytes_max: usize,
}

/// Storage → `Consensus`: the entries from `from` on, as far as asked for or as fits.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct EntriesRead {
    /// The request answered.
    pub request: u64,
    /// Consecutive batches from the first entry asked for; empty if that is faulty, or the log no longer has it, for a
    /// truncation or a cut overtook the request.
    pub batches: Vec<Batch>,
}

/// `Consensus` → storage: begin to write a snapshot. Nothing counts before [`SnapshotSink::finish`]; dropping the sink removes
/// what was written.
#[derive(Message, Clone, Debug, PartialEq, Eq)]
#[rtype(result = "Result<Box<dyn SnapshotSink>, StorageError>")]
pub struct SaveSnapshot {
    /// What it stands for.
    pub base: SnapshotBase,
    /// How many bytes it must have, and their checksum, if another node sends it: `finish` refuses anything else.
    pub expected: Option<(u64, u32)>,
}

/// A snapshot that is being written, from whatever thread.
pub trait SnapshotSink: io::Write + Send {
    /// Makes it durable, in one step: before, the store has it not at all, afterwards for good.
    ///
    /// # Errors
    /// If it could not be written, or is not what was expected. Then nothing of it is left, and the log is as it was.
    fn finish(self: Box<Self>) -> Result<Snapshot, StorageError>;
}

/// `Consensus` → storage: read the snapshot that covers most.
#[derive(Message, Clone, Copy, Debug, PartialEq, Eq)]
#[rtype(result = "Result<Box<dyn SnapshotSource>, StorageError>")]
pub struct OpenSnapshot;

/// A snapshot that is being read, from whatever thread. It stays readable until it is dropped, also when a newer one takes its
/// place.
pub trait SnapshotSource: Send {
    /// Which one.
    fn snapshot(&self) -> &Snapshot;

    /// Fills `buffer` with the state's bytes from `offset` on, as far as there are any; says how many. Only bytes whose
    /// checksum holds are given.
    ///
    /// # Errors
    /// If they can't be read, or are damaged.
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError>;
}

/// `Consensus` → storage: keep for good up to which committed entries these members are known to have acknowledged the log; of
/// several indexes of a member, the highest. It is no matter if this is lost in a crash.
#[derive(Message, Clone, Debug, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct Remember {
    /// The members, and up to which entry; 0 of a member that had a log, and of whose entries none is known to be committed.
    pub members: Vec<(NodeId, Index)>,
}

/// Storage → `Consensus`: there is soon no room for further entries, or there is again.
#[derive(Message, Clone, Copy, Debug, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct StorageFull {
    /// Whether there is none.
    pub is_full: bool,
}

/// Storage → the node: the store failed, for good. The node stops.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct StorageFailed {
    /// What failed.
    pub error: StorageError,
}

/// Where a storage actor tells outcomes. Cheap to clone; every call is a message, none waits.
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

    /// There is soon no room for further entries, or there is again.
    pub fn full(&self, is_full: bool) {
        self.full.do_send(StorageFull { is_full });
    }

    /// Whether the node is still there. If not, nothing that a store waits for is of use to anybody.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.failed.connected()
    }

    /// The store failed, for good.
    pub fn failed(&self, error: StorageError) {
        self.failed.do_send(StorageFailed { error });
    }
}

/// Why a store can't be used, in one line that says what, where and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StorageError(pub String);

/// Who watches a store: called from the storage actor's thread, once a batch, and from those that write and read snapshots.
/// Every method defaults to nothing.
pub trait StorageObserver: Send + Sync + 'static {
    /// One `fdatasync` ended well.
    fn synced(&self, _took: Duration) {}
    /// Bytes went to the log.
    fn wrote(&self, _bytes: u64) {}
    /// Bytes went to a snapshot.
    fn wrote_snapshot(&self, _bytes: u64) {}
    /// An operation failed: `open`, `read`, `write`, `sync`.
    fn failed(&self, _op: &'static str) {}
    /// A file could not be opened or made, or a thread not be started, for want of descriptors, threads or memory; it is tried again.
    fn ran_short(&self) {}
    /// The log takes this much space now.
    fn log_bytes(&self, _bytes: u64) {}
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl StorageObserver for Unobserved {}
