//! Leadership transfer (thesis §3.10): to a member that an operator names, or to the best one when
//! this node is about to stop or was removed.
//!
//! First the target catches up, while proposals go on. When it lacks few entries the leader takes
//! no more proposals, so that the log stands still. When the target holds all entries and all are
//! committed, it is told to campaign at once ([`TimeoutNow`]). Its campaign skips the pre-vote, and
//! voters grant it although they hear a leader.
//!
//! **Invariant:** a transfer takes a bounded time. A target that is slow or gone makes proposals
//! wait for at most the longest election timeout; then the leader goes on as before.
//!
//! **Invariant:** a leader that told a target to campaign never trusts its lease again in that
//! term: the message may arrive late.

use super::{
    effect::Effect,
    leadership::LeadershipTransfer,
    observation::{Observation, StepDown},
    state::{Replica, Role},
};
use crate::{
    ids::{EntryId, Index, Moment, NodeId},
    message::{Body, TimeoutNow},
    refused::TransferRefused,
};
use alloc::vec::Vec;
use core::cmp::Reverse;

impl Replica {
    /// The most entries that a target may lack when proposals begin to wait for it: about as many
    /// as a few round trips bring.
    const HOLD_LAG_MAX: u64 = 1024;
    /// The time that a target has to get that far, in longest election timeouts.
    const CATCH_UP_TIMEOUTS: u32 = 10;

    /// Begins a leadership transfer to the named member, or to the voter with the longest log among
    /// those heard lately. Returns the target; if that is this node, there is nothing to do.
    ///
    /// # Errors
    /// If it can't begin.
    pub fn transfer_leadership(
        &mut self,
        now: Moment,
        to: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) -> Result<NodeId, TransferRefused> {
        let Role::Leader(leadership) = &self.role else { return Err(TransferRefused::NotLeader) };
        if to == Some(self.id) {
            return Ok(self.id);
        }
        if let Some(under_way) = &leadership.transfer {
            let to_another = to.is_some_and(|to| to != under_way.to);
            return if to_another { Err(TransferRefused::Pending { to: under_way.to }) } else { Ok(under_way.to) };
        }
        if let Some(id) = to.filter(|to| !self.membership().incoming().contains(to)) {
            return Err(TransferRefused::NotVoter { id });
        }
        let witness = self.membership().witness();
        if let Some(id) = to.filter(|_| to == witness) {
            return Err(TransferRefused::Witness { id });
        }
        let may_lead = |id: &NodeId| *id != self.id && Some(*id) != witness;
        let voters = self.membership().incoming().iter().copied().filter(may_lead);
        // A leader that was just elected has heard no peer yet: those that are up will answer soon.
        let is_young = now.since(leadership.since) < self.settings.election_timeout_max;
        let is_there = |id: &NodeId| is_young || self.lag_of(now, *id).is_some();
        let candidates = voters.filter(|id| to.is_none_or(|to| *id == to) && is_there(id));
        let best = candidates.max_by_key(|id| (leadership.matched(*id), Reverse(*id)));
        let to = best.ok_or(TransferRefused::Unreachable)?;
        if let Role::Leader(leadership) = &mut self.role {
            leadership.transfer = Some(LeadershipTransfer { to, began: now, holding_since: None, is_told: false });
        }
        out.push(Effect::Observed(Observation::TransferBegan { to }));
        self.continue_transfer(now, out);
        Ok(to)
    }

    /// The target of the transfer in progress.
    #[must_use]
    pub fn transfer_target(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leadership) => leadership.transfer.as_ref().map(|transfer| transfer.to),
            _ => None,
        }
    }

    /// Whether proposals have to wait, because leadership is about to move.
    /// [`Effect::LeadershipTransferEnded`] tells when they may proceed, if this node still leads
    /// then.
    #[must_use]
    pub fn holds_proposals(&self) -> bool {
        match &self.role {
            Role::Leader(leadership) => {
                leadership.transfer.as_ref().is_some_and(|transfer| transfer.holding_since.is_some())
            }
            _ => false,
        }
    }

    /// Gives up a transfer that takes too long.
    pub(super) fn watch_transfer(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &self.role else { return };
        let Some(transfer) = &leadership.transfer else { return };
        let patience = self.settings.election_timeout_max;
        let is_late = match transfer.holding_since {
            Some(since) => now.since(since) >= patience,
            None => now.since(transfer.began) >= patience * Self::CATCH_UP_TIMEOUTS,
        };
        if is_late {
            self.give_up_transfer(out);
        }
    }

    /// Advances the transfer, as the target may have caught up.
    pub(super) fn continue_transfer(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        let Some(transfer) = &mut leadership.transfer else { return };
        let (last, matched) = (self.log.last(), leadership.matched.get(&transfer.to).copied().unwrap_or_default());
        if transfer.holding_since.is_none() && last.index.since(matched) <= Self::HOLD_LAG_MAX {
            transfer.holding_since = Some(now);
        }
        let is_there = matched == last.index && self.commit == last.index;
        if transfer.holding_since.is_some() && !transfer.is_told && is_there {
            transfer.is_told = true;
            let to = transfer.to;
            leadership.reads.lease.give_up();
            let told = self.outgoing(to, Body::TimeoutNow(TimeoutNow { last }));
            out.push(Effect::Send(told));
        }
    }

    fn give_up_transfer(&mut self, out: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        if let Some(LeadershipTransfer { to, .. }) = leadership.transfer.take() {
            out.push(Effect::LeadershipTransferEnded { to });
            if self.has_left() {
                self.step_down(StepDown::Removed, out);
            }
        }
    }

    /// A leader that is no longer a voter, for good: it transfers leadership first, if it can.
    pub(super) fn depart(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.transfer_target().is_none() && self.transfer_leadership(now, None, out).is_err() {
            self.step_down(StepDown::Removed, out);
        }
    }

    /// Whether a committed configuration is in force in which this node does not vote.
    pub(super) fn has_left(&self) -> bool {
        self.is_settled() && self.membership_index() > Index(0) && !self.membership().is_voter(self.id)
    }

    /// The leader tells this node to campaign at once. It does so only if it holds the leader's
    /// whole log, durably.
    pub(super) fn told_to_campaign(&mut self, now: Moment, from: NodeId, last: EntryId, out: &mut Vec<Effect>) {
        let is_whole = self.log.last() == last && self.writes.durable() == last.index;
        if self.leader == Some(from) && is_whole && self.can_lead(now) {
            self.step_down(StepDown::ToldToCampaign, out);
            self.stand_for_election(now, true, out);
        }
    }
}
