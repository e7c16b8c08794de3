//! Internal entries: appended by a leader for the layer of services, never for a client.
//!
//! This module owns the first byte of the payload alone, which says what the rest is. The rest gets
//! its layout, and its meaning, from the node that applies it.

use crate::entry::Malformed;

/// The purpose of an entry of [`Kind::Internal`](crate::Kind::Internal), the first byte of its
/// payload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Purpose {
    /// An effect was performed, with this result.
    Done = 1,
    /// A node claims the hashes of what it applied.
    Claim = 2,
    /// Commands of a newer schema may be appended from here on.
    Version = 3,
    /// An entry is to be skipped.
    Skip = 4,
}

/// The purpose of an internal entry, and the rest of its payload.
///
/// # Errors
/// If the payload is empty, or a newer release gives it another purpose.
pub fn decode(payload: &[u8]) -> Result<(Purpose, &[u8]), Malformed> {
    let (first, rest) = payload.split_first().ok_or(Malformed { offset: 0, what: "empty internal entry" })?;
    let purpose = match first {
        1 => Purpose::Done,
        2 => Purpose::Claim,
        3 => Purpose::Version,
        4 => Purpose::Skip,
        _ => return Err(Malformed { offset: 0, what: "purpose of an internal entry" }),
    };
    Ok((purpose, rest))
}
