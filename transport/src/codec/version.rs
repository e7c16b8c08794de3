//! Versions of the frames: which exist, which two nodes speak, and how a message's form
//! differs between them.
//!
//! This is the one place where versions differ. [`wire`] states the forms of [`Version::CURRENT`];
//! each older version that is still spoken has its differences in [`write`] and [`read`]. A field
//! that an older version lacks is left out when that version is written and has a default when it
//! is read. A change that allows no such default is another protocol, with another ALPN.
//!
//! Not here: connections, and the meaning of messages.
//!
//! # How a version comes and goes
//!
//! A release that changes a message raises `CURRENT`, keeps `OLDEST`, and writes the older form
//! here; the release after it may raise `OLDEST`. So neighbouring releases always share a version,
//! and a cluster is upgraded node by node. The versions before 6 are the one exception: no release
//! spoke them, so `OLDEST` rose to 6 together with `CURRENT`.
//!
//! The feature `next-wire` adds a version that does not exist yet, so that tests can run a cluster
//! of both. A range includes it only if a test asks for that.

use super::{
    Growing,
    wire::{self, Wire},
};
use bytes::BytesMut;
use quorate_raft::Message;
use std::fmt;

/// A version of the frames: of their layout, and of the messages in them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version(u8);

impl Version {
    /// The oldest version that this release speaks.
    pub const OLDEST: Self = Self(6);
    /// The newest version that this release speaks.
    pub const CURRENT: Self = Self(6);
    /// The version of a hello's form, which is read before anything is agreed on. A hello of
    /// another one is refused by name.
    pub const OF_HELLO: Self = Self(2);
    /// A version that does not exist yet, for tests: its heartbeat has one more field.
    #[cfg(feature = "next-wire")]
    pub const NEXT: Self = Self(Self::CURRENT.0 + 1);

    /// The byte in a frame's header.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A range of versions that a node speaks: all from the oldest to the newest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    oldest: Version,
    newest: Version,
}

impl Versions {
    /// The range of this release.
    pub const SPOKEN: Self = Self { oldest: Version::OLDEST, newest: Version::CURRENT };

    /// Another range, for tests; `None` if `newest` is older than `oldest`.
    #[cfg(feature = "next-wire")]
    #[must_use]
    pub fn between(oldest: Version, newest: Version) -> Option<Self> {
        (oldest <= newest).then_some(Self { oldest, newest })
    }

    /// The oldest of them.
    #[must_use]
    pub const fn oldest(self) -> Version {
        self.oldest
    }

    /// The newest of them.
    #[must_use]
    pub const fn newest(self) -> Version {
        self.newest
    }

    /// The version to speak with a peer that claims to speak `min` to `max`: the newest one that
    /// both speak, so both sides choose the same. `None` if they share none, or if the claim is
    /// invalid: version 0, or `min` above `max`.
    #[must_use]
    pub fn shared_with(self, min: u8, max: u8) -> Option<Version> {
        let newest = Version(self.newest.0.min(max));
        (min > 0 && min <= max && newest.0 >= min && newest >= self.oldest).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Claimed(self.oldest.0, self.newest.0), f)
    }
}

/// The versions that a peer claims to speak, displayed for logs.
pub(crate) struct Claimed(pub(crate) u8, pub(crate) u8);

impl fmt::Display for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { write!(f, "version {}", self.0) } else { write!(f, "versions {} to {}", self.0, self.1) }
    }
}

/// Writes a message without its bulk as the metadata of a frame of this version.
pub(super) fn write(version: Version, message: &Message, to: Growing) -> postcard::Result<BytesMut> {
    wire::encode(to, |to| {
        message.write(to)?;
        match version {
            #[cfg(feature = "next-wire")]
            Version::NEXT if next::has_more(message) => next::MORE.write(to),
            _ => Ok(()),
        }
    })
}

/// Reads a message in a frame of this version; the bytes that follow it are the second part.
pub(super) fn read(version: Version, metadata: &[u8]) -> postcard::Result<(Message, &[u8])> {
    wire::decode(metadata, |from| {
        let message = Message::read(from)?;
        match version {
            #[cfg(feature = "next-wire")]
            Version::NEXT if next::has_more(&message) => u64::read(from).map(|_| message),
            _ => Ok(message),
        }
    })
}

/// The version that does not exist yet. Its heartbeat has one more field, a number. A reader of
/// either version refuses the form of the other, so a test in which heartbeats arrive spoke the
/// version that was agreed on.
#[cfg(feature = "next-wire")]
mod next {
    use quorate_raft::{Body, Message};

    pub(super) const MORE: u64 = 300;

    pub(super) fn has_more(message: &Message) -> bool {
        matches!(message.body, Body::Heartbeat(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_both_speak_is_spoken_and_both_sides_find_the_same() {
        for [a, b, c, d] in ranges() {
            let (one, other) = (of(a, b), of(c, d));
            let shared = one.shared_with(c, d);
            assert_eq!(shared, other.shared_with(a, b));
            let dumb = (0..=u8::MAX).rev().find(|version| (a..=b).contains(version) && (c..=d).contains(version));
            assert_eq!(shared, dumb.map(Version), "{one} and {other}");
        }
    }

    #[test]
    fn a_claim_that_makes_no_sense_shares_nothing() {
        let (oldest, current) = (Version::OLDEST.0, Version::CURRENT.0);
        let unordered = [(current, current - 1), (255, 0), (255, current)];
        let strange = [(0, 0), (0, current), (0, 255), (current + 1, 255), (255, 255), (1, oldest - 1)];
        for (min, max) in unordered.into_iter().chain(strange) {
            assert_eq!(Versions::SPOKEN.shared_with(min, max), None, "{min} to {max}");
        }
        assert_eq!(Versions::SPOKEN.shared_with(1, 255), Some(Version::CURRENT));
    }

    fn of(oldest: u8, newest: u8) -> Versions {
        Versions { oldest: Version(oldest), newest: Version(newest) }
    }

    /// Every pair of ranges within some versions, the last one among them.
    fn ranges() -> Vec<[u8; 4]> {
        let versions = [1, 2, 3, 4, 5, 6, 254, 255];
        let ranges: Vec<_> = versions.iter().flat_map(|a| versions.iter().map(move |b| (*a, *b))).collect();
        let ranges: Vec<_> = ranges.into_iter().filter(|(a, b)| a <= b).collect();
        ranges.iter().flat_map(|(a, b)| ranges.iter().map(move |(c, d)| [*a, *b, *c, *d])).collect()
    }
}
