//! Why connections are closed.

use quinn::VarInt;

/// Why this side closes a connection: the application error code that the peer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Close {
    /// The node stops, or the link is no longer wanted.
    Goodbye = 0,
    /// A newer connection of the same peer took its place.
    Replaced = 1,
    /// The certificate or the hello names a node or a cluster that is not accepted here.
    Identity = 2,
    /// No hello in time, or one of another protocol.
    Protocol = 3,
    /// Bytes that are not frames.
    Malformed = 4,
    /// A frame was begun and not ended in time.
    Stalled = 5,
    /// It sent malformed bytes a moment ago.
    BackOff = 6,
    /// Another live process uses its id.
    Twin = 7,
    /// Its certificate counts no more: it has expired, is revoked, or its authority is trusted no more.
    Certificate = 8,
}

impl Close {
    pub(super) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}
