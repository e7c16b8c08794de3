//! Histories that can be judged by hand, the explanations of the illegal ones, and the cost
//! of large ones.

use super::{
    Call, Explanation, Operation, Outcome, Reply, STEPS_MAX, Verdict,
    brute_force::{Random, Shape},
    by_key, check,
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
    assert!(explanation.to_string().contains("client 2 [10..] write 2: failed"), "{explanation}");
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
    assert_eq!(check(&read, Some(7), STEPS_MAX), Verdict::Linearizable);
    assert!(matches!(check(&read, Some(8), STEPS_MAX), Verdict::Violated(_)));
}

#[test]
fn keys_are_parted_and_their_operations_keep_their_order() {
    let (a, b, c) = (write(1, 1, 0..9), write(2, 2, 5..6), read(1, Some(1), 10..19));
    let keys = by_key([("x", a), ("y", b), ("x", c)]);
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), [("x", vec![a, c]), ("y", vec![b])]);
}

#[test]
fn without_steps_the_answer_is_undecided() {
    let history = [write(1, 1, 0..9), write(2, 2, 0..9), read(3, Some(1), 10..19)];
    assert_eq!(check(&history, None, 0), Verdict::Undecided);
}

#[test]
fn an_explanation_reads_like_a_story() {
    let history = [write(1, 1, 0..9), write(2, 5, 10..19), write(1, 2, 20..29), read(3, Some(1), 30..39)];
    let explanation = assert_violated(&history);
    let story = "not linearizable: 3 of 4 operations contradict each other
  client 1 [0..9] write 1: written
  client 1 [20..29] write 2: written
  client 3 [30..39] read: value 1
the longest order found:
  client 1 [0..9] write 1: written
  client 1 [20..29] write 2: written
then the key holds 2, and one of these must come next:
  client 3 [30..39] read: value 1; but the answer would be: value 2
";
    // Either of the two later writes is enough of a contradiction.
    let other = story.replace("client 1 [20..29] write 2", "client 2 [10..19] write 5").replace("2, and", "5, and");
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
    for (shape, looks_max) in [(mostly_sequential(), 10), (crowded, 500), (full, 500)] {
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
    decide(&Problem::new(history, None), STEPS_MAX)
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
        initial: None,
    }
}

fn made_value(operation: &Operation) -> Option<u64> {
    match operation.call {
        Call::Write(value) => Some(value),
        Call::Read | Call::Cas { .. } | Call::Delete => None,
    }
}

#[track_caller]
fn assert_fine(history: &[Operation]) {
    assert_eq!(check(history, None, STEPS_MAX), Verdict::Linearizable);
}

#[track_caller]
fn assert_violated(history: &[Operation]) -> Explanation {
    match check(history, None, STEPS_MAX) {
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

fn completed(client: u64, call: Call, reply: Reply, when: Range<u64>) -> Operation {
    Operation { client, call, invoked: when.start, outcome: Outcome::Completed { at: when.end, reply } }
}

fn unknown(client: u64, call: Call, invoked: u64) -> Operation {
    Operation { client, call, invoked, outcome: Outcome::Unknown }
}
