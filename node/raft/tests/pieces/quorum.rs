//! Majorities, plain and joint, compared with a twin that tries every set of voters.

use quorate_raft::{Ballot, BallotOutcome, Membership, NodeId, Phase, Term, quorum};

#[test]
fn a_quorum_is_a_majority_of_each_half() {
    for membership in memberships() {
        for agreeing in 0u32..32 {
            let agrees = |id: NodeId| agreeing & (1 << id.0) != 0;
            assert_eq!(quorum::reached(&membership, agrees), dumb(&membership, agrees), "{membership:?} {agreeing:b}");
        }
    }
}

#[test]
fn the_agreed_value_is_the_largest_that_a_quorum_has_reached() {
    for membership in memberships() {
        for values in 0..3u64.pow(5) {
            let reached = |id: NodeId| values / 3u64.pow(id.0 as u32) % 3;
            let largest = (0..3).rev().find(|value| dumb(&membership, |id| reached(id) >= *value)).unwrap_or(0);
            assert_eq!(quorum::agreed(&membership, reached), largest, "{membership:?} {values}");
        }
    }
}

#[test]
fn any_two_quorums_share_a_voter() {
    for membership in memberships() {
        for (one, two) in (0u32..32).flat_map(|one| (0u32..32).map(move |two| (one, two))) {
            let is = |set: u32| move |id: NodeId| set & (1 << id.0) != 0;
            if quorum::reached(&membership, is(one)) && quorum::reached(&membership, is(two)) {
                assert_ne!(one & two, 0, "{membership:?}");
            }
        }
    }
}

#[test]
fn a_ballot_is_won_by_a_quorum_and_lost_when_there_can_be_none() {
    for membership in memberships() {
        // Every voter grants, denies, or does not answer.
        for answers in 0..3u64.pow(5) {
            let answer = |id: NodeId| answers / 3u64.pow(id.0 as u32) % 3;
            let mut ballot = Ballot::new(Phase::Vote, 1, Term(1), membership.clone());
            for id in (0..5).map(NodeId).filter(|id| answer(*id) < 2) {
                ballot.count(id, answer(id) == 1);
            }
            let expected = match () {
                () if dumb(&membership, |id| answer(id) == 1) => BallotOutcome::Won,
                () if dumb(&membership, |id| answer(id) != 0) => BallotOutcome::Open,
                () => BallotOutcome::Lost,
            };
            assert_eq!(ballot.outcome(), expected, "{membership:?} {answers}");
        }
    }
}

/// Every membership of up to five nodes, plain and joint, and those without (new) voters.
fn memberships() -> impl Iterator<Item = Membership> {
    let set = |set: u32| (0..5).map(NodeId).filter(move |id| set & (1 << id.0) != 0);
    (0u32..32).flat_map(move |incoming| (0u32..32).map(move |outgoing| Membership::joint(set(incoming), set(outgoing))))
}

/// A quorum, by the definition: more than half of each half that exists.
fn dumb(membership: &Membership, agrees: impl Fn(NodeId) -> bool) -> bool {
    let more_than_half = |voters: &[NodeId]| {
        let agreeing = voters.iter().filter(|id| agrees(**id)).count();
        agreeing * 2 > voters.len()
    };
    let old = membership.outgoing();
    more_than_half(membership.incoming()) && (old.is_empty() || more_than_half(old))
}
