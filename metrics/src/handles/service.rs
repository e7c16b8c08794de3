//! Timers and watches of a service.

use super::{NodeMetrics, float};

impl NodeMetrics {
    /// Sets the number of timers that are set and did not fire yet.
    pub fn timers_pending(&self, count: u64) {
        self.inner.service.timers_pending.set(float(count));
    }

    /// Counts timers that fired.
    pub fn timers_fired(&self, count: u64) {
        self.inner.service.timers_fired.increment(count);
    }

    /// A watch was opened; [`NodeMetrics::watch_closed`] once it is dropped.
    pub fn watch_opened(&self) {
        self.inner.service.watches.increment(1);
    }

    /// A watch was dropped.
    pub fn watch_closed(&self) {
        self.inner.service.watches.decrement(1);
    }

    /// Counts events that a watch returned.
    pub fn watch_events(&self, count: u64) {
        self.inner.service.watch_events.increment(count);
    }
}
