//! Leases, and what Ongaro's thesis says of them (§6.4.1, §4.2.3), a test per sentence.

use quorate_raft::{Body, ClockDrift, Effect, Index, Kind, Membership, Moment, NodeId, Phase, Replica, Role, Term};
use quorate_world::{
    disk::Disk,
    events::Event,
    fixtures::{
        append, at, disk_of, hear, heartbeat, heartbeat_reply, id, lead, persist_all, replica, request_vote, settings,
        vote, vote_reply, voters,
    },
    world::World,
};
use std::time::Duration;

/// With the default settings: nine tenths of 150 ms, and a millisecond less.
const LEASE: u64 = 134;

/// §4.2.3: a voter that heard a leader grants no vote within the minimum election timeout, even if
/// a restart made it forget the leader.
#[test]
fn a_restarted_voter_keeps_the_promise_that_it_may_have_made() {
    let restarted = || replica(1, 3, 5, None, &[1]).started(at(1_000));
    for phase in [Phase::PreVote, Phase::Vote] {
        let ask = |voter: &mut Replica, now| {
            vote_reply(&hear(voter, at(now), 2, 6, request_vote(phase, 1, id(9, 6)))).map(|(_, granted)| granted)
        };
        let mut voter = restarted();
        assert_eq!(ask(&mut voter, 1_149), Some(false), "{phase:?}");
        assert_eq!((voter.term(), voter.vote()), (Term(5), None), "and takes no note of it");
        assert_eq!(ask(&mut voter, 1_150), Some(true), "{phase:?}");
    }
    let mut voter = restarted();
    voter.election_timeout(at(1_149), Term(5), &mut Vec::new());
    assert_eq!(*voter.role(), Role::Follower, "its own vote is refused like any other");
    voter.election_timeout(at(1_150), Term(5), &mut Vec::new());
    assert_eq!(*voter.role(), Role::PreCandidate);
}

/// The exception: a member that never voted or held anything has promised nothing, and a new
/// cluster elects at once.
#[test]
fn a_new_voter_has_no_promise_to_keep() {
    let mut new = Replica::new(NodeId(1), voters(3), Disk::default().recover(), settings()).started(at(1_000));
    assert!(new.is_new());
    let effects = hear(&mut new, at(1_000), 2, 1, request_vote(Phase::Vote, 1, id(0, 0)));
    assert_eq!(vote_reply(&effects), Some((Term(1), true)));
}

/// A later term, from a node that can't win it, does not free a voter of its promise. The leader
/// may not have heard of that term.
#[test]
fn a_later_term_does_not_end_the_promise_to_the_leader_of_an_earlier_one() {
    let mut voter = replica(1, 5, 5, None, &[1]);
    hear(&mut voter, at(1_000), 2, 5, heartbeat(0, 0));
    hear(&mut voter, at(1_010), 3, 7, vote(Phase::PreVote, 1, false));
    assert_eq!((voter.term(), voter.leader()), (Term(7), None));
    for phase in [Phase::PreVote, Phase::Vote] {
        let effects = hear(&mut voter, at(1_149), 3, 8, request_vote(phase, 1, id(9, 7)));
        assert_eq!(vote_reply(&effects).map(|(_, granted)| granted), Some(false), "{phase:?}");
    }
    voter.election_timeout(at(1_149), Term(7), &mut Vec::new());
    assert_eq!(*voter.role(), Role::Follower);
    let effects = hear(&mut voter, at(1_150), 3, 8, request_vote(Phase::Vote, 2, id(9, 7)));
    assert_eq!(vote_reply(&effects), Some((Term(8), true)));
}

/// §6.4.1: a round of heartbeats that a majority acknowledged extends the lease to its start, plus
/// the election timeout, less the drift allowed between clocks.
#[test]
fn a_lease_counts_from_the_beginning_of_a_round_and_not_from_its_answers() {
    let mut leader = leader(voters(3));
    assert_eq!(by_lease(&mut leader, 1_000, 1), [Effect::HeartbeatNow { round: 1 }], "there is none yet");
    assert_eq!(hear(&mut leader, at(1_100), 2, 2, heartbeat_reply(1)), [ready(1, 1)]);
    assert_eq!(by_lease(&mut leader, 1_000 + LEASE - 1, 2)[0], ready(1, 2));
    hear(&mut leader, at(1_000 + LEASE), 2, 2, heartbeat_reply(1));
    assert!(!by_lease(&mut leader, 1_000 + LEASE, 3).contains(&ready(1, 3)), "the answers came much later");
}

/// A lease counts by the clock alone: a stall of the leader's thread does not prolong it.
#[test]
fn a_stall_of_the_own_thread_prolongs_no_lease() {
    let mut leader = leader(voters(3));
    by_lease(&mut leader, 1_000, 1);
    hear(&mut leader, at(1_010), 2, 2, heartbeat_reply(1));
    leader.stalled(at(1_120), Duration::from_millis(100));
    assert!(leader.lease_left(at(1_000 + LEASE - 1)).is_some());
    assert_eq!(leader.lease_left(at(1_000 + LEASE)), None);
}

/// The lease ends before the promise that it rests on, even if the voter's clock is fast, or the
/// leader's slow, by the stated drift.
#[test]
fn a_lease_ends_before_the_promise_by_any_clock_within_the_stated_drift() {
    let promise = Duration::from_millis(150);
    for per_mille in [0, 1, 50, 100, 250, 500] {
        let drift = ClockDrift::new(per_mille, Duration::ZERO);
        let lease = drift.surely_within(promise);
        assert!(lease > promise / 3, "{lease:?} is of little use");
        // While the leader's clock shows the lease, a faster one shows this much, and its
        // voter still refuses.
        assert!(lease + lease * u32::from(per_mille) / 1000 <= promise, "{per_mille}: {lease:?}");
    }
    assert_eq!(ClockDrift::default().surely_within(promise), Duration::from_millis(LEASE));
    let useless = ClockDrift::new(1_000, Duration::ZERO);
    assert_eq!(useless.surely_within(promise), Duration::ZERO);
    let useless = ClockDrift::new(0, Duration::from_secs(1));
    assert_eq!(useless.surely_within(promise), Duration::ZERO);
}

/// A new leader has no lease before it has committed in its own term, not even with the
/// votes of all.
#[test]
fn a_new_leader_serves_nothing_from_a_lease_before_its_first_commit() {
    let mut leader = replica(1, 3, 1, None, &[1, 1]);
    let led = lead(&mut leader, at(1_000));
    assert_eq!(by_lease(&mut leader, 1_000, 1), [], "votes are no lease");
    hear(&mut leader, at(1_000), 2, 2, heartbeat_reply(0));
    assert_eq!(by_lease(&mut leader, 1_001, 2), []);
    persist_all(&mut leader, &led);
    let mut out = Vec::new();
    leader.matched(at(0), NodeId(2), Index(3), &mut out);
    assert!(out.contains(&Effect::HeartbeatNow { round: 1 }), "now a round confirms it");
    let ready = Effect::ReadsReady { index: Index(3), tokens: vec![1, 2] };
    assert_eq!(hear(&mut leader, at(1_010), 2, 2, heartbeat_reply(1)), [ready]);
}

/// A late answer to an earlier round begins no lease as of a newer one.
#[test]
fn a_late_answer_to_an_earlier_round_prolongs_nothing() {
    let mut leader = leader(voters(3));
    by_lease(&mut leader, 1_000, 1);
    hear(&mut leader, at(1_000), 3, 2, heartbeat_reply(1));
    assert_eq!(by_lease(&mut leader, 1_120, 2), [ready(1, 2), Effect::HeartbeatNow { round: 2 }]);
    hear(&mut leader, at(1_121), 2, 2, heartbeat_reply(1));
    assert_eq!(by_lease(&mut leader, 1_000 + LEASE, 3), [], "it waits for round 2");
    assert_eq!(
        hear(&mut leader, at(1_140), 2, 2, heartbeat_reply(2)).first(),
        Some(&Effect::HeartbeatNow { round: 3 })
    );
    assert_eq!(by_lease(&mut leader, 1_120 + LEASE - 1, 4)[0], ready(1, 4));
}

/// A leader that stood still, and wakes when its lease is over, answers no read from it.
#[test]
fn a_leader_that_wakes_answers_nothing_from_its_lease() {
    let mut world = World::new(3);
    world.elect(1);
    world.read_by_lease(1, 1);
    world.settle();
    world.read_by_lease(1, 2);
    assert_eq!(world.answered_reads().0.len(), 2, "the second without a question");
    // Node 1 stands still; meanwhile the others elect another leader, which commits.
    world.isolate(1);
    world.elect(2);
    world.propose(2, 1);
    world.read_by_lease(1, 3);
    world.settle_within();
    assert_eq!(world.answered_reads(), (vec![], vec![]), "it takes itself for the leader, and asks");
    world.heal();
    world.beat(1);
    assert_eq!(world.answered_reads(), (vec![], vec![3]));
}

/// Leases are not used unless asked for (§6.4.1 advises against them where they are not needed): a
/// round is opened for a read, or ahead for reads that use the lease, and never otherwise.
#[test]
fn a_lease_in_use_is_renewed_before_it_ends_and_one_that_is_not_ends() {
    let mut leader = leader(voters(3));
    by_lease(&mut leader, 1_000, 1);
    hear(&mut leader, at(1_000), 2, 2, heartbeat_reply(1));
    assert_eq!(by_lease(&mut leader, 1_050, 2), [ready(1, 2)], "much of it is left");
    assert_eq!(by_lease(&mut leader, 1_070, 3), [ready(1, 3), Effect::HeartbeatNow { round: 2 }]);
    assert_eq!(by_lease(&mut leader, 1_071, 4), [ready(1, 4)], "once is enough");
    assert_eq!(hear(&mut leader, at(1_072), 2, 2, heartbeat_reply(2)), [], "no read waited for it");
    assert_eq!(by_lease(&mut leader, 1_070 + LEASE - 1, 5)[0], ready(1, 5));
    let mut out = Vec::new();
    leader.read(at(1_070 + LEASE - 1), 6, &mut out);
    assert!(!out.contains(&ready(1, 6)), "who does not ask for the lease does not get it");
}

/// §6.4.1: a transfer elects its target in spite of the promises, so the lease ends before the
/// target is told to campaign, and no round begins another.
#[test]
fn a_lease_is_given_up_before_a_transfer() {
    let mut leader = leader(voters(3));
    by_lease(&mut leader, 1_000, 1);
    hear(&mut leader, at(1_000), 2, 2, heartbeat_reply(1));
    let mut out = Vec::new();
    leader.transfer_leadership(at(1_000), Some(NodeId(2)), &mut out).expect("it has the whole log");
    assert!(
        matches!(&out[..], [Effect::Observed(_), Effect::Send(told)] if matches!(told.message.body, Body::TimeoutNow(_))),
        "{out:?}"
    );
    assert_eq!(by_lease(&mut leader, 1_001, 2), [Effect::HeartbeatNow { round: 2 }]);
    assert_eq!(hear(&mut leader, at(1_002), 2, 2, heartbeat_reply(2)), [ready(1, 2)], "served, by the round");
    assert_eq!(by_lease(&mut leader, 1_003, 3), [Effect::HeartbeatNow { round: 3 }], "and that begins no other");
}

/// A lease belongs to one configuration, and only its voters give it: in a joint one a majority
/// of each half.
#[test]
fn only_a_quorum_of_the_present_configuration_gives_a_lease() {
    let joint = Membership::joint([1, 2, 3].map(NodeId), [3, 4, 5].map(NodeId)).with_learners([NodeId(6)]);
    let mut leader = leader(joint);
    assert_eq!(by_lease(&mut leader, 1_000, 1), [Effect::HeartbeatNow { round: 1 }]);
    for peer in [4, 5, 6] {
        assert_eq!(hear(&mut leader, at(1_000), peer, 2, heartbeat_reply(1)), [], "one half and a learner");
    }
    assert_eq!(hear(&mut leader, at(1_000), 2, 2, heartbeat_reply(1)), [ready(1, 1)]);
    assert_eq!(by_lease(&mut leader, 1_001, 2), [ready(1, 2)], "now it has one");
    change(&mut leader, &voters(3));
    assert_eq!(by_lease(&mut leader, 1_002, 3), [Effect::HeartbeatNow { round: 2 }], "another configuration has not");
}

/// A round that was in progress when the configuration changed begins no lease either.
#[test]
fn a_round_of_an_earlier_configuration_begins_no_lease() {
    let mut leader = leader(voters(3));
    by_lease(&mut leader, 1_000, 1);
    change(&mut leader, &voters(4));
    for peer in [2, 3] {
        hear(&mut leader, at(1_002), peer, 2, heartbeat_reply(1));
    }
    assert!(!by_lease(&mut leader, 1_003, 2).contains(&ready(1, 2)));
}

/// A voter that may have been emptied confirms no round, and so gives no lease.
#[test]
fn a_voter_that_knows_nothing_of_itself_gives_no_lease() {
    let mut new = Replica::new(NodeId(2), voters(3), Disk::default().recover(), settings());
    let effects = hear(&mut new, at(0), 1, 1, heartbeat(4, 0));
    assert!(effects.iter().all(|effect| !format!("{effect:?}").contains("round: 4")), "{effects:?}");
    let mut old = Replica::new(NodeId(2), voters(3), disk_of(1, None, &[1]).recover(), settings());
    hear(&mut old, at(0), 1, 1, append(1, id(1, 1), 0, None));
    let effects = hear(&mut old, at(0), 1, 1, heartbeat(4, 0));
    assert!(effects.iter().any(|effect| format!("{effect:?}").contains("round: 4")), "{effects:?}");
}

/// The only voter has a lease of its own.
#[test]
fn a_single_voter_has_a_lease_without_peers() {
    let mut world = World::new(1);
    world.elect(1);
    world.read_by_lease(1, 1);
    assert_eq!(world.answered_reads().0, [(1, Index(1))]);
    world.must(Event::Propose(NodeId(1), 1));
    world.settle();
    world.read_by_lease(1, 2);
    assert_eq!(world.answered_reads().0, [(2, Index(2))]);
}

fn change(leader: &mut Replica, members: &Membership) {
    let mut batch = leader.next_batch(0).expect("it leads");
    batch.push(Kind::Membership, &members.encode());
    leader.propose(at(1_001), batch.finish().expect("an entry"), &mut Vec::new());
}

/// Node 1, which leads these members in term 2 and has committed its no-op with all of them.
fn leader(members: Membership) -> Replica {
    let mut leader = Replica::new(NodeId(1), members, disk_of(1, None, &[]).recover(), settings());
    let led = lead(&mut leader, at(900));
    for peer in leader.membership().peers_of(NodeId(1)) {
        leader.matched(at(0), peer, Index(1), &mut Vec::new());
    }
    persist_all(&mut leader, &led);
    assert_eq!((leader.term(), leader.commit()), (Term(2), Index(1)));
    leader
}

fn by_lease(leader: &mut Replica, now: u64, token: u64) -> Vec<Effect> {
    let mut out = Vec::new();
    leader.read_by_lease(Moment(Duration::from_millis(now)), token, &mut out);
    out
}

fn ready(index: u64, token: u64) -> Effect {
    Effect::ReadsReady { index: Index(index), tokens: vec![token] }
}
