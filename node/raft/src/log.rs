//! A replica's view of its log: its bounds, the term of every entry, and a cache of
//! the latest entries.
//!
//! The entries themselves are on disk, owned by the storage. This module has the part that the
//! rules need at once: the terms, as runs (a log of a million entries has a handful of leaders),
//! and the latest batches, from which peers and the state machine are served. Entries that are not
//! cached are read from the storage.

use crate::{
    batch::Batch,
    ids::{EntryId, Index, Term},
};
use alloc::{collections::VecDeque, vec::Vec};

/// Bounds and terms of a log, and its latest entries.
///
/// **Invariant:** `runs` is strictly increasing in index and in term, begins at `first()` unless
/// the log is empty, and ends at or below `last`. The cache is consecutive and ends at `last`,
/// unless it is empty.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Log {
    base: EntryId,
    base_checksum: Option<u32>,
    runs: Vec<(Index, Term)>,
    last: EntryId,
    last_checksum: u32,
    cache: VecDeque<Batch>,
    cached_bytes: usize,
}

/// The place where entries can be found.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Lookup {
    /// Here: the entries from the requested index on.
    Cached(Batch),
    /// In the storage, at least up to this index.
    OnDisk(Index),
    /// Nowhere: they were compacted away, and only a snapshot has their effect.
    Compacted,
    /// Nowhere: the log ends before the requested index.
    Beyond,
}

impl Log {
    /// The log that a storage recovered: `terms` names the first index of every term after `base`.
    #[must_use]
    pub fn new(base: EntryId, terms: Vec<(Index, Term)>, last: EntryId, last_checksum: u32) -> Self {
        let base_checksum = match base.index {
            Index(0) => Some(0),
            _ => (base == last).then_some(last_checksum),
        };
        Self { base, base_checksum, runs: terms, last, last_checksum, cache: VecDeque::new(), cached_bytes: 0 }
    }

    /// The entry before the first one held: 0@0, or the last one that a snapshot replaced.
    #[must_use]
    pub fn base(&self) -> EntryId {
        self.base
    }

    /// Index of the first entry held; in an empty log, of the next entry.
    #[must_use]
    pub fn first(&self) -> Index {
        self.base.index.next()
    }

    /// The last entry; `base` if the log is empty.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// The checksum that the next record chains to.
    #[must_use]
    pub fn last_checksum(&self) -> u32 {
        self.last_checksum
    }

    /// The term of the entry at `index`, also of `base`; `None` outside the log.
    #[must_use]
    pub fn term_of(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last.index {
            return None;
        }
        let run = self.runs.partition_point(|(first, _)| *first <= index);
        run.checked_sub(1).map(|run| self.runs[run].1)
    }

    /// The first index of every term after `base`, and the term.
    #[must_use]
    pub fn runs(&self) -> &[(Index, Term)] {
        &self.runs
    }

    /// Whether the log holds an entry with this id (or has it as `base`).
    #[must_use]
    pub fn contains(&self, id: EntryId) -> bool {
        self.term_of(id.index) == Some(id.term)
    }

    /// The last of the consecutive entries from `index` on that have the same term.
    #[must_use]
    pub fn run_end(&self, index: Index) -> Index {
        let next = self.runs.partition_point(|(first, _)| *first <= index);
        self.runs.get(next).map_or(self.last.index, |(first, _)| first.previous())
    }

    /// The id of the entry at `index`, if it is held.
    #[must_use]
    pub fn id_of(&self, index: Index) -> Option<EntryId> {
        self.term_of(index).map(|term| EntryId::new(term, index))
    }

    /// The term at `index` (or of the last entry, if that is before) and the first index of that
    /// term: a follower that lacks `index` names it as the conflict.
    #[must_use]
    pub fn conflict_at(&self, index: Index) -> EntryId {
        let index = index.min(self.last.index);
        let run = self.runs.partition_point(|(first, _)| *first <= index);
        run.checked_sub(1).map_or(self.base, |run| EntryId::new(self.runs[run].1, self.runs[run].0))
    }

    /// The index from which a leader should send next, given the conflict that a follower named.
    ///
    /// If this log has entries of the conflicting term, the two may agree up to the last of those;
    /// otherwise they can only agree before the follower's first entry of that term.
    #[must_use]
    pub fn next_after_conflict(&self, conflict: EntryId) -> Index {
        let run = self.runs.partition_point(|(_, term)| *term <= conflict.term);
        match run.checked_sub(1).map(|run| self.runs[run]) {
            Some((_, term)) if term == conflict.term => {
                self.runs.get(run).map_or(self.last.index.next(), |(first, _)| *first)
            }
            // Only `base` is left of the entries of that term, and a follower that has it
            // needs no snapshot.
            _ if conflict.term == self.base.term && conflict.index <= self.base.index => self.first(),
            _ => conflict.index.max(Index(1)),
        }
    }

    /// The checksum of the record at `index`, if it is known without reading the disk.
    #[must_use]
    pub fn checksum_of(&self, index: Index) -> Option<u32> {
        if index == self.last.index {
            return Some(self.last_checksum);
        }
        if index == self.base.index {
            return self.base_checksum;
        }
        match self.lookup(index, index, usize::MAX) {
            Lookup::Cached(batch) => Some(batch.checksum()),
            _ => None,
        }
    }

    /// Removes all entries from the first index of `batch` on and appends `batch` there. It may
    /// begin anywhere from `first()` to the index after the last entry.
    pub fn replace_from(&mut self, batch: Batch) {
        debug_assert!(batch.first() > self.base.index && batch.first() <= self.last.index.next());
        self.forget_from(batch.first());
        if self.runs.last().is_none_or(|(_, term)| *term != batch.term()) {
            self.runs.push((batch.first(), batch.term()));
        }
        self.last = batch.last_id();
        self.last_checksum = batch.checksum();
        self.cached_bytes += batch.bytes().len();
        self.cache.push_back(batch);
    }

    /// The entries from `from` up to at most `to`, in one batch of about `bytes_max` at most.
    #[must_use]
    pub fn lookup(&self, from: Index, to: Index, bytes_max: usize) -> Lookup {
        let to = to.min(self.last.index);
        if from <= self.base.index {
            return Lookup::Compacted;
        }
        if from > to {
            return Lookup::Beyond;
        }
        let behind = self.cache.partition_point(|batch| batch.first() <= from);
        match behind.checked_sub(1) {
            Some(at) => match self.cache[at].from(from).and_then(|batch| batch.up_to(to)) {
                Some(batch) => Lookup::Cached(batch.within(bytes_max)),
                None => Lookup::Beyond,
            },
            None => Lookup::OnDisk(self.cache.front().map_or(to, |batch| batch.first().previous().min(to))),
        }
    }

    /// Evicts cached batches at or below `up_to` (they must be durable), oldest first, until the
    /// cache has at most `bytes_max`.
    pub fn evict(&mut self, up_to: Index, bytes_max: usize) {
        while self.cached_bytes > bytes_max && self.cache.front().is_some_and(|batch| batch.last() <= up_to) {
            if let Some(batch) = self.cache.pop_front() {
                self.cached_bytes -= batch.bytes().len();
            }
        }
    }

    /// Removes everything up to and including `to`, which a snapshot covers; `checksum` is that of
    /// its record, if known. An entry that the log does not hold replaces the whole log; then the
    /// checksum must be known.
    pub fn compact(&mut self, to: EntryId, checksum: Option<u32>) {
        if to.index <= self.base.index {
            return;
        }
        if !self.contains(to) {
            *self = Self::new(to, Vec::new(), to, checksum.unwrap_or_default());
            return;
        }
        // The run that holds the entry after `to` becomes the first one.
        let run = self.runs.partition_point(|(first, _)| *first <= to.index.next());
        self.runs.drain(..run.saturating_sub(1));
        if to.index == self.last.index {
            self.runs.clear();
        } else if let Some((first, _)) = self.runs.first_mut() {
            *first = to.index.next();
        }
        (self.base, self.base_checksum) = (to, checksum);
        while self.cache.front().is_some_and(|batch| batch.last() <= to.index) {
            if let Some(batch) = self.cache.pop_front() {
                self.cached_bytes -= batch.bytes().len();
            }
        }
    }

    /// Removes the entries from `index` on; the record before has this checksum.
    pub(crate) fn truncate_from(&mut self, index: Index, checksum: u32) {
        if let Some(last) = self.id_of(index.previous()).filter(|_| index <= self.last.index) {
            self.forget_from(index);
            (self.last, self.last_checksum) = (last, checksum);
        }
    }

    /// Sets the checksum of the record that is `base`.
    pub(crate) fn know_base(&mut self, checksum: u32) {
        self.base_checksum = Some(checksum);
    }

    fn forget_from(&mut self, index: Index) {
        if index > self.last.index {
            return;
        }
        let keep = self.runs.partition_point(|(first, _)| *first < index);
        self.runs.truncate(keep);
        while let Some(batch) = self.cache.pop_back() {
            self.cached_bytes -= batch.bytes().len();
            if batch.first() < index {
                if let Some(head) = batch.up_to(index.previous()) {
                    self.cached_bytes += head.bytes().len();
                    self.cache.push_back(head);
                }
                break;
            }
        }
    }
}
