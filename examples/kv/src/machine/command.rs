//! The commands and replies of the state machine.

use super::txn::{Txn, TxnReply};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A client's command. Its encoding is stored in the log, so it may only be extended
/// by new operations:
///
/// | bytes | meaning |
/// | --- | --- |
/// | 1 | operation: 1 put, 2 delete, 3 swap if equal, 4 swap if absent, 5 transaction |
/// | 2 | length of the key, little-endian |
/// | … | the key |
/// | 4 | for operation 3 alone: length of the expected value, little-endian |
/// | … | for operation 3 alone: the expected value |
/// | … | the value, to the end; nothing for delete |
///
/// For operation 5, the transaction follows the operation, as [`Txn`] says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// Set a key.
    Put {
        /// The key to set.
        key: &'a [u8],
        /// The new value.
        value: &'a [u8],
    },
    /// Remove a key.
    Delete {
        /// The key to remove.
        key: &'a [u8],
    },
    /// Sets a key if it has the expected value.
    Cas {
        /// The key to compare and set.
        key: &'a [u8],
        /// The value that the key must have; `None`: the key must not exist.
        expect: Option<&'a [u8]>,
        /// The new value.
        value: &'a [u8],
    },
    /// Compares several keys, and then reads, sets and removes several.
    Txn(Txn<'a>),
}

const PUT: u8 = 1;
const DELETE: u8 = 2;
const SWAP_IF_EQUAL: u8 = 3;
const SWAP_IF_ABSENT: u8 = 4;
const TXN: u8 = 5;

impl<'a> Command<'a> {
    /// Encodes the command; `None` if a part is too long for the format.
    #[must_use]
    pub fn encode(&self) -> Option<Bytes> {
        let (operation, key, expect, value): (_, _, _, &[u8]) = match *self {
            Self::Put { key, value } => (PUT, key, None, value),
            Self::Delete { key } => (DELETE, key, None, &[]),
            Self::Cas { key, expect: Some(expect), value } => (SWAP_IF_EQUAL, key, Some(expect), value),
            Self::Cas { key, expect: None, value } => (SWAP_IF_ABSENT, key, None, value),
            Self::Txn(ref txn) => {
                let mut bytes = BytesMut::new();
                bytes.put_u8(TXN);
                txn.encode(&mut bytes)?;
                return Some(bytes.freeze());
            }
        };
        let mut bytes = BytesMut::with_capacity(7 + key.len() + expect.map_or(0, <[u8]>::len) + value.len());
        bytes.put_u8(operation);
        bytes.put_u16_le(u16::try_from(key.len()).ok()?);
        bytes.put_slice(key);
        if let Some(expect) = expect {
            bytes.put_u32_le(u32::try_from(expect.len()).ok()?);
            bytes.put_slice(expect);
        }
        bytes.put_slice(value);
        Some(bytes.freeze())
    }

    /// Decodes a command; `None` for bytes that are not a command, for example of a later version.
    #[must_use]
    pub fn decode(mut bytes: &'a [u8]) -> Option<Self> {
        let operation = bytes.try_get_u8().ok()?;
        if operation == TXN {
            return Txn::decode(bytes).map(Self::Txn);
        }
        let length = bytes.try_get_u16_le().ok()?;
        let key = bytes.split_off(..usize::from(length))?;
        match operation {
            PUT => Some(Self::Put { key, value: bytes }),
            DELETE if bytes.is_empty() => Some(Self::Delete { key }),
            SWAP_IF_EQUAL => {
                let length = bytes.try_get_u32_le().ok()?;
                let expect = bytes.split_off(..usize::try_from(length).ok()?)?;
                Some(Self::Cas { key, expect: Some(expect), value: bytes })
            }
            SWAP_IF_ABSENT => Some(Self::Cas { key, expect: None, value: bytes }),
            _ => None,
        }
    }
}

/// The reply to a command: one byte, or two for replies with a result. That to a transaction is
/// the operation and a [`TxnReply`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The command was not understood and changed nothing.
    Refused,
    /// The key was set.
    Put,
    /// The key does not exist any more.
    Delete {
        /// Whether the key existed before.
        existed: bool,
    },
    /// The comparison was made.
    Cas {
        /// Whether it succeeded, so that the key was set.
        swapped: bool,
    },
    /// The transaction was decided.
    Txn(TxnReply),
}

impl Reply {
    /// Encodes the reply.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        Bytes::from_static(match self {
            Self::Txn(reply) => {
                let mut bytes = BytesMut::new();
                bytes.put_u8(TXN);
                reply.encode(&mut bytes);
                return bytes.freeze();
            }
            Self::Refused => &[0],
            Self::Put => &[PUT],
            Self::Delete { existed: false } => &[DELETE, 0],
            Self::Delete { existed: true } => &[DELETE, 1],
            Self::Cas { swapped: false } => &[SWAP_IF_EQUAL, 0],
            Self::Cas { swapped: true } => &[SWAP_IF_EQUAL, 1],
        })
    }

    /// Decodes a reply; `None` for bytes that are not a reply.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [0] => Some(Self::Refused),
            [PUT] => Some(Self::Put),
            [DELETE, existed @ (0 | 1)] => Some(Self::Delete { existed: existed == 1 }),
            [SWAP_IF_EQUAL, swapped @ (0 | 1)] => Some(Self::Cas { swapped: swapped == 1 }),
            [TXN, ref reply @ ..] => TxnReply::decode(reply).map(Self::Txn),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Compare, Holds, Operation};

    #[test]
    fn commands_and_replies_survive_their_encoding() {
        for command in examples() {
            let bytes = command.encode().expect("short");
            assert_eq!(Command::decode(&bytes).as_ref(), Some(&command));
        }
        for reply in [
            Reply::Refused,
            Reply::Put,
            Reply::Delete { existed: true },
            Reply::Delete { existed: false },
            Reply::Cas { swapped: true },
            Reply::Cas { swapped: false },
            Reply::Txn(TxnReply::TooMuchRead),
            Reply::Txn(TxnReply::Done { succeeded: false, results: vec![] }),
        ] {
            assert_eq!(Reply::decode(&reply.encode()), Some(reply));
        }
    }

    #[test]
    fn the_encoding_of_a_command_is_the_documented_one() {
        let command = Command::Cas { key: b"ab", expect: Some(b"x"), value: b"yz" };
        assert_eq!(command.encode().expect("short"), [3, 2, 0, b'a', b'b', 1, 0, 0, 0, b'x', b'y', b'z'][..]);
    }

    #[test]
    fn a_command_cut_short_is_refused_or_another_command_and_never_a_panic() {
        for command in examples() {
            let bytes = command.encode().expect("short");
            for end in 0..bytes.len() {
                assert_ne!(Command::decode(&bytes[..end]).as_ref(), Some(&command));
            }
        }
    }

    #[test]
    fn a_key_too_long_for_the_format_has_no_encoding() {
        let key = vec![b'k'; usize::from(u16::MAX) + 1];
        assert_eq!(Command::Delete { key: &key }.encode(), None);
    }

    fn examples() -> [Command<'static>; 8] {
        let holds = [Holds::Nothing, Holds::Something, Holds::Value(b"value")];
        let txn = Txn {
            compare: holds.map(|holds| Compare { key: b"k", holds }).into(),
            success: vec![Operation::Put { key: b"k", value: b"v" }, Operation::Delete { key: b"k" }],
            failure: vec![Operation::Get { key: b"k" }],
        };
        [
            Command::Txn(txn),
            Command::Txn(Txn::default()),
            Command::Put { key: b"k", value: b"value" },
            Command::Put { key: b"", value: b"" },
            Command::Delete { key: b"k" },
            Command::Cas { key: b"k", expect: None, value: b"v" },
            Command::Cas { key: b"k", expect: Some(b""), value: b"" },
            Command::Cas { key: b"k", expect: Some(b"before"), value: b"after" },
        ]
    }
}
