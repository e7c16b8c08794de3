//! The states in which explorations begin.

use crate::search::is_of_an_election;
use quorate_raft::{
    Body, Change, ClockDrift, Credit, EntryId, Index, Membership, Message, NodeId, Phase, Promise, RequestVote,
    SnapshotTransferSettings, Term, TimeoutNow, Vote,
};
use quorate_world::{
    digest::digest,
    disk::{Disk, Fault},
    events::Event,
    fixtures,
    rules::Rules,
    world::{Envelope, World},
};
use std::{sync::Arc, time::Duration};

/// Three nodes that have just started.
pub(crate) fn cluster() -> World {
    started(vec![Disk::default(); 3])
}

/// Node 1 has led term 2, and node 3 term 3; each left an entry on its own disk alone. Now node 1
/// leads term 4, by the vote of node 2.
pub(crate) fn figure_8() -> World {
    let disk = |term, terms: &[u64]| fixtures::disk_of(term, None, terms);
    let mut world = started(vec![disk(3, &[1, 2]), disk(3, &[1]), disk(4, &[1, 3])]);
    world.isolate(3);
    world.must(Event::Timeout(NodeId(1)));
    world.settle_until_led();
    world.cut.clear();
    world.wire.retain(|envelope| envelope.to != NodeId(3) && !is_of_an_election(&envelope.message));
    world
}

/// Node 1 leads term 1 and has committed two entries with node 2; node 3 has neither, and can
/// be reached again.
pub(crate) fn a_follower_behind() -> World {
    let mut world = cluster();
    world.elect(1);
    world.isolate(3);
    world.propose(1, 1);
    world.beat(1);
    world.cut.clear();
    assert_eq!((world.commit(2), world.replica(3).log().last().index), (2, Index(1)));
    world
}

/// The same, and node 1 has cut its log.
pub(crate) fn a_follower_behind_a_cut() -> World {
    let mut world = a_follower_behind();
    world.isolate(3);
    world.snapshot(1);
    world.cut.clear();
    assert_eq!(world.replica(1).log().base().index, Index(2));
    world
}

/// Three entries on every disk, the first of them known to be committed; node 1 lost the second,
/// and node 2 the first.
pub(crate) fn with_lost_payloads() -> World {
    let mut disks = vec![fixtures::disk_of(1, None, &[1, 1, 1]); 3];
    disks[0].lose(Index(2), Fault::Proven);
    disks[1].lose(Index(1), Fault::Proven);
    started(disks)
}

/// Nodes 1 and 3 have an entry; after it node 2 has the remains of another, left by a crash.
pub(crate) fn with_a_torn_write() -> World {
    let mut disks = [&[1][..], &[1, 1], &[1]].map(|terms| fixtures::disk_of(1, None, terms));
    disks[1].lose(Index(2), Fault::Torn);
    started(disks.into())
}

pub(crate) fn started(disks: Vec<Disk>) -> World {
    started_with(disks, None)
}

pub(crate) fn started_with(disks: Vec<Disk>, membership: Option<Membership>) -> World {
    started_as(disks, membership, None)
}

pub(crate) fn started_as(mut disks: Vec<Disk>, membership: Option<Membership>, witness: Option<NodeId>) -> World {
    // Without a clock no promise would ever end.
    disks.iter_mut().for_each(|disk| disk.hard_state.promise = Promise::NONE);
    let mut settings = fixtures::settings();
    (settings.election_timeout_min, settings.election_timeout_max) = (Duration::ZERO, Duration::ZERO);
    let credit = Credit { retry_after: Duration::ZERO, retry_max: Duration::ZERO, ..Credit::default() };
    let transfer = SnapshotTransferSettings {
        chunk_bytes: 1,
        window_bytes: 2,
        retry_after: Duration::ZERO,
        retry_max: Duration::ZERO,
        patience: Duration::MAX,
    };
    World::ruled(
        disks,
        Rules {
            credit,
            explores: true,
            prompt: true,
            snapshot_bytes: 1,
            transfer,
            digests: true,
            membership,
            witness,
            ..Rules::new(settings)
        },
    )
}

/// Node 1 leads term 1 and has committed its no-op; each node promises the given milliseconds, and
/// those of `later` at its next start. All clocks run alike.
pub(crate) fn led_by_1_promising(milliseconds: [u64; 3], later: [u64; 3]) -> World {
    let rules = Rules { prompt: true, digests: true, explores: true, ..Rules::new(fixtures::settings()) };
    let mut world = World::down(vec![Disk::default(); 3], rules.clone());
    let tell = |world: &mut World, milliseconds: [u64; 3]| {
        for (id, milliseconds) in world.ids().zip(milliseconds) {
            let mut rules = rules.clone();
            let shortest = Duration::from_millis(milliseconds);
            (rules.settings.election_timeout_min, rules.settings.election_timeout_max) = (shortest, 2 * shortest);
            rules.settings.clock_drift_max = ClockDrift::new(0, Duration::ZERO);
            world.told.insert(id, Arc::new(rules));
        }
    };
    tell(&mut world, milliseconds);
    for id in world.ids() {
        world.must(Event::Restart(id));
    }
    world.elect(1);
    world.beat(1);
    for (id, milliseconds) in world.ids().zip(milliseconds).skip(1) {
        assert_eq!(world.node(id).disk.hard_state.promise.lasts(), Duration::from_millis(milliseconds));
    }
    tell(&mut world, later);
    world
}

/// Three nodes; the first leads term 1 and has committed its no-op.
pub(crate) fn led_by_1() -> World {
    let mut world = cluster();
    world.elect(1);
    world
}

/// The same, and nodes 1 and 3 can't reach each other any more.
pub(crate) fn led_by_1_out_of_reach_of_3() -> World {
    let mut world = led_by_1();
    world.cut.extend([(1, 3), (3, 1)].map(|(from, to)| (NodeId(from), NodeId(to))));
    world
}

/// Nodes 1 and 2 vote, and the first leads term 1; node 3 is new, a learner, and has caught up.
pub(crate) fn led_by_1_with_a_learner() -> World {
    let mut world = started_with(vec![Disk::default(); 3], Some(Membership::of_voters([1, 2].map(NodeId))));
    world.elect(1);
    world.must(Event::Change(NodeId(1), Change::add(NodeId(3), "3")));
    world.settle();
    assert_eq!((world.commit(1), world.replica(3).log().last().index), (2, Index(2)));
    world
}

/// Nodes 1 and 2 vote, and the first leads term 1; node 3 was a learner, and was removed.
pub(crate) fn led_by_1_without_3() -> World {
    let mut world = led_by_1_with_a_learner();
    world.must(Event::Change(NodeId(1), Change::remove(NodeId(3))));
    world.settle();
    world.beat(1);
    assert_eq!((world.commit(2), world.replica(2).is_outside(NodeId(3))), (3, true));
    world
}

/// The same world, and a node from outside has sent nodes 1 and 2 the messages that would do most
/// harm if they were believed.
pub(crate) fn with_messages_from(outside: u64, mut world: World) -> World {
    let last = world.replica(1).log().last();
    let asks = RequestVote {
        phase: Phase::Vote,
        campaign: u64::MAX,
        last: EntryId::new(Term(9), Index(9)),
        by_transfer: true,
        machine_version: 0,
    };
    let says = [
        (2, 2, Body::RequestVote(asks)),
        (2, 1, fixtures::heartbeat(0, 9)),
        (2, 2, fixtures::append(u64::MAX, last, 9, None)),
        (2, 1 << 30, fixtures::heartbeat(0, 9)),
        (1, 1, Body::Vote(Vote { phase: Phase::Vote, campaign: 1, denial: None })),
        (1, 2, Body::TimeoutNow(TimeoutNow { last })),
        (1, 2, fixtures::heartbeat(0, 9)),
    ];
    for (to, term, body) in says {
        let (from, to, message) = (NodeId(outside), NodeId(to), Message { term: Term(term), body });
        let digest = digest(&(from, to, &message));
        world.wire.push(Arc::new(Envelope { from, to, message, digest }));
    }
    world
}

/// Nodes 1 and 2 are full copies, node 3 is the witness; the first leads term 1 and has
/// committed its no-op.
pub(crate) fn led_by_1_with_a_witness() -> World {
    let mut world = started_as(vec![Disk::default(); 3], None, Some(NodeId(3)));
    world.elect(1);
    world
}
