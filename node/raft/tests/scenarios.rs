//! What went wrong in other Raft systems, one test each, named after what must hold here. The numbers are those of the
//! project's list of scenarios. Not here: 13, which is about leases, and the ones that no rule decides alone (10 and 11
//! also depend on timers, and are tried with whole nodes too).

mod support;

use quorate_raft::{
    Body, Credit, Effect, Entries, HardState, Index, Message, NodeId, Persist, Phase, Progress, ProgressState, Role,
    Term, Violation,
};
use rand::{SeedableRng, rngs::SmallRng};
use std::{cell::RefCell, collections::BTreeSet};
use support::{
    disk::Disk,
    make::{
        append, append_reply, at, batch, disk_of, halted, hear, heartbeat, heartbeat_reply, id, lead, log_of, opened,
        persist_all, persists, replica, request_vote, sent, settings, stand, terms, vote, vote_reply, voters,
    },
    world::{Event, World},
};

// ---- Elections ----

/// 1. A vote that was not durable was never given: after a crash the node may vote anew, and nobody counted the first.
#[test]
fn a_vote_that_a_crash_erased_was_never_heard_of() {
    let mut world = World::new(3);
    world.cut_link(1, 3);
    world.stuck.insert(NodeId(2));
    world.pass(400);
    world.timeout_of(1);
    assert_eq!(world.replica(2).vote(), Some(NodeId(1)), "decided, but not durable");
    assert_eq!(*world.replica(1).role(), Role::Candidate, "so not counted either");
    world.crash(2);
    world.restart(2);
    assert_eq!(world.replica(2).vote(), None);
    world.stuck.clear();
    world.crash(1);
    world.elect(3);
    assert_eq!((world.term(3), world.replica(2).vote()), (1, Some(NodeId(3))));
}

/// 2. A candidate that steps down within its term keeps the vote that it cast in it.
#[test]
fn stepping_down_within_a_term_keeps_its_vote() {
    let mut node = replica(1, 3, 5, None, &[]);
    stand(&mut node, at(0));
    hear(&mut node, at(0), 2, 6, heartbeat(0, 0));
    assert_eq!((node.role(), node.vote()), (&Role::Follower, Some(NodeId(1))));
    let effects = hear(&mut node, at(1_000), 3, 6, request_vote(Phase::Vote, 1, id(9, 6)));
    assert_eq!(vote_reply(&effects), Some((Term(6), false)));

    let mut leader = replica(1, 3, 5, None, &[]);
    lead(&mut leader, at(0));
    leader.election_timeout(at(1_000), Term(6), &mut Vec::new());
    assert_eq!((leader.role(), leader.vote()), (&Role::Follower, Some(NodeId(1))), "so does a leader without a quorum");
    let effects = hear(&mut leader, at(1_000), 3, 6, request_vote(Phase::Vote, 1, id(9, 6)));
    assert_eq!(vote_reply(&effects), Some((Term(6), false)));
}

/// 3. A pre-vote changes nobody's term or vote, and its late answer is no vote.
#[test]
fn a_pre_vote_changes_nothing_and_its_late_answer_is_no_vote() {
    let mut voter = replica(1, 3, 5, Some(2), &[1]);
    let effects = hear(&mut voter, at(0), 3, 8, request_vote(Phase::PreVote, 1, id(4, 8)));
    assert_eq!(vote_reply(&effects), Some((Term(8), true)));
    assert_eq!((voter.term(), voter.vote()), (Term(5), Some(NodeId(2))));
    assert!(persists(&effects).is_empty() && !effects.contains(&Effect::ArmTimer));

    let mut candidate = replica(1, 3, 5, None, &[]);
    let campaign = stand(&mut candidate, at(0)).campaign;
    for campaign in [campaign - 1, campaign] {
        for term in [5, 6] {
            assert_eq!(hear(&mut candidate, at(0), 2, term, vote(Phase::PreVote, campaign, true)), []);
        }
    }
    assert_eq!(
        hear(&mut candidate, at(0), 2, 6, vote(Phase::Vote, campaign - 1, true)),
        [],
        "nor one of another campaign"
    );
}

/// 4. Granting a pre-vote is not hearing a leader, and does not skip the log check.
#[test]
fn granting_a_pre_vote_protects_nobody_and_checks_the_log() {
    let mut voter = replica(1, 3, 5, None, &[1, 5]);
    let effects = hear(&mut voter, at(0), 2, 5, request_vote(Phase::PreVote, 1, id(2, 5)));
    assert_eq!(vote_reply(&effects), Some((Term(5), true)));
    assert!(!effects.contains(&Effect::LeaderHeard));
    let effects = hear(&mut voter, at(0), 3, 6, request_vote(Phase::Vote, 1, id(2, 5)));
    assert_eq!(vote_reply(&effects), Some((Term(6), true)), "the real vote is still free");
    let effects = hear(&mut voter, at(0), 2, 6, request_vote(Phase::PreVote, 2, id(1, 5)));
    assert_eq!(vote_reply(&effects), Some((Term(6), false)), "a shorter log is not up to date");
}

/// 5. "At least as up to date" compares (term, index) as a pair, term first.
#[test]
fn a_later_last_term_beats_a_longer_log() {
    let mut voter = replica(1, 3, 5, None, &[1, 1, 1, 3]);
    let effects = hear(&mut voter, at(0), 2, 5, request_vote(Phase::Vote, 1, id(1, 4)));
    assert_eq!(vote_reply(&effects), Some((Term(5), true)));
    let mut voter = replica(1, 3, 5, None, &[1, 1, 1, 3]);
    let effects = hear(&mut voter, at(0), 2, 5, request_vote(Phase::Vote, 1, id(9, 2)));
    assert_eq!(vote_reply(&effects), Some((Term(5), false)));
}

/// 6. A node with a better log in an earlier term learns of the later term through its pre-votes, and then wins.
#[test]
fn a_better_log_in_an_earlier_term_still_comes_to_lead() {
    let disks = vec![disk_of(2, None, &[1, 1, 2, 2]), disk_of(5, None, &[1, 1]), Disk::default()];
    let mut world = World::with(disks, settings());
    world.crash(3);
    world.pass(400);
    world.timeout_of(2);
    assert_eq!(world.leaders(), [], "2 is behind");
    world.timeout_of(1);
    assert_eq!(world.term(1), 5, "denied, and told of the later term");
    world.timeout_of(1);
    assert_eq!(world.leaders(), [(Term(6), NodeId(1))]);
}

/// 7. Both survivors of a leader campaign at once: each has forgotten it, so one of them wins.
#[test]
fn two_pre_candidates_forget_the_dead_leader_and_elect_one_of_them() {
    let mut world = World::new(3);
    world.elect(1);
    world.crash(1);
    world.pass(150);
    world.must(Event::Timeout(NodeId(2)));
    world.must(Event::Timeout(NodeId(3)));
    assert_eq!([2, 3].map(|id| world.replica(id).leader()), [None; 2]);
    assert_eq!([2, 3].map(|id| world.replica(id).role().clone()), [Role::PreCandidate, Role::PreCandidate]);
    world.settle();
    assert_eq!(world.term(2).max(world.term(3)), 2, "both pre-votes were won");
    world.pass(400);
    for id in [2, 3] {
        if world.leaders().is_empty() {
            world.timeout_of(id);
        }
    }
    assert_eq!(world.leaders().len(), 1);
}

/// 8. A campaign that was overtaken, by a leader or by a vote for another, does not go on; and no timer stays disarmed.
#[test]
fn an_overtaken_campaign_ends_and_the_timer_stays_armed() {
    let mut node = replica(1, 3, 5, None, &[]);
    let mut out = Vec::new();
    node.election_timeout(at(0), Term(5), &mut out);
    let ballot = opened(&out).expect("a pre-vote");
    let effects = hear(&mut node, at(0), 2, 5, heartbeat(0, 0));
    assert!(effects.contains(&Effect::CloseBallot) && effects.contains(&Effect::LeaderHeard));
    out.clear();
    node.election_won(at(0), ballot.term, ballot.campaign, &mut out);
    assert_eq!((out.as_slice(), node.term()), (&[][..], Term(5)), "a leader was heard in between");

    let mut node = replica(1, 3, 5, None, &[]);
    node.election_timeout(at(0), Term(5), &mut out);
    let ballot = opened(&out).expect("a pre-vote");
    let effects = hear(&mut node, at(0), 2, 5, request_vote(Phase::Vote, 1, id(0, 0)));
    assert_eq!(vote_reply(&effects), Some((Term(5), true)));
    assert!(effects.contains(&Effect::CloseBallot) && effects.contains(&Effect::ArmTimer));
    out.clear();
    node.election_won(at(0), ballot.term, ballot.campaign, &mut out);
    assert_eq!((out.as_slice(), node.term()), (&[][..], Term(5)), "it helped to elect another in between");

    let mut node = replica(1, 3, 5, None, &[]);
    let mut campaigns = Vec::new();
    for _ in 0..3 {
        out.clear();
        node.election_timeout(at(0), Term(5), &mut out);
        assert!(out.contains(&Effect::ArmTimer));
        campaigns.extend(opened(&out).map(|ballot| ballot.campaign));
    }
    out.clear();
    for campaign in &campaigns[..2] {
        node.election_won(at(0), Term(5), *campaign, &mut out);
        node.election_lost(Term(5), *campaign, &mut out);
    }
    node.election_won(at(0), Term(4), campaigns[2], &mut out);
    assert_eq!((out.as_slice(), node.role()), (&[][..], &Role::PreCandidate), "news of earlier campaigns say nothing");
    assert!(lead(&mut node, at(0)).contains(&Effect::ArmTimer));
    out.clear();
    node.election_timeout(at(0), node.term(), &mut out);
    assert!(out.contains(&Effect::ArmTimer), "a leader's too: it checks its quorum by it");
}

/// 8., too: a vote for oneself that becomes durable late counts for no campaign but its own.
#[test]
fn a_vote_for_oneself_counts_for_its_own_campaign_alone() {
    let mut node = replica(1, 3, 5, None, &[]);
    let mut out = Vec::new();
    node.election_timeout(at(0), Term(5), &mut out);
    let ballot = opened(&out).expect("a pre-vote");
    node.election_won(at(0), ballot.term, ballot.campaign, &mut out);
    hear(&mut node, at(0), 2, 6, heartbeat(0, 0));
    assert_eq!(persist_all(&mut node, &out), [], "the campaign is over");
}

/// 9. Nodes that all time out at once draw new timeouts, and soon differ.
#[test]
fn nodes_that_time_out_together_do_not_do_so_for_ever() {
    for seed in 0..20 {
        let mut world = World::new(3);
        world.timeouts = Some(SmallRng::seed_from_u64(seed));
        world.pass(400);
        (1..=3).for_each(|id| world.must(Event::Timeout(NodeId(id))));
        (1..=3).for_each(|id| world.must(Event::WinPreVote(NodeId(id))));
        world.settle();
        assert_eq!(world.leaders(), [], "everybody voted for themselves");
        for _ in 0..3_000 {
            world.pass(1);
            let due = |id: &NodeId| world.running(*id).is_some_and(|node| node.deadline <= world.now);
            let due: Vec<_> = world.ids().filter(due).collect();
            due.into_iter().for_each(|id| world.must(Event::Timeout(id)));
            world.settle();
        }
        assert_eq!(world.leaders().len(), 1, "seed {seed}");
    }
}

/// 10. A node that was cut off comes back without an inflated term, and the leader stays.
#[test]
fn a_node_that_comes_back_deposes_nobody() {
    let mut world = World::new(3);
    world.elect(1);
    world.isolate(3);
    for _ in 0..20 {
        world.pass(100);
        world.beat(1);
        world.timeout_of(3);
    }
    world.heal();
    world.timeout_of(3);
    assert_eq!((world.term(3), world.leaders()), (1, vec![(Term(1), NodeId(1))]));
    world.beat(1);
    assert_eq!(world.replica(3).leader(), Some(NodeId(1)));
}

/// 10., too: even a node that did raise its term deposes nobody while the others hear their leader (thesis §4.2.3).
#[test]
fn whoever_hears_a_leader_takes_no_note_of_a_campaign() {
    let mut follower = replica(1, 3, 5, None, &[]);
    hear(&mut follower, at(1_000), 2, 5, heartbeat(0, 0));
    let effects = hear(&mut follower, at(1_149), 3, 9, request_vote(Phase::Vote, 1, id(9, 9)));
    assert_eq!((vote_reply(&effects), follower.term()), (Some((Term(5), false)), Term(5)));
    let mut leader = replica(2, 3, 4, None, &[]);
    lead(&mut leader, at(1_000));
    let effects = hear(&mut leader, at(1_149), 3, 9, request_vote(Phase::Vote, 1, id(9, 9)));
    assert_eq!((vote_reply(&effects), leader.is_leader()), (Some((Term(5), false)), true));
    let effects = hear(&mut follower, at(1_150), 3, 9, request_vote(Phase::Vote, 2, id(9, 9)));
    assert_eq!(vote_reply(&effects), Some((Term(9), true)), "after the shortest election timeout it does");
}

/// 11. Two nodes that can't reach each other but both reach the third: the leader stays, and terms do not rise.
#[test]
fn a_triangle_with_a_missing_side_keeps_its_leader() {
    let mut world = World::new(3);
    world.elect(1);
    world.cut_link(1, 2);
    for _ in 0..30 {
        world.pass(100);
        world.beat(1);
        world.timeout_of(2);
        world.timeout_of(1);
    }
    assert_eq!((world.leaders(), world.term(2)), (vec![(Term(1), NodeId(1))], 1));
}

/// 12. A leader that hears nobody steps down; a node that hears nobody disturbs nobody.
#[test]
fn one_way_links_neither_keep_a_deaf_leader_nor_let_a_deaf_follower_disrupt() {
    let mut world = World::new(3);
    world.elect(1);
    world.cut_way(2, 1);
    world.cut_way(3, 1);
    for _ in 0..4 {
        world.pass(100);
        world.beat(1);
        world.timeout_of(1);
    }
    assert_eq!(world.leaders(), [], "it sends, and hears nobody");

    let mut world = World::new(3);
    world.elect(1);
    world.cut_way(1, 3);
    world.cut_way(2, 3);
    for _ in 0..10 {
        world.pass(100);
        world.beat(1);
        world.timeout_of(3);
        world.timeout_of(1);
    }
    assert_eq!((world.leaders(), world.term(3)), (vec![(Term(1), NodeId(1))], 1));
}

/// 14. Two leaders of one term are noticed by whoever hears both, and stop it.
#[test]
fn hearing_two_leaders_of_one_term_stops_the_node() {
    let mut follower = replica(1, 3, 5, None, &[]);
    hear(&mut follower, at(0), 2, 5, heartbeat(0, 0));
    let expected = |one, other| Some(Violation::TwoLeaders { term: Term(5), one: NodeId(one), other: NodeId(other) });
    assert_eq!(halted(&hear(&mut follower, at(0), 3, 5, heartbeat(0, 0))), expected(2, 3));
    assert_eq!(halted(&hear(&mut follower, at(0), 3, 5, append(1, id(0, 0), 0, None))), expected(2, 3));
    let mut leader = replica(1, 3, 4, None, &[]);
    lead(&mut leader, at(0));
    assert_eq!(halted(&hear(&mut leader, at(0), 3, 5, heartbeat(0, 0))), expected(1, 3));
}

// ---- Replication and commit ----

/// 15. Figure 8: an entry of an earlier term on a majority is not committed by that, and may yet be replaced.
#[test]
fn an_entry_of_an_earlier_term_is_not_committed_by_counting() {
    let disks = [&[1, 2][..], &[1], &[1], &[1], &[1, 3]].map(|terms| disk_of(3, None, terms));
    let mut world = World::with(disks.into(), settings());
    world.isolate(5);
    world.cut_link(1, 4);
    // The no-op of term 4 reaches nobody, but for the first try at each node, which rejects it: it lacks entry 2.
    let tried = RefCell::new(BTreeSet::new());
    let carries_term_4 = |_: NodeId, to: NodeId, message: &Message| match &message.body {
        Body::Append(append) if append.batch.as_ref().is_some_and(|batch| batch.term() == Term(4)) => {
            !tried.borrow_mut().insert(to)
        }
        _ => false,
    };
    world.pass(400);
    world.must(Event::Timeout(NodeId(1)));
    world.settle_but(carries_term_4);
    assert_eq!((world.log(2), world.log(3)), (vec![1, 2], vec![1, 2]), "entry 2 is on three of five");
    let matched = [2, 3].map(|peer| world.replicator(1, peer).progress.matched());
    assert_eq!(matched, [Index(2); 2], "and the leader knows it");
    assert_eq!(world.commit(1), 0, "and not committed");
    world.crash(1);
    world.heal();
    world.pass(400);
    world.timeout_of(5);
    assert_eq!(world.term(5), 4, "it learns of the later term first");
    world.elect(5);
    assert_eq!(world.log(3), [1, 3, 5], "it is replaced");
}

/// 16. Acknowledgements out of order never commit what no quorum has.
#[test]
fn acknowledgements_out_of_order_commit_no_more_than_a_quorum_has() {
    let mut leader = replica(1, 5, 1, None, &[]);
    let led = lead(&mut leader, at(0));
    let mut out = Vec::new();
    let mut proposal = leader.next_batch(0).expect("it leads");
    (0..4).for_each(|_| proposal.push(quorate_raft::Kind::Command, b"x"));
    leader.propose(at(0), proposal.finish().expect("four entries"), &mut out);
    let mut commits = Vec::new();
    for (peer, index) in [(2, 5), (3, 1), (4, 4), (3, 3), (5, 2), (3, 5)] {
        leader.matched(NodeId(peer), Index(index), &mut out);
        commits.push(leader.commit().0);
    }
    assert_eq!(commits, [0, 0, 1, 3, 3, 4], "the third highest of five, its own disk counting as 0");
    persist_all(&mut leader, &led);
    assert_eq!(leader.commit(), Index(4));
}

/// 17. After a follower's log went back, an acknowledgement from before counts for nothing.
#[test]
fn an_acknowledgement_from_before_a_log_went_back_does_not_count() {
    let mut progress = Progress::new(at(0), Index(5), Credit::default());
    progress.send(at(0), id(5, 1), None).expect("a probe");
    let before = progress.epoch();
    assert_eq!(progress.acknowledged(at(0), before, Index(5)), Some(Index(5)));
    assert_eq!(progress.rejected(at(0), before, Index(5), Index(3), Index(2)), Some(Index(2)), "it lost 3 to 5");
    assert_eq!(progress.acknowledged(at(0), before, Index(5)), None);
    assert_eq!((progress.matched(), progress.state()), (Index(2), ProgressState::Probe));

    let mut leader = replica(1, 3, 1, None, &[]);
    lead(&mut leader, at(0));
    leader.matched(NodeId(2), Index(1), &mut Vec::new());
    assert_eq!(leader.commit(), Index(0));
    leader.matched(NodeId(2), Index(0), &mut Vec::new());
    leader.matched(NodeId(3), Index(1), &mut Vec::new());
    assert_eq!(leader.commit(), Index(0), "only one of the two still has it");
}

/// 18. A rejection of an append of an earlier term, or epoch, moves nothing.
#[test]
fn a_stale_rejection_rewinds_nothing() {
    let mut follower = replica(2, 3, 7, None, &[1]);
    let effects = hear(&mut follower, at(0), 1, 5, append(1, id(4, 5), 0, None));
    let answer = &sent(&effects)[0].message;
    let Body::AppendReply(reply) = answer.body else { panic!("an answer to the append") };
    assert_eq!((answer.term, reply.epoch), (Term(7), Progress::NO_EPOCH), "its sender may lead term 7 by now");

    let mut progress = Progress::new(at(0), Index(5), Credit::default());
    progress.send(at(0), id(5, 1), None).expect("a probe");
    let stale = progress.epoch();
    progress.link_changed(at(0));
    progress.send(at(0), id(5, 1), None).expect("a probe");
    progress.acknowledged(at(0), progress.epoch(), Index(5));
    for epoch in [Progress::NO_EPOCH, stale] {
        assert_eq!(progress.rejected(at(0), epoch, Index(5), Index(1), Index(0)), None);
    }
    assert_eq!((progress.matched(), progress.next(), progress.state()), (Index(5), Index(6), ProgressState::Replicate));
}

/// 18., second half: a completion from before a truncation counts nothing that was truncated.
#[test]
fn a_completion_from_before_a_truncation_counts_nothing_truncated() {
    let mut follower = replica(1, 3, 1, None, &[]);
    let (old, new) = (log_of(&[1, 1, 1]), log_of(&[1, 2]));
    let first = hear(&mut follower, at(0), 2, 1, append(1, id(0, 0), 0, Some(old[0].clone())));
    let second = hear(&mut follower, at(0), 3, 2, append(1, id(1, 1), 0, Some(new[1].clone())));
    let mut out = Vec::new();
    follower.persisted(persists(&first)[0].sequence, &mut out);
    assert_eq!(follower.durable(), Index(1), "3 was durable for a moment, and 2 is another now");
    hear(&mut follower, at(0), 3, 2, append(1, id(2, 2), 2, None));
    assert_eq!(follower.released(), Index(1), "so 2 is not applied");
    persist_all(&mut follower, &second);
    assert_eq!((follower.durable(), follower.released()), (Index(2), Index(2)));
}

/// 19. A delayed duplicate of an append deletes nothing behind it.
#[test]
fn a_delayed_duplicate_deletes_nothing() {
    let mut follower = replica(1, 3, 1, None, &[]);
    let log = log_of(&[1, 1, 1]);
    let early = log[0].up_to(Index(1));
    hear(&mut follower, at(0), 2, 1, append(1, id(0, 0), 0, early.clone()));
    hear(&mut follower, at(0), 2, 1, append(1, id(1, 1), 3, log[0].from(Index(2))));
    let effects = hear(&mut follower, at(0), 2, 1, append(1, id(0, 0), 0, early));
    assert_eq!((terms(&follower), follower.commit()), (vec![1, 1, 1], Index(3)));
    assert!(persists(&effects).iter().all(|persist| persist.truncate_from.is_none()));
}

/// 20. A commit index says nothing about a suffix that this append did not check.
#[test]
fn an_unchecked_suffix_is_not_committed() {
    let mut follower = replica(1, 3, 1, None, &[1, 1, 1]);
    hear(&mut follower, at(0), 2, 2, append(1, id(1, 1), 3, None));
    assert_eq!(follower.commit(), Index(1), "2 and 3 may not be the leader's");

    let disks = vec![disk_of(2, None, &[1, 2]), disk_of(2, None, &[1, 2]), disk_of(1, None, &[1, 1, 1])];
    let mut world = World::with(disks, settings());
    world.cut_link(1, 3);
    world.elect(1);
    assert_eq!(world.commit(1), 3);
    world.heal();
    world.must(Event::Heartbeat(NodeId(1)));
    world.settle_but(|_, to, message| to == NodeId(3) && matches!(message.body, Body::Append(_)));
    assert_eq!(world.commit(3), 0, "a heartbeat names no more than was seen to match");
}

/// 21. Entries never leave without the entry before them, wherever they are read from.
#[test]
fn entries_never_leave_without_the_one_before_them() {
    let mut disk = disk_of(2, None, &[1, 1, 1, 2, 2]);
    disk.compact(Index(2), voters(3));
    let mut leader = quorate_raft::Replica::new(NodeId(1), support::make::voters(3), disk.recover(), settings());
    lead(&mut leader, at(0));
    for from in 0..=8 {
        match leader.entries(Index(from), 1_000) {
            Entries::Here { previous, batch, .. } => {
                assert!(leader.log().contains(previous));
                assert!(batch.is_none_or(|batch| batch.first() == previous.index.next()));
            }
            Entries::OnDisk { previous, to } => {
                assert!(leader.log().contains(previous) && previous.index < to && from == previous.index.0 + 1);
            }
            Entries::Compacted => assert!(from <= 2),
        }
    }
    let mut progress = Progress::new(at(0), Index(5), Credit::default());
    assert_eq!(progress.send(at(0), id(0, 0), Some(batch(2, 6, 1, 0))), None, "a gap is not sent");
    assert_eq!(progress.send(at(0), id(5, 2), Some(batch(2, 7, 1, 0))), None);
}

/// 22. Completions out of order lose nothing.
#[test]
fn completions_out_of_order_lose_nothing() {
    let mut follower = replica(1, 3, 1, None, &[]);
    let log = log_of(&[1, 1, 1]);
    let one = hear(&mut follower, at(0), 2, 1, append(1, id(0, 0), 3, log[0].up_to(Index(2))));
    let two = hear(&mut follower, at(0), 2, 1, append(1, id(2, 1), 3, log[0].from(Index(3))));
    persist_all(&mut follower, &two);
    assert_eq!(follower.durable(), Index(3));
    assert_eq!(persist_all(&mut follower, &one), [], "an earlier one says nothing new");
    assert_eq!((follower.durable(), follower.released(), follower.writing_since()), (Index(3), Index(3), None));
}

/// 22. and 23. A single voter leads and commits, and not before its own disk has finished.
#[test]
fn a_single_voter_commits_when_its_disk_has_and_not_before() {
    let mut world = World::new(1);
    world.stuck.insert(NodeId(1));
    world.timeout_of(1);
    assert_eq!(*world.replica(1).role(), Role::Candidate, "its own vote counts once it is durable");
    world.stuck.clear();
    world.settle();
    assert_eq!((world.leaders().len(), world.commit(1)), (1, 1));
    world.stuck.insert(NodeId(1));
    world.propose(1, 2);
    assert_eq!((world.commit(1), world.replica(1).applied_index()), (1, Index(1)));
    world.stuck.clear();
    world.settle();
    assert_eq!((world.commit(1), world.replica(1).applied_index()), (3, Index(3)));
}

/// 24. A probe for an entry that was compacted away asks for a snapshot, and one that can do without does not.
#[test]
fn a_probe_below_a_compacted_log_needs_a_snapshot_and_nothing_else_does() {
    let mut compacted = disk_of(4, None, &[1, 2, 2, 2, 4, 4]);
    compacted.compact(Index(4), voters(3));
    let disks = vec![compacted, disk_of(4, None, &[1, 2, 2, 2]), disk_of(4, None, &[1, 3, 3])];
    let mut world = World::with(disks, settings());
    world.elect(1);
    assert_eq!(world.log(2), [1, 2, 2, 2, 4, 4, 5], "2 has the base, and is served from there");
    assert_eq!(world.replicator(1, 3).progress.state(), ProgressState::Snapshot);
    assert_eq!(world.replicator(1, 2).progress.state(), ProgressState::Replicate);
    assert_eq!(world.log(3), [1, 3, 3]);
    assert_eq!(world.commit(1), 7);
}

/// 25. Credit comes back whatever is lost, and replication goes on.
#[test]
fn credit_never_leaks_and_replication_goes_on() {
    let credit = Credit { messages: 2, entries: 3, bytes: 200, append_bytes: 60, ..Credit::default() };
    let mut world =
        World::ruled(vec![Disk::default(); 3], support::world::Rules { settings: settings(), credit, prompt: false });
    world.elect(1);
    for round in 0..20 {
        world.must(Event::Propose(NodeId(1), 5));
        world.settle_but(|from, to, message| {
            let appends = matches!(message.body, Body::Append(_) | Body::AppendReply(_));
            appends && (from == NodeId(2) || to == NodeId(2)) && (round + from.0) % 3 == 0
        });
        for _ in 0..8 {
            world.pass(500);
            world.beat(1);
        }
        for peer in [2, 3] {
            let progress = &world.replicator(1, peer).progress;
            assert_eq!((progress.in_flight_bytes(), progress.lag()), (0, 0), "round {round}, peer {peer}");
            assert_eq!(progress.state(), ProgressState::Replicate);
        }
    }
    assert_eq!(world.log(2), vec![1; 101]);
}

/// 26. What goes unanswered is sent again, ever more rarely; any answer ends the restraint.
#[test]
fn retries_back_off_and_an_answer_ends_that() {
    let mut progress = Progress::new(at(0), Index(5), Credit::default());
    let (mut now, mut waits) = (0, Vec::new());
    for _ in 0..6 {
        progress.send(at(now), id(5, 1), None).expect("a probe");
        let since = now;
        while progress.want().is_none() {
            now += 10;
            progress.tick(at(now));
        }
        waits.push(now - since);
    }
    assert_eq!(waits, [200, 400, 800, 1_600, 3_000, 3_000], "milliseconds");
    let wait = |progress: &mut Progress, now: u64| {
        let previous = id(progress.next().0 - 1, 1);
        progress.send(at(now), previous, None).expect("a probe");
        progress.tick(at(now + 200));
        progress.want().is_some()
    };
    progress.send(at(now), id(5, 1), None).expect("a probe");
    progress.rejected(at(now), progress.epoch(), Index(5), Index(3), Index(9));
    assert!(wait(&mut progress, now), "a rejection is an answer");
    progress.link_changed(at(now));
    assert!(wait(&mut progress, now), "so is a new link");
}

/// 26., too: a follower that is merely behind is found in one round trip, not in one an entry.
#[test]
fn a_follower_that_is_far_behind_is_found_in_one_round_trip() {
    let long = vec![1; 500];
    let disks = vec![disk_of(1, None, &long), disk_of(1, None, &long), disk_of(1, None, &long[..10])];
    let mut world = World::with(disks, settings());
    world.pass(400);
    world.must(Event::Timeout(NodeId(1)));
    let rejected = |(from, _, message): &(NodeId, NodeId, Message)| {
        let Body::AppendReply(reply) = &message.body else { return false };
        *from == NodeId(3) && matches!(reply.outcome, quorate_raft::AppendOutcome::Rejected { .. })
    };
    let rejections = world.settle().iter().filter(|arrived| rejected(arrived)).count();
    assert_eq!((world.log(3).len(), rejections), (501, 1));
}

/// 27. A fully compacted log and a follower with nothing: it waits for a snapshot, and goes on once that is installed.
#[test]
fn a_follower_with_nothing_and_a_leader_with_a_snapshot_alone_converge() {
    let mut compacted = disk_of(4, None, &[1, 2, 4]);
    compacted.compact(Index(3), voters(3));
    let mut world = World::with(vec![compacted.clone(), compacted.clone(), Disk::default()], settings());
    world.elect(1);
    assert_eq!(world.replicator(1, 3).progress.state(), ProgressState::Snapshot);
    assert_eq!(world.commit(1), 4, "the others do not wait for it");

    let mut progress = world.replicator(1, 3).progress.clone();
    assert_eq!(progress.want(), None);
    progress.installed(at(0), Index(3));
    let want = progress.want().expect("it probes behind the snapshot");
    assert_eq!((want.from, progress.state()), (Index(4), ProgressState::Probe));

    world.crash(3);
    let mut installed = compacted;
    installed.hard_state = HardState { term: Term(5), vote: None };
    world.node_mut(NodeId(3)).disk = installed;
    world.restart(3);
    world.crash(1);
    world.elect(2);
    assert_eq!(world.log(3), world.log(2), "a follower that has the snapshot needs no other");
}

// ---- Reads ----

/// 36. A new leader serves no read before it has committed in its own term: it may not know what was committed before.
#[test]
fn a_new_leader_serves_reads_only_after_its_first_commit() {
    let mut world = World::new(3);
    world.elect(1);
    world.must(Event::Propose(NodeId(1), 1));
    world.settle_but(|_, _, message| matches!(message.body, Body::Heartbeat(_)));
    assert_eq!((world.commit(1), world.commit(2)), (2, 1), "1 has committed what 2 does not know to be committed");
    world.crash(1);
    world.pass(400);
    world.must(Event::Timeout(NodeId(2)));
    let appends = |_: NodeId, _: NodeId, message: &Message| matches!(message.body, Body::Append(_));
    world.settle_but(appends);
    assert_eq!(world.leaders(), [(Term(2), NodeId(2))]);
    world.read(2, 7);
    world.must(Event::Heartbeat(NodeId(2)));
    world.settle_but(appends);
    assert_eq!(world.answered_reads(), (vec![], vec![]), "it waits, though a quorum follows");
    world.pass(250);
    world.beat(2);
    assert_eq!(world.answered_reads(), (vec![(7, Index(3))], vec![]));
}

/// 37. A late answer to an older round confirms no newer one.
#[test]
fn a_late_answer_confirms_no_newer_round() {
    let mut leader = replica(1, 3, 1, None, &[]);
    let led = lead(&mut leader, at(0));
    leader.matched(NodeId(2), Index(1), &mut Vec::new());
    persist_all(&mut leader, &led);
    let read = |leader: &mut quorate_raft::Replica, token| {
        let mut out = Vec::new();
        leader.read(token, &mut out);
        out
    };
    assert_eq!(read(&mut leader, 1), [Effect::HeartbeatNow { round: 1 }]);
    assert_eq!(hear(&mut leader, at(0), 2, 2, heartbeat_reply(0)), [], "an answer to what was sent before the read");
    assert_eq!(hear(&mut leader, at(0), 2, 2, heartbeat_reply(9)), [], "an answer to what was never sent");
    assert_eq!(read(&mut leader, 2), [], "the next round waits for this one");
    let ready = |tokens: Vec<u64>| Effect::ReadsReady { index: Index(1), tokens };
    let effects = hear(&mut leader, at(0), 3, 2, heartbeat_reply(1));
    assert_eq!(effects, [ready(vec![1]), Effect::HeartbeatNow { round: 2 }]);
    assert_eq!(hear(&mut leader, at(0), 2, 2, heartbeat_reply(1)), [], "late");
    assert_eq!(hear(&mut leader, at(0), 2, 2, heartbeat_reply(2)), [ready(vec![2])]);
}

/// 37., across terms: rounds begin anew with every leadership, so an answer to a heartbeat of an earlier one names none.
#[test]
fn an_answer_to_an_earlier_leadership_confirms_no_read_of_this_one() {
    let mut world = World::new(3);
    world.elect(1);
    world.read(1, 1);
    world.settle_within();
    // The heartbeat of round 1 in term 1 to node 2 is delayed; all else goes on until node 1 leads term 2.
    let delayed = world.wire.iter().position(|letter| letter.to == NodeId(2)).map(|at| world.wire.remove(at));
    world.settle();
    world.pass(400);
    world.timeout_of(1);
    assert_eq!(world.leaders(), [], "it heard no quorum for long");
    world.elect(1);
    assert_eq!((world.term(1), world.term(2)), (2, 2));
    world.wire.extend(delayed);
    world.deliver_first(|_, to, _| to == NodeId(2));
    let answer = world.wire.pop().expect("2 tells of the later term");
    // Node 2 answered before the next read is asked for; then it helps to elect node 3, which commits.
    world.isolate(1);
    world.elect(3);
    world.propose(3, 1);
    world.answered_reads();
    world.read(1, 2);
    world.settle_within();
    world.cut.clear();
    world.wire.insert(0, answer);
    world.deliver_first(|_, to, _| to == NodeId(1));
    assert_eq!(world.answered_reads().0, [], "node 1 no longer leads, and must not answer as if it did");
}

/// 52. A leader whose disk is stuck steps down and does not campaign, however well it is heard; another leads meanwhile.
#[test]
fn a_leader_whose_disk_is_stuck_is_replaced() {
    let mut world = World::new(3);
    world.elect(1);
    world.stuck.insert(NodeId(1));
    world.propose(1, 1);
    world.settle();
    // The others commit it: their disks work. But the leader's own does not, for three seconds.
    for _ in 0..29 {
        world.pass(100);
        world.beat(1);
        world.timeout_of(1);
    }
    assert_eq!(world.leaders(), vec![(Term(1), NodeId(1))]);
    world.pass(100);
    world.beat(1);
    world.timeout_of(1);
    assert_eq!(world.leaders(), vec![]);
    world.pass(1_000);
    world.timeout_of(1);
    assert_eq!(*world.replica(1).role(), Role::Follower, "it can't persist a vote for itself, so it does not ask");
    world.timeout_of(2);
    assert_eq!(world.leaders(), vec![(Term(2), NodeId(2))]);
    world.stuck.clear();
    world.settle();
    assert_eq!(world.replica(1).leader(), Some(NodeId(2)));
}

/// Hostile or broken peers are refused and stop nobody.
#[test]
fn malformed_messages_are_refused() {
    let refused = |effects: &[Effect]| matches!(effects.last(), Some(Effect::Refused { .. }));
    let mut node = replica(1, 3, 5, None, &[1]);
    assert!(refused(&hear(&mut node, at(0), 1, 5, heartbeat(0, 0))), "from itself");
    assert!(refused(&hear(&mut node, at(0), 2, u64::MAX, heartbeat(0, 0))), "a term near overflow");
    assert!(refused(&hear(&mut node, at(0), 2, 5, append(1, id(0, 3), 0, None))), "an entry before the first");
    assert!(refused(&hear(&mut node, at(0), 2, 5, append(1, id(1, 1), 0, Some(batch(1, 3, 1, 0))))), "a gap");
    assert!(refused(&hear(&mut node, at(0), 2, 5, append(1, id(1, 1), 0, Some(batch(9, 2, 1, 0))))), "a later term");
    assert!(
        refused(&hear(&mut node, at(0), 2, 5, append(1, id(1, 4), 0, Some(batch(2, 2, 1, 0))))),
        "terms going back"
    );
    let effects = hear(&mut node, at(0), 2, 5, append(1, id(u64::MAX, 5), u64::MAX, None));
    assert!(append_reply(&effects).is_some(), "an index near overflow is just not there");
    assert_eq!((terms(&node), node.commit(), node.term()), (vec![1], Index(0), Term(5)));
    let mut small = settings();
    small.unpersisted_bytes_max = 100;
    let mut node = quorate_raft::Replica::new(NodeId(1), support::make::voters(3), Disk::default().recover(), small);
    let log = log_of(&[5, 5, 5, 5]);
    let first = hear(&mut node, at(0), 2, 5, append(1, id(0, 0), 0, log[0].up_to(Index(2))));
    assert!(!refused(&first) && persists(&first).iter().any(|Persist { batch, .. }| batch.is_some()));
    let second = hear(&mut node, at(0), 2, 5, append(1, id(2, 5), 0, log[0].from(Index(3))));
    assert!(refused(&second), "more than may wait for the disk");
    persist_all(&mut node, &first);
    let again = hear(&mut node, at(0), 2, 5, append(1, id(2, 5), 0, log[0].from(Index(3))));
    assert!(!refused(&again), "sent again later it is taken");
}
