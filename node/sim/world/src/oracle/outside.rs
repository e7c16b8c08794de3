//! Limits on the effects of messages from outside a node's configuration, counted
//! apart from the rules.

use quorate_raft::{Effect, Index, Moment, NodeId, Replica, Term};

/// A replica just before it hears a message from outside its configuration.
#[derive(Clone, Copy)]
pub(crate) struct Outside {
    is_led: bool,
    state: State,
    commit: Index,
}

/// The state that no outsider may change while a leader is heard: term, vote, leader, leadership.
type State = (Term, Option<NodeId>, Option<NodeId>, bool);

/// The most by which a term rises through an outsider's message if no member has
/// shown the new term.
const RISE_MAX: u64 = 1_000;

impl Outside {
    /// `None` if the sender leads, or belongs to a configuration that counts.
    pub(crate) fn of(replica: &Replica, from: NodeId, now: Moment) -> Option<Self> {
        let is_outside = !replica.membership().is_empty() && !is_named(replica, from) && replica.leader() != Some(from);
        is_outside.then(|| Self { is_led: replica.is_led(now), state: state(replica), commit: replica.commit() })
    }

    /// Checks the reaction of the replica. `shown` is the highest term that members have shown.
    pub(crate) fn check(self, from: NodeId, shown: Term, replica: &Replica, effects: &[Effect]) -> Result<(), String> {
        let (to, state) = (replica.id(), state(replica));
        let says = |what: String| Err(format!("outsiders: {from}, of which {to} has not heard, {what}"));
        for effect in effects {
            match effect {
                Effect::Halt(violation) => return says(format!("ends it: {violation}")),
                Effect::Removed { .. } if replica.membership().contains(to) => {
                    return says("tells it that it was removed".into());
                }
                _ => {}
            }
        }
        if self.is_led && state != self.state {
            return says(format!("changes {:?} to {state:?} though it hears a leader", self.state));
        }
        let (before, after) = (self.state.0, state.0);
        if after.0.saturating_sub(before.0) > RISE_MAX && after > shown {
            return says(format!("raises its term from {before} to {after}"));
        }
        if replica.commit() != self.commit && !is_named(replica, from) {
            return says(format!("moves its commit index from {} to {}", self.commit, replica.commit()));
        }
        Ok(())
    }
}

fn state(replica: &Replica) -> State {
    (replica.term(), replica.vote(), replica.leader(), replica.is_leader())
}

/// Whether this node is in the configuration as of the commit index, or in a later one.
fn is_named(replica: &Replica, id: NodeId) -> bool {
    for (index, membership) in replica.configurations().rev() {
        if membership.contains(id) {
            return true;
        }
        if *index <= replica.commit() {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{append, at, hear, id, node, replica};
    use quorate_raft::Violation;

    fn follower(term: u64) -> Replica {
        replica(2, 3, term, None, &[1, 2])
    }

    fn checked(before: &Replica, shown: u64, after: &Replica, effects: &[Effect]) -> Result<(), String> {
        let outside = Outside::of(before, node(9), at(0)).expect("node 9 is no member");
        outside.check(node(9), Term(shown), after, effects)
    }

    #[test]
    fn a_term_rises_by_a_thousand_or_to_what_a_member_has_shown() {
        for (after, shown, may) in [(1_002, 0, true), (1_003, 0, false), (1_003, 1_002, false), (1_003, 1_003, true)] {
            assert_eq!(checked(&follower(2), shown, &follower(after), &[]).is_ok(), may, "{after}, shown {shown}");
        }
    }

    #[test]
    fn while_a_leader_is_heard_nothing_changes() {
        let mut led = follower(2);
        hear(&mut led, at(0), 1, 2, append(1, id(2, 2), 0, None));
        assert!(checked(&led, 0, &led, &[]).is_ok());
        assert!(checked(&led, 0, &follower(3), &[]).is_err(), "the term");
        assert!(checked(&led, 0, &follower(2), &[]).is_err(), "the leader");
    }

    #[test]
    fn no_node_ends_and_nothing_is_committed() {
        let (before, mut commits) = (follower(2), follower(2));
        let ends = Effect::Halt(Violation::TwoLeaders { term: Term(2), one: node(1), other: node(9) });
        assert!(checked(&before, 0, &before, &[ends]).is_err());
        assert!(checked(&before, 0, &before, &[Effect::Removed { at: Index(9) }]).is_err());
        hear(&mut commits, at(0), 1, 2, append(1, id(2, 2), 2, None));
        assert!(checked(&before, 0, &commits, &[]).is_err());
        assert!(Outside::of(&before, node(3), at(0)).is_none(), "other checks are for members");
    }
}
