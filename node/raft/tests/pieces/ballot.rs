//! The votes of one round of a campaign.

use quorate_raft::{Ballot, BallotOutcome, Membership, NodeId, Phase, Term};

#[test]
fn a_voters_first_answer_stands_and_strangers_do_not_count() {
    let membership = Membership::of_voters([1, 2, 3].map(NodeId)).with_learners([NodeId(4)]);
    let mut ballot = Ballot::new(Phase::PreVote, 1, Term(1), membership);
    assert_eq!(ballot.count(NodeId(1), true), BallotOutcome::Open);
    assert_eq!(ballot.count(NodeId(1), true), BallotOutcome::Open, "one vote each");
    assert_eq!(ballot.count(NodeId(4), true), BallotOutcome::Open, "a learner has none");
    assert_eq!(ballot.count(NodeId(9), true), BallotOutcome::Open, "nor has a stranger");
    assert_eq!(ballot.count(NodeId(2), false), BallotOutcome::Open);
    assert_eq!(ballot.count(NodeId(2), true), BallotOutcome::Open, "the first answer stands");
    assert_eq!(ballot.count(NodeId(3), true), BallotOutcome::Won);
}

#[test]
fn a_joint_ballot_needs_both_halves() {
    let mut ballot =
        Ballot::new(Phase::Vote, 1, Term(1), Membership::joint([1, 2, 3].map(NodeId), [3, 4, 5].map(NodeId)));
    for voter in [1, 2, 3] {
        assert_eq!(ballot.count(NodeId(voter), true), BallotOutcome::Open);
    }
    assert_eq!(ballot.clone().count(NodeId(4), true), BallotOutcome::Won);
    ballot.count(NodeId(4), false);
    assert_eq!(ballot.count(NodeId(5), false), BallotOutcome::Lost);
}

#[test]
fn no_candidate_wins_without_voters() {
    assert_eq!(Ballot::new(Phase::Vote, 1, Term(1), Membership::default()).count(NodeId(1), true), BallotOutcome::Lost);
}
