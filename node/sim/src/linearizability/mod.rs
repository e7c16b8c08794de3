//! Judges what clients saw of one key: is there an order of the operations, each at one moment between its invocation
//! and its response, in which a single register would have answered the same?
//!
//! It owns the search for that order and the explanation when there is none. It knows nothing of the simulator, keeps
//! no clock and draws no random numbers: the same history gets the same verdict. The checker of a run records the
//! operations, parts them by key ([`by_key`]) and asks [`check`] for each key. Linearizability is local: a history is
//! linearizable if it is so key by key.
//!
//! The search is Wing and Gong's ("Testing and verifying concurrent objects", 1993) with Lowe's memory of what was
//! tried ("Testing for linearizability", 2017) and the linked lists of Horn and Kroening ("Faster linearizability
//! checking via P-compositionality", 2015). What else cuts it is listed in `search` and `problem`, with the reason why
//! it cannot change the verdict; the tests compare with a twin that has none of it.
//!
//! No crate is used for it. todc-utils 0.1.1 has the same search, but every call needs a response, it has no bound, and
//! its answer is a bare yes or no; stateright 0.31 knows pending operations, but remembers nothing of what it tried and
//! brings an HTTP server; lincheck 0.2.1 drives threads under loom and takes no recorded history.
//!
//! ```text
//! mod      what a history is, and the verdict
//! problem  a history in small numbers
//! board    which operations are placed, and taking them back
//! search   what to place next, and what not to try
//! explain  the few operations that contradict each other, and what to say about them
//! ```

mod board;
mod explain;
mod problem;
mod search;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;

use std::{collections::BTreeMap, fmt};

pub use explain::Explanation;

use problem::Problem;
use search::{Answer, decide};

/// Says whether `history`, all operations on one key, is linearizable. `initial` is what the key held before, `None` if
/// it was absent.
///
/// `steps_max` bounds the search: it looks at an operation at most about that often, and remembers less. A history that
/// proves illegal is then made smaller and explained, with at most as many steps again. [`STEPS_MAX`] is a good value.
///
/// Two operations are ordered only if one ended *before* the other began: a response and an invocation with the same
/// stamp are concurrent, whoever the clients are. That finds less, never too much; who wants equal stamps ordered
/// stamps every event from a counter.
pub fn check(history: &[Operation], initial: Option<u64>, steps_max: u64) -> Verdict {
    match decide(&Problem::new(history, initial), steps_max).0 {
        Answer::Found => Verdict::Linearizable,
        Answer::OutOfSteps => Verdict::Undecided,
        Answer::Impossible => Verdict::Violated(Box::new(explain::explain(history, initial, steps_max))),
    }
}

/// Steps that decide histories of a few thousand operations: a second or two of work, if all are used.
pub const STEPS_MAX: u64 = 20_000_000;

/// Parts a history by key; within a key, operations keep their order.
pub fn by_key<K: Ord>(history: impl IntoIterator<Item = (K, Operation)>) -> BTreeMap<K, Vec<Operation>> {
    let mut keys: BTreeMap<K, Vec<Operation>> = BTreeMap::new();
    for (key, operation) in history {
        keys.entry(key).or_default().push(operation);
    }
    keys
}

/// What [`check`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none.
    Violated(Box<Explanation>),
    /// The steps ran out first. Says nothing of the history: ask again with more steps, or keep histories shorter.
    Undecided,
}

/// What one client did to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who; for the reader only.
    pub client: u64,
    /// What was asked for.
    pub call: Call,
    /// When it was asked for. Stamps are moments of any one order, such as nanoseconds or a counter of events.
    pub invoked: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a client asks for. Values are opaque numbers; the same may be written twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Sets the value.
    Write(u64),
    /// Returns the value.
    Read,
    /// Sets the value if the key holds what is expected.
    Cas {
        /// What the key must hold; `None`: it must be absent.
        expect: Option<u64>,
        /// What it then holds.
        new: u64,
    },
    /// Makes the key absent.
    Delete,
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect once, no later than the moment `at`. A response before its invocation is a violation.
    Completed {
        /// When the response came.
        at: u64,
        /// What it said. A reply of another call's kind is a violation.
        reply: Reply,
    },
    /// Nobody can tell: it took effect once, at any moment after its invocation, however late, or never.
    Unknown,
    /// It did not and will not take effect. The search leaves it out, so whoever sees its effect is in the wrong; it is
    /// part of the history only to be named then.
    Failed,
}

/// What a completed operation answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Call::Write`].
    Written,
    /// To [`Call::Read`]: the value, `None` if the key was absent.
    Value(Option<u64>),
    /// To [`Call::Cas`]: whether it held what was expected.
    Swapped(bool),
    /// To [`Call::Delete`]: whether there was something to delete.
    Existed(bool),
}

impl Operation {
    /// When it ended, if it did.
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
