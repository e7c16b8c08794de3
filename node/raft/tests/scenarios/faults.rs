//! Faulty entries, and the remains of torn writes.

use quorate_raft::{
    AppendOutcome, Body, Effect, EntryId, Index, MessageRefusal, NodeId, Phase, RepairOutcome, Replica, Role, Term,
};
use quorate_world::{
    disk::{Disk, Fault},
    fixtures::{
        append, append_reply, at, batch, disk_of, faulty_replica, hear, heartbeat, id, log_of, opened, persist_all,
        persists, promised, repair, repair_reply, replica, request_vote, sent, settings, terms, vote_reply, voters,
    },
    world::World,
};

/// A hole in the log does not end it: votes and log checks rest on the entries that are known to
/// have been there.
#[test]
fn a_faulty_entry_is_not_the_end_of_the_log() {
    for lost in [2, 3] {
        let mut voter = faulty_replica(&[1, 1, 3], &[lost]);
        assert_eq!((voter.first_faulty(), voter.faulty_count()), (Some(Index(lost)), 1));
        for (last, granted) in [(id(2, 1), false), (id(9, 2), false), (id(3, 3), true)] {
            let effects = hear(&mut voter, at(0), 3, 5, request_vote(Phase::PreVote, 1, last));
            assert_eq!(vote_reply(&effects).map(|(_, granted)| granted), Some(granted), "{lost} is lost, {last} asks");
        }
    }
}

/// A node with faulty entries does not campaign; it asks every member for the first of them.
#[test]
fn a_node_with_faulty_entries_asks_for_them_instead_of_votes() {
    let mut node = faulty_replica(&[1, 1, 1, 2, 2], &[2, 3, 4]);
    let mut out = Vec::new();
    node.election_timeout(at(0), Term(5), &mut out);
    assert_eq!((opened(&out), node.role()), (None, &Role::Follower));
    assert!(out.contains(&Effect::ArmTimer), "it will ask again");
    let asked: Vec<_> = sent(&out).iter().map(|outgoing| (outgoing.to, outgoing.message.body.clone())).collect();
    assert_eq!(asked, [2, 3].map(|to| (NodeId(to), repair(id(2, 1), 3))), "the first run of one term");
}

/// An append that begins after a faulty entry is rejected, so that the leader goes back to it. The
/// entry that it sends again is written in place, and no entry at or above it is acknowledged or
/// applied before that is durable.
#[test]
fn a_leader_that_is_rejected_goes_back_and_heals() {
    let log = log_of(&[1, 1, 1, 1]);
    let mut node = faulty_replica(&[1, 1, 1, 1], &[2, 4]);
    let effects = hear(&mut node, at(0), 3, 5, append(1, id(4, 1), 4, None));
    let (previous, conflict, last) = (Index(4), id(1, 1), Index(1));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Rejected { previous, conflict, last, log_last: Index(4) }));
    let effects =
        hear(&mut node, at(0), 3, 5, append(1, id(1, 1), 4, log[0].from(Index(2)).and_then(|b| b.up_to(Index(3)))));
    assert!(sent(&effects).is_empty(), "the acknowledgement waits");
    let write = persists(&effects)[0];
    assert_eq!((write.truncate_from, &write.batch), (None, &None), "nothing is overwritten");
    assert_eq!(write.repair.as_ref().map(|batch| (batch.first(), batch.last())), Some((Index(2), Index(2))));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Matched { matched: Index(3) }));
    assert_eq!((node.first_faulty(), node.dispatched()), (Some(Index(2)), Index(0)), "not whole yet");
    persist_all(&mut node, &effects);
    assert_eq!((node.first_faulty(), node.faulty_count()), (Some(Index(4)), 1));
    let effects = hear(&mut node, at(0), 3, 5, append(1, id(3, 1), 4, log[0].from(Index(4))));
    persist_all(&mut node, &effects);
    assert_eq!((node.first_faulty(), node.commit()), (None, Index(4)));
}

/// A faulty entry is simply replaced if the leader has another in its place.
#[test]
fn a_faulty_entry_that_conflicts_is_replaced() {
    let mut node = faulty_replica(&[1, 2, 2], &[2]);
    let new = log_of(&[1, 5]);
    let effects = hear(&mut node, at(0), 3, 5, append(1, id(1, 1), 0, Some(new[1].clone())));
    let write = persists(&effects)[0];
    assert_eq!((write.truncate_from, &write.repair), (Some(Index(2)), &None));
    assert_eq!((node.first_faulty(), terms(&node)), (None, vec![1, 5]));
}

/// No entry at or above the first faulty one is applied, even if it is committed.
#[test]
fn nothing_above_a_faulty_entry_is_applied() {
    let mut node = faulty_replica(&[1, 1, 1, 1], &[3]);
    hear(&mut node, at(0), 3, 5, heartbeat(0, 4));
    let log = log_of(&[1, 1, 1, 1]);
    assert_eq!(node.commit(), Index(4));
    let mut out = Vec::new();
    node.loaded(vec![log[0].clone()], &mut out);
    assert_eq!(node.dispatched(), Index(2), "though the storage gave more");
    assert!(!out.iter().any(|effect| matches!(effect, Effect::Load { .. })), "and it does not ask for what is lost");
}

/// A member that has the entry serves it; one that lost or cut it can't help; one that never had it
/// says so, and only then.
#[test]
fn a_member_answers_truthfully_about_an_entry() {
    let answer = |node: &mut Replica, from: EntryId| {
        let effects = hear(node, at(9_000), 3, 5, repair(from, from.index.0));
        let served = effects.iter().any(|effect| matches!(effect, Effect::ServeRepair { .. }));
        repair_reply(&sent(&effects)).or(served.then_some(RepairOutcome::Here))
    };
    let mut node = replica(1, 3, 5, None, &[1, 1, 2]);
    assert_eq!(answer(&mut node, id(2, 1)), Some(RepairOutcome::Here));
    assert_eq!(answer(&mut node, id(3, 1)), Some(RepairOutcome::Absent), "another is there");
    assert_eq!(answer(&mut node, id(4, 2)), Some(RepairOutcome::Absent), "its log ends before");
    let mut node = faulty_replica(&[1, 1, 2], &[2]);
    assert_eq!(answer(&mut node, id(2, 1)), Some(RepairOutcome::Lost), "it had it");
    let mut disk = disk_of(5, None, &[1, 1, 2]);
    disk.lose(Index(3), Fault::Torn);
    let mut node = Replica::new(NodeId(1), voters(3), disk.recover(), settings());
    assert_eq!(answer(&mut node, id(3, 2)), Some(RepairOutcome::Absent), "it can't say that it had it");
    let mut disk = disk_of(5, None, &[1, 1, 2]);
    disk.compact(Index(2), voters(3));
    let mut node = Replica::new(NodeId(1), voters(3), disk.recover(), settings());
    assert_eq!(answer(&mut node, id(1, 1)), Some(RepairOutcome::Lost), "cut, who knows what it was");
    assert_eq!(answer(&mut node, id(2, 1)), Some(RepairOutcome::Lost));
    let mut node = Replica::new(NodeId(1), voters(3), Disk::default().recover(), settings());
    assert_eq!(answer(&mut node, id(1, 1)), None, "it may have been emptied: it does not know what it had");
    let mut node = replica(1, 3, 5, None, &[1]);
    hear(&mut node, at(9_000), 2, 5, heartbeat(0, 0));
    assert_eq!(answer(&mut node, id(2, 1)), None, "it follows a leader, from whom it may yet take it");
}

/// A reply has the requested entries that were found.
#[test]
fn a_repair_reply_has_the_requested_entries() {
    let node = replica(1, 3, 5, None, &[1, 1, 1, 1]);
    let log = log_of(&[1, 1, 1, 1]);
    let Body::Repair(asked) = repair(id(2, 1), 3) else { panic!("a question") };
    let batch_of = |batches| match node.repair_reply(asked, batches) {
        Body::RepairReply(reply) => (reply.outcome, reply.batch.map(|batch| (batch.first().0, batch.last().0))),
        _ => panic!("an answer"),
    };
    assert_eq!(batch_of(vec![log[0].clone()]), (RepairOutcome::Here, Some((2, 3))));
    assert_eq!(batch_of(vec![]), (RepairOutcome::Lost, None), "overtaken: that says nothing about the entry");
    assert_eq!(batch_of(vec![batch(2, 2, 1, 0)]), (RepairOutcome::Lost, None), "another entry by now");
}

/// Without a leader a node repairs its log with entries of any member, run by run, each requested
/// when the one before is durable.
#[test]
fn a_node_repairs_its_log_with_entries_of_members() {
    let mut node = faulty_replica(&[1, 1, 2, 2], &[1, 4]);
    let log = log_of(&[1, 1, 2, 2]);
    let mut out = Vec::new();
    node.election_timeout(at(0), Term(5), &mut out);
    let here = |from: EntryId, batch| {
        Body::RepairReply(quorate_raft::RepairReply { from, outcome: RepairOutcome::Here, batch: Some(batch) })
    };
    let effects = hear(&mut node, at(0), 2, 5, here(id(1, 1), log[0].clone()));
    let write = persists(&effects)[0];
    assert_eq!(write.repair.as_ref().map(|batch| batch.last()), Some(Index(1)), "no more than was lost");
    assert_eq!(write.then[0].message.body, repair(id(4, 2), 4), "the next is asked for when this is safe");
    assert_eq!(hear(&mut node, at(0), 3, 5, here(id(1, 1), log[0].clone())), [], "a second answer says nothing new");
    persist_all(&mut node, &effects);
    let effects = hear(&mut node, at(0), 2, 5, here(id(4, 2), log[1].from(Index(4)).expect("4")));
    persist_all(&mut node, &effects);
    assert_eq!(node.first_faulty(), None);
    assert!(
        opened(&{
            let mut out = Vec::new();
            node.election_timeout(at(1_000), Term(5), &mut out);
            out
        })
        .is_some()
    );
}

/// A repair must match the lost entry: another content under the same id is divergence,
/// and not written.
#[test]
fn a_repair_by_another_content_is_not_written() {
    let mut node = faulty_replica(&[1, 1], &[2]);
    let stranger = batch(1, 2, 1, 0xbad);
    let body = Body::RepairReply(quorate_raft::RepairReply {
        from: id(2, 1),
        outcome: RepairOutcome::Here,
        batch: Some(stranger.clone()),
    });
    assert_eq!(hear(&mut node, at(0), 3, 5, body), [Effect::Diverged { at: id(2, 1), with: NodeId(3) }]);
    let effects = hear(&mut node, at(0), 3, 5, append(1, id(1, 1), 0, Some(stranger)));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Diverged { at: id(2, 1) }));
    assert!(persists(&effects).is_empty());
    assert_eq!(node.first_faulty(), Some(Index(2)));
}

/// Every node lost another entry, and none may lead; together they have everything.
#[test]
fn nodes_that_each_lost_something_else_heal_each_other() {
    let mut disks = vec![disk_of(1, None, &[1; 6]); 3];
    for (at, lost) in [(0, [1, 2]), (1, [3, 4]), (2, [5, 6])] {
        lost.iter().for_each(|index| disks[at].lose(Index(*index), Fault::Proven));
    }
    let mut world = World::with(disks, settings());
    for id in [1, 2, 3] {
        world.pass(400);
        world.timeout_of(id);
    }
    assert!((1..=3).all(|id| world.replica(id).first_faulty().is_none()));
    world.elect(2);
    assert_eq!(world.commit(2), 7);
}

/// An entry that no node has any more is waited for, not forgotten: it may be committed.
#[test]
fn an_entry_that_was_durable_is_never_forgotten() {
    let mut disks = [&[1, 1][..], &[1, 1], &[1]].map(|terms| disk_of(1, None, terms));
    disks[0].lose(Index(2), Fault::Proven);
    disks[1].lose(Index(2), Fault::Proven);
    let mut world = World::with(disks.into(), settings());
    for _ in 0..5 {
        for id in [1, 2, 3] {
            world.pass(400);
            world.timeout_of(id);
        }
    }
    assert_eq!(world.leaders(), []);
    assert_eq!((world.log(1), world.replica(1).first_faulty()), (vec![1, 1], Some(Index(2))));

    let mut node = faulty_replica(&[1, 1], &[2]);
    let outcome = RepairOutcome::Absent;
    let absent = Body::RepairReply(quorate_raft::RepairReply { from: id(2, 1), outcome, batch: None });
    for from in [2, 3] {
        assert_eq!(hear(&mut node, at(0), from, 5, absent.clone()), [], "not even if all others never had it");
    }
    assert_eq!((node.term(), terms(&node)), (Term(5), vec![1, 1]));
}

/// The remains of a write that a power cut of the whole cluster tore: no quorum ever had it, so it
/// is forgotten, and the cluster goes on.
#[test]
fn the_remains_of_a_torn_write_do_not_stop_a_cluster() {
    let mut disks = [&[1][..], &[1, 1], &[1, 1, 1]].map(|terms| disk_of(1, None, terms));
    disks[1].lose(Index(2), Fault::Torn);
    disks[2].lose(Index(2), Fault::Torn);
    disks[2].lose(Index(3), Fault::Torn);
    let mut world = World::with(disks.into(), settings());
    for _ in 0..3 {
        for id in [1, 2, 3] {
            world.pass(400);
            world.timeout_of(id);
        }
    }
    assert_eq!(world.leaders().len(), 1);
    world.beat(world.leaders()[0].1.0);
    assert!((1..=3).all(|id| world.replica(id).first_faulty().is_none()));
    assert_eq!([world.log(1), world.log(2)], [world.log(3), world.log(3)]);
}

/// An entry is forgotten only when a quorum *without this node* says that it is absent: this very
/// entry, in a later term than it was lost in.
#[test]
fn an_entry_is_forgotten_by_a_quorum_of_the_others_and_in_a_later_term() {
    let mut disk = disk_of(5, None, &[1, 1]);
    disk.lose(Index(2), Fault::Unproven);
    let absent = |entry| {
        Body::RepairReply(quorate_raft::RepairReply { from: entry, outcome: RepairOutcome::Absent, batch: None })
    };
    let mut node = Replica::new(NodeId(1), voters(3), disk.recover(), settings());
    let mut out = Vec::new();
    node.election_timeout(at(0), Term(5), &mut out);
    assert!(out.contains(&Effect::Load { from: Index(1), to: Index(1) }), "what it will end with");
    node.loaded(log_of(&[1]), &mut out);
    for _ in 0..2 {
        assert_eq!(hear(&mut node, at(0), 2, 5, absent(id(2, 1))), [], "one voter, twice");
    }
    let refused = Effect::Refused { from: NodeId(9), reason: MessageRefusal::Stranger };
    assert_eq!(hear(&mut node, at(0), 9, 5, absent(id(2, 1))), [refused], "no member");
    assert_eq!(hear(&mut node, at(0), 3, 5, absent(id(2, 3))), [], "of another entry");
    let effects = hear(&mut node, at(0), 3, 5, absent(id(2, 1)));
    assert_eq!(
        (node.term(), terms(&node)),
        (Term(6), vec![1, 1]),
        "all said it, in a term in which they may still take it"
    );
    assert_eq!(promised(&effects).len(), 2, "so they are asked again");
    persist_all(&mut node, &effects);
    assert_eq!(hear(&mut node, at(0), 2, 5, absent(id(2, 1))), [], "an answer to the first question");
    hear(&mut node, at(0), 2, 6, absent(id(2, 1)));
    assert_eq!(terms(&node), [1, 1]);
    let effects = hear(&mut node, at(0), 3, 6, absent(id(2, 1)));
    assert_eq!((terms(&node), node.first_faulty()), (vec![1], None));
    assert_eq!(persists(&effects)[0].truncate_from, Some(Index(2)));
    assert_eq!(node.log().last_checksum(), log_of(&[1])[0].checksum(), "the next one chains to what is there");
}

/// Five nodes, an unproven loss, a leader that still counts this node's acknowledgement
/// from before: the others adopt the later term before their answers count, so the leader
/// can't use both.
#[test]
fn a_leader_cannot_commit_with_an_acknowledgement_that_is_about_to_be_forgotten() {
    let mut disks = vec![disk_of(1, Some(5), &[1]); 5];
    disks[0] = disk_of(1, Some(5), &[1, 1]);
    disks[0].lose(Index(2), Fault::Unproven);
    let mut world = World::with(disks, settings());
    world.isolate(5);
    world.pass(400);
    world.timeout_of(1);
    assert_eq!(world.log(1), [1], "three and itself: four do not have it");
    assert!((2..=4).all(|id| world.term(id) == 2), "and take it no more from a leader of term 1");
    let late = hear(&mut world.replica(2).clone(), at(20_000), 5, 1, append(1, id(1, 1), 0, Some(batch(1, 2, 1, 0))));
    assert_eq!((append_reply(&late), persists(&late).len()), (None, 0));
}

/// A faulty entry that a snapshot covers is no loss.
#[test]
fn entries_that_a_snapshot_covers_need_not_be_whole() {
    let mut disk = disk_of(1, None, &[1, 1, 1, 1]);
    disk.compact(Index(1), voters(3));
    let base = quorate_raft::SnapshotBase {
        last: id(3, 1),
        last_checksum: log_of(&[1, 1, 1])[0].checksum(),
        membership: voters(3),
        membership_index: Index(0),
    };
    disk.save(&base);
    disk.lose(Index(2), Fault::Proven);
    let node = Replica::new(NodeId(1), voters(3), disk.recover(), settings());
    assert_eq!((node.first_faulty(), node.lost_up_to()), (None, None));
    assert_eq!((node.log().base(), node.snapshot_index()), (id(2, 1), Index(3)), "peers are not served from it");
}

/// "Truncation forgets what was purged": the purged part stays known, and applied is never ahead
/// of the log.
#[test]
fn a_truncation_up_to_the_snapshot_survives_a_restart() {
    let mut disk = disk_of(2, None, &[1, 1, 2]);
    disk.compact(Index(2), voters(3));
    let mut world = World::with(vec![disk, disk_of(3, None, &[1, 1, 3]), disk_of(3, None, &[1, 1, 3])], settings());
    world.elect(2);
    assert_eq!(world.log(1), [3, 4], "all behind the snapshot was another");
    world.crash(1);
    world.restart(1);
    let replica = world.replica(1);
    assert_eq!((replica.log().base(), replica.applied_index(), replica.log().last()), (id(2, 1), Index(2), id(4, 4)));
    world.beat(2);
    assert_eq!(world.replica(1).applied_index(), Index(4));
}
