//! Leadership transfer (Ongaro's thesis, §3.10).

use quorate_raft::{Body, Effect, Index, NodeId, TimeoutNow, TransferRefused};
use quorate_world::{
    events::Event,
    fixtures::{at, hear, id, lead, persist_all, replica},
    node::{Actor, Note},
    world::World,
};

fn led_by_1() -> World {
    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, 2);
    world.beat(1);
    world
}

fn transfer_leadership(world: &mut World, from: u64, to: Option<u64>) -> Result<NodeId, TransferRefused> {
    let (now, mut outcome) = (world.now, Err(TransferRefused::NotLeader));
    world
        .on(NodeId(from), |node, context| {
            node.rule(context, |replica, out| outcome = replica.transfer_leadership(now, to.map(NodeId), out));
        })
        .expect("what must hold");
    outcome
}

fn ended(world: &World) -> bool {
    world.notes.iter().any(|(_, note)| matches!(note, Note::LeadershipTransferEnded { .. }))
}

/// Thesis §3.10: the prior leader brings the target's log up to date and sends it TimeoutNow. The
/// target is elected without an election timeout, though all nodes hear a leader.
#[test]
fn leadership_moves_to_the_member_named_in_one_election() {
    let mut world = led_by_1();
    let term = world.term(1);
    assert_eq!(transfer_leadership(&mut world, 1, Some(3)), Ok(NodeId(3)));
    assert!(world.replica(1).holds_proposals(), "the log stands still");
    world.settle();
    assert!(world.replica(3).is_leader() && !world.replica(1).is_leader());
    assert_eq!(world.term(3), term + 1);
    world.beat(3);
    world.propose(3, 1);
    world.beat(3);
    assert_eq!(world.log(1), world.log(3));
}

/// A leader that was just elected has heard no peer yet, and transfers leadership all the same.
#[test]
fn a_leader_that_has_heard_no_peer_yet_may_transfer_leadership() {
    let mut leader = replica(1, 3, 1, None, &[1]);
    let led = lead(&mut leader, at(0));
    persist_all(&mut leader, &led);
    let mut out = Vec::new();
    assert!(leader.transfer_leadership(at(1), None, &mut out).is_ok());
    let tells = |effect: &Effect| matches!(effect, Effect::Send(outgoing) if matches!(outgoing.message.body, Body::TimeoutNow(_)));
    assert!(!out.iter().any(tells), "not before it has the log");
    let (to, last) = (leader.transfer_target().expect("a target"), leader.log().last().index);
    leader.matched(at(2), to, last, &mut out);
    assert!(out.iter().any(tells));
}

/// Without a named target it goes to the node with the longest log.
#[test]
fn leadership_moves_to_the_best_voter_if_none_is_named() {
    let mut world = led_by_1();
    world.cut_way(1, 2);
    world.propose(1, 3);
    assert_eq!(transfer_leadership(&mut world, 1, None), Ok(NodeId(3)));
    world.heal();
    world.settle();
    assert!(world.replica(3).is_leader());
}

/// "A transfer target campaigns before its log is complete": it is told only when it
/// has everything, committed.
#[test]
fn the_target_is_told_only_when_it_has_the_whole_log_and_all_of_it_is_committed() {
    let mut world = led_by_1();
    let told = |world: &World| world.wire.iter().any(|envelope| matches!(envelope.message.body, Body::TimeoutNow(_)));
    world.must(Event::Propose(NodeId(1), 2));
    transfer_leadership(&mut world, 1, Some(2)).expect("it leads");
    world.settle_within();
    assert!(world.replica(1).holds_proposals() && !told(&world), "the entries are on their way");
    world.settle();
    assert!(world.replica(2).is_leader());
    assert_eq!(world.replica(2).log().last(), id(6, world.term(2)), "two entries more, and its own");
}

/// "… or durable": a target that is told early, or lost an entry since, does not campaign.
#[test]
fn a_target_whose_log_is_not_the_leaders_does_not_campaign() {
    let mut target = replica(2, 3, 5, None, &[1, 1]);
    let heartbeat = quorate_world::fixtures::heartbeat(1, 0);
    hear(&mut target, at(0), 1, 5, heartbeat);
    let tell =
        |target: &mut quorate_raft::Replica, last| hear(target, at(1), 1, 5, Body::TimeoutNow(TimeoutNow { last }));
    let campaigns = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::OpenBallot(_)));
    assert!(!campaigns(&tell(&mut target, id(3, 1))), "it lacks an entry");
    assert!(!campaigns(&tell(&mut target, id(2, 2))), "it has another");
    let stranger = hear(&mut target, at(1), 3, 5, Body::TimeoutNow(TimeoutNow { last: id(2, 1) }));
    assert!(!campaigns(&stranger), "only the leader may say so");
    assert!(campaigns(&tell(&mut target, id(2, 1))));
    assert_eq!(target.term().0, 6);
}

/// "A transfer to a dead node blocks writes or reads for ever."
#[test]
fn a_leadership_transfer_to_a_node_that_does_not_answer_is_given_up_and_everything_is_as_before() {
    let mut world = led_by_1();
    world.isolate(3);
    assert_eq!(transfer_leadership(&mut world, 1, Some(3)), Ok(NodeId(3)), "it was heard a moment ago");
    world.settle();
    world.must(Event::Propose(NodeId(1), 1));
    let last = world.replica(1).log().last().index;
    assert_eq!(last, Index(3), "no proposals are taken meanwhile");
    world.must(Event::Read(NodeId(1), 7));
    world.settle();
    assert_eq!(world.answered_reads().0.len(), 1, "reads go on");
    world.pass(300);
    world.beat(1);
    assert!(ended(&world) && !world.replica(1).holds_proposals() && world.replica(1).is_leader());
    world.propose(1, 1);
    assert_eq!(world.replica(1).log().last().index, last.next());
    world.pass(400);
    world.beat(1);
    assert_eq!(
        transfer_leadership(&mut world, 1, Some(3)),
        Err(TransferRefused::Unreachable),
        "nothing was heard of it since"
    );
}

/// A late message to campaign is harmless: the term has moved on.
#[test]
fn a_word_to_campaign_that_arrives_in_a_later_term_counts_for_nothing() {
    let mut world = led_by_1();
    world.cut_way(1, 3);
    transfer_leadership(&mut world, 1, Some(3)).expect("it was heard");
    world.heal();
    let late = Body::TimeoutNow(TimeoutNow { last: world.replica(3).log().last() });
    let term = world.replica(1).term();
    world.isolate(1);
    world.elect(2);
    world.beat(2);
    let (now, message) = (world.now, quorate_raft::Message { term, body: late });
    world
        .on(NodeId(3), |node, context| {
            node.rule(context, |replica, out| replica.receive(now, NodeId(1), message, out));
        })
        .expect("what must hold");
    world.settle();
    assert!(world.replica(2).is_leader() && world.replica(3).leader() == Some(NodeId(2)));
}

#[test]
fn a_target_that_may_not_lead_is_refused_with_its_reason() {
    let mut world = led_by_1();
    assert_eq!(transfer_leadership(&mut world, 1, Some(9)), Err(TransferRefused::NotVoter { id: NodeId(9) }));
    assert_eq!(transfer_leadership(&mut world, 2, Some(3)), Err(TransferRefused::NotLeader));
    assert_eq!(transfer_leadership(&mut world, 1, Some(1)), Ok(NodeId(1)), "it leads already");
    world.isolate(3);
    transfer_leadership(&mut world, 1, Some(3)).expect("it was heard a moment ago");
    assert_eq!(transfer_leadership(&mut world, 1, Some(2)), Err(TransferRefused::Pending { to: NodeId(3) }));
    assert_eq!(transfer_leadership(&mut world, 1, Some(3)), Ok(NodeId(3)), "the same again is the same");
}

/// The members don't change during a transfer, and no transfer starts during a change, except for
/// the step that follows a joint configuration.
#[test]
fn no_change_begins_while_leadership_moves() {
    let mut world = led_by_1();
    world.isolate(3);
    transfer_leadership(&mut world, 1, Some(3)).expect("it was heard a moment ago");
    let (now, mut outcome) = (world.now, Ok(Index(0)));
    world
        .on(NodeId(1), |node, context| {
            let change = quorate_raft::Change::remove(NodeId(3));
            node.rule(context, |replica, out| outcome = replica.change(now, &change, out));
        })
        .expect("what must hold");
    assert_eq!(outcome, Err(quorate_raft::ChangeRefused::TransferInProgress));
    assert!(!world.running(NodeId(1)).expect("it runs").asked.has(Actor::Applier));
}
