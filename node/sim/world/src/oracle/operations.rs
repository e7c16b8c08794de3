//! What callers are told of their commands, against what was applied.

use quorate_raft::Index;
use std::collections::{BTreeMap, BTreeSet};

/// The memory of all commands of callers, by the number that names each in the whole run.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Operations {
    applied_at: BTreeMap<u64, Index>,
    /// Operations that did not and will not take effect, as their callers were told.
    refused: BTreeSet<u64>,
}

impl Operations {
    /// The command of an operation was applied at `index`, by any node.
    ///
    /// # Errors
    /// If it was applied at another index, too, or its caller was told that it never will be.
    pub fn applied(&mut self, operation: u64, index: Index) -> Result<(), String> {
        if let Some(before) = self.applied_at.get(&operation) {
            return match *before == index {
                true => Ok(()),
                false => Err(format!("at most once: {operation} is applied at {before} and again at {index}")),
            };
        }
        self.applied_at.insert(operation, index);
        if self.refused.contains(&operation) {
            return Err(format!("definite failures: {operation} took effect at {index}, and its caller was told not"));
        }
        Ok(())
    }

    /// A caller was told that its command did not and will not take effect.
    ///
    /// # Errors
    /// If it did.
    pub fn refused(&mut self, operation: u64) -> Result<(), String> {
        self.refused.insert(operation);
        match self.applied_at.get(&operation) {
            Some(index) => {
                Err(format!("definite failures: {operation} took effect at {index}, and its caller is told not"))
            }
            None => Ok(()),
        }
    }

    /// A caller was told that its command was applied at `index`.
    ///
    /// # Errors
    /// If it was not.
    pub fn acknowledged(&self, operation: u64, index: Index) -> Result<(), String> {
        match self.applied_at.get(&operation) {
            Some(found) if *found == index => Ok(()),
            found => Err(format!(
                "acknowledged writes: the caller of {operation} is told that it was applied at {index}, and it was at {found:?}"
            )),
        }
    }

    /// The index at which the command of an operation was first applied.
    #[must_use]
    pub fn applied_at(&self, operation: u64) -> Option<Index> {
        self.applied_at.get(&operation).copied()
    }
}
