//! A linearizability checker for one key: is there an order of the operations, each at one moment
//! between its invocation and its response, in which a single register would have given the same
//! answers?
//!
//! The module owns the search for that order and the explanation when there is none. It knows
//! nothing of the simulator, keeps no clock and draws no random numbers: the same history gets the
//! same verdict. The checker of a run records the operations, splits them by key ([`by_key`]) and
//! calls [`check`] for each key. Linearizability is local: a history is linearizable if its part
//! for each key is.
//!
//! The search is Wing and Gong's ("Testing and verifying concurrent objects", 1993) with Lowe's
//! memory of earlier tries ("Testing for linearizability", 2017) and the linked lists of Horn and
//! Kroening ("Faster linearizability checking via P-compositionality", 2015). The other cuts are
//! listed in `search` and `problem`, with the reason why none can change the verdict; the tests
//! compare with a brute-force search that has none of them.
//!
//! No crate is used for it. todc-utils 0.1.1 has the same search, but every call needs a response,
//! the search has no bound, and the answer is a bare yes or no; stateright 0.31 knows pending
//! operations, but remembers no earlier try and brings an HTTP server; lincheck 0.2.1 drives
//! threads under loom and takes no recorded history.
//!
//! ```text
//! mod      what a history is, and the verdict
//! problem  a history in small numbers
//! search_state which operations are placed, and taking them back
//! search   what to place next, and what not to try
//! explain  the few operations that contradict each other, and what to say about them
//! ```

#[cfg(test)]
mod brute_force;
mod explain;
mod problem;
mod search;
mod search_state;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

pub use explain::Explanation;

use problem::Problem;
use search::{Answer, decide};

/// Says whether `history`, all operations on one key, is linearizable. `initial` is the value of
/// the key before the first operation, `None` if it was absent.
///
/// `steps_max` bounds the search: it looks at an operation at most about that often, and remembers
/// less. A history that proves illegal is then reduced and explained, with at most as many steps
/// again. [`STEPS_MAX`] is a good value.
///
/// Two operations are ordered only if one ended *before* the other began: a response and an
/// invocation with the same stamp are concurrent, even of one client. This may miss a violation,
/// but never reports a false one; to have all events ordered, stamp each from one counter.
pub fn check(history: &[Operation], initial: Option<u64>, steps_max: u64) -> Verdict {
    match decide(&Problem::new(history, initial), steps_max).0 {
        Answer::Found => Verdict::Linearizable,
        Answer::OutOfSteps => Verdict::Undecided,
        Answer::Impossible => Verdict::Violated(Box::new(explain::explain(history, initial, steps_max))),
    }
}

/// Steps that decide histories of a few thousand operations: a second or two if all are used.
pub const STEPS_MAX: u64 = 20_000_000;

/// Splits a history by key; within a key, operations keep their order.
pub fn by_key<K: Ord>(history: impl IntoIterator<Item = (K, Operation)>) -> BTreeMap<K, Vec<Operation>> {
    let mut keys: BTreeMap<K, Vec<Operation>> = BTreeMap::new();
    for (key, operation) in history {
        keys.entry(key).or_default().push(operation);
    }
    keys
}

/// The result of [`check`] for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// An order exists.
    Linearizable,
    /// No order exists.
    Violated(Box<Explanation>),
    /// The steps ran out first, so the history may be either: retry with more steps, or
    /// record shorter histories.
    Undecided,
}

/// One operation of one client on the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The client that asked; used only in reports.
    pub client: u64,
    /// The call that the client made.
    pub call: Call,
    /// The moment of the call. Stamps are moments of any one order, such as nanoseconds or a
    /// counter of events.
    pub invoked: u64,
    /// The result, as far as the client knows.
    pub outcome: Outcome,
}

/// A request of a client. Values are opaque numbers; the same may be written twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Sets the value of the key.
    Write(u64),
    /// Returns the value, or its absence.
    Read,
    /// Compare and swap: sets the value if the key holds the expected one.
    Cas {
        /// The value that the key must hold; `None`: it must be absent.
        expect: Option<u64>,
        /// The value afterwards, if it swapped.
        new: u64,
    },
    /// Makes the key absent.
    Delete,
}

/// The result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect once, no later than the moment `at`. A response before its invocation
    /// is a violation.
    Completed {
        /// The moment of the response.
        at: u64,
        /// The reply. One that belongs to another kind of call is a violation.
        reply: Reply,
    },
    /// Unknown to the client: the operation took effect once, at any moment after its invocation,
    /// however late, or never.
    Unknown,
    /// The operation did not and will not take effect. The search leaves it out, so a read of its
    /// effect is a violation; it stays in the history only to be named in that case.
    Failed,
}

/// The reply to a completed operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Reply to [`Call::Write`].
    Written,
    /// To [`Call::Read`]: the value, `None` if the key was absent.
    Value(Option<u64>),
    /// To [`Call::Cas`]: whether the key held the expected value.
    Swapped(bool),
    /// To [`Call::Delete`]: whether the key had a value.
    Existed(bool),
}

impl Operation {
    /// The moment of the response; `None` without one.
    fn responded(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Completed { at, .. } => Some(at),
            Outcome::Unknown | Outcome::Failed => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (client, invoked) = (self.client, self.invoked);
        match self.outcome {
            Outcome::Completed { at, .. } => write!(f, "client {client} [{invoked}..{at}] ")?,
            Outcome::Unknown | Outcome::Failed => write!(f, "client {client} [{invoked}..] ")?,
        }
        write!(f, "{}: {}", self.call, self.outcome)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Write(value) => write!(f, "write {value}"),
            Call::Read => write!(f, "read"),
            Call::Cas { expect: Some(expect), new } => write!(f, "cas {expect} -> {new}"),
            Call::Cas { expect: None, new } => write!(f, "cas absent -> {new}"),
            Call::Delete => write!(f, "delete"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Completed { reply, .. } => write!(f, "{reply}"),
            Outcome::Unknown => write!(f, "unknown"),
            Outcome::Failed => write!(f, "failed"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Written => write!(f, "written"),
            Reply::Value(Some(value)) => write!(f, "value {value}"),
            Reply::Value(None) => write!(f, "absent"),
            Reply::Swapped(true) => write!(f, "swapped"),
            Reply::Swapped(false) => write!(f, "not swapped"),
            Reply::Existed(true) => write!(f, "existed"),
            Reply::Existed(false) => write!(f, "did not exist"),
        }
    }
}
