//! What survives a crash: the durable log, term and vote of one node.

use quorate_raft::{Batch, EntryId, HardState, Index, Log, Membership, Persist, Recovered, SnapshotBase, Term};

/// A disk that is durable as far as it was written.
///
/// Entries are kept one a batch, so that equal contents are equal disks, however they were written.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Disk {
    pub hard_state: HardState,
    pub has_voted: bool,
    pub base: EntryId,
    pub base_checksum: u32,
    /// The newest snapshot. Its state is a checksum: what a state machine is in these worlds.
    pub snapshot: Option<SnapshotBase>,
    entries: Vec<Batch>,
}

/// How far a write got before the power went.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Torn {
    /// The truncation alone.
    Truncated,
    /// The truncation and the entries, not the hard state.
    Appended,
}

impl Disk {
    /// A disk with a term and vote, and no entries.
    pub fn with(hard_state: HardState) -> Self {
        Self { hard_state, has_voted: hard_state.term > Term(0), ..Self::default() }
    }

    /// Writes all of it: truncate, append, hard state.
    pub fn persist(&mut self, persist: &Persist) {
        self.persist_torn(persist, Torn::Appended);
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
            self.has_voted |= hard_state.vote.is_some();
        }
    }

    /// Writes the first part of it.
    pub fn persist_torn(&mut self, persist: &Persist, torn: Torn) {
        if let Some(from) = persist.truncate_from {
            self.entries.retain(|entry| entry.first() < from);
        }
        if let (Some(batch), Torn::Appended) = (&persist.batch, torn) {
            assert_eq!(batch.first(), self.last().index.next(), "a gap in the log on disk");
            assert_eq!(batch.previous_checksum(), self.last_checksum(), "a broken chain on disk");
            self.append(batch);
        }
    }

    /// Adds entries behind the others.
    pub fn append(&mut self, batch: &Batch) {
        let mut index = batch.first();
        while index <= batch.last() {
            self.entries.extend(batch.from(index).and_then(|batch| batch.up_to(index)));
            index = index.next();
        }
    }

    /// Forgets everything up to `to`, and has a snapshot of it instead.
    pub fn compact(&mut self, to: Index, membership: Membership) {
        let Some(last) = self.id_of(to) else { return };
        if let Some(entry) = self.entries.iter().find(|entry| entry.first() == to) {
            self.base_checksum = entry.checksum();
        }
        self.base = last;
        self.snapshot = Some(SnapshotBase { last, last_checksum: self.base_checksum, membership });
        self.entries.retain(|entry| entry.first() > to);
    }

    /// The last entry; the base if there is none.
    pub fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base, Batch::last_id)
    }

    /// The id of the entry at `index`.
    pub fn id_of(&self, index: Index) -> Option<EntryId> {
        let behind_base = index.0.checked_sub(self.base.index.0);
        match behind_base {
            Some(0) => Some(self.base),
            Some(at) => self.entries.get(at as usize - 1).map(Batch::last_id),
            None => None,
        }
    }

    /// Whether this very entry is durable, or covered by what was compacted.
    pub fn holds(&self, id: EntryId) -> bool {
        id.index <= self.base.index || self.id_of(id.index) == Some(id)
    }

    /// The entries from `from` to `to`.
    pub fn read(&self, from: Index, to: Index) -> Vec<Batch> {
        self.entries.iter().filter(|entry| from <= entry.first() && entry.first() <= to).cloned().collect()
    }

    /// What a storage finds when it starts.
    pub fn recover(&self) -> Recovered {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for entry in &self.entries {
            if terms.last().is_none_or(|(_, term)| *term != entry.term()) {
                terms.push((entry.first(), entry.term()));
            }
        }
        let log = Log::new(self.base, terms, self.last(), self.last_checksum());
        Recovered {
            hard_state: self.hard_state,
            has_voted: self.has_voted,
            log,
            snapshot: self.snapshot.clone(),
            ..Recovered::default()
        }
    }

    fn last_checksum(&self) -> u32 {
        self.entries.last().map_or(self.base_checksum, Batch::checksum)
    }
}
