//! The state that is replicated: an ordered map of keys to values, and the commands that change it.
//!
//! It owns the pairs and a hash of them; it does no I/O and knows no clock, so that the same commands in the same order
//! give the same state, replies and hash on every node and in every version. The node's `Applier` feeds it; the HTTP
//! handlers encode the [`Command`]s, decode the [`Reply`]s and read it through `Node::read`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate::{Index, StateMachine};
use rapidhash::v3::{RapidSecrets, RapidStreamHasherV3};
use std::collections::BTreeMap;

/// The longest key, in bytes. Keys travel in a URL and stay in memory on every node.
pub const KEY_BYTES_MAX: usize = 1024;

/// How much longer than its values a command can be, in bytes: operation, lengths and the key.
pub const COMMAND_OVERHEAD_BYTES: usize = 16 + KEY_BYTES_MAX;

/// The replicated map.
///
/// **Invariant:** `hash` is the wrapping sum of the pairs' hashes, whatever the order they came in.
#[derive(Debug, Default)]
pub struct Kv {
    pairs: BTreeMap<Bytes, Pair>,
    hash: u64,
}

#[derive(Debug)]
struct Pair {
    value: Bytes,
    hash: u64,
}

impl Kv {
    /// The value of `key`. Cheap: the bytes are shared.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.pairs.get(key).map(|pair| pair.value.clone())
    }

    /// A hash of all pairs: equal states have equal hashes, on every platform and in every version. It tells states
    /// apart that drifted by accident; it does not resist somebody who looks for collisions.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        self.hash
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Carries out one command.
    pub fn execute(&mut self, command: &Command<'_>) -> Reply {
        match *command {
            Command::Put { key, value } => {
                self.insert(key, value);
                Reply::Put
            }
            Command::Delete { key } => {
                let removed = self.pairs.remove(key);
                self.hash = self.hash.wrapping_sub(removed.as_ref().map_or(0, |pair| pair.hash));
                Reply::Delete { existed: removed.is_some() }
            }
            Command::Cas { key, expect, value } => {
                let swapped = self.pairs.get(key).map(|pair| &*pair.value) == expect;
                if swapped {
                    self.insert(key, value);
                }
                Reply::Cas { swapped }
            }
        }
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) {
        let pair = Pair { value: Bytes::copy_from_slice(value), hash: pair_hash(key, value) };
        self.hash = self.hash.wrapping_add(pair.hash);
        if let Some(replaced) = self.pairs.insert(Bytes::copy_from_slice(key), pair) {
            self.hash = self.hash.wrapping_sub(replaced.hash);
        }
    }
}

impl StateMachine for Kv {
    fn apply(&mut self, _index: Index, command: &[u8]) -> Bytes {
        Command::decode(command).map_or(Reply::Refused, |command| self.execute(&command)).encode()
    }
}

/// What clients ask for. Its encoding stands in the log, so it changes only by adding operations:
///
/// | bytes | what |
/// | --- | --- |
/// | 1 | operation: 1 put, 2 delete, 3 swap if equal, 4 swap if absent |
/// | 2 | length of the key, little-endian |
/// | … | the key |
/// | 4 | for operation 3 alone: length of the expected value, little-endian |
/// | … | for operation 3 alone: the expected value |
/// | … | the value, to the end; nothing for delete |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// Set a key.
    Put {
        /// The key.
        key: &'a [u8],
        /// Its value from now on.
        value: &'a [u8],
    },
    /// Remove a key.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Set a key if it has a certain value now.
    Cas {
        /// The key.
        key: &'a [u8],
        /// The value that it must have; `None`: it must not exist.
        expect: Option<&'a [u8]>,
        /// Its value from then on.
        value: &'a [u8],
    },
}

const PUT: u8 = 1;
const DELETE: u8 = 2;
const SWAP_IF_EQUAL: u8 = 3;
const SWAP_IF_ABSENT: u8 = 4;

impl<'a> Command<'a> {
    /// Lays it out in bytes; `None` if the key or the expected value is longer than the format can say.
    #[must_use]
    pub fn encode(&self) -> Option<Bytes> {
        let (operation, key, expect, value): (_, _, _, &[u8]) = match *self {
            Self::Put { key, value } => (PUT, key, None, value),
            Self::Delete { key } => (DELETE, key, None, &[]),
            Self::Cas { key, expect: Some(expect), value } => (SWAP_IF_EQUAL, key, Some(expect), value),
            Self::Cas { key, expect: None, value } => (SWAP_IF_ABSENT, key, None, value),
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

    /// Reads it back; `None` for bytes that are no command, for example of a later version.
    #[must_use]
    pub fn decode(mut bytes: &'a [u8]) -> Option<Self> {
        let operation = bytes.try_get_u8().ok()?;
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

/// What a command is answered: one byte, or two for answers with a fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// It was not understood and changed nothing.
    Refused,
    /// The key is set.
    Put,
    /// The key is gone.
    Delete {
        /// Whether it was there before.
        existed: bool,
    },
    /// The comparison was made.
    Cas {
        /// Whether it held, so that the key is set.
        swapped: bool,
    },
}

impl Reply {
    /// Lays it out in bytes.
    #[must_use]
    pub fn encode(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Refused => &[0],
            Self::Put => &[PUT],
            Self::Delete { existed: false } => &[DELETE, 0],
            Self::Delete { existed: true } => &[DELETE, 1],
            Self::Cas { swapped: false } => &[SWAP_IF_EQUAL, 0],
            Self::Cas { swapped: true } => &[SWAP_IF_EQUAL, 1],
        })
    }

    /// Reads it back; `None` for bytes that are no reply.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [0] => Some(Self::Refused),
            [PUT] => Some(Self::Put),
            [DELETE, existed @ (0 | 1)] => Some(Self::Delete { existed: existed == 1 }),
            [SWAP_IF_EQUAL, swapped @ (0 | 1)] => Some(Self::Cas { swapped: swapped == 1 }),
            _ => None,
        }
    }
}

/// Fixed for ever: nodes of different versions compare their hashes.
static SECRETS: RapidSecrets = RapidSecrets::seed(0x7175_6f72_6174_6531);

fn pair_hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = RapidStreamHasherV3::new(&SECRETS);
    hasher.write(&(key.len() as u64).to_le_bytes());
    hasher.write(key);
    hasher.write(value);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_replies_survive_their_encoding() {
        for command in examples() {
            let bytes = command.encode().expect("short");
            assert_eq!(Command::decode(&bytes), Some(command));
        }
        for reply in [
            Reply::Refused,
            Reply::Put,
            Reply::Delete { existed: true },
            Reply::Delete { existed: false },
            Reply::Cas { swapped: true },
            Reply::Cas { swapped: false },
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
                assert_ne!(Command::decode(&bytes[..end]), Some(command));
            }
        }
        let mut kv = Kv::default();
        assert_eq!(kv.apply(Index(1), b"\xff\xff\xff"), Reply::Refused.encode());
        assert!(kv.is_empty());
    }

    #[test]
    fn a_key_too_long_for_the_format_has_no_encoding() {
        let key = vec![b'k'; usize::from(u16::MAX) + 1];
        assert_eq!(Command::Delete { key: &key }.encode(), None);
    }

    #[test]
    fn a_swap_takes_place_only_if_the_value_is_the_expected_one() {
        let mut kv = Kv::default();
        let cas = |expect, value| Command::Cas { key: b"k", expect, value };
        assert_eq!(kv.execute(&cas(Some(b"a"), b"b")), Reply::Cas { swapped: false });
        assert_eq!(kv.execute(&cas(None, b"a")), Reply::Cas { swapped: true });
        assert_eq!(kv.execute(&cas(None, b"c")), Reply::Cas { swapped: false });
        assert_eq!(kv.execute(&cas(Some(b"a"), b"b")), Reply::Cas { swapped: true });
        assert_eq!(kv.get(b"k").as_deref(), Some(&b"b"[..]));
    }

    #[test]
    fn a_delete_says_whether_the_key_existed() {
        let mut kv = Kv::default();
        kv.execute(&Command::Put { key: b"k", value: b"" });
        assert_eq!(kv.execute(&Command::Delete { key: b"k" }), Reply::Delete { existed: true });
        assert_eq!(kv.execute(&Command::Delete { key: b"k" }), Reply::Delete { existed: false });
        assert_eq!(kv.len(), 0);
    }

    #[test]
    fn the_hash_depends_on_the_pairs_and_not_on_the_way_there() {
        let (mut one, mut other) = (Kv::default(), Kv::default());
        for key in 0..100_u32 {
            one.execute(&Command::Put { key: &key.to_le_bytes(), value: b"v" });
            other.execute(&Command::Put { key: &(99 - key).to_le_bytes(), value: b"old" });
        }
        assert_ne!(one.state_hash(), other.state_hash());
        for key in 0..100_u32 {
            other.execute(&Command::Cas { key: &key.to_le_bytes(), expect: Some(b"old"), value: b"v" });
        }
        other.execute(&Command::Put { key: b"gone", value: b"v" });
        other.execute(&Command::Delete { key: b"gone" });
        assert_eq!(one.state_hash(), other.state_hash());
        assert_eq!(one.state_hash(), hash_from_scratch(&one));
        assert_eq!(other.state_hash(), hash_from_scratch(&other));
    }

    #[test]
    fn bytes_that_move_between_key_and_value_change_the_hash() {
        assert_ne!(pair_hash(b"ab", b"c"), pair_hash(b"a", b"bc"));
    }

    #[test]
    fn the_hash_of_a_pair_is_the_same_in_every_version() {
        assert_eq!(pair_hash(b"key", b"value"), PINNED_PAIR_HASH);
        assert_eq!(Kv::default().state_hash(), 0);
    }

    const PINNED_PAIR_HASH: u64 = 14_013_166_742_636_983_665;

    fn hash_from_scratch(kv: &Kv) -> u64 {
        kv.pairs.iter().fold(0, |sum, (key, pair)| sum.wrapping_add(pair_hash(key, &pair.value)))
    }

    fn examples() -> [Command<'static>; 6] {
        [
            Command::Put { key: b"k", value: b"value" },
            Command::Put { key: b"", value: b"" },
            Command::Delete { key: b"k" },
            Command::Cas { key: b"k", expect: None, value: b"v" },
            Command::Cas { key: b"k", expect: Some(b""), value: b"" },
            Command::Cas { key: b"k", expect: Some(b"before"), value: b"after" },
        ]
    }
}
