//! Other faults of a disk: different content, lost data, no room.

use quorate_raft::{
    Append, AppendOutcome, AppendReply, Body, Effect, Emptied, EntryId, Index, Message, MessageRefusal, NodeId, Phase,
    Progress, ProgressState, Promise, Replica, Role, SnapshotOutcome, Term, Violation,
};
use quorate_world::{
    disk::Disk,
    events::Event,
    fixtures::{
        append, append_reply, at, batch, disk_of, halted, hear, heartbeat, heartbeat_reply, id, lead, log_of, opened,
        persist_all, persists, promised, promising, replica, request_vote, sent, settings, snapshot_chunk, snapshot_of,
        snapshot_reply, stand, terms, vote_reply, voters,
    },
    rules::Rules,
    world::World,
};

// ---- Divergence ----

/// A follower with another content under the same id overwrites nothing, reports it, and stops once
/// its leader has proven that a quorum holds the leader's content. That the follower knows the
/// entry to be committed proves nothing.
#[test]
fn a_follower_whose_log_contradicts_a_quorum_stops_and_one_that_may_be_right_does_not() {
    let mut follower = replica(2, 3, 5, None, &[1, 1]);
    hear(&mut follower, at(0), 1, 5, append(1, id(2, 1), 2, None));
    assert_eq!(follower.commit(), Index(2));
    let probe = Append { epoch: 1, previous: id(2, 1), previous_checksum: Some(0xbad), commit: Index(2), batch: None };
    let effects = hear(&mut follower, at(0), 1, 5, Body::Append(probe.clone()));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Diverged { at: id(2, 1) }));
    assert!(effects.contains(&Effect::Diverged { at: id(2, 1), with: NodeId(1) }));
    assert_eq!(halted(&effects), None, "a damaged leader says the same to all");
    let proof =
        Append { epoch: Progress::NO_EPOCH, previous: id(3, 5), previous_checksum: None, commit: Index(3), ..probe };
    let effects = hear(&mut follower, at(0), 1, 5, Body::Append(proof));
    assert_eq!(halted(&effects), Some(Violation::Diverged { at: id(2, 1), leader: NodeId(1) }));
}

/// Entries that are already held are compared, too.
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

/// A leader that a quorum refuses stops; one that a single follower refuses proves to it that a
/// quorum contradicts it.
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
    leader.matched(at(0), NodeId(3), Index(3), &mut Vec::new());
    let effects = hear(&mut leader, at(0), 2, 2, diverged());
    assert!(halted(&effects).is_none());
    let Body::Append(proof) = &sent(&effects)[0].message.body else { panic!("a proof") };
    assert_eq!((proof.previous, proof.commit), (id(3, 2), Index(3)), "an entry of its own term is committed");
}

/// Divergence in a whole cluster: the damaged node stops, whether it leads or follows, and the
/// others go on.
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
    assert!(violated.starts_with("halt: 3 halts: entry 2@1 differs from that of node 1"), "{violated}");

    let mut world = World::ruled(vec![damaged(), sound(), sound()], rules());
    world.pass(400);
    world.must(Event::Timeout(NodeId(1)));
    let violated = halt(&mut world).expect("one stops");
    assert!(violated.starts_with("halt: 1 halts: entry 2@1 differs from that of node"), "{violated}");
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
    assert_eq!(replies[0].message.body, promising(0, Promise::NONE), "it confirms no leadership");
    let whole = |epoch| append(epoch, id(0, 0), 0, Some(log_of(&[1])[0].clone()));
    hear(&mut follower, at(0), 2, 5, whole(1));
    assert!(follower.is_new(), "it says first that it comes with nothing");
    hear(&mut follower, at(0), 2, 5, whole(2));
    assert!(!follower.is_new(), "a leader brought it up");
}

/// For the log from its first entry on no earlier entry is compared: an emptied member would pass
/// for whole if a leader that remembers it sent that.
#[test]
fn an_emptied_member_says_so_before_it_takes_the_log_from_its_first_entry_on() {
    let mut emptied = Replica::new(NodeId(3), voters(3), Disk::default().recover(), settings());
    let whole = append(7, id(0, 0), 0, Some(log_of(&[1])[0].clone()));
    let effects = hear(&mut emptied, at(0), 1, 1, whole.clone());
    let rejected = AppendOutcome::Rejected {
        previous: Index(0),
        conflict: EntryId::default(),
        last: Index(0),
        log_last: Index(0),
    };
    assert_eq!(
        (append_reply(&effects), persists(&effects).iter().any(|write| write.batch.is_some())),
        (Some(rejected), false)
    );
    assert_eq!(
        append_reply(&hear(&mut emptied, at(0), 1, 1, whole)),
        Some(rejected),
        "as often as it comes in that epoch"
    );

    let mut leader = replica(1, 3, 0, None, &[]);
    let led = lead(&mut leader, at(0));
    persist_all(&mut leader, &led);
    let answer = Body::AppendReply(AppendReply { epoch: 7, outcome: rejected });
    let goes_on = hear(&mut leader.clone(), at(0), 3, 1, answer.clone());
    assert!(matches!(goes_on[..], [Effect::Rejected { .. }]), "to one that is new: {goes_on:?}");
    leader.matched(at(0), NodeId(3), Index(1), &mut Vec::new());
    let tells = hear(&mut leader, at(0), 3, 1, answer);
    let told = sent(&tells).iter().any(|outgoing| matches!(outgoing.message.body, Body::Emptied(_)));
    assert!(told && !tells.iter().any(|effect| matches!(effect, Effect::Rejected { .. })), "{tells:?}");
}

/// A member whose directory was emptied is told by the members that remember its log, is neither
/// brought up to date nor elected, and stops.
#[test]
fn an_emptied_member_is_told_and_stops() {
    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, 2);
    assert!(world.node(NodeId(1)).disk.known.contains_key(&NodeId(3)), "remembered for good");
    world.crash(3);
    world.node_mut(NodeId(3)).disk = Disk::default();
    world.isolate(3);
    world.restart(3);
    world.heal();
    let violated = (0..200).find_map(|_| world.step_any().err()).expect("it stops");
    assert!(violated.starts_with("halt: 3 halts: the data directory is empty"), "{violated}");
    assert_eq!(world.node(NodeId(3)).disk.last(), id(0, 0), "it was not brought up as if it were new");
}

/// The same where the leader has cut its log, and would send a snapshot, for which the receiver
/// reports nothing that it lacks. Found by simulation: the snapshot made it a voter like any other.
#[test]
fn an_emptied_member_is_told_before_it_takes_a_snapshot() {
    let mut world = World::new(3);
    world.elect(1);
    world.crash(3);
    world.propose(1, 2);
    world.snapshot(1);
    world.pass(400);
    world.beat(1);
    assert_eq!(world.replicator(1, 3).progress().state(), ProgressState::Snapshot);
    world.node_mut(NodeId(3)).disk = Disk::default();
    world.restart(3);
    world.pass(4000);
    world.must(Event::Heartbeat(NodeId(1)));
    let violated = (0..200).find_map(|_| world.step_any().err()).expect("it stops");
    assert!(violated.starts_with("halt: 3 halts: the data directory is empty"), "{violated}");
    assert_eq!(world.node(NodeId(3)).disk.snapshot, None, "it was not brought up as if it were new");
}

/// A disk without room for a segment has none to begin the log anew after a snapshot. Found by
/// simulation: the node stopped.
#[test]
fn a_full_node_takes_no_snapshot_until_it_has_room() {
    let mut follower = replica(2, 3, 5, None, &[1]);
    let chunk = |epoch| snapshot_chunk(epoch, &snapshot_of(4, 1), 0, b"abc");
    let takes = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::SnapshotChunk { .. }));
    hear(&mut follower, at(0), 1, 5, chunk(1));
    follower.storage_full(true, &mut Vec::new());
    let effects = hear(&mut follower, at(0), 1, 5, chunk(2));
    assert_eq!((takes(&effects), snapshot_reply(&sent(&effects))), (false, Some(SnapshotOutcome::Refused)));
    follower.storage_full(false, &mut Vec::new());
    assert!(takes(&hear(&mut follower, at(0), 1, 5, chunk(2))));
}

/// A node that named entries before they were durable, and lost them in a crash, lost nothing that
/// it had promised. Found by simulation: with a slow disk it asked for a pre-vote, and was taken
/// for an emptied one for ever.
#[test]
fn a_member_that_never_had_a_durable_log_is_not_taken_for_an_emptied_one() {
    let mut world = World::new(3);
    world.stuck.insert(NodeId(3));
    world.elect(1);
    world.propose(1, 1);
    assert_eq!(world.replica(3).log().last().index, Index(1), "in its memory alone");
    world.isolate(1);
    world.pass(400);
    world.must(Event::Timeout(NodeId(3)));
    world.settle();
    world.crash(3);
    world.stuck.clear();
    world.restart(3);
    world.timeout_of(3);
    world.heal();
    world.beat(1);
    world.pass(4_000);
    world.beat(1);
    assert_eq!(world.node(NodeId(3)).disk.last().index, Index(2), "it was brought up");
}

/// A node that is really new, and of which no member remembers a log, says so and is brought
/// up to date.
#[test]
fn a_new_member_introduces_itself_before_it_takes_a_snapshot() {
    let mut new = Replica::new(NodeId(3), voters(3), Disk::default().recover(), settings());
    let snapshot = snapshot_of(4, 1);
    let chunk = |epoch| snapshot_chunk(epoch, &snapshot, 0, b"abc");
    let strange =
        AppendOutcome::Rejected { previous: Index(4), conflict: id(0, 0), last: Index(0), log_last: Index(0) };
    let takes = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::SnapshotChunk { .. }));
    for _ in 0..2 {
        let effects = hear(&mut new, at(0), 1, 5, chunk(7));
        let effects = [effects.clone(), persist_all(&mut new, &effects)].concat();
        assert!(!takes(&effects) && append_reply(&effects) == Some(strange), "its leader may not have heard it");
    }
    assert!(takes(&hear(&mut new, at(0), 1, 5, chunk(8))), "its leader has heard it");
    assert!(!takes(&hear(&mut new, at(0), 1, 5, chunk(7))), "one that was on its way before");
    assert!(!takes(&hear(&mut new, at(0), 2, 6, chunk(8))), "the next leader has not");
}

/// A voter tells it, too; but a node whose log is merely empty, and that knows that it voted,
/// is not stopped.
#[test]
fn an_emptied_candidate_is_told_by_its_voters() {
    let mut voter = replica(1, 3, 5, None, &[1]);
    let remembers = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Remember { .. }));
    let asked = hear(&mut voter, at(0), 3, 5, request_vote(Phase::PreVote, 1, id(3, 1)));
    assert!(!remembers(&asked), "what it names may not be on its disk");
    let effects = hear(&mut voter, at(0), 3, 5, request_vote(Phase::Vote, 1, id(4, 1)));
    assert!(
        effects.contains(&Effect::Remember { members: vec![(NodeId(3), Index(0))] }),
        "none of it is known to be committed"
    );
    let again = hear(&mut voter, at(0), 3, 5, request_vote(Phase::Vote, 2, id(5, 1)));
    assert!(!remembers(&again), "once a member");
    let stranger = hear(&mut voter, at(0), 9, 5, request_vote(Phase::Vote, 2, id(5, 1)));
    assert!(!remembers(&stranger), "and only of members");
    let effects = hear(&mut voter, at(0), 3, 5, request_vote(Phase::PreVote, 1, id(0, 0)));
    assert_eq!(vote_reply(&effects), Some((Term(5), false)));
    let emptied = Body::Emptied(Emptied { known_at: Index(0) });
    let said = [sent(&effects), promised(&effects)].concat();
    assert!(said.iter().any(|outgoing| outgoing.message.body == emptied));

    let mut new = Replica::new(NodeId(3), voters(3), Disk::default().recover(), settings());
    let violation = Violation::DataLost { known_at: Index(0), by: NodeId(1) };
    assert_eq!(halted(&hear(&mut new.clone(), at(0), 1, 0, emptied.clone())), Some(violation), "whatever the terms");
    assert_eq!(halted(&hear(&mut new, at(0), 9, 5, emptied.clone())), None, "a stranger knows nothing");
    let mut empty = replica(3, 3, 5, Some(1), &[]);
    assert_eq!(halted(&hear(&mut empty, at(0), 1, 5, emptied)), None);
    let rejected = append_reply(&hear(&mut empty, at(0), 1, 5, append(1, id(4, 1), 0, None)));
    let (previous, last) = (Index(4), Index(0));
    assert_eq!(
        rejected,
        Some(AppendOutcome::Rejected { previous, conflict: id(1, 0), last, log_last: last }),
        "so it is brought up"
    );
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

/// A full disk: the leader steps down, no full node campaigns, and entries without room are not
/// acknowledged. Votes and heartbeats go on, and with room again all of it does.
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
    assert!(matches!(effects.last(), Some(Effect::Refused { reason: MessageRefusal::StorageFull, .. })));
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

/// The same in a cluster: another node leads, and the full one catches up when it has room again.
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
