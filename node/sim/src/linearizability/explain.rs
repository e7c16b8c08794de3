//! The explanation of a violation: the history reduced to the few operations that contradict each
//! other, and their report.
//!
//! Operations are never simply dropped: a read without its write would fail for a reason that the
//! history never had. They are *forgiven* instead: a forgiven operation counts as one of unknown
//! outcome, which may be placed anywhere after its invocation or be left out. That only makes a
//! history easier, so a forgiven history that fails shows a fault of the whole one, too. The rest
//! is the core: operations that contradict each other regardless of all others.

use std::{collections::BTreeSet, fmt};

use super::{
    history::{Call, KEYS_MAX, Operation, Outcome, Reply, State, Txn, Values},
    problem::Problem,
    search::{Answer, decide, furthest},
};

/// The reason why a history is not linearizable. Its `Display` is a report of several lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Operations that already contradict each other, by invocation, with those that may have made
    /// a value that they name. The contradiction stays even if all other operations took effect at
    /// any time after their invocation, or never. Small, but not always the smallest.
    pub core: Vec<Operation>,
    /// The longest order of core operations that was found.
    pub placed: Vec<Operation>,
    /// The values of the keys after `placed`.
    pub holds: Values,
    /// Completed operations, one of which would have to come next in that order.
    pub next: Vec<Operation>,
    /// Operations that definitely failed, though the core names a value that no
    /// other operation made.
    pub failed: Vec<Operation>,
    /// The number of operations in the whole history.
    pub history_len: usize,
}

/// Explains a history that is not linearizable, with at most about `steps_max` steps.
pub(super) fn explain(history: &[Operation], initial: Values, steps_max: u64) -> Explanation {
    let mut shrinker = Shrinker { history: history.to_vec(), initial, steps_left: steps_max };
    shrinker.forgive_what_ended_late();
    shrinker.forgive_all_but_writes();
    shrinker.forgive_by_kind();

    let forgiven = shrinker.history;
    let problem = Problem::new(&forgiven, initial);
    let furthest = furthest(&problem, steps_max.min(EXPLAIN_STEPS_MAX));
    let originals = |positions: &[usize]| positions.iter().map(|&position| history[position]).collect::<Vec<_>>();
    let placed = originals(&furthest.placed);

    let is_strict = |position: &usize| forgiven[*position].responded().is_some();
    let strict: BTreeSet<usize> = (0..history.len()).filter(is_strict).collect();
    let named: Vec<_> = strict.iter().flat_map(|&position| named(&history[position])).collect();
    let makes =
        |operation: &Operation| made(operation).into_iter().filter(|made| named.contains(made)).collect::<Vec<_>>();
    let is_in_core = |position: &usize| {
        let operation = &history[*position];
        let is_maker = operation.outcome != Outcome::Failed && !makes(operation).is_empty();
        strict.contains(position) || furthest.placed.contains(position) || is_maker
    };
    let mut core: Vec<usize> = (0..history.len()).filter(is_in_core).collect();
    core.sort_by_key(|&position| history[position].invoked);
    let core = originals(&core);
    let is_made = |one: &(usize, Option<u64>)| {
        initial[one.0] == one.1 || core.iter().any(|operation| made(operation).contains(one))
    };
    let is_to_blame = |operation: &&Operation| {
        operation.outcome == Outcome::Failed && makes(operation).iter().any(|made| !is_made(made))
    };
    Explanation {
        holds: placed.iter().fold(initial, effect),
        next: originals(&furthest.next),
        failed: history.iter().filter(is_to_blame).copied().collect(),
        history_len: history.len(),
        placed,
        core,
    }
}

/// Steps of the search for the longest order. The core is usually small; if not, any long
/// order will do.
const EXPLAIN_STEPS_MAX: u64 = 200_000;

struct Shrinker {
    /// The history with forgiven operations of unknown outcome. It is not linearizable.
    history: Vec<Operation>,
    initial: Values,
    steps_left: u64,
}

impl Shrinker {
    /// Finds the shortest beginning that fails, by bisection: a history that fails at some moment
    /// fails at all later ones.
    fn forgive_what_ended_late(&mut self) {
        let mut ends: Vec<u64> = self.history.iter().filter_map(Operation::responded).collect();
        ends.sort_unstable();
        ends.dedup();
        let (mut low, mut high) = (0, ends.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let end = ends[middle];
            let late = |operation: &Operation| operation.responded().is_some_and(|at| at > end);
            let late: Vec<usize> = (0..self.history.len()).filter(|&at| late(&self.history[at])).collect();
            if self.forgive(&late) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
    }

    /// Tries to forgive nearly all at once, since the rest is then judged quickly. The writes, and
    /// the operations that ended last, are the likeliest to contradict each other.
    fn forgive_all_but_writes(&mut self) {
        let Some(end) = self.history.iter().filter_map(Operation::responded).max() else { return };
        let is_kept: [fn(Call) -> bool; 3] = [
            |call| matches!(call, Call::Write(_) | Call::Txn(_)),
            |call| matches!(call, Call::Write(_) | Call::Txn(_) | Call::Cas { .. }),
            |call| matches!(call, Call::Write(_) | Call::Txn(_) | Call::Delete),
        ];
        for is_kept in is_kept {
            let is_beside = |operation: &Operation| {
                operation.responded().is_some_and(|at| at < end)
                    && (!is_kept(operation.call)
                        || matches!(operation.outcome, Outcome::Completed { reply, .. } if only_observed(operation.call, reply)))
            };
            let beside: Vec<usize> = (0..self.history.len()).filter(|&at| is_beside(&self.history[at])).collect();
            if self.forgive(&beside) {
                return;
            }
        }
    }

    /// Forgives as many operations as possible, kind by kind. Observers come first: once forgiven,
    /// they are out of the way. Deletes and swaps come next: once forgiven they add choices, the
    /// more so the more writes are left.
    fn forgive_by_kind(&mut self) {
        let kinds: [fn(Call, Reply) -> bool; 4] = [
            only_observed,
            |call, _| call == Call::Delete,
            |call, _| matches!(call, Call::Cas { .. } | Call::Txn(_)),
            |_, _| true,
        ];
        for is_of_kind in kinds {
            let is_strict = |operation: &Operation| match operation.outcome {
                Outcome::Completed { reply, .. } => is_of_kind(operation.call, reply),
                Outcome::Unknown | Outcome::Failed => false,
            };
            let strict = (0..self.history.len()).filter(|&position| is_strict(&self.history[position]));
            self.forgive_in_chunks(strict.collect());
        }
    }

    /// Forgives as many of these operations as possible, in ever smaller chunks.
    fn forgive_in_chunks(&mut self, mut strict: Vec<usize>) {
        strict.sort_by_key(|&position| self.history[position].invoked);
        let mut size = strict.len();
        while size > 0 && self.steps_left > 0 {
            let mut kept = Vec::with_capacity(strict.len());
            for chunk in strict.chunks(size) {
                if !self.forgive(chunk) {
                    kept.extend_from_slice(chunk);
                }
            }
            strict = kept;
            size /= 2;
        }
    }

    /// Forgives these operations if the history then still fails; says whether it does.
    fn forgive(&mut self, positions: &[usize]) -> bool {
        let before: Vec<Outcome> = positions.iter().map(|&position| self.history[position].outcome).collect();
        for &position in positions {
            self.history[position].outcome = Outcome::Unknown;
        }
        let problem = Problem::new(&self.history, self.initial);
        // One hard try must not use up the steps of many easy ones.
        let (answer, steps) = decide(&problem, self.steps_left / 32);
        let fails = answer == Answer::Impossible;
        self.steps_left = self.steps_left.saturating_sub(steps + self.history.len() as u64);
        if !fails {
            for (&position, outcome) in positions.iter().zip(before) {
                self.history[position].outcome = outcome;
            }
        }
        fails
    }
}

/// Whether a completed operation changed nothing.
fn only_observed(call: Call, reply: Reply) -> bool {
    matches!(call, Call::Read | Call::List)
        || matches!(reply, Reply::Swapped(false) | Reply::Existed(false) | Reply::Succeeded(false))
}

/// The values after an operation that took effect.
fn effect(mut held: Values, operation: &Operation) -> Values {
    let one = &mut held[operation.key];
    match operation.call {
        Call::Write(value) => *one = Some(value),
        Call::Cas { expect, new } if *one == expect => *one = Some(new),
        Call::Delete => *one = None,
        Call::Txn(txn) if is_as_expected(held, txn) => {
            held.iter_mut().zip(txn.change).for_each(|(held, change)| *held = change.unwrap_or(*held));
        }
        Call::Read | Call::List | Call::Cas { .. } | Call::Txn(_) => {}
    }
    held
}

/// The reply of keys that hold `held`.
fn answer(held: Values, operation: &Operation) -> Reply {
    let one = held[operation.key];
    match operation.call {
        Call::Write(_) => Reply::Written,
        Call::Read => Reply::Value(one),
        Call::Cas { expect, .. } => Reply::Swapped(one == expect),
        Call::Delete => Reply::Existed(one.is_some()),
        Call::List => Reply::Listed(held),
        Call::Txn(txn) => Reply::Succeeded(is_as_expected(held, txn)),
    }
}

fn is_as_expected(held: Values, txn: Txn) -> bool {
    held.iter().zip(txn.compare).all(|(held, expect)| expect.is_none_or(|expect| *held == expect))
}

/// The states of keys that a completed operation reports as seen, or as not seen.
fn named(operation: &Operation) -> Vec<(usize, Option<u64>)> {
    match (operation.call, operation.outcome) {
        (Call::Cas { expect, .. }, _) => vec![(operation.key, expect)],
        (Call::Txn(txn), _) => with_keys(txn.compare),
        (_, Outcome::Completed { reply: Reply::Value(value), .. }) => vec![(operation.key, value)],
        (_, Outcome::Completed { reply: Reply::Listed(values), .. }) => with_keys(values.map(Some)),
        (_, Outcome::Completed { reply: Reply::Existed(false), .. }) => vec![(operation.key, None)],
        _ => Vec::new(),
    }
}

/// The states of keys after an operation, where it has an effect.
fn made(operation: &Operation) -> Vec<(usize, Option<u64>)> {
    match (operation.call, operation.outcome) {
        (call, Outcome::Completed { reply, .. }) if only_observed(call, reply) => Vec::new(),
        (Call::Read | Call::List, _) => Vec::new(),
        (Call::Write(new) | Call::Cas { new, .. }, _) => vec![(operation.key, Some(new))],
        (Call::Delete, _) => vec![(operation.key, None)],
        (Call::Txn(txn), _) => with_keys(txn.change),
    }
}

fn with_keys(values: [Option<Option<u64>>; KEYS_MAX]) -> Vec<(usize, Option<u64>)> {
    values.into_iter().enumerate().filter_map(|(key, value)| Some((key, value?))).collect()
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "not linearizable: {} of {} operations contradict each other", self.core.len(), self.history_len)?;
        lines(f, &self.core)?;
        writeln!(f, "the longest order found:")?;
        lines(f, &self.placed)?;
        writeln!(f, "then {}, and one of these must come next:", State(self.holds))?;
        for operation in self.next.iter().take(LINES_MAX) {
            let Outcome::Completed { at, reply } = operation.outcome else { continue };
            let right = answer(self.holds, operation);
            if at < operation.invoked {
                writeln!(f, "  {operation}; but it ended before it began")?;
            } else if right == reply {
                writeln!(f, "  {operation}; then no order of the rest was found")?;
            } else {
                writeln!(f, "  {operation}; but the answer would be: {right}")?;
            }
        }
        omitted(f, self.next.len())?;
        if !self.failed.is_empty() {
            writeln!(f, "only operations that failed made a value that was seen:")?;
            lines(f, &self.failed)?;
        }
        Ok(())
    }
}

/// The most operations shown in one list.
const LINES_MAX: usize = 40;

/// Shows the last operations: the contradiction stands at the end.
fn lines(f: &mut fmt::Formatter<'_>, operations: &[Operation]) -> fmt::Result {
    omitted(f, operations.len())?;
    operations.iter().skip(operations.len().saturating_sub(LINES_MAX)).try_for_each(|line| writeln!(f, "  {line}"))
}

fn omitted(f: &mut fmt::Formatter<'_>, count: usize) -> fmt::Result {
    if count > LINES_MAX { writeln!(f, "  ({} more are not shown)", count - LINES_MAX) } else { Ok(()) }
}
