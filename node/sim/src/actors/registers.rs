//! The replicated service of the simulation: a few registers, and commands that
//! name their operation.

use super::observer::SharedObserver;
use bytes::{BufMut, Bytes, BytesMut};
use quorate::{At, Index, NodeId, StateMachine, WriteState};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Write},
};

/// The effect of a command on its key. Each written value is unique in a run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Change {
    /// Sets the value.
    Write { value: u64 },
    /// Removes the value. Returns whether there was one.
    Delete,
    /// Sets the value if the present one is as expected. Returns whether it did.
    Swap { expect: Option<u64>, value: u64 },
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
        let mut bytes = BytesMut::with_capacity(48 + padding);
        bytes.put_u64_le(self.operation);
        bytes.put_u64_le(self.key);
        let (kind, expect, value) = match self.change {
            Change::Write { value } => (0, None, value),
            Change::Delete => (1, None, 0),
            Change::Swap { expect, value } => (2, expect, value),
        };
        bytes.put_u8(kind);
        bytes.put_u8(expect.is_some().into());
        bytes.put_u64_le(expect.unwrap_or_default());
        bytes.put_u64_le(value);
        bytes.put_bytes(0xab, padding);
        bytes.freeze()
    }

    /// The command in a record's payload, if it is one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let (operation, key, value) = (number(0)?, number(8)?, number(26)?);
        let expect = (*bytes.get(17)? == 1).then_some(number(18)?);
        let change = match bytes.get(16)? {
            0 => Change::Write { value },
            1 => Change::Delete,
            2 => Change::Swap { expect, value },
            _ => return None,
        };
        Some(Self { operation, key, change })
    }
}

/// The state, which is the same on every node after every command.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(super) struct State {
    values: BTreeMap<u64, u64>,
    /// A hash over all commands carried out, in order.
    history: u64,
}

impl State {
    pub(super) fn get(&self, key: u64) -> Option<u64> {
        self.values.get(&key).copied()
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
        }
    }
}

/// The state machine of one node.
pub(super) struct Registers {
    node: NodeId,
    state: State,
    applied: Index,
    /// Bytes of padding in a snapshot, so that it takes more than one piece.
    ballast: usize,
    observer: SharedObserver,
}

impl Registers {
    pub(super) fn new(node: NodeId, ballast: usize, observer: SharedObserver) -> Self {
        Self { node, state: State::default(), applied: Index(0), ballast, observer }
    }

    pub(super) fn get(&self, key: u64) -> Option<u64> {
        self.state.get(key)
    }
}

impl StateMachine for Registers {
    fn apply(&mut self, &At { index, .. }: &At, command: &[u8]) -> Bytes {
        let mut observer = self.observer.lock();
        let Some(command) = Command::decode(command) else {
            observer.fail(format!("state machine safety: entry {index} of node {} is no command", self.node));
            return Bytes::new();
        };
        if index <= self.applied {
            observer.fail(format!("state machine safety: {} applies {index} behind {}", self.node, self.applied));
        }
        self.applied = index;
        let changed = self.state.carry_out(&command);
        observer.applied(self.node, index, &command, changed, &self.state);
        Bytes::from_static(if changed { b"1" } else { b"0" })
    }

    fn snapshot(&self) -> Option<WriteState> {
        let (state, applied, ballast) = (self.state.clone(), self.applied, self.ballast);
        let observer = self.observer.clone();
        Some(Box::new(move |writer: &mut dyn Write| {
            let mut words = vec![applied.0, state.history];
            words.extend(state.values.iter().flat_map(|(key, value)| [*key, *value]));
            writer.write_all(&(words.len() as u64).to_le_bytes())?;
            for word in words {
                writer.write_all(&word.to_le_bytes())?;
            }
            writer.write_all(&vec![0x5a; ballast])?;
            observer.lock().report.count("snapshots", 1);
            Ok(())
        }))
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut number = || {
            let mut word = [0; 8];
            from.read_exact(&mut word).map(|()| u64::from_le_bytes(word))
        };
        let count = number()?;
        let (applied, history) = (Index(number()?), number()?);
        let pairs = (0..count.saturating_sub(2) / 2).map(|_| Ok((number()?, number()?)));
        let values = pairs.collect::<io::Result<_>>()?;
        io::copy(from, &mut io::sink())?;
        (self.state, self.applied) = (State { values, history }, applied);
        self.observer.lock().restored(self.node, applied, &self.state);
        Ok(())
    }
}
