//! Internal entries: appended by a leader for the layer of services, never for a client.
//!
//! This module owns the first byte of the payload, which says what the rest is. The rest gets its
//! layout, and its meaning, from the node that applies it. The one exception is the generation: no
//! leader appends it, but the tool that makes a log from another cluster's data.

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
    /// The generation of the cluster is this one from here on: indexes and terms may have gone back.
    Generation = 5,
}

/// The payload of an entry that raises the generation: the purpose, and 4 bytes, little-endian.
#[must_use]
pub fn generation(generation: u32) -> [u8; 5] {
    let [a, b, c, d] = generation.to_le_bytes();
    [Purpose::Generation as u8, a, b, c, d]
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
        5 => Purpose::Generation,
        _ => return Err(Malformed { offset: 0, what: "purpose of an internal entry" }),
    };
    Ok((purpose, rest))
}
