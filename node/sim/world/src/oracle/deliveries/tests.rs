//! Tests that the checks find every forbidden reaction, and no other.

use super::{Before, DeliveryChecks, Others};
use crate::fixtures::{
    append, at, batch, heartbeat, heartbeat_reply, id, matched, node, opened, persist_all, promising, replica,
    request_vote, vote, voters,
};
use quorate_raft::{
    Body, Effect, HardState, Message, Moment, NodeId, Outgoing, Persist, Phase, Progress, Promise, RepairOutcome,
    RepairReply, Replica, Term, TimeoutNow,
};
use std::time::Duration;

#[test]
fn a_read_is_confirmed_by_a_round_that_left_after_it_was_asked_and_by_no_other() {
    for (round, confirms) in [(4, false), (5, true)] {
        let mut deliveries = DeliveryChecks::default();
        deliveries.read_asked(node(1), 6, false);
        leaves(&mut deliveries, &beat(4));
        deliveries.read_asked(node(1), 7, false);
        leaves(&mut deliveries, &beat(5));
        hears(&mut deliveries, beat(round), heartbeat_reply(round)).expect("an honest answer");
        let served = deliveries.read_ready(node(1), 7, &voters(3), &Alone(None));
        assert_eq!(served.is_ok(), confirms, "round {round}: {served:?}");
        assert_eq!(deliveries.read_ready(node(1), 6, &voters(3), &Alone(None)), Ok(()), "round {round}");
    }
}

#[test]
fn a_round_of_an_earlier_leadership_confirms_nothing() {
    let mut deliveries = DeliveryChecks::default();
    deliveries.read_asked(node(1), 7, false);
    leaves(&mut deliveries, &beat(5));
    leaves(&mut deliveries, &Message { term: Term(3), body: heartbeat(5, 0) });
    hears(&mut deliveries, beat(5), heartbeat_reply(5)).expect("an honest answer");
    assert!(deliveries.read_ready(node(1), 7, &voters(3), &Alone(None)).is_err());
}

#[test]
fn a_heartbeat_is_answered_with_its_own_round_or_none() {
    for (round, may) in [(0, true), (4, false), (5, true), (6, false)] {
        let answered = hears(&mut DeliveryChecks::default(), beat(5), heartbeat_reply(round));
        assert_eq!(answered.is_ok(), may, "round {round}: {answered:?}");
    }
}

#[test]
fn what_an_append_did_not_cover_is_said_to_match_by_nobody() {
    let covering_two = append(1, id(1, 1), 0, Some(batch(2, 2, 1, 0)));
    for (body, covers) in [(append(1, id(1, 1), 0, None), 1), (covering_two, 2)] {
        for says in 0..=3 {
            let answered = hears(&mut DeliveryChecks::default(), answer(body.clone()), matched(1, says));
            assert_eq!(answered.is_ok(), says <= covers, "{says} of {covers}: {answered:?}");
        }
    }
}

#[test]
fn what_leaves_is_of_no_epoch_that_is_over_but_in_another_term_or_to_another_peer() {
    let mut deliveries = DeliveryChecks::default();
    let mut sends = |to, term, epoch| {
        let message = Message { term: Term(term), body: append(epoch, id(1, 1), 0, None) };
        deliveries.leaves(node(1), &Outgoing { to: node(to), message }, at(0)).is_ok()
    };
    assert!(sends(2, 2, 1) && sends(2, 2, 3) && sends(2, 2, 3));
    assert!(!sends(2, 2, 2), "that epoch is over");
    assert!(sends(3, 2, 1), "another peer");
    assert!(sends(2, 2, Progress::NO_EPOCH), "a proof, of no epoch");
    assert!(sends(2, 3, 1), "another leadership");
}

#[test]
fn no_vote_is_granted_to_a_log_that_is_less_up_to_date_nor_refused_to_another() {
    for (last, may) in [(id(2, 1), false), (id(9, 1), false), (id(1, 2), false), (id(2, 2), true), (id(1, 3), true)] {
        let asked = answer(request_vote(Phase::PreVote, 1, last));
        let granted = hears(&mut DeliveryChecks::default(), asked.clone(), vote(Phase::PreVote, 1, true));
        assert_eq!(granted.is_ok(), may, "{last}: {granted:?}");
        let denied = hears(&mut DeliveryChecks::default(), asked, vote(Phase::PreVote, 1, false));
        assert_eq!(denied.is_err(), may, "{last}: {denied:?}");
    }
}

#[test]
fn no_vote_is_granted_while_a_leader_is_protected() {
    let (mut deliveries, mut follower, mut out) = (DeliveryChecks::default(), follower(), Vec::new());
    deliveries.starts(node(2), HardState::default(), false, PROTECTS, at(0));
    follower.receive(at(100), node(1), beat(0), &mut out);
    let before = Before::of(&follower, node(1), at(0));
    arrives(&mut deliveries, &beat(0), 100, before, &follower, &out).expect("an honest answer");
    let asked = answer(request_vote(Phase::Vote, 1, id(2, 2)));
    let granted = Outgoing { to: node(1), message: answer(vote(Phase::Vote, 1, true)) };
    let later = [Effect::Persist(Persist { then: vec![granted], ..Persist::default() })];
    let mut asks = |now| arrives(&mut deliveries, &asked, now, before, &follower, &later);
    assert!(asks(249).is_err(), "the leader was heard 149 ms ago");
    asks(250).expect("it may be gone");
}

/// The leader that it protects told it to campaign, and so gave up its lease.
#[test]
fn a_leader_may_vote_though_it_protects_its_predecessor_only_if_it_leads_by_transfer() {
    for (told_in, may) in [(Some(2), true), (Some(1), false), (Some(3), false), (None, false)] {
        let mut deliveries = DeliveryChecks::default();
        deliveries.starts(node(2), HardState::default(), false, PROTECTS, at(0));
        let (mut leader, mut out) = (follower(), Vec::new());
        leader.receive(at(100), node(1), beat(0), &mut out);
        arrives(&mut deliveries, &beat(0), 100, Before::of(&leader, node(1), at(100)), &leader, &out)
            .expect("an honest answer");
        if let Some(term) = told_in {
            leaves(&mut deliveries, &Message { term: Term(term), body: told_to_campaign() });
        }
        leader.receive(at(110), node(1), answer(told_to_campaign()), &mut out);
        persist_all(&mut leader, &out);
        let ballot = opened(&out).expect("it campaigns");
        leader.election_won(at(120), ballot.term, ballot.campaign, &mut out);
        let before = Before::of(&leader, node(1), at(130));
        assert_eq!(before.leads, Some(Term(3)));

        let asked = Message { term: Term(4), body: request_vote(Phase::Vote, 1, id(9, 9)) };
        let granted = Outgoing { to: node(1), message: Message { term: Term(4), body: vote(Phase::Vote, 1, true) } };
        let grants = arrives(&mut deliveries, &asked, 130, before, &leader, &[Effect::Send(granted)]);
        assert_eq!(grants.is_ok(), may, "told in {told_in:?}: {grants:?}");
        assert!(grants.err().is_none_or(|words| words.starts_with("protected leaders: ")));
    }
}

#[test]
fn whoever_started_just_now_votes_and_campaigns_no_earlier_unless_it_is_new() {
    for (is_new, now, may) in [(false, 249, false), (false, 250, true), (true, 100, true)] {
        let mut deliveries = DeliveryChecks::default();
        let promise = if is_new { Promise::NONE } else { Promise::of(PROTECTS) };
        deliveries.starts(node(1), HardState { promise, ..HardState::new(Term(2), None) }, is_new, PROTECTS, at(100));
        let asks = answer(request_vote(Phase::PreVote, 1, id(2, 2)));
        let asked = deliveries.leaves(node(1), &to_2(asks), at(now));
        assert_eq!(asked.is_ok(), may, "new: {is_new}, at {now}: {asked:?}");
    }
}

#[test]
fn a_read_by_lease_is_served_only_while_nobody_leads_a_later_term() {
    let mut deliveries = DeliveryChecks::default();
    deliveries.starts(node(2), promises(), false, PROTECTS, at(100));
    for (successor, may) in [(None, true), (Some((node(3), Term(3))), false)] {
        deliveries.read_asked(node(1), 7, true);
        let served = deliveries.read_ready(node(1), 7, &voters(3), &Alone(successor));
        assert_eq!(served.is_ok(), may, "{successor:?}: {served:?}");
    }
    deliveries.read_asked(node(1), 8, true);
    leaves(&mut deliveries, &beat(5));
    hears(&mut deliveries, beat(5), heartbeat_reply(5)).expect("an honest answer");
    let served = deliveries.read_ready(node(1), 8, &voters(3), &Alone(Some((node(3), Term(3)))));
    assert_eq!(served, Ok(()), "a round after the question confirms it, whoever leads since");
}

#[test]
fn a_read_by_lease_is_served_only_while_a_quorum_keeps_its_promise() {
    for (heard_at, may) in [(51, true), (50, false)] {
        let mut deliveries = DeliveryChecks::default();
        deliveries.starts(node(2), promises(), false, PROTECTS, at(heard_at));
        deliveries.read_asked(node(1), 7, true);
        let served = deliveries.read_ready(node(1), 7, &voters(3), &Alone(None));
        assert_eq!(served.is_ok(), may, "heard at {heard_at}, and it is 200: {served:?}");
    }
}

#[test]
fn a_promise_that_was_stated_is_kept_through_a_restart_with_another_setting() {
    for (now, may) in [(1_099, false), (1_100, true)] {
        let mut deliveries = DeliveryChecks::default();
        deliveries.starts(node(2), HardState::default(), false, Duration::from_secs(1), at(0));
        let (mut follower, mut out) = (follower(), Vec::new());
        follower.receive(at(100), node(1), beat(5), &mut out);
        let before = Before::of(&follower, node(1), at(0));
        let states = Outgoing { to: node(1), message: answer(promising(5, Promise::of(Duration::from_secs(1)))) };
        arrives(&mut deliveries, &beat(5), 100, before, &follower, &[Effect::Send(states)]).expect("it may");
        deliveries.starts(node(2), HardState::default(), false, PROTECTS, at(150));
        let asked = answer(request_vote(Phase::Vote, 1, id(2, 2)));
        let granted = Outgoing { to: node(1), message: answer(vote(Phase::Vote, 1, true)) };
        let grants = arrives(&mut deliveries, &asked, now, before, &follower, &[Effect::Send(granted)]);
        assert_eq!(grants.is_ok(), may, "at {now}: {grants:?}");
        let holds = deliveries.lease(node(1), &voters(3), &At(now));
        assert_eq!(holds.is_err(), may, "at {now}: {holds:?}");
    }
}

#[test]
fn a_node_that_is_down_backs_a_lease_only_if_it_will_keep_a_promise() {
    for is_bound in [true, false] {
        let holds = DeliveryChecks::default().lease(node(1), &voters(3), &Down { is_bound });
        assert_eq!(holds.is_ok(), is_bound, "{holds:?}");
    }
}

/// All clocks show this many milliseconds; no other node leads.
struct At(u64);

impl Others for At {
    fn successor(&self) -> Option<(NodeId, Term)> {
        None
    }

    fn clock(&self, _: NodeId) -> Option<Moment> {
        Some(at(self.0))
    }

    fn is_bound(&self, _: NodeId) -> bool {
        false
    }
}

/// All other nodes are down.
struct Down {
    is_bound: bool,
}

impl Others for Down {
    fn successor(&self) -> Option<(NodeId, Term)> {
        None
    }

    fn clock(&self, _: NodeId) -> Option<Moment> {
        None
    }

    fn is_bound(&self, _: NodeId) -> bool {
        self.is_bound
    }
}

/// All clocks show 200 ms; the given node, if any, leads a later term.
struct Alone(Option<(NodeId, Term)>);

impl Others for Alone {
    fn successor(&self) -> Option<(NodeId, Term)> {
        self.0
    }

    fn clock(&self, _: NodeId) -> Option<Moment> {
        Some(at(200))
    }

    fn is_bound(&self, _: NodeId) -> bool {
        false
    }
}

/// The time for which all nodes protect leaders.
const PROTECTS: Duration = Duration::from_millis(150);

/// The hard state of a node that promised `PROTECTS`.
fn promises() -> HardState {
    HardState { promise: Promise::of(PROTECTS), ..HardState::new(Term(1), None) }
}

#[test]
fn nothing_is_discarded_in_the_term_that_the_disk_had() {
    for (recovered_in, may) in [(1, true), (2, false)] {
        let mut deliveries = DeliveryChecks::default();
        deliveries.starts(node(2), HardState::new(Term(recovered_in), None), true, PROTECTS, at(0));
        let discards = Effect::Persist(Persist { truncate_from: Some(id(2, 2).index), ..Persist::default() });
        let reply = RepairReply { from: id(2, 2), outcome: RepairOutcome::Absent, batch: None };
        let message = answer(Body::RepairReply(reply));
        let replica = follower();
        let discarded =
            arrives(&mut deliveries, &message, 0, Before::of(&replica, node(1), at(0)), &replica, &[discards]);
        assert_eq!(discarded.is_ok(), may, "recovered in {recovered_in}: {discarded:?}");
    }
}

/// Node 2 of three in term 2, with two entries.
fn follower() -> Replica {
    replica(2, 3, 2, None, &[1, 2])
}

/// The message by which a leader transfers its leadership to the receiver.
fn told_to_campaign() -> Body {
    Body::TimeoutNow(TimeoutNow { last: id(2, 2) })
}

fn beat(round: u64) -> Message {
    answer(heartbeat(round, 0))
}

fn answer(body: Body) -> Message {
    Message { term: Term(2), body }
}

fn says(body: Body) -> Effect {
    Effect::Send(Outgoing { to: node(1), message: answer(body) })
}

/// Node 1 sends node 2 this message.
fn leaves(deliveries: &mut DeliveryChecks, message: &Message) {
    deliveries.leaves(node(1), &to_2(message.clone()), at(0)).expect("no campaign");
}

/// Node 2 hears this message from node 1, and answers with `says_then`.
fn hears(deliveries: &mut DeliveryChecks, message: Message, says_then: Body) -> Result<(), String> {
    let replica = follower();
    arrives(deliveries, &message, 0, Before::of(&replica, node(1), at(0)), &replica, &[says(says_then)])
}

fn arrives(
    deliveries: &mut DeliveryChecks,
    message: &Message,
    now: u64,
    before: Before,
    replica: &Replica,
    effects: &[Effect],
) -> Result<(), String> {
    let mut arrival = deliveries.arrival(NodeId(1), node(2), message);
    arrival.heard(at(now), before, replica, effects);
    deliveries.arrived(arrival, at(now))
}

fn to_2(message: Message) -> Outgoing {
    Outgoing { to: node(2), message }
}
