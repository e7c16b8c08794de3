//! Transactions: several keys compared, then several read, set and removed, at one log index.

use super::pairs::Pairs;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::HashMap;

/// The maximum number of bytes that the values read by one transaction have together: they are
/// part of its reply, which a session keeps on every node.
pub const TXN_READ_BYTES_MAX: usize = 1 << 20;

/// A transaction: executes `success` if all comparisons hold, otherwise `failure`. In the encoding,
/// with all numbers little-endian,
///
/// | bytes | meaning |
/// | --- | --- |
/// | 2 | number of comparisons |
/// | … | the comparisons |
/// | 2 | number of operations of `success` |
/// | … | these operations |
/// | 2 | number of operations of `failure` |
/// | … | these operations, to the end |
///
/// and for each comparison and operation
///
/// | bytes | meaning |
/// | --- | --- |
/// | 1 | comparison: 1 absent, 2 exists, 3 equal; operation: 1 put, 2 delete, 3 get |
/// | 2 | length of the key |
/// | … | the key |
/// | 4 | for equal and put alone: length of the value |
/// | … | for equal and put alone: the value |
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Txn<'a> {
    /// The comparisons with the state before the transaction; without any, they hold.
    pub compare: Vec<Compare<'a>>,
    /// The operations if all comparisons hold, executed in order, each on the results of the
    /// earlier ones.
    pub success: Vec<Operation<'a>>,
    /// The operations if one does not hold.
    pub failure: Vec<Operation<'a>>,
}

/// A comparison of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compare<'a> {
    /// The key, which need not exist.
    pub key: &'a [u8],
    /// The state that the key must have.
    pub holds: Holds<'a>,
}

/// The state that a [`Compare`] demands of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds<'a> {
    /// The key does not exist.
    Nothing,
    /// The key exists, with any value.
    Something,
    /// The key has this value.
    Value(&'a [u8]),
}

/// An operation of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation<'a> {
    /// Sets a key.
    Put {
        /// The key to set.
        key: &'a [u8],
        /// The new value.
        value: &'a [u8],
    },
    /// Removes a key.
    Delete {
        /// The key to remove.
        key: &'a [u8],
    },
    /// Reads a key.
    Get {
        /// The key to read.
        key: &'a [u8],
    },
}

/// The outcome of a transaction. Encoded as one byte, 0 for `failure`, 1 for `success` and 2 for
/// [`TxnReply::TooMuchRead`], then each result: 1 put; 2 delete and whether the key existed, 0
/// or 1; 3 get of a key that does not exist; 4 get, the length of the value in 4 bytes, the value.
#[derive(Clone, PartialEq, Eq, Debug)]
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
#[derive(Clone, PartialEq, Eq, Debug)]
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
        value: Option<Bytes>,
    },
}

/// Executes a transaction; all of it, or nothing.
pub(super) fn execute(pairs: &mut Pairs, txn: &Txn<'_>) -> TxnReply {
    let succeeded = txn.compare.iter().all(|compare| {
        let found = pairs.get(compare.key).map(|value| &**value);
        match compare.holds {
            Holds::Nothing => found.is_none(),
            Holds::Something => found.is_some(),
            Holds::Value(value) => found == Some(value),
        }
    });
    let operations = if succeeded { &txn.success } else { &txn.failure };
    if bytes_read(pairs, operations) > TXN_READ_BYTES_MAX {
        return TxnReply::TooMuchRead;
    }
    let results = operations.iter().map(|operation| match *operation {
        Operation::Put { key, value } => {
            pairs.insert(key.into(), value.into());
            OperationReply::Put
        }
        Operation::Delete { key } => OperationReply::Delete { existed: pairs.remove(key) },
        Operation::Get { key } => OperationReply::Get { value: pairs.get(key).cloned().map(Bytes::from_owner) },
    });
    TxnReply::Done { succeeded, results: results.collect() }
}

/// The bytes of all values that these operations would read, without executing them.
fn bytes_read(pairs: &Pairs, operations: &[Operation<'_>]) -> usize {
    let mut changed = HashMap::new();
    let mut read = 0_usize;
    for operation in operations {
        match *operation {
            Operation::Put { key, value } => drop(changed.insert(key, value.len())),
            Operation::Delete { key } => drop(changed.insert(key, 0)),
            Operation::Get { key } => {
                let before = || pairs.get(key).map_or(0, |value| value.len());
                read = read.saturating_add(changed.get(key).copied().unwrap_or_else(before));
            }
        }
    }
    read
}

const ABSENT: u8 = 1;
const EXISTS: u8 = 2;
const EQUAL: u8 = 3;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const GET: u8 = 3;
/// In replies only: a get that found a value.
const FOUND: u8 = 4;

const TOO_MUCH_READ: u8 = 2;

impl<'a> Txn<'a> {
    /// Appends the encoding; `None` if a key, a value or a list is too long for the format.
    pub(super) fn encode(&self, to: &mut BytesMut) -> Option<()> {
        to.put_u16_le(u16::try_from(self.compare.len()).ok()?);
        for Compare { key, holds } in &self.compare {
            match holds {
                Holds::Nothing => put(to, ABSENT, key, None)?,
                Holds::Something => put(to, EXISTS, key, None)?,
                Holds::Value(value) => put(to, EQUAL, key, Some(value))?,
            }
        }
        for operations in [&self.success, &self.failure] {
            to.put_u16_le(u16::try_from(operations.len()).ok()?);
            for operation in operations {
                match operation {
                    Operation::Put { key, value } => put(to, PUT, key, Some(value))?,
                    Operation::Delete { key } => put(to, DELETE, key, None)?,
                    Operation::Get { key } => put(to, GET, key, None)?,
                }
            }
        }
        Some(())
    }

    /// Decodes a transaction; `None` for bytes that are none.
    pub(super) fn decode(mut bytes: &'a [u8]) -> Option<Self> {
        let from = &mut bytes;
        let compare = list(from, |from| {
            let kind = from.try_get_u8().ok()?;
            let key = key(from)?;
            let holds = match kind {
                ABSENT => Holds::Nothing,
                EXISTS => Holds::Something,
                EQUAL => Holds::Value(value(from)?),
                _ => return None,
            };
            Some(Compare { key, holds })
        })?;
        let operation = |from: &mut &'a [u8]| {
            let kind = from.try_get_u8().ok()?;
            let key = key(from)?;
            match kind {
                PUT => Some(Operation::Put { key, value: value(from)? }),
                DELETE => Some(Operation::Delete { key }),
                GET => Some(Operation::Get { key }),
                _ => None,
            }
        };
        let txn = Self { compare, success: list(from, operation)?, failure: list(from, operation)? };
        bytes.is_empty().then_some(txn)
    }
}

fn put(to: &mut BytesMut, kind: u8, key: &[u8], value: Option<&[u8]>) -> Option<()> {
    to.put_u8(kind);
    to.put_u16_le(u16::try_from(key.len()).ok()?);
    to.put_slice(key);
    if let Some(value) = value {
        to.put_u32_le(u32::try_from(value.len()).ok()?);
        to.put_slice(value);
    }
    Some(())
}

/// The number is not trusted: memory grows with the items that are there.
fn list<'a, T>(from: &mut &'a [u8], mut one: impl FnMut(&mut &'a [u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = from.try_get_u16_le().ok()?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(one(from)?);
    }
    Some(items)
}

fn key<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = from.try_get_u16_le().ok()?;
    from.split_off(..usize::from(length))
}

fn value<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = from.try_get_u32_le().ok()?;
    from.split_off(..usize::try_from(length).ok()?)
}

impl TxnReply {
    /// Appends the encoding.
    pub(super) fn encode(&self, to: &mut BytesMut) {
        let Self::Done { succeeded, results } = self else { return to.put_u8(TOO_MUCH_READ) };
        to.put_u8((*succeeded).into());
        for result in results {
            match result {
                OperationReply::Put => to.put_u8(PUT),
                OperationReply::Delete { existed } => to.put_slice(&[DELETE, (*existed).into()]),
                OperationReply::Get { value: None } => to.put_u8(GET),
                OperationReply::Get { value: Some(value) } => {
                    to.put_u8(FOUND);
                    // All values together are within TXN_READ_BYTES_MAX.
                    to.put_u32_le(value.len() as u32);
                    to.put_slice(value);
                }
            }
        }
    }

    /// Decodes a reply; `None` for bytes that are none.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let succeeded = match bytes.try_get_u8().ok()? {
            TOO_MUCH_READ => return bytes.is_empty().then_some(Self::TooMuchRead),
            succeeded @ (0 | 1) => succeeded == 1,
            _ => return None,
        };
        let mut results = Vec::new();
        while let Ok(kind) = bytes.try_get_u8() {
            results.push(match kind {
                PUT => OperationReply::Put,
                DELETE => match bytes.try_get_u8().ok()? {
                    existed @ (0 | 1) => OperationReply::Delete { existed: existed == 1 },
                    _ => return None,
                },
                GET => OperationReply::Get { value: None },
                FOUND => OperationReply::Get { value: Some(Bytes::copy_from_slice(value(&mut bytes)?)) },
                _ => return None,
            });
        }
        Some(Self::Done { succeeded, results })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Command, Kv, Reply};

    #[test]
    fn all_operations_take_effect_if_all_comparisons_hold_and_none_of_them_otherwise() {
        let mut kv = Kv::default();
        kv.execute(&Command::Put { key: b"a", value: b"1" });
        let txn = |compare: &[Compare<'static>]| Txn {
            compare: compare.to_vec(),
            success: vec![
                Operation::Put { key: b"a", value: b"2" },
                Operation::Put { key: b"b", value: b"2" },
                Operation::Delete { key: b"c" },
            ],
            failure: vec![Operation::Get { key: b"a" }, Operation::Get { key: b"b" }],
        };
        let (is_one, absent) = (compare(b"a", Holds::Value(b"1")), compare(b"b", Holds::Nothing));
        for wrong in [
            compare(b"a", Holds::Nothing),
            compare(b"a", Holds::Value(b"")),
            compare(b"b", Holds::Something),
            compare(b"b", Holds::Value(b"")),
        ] {
            let hash = kv.state_hash();
            let got = |value: Option<&'static [u8]>| OperationReply::Get { value: value.map(Bytes::from_static) };
            let failed = TxnReply::Done { succeeded: false, results: vec![got(Some(b"1")), got(None)] };
            assert_eq!(executed(&mut kv, &txn(&[is_one, wrong, absent])), failed);
            assert_eq!(kv.state_hash(), hash);
        }
        let results = vec![OperationReply::Put, OperationReply::Put, OperationReply::Delete { existed: false }];
        let done = TxnReply::Done { succeeded: true, results };
        assert_eq!(executed(&mut kv, &txn(&[is_one, absent, compare(b"a", Holds::Something)])), done);
        assert_eq!((kv.get(b"a").as_deref(), kv.get(b"b").as_deref()), (Some(&b"2"[..]), Some(&b"2"[..])));
    }

    #[test]
    fn each_operation_sees_the_effects_of_those_before_it() {
        let (key, mut kv) = (b"k", Kv::default());
        let success = vec![
            Operation::Put { key, value: b"1" },
            Operation::Get { key },
            Operation::Delete { key },
            Operation::Get { key },
            Operation::Delete { key },
            Operation::Put { key, value: b"2" },
        ];
        let results = vec![
            OperationReply::Put,
            OperationReply::Get { value: Some(Bytes::from_static(b"1")) },
            OperationReply::Delete { existed: true },
            OperationReply::Get { value: None },
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
        kv.execute(&Command::Put { key: b"half", value: &half });
        let (get, put) = (Operation::Get { key: b"half" }, Operation::Put { key: b"k", value: b"v" });
        let hash = kv.state_hash();
        let longer = Operation::Put { key: b"half", value: &[&half[..], b"1"].concat() };
        for too_much in [
            vec![put, get, get, Operation::Put { key: b"one", value: b"1" }, Operation::Get { key: b"one" }],
            vec![put, get, longer, get],
        ] {
            let txn = Txn { success: too_much, ..Txn::default() };
            assert_eq!(executed(&mut kv, &txn), TxnReply::TooMuchRead);
            assert_eq!(kv.state_hash(), hash);
        }
        let just_enough =
            Txn { success: vec![put, get, get, Operation::Delete { key: b"half" }, get], ..Txn::default() };
        assert!(matches!(executed(&mut kv, &just_enough), TxnReply::Done { .. }));
    }

    #[test]
    fn the_encoding_is_the_documented_one() {
        let txn = Txn {
            compare: vec![
                compare(b"a", Holds::Nothing),
                compare(b"b", Holds::Something),
                compare(b"cd", Holds::Value(b"x")),
            ],
            success: vec![Operation::Put { key: b"e", value: b"yz" }, Operation::Delete { key: b"" }],
            failure: vec![Operation::Get { key: b"f" }],
        };
        let expected = [
            &[5, 3, 0][..],
            &[1, 1, 0, b'a'],
            &[2, 1, 0, b'b'],
            &[3, 2, 0, b'c', b'd', 1, 0, 0, 0, b'x'],
            &[2, 0],
            &[1, 1, 0, b'e', 2, 0, 0, 0, b'y', b'z'],
            &[2, 0, 0],
            &[1, 0],
            &[3, 1, 0, b'f'],
        ];
        assert_eq!(Command::Txn(txn).encode().expect("short"), expected.concat());
        let results = vec![
            OperationReply::Put,
            OperationReply::Delete { existed: true },
            OperationReply::Get { value: None },
            OperationReply::Get { value: Some(Bytes::from_static(b"v")) },
        ];
        let reply = TxnReply::Done { succeeded: true, results };
        assert_eq!(Reply::Txn(reply).encode(), &[5, 1, 1, 2, 1, 3, 4, 1, 0, 0, 0, b'v'][..]);
        assert_eq!(Reply::Txn(TxnReply::TooMuchRead).encode(), &[5, 2][..]);
    }

    #[test]
    fn bytes_that_are_no_transaction_or_reply_of_one_are_refused() {
        for bytes in [
            &[5][..],
            &[5, 0, 0, 0, 0, 0],
            &[5, 0, 0, 0, 0, 0, 0, 0],
            &[5, 1, 0, 4, 0, 0, 0, 0, 0, 0],
            &[5, 0, 0, 1, 0, 4, 0, 0, 0, 0],
            &[5, 0xff, 0xff, 1, 0, 0],
            &[5, 1, 0, 3, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        ] {
            assert_eq!(Command::decode(bytes), None, "{bytes:?}");
        }
        for bytes in [&[5][..], &[5, 3], &[5, 2, 1], &[5, 1, 2], &[5, 1, 2, 2], &[5, 1, 5], &[5, 1, 4, 1, 0, 0, 0]] {
            assert_eq!(Reply::decode(bytes), None, "{bytes:?}");
        }
        let many = vec![compare(b"", Holds::Nothing); usize::from(u16::MAX) + 1];
        assert_eq!(Command::Txn(Txn { compare: many, ..Txn::default() }).encode(), None);
    }

    fn compare(key: &'static [u8], holds: Holds<'static>) -> Compare<'static> {
        Compare { key, holds }
    }

    fn executed(kv: &mut Kv, txn: &Txn<'_>) -> TxnReply {
        match kv.execute(&Command::Txn(txn.clone())) {
            Reply::Txn(reply) => reply,
            reply => panic!("{reply:?}"),
        }
    }
}
