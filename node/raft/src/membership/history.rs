//! The configurations in a log.

use super::Membership;
use crate::{
    ids::{Index, NodeId},
    snapshot::SnapshotBase,
};
use alloc::vec::Vec;

/// The configurations of a log, each in force from its entry on, committed or not (paper §6).
///
/// **Invariant:** never empty; strictly increasing in index. The first is the configuration as of
/// the log's base.
#[derive(Clone, Debug)]
pub(crate) struct History {
    all: Vec<(Index, Membership)>,
    /// Number of changes so far.
    version: u64,
}

impl core::hash::Hash for History {
    /// The number of changes decides nothing, so it tells no two states apart.
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.all.hash(state);
    }
}

impl History {
    /// The configuration as of `base`, with the index of its entry, and those of
    /// entries after `base`.
    #[must_use]
    pub(crate) fn new((index, membership): (Index, Membership), base: Index, later: Vec<(Index, Membership)>) -> Self {
        let later = later.into_iter().filter(|(index, _)| *index > base);
        Self { all: core::iter::once((index.min(base), membership)).chain(later).collect(), version: 0 }
    }

    /// The configuration in force: the newest, committed or not.
    #[must_use]
    pub(crate) fn current(&self) -> &Membership {
        &self.all[self.all.len() - 1].1
    }

    /// Differs after every change of the configuration in force, or of one that may be.
    #[must_use]
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Index of the entry of the configuration in force; it may be before the log's beginning.
    #[must_use]
    pub(crate) fn current_index(&self) -> Index {
        self.all[self.all.len() - 1].0
    }

    /// All configurations that are held, each with its index.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &(Index, Membership)> {
        self.all.iter()
    }

    /// The configuration as of the entry at `index`, and all later ones.
    pub(crate) fn since(&self, index: Index) -> impl Iterator<Item = &Membership> {
        let behind = self.all.partition_point(|(from, _)| *from <= index);
        self.all[behind.saturating_sub(1)..].iter().map(|(_, membership)| membership)
    }

    /// Whether `id` belongs to any of the configurations that are held.
    #[must_use]
    pub(crate) fn ever_contained(&self, id: NodeId) -> bool {
        self.all.iter().any(|(_, membership)| membership.contains(id))
    }

    /// The configuration as of the entry at `index`, with its own index; that of the base if
    /// `index` is before it.
    #[must_use]
    pub(crate) fn at(&self, index: Index) -> &(Index, Membership) {
        let behind = self.all.partition_point(|(from, _)| *from <= index);
        &self.all[behind.saturating_sub(1)]
    }

    /// Takes the configuration of a new entry at `index`, which is in force at once.
    pub(crate) fn appended(&mut self, index: Index, membership: Membership) {
        self.truncate_from(index);
        self.all.push((index, membership));
        self.version += 1;
    }

    /// Takes the configuration of the entry at `index`, whose payload had been lost.
    pub(crate) fn repaired(&mut self, index: Index, membership: Membership) {
        if let Err(at) = self.all.binary_search_by_key(&index, |(from, _)| *from) {
            self.all.insert(at.max(1), (index, membership));
            self.version += 1;
        }
    }

    /// Removes the configurations of the entries from `index` on.
    pub(crate) fn truncate_from(&mut self, index: Index) {
        let keep = self.all.partition_point(|(from, _)| *from < index).max(1);
        self.version += u64::from(keep < self.all.len());
        self.all.truncate(keep);
    }

    /// Lets the log begin after `to`: the configuration as of `to` becomes the first.
    pub(crate) fn compact(&mut self, to: Index) {
        let behind = self.all.partition_point(|(from, _)| *from <= to).max(1);
        self.all.drain(..behind - 1);
    }

    /// Takes the configuration of a snapshot; those of later entries stay if the log `keeps` them.
    pub(crate) fn install(&mut self, base: &SnapshotBase, keeps: bool) {
        let (later, version) = (core::mem::take(&mut self.all), self.version + 1);
        let later = if keeps { later } else { Vec::new() };
        let brought = (base.membership_index, base.membership.clone());
        *self = Self { version, ..Self::new(brought, base.last.index, later) };
    }
}
