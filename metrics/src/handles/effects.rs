//! Effects of a service, performed by the leader.

use super::{NodeMetrics, float};

impl NodeMetrics {
    /// Sets the number of effects that are not completed, while the node leads.
    pub fn effects_pending(&self, count: u64) {
        self.inner.effects.pending.set(float(count));
    }

    /// Counts an effect that the handler performed.
    pub fn effect_performed(&self) {
        self.inner.effects.performed.increment(1);
    }

    /// Counts a call of the handler that failed.
    pub fn effect_retried(&self) {
        self.inner.effects.retried.increment(1);
    }
}
