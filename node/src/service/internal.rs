//! The internal entries of the layer itself: the result of an effect, a claim, the version of the
//! cluster, and its generation.
//!
//! The first byte of the payload is the [`Purpose`]. The rest is in postcard, but for the
//! [generation](internal::generation).

use super::{encoding::whole, outbox::EffectId, windows::Claim};
use quorate_raft::{
    NodeId, Term,
    internal::{self, Purpose},
};
use serde::{Deserialize, Serialize};

/// The content of an internal entry that the layer applies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Internal<'a> {
    /// An effect was performed.
    Done(Done<'a>),
    /// A full copy states what it has in a window.
    Claim(Claimed),
    /// Commands of this version may be applied from here on. Appended by the leader once every
    /// member reads them.
    Version(u32),
    /// Tokens are of this generation from here on, unless theirs is higher. No leader appends it:
    /// it stands in the log of the first member of a cluster that was recovered or restored.
    Generation(u32),
}

/// The result of an effect. Appended by the leader that performed it, never forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done<'a> {
    /// Identity of the effect that was performed.
    pub id: EffectId,
    /// The term of the leader that performed it.
    pub term: Term,
    /// The signal that the author's handler returned, in postcard.
    pub signal: &'a [u8],
}

impl std::fmt::Debug for Done<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Done")
            .field("id", &self.id)
            .field("term", &self.term)
            .field("signal", &format_args!("{} B", self.signal.len()))
            .finish()
    }
}

/// A node's claim of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claimed {
    /// The full copy that claims.
    pub node: NodeId,
    /// Number of the window, which is over.
    pub window: u64,
    /// Its hashes there.
    pub claim: Claim,
}

impl<'a> Internal<'a> {
    /// The payload of its entry.
    ///
    /// # Errors
    /// None in practice: every value has a form.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        match self {
            Self::Done(done) => postcard::to_extend(done, vec![Purpose::Done as u8]),
            Self::Claim(claimed) => postcard::to_extend(claimed, vec![Purpose::Claim as u8]),
            Self::Version(version) => postcard::to_extend(version, vec![Purpose::Version as u8]),
            Self::Generation(generation) => Ok(internal::generation(*generation).to_vec()),
        }
    }

    /// Reads the payload of an entry; `None` if this release does not know it.
    #[must_use]
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        let (purpose, rest) = internal::decode(payload).ok()?;
        match purpose {
            Purpose::Done => whole(rest).map(Self::Done),
            Purpose::Claim => whole(rest).map(Self::Claim),
            Purpose::Version => whole(rest).map(Self::Version),
            Purpose::Generation => rest.try_into().ok().map(|bytes| Self::Generation(u32::from_le_bytes(bytes))),
            // An entry that is skipped is none of the machine's.
            Purpose::Skip => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_raft::Index;

    #[test]
    fn the_layout_is_fixed_and_every_byte_is_used() {
        let id = EffectId { index: Index(300), nth: 1 };
        let done = Internal::Done(Done { id, term: Term(2), signal: b"ab" });
        let claim = Claim { version: 1, outcomes: 0x81, state: Some(5) };
        let claimed = Internal::Claim(Claimed { node: NodeId(3), window: 4, claim });
        let cases = [
            (done, &[1, 0xac, 2, 1, 2, 2, b'a', b'b'][..]),
            (claimed, &[2, 3, 4, 1, 0x81, 1, 1, 5]),
            (Internal::Version(300), &[3, 0xac, 2]),
            (Internal::Generation(300), &[5, 0x2c, 1, 0, 0]),
        ];
        for (internal, bytes) in cases {
            assert_eq!(internal.encode().expect("it has a form"), bytes);
            assert_eq!(Internal::decode(bytes), Some(internal));
            (0..bytes.len()).for_each(|end| assert_eq!(Internal::decode(&bytes[..end]), None, "cut at {end}"));
            assert_eq!(Internal::decode(&[bytes, &[0]].concat()), None, "a byte too many");
        }
        assert_eq!(Internal::decode(&[9, 0]), None);
        assert_eq!(Internal::decode(&[Purpose::Skip as u8, 0]), None);
    }
}
