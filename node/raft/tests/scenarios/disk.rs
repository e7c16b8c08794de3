//! Disks (48, 49, as far as rules decide), and what they lose: faulty entries, torn writes, divergence, emptied directories, no
//! room.

use crate::support::{
    disk::{Disk, Fault},
    make::{
        append, append_reply, at, batch, disk_of, faulty_replica, halted, hear, heartbeat, heartbeat_reply, id, lead,
        log_of, opened, persist_all, persists, promised, repair, repair_reply, replica, request_vote, sent, settings,
        stand, terms, vote_reply, voters,
    },
    world::{Event, Rules, World},
};
use quorate_raft::{
    Append, AppendOutcome, Body, Effect, EntryId, Index, Message, NodeId, Phase, Progress, Replica, Role, Term,
    Violation,
    message::{Emptied, RepairOutcome},
};

// ---- Faulty entries ----

/// 48. A hole in the log is no end of it: votes and log checks go by what is known to have been there.
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
fn a_faulty_node_asks_for_what_it_lost_instead_of_votes() {
    let mut node = faulty_replica(&[1, 1, 1, 2, 2], &[2, 3, 4]);
    let mut out = Vec::new();
    node.election_timeout(at(0), Term(5), &mut out);
    assert_eq!((opened(&out), node.role()), (None, &Role::Follower));
    assert!(out.contains(&Effect::ArmTimer), "it will ask again");
    let asked: Vec<_> = sent(&out).iter().map(|outgoing| (outgoing.to, outgoing.message.body.clone())).collect();
    assert_eq!(asked, [2, 3].map(|to| (NodeId(to), repair(id(2, 1), 3))), "the first run of one term");
}

/// An append that begins behind a faulty entry is rejected, so that the leader goes back to it; what it sends again is written in
/// place, and nothing at or above is acknowledged or applied before that is durable.
#[test]
fn a_leader_that_is_rejected_goes_back_and_heals() {
    let log = log_of(&[1, 1, 1, 1]);
    let mut node = faulty_replica(&[1, 1, 1, 1], &[2, 4]);
    let effects = hear(&mut node, at(0), 3, 5, append(1, id(4, 1), 4, None));
    let (previous, conflict, last) = (Index(4), id(1, 1), Index(1));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Rejected { previous, conflict, last }));
    let effects =
        hear(&mut node, at(0), 3, 5, append(1, id(1, 1), 4, log[0].from(Index(2)).and_then(|b| b.up_to(Index(3)))));
    assert!(sent(&effects).is_empty(), "the acknowledgement waits");
    let write = persists(&effects)[0];
    assert_eq!((write.truncate_from, &write.batch), (None, &None), "nothing is overwritten");
    assert_eq!(write.repair.as_ref().map(|batch| (batch.first(), batch.last())), Some((Index(2), Index(2))));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Matched { matched: Index(3) }));
    assert_eq!((node.first_faulty(), node.released()), (Some(Index(2)), Index(0)), "not whole yet");
    persist_all(&mut node, &effects);
    assert_eq!((node.first_faulty(), node.faulty_count()), (Some(Index(4)), 1));
    let effects = hear(&mut node, at(0), 3, 5, append(1, id(3, 1), 4, log[0].from(Index(4))));
    persist_all(&mut node, &effects);
    assert_eq!((node.first_faulty(), node.commit()), (None, Index(4)));
}

/// A faulty entry in the place of which the leader has another is simply replaced.
#[test]
fn a_faulty_entry_that_conflicts_is_replaced() {
    let mut node = faulty_replica(&[1, 2, 2], &[2]);
    let new = log_of(&[1, 5]);
    let effects = hear(&mut node, at(0), 3, 5, append(1, id(1, 1), 0, Some(new[1].clone())));
    let write = persists(&effects)[0];
    assert_eq!((write.truncate_from, &write.repair), (Some(Index(2)), &None));
    assert_eq!((node.first_faulty(), terms(&node)), (None, vec![1, 5]));
}

/// Nothing at or above the first faulty entry is applied, whatever is committed.
#[test]
fn nothing_above_a_faulty_entry_is_applied() {
    let mut node = faulty_replica(&[1, 1, 1, 1], &[3]);
    hear(&mut node, at(0), 3, 5, heartbeat(0, 4));
    let log = log_of(&[1, 1, 1, 1]);
    assert_eq!(node.commit(), Index(4));
    let mut out = Vec::new();
    node.loaded(vec![log[0].clone()], &mut out);
    assert_eq!(node.released(), Index(2), "though the storage gave more");
    assert!(!out.iter().any(|effect| matches!(effect, Effect::Load { .. })), "and it does not ask for what is lost");
}

/// Whoever has an entry serves it; who lost or cut it is no help; who never had it says so, and only then.
#[test]
fn a_member_answers_for_an_entry_what_it_knows() {
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

/// A reply has what was asked for, as far as it was found.
#[test]
fn a_repair_reply_has_what_was_asked_for() {
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

/// Without a leader a node heals by what any member gives it, run by run, each asked for when the one before is durable.
#[test]
fn a_node_heals_by_what_members_give_it() {
    let mut node = faulty_replica(&[1, 1, 2, 2], &[1, 4]);
    let log = log_of(&[1, 1, 2, 2]);
    let mut out = Vec::new();
    node.election_timeout(at(0), Term(5), &mut out);
    let here = |from: EntryId, batch| {
        Body::RepairReply(quorate_raft::message::RepairReply { from, outcome: RepairOutcome::Here, batch: Some(batch) })
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

/// What is given must be what was lost: another content under the same id is divergence, and not written.
#[test]
fn a_repair_by_another_content_is_not_written() {
    let mut node = faulty_replica(&[1, 1], &[2]);
    let stranger = batch(1, 2, 1, 0xbad);
    let body = Body::RepairReply(quorate_raft::message::RepairReply {
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

/// Every node lost another entry, and nobody may lead; together they have everything.
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

/// An entry that nobody has any more is waited for, not forgotten: it may be committed.
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
}

/// The remains of a write that a power cut of the whole cluster tore: a quorum never had it, so it is forgotten, and the cluster
/// goes on.
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

/// It is forgotten only when a quorum *beside this node* says so, of that very entry, in a later term than it was lost in.
#[test]
fn an_entry_is_forgotten_by_a_quorum_of_the_others_and_in_a_later_term() {
    let mut disk = disk_of(5, None, &[1, 1]);
    disk.lose(Index(2), Fault::Unproven);
    let absent = |entry| {
        Body::RepairReply(quorate_raft::message::RepairReply {
            from: entry,
            outcome: RepairOutcome::Absent,
            batch: None,
        })
    };
    let mut node = Replica::new(NodeId(1), voters(3), disk.recover(), settings());
    let mut out = Vec::new();
    node.election_timeout(at(0), Term(5), &mut out);
    assert!(out.contains(&Effect::Load { from: Index(1), to: Index(1) }), "what it will end with");
    node.loaded(log_of(&[1]), &mut out);
    for from in [2, 2, 9] {
        assert_eq!(hear(&mut node, at(0), from, 5, absent(id(2, 1))), [], "one voter, twice, and a stranger");
    }
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

/// Five nodes, an unproven loss, a leader that still counts this node's acknowledgement from before: the others adopt the later
/// term before their word counts, so the leader can't use both.
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
    assert!(matches!(append_reply(&late), Some(AppendOutcome::Rejected { .. })));
}

/// A faulty entry that a snapshot covers is no loss.
#[test]
fn what_a_snapshot_covers_need_not_be_whole() {
    let mut disk = disk_of(1, None, &[1, 1, 1, 1]);
    disk.compact(Index(1), voters(3));
    let base = quorate_raft::SnapshotBase {
        last: id(3, 1),
        last_checksum: log_of(&[1, 1, 1])[0].checksum(),
        membership: voters(3),
    };
    disk.save(&base);
    disk.lose(Index(2), Fault::Proven);
    let node = Replica::new(NodeId(1), voters(3), disk.recover(), settings());
    assert_eq!((node.first_faulty(), node.lost_up_to()), (None, None));
    assert_eq!((node.log().base(), node.snapshot_index()), (id(2, 1), Index(3)), "peers are not served from it");
}

/// 49. What is purged stays known behind a truncation, and applied is never ahead of the log.
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

// ---- Divergence ----

/// A follower with another content under the same id overwrites nothing, says so, and stops once its leader has proven that a
/// quorum holds the other; what it knows to be committed itself proves nothing.
#[test]
fn a_follower_that_stands_alone_stops_and_one_that_may_be_right_does_not() {
    let mut follower = replica(2, 3, 5, None, &[1, 1]);
    hear(&mut follower, at(0), 1, 5, append(1, id(2, 1), 2, None));
    assert_eq!(follower.commit(), Index(2));
    let probe = Append { epoch: 1, previous: id(2, 1), previous_checksum: Some(0xbad), commit: Index(2), batch: None };
    let effects = hear(&mut follower, at(0), 1, 5, Body::Append(probe.clone()));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Diverged { at: id(2, 1) }));
    assert!(effects.contains(&Effect::Diverged { at: id(2, 1), with: NodeId(1) }));
    assert_eq!(halted(&effects), None, "a damaged leader says the same to everybody");
    let proof =
        Append { epoch: Progress::NO_EPOCH, previous: id(3, 5), previous_checksum: None, commit: Index(3), ..probe };
    let effects = hear(&mut follower, at(0), 1, 5, Body::Append(proof));
    assert_eq!(halted(&effects), Some(Violation::Diverged { at: id(2, 1), leader: NodeId(1) }));
}

/// Entries that are held are compared, too.
#[test]
fn entries_that_overlap_are_compared() {
    let mut follower = replica(2, 3, 5, None, &[]);
    let (ours, theirs) = (batch(5, 1, 3, 0), batch(5, 1, 3, 0xbad));
    hear(&mut follower, at(0), 1, 5, append(1, id(0, 0), 0, Some(ours.clone())));
    let effects = hear(&mut follower, at(0), 1, 5, append(1, id(0, 0), 0, Some(ours.clone())));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Matched { matched: Index(3) }));
    let effects = hear(&mut follower, at(0), 1, 5, append(1, id(0, 0), 0, Some(theirs.clone())));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Diverged { at: id(0, 0) }), "the chain begins at 0");
    let behind = theirs.from(Index(2)).expect("two");
    let effects = hear(&mut follower, at(0), 1, 5, append(1, id(1, 5), 0, Some(behind)));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Diverged { at: id(1, 5) }));
    assert_eq!(follower.log().last_checksum(), ours.checksum());
}

/// A leader that a quorum refuses stops; one that a single follower refuses proves to it that it stands alone.
#[test]
fn a_leader_that_a_quorum_refuses_stops() {
    let diverged =
        || Body::AppendReply(quorate_raft::AppendReply { epoch: 1, outcome: AppendOutcome::Diverged { at: id(2, 1) } });
    let mut leader = replica(1, 3, 1, None, &[1, 1]);
    lead(&mut leader, at(0));
    let effects = hear(&mut leader, at(0), 2, 2, diverged());
    assert_eq!(effects, [Effect::Diverged { at: id(2, 1), with: NodeId(2) }]);
    assert_eq!(hear(&mut leader, at(0), 2, 2, diverged()).len(), 1, "the same one again");
    let effects = hear(&mut leader, at(0), 3, 2, diverged());
    assert_eq!(halted(&effects), Some(Violation::Diverged { at: id(2, 1), leader: NodeId(3) }));

    let mut leader = replica(1, 3, 1, None, &[1, 1]);
    let led = lead(&mut leader, at(0));
    persist_all(&mut leader, &led);
    leader.matched(NodeId(3), Index(3), &mut Vec::new());
    let effects = hear(&mut leader, at(0), 2, 2, diverged());
    assert!(halted(&effects).is_none());
    let Body::Append(proof) = &sent(&effects)[0].message.body else { panic!("a proof") };
    assert_eq!((proof.previous, proof.commit), (id(3, 2), Index(3)), "an entry of its own term is committed");
}

/// Divergence in a whole cluster: the damaged one stops, whether it leads or follows, and the others go on.
#[test]
fn the_damaged_one_stops_and_the_others_go_on() {
    let damaged = || {
        let mut disk = disk_of(1, None, &[]);
        disk.base_checksum = 0xbad;
        disk.append(&batch(1, 1, 2, 0xbad));
        disk
    };
    let sound = || disk_of(1, None, &[1, 1]);
    let rules = || Rules { logs_match: false, ..Rules::new(settings()) };
    let mut world = World::ruled(vec![sound(), sound(), damaged()], rules());
    world.pass(400);
    world.must(Event::Timeout(NodeId(1)));
    let halt = |world: &mut World| {
        for _ in 0..2_000 {
            if let Err(violated) = world.step_any() {
                return Some(violated);
            }
            if world.is_at_rest() {
                world.pass(500);
                world.must(Event::Heartbeat(NodeId(1)));
            }
        }
        None
    };
    let violated = halt(&mut world).expect("one stops");
    assert!(violated.starts_with("3 halts: entry 2@1 differs from that of node 1"), "{violated}");

    let mut world = World::ruled(vec![damaged(), sound(), sound()], rules());
    world.pass(400);
    world.must(Event::Timeout(NodeId(1)));
    let violated = halt(&mut world).expect("one stops");
    assert!(violated.starts_with("1 halts: entry 2@1 differs from that of node"), "{violated}");
}

// ---- Emptied directories ----

/// A member that never took part votes only among others like it: it may have been emptied.
#[test]
fn a_new_member_votes_for_new_ones_alone() {
    let new = || Replica::new(NodeId(1), voters(3), Disk::default().recover(), settings());
    for phase in [Phase::PreVote, Phase::Vote] {
        let effects = hear(&mut new(), at(0), 2, 5, request_vote(phase, 1, id(4, 3)));
        assert_eq!(vote_reply(&effects), Some((Term(5), false)), "a candidate with a log, in the {phase:?} phase");
        let effects = hear(&mut new(), at(0), 2, 5, request_vote(phase, 1, id(0, 0)));
        assert_eq!(vote_reply(&effects), Some((Term(5), true)));
    }
    let mut voted = new();
    hear(&mut voted, at(0), 2, 5, request_vote(Phase::Vote, 1, id(0, 0)));
    assert!(!voted.is_new(), "it has promised something");
    let mut follower = new();
    let effects = hear(&mut follower, at(0), 2, 5, heartbeat(3, 0));
    assert_eq!(sent(&effects).len() + promised(&effects).len(), 1);
    let replies: Vec<_> = sent(&effects).into_iter().chain(promised(&effects)).collect();
    assert_eq!(replies[0].message.body, heartbeat_reply(0), "it confirms no leadership");
    hear(&mut follower, at(0), 2, 5, append(1, id(0, 0), 0, Some(log_of(&[1])[0].clone())));
    assert!(!follower.is_new(), "a leader brought it up");
}

/// A member whose directory was emptied is told by those who remember that it had a log, is neither brought up nor elected, and
/// stops.
#[test]
fn an_emptied_member_is_told_and_stops() {
    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, 2);
    assert!(world.node(NodeId(1)).disk.known.contains(&NodeId(3)), "remembered for good");
    world.crash(3);
    world.node_mut(NodeId(3)).disk = Disk::default();
    world.isolate(3);
    world.restart(3);
    world.heal();
    let violated = (0..200).find_map(|_| world.step_any().err()).expect("it stops");
    assert!(violated.starts_with("3 halts: the data directory is empty"), "{violated}");
    assert_eq!(world.node(NodeId(3)).disk.last(), id(0, 0), "it was not brought up as if it were new");
}

/// A voter tells it, too; and one that is merely empty, and knows that it voted, is not stopped.
#[test]
fn an_emptied_candidate_is_told_by_its_voters() {
    let mut voter = replica(1, 3, 5, None, &[1]);
    let effects = hear(&mut voter, at(0), 3, 5, request_vote(Phase::PreVote, 1, id(4, 1)));
    assert!(effects.contains(&Effect::Remember { member: NodeId(3), index: Index(4) }));
    let again = hear(&mut voter, at(0), 3, 5, request_vote(Phase::PreVote, 2, id(5, 1)));
    assert!(!again.iter().any(|effect| matches!(effect, Effect::Remember { .. })), "once a member");
    let stranger = hear(&mut voter, at(0), 9, 5, request_vote(Phase::PreVote, 2, id(5, 1)));
    assert!(!stranger.iter().any(|effect| matches!(effect, Effect::Remember { .. })), "and only of members");
    let effects = hear(&mut voter, at(0), 3, 5, request_vote(Phase::PreVote, 1, id(0, 0)));
    assert_eq!(vote_reply(&effects), Some((Term(5), false)));
    let emptied = Body::Emptied(Emptied { known_at: Index(4) });
    assert!(sent(&effects).iter().any(|outgoing| outgoing.message.body == emptied));

    let mut new = Replica::new(NodeId(3), voters(3), Disk::default().recover(), settings());
    let violation = Violation::Emptied { known_at: Index(4), by: NodeId(1) };
    assert_eq!(halted(&hear(&mut new.clone(), at(0), 1, 0, emptied.clone())), Some(violation), "whatever the terms");
    assert_eq!(halted(&hear(&mut new, at(0), 9, 5, emptied.clone())), None, "a stranger knows nothing");
    let mut empty = replica(3, 3, 5, Some(1), &[]);
    assert_eq!(halted(&hear(&mut empty, at(0), 1, 5, emptied)), None);
    let rejected = append_reply(&hear(&mut empty, at(0), 1, 5, append(1, id(4, 1), 0, None)));
    let (previous, last) = (Index(4), Index(0));
    assert_eq!(rejected, Some(AppendOutcome::Rejected { previous, conflict: id(1, 0), last }), "so it is brought up");
}

/// A node whose first entry is faulty is not taken for an emptied one.
#[test]
fn a_lost_first_entry_is_not_an_empty_directory() {
    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, 2);
    world.crash(3);
    world.lose(3, [1, 2, 3]);
    world.isolate(3);
    world.restart(3);
    world.heal();
    world.settle();
    assert_eq!((world.replica(3).first_faulty(), world.log(3)), (None, vec![1, 1, 1]));
}

// ---- No room ----

/// A full disk: the leader steps down, nobody full campaigns, what would have to be kept is not acknowledged; votes and heartbeats
/// go on, and with room again everything does.
#[test]
fn a_full_node_votes_and_follows_and_does_not_lead() {
    let mut leader = replica(1, 3, 1, None, &[1]);
    lead(&mut leader, at(0));
    let mut out = Vec::new();
    leader.storage_full(true, &mut out);
    assert!(!leader.is_leader() && leader.is_storage_full() && out.contains(&Effect::StopReplicators));
    out.clear();
    leader.election_timeout(at(1_000), Term(2), &mut out);
    assert_eq!((opened(&out), leader.role()), (None, &Role::Follower));

    let mut candidate = replica(1, 3, 1, None, &[1]);
    let campaign = stand(&mut candidate, at(0));
    candidate.storage_full(true, &mut out);
    candidate.election_won(at(0), campaign.term, campaign.campaign, &mut out);
    assert!(!candidate.is_leader(), "nor does a campaign go on");

    let mut full = replica(2, 3, 5, None, &[1, 1]);
    full.storage_full(true, &mut out);
    let log = log_of(&[1, 1, 1]);
    let entries = || append(1, id(1, 1), 0, log[0].from(Index(2)));
    let effects = hear(&mut full, at(0), 1, 5, entries());
    assert!(matches!(effects.last(), Some(Effect::Refused { reason: "storage_full", .. })));
    assert_eq!((terms(&full), append_reply(&effects)), (vec![1, 1], None));
    let held = append(1, id(1, 1), 0, log[0].from(Index(2)).and_then(|batch| batch.up_to(Index(2))));
    let effects = hear(&mut full, at(0), 1, 5, held);
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Matched { matched: Index(2) }), "what it has it has");
    assert_eq!(sent(&hear(&mut full, at(0), 1, 5, heartbeat(4, 0)))[0].message.body, heartbeat_reply(4));
    let effects = hear(&mut full, at(9_000), 3, 6, request_vote(Phase::Vote, 1, id(2, 1)));
    assert_eq!(vote_reply(&effects), Some((Term(6), true)));
    full.storage_full(false, &mut out);
    let effects = hear(&mut full, at(9_000), 3, 6, append(1, id(1, 1), 0, log[0].from(Index(2))));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Matched { matched: Index(3) }));
}

/// The same in a cluster: another leads, the full one catches up when it has room again.
#[test]
fn a_cluster_goes_on_without_the_room_of_one() {
    let mut world = World::new(3);
    world.elect(1);
    world.must(Event::Full(NodeId(1), true));
    world.settle();
    world.elect(2);
    world.propose(2, 3);
    assert_eq!((world.commit(2), world.log(1).len()), (5, 1));
    world.must(Event::Full(NodeId(1), false));
    world.pass(500);
    world.beat(2);
    assert_eq!(world.log(1), world.log(2));
    let carries = |_: NodeId, _: NodeId, message: &Message| matches!(message.body, Body::RequestVote(_));
    assert!(world.settle_but(carries).is_empty());
}
