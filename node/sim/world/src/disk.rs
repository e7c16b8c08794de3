//! The durable state of one node: log, term and vote, and the newest snapshot. There are no bytes
//! and no files here: `quorate-storage-testing` has the disk below the real log.

use quorate_raft::{
    Batch, Cut, EntryId, Faulty, HardState, Index, Log, Membership, NodeId, Persist, Recovered, SnapshotBase, Term,
};
use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

/// A disk on which every write is durable once it is made.
///
/// Each entry is a batch of its own, so that disks with equal contents are equal,
/// however they were written.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Disk {
    /// The durable term, vote and promise.
    pub hard_state: HardState,
    /// Whether a vote was ever written.
    pub has_voted: bool,
    /// The entry before the first one held.
    pub base: EntryId,
    /// The checksum of the record of `base`.
    pub base_checksum: u32,
    /// The newest snapshot. Its state is a checksum, like that of every state
    /// machine in these worlds.
    pub snapshot: Option<SnapshotBase>,
    /// The members that are known to have had a log, and their holdings.
    pub known: BTreeMap<NodeId, Index>,
    entries: Vec<Batch>,
    /// Entries of which only the identity is left.
    faulty: BTreeMap<Index, Fault>,
    less: Less,
}

/// The first index from which a disk may hold less than when it was last examined. It tells
/// no two disks apart.
#[derive(Clone, Copy, Default, Debug)]
struct Less(Option<Index>);

impl PartialEq for Less {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Less {}

impl Hash for Less {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// The origin of a fault in an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// The entry was durable, and the storage can prove it.
    Proven,
    /// The entry was durable, but nothing on the disk says so.
    Unproven,
    /// The entry never was durable: a crash tore its write.
    Torn,
}

/// The part of a write that was done when the power failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Torn {
    /// Only the cut and the truncation.
    Truncated,
    /// Also the entries' identities, without their payloads.
    Named,
    /// Also the entries, but not the hard state.
    Appended,
}

impl Disk {
    /// A disk with a term and vote, and no entries.
    pub fn with(hard_state: HardState) -> Self {
        Self { hard_state, has_voted: hard_state.term > Term(0), ..Self::default() }
    }

    /// Performs a whole write: cut, truncation, append, repair, hard state.
    pub fn persist(&mut self, persist: &Persist) {
        self.persist_torn(persist, Torn::Appended);
        if let Some(repair) = &persist.repair {
            for entry in one_by_one(repair) {
                assert!(self.entries.contains(&entry), "a repair by another entry");
                self.faulty.remove(&entry.first());
            }
        }
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
            self.has_voted |= hard_state.vote.is_some();
        }
    }

    /// Performs the part of a write that `torn` names.
    pub fn persist_torn(&mut self, persist: &Persist, torn: Torn) {
        if let Some(cut) = persist.cut {
            self.cut(cut);
        }
        if let Some(from) = persist.truncate_from {
            self.truncate_from(from);
        }
        if let (Some(batch), Torn::Appended | Torn::Named) = (&persist.batch, torn) {
            assert_eq!(batch.first(), self.last().index.next(), "a gap in the log on disk");
            assert_eq!(batch.previous_checksum(), self.last_checksum(), "a broken chain on disk");
            self.append(batch);
            if torn == Torn::Named {
                self.holds_less_from(batch.first());
                self.faulty.extend(one_by_one(batch).map(|entry| (entry.first(), Fault::Torn)));
            }
        }
    }

    /// Keeps the holdings of these members, where they grew.
    pub fn remember(&mut self, members: &[(NodeId, Index)]) {
        for (member, index) in members {
            let held = self.known.entry(*member).or_default();
            *held = (*held).max(*index);
        }
    }

    /// Appends entries to the log, without a check that they follow it.
    pub fn append(&mut self, batch: &Batch) {
        self.entries.extend(one_by_one(batch));
    }

    fn truncate_from(&mut self, from: Index) {
        self.holds_less_from(from);
        self.entries.truncate(usize::try_from(from.since(self.base.index)).unwrap_or(usize::MAX).max(1) - 1);
        self.faulty.retain(|index, _| *index < from);
    }

    fn cut(&mut self, cut: Cut) {
        let covered = self.snapshot.as_ref().map(|snapshot| snapshot.last.index);
        assert!(covered >= Some(cut.to.index), "cut up to {}, and the snapshot ends at {covered:?}", cut.to);
        if cut.to.index <= self.base.index {
            return;
        }
        if self.id_of(cut.to.index) == Some(cut.to) {
            let at = usize::try_from(cut.to.index.since(self.base.index)).expect("small") - 1;
            self.base_checksum = self.entries[at].checksum();
            assert!(cut.checksum.is_none_or(|checksum| checksum == self.base_checksum), "a cut with a wrong checksum");
            self.entries.drain(..=at);
        } else {
            self.base_checksum = cut.checksum.expect("the log does not hold it");
            self.holds_less_from(cut.to.index.next());
            self.entries.clear();
        }
        self.base = cut.to;
        let base = self.base.index;
        self.faulty.retain(|index, _| *index > base);
        if self.entries.is_empty() {
            self.faulty.clear();
        }
    }

    /// Keeps a snapshot, if it covers more than the present one.
    pub fn save(&mut self, base: &SnapshotBase) {
        if self.snapshot.as_ref().is_none_or(|snapshot| snapshot.last.index < base.last.index) {
            self.snapshot = Some(base.clone());
        }
    }

    /// Removes all entries up to `to`, and has a snapshot of them instead.
    pub fn compact(&mut self, to: Index, membership: Membership) {
        let last = self.id_of(to).expect("it is held");
        let at = usize::try_from(to.since(self.base.index)).expect("small") - 1;
        let last_checksum = self.entries[at].checksum();
        self.save(&SnapshotBase { last, last_checksum, membership, membership_index: to });
        self.cut(Cut { to: last, checksum: None });
    }

    /// Loses the payload of an entry.
    pub fn lose(&mut self, index: Index, fault: Fault) {
        assert!(index > self.base.index && index <= self.last().index, "{index} is not there to be lost");
        self.holds_less_from(index);
        self.faulty.insert(index, fault);
    }

    /// Loses the snapshot.
    pub fn lose_snapshot(&mut self) {
        self.holds_less_from(Index(0));
        self.snapshot = None;
    }

    /// The operator of an only voter declares that entries not proven to have been durable
    /// never were: the first of them and all entries after it are discarded. Returns the
    /// number of discarded entries.
    pub fn discard_unproven(&mut self) -> u64 {
        let unproven = self.faulty.iter().find(|(_, fault)| **fault != Fault::Proven).map(|(index, _)| *index);
        let Some(from) = unproven else { return 0 };
        let before = self.last().index;
        self.truncate_from(from);
        before.since(self.last().index)
    }

    /// Loses everything, like a directory that was emptied.
    pub fn wipe(&mut self) {
        *self = Self { less: Less(Some(Index(0))), ..Self::default() };
    }

    /// Puts the directory back to its state when `copy` was taken.
    pub fn put_back(&mut self, copy: Self) {
        *self = Self { less: Less(Some(Index(0))), ..copy };
    }

    /// Takes the first index from which the disk may hold less since the last call; `None` if
    /// it holds no less.
    pub fn take_less(&mut self) -> Option<Index> {
        self.less.0.take()
    }

    /// The first index from which the disk may hold less since [`Disk::take_less`].
    #[must_use]
    pub fn less_from(&self) -> Option<Index> {
        self.less.0
    }

    fn holds_less_from(&mut self, index: Index) {
        self.less.0 = Some(self.less.0.map_or(index, |less| less.min(index)));
    }

    /// The last entry; the base if there is none.
    pub fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base, Batch::last_id)
    }

    /// The id of the entry at `index`; `None` before the base or after the last entry.
    pub fn id_of(&self, index: Index) -> Option<EntryId> {
        let behind_base = index.0.checked_sub(self.base.index.0);
        match behind_base {
            Some(0) => Some(self.base),
            Some(at) => self.entries.get(at as usize - 1).map(Batch::last_id),
            None => None,
        }
    }

    /// Whether the effect of this very entry is durable: the entry is whole, or
    /// a snapshot covers it.
    pub fn holds(&self, id: EntryId) -> bool {
        self.covers(id) || (self.id_of(id.index) == Some(id) && self.is_whole(id.index))
    }

    /// Whether the disk holds the entry, or knows that it did.
    pub fn remembers(&self, id: EntryId) -> bool {
        let torn = self.faulty.get(&id.index) == Some(&Fault::Torn);
        self.covers(id) || id.index <= self.base.index || (self.id_of(id.index) == Some(id) && !torn)
    }

    fn covers(&self, id: EntryId) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| id.index <= snapshot.last.index)
    }

    fn is_whole(&self, index: Index) -> bool {
        index > self.base.index && !self.faulty.contains_key(&index)
    }

    /// Whether no entry and no vote was ever written.
    pub fn is_new(&self) -> bool {
        !self.has_voted && self.last().index == Index(0)
    }

    /// Whether everything that ever was durable still is. False for an empty disk, which
    /// may have been emptied.
    pub fn is_sound(&self) -> bool {
        let covered = self.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.last.index);
        let has_past = self.has_voted || self.last().index > Index(0);
        has_past && covered >= self.base.index && self.faulty.values().all(|fault| *fault == Fault::Torn)
    }

    /// Whether the disk lost this entry, and can't prove that it was durable.
    pub fn doubts(&self, id: EntryId) -> bool {
        self.id_of(id.index) == Some(id) && self.faulty.get(&id.index).is_some_and(|fault| *fault != Fault::Proven)
    }

    /// The ids of the entries after the base, whole or not.
    pub fn entries(&self) -> impl Iterator<Item = EntryId> {
        self.entries.iter().map(Batch::last_id)
    }

    /// The ids of the entries that are whole.
    pub fn whole(&self) -> Vec<EntryId> {
        self.entries.iter().map(Batch::last_id).filter(|id| self.is_whole(id.index)).collect()
    }

    /// The entries from `from` to `to`, up to the first faulty one.
    pub fn read(&self, from: Index, to: Index) -> Vec<Batch> {
        let before = usize::try_from(from.since(self.base.index)).unwrap_or(usize::MAX).max(1) - 1;
        let wanted = self.entries.iter().skip(before).take_while(|entry| entry.first() <= to);
        wanted.take_while(|entry| self.is_whole(entry.first())).cloned().collect()
    }

    /// The state that a storage finds when it starts.
    pub fn recover(&mut self) -> Recovered {
        if let Some(SnapshotBase { last, last_checksum, .. }) = self.snapshot.clone()
            && last.index > self.base.index
            && self.id_of(last.index) != Some(last)
        {
            // A crash between the snapshot and the cut leaves this state.
            self.cut(Cut { to: last, checksum: Some(last_checksum) });
        }
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for entry in &self.entries {
            if terms.last().is_none_or(|(_, term)| *term != entry.term()) {
                terms.push((entry.first(), entry.term()));
            }
        }
        let whole = self.entries.iter().filter(|entry| self.is_whole(entry.first()));
        let memberships = whole.flat_map(|entry| entry.memberships().expect("what was checked")).collect();
        let lost = self.entries.iter().filter_map(|entry| Some((entry, self.faulty.get(&entry.first())?)));
        let faulty = lost.map(|(entry, fault)| Faulty {
            id: entry.last_id(),
            checksum: entry.checksum(),
            was_durable: *fault == Fault::Proven,
        });
        Recovered {
            hard_state: self.hard_state,
            log: Log::new(self.base, terms, self.last(), self.last_checksum()),
            faulty: faulty.collect(),
            snapshot: self.snapshot.clone(),
            memberships,
            has_voted: self.has_voted,
            holdings: self.known.iter().map(|(member, held)| (*member, *held)).collect(),
        }
    }

    fn last_checksum(&self) -> u32 {
        self.entries.last().map_or(self.base_checksum, Batch::checksum)
    }
}

fn one_by_one(batch: &Batch) -> impl Iterator<Item = Batch> {
    let indexes = batch.first().0..=batch.last().0;
    indexes.filter_map(|index| batch.from(Index(index))?.up_to(Index(index)))
}
