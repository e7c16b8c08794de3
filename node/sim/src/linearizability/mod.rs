//! A linearizability checker for a few keys: is there an order of the operations, each at one moment
//! between its invocation and its response, in which a map would have given the same answers?
//!
//! The module owns the search for that order and the explanation when there is none. It knows
//! nothing of the simulator, keeps no clock and draws no random numbers: the same history gets the
//! same verdict. The checker of a run records the operations, splits them by group of keys
//! ([`by_group`]) and calls [`check`] for each group. Linearizability is local: a history is
//! linearizable if its part for each object is. An object is a key, unless some call touches several
//! keys at once: then all keys that such calls connect are one object, and splitting further would
//! miss a listing of two states, or a half of a transaction. Callers keep groups small, at most
//! [`KEYS_MAX`] keys, because a search walks through the states of the whole group.
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
//! history  what clients asked, and what they were told
//! problem  a history in small numbers
//! search_state which operations are placed, and taking them back
//! search   what to place next, and what not to try
//! explain  the few operations that contradict each other, and what to say about them
//! ```

#[cfg(test)]
mod brute_force;
mod explain;
mod history;
mod problem;
mod search;
mod search_state;
#[cfg(test)]
mod tests;

pub use explain::Explanation;
pub use history::{Call, KEYS_MAX, Operation, Outcome, Reply, Txn, Values, by_group};

use problem::Problem;
use search::{Answer, decide};

/// Says whether `history`, all operations on the keys of one group, is linearizable. `initial` has
/// the values before the first operation, `None` for a key that was absent or is not used.
///
/// `steps_max` bounds the search: it looks at an operation at most about that often, and remembers
/// less. A history that proves illegal is then reduced and explained, with at most as many steps
/// again. [`STEPS_MAX`] is a good value.
///
/// Two operations are ordered only if one ended *before* the other began: a response and an
/// invocation with the same stamp are concurrent, even of one client. This may miss a violation,
/// but never reports a false one; to have all events ordered, stamp each from one counter.
pub fn check(history: &[Operation], initial: Values, steps_max: u64) -> Verdict {
    match decide(&Problem::new(history, initial), steps_max).0 {
        Answer::Found => Verdict::Linearizable,
        Answer::OutOfSteps => Verdict::Undecided,
        Answer::Impossible => Verdict::Violated(Box::new(explain::explain(history, initial, steps_max))),
    }
}

/// Steps that decide histories of a few thousand operations: a second or two if all are used.
pub const STEPS_MAX: u64 = 20_000_000;

/// The result of [`check`] for one group of keys.
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
