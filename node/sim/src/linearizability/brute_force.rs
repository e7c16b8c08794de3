//! A brute-force search: it tries every order, remembers nothing, cuts nothing.
//! The module also draws random histories small enough for it, and compares both.

use super::{Call, KEYS_MAX, Operation, Outcome, Reply, STEPS_MAX, Txn, Values, Verdict, check};

/// Whether some order of all completed and some unknown operations explains the history.
fn is_linearizable(history: &[Operation], held: Values) -> bool {
    let is_completed = |operation: &Operation| matches!(operation.outcome, Outcome::Completed { .. });
    if !history.iter().any(is_completed) {
        return true;
    }
    (0..history.len()).any(|next| {
        let operation = history[next];
        let mut rest = history.to_vec();
        rest.remove(next);
        let began_too_late = |other: &Operation| match other.outcome {
            Outcome::Completed { at, .. } => at < operation.invoked,
            Outcome::Unknown | Outcome::Failed => false,
        };
        if rest.iter().any(began_too_late) {
            return false;
        }
        let (right, after) = apply(&operation, held);
        match operation.outcome {
            Outcome::Completed { at, reply } => {
                at >= operation.invoked && reply == right && is_linearizable(&rest, after)
            }
            Outcome::Unknown => is_linearizable(&rest, after),
            Outcome::Failed => false,
        }
    })
}

fn apply(operation: &Operation, mut held: Values) -> (Reply, Values) {
    let before = held[operation.key];
    let one = &mut held[operation.key];
    let reply = match operation.call {
        Call::Write(value) => {
            *one = Some(value);
            Reply::Written
        }
        Call::Read => Reply::Value(before),
        Call::Cas { expect, new } => {
            *one = if before == expect { Some(new) } else { before };
            Reply::Swapped(before == expect)
        }
        Call::Delete => {
            *one = None;
            Reply::Existed(before.is_some())
        }
        Call::List => Reply::Listed(held),
        Call::Txn(txn) => {
            let succeeds = (0..KEYS_MAX).all(|key| txn.compare[key].is_none_or(|expect| expect == held[key]));
            for key in (0..KEYS_MAX).filter(|_| succeeds) {
                held[key] = txn.change[key].unwrap_or(held[key]);
            }
            Reply::Succeeded(succeeds)
        }
    };
    (reply, held)
}

#[test]
fn histories_of_an_atomic_register_are_linearizable_to_both() {
    let mut random = Random(1);
    for round in 0..ROUNDS {
        let shape = Shape::any(&mut random);
        let history = shape.history(&mut random);
        assert!(
            is_linearizable(&history, shape.initial),
            "round {round}: the brute-force search errs\n{}",
            listed(&history)
        );
        let verdict = check(&history, shape.initial, STEPS_MAX);
        assert_eq!(verdict, Verdict::Linearizable, "round {round}\n{}", listed(&history));
    }
}

#[test]
fn damaged_histories_are_judged_as_brute_force_judges_them_and_a_good_share_is_illegal() {
    let mut random = Random(2);
    let mut illegal = 0;
    for round in 0..ROUNDS {
        let shape = Shape::any(&mut random);
        let mut history = shape.history(&mut random);
        for _ in 0..=random.below(3) {
            shape.damage(&mut history, &mut random);
        }
        illegal += usize::from(!agrees(&history, shape.initial, round));
    }
    assert!((ROUNDS / 5..ROUNDS * 4 / 5).contains(&illegal), "{illegal} of {ROUNDS} are illegal");
}

#[test]
fn histories_of_random_results_are_judged_as_brute_force_judges_them_and_a_good_share_is_legal() {
    let mut random = Random(3);
    let mut illegal = 0;
    for round in 0..ROUNDS {
        let shape = Shape::any(&mut random);
        let mut history = shape.history(&mut random);
        let shorter = 1 + random.below(4) as usize;
        history.truncate(shorter);
        for operation in &mut history {
            if let Outcome::Completed { reply, .. } = &mut operation.outcome {
                *reply = shape.reply(operation.call, &mut random);
            }
        }
        illegal += usize::from(!agrees(&history, shape.initial, round));
    }
    assert!((ROUNDS / 5..ROUNDS * 4 / 5).contains(&illegal), "{illegal} of {ROUNDS} are illegal");
}

#[test]
fn whatever_the_bound_an_answer_is_right_or_missing() {
    let mut random = Random(4);
    let mut undecided = 0;
    for round in 0..ROUNDS {
        let shape = Shape::any(&mut random);
        let mut history = shape.history(&mut random);
        shape.damage(&mut history, &mut random);
        let legal = is_linearizable(&history, shape.initial);
        match check(&history, shape.initial, random.below(20)) {
            Verdict::Linearizable => assert!(legal, "round {round}\n{}", listed(&history)),
            Verdict::Violated(_) => assert!(!legal, "round {round}\n{}", listed(&history)),
            Verdict::Undecided => undecided += 1,
        }
    }
    assert!((ROUNDS / 20..ROUNDS).contains(&undecided), "{undecided} of {ROUNDS} are undecided");
}

/// Random histories in each comparison.
const ROUNDS: usize = 20_000;

/// Asserts that both judge alike, and that an explanation holds; says whether the history is legal.
fn agrees(history: &[Operation], initial: Values, round: usize) -> bool {
    let legal = is_linearizable(history, initial);
    match check(history, initial, STEPS_MAX) {
        Verdict::Linearizable => assert!(legal, "round {round}: none is legal\n{}", listed(history)),
        Verdict::Undecided => panic!("round {round}: undecided\n{}", listed(history)),
        Verdict::Violated(explanation) => {
            assert!(!legal, "round {round}: one is legal\n{}\n{explanation}", listed(history));
            assert!(!is_linearizable(&explanation.core, initial), "round {round}: the core is legal\n{explanation}");
            assert!(!explanation.next.is_empty(), "round {round}: nothing must come next\n{explanation}");
            let mut held = initial;
            for operation in &explanation.placed {
                held = apply(operation, held).1;
            }
            assert_eq!(held, explanation.holds, "round {round}\n{explanation}");
        }
    }
    legal
}

fn listed(history: &[Operation]) -> String {
    history.iter().map(|operation| format!("{operation}\n")).collect()
}

/// The limits of random histories.
pub(super) struct Shape {
    pub(super) operations: usize,
    /// Values are below this bound.
    pub(super) values: u64,
    /// Invocations are below this bound.
    pub(super) stamps: u64,
    /// Operations take less than twice this time.
    pub(super) duration: u64,
    pub(super) unknown_percent: u64,
    /// Leaves out deletes, failing cas and the like.
    pub(super) only_reads_and_writes: bool,
    /// No value is written twice.
    pub(super) unique: bool,
    /// The number of keys. With several, a half of the calls is of several keys.
    pub(super) keys: usize,
    pub(super) initial: Values,
}

impl Shape {
    /// A random shape, small enough for brute force.
    fn any(random: &mut Random) -> Self {
        Self {
            operations: 1 + random.below(7) as usize,
            values: 1 + random.below(4),
            stamps: 1 + random.below(20),
            duration: 1 + random.below(10),
            unknown_percent: 20 * random.below(4),
            only_reads_and_writes: random.below(3) == 0,
            unique: random.below(3) == 0,
            keys: [1, 1, 2, KEYS_MAX][random.below(4) as usize],
            initial: [[None; KEYS_MAX], [Some(0), None, None]][random.below(2) as usize],
        }
    }

    /// The operations that clients of an atomic register may see: each takes effect at a random
    /// moment between its stamps.
    pub(super) fn history(&self, random: &mut Random) -> Vec<Operation> {
        let mut planned: Vec<(u64, u64, u64)> = (0..self.operations)
            .map(|_| {
                let invoked = random.below(self.stamps);
                let effective = invoked + random.below(self.duration);
                (effective, invoked, effective + random.below(self.duration))
            })
            .collect();
        planned.sort_unstable();
        let mut held = self.initial;
        let mut history = Vec::new();
        for (client, (_, invoked, at)) in planned.into_iter().enumerate() {
            let new = if self.unique { 100 + client as u64 } else { random.below(self.values) };
            let (key, call) = self.call(new, held, random);
            let operation = Operation { client: client as u64, key, call, invoked, outcome: Outcome::Unknown };
            let (reply, after) = apply(&operation, held);
            let (outcome, takes_effect) = if random.below(100) >= self.unknown_percent {
                (Outcome::Completed { at, reply }, true)
            } else if random.below(4) > 0 {
                (Outcome::Unknown, random.below(2) == 0)
            } else {
                (Outcome::Failed, false)
            };
            if takes_effect {
                held = after;
            }
            history.push(Operation { outcome, ..operation });
        }
        for last in (1..history.len()).rev() {
            history.swap(last, random.below(last as u64 + 1) as usize);
        }
        history
    }

    fn call(&self, new: u64, held: Values, random: &mut Random) -> (usize, Call) {
        let key = if self.keys > 1 { random.below(self.keys as u64) as usize } else { 0 };
        if self.keys > 1 && random.below(2) == 0 {
            return (0, if random.below(3) == 0 { Call::List } else { Call::Txn(self.txn(new, held, random)) });
        }
        let kinds = if self.only_reads_and_writes { 4 } else { 8 };
        let call = match random.below(kinds) {
            0 | 1 => Call::Read,
            2 | 3 => Call::Write(new),
            4 | 5 => Call::Cas { expect: held[key], new },
            6 => Call::Cas { expect: self.value(random), new },
            _ => Call::Delete,
        };
        (key, call)
    }

    /// Some keys are compared, mostly with what they hold, and some are changed.
    fn txn(&self, new: u64, held: Values, random: &mut Random) -> Txn {
        let mut txn = Txn::default();
        for (key, held) in held.into_iter().enumerate().take(self.keys) {
            txn.compare[key] = match random.below(if self.only_reads_and_writes { 1 } else { 5 }) {
                0 | 1 => None,
                2 | 3 => Some(held),
                _ => Some(self.value(random)),
            };
            txn.change[key] = match random.below(4) {
                0 => None,
                1 => Some(self.value(random)),
                _ => Some(Some(new)),
            };
        }
        txn
    }

    fn value(&self, random: &mut Random) -> Option<u64> {
        random.below(self.values + 1).checked_sub(1)
    }

    fn reply(&self, call: Call, random: &mut Random) -> Reply {
        match call {
            Call::Write(_) => Reply::Written,
            Call::Read => Reply::Value(self.value(random)),
            Call::Cas { .. } => Reply::Swapped(random.below(2) == 0),
            Call::Delete => Reply::Existed(random.below(2) == 0),
            Call::List => {
                Reply::Listed(std::array::from_fn(|key| if key < self.keys { self.value(random) } else { None }))
            }
            Call::Txn(_) => Reply::Succeeded(random.below(2) == 0),
        }
    }

    fn damage(&self, history: &mut Vec<Operation>, random: &mut Random) {
        if history.is_empty() {
            return;
        }
        let which = random.below(history.len() as u64) as usize;
        let another = history[random.below(history.len() as u64) as usize];
        let operation = &mut history[which];
        match random.below(8) {
            0 => {
                let held = std::array::from_fn(|_| self.value(random));
                (operation.key, operation.call) = self.call(random.below(self.values), held, random);
            }
            1 => operation.invoked = random.below(self.stamps),
            2 => operation.outcome = another.outcome,
            3 => operation.outcome = [Outcome::Failed, Outcome::Unknown][random.below(2) as usize],
            4 => history.push(another),
            _ => {
                let right = self.reply(operation.call, random);
                if let Outcome::Completed { reply, .. } = &mut operation.outcome {
                    *reply = right;
                }
            }
        }
    }
}

/// Numbers that look random and are the same in every run (Steele's SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
