//! Configurations in the log: in force from when they are appended, and gone with their entry.

use quorate_raft::{AppendOutcome, Batch, Effect, Index, Membership, MessageRefusal, NodeId, Replica, Term};
use quorate_world::{
    fixtures::{
        append, append_reply, at, batch, changing, disk_of, hear, id, lead, log_of, persist_all, persists, replica,
        settings, snapshot_of, terms, voters,
    },
    world::World,
};

/// A configuration counts from its entry on, committed or not, and the one before counts again when
/// the entry is removed.
#[test]
fn a_configuration_is_in_force_when_appended_and_gone_when_truncated() {
    let mut follower = replica(2, 3, 5, None, &[1]);
    let one = &log_of(&[1])[0];
    let change = changing(5, 2, one.checksum(), &voters(5));
    let effects = hear(&mut follower, at(0), 1, 5, append(1, id(1, 1), 0, Some(change.clone())));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Matched { matched: Index(2) }));
    assert_eq!((follower.membership(), follower.commit()), (&voters(5), Index(0)));
    assert_eq!(follower.membership_at(Index(1)), &voters(3), "as of the entry before it");
    let another = batch(6, 2, 1, one.checksum());
    hear(&mut follower, at(0), 3, 6, append(1, id(1, 1), 0, Some(another)));
    assert_eq!((terms(&follower), follower.membership()), (vec![1, 6], &voters(3)));
}

/// A leader needs the majority of the configuration that it appended, already for that entry.
#[test]
fn a_leader_commits_by_the_configuration_that_it_appended() {
    let mut leader = replica(1, 3, 1, None, &[]);
    let led = lead(&mut leader, at(0));
    persist_all(&mut leader, &led);
    leader.matched(at(0), NodeId(2), Index(1), &mut Vec::new());
    assert_eq!(leader.commit(), Index(1), "two of three");
    let change =
        changing(2, 2, leader.log().last_checksum(), &Membership::joint(voters(5).voters(), voters(3).voters()));
    let mut out = Vec::new();
    leader.propose(at(0), change, &mut out);
    let written = persists(&out).last().expect("a write").sequence;
    leader.persisted(at(0), written, &mut out);
    leader.matched(at(0), NodeId(4), Index(2), &mut out);
    leader.matched(at(0), NodeId(5), Index(2), &mut out);
    assert_eq!(leader.commit(), Index(1), "three of five, but one of the old three");
    leader.matched(at(0), NodeId(3), Index(2), &mut out);
    assert_eq!(leader.commit(), Index(2));
}

/// A snapshot has the configuration as of its last entry, never a later one that may still
/// be taken back.
#[test]
fn a_snapshot_taken_under_an_uncommitted_configuration_does_not_hold_it() {
    let mut follower = replica(2, 3, 5, None, &[1, 1]);
    let before = log_of(&[1, 1])[0].checksum();
    hear(&mut follower, at(0), 1, 5, append(1, id(2, 1), 2, Some(changing(5, 3, before, &voters(5)))));
    assert_eq!((follower.membership(), follower.membership_at(Index(2))), (&voters(5), &voters(3)));
    let mut out = Vec::new();
    follower.loaded(log_of(&[1, 1]), &mut out);
    follower.applied(Index(2), &mut out);
    let mut base = snapshot_of(2, 1).base;
    base.membership = follower.membership_at(Index(2)).clone();
    follower.snapshot_saved(at(0), &base, 0, &mut out);
    assert_eq!((follower.log().base(), follower.membership()), (id(2, 1), &voters(5)), "the later one stays in force");
    let behind = log_of(&[1, 1])[0].checksum();
    hear(&mut follower, at(0), 3, 6, append(1, id(2, 1), 2, Some(batch(6, 3, 1, behind))));
    assert_eq!(follower.membership(), &voters(3), "and goes with its entry, though that stood just behind the base");
}

/// A snapshot that replaces a configuration in the log leaves none of it in force, and
/// brings its own.
#[test]
fn a_snapshot_that_replaces_a_configuration_brings_its_own() {
    let change = |follower: &mut Replica| {
        let before = log_of(&[1])[0].checksum();
        hear(follower, at(0), 1, 5, append(1, id(1, 1), 0, Some(changing(5, 2, before, &voters(5)))));
        assert_eq!(follower.membership(), &voters(5));
    };
    let mut follower = replica(2, 3, 5, None, &[1]);
    change(&mut follower);
    let mut base = snapshot_of(4, 5).base;
    base.membership = voters(4);
    follower.snapshot_received(at(0), NodeId(1), 1, &base, &mut Vec::new());
    assert_eq!(follower.membership(), &voters(4));
    assert_eq!(follower.membership_at(Index(4)), &voters(4));

    let mut follower = replica(2, 3, 5, None, &[1]);
    change(&mut follower);
    let mut base = snapshot_of(1, 1).base;
    base.last_checksum = log_of(&[1])[0].checksum();
    base.membership = voters(4);
    follower.snapshot_received(at(0), NodeId(1), 1, &base, &mut Vec::new());
    assert_eq!(follower.membership(), &voters(5), "one behind the snapshot, which the log keeps, stays in force");
    assert_eq!(follower.membership_at(Index(1)), &voters(4));
}

/// Across a restart, the configurations in the log count from their entries, and those that a
/// snapshot covers from the snapshot.
#[test]
fn configurations_come_back_from_log_and_snapshot() {
    let mut disk = disk_of(1, None, &[1]);
    let first = changing(1, 2, log_of(&[1])[0].checksum(), &voters(4));
    disk.append(&first);
    disk.append(&changing(1, 3, first.checksum(), &voters(5)));
    let recovered =
        |disk: &mut quorate_world::disk::Disk| Replica::new(NodeId(1), voters(3), disk.recover(), settings());
    let replica = recovered(&mut disk);
    let at_index = |replica: &Replica, index| replica.membership_at(Index(index)).voters().len();
    assert_eq!([1, 2, 3].map(|index| at_index(&replica, index)), [3, 4, 5]);
    disk.compact(Index(2), voters(4));
    let replica = recovered(&mut disk);
    assert_eq!([2, 3].map(|index| at_index(&replica, index)), [4, 5]);
    assert_eq!(replica.membership(), &voters(5));
}

/// A leader takes a configuration, cuts its log after it, and a follower that was away gets
/// both by snapshot.
#[test]
fn a_follower_that_was_away_learns_the_configuration_by_snapshot() {
    let mut world = World::new(3);
    world.elect(1);
    world.isolate(3);
    let learners = voters(3).with_learners([NodeId(9)]);
    world.change(1, &learners);
    world.propose(1, 2);
    world.snapshot(1);
    assert!(world.replica(1).log().base().index > Index(2));
    world.heal();
    for _ in 0..3 {
        world.pass(2_000);
        world.beat(1);
    }
    assert_eq!(world.replica(3).membership(), &learners);
    world.crash(3);
    world.restart(3);
    assert_eq!(world.replica(3).membership(), &learners, "and still has it after a restart");
    // The index that one node reports may be expected at another one.
    let at = world.replica(1).membership_index();
    assert_eq!((at, world.replica(3).membership_index()), (Index(2), Index(2)), "wherever the snapshot ends");
    world.crash(1);
    world.restart(1);
    assert_eq!(world.replica(1).membership_index(), at);
}

/// Malformed configurations are refused, and stop no node.
#[test]
fn a_configuration_that_is_none_is_refused() {
    let mut follower = replica(2, 3, 5, None, &[1]);
    let before = log_of(&[1])[0].checksum();
    let refused = |follower: &mut Replica, batch: Batch| {
        let effects = hear(follower, at(0), 1, 5, append(1, id(1, 1), 0, Some(batch)));
        matches!(effects.last(), Some(Effect::Refused { reason: MessageRefusal::Malformed, .. }))
    };
    assert!(refused(&mut follower, changing(5, 2, before, &Membership::default())), "no node would vote");
    let mut cut = quorate_raft::BatchBuilder::new(quorate_world::fixtures::crc, Term(5), Index(2), before, 0);
    cut.push(quorate_raft::Kind::Membership, &voters(3).encode()[..7]);
    assert!(refused(&mut follower, cut.finish().expect("an entry")), "cut off");
    assert_eq!((terms(&follower), follower.membership()), (vec![1], &voters(3)));
}
