//! Indexes of the log: written, durable, committed, applied, compacted.

use super::{NodeMetrics, float};

impl NodeMetrics {
    /// Sets the first and the last index of the log.
    pub fn log_spans(&self, first_index: u64, last_index: u64) {
        self.inner.log.first.set(float(first_index));
        self.inner.log.last.set(float(last_index));
    }

    /// Sets the index of the last entry that is durable on this node.
    pub fn set_durable_index(&self, index: u64) {
        self.inner.log.durable.set(float(index));
    }

    /// Sets the index of the last entry that this node knows to be committed.
    pub fn set_commit_index(&self, index: u64) {
        self.inner.log.commit.set(float(index));
    }

    /// Sets the index of the last entry that the state machine has applied.
    pub fn set_applied_index(&self, index: u64) {
        self.inner.log.applied.set(float(index));
    }

    /// Sets the index of the last entry that the latest snapshot covers.
    pub fn set_snapshot_index(&self, index: u64) {
        self.inner.log.snapshot.set(float(index));
    }
}
