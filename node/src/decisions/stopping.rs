//! When a node that is to stop has nothing left to do.
//!
//! A node stops because its handle asked for it, because the last handle is gone, or because it was
//! removed from the cluster. It first answers its callers, within a deadline. A node that led also
//! waits until the others know its successor: until then they may forward commands to it, and if it
//! were gone, nothing could tell whether it had taken them.

use crate::config::Timing;
use quorate_raft::{Index, Moment, NodeId};

/// Why and by when this node stops, if it does, and whether it has led. By default it goes on, and
/// has never led.
#[derive(Default)]
pub struct Stopping {
    /// The node ends at this time at the latest.
    deadline: Option<Moment>,
    /// The configuration of this entry removed the node.
    removed_at: Option<Index>,
    /// The removal is the only reason to stop: the node goes on if it is added again.
    is_for_removal: bool,
    tenure: Tenure,
}

/// Whether this node has led.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Tenure {
    #[default]
    Never,
    /// It leads, or has led and no successor is known.
    Leads,
    /// A successor was first heard of at this time.
    Over { since: Moment },
}

/// The work that a stopping node still has, and its part in the cluster.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Callers wait for the outcome of proposals.
    pub has_proposals: bool,
    /// Committed entries are not applied: their callers wait at the state machine.
    pub has_unapplied: bool,
    /// Operators wait for an answer of the leader.
    pub has_operators: bool,
    pub is_leader: bool,
    /// Leadership is on its way to another node.
    pub is_transferring: bool,
    /// A leader sends to this node.
    pub follows: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    GoOn,
    ShutDown,
    /// The node ends because the configuration of this entry removed it.
    EndAsRemoved(Index),
}

impl Stopping {
    pub fn is_stopping(&self) -> bool {
        self.deadline.is_some()
    }

    pub fn is_removed(&self) -> bool {
        self.removed_at.is_some()
    }

    /// A handle asks the node to shut down. The first deadline stands.
    pub fn shutdown_requested(&mut self, now: Moment, timing: &Timing) {
        self.deadline.get_or_insert(now.plus(timing.leader_wait));
        self.is_for_removal = false;
    }

    /// The last handle is gone: no request can come any more.
    pub fn handles_dropped(&mut self, now: Moment) {
        self.deadline.get_or_insert(now);
    }

    /// The configuration of entry `at` does not name this node.
    pub fn removed(&mut self, at: Index, now: Moment, timing: &Timing) {
        self.removed_at.get_or_insert(at);
        if self.deadline.is_none() {
            self.deadline = Some(now.plus(timing.election_timeout.1));
            self.is_for_removal = true;
        }
    }

    /// A configuration names this node. True if it was removed before; a shutdown that a handle
    /// asked for goes on.
    pub fn is_member(&mut self) -> bool {
        let was_removed = self.removed_at.take().is_some();
        if was_removed {
            self.deadline.take_if(|_| std::mem::take(&mut self.is_for_removal));
        }
        was_removed
    }

    pub fn leader_changed(&mut self, leader: Option<NodeId>, this: NodeId, now: Moment) {
        self.tenure = match leader {
            Some(leader) if leader == this => Tenure::Leads,
            Some(_) if self.tenure == Tenure::Leads => Tenure::Over { since: now },
            _ => self.tenure,
        };
    }

    /// Whether the node ends now.
    pub fn decide(&self, now: Moment, timing: &Timing, view: &View) -> Decision {
        let Some(deadline) = self.deadline else { return Decision::GoOn };
        let is_drained = !view.has_proposals
            && !view.has_unapplied
            && !view.has_operators
            && !view.is_transferring
            && !self.is_taken_for_leader(now, timing, view);
        match self.removed_at {
            _ if !is_drained && now < deadline => Decision::GoOn,
            // A leader that sends to this node counts on it again, or does not know yet that it
            // need not. Its silence shows which.
            Some(_) if view.follows => Decision::GoOn,
            Some(at) => Decision::EndAsRemoved(at),
            None => Decision::ShutDown,
        }
    }

    /// Whether others may still forward commands to this node that its successor should get.
    fn is_taken_for_leader(&self, now: Moment, timing: &Timing, view: &View) -> bool {
        match self.tenure {
            Tenure::Never => false,
            // A leader that is still one found no successor: there is none to wait for.
            Tenure::Leads => !view.is_leader,
            Tenure::Over { since } => now.since(since) < timing.heartbeat_interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const THIS: NodeId = NodeId(1);
    const IDLE: View = View {
        has_proposals: false,
        has_unapplied: false,
        has_operators: false,
        is_leader: false,
        is_transferring: false,
        follows: false,
    };

    #[test]
    fn a_node_that_is_not_stopping_goes_on() {
        let world = World::new();
        assert_eq!(world.decide(IDLE), Decision::GoOn);
    }

    #[test]
    fn a_shutdown_waits_for_all_work_and_for_no_longer_than_its_deadline() {
        let mut world = World::new();
        world.stopping.shutdown_requested(world.now, &world.timing);
        assert_eq!(world.decide(IDLE), Decision::ShutDown);
        let busy = [
            View { has_proposals: true, ..IDLE },
            View { has_unapplied: true, ..IDLE },
            View { has_operators: true, ..IDLE },
            View { is_transferring: true, ..IDLE },
        ];
        assert!(busy.iter().all(|view| world.decide(*view) == Decision::GoOn));
        world.now = world.now.plus(world.timing.leader_wait - Duration::from_millis(1));
        // A second request does not put the deadline off.
        world.stopping.shutdown_requested(world.now, &world.timing);
        assert!(busy.iter().all(|view| world.decide(*view) == Decision::GoOn));
        world.now = world.now.plus(Duration::from_millis(1));
        assert!(busy.iter().all(|view| world.decide(*view) == Decision::ShutDown));
    }

    #[test]
    fn a_node_without_handles_ends_at_once() {
        let mut world = World::new();
        world.stopping.handles_dropped(world.now);
        assert_eq!(world.decide(View { has_proposals: true, ..IDLE }), Decision::ShutDown);
    }

    #[test]
    fn a_node_that_led_waits_until_the_others_know_its_successor() {
        let mut world = World::new();
        world.stopping.leader_changed(Some(THIS), THIS, world.now);
        world.stopping.shutdown_requested(world.now, &world.timing);
        assert_eq!(world.decide(View { is_leader: true, ..IDLE }), Decision::ShutDown, "no successor was found");
        assert_eq!(world.decide(IDLE), Decision::GoOn, "it stepped down");
        world.stopping.leader_changed(None, THIS, world.now);
        assert_eq!(world.decide(IDLE), Decision::GoOn);
        world.stopping.leader_changed(Some(NodeId(2)), THIS, world.now);
        world.now = world.now.plus(world.timing.heartbeat_interval - Duration::from_millis(1));
        assert_eq!(world.decide(IDLE), Decision::GoOn);
        // A later leader is no reason to wait anew.
        world.stopping.leader_changed(Some(NodeId(3)), THIS, world.now);
        world.now = world.now.plus(Duration::from_millis(1));
        assert_eq!(world.decide(IDLE), Decision::ShutDown);
    }

    #[test]
    fn a_node_that_never_led_waits_for_no_successor() {
        let mut world = World::new();
        world.stopping.leader_changed(Some(NodeId(2)), THIS, world.now);
        world.stopping.shutdown_requested(world.now, &world.timing);
        assert_eq!(world.decide(IDLE), Decision::ShutDown);
    }

    #[test]
    fn a_removed_node_ends_once_no_leader_sends_to_it() {
        let mut world = World::new();
        world.stopping.removed(Index(7), world.now, &world.timing);
        world.stopping.removed(Index(9), world.now, &world.timing);
        assert_eq!(world.decide(View { has_unapplied: true, ..IDLE }), Decision::GoOn);
        assert_eq!(world.decide(IDLE), Decision::EndAsRemoved(Index(7)), "the first removal is named");
        world.now = world.now.plus(world.timing.election_timeout.1);
        assert_eq!(world.decide(View { follows: true, ..IDLE }), Decision::GoOn);
        assert_eq!(world.decide(View { has_unapplied: true, ..IDLE }), Decision::EndAsRemoved(Index(7)));
    }

    #[test]
    fn a_node_that_is_added_again_goes_on_unless_a_handle_stops_it() {
        let mut world = World::new();
        assert!(!world.stopping.is_member());
        world.stopping.removed(Index(7), world.now, &world.timing);
        assert!(world.stopping.is_removed() && world.stopping.is_stopping());
        assert!(world.stopping.is_member());
        assert!(!world.stopping.is_removed() && !world.stopping.is_stopping());
        world.stopping.removed(Index(8), world.now, &world.timing);
        world.stopping.shutdown_requested(world.now, &world.timing);
        assert!(world.stopping.is_member());
        assert_eq!(world.decide(IDLE), Decision::ShutDown);
    }

    struct World {
        stopping: Stopping,
        timing: Timing,
        now: Moment,
    }

    impl World {
        fn new() -> Self {
            Self { stopping: Stopping::default(), timing: Timing::default().resolved(), now: Moment::default() }
        }

        fn decide(&self, view: View) -> Decision {
            self.stopping.decide(self.now, &self.timing, &view)
        }
    }
}
