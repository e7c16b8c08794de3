//! The operator of a simulated cluster: member changes, upgrades and leadership transfers. The
//! operator has a goal, and asks the current leader until it is reached.

use super::{
    member::{Member, State, address_of},
    observer::SharedObserver,
};
use crate::plan::Plan;
use quorate::{Change, NodeId, NodeRole};
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

impl Operator {
    /// Makes these voters the operator's goal.
    pub(super) fn aim_at(&mut self, voters: &[NodeId]) {
        self.goal = Some(voters.to_vec());
    }

    /// Whether it wants this voter.
    pub(super) fn wants(&self, id: NodeId) -> bool {
        self.goal.as_ref().is_some_and(|goal| goal.contains(&id))
    }

    /// Whether the leader's configuration is settled and has the wanted voters.
    pub(super) fn has_its_goal(&self, members: &[Member]) -> bool {
        let Some(goal) = &self.goal else { return true };
        let statuses = members.iter().filter_map(Member::status);
        let leader = statuses.filter(|status| status.role == NodeRole::Leader).max_by_key(|status| status.term);
        leader.is_some_and(|leader| leader.is_settled && leader.voters == *goal)
    }

    /// Starts wanted nodes that have stopped, and asks the leader for the wanted voters.
    pub(super) fn operate(&mut self, now: Duration, members: &mut [Member], observer: &SharedObserver) {
        if self.next_look > now {
            return;
        }
        self.next_look = now + LOOK_EVERY;
        let Some(goal) = self.goal.clone() else { return };
        // A node that was removed and added again may not have heard of that, and may be needed.
        let newest = members.iter().filter_map(Member::status).max_by_key(|status| status.membership_index);
        let needed = newest.map_or_else(Vec::new, |newest| [newest.voters, newest.learners].concat());
        let is_wanted = |id: NodeId| goal.contains(&id) || needed.contains(&id);
        for member in members.iter_mut().filter(|member| is_wanted(member.id)) {
            if std::mem::take(&mut member.was_removed) {
                member.state = State::Down { until: now };
            }
        }
        let waits = self.asked.get().is_some_and(|since| now < since + PATIENCE);
        if waits || self.has_its_goal(members) {
            return;
        }
        let Some(leader) = leader_of(members) else { return };
        let (id, asked) = (leader.id, Rc::clone(&self.asked));
        let Some(process) = leader.process_mut() else { return };
        let handle = process.node().clone();
        let change = Change::set_voters(goal.iter().map(|id| (*id, address_of(*id))));
        asked.set(Some(now));
        let observer = observer.clone();
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
}

/// Stops a node and starts the next release in its place, unless another node runs an older one.
/// Returns whether it does.
pub(super) fn upgrade(node: NodeId, down: Duration, members: &mut [Member], observer: &SharedObserver) -> bool {
    let releases: Vec<_> = members.iter().map(|member| member.release).collect();
    let Some(member) = members.iter_mut().find(|member| member.id == node) else { return false };
    let (release, next) = (member.release, Plan::next_release(member.release, releases.into_iter()));
    if next > release {
        member.release = next;
        observer.lock().say(format_args!("{node} is to run release {next}"));
        member.shut_down(down);
    }
    next > release
}

/// Ends the rollout: all nodes run the newest release.
pub(super) fn upgrade_all(members: &mut [Member]) {
    let newest = members.iter().map(|member| member.release).max().unwrap_or(0);
    for member in members.iter_mut().filter(|member| member.release < newest || member.is_rolled_back) {
        member.release = newest;
        member.shut_down(Duration::ZERO);
    }
}

/// Asks the leader for a leadership transfer to `to`.
pub(super) fn transfer(to: NodeId, members: &mut [Member], observer: &SharedObserver) {
    let Some(process) = leader_of(members).and_then(Member::process_mut) else { return };
    let (handle, observer) = (process.node().clone(), observer.clone());
    process.call(async move {
        let outcome = handle.transfer(Some(to)).await;
        let mut observer = observer.lock();
        if outcome.is_ok() {
            observer.report.fired("leadership-transfer");
        }
        observer.say(format_args!("leadership was to go to {to}: {outcome:?}"));
    });
}

/// The first member that leads, as far as it knows.
fn leader_of(members: &mut [Member]) -> Option<&mut Member> {
    members.iter_mut().find(|member| member.status().is_some_and(|it| it.role == NodeRole::Leader))
}
