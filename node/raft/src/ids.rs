//! Newtypes for terms, indexes, nodes and entry ids: none of them is ever a bare integer.

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
    /// Raft's logical clock (paper §5.1). 0 is "before any election"; it never decreases
    /// on one node.
    Term(u64)
);
number!(
    /// A position in the log. The first entry has index 1; 0 is "before the log".
    Index(u64)
);
number!(
    /// The Raft group of a message or record. Always 0 today: the field is reserved for groups that
    /// share connections and a log.
    Group(u32)
);

/// The identity of a cluster: its [generation](ClusterId::generation) in the upper 32 bits, the rest
/// is random. Stated by the first leader's first entry, and made anew by each restore or recovery.
/// Two clusters of one name have different ones. Displayed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// The id of this generation with the lower 96 bits of `random`.
    #[must_use]
    pub fn new(generation: u32, random: u128) -> Self {
        Self(u128::from(generation) << 96 | random & (u128::MAX >> 32))
    }

    /// 0 of a cluster that was formed. Of one that an operator recovered or restored, the Unix time
    /// of that in seconds, and always above the generation of the cluster that the data is of.
    #[must_use]
    pub fn generation(self) -> u32 {
        (self.0 >> 96) as u32
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Term {
    /// The next term, saturating.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Index {
    /// The next index, saturating.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The previous index; 0 stays 0.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// This index plus `count` entries, saturating.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// Number of entries in `(other, self]`; 0 if `other` is not below.
    #[must_use]
    pub fn since(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

/// The identity of an entry: equal ids mean equal entries and equal logs before them (Log
/// Matching, paper §5.3).
///
/// The order is term first, then index: the "at least as up-to-date" order of paper §5.4.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct EntryId {
    /// The term of the leader that created the entry.
    pub term: Term,
    /// Position in the log, from 1.
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

/// An entry that an operator marks to be skipped: its command is answered with an error and not
/// applied. The checksum covers the entry and, through the chain, all entries before it, so no
/// other entry can be meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Skip {
    /// Position in the log, from 1.
    pub index: Index,
    /// The term of the leader that created the entry.
    pub term: Term,
    /// The checksum of its record.
    pub checksum: u32,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} of term {} with checksum 0x{:08x}", self.index, self.term, self.checksum)
    }
}

/// A point on one node's monotonic clock: time since that node started. Never
/// compared between nodes.
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
