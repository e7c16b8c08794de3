//! Request routing: whether a proposal, a read or an operator's request is served here, sent to the
//! leader, kept until there is one, or refused.
//!
//! A request that another node forwarded is never forwarded on: it is served here or refused, and
//! the other node asks again.

use crate::{actors::messages::Caller, error::ProposeError};
use quorate_raft::{NodeId, Term};

/// The node's part in the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) is_leader: bool,
    pub(crate) term: Term,
    /// Another node that leads and can be reached.
    pub(crate) leader: Option<NodeId>,
    pub(crate) is_stopping: bool,
    /// Leadership is about to move: proposals have to wait.
    pub(crate) holds_proposals: bool,
    pub(crate) is_storage_full: bool,
    /// There is no other member.
    pub(crate) is_alone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    /// This node leads: it serves the request.
    Here,
    /// To the leader.
    Forward(NodeId),
    /// Until a leader can be reached.
    Defer,
    /// The node that forwarded it asks the next leader.
    Refuse,
}

impl View {
    /// The route of a request that needs the leader.
    pub(crate) fn route(&self, is_forwarded: bool) -> Route {
        match self.leader {
            _ if self.is_leader => Route::Here,
            _ if is_forwarded => Route::Refuse,
            Some(leader) => Route::Forward(leader),
            None => Route::Defer,
        }
    }

    /// The refusal of a proposal that this caller made, if it is refused.
    pub(crate) fn refusal(&self, caller: &Caller) -> Option<ProposeError> {
        match caller {
            _ if self.is_stopping => Some(ProposeError::Stopped),
            // It is appended in the term in which it was forwarded, or never.
            Caller::There { .. } if !self.is_leader || caller.is_of_another_term(self.term) => {
                Some(ProposeError::NoLeader)
            }
            // No other node will come to lead.
            Caller::Here(_) if self.route(false) == Route::Defer && self.is_storage_full && self.is_alone => {
                Some(ProposeError::StorageFull)
            }
            _ => None,
        }
    }

    /// The route of proposals that are not refused: it is the same for all.
    pub(crate) fn route_proposals(&self) -> Route {
        match self.route(false) {
            Route::Here if self.holds_proposals => Route::Defer,
            route => route,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{actors::messages::Waiter, gate::Gate};
    use tokio::{sync::oneshot, time::Instant};

    const FOLLOWER: View = View {
        is_leader: false,
        term: Term(7),
        leader: Some(NodeId(2)),
        is_stopping: false,
        holds_proposals: false,
        is_storage_full: false,
        is_alone: false,
    };
    const LEADER: View = View { is_leader: true, leader: None, ..FOLLOWER };
    const LEADERLESS: View = View { leader: None, ..FOLLOWER };

    #[test]
    fn a_request_is_served_by_the_leader_and_waits_for_one() {
        assert_eq!(LEADER.route(false), Route::Here);
        assert_eq!(FOLLOWER.route(false), Route::Forward(NodeId(2)));
        assert_eq!(LEADERLESS.route(false), Route::Defer);
    }

    #[test]
    fn a_forwarded_request_is_never_forwarded_on() {
        assert_eq!(LEADER.route(true), Route::Here);
        assert_eq!(FOLLOWER.route(true), Route::Refuse);
        assert_eq!(LEADERLESS.route(true), Route::Refuse);
        assert_eq!(FOLLOWER.refusal(&forwarded_in(7)), Some(ProposeError::NoLeader));
    }

    #[test]
    fn a_forwarded_proposal_is_appended_in_the_term_in_which_it_was_sent_or_never() {
        assert_eq!(LEADER.refusal(&forwarded_in(7)), None);
        assert_eq!(LEADER.refusal(&forwarded_in(6)), Some(ProposeError::NoLeader));
        assert_eq!(LEADER.refusal(&forwarded_in(8)), Some(ProposeError::NoLeader));
        assert_eq!(LEADER.refusal(&own()), None);
    }

    #[test]
    fn proposals_wait_while_leadership_is_about_to_move() {
        assert_eq!(LEADER.route_proposals(), Route::Here);
        assert_eq!(View { holds_proposals: true, ..LEADER }.route_proposals(), Route::Defer);
        assert_eq!(FOLLOWER.route_proposals(), Route::Forward(NodeId(2)));
        assert_eq!(LEADERLESS.route_proposals(), Route::Defer);
    }

    #[test]
    fn a_stopping_node_takes_no_proposals() {
        for view in [LEADER, FOLLOWER, LEADERLESS].map(|view| View { is_stopping: true, ..view }) {
            assert_eq!(view.refusal(&own()), Some(ProposeError::Stopped));
            assert_eq!(view.refusal(&forwarded_in(7)), Some(ProposeError::Stopped));
        }
    }

    #[test]
    fn a_full_disk_refuses_where_no_other_node_can_come_to_lead() {
        let full = View { is_storage_full: true, ..LEADERLESS };
        assert_eq!(full.refusal(&own()), None, "another node may lead");
        assert_eq!(View { is_alone: true, ..full }.refusal(&own()), Some(ProposeError::StorageFull));
        assert_eq!(View { is_alone: true, ..LEADERLESS }.refusal(&own()), None);
    }

    fn own() -> Caller {
        let credit = Gate::new(1, 1).enter(0, None).expect("room");
        Caller::Here(Waiter { answer: oneshot::channel().0, asked: Instant::now(), credit })
    }

    fn forwarded_in(term: u64) -> Caller {
        let credit = Gate::new(1, 1).enter(0, None).expect("room");
        Caller::There { node: NodeId(3), request: 1, term: Term(term), credit }
    }
}
