//! The open log as `LogWriter` drives it.

use super::{Outcome, Wal, log::Log};
use crate::{
    contract::{Recover, Recovered, SnapshotSink, SnapshotSource, StorageError, StorageObserver},
    log_writer::{DrivenLog, tell_full},
};
use quorate_raft::{Batch, Index, NodeId, Persist, SnapshotBase};
use std::{path::Path, sync::Arc};

/// Opens the log for an actor that has a thread of its own, on which it may wait.
pub(super) fn open(wal: &Wal, recover: &Recover) -> Outcome<(Box<dyn DrivenLog>, Recovered)> {
    let Recover { cluster, member, completions, observer } = recover;
    let (mut log, recovered) = Log::open(wal, cluster, *member, Arc::clone(observer))?;
    if log.is_full() {
        completions.full(true);
    }
    let node = completions.clone();
    log.wait_for_the_system_while(move || node.is_heard());
    // A simulated disk gets no space while its driver waits.
    if wal.disk.is_shared() {
        let (node, dir) = (completions.clone(), wal.dir.clone());
        log.wait_for_space(move || tell_full(&node, &dir, true));
    }
    Ok((Box::new(log), recovered))
}

impl DrivenLog for Log {
    fn dir(&self) -> &Path {
        self.dir()
    }

    fn observer(&self) -> &dyn StorageObserver {
        self.observer()
    }

    fn stage(&mut self, persist: &Persist) -> Outcome<()> {
        self.stage(persist)
    }

    fn sync(&mut self) -> Outcome<()> {
        self.sync()
    }

    fn read(&mut self, from: Index, to: Index, bytes_max: usize) -> Outcome<Vec<Batch>> {
        Self::read(self, from, to, bytes_max)
    }

    fn remember(&mut self, members: &[(NodeId, Index)]) -> Outcome<()> {
        self.remember(members)
    }

    fn begin_snapshot(
        &mut self,
        base: SnapshotBase,
        expected: Option<(u64, u32)>,
    ) -> Result<Box<dyn SnapshotSink>, StorageError> {
        self.snapshots().begin(base, expected)
    }

    fn open_newest_snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, StorageError> {
        self.open_newest_snapshot()
    }

    fn check_space(&mut self) -> Outcome<Option<bool>> {
        self.check_space()
    }

    fn awaits_space(&mut self) -> bool {
        self.awaits_space()
    }

    fn retry_space(&mut self) {
        self.retry_space();
    }

    fn is_unsettled(&self) -> bool {
        self.is_unsettled()
    }

    fn settle(&mut self) -> Outcome<()> {
        self.settle()
    }

    fn check_place(&self) -> Outcome<()> {
        self.check_place()
    }
}
