//! A watched storage: the real log, wrapped in an actor that records its durability reports and
//! can be slow.
//!
//! The reports are compared with the data that the log recovers after a crash. The check relies on
//! nothing inside the log.

use super::observer::SharedObserver;
use actix::prelude::*;
use quorate::storage::{
    Completions, EntriesRead, OpenSnapshot, Persist, Persisted, ReadEntries, Recover, Recovered, Remember,
    SaveSnapshot, SnapshotSink, SnapshotSource, Storage, StorageError, StorageFailed, StorageFull, StorageHandle,
};
use quorate_raft::{Cut, EntryId, HardState, Index, NodeId, Snapshot, Term};
use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write},
    time::Duration,
};
use tokio::time::Instant;

/// The segment size of a simulated log in bytes: the smallest that the log accepts, so that there
/// are many segments. Some runs have larger ones.
pub(super) const SEGMENT_BYTES: usize = 16 << 10;
/// The entry slots of a segment: an eighth of it, at 40 bytes per slot.
const SEGMENT_SLOTS: usize = SEGMENT_BYTES / 8 / 40;

/// The data that a node's disk holds according to the reports of its log. Survives the node.
#[derive(Clone, Default, Debug)]
pub(super) struct Promised {
    pub(super) hard_state: HardState,
    /// The last entry removed by log compaction.
    base: EntryId,
    entries: BTreeMap<Index, Term>,
    /// Entries that lacked their payload at the last recovery and are not repaired, each with
    /// whether it is proven to have been durable. The next recovery may lack them.
    faulty: BTreeMap<Index, bool>,
    pub(super) snapshot: Index,
    /// Writes that were requested and not yet reported durable: any part of them may be durable.
    asked: VecDeque<quorate_raft::Persist>,
}

impl Promised {
    /// The index of the last durable entry.
    pub(super) fn last(&self) -> Index {
        self.entries.last_key_value().map_or(self.base.index, |(index, _)| *index)
    }

    /// Whether an entry has only one place left on the disk. That lasts until a repair, or until
    /// the next start drops the entry; a snapshot that covers it does not help, for records are
    /// found in sequence.
    pub(super) fn has_faulty(&self) -> bool {
        !self.faulty.is_empty()
    }

    /// Whether this entry is durable, or covered by a cut or a snapshot.
    pub(super) fn holds(&self, id: EntryId) -> bool {
        id.index <= self.base.index.max(self.snapshot) || self.entries.get(&id.index) == Some(&id.term)
    }

    /// The number of writes under way.
    fn unfinished(&self) -> usize {
        self.asked.len()
    }

    /// Whether the writes under way need a new segment: they truncate the log, start it after a
    /// snapshot, or fill most of a segment at once, which happens only with the small segments
    /// of a simulation.
    pub(super) fn needs_a_segment(&self) -> bool {
        let batches = self.asked.iter().filter_map(|persist| persist.batch.as_ref());
        let (mut bytes, mut entries) = (0, 0);
        batches.for_each(|batch| (bytes, entries) = (bytes + batch.bytes().len(), entries + batch.count() as usize));
        bytes > SEGMENT_BYTES / 2
            || entries > SEGMENT_SLOTS / 2
            || self.asked.iter().any(|persist| persist.truncate_from.is_some() || persist.cut.is_some())
    }

    /// The first entry of the suffix that a log may discard on the operator's order.
    fn discardable_from(&self) -> Option<Index> {
        let (first, _) = self.faulty.iter().find(|(_, was_durable)| !**was_durable)?;
        let proven = self.faulty.range(*first..).any(|(_, was_durable)| *was_durable);
        (!proven).then_some(*first)
    }

    fn asked(&mut self, persist: &quorate_raft::Persist) {
        self.asked.push_back(persist.clone());
    }

    /// All writes up to `sequence` are durable.
    fn persisted(&mut self, sequence: u64) {
        while let Some(persist) = self.asked.pop_front_if(|persist| persist.sequence <= sequence) {
            if let Some(Cut { to, .. }) = persist.cut.filter(|cut| cut.to.index > self.base.index) {
                match self.entries.get(&to.index) == Some(&to.term) {
                    true => self.entries.retain(|index, _| *index > to.index),
                    false => self.entries.clear(),
                }
                self.base = to;
            }
            if let Some(from) = persist.truncate_from {
                self.entries.retain(|index, _| *index < from);
                self.faulty.retain(|index, _| *index < from);
            }
            if let Some(repair) = &persist.repair {
                self.faulty.retain(|index, _| *index < repair.first() || *index > repair.last());
            }
            if let Some(batch) = &persist.batch {
                self.entries.extend((batch.first().0..=batch.last().0).map(|index| (Index(index), batch.term())));
            }
            self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
        }
    }

    /// Compares the recovered data with the promise, except for writes under way. On a damaged disk
    /// the log must still know which entries it lost.
    fn check(&self, recovered: &Recovered, is_damaged: bool) -> Result<(), String> {
        let (then, now) = (self.hard_state, recovered.hard_state);
        if now.term < then.term || (now.term == then.term && then.vote.is_some() && now.vote != then.vote) {
            return Err(format!("{then:?} was durable, and {now:?} was recovered"));
        }
        let snapshot = recovered.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.base.last.index);
        if snapshot < self.snapshot && !is_damaged {
            return Err(format!(
                "a snapshot up to {} was durable, and one up to {snapshot} was recovered",
                self.snapshot
            ));
        }
        let truncated = self.asked.iter().filter_map(|persist| persist.truncate_from).min().unwrap_or(Index(u64::MAX));
        // A cut at an entry that the log does not hold restarts the log; so does a snapshot with
        // its cut still to come.
        let restarted = self.asked.iter().any(|persist| persist.cut.is_some()) || snapshot > self.last();
        let newest = recovered.snapshot.as_ref().map(|snapshot| snapshot.base.last);
        let starts_over = newest.is_some_and(|newest| {
            newest.index > self.base.index
                && self.entries.contains_key(&newest.index)
                && self.entries.get(&newest.index) != Some(&newest.term)
        });
        // Nothing after an entry that may never have been durable was ever acknowledged: an
        // operator may discard all of it.
        let discarded = self.discardable_from().filter(|from| recovered.last.index < *from).unwrap_or(Index(u64::MAX));
        let kept = |index: &Index| {
            let stays = *index < truncated.min(discarded) && !starts_over;
            stays && *index > recovered.base.index && !self.faulty.contains_key(index)
        };
        for (index, term) in self.entries.iter().filter(|(index, _)| kept(index)) {
            let run = recovered.terms.partition_point(|(first, _)| first <= index).checked_sub(1);
            let found = run.map(|run| recovered.terms[run].1).filter(|_| *index <= recovered.last.index);
            if found != Some(*term) && !(restarted && *index <= snapshot.max(recovered.base.index)) {
                return Err(format!("entry {index} of term {term} was durable, and {found:?} was recovered"));
            }
            let is_faulty = recovered.faulty.iter().any(|faulty| faulty.id.index == *index);
            if is_faulty && !is_damaged {
                return Err(format!("entry {index} was durable, nothing damaged it, and its payload is gone"));
            }
        }
        Ok(())
    }
}

/// The data just recovered from a disk is the promise from then on.
impl From<&Recovered> for Promised {
    fn from(recovered: &Recovered) -> Self {
        let mut entries = BTreeMap::new();
        for (nth, (first, term)) in recovered.terms.iter().enumerate() {
            let last = recovered.terms.get(nth + 1).map_or(recovered.last.index, |(next, _)| next.previous());
            entries.extend((first.0..=last.0).map(|index| (Index(index), *term)));
        }
        let snapshot = recovered.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.base.last.index);
        let faulty = recovered.faulty.iter().map(|faulty| (faulty.id.index, faulty.was_durable)).collect();
        Self {
            hard_state: recovered.hard_state,
            base: recovered.base,
            entries,
            faulty,
            snapshot,
            asked: VecDeque::new(),
        }
    }
}

/// The actor between a node and its log.
pub(super) struct ObservedStorage {
    node: NodeId,
    inner: Option<StorageHandle>,
    storage: Option<Storage>,
    observer: SharedObserver,
    /// Requests that a slow disk has not begun.
    late: VecDeque<(Instant, Late)>,
}

enum Late {
    Persist(Persist),
    Read(ReadEntries),
}

impl ObservedStorage {
    /// A handle to `inner` with this actor in between.
    pub(super) fn around(inner: impl Into<StorageHandle>, node: NodeId, observer: SharedObserver) -> StorageHandle {
        let inner = Some(inner.into());
        StorageHandle::actor(move || Self { node, inner, storage: None, observer, late: VecDeque::new() })
    }

    fn hand_on(&mut self, late: Late, ctx: &mut Context<Self>) {
        let takes = self.observer.lock().disk(self.node).syncs_take;
        if takes.is_zero() && self.late.is_empty() {
            return self.do_now(late);
        }
        self.late.push_back((Instant::now() + takes, late));
        ctx.run_later(takes, Self::do_due);
    }

    /// Passes requests on in the order of their arrival, also if a later one is due earlier.
    fn do_due(&mut self, ctx: &mut Context<Self>) {
        while let Some((_, late)) = self.late.pop_front_if(|(due, _)| *due <= Instant::now()) {
            self.do_now(late);
        }
        if let Some((due, _)) = self.late.front() {
            ctx.run_later(due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)), Self::do_due);
        }
    }

    fn do_now(&mut self, late: Late) {
        let Some(storage) = &self.storage else { return };
        match late {
            Late::Persist(persist) => {
                self.observer.lock().promised(self.node).asked(&persist.0);
                storage.persist.do_send(persist);
            }
            Late::Read(read) => storage.read_entries.do_send(read),
        }
    }
}

impl Actor for ObservedStorage {
    type Context = Context<Self>;
}

impl Handler<Recover> for ObservedStorage {
    type Result = ResponseFuture<Result<Recovered, StorageError>>;

    fn handle(&mut self, mut recover: Recover, _: &mut Self::Context) -> Self::Result {
        let (node, observer) = (self.node, self.observer.clone());
        let told = Told { node, told: recover.completions, observer: observer.clone() };
        recover.completions = Completions::to(&told.start());
        let Some(inner) = self.inner.take() else {
            return Box::pin(async { Err(StorageError::new("it was recovered already")) });
        };
        let storage = inner.start_here();
        let answer = storage.recover.send(recover);
        self.storage = Some(storage);
        Box::pin(async move {
            let recovered = answer.await.unwrap_or_else(|error| Err(StorageError::new(error.to_string())))?;
            observer.lock().recovered(node, &recovered, |promised, is_damaged| promised.check(&recovered, is_damaged));
            Ok(recovered)
        })
    }
}

impl Handler<Persist> for ObservedStorage {
    type Result = ();

    fn handle(&mut self, persist: Persist, ctx: &mut Self::Context) {
        let mut observer = self.observer.lock();
        observer.disk(self.node).waiting += 1;
        observer.writes(self.node, &persist.0);
        drop(observer);
        self.hand_on(Late::Persist(persist), ctx);
    }
}

impl Handler<ReadEntries> for ObservedStorage {
    type Result = ();

    fn handle(&mut self, read: ReadEntries, ctx: &mut Self::Context) {
        self.hand_on(Late::Read(read), ctx);
    }
}

impl Handler<SaveSnapshot> for ObservedStorage {
    type Result = ResponseFuture<Result<Box<dyn SnapshotSink>, StorageError>>;

    fn handle(&mut self, save: SaveSnapshot, _: &mut Self::Context) -> Self::Result {
        let Some(storage) = &self.storage else {
            return Box::pin(async { Err(StorageError::new("it was not recovered")) });
        };
        let (answer, node, observer) = (storage.save_snapshot.send(save), self.node, self.observer.clone());
        Box::pin(async move {
            let sink = answer.await.unwrap_or_else(|error| Err(StorageError::new(error.to_string())))?;
            Ok(Box::new(Sink { sink, node, checksum: 0, observer }) as Box<dyn SnapshotSink>)
        })
    }
}

impl Handler<OpenSnapshot> for ObservedStorage {
    type Result = ResponseFuture<Result<Box<dyn SnapshotSource>, StorageError>>;

    fn handle(&mut self, open: OpenSnapshot, _: &mut Self::Context) -> Self::Result {
        let Some(storage) = &self.storage else {
            return Box::pin(async { Err(StorageError::new("it was not recovered")) });
        };
        let answer = storage.open_snapshot.send(open);
        Box::pin(async move { answer.await.unwrap_or_else(|error| Err(StorageError::new(error.to_string()))) })
    }
}

impl Handler<Remember> for ObservedStorage {
    type Result = ();

    fn handle(&mut self, remember: Remember, _: &mut Self::Context) {
        if let Some(storage) = &self.storage {
            storage.remember.do_send(remember);
        }
    }
}

/// A snapshot is promised once it was reported durable.
struct Sink {
    sink: Box<dyn SnapshotSink>,
    node: NodeId,
    /// The checksum of all bytes written.
    checksum: u32,
    observer: SharedObserver,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.checksum = quorate_storage::checksum(self.checksum, &bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl SnapshotSink for Sink {
    fn finish(self: Box<Self>) -> Result<Snapshot, StorageError> {
        let Self { sink, node, checksum, observer } = *self;
        let snapshot = sink.finish()?;
        let mut observer = observer.lock();
        let promised = observer.promised(node);
        promised.snapshot = promised.snapshot.max(snapshot.base.last.index);
        observer.written(node, snapshot.base.last.index, checksum);
        Ok(snapshot)
    }
}

/// The way back to the node: completions that pass here are promises from then on.
struct Told {
    node: NodeId,
    told: Completions,
    observer: SharedObserver,
}

impl Actor for Told {
    type Context = Context<Self>;
}

impl Handler<Persisted> for Told {
    type Result = ();

    fn handle(&mut self, persisted: Persisted, _: &mut Self::Context) {
        let mut observer = self.observer.lock();
        let disk = observer.disk(self.node);
        disk.finished += 1;
        let before = disk.promised.unfinished();
        disk.promised.persisted(persisted.sequence);
        disk.waiting = disk.waiting.saturating_sub(before - disk.promised.unfinished());
        drop(observer);
        self.told.persisted(persisted);
    }
}

impl Handler<EntriesRead> for Told {
    type Result = ();

    fn handle(&mut self, read: EntriesRead, _: &mut Self::Context) {
        self.told.entries_read(read);
    }
}

impl Handler<StorageFull> for Told {
    type Result = ();

    fn handle(&mut self, StorageFull { is_full }: StorageFull, _: &mut Self::Context) {
        self.told.full(is_full);
    }
}

impl Handler<StorageFailed> for Told {
    type Result = ();

    fn handle(&mut self, StorageFailed { error }: StorageFailed, _: &mut Self::Context) {
        self.told.failed(error);
    }
}
