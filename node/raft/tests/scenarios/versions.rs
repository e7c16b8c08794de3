//! Clusters of several releases, whose state machines do not all apply each other's entries. The
//! rules do not know wire versions.

use quorate_raft::{
    Body, Effect, MachineVersions, Message, NodeId, Outgoing, Phase, Replica, RequestVote, Settings, Term,
};
use quorate_world::{
    disk::Disk,
    events::Note,
    fixtures::{at, hear, id, settings, vote_reply, voters},
    world::World,
};

/// A voter votes for a candidate whose version it can apply, in either round, even if that is older
/// than the version that it writes.
#[test]
fn a_voter_votes_only_for_a_candidate_whose_version_it_applies() {
    for (phase, by_transfer) in [(Phase::PreVote, false), (Phase::Vote, false), (Phase::Vote, true)] {
        for version in [0, 1, 2, 3, 4, 5, u32::MAX] {
            let mut voter = applying(2, 4, 3);
            let body = request(phase, version, by_transfer);
            let effects = hear(&mut voter, at(1_000), 2, 1, body);
            let granted = (2..=4).contains(&version);
            assert_eq!(vote_reply(&effects), Some((Term(1), granted)), "{phase:?} of version {version}");
            let unknown = Effect::MachineUnknown { candidate: NodeId(2), version };
            assert_eq!(effects.contains(&unknown), !granted, "it is named: {effects:?}");
            if !granted {
                assert_eq!(voter.vote(), None, "the vote is still free");
                let effects = hear(&mut voter, at(1_000), 3, 1, request(Phase::Vote, 3, false));
                assert!(!effects.is_empty() && voter.vote() == Some(NodeId(3)));
            }
        }
    }
}

/// A voter that hears a leader refuses for that reason alone, and reports no version.
#[test]
fn a_voter_that_hears_a_leader_blames_no_version() {
    let mut voter = applying(0, 0, 0);
    hear(&mut voter, at(1_000), 3, 1, quorate_world::fixtures::heartbeat(0, 0));
    let effects = hear(&mut voter, at(1_010), 2, 1, request(Phase::PreVote, 9, false));
    assert_eq!(vote_reply(&effects), Some((Term(1), false)));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::MachineUnknown { .. })));
}

/// A release that writes a new version leads as soon as a quorum can apply it, and no sooner; the
/// older ones lead until then, and no term is lost in vain.
#[test]
fn a_newer_release_leads_as_soon_as_a_quorum_applies_its_version() {
    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, 3);
    upgrade(&mut world, 1);
    world.pass(400);
    for _ in 0..3 {
        world.timeout_of(1);
    }
    assert_eq!((world.leaders(), world.term(1)), (vec![], 1), "both others refuse, so it does not even stand");
    let refused = Note::MachineUnknown;
    assert!([2, 3].iter().all(|voter| world.notes.iter().any(|(by, note)| *by == NodeId(*voter) && *note == refused)));

    world.timeout_of(2);
    assert_eq!(world.leaders(), [(Term(2), NodeId(2))], "an older one leads newer ones");
    world.propose(2, 3);
    world.beat(2);
    assert_eq!(world.log(1), world.log(2));

    upgrade(&mut world, 2);
    world.pass(400);
    world.timeout_of(1);
    assert_eq!(world.leaders(), [(Term(3), NodeId(1))], "two of three apply what it writes");
    world.propose(1, 3);
    world.beat(1);
    assert_eq!(world.log(3), world.log(1), "the third follows");
}

/// A release that already applies the version of the next one exchanges leadership with it
/// in both directions.
#[test]
fn a_release_that_reads_ahead_votes_for_the_next_one() {
    let mut world = World::new(3);
    for node in 1..=3 {
        world.machines.insert(NodeId(node), MachineVersions { writes: 0, oldest: 0, newest: 1 });
        world.crash(node);
        world.restart(node);
    }
    upgrade(&mut world, 1);
    world.pass(400);
    world.elect(1);
    world.pass(400);
    world.elect(2);
}

/// The machine of a service writes a higher version once the log says so.
#[test]
fn a_candidate_states_the_version_that_its_machine_has_reached() {
    for (reached, stated) in [(&[][..], 1), (&[3], 3), (&[3, 2], 3), (&[0], 1)] {
        let mut candidate = applying(0, 4, 1);
        reached.iter().for_each(|version| candidate.machine_writes(*version));
        let mut effects = Vec::new();
        candidate.election_timeout(at(1_000), Term(1), &mut effects);
        let asks = effects.iter().filter_map(|effect| match effect {
            Effect::Send(Outgoing { message: Message { body: Body::RequestVote(asks), .. }, .. }) => Some(asks),
            _ => None,
        });
        assert_eq!(asks.map(|asks| asks.machine_version).collect::<Vec<_>>(), [stated; 2], "both others are asked");
    }
}

/// It comes back with a release that writes 1, and applies the older one's version.
fn upgrade(world: &mut World, node: u64) {
    world.machines.insert(NodeId(node), MachineVersions { writes: 1, oldest: 0, newest: 1 });
    world.crash(node);
    world.restart(node);
}

/// Node 1 of three, in term 1 and with an empty log.
fn applying(oldest: u32, newest: u32, writes: u32) -> Replica {
    let settings = Settings { machine: MachineVersions { writes, oldest, newest }, ..settings() };
    let mut disk = Disk::default();
    disk.hard_state.term = Term(1);
    Replica::new(NodeId(1), voters(3), disk.recover(), settings)
}

fn request(phase: Phase, machine_version: u32, by_transfer: bool) -> Body {
    Body::RequestVote(RequestVote { phase, campaign: 1, last: id(0, 0), by_transfer, machine_version })
}
