//! Members whose disk holds less than they acknowledged: emptied directories, old copies of a
//! directory, a lost majority.

use quorate_raft::{
    AppendOutcome, AppendReply, Body, Denial, Effect, Emptied, Holdings, Index, NodeId, Phase, Replica, RequestVote,
    Role, Term, Violation, Vote,
};
use quorate_world::{
    disk::Disk,
    events::Event,
    fixtures::{
        append, append_reply, at, batch, disk_of, halted, hear, heartbeat, id, lead, log_of, opened, persist_all,
        persists, promised, replica, request_vote, sent, settings, snapshot_chunk, snapshot_of, terms, vote,
        vote_reply, voters,
    },
    node::Note,
    rules::Rules,
    world::{Envelope, World},
};

/// A leader of three with entries 1 to 3, the last of its own term, all committed and held
/// by the others.
fn leader_of_three() -> Replica {
    let mut leader = replica(1, 3, 1, None, &[1, 1]);
    let led = lead(&mut leader, at(0));
    persist_all(&mut leader, &led);
    for follower in [2, 3] {
        leader.matched(at(0), NodeId(follower), Index(3), &mut Vec::new());
    }
    assert_eq!(leader.commit(), Index(3));
    leader
}

fn rejected(last: u64, log_last: u64) -> Body {
    let (last, log_last) = (Index(last), Index(log_last));
    let outcome = AppendOutcome::Rejected { previous: Index(3), conflict: id(1, 1), last, log_last };
    Body::AppendReply(AppendReply { epoch: 1, outcome })
}

fn told(effects: &[Effect]) -> Vec<(NodeId, Index)> {
    let said = sent(effects).into_iter().chain(promised(effects));
    let emptied = said.filter_map(|outgoing| match outgoing.message.body {
        Body::Emptied(Emptied { known_at }) => Some((outgoing.to, known_at)),
        _ => None,
    });
    emptied.collect()
}

fn named(effects: &[Effect]) -> Vec<(u64, u64, u64, bool)> {
    let losses = effects.iter().filter_map(|effect| match effect {
        Effect::DataLost { member, last, held, is_last_copy } => Some((member.0, last.0, held.0, *is_last_copy)),
        _ => None,
    });
    losses.collect()
}

fn holdings(members: &[(u64, u64)]) -> Body {
    let members = members.iter().map(|(member, held)| (NodeId(*member), Index(*held))).collect();
    Body::Holdings(Holdings { members })
}

/// A follower started from yesterday's directory, in the very leadership in which
/// it acknowledged more.
#[test]
fn a_leader_names_a_member_that_comes_with_less_than_it_acknowledged_and_does_not_bring_it_up() {
    let mut leader = leader_of_three();
    let effects = hear(&mut leader, at(1), 3, 2, rejected(1, 1));
    assert_eq!(told(&effects), [(NodeId(3), Index(3))]);
    assert_eq!(named(&effects), [(3, 1, 3, false)]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Rejected { .. })), "{effects:?}");
    let again = hear(&mut leader, at(2), 3, 2, rejected(1, 1));
    assert_eq!((told(&again).len(), named(&again)), (1, vec![]), "told each time, named once");
    let other = hear(&mut leader, at(3), 2, 2, rejected(0, 0));
    assert_eq!(named(&other), [(2, 0, 3, true)], "no quorum is left that has its data");
}

/// A rejection from before an acknowledgement may be repeated, or be overtaken by it. A member that
/// lost data was restarted, and answers in a later epoch.
#[test]
fn a_late_rejection_names_no_member_that_acknowledged_more_in_the_same_epoch() {
    let mut leader = leader_of_three();
    let acknowledged = AppendOutcome::Matched { matched: Index(3) };
    hear(&mut leader, at(1), 3, 2, Body::AppendReply(AppendReply { epoch: 1, outcome: acknowledged }));
    let late = hear(&mut leader, at(2), 3, 2, rejected(1, 1));
    assert_eq!((told(&late).len(), named(&late)), (1, vec![]), "the member knows better, and goes on");
    let Body::AppendReply(rejection) = rejected(1, 1) else { panic!("a reply") };
    let again = hear(&mut leader, at(3), 3, 2, Body::AppendReply(AppendReply { epoch: 2, ..rejection }));
    assert_eq!(named(&again), [(3, 1, 3, false)]);
}

/// An append of an old term waited in a cut link. Its sender leads the new term when it hears the
/// answer, and the follower has acknowledged more meanwhile.
#[test]
fn a_late_answer_to_an_append_of_an_old_term_names_no_member() {
    let mut leader = leader_of_three();
    let mut follower = replica(3, 3, leader.term().0, None, &[1]);
    let effects = hear(&mut follower, at(1), 1, 1, append(7, id(2, 1), 2, None));
    let [answer] = sent(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(answer.message.term, leader.term());
    let effects = hear(&mut leader, at(2), 3, answer.message.term.0, answer.message.body.clone());
    assert_eq!((told(&effects), named(&effects)), (vec![], vec![]));
}

/// A request of before a cut arrives after the heal, at the leader and at a voter, and its sender
/// has acknowledged more since.
#[test]
fn a_delayed_pre_vote_after_a_heal_names_and_tells_no_member() {
    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, 1);
    world.pass(400);
    world.must(Event::Timeout(NodeId(3)));
    let is_request = |envelope: &Envelope| matches!(envelope.message.body, Body::RequestVote(_));
    let delayed: Vec<_> = world.wire.iter().filter(|envelope| is_request(envelope)).cloned().collect();
    assert_eq!(delayed.len(), 2, "one to each voter");
    world.wire.clear();
    world.beat(1);
    world.propose(1, 3);
    world.pass(5_000);
    world.beat(1);
    let held = |of: u64| world.replica(of).holding_of(NodeId(3)).expect("known");
    assert!(held(1) == Index(5) && held(2) == Index(5), "both know of more than the requests name");
    world.notes.clear();
    world.wire.extend(delayed);
    let arrived = world.settle();
    assert!(arrived.iter().all(|(_, _, message)| !matches!(message.body, Body::Emptied(_))), "{arrived:?}");
    assert!(!world.notes.iter().any(|(_, note)| matches!(note, Note::DataLost { .. })), "{:?}", world.notes);
    assert!(world.replica(1).is_leader());
}

/// Whether its request is old or its disk lost entries, it is not elected.
#[test]
fn a_candidate_with_less_is_denied_by_a_leader_and_by_voters_that_hear_one_and_is_left_to_the_leader() {
    let mut voter = replica(2, 3, 2, None, &[1, 1, 1]);
    hear(&mut voter, at(0), 1, 2, holdings(&[(1, 3), (2, 3), (3, 3)]));
    let heard = hear(&mut voter, at(0), 1, 2, heartbeat(1, 3));
    persist_all(&mut voter, &heard);
    let leader = leader_of_three();
    // The last of them leads without a quorum, and has not stepped down yet.
    for (judge, now) in [(&voter, 100), (&leader, 100), (&leader, 9_000)] {
        for (phase, by_transfer) in [(Phase::PreVote, false), (Phase::Vote, false), (Phase::Vote, true)] {
            for last in [id(0, 0), id(2, 6)] {
                let mut judge = judge.clone();
                let request = RequestVote { phase, campaign: 1, last, by_transfer, machine_version: 0 };
                let effects = hear(&mut judge, at(now), 3, 7, Body::RequestVote(request));
                let [answer] = sent(&effects)[..] else { panic!("{effects:?}") };
                let Body::Vote(vote) = answer.message.body else { panic!("{answer:?}") };
                assert_eq!(vote.denial, Some(Denial::HearsLeader { leader: Some(NodeId(1)) }));
                assert_eq!((judge.term(), named(&effects)), (Term(2), vec![]));
            }
        }
    }
}

/// Its pre-votes reach the voters before an append of its leader reaches it.
#[test]
fn an_emptied_member_that_asks_for_votes_first_is_named_by_its_leader() {
    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, 2);
    world.pass(5_000);
    world.beat(1);
    world.crash(3);
    world.empty(NodeId(3)).expect("it is down");
    world.notes.clear();
    world.wire.clear();
    world.restart(3);
    world.must(Event::Timeout(NodeId(3)));
    let asks = |body: &Body| matches!(body, Body::RequestVote(_));
    assert!(world.wire.iter().map(|envelope| &envelope.message.body).all(asks), "{:?}", world.wire);
    world.settle();
    world.pass(100);
    world.beat(1);
    let namer = |(by, note): &(NodeId, Note)| matches!(note, Note::DataLost { member: NodeId(3), .. }).then_some(*by);
    assert_eq!(world.notes.iter().filter_map(namer).collect::<Vec<_>>(), [NodeId(1)]);
    assert!(world.running(NodeId(3)).is_none(), "it was told, and stopped");
}

/// A voter that hears a leader does not say what it remembers, so its answer is not one of those
/// that a new member waits for.
#[test]
fn a_new_candidate_gives_way_to_a_leader_and_waits_for_all_answers_again() {
    let mut new = Replica::new(NodeId(3), voters(3), Disk::default().recover(), settings());
    let stands = |effects: &[Effect]| opened(effects).is_some_and(|ballot| ballot.phase == Phase::Vote);
    let denied = |denial| Body::Vote(Vote { phase: Phase::PreVote, campaign: 1, denial: Some(denial) });
    let led = denied(Denial::HearsLeader { leader: Some(NodeId(1)) });
    for (campaign, led) in [(1, Some(led)), (2, None)] {
        let mut out = Vec::new();
        new.election_timeout(at(0), Term(0), &mut out);
        hear(&mut new, at(0), 2, 0, vote(Phase::PreVote, campaign, true));
        new.election_won(at(0), Term(0), campaign, &mut out);
        if let Some(led) = led {
            out.extend(hear(&mut new, at(0), 1, 0, led));
            assert!(matches!(new.role(), Role::Follower), "{:?}", new.role());
        }
        assert!(!stands(&out), "in campaign {campaign}: {out:?}");
    }
    let answered = hear(&mut new, at(0), 1, 0, vote(Phase::PreVote, 2, false));
    assert!(stands(&answered), "the last voter remembers nothing: {answered:?}");
}

/// Only committed entries are never truncated: an uncommitted tail may rightly be gone, and a
/// faulty entry is not.
#[test]
fn a_member_whose_uncommitted_tail_is_gone_or_whose_entries_are_faulty_is_sound() {
    let mut leader = replica(1, 5, 1, None, &[1, 1]);
    let led = lead(&mut leader, at(0));
    persist_all(&mut leader, &led);
    leader.matched(at(0), NodeId(3), Index(3), &mut Vec::new());
    assert_eq!(leader.commit(), Index(0), "two of five");
    let effects = hear(&mut leader, at(1), 3, 2, rejected(1, 1));
    assert!(matches!(effects[..], [Effect::Rejected { .. }]), "{effects:?}");
    let mut leader = leader_of_three();
    let effects = hear(&mut leader, at(1), 3, 2, rejected(0, 3));
    assert!(matches!(effects[..], [Effect::Rejected { .. }]), "its disk lost the payload of entry 1: {effects:?}");
}

/// The member itself judges, so a late message stops no sound member.
#[test]
fn a_member_that_has_less_than_it_is_told_that_it_held_stops_and_any_other_goes_on() {
    let put_back = || replica(3, 3, 5, None, &[1, 1]);
    let emptied = |known_at| Body::Emptied(Emptied { known_at: Index(known_at) });
    let violation = Violation::RolledBack { last: Index(2), known_at: Index(4), by: NodeId(1) };
    assert_eq!(halted(&hear(&mut put_back(), at(0), 1, 0, emptied(4))), Some(violation), "whatever the terms");
    assert_eq!(halted(&hear(&mut put_back(), at(0), 1, 0, holdings(&[(2, 9), (3, 4)]))), Some(violation));
    let effects = hear(&mut put_back(), at(0), 1, 5, heartbeat(1, 4));
    let Some(AppendOutcome::Rejected { log_last, .. }) = append_reply(&effects) else { panic!("{effects:?}") };
    assert_eq!(log_last, Index(2), "its leader, which saw them match, is to name it");
    assert_eq!(halted(&hear(&mut put_back(), at(0), 9, 5, emptied(4))), None, "a stranger knows nothing");
    assert_eq!(halted(&hear(&mut put_back(), at(0), 9, 5, holdings(&[(3, 4)]))), None);
    for sound in [emptied(2), holdings(&[(2, 9), (3, 2)]), heartbeat(1, 2)] {
        assert_eq!(halted(&hear(&mut put_back(), at(0), 1, 5, sound)), None);
    }
    assert!(violation.to_string().contains("remove this member and add a new one"), "{violation}");
}

/// The next leader knows the holdings that one leader knew, and so does a voter that never led.
#[test]
fn a_leader_tells_all_members_the_holdings_and_they_refuse_a_member_with_less() {
    let mut leader = leader_of_three();
    let mut out = Vec::new();
    let mut tick = |leader: &mut Replica, milliseconds| {
        out.clear();
        leader.tick(at(milliseconds), &mut out);
        let told = sent(&out).into_iter().filter(|outgoing| matches!(outgoing.message.body, Body::Holdings(_)));
        let remembers = out.iter().any(|effect| matches!(effect, Effect::Remember { .. }));
        (told.map(|outgoing| outgoing.message.body.clone()).collect::<Vec<_>>(), remembers)
    };
    let every = Replica::HOLDINGS_EVERY.as_millis() as u64;
    assert_eq!(tick(&mut leader, every - 1), (vec![], false));
    let all = holdings(&[(1, 3), (2, 3), (3, 3)]);
    assert_eq!(tick(&mut leader, every), (vec![all.clone(); 2], true));
    assert_eq!(tick(&mut leader, 2 * every - 1), (vec![], false));
    assert_eq!(
        tick(&mut leader, 2 * every),
        (vec![all.clone(); 2], false),
        "told again, for it may be lost, and written once"
    );

    let mut voter = replica(2, 3, 2, None, &[1, 1, 1]);
    let effects = hear(&mut voter, at(0), 1, 2, all);
    let remembered = effects.iter().find_map(|effect| match effect {
        Effect::Remember { members } => Some(members.clone()),
        _ => None,
    });
    assert_eq!(remembered, Some(vec![(NodeId(1), Index(3)), (NodeId(3), Index(3))]), "its own log decides of its own");
    for phase in [Phase::PreVote, Phase::Vote] {
        let effects = hear(&mut voter.clone(), at(9_000), 3, 7, request_vote(phase, 1, id(2, 6)));
        assert!(matches!(vote_reply(&effects), Some((_, false))), "though its log is newer than the voter's");
        assert_eq!((told(&effects), named(&effects)), (vec![(NodeId(3), Index(3))], vec![(3, 2, 3, false)]));
    }
    let effects = hear(&mut voter, at(9_000), 3, 7, request_vote(Phase::Vote, 1, id(3, 6)));
    assert!(matches!(vote_reply(&effects), Some((_, true))), "that much it had");
}

/// A commit index is not durable, a holding is: a survivor that restarts does not truncate
/// committed entries, though it does not know its commit index yet.
#[test]
fn a_survivor_that_was_restarted_keeps_its_log_from_a_leader_that_lost_it_tells_that_leader_and_stops() {
    let survivor = || {
        let mut disk = disk_of(5, None, &[1, 1, 5, 5]);
        disk.remember(&[(NodeId(1), Index(4)), (NodeId(3), Index(3))]);
        Replica::new(NodeId(3), voters(3), disk.recover(), settings())
    };
    let takes = [
        append(1, id(0, 0), 1, Some(batch(6, 1, 1, 0))),
        append(1, id(2, 1), 1, log_of(&[1, 1, 6])[1].from(Index(3))),
        append(1, id(3, 6), 3, None),
    ];
    for append in takes {
        let mut survivor = survivor();
        assert_eq!(survivor.commit(), Index(0));
        let effects = hear(&mut survivor, at(0), 1, 6, append);
        let halt = halted(&effects);
        let Some(violation @ Violation::CommittedConflict { leader: NodeId(1), .. }) = halt else { panic!("{halt:?}") };
        assert!(violation.to_string().contains("last good copy; keep this data directory"), "{violation}");
        assert_eq!(terms(&survivor), [1, 1, 5, 5]);
        assert!(persists(&effects).iter().all(|persist| persist.truncate_from.is_none() && persist.batch.is_none()));
        assert_eq!(told(&effects), [(NodeId(1), Index(4))]);
    }
    // Entries that are not known to be committed are replaced as always.
    let tail = append(1, id(3, 5), 3, Some(batch(6, 4, 1, log_of(&[1, 1, 5])[1].checksum())));
    let mut survivor = survivor();
    assert_eq!(halted(&hear(&mut survivor, at(0), 1, 6, tail)), None);
    assert_eq!(terms(&survivor), [1, 1, 5, 6]);
}

/// An emptied member that was told to join has no configuration: it believes its leader, and
/// grants no vote.
#[test]
fn an_emptied_member_that_waits_to_be_added_is_stopped_by_its_leader_and_elects_no_one() {
    let waiting =
        || Replica::new(NodeId(3), quorate_raft::Membership::default(), Disk::default().recover(), settings());
    let mut emptied = waiting();
    let word = || Body::Emptied(Emptied { known_at: Index(4) });
    assert_eq!(halted(&hear(&mut emptied, at(0), 1, 5, word())), None, "of a node that leads nothing here");
    hear(&mut emptied, at(0), 1, 5, append(1, id(4, 5), 4, None));
    let violation = Violation::DataLost { known_at: Index(4), by: NodeId(1) };
    assert_eq!(halted(&hear(&mut emptied, at(0), 1, 5, word())), Some(violation));
    for phase in [Phase::PreVote, Phase::Vote] {
        let effects = hear(&mut waiting(), at(0), 2, 5, request_vote(phase, 1, id(0, 0)));
        assert_eq!(vote_reply(&effects), Some((Term(5), false)), "a cluster begins with its own members");
    }
}

/// The same for a whole cluster: the id of a member, present or former, is not given to another
/// directory under any later leader.
#[test]
fn an_id_that_had_a_log_is_refused_to_an_empty_directory_by_a_later_leader_too() {
    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, 2);
    world.pass(5_000);
    world.beat(1);
    world.elect(2);
    world.crash(3);
    world.empty(NodeId(3)).expect("it is down");
    world.crash(1);
    world.restart(3);
    for _ in 0..20 {
        world.pass(500);
        world.must(Event::Heartbeat(NodeId(2)));
        world.settle();
    }
    assert!(world.node(NodeId(3)).running.is_none(), "it was told, and stopped");
    assert_eq!(world.node(NodeId(3)).disk.last(), id(0, 0), "it was not brought up");
}

/// Two of three directories are emptied. The survivor remembers both.
#[test]
fn two_emptied_members_are_stopped_by_the_survivor_before_they_lead() {
    let mut survivor = disk_of(1, Some(1), &[1, 1, 1, 1]);
    survivor.remember(&[(NodeId(1), Index(4)), (NodeId(2), Index(3)), (NodeId(3), Index(4))]);
    let rules = Rules { logs_match: false, ..Rules::new(settings()) };
    let mut world = World::ruled(vec![Disk::default(), Disk::default(), survivor], rules);
    world.emptied = [1, 2].map(NodeId).into();
    for _ in 0..6 {
        for node in [1, 2, 3] {
            world.pass(400);
            if world.node(NodeId(node)).running.is_some() {
                world.timeout_of(node);
            }
        }
    }
    assert!([1, 2].into_iter().all(|id| world.node(NodeId(id)).running.is_none()), "both are told, and stop");
    assert_eq!((world.replica(3).is_leader(), world.log(3)), (false, vec![1, 1, 1, 1]));
}

/// A snapshot would hide the loss: its first piece is rejected once, with the end of the log, and
/// the leader that remembers more says so.
#[test]
fn a_member_whose_directory_was_rolled_back_is_not_made_whole_by_a_snapshot() {
    let mut follower = replica(3, 3, 1, None, &[1]);
    let mut chunk = |epoch| hear(&mut follower, at(0), 1, 2, snapshot_chunk(epoch, &snapshot_of(3, 2), 0, b"abc"));
    let effects = [chunk(4), chunk(4)].concat();
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::SnapshotChunk { .. })));
    let mut replies =
        sent(&effects).into_iter().chain(promised(&effects)).map(|outgoing| outgoing.message.body.clone());
    let reply = replies.find(|body| matches!(body, Body::AppendReply(_))).expect("a rejection");
    let mut leader = leader_of_three();
    assert_eq!(told(&hear(&mut leader, at(0), 3, 2, reply)), [(NodeId(3), Index(3))]);
    let taken = chunk(5);
    assert!(taken.iter().any(|effect| matches!(effect, Effect::SnapshotChunk { .. })), "its leader remembers no more");
}

/// Yesterday's data directory: its member stops, and the others go on.
#[test]
fn a_member_whose_directory_was_rolled_back_stops() {
    for another_leads in [false, true] {
        let mut world = World::new(3);
        world.elect(1);
        world.propose(1, 1);
        let yesterday = world.node(NodeId(3)).disk.clone();
        world.propose(1, 3);
        world.pass(5_000);
        world.beat(1);
        world.crash(3);
        world.node_mut(NodeId(3)).disk = yesterday;
        if another_leads {
            world.elect(2);
        }
        world.isolate(3);
        world.restart(3);
        world.heal();
        let leader = NodeId(if another_leads { 2 } else { 1 });
        let stops = |world: &mut World| {
            for _ in 0..2_000 {
                if let Err(violated) = world.step_any() {
                    return Some(violated);
                }
                if world.is_at_rest() {
                    world.pass(500);
                    world.must(Event::Heartbeat(leader));
                }
            }
            None
        };
        let violated = stops(&mut world).expect("it stops");
        assert!(violated.starts_with("halt: 3 halts: the log here ends at entry 2, but node"), "{violated}");
        assert!(world.log(3).len() < 5, "it was not brought up as if it were only behind");
    }
}
