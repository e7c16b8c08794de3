//! Makes a failed history small, and says what is wrong with it.
//!
//! Operations are never simply dropped: a read whose write is dropped fails for a reason that the history never had.
//! They are *forgiven* instead: a forgiven operation counts as one of unknown outcome, which may be placed anywhere
//! after its invocation or be left out. That only makes a history easier, so what fails then is at fault in the whole
//! history too. What remains is the core: operations that contradict each other whatever the others did.

use std::{collections::BTreeSet, fmt};

use super::{
    Call, Operation, Outcome, Reply,
    problem::Problem,
    search::{Answer, decide, furthest},
};

/// Why a history is not linearizable. Its `Display` is a report of several lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Operations that already contradict each other, by invocation, with those that may have made a value that they
    /// name. Any other operation of the history may have taken effect at any time after its invocation, or never: the
    /// contradiction stays. Small, but not always the smallest.
    pub core: Vec<Operation>,
    /// The longest order of them that was found.
    pub placed: Vec<Operation>,
    /// What the key holds after that.
    pub holds: Option<u64>,
    /// Those one of which would have to come next in that order.
    pub next: Vec<Operation>,
    /// Operations that definitely failed, though the core names a value that nobody else made.
    pub failed: Vec<Operation>,
    /// How many operations the whole history has.
    pub history_len: usize,
}

/// Explains a history that is not linearizable, with at most about `steps_max` steps.
pub(super) fn explain(history: &[Operation], initial: Option<u64>, steps_max: u64) -> Explanation {
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
    let named: Vec<Option<u64>> = strict.iter().filter_map(|&position| named(&history[position])).collect();
    let names = |operation: &Operation| made(operation).is_some_and(|made| named.contains(&made));
    let is_in_core = |position: &usize| {
        let operation = &history[*position];
        let is_maker = operation.outcome != Outcome::Failed && names(operation);
        strict.contains(position) || furthest.placed.contains(position) || is_maker
    };
    let mut core: Vec<usize> = (0..history.len()).filter(is_in_core).collect();
    core.sort_by_key(|&position| history[position].invoked);
    let core = originals(&core);
    let is_made = |value| value == initial || core.iter().any(|operation| made(operation) == Some(value));
    let is_to_blame = |operation: &&Operation| {
        operation.outcome == Outcome::Failed && names(operation) && !made(operation).is_some_and(is_made)
    };
    Explanation {
        holds: placed.iter().fold(initial, |held, operation| effect(held, operation.call)),
        next: originals(&furthest.next),
        failed: history.iter().filter(is_to_blame).copied().collect(),
        history_len: history.len(),
        placed,
        core,
    }
}

/// Steps of the search for the longest order. The core is small; if it is not, any long order will do.
const EXPLAIN_STEPS_MAX: u64 = 200_000;

struct Shrinker {
    /// The history, in which what is forgiven is of unknown outcome. It is not linearizable.
    history: Vec<Operation>,
    initial: Option<u64>,
    steps_left: u64,
}

impl Shrinker {
    /// Finds the shortest beginning that fails, by bisection: what fails at some moment fails at all later ones.
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

    /// Tries to forgive nearly all at once: what remains is then quickly judged. The writes, and what ended last, are the
    /// likeliest to contradict each other.
    fn forgive_all_but_writes(&mut self) {
        let Some(end) = self.history.iter().filter_map(Operation::responded).max() else { return };
        let is_kept: [fn(Call) -> bool; 3] = [
            |call| matches!(call, Call::Write(_)),
            |call| matches!(call, Call::Write(_) | Call::Cas { .. }),
            |call| matches!(call, Call::Write(_) | Call::Delete),
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

    /// Forgives what it can, kind by kind. What only observes comes first: forgiven, it is out of the way. What deletes
    /// and swaps comes next: if it may happen or not, there is more to try with each write that is left.
    fn forgive_by_kind(&mut self) {
        let kinds: [fn(Call, Reply) -> bool; 4] =
            [only_observed, |call, _| call == Call::Delete, |call, _| matches!(call, Call::Cas { .. }), |_, _| true];
        for is_of_kind in kinds {
            let is_strict = |operation: &Operation| match operation.outcome {
                Outcome::Completed { reply, .. } => is_of_kind(operation.call, reply),
                Outcome::Unknown | Outcome::Failed => false,
            };
            let strict = (0..self.history.len()).filter(|&position| is_strict(&self.history[position]));
            self.forgive_in_chunks(strict.collect());
        }
    }

    /// Forgives what it can of these, in ever smaller chunks.
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

    /// Forgives these operations if the history then still fails.
    fn forgive(&mut self, positions: &[usize]) -> bool {
        let before: Vec<Outcome> = positions.iter().map(|&position| self.history[position].outcome).collect();
        for &position in positions {
            self.history[position].outcome = Outcome::Unknown;
        }
        let problem = Problem::new(&self.history, self.initial);
        // One hard try must not eat what many easy ones need.
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
    call == Call::Read || matches!(reply, Reply::Swapped(false) | Reply::Existed(false))
}

/// What the key holds after a call that took effect.
fn effect(held: Option<u64>, call: Call) -> Option<u64> {
    match call {
        Call::Write(value) => Some(value),
        Call::Read => held,
        Call::Cas { expect, new } if held == expect => Some(new),
        Call::Cas { .. } => held,
        Call::Delete => None,
    }
}

/// What a register that holds `held` answers.
fn answer(held: Option<u64>, call: Call) -> Reply {
    match call {
        Call::Write(_) => Reply::Written,
        Call::Read => Reply::Value(held),
        Call::Cas { expect, .. } => Reply::Swapped(held == expect),
        Call::Delete => Reply::Existed(held.is_some()),
    }
}

/// The state that a completed operation names as the one it saw, or did not see.
fn named(operation: &Operation) -> Option<Option<u64>> {
    match (operation.call, operation.outcome) {
        (Call::Cas { expect, .. }, _) => Some(expect),
        (_, Outcome::Completed { reply: Reply::Value(value), .. }) => Some(value),
        (_, Outcome::Completed { reply: Reply::Existed(false), .. }) => Some(None),
        _ => None,
    }
}

/// The state that an operation leaves behind if it has an effect.
fn made(operation: &Operation) -> Option<Option<u64>> {
    match (operation.call, operation.outcome) {
        (Call::Read, _) | (_, Outcome::Completed { reply: Reply::Swapped(false) | Reply::Existed(false), .. }) => None,
        (Call::Write(new) | Call::Cas { new, .. }, _) => Some(Some(new)),
        (Call::Delete, _) => Some(None),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "not linearizable: {} of {} operations contradict each other", self.core.len(), self.history_len)?;
        lines(f, &self.core)?;
        writeln!(f, "the longest order found:")?;
        lines(f, &self.placed)?;
        writeln!(f, "then the key {}, and one of these must come next:", Holds(self.holds))?;
        for operation in self.next.iter().take(LINES_MAX) {
            let Outcome::Completed { at, reply } = operation.outcome else { continue };
            let right = answer(self.holds, operation.call);
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

/// Lines of one list that are shown.
const LINES_MAX: usize = 40;

/// Shows the last operations: what went wrong stands at the end.
fn lines(f: &mut fmt::Formatter<'_>, operations: &[Operation]) -> fmt::Result {
    omitted(f, operations.len())?;
    operations.iter().skip(operations.len().saturating_sub(LINES_MAX)).try_for_each(|line| writeln!(f, "  {line}"))
}

fn omitted(f: &mut fmt::Formatter<'_>, count: usize) -> fmt::Result {
    if count > LINES_MAX { writeln!(f, "  ({} more are not shown)", count - LINES_MAX) } else { Ok(()) }
}

struct Holds(Option<u64>);

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "holds {value}"),
            None => write!(f, "is absent"),
        }
    }
}
