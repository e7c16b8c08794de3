//! The replicated service of the simulation: a few registers, and commands that
//! name their operation.

use bytes::{BufMut, Bytes, BytesMut};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

/// The number of keys in a group. Commands and reads of several keys stay within one.
pub(super) const GROUP_KEYS: usize = 2;

/// For each key of a group, its value: `Some(None)` if the key is absent, `None` if it does not matter.
pub(super) type OfGroup = [Option<Option<u64>>; GROUP_KEYS];

/// The effect of a command. No two commands of a run write the same value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Change {
    /// Sets the value.
    Write { value: u64 },
    /// Removes the value. Returns whether there was one.
    Delete,
    /// Sets the value if the present one is as expected. Returns whether it did.
    Swap { expect: Option<u64>, value: u64 },
    /// Makes these changes to the group that begins with the key, if its keys are as expected.
    /// Returns whether they were.
    Txn { expect: OfGroup, change: OfGroup },
}

/// A command, identified by its `operation` in the whole run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Command {
    pub(super) operation: u64,
    pub(super) key: u64,
    pub(super) change: Change,
}

impl Command {
    /// The encoded command, followed by `padding` bytes without a meaning.
    pub(super) fn encode(&self, padding: usize) -> Bytes {
        let mut bytes = BytesMut::with_capacity(80 + padding);
        bytes.put_u64_le(self.operation);
        bytes.put_u64_le(self.key);
        let (kind, expect, value) = match self.change {
            Change::Write { value } => (0, None, value),
            Change::Delete => (1, None, 0),
            Change::Swap { expect, value } => (2, expect, value),
            Change::Txn { .. } => (3, None, 0),
        };
        bytes.put_u8(kind);
        bytes.put_u8(expect.is_some().into());
        bytes.put_u64_le(expect.unwrap_or_default());
        bytes.put_u64_le(value);
        if let Change::Txn { expect, change } = self.change {
            for one in expect.into_iter().chain(change) {
                bytes.put_u8(u8::from(one.is_some()) + u8::from(one.flatten().is_some()));
                bytes.put_u64_le(one.flatten().unwrap_or_default());
            }
        }
        bytes.put_bytes(0xab, padding);
        bytes.freeze()
    }

    /// The command in a record's payload, if it is one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let (operation, key, value) = (number(0)?, number(8)?, number(26)?);
        let expect = (*bytes.get(17)? == 1).then_some(number(18)?);
        let of_group = |nth: usize| -> Option<OfGroup> {
            let mut all = OfGroup::default();
            for (key, one) in all.iter_mut().enumerate() {
                let at = 34 + 9 * (nth * GROUP_KEYS + key);
                *one = match bytes.get(at)? {
                    0 => None,
                    1 => Some(None),
                    _ => Some(Some(number(at + 1)?)),
                };
            }
            Some(all)
        };
        let change = match bytes.get(16)? {
            0 => Change::Write { value },
            1 => Change::Delete,
            2 => Change::Swap { expect, value },
            3 => Change::Txn { expect: of_group(0)?, change: of_group(1)? },
            _ => return None,
        };
        Some(Self { operation, key, change })
    }
}

/// The state, which is the same on every node after every command.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(super) struct State {
    pub(super) values: BTreeMap<u64, u64>,
    /// A hash over all commands carried out, in order.
    pub(super) history: u64,
}

impl State {
    pub(super) fn get(&self, key: u64) -> Option<u64> {
        self.values.get(&key).copied()
    }

    /// The values of the group that begins with `key`.
    pub(super) fn group(&self, key: u64) -> [Option<u64>; GROUP_KEYS] {
        std::array::from_fn(|nth| self.get(key + nth as u64))
    }

    fn set(&mut self, key: u64, value: Option<u64>) {
        match value {
            Some(value) => self.values.insert(key, value),
            None => self.values.remove(&key),
        };
    }

    /// Carries out a command. Returns whether it had its effect.
    pub(super) fn carry_out(&mut self, command: &Command) -> bool {
        let mut hasher = DefaultHasher::new();
        (self.history, command).hash(&mut hasher);
        self.history = hasher.finish();
        match command.change {
            Change::Write { value } => {
                self.values.insert(command.key, value);
                true
            }
            Change::Delete => self.values.remove(&command.key).is_some(),
            Change::Swap { expect, value } => {
                let holds = self.get(command.key) == expect;
                if holds {
                    self.values.insert(command.key, value);
                }
                holds
            }
            Change::Txn { expect, change } => {
                let group = self.group(command.key);
                let holds = group.iter().zip(expect).all(|(held, expect)| expect.is_none_or(|expect| *held == expect));
                for (key, value) in (command.key..).zip(change).filter(|_| holds) {
                    if let Some(value) = value {
                        self.set(key, value);
                    }
                }
                holds
            }
        }
    }
}
