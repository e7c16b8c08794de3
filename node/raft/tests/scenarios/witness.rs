//! The witness, a voter that keeps no commands: the entries that it is sent, its purpose, and the
//! things that it must never do.

use quorate_raft::{
    Batch, Body, Change, ChangeRefused, Effect, Index, Kind, Membership, NodeId, RepairOutcome, Replica, Settings,
    TimeoutNow, TransferRefused, Violation,
};
use quorate_world::{
    disk::{Disk, Fault},
    events::Event,
    fixtures::{
        append, append_reply, at, batch, crc, disk_of, hear, id, lead, log_of, persist_all, repair, repair_reply,
        settings, voters,
    },
    rules::Rules,
    world::World,
};

const WITNESS: NodeId = NodeId(3);

/// Nodes 1 and 2 are full copies, 3 is the witness, and node 1 leads.
fn world() -> World {
    let mut world = World::ruled(vec![Disk::default(); 3], Rules { witness: Some(WITNESS), ..Rules::new(settings()) });
    world.elect(1);
    world
}

/// A witness of three that recovered this log.
fn witness(term: u64, terms: &[u64]) -> Replica {
    let settings = Settings { is_witness: true, ..settings() };
    let membership = voters(3).with_witness(Some(WITNESS));
    let mut disk = Disk::with(disk_of(term, None, &[]).hard_state);
    log_of(terms).iter().for_each(|batch| disk.append(&batch.to_stubs(crc)));
    Replica::new(WITNESS, membership, disk.recover(), settings)
}

/// The kinds of commands on the witness's disk: all are stubs.
fn kinds(world: &World) -> Vec<Kind> {
    let disk = &world.node(WITNESS).disk;
    let batches = disk.read(disk.base.index.next(), Index(u64::MAX));
    batches.iter().flat_map(|batch| batch.records().map(|record| record.kind).collect::<Vec<_>>()).collect()
}

/// The leader's election timer goes off, twice, with entries waiting to be committed all the time.
fn wait_in_vain(world: &mut World, leader: u64) {
    for _ in 0..2 {
        world.pass(200);
        world.must(Event::Heartbeat(NodeId(leader)));
        world.settle();
        world.must(Event::Timeout(NodeId(leader)));
        world.settle();
    }
}

#[test]
fn a_stub_stands_for_its_record_in_every_comparison() {
    let mut log = quorate_raft::BatchBuilder::new(crc, quorate_raft::Term(3), Index(7), 9, 0);
    log.push(Kind::Noop, &[]);
    log.push(Kind::Command, b"a command that no node keeps");
    log.push(Kind::Membership, &voters(3).with_witness(Some(WITNESS)).encode());
    log.push(Kind::Session, &[7; 90]);
    log.push(Kind::Tick, &[7; quorate_raft::tick::TICK_BYTES]);
    log.push(Kind::Internal, &[7; 3]);
    let whole = log.finish().expect("six entries");
    let stubs = whole.to_stubs(crc);
    let kept = Batch::parse(stubs.bytes().clone(), crc).expect("it holds");
    assert_eq!(kept, stubs);
    assert_eq!(kept.to_stubs(crc), kept, "once is enough");
    assert_eq!((kept.first(), kept.last_id(), kept.checksum()), (whole.first(), whole.last_id(), whole.checksum()));
    let identity = |batch: &Batch| -> Vec<_> {
        batch.records().map(|record| (record.id, record.previous_checksum, record.checksum)).collect()
    };
    assert_eq!(identity(&kept), identity(&whole));
    assert_eq!(kept.memberships(), whole.memberships());
    assert!(kept.has_stubs() && !whole.has_stubs());
    assert!(!kept.up_to(Index(7)).expect("the no-op").has_stubs(), "of what is whole, all is kept");
    let kinds: Vec<_> = kept.records().map(|record| record.kind).collect();
    assert_eq!(kinds, [Kind::Noop, Kind::Stub, Kind::Membership, Kind::Stub, Kind::Stub, Kind::Stub]);
    assert_eq!((whole.ticks().count(), kept.ticks().count()), (1, 0), "a stub has no time");
    assert!(!kept.bytes().windows(7).any(|bytes| bytes == b"command"));
    for at in 0..kept.bytes().len() {
        let mut damaged = kept.bytes().to_vec();
        damaged[at] ^= 0x10;
        assert!(Batch::parse(damaged.into(), crc).is_err(), "byte {at}");
    }
}

#[test]
fn a_witness_is_sent_committed_entries_and_keeps_stubs_of_them() {
    let mut world = world();
    world.cut_way(2, 1);
    world.propose(1, 3);
    let committed = world.replica(1).commit();
    assert_eq!(world.node(WITNESS).disk.last().index, committed, "not what only the leader has");
    world.heal();
    world.beat(1);
    world.pass(400);
    world.beat(1);
    world.beat(1);
    assert_eq!(world.replica(1).commit(), world.replica(1).log().last().index);
    assert_eq!(world.node(WITNESS).disk.last(), world.replica(1).log().last());
    assert_eq!(kinds(&world), [Kind::Noop, Kind::Stub, Kind::Stub, Kind::Stub]);
}

/// Its purpose: with one full copy down, the other commits.
#[test]
fn with_one_full_copy_gone_the_other_goes_on() {
    let mut world = world();
    world.isolate(2);
    world.propose(1, 3);
    let before = world.replica(1).commit();
    wait_in_vain(&mut world, 1);
    assert!(world.replica(1).commit() > before && world.replica(1).is_leader());
    assert_eq!(world.replica(1).commit(), world.replica(1).log().last().index);
    world.propose(1, 2);
    assert_eq!(world.replica(1).commit(), world.replica(1).log().last().index, "and goes on at once");
    // The other copy comes back, and soon the witness is no longer needed to commit.
    world.heal();
    for _ in 0..3 {
        world.pass(400);
        world.beat(1);
    }
    assert_eq!(world.node(NodeId(2)).disk.last(), world.replica(1).log().last());
    world.propose(1, 1);
    world.cut_way(2, 1);
    let committed = world.replica(1).commit();
    world.propose(1, 1);
    assert_eq!(world.node(WITNESS).disk.last().index, committed, "the tie-break is over");
}

/// Its replicator relies on the limit: the last entry that it may send never goes back.
#[test]
fn the_limit_of_a_witness_never_goes_back() {
    let mut leader =
        Replica::new(NodeId(1), voters(3).with_witness(Some(WITNESS)), Disk::default().recover(), settings());
    let led = lead(&mut leader, at(0));
    persist_all(&mut leader, &led);
    let mut out = Vec::new();
    leader.propose(at(0), batch(1, 2, 3, leader.log().last_checksum()), &mut out);
    let told = persist_all(&mut leader, &out);
    assert!(told.contains(&Effect::ReplicateTo { peer: WITNESS, to: Index(4) }), "{told:?}");
    leader.matched(at(0), NodeId(2), Index(1), &mut out);
    assert_eq!((leader.commit(), leader.goes_to(WITNESS)), (Index(1), Index(4)), "though the tie-break is over");
    leader.matched(at(0), NodeId(2), Index(4), &mut out);
    let mut more = Vec::new();
    leader.propose(at(0), batch(1, 5, 1, leader.log().last_checksum()), &mut more);
    persist_all(&mut leader, &more);
    assert_eq!(leader.goes_to(WITNESS), Index(4));
}

/// While both full copies are up, the witness gets ahead of neither: so either can be elected when
/// the other dies.
#[test]
fn the_other_full_copy_is_elected_when_the_leader_dies() {
    let mut world = world();
    world.propose(1, 4);
    // In flight to the follower, and not arrived.
    world.cut_way(1, 2);
    world.propose(1, 4);
    world.must(Event::Crash(NodeId(1), None));
    world.heal();
    world.elect(2);
    assert_eq!(world.replica(2).commit(), world.replica(2).log().last().index, "with the witness, at once");
    world.must(Event::Restart(NodeId(1)));
    world.pass(400);
    world.beat(2);
    world.beat(2);
    assert_eq!(world.node(NodeId(1)).disk.last(), world.replica(2).log().last());
}

/// The limit: an entry that a leader and the witness committed waits for that leader, and
/// is not lost.
#[test]
fn an_entry_committed_with_the_witness_waits_for_the_node_that_has_it() {
    let mut world = world();
    world.isolate(2);
    world.propose(1, 3);
    wait_in_vain(&mut world, 1);
    let committed = world.replica(1).commit();
    world.must(Event::Crash(NodeId(1), None));
    world.heal();
    world.pass(2_000);
    world.timeout_of(2);
    assert!(!world.replica(2).is_leader(), "it lacks what is committed");
    world.must(Event::Restart(NodeId(1)));
    world.elect(1);
    world.pass(400);
    world.beat(1);
    world.beat(1);
    assert!(world.replica(2).commit() >= committed);
}

#[test]
fn a_witness_never_campaigns() {
    let mut world = world();
    world.isolate(1);
    world.pass(2_000);
    world.timeout_of(3);
    assert!(!world.replica(3).is_leader());
    assert_eq!(world.term(3), 1);
    let mut told = witness(5, &[1, 5]);
    hear(&mut told, at(1_000), 1, 5, append(1, id(2, 5), 2, None));
    let effects = hear(&mut told, at(1_001), 1, 5, Body::TimeoutNow(TimeoutNow { last: id(2, 5) }));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::OpenBallot(_))), "{effects:?}");
}

#[test]
fn leadership_is_transferred_to_no_witness() {
    let mut world = world();
    let transfer_leadership = |world: &mut World, to: Option<NodeId>| {
        let (now, mut outcome) = (world.now, Err(TransferRefused::NotLeader));
        let act = |replica: &mut Replica, out: &mut Vec<Effect>| outcome = replica.transfer_leadership(now, to, out);
        world.on(NodeId(1), |node, context| node.rule(context, act)).expect("what must hold");
        outcome
    };
    assert_eq!(transfer_leadership(&mut world, Some(WITNESS)), Err(TransferRefused::Witness { id: WITNESS }));
    assert_eq!(transfer_leadership(&mut world, None), Ok(NodeId(2)));
}

/// It had the entry, so the entry must not be forgotten; and it can't give it back.
#[test]
fn a_witness_answers_for_an_entry_that_it_holds_that_it_is_lost() {
    let mut witness = witness(5, &[1, 1, 2]);
    let said = |effects: Vec<Effect>| {
        let sent = effects.iter().filter_map(|effect| match effect {
            Effect::Send(outgoing) => Some(outgoing),
            _ => None,
        });
        repair_reply(&sent.collect::<Vec<_>>())
    };
    assert_eq!(said(hear(&mut witness, at(9_000), 1, 5, repair(id(2, 1), 2))), Some(RepairOutcome::Lost));
    assert_eq!(said(hear(&mut witness, at(9_000), 1, 5, repair(id(4, 2), 4))), Some(RepairOutcome::Absent));
}

#[test]
fn a_full_copy_takes_no_stubs_and_a_witness_keeps_nothing_else() {
    let stubs = batch(5, 1, 2, 0).to_stubs(crc);
    let mut full = Replica::new(NodeId(2), voters(3), Disk::default().recover(), settings());
    let mistaken = |effects: &[Effect], is_witness| {
        let violation = Violation::Mistaken { leader: NodeId(1), is_witness };
        assert_eq!(effects.last(), Some(&Effect::Halt(violation)));
    };
    mistaken(&hear(&mut full, at(0), 1, 5, append(1, id(0, 0), 0, Some(stubs.clone()))), false);
    let mut mistaken_for_full = witness(5, &[]);
    mistaken(&hear(&mut mistaken_for_full, at(0), 1, 5, append(1, id(0, 0), 0, Some(batch(5, 1, 2, 0)))), true);
    let mut witness = witness(5, &[]);
    let effects = hear(&mut witness, at(0), 1, 5, append(1, id(0, 0), 0, Some(stubs)));
    let written = effects.iter().find_map(|effect| match effect {
        Effect::Persist(persist) => persist.batch.clone(),
        _ => None,
    });
    assert!(written.is_some_and(|batch| batch.records().all(|record| record.kind == Kind::Stub)));
    assert!(append_reply(&effects).is_some());
}

/// It compares logs like any other node: by ids, and by checksums.
#[test]
fn a_witness_notices_that_a_log_differs_under_the_same_ids() {
    let mut witness = witness(5, &[1, 1]);
    let other = {
        let mut other = quorate_raft::BatchBuilder::new(crc, quorate_raft::Term(1), Index(1), 0, 0);
        other.push(Kind::Command, b"another");
        other.push(Kind::Command, b"and another");
        other.finish().expect("two entries")
    };
    let probe = quorate_raft::Append { previous_checksum: Some(other.checksum()), ..probe_behind(id(2, 1)) };
    let effects = hear(&mut witness, at(0), 1, 5, Body::Append(probe));
    assert!(matches!(append_reply(&effects), Some(quorate_raft::AppendOutcome::Diverged { .. })), "{effects:?}");
}

fn probe_behind(previous: quorate_raft::EntryId) -> quorate_raft::Append {
    quorate_raft::Append { epoch: 1, previous, previous_checksum: None, commit: Index(0), batch: None }
}

#[test]
fn a_witness_that_was_away_needs_no_state_to_catch_up() {
    let mut world = world();
    world.isolate(3);
    world.propose(1, 5);
    world.snapshot(1);
    assert!(world.replica(1).log().base().index > Index(2));
    world.heal();
    for _ in 0..4 {
        world.pass(2_000);
        world.beat(1);
    }
    let pieces = world.notes.iter().filter(|(id, _)| *id == WITNESS).count();
    assert_eq!(world.replica(3).log().last(), world.replica(1).log().last(), "{pieces}");
    assert_eq!(world.replica(3).commit(), world.replica(1).commit());
}

/// Its own log is cut like any other.
#[test]
fn a_witness_restarts_with_its_promises() {
    let mut world = world();
    world.propose(1, 3);
    world.beat(1);
    world.snapshot(3);
    world.propose(1, 2);
    let before = (world.replica(3).log().last(), world.term(3), world.replica(3).vote());
    world.must(Event::Crash(WITNESS, None));
    world.must(Event::Restart(WITNESS));
    assert_eq!((world.replica(3).log().last(), world.term(3), world.replica(3).vote()), before);
    assert!(world.replica(3).is_witness() && world.replica(3).is_as_configured());
}

/// A stub that its disk lost comes from the others: they send the whole entry, and the witness
/// keeps a stub of it, as before.
#[test]
fn a_witness_repairs_the_stubs_that_its_disk_lost() {
    let mut world = world();
    world.propose(1, 3);
    world.beat(1);
    let before = kinds(&world);
    world.must(Event::Crash(WITNESS, None));
    for index in [2, 4] {
        world.must(Event::Lose(WITNESS, Index(index), Fault::Proven));
    }
    world.must(Event::Restart(WITNESS));
    assert_eq!(world.replica(3).first_faulty(), Some(Index(2)));
    world.propose(1, 1);
    for _ in 0..4 {
        world.pass(400);
        world.beat(1);
    }
    assert_eq!(world.replica(3).first_faulty(), None);
    assert_eq!(kinds(&world)[..before.len()], before);
    // And without a leader: the copy of any member will do.
    world.must(Event::Crash(WITNESS, None));
    world.must(Event::Lose(WITNESS, Index(3), Fault::Proven));
    world.must(Event::Restart(WITNESS));
    world.isolate(1);
    world.pass(2_000);
    world.timeout_of(3);
    assert_eq!(world.replica(3).first_faulty(), None);
}

#[test]
fn a_witness_joins_votes_and_leaves() {
    let membership = Some(voters(2));
    let rules = Rules { witness: Some(WITNESS), membership, ..Rules::new(settings()) };
    let mut world = World::ruled(vec![Disk::default(); 3], rules);
    world.elect(1);
    let change = |world: &mut World, change: Change| {
        let (now, mut outcome) = (world.now, Err(ChangeRefused::NotLeader));
        let act = |replica: &mut Replica, out: &mut Vec<Effect>| outcome = replica.change(now, &change, out);
        world.on(NodeId(1), |node, context| node.rule(context, act)).expect("what must hold");
        world.settle();
        world.beat(1);
        world.beat(1);
        outcome
    };
    world.propose(1, 3);
    change(&mut world, Change::add_witness(WITNESS, "three")).expect("it leads");
    assert!(world.replica(1).membership().learners() == [WITNESS] && world.replica(3).is_as_configured());
    assert_eq!(world.node(WITNESS).disk.last(), world.replica(1).log().last());
    change(&mut world, Change::promote(WITNESS)).expect("it has caught up");
    let as_added = addressed(3, Some(WITNESS)).with_given_addresses([WITNESS]);
    assert_eq!(world.replica(1).membership(), &as_added);
    assert!(world.replica(1).is_settled());
    assert_eq!(
        change(&mut world, Change::add_witness(NodeId(4), "four")),
        Err(ChangeRefused::WitnessTaken { id: WITNESS })
    );
    let replaced = Change::remove(WITNESS).and(Change::add_witness(NodeId(4), "four"));
    assert_eq!(change(&mut world, replaced), Err(ChangeRefused::WitnessTaken { id: WITNESS }));
    assert_eq!(change(&mut world, Change::remove(NodeId(2))), Err(ChangeRefused::TooFewFull));
    assert_eq!(
        change(&mut world, Change::add_witness(NodeId(2), "two")),
        Err(ChangeRefused::WitnessTaken { id: WITNESS })
    );
    change(&mut world, Change::remove(WITNESS)).expect("two full copies are left");
    assert_eq!(world.replica(1).membership().witness(), None);
    assert_eq!(
        change(&mut world, Change::add_witness(NodeId(2), "two")),
        Err(ChangeRefused::NotWitness { id: NodeId(2) })
    );
}

fn addressed(nodes: u64, witness: Option<NodeId>) -> Membership {
    let addresses = [(WITNESS, "three".to_owned())].into();
    voters(nodes).with_addresses(addresses).with_witness(witness)
}

#[test]
fn a_node_knows_when_the_configuration_contradicts_its_kind() {
    let replica = |is_witness, membership: Membership| {
        let settings = Settings { is_witness, ..settings() };
        Replica::new(WITNESS, membership, Disk::default().recover(), settings).is_as_configured()
    };
    let with = || voters(3).with_witness(Some(WITNESS));
    assert!(replica(true, with()) && replica(false, voters(3)));
    assert!(!replica(false, with()) && !replica(true, voters(3)));
    assert!(replica(true, voters(2)) && replica(true, Membership::default()), "it may yet be added");
}
