//! Building, transfer and restore of snapshots.

use super::NodeMetrics;
use crate::labels::{Direction, SnapshotPhase};
use std::time::Duration;

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
