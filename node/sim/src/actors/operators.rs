//! The operator of a simulated cluster: member changes, upgrades and leadership transfers. The
//! operator has a goal, and asks the current leader until it is reached.

use super::{Cluster, member::State};
use crate::plan::Plan;
use quorate::{Change, NodeId, Role};
use std::{cell::Cell, rc::Rc, time::Duration};

/// The interval between two looks of the operator.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The time that the operator waits for an answer before it asks anew.
const PATIENCE: Duration = Duration::from_secs(3);

/// The operator's goal, and the request under way.
#[derive(Default)]
pub(super) struct Operator {
    /// The wanted set of voters.
    goal: Option<Vec<NodeId>>,
    next_look: Duration,
    /// The time of the unanswered request, if there is one.
    asked: Rc<Cell<Option<Duration>>>,
}

impl Cluster<'_> {
    /// Makes these voters the operator's goal.
    pub(super) fn aim_at(&mut self, voters: &[NodeId]) {
        self.operator.goal = Some(voters.to_vec());
    }

    /// Whether the leader's configuration is settled and has the wanted voters.
    pub(super) fn is_as_wanted(&self) -> bool {
        let Some(goal) = &self.operator.goal else { return true };
        let statuses = self.members.iter().filter_map(|member| member.status());
        let leader = statuses.filter(|status| status.role == Role::Leader).max_by_key(|status| status.term);
        leader.is_some_and(|leader| leader.is_settled && leader.voters == *goal)
    }

    /// Starts wanted nodes that have stopped, and asks the leader for the wanted voters.
    pub(super) fn operate(&mut self) {
        if self.operator.next_look > self.now {
            return;
        }
        self.operator.next_look = self.now + LOOK_EVERY;
        let Some(goal) = self.operator.goal.clone() else { return };
        let now = self.now;
        // A node that was removed and added again may not have heard of that, and may be needed.
        let statuses = self.members.iter().filter_map(|member| member.status());
        let newest = statuses.max_by_key(|status| status.membership_index);
        let needed = newest.map_or_else(Vec::new, |newest| [newest.voters, newest.learners].concat());
        let is_wanted = |id: NodeId| goal.contains(&id) || needed.contains(&id);
        for member in self.members.iter_mut().filter(|member| is_wanted(member.id)) {
            if std::mem::take(&mut member.was_removed) {
                member.state = State::Down { until: now };
            }
        }
        let waits = self.operator.asked.get().is_some_and(|since| now < since + PATIENCE);
        if waits || self.is_as_wanted() {
            return;
        }
        let leads = |member: &&mut super::member::Member| member.status().is_some_and(|it| it.role == Role::Leader);
        let Some(member) = self.members.iter_mut().find(leads) else { return };
        let (id, asked) = (member.id, Rc::clone(&self.operator.asked));
        let Some(process) = member.process_mut() else { return };
        let handle = process.node().clone();
        let change = Change::set_voters(goal.iter().map(|id| (*id, super::address_of(*id))));
        asked.set(Some(now));
        let observer = self.observer.clone();
        observer.lock().say(format_args!("the operator asks {id} that {goal:?} vote"));
        process.call(async move {
            let outcome = handle.change(change).await;
            let mut observer = observer.lock();
            if outcome.is_ok() {
                observer.report.fired("change");
            }
            observer.say(format_args!("the operator hears: {outcome:?}"));
            asked.set(None);
        });
    }

    /// Stops a node and starts the next release in its place, unless another node runs an older
    /// one. Returns whether it does.
    pub(super) fn upgrade(&mut self, node: NodeId, down: Duration) -> bool {
        let (release, all) = (self.member(node).release, self.members.iter().map(|member| member.release));
        let next = Plan::next_release(release, all);
        if next > release {
            self.member(node).release = next;
            self.observer.lock().say(format_args!("{node} is to run release {next}"));
            self.shut_down(node, down);
        }
        next > release
    }

    /// Ends the rollout: all nodes run the newest release.
    pub(super) fn upgrade_all(&mut self) {
        let newest = self.members.iter().map(|member| member.release).max().unwrap_or(0);
        for id in self.ids() {
            if self.member(id).release < newest {
                self.member(id).release = newest;
                self.shut_down(id, Duration::ZERO);
            }
        }
    }

    /// Asks the leader for a leadership transfer to `to`.
    pub(super) fn hand_over(&mut self, to: NodeId) {
        let leads = |member: &&mut super::member::Member| member.status().is_some_and(|it| it.role == Role::Leader);
        let Some(process) = self.members.iter_mut().find(leads).and_then(|member| member.process_mut()) else { return };
        let (handle, observer) = (process.node().clone(), self.observer.clone());
        process.call(async move {
            let outcome = handle.transfer(Some(to)).await;
            let mut observer = observer.lock();
            if outcome.is_ok() {
                observer.report.fired("hand-over");
            }
            observer.say(format_args!("leadership was to go to {to}: {outcome:?}"));
        });
    }
}
