//! Snapshots under way: one that is built, those that cut the log, and one that is restored.

use crate::{
    actors::{
        blocking::Blocking,
        messages::{Committed, Restore, SnapshotCaller, Stop, TakeState},
        snapshot_receiver::SnapshotReceiver,
    },
    config::Snapshots,
    decisions::snapshot_policy::SnapshotPolicy,
};
use actix::prelude::*;
use quorate_raft::Index;
use tokio::time::Instant;

/// Snapshots that are being built, cut the log or are restored, and their callers.
pub(crate) struct SnapshotsUnderWay {
    pub(super) config: Snapshots,
    pub(super) policy: SnapshotPolicy,
    pub(super) take_state: Recipient<TakeState>,
    pub(super) restore: Recipient<Restore>,
    pub(super) applier: Recipient<Committed>,
    pub(super) receiver: Addr<SnapshotReceiver>,
    pub(super) blocking: Blocking,
    /// Callers that wait for a snapshot that is not begun yet.
    pub(super) callers: Vec<SnapshotCaller>,
    pub(super) build: Option<Build>,
    /// The write that cuts the log up to a durable snapshot, the last index of that snapshot,
    /// and its callers.
    pub(super) cutting: Vec<(u64, Index, Vec<SnapshotCaller>)>,
    /// The last write that cuts the log.
    pub(super) last_cut: u64,
    /// The highest write that is durable.
    pub(super) durable: u64,
    /// A received snapshot on its way to the state machine.
    pub(super) restoring: Option<Restoring>,
}

/// A snapshot that is being taken and written.
pub(super) struct Build {
    pub(super) began: Instant,
    pub(super) callers: Vec<SnapshotCaller>,
}

pub(super) struct Restoring {
    /// The last index that the snapshot covers.
    pub(super) index: Index,
    /// Its file is open: the state machine has it before any entry that is sent from now on.
    pub(super) is_open: bool,
    /// Entries committed until then.
    pub(super) held: Vec<Committed>,
}

impl SnapshotsUnderWay {
    pub(crate) fn new(
        config: Snapshots,
        (take_state, restore, applier): (Recipient<TakeState>, Recipient<Restore>, Recipient<Committed>),
        receiver: Addr<SnapshotReceiver>,
        blocking: Blocking,
    ) -> Self {
        Self {
            config,
            policy: SnapshotPolicy::new(config),
            take_state,
            restore,
            applier,
            receiver,
            blocking,
            callers: Vec::new(),
            build: None,
            cutting: Vec::new(),
            last_cut: 0,
            durable: 0,
            restoring: None,
        }
    }

    /// The rate at which a snapshot is sent to each peer; 0 is no limit.
    pub(super) fn bytes_per_second(&self) -> u64 {
        self.config.bytes_per_second
    }

    /// The write `sequence` cuts the log.
    pub(super) fn cuts(&mut self, sequence: u64) {
        self.last_cut = sequence;
    }

    /// All writes up to `sequence` are durable.
    pub(super) fn persisted(&mut self, sequence: u64) {
        self.durable = sequence;
        for (_, index, callers) in self.cutting.extract_if(.., |(cut, ..)| *cut <= sequence) {
            callers.into_iter().for_each(|caller| caller.tell(Ok(index)));
        }
    }

    /// The node has ended.
    pub(super) fn stop(&mut self) {
        self.receiver.do_send(Stop);
    }
}
