//! Elections. Leases are in `leases`; the scenarios that also depend on timers are tried with
//! whole nodes too.

use quorate_raft::{Denial, Effect, NodeId, Observation, Phase, Replica, Role, StepDown, Term, Violation};
use quorate_world::{
    disk::Disk,
    events::Event,
    fixtures::{
        append, at, disk_of, halted, hear, heartbeat, heartbeat_reply, id, lead, opened, persist_all, persists,
        replica, request_vote, settings, stand, vote, vote_reply,
    },
    world::World,
};
use rand::{SeedableRng, rngs::SmallRng};
use std::time::Duration;

/// "A vote reply leaves before the vote is durable": after a crash the node may vote anew, and its
/// first vote was never counted.
#[test]
fn a_vote_that_a_crash_erased_was_never_heard_of() {
    let mut world = World::new(3);
    world.cut_link(1, 3);
    world.stuck.insert(NodeId(2));
    for _ in 0..2 {
        // At its second pre-vote: a new node first waits for the answer of node 3.
        world.pass(400);
        world.timeout_of(1);
    }
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

/// Time in which a node's own thread did not run is not silence of the others, for a follower and
/// for a leader. The promise to a leader grows by it, but not into the future.
#[test]
fn a_stall_of_the_own_thread_is_no_silence_of_the_others() {
    let mut voter = replica(1, 3, 5, None, &[]);
    hear(&mut voter, at(1_000), 2, 5, heartbeat(0, 0));
    voter.stalled(at(1_400), Duration::from_millis(300));
    let granted = |voter: &mut Replica, now| {
        let effects = hear(voter, at(now), 3, 5, request_vote(Phase::PreVote, 1, id(9, 6)));
        vote_reply(&effects).map(|(_, granted)| granted)
    };
    assert_eq!(granted(&mut voter, 1_449), Some(false));
    assert_eq!(granted(&mut voter, 1_450), Some(true));
    hear(&mut voter, at(2_000), 2, 5, heartbeat(0, 0));
    voter.stalled(at(2_010), Duration::from_millis(300));
    assert_eq!(granted(&mut voter, 2_159), Some(false), "what was heard after the stall is not of the future");
    assert_eq!(granted(&mut voter, 2_160), Some(true));

    let mut leader = replica(1, 3, 5, None, &[]);
    lead(&mut leader, at(0));
    hear(&mut leader, at(100), 2, 6, heartbeat_reply(1));
    leader.stalled(at(1_000), Duration::from_millis(700));
    leader.election_timeout(at(1_099), Term(6), &mut Vec::new());
    assert!(leader.is_leader());
    leader.election_timeout(at(1_100), Term(6), &mut Vec::new());
    assert!(!leader.is_leader(), "silence without a stall counts");
}

/// A candidate that steps down within its term keeps the vote that it cast in it.
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

/// A pre-vote changes no term and no vote, and its late answer is no vote.
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

/// Granting a pre-vote does not count as hearing a leader, and does not skip the log check.
#[test]
fn granting_a_pre_vote_protects_no_candidate_and_checks_the_log() {
    let mut voter = replica(1, 3, 5, None, &[1, 5]);
    let effects = hear(&mut voter, at(0), 2, 5, request_vote(Phase::PreVote, 1, id(2, 5)));
    assert_eq!(vote_reply(&effects), Some((Term(5), true)));
    assert!(!effects.contains(&Effect::LeaderHeard));
    let effects = hear(&mut voter, at(0), 3, 6, request_vote(Phase::Vote, 1, id(2, 5)));
    assert_eq!(vote_reply(&effects), Some((Term(6), true)), "the real vote is still free");
    let effects = hear(&mut voter, at(0), 2, 6, request_vote(Phase::PreVote, 2, id(1, 5)));
    assert_eq!(vote_reply(&effects), Some((Term(6), false)), "a shorter log is not up to date");
}

/// "At least as up to date" compares (term, index) as a pair, term first.
#[test]
fn a_later_last_term_beats_a_longer_log() {
    let mut voter = replica(1, 3, 5, None, &[1, 1, 1, 3]);
    let effects = hear(&mut voter, at(0), 2, 5, request_vote(Phase::Vote, 1, id(1, 4)));
    assert_eq!(vote_reply(&effects), Some((Term(5), true)));
    let mut voter = replica(1, 3, 5, None, &[1, 1, 1, 3]);
    let effects = hear(&mut voter, at(0), 2, 5, request_vote(Phase::Vote, 1, id(9, 2)));
    assert_eq!(vote_reply(&effects), Some((Term(5), false)));
}

/// A node with a better log in an earlier term learns of the later term through its pre-votes,
/// and then wins.
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

/// Both survivors of a leader campaign at once: each has forgotten it, so one of them wins.
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

/// A campaign that was overtaken, by a leader or by a vote for another, does not go on; and no
/// timer stays disarmed.
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

/// A vote for oneself that becomes durable late counts for no campaign but its own.
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

/// Nodes that all time out at once draw new timeouts, and soon differ.
#[test]
fn nodes_that_time_out_together_do_not_do_so_for_ever() {
    for seed in 0..20 {
        let mut world = World::new(3);
        world.timeouts = Some(SmallRng::seed_from_u64(seed));
        world.pass(400);
        (1..=3).for_each(|id| world.must(Event::Timeout(NodeId(id))));
        (1..=3).for_each(|id| world.must(Event::WinPreVote(NodeId(id))));
        world.settle();
        assert_eq!(world.leaders(), [], "each node voted for itself");
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

/// A node that was cut off comes back without an inflated term, and the leader stays.
#[test]
fn a_node_that_comes_back_deposes_no_leader() {
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

/// Even a node that did raise its term deposes no leader while the others hear it (thesis §4.2.3).
#[test]
fn a_node_that_hears_a_leader_ignores_campaigns() {
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

/// Two nodes that can't reach each other but both reach the third: the leader stays, and terms
/// do not rise.
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

/// A leader that hears no follower steps down; a node that hears no message disturbs no other.
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
    assert_eq!(world.leaders(), [], "it sends, and hears no node");

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

/// A node that hears two leaders of one term stops.
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

/// The reasons of denied votes are for observers, and agree with the answers.
#[test]
fn a_denied_vote_is_observed_with_its_first_reason() {
    let denials = |effects: &[Effect]| {
        let answered = |effect: &Effect| match effect {
            Effect::Observed(Observation::VoteAnswered { denial, .. }) => Some(*denial),
            _ => None,
        };
        effects.iter().filter_map(answered).collect::<Vec<_>>()
    };
    let fresh = || replica(1, 3, 5, None, &[1, 3, 3]);
    for phase in [Phase::PreVote, Phase::Vote] {
        let asked = |voter: &mut Replica, now, from, term, last| {
            let effects = hear(voter, at(now), from, term, request_vote(phase, 1, last));
            let (denials, granted) = (denials(&effects), vote_reply(&effects).is_some_and(|(_, granted)| granted));
            assert_eq!((denials.len(), denials[0].is_none()), (1, granted), "{phase:?}: {effects:?}");
            denials[0]
        };
        assert_eq!(asked(&mut fresh(), 0, 2, 6, id(3, 3)), None);
        assert_eq!(asked(&mut fresh(), 0, 2, 6, id(9, 2)), Some(Denial::LogBehind { last: id(3, 3) }));
        let mut led = fresh();
        hear(&mut led, at(0), 3, 5, heartbeat(0, 0));
        assert_eq!(asked(&mut led, 10, 2, 6, id(3, 3)), Some(Denial::HearsLeader { leader: Some(NodeId(3)) }));
        assert_eq!(asked(&mut fresh(), 0, 2, 3, id(3, 3)), Some(Denial::OldTerm { term: Term(5) }));
    }
    let mut voter = replica(1, 3, 5, Some(3), &[1]);
    let effects = hear(&mut voter, at(0), 2, 5, request_vote(Phase::Vote, 1, id(1, 1)));
    assert_eq!(denials(&effects), [Some(Denial::VotedFor { candidate: NodeId(3) })]);
}

#[test]
fn a_leader_that_steps_down_is_observed_with_its_cause_and_a_follower_is_not() {
    let stepped = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Observed(Observation::SteppedDown { led, term, cause }) => Some((*led, *term, *cause)),
            _ => None,
        })
    };
    let mut leader = replica(1, 3, 5, None, &[]);
    lead(&mut leader, at(0));
    let mut out = Vec::new();
    leader.clone().election_timeout(at(1_000), Term(6), &mut out);
    assert_eq!(stepped(&out), Some((true, Term(6), StepDown::NoQuorum)));
    let effects = hear(&mut leader, at(10), 2, 8, heartbeat(0, 0));
    assert_eq!(stepped(&effects), Some((true, Term(6), StepDown::LaterTerm { from: NodeId(2), term: Term(8) })));
    let effects = hear(&mut leader, at(20), 3, 9, heartbeat(0, 0));
    assert_eq!(stepped(&effects), None, "it follows already");
    assert!(effects.contains(&Effect::Observed(Observation::TermAdopted {
        from: NodeId(3),
        before: Term(8),
        shown: Term(9)
    })));
}
