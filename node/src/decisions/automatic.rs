//! Automatic promotion and transfer: a leader lets learners vote that have kept up for long enough,
//! and transfers leadership to a preferred leader, or away from itself if its state machine halted.
//!
//! A leader can't see that a voter applied the entry at which it halted itself. Its evidence is
//! negative: the voter has nearly the whole log, has stated facts about itself, and no halt among
//! them, `HALT_SETTLES_WITHIN` after the leader halted. A voter that lags, and halts once it
//! leads, states so and transfers on; each voter halts once at an entry, so transfers end. Where
//! all voters halted the leader stays.
//!
//! Safety and liveness do not rest on this module: it asks for what an operator might ask for, and
//! a refusal is final until the next attempt. Elections know no preferences, so every voter that
//! can be elected may lead.

use quorate_raft::{Moment, NodeId};
use std::{collections::BTreeMap, time::Duration};

/// The memory of a leader for automatic steps.
pub struct Automation {
    /// Preferred leaders, best first.
    preferred: Vec<NodeId>,
    leads_since: Option<Moment>,
    /// Since when this node leads though its state machine halted.
    halted_since: Option<Moment>,
    /// For each learner that keeps up, since when it does.
    keeps_up_since: BTreeMap<NodeId, Moment>,
    /// The earliest time of the next transfer to a preferred leader, and the pause after it.
    not_before: Option<(Moment, Duration)>,
    /// The last transfer because of a halt.
    last_of_halt: Option<(NodeId, Moment)>,
}

/// A leader's configuration, and the progress of its members.
pub struct View<'a> {
    pub this: NodeId,
    pub voters: &'a [NodeId],
    pub learners: &'a [NodeId],
    pub witness: Option<NodeId>,
    /// The configuration is settled, and neither a change nor a transfer is under way.
    pub is_idle: bool,
    /// Whether a member answers and has nearly the whole log.
    pub keeps_up: &'a dyn Fn(NodeId) -> bool,
    /// Whether this node's state machine halted.
    pub is_halted: bool,
    /// Whether another node stated that its state machine halted, or has stated nothing yet.
    pub may_be_halted: &'a dyn Fn(NodeId) -> bool,
}

impl View<'_> {
    /// Whether this voter keeps up, is no witness, and has not halted as far as it states.
    fn may_lead(&self, voter: NodeId) -> bool {
        self.witness != Some(voter) && (self.keeps_up)(voter) && !(self.may_be_halted)(voter)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Let this learner vote.
    Promote(NodeId),
    /// Transfer leadership to this voter.
    Transfer(NodeId),
}

/// No transfer happens earlier in a leadership: the cluster has just been through an election.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
/// No transfer because of a halt happens earlier: voters that have the entry apply it meanwhile, and
/// state whether they halted too.
const HALT_SETTLES_WITHIN: Duration = Duration::from_secs(1);
/// The pause before another voter is tried, after a transfer because of a halt; the same one is
/// tried again after `RETRY_MIN`. Neither grows: the leader takes no writes meanwhile.
const HALT_RETRY: Duration = Duration::from_secs(2);
/// The pause after a transfer to a preferred leader was tried; it doubles with every further one.
const RETRY_MIN: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(600);

impl Automation {
    pub fn new(preferred: Vec<NodeId>) -> Self {
        Self {
            preferred,
            leads_since: None,
            halted_since: None,
            keeps_up_since: BTreeMap::new(),
            not_before: None,
            last_of_halt: None,
        }
    }

    /// This node does not lead, or is about to stop. The pauses between transfers stay.
    pub fn reset(&mut self) {
        self.leads_since = None;
        self.halted_since = None;
        self.keeps_up_since.clear();
    }

    /// The next step of a leader, if one is due. To be asked about once a heartbeat interval.
    /// Learners that keep up for `promote_after` are promoted; zero promotes none.
    pub fn next(&mut self, now: Moment, promote_after: Duration, view: &View<'_>) -> Option<Step> {
        let leads_since = *self.leads_since.get_or_insert(now);
        let halted_since = view.is_halted.then(|| *self.halted_since.get_or_insert(now));
        let learner = self.stable_learner(now, promote_after, view);
        if !view.is_idle {
            return None;
        }
        if let Some(learner) = learner {
            self.keeps_up_since.remove(&learner);
            return Some(Step::Promote(learner));
        }
        let to = match halted_since {
            Some(since) => self.leave_halted(now, since, view),
            None => self.go_to_better(now, leads_since, view),
        };
        to.map(Step::Transfer)
    }

    /// The target of a leadership transfer for which the caller names none, if a voter may be
    /// halted: the rules choose by the log alone. None if no voter may be, or none is sound.
    pub fn successor(&self, view: &View<'_>) -> Option<NodeId> {
        let mut others = view.voters.iter().filter(|id| **id != view.this);
        others.any(|id| (view.may_be_halted)(*id)).then(|| self.sound_leader(view)).flatten()
    }

    /// The target of a transfer away from this node, which leads and is halted since then.
    fn leave_halted(&mut self, now: Moment, halted_since: Moment, view: &View<'_>) -> Option<NodeId> {
        if now.since(halted_since) < HALT_SETTLES_WITHIN {
            return None;
        }
        let to = self.sound_leader(view)?;
        let is_early = self.last_of_halt.is_some_and(|(last, at)| {
            let pause = if to == last { RETRY_MIN } else { HALT_RETRY };
            now.since(at) < pause
        });
        if is_early {
            return None;
        }
        self.last_of_halt = Some((to, now));
        Some(to)
    }

    /// The target of a transfer to a better leader than this node, which leads since then.
    fn go_to_better(&mut self, now: Moment, leads_since: Moment, view: &View<'_>) -> Option<NodeId> {
        if now.since(leads_since) < SETTLES_WITHIN || self.not_before.is_some_and(|(at, _)| now < at) {
            return None;
        }
        let to = self.better_leader(view)?;
        let pause = self.not_before.map_or(RETRY_MIN, |(_, pause)| pause);
        self.not_before = Some((now.plus(pause), (pause * 2).min(RETRY_MAX)));
        Some(to)
    }

    fn stable_learner(&mut self, now: Moment, promote_after: Duration, view: &View<'_>) -> Option<NodeId> {
        let keeps_up = |id: &NodeId| (view.keeps_up)(*id);
        let keeps_up: Vec<_> = view.learners.iter().copied().filter(keeps_up).collect();
        self.keeps_up_since.retain(|id, _| keeps_up.contains(id));
        for id in keeps_up {
            self.keeps_up_since.entry(id).or_insert(now);
        }
        let is_stable = |since: &Moment| !promote_after.is_zero() && now.since(*since) >= promote_after;
        self.keeps_up_since.iter().find(|(_, since)| is_stable(since)).map(|(id, _)| *id)
    }

    /// The first preferred voter that keeps up, unless this node is preferred to it.
    fn better_leader(&self, view: &View<'_>) -> Option<NodeId> {
        let better = self.preferred.iter().copied().take_while(|id| *id != view.this);
        better.filter(|id| view.voters.contains(id)).find(|id| view.may_lead(*id))
    }

    /// A voter that can take over from a leader that halted, the preferred ones first. After a
    /// transfer the next ones in that order come before its target: one that keeps up may be unable
    /// to lead, for example because its disk is full.
    fn sound_leader(&self, view: &View<'_>) -> Option<NodeId> {
        let mut order = Vec::with_capacity(view.voters.len());
        for id in self.preferred.iter().filter(|id| view.voters.contains(id)).chain(view.voters) {
            if !order.contains(id) {
                order.push(*id);
            }
        }
        let last = self.last_of_halt.and_then(|(last, _)| order.iter().position(|id| *id == last));
        let (tried, next) = order.split_at(last.map_or(0, |last| last + 1));
        next.iter().chain(tried).copied().find(|id| *id != view.this && view.may_lead(*id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_learner_votes_once_it_kept_up_for_long_enough_without_a_break() {
        let mut world = World::new(&[]);
        world.learners = vec![NodeId(4)];
        world.keeps_up = vec![NodeId(4)];
        assert_eq!(world.next(), None);
        world.now = world.now.plus(SECOND * 9);
        assert_eq!(world.next(), None);
        world.keeps_up.clear();
        assert_eq!(world.next(), None);
        world.keeps_up = vec![NodeId(4)];
        world.now = world.now.plus(SECOND);
        assert_eq!(world.next(), None, "the count begins anew");
        world.now = world.now.plus(SECOND * 10);
        assert_eq!(world.next(), Some(Step::Promote(NodeId(4))));
        assert_eq!(world.next(), None, "a refused promotion waits as long again");
        world.now = world.now.plus(SECOND * 10);
        assert_eq!(world.next(), Some(Step::Promote(NodeId(4))));
    }

    #[test]
    fn without_a_setting_no_learner_is_promoted() {
        let mut world = World::new(&[]);
        (world.learners, world.keeps_up, world.promote_after) = (vec![NodeId(4)], vec![NodeId(4)], Duration::ZERO);
        world.next();
        world.now = world.now.plus(SECOND * 1000);
        assert_eq!(world.next(), None);
    }

    #[test]
    fn nothing_is_begun_during_a_change_or_a_transfer() {
        let mut world = World::new(&[3]);
        (world.learners, world.keeps_up) = (vec![NodeId(4)], vec![NodeId(3), NodeId(4)]);
        world.is_idle = false;
        world.next();
        world.now = world.now.plus(SECOND * 10);
        assert_eq!(world.next(), None);
        world.is_idle = true;
        assert_eq!(world.next(), Some(Step::Promote(NodeId(4))), "the learner kept up meanwhile");
    }

    #[test]
    fn leadership_goes_to_the_best_preferred_voter_that_keeps_up() {
        let mut world = World::new(&[9, 3, 2, 1]);
        world.keeps_up = vec![NodeId(2), NodeId(9)];
        assert_eq!(world.next(), None);
        world.now = world.now.plus(SETTLES_WITHIN);
        assert_eq!(world.next(), Some(Step::Transfer(NodeId(2))), "9 is no voter, 3 does not keep up");
    }

    #[test]
    fn leadership_stays_where_no_better_leader_is_preferred() {
        let mut world = World::new(&[1, 2]);
        world.keeps_up = vec![NodeId(2)];
        world.next();
        world.now = world.now.plus(SETTLES_WITHIN);
        assert_eq!(world.next(), None);
        world = World::new(&[3]);
        (world.keeps_up, world.witness) = (vec![NodeId(3)], Some(NodeId(3)));
        world.next();
        world.now = world.now.plus(SETTLES_WITHIN);
        assert_eq!(world.next(), None, "a witness never leads");
    }

    #[test]
    fn a_leader_that_halted_transfers_to_a_voter_that_keeps_up_and_states_no_halt() {
        let mut world = World::new(&[]);
        (world.keeps_up, world.halted) = (vec![NodeId(2), NodeId(3)], vec![NodeId(1), NodeId(2)]);
        assert_eq!(world.next(), None, "the others may be about to halt");
        world.now = world.now.plus(HALT_SETTLES_WITHIN);
        assert_eq!(world.next(), Some(Step::Transfer(NodeId(3))));
        world.now = world.now.plus(RETRY_MIN / 2);
        assert_eq!(world.next(), None, "no transfer follows at once");
    }

    #[test]
    fn a_halt_does_not_wait_for_the_pause_between_transfers_to_preferred_leaders() {
        let mut world = World::new(&[2]);
        world.keeps_up = vec![NodeId(2)];
        world.next();
        while world.automation.not_before.is_none_or(|(_, pause)| pause < RETRY_MAX) {
            world.now = world.now.plus(SECOND);
            world.next();
        }
        world.halted = vec![NodeId(1)];
        assert_eq!(world.next(), None);
        world.now = world.now.plus(HALT_SETTLES_WITHIN);
        assert!(world.automation.not_before.is_some_and(|(at, _)| at > world.now.plus(RETRY_MIN)));
        assert_eq!(world.next(), Some(Step::Transfer(NodeId(2))));
    }

    #[test]
    fn transfers_because_of_a_halt_try_all_sound_voters_in_turn() {
        let mut world = World::new(&[5, 3]);
        world.voters = (1..=5).map(NodeId).collect();
        (world.keeps_up, world.halted) = ([2, 3, 5].map(NodeId).to_vec(), vec![NodeId(1)]);
        world.next();
        world.now = world.now.plus(HALT_SETTLES_WITHIN);
        for to in [5, 3, 2, 5, 3] {
            assert_eq!(world.next(), Some(Step::Transfer(NodeId(to))));
            world.now = world.now.plus(HALT_RETRY / 2);
            assert_eq!(world.next(), None, "no transfer follows at once");
            world.now = world.now.plus(HALT_RETRY / 2);
        }
        // The only one that is left is tried again, and the pause stays the same.
        world.keeps_up = vec![NodeId(3)];
        world.now = world.now.plus(RETRY_MIN - HALT_RETRY);
        for _ in 0..20 {
            assert_eq!(world.next(), Some(Step::Transfer(NodeId(3))));
            world.now = world.now.plus(RETRY_MIN - SECOND);
            assert_eq!(world.next(), None);
            world.now = world.now.plus(SECOND);
        }
        // The turns go on after the last target.
        world.keeps_up = [2, 5].map(NodeId).to_vec();
        assert_eq!(world.next(), Some(Step::Transfer(NodeId(2))));
    }

    #[test]
    fn a_successor_is_chosen_only_where_a_voter_may_be_halted() {
        let mut world = World::new(&[]);
        world.keeps_up = vec![NodeId(2), NodeId(3)];
        assert_eq!(world.successor(), None, "the rules know the longest log");
        world.halted = vec![NodeId(1)];
        assert_eq!(world.successor(), None, "it is no target");
        world.halted = vec![NodeId(2)];
        assert_eq!(world.successor(), Some(NodeId(3)));
        world.keeps_up = vec![NodeId(2)];
        assert_eq!(world.successor(), None, "none is sound");
    }

    #[test]
    fn the_time_to_settle_counts_from_the_halt_and_from_the_begin_of_the_leadership() {
        let mut world = World::new(&[]);
        world.keeps_up = vec![NodeId(2)];
        world.next();
        world.now = world.now.plus(SETTLES_WITHIN * 2);
        world.halted = vec![NodeId(1)];
        assert_eq!(world.next(), None);
        world.automation.reset();
        world.now = world.now.plus(HALT_SETTLES_WITHIN);
        assert_eq!(world.next(), None, "it leads again since now");
        world.now = world.now.plus(HALT_SETTLES_WITHIN);
        assert_eq!(world.next(), Some(Step::Transfer(NodeId(2))));
    }

    #[test]
    fn where_all_voters_halted_or_none_keeps_up_the_leader_stays() {
        let mut world = World::new(&[2, 3]);
        world.keeps_up = vec![NodeId(2), NodeId(3)];
        world.halted = vec![NodeId(1), NodeId(2), NodeId(3)];
        for _ in 0..1000 {
            assert_eq!(world.next(), None);
            world.now = world.now.plus(SECOND);
        }
        (world.keeps_up, world.halted) = (vec![], vec![NodeId(1)]);
        assert_eq!(world.next(), None);
        (world.keeps_up, world.witness) = (vec![NodeId(2)], Some(NodeId(2)));
        assert_eq!(world.next(), None, "a witness never leads");
    }

    #[test]
    fn a_preferred_voter_that_halted_gets_no_leadership() {
        let mut world = World::new(&[2, 3]);
        (world.keeps_up, world.halted) = (vec![NodeId(2), NodeId(3)], vec![NodeId(2)]);
        world.next();
        world.now = world.now.plus(SETTLES_WITHIN);
        assert_eq!(world.next(), Some(Step::Transfer(NodeId(3))));
    }

    #[test]
    fn transfers_pause_for_longer_each_time_whichever_node_led_meanwhile() {
        let mut world = World::new(&[2]);
        world.keeps_up = vec![NodeId(2)];
        let mut pauses = Vec::new();
        let mut last = None;
        for _ in 0..3000 {
            if world.next() == Some(Step::Transfer(NodeId(2))) {
                pauses.extend(last.map(|last| world.now.since(last).as_secs()));
                last = Some(world.now);
                world.automation.reset();
            }
            world.now = world.now.plus(SECOND);
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    }

    struct World {
        automation: Automation,
        now: Moment,
        promote_after: Duration,
        voters: Vec<NodeId>,
        learners: Vec<NodeId>,
        keeps_up: Vec<NodeId>,
        halted: Vec<NodeId>,
        witness: Option<NodeId>,
        is_idle: bool,
    }

    impl World {
        /// Node 1 leads 2 and 3.
        fn new(preferred: &[u64]) -> Self {
            Self {
                automation: Automation::new(preferred.iter().copied().map(NodeId).collect()),
                now: Moment::default(),
                promote_after: SECOND * 10,
                voters: vec![NodeId(1), NodeId(2), NodeId(3)],
                learners: Vec::new(),
                keeps_up: Vec::new(),
                halted: Vec::new(),
                witness: None,
                is_idle: true,
            }
        }

        fn next(&mut self) -> Option<Step> {
            let (now, promote_after) = (self.now, self.promote_after);
            self.decide(|automation, view| automation.next(now, promote_after, view))
        }

        fn successor(&mut self) -> Option<NodeId> {
            self.decide(|automation, view| automation.successor(view))
        }

        fn decide<T>(&mut self, decide: impl FnOnce(&mut Automation, &View<'_>) -> T) -> T {
            let view = View {
                this: NodeId(1),
                voters: &self.voters,
                learners: &self.learners,
                witness: self.witness,
                is_idle: self.is_idle,
                keeps_up: &|id| self.keeps_up.contains(&id),
                is_halted: self.halted.contains(&NodeId(1)),
                may_be_halted: &|id| self.halted.contains(&id),
            };
            decide(&mut self.automation, &view)
        }
    }
}
