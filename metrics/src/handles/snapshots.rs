//! Snapshots on their way.

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
    /// So many bytes of a snapshot were sent or received.
    pub fn snapshot_bytes(&self, direction: Direction, bytes: u64) {
        self.inner.snapshots.bytes.of(direction).increment(bytes);
    }

    /// A snapshot spent this long in a phase.
    pub fn snapshot_took(&self, phase: SnapshotPhase, took: Duration) {
        self.inner.snapshots.duration.of(phase).record(took);
    }

    /// A phase failed on a snapshot.
    pub fn snapshot_failed(&self, phase: SnapshotPhase) {
        self.inner.snapshots.failures.of(phase).increment(1);
    }
}
