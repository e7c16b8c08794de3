//! Properties of state machines and of the entries that are sent.
//!
//! Of the real actors no log can be seen. There, log matching and leader completeness are checked on
//! the entries that leave a node, against those sent and applied before.

use quorate_raft::{EntryId, Index, NodeId, Term};
use std::collections::BTreeMap;

/// The memory of all that was applied, written and sent.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct StateMachines {
    /// The digest of the state as of each index at which some node ever stopped.
    states: Vec<Option<u64>>,
    commands: BTreeMap<Index, Applied>,
    /// The checksum of every entry that was ever sent.
    entries: BTreeMap<EntryId, u32>,
    /// The checksum of every snapshot that was ever written, with the first node that wrote it.
    snapshots: BTreeMap<Index, (NodeId, u32)>,
}

/// A command, as it was applied for the first time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Applied {
    digest: u64,
    /// The latest term with a leader by then: the entry was committed in that term or
    /// an earlier one.
    during: Term,
}

/// The content of an entry that is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// A command with this digest.
    Command(u64),
    /// Something else.
    Other,
    /// Only its id and checksum.
    Stub,
}

impl StateMachines {
    /// A state machine is in this state as of entry `index`.
    ///
    /// # Errors
    /// If another one was in another state.
    pub fn state_after(&mut self, node: NodeId, index: Index, state: u64) -> Result<(), String> {
        let (at, states) = (usize::try_from(index.0).unwrap_or(usize::MAX), &mut self.states);
        if at >= states.len() {
            states.resize(at + 1, None);
        }
        match *states[at].get_or_insert(state) {
            others if others == state => Ok(()),
            others => Err(format!(
                "state machine safety: {node} is in state {state:08x} as of {index}, others were in {others:08x}"
            )),
        }
    }

    /// A state machine applied the command of entry `index`, and `during` is the last term that had
    /// a leader by then. True if no other has applied it before.
    ///
    /// # Errors
    /// If another one applied another command there, or passed by without one.
    pub(super) fn command_applied(
        &mut self,
        node: NodeId,
        index: Index,
        digest: u64,
        during: Term,
    ) -> Result<bool, String> {
        let commands = &mut self.commands;
        let last = commands.last_key_value().map_or(Index(0), |(last, _)| *last);
        match commands.get(&index) {
            Some(before) if before.digest != digest => Err(format!(
                "state machine safety: {node} applies command {digest:016x} at {index}, others {:016x}",
                before.digest
            )),
            Some(_) => Ok(false),
            None if index < last => {
                Err(format!("state machine safety: {node} applies a command at {index}, others nothing there"))
            }
            None => {
                commands.insert(index, Applied { digest, during });
                Ok(true)
            }
        }
    }

    /// A node sends an entry as the leader of `term`; of term 0 to repair a log.
    ///
    /// # Errors
    /// If the entry has another content than an earlier one with its id, or takes the place of an
    /// applied one.
    pub fn entry_sent(
        &mut self,
        from: NodeId,
        term: Term,
        entry: EntryId,
        checksum: u32,
        content: Content,
    ) -> Result<(), String> {
        let known = *self.entries.entry(entry).or_insert(checksum);
        if known != checksum {
            return Err(format!("log matching: {from} sends another entry {entry}"));
        }
        match self.commands.get(&entry.index) {
            Some(applied)
                if term > applied.during && content != Content::Stub && content != Content::Command(applied.digest) =>
            {
                Err(format!(
                    "leader completeness: {from} leads term {term} and sends {entry}, where another was applied"
                ))
            }
            _ => Ok(()),
        }
    }

    /// A node wrote a snapshot of the state as of entry `index`. The witness writes an empty one.
    ///
    /// # Errors
    /// If another node wrote other bytes, or the witness wrote any.
    pub fn snapshot_written(
        &mut self,
        node: NodeId,
        index: Index,
        checksum: u32,
        witness: Option<NodeId>,
    ) -> Result<(), String> {
        if Some(node) == witness {
            // The checksum of no bytes is 0.
            return if checksum == 0 { Ok(()) } else { Err(format!("tie-break: {node} writes a state")) };
        }
        let (first, other) = *self.snapshots.entry(index).or_insert((node, checksum));
        if checksum != other {
            return Err(format!("state machine safety: {node} writes another snapshot of entry {index} than {first}"));
        }
        Ok(())
    }
}
