//! Read rounds: an answer confirms its own round and earlier ones, never a later one.

use quorate_raft::{ClockDrift, Index, Membership, NodeId, Promise, ReadToken, Reads};

#[test]
fn reads_that_arrive_during_a_round_wait_together_for_the_next() {
    let (mut reads, members) = (Reads::default(), members());
    assert_eq!(reads.open_round(Index(3), None), None, "no read waits");
    reads.ask(1);
    assert_eq!(reads.open_round(Index(3), None), Some(1));
    reads.ask(2);
    reads.ask(3);
    assert_eq!(reads.open_round(Index(9), None), None, "a round is under way");
    assert_eq!(confirmed(&mut reads, &members), None);
    reads.answered(NodeId(2), 1, Promise::NONE);
    assert_eq!(confirmed(&mut reads, &members), Some((Index(3), vec![1])), "at the index noted when it was opened");
    assert_eq!(confirmed(&mut reads, &members), None, "once");
    assert_eq!(reads.open_round(Index(9), None), Some(2));
    assert_eq!(confirmed(&mut reads, &members), None, "the answer to round 1 says nothing of round 2");
    reads.answered(NodeId(2), 1, Promise::NONE);
    reads.answered(NodeId(3), Reads::NO_ROUND, Promise::NONE);
    assert_eq!(confirmed(&mut reads, &members), None, "nor does it when it comes again");
    reads.answered(NodeId(3), 2, Promise::NONE);
    assert_eq!(confirmed(&mut reads, &members), Some((Index(9), vec![2, 3])));
}

#[test]
fn an_answer_to_a_round_that_was_never_opened_does_not_count() {
    let (mut reads, members) = (Reads::default(), members());
    reads.ask(1);
    reads.open_round(Index(3), None);
    reads.answered(NodeId(2), 2, Promise::NONE);
    reads.answered(NodeId(3), u64::MAX, Promise::NONE);
    assert_eq!(confirmed(&mut reads, &members), None, "not for this round");
    reads.answered(NodeId(2), 1, Promise::NONE);
    assert!(confirmed(&mut reads, &members).is_some());
    reads.ask(2);
    reads.open_round(Index(3), None);
    assert_eq!(confirmed(&mut reads, &members), None, "nor, kept, for one that is opened later");
}

#[test]
fn a_lost_leadership_gives_every_read_back() {
    let mut reads = Reads::default();
    reads.ask(1);
    reads.open_round(Index(3), None);
    reads.ask(2);
    assert_eq!(reads.abandon(), [1, 2]);
    assert_eq!(reads.abandon(), []);
}

#[test]
fn a_single_voter_confirms_by_itself() {
    let mut reads = Reads::default();
    reads.ask(1);
    reads.open_round(Index(3), None);
    assert_eq!(confirmed(&mut reads, &Membership::of_voters([NodeId(1)])), Some((Index(3), vec![1])));
}

fn members() -> Membership {
    Membership::of_voters([1, 2, 3].map(NodeId))
}

/// Without a promise: no lease is involved here.
fn confirmed(reads: &mut Reads, members: &Membership) -> Option<(Index, Vec<ReadToken>)> {
    reads.confirmed(NodeId(1), members, Promise::NONE, ClockDrift::default())
}
