//! Kinds of log entries, the checksum function, and the error for malformed bytes.

use core::fmt;

/// Continues a checksum over more bytes: `checksum(checksum(0, a), b) == checksum(0, a ++ b)`.
pub type Checksum = fn(u32, &[u8]) -> u32;

/// The purpose of an entry, one byte of its record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Appended by a new leader so that it can commit the entries before it (paper §8). No payload.
    Noop = 0,
    /// A client's command, opaque to the rules.
    Command = 1,
    /// A configuration of the cluster, in force as soon as the entry is in a log.
    Membership = 2,
    /// A client's command that is applied once however often it is in the log, or a request to open
    /// a session: see [`session`](crate::session).
    Session = 3,
    /// A stub that a witness keeps for an entry that the rules do not read: its identity and
    /// checksum without the payload.
    Stub = 4,
    /// The leader moves log time on: see [`tick`](crate::tick).
    Tick = 5,
    /// An entry of the leader for the layer of services: see [`internal`](crate::internal).
    Internal = 6,
}

impl Kind {
    /// Whether a witness keeps only a stub: the rules do not read the payload.
    #[must_use]
    pub const fn has_stub(self) -> bool {
        match self {
            Self::Command | Self::Session | Self::Tick | Self::Internal => true,
            Self::Noop | Self::Membership | Self::Stub => false,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Noop),
            1 => Some(Self::Command),
            2 => Some(Self::Membership),
            3 => Some(Self::Session),
            4 => Some(Self::Stub),
            5 => Some(Self::Tick),
            6 => Some(Self::Internal),
            _ => None,
        }
    }
}

/// Bytes that are not what they should be: a record, a batch, or the payload of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Malformed {
    /// Offset of the fault from the start of the bytes.
    pub offset: usize,
    /// A short description of the fault.
    pub what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed record at byte {}: {}", self.offset, self.what)
    }
}

impl core::error::Error for Malformed {}
