//! Kinds of entries, the checksum over them, and the error for bytes that are no entries.

use core::fmt;

/// Continues a checksum over more bytes: `checksum(checksum(0, a), b) == checksum(0, a ++ b)`.
pub type Checksum = fn(u32, &[u8]) -> u32;

/// What an entry is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Appended by a new leader so that it can commit what came before (paper §8). No payload.
    Noop = 0,
    /// A client's command; the payload is the state machine's business.
    Command = 1,
    /// A change of membership.
    Membership = 2,
    /// A client's command that is applied once however often it is in the log, or what opens a session: see
    /// [`session`](crate::session).
    Session = 3,
    /// What a witness keeps of a command, of whatever kind: its identity.
    Outline = 4,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Noop),
            1 => Some(Self::Command),
            2 => Some(Self::Membership),
            3 => Some(Self::Session),
            4 => Some(Self::Outline),
            _ => None,
        }
    }
}

/// Bytes that are not a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Where, from the start of the bytes.
    pub offset: usize,
    /// What was wrong there.
    pub what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed record at byte {}: {}", self.offset, self.what)
    }
}

impl core::error::Error for Malformed {}
