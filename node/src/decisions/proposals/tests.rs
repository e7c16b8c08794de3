use super::{forwarding::asked_for, *};
use crate::{
    decisions::{callers::Answer, large_commands::LARGE_BYTES},
    results::Applied,
    sessions::Refusal,
};
use quorate_raft::{
    ForwardedCommand, Propose,
    session::{LogTime, STAMP_BYTES},
    tick::Tick,
};

const THIS: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);
const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_command_goes_where_the_route_leads() {
    let mut world = World::leading(1);
    let one = world.offer("here");
    assert_eq!(world.appended(), ["here"]);
    assert!(world.unanswered(one));
    world.follow(Some(OTHER), 2);
    world.offer("forwarded");
    assert_eq!(world.sent_to(OTHER).commands.len(), 1);
    world.sent.clear();
    world.follow(None, 2);
    let deferred = world.offer("deferred");
    assert!(world.is_quiet());
    world.view.routing.is_stopping = true;
    let refused = world.offer("refused");
    assert_eq!(world.error_of(refused), Some(ProposeError::Stopped));
    assert!(world.unanswered(deferred), "it was taken before");
}

#[test]
fn a_late_command_is_never_started() {
    let mut world = World::leading(1);
    let (at, after) = (world.now, world.now.plus(MS(1)));
    let late = world.offer_until("late", at);
    let early = world.offer_until("in time", after);
    assert_eq!(world.error_of(late), Some(ProposeError::DeadlinePassed));
    assert_eq!(world.appended(), ["in time"]);
    assert!(world.unanswered(early));
}

#[test]
fn deferred_commands_go_on_once_a_leader_can_be_reached() {
    let mut world = World::leaderless(1);
    world.offer("one");
    world.offer("two");
    world.follow(Some(OTHER), 1);
    world.event(|proposals, now, view, out| proposals.leader_reachable(now, view, out));
    let Propose { commands, payloads } = world.sent_to(OTHER);
    assert_eq!((commands.len(), &payloads[..]), (2, &b"onetwo"[..]));
}

#[test]
fn however_often_leaders_change_a_caller_waits_no_longer_than_the_timeout_of_proposals() {
    let mut world = World::leaderless(1);
    let caller = world.offer("patient");
    world.now = world.now.plus(world.timing().proposal_timeout);
    world.follow(Some(OTHER), 1);
    world.event(|proposals, now, view, out| proposals.leader_reachable(now, view, out));
    assert_eq!(world.error_of(caller), Some(ProposeError::NoLeader));
    assert!(world.is_quiet());
}

#[test]
fn a_leader_that_refused_is_asked_again_only_if_it_leads_another_term() {
    for (term, goes_to) in [(1, None), (2, Some(OTHER))] {
        let mut world = World::following(OTHER, 1);
        world.offer("again");
        let request = world.sent_to(OTHER).commands[0].request;
        world.follow(Some(OTHER), term);
        world.answer(OTHER, 1, request, ProposeOutcome::NotLeader);
        assert_eq!(world.last_receiver(), goes_to);
        assert!(!world.proposals.is_empty());
    }
}

#[test]
fn commands_are_forwarded_in_messages_of_a_bounded_size_and_with_the_time_that_is_left() {
    let mut world = World::following(OTHER, 1);
    world.settings(|settings| settings.limits.max_batch_bytes = 7);
    let until = world.now.plus(MS(30));
    let four = ["four", "five", "six", "seven!!!"].map(|payload| world.proposal(payload, Some(until)));
    let one = world.proposal("1", None);
    world.event(|proposals, now, view, out| {
        proposals.offered(four.into_iter().chain([one]).collect(), now, view, out);
    });
    let sent = world.sent_proposals();
    let payloads: Vec<_> = sent.iter().map(|sent| &sent.payloads[..]).collect();
    assert_eq!(payloads, [&b"four"[..], b"fivesix", b"seven!!!", b"1"]);
    let waits: Vec<_> = sent.iter().map(|sent| sent.commands[0].waits_ms).collect();
    assert_eq!(waits, [30, 30, 30, 5_000]);
}

#[test]
fn a_forwarded_command_is_refused_by_name_where_it_can_not_be_taken() {
    let mut world = World::leading(1);
    let arrive = |world: &mut World, from, request, term, is_outside, room| {
        world.arrive((from, term, is_outside), &[(request, b"command")], room)
    };
    assert_eq!(arrive(&mut world, OTHER, 1, 1, false, true), []);
    assert_eq!(world.appended(), ["command"]);
    assert_eq!(arrive(&mut world, OTHER, 1, 1, false, true), [], "a copy");
    assert_eq!(world.duplicates, [OTHER]);
    assert_eq!(arrive(&mut world, OTHER, 2, 1, false, false), [(OTHER, ProposeOutcome::Overloaded)]);
    assert_eq!(arrive(&mut world, OTHER, 3, 1, true, true), [(OTHER, ProposeOutcome::NotLeader)]);
    world.view.routing.term = Term(2);
    assert_eq!(
        arrive(&mut world, OTHER, 4, 1, false, true),
        [(OTHER, ProposeOutcome::NotLeader)],
        "of an earlier term"
    );
    let mut world = World::recovered_in(1);
    assert_eq!(arrive(&mut world, OTHER, 5, 1, false, true), [(OTHER, ProposeOutcome::Unknown)]);
    assert_eq!(world.appended(), [""; 0]);
}

#[test]
fn a_forwarded_command_that_no_node_takes_is_refused_for_good() {
    let mut world = World::leading(1);
    let max = Limits::COMMAND_BYTES_MAX;
    let large = vec![0; max + 1];
    let refused = world.arrive((OTHER, 1, false), &[(1, &large), (2, b"small")], true);
    assert_eq!(refused, [(OTHER, ProposeOutcome::TooLarge { max: u32::try_from(max).expect("it fits") })]);
    assert_eq!(world.appended(), ["small"]);
}

#[test]
fn a_batch_is_bounded_by_bytes_and_each_entry_of_a_session_is_stamped() {
    let mut world = World::leading(1);
    world.settings(|settings| settings.limits.max_batch_bytes = 2 * (OVERHEAD_BYTES + 100));
    world.log_time = LogTime(77);
    let open = quorate_raft::session::Request::Open.encode();
    let session = Proposal { kind: Kind::Session, payload: open.clone(), ..world.proposal("", None) };
    let long = "0123456789".repeat(10);
    let all = vec![world.proposal(&long, None), world.proposal("short", None), world.proposal(&long, None), session];
    world.event(|proposals, now, view, out| proposals.offered(all, now, view, out));
    let batches = world.batches();
    assert_eq!(batches.iter().map(|batch| batch.records().count()).collect::<Vec<_>>(), [2, 2]);
    let last = batches[1].records().last().expect("an entry");
    assert_eq!(asked_for(last.kind, last.payload), Some(&open[..]));
    let (stamp, _) = quorate_raft::session::decode(last.payload).expect("a stamp");
    assert_eq!((stamp.time, stamp.sessions_max), (LogTime(77), Sessions::default().max_sessions));
}

#[test]
fn a_tick_stands_first_in_a_batch_and_no_caller_waits_for_it() {
    let mut world = World::leading(1);
    world.settings(|settings| settings.limits.max_batch_bytes = OVERHEAD_BYTES + 100);
    world.tick = Some(Tick { time: LogTime(77), ..Tick::default() });
    let long = "0123456789".repeat(10);
    let all = vec![world.proposal(&long, None), world.proposal(&long, None)];
    world.event(|proposals, now, view, out| proposals.offered(all, now, view, out));
    let batches = world.batches();
    let kinds = |batch: &Batch| batch.records().map(|record| record.kind).collect::<Vec<_>>();
    for batch in &batches {
        assert_eq!(kinds(batch), [Kind::Tick, Kind::Command], "a command finds room after it, however long it is");
    }
    let mut taken = Vec::new();
    for batch in &batches {
        world.event(|proposals, _, _, out| taken.extend(proposals.committed(batch, out)));
    }
    let waited: Vec<_> = taken.iter().map(|callers| (callers.first, callers.callers.len())).collect();
    assert_eq!(waited, [(Index(2), 1), (Index(4), 1)]);
}

#[test]
fn the_callers_of_a_committed_entry_are_found() {
    let mut world = World::leading(1);
    let mut callers = world.append(1, 1, 3);
    callers.extend(world.append(4, 1, 2));
    assert_eq!(world.commit(1, 1, 2), [(Index(1), 2)]);
    assert_eq!(world.commit(3, 1, 3), [(Index(3), 1), (Index(4), 2)]);
    assert!(world.proposals.is_empty());
    assert!(callers.iter().all(|caller| world.unanswered(*caller)), "the state machine answers these");
}

#[test]
fn a_caller_whose_place_another_entry_took_learns_that_it_will_never_be() {
    let mut world = World::leading(1);
    let callers = world.append(1, 1, 2);
    assert_eq!(world.commit(1, 2, 2), []);
    assert!(callers.iter().all(|caller| world.error_of(*caller) == Some(ProposeError::NoLeader)));
}

#[test]
fn a_caller_of_an_earlier_leadership_hides_none_of_a_later_one() {
    let mut world = World::leading(1);
    // It led in term 2, was cut back to entry 5 by another leader, and leads again in term 4.
    let early = world.append(5, 2, 6);
    let late = world.append(6, 4, 3);
    assert_eq!(world.commit(5, 3, 1), []);
    assert_eq!(world.commit(6, 4, 3), [(Index(6), 3)], "these are of this leadership");
    assert!(early[..4].iter().all(|caller| world.error_of(*caller) == Some(ProposeError::NoLeader)));
    assert!(early[4..].iter().all(|caller| world.unanswered(*caller)), "nothing is known of entries 9 and 10");
    assert!(late.iter().all(|caller| world.unanswered(*caller)), "the state machine answers these");
    world.append(9, 4, 1);
    assert_eq!(world.commit(9, 4, 1), [(Index(9), 1)]);
    assert_eq!(world.error_of(early[4]), Some(ProposeError::NoLeader));
}

#[test]
fn a_caller_that_waits_too_long_learns_what_is_known() {
    let mut world = World::leaderless(1);
    let deferred = [world.offer("one"), world.offer("two")];
    let in_log = world.append(1, 1, 2);
    world.now = world.now.plus(world.timing().proposal_timeout);
    world.expire();
    assert!(deferred.iter().all(|caller| world.error_of(*caller) == Some(ProposeError::NoLeader)));
    assert!(in_log.iter().all(|caller| world.error_of(*caller) == Some(ProposeError::OutcomeUnknown)));
    assert!(world.proposals.is_empty());
}

#[test]
fn a_deferred_command_fails_with_its_own_deadline_or_for_want_of_a_leader() {
    let mut world = World::leaderless(1);
    let (soon, wait) = (world.now.plus(MS(1)), world.timing().leader_wait);
    let (late, full) = (world.offer_until("late", soon), world.offer("full"));
    world.now = soon;
    world.expire();
    assert_eq!(world.error_of(late), Some(ProposeError::DeadlinePassed));
    assert!(world.unanswered(full));
    world.now = world.now.plus(wait);
    world.view.routing.is_storage_full = true;
    world.expire();
    assert_eq!(world.error_of(full), Some(ProposeError::StorageFull));
}

#[test]
fn a_large_command_that_waits_too_long_was_never_started() {
    let mut world = World::leading(1);
    let large = "0".repeat(LARGE_BYTES);
    world.settings(|settings| settings.limits.max_batch_bytes = large.len());
    let until = world.now.plus(MS(1));
    let callers = [world.offer(&large), world.offer(&large), world.offer_until(&large, until)];
    assert_eq!(world.appended().len(), 1);
    world.now = until;
    world.expire();
    assert_eq!(world.error_of(callers[2]), Some(ProposeError::DeadlinePassed));
    world.now = Moment::default().plus(world.timing().proposal_timeout);
    world.expire();
    assert_eq!(world.error_of(callers[1]), Some(ProposeError::Overloaded { retry_after: MS(20) }));
    assert_eq!(world.error_of(callers[0]), Some(ProposeError::OutcomeUnknown), "it is in the log");
}

#[test]
fn large_commands_go_on_when_those_before_are_committed() {
    let mut world = World::leading(1);
    let large = "0".repeat(LARGE_BYTES);
    world.settings(|settings| settings.limits.max_batch_bytes = large.len());
    world.offer(&large);
    world.offer(&large);
    assert_eq!(world.appended().len(), 1);
    assert!(!world.proposals.is_large_due(Index(0)));
    assert!(world.proposals.is_large_due(Index(1)));
    world.view.commit = Index(1);
    world.event(|proposals, now, view, out| proposals.large_due(now, view, out));
    assert_eq!(world.appended().len(), 1);
    assert!(!world.proposals.is_large_due(Index(1)));
}

#[test]
fn after_a_change_of_leader_the_leader_before_may_answer_for_a_while() {
    let mut world = World::following(OTHER, 1);
    let before = world.offer("before");
    let in_log = world.append(1, 1, 1);
    world.follow(Some(THIRD), 2);
    world.event(|proposals, now, view, _| proposals.leader_changed(now, view));
    let after = world.offer("after");
    world.now = world.now.plus(world.timing().election_timeout.1 * 2);
    world.expire();
    assert_eq!(world.error_of(before), Some(ProposeError::OutcomeUnknown));
    assert_eq!(world.error_of(in_log[0]), Some(ProposeError::OutcomeUnknown));
    assert!(world.unanswered(after), "the present leader has it");
}

#[test]
fn a_lost_link_leaves_the_outcome_of_what_was_forwarded_over_it_unknown() {
    let mut world = World::following(OTHER, 1);
    let caller = world.offer("command");
    world.event(|proposals, _, _, out| proposals.peer_lost(THIRD, out));
    assert!(world.unanswered(caller));
    world.event(|proposals, _, _, out| proposals.peer_lost(OTHER, out));
    assert_eq!(world.error_of(caller), Some(ProposeError::OutcomeUnknown));
    assert!(world.proposals.is_empty());
}

#[test]
fn a_removed_node_refuses_what_it_deferred() {
    let mut world = World::leaderless(1);
    let (deferred, in_log) = (world.offer("deferred"), world.append(1, 1, 1));
    world.event(|proposals, _, view, out| proposals.removed(view, out));
    assert_eq!(world.error_of(deferred), Some(ProposeError::Stopped));
    assert!(world.unanswered(in_log[0]));
}

#[test]
fn a_caller_of_an_entry_that_a_snapshot_covers_learns_that_the_outcome_is_unknown() {
    let mut world = World::leading(1);
    let early = world.append(1, 1, 3);
    let across = world.append(4, 1, 4);
    let late = world.append(8, 1, 2);
    world.event(|proposals, _, view, out| proposals.covered(Index(5), view, out));
    let unknown = Some(ProposeError::OutcomeUnknown);
    assert!(early.iter().chain(&across[..2]).all(|caller| world.error_of(*caller) == unknown));
    assert!(across[2..].iter().chain(&late).all(|caller| world.unanswered(*caller)), "these still wait");
    assert_eq!(world.commit(6, 1, 4), [(Index(6), 2), (Index(8), 2)]);
}

/// A failure for good is not reported as worth another attempt, nor the reverse, and an unknown
/// outcome stays unknown.
#[test]
fn an_answer_keeps_its_meaning_on_its_way_to_the_node_that_forwarded() {
    use ProposeError::{DeadlinePassed, NoLeader, OutcomeUnknown, Overloaded, Skipped, Stopped, StorageFull, TooLarge};
    let retry_after = MS(20);
    // The error at the leader, and what the caller is told; nothing, if a leader is asked again
    // instead.
    let table = [
        (NoLeader, None),
        (StorageFull, None),
        (Stopped, None),
        (Overloaded { retry_after: MS(1_000) }, Some(Err(Overloaded { retry_after }))),
        (DeadlinePassed, None),
        (TooLarge { bytes: 7, max: 5 }, Some(Err(TooLarge { bytes: 7, max: 5 }))),
        (OutcomeUnknown, Some(Err(OutcomeUnknown))),
        (Skipped, Some(Ok(Err(Refusal::Skipped)))),
    ];
    for (error, told) in table {
        let mut world = World::following(OTHER, 1);
        let caller = world.offer("command");
        let request = world.sent_to(OTHER).commands[0].request;
        world.answer(OTHER, 1, request, in_reply(error));
        assert_eq!(world.told.get(&caller), told.as_ref(), "{error}");
        assert_eq!(world.proposals.is_empty(), told.is_some(), "{error}");
    }
}

#[test]
fn a_command_that_is_late_by_the_leaders_clock_alone_goes_there_again() {
    let timeout = World::following(OTHER, 1).timing().proposal_timeout;
    let deadline = timeout / 2;
    let of = |until: Option<Duration>, waited: Duration| {
        let mut world = World::following(OTHER, 1);
        let caller = match until {
            Some(until) => world.offer_until("command", world.now.plus(until)),
            None => world.offer("command"),
        };
        let request = world.sent_to(OTHER).commands[0].request;
        world.now = world.now.plus(waited);
        world.answer(OTHER, 1, request, ProposeOutcome::DeadlinePassed);
        let waits = world.sent_proposals().pop().map(|sent| sent.commands[0].waits_ms);
        (waits, world.error_of(caller))
    };
    assert_eq!(of(None, MS(1)), (Some(4_999), None), "it has no deadline");
    assert_eq!(of(None, timeout - MS(1)), (Some(1), None), "no caller waits longer");
    assert_eq!(of(Some(deadline), deadline - MS(1)), (Some(1), None));
    let (nearly, in_time) = (Duration::from_micros(999), Some(ProposeError::DeadlinePassed));
    assert_eq!(of(Some(deadline), deadline - nearly), (None, in_time), "it would have no time there");
    assert_eq!(of(Some(deadline), deadline), (None, in_time));
    let busy = Some(ProposeError::Overloaded { retry_after: MS(20) });
    for until in [None, Some(timeout * 2)] {
        assert_eq!(of(until, timeout - nearly), (None, busy), "a leader was there, and took it not");
        assert_eq!(of(until, timeout), (None, busy));
    }
}

#[test]
fn a_command_that_is_late_by_the_leaders_clock_ends_in_the_time_of_its_caller() {
    let mut world = World::following(OTHER, 1);
    let timing = world.timing();
    let caller = world.offer("command");
    world.now = world.now.plus(timing.proposal_timeout - MS(1));
    let request = world.sent_to(OTHER).commands[0].request;
    world.answer(OTHER, 1, request, ProposeOutcome::DeadlinePassed);
    let again = world.sent_to(OTHER).commands[0];
    assert_eq!(again.waits_ms, 1);
    world.now = world.now.plus(timing.heartbeat_interval * 2);
    world.expire();
    assert!(world.unanswered(caller), "the leader's refusal may be on its way");
    world.now = world.now.plus(MS(1));
    world.expire();
    assert_eq!(world.error_of(caller), Some(ProposeError::OutcomeUnknown), "it may have it");
    assert!(world.proposals.is_empty());
}

#[test]
fn an_answer_counts_once_and_from_the_leader_that_was_asked() {
    let mut world = World::following(OTHER, 1);
    let caller = world.offer("command");
    let request = world.sent_to(OTHER).commands[0].request;
    let applied = ProposeOutcome::Applied { index: Index(7), reply_bytes: 5 };
    world.answer(THIRD, 1, request, applied);
    assert!(world.unanswered(caller));
    world.answer(OTHER, 1, request, applied);
    assert_eq!(world.told[&caller], Ok(Ok(Applied { index: Index(7), reply: Bytes::from_static(b"reply") })));
    world.answer(OTHER, 1, request, ProposeOutcome::Unknown);
    assert!(world.told[&caller].is_ok());
}

#[test]
fn answers_to_another_node_share_messages_of_a_bounded_size() {
    let mut world = World::leading(1);
    world.settings(|settings| settings.limits.max_batch_bytes = 7);
    let answer = |node, request, reply: &'static [u8]| {
        let outcome = Ok(Applied { index: Index(request), reply: Bytes::from_static(reply) });
        Answer { node, request, outcome: Some(outcome) }
    };
    let expired = Answer { node: OTHER, request: 4, outcome: Some(Err(Refusal::Expired)) };
    let answers = vec![answer(OTHER, 1, b"four"), answer(THIRD, 2, b"five"), answer(OTHER, 3, b"4444"), expired];
    world.event(|proposals, _, view, out| proposals.applied(answers, view, out));
    let replies: Vec<_> = world.sent.iter().map(|sent| (sent.to, reply_of(&sent.message.body))).collect();
    let sizes: Vec<_> = replies.iter().map(|(to, reply)| (*to, reply.outcomes.len(), &reply.replies[..])).collect();
    assert_eq!(sizes, [(OTHER, 1, &b"four"[..]), (OTHER, 2, b"4444"), (THIRD, 1, b"five")]);
}

#[test]
fn the_log_proves_which_commands_of_an_earlier_term_were_never_appended() {
    let mut world = World::following(OTHER, 1);
    world.view.commit = Index(4);
    let callers = ["taken", "lost", "session"].map(|payload| world.offer(payload));
    world.follow(Some(OTHER), 2);
    let later = world.offer("later");
    world.follow(Some(THIRD), 2);
    world.event(|proposals, now, view, _| proposals.leader_changed(now, view));
    assert_eq!(world.proposals.stranded_after(Term(1)), None, "the log says nothing of its own term");
    assert_eq!(world.proposals.stranded_after(Term(2)), Some(Index(4)));
    let stamped = [&[7; STAMP_BYTES][..], b"session"].concat();
    let batches = [
        batch(5, 1, &[(Kind::Command, b"taken"), (Kind::Session, &stamped)]),
        // Of another term: no copy of what was forwarded in the first.
        batch(7, 2, &[(Kind::Noop, b""), (Kind::Command, b"lost")]),
    ];
    world.sent.clear();
    world.event(|proposals, now, view, out| proposals.decide_stranded(Term(2), &batches, now, view, out));
    assert_eq!(&world.sent_to(THIRD).payloads[..], b"lost", "it is forwarded again");
    assert_eq!(world.proposals.stranded_after(Term(2)), None, "the others were looked at");
    assert!(callers.iter().all(|caller| world.unanswered(*caller)));
    world.now = world.now.plus(world.timing().heartbeat_interval * 2);
    world.expire();
    let unknown = Some(ProposeError::OutcomeUnknown);
    let heard: Vec<_> = callers.iter().map(|caller| world.error_of(*caller)).collect();
    assert_eq!(heard, [unknown, None, unknown], "the answer of the old leader did not come");
    assert!(world.unanswered(later));
}

/// The entries of the second decision begin after the entry of the first command: they prove
/// nothing of it.
#[test]
fn a_command_that_was_found_in_the_log_is_not_forwarded_again_when_the_leader_changes_twice() {
    let mut world = World::following(OTHER, 1);
    world.view.commit = Index(4);
    let taken = world.offer("taken");
    world.follow(Some(THIRD), 2);
    world.event(|proposals, now, view, _| proposals.leader_changed(now, view));
    let batches = [batch(5, 1, &[(Kind::Command, b"taken")]), batch(6, 2, &[(Kind::Noop, b"")])];
    world.event(|proposals, now, view, out| proposals.decide_stranded(Term(2), &batches, now, view, out));
    world.view.commit = Index(6);
    let later = world.offer("later");
    world.follow(Some(OTHER), 3);
    world.event(|proposals, now, view, _| proposals.leader_changed(now, view));
    assert_eq!(world.proposals.stranded_after(Term(3)), Some(Index(6)), "the entry of the first is not read again");
    world.sent.clear();
    let batches = [batch(7, 3, &[(Kind::Noop, b"")])];
    world.event(|proposals, now, view, out| proposals.decide_stranded(Term(3), &batches, now, view, out));
    assert_eq!(&world.sent_to(OTHER).payloads[..], b"later");
    assert!(world.unanswered(taken) && world.unanswered(later));
}

#[test]
fn a_log_of_stubs_proves_nothing_of_forwarded_commands() {
    let mut world = World::following(OTHER, 1);
    let caller = world.offer("unseen");
    world.follow(Some(THIRD), 2);
    world.event(|proposals, now, view, _| proposals.leader_changed(now, view));
    let batches = [batch(5, 1, &[(Kind::Stub, &[0; 48])]), batch(6, 2, &[(Kind::Noop, b"")])];
    world.sent.clear();
    world.event(|proposals, now, view, out| proposals.decide_stranded(Term(2), &batches, now, view, out));
    assert!(world.is_quiet());
    world.now = world.now.plus(world.timing().heartbeat_interval * 2);
    world.expire();
    assert_eq!(world.error_of(caller), Some(ProposeError::OutcomeUnknown));
}

fn batch(first: u64, term: u64, entries: &[(Kind, &[u8])]) -> Batch {
    let mut batch = BatchBuilder::new(quorate_storage::checksum, Term(term), Index(first), 0, 64);
    entries.iter().for_each(|(kind, payload)| batch.push(*kind, payload));
    batch.finish().expect("a batch")
}

fn reply_of(body: &Body) -> ProposeReply {
    let Body::ProposeReply(reply) = body else { panic!("{body:?}") };
    reply.clone()
}

/// The commands of one node, and everything that was decided about them. Callers are numbers.
struct World {
    proposals: Proposals<u64, ()>,
    now: Moment,
    view: View,
    last_caller: u64,
    told: BTreeMap<u64, Result<Outcome, ProposeError>>,
    appended: Vec<Proposal<u64, ()>>,
    sent: Vec<Outgoing>,
    duplicates: Vec<NodeId>,
    /// The tick in front of each batch, and the time of stamps.
    tick: Option<Tick>,
    log_time: LogTime,
}

impl World {
    fn leaderless(term: u64) -> Self {
        Self::new(0, term)
    }

    fn following(leader: NodeId, term: u64) -> Self {
        let mut world = Self::new(0, term);
        world.follow(Some(leader), term);
        world
    }

    fn leading(term: u64) -> Self {
        let mut world = Self::new(0, term);
        (world.view.routing.is_leader, world.view.routing.known_leader) = (true, Some(THIS));
        world
    }

    /// It restarted with this term, and leads the next.
    fn recovered_in(term: u64) -> Self {
        let mut world = Self::new(term, term + 1);
        (world.view.routing.is_leader, world.view.routing.known_leader) = (true, Some(THIS));
        world
    }

    fn new(recovered_in: u64, term: u64) -> Self {
        let timing = Timing::default().resolved();
        let settings = Settings { timing, limits: Limits::default(), sessions: Sessions::default() };
        let routing = routing::View {
            is_leader: false,
            term: Term(term),
            known_leader: None,
            leader: None,
            is_stopping: false,
            holds_proposals: false,
            is_storage_full: false,
            halted_at: None,
            is_alone: false,
        };
        Self {
            proposals: Proposals::new(1, Term(recovered_in), settings),
            now: Moment::default(),
            view: View { routing, last_log: Index(0), commit: Index(0) },
            last_caller: 0,
            told: BTreeMap::new(),
            appended: Vec::new(),
            sent: Vec::new(),
            duplicates: Vec::new(),
            tick: None,
            log_time: LogTime(0),
        }
    }

    fn follow(&mut self, leader: Option<NodeId>, term: u64) {
        let routing = &mut self.view.routing;
        (routing.is_leader, routing.known_leader, routing.leader) = (false, leader, leader);
        routing.term = Term(term);
    }

    fn timing(&self) -> Timing {
        self.proposals.settings.timing
    }

    fn settings(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.proposals.settings);
    }

    /// Lets an event happen, and records its effects.
    fn event(&mut self, event: impl FnOnce(&mut Proposals<u64, ()>, Moment, &View, &mut Vec<Effect<u64, ()>>)) {
        let mut out = Vec::new();
        event(&mut self.proposals, self.now, &self.view, &mut out);
        for effect in out {
            match effect {
                Effect::Append(commands) => self.appended.extend(commands),
                Effect::Send(outgoing) => self.sent.push(outgoing),
                Effect::Answer { waiter, outcome } => {
                    assert!(self.told.insert(waiter, outcome).is_none(), "caller {waiter} was told twice");
                }
                Effect::Duplicate { from } => self.duplicates.push(from),
            }
        }
    }

    fn proposal(&mut self, payload: &str, until: Option<Moment>) -> Proposal<u64, ()> {
        self.last_caller += 1;
        let caller = Caller::Here { asked: self.now, waiter: self.last_caller };
        Proposal { kind: Kind::Command, payload: Bytes::copy_from_slice(payload.as_bytes()), caller, until }
    }

    /// A caller of this node proposes a command; gives the caller.
    fn offer(&mut self, payload: &str) -> u64 {
        let proposal = self.proposal(payload, None);
        self.event(|proposals, now, view, out| proposals.offered(vec![proposal], now, view, out));
        self.last_caller
    }

    fn offer_until(&mut self, payload: &str, until: Moment) -> u64 {
        let proposal = self.proposal(payload, Some(until));
        self.event(|proposals, now, view, out| proposals.offered(vec![proposal], now, view, out));
        self.last_caller
    }

    /// Another node forwards commands; gives the refusals.
    fn arrive(
        &mut self,
        (from, term, is_outside): (NodeId, u64, bool),
        requests: &[(u64, &[u8])],
        has_room: bool,
    ) -> Vec<(NodeId, ProposeOutcome)> {
        let command = |(request, payload): &(u64, &[u8])| ForwardedCommand {
            request: *request,
            length: u32::try_from(payload.len()).expect("it fits"),
            kind: Kind::Command,
            waits_ms: 1_000,
        };
        let payloads = requests.iter().flat_map(|(_, payload)| payload.iter().copied()).collect();
        let propose = Propose { commands: requests.iter().map(command).collect(), payloads };
        self.sent.clear();
        self.event(|proposals, now, view, out| {
            let admit = |_| has_room.then_some(());
            proposals.arrived((from, Term(term), is_outside), propose, admit, now, view, out);
        });
        let replies = self.sent.iter().map(|sent| (sent.to, reply_of(&sent.message.body)));
        replies.flat_map(|(to, reply)| reply.outcomes.into_iter().map(move |one| (to, one.outcome))).collect()
    }

    /// The leader answers a forwarded command.
    fn answer(&mut self, from: NodeId, term: u64, request: u64, outcome: ProposeOutcome) {
        self.sent.clear();
        let outcomes = vec![ForwardedOutcome { request, outcome }];
        let reply = ProposeReply { outcomes, replies: Bytes::from_static(b"reply") };
        self.event(|proposals, now, view, out| {
            proposals.answered((from, Term(term)), reply, MS(20), now, view, out);
        });
    }

    fn expire(&mut self) {
        self.event(|proposals, now, view, out| proposals.expire(MS(20), now, view, out));
    }

    /// Lays out the commands that are to be appended, at the end of the log.
    fn batches(&mut self) -> Vec<Batch> {
        let mut commands = std::mem::take(&mut self.appended).into_iter().peekable();
        let mut batches: Vec<Batch> = Vec::new();
        while commands.peek().is_some() {
            let (term, first) = (self.view.routing.term, self.view.last_log.next());
            let builder = |capacity| Some(BatchBuilder::new(quorate_storage::checksum, term, first, 0, capacity));
            let laid_out =
                self.proposals.lay_out(&mut commands, builder, (self.tick, self.log_time), self.now).expect("a batch");
            self.view.last_log = laid_out.batch.last();
            batches.push(laid_out.batch);
        }
        batches
    }

    /// The payloads that are to be appended, and are now.
    fn appended(&mut self) -> Vec<String> {
        let batches = self.batches();
        let payloads = batches.iter().flat_map(Batch::records).map(|record| record.payload.to_vec());
        payloads.map(|payload| String::from_utf8(payload).expect("text")).collect()
    }

    fn append(&mut self, first: u64, term: u64, count: u64) -> Vec<u64> {
        let callers: Vec<_> = (0..count).map(|_| self.proposal("", None).caller).collect();
        self.proposals.appended(Index(first), Term(term), callers, self.now);
        (self.last_caller - count + 1..=self.last_caller).collect()
    }

    /// Commits `count` entries of one term; gives the indexes at which callers wait,
    /// and their numbers.
    fn commit(&mut self, first: u64, term: u64, count: u64) -> Vec<(Index, usize)> {
        let entries = vec![(Kind::Command, &b""[..]); usize::try_from(count).expect("a few")];
        let (batch, mut taken) = (batch(first, term, &entries), Vec::new());
        self.event(|proposals, _, _, out| taken = proposals.committed(&batch, out));
        taken.iter().map(|callers| (callers.first, callers.callers.len())).collect()
    }

    fn error_of(&self, caller: u64) -> Option<ProposeError> {
        self.told.get(&caller)?.as_ref().err().copied()
    }

    fn unanswered(&self, caller: u64) -> bool {
        !self.told.contains_key(&caller)
    }

    fn sent_proposals(&self) -> Vec<Propose> {
        let propose = |sent: &Outgoing| match &sent.message.body {
            Body::Propose(propose) => Some(propose.clone()),
            _ => None,
        };
        self.sent.iter().filter_map(propose).collect()
    }

    /// The last commands that were forwarded, to this node.
    fn sent_to(&self, node: NodeId) -> Propose {
        assert_eq!(self.last_receiver(), Some(node));
        self.sent_proposals().pop().expect("commands")
    }

    fn last_receiver(&self) -> Option<NodeId> {
        self.sent.last().map(|sent| sent.to)
    }

    /// Whether nothing was sent or is to be appended.
    fn is_quiet(&self) -> bool {
        self.sent.is_empty() && self.appended.is_empty()
    }
}
