//! The history of a group of keys: the operations of its clients, with the results that the clients
//! know.

use std::{collections::BTreeMap, fmt};

/// The most keys of a history. Each further key multiplies the states that a search may reach.
pub const KEYS_MAX: usize = 3;

/// The value of each key of a group, `None` where it is absent.
pub type Values = [Option<u64>; KEYS_MAX];

/// One operation of one client on the keys of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The client that asked; used only in reports.
    pub client: u64,
    /// The key of a call of one key, as its number in the group, below [`KEYS_MAX`]. Calls of
    /// several keys ignore it.
    pub key: usize,
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
    /// Returns the values of all keys of the group.
    List,
    /// Changes several keys if others hold expected values.
    Txn(Txn),
}

/// A transaction, for each key of the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The value that the key must hold, `Some(None)` if it must be absent; `None`: any.
    pub compare: [Option<Option<u64>>; KEYS_MAX],
    /// If all keys are as expected: the value afterwards, `Some(None)` if the key is removed;
    /// `None`: unchanged.
    pub change: [Option<Option<u64>>; KEYS_MAX],
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
    /// To [`Call::List`]: the values.
    Listed(Values),
    /// To [`Call::Txn`]: whether all keys held the expected values.
    Succeeded(bool),
}

/// Splits a history by group; within a group, operations keep their order. A group is a key, or
/// all keys that calls of several keys connect.
pub fn by_group<G: Ord>(history: impl IntoIterator<Item = (G, Operation)>) -> BTreeMap<G, Vec<Operation>> {
    let mut groups: BTreeMap<G, Vec<Operation>> = BTreeMap::new();
    for (group, operation) in history {
        groups.entry(group).or_default().push(operation);
    }
    groups
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
        match self.call {
            Call::List | Call::Txn(_) => {}
            Call::Write(_) | Call::Read | Call::Cas { .. } | Call::Delete => write!(f, "key {} ", self.key)?,
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
            Call::List => write!(f, "list"),
            Call::Txn(Txn { compare, change }) => {
                write!(f, "txn")?;
                for (key, expect) in compare.iter().enumerate() {
                    match expect {
                        Some(Some(value)) => write!(f, " if key {key} holds {value}")?,
                        Some(None) => write!(f, " if key {key} is absent")?,
                        None => {}
                    }
                }
                for (key, value) in change.iter().enumerate() {
                    match value {
                        Some(Some(value)) => write!(f, " write {value} to key {key}")?,
                        Some(None) => write!(f, " delete key {key}")?,
                        None => {}
                    }
                }
                Ok(())
            }
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
            Reply::Succeeded(true) => write!(f, "succeeded"),
            Reply::Succeeded(false) => write!(f, "not succeeded"),
            Reply::Listed(values) => write!(f, "{}", State(*values)),
        }
    }
}

/// The keys of a group that have a value, in words.
pub(super) struct State(pub(super) Values);

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.0.iter().enumerate().filter_map(|(key, value)| Some((key, (*value)?)));
        let held = values.map(|(key, value)| format!("key {key} holds {value}")).collect::<Vec<_>>();
        if held.is_empty() { f.write_str("no key has a value") } else { f.write_str(&held.join(", ")) }
    }
}
