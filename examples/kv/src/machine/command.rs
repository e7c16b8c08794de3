//! The commands and replies of the service.

use super::txn::{Txn, TxnReply};
use super::{Key, Value};
use quorate::LogTime;
use serde::{Deserialize, Serialize};

/// A client's command. Its form in the log is that of `quorate::Message`, so it is only extended by
/// new variants at the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Sets a key.
    Put {
        /// The key to set.
        key: Key,
        /// The new value.
        value: Value,
        /// Milliseconds of log time after which the key expires, at least 1; at most
        /// [`TTL_MS_MAX`](super::TTL_MS_MAX) count. `None`: the key stays.
        ttl_ms: Option<u64>,
    },
    /// Removes a key.
    Delete {
        /// The key to remove.
        key: Key,
    },
    /// Sets a key if it has the expected value.
    Cas {
        /// The key to compare and set.
        key: Key,
        /// The value that the key must have; `None`: the key must not exist.
        expect: Option<Value>,
        /// The new value.
        value: Value,
    },
    /// Compares several keys, and then reads, sets and removes several.
    Txn(Txn),
}

/// The reply to a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
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

/// A change of a key: the event under the topic of that key. It is in the history, which has a
/// bound on its bytes, so it has no large value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// The key was set.
    Put {
        /// The value; `None` if it has more than [`EVENT_VALUE_BYTES_MAX`] bytes.
        value: Option<Value>,
        /// Length of the value in bytes.
        bytes: u32,
        /// Log time at which the key expires, unless it is set again.
        until: Option<LogTime>,
    },
    /// The key was removed.
    Delete,
    /// The key expired.
    Expire,
}

/// The longest value that is part of its event, in bytes.
pub const EVENT_VALUE_BYTES_MAX: usize = 4 << 10;

/// The timer of a key with a time to live: the key expires.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Expire(pub(super) Key);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{COMMAND_OVERHEAD_BYTES, Compare, Holds, KEY_BYTES_MAX, Kv, Operation, OperationReply};
    use quorate::Hosted;

    #[test]
    fn the_encoding_of_each_command_is_the_one_in_the_log() {
        let (key, value) = (Key::from("ab"), Value::from(b"xyz"));
        let holds = [Holds::Nothing, Holds::Something, Holds::Value(value.clone())];
        let txn = Txn {
            compare: holds.map(|holds| Compare { key: key.clone(), holds }).into(),
            success: vec![
                Operation::Put { key: key.clone(), value: value.clone() },
                Operation::Delete { key: key.clone() },
            ],
            failure: vec![Operation::Get { key: key.clone() }],
        };
        let commands = [
            (Command::Put { key: key.clone(), value: value.clone(), ttl_ms: None }, &b"\x00\x02ab\x03xyz\x00"[..]),
            (
                Command::Put { key: key.clone(), value: value.clone(), ttl_ms: Some(300) },
                b"\x00\x02ab\x03xyz\x01\xac\x02",
            ),
            (Command::Delete { key: key.clone() }, b"\x01\x02ab"),
            (Command::Cas { key: key.clone(), expect: None, value: value.clone() }, b"\x02\x02ab\x00\x03xyz"),
            (
                Command::Cas { key: key.clone(), expect: Some(value.clone()), value: value.clone() },
                b"\x02\x02ab\x01\x03xyz\x03xyz",
            ),
            (
                Command::Txn(txn),
                b"\x03\x03\x02ab\x00\x02ab\x01\x02ab\x02\x03xyz\x02\x00\x02ab\x03xyz\x01\x02ab\x01\x02\x02ab",
            ),
        ];
        for (command, bytes) in commands {
            assert_eq!(Hosted::<Kv>::encode(&command), [&[0xf1, 0][..], bytes].concat(), "{command:?}");
        }
    }

    #[test]
    fn the_encoding_of_each_reply_is_the_one_in_the_sessions() {
        let results = vec![
            OperationReply::Put,
            OperationReply::Delete { existed: true },
            OperationReply::Get { value: None },
            OperationReply::Get { value: Some(Value::from(b"v")) },
        ];
        let replies = [
            (Reply::Put, &[0][..]),
            (Reply::Delete { existed: true }, &[1, 1]),
            (Reply::Cas { swapped: false }, &[2, 0]),
            (Reply::Txn(TxnReply::TooMuchRead), &[3, 1]),
            (Reply::Txn(TxnReply::Done { succeeded: true, results }), &[3, 0, 1, 4, 0, 1, 1, 2, 0, 2, 1, 1, b'v']),
        ];
        for (reply, bytes) in replies {
            assert_eq!(Hosted::<Kv>::decode(&[&[0], bytes].concat()), Some(Ok(reply)));
        }
    }

    #[test]
    fn the_overhead_of_a_command_is_within_its_bound() {
        let (key, value) = (Key::from(&*"k".repeat(KEY_BYTES_MAX)), Value::from(vec![7; 1 << 20]));
        let cas = Command::Cas { key, expect: Some(value.clone()), value };
        assert!(Hosted::<Kv>::encode(&cas).len() <= (2 << 20) + COMMAND_OVERHEAD_BYTES);
    }
}
