//! The words that everything else is said in. A term, an index and a node are never bare integers.

use core::{fmt, time::Duration};
use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A member of the cluster. Chosen by the operator, never reused for another data directory.
    NodeId(u64)
);
number!(
    /// Raft's logical clock (paper §5.1). 0 is "before any election"; it never decreases on one node.
    Term(u64)
);
number!(
    /// A position in the log. The first entry has index 1; 0 is "before the log".
    Index(u64)
);
number!(
    /// Which Raft group a message or record belongs to. Always 0 for now: groups will share connections and a log.
    Group(u32)
);

/// The identity of a cluster: a random number that the first leader's first entry states, and each restore or recovery draws
/// anew. Two clusters of one name have different ones. Displayed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Term {
    /// The term after this one, saturating.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Index {
    /// The index after this one, saturating.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The index before this one; 0 stays 0.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// This index moved up by `count` entries, saturating.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How many entries lie in `(other, self]`; 0 if `other` is not below.
    #[must_use]
    pub fn since(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

/// What identifies an entry: equal ids mean equal entries and equal logs before them (Log Matching, paper §5.3).
///
/// The order is term first, then index: it is the "at least as up-to-date" order of paper §5.4.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct EntryId {
    /// The term of the leader that created the entry.
    pub term: Term,
    /// Its place in the log.
    pub index: Index,
}

impl EntryId {
    /// The id of the entry at `index` created in `term`.
    #[must_use]
    pub fn new(term: Term, index: Index) -> Self {
        Self { term, index }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// An entry that an operator names to be skipped: its command is answered with an error and not applied. The checksum covers the
/// entry and, through the chain, all before it, so no other entry can be meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Skip {
    /// Its place in the log.
    pub index: Index,
    /// The term of the leader that created it.
    pub term: Term,
    /// The checksum of its record.
    pub checksum: u32,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} of term {} with checksum 0x{:08x}", self.index, self.term, self.checksum)
    }
}

/// A point on one node's monotonic clock: time since that node started. Never compared between nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Moment(pub Duration);

impl Moment {
    /// The time that passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `after` later.
    #[must_use]
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(after))
    }
}
