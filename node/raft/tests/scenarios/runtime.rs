//! Faults at run time as far as the rules decide, and hostile peers.

use quorate_raft::{Effect, Index, NodeId, Persist, Replica, Role, Settings, Term};
use quorate_world::{
    fixtures::{
        append, append_reply, at, batch, disk_of, hear, heartbeat, heartbeat_reply, id, lead, log_of, persist_all,
        persists, replica, settings, terms, voters,
    },
    world::World,
};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// A leader whose disk is stuck steps down and does not campaign, though its peers hear it well;
/// another node leads meanwhile.
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

/// A leader whose state machine is stuck at one entry answers no request, and is replaced; one that
/// is only slow is not.
#[test]
fn a_leader_whose_state_machine_is_stuck_is_replaced_and_one_that_is_slow_is_not() {
    for is_stuck in [true, false] {
        let mut leader = replica(1, 3, 1, None, &[]);
        let led = lead(&mut leader, at(0));
        persist_all(&mut leader, &led);
        let (mut out, term) = (Vec::new(), leader.term());
        leader.matched(at(0), NodeId(2), Index(1), &mut out);
        assert_eq!((leader.dispatched(), leader.applied_index()), (Index(1), Index(0)));
        for now in (0..=3_000).step_by(50) {
            leader.tick(at(now), &mut out);
            hear(&mut leader, at(now), 2, term.0, heartbeat_reply(0));
            if now == 2_000 && !is_stuck {
                leader.applied(Index(1), &mut out);
            }
        }
        leader.election_timeout(at(3_001), term, &mut out);
        assert_eq!(leader.is_leader(), !is_stuck);
    }
}

/// A state machine that halted applies nothing more: committed entries are dispatched without the
/// bound of those that are not applied, and its leader stays, for its disk and its peers work.
#[test]
fn a_leader_whose_state_machine_halted_dispatches_everything_and_leads_on() {
    for is_halted in [true, false] {
        let bounded = Settings { unapplied_entries_max: 2, ..settings() };
        let mut leader = Replica::new(NodeId(1), voters(3), disk_of(1, None, &[]).recover(), bounded);
        let led = lead(&mut leader, at(0));
        persist_all(&mut leader, &led);
        let (mut out, term) = (Vec::new(), leader.term());
        let previous = leader.log().last_checksum();
        leader.propose(at(0), batch(term.0, 2, 5, previous), &mut out);
        let proposed = persist_all(&mut leader, &out);
        out.extend(proposed);
        leader.matched(at(0), NodeId(2), Index(6), &mut out);
        assert_eq!((leader.commit(), leader.applied_index()), (Index(6), Index(0)));
        assert_eq!(leader.dispatched(), Index(2), "as many as may wait");
        out.clear();
        if is_halted {
            leader.machine_halted(&mut out);
        }
        let handed = out.iter().filter_map(|effect| match effect {
            Effect::Apply(batch) => Some((batch.first().0, batch.last().0)),
            _ => None,
        });
        assert_eq!(handed.collect::<Vec<_>>(), if is_halted { vec![(3, 6)] } else { vec![] });
        assert_eq!(leader.dispatched(), Index(if is_halted { 6 } else { 2 }));
        for now in (0..=4_000).step_by(50) {
            leader.tick(at(now), &mut out);
            hear(&mut leader, at(now), 2, term.0, heartbeat_reply(0));
        }
        leader.election_timeout(at(4_001), term, &mut out);
        assert_eq!((leader.is_leader(), leader.applied_index()), (is_halted, Index(0)));
    }
}

/// Models take states with the same hash for one: a halted state machine changes the rules.
#[test]
fn a_replica_with_a_halted_state_machine_hashes_differently() {
    let (sound, mut halted) = (replica(1, 3, 1, None, &[]), replica(1, 3, 1, None, &[]));
    let hash = |replica: &Replica| BuildHasherDefault::<DefaultHasher>::default().hash_one(replica);
    assert_eq!(hash(&sound), hash(&halted));
    halted.machine_halted(&mut Vec::new());
    assert_ne!(hash(&sound), hash(&halted));
}

/// Hostile or broken peers are refused and stop no node.
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
    let mut node = Replica::new(NodeId(1), voters(3), disk_of(5, None, &[]).recover(), small);
    let log = log_of(&[5, 5, 5, 5]);
    let first = hear(&mut node, at(0), 2, 5, append(1, id(0, 0), 0, log[0].up_to(Index(2))));
    assert!(!refused(&first) && persists(&first).iter().any(|Persist { batch, .. }| batch.is_some()));
    let second = hear(&mut node, at(0), 2, 5, append(1, id(2, 5), 0, log[0].from(Index(3))));
    assert!(refused(&second), "more than may wait for the disk");
    persist_all(&mut node, &first);
    let again = hear(&mut node, at(0), 2, 5, append(1, id(2, 5), 0, log[0].from(Index(3))));
    assert!(!refused(&again), "sent again later it is taken");
}
