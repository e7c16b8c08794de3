//! The promises that leases rest on, with settings that differ between nodes (Ongaro's thesis,
//! §6.4.1; sofa-jraft #372).

use quorate_raft::{
    Body, Effect, HardState, Index, Kind, Membership, NodeId, Phase, Promise, Replica, Role, Settings, Term, TimeoutNow,
};
use quorate_world::{
    disk::Disk,
    fixtures::{
        append, at, batch, disk_of, hear, heartbeat, id, lead, persist_all, persists, promised, promising,
        request_vote, sent, settings, vote_reply, voters,
    },
};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(1);

/// A leader relies on the promises that its voters stated, and never on its own setting: with two
/// or three nodes, on the shorter or the longer one, whichever a quorum has reached. Nine tenths of
/// it and a millisecond less remain.
#[test]
fn a_lease_lasts_no_longer_than_a_quorum_promised_whatever_the_leaders_own_setting_is() {
    let (none, short, long) = (Promise::NONE, Promise::of(SHORT), Promise::of(LONG));
    for (own, stated, lasts) in [
        (LONG, vec![short], 134),
        (LONG, vec![short, short], 134),
        (LONG, vec![long], 899),
        (LONG, vec![none], 0),
        // The leader's own promise counts as one of them.
        (SHORT, vec![long], 134),
    ] {
        let mut leader = leader(voters(3), own);
        for (peer, promise) in (2..).zip(&stated) {
            confirm(&mut leader, peer, *promise);
        }
        assert_eq!(lasts_until(&mut leader), lasts, "{own:?}, {stated:?}");
    }
    for (stated, lasts) in [
        ([long, long], 899),
        ([long, short], 134),
        ([short, long], 134),
        ([long, none], 0),
        ([none, long], 0),
        ([none, none], 0),
    ] {
        let mut leader = leader(voters(5), LONG);
        (2..).zip(stated).for_each(|(peer, promise)| confirm(&mut leader, peer, promise));
        assert_eq!(lasts_until(&mut leader), lasts, "{stated:?}");
    }
}

/// In a joint configuration each half has its quorum; a learner backs no lease.
#[test]
fn in_a_joint_configuration_the_shorter_promise_of_both_halves_counts() {
    let (short, long) = (Promise::of(SHORT), Promise::of(LONG));
    for (of_two, of_four, lasts) in [(long, long, 899), (short, long, 134), (long, short, 134)] {
        let joint = Membership::joint([1, 2, 3].map(NodeId), [3, 4, 5].map(NodeId)).with_learners([NodeId(6)]);
        let mut leader = leader(voters(3), LONG);
        let mut change = leader.next_batch(0).expect("it leads");
        change.push(Kind::Membership, &joint.encode());
        leader.propose(at(950), change.finish().expect("an entry"), &mut Vec::new());
        confirm(&mut leader, 6, long);
        confirm(&mut leader, 4, of_four);
        confirm(&mut leader, 5, of_four);
        confirm(&mut leader, 2, of_two);
        assert_eq!(lasts_until(&mut leader), lasts, "{of_two:?}, {of_four:?}");
    }
}

/// A read by a round needs no promise.
#[test]
fn a_voter_that_states_no_promise_confirms_a_round_and_backs_no_lease() {
    let mut leader = leader(voters(3), SHORT);
    let mut out = Vec::new();
    leader.read(at(1_000), 1, &mut out);
    assert_eq!(out, [Effect::HeartbeatNow { round: 1 }]);
    let ready = Effect::ReadsReady { index: Index(1), tokens: vec![1] };
    assert_eq!(hear(&mut leader, at(1_000), 2, 2, promising(1, Promise::NONE)), [ready]);
    assert_eq!(leader.lease_left(at(1_000)), None);
}

/// A later round with shorter promises does not end the lease of earlier ones: those voters keep
/// their promises all the same.
#[test]
fn a_shorter_promise_of_a_later_round_does_not_end_a_lease_early() {
    let mut leader = leader(voters(3), LONG);
    confirm(&mut leader, 2, Promise::of(LONG));
    let mut out = Vec::new();
    leader.read(at(1_100), 2, &mut out);
    hear(&mut leader, at(1_100), 3, 2, promising(2, Promise::of(SHORT)));
    assert_eq!(lasts_until(&mut leader), 899);
}

/// A lease is half over after half of its own duration, not of the leader's setting: otherwise a
/// leader with a long setting would open a round with every read.
#[test]
fn a_lease_on_short_promises_is_renewed_when_half_of_it_is_over_and_not_with_every_read() {
    let mut leader = leader(voters(3), LONG);
    confirm(&mut leader, 2, Promise::of(SHORT));
    for (now, renews) in [(1_001, false), (1_060, false), (1_070, true)] {
        let mut out = Vec::new();
        leader.read_by_lease(at(now), now, &mut out);
        assert_eq!(out.contains(&Effect::HeartbeatNow { round: 2 }), renews, "at {now}: {out:?}");
    }
}

/// Persist, then speak: the answers do not wait for the write, and state the durable promise. One
/// write per data directory.
#[test]
fn a_promise_is_on_the_disk_before_it_is_stated_and_is_written_once() {
    let mut voter = voter(Disk::with(HardState::new(Term(2), None)), SHORT);
    let first = hear(&mut voter, at(0), 1, 2, heartbeat(4, 0));
    assert_eq!(stated(&first), [(4, Promise::NONE)], "it does not wait for the disk");
    let written = HardState { promise: Promise::of(SHORT), ..HardState::new(Term(2), None) };
    assert_eq!(persists(&first).into_iter().map(|it| it.hard_state).collect::<Vec<_>>(), [Some(written)]);
    let second = hear(&mut voter, at(1), 1, 2, heartbeat(5, 0));
    assert_eq!((stated(&second), persists(&second).len()), (vec![(5, Promise::NONE)], 0), "it is being written");
    persist_all(&mut voter, &first);
    for round in 6..9 {
        let later = hear(&mut voter, at(round), 1, 2, heartbeat(round, 0));
        assert_eq!((stated(&later), persists(&later).len()), (vec![(round, Promise::of(SHORT))], 0));
    }
}

/// With a longer setting, the promise on the disk may be stated at once, for it is kept as well.
#[test]
fn a_longer_promise_is_stated_when_it_is_durable_and_the_shorter_one_until_then() {
    let mut voter = voter(disk_of(2, None, &[1]), LONG);
    let first = hear(&mut voter, at(0), 1, 2, heartbeat(4, 0));
    assert_eq!(stated(&first), [(4, Promise::of(SHORT))]);
    assert_eq!(voter.promise(), Promise::of(LONG));
    persist_all(&mut voter, &first);
    assert_eq!(stated(&hear(&mut voter, at(1), 1, 2, heartbeat(5, 0))), [(5, Promise::of(LONG))]);
}

/// A rolling change of the setting: a voter keeps the promise that it may have made before, from
/// its next start on, under any new setting; and promises its leader no more than it keeps now.
#[test]
fn a_restart_with_a_shorter_setting_keeps_the_longer_promise() {
    let restarted = || voter(with_promise(LONG), SHORT).started(at(1_000));
    for phase in [Phase::PreVote, Phase::Vote] {
        for (now, grants) in [(1_150, false), (1_999, false), (2_000, true)] {
            let asked = hear(&mut restarted(), at(now), 3, 3, request_vote(phase, 1, id(9, 3)));
            assert_eq!(vote_reply(&asked).map(|(_, granted)| granted), Some(grants), "{phase:?} at {now}");
        }
    }
    for (now, role) in [(1_999, Role::Follower), (2_000, Role::PreCandidate)] {
        let mut voter = restarted();
        voter.election_timeout(at(now), Term(2), &mut Vec::new());
        assert_eq!(*voter.role(), role, "its own vote is like any other, at {now}");
    }
    let beat = hear(&mut restarted(), at(1_001), 1, 2, heartbeat(4, 0));
    assert_eq!((stated(&beat), persists(&beat).len()), (vec![(4, Promise::of(SHORT))], 0));
}

/// And so does a witness, which is a voter like any other.
#[test]
fn a_witness_keeps_its_longer_promise_through_a_restart() {
    let told = Settings { is_witness: true, ..told(SHORT) };
    let members = voters(3).with_witness(Some(NodeId(2)));
    let recovered = with_promise(LONG).recover();
    let mut witness = Replica::new(NodeId(2), members, recovered, told).started(at(1_000));
    for (now, grants) in [(1_999, false), (2_000, true)] {
        let asked = hear(&mut witness, at(now), 3, 3, request_vote(Phase::Vote, 1, id(9, 3)));
        assert_eq!(vote_reply(&asked).map(|(_, granted)| granted), Some(grants), "at {now}");
    }
}

/// A leadership transfer breaks the promises to the leader that began it, which gave its lease up.
/// So a node that leads by transfer is not bound by its own, which may outlast its leadership.
#[test]
fn a_leader_by_transfer_that_lost_its_quorum_votes_in_spite_of_an_earlier_promise() {
    let mut node = voter(with_promise(LONG), SHORT).started(at(1_000));
    let beat = hear(&mut node, at(1_001), 1, 2, heartbeat(4, 0));
    persist_all(&mut node, &beat);
    let last = node.log().last();
    let told = hear(&mut node, at(1_002), 1, 2, Body::TimeoutNow(TimeoutNow { last }));
    let campaign = campaign_of(&told).expect("it campaigns in spite of its promise");
    persist_all(&mut node, &told);
    node.election_won(at(1_003), Term(3), campaign, &mut Vec::new());
    assert!(node.is_leader());
    // No peer has answered for longer than its election timeout, and its promise still runs.
    let asked = hear(&mut node, at(1_500), 3, 3, request_vote(Phase::PreVote, 1, id(9, 3)));
    assert_eq!(vote_reply(&asked).map(|(_, granted)| granted), Some(true));
}

/// A promise that was long by mistake is not kept for ever: once it is over, the next write that
/// happens anyway replaces it, and never before.
#[test]
fn an_earlier_promise_leaves_the_disk_when_it_is_over_and_no_sooner() {
    for (now, kept) in [(1_999, LONG), (2_000, SHORT)] {
        let mut voter = voter(with_promise(LONG), SHORT).started(at(1_000));
        let adopts = hear(&mut voter, at(now), 1, 7, append(1, id(1, 1), 0, None));
        let promises: Vec<_> =
            persists(&adopts).into_iter().filter_map(|it| it.hard_state).map(|state| state.promise).collect();
        assert_eq!(promises, [Promise::of(kept)], "at {now}");
    }
    // A replica that was never told when it started can't know when that would be.
    let mut voter = voter(with_promise(LONG), SHORT);
    hear(&mut voter, at(9_000), 1, 7, append(1, id(1, 1), 0, None));
    assert_eq!(voter.promise(), Promise::of(LONG));
}

/// A node that stated no promise keeps none: no lease rests on it.
#[test]
fn a_restart_without_a_promise_on_the_disk_waits_for_nothing() {
    let mut disk = disk_of(2, None, &[1]);
    disk.hard_state.promise = Promise::NONE;
    let mut voter = voter(disk, LONG).started(at(1_000));
    let asked = hear(&mut voter, at(1_000), 3, 3, request_vote(Phase::Vote, 1, id(9, 3)));
    assert_eq!(vote_reply(&asked).map(|(_, granted)| granted), Some(true));
}

/// Writing a promise holds back no message that depends on term and vote alone.
#[test]
fn a_message_that_needs_term_and_vote_alone_does_not_wait_for_a_promise() {
    let mut voter = voter(disk_of(2, None, &[1]), LONG);
    let first = hear(&mut voter, at(0), 1, 2, heartbeat(4, 0));
    assert_eq!(persists(&first).len(), 1);
    let behind = hear(&mut voter, at(1), 1, 2, append(1, id(5, 2), 0, None));
    assert_eq!((sent(&behind).len(), promised(&behind).len()), (1, 0), "{behind:?}");
}

/// A node that is new, or was emptied, confirms no round and states no promise.
#[test]
fn a_new_node_states_no_promise_before_it_holds_anything() {
    let mut new = voter(Disk::default(), SHORT);
    let effects = hear(&mut new, at(0), 1, 1, heartbeat(4, 0));
    assert_eq!(stated(&effects), [(0, Promise::NONE)]);
    assert!(persists(&effects).iter().all(|it| it.hard_state.is_none_or(|state| state.promise == Promise::NONE)));
    hear(&mut new, at(0), 1, 1, append(1, id(0, 0), 0, None));
    let first = hear(&mut new, at(0), 1, 1, append(2, id(0, 0), 0, Some(batch(1, 1, 1, 0))));
    persist_all(&mut new, &first);
    let effects = hear(&mut new, at(0), 1, 1, heartbeat(5, 0));
    assert_eq!(stated(&effects), [(5, Promise::NONE)]);
    persist_all(&mut new, &effects);
    assert_eq!(stated(&hear(&mut new, at(0), 1, 1, heartbeat(6, 0))), [(6, Promise::of(SHORT))]);
}

#[test]
fn a_promise_is_never_longer_than_the_duration_kept() {
    for (kept, micros) in [(0, 0), (999, 0), (1_000, 1), (150_000_999, 150_000), (u64::MAX, u32::MAX)] {
        let promise = Promise::of(Duration::from_nanos(kept));
        assert_eq!(promise, Promise(micros));
        assert!(promise.lasts() <= Duration::from_nanos(kept));
    }
}

fn told(shortest: Duration) -> Settings {
    Settings { election_timeout_min: shortest, election_timeout_max: 2 * shortest, ..settings() }
}

/// Node 2 of three with this disk.
fn voter(mut disk: Disk, shortest: Duration) -> Replica {
    Replica::new(NodeId(2), voters(3), disk.recover(), told(shortest))
}

/// The disk of a node that made this promise in term 2.
fn with_promise(promise: Duration) -> Disk {
    let mut disk = disk_of(2, None, &[1]);
    disk.hard_state.promise = Promise::of(promise);
    disk
}

/// Node 1, which leads these members in term 2, has committed its no-op with all of them, and has
/// asked for a lease at 1,000.
fn leader(members: Membership, shortest: Duration) -> Replica {
    let mut leader = Replica::new(NodeId(1), members, disk_of(1, None, &[]).recover(), told(shortest));
    let led = lead(&mut leader, at(900));
    for peer in leader.membership().peers_of(NodeId(1)) {
        leader.matched(at(0), peer, Index(1), &mut Vec::new());
    }
    persist_all(&mut leader, &led);
    leader
}

/// The peer answers the round that was opened at 1,000.
fn confirm(leader: &mut Replica, peer: u64, promise: Promise) {
    if leader.read_round() == 0 {
        leader.read_by_lease(at(1_000), 1, &mut Vec::new());
    }
    hear(leader, at(1_000), peer, 2, promising(1, promise));
}

/// The number of milliseconds after 1,000 for which the leader has a lease.
fn lasts_until(leader: &mut Replica) -> u64 {
    (0..2_000).find(|after| leader.lease_left(at(1_000 + after)).is_none()).expect("no lease is for ever")
}

/// The campaign for which votes are requested.
fn campaign_of(effects: &[Effect]) -> Option<u64> {
    sent(effects).into_iter().chain(promised(effects)).find_map(|outgoing| match outgoing.message.body {
        Body::RequestVote(request) => Some(request.campaign),
        _ => None,
    })
}

/// The rounds and promises in the replies.
fn stated(effects: &[Effect]) -> Vec<(u64, Promise)> {
    let said = sent(effects).into_iter().chain(promised(effects));
    said.filter_map(|outgoing| match outgoing.message.body {
        Body::HeartbeatReply(reply) => Some((reply.round, reply.promise)),
        _ => None,
    })
    .collect()
}
