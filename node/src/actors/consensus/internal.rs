//! Internal entries on their way into the log: [`InternalEntries`] decides; here they reach the
//! rules.
//!
//! [`InternalEntries`]: crate::decisions::internal_entries::InternalEntries

use super::Consensus;
use actix::Context;
use quorate_raft::{Kind, record::OVERHEAD_BYTES, tick::TICK_BYTES};

impl Consensus {
    /// Appends the internal entries that may be appended now, behind a tick if time has passed: the
    /// signal of a result may set a timer, which counts from the time of its entry.
    pub(super) fn append_internal(&mut self, ctx: &mut Context<Self>) {
        let (now, mut view) = (self.node.clock.now(), self.ticks_view());
        view.holds_proposals |= self.ticking.ticks.hold_commands();
        let payloads = self.ticking.internal.next(&view, self.node.limits.max_batch_bytes);
        if payloads.is_empty() {
            return;
        }
        let bytes: usize = payloads.iter().map(|payload| OVERHEAD_BYTES + payload.len()).sum();
        let (tick, _) = self.ticking.before_batch(&view, now);
        let Some(mut batch) = self.replica.next_batch(OVERHEAD_BYTES + TICK_BYTES + bytes) else { return };
        if let Some(tick) = tick {
            batch.push(Kind::Tick, &tick.encode());
        }
        payloads.iter().for_each(|payload| batch.push(Kind::Internal, payload));
        if let Some(batch) = batch.finish() {
            self.rule(ctx, |replica, out| replica.propose(now, batch, out));
        }
    }
}
