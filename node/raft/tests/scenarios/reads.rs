//! Linearizable reads, by read index.

use quorate_raft::{Body, Effect, Index, Message, NodeId, Replica, Term};
use quorate_world::{
    events::Event,
    fixtures::{at, hear, heartbeat_reply, lead, persist_all, replica},
    world::World,
};

/// A new leader serves no read before it has committed in its own term: it may not know the commit
/// index of its predecessors.
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

/// A late answer to an older round confirms no newer one.
#[test]
fn a_late_answer_confirms_no_newer_round() {
    let mut leader = replica(1, 3, 1, None, &[]);
    let led = lead(&mut leader, at(0));
    leader.matched(at(0), NodeId(2), Index(1), &mut Vec::new());
    persist_all(&mut leader, &led);
    let read = |leader: &mut Replica, token| {
        let mut out = Vec::new();
        leader.read(at(0), token, &mut out);
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

/// Across terms: rounds begin anew with every leadership, so an answer to a heartbeat of an earlier
/// one names no round.
#[test]
fn an_answer_to_an_earlier_leadership_confirms_no_read_of_this_one() {
    let mut world = World::new(3);
    world.elect(1);
    world.read(1, 1);
    world.settle_within();
    // The heartbeat of round 1 in term 1 to node 2 is delayed; all else goes on until node 1
    // leads term 2.
    let delayed = world.wire.iter().position(|envelope| envelope.to == NodeId(2)).map(|at| world.wire.remove(at));
    world.settle();
    world.pass(400);
    world.timeout_of(1);
    assert_eq!(world.leaders(), [], "it heard no quorum for long");
    world.elect(1);
    assert_eq!((world.term(1), world.term(2)), (2, 2));
    world.wire.extend(delayed);
    world.deliver_first(|_, to, _| to == NodeId(2));
    let answer = world.wire.pop().expect("2 tells of the later term");
    // Node 2 answered before the next read is asked for; then it helps to elect node
    // 3, which commits.
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
