//! The steps of a membership change, at the leader that carries it out.
//!
//! A change that lets unknown nodes vote takes two steps: they are added as learners, and the
//! voters change when they have caught up. If the last step is refused, the learners of the first
//! one are removed before the operator is told, so that a refusal has no effect; if they can't be
//! removed, because the leadership ends or no quorum answers, the outcome is unknown.

use quorate_raft::{AdministerOutcome, Change, ChangeRefused, Index, Member, Membership, Moment, NodeId};

/// A change that was accepted and is not answered yet.
#[derive(Debug)]
pub struct ChangeUnderWay {
    change: Change,
    /// A refusal that may pass is waited for until then.
    deadline: Moment,
    /// The entry of the last configuration, or of the joint one before it.
    appended: Option<Index>,
    /// The learners that the first step added.
    added: Vec<NodeId>,
    /// The reason of the refusal: the learners that were added have to leave first.
    undone_for: Option<ChangeRefused>,
}

/// The configuration in force, and the node's part in it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub membership: &'a Membership,
    /// The entry of that configuration.
    pub index: Index,
    pub is_settled: bool,
    pub is_leader: bool,
}

/// The next step of a change.
#[derive(PartialEq, Eq, Debug)]
pub enum Next {
    /// New members that are to vote are added as learners.
    Add(Change, Vec<NodeId>),
    /// The voters change.
    Last(Change),
    /// The learners that the first step added are removed.
    Undo(Change),
    /// Their removal is under way, or committed.
    Undone,
}

/// The state of a change after one of its steps was tried.
#[derive(PartialEq, Eq, Debug)]
pub enum Tried {
    /// It goes on when the step is committed, or can be tried again.
    Wait,
    /// The next step is due at once.
    Again,
    Over(AdministerOutcome),
}

impl ChangeUnderWay {
    /// Accepts a change.
    ///
    /// # Errors
    /// A change that makes no sense in the configuration in force. Its expectation is checked here
    /// alone, for its own first step changes the configuration.
    pub fn begin(change: Change, deadline: Moment, view: &View<'_>) -> Result<Self, ChangeRefused> {
        change.target(view.membership, view.index)?;
        Ok(Self { change: change.resumed(), deadline, appended: None, added: Vec::new(), undone_for: None })
    }

    /// Whether it changes nothing but metadata: it is over after one commit.
    pub fn is_of_metadata(&self) -> bool {
        self.change.is_of_metadata()
    }

    /// The next step; `None` if the last one was appended.
    pub fn next(&self, view: &View<'_>) -> Option<Next> {
        if self.appended.is_some() {
            return None;
        }
        if self.undone_for.is_some() {
            let undo = self.left_behind(view).map(Change::remove).reduce(Change::and);
            return Some(undo.map_or(Next::Undone, Next::Undo));
        }
        let (add, ids) = match self.first_step(view) {
            Some(first) => first,
            None => return Some(Next::Last(self.change.clone())),
        };
        Some(Next::Add(add, ids))
    }

    /// The rules accepted or refused a step. If the first one has to be undone, there is
    /// time until `undo_by`.
    pub fn tried(&mut self, step: Next, outcome: Result<Index, ChangeRefused>, now: Moment, undo_by: Moment) -> Tried {
        match (outcome, step) {
            (Ok(_), Next::Add(_, ids)) => self.added.extend(ids),
            (Ok(index), Next::Last(_)) => self.appended = Some(index),
            (Ok(_), Next::Undo(_) | Next::Undone) => {}
            (Err(why), _) if may_pass(&why) && self.deadline > now => {}
            (Err(_), Next::Undo(_) | Next::Undone) => return Tried::Over(AdministerOutcome::Unknown),
            (Err(why), _) if self.added.is_empty() => return Tried::Over(AdministerOutcome::ChangeRefused(why)),
            (Err(why), _) => {
                (self.undone_for, self.deadline) = (Some(why), undo_by);
                return Tried::Again;
            }
        }
        Tried::Wait
    }

    /// The answer to the operator, once the change is committed, or this node can't bring it
    /// about any more.
    pub fn outcome(&self, now: Moment, view: &View<'_>) -> Option<AdministerOutcome> {
        let is_late = self.deadline <= now;
        Some(match (self.appended, &self.undone_for) {
            (Some(appended), _) if view.is_settled && view.index >= appended => AdministerOutcome::Changed(view.index),
            (_, Some(why)) if view.is_leader && view.is_settled && self.left_behind(view).next().is_none() => {
                AdministerOutcome::ChangeRefused(why.clone())
            }
            (_, Some(_)) if is_late || !view.is_leader => AdministerOutcome::Unknown,
            (Some(_), _) if !view.is_leader => AdministerOutcome::Unknown,
            // The learners of the first step may stay: no other leader knows that they
            // are to leave.
            (None, _) if !view.is_leader && !self.added.is_empty() => AdministerOutcome::Unknown,
            (None, _) if !view.is_leader => AdministerOutcome::ChangeRefused(ChangeRefused::NotLeader),
            _ => return None,
        })
    }

    /// The new members that are to vote, to be added as learners; `None` if there are none.
    fn first_step(&self, view: &View<'_>) -> Option<(Change, Vec<NodeId>)> {
        let target = self.change.target(view.membership, view.index).ok()?;
        let is_to_vote = |member: &Member| target.is_voter(member.id);
        let newcomers: Vec<_> = self.change.newcomers(view.membership).into_iter().filter(is_to_vote).collect();
        let ids = newcomers.iter().map(|member| member.id).collect();
        let add = |Member { id, address }| match target.witness() == Some(id) {
            true => Change::add_witness(id, address.unwrap_or_default()),
            false => Change::add(id, address.unwrap_or_default()),
        };
        Some((newcomers.into_iter().map(add).reduce(Change::and)?, ids))
    }

    /// The learners that the first step added and that are learners still.
    fn left_behind(&self, view: &View<'_>) -> impl Iterator<Item = NodeId> {
        let learners = view.membership.learners();
        self.added.iter().copied().filter(move |id| learners.contains(id))
    }
}

/// Whether the reason of a refusal may be gone soon.
fn may_pass(why: &ChangeRefused) -> bool {
    matches!(
        why,
        ChangeRefused::NotReady
            | ChangeRefused::Pending { .. }
            | ChangeRefused::TransferInProgress
            | ChangeRefused::Behind { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);
    const NEW: NodeId = NodeId(4);

    #[test]
    fn a_new_voter_is_added_as_a_learner_first_and_promoted_when_it_caught_up() {
        let mut world = World::new(Change::set_voters([(NodeId(1), "a1"), (NodeId(2), "a2"), (NEW, "a4")]));
        let step = world.next();
        assert_eq!(step, Some(Next::Add(Change::add(NEW, "a4"), vec![NEW])));
        assert_eq!(world.tried(step, Ok(Index(11))), Tried::Wait);
        world.joined(11);
        assert_eq!(world.outcome(), None);
        let step = world.next();
        assert!(matches!(step, Some(Next::Last(_))), "{step:?}");
        assert_eq!(world.tried(step, Err(ChangeRefused::NotReady)), Tried::Wait, "it may be ready soon");
        let step = world.next();
        assert_eq!(world.tried(step, Ok(Index(12))), Tried::Wait);
        assert_eq!(world.next(), None);
        assert_eq!(world.outcome(), None, "the last configuration is not in force");
        (world.index, world.is_settled) = (Index(13), false);
        assert_eq!(world.outcome(), None);
        world.is_settled = true;
        assert_eq!(world.outcome(), Some(AdministerOutcome::Changed(Index(13))));
    }

    #[test]
    fn a_change_without_new_voters_takes_one_step() {
        let world = World::new(Change::remove(NodeId(3)));
        assert!(matches!(world.next(), Some(Next::Last(_))));
    }

    #[test]
    fn a_change_is_refused_at_once_if_it_makes_no_sense_or_expects_another_configuration() {
        let world = World::new(Change::remove(NodeId(3)));
        let begin = |change| ChangeUnderWay::begin(change, world.now, &world.view()).err();
        assert!(matches!(begin(Change::promote(NEW)), Some(ChangeRefused::Unknown { id: NEW })));
        assert!(matches!(begin(Change::remove(NodeId(3)).expecting(Index(9))), Some(ChangeRefused::Moved { .. })));
        assert_eq!(begin(Change::remove(NodeId(3)).expecting(Index(10))), None);
    }

    #[test]
    fn a_refusal_of_the_only_step_is_final_and_one_that_may_pass_only_at_the_deadline() {
        let mut world = World::new(Change::remove(NodeId(3)));
        let step = world.next();
        assert_eq!(world.tried(step, Err(ChangeRefused::TransferInProgress)), Tried::Wait);
        world.now = world.now.plus(SECOND * 10);
        let (step, refused) = (world.next(), AdministerOutcome::ChangeRefused(ChangeRefused::TransferInProgress));
        assert_eq!(world.tried(step, Err(ChangeRefused::TransferInProgress)), Tried::Over(refused));
    }

    #[test]
    fn a_refused_last_step_is_answered_when_the_first_is_undone() {
        let mut world = World::refused_after_first_step();
        let step = world.next();
        assert_eq!(step, Some(Next::Undo(Change::remove(NEW))));
        assert_eq!(world.tried(step, Ok(Index(12))), Tried::Wait);
        assert_eq!(world.outcome(), None);
        world.membership = three();
        (world.index, world.is_settled) = (Index(12), false);
        assert_eq!(world.next(), Some(Next::Undone));
        assert_eq!(world.outcome(), None, "the removal is not committed");
        world.is_settled = true;
        assert_eq!(world.outcome(), Some(AdministerOutcome::ChangeRefused(ChangeRefused::NotReady)));
    }

    #[test]
    fn a_first_step_that_cannot_be_undone_leaves_the_outcome_unknown() {
        let mut world = World::refused_after_first_step();
        world.now = world.now.plus(SECOND);
        assert_eq!(world.outcome(), Some(AdministerOutcome::Unknown), "in time");
        let mut world = World::refused_after_first_step();
        let step = world.next();
        world.now = world.now.plus(SECOND);
        assert_eq!(world.tried(step, Err(ChangeRefused::NotReady)), Tried::Over(AdministerOutcome::Unknown));
        let mut world = World::refused_after_first_step();
        world.is_leader = false;
        assert_eq!(world.outcome(), Some(AdministerOutcome::Unknown), "by this node");
    }

    #[test]
    fn the_end_of_the_leadership_is_a_refusal_only_before_the_first_step() {
        let mut world = World::new(Change::remove(NodeId(3)));
        world.is_leader = false;
        assert_eq!(world.outcome(), Some(AdministerOutcome::ChangeRefused(ChangeRefused::NotLeader)));
        world.is_leader = true;
        let step = world.next();
        world.tried(step, Ok(Index(11)));
        world.is_leader = false;
        assert_eq!(world.outcome(), Some(AdministerOutcome::Unknown));
        world.index = Index(11);
        assert_eq!(world.outcome(), Some(AdministerOutcome::Changed(Index(11))), "it is committed all the same");
        let mut world = World::added();
        world.is_leader = false;
        assert_eq!(world.outcome(), Some(AdministerOutcome::Unknown), "the learner may stay");
    }

    struct World {
        under_way: ChangeUnderWay,
        now: Moment,
        membership: Membership,
        index: Index,
        is_settled: bool,
        is_leader: bool,
    }

    impl World {
        /// Nodes 1 to 3 vote since entry 10.
        fn new(change: Change) -> Self {
            let (membership, now) = (three(), Moment::default());
            let view = View { membership: &membership, index: Index(10), is_settled: true, is_leader: true };
            let under_way = ChangeUnderWay::begin(change, now.plus(SECOND * 10), &view).expect("it makes sense");
            Self { under_way, now, membership, index: Index(10), is_settled: true, is_leader: true }
        }

        /// The first step of the addition of a voter is done.
        fn added() -> Self {
            let mut world = Self::new(Change::add(NEW, "a4").and(Change::promote(NEW)));
            let step = world.next();
            world.tried(step, Ok(Index(11)));
            world.joined(11);
            world
        }

        /// And the last step was refused for good; a second is left to undo the first one.
        fn refused_after_first_step() -> Self {
            let mut world = Self::added();
            world.now = world.now.plus(SECOND * 10);
            let step = world.next();
            assert_eq!(world.tried(step, Err(ChangeRefused::NotReady)), Tried::Again);
            world
        }

        fn joined(&mut self, index: u64) {
            self.membership = three().with_learners([NEW]);
            self.index = Index(index);
        }

        fn view(&self) -> View<'_> {
            let Self { membership, index, is_settled, is_leader, .. } = self;
            View { membership, index: *index, is_settled: *is_settled, is_leader: *is_leader }
        }

        fn next(&self) -> Option<Next> {
            self.under_way.next(&self.view())
        }

        fn tried(&mut self, step: Option<Next>, outcome: Result<Index, ChangeRefused>) -> Tried {
            self.under_way.tried(step.expect("a step"), outcome, self.now, self.now.plus(SECOND))
        }

        fn outcome(&self) -> Option<AdministerOutcome> {
            self.under_way.outcome(self.now, &self.view())
        }
    }

    fn three() -> Membership {
        Membership::of_addresses([1, 2, 3].map(|id| (NodeId(id), format!("a{id}"))))
    }
}
