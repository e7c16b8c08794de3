//! What an entry of a client session says besides its command (thesis §6.3): whose it is, which of that client's commands,
//! and when, in log time.
//!
//! It owns the layout alone. What the cluster remembers of sessions is the state of whoever applies the entries; the state
//! machine behind that sees nothing but the command. The payload of an entry of [`Kind::Session`](crate::Kind::Session),
//! little-endian:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | log time of the entry, in milliseconds |
//! | 8 | 4 | after how many milliseconds of log time a session that is not used is forgotten |
//! | 12 | 4 | how many sessions there may be |
//! | 16 | 1 | 0 opens a session, 1 a command of an opened one, 2 a command of a named one |
//! | 17 | 1 | length of the key: 0 to open, 8 of an opened session, 1 to 64 of a named one |
//! | 18 | 8 | the command's serial; 0 to open |
//! | 26 | length | the key: the index of the entry that opened the session, or its name |
//! | 26 + length | … | the command; nothing to open |
//!
//! The first 16 bytes are the [`Stamp`], which the leader writes as it appends. A client's node makes the rest, the
//! [`Request`], and that is what is forwarded. The bounds of the table stand in each entry, so that all nodes agree on them
//! whatever each is configured with.

use crate::{entry::Malformed, ids::Index};
use alloc::{sync::Arc, vec::Vec};
use bytes::Bytes;
use core::fmt;

/// Bytes of a [`Stamp`].
pub const STAMP_BYTES: usize = 16;
/// The longest name of a session.
pub const NAME_BYTES_MAX: usize = 64;
/// The most bytes that stand in front of a command in a [`Request`].
pub const REQUEST_OVERHEAD_BYTES: usize = REQUEST_HEAD_BYTES + NAME_BYTES_MAX;

const REQUEST_HEAD_BYTES: usize = 10;

/// A moment in *log time*, in milliseconds: the time that leaders have counted while they led. All nodes agree on it, for it
/// stands in the log; no clock on a wall has a part in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LogTime(pub u64);

/// What the leader adds to a request as it appends it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stamp {
    /// When it is appended.
    pub time: LogTime,
    /// After how many milliseconds of log time a session that is not used is forgotten.
    pub idle_limit_ms: u32,
    /// How many sessions there may be.
    pub sessions_max: u32,
}

impl Stamp {
    /// Its bytes.
    #[must_use]
    pub fn encode(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..8].copy_from_slice(&self.time.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.idle_limit_ms.to_le_bytes());
        bytes[12..].copy_from_slice(&self.sessions_max.to_le_bytes());
        bytes
    }
}

/// Which session. Opened ones and named ones never meet, whatever the names are. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(Key);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    /// Opened by the entry at this index: so no two are the same.
    Opened(Index),
    Named(Arc<[u8]>),
}

impl SessionKey {
    /// The session that the entry at `index` opened.
    #[must_use]
    pub fn opened(index: Index) -> Self {
        Self(Key::Opened(index))
    }

    /// The session of this name, which its clients choose; `None` unless it has 1 to [`NAME_BYTES_MAX`] bytes.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        (1..=NAME_BYTES_MAX).contains(&name.len()).then(|| Self(Key::Named(name.into())))
    }

    /// Whether it had to be opened, rather than coming into being with its first command.
    #[must_use]
    pub fn is_opened(&self) -> bool {
        matches!(self.0, Key::Opened(_))
    }

    /// Its tag and the bytes that stand for it.
    pub fn with_bytes<T>(&self, use_them: impl FnOnce(u8, &[u8]) -> T) -> T {
        match &self.0 {
            Key::Opened(index) => use_them(1, &index.0.to_le_bytes()),
            Key::Named(name) => use_them(2, name),
        }
    }

    /// The session of which these are tag and bytes.
    #[must_use]
    pub fn from_bytes(tag: u8, bytes: &[u8]) -> Option<Self> {
        match tag {
            1 => bytes.try_into().ok().map(|index| Self::opened(Index(u64::from_le_bytes(index)))),
            2 => Self::named(bytes),
            _ => None,
        }
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Key::Opened(index) => write!(f, "SessionKey(opened at {index})"),
            Key::Named(name) => write!(f, "SessionKey({})", name.escape_ascii()),
        }
    }
}

/// What a client wants of its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// To have one.
    Open,
    /// That a command is applied, once.
    Command {
        /// Its session.
        key: SessionKey,
        /// Which of the session's commands: each has its own, also if it is sent again.
        serial: u64,
        /// The state machine's business.
        command: &'a [u8],
    },
}

impl<'a> Request<'a> {
    /// Reads what stands behind a stamp, or was forwarded without one.
    ///
    /// # Errors
    /// If it is not laid out as above.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let wrong = |offset, what| Malformed { offset, what };
        let head = bytes.split_first_chunk::<REQUEST_HEAD_BYTES>().ok_or(wrong(0, "what a session says is cut off"))?;
        let ([tag, length, serial @ ..], rest) = head;
        let serial = number(serial);
        if *tag == 0 {
            let is_bare = *length == 0 && serial == 0 && rest.is_empty();
            return is_bare.then_some(Self::Open).ok_or(wrong(1, "more than what opens a session"));
        }
        let at = REQUEST_HEAD_BYTES;
        let (key, command) = rest.split_at_checked((*length).into()).ok_or(wrong(at, "a session's key is cut off"))?;
        let key = SessionKey::from_bytes(*tag, key).ok_or(wrong(0, "no session's key"))?;
        Ok(Self::Command { key, serial, command })
    }

    /// Its bytes, without a stamp.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let Self::Command { key, serial, command } = self else {
            return Bytes::from_static(&[0; REQUEST_HEAD_BYTES]);
        };
        key.with_bytes(|tag, key| {
            let mut bytes = Vec::with_capacity(REQUEST_HEAD_BYTES + key.len() + command.len());
            // A key has 64 bytes at most.
            bytes.extend_from_slice(&[tag, key.len() as u8]);
            bytes.extend_from_slice(&serial.to_le_bytes());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(command);
            bytes.into()
        })
    }
}

/// Reads the payload of an entry of a session.
///
/// # Errors
/// If it is not laid out as above.
pub fn decode(payload: &[u8]) -> Result<(Stamp, Request<'_>), Malformed> {
    let cut_off = Malformed { offset: 0, what: "a session's stamp is cut off" };
    let (stamp, request) = payload.split_first_chunk::<STAMP_BYTES>().ok_or(cut_off)?;
    let stamp = Stamp {
        time: LogTime(number(&stamp[..8])),
        idle_limit_ms: number(&stamp[8..12]) as u32,
        sessions_max: number(&stamp[12..]) as u32,
    };
    match Request::decode(request) {
        Ok(request) => Ok((stamp, request)),
        Err(Malformed { offset, what }) => Err(Malformed { offset: offset + STAMP_BYTES, what }),
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
