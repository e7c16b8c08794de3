//! Reads at a leader: it confirms that it still leads (thesis §6.4), or knows it by
//! its lease (§6.4.1).

use super::{
    effect::Effect,
    state::{Replica, Role},
};
use crate::{
    ids::{Moment, NodeId},
    lease::Held,
    message::HeartbeatReply,
    reads::ReadToken,
};
use alloc::vec::Vec;
use core::time::Duration;

impl Replica {
    /// Requests a linearizable read with id `token`, answered by [`Effect::ReadsReady`] or
    /// [`Effect::ReadsFailed`] as soon as a quorum has confirmed that this node led after `now`.
    pub fn read(&mut self, now: Moment, token: ReadToken, out: &mut Vec<Effect>) {
        match &mut self.role {
            Role::Leader(leadership) => {
                leadership.reads.ask(token);
                self.open_read_round(Some(now), out);
            }
            _ => out.push(Effect::ReadsFailed { tokens: alloc::vec![token] }),
        }
    }

    /// The same for a read that accepts the leader's lease. Without a lease the read waits for a
    /// round, like any other, and that round begins one. A lease in use is renewed before it ends,
    /// so that a leader with many such reads always has one.
    ///
    /// `now` must be read from the clock after the read was requested.
    pub fn read_by_lease(&mut self, now: Moment, token: ReadToken, out: &mut Vec<Effect>) {
        let Some(left) = self.lease_left(now) else { return self.read(now, token, out) };
        out.push(Effect::ReadsReady { index: self.commit, tokens: alloc::vec![token] });
        if self.lease().is_some_and(|lease| left < lease.lasts / 2) {
            self.renew_lease(now, out);
        }
    }

    /// Opens a round that renews the lease, though no read waits for it, unless one is in progress.
    pub fn renew_lease(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if let Role::Leader(leadership) = &mut self.role {
            leadership.reads.renew();
            self.open_read_round(Some(now), out);
        }
    }

    /// Whether this node leads, and a round is in progress: reads that ask now wait for the next one.
    #[must_use]
    pub fn is_confirming(&self) -> bool {
        matches!(&self.role, Role::Leader(leadership) if leadership.reads.is_open())
    }

    /// The time left of this node's lease; `None` if it has none.
    #[must_use]
    pub fn lease_left(&self, now: Moment) -> Option<Duration> {
        self.lease().and_then(|lease| lease.left(now))
    }

    /// This node's lease, which may be over; `None` if it has none, or has committed no entry of its
    /// term yet.
    #[must_use]
    pub fn lease(&self) -> Option<Held> {
        let Role::Leader(leadership) = &self.role else { return None };
        leadership.reads.lease.held().filter(|_| self.commit >= leadership.first)
    }

    /// Ends the lease: another configuration counts from now on.
    pub(super) fn end_lease(&mut self) {
        if let Role::Leader(leadership) = &mut self.role {
            leadership.reads.end_lease();
        }
    }

    /// A peer answered a heartbeat.
    pub(super) fn heartbeat_answered(
        &mut self,
        now: Moment,
        from: NodeId,
        reply: HeartbeatReply,
        out: &mut Vec<Effect>,
    ) {
        let Role::Leader(leadership) = &mut self.role else { return };
        leadership.heard.insert(from, now);
        leadership.reads.answered(from, reply.round, reply.promise);
        self.confirm_reads(Some(now), out);
    }

    /// Opens a read round if reads wait and it is allowed: not before this term's first commit,
    /// for until then the leader does not know the commit index of its predecessors (thesis
    /// §6.4, step 1).
    pub(super) fn open_read_round(&mut self, now: Option<Moment>, out: &mut Vec<Effect>) {
        let commit = self.commit;
        let Role::Leader(leadership) = &mut self.role else { return };
        if commit < leadership.first {
            return;
        }
        if let Some(round) = leadership.reads.open_round(commit, now) {
            out.push(Effect::HeartbeatNow { round });
            self.confirm_reads(now, out);
        }
    }

    pub(super) fn confirm_reads(&mut self, now: Option<Moment>, out: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        let (own, drift) = (self.settings.promise(), self.settings.clock_drift_max);
        if let Some((index, tokens)) = leadership.reads.confirmed(self.id, self.memberships.current(), own, drift) {
            if !tokens.is_empty() {
                out.push(Effect::ReadsReady { index, tokens });
            }
            self.open_read_round(now, out);
        }
    }
}
