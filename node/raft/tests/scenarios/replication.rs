//! Replication and commit.

use quorate_raft::{
    AppendOutcome, Body, Credit, Entries, HardState, Index, Kind, Message, NodeId, Progress, ProgressState, Promise,
    Reads, Replica, Role, Term,
};
use quorate_world::{
    disk::Disk,
    events::Event,
    fixtures::{
        append, at, batch, disk_of, hear, id, lead, log_of, persist_all, persists, promising, replica, sent, settings,
        terms, voters,
    },
    node::Note,
    rules::Rules,
    world::World,
};
use std::{cell::RefCell, collections::BTreeSet};

/// Figure 8: an entry of an earlier term on a majority is not thereby committed, and may
/// yet be replaced.
#[test]
fn an_entry_of_an_earlier_term_is_not_committed_by_counting() {
    let disks = [&[1, 2][..], &[1], &[1], &[1], &[1, 3]].map(|terms| disk_of(3, None, terms));
    let mut world = World::with(disks.into(), settings());
    world.isolate(5);
    world.cut_link(1, 4);
    // The no-op of term 4 reaches no node, except for the first try at each, which the node
    // rejects: it lacks entry 2.
    let tried = RefCell::new(BTreeSet::new());
    let carries_term_4 = |_: NodeId, to: NodeId, message: &Message| match &message.body {
        Body::Append(append) if append.batch.as_ref().is_some_and(|batch| batch.term() == Term(4)) => {
            !tried.borrow_mut().insert(to)
        }
        _ => false,
    };
    world.pass(400);
    world.must(Event::Timeout(NodeId(1)));
    world.settle_but(carries_term_4);
    assert_eq!((world.log(2), world.log(3)), (vec![1, 2], vec![1, 2]), "entry 2 is on three of five");
    let matched = [2, 3].map(|peer| world.replicator(1, peer).progress().matched());
    assert_eq!(matched, [Index(2); 2], "and the leader knows it");
    assert_eq!(world.commit(1), 0, "and not committed");
    world.crash(1);
    world.heal();
    world.pass(400);
    world.timeout_of(5);
    assert_eq!(world.term(5), 4, "it learns of the later term first");
    world.elect(5);
    assert_eq!(world.log(3), [1, 3, 5], "it is replaced");
}

/// Acknowledgements out of order never commit an entry that no quorum has.
#[test]
fn acknowledgements_out_of_order_commit_no_more_than_a_quorum_has() {
    let mut leader = replica(1, 5, 1, None, &[]);
    let led = lead(&mut leader, at(0));
    let mut out = Vec::new();
    let mut proposal = leader.next_batch(0).expect("it leads");
    (0..4).for_each(|_| proposal.push(Kind::Command, b"x"));
    leader.propose(at(0), proposal.finish().expect("four entries"), &mut out);
    let mut commits = Vec::new();
    for (peer, index) in [(2, 5), (3, 1), (4, 4), (3, 3), (5, 2), (3, 5)] {
        leader.matched(at(0), NodeId(peer), Index(index), &mut out);
        commits.push(leader.commit().0);
    }
    assert_eq!(commits, [0, 0, 1, 3, 3, 4], "the third highest of five, its own disk counting as 0");
    persist_all(&mut leader, &led);
    assert_eq!(leader.commit(), Index(4));
}

/// After a follower's log went back, an earlier acknowledgement does not count.
#[test]
fn an_acknowledgement_from_before_a_log_went_back_does_not_count() {
    let mut progress = Progress::new(at(0), Index(5), Credit::default());
    progress.send(at(0), id(5, 1), None).expect("a probe");
    let before = progress.epoch();
    assert_eq!(progress.acknowledged(at(0), before, Index(5)), Some(Index(5)));
    assert_eq!(progress.rejected(at(0), before, Index(5), Index(3), Index(2)), Some(Index(2)), "it lost 3 to 5");
    assert_eq!(progress.acknowledged(at(0), before, Index(5)), None);
    assert_eq!((progress.matched(), progress.state()), (Index(2), ProgressState::Probe));

    let mut leader = replica(1, 3, 1, None, &[]);
    lead(&mut leader, at(0));
    leader.matched(at(0), NodeId(2), Index(1), &mut Vec::new());
    assert_eq!(leader.commit(), Index(0));
    leader.matched(at(0), NodeId(2), Index(0), &mut Vec::new());
    leader.matched(at(0), NodeId(3), Index(1), &mut Vec::new());
    assert_eq!(leader.commit(), Index(0), "only one of the two still has it");
}

/// A rejection of an append of an earlier term, or epoch, moves nothing.
#[test]
fn a_stale_rejection_rewinds_nothing() {
    let mut follower = replica(2, 3, 7, None, &[1]);
    let effects = hear(&mut follower, at(0), 1, 5, append(1, id(4, 5), 0, None));
    let answer = &sent(&effects)[0].message;
    let no_word_of_its_log = promising(Reads::NO_ROUND, Promise::NONE);
    assert_eq!((answer.term, &answer.body), (Term(7), &no_word_of_its_log), "its sender may lead term 7 by now");

    let mut progress = Progress::new(at(0), Index(5), Credit::default());
    progress.send(at(0), id(5, 1), None).expect("a probe");
    let stale = progress.epoch();
    progress.link_changed(at(0));
    progress.send(at(0), id(5, 1), None).expect("a probe");
    progress.acknowledged(at(0), progress.epoch(), Index(5));
    for epoch in [Progress::NO_EPOCH, stale] {
        assert_eq!(progress.rejected(at(0), epoch, Index(5), Index(1), Index(0)), None);
    }
    assert_eq!((progress.matched(), progress.next(), progress.state()), (Index(5), Index(6), ProgressState::Replicate));
}

/// A completion from before a truncation counts no truncated entry.
#[test]
fn a_completion_from_before_a_truncation_counts_nothing_truncated() {
    let mut follower = replica(1, 3, 1, None, &[]);
    let (old, new) = (log_of(&[1, 1, 1]), log_of(&[1, 2]));
    let first = hear(&mut follower, at(0), 2, 1, append(1, id(0, 0), 0, Some(old[0].clone())));
    let second = hear(&mut follower, at(0), 3, 2, append(1, id(1, 1), 0, Some(new[1].clone())));
    let mut out = Vec::new();
    follower.persisted(at(0), persists(&first)[0].sequence, &mut out);
    assert_eq!(follower.durable(), Index(1), "3 was durable for a moment, and 2 is another now");
    hear(&mut follower, at(0), 3, 2, append(1, id(2, 2), 2, None));
    assert_eq!(follower.dispatched(), Index(1), "so 2 is not applied");
    persist_all(&mut follower, &second);
    assert_eq!((follower.durable(), follower.dispatched()), (Index(2), Index(2)));
}

/// A delayed duplicate of an append deletes no entry after it.
#[test]
fn a_delayed_duplicate_deletes_nothing() {
    let mut follower = replica(1, 3, 1, None, &[]);
    let log = log_of(&[1, 1, 1]);
    let early = log[0].up_to(Index(1));
    hear(&mut follower, at(0), 2, 1, append(1, id(0, 0), 0, early.clone()));
    hear(&mut follower, at(0), 2, 1, append(1, id(1, 1), 3, log[0].from(Index(2))));
    let effects = hear(&mut follower, at(0), 2, 1, append(1, id(0, 0), 0, early));
    assert_eq!((terms(&follower), follower.commit()), (vec![1, 1, 1], Index(3)));
    assert!(persists(&effects).iter().all(|persist| persist.truncate_from.is_none()));
}

/// A commit index says nothing about a suffix that this append did not check.
#[test]
fn an_unchecked_suffix_is_not_committed() {
    let mut follower = replica(1, 3, 1, None, &[1, 1, 1]);
    hear(&mut follower, at(0), 2, 2, append(1, id(1, 1), 3, None));
    assert_eq!(follower.commit(), Index(1), "2 and 3 may not be the leader's");

    let disks = vec![disk_of(2, None, &[1, 2]), disk_of(2, None, &[1, 2]), disk_of(1, None, &[1, 1, 1])];
    let mut world = World::with(disks, settings());
    world.cut_link(1, 3);
    world.elect(1);
    assert_eq!(world.commit(1), 3);
    world.heal();
    world.must(Event::Heartbeat(NodeId(1)));
    world.settle_but(|_, to, message| to == NodeId(3) && matches!(message.body, Body::Append(_)));
    assert_eq!(world.commit(3), 0, "a heartbeat names no more than was seen to match");
}

/// Entries never leave without the entry before them, from the cache or from the disk.
#[test]
fn entries_never_leave_without_the_one_before_them() {
    let mut disk = disk_of(2, None, &[1, 1, 1, 2, 2]);
    disk.compact(Index(2), voters(3));
    let mut leader = Replica::new(NodeId(1), voters(3), disk.recover(), settings());
    lead(&mut leader, at(0));
    for from in 0..=8 {
        match leader.entries(NodeId(2), Index(from), 1_000) {
            Entries::Here { previous, batch, .. } => {
                assert!(leader.log().contains(previous));
                assert!(batch.is_none_or(|batch| batch.first() == previous.index.next()));
            }
            Entries::OnDisk { previous, to } => {
                assert!(leader.log().contains(previous) && previous.index < to && from == previous.index.0 + 1);
            }
            Entries::Compacted => assert!(from <= 2),
        }
    }
    let mut progress = Progress::new(at(0), Index(5), Credit::default());
    assert_eq!(progress.send(at(0), id(0, 0), Some(batch(2, 6, 1, 0))), None, "a gap is not sent");
    assert_eq!(progress.send(at(0), id(5, 2), Some(batch(2, 7, 1, 0))), None);
}

/// Completions out of order lose no progress.
#[test]
fn completions_out_of_order_lose_nothing() {
    let mut follower = replica(1, 3, 1, None, &[]);
    let log = log_of(&[1, 1, 1]);
    let one = hear(&mut follower, at(0), 2, 1, append(1, id(0, 0), 3, log[0].up_to(Index(2))));
    let two = hear(&mut follower, at(0), 2, 1, append(1, id(2, 1), 3, log[0].from(Index(3))));
    persist_all(&mut follower, &two);
    assert_eq!(follower.durable(), Index(3));
    assert_eq!(persist_all(&mut follower, &one), [], "an earlier one says nothing new");
    assert_eq!((follower.durable(), follower.dispatched(), follower.writing_since()), (Index(3), Index(3), None));
}

/// A single voter leads and commits, and not before its own disk has finished.
#[test]
fn a_single_voter_commits_when_its_disk_has_and_not_before() {
    let mut world = World::new(1);
    world.stuck.insert(NodeId(1));
    world.timeout_of(1);
    assert_eq!(*world.replica(1).role(), Role::Candidate, "its own vote counts once it is durable");
    world.stuck.clear();
    world.settle();
    assert_eq!((world.leaders().len(), world.commit(1)), (1, 1));
    world.stuck.insert(NodeId(1));
    world.propose(1, 2);
    assert_eq!((world.commit(1), world.replica(1).applied_index()), (1, Index(1)));
    world.stuck.clear();
    world.settle();
    assert_eq!((world.commit(1), world.replica(1).applied_index()), (3, Index(3)));
}

/// A probe for an entry that was compacted away asks for a snapshot; a probe that needs no such
/// entry does not.
#[test]
fn a_probe_below_a_compacted_log_needs_a_snapshot_and_nothing_else_does() {
    let mut compacted = disk_of(4, None, &[1, 2, 2, 2, 4, 4]);
    compacted.compact(Index(4), voters(3));
    let disks = vec![compacted, disk_of(4, None, &[1, 2, 2, 2]), disk_of(4, None, &[1, 3, 3])];
    let mut world = World::with(disks, settings());
    world.elect(1);
    assert_eq!(world.log(2), [1, 2, 2, 2, 4, 4, 5], "2 has the base, and is served from there");
    assert_eq!(world.log(3), [4, 4, 5], "3 does not have it, and was sent a snapshot");
    for peer in [2, 3] {
        assert_eq!(world.replicator(1, peer).progress().state(), ProgressState::Replicate);
    }
    let restored: Vec<_> = world.notes.iter().filter(|(_, note)| matches!(note, Note::Restored(_))).collect();
    assert!(restored.len() == 1 && restored[0].0 == NodeId(3), "{restored:?}");
    assert_eq!(world.commit(1), 7);
}

/// Credit returns in spite of any loss, and replication goes on.
#[test]
fn credit_never_leaks_and_replication_goes_on() {
    let credit = Credit { messages: 2, entries: 3, bytes: 200, append_bytes: 60, ..Credit::default() };
    let mut world = World::ruled(vec![Disk::default(); 3], Rules { credit, ..Rules::new(settings()) });
    world.elect(1);
    for round in 0..20 {
        world.must(Event::Propose(NodeId(1), 5));
        world.settle_but(|from, to, message| {
            let appends = matches!(message.body, Body::Append(_) | Body::AppendReply(_));
            appends && (from == NodeId(2) || to == NodeId(2)) && (round + from.0) % 3 == 0
        });
        for _ in 0..8 {
            world.pass(500);
            world.beat(1);
        }
        for peer in [2, 3] {
            let progress = world.replicator(1, peer).progress();
            assert_eq!((progress.in_flight_bytes(), progress.lag()), (0, 0), "round {round}, peer {peer}");
            assert_eq!(progress.state(), ProgressState::Replicate);
        }
    }
    assert_eq!(world.log(2), vec![1; 101]);
}

/// An append without an answer is sent again, with growing pauses; any answer ends the pauses.
#[test]
fn retries_back_off_and_an_answer_ends_that() {
    let mut progress = Progress::new(at(0), Index(5), Credit::default());
    let (mut now, mut waits) = (0, Vec::new());
    for _ in 0..6 {
        progress.send(at(now), id(5, 1), None).expect("a probe");
        let since = now;
        while progress.want().is_none() {
            now += 10;
            progress.tick(at(now));
        }
        waits.push(now - since);
    }
    assert_eq!(waits, [200, 400, 800, 1_600, 3_000, 3_000], "milliseconds");
    let wait = |progress: &mut Progress, now: u64| {
        let previous = id(progress.next().0 - 1, 1);
        progress.send(at(now), previous, None).expect("a probe");
        progress.tick(at(now + 200));
        progress.want().is_some()
    };
    progress.send(at(now), id(5, 1), None).expect("a probe");
    progress.rejected(at(now), progress.epoch(), Index(5), Index(3), Index(9));
    assert!(wait(&mut progress, now), "a rejection is an answer");
    progress.link_changed(at(now));
    assert!(wait(&mut progress, now), "so is a new link");
}

/// A follower that merely lags is found in one round trip, not in one per entry.
#[test]
fn a_follower_that_is_far_behind_is_found_in_one_round_trip() {
    let long = vec![1; 500];
    let disks = vec![disk_of(1, None, &long), disk_of(1, None, &long), disk_of(1, None, &long[..10])];
    let mut world = World::with(disks, settings());
    world.pass(400);
    world.must(Event::Timeout(NodeId(1)));
    let rejected = |(from, _, message): &(NodeId, NodeId, Message)| {
        let Body::AppendReply(reply) = &message.body else { return false };
        *from == NodeId(3) && matches!(reply.outcome, AppendOutcome::Rejected { .. })
    };
    let rejections = world.settle().iter().filter(|arrived| rejected(arrived)).count();
    assert_eq!((world.log(3).len(), rejections), (501, 1));
}

/// A fully compacted log and a follower with nothing: it waits for a snapshot, and goes on once
/// that is installed.
#[test]
fn a_follower_with_nothing_and_a_leader_with_a_snapshot_alone_converge() {
    let mut compacted = disk_of(4, None, &[1, 2, 4]);
    compacted.compact(Index(3), voters(3));
    let mut world = World::with(vec![compacted.clone(), compacted.clone(), Disk::default()], settings());
    world.pass(400);
    world.must(Event::Timeout(NodeId(1)));
    world.settle_but(|_, _, message| message.is_bulk());
    assert_eq!(world.replicator(1, 3).progress().state(), ProgressState::Snapshot);
    assert_eq!(world.commit(1), 4, "the others do not wait for it");

    let mut progress = world.replicator(1, 3).progress().clone();
    assert_eq!(progress.want(), None);
    progress.installed(at(0), Index(3));
    let want = progress.want().expect("it probes behind the snapshot");
    assert_eq!((want.from, progress.state()), (Index(4), ProgressState::Probe));

    world.beat(1);
    world.pass(2_000);
    world.beat(1);
    assert_eq!(world.log(3), world.log(2), "what was lost is sent again");

    world.crash(3);
    let mut installed = compacted;
    installed.hard_state = HardState::new(Term(5), None);
    world.node_mut(NodeId(3)).disk = installed;
    world.restart(3);
    world.crash(1);
    world.elect(2);
    assert_eq!(world.log(3), world.log(2), "a follower that has the snapshot needs no other");
}
