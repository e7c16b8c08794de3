//! The disk of the durable log.

use super::{Each, NodeMetrics, Scope, float};
use crate::{
    catalogue,
    labels::{Repair, StorageOp},
};
use metrics::{Counter, Gauge, Histogram};
use std::time::Duration;

pub(super) struct Storage {
    fsync: Histogram,
    written: Counter,
    errors: Each<StorageOp, Counter>,
    log_bytes: Gauge,
    full: Gauge,
    faulty: Gauge,
    repairs: Each<Repair, Counter>,
}

impl Storage {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            fsync: scope.histogram(&catalogue::FSYNC_DURATION),
            written: scope.counter(&catalogue::WRITTEN),
            errors: scope.each("op", |scope| scope.counter(&catalogue::STORAGE_ERRORS)),
            log_bytes: scope.gauge(&catalogue::LOG_BYTES),
            full: scope.gauge(&catalogue::STORAGE_FULL),
            faulty: scope.gauge(&catalogue::FAULTY),
            repairs: scope.each("result", |scope| scope.counter(&catalogue::REPAIRS)),
        }
    }
}

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

    /// Sets the number of entries whose payload is lost.
    pub fn faulty_entries(&self, count: u64) {
        self.inner.storage.faulty.set(float(count));
    }

    /// Counts faulty entries that were repaired or discarded.
    pub fn repaired(&self, how: Repair, entries: u64) {
        self.inner.storage.repairs.of(how).increment(entries);
    }
}
