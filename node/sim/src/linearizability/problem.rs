//! A history in the form that the search uses: small numbers instead of values, in the
//! order of invocation.
//!
//! Three simplifications are made here. None changes the answer; the tests compare it with a
//! brute-force search that makes none of them.
//! - Values of a key that no operation names in a result or an expectation are indistinguishable:
//!   all become one number.
//! - An operation of unknown outcome is left out if it can have no effect (a read), if no operation
//!   needs a state that it makes, or if it began after all completed ones had ended.
//! - Operations of unknown outcome that do the same form one [`Class`]. They are used in the order
//!   of invocation only, for any two of them can change places.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::history::{Call, KEYS_MAX, Operation, Outcome, Reply, Txn, Values};

/// The state of one key. States of different keys have different numbers, so that a number says
/// its key, too: below [`KEYS_MAX`] the key is absent, below twice that it has a value that no
/// operation names, and all others are named values.
pub(super) type Held = u32;

/// The state of all keys.
pub(super) type State = [Held; KEYS_MAX];

/// The question that a [`Search`](super::search::Search) answers.
pub(super) struct Problem {
    pub(super) initial: State,
    /// Completed operations, by invocation.
    pub(super) required: Vec<Required>,
    /// Operations of unknown outcome.
    pub(super) classes: Vec<Class>,
    /// Every `Held` is below this bound.
    pub(super) held_count: usize,
    /// Whether all operations are on the same key.
    pub(super) is_of_one_key: bool,
}

/// A completed operation: it must be placed between its stamps.
pub(super) struct Required {
    pub(super) act: Act,
    pub(super) invoked: u64,
    pub(super) responded: u64,
    /// Its position in the history.
    pub(super) position: usize,
}

/// Operations of unknown outcome that do the same: each may be placed anywhere after its
/// invocation, or nowhere.
pub(super) struct Class {
    pub(super) act: Act,
    /// (invocation, position in the history), by invocation.
    pub(super) members: Vec<(u64, usize)>,
}

/// A call and its result in one: the states at which it is legal, and what it changes. `V` is the
/// state of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Act<V = Held> {
    finds: Finds<V>,
    /// For each key, the state that follows; `None` where it is unchanged.
    makes: [Option<V>; KEYS_MAX],
}

/// The states at which an [`Act`] is legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Finds<V> {
    /// Each key is as the condition says.
    All([Condition<V>; KEYS_MAX]),
    /// At least one key does not hold its state here: the comparisons of a transaction that failed.
    NotAll([Option<V>; KEYS_MAX]),
    /// A result that no state explains: a reply of another call's kind, or a response
    /// before its invocation.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Condition<V> {
    Any,
    Is(V),
    Not(V),
}

impl<V: Copy + Eq> Condition<V> {
    fn holds(self, held: V) -> bool {
        match self {
            Self::Any => true,
            Self::Is(value) => held == value,
            Self::Not(value) => held != value,
        }
    }
}

impl<V: Copy> Finds<V> {
    /// The states that it compares keys with, by key.
    fn named(self) -> [Option<V>; KEYS_MAX] {
        match self {
            Self::All(conditions) => conditions.map(|condition| match condition {
                Condition::Is(value) | Condition::Not(value) => Some(value),
                Condition::Any => None,
            }),
            Self::NotAll(expected) => expected,
            Self::Never => [None; KEYS_MAX],
        }
    }

    /// Whether any of several states will do, but not all: an unnamed value can make it legal.
    fn is_easy_to_please(self) -> bool {
        match self {
            Self::All(conditions) => conditions.iter().any(|condition| matches!(condition, Condition::Not(_))),
            Self::NotAll(_) => true,
            Self::Never => false,
        }
    }
}

impl Act {
    /// The state after it, if it is legal at `held`.
    pub(super) fn apply(self, held: State) -> Option<State> {
        let is_legal = match self.finds {
            Finds::All(conditions) => conditions.iter().zip(held).all(|(condition, held)| condition.holds(held)),
            Finds::NotAll(expected) => {
                expected.iter().zip(held).any(|(expected, held)| expected.is_some_and(|expected| expected != held))
            }
            Finds::Never => false,
        };
        is_legal.then(|| std::array::from_fn(|key| self.makes[key].unwrap_or(held[key])))
    }

    /// Whether no state explains it.
    pub(super) fn is_never(self) -> bool {
        self.finds == Finds::Never
    }

    /// Whether it changes nothing wherever it is legal.
    pub(super) fn only_observes(self) -> bool {
        match self.finds {
            Finds::All(conditions) => conditions
                .iter()
                .zip(self.makes)
                .all(|(condition, made)| made.is_none_or(|made| *condition == Condition::Is(made))),
            Finds::NotAll(_) => self.makes.iter().all(Option::is_none),
            Finds::Never => false,
        }
    }

    /// The value that it writes, whatever it finds, if that is all that it does.
    pub(super) fn writes(self) -> Option<Held> {
        let is_legal_always = self.finds == Finds::All([Condition::Any; KEYS_MAX]);
        let mut made = self.makes.into_iter().flatten();
        made.next().filter(|_| is_legal_always && made.next().is_none())
    }

    /// The states that keys must have, by key, where only one will do.
    pub(super) fn needs(self) -> [Option<Held>; KEYS_MAX] {
        let Finds::All(conditions) = self.finds else { return [None; KEYS_MAX] };
        conditions.map(|condition| match condition {
            Condition::Is(value) => Some(value),
            Condition::Any | Condition::Not(_) => None,
        })
    }

    /// A state that it needs, and that `held` lacks.
    pub(super) fn lacks(self, held: State) -> Option<Held> {
        self.needs().into_iter().flatten().find(|needed| !held.contains(needed))
    }

    /// The states that it sets, by key.
    pub(super) fn makes(self) -> [Option<Held>; KEYS_MAX] {
        self.makes
    }

    /// The states that its legality depends on by name.
    pub(super) fn names(self) -> impl Iterator<Item = Held> {
        self.finds.named().into_iter().flatten()
    }

    /// Whether its legality is easy to please: see [`Finds::is_easy_to_please`].
    pub(super) fn is_easy_to_please(self) -> bool {
        self.finds.is_easy_to_please()
    }

    /// Whether it can matter to this act that `earlier`, which changes `before` to `after`, comes
    /// before it and not at once after it: a key pleases it only after the change, or it changes a
    /// key that `earlier` compared or changed, and not all that `earlier` changed.
    pub(super) fn tells(self, earlier: Act, before: State, after: State) -> bool {
        let is_pleased = (0..KEYS_MAX).any(|key| match self.finds {
            Finds::All(conditions) => conditions[key].holds(after[key]) && !conditions[key].holds(before[key]),
            Finds::NotAll(expected) => {
                expected[key].is_some_and(|expected| expected == before[key] && expected != after[key])
            }
            Finds::Never => false,
        });
        let touches = earlier.touches();
        let meets = (0..KEYS_MAX).any(|key| touches[key] && self.makes[key].is_some());
        let covers = (0..KEYS_MAX).all(|key| earlier.makes[key].is_none() || self.makes[key].is_some());
        is_pleased || (meets && !covers)
    }

    fn touches(self) -> [bool; KEYS_MAX] {
        std::array::from_fn(|key| {
            let is_read = match self.finds {
                Finds::All(conditions) => conditions[key] != Condition::Any,
                Finds::NotAll(expected) => expected[key].is_some(),
                Finds::Never => false,
            };
            is_read || self.makes[key].is_some()
        })
    }
}

/// The state of one key in a history: its value, `None` if it is absent.
type Value = Option<u64>;

impl Act<Value> {
    /// The act of a completed operation.
    fn completed(operation: &Operation, at: u64, reply: Reply) -> Self {
        let of_key = |condition| {
            let mut conditions = [Condition::Any; KEYS_MAX];
            conditions[operation.key] = condition;
            Finds::All(conditions)
        };
        let makes = Self::effect(operation).map_or([None; KEYS_MAX], |act| act.makes);
        let (finds, makes) = match (operation.call, reply) {
            _ if at < operation.invoked => (Finds::Never, [None; KEYS_MAX]),
            (Call::Read, Reply::Value(value)) => (of_key(Condition::Is(value)), makes),
            (Call::Write(_), Reply::Written) => (of_key(Condition::Any), makes),
            (Call::Cas { expect, .. }, Reply::Swapped(true)) => (of_key(Condition::Is(expect)), makes),
            (Call::Cas { expect, .. }, Reply::Swapped(false)) => (of_key(Condition::Not(expect)), [None; KEYS_MAX]),
            (Call::Delete, Reply::Existed(true)) => (of_key(Condition::Not(None)), makes),
            (Call::Delete, Reply::Existed(false)) => (of_key(Condition::Is(None)), [None; KEYS_MAX]),
            (Call::List, Reply::Listed(values)) => (Finds::All(values.map(Condition::Is)), makes),
            (Call::Txn(txn), Reply::Succeeded(true)) => (compared(txn), makes),
            (Call::Txn(txn), Reply::Succeeded(false)) => (Finds::NotAll(txn.compare), [None; KEYS_MAX]),
            _ => (Finds::Never, [None; KEYS_MAX]),
        };
        Self { finds, makes }
    }

    /// The act of a call that takes effect; none if it has no effect.
    fn effect(operation: &Operation) -> Option<Self> {
        let of_key = |condition, value| {
            let (mut conditions, mut makes) = ([Condition::Any; KEYS_MAX], [None; KEYS_MAX]);
            (conditions[operation.key], makes[operation.key]) = (condition, Some(value));
            Some(Self { finds: Finds::All(conditions), makes })
        };
        match operation.call {
            Call::Read | Call::List => None,
            Call::Write(value) => of_key(Condition::Any, Some(value)),
            Call::Cas { expect, new } => of_key(Condition::Is(expect), Some(new)),
            Call::Delete => of_key(Condition::Not(None), None),
            Call::Txn(txn) if txn.change == [None; KEYS_MAX] => None,
            Call::Txn(txn) => Some(Self { finds: compared(txn), makes: txn.change }),
        }
    }

    /// The act of an operation, unless it has none.
    fn of(operation: &Operation) -> Option<Self> {
        match operation.outcome {
            Outcome::Completed { at, reply } => Some(Self::completed(operation, at, reply)),
            Outcome::Unknown => Self::effect(operation),
            Outcome::Failed => None,
        }
    }

    /// The values that it needs or names, with their keys.
    fn named(self) -> impl Iterator<Item = (usize, Value)> {
        with_keys(self.finds.named())
    }

    fn in_numbers(self, numbers: &Numbers) -> Act {
        let makes = std::array::from_fn(|key| self.makes[key].map(|value| numbers.held(key, value)));
        let finds = match self.finds {
            Finds::All(conditions) => Finds::All(std::array::from_fn(|key| match conditions[key] {
                Condition::Any => Condition::Any,
                Condition::Is(value) => Condition::Is(numbers.held(key, value)),
                Condition::Not(value) => Condition::Not(numbers.held(key, value)),
            })),
            Finds::NotAll(expected) => {
                Finds::NotAll(std::array::from_fn(|key| expected[key].map(|value| numbers.held(key, value))))
            }
            Finds::Never => Finds::Never,
        };
        Act { finds, makes }
    }
}

fn compared(txn: Txn) -> Finds<Value> {
    Finds::All(txn.compare.map(|expect| expect.map_or(Condition::Any, Condition::Is)))
}

fn with_keys(values: [Option<Value>; KEYS_MAX]) -> impl Iterator<Item = (usize, Value)> {
    values.into_iter().enumerate().filter_map(|(key, value)| Some((key, value?)))
}

impl Problem {
    /// Time: O(n log n).
    pub(super) fn new(history: &[Operation], initial: Values) -> Self {
        let wanted = Wanted::of(history);
        let end = history.iter().filter_map(Operation::responded).max().unwrap_or(0);
        let acts = history.iter().enumerate().filter_map(|(position, operation)| {
            let act = Act::of(operation)?;
            let is_of_use = operation.responded().is_some() || (operation.invoked <= end && wanted.includes(act));
            is_of_use.then_some((position, operation, act))
        });
        let acts: Vec<_> = acts.collect();
        let numbers = Numbers::of(acts.iter().map(|(.., act)| *act));
        let mut required = Vec::new();
        let mut classes: BTreeMap<Act, Vec<(u64, usize)>> = BTreeMap::new();
        let mut touched = [false; KEYS_MAX];
        for (position, operation, act) in acts {
            let act = act.in_numbers(&numbers);
            touched.iter_mut().zip(act.touches()).for_each(|(touched, touches)| *touched |= touches);
            let invoked = operation.invoked;
            match operation.responded() {
                Some(at) => required.push(Required { act, invoked, responded: at.max(invoked), position }),
                None => classes.entry(act).or_default().push((invoked, position)),
            }
        }
        required.sort_by_key(|operation| operation.invoked);
        let classes = classes.into_iter().map(|(act, mut members)| {
            members.sort_unstable();
            Class { act, members }
        });
        Self {
            initial: std::array::from_fn(|key| numbers.held(key, initial[key])),
            required,
            classes: classes.collect(),
            held_count: numbers.count as usize,
            is_of_one_key: touched.iter().filter(|touched| **touched).count() <= 1,
        }
    }
}

/// The states for which an operation of unknown outcome may be of use: those that a completed
/// operation needs, and those from which unknown ones lead there. All states, if a completed
/// operation is easy to please.
enum Wanted {
    All,
    Only(HashSet<(usize, Value)>),
}

impl Wanted {
    fn of(history: &[Operation]) -> Self {
        let mut wanted = Vec::new();
        let mut leads_to: HashMap<(usize, Value), Vec<(usize, Value)>> = HashMap::new();
        for operation in history {
            let Some(act) = Act::of(operation) else { continue };
            if operation.outcome == Outcome::Unknown {
                for made in with_keys(act.makes) {
                    leads_to.entry(made).or_default().extend(act.named());
                }
            } else {
                if act.finds.is_easy_to_please() {
                    return Self::All;
                }
                wanted.extend(act.named());
            }
        }
        let mut all = HashSet::new();
        while let Some(value) = wanted.pop() {
            if all.insert(value) {
                wanted.extend(leads_to.get(&value).into_iter().flatten());
            }
        }
        Self::Only(all)
    }

    /// Whether the effect of an act may be of use.
    fn includes(&self, act: Act<Value>) -> bool {
        match self {
            Self::All => true,
            Self::Only(wanted) => with_keys(act.makes).any(|made| wanted.contains(&made)),
        }
    }
}

struct Numbers {
    named: HashMap<(usize, u64), Held>,
    count: Held,
}

impl Numbers {
    fn of(acts: impl Iterator<Item = Act<Value>>) -> Self {
        let mut numbers = Self { named: HashMap::new(), count: 2 * KEYS_MAX as Held };
        for (key, value) in acts.flat_map(Act::named) {
            let Some(value) = value else { continue };
            numbers.named.entry((key, value)).or_insert_with(|| {
                numbers.count += 1;
                numbers.count - 1
            });
        }
        numbers
    }

    fn held(&self, key: usize, value: Value) -> Held {
        match value {
            None => key as Held,
            Some(value) => self.named.get(&(key, value)).copied().unwrap_or((KEYS_MAX + key) as Held),
        }
    }
}
