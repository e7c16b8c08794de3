//! A history in the form that the search uses: small numbers instead of values, in the
//! order of invocation.
//!
//! Three simplifications are made here. None changes the answer; the tests compare it with a
//! brute-force search that makes none of them.
//! - Values that no operation names in a result or an expectation are indistinguishable:
//!   all become [`UNNAMED`].
//! - An operation of unknown outcome is left out if it can have no effect (a read), if no operation
//!   needs the state that it makes, or if it began after all completed ones had ended.
//! - Operations of unknown outcome that do the same form one [`Class`]. They are used in the order
//!   of invocation only, for any two of them can change places.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::history::{Call, Operation, Outcome, Reply};

/// The state of the register: [`ABSENT`], [`UNNAMED`], or the number of a value.
pub(super) type Held = u32;
/// The key is absent.
pub(super) const ABSENT: Held = 0;
/// Some value that no operation names.
const UNNAMED: Held = 1;

/// The question that a [`Search`](super::search::Search) answers.
pub(super) struct Problem {
    pub(super) initial: Held,
    /// Completed operations, by invocation.
    pub(super) required: Vec<Required>,
    /// Operations of unknown outcome.
    pub(super) classes: Vec<Class>,
    /// Every `Held` is below this bound.
    pub(super) held_count: usize,
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

/// A call and its result in one: the states at which it is legal, and the state that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// A read that returned this state.
    Read(Held),
    Write(Held),
    /// A cas that swapped.
    Swap {
        expect: Held,
        new: Held,
    },
    /// A cas that did not swap.
    Refuse {
        expect: Held,
    },
    /// A delete that found something.
    Remove,
    /// A delete that found nothing.
    Miss,
    /// A result that no state explains: a reply of another call's kind, or a response
    /// before its invocation.
    Never,
}

impl Act {
    /// The state after it, if it is legal at `held`.
    pub(super) fn apply(self, held: Held) -> Option<Held> {
        match self {
            Act::Read(value) => (held == value).then_some(held),
            Act::Write(value) => Some(value),
            Act::Swap { expect, new } => (held == expect).then_some(new),
            Act::Refuse { expect } => (held != expect).then_some(held),
            Act::Remove => (held != ABSENT).then_some(ABSENT),
            Act::Miss => (held == ABSENT).then_some(held),
            Act::Never => None,
        }
    }

    /// Whether it changes nothing wherever it is legal.
    pub(super) fn only_observes(self) -> bool {
        match self {
            Act::Read(_) | Act::Refuse { .. } | Act::Miss => true,
            Act::Swap { expect, new } => expect == new,
            Act::Write(_) | Act::Remove | Act::Never => false,
        }
    }

    /// The one state at which it is legal, if there is only one.
    pub(super) fn needs(self) -> Option<Held> {
        match self {
            Act::Read(value) => Some(value),
            Act::Swap { expect, .. } => Some(expect),
            Act::Miss => Some(ABSENT),
            Act::Write(_) | Act::Refuse { .. } | Act::Remove | Act::Never => None,
        }
    }

    /// The state that it sets, if it changes the register.
    pub(super) fn makes(self) -> Option<Held> {
        match self {
            Act::Write(value) => Some(value),
            Act::Swap { new, .. } => Some(new),
            Act::Remove => Some(ABSENT),
            Act::Read(_) | Act::Refuse { .. } | Act::Miss | Act::Never => None,
        }
    }

    /// The state that its legality depends on by name.
    pub(super) fn names(self) -> Option<Held> {
        match self {
            Act::Refuse { expect } => Some(expect),
            _ => self.needs(),
        }
    }

    /// Whether any of several states will do, but not all: an unnamed value can make it legal.
    pub(super) fn is_easy_to_please(self) -> bool {
        matches!(self, Act::Refuse { .. } | Act::Remove)
    }
}

impl Problem {
    /// Time: O(n log n).
    pub(super) fn new(history: &[Operation], initial: Option<u64>) -> Self {
        let wanted = Wanted::of(history);
        let end = history.iter().filter_map(Operation::responded).max().unwrap_or(0);
        let is_of_use = |operation: &Operation| {
            operation.responded().is_some() || (operation.invoked <= end && wanted.includes(operation))
        };
        let history: Vec<(usize, &Operation)> =
            history.iter().enumerate().filter(|(_, operation)| is_of_use(operation)).collect();
        let numbers = Numbers::of(&history);
        let mut required = Vec::new();
        let mut classes: BTreeMap<Act, Vec<(u64, usize)>> = BTreeMap::new();
        for (position, operation) in history {
            match operation.outcome {
                Outcome::Completed { at, reply } => required.push(Required {
                    act: if at < operation.invoked { Act::Never } else { numbers.act(operation.call, reply) },
                    invoked: operation.invoked,
                    responded: at.max(operation.invoked),
                    position,
                }),
                Outcome::Unknown => {
                    if let Some(act) = numbers.effect(operation.call) {
                        classes.entry(act).or_default().push((operation.invoked, position));
                    }
                }
                Outcome::Failed => {}
            }
        }
        required.sort_by_key(|operation| operation.invoked);
        let classes = classes.into_iter().map(|(act, mut members)| {
            members.sort_unstable();
            Class { act, members }
        });
        Self {
            initial: numbers.held(initial),
            required,
            classes: classes.collect(),
            held_count: numbers.count as usize,
        }
    }
}

/// The states for which an operation of unknown outcome may be of use: those that a completed
/// operation needs, and those from which unknown cas lead there. All states, if a completed
/// operation is easy to please.
enum Wanted {
    All,
    Only(HashSet<Option<u64>>),
}

impl Wanted {
    fn of(history: &[Operation]) -> Self {
        let mut wanted = Vec::new();
        let mut leads_to: HashMap<u64, Vec<Option<u64>>> = HashMap::new();
        for operation in history {
            match (operation.call, operation.outcome) {
                (Call::Cas { .. }, Outcome::Completed { reply: Reply::Swapped(false), .. })
                | (Call::Delete, Outcome::Completed { reply: Reply::Existed(true), .. }) => return Self::All,
                (Call::Read, Outcome::Completed { reply: Reply::Value(value), .. }) => wanted.push(value),
                (Call::Cas { expect, .. }, Outcome::Completed { .. }) => wanted.push(expect),
                (Call::Delete, Outcome::Completed { .. }) => wanted.push(None),
                (Call::Cas { expect, new }, Outcome::Unknown) => leads_to.entry(new).or_default().push(expect),
                _ => {}
            }
        }
        let mut all = HashSet::new();
        while let Some(value) = wanted.pop() {
            if all.insert(value) {
                wanted.extend(value.and_then(|value| leads_to.get(&value)).into_iter().flatten());
            }
        }
        Self::Only(all)
    }

    fn includes(&self, operation: &Operation) -> bool {
        let made = match (operation.outcome, operation.call) {
            (Outcome::Completed { .. }, _) => return true,
            (Outcome::Failed, _) | (Outcome::Unknown, Call::Read) => return false,
            (Outcome::Unknown, Call::Write(new) | Call::Cas { new, .. }) => Some(new),
            (Outcome::Unknown, Call::Delete) => None,
        };
        match self {
            Self::All => true,
            Self::Only(wanted) => wanted.contains(&made),
        }
    }
}

struct Numbers {
    named: HashMap<u64, Held>,
    count: Held,
}

impl Numbers {
    fn of(history: &[(usize, &Operation)]) -> Self {
        let mut numbers = Self { named: HashMap::new(), count: UNNAMED + 1 };
        for (_, operation) in history {
            match (operation.call, operation.outcome) {
                (Call::Cas { expect: Some(value), .. }, _)
                | (Call::Read, Outcome::Completed { reply: Reply::Value(Some(value)), .. }) => {
                    numbers.named.entry(value).or_insert_with(|| {
                        numbers.count += 1;
                        numbers.count - 1
                    });
                }
                _ => {}
            }
        }
        numbers
    }

    fn held(&self, value: Option<u64>) -> Held {
        value.map_or(ABSENT, |value| self.named.get(&value).copied().unwrap_or(UNNAMED))
    }

    fn act(&self, call: Call, reply: Reply) -> Act {
        match (call, reply) {
            (Call::Read, Reply::Value(value)) => Act::Read(self.held(value)),
            (Call::Write(value), Reply::Written) => Act::Write(self.held(Some(value))),
            (Call::Cas { expect, new }, Reply::Swapped(true)) => {
                Act::Swap { expect: self.held(expect), new: self.held(Some(new)) }
            }
            (Call::Cas { expect, .. }, Reply::Swapped(false)) => Act::Refuse { expect: self.held(expect) },
            (Call::Delete, Reply::Existed(true)) => Act::Remove,
            (Call::Delete, Reply::Existed(false)) => Act::Miss,
            _ => Act::Never,
        }
    }

    /// The act of a call that takes effect; none if it has no effect.
    fn effect(&self, call: Call) -> Option<Act> {
        match call {
            Call::Read => None,
            Call::Write(value) => Some(Act::Write(self.held(Some(value)))),
            Call::Cas { expect, new } => Some(Act::Swap { expect: self.held(expect), new: self.held(Some(new)) }),
            Call::Delete => Some(Act::Remove),
        }
    }
}
