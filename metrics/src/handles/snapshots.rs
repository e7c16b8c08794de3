//! Building, transfer and restore of snapshots.

use super::{Each, NodeMetrics, Scope};
use crate::{
    catalogue,
    labels::{Direction, SnapshotPhase},
};
use metrics::{Counter, Histogram};
use std::time::Duration;

pub(super) struct Snapshots {
    bytes: Each<Direction, Counter>,
    duration: Each<SnapshotPhase, Histogram>,
    failures: Each<SnapshotPhase, Counter>,
}

impl Snapshots {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            bytes: scope.each("direction", |scope| scope.counter(&catalogue::SNAPSHOT_BYTES)),
            duration: scope.each("phase", |scope| scope.histogram(&catalogue::SNAPSHOT_DURATION)),
            failures: scope.each("phase", |scope| scope.counter(&catalogue::SNAPSHOT_FAILURES)),
        }
    }
}

impl NodeMetrics {
    /// Adds bytes of a snapshot that were sent or received.
    pub fn snapshot_bytes(&self, direction: Direction, bytes: u64) {
        self.inner.snapshots.bytes.of(direction).increment(bytes);
    }

    /// Records the time that a snapshot spent in a phase.
    pub fn snapshot_took(&self, phase: SnapshotPhase, took: Duration) {
        self.inner.snapshots.duration.of(phase).record(took);
    }

    /// Counts a snapshot that failed in a phase.
    pub fn snapshot_failed(&self, phase: SnapshotPhase) {
        self.inner.snapshots.failures.of(phase).increment(1);
    }
}
