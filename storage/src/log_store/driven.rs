//! A [`LogStore`] with its directory, as a log that `LogWriter` drives.
//!
//! It checks and orders the changes that the store then makes, and keeps snapshots, holdings, owner
//! and lock as the write-ahead log does. It knows the ends of the log, and none of its entries.

use super::{LogStore, Opening, missing};
use crate::{
    contract::{Recover, Recovered, SnapshotSink, SnapshotSource, StorageError, StorageObserver, StorageOp, follows},
    disk::Disk,
    log_writer::DrivenLog,
    snapshots::SnapshotStore,
    wal::{
        Failure, Identity, Outcome,
        holdings::{self, Holdings},
        place, recovery,
    },
};
use quorate_raft::{Batch, Cut, EntryId, HardState, Index, NodeId, Persist, SnapshotBase, Term};
use std::{
    any::Any,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

pub(super) struct StoreLog<S> {
    store: S,
    snapshots: SnapshotStore,
    holdings: Holdings,
    identity: Identity,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    hard_state: HardState,
    has_voted: bool,
    /// The entry before the first one held.
    base: EntryId,
    /// The last entry, and the checksum of its record.
    last: (EntryId, u32),
    /// Whether the store has changes that are not synced.
    is_staged: bool,
    /// The last cut that the snapshots have not been told of.
    cut_to: Option<Index>,
    is_full: bool,
    // Dropped after all that uses the directory: the next owner finds it at rest.
    lock: Box<dyn Any + Send + Sync>,
    observer: Arc<dyn StorageObserver>,
}

impl<S: LogStore> StoreLog<S> {
    /// Locks the directory, opens what is in it, then the store. The log begins after a snapshot
    /// that is ahead of it.
    pub(super) fn open(
        dir: PathBuf,
        disk: Arc<dyn Disk>,
        recover: &Recover,
        open: impl FnOnce(&Opening) -> Result<(S, Recovered), StorageError>,
    ) -> Outcome<(Box<dyn DrivenLog>, Recovered)> {
        let Recover { cluster, member, observer, .. } = recover;
        let lock = recovery::lock(&*disk, &dir, cluster)?;
        let identity = Identity { cluster: cluster.clone(), member: *member };
        holdings::remove_leftover(&*disk, &dir)?;
        let (holdings, unreadable) = holdings::claim(&*disk, &dir, &identity)?;
        let (snapshots, found) = SnapshotStore::open(disk.clone(), &dir, cluster, *member, Arc::clone(observer))
            .map_err(Failure::of(StorageOp::Open))?;

        let (cluster, observer) = (cluster.clone(), Arc::clone(observer));
        let opening = Opening { dir, disk, cluster, member: *member, observer };
        let (store, mut recovered) = open(&opening).map_err(Failure::of(StorageOp::Open))?;
        let Opening { dir, disk, observer, .. } = opening;
        if recovered.hard_state.term < recovered.last.term {
            return Err(Failure::open(format_args!(
                "{} holds entry {}, and its term is {}: term and vote are lost; remove this member and add it under a new id",
                dir.display(),
                recovered.last,
                recovered.hard_state.term
            )));
        }
        recovered.repairs.extend(found.repairs.into_iter().chain(unreadable));
        recovered.snapshot = found.snapshots.into_iter().next();
        recovered.holdings = holdings.iter().map(|(member, index)| (*member, *index)).collect();

        let mut log = Self {
            store,
            snapshots,
            holdings,
            identity,
            dir,
            disk,
            hard_state: recovered.hard_state,
            has_voted: recovered.has_voted,
            base: recovered.base,
            last: (recovered.last, recovered.last_checksum),
            is_staged: false,
            cut_to: None,
            is_full: false,
            lock,
            observer,
        };
        let ahead = recovered.snapshot.as_ref().map(|snapshot| snapshot.base.clone());
        if let Some(base) = ahead.filter(|base| !holds(&recovered, base.last)) {
            log.start_over(base.last, base.last_checksum)?;
            log.sync()?;
            let (ended, last) = (recovered.last, base.last);
            recovered
                .repairs
                .push(format!("the log ended at entry {ended}, and begins after the snapshot up to {last}"));
            let (repairs, last_checksum) = (recovered.repairs, base.last_checksum);
            let Recovered { hard_state, has_voted, snapshot, holdings, .. } = recovered;
            let emptied = Recovered { base: last, last, last_checksum, repairs, ..Recovered::default() };
            recovered = Recovered { hard_state, has_voted, snapshot, holdings, ..emptied };
        }
        Ok((Box::new(log), recovered))
    }

    /// The entry before `from`, which is held, and its checksum.
    fn before(&mut self, from: Index) -> Outcome<(EntryId, u32)> {
        self.sync()?;
        if from.previous() > self.base.index {
            return self.store.entry(from.previous()).map_err(Failure::of(StorageOp::Read));
        }
        let first = self.store.read(from).map_err(Failure::of(StorageOp::Read))?;
        let first = first.ok_or_else(|| missing(from)).map_err(Failure::of(StorageOp::Read))?;
        Ok((self.base, first.previous_checksum()))
    }

    fn cut(&mut self, cut: &Cut) -> Outcome<()> {
        let to = cut.to;
        if to.index <= self.base.index {
            return Ok(());
        }
        self.sync()?;
        let held = match to.index <= self.last.0.index {
            true => Some(self.store.entry(to.index).map_err(Failure::of(StorageOp::Read))?),
            false => None,
        };
        match (held.filter(|(id, _)| *id == to), cut.checksum) {
            (Some((_, checksum)), Some(other)) if checksum != other => Err(Failure::write(format_args!(
                "asked to cut the log in {} after entry {to} with checksum {other:08x}, which has {checksum:08x}: the logs have \
                 diverged, nothing was removed; remove this member and add it under a new id",
                self.dir.display()
            ))),
            (Some((_, checksum)), _) => self.begin_after(to, checksum),
            (None, Some(checksum)) => self.start_over(to, checksum),
            (None, None) => Err(Failure::write(format_args!(
                "asked to begin the log after entry {to} without its checksum; this is a bug of Quorate's: report it"
            ))),
        }
    }

    /// Drops all entries, and lets the log begin after one that it does not hold.
    fn start_over(&mut self, to: EntryId, checksum: u32) -> Outcome<()> {
        self.keep_state(None, to.term)?;
        if self.last.0.index > self.base.index {
            self.is_staged = true;
            self.store.truncate(self.base.index.next()).map_err(Failure::of(StorageOp::Write))?;
        }
        self.last = (to, checksum);
        self.begin_after(to, checksum)
    }

    fn begin_after(&mut self, to: EntryId, checksum: u32) -> Outcome<()> {
        self.is_staged = true;
        self.store.cut(to, checksum).map_err(Failure::of(StorageOp::Write))?;
        (self.base, self.cut_to) = (to, Some(to.index));
        Ok(())
    }

    /// Drops the entries from `from` on. `then`, which is appended next, must follow the last one
    /// that stays, or nothing is dropped.
    fn truncate(&mut self, from: Index, then: Option<&Batch>) -> Outcome<()> {
        if from > self.last.0.index {
            return Ok(());
        }
        if from <= self.base.index {
            return Err(Failure::write(format_args!(
                "asked to truncate from entry {from}, but the log begins after {}; this is a bug of Quorate's: report it",
                self.base
            )));
        }
        let last = self.before(from)?;
        if let Some(batch) = then {
            follows(last, batch).map_err(Failure::of(StorageOp::Write))?;
        }
        self.is_staged = true;
        self.store.truncate(from).map_err(Failure::of(StorageOp::Write))?;
        self.last = last;
        Ok(())
    }

    /// Stages this hard state, or one with the term of the entry that is about to be the last: a
    /// later term than the stored one would mean at the next start that a vote was lost.
    fn keep_state(&mut self, asked: Option<HardState>, last_term: Term) -> Outcome<()> {
        let mut state = asked.unwrap_or(self.hard_state);
        if last_term > state.term {
            state = HardState { term: last_term, vote: None, ..state };
        }
        if asked.is_some() || state != self.hard_state {
            self.is_staged = true;
            (self.hard_state, self.has_voted) = (state, self.has_voted || state.vote.is_some());
            self.store.set_hard_state(state, self.has_voted).map_err(Failure::of(StorageOp::Write))?;
        }
        Ok(())
    }

    fn append(&mut self, batch: &Batch) -> Outcome<()> {
        follows(self.last, batch).map_err(Failure::of(StorageOp::Write))?;
        self.is_staged = true;
        self.store.append(batch).map_err(Failure::of(StorageOp::Write))?;
        self.last = (batch.last_id(), batch.checksum());
        self.observer.wrote(batch.bytes().len() as u64);
        Ok(())
    }

    fn repair(&mut self, batch: &Batch) -> Outcome<()> {
        self.sync()?;
        let (base, last) = (self.base.index, self.last.0.index);
        for record in batch.records() {
            let id = record.id;
            let is_held = id.index > base && id.index <= last;
            let held = is_held.then(|| self.store.entry(id.index)).transpose().map_err(Failure::of(StorageOp::Read))?;
            if held != Some((id, record.checksum)) {
                return Err(Failure::write(format_args!(
                    "entry {id} was sent to repair the log in {}, which has another one there: the logs have diverged, nothing was \
                     overwritten; remove this member and add it under a new id",
                    self.dir.display()
                )));
            }
        }
        self.is_staged = true;
        self.store.repair(batch).map_err(Failure::of(StorageOp::Write))
    }
}

impl<S: LogStore> DrivenLog for StoreLog<S> {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn observer(&self) -> &dyn StorageObserver {
        &*self.observer
    }

    fn stage(&mut self, persist: &Persist) -> Outcome<()> {
        if let Some(cut) = &persist.cut {
            self.cut(cut)?;
        }
        if let Some(from) = persist.truncate_from {
            self.truncate(from, persist.batch.as_ref())?;
        }
        self.keep_state(persist.hard_state, persist.batch.as_ref().map_or(self.last.0.term, Batch::term))?;
        if let Some(batch) = &persist.batch {
            self.append(batch)?;
        }
        if let Some(batch) = &persist.repair {
            self.repair(batch)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Outcome<()> {
        if self.is_staged {
            let began = Instant::now();
            self.store.sync().map_err(Failure::of(StorageOp::Sync))?;
            self.observer.synced(began.elapsed());
            self.is_staged = false;
        }
        if let Some(to) = self.cut_to.take() {
            self.snapshots.remove_older_than(to);
        }
        Ok(())
    }

    fn read(&mut self, from: Index, to: Index, bytes_max: usize) -> Outcome<Vec<Batch>> {
        let (mut read, mut next, mut left) = (Vec::new(), from, bytes_max);
        let to = to.min(self.last.0.index);
        if from <= self.base.index {
            return Ok(read);
        }
        while next <= to {
            let Some(batch) = self.store.read(next).map_err(Failure::of(StorageOp::Read))? else { break };
            let wanted = batch.from(next).and_then(|batch| batch.up_to(to)).filter(|wanted| wanted.first() == next);
            let wanted = wanted.ok_or_else(|| Failure::of(StorageOp::Read)(missing(next)))?;
            let fitting = wanted.within(left);
            if !read.is_empty() && fitting.bytes().len() > left {
                break;
            }
            left = left.saturating_sub(fitting.bytes().len());
            let is_cut = fitting.count() < wanted.count();
            next = fitting.last().next();
            read.push(fitting);
            if is_cut || left == 0 {
                break;
            }
        }
        Ok(read)
    }

    fn remember(&mut self, members: &[(NodeId, Index)]) -> Outcome<()> {
        holdings::remember(&*self.disk, &self.dir, &self.identity, &mut self.holdings, members)
    }

    fn begin_snapshot(
        &mut self,
        base: SnapshotBase,
        expected: Option<(u64, u32)>,
    ) -> Result<Box<dyn SnapshotSink>, StorageError> {
        self.snapshots.begin(base, expected)
    }

    fn open_newest_snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, StorageError> {
        self.snapshots.open_newest()
    }

    fn check_space(&mut self) -> Outcome<Option<bool>> {
        let is_full = self.store.is_full().map_err(Failure::of(StorageOp::Write))?;
        let was_full = std::mem::replace(&mut self.is_full, is_full);
        Ok((is_full != was_full).then_some(is_full))
    }

    fn awaits_space(&mut self) -> bool {
        self.is_full
    }

    fn check_place(&self) -> Outcome<()> {
        place::check_lock(&*self.disk, &self.dir, &*self.lock)
    }
}

/// Whether a log goes on after this entry: it is the base, before it, or held.
fn holds(recovered: &Recovered, id: EntryId) -> bool {
    if id.index <= recovered.base.index {
        return true;
    }
    let run = recovered.terms.iter().rev().find(|(first, _)| *first <= id.index);
    id.index <= recovered.last.index && run.is_some_and(|(_, term)| *term == id.term)
}
