//! Request routing: whether a proposal, a read or an operator's request is served here, sent to the
//! leader, kept until there is one, or refused.
//!
//! A request that another node forwarded is never forwarded on: it is served here or refused, and
//! the other node asks again.

use super::callers::Caller;
use crate::error::ProposeError;
use quorate_raft::{Index, NodeId, Term};

/// The node's part in the cluster.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub is_leader: bool,
    pub term: Term,
    /// The node that is taken for the leader of this term; it may be this node.
    pub known_leader: Option<NodeId>,
    /// Another node that leads and can be reached.
    pub leader: Option<NodeId>,
    pub is_stopping: bool,
    /// Leadership is about to move: proposals have to wait.
    pub holds_proposals: bool,
    pub is_storage_full: bool,
    /// The entry at which this node's state machine halted.
    pub halted_at: Option<Index>,
    /// There is no other member.
    pub is_alone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
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
    pub fn route(&self, is_forwarded: bool) -> Route {
        match self.leader {
            _ if self.is_leader => Route::Here,
            _ if is_forwarded => Route::Refuse,
            Some(leader) => Route::Forward(leader),
            None => Route::Defer,
        }
    }

    /// The refusal of a proposal that this caller made, if it is refused.
    pub fn refusal<W, C>(&self, caller: &Caller<W, C>) -> Option<ProposeError> {
        match caller {
            _ if self.is_stopping => Some(ProposeError::Stopped),
            // It is appended in the term in which it was forwarded, or never.
            Caller::There { .. } if !self.is_leader || caller.is_of_another_term(self.term) => {
                Some(ProposeError::NoLeader)
            }
            // Its outcome would be unknown here; another node may come to lead.
            _ if self.is_leader && self.halted_at.is_some() => self.halted_at.map(|at| ProposeError::Halted { at }),
            // No other node will come to lead.
            Caller::Here { .. } if self.route(false) == Route::Defer && self.is_storage_full && self.is_alone => {
                Some(ProposeError::StorageFull)
            }
            _ => None,
        }
    }

    /// Whether a node that refused in `term` is still taken for the leader of that term: to ask it
    /// again is no use. Another leader, or that there is none, will be known soon.
    pub fn would_refuse_again(&self, node: NodeId, term: Term) -> bool {
        self.known_leader == Some(node) && self.term == term
    }

    /// The route of proposals that are not refused: it is the same for all.
    pub fn route_proposals(&self) -> Route {
        match self.route(false) {
            Route::Here if self.holds_proposals => Route::Defer,
            route => route,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_raft::Moment;

    const FOLLOWER: View = View {
        is_leader: false,
        term: Term(7),
        known_leader: Some(NodeId(2)),
        leader: Some(NodeId(2)),
        is_stopping: false,
        holds_proposals: false,
        is_storage_full: false,
        halted_at: None,
        is_alone: false,
    };
    const LEADER: View = View { is_leader: true, known_leader: Some(NodeId(1)), leader: None, ..FOLLOWER };
    const LEADERLESS: View = View { known_leader: None, leader: None, ..FOLLOWER };

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
    fn a_halted_leader_refuses_proposals_and_a_halted_follower_forwards_them() {
        let at = Index(5);
        let leader = View { halted_at: Some(at), ..LEADER };
        assert_eq!(leader.refusal(&own()), Some(ProposeError::Halted { at }));
        assert_eq!(leader.refusal(&forwarded_in(7)), Some(ProposeError::Halted { at }));
        assert_eq!(leader.route(true), Route::Here, "reads are told the commit index");
        let follower = View { halted_at: Some(at), ..FOLLOWER };
        assert_eq!((follower.refusal(&own()), follower.route_proposals()), (None, Route::Forward(NodeId(2))));
    }

    #[test]
    fn proposals_wait_while_leadership_is_about_to_move() {
        assert_eq!(LEADER.route_proposals(), Route::Here);
        assert_eq!(View { holds_proposals: true, ..LEADER }.route_proposals(), Route::Defer);
        assert_eq!(FOLLOWER.route_proposals(), Route::Forward(NodeId(2)));
        assert_eq!(LEADERLESS.route_proposals(), Route::Defer);
    }

    #[test]
    fn a_leader_that_refused_is_not_asked_again_in_its_term() {
        assert!(FOLLOWER.would_refuse_again(NodeId(2), Term(7)));
        assert!(!FOLLOWER.would_refuse_again(NodeId(2), Term(6)), "it leads since");
        assert!(!FOLLOWER.would_refuse_again(NodeId(3), Term(7)), "another node leads");
        assert!(!LEADERLESS.would_refuse_again(NodeId(2), Term(7)));
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

    fn own() -> Caller<(), ()> {
        Caller::Here { asked: Moment::default(), waiter: () }
    }

    fn forwarded_in(term: u64) -> Caller<(), ()> {
        Caller::There { node: NodeId(3), request: 1, term: Term(term), permit: () }
    }
}
