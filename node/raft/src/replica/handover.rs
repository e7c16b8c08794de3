//! How leadership is handed over on purpose (thesis §3.10): to a member that an operator names, or to the best one when this
//! node is to stop or was removed.
//!
//! First the target catches up, while everything goes on. When it is nearly there the leader takes no more proposals, so that
//! the log stands still; when the target has all of it and all of it is committed, it is told to campaign at once
//! ([`TimeoutNow`]). Its campaign asks for no pre-vote, and voters grant it although they hear a leader.
//!
//! **Invariant:** it takes a bounded time. A target that is slow or gone costs at most the longest election timeout during
//! which proposals wait; then everything is as before.
//!
//! **Invariant:** a leader that told somebody to campaign never trusts its lease again in that term: the word may arrive late.

use super::{Effect, Replica, Role};
use crate::{
    ids::{EntryId, Index, Moment, NodeId},
    message::{Body, TimeoutNow},
    mutants::{Mutant, live},
};
use alloc::vec::Vec;
use core::{cmp::Reverse, fmt};

/// Leadership on its way to another node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Handover {
    /// To whom.
    pub to: NodeId,
    began: Moment,
    /// Since when no proposals are taken.
    holding_since: Option<Moment>,
    /// Whether the target was told to campaign.
    is_told: bool,
}

/// Why leadership is not handed over. Nothing has happened, but for [`HandoverRefused::GivenUp`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HandoverRefused {
    /// This node does not lead: ask the leader.
    NotLeader,
    /// It is on its way to another already.
    Pending {
        /// To whom.
        to: NodeId,
    },
    /// It is no voter, and may not lead.
    NotVoter {
        /// Who.
        id: NodeId,
    },
    /// It is a witness, and never leads.
    Witness {
        /// Who.
        id: NodeId,
    },
    /// Nothing was heard of it, or of any voter, lately.
    Unreachable,
    /// It did not take over in time: this node leads as before. It may have been told to campaign, and do so when it hears of it.
    GivenUp {
        /// Who.
        to: NodeId,
    },
}

impl fmt::Display for HandoverRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader => write!(f, "this node does not lead; ask the leader"),
            Self::Pending { to } => write!(f, "leadership is on its way to node {to} already; try again"),
            Self::NotVoter { id } => write!(f, "node {id} does not vote and can't lead; promote it first"),
            Self::Witness { id } => write!(f, "node {id} is a witness and can't lead; name another"),
            Self::Unreachable => write!(f, "nothing was heard of that node lately; see that it runs and is reachable"),
            Self::GivenUp { to } => {
                write!(
                    f,
                    "node {to} did not take over in time, and the leader is unchanged; node {to} may still take over if the \
                     leader's word reaches it late; look at the status, and try again"
                )
            }
        }
    }
}

impl Replica {
    /// How many entries a target may lack when proposals begin to wait for it: as many as a few round trips bring.
    const HOLD_LAG_MAX: u64 = 1024;
    /// How often the longest election timeout a target may take to get that far.
    const CATCH_UP_TIMEOUTS: u32 = 10;

    /// Hands leadership over, to the member named, or to the voter that is heard and has the longest log. Gives whom it is going
    /// to; if that is this node, nothing is to be done.
    ///
    /// # Errors
    /// If it can't be begun.
    pub fn hand_over(
        &mut self,
        now: Moment,
        to: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) -> Result<NodeId, HandoverRefused> {
        let Role::Leader(leadership) = &self.role else { return Err(HandoverRefused::NotLeader) };
        if to == Some(self.id) {
            return Ok(self.id);
        }
        if let Some(under_way) = &leadership.handover {
            let to_another = to.is_some_and(|to| to != under_way.to);
            return if to_another { Err(HandoverRefused::Pending { to: under_way.to }) } else { Ok(under_way.to) };
        }
        if let Some(id) = to.filter(|to| !self.membership().incoming().contains(to)) {
            return Err(HandoverRefused::NotVoter { id });
        }
        let witness = self.membership().witness();
        if let Some(id) = to.filter(|_| to == witness) {
            return Err(HandoverRefused::Witness { id });
        }
        let may_lead = |id: &NodeId| *id != self.id && Some(*id) != witness;
        let voters = self.membership().incoming().iter().copied().filter(may_lead);
        // Who was just elected has heard nobody since: whoever is there will answer soon.
        let is_young = leadership.is_young(now, self);
        let is_there = |id: &NodeId| is_young || self.lag_of(now, *id).is_some();
        let candidates = voters.filter(|id| to.is_none_or(|to| *id == to) && is_there(id));
        let best = candidates.max_by_key(|id| (leadership.matched(*id), Reverse(*id)));
        let to = best.ok_or(HandoverRefused::Unreachable)?;
        if let Role::Leader(leadership) = &mut self.role {
            leadership.handover = Some(Handover { to, began: now, holding_since: None, is_told: false });
        }
        self.continue_handover(now, out);
        Ok(to)
    }

    /// To whom leadership is on its way.
    #[must_use]
    pub fn handing_over_to(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leadership) => leadership.handover.as_ref().map(|handover| handover.to),
            _ => None,
        }
    }

    /// Whether proposals have to wait, because leadership is about to move. [`Effect::HandoverEnded`] says when they need not
    /// any more, if this node still leads then.
    #[must_use]
    pub fn holds_proposals(&self) -> bool {
        match &self.role {
            Role::Leader(leadership) => {
                leadership.handover.as_ref().is_some_and(|handover| handover.holding_since.is_some())
            }
            _ => false,
        }
    }

    /// Time passed: what must not last for ever ends. To be called about once a heartbeat interval.
    pub fn tick(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.look_at_applying(now);
        self.tell_holdings(now, out);
        let Role::Leader(leadership) = &self.role else { return };
        let Some(handover) = &leadership.handover else { return };
        let patience = self.settings.election_timeout_max;
        let is_late = match handover.holding_since {
            Some(since) => now.since(since) >= patience,
            None => now.since(handover.began) >= patience * Self::CATCH_UP_TIMEOUTS,
        };
        if is_late && !live(Mutant::HandoverNeverGivenUp) {
            self.give_up_handover(out);
        }
    }

    /// The target may have got further.
    pub(super) fn continue_handover(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        let Some(handover) = &mut leadership.handover else { return };
        let (last, matched) = (self.log.last(), leadership.matched.get(&handover.to).copied().unwrap_or_default());
        if handover.holding_since.is_none() && last.index.since(matched) <= Self::HOLD_LAG_MAX {
            handover.holding_since = Some(now);
        }
        let is_there = matched == last.index && self.commit == last.index;
        if handover.holding_since.is_some() && !handover.is_told && (is_there || live(Mutant::ToldTooEarly)) {
            handover.is_told = true;
            let to = handover.to;
            leadership.reads.lease.give_up();
            let told = self.outgoing(to, Body::TimeoutNow(TimeoutNow { last }));
            out.push(Effect::Send(told));
        }
    }

    fn give_up_handover(&mut self, out: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        if let Some(Handover { to, .. }) = leadership.handover.take() {
            out.push(Effect::HandoverEnded { to });
            if self.has_left() {
                self.step_down(out);
            }
        }
    }

    /// A leader that is no voter any more, for good: it hands over first, if it can.
    pub(super) fn depart(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.handing_over_to().is_none() && self.hand_over(now, None, out).is_err() {
            self.step_down(out);
        }
    }

    /// Whether a committed configuration is in force in which this node does not vote.
    pub(super) fn has_left(&self) -> bool {
        self.is_settled() && self.membership_index() > Index(0) && !self.membership().is_voter(self.id)
    }

    /// The leader tells this node to campaign at once. It must have all that the leader has, and have it durably.
    pub(super) fn told_to_campaign(&mut self, now: Moment, from: NodeId, last: EntryId, out: &mut Vec<Effect>) {
        let is_whole = self.log.last() == last && self.writes.durable() == last.index;
        let may_lead = self.faults.is_empty() && !self.is_full && !self.is_stalled(now) && !self.is_witness();
        if self.leader == Some(from) && is_whole && may_lead && self.membership().is_voter(self.id) {
            self.step_down(out);
            self.stand_for_election(now, true, out);
        }
    }
}
