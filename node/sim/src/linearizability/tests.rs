//! Histories that can be judged by hand, the explanations of the illegal ones, and the cost
//! of large ones.

use super::{
    Call, Explanation, KEYS_MAX, Operation, Outcome, Reply, STEPS_MAX, Txn, Values, Verdict,
    brute_force::{Random, Shape},
    by_group, check,
    problem::Problem,
    search::{Answer, decide},
};
use std::ops::Range;

#[test]
fn nothing_at_all_is_fine() {
    assert_fine(&[]);
}

#[test]
fn a_read_sees_the_last_completed_write() {
    assert_fine(&[write(1, 7, 0..9), read(2, Some(7), 10..19)]);
}

#[test]
fn a_stale_read_after_a_completed_write_is_caught() {
    assert_violated(&[write(1, 7, 0..9), write(1, 8, 10..19), read(2, Some(7), 20..29)]);
    assert_violated(&[write(1, 7, 0..9), read(2, None, 10..19)]);
}

#[test]
fn a_read_during_a_write_sees_the_old_value_or_the_new() {
    for seen in [7, 8] {
        assert_fine(&[write(1, 7, 0..9), write(1, 8, 10..29), read(2, Some(seen), 15..19)]);
    }
}

#[test]
fn a_read_of_a_value_never_written_is_caught() {
    let explanation = assert_violated(&[write(1, 7, 0..9), read(2, Some(8), 0..9)]);
    assert_eq!(explanation.core, [read(2, Some(8), 0..9)]);
}

#[test]
fn a_read_of_a_value_written_only_later_is_caught() {
    assert_violated(&[read(2, Some(7), 0..9), write(1, 7, 10..19)]);
}

#[test]
fn a_read_that_goes_back_in_time_across_two_clients_is_caught() {
    let write = write(1, 7, 0..99);
    assert_violated(&[write, read(2, Some(7), 10..19), read(3, None, 20..29)]);
    assert_fine(&[write, read(2, Some(7), 10..20), read(3, None, 20..29)]);
    assert_fine(&[write, read(2, None, 10..19), read(3, Some(7), 20..29)]);
}

#[test]
fn concurrent_writes_come_in_any_order_but_in_one() {
    let writes = [write(1, 1, 0..9), write(2, 2, 0..9), write(3, 3, 0..9)];
    for last in [1, 2, 3] {
        assert_fine(&[&writes[..], &[read(4, Some(last), 10..19), read(5, Some(last), 10..19)]].concat());
    }
    assert_violated(&[&writes[..], &[read(4, Some(1), 10..19), read(5, Some(2), 10..19)]].concat());
}

#[test]
fn a_lost_update_by_two_successful_cas_is_caught() {
    let explanation = assert_violated(&[
        write(1, 1, 0..9),
        cas(2, Some(1), 2, true, 10..29),
        cas(3, Some(1), 3, true, 10..29),
        read(4, Some(3), 30..39),
    ]);
    assert_eq!(explanation.core.len(), 3, "the read is not to blame\n{explanation}");
}

#[test]
fn two_successful_cas_from_one_value_are_fine_if_it_was_written_twice() {
    let history = [write(1, 1, 0..9), cas(2, Some(1), 2, true, 10..49), cas(3, Some(1), 3, true, 10..49)];
    assert_fine(&[&history[..], &[write(4, 1, 20..29)]].concat());
}

#[test]
fn a_cas_that_did_not_swap_needs_another_value_to_blame() {
    assert_fine(&[write(1, 1, 0..9), write(2, 2, 10..19), cas(3, Some(1), 3, false, 10..19)]);
    assert_violated(&[write(1, 1, 0..9), cas(3, Some(1), 3, false, 10..19)]);
    assert_violated(&[cas(3, None, 3, false, 10..19)]);
}

#[test]
fn a_cas_that_did_not_swap_leaves_no_trace() {
    assert_violated(&[write(1, 1, 0..9), cas(2, Some(5), 2, false, 10..19), read(3, Some(2), 20..29)]);
}

#[test]
fn a_delete_makes_the_key_absent() {
    let deleted = [write(1, 1, 0..9), delete(1, true, 10..19)];
    assert_fine(&[&deleted[..], &[read(2, None, 20..29), delete(2, false, 30..39)]].concat());
    assert_fine(&[&deleted[..], &[cas(2, None, 5, true, 20..29), read(2, Some(5), 30..39)]].concat());
    assert_violated(&[&deleted[..], &[read(2, Some(1), 20..29)]].concat());
}

#[test]
fn two_deletes_of_one_value_do_not_both_find_it() {
    assert_violated(&[write(1, 1, 0..9), delete(2, true, 10..19), delete(3, true, 10..19)]);
    assert_fine(&[write(1, 1, 0..9), delete(2, true, 10..19), delete(3, false, 10..19)]);
}

#[test]
fn an_unknown_write_may_never_take_effect() {
    assert_fine(&[write(1, 1, 0..9), unknown(2, Call::Write(2), 10), read(3, Some(1), 90..99)]);
}

#[test]
fn an_unknown_write_may_take_effect_long_afterwards() {
    let history = [unknown(2, Call::Write(2), 5), write(1, 1, 10..19), read(3, Some(1), 20..29)];
    assert_fine(&[&history[..], &[read(3, Some(2), 80..89)]].concat());
}

#[test]
fn an_unknown_write_does_not_take_effect_before_its_invocation() {
    assert_violated(&[read(3, Some(2), 0..9), unknown(2, Call::Write(2), 10)]);
}

#[test]
fn an_unknown_write_does_not_take_effect_twice() {
    let reads = [read(3, Some(2), 20..29), write(1, 1, 30..39), read(3, Some(2), 40..49)];
    let explanation = assert_violated(&[&[unknown(2, Call::Write(2), 5)], &reads[..]].concat());
    assert!(explanation.core.contains(&unknown(2, Call::Write(2), 5)), "its maker is shown\n{explanation}");
    assert_fine(&[&[unknown(2, Call::Write(2), 5), unknown(4, Call::Write(2), 6)], &reads[..]].concat());
}

#[test]
fn an_unknown_cas_takes_effect_only_where_it_finds_what_it_expects() {
    let cas = unknown(2, Call::Cas { expect: Some(1), new: 2 }, 0);
    assert_fine(&[cas, write(1, 1, 0..9), read(3, Some(1), 10..19), read(3, Some(2), 20..29)]);
    assert_violated(&[cas, write(1, 5, 0..9), read(3, Some(2), 20..29)]);
}

#[test]
fn unknown_cas_form_a_chain_in_any_order_of_invocation() {
    let link = |client, expect| unknown(client, Call::Cas { expect: Some(expect), new: expect + 1 }, 10 - expect);
    assert_fine(&[write(1, 1, 0..5), link(2, 3), link(3, 2), link(4, 1), read(5, Some(4), 20..29)]);
    assert_violated(&[write(1, 1, 0..5), link(2, 3), link(4, 1), read(5, Some(4), 20..29)]);
}

#[test]
fn an_unknown_delete_explains_an_absent_key_once() {
    let deleted = [write(1, 1, 0..9), unknown(2, Call::Delete, 5), read(3, None, 20..29), write(1, 2, 30..39)];
    assert_fine(&deleted);
    assert_violated(&[&deleted[..], &[read(3, None, 40..49)]].concat());
}

#[test]
fn a_definite_failure_that_shows_is_caught_and_named() {
    let failed = Operation { outcome: Outcome::Failed, ..unknown(2, Call::Write(2), 10) };
    assert_fine(&[write(1, 1, 0..9), failed, read(3, Some(1), 20..29)]);
    let explanation = assert_violated(&[write(1, 1, 0..9), failed, read(3, Some(2), 20..29)]);
    assert_eq!(explanation.failed, [failed]);
    assert!(explanation.to_string().contains("client 2 [10..] key 0 write 2: failed"), "{explanation}");
}

#[test]
fn a_failure_is_not_named_if_somebody_else_wrote_the_value() {
    let failed = Operation { outcome: Outcome::Failed, ..unknown(2, Call::Write(1), 10) };
    let explanation = assert_violated(&[write(1, 1, 0..9), failed, write(1, 2, 20..29), read(3, Some(1), 30..39)]);
    assert_eq!(explanation.failed, []);
}

#[test]
fn a_response_and_an_invocation_at_the_same_stamp_are_concurrent() {
    assert_fine(&[write(1, 1, 0..10), read(2, None, 10..20)]);
    assert_violated(&[write(1, 1, 0..9), read(2, None, 10..20)]);
}

#[test]
fn a_response_before_its_invocation_is_caught() {
    let explanation = assert_violated(&[write(1, 1, Range { start: 10, end: 9 })]);
    assert!(explanation.to_string().contains("it ended before it began"), "{explanation}");
}

#[test]
fn a_reply_of_another_calls_kind_is_caught() {
    assert_violated(&[completed(1, Call::Read, Reply::Written, 0..9)]);
}

#[test]
fn what_the_key_held_before_counts() {
    let read = [read(1, Some(7), 0..9)];
    assert_eq!(check(&read, [Some(7), None, None], STEPS_MAX), Verdict::Linearizable);
    assert!(matches!(check(&read, [Some(8), Some(7), None], STEPS_MAX), Verdict::Violated(_)));
}

#[test]
fn a_listing_sees_all_of_a_transaction_or_nothing_of_it() {
    let txn = txn(1, [None; KEYS_MAX], [Some(Some(1)), Some(Some(1)), None], true, 0..20);
    for (seen, is_legal) in [
        ([None, None, None], true),
        ([Some(1), Some(1), None], true),
        ([Some(1), None, None], false),
        ([None, Some(1), None], false),
    ] {
        let during = [txn, list(2, seen, 10..15)];
        let unknown = [Operation { outcome: Outcome::Unknown, ..txn }, list(2, seen, 10..15)];
        for history in [during, unknown] {
            let verdict = check(&history, NOTHING, STEPS_MAX);
            assert_eq!(verdict == Verdict::Linearizable, is_legal, "{seen:?}: {verdict:?}");
        }
    }
    assert_violated(&[txn, list(2, NOTHING, 21..25)]);
}

/// Of each key alone, this history is linearizable.
#[test]
fn a_listing_of_two_states_is_caught_and_told() {
    let writes = [write(1, 1, 0..9), on(1, write(1, 2, 10..19))];
    for seen in [[None, None, None], [Some(1), None, None], [Some(1), Some(2), None]] {
        assert_fine(&[&writes[..], &[list(2, seen, 0..19)]].concat());
    }
    let mixed = list(2, [None, Some(2), None], 0..19);
    let explanation = assert_violated(&[&writes[..], &[mixed]].concat());
    assert_eq!(explanation.core.len(), 3, "{explanation}");
    assert!(explanation.to_string().contains("client 2 [0..19] list: key 1 holds 2"), "{explanation}");
    assert_fine(&[&writes[..], &[on(0, read(2, None, 0..19)), on(1, read(2, Some(2), 0..19))]].concat());
}

#[test]
fn a_transaction_is_executed_only_if_all_keys_are_as_expected() {
    let (compare, change) = ([Some(Some(1)), Some(None), None], [None, Some(Some(2)), Some(None)]);
    let before = [write(1, 1, 0..9), on(2, write(1, 3, 0..9))];
    let done = txn(2, compare, change, true, 10..19);
    assert_fine(&[&before[..], &[done, list(3, [Some(1), Some(2), None], 20..29)]].concat());
    assert_violated(&[&before[..], &[done, list(3, [Some(1), Some(2), Some(3)], 20..29)]].concat());
    let refused = txn(2, compare, change, false, 10..19);
    assert_violated(&[&before[..], &[refused]].concat());
    for other in [write(1, 5, 5..15), on(1, write(1, 5, 5..15))] {
        assert_fine(&[&before[..], &[refused, other]].concat());
    }
    assert_violated(&[&before[..], &[refused, on(2, write(1, 5, 5..15))]].concat());
}

#[test]
fn a_listing_may_need_several_writes_of_unknown_outcome() {
    let maybe = |key, value| on(key, unknown(1 + value, Call::Write(value), 0));
    let writes = [maybe(0, 1), maybe(1, 2), maybe(2, 3)];
    assert_fine(&[&writes[..], &[list(9, [Some(1), Some(2), Some(3)], 10..19)]].concat());
    assert_fine(&[&writes[..], &[list(9, [None, Some(2), Some(3)], 10..19)]].concat());
    assert_violated(&[&writes[..2], &[list(9, [None, Some(2), Some(3)], 10..19)]].concat());
}

/// The transaction of unknown outcome comes before the write that overwrites one half of it.
#[test]
fn a_half_of_an_unknown_transaction_may_be_overwritten_and_the_other_be_seen() {
    let maybe = Operation {
        outcome: Outcome::Unknown,
        ..txn(1, [None; KEYS_MAX], [Some(Some(1)), Some(Some(1)), None], true, 0..0)
    };
    assert_fine(&[maybe, write(2, 2, 10..19), list(3, [Some(2), Some(1), None], 20..29)]);
    assert_violated(&[maybe, write(2, 2, 10..19), list(3, [None, Some(1), None], 20..29)]);
}

#[test]
fn a_map_with_a_fault_is_found_out_and_one_without_is_not() {
    for fault in [None, Some(Fault::TornTxn), Some(Fault::MixedList)] {
        let histories = (0..100).map(|seed| of_map(fault, &mut Random(seed)));
        let illegal = histories.filter(|history| check(history, NOTHING, STEPS_MAX) != Verdict::Linearizable).count();
        match fault {
            None => assert_eq!(illegal, 0),
            Some(fault) => assert!(illegal > 20, "{fault:?}: {illegal} of 100 histories are illegal"),
        }
    }
}

/// A bug of a map with several keys: the call takes effect in two steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    TornTxn,
    MixedList,
}

/// The history of four clients of a map, each with one operation under way.
fn of_map(fault: Option<Fault>, random: &mut Random) -> Vec<Operation> {
    let (mut clients, mut held) = ([const { None::<(Operation, Values)> }; 4], NOTHING);
    let mut history = Vec::new();
    for stamp in 0..400 {
        let client = random.below(4);
        let value = Some(stamp);
        let Some((mut operation, seen)) = clients[client as usize].take() else {
            let call = match random.below(3) {
                0 => Call::List,
                1 => Call::Txn(Txn { change: [Some(value), Some(value), None], ..Txn::default() }),
                _ => Call::Write(stamp),
            };
            // The first step of a call that has two.
            let seen = held;
            if let (Call::Txn(txn), Some(Fault::TornTxn)) = (call, fault) {
                held[0] = txn.change[0].flatten();
            }
            let operation = Operation { key: random.below(2) as usize, ..unknown(client, call, stamp) };
            clients[client as usize] = Some((operation, seen));
            continue;
        };
        let reply = match operation.call {
            Call::List if fault == Some(Fault::MixedList) => Reply::Listed([seen[0], held[1], None]),
            Call::List => Reply::Listed(held),
            Call::Txn(txn) if fault == Some(Fault::TornTxn) => {
                held[1] = txn.change[1].flatten();
                Reply::Succeeded(true)
            }
            Call::Txn(txn) => {
                held = txn.change.map(Option::flatten);
                Reply::Succeeded(true)
            }
            _ => {
                held[operation.key] = made_value(&operation);
                Reply::Written
            }
        };
        operation.outcome = Outcome::Completed { at: stamp, reply };
        history.push(operation);
    }
    history
}

#[test]
fn groups_are_parted_and_their_operations_keep_their_order() {
    let (a, b, c) = (write(1, 1, 0..9), write(2, 2, 5..6), read(1, Some(1), 10..19));
    let groups = by_group([("x", a), ("y", b), ("x", c)]);
    assert_eq!(groups.into_iter().collect::<Vec<_>>(), [("x", vec![a, c]), ("y", vec![b])]);
}

#[test]
fn without_steps_the_answer_is_undecided() {
    let history = [write(1, 1, 0..9), write(2, 2, 0..9), read(3, Some(1), 10..19)];
    assert_eq!(check(&history, NOTHING, 0), Verdict::Undecided);
}

#[test]
fn an_explanation_reads_like_a_story() {
    let history = [write(1, 1, 0..9), write(2, 5, 10..19), write(1, 2, 20..29), read(3, Some(1), 30..39)];
    let explanation = assert_violated(&history);
    let story = "not linearizable: 3 of 4 operations contradict each other
  client 1 [0..9] key 0 write 1: written
  client 1 [20..29] key 0 write 2: written
  client 3 [30..39] key 0 read: value 1
the longest order found:
  client 1 [0..9] key 0 write 1: written
  client 1 [20..29] key 0 write 2: written
then key 0 holds 2, and one of these must come next:
  client 3 [30..39] key 0 read: value 1; but the answer would be: value 2
";
    // Either of the two later writes is enough of a contradiction.
    let other =
        story.replace("client 1 [20..29] key 0 write 2", "client 2 [10..19] key 0 write 5").replace("2, and", "5, and");
    let other = other.replace("value 2", "value 5");
    let told = explanation.to_string();
    assert!(told == story || told == other, "{told}");
}

#[test]
fn a_stale_read_among_two_thousand_operations_is_told_in_a_few_lines() {
    let mut history = mostly_sequential().history(&mut Random(7));
    history.sort_by_key(|operation| operation.invoked);
    let is_write = |operation: &&Operation| matches!(operation.call, Call::Write(_)) && operation.responded().is_some();
    let early = history.iter().find(is_write).and_then(made_value);
    let late = history
        .iter_mut()
        .rev()
        .find(|operation| matches!(operation.outcome, Outcome::Completed { .. } if operation.call == Call::Read));
    if let Some(Operation { outcome: Outcome::Completed { reply, .. }, .. }) = late {
        *reply = Reply::Value(early);
    }
    let explanation = assert_violated(&history);
    assert_eq!(explanation.history_len, 2_000);
    assert!(explanation.core.len() <= 4, "{explanation}");
}

#[test]
fn large_histories_take_a_few_looks_at_each_operation() {
    let crowded = Shape { duration: 1_000, ..mostly_sequential() };
    let full = Shape { duration: 5_000, only_reads_and_writes: true, ..mostly_sequential() };
    let grouped = Shape { keys: 2, ..mostly_sequential() };
    for (shape, looks_max) in [(mostly_sequential(), 10), (crowded, 500), (full, 500), (grouped, 100)] {
        for seed in 0..10 {
            let history = shape.history(&mut Random(seed));
            let (answer, steps) = searched(&history);
            assert_eq!(answer, Answer::Found);
            assert!(steps <= looks_max * history.len() as u64, "{steps} steps for {} operations", history.len());
        }
    }
}

#[test]
fn unknown_writes_that_nobody_reads_do_not_multiply_the_search() {
    // A failing cas that only the unknown writes can explain to the search; then a stale read.
    let mut history: Vec<Operation> = (0..40).map(|client| unknown(client, Call::Write(100 + client), 0)).collect();
    for round in 0..30 {
        let begin = 10 * round;
        history.push(write(50, 1, begin..begin + 1));
        history.push(cas(51, Some(1), 3, false, begin + 2..begin + 3));
    }
    let (answer, steps) = searched(&history);
    assert_eq!(answer, Answer::Found);
    assert!(steps < 10_000, "{steps} steps");
    history.push(read(52, Some(7), 990..999));
    history.push(unknown(53, Call::Write(7), 1_000));
    let (answer, steps) = searched(&history);
    assert_eq!(answer, Answer::Impossible);
    assert!(steps < 100_000, "{steps} steps");
}

fn searched(history: &[Operation]) -> (Answer, u64) {
    decide(&Problem::new(history, NOTHING), STEPS_MAX)
}

/// One or two operations at a time, each value written once, a few dozen unknown.
fn mostly_sequential() -> Shape {
    Shape {
        operations: 2_000,
        values: 5,
        stamps: 200_000,
        duration: 150,
        unknown_percent: 2,
        only_reads_and_writes: false,
        unique: true,
        keys: 1,
        initial: NOTHING,
    }
}

fn made_value(operation: &Operation) -> Option<u64> {
    match operation.call {
        Call::Write(value) => Some(value),
        Call::Read | Call::Cas { .. } | Call::Delete | Call::List | Call::Txn(_) => None,
    }
}

/// Before the first operation.
const NOTHING: Values = [None; KEYS_MAX];

#[track_caller]
fn assert_fine(history: &[Operation]) {
    assert_eq!(check(history, NOTHING, STEPS_MAX), Verdict::Linearizable);
}

#[track_caller]
fn assert_violated(history: &[Operation]) -> Explanation {
    match check(history, NOTHING, STEPS_MAX) {
        Verdict::Violated(explanation) => *explanation,
        verdict @ (Verdict::Linearizable | Verdict::Undecided) => panic!("{verdict:?}"),
    }
}

fn write(client: u64, value: u64, when: Range<u64>) -> Operation {
    completed(client, Call::Write(value), Reply::Written, when)
}

fn read(client: u64, value: Option<u64>, when: Range<u64>) -> Operation {
    completed(client, Call::Read, Reply::Value(value), when)
}

fn cas(client: u64, expect: Option<u64>, new: u64, swapped: bool, when: Range<u64>) -> Operation {
    completed(client, Call::Cas { expect, new }, Reply::Swapped(swapped), when)
}

fn delete(client: u64, existed: bool, when: Range<u64>) -> Operation {
    completed(client, Call::Delete, Reply::Existed(existed), when)
}

fn list(client: u64, seen: Values, when: Range<u64>) -> Operation {
    completed(client, Call::List, Reply::Listed(seen), when)
}

type OfKeys = [Option<Option<u64>>; KEYS_MAX];

fn txn(client: u64, compare: OfKeys, change: OfKeys, succeeded: bool, when: Range<u64>) -> Operation {
    completed(client, Call::Txn(Txn { compare, change }), Reply::Succeeded(succeeded), when)
}

/// The same operation on another key.
fn on(key: usize, operation: Operation) -> Operation {
    Operation { key, ..operation }
}

fn completed(client: u64, call: Call, reply: Reply, when: Range<u64>) -> Operation {
    Operation { client, key: 0, call, invoked: when.start, outcome: Outcome::Completed { at: when.end, reply } }
}

fn unknown(client: u64, call: Call, invoked: u64) -> Operation {
    Operation { client, key: 0, call, invoked, outcome: Outcome::Unknown }
}
