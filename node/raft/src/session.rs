//! The layout of session entries (thesis §6.3): the command of a client session with its session,
//! its serial, and a time in log time.
//!
//! This module owns the layout alone. The session table belongs to the node that
//! applies the entries; the state machine sees only the command. The payload of an
//! entry of [`Kind::Session`](crate::Kind::Session), little-endian:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | log time of the entry, in milliseconds |
//! | 8 | 4 | milliseconds of log time after which an unused session expires |
//! | 12 | 4 | most sessions that the table holds |
//! | 16 | 1 | 0 opens a session, 1 a command of an opened one, 2 a command of a named one |
//! | 17 | 1 | length of the key: 0 to open, 8 of an opened session, 1 to 64 of a named one |
//! | 18 | 8 | the command's serial; 0 to open |
//! | 26 | length | the key: the index of the entry that opened the session, or its name |
//! | 26 + length | … | the command; nothing to open |
//!
//! The first 16 bytes are the [`Stamp`], which the leader writes when it appends the entry. A
//! client's node makes the rest, the [`Request`], which may be forwarded. The bounds of the table
//! stand in each entry, so that all nodes agree on them even if they are configured differently.

use crate::{entry::Malformed, ids::Index};
use alloc::{sync::Arc, vec::Vec};
use bytes::Bytes;
use core::{fmt, ops, time::Duration};
use serde::{Deserialize, Serialize};

/// Length of a [`Stamp`].
pub const STAMP_BYTES: usize = 16;
/// Longest name of a session.
pub const NAME_BYTES_MAX: usize = 64;
/// Most bytes before a command in a [`Request`].
pub const REQUEST_OVERHEAD_BYTES: usize = REQUEST_HEAD_BYTES + NAME_BYTES_MAX;

const REQUEST_HEAD_BYTES: usize = 10;

/// A moment in *log time*, in milliseconds: the time that leaders have counted while they led. It
/// is in the log, so all nodes agree on it; no wall clock is involved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogTime(pub u64);

impl LogTime {
    /// The time from `earlier` to this; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl ops::Add<Duration> for LogTime {
    type Output = Self;

    /// A later moment, in whole milliseconds; at most the last one.
    fn add(self, after: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The part of a session entry that the leader adds when it appends it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stamp {
    /// The log time when the entry is appended.
    pub time: LogTime,
    /// Milliseconds of log time after which an unused session expires.
    pub idle_limit_ms: u32,
    /// Most sessions that the table holds.
    pub sessions_max: u32,
}

impl Stamp {
    /// The 16 bytes at the start of a payload.
    #[must_use]
    pub fn encode(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..8].copy_from_slice(&self.time.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.idle_limit_ms.to_le_bytes());
        bytes[12..].copy_from_slice(&self.sessions_max.to_le_bytes());
        bytes
    }
}

/// The identity of a session. An opened and a named session are never the same. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(Key);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    /// Unique, because at most one session is opened by an entry.
    Opened(Index),
    Named(Arc<[u8]>),
}

impl SessionKey {
    /// The session that the entry at `index` opened.
    #[must_use]
    pub fn opened(index: Index) -> Self {
        Self(Key::Opened(index))
    }

    /// The session of this name, which its clients choose; `None` unless it has 1
    /// to [`NAME_BYTES_MAX`] bytes.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        (1..=NAME_BYTES_MAX).contains(&name.len()).then(|| Self(Key::Named(name.into())))
    }

    /// Whether it was opened by an entry; a named session exists from its first command on.
    #[must_use]
    pub fn is_opened(&self) -> bool {
        matches!(self.0, Key::Opened(_))
    }

    /// Passes its tag and its encoded bytes to `use_them`.
    pub fn with_bytes<T>(&self, use_them: impl FnOnce(u8, &[u8]) -> T) -> T {
        match &self.0 {
            Key::Opened(index) => use_them(1, &index.0.to_le_bytes()),
            Key::Named(name) => use_them(2, name),
        }
    }

    /// The session with this tag and these encoded bytes; `None` if there is no such session.
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
            Key::Named(name) => write!(f, "SessionKey(named, {} B)", name.len()),
        }
    }
}

/// A request of a client to its session.
#[derive(Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// Opens a new session.
    Open,
    /// Applies a command at most once.
    Command {
        /// The session of the command.
        key: SessionKey,
        /// Number of the command within its session; the same when it is sent again.
        serial: u64,
        /// The command, opaque to all but the state machine.
        command: &'a [u8],
    },
}

impl core::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Open => f.write_str("Open"),
            Self::Command { key, serial, command } => f
                .debug_struct("Command")
                .field("key", key)
                .field("serial", serial)
                .field("command", &format_args!("{} B", command.len()))
                .finish(),
        }
    }
}

impl<'a> Request<'a> {
    /// Decodes a request without its stamp.
    ///
    /// # Errors
    /// If it does not have the layout above.
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

/// Decodes the payload of a session entry.
///
/// # Errors
/// If it does not have the layout above.
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
