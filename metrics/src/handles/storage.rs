//! The disk of the durable log.

use super::{NodeMetrics, float};
use crate::labels::{Repair, StorageOp};
use std::time::Duration;

impl NodeMetrics {
    /// Records the duration of one `fdatasync` of the log.
    pub fn fsync_took(&self, took: Duration) {
        self.inner.storage.fsync.record(took);
    }

    /// Adds bytes that were written to the log.
    pub fn written(&self, bytes: u64) {
        self.inner.storage.written.increment(bytes);
    }

    /// Counts a failed operation: a [`StorageOp`] or its text; other texts count as `other`.
    pub fn storage_error(&self, op: impl Into<StorageOp>) {
        self.inner.storage.errors.of(op.into()).increment(1);
    }

    /// Sets the disk space used by the log, in bytes.
    pub fn log_bytes(&self, bytes: u64) {
        self.inner.storage.log_bytes.set(float(bytes));
    }

    /// Sets whether the disk has no space for entries.
    pub fn storage_full(&self, is_full: bool) {
        self.inner.storage.full.set(f64::from(u8::from(is_full)));
    }

    /// Sets whether the state machine has halted at an entry.
    pub fn halted(&self, is_halted: bool) {
        self.inner.storage.halted.set(f64::from(u8::from(is_halted)));
    }

    /// Sets the number of full copies that differ from the others.
    pub fn differing_copies(&self, copies: u64) {
        self.inner.storage.differing_copies.set(float(copies));
    }

    /// Counts a window of the log in which full copies differ.
    pub fn copies_differed(&self) {
        self.inner.storage.copies_differed.increment(1);
    }

    /// Sets the number of entries whose payload is lost.
    pub fn faulty_entries(&self, count: u64) {
        self.inner.storage.faulty.set(float(count));
    }

    /// Counts faulty entries that were repaired or discarded.
    pub fn repaired(&self, how: Repair, entries: u64) {
        self.inner.storage.repairs.of(how).increment(entries);
    }
}
