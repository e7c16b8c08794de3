//! The history of one key: the operations of its clients, with the results that the clients know.

use std::{collections::BTreeMap, fmt};

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

/// Splits a history by key; within a key, operations keep their order.
pub fn by_key<K: Ord>(history: impl IntoIterator<Item = (K, Operation)>) -> BTreeMap<K, Vec<Operation>> {
    let mut keys: BTreeMap<K, Vec<Operation>> = BTreeMap::new();
    for (key, operation) in history {
        keys.entry(key).or_default().push(operation);
    }
    keys
}

impl Operation {
    /// The moment of the response; `None` without one.
    pub(super) fn responded(&self) -> Option<u64> {
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
