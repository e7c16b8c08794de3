//! Transactions: several keys compared, then several read, set and removed, at one log index.

use super::{Key, Value, pairs::Pairs, writer::Writer};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The maximum number of bytes that the values read by one transaction have together: they are
/// part of its reply, which a session keeps on every node.
pub const TXN_READ_BYTES_MAX: usize = 1 << 20;

/// A transaction: executes `success` if all comparisons hold, otherwise `failure`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Txn {
    /// The comparisons with the state before the transaction; without any, they hold.
    pub compare: Vec<Compare>,
    /// The operations if all comparisons hold, executed in order, each on the results of the
    /// earlier ones.
    pub success: Vec<Operation>,
    /// The operations if one does not hold.
    pub failure: Vec<Operation>,
}

/// A comparison of one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compare {
    /// The key, which need not exist.
    pub key: Key,
    /// The state that the key must have.
    pub holds: Holds,
}

/// The state that a [`Compare`] demands of its key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Holds {
    /// The key does not exist.
    Nothing,
    /// The key exists, with any value.
    Something,
    /// The key has this value.
    Value(Value),
}

/// An operation of a transaction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// Sets a key.
    Put {
        /// The key to set.
        key: Key,
        /// The new value.
        value: Value,
    },
    /// Removes a key.
    Delete {
        /// The key to remove.
        key: Key,
    },
    /// Reads a key.
    Get {
        /// The key to read.
        key: Key,
    },
}

/// The outcome of a transaction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TxnReply {
    /// It was executed.
    Done {
        /// Whether all comparisons held, so that `success` was executed.
        succeeded: bool,
        /// The result of each executed operation, in order.
        results: Vec<OperationReply>,
    },
    /// The values to be read have more than [`TXN_READ_BYTES_MAX`] bytes: nothing was changed.
    TooMuchRead,
}

/// The result of an [`Operation`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OperationReply {
    /// The key was set.
    Put,
    /// The key does not exist any more.
    Delete {
        /// Whether the key existed before.
        existed: bool,
    },
    /// The key was read.
    Get {
        /// The value; `None` if the key does not exist.
        value: Option<Value>,
    },
}

impl OperationReply {
    /// The bytes of the value in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Get { value: Some(value) } => value.len(),
            Self::Put | Self::Delete { .. } | Self::Get { value: None } => 0,
        }
    }
}

/// Executes a transaction; all of it, or nothing.
pub(super) fn execute(writer: &mut Writer<'_, '_>, txn: Txn) -> TxnReply {
    let pairs = &*writer.pairs;
    let succeeded = txn.compare.iter().all(|Compare { key, holds }| {
        let found = pairs.get(key.as_bytes());
        match holds {
            Holds::Nothing => found.is_none(),
            Holds::Something => found.is_some(),
            Holds::Value(Value(value)) => found == Some(value),
        }
    });
    let operations = if succeeded { txn.success } else { txn.failure };
    if bytes_read(pairs, &operations) > TXN_READ_BYTES_MAX {
        return TxnReply::TooMuchRead;
    }
    let results = operations.into_iter().map(|operation| match operation {
        Operation::Put { key, value } => {
            writer.put(key, value, None);
            OperationReply::Put
        }
        Operation::Delete { key } => OperationReply::Delete { existed: writer.delete(key) },
        Operation::Get { key } => OperationReply::Get { value: writer.pairs.get(key.as_bytes()).cloned().map(Value) },
    });
    TxnReply::Done { succeeded, results: results.collect() }
}

/// The bytes of all values that these operations would read, without executing them.
fn bytes_read(pairs: &Pairs, operations: &[Operation]) -> usize {
    let mut changed = HashMap::new();
    let mut read = 0_usize;
    for operation in operations {
        match operation {
            Operation::Put { key, value } => drop(changed.insert(key, value.len())),
            Operation::Delete { key } => drop(changed.insert(key, 0)),
            Operation::Get { key } => {
                let before = || pairs.get(key.as_bytes()).map_or(0, |value| value.len());
                read = read.saturating_add(changed.get(key).copied().unwrap_or_else(before));
            }
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Command, Reply, testing::Kv};

    #[test]
    fn all_operations_take_effect_if_all_comparisons_hold_and_none_of_them_otherwise() {
        let mut kv = Kv::default();
        kv.execute(put_command("a", b"1"));
        let txn = |compare: &[Compare]| Txn {
            compare: compare.to_vec(),
            success: vec![put("a", b"2"), put("b", b"2"), Operation::Delete { key: "c".into() }],
            failure: vec![get("a"), get("b")],
        };
        let (is_one, absent) = (compare("a", Holds::Value(b"1".into())), compare("b", Holds::Nothing));
        for wrong in [
            compare("a", Holds::Nothing),
            compare("a", Holds::Value(b"".into())),
            compare("b", Holds::Something),
            compare("b", Holds::Value(b"".into())),
        ] {
            let hash = kv.state_hash();
            let failed = TxnReply::Done { succeeded: false, results: vec![got(Some(b"1")), got(None)] };
            assert_eq!(executed(&mut kv, &txn(&[is_one.clone(), wrong, absent.clone()])), failed);
            assert_eq!(kv.state_hash(), hash);
        }
        let results = vec![OperationReply::Put, OperationReply::Put, OperationReply::Delete { existed: false }];
        let done = TxnReply::Done { succeeded: true, results };
        assert_eq!(executed(&mut kv, &txn(&[is_one, absent, compare("a", Holds::Something)])), done);
        assert_eq!((kv.get("a").as_deref(), kv.get("b").as_deref()), (Some(&b"2"[..]), Some(&b"2"[..])));
    }

    #[test]
    fn each_operation_sees_the_effects_of_those_before_it() {
        let (key, mut kv) = ("k", Kv::default());
        let delete = || Operation::Delete { key: key.into() };
        let success = vec![put(key, b"1"), get(key), delete(), get(key), delete(), put(key, b"2")];
        let results = vec![
            OperationReply::Put,
            got(Some(b"1")),
            OperationReply::Delete { existed: true },
            got(None),
            OperationReply::Delete { existed: false },
            OperationReply::Put,
        ];
        let txn = Txn { success, ..Txn::default() };
        assert_eq!(executed(&mut kv, &txn), TxnReply::Done { succeeded: true, results });
        assert_eq!(kv.get(key).as_deref(), Some(&b"2"[..]));
    }

    #[test]
    fn a_transaction_that_reads_too_much_changes_nothing() {
        let mut kv = Kv::default();
        let half = vec![7; TXN_READ_BYTES_MAX / 2];
        kv.execute(put_command("half", &half));
        let (get_half, put_k) = (get("half"), put("k", b"v"));
        let hash = kv.state_hash();
        let longer = put("half", &[&half[..], b"1"].concat());
        for too_much in [
            vec![put_k.clone(), get_half.clone(), get_half.clone(), put("one", b"1"), get("one")],
            vec![put_k.clone(), get_half.clone(), longer, get_half.clone()],
        ] {
            let txn = Txn { success: too_much, ..Txn::default() };
            assert_eq!(executed(&mut kv, &txn), TxnReply::TooMuchRead);
            assert_eq!(kv.state_hash(), hash);
        }
        let delete = Operation::Delete { key: "half".into() };
        let success = vec![put_k, get_half.clone(), get_half.clone(), delete, get_half];
        let just_enough = Txn { success, ..Txn::default() };
        assert!(matches!(executed(&mut kv, &just_enough), TxnReply::Done { .. }));
    }

    fn compare(key: &str, holds: Holds) -> Compare {
        Compare { key: key.into(), holds }
    }

    fn put(key: &str, value: &[u8]) -> Operation {
        Operation::Put { key: key.into(), value: value.into() }
    }

    fn get(key: &str) -> Operation {
        Operation::Get { key: key.into() }
    }

    fn got(value: Option<&[u8]>) -> OperationReply {
        OperationReply::Get { value: value.map(Value::from) }
    }

    fn put_command(key: &str, value: &[u8]) -> Command {
        Command::Put { key: key.into(), value: value.into(), ttl_ms: None }
    }

    fn executed(kv: &mut Kv, txn: &Txn) -> TxnReply {
        match kv.execute(Command::Txn(txn.clone())) {
            Reply::Txn(reply) => reply,
            reply => panic!("{reply:?}"),
        }
    }
}
