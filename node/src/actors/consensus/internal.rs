//! Internal entries on their way into the log: [`InternalEntries`] decides when, and
//! [`Versions`](versions::Versions) whether the version of the service rises; here the entries reach
//! the rules.
//!
//! [`InternalEntries`]: crate::decisions::internal_entries::InternalEntries

use super::Consensus;
use crate::{
    decisions::{internal_entries::InternalEntry, versions},
    events::What,
    service::internal::Internal,
};
use actix::Context;
use quorate_raft::{Kind, Role, record::OVERHEAD_BYTES, tick::TICK_BYTES};

impl Consensus {
    /// The state machine has reached this version of its service's commands. Vote requests state it
    /// from here on: no node leads whose entries a quorum could not apply.
    pub(super) fn schema_version_reached(&mut self, version: Option<u32>) {
        if self.ticking.versions.reached(version)
            && let Some(version) = version
        {
            self.replica.machine_writes(version);
            self.status.schema_version_reached(version);
        }
    }

    /// Offers the entry that raises the version, if it is time.
    pub(super) fn raise_schema_version(&mut self) {
        let Role::Leader(leadership) = self.replica.role() else { return };
        if !self.ticking.versions.may_rise(self.replica.machine().newest) {
            return;
        }
        let view = versions::View {
            is_leader: true,
            term: self.replica.term(),
            has_applied_first: self.replica.applied_index() >= leadership.first,
            of_all: self.status.applied_by_all(),
        };
        let Some(version) = self.ticking.versions.raise(&view) else { return };
        self.tell(What::VersionRaised { version });
        if let Ok(payload) = Internal::Version(version).encode() {
            self.ticking.internal.offered(InternalEntry { term: view.term, payload: payload.into() });
        }
    }

    /// Appends the internal entries that may be appended now, behind a tick if time has passed: the
    /// signal of a result may set a timer, which counts from the time of its entry.
    pub(super) fn append_internal(&mut self, ctx: &mut Context<Self>) {
        // Before a look at the clock: this runs after every rule, and mostly nothing waits.
        if self.ticking.internal.is_empty() {
            return;
        }
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
