//! What a leader does of its own accord for its operator: it lets learners vote that have kept up for long enough, and hands
//! leadership to a node that is preferred.
//!
//! Neither decides anything about safety or liveness: both only ask for what an operator might ask for, and take no for an
//! answer. Elections know nothing of preferences, so whoever can be elected is.

use super::Consensus;
use actix::Context;
use quorate_raft::{Change, NodeId};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// What a leader remembers for it.
pub(super) struct Automation {
    /// Preferred leaders, best first.
    preferred: Vec<NodeId>,
    /// Since when this node leads.
    leads_since: Option<Instant>,
    /// Since when each learner has kept up.
    keeps_up_since: BTreeMap<NodeId, Instant>,
    /// When it may try again to hand over, and how long it waits then if that comes to nothing.
    not_before: Option<(Instant, Duration)>,
}

/// A leadership this young stays where it is: the cluster has just been through an election.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
/// The pause after a handover to a preferred node was tried; it doubles with every further one.
const RETRY_MIN: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(600);

impl Automation {
    pub(super) fn new(preferred: Vec<NodeId>) -> Self {
        Self { preferred, leads_since: None, keeps_up_since: BTreeMap::new(), not_before: None }
    }
}

impl Consensus {
    /// To be called about once a heartbeat interval.
    pub(super) fn look_after_automation(&mut self, ctx: &mut Context<Self>) {
        if !self.replica.is_leader() || self.stopping.is_stopping() {
            self.automation.leads_since = None;
            self.automation.keeps_up_since.clear();
            return;
        }
        let now = Instant::now();
        let since = *self.automation.leads_since.get_or_insert(now);
        let is_idle = self.replica.is_settled() && self.replica.handing_over_to().is_none() && !self.has_change();
        if let Some(learner) = self.stable_learner(now).filter(|_| is_idle) {
            return self.promote(learner, ctx);
        }
        if is_idle && now.duration_since(since) >= SETTLES_WITHIN {
            self.hand_to_preferred(now, ctx);
        }
    }

    /// A learner that has kept up for long enough, if any is to be promoted by itself.
    fn stable_learner(&mut self, now: Instant) -> Option<NodeId> {
        let (after, at) = (self.node.timing.promote_after, self.node.clock.now());
        let learners = self.replica.membership().learners();
        let keeps_up: Vec<_> = learners.iter().copied().filter(|id| self.replica.keeps_up(at, *id)).collect();
        let known = &mut self.automation.keeps_up_since;
        known.retain(|id, _| keeps_up.contains(id));
        for id in keeps_up {
            known.entry(id).or_insert(now);
        }
        let is_stable = |since: &Instant| now.duration_since(*since) >= after;
        known.iter().find(|(_, since)| !after.is_zero() && is_stable(since)).map(|(id, _)| *id)
    }

    fn promote(&mut self, learner: NodeId, ctx: &mut Context<Self>) {
        let (now, change) = (self.node.clock.now(), Change::promote(learner));
        self.automation.keeps_up_since.remove(&learner);
        let mut outcome = Ok(self.replica.membership_index());
        self.rule(ctx, |replica, out| outcome = replica.change(now, &change, out));
        match outcome {
            Ok(index) => tracing::info!(%learner, %index, "a learner that kept up votes from now on"),
            Err(why) => tracing::warn!(%learner, "a learner that kept up does not vote yet: {why}"),
        }
    }

    /// Hands over to the first of the preferred voters that is there and has nearly everything, unless that is this node.
    fn hand_to_preferred(&mut self, now: Instant, ctx: &mut Context<Self>) {
        if self.automation.not_before.is_some_and(|(at, _)| now < at) {
            return;
        }
        let at = self.node.clock.now();
        let this = self.replica.id();
        let better = self.automation.preferred.iter().copied().take_while(|id| *id != this);
        let (voters, witness) = (self.replica.membership().incoming(), self.replica.membership().witness());
        let may_lead = |id: &NodeId| voters.contains(id) && witness != Some(*id);
        let Some(to) = better.filter(may_lead).find(|id| self.replica.keeps_up(at, *id)) else {
            return;
        };
        let pause = self.automation.not_before.map_or(RETRY_MIN, |(_, pause)| pause);
        self.automation.not_before = Some((now + pause, (pause * 2).min(RETRY_MAX)));
        tracing::info!(%to, "leadership goes to a node that is preferred");
        self.rule(ctx, |replica, out| {
            // If it can't be now, it is tried again later.
            let _ = replica.hand_over(at, Some(to), out);
        });
    }
}
