//! The effects that a service has asked for and that are not completed: a part of the replicated
//! state.
//!
//! Rows of one key are performed one after another, in the order in which they were asked for; rows
//! of different keys side by side. The row that may be performed is the oldest of its key, and the
//! next one becomes it when the completion is applied. The table is a persistent map: a copy is
//! O(1). Each change can be taken back, in case the output of its entry is dropped.
//!
//! **Bound:** the rows, and the bytes of their keys and effects, as the last tick says: so a full
//! outbox is full at the same entry on every node.

use super::layout::{Reader, write_bytes};
use imbl::{OrdMap, OrdSet, ordset::DiffItem};
use quorate_raft::{Index, Term};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    io::{self, Write},
    str,
    sync::Arc,
};

/// The identity of an effect, equal for every attempt to perform it: what the outside deduplicates
/// by. Displayed as `index.nth`.
///
/// ```
/// use quorate::{EffectId, Index};
///
/// assert_eq!(EffectId { index: Index(7), nth: 1 }.to_string(), "7.1");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct EffectId {
    /// Index of the entry that asked for it.
    pub index: Index,
    /// Number of the effect within its entry, from 0.
    pub nth: u32,
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.nth)
    }
}

/// An effect was refused: the outbox has as many rows, or as many bytes, as the cluster allows.
/// Equal on every node, so a service may decide by it.
///
/// ```
/// # use quorate::{At, Context, OutboxFull, Service};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Mails;
/// # impl Service for Mails {
/// #     quorate::types!(String => Result<(), String>, () => (), signal (), effect String);
/// #     fn signal(&mut self, (): (), _: &mut Context<'_, Self>) {}
/// #     fn query(&self, (): (), _: At) {}
/// fn apply(&mut self, mail: String, cx: &mut Context<'_, Self>) -> Result<(), String> {
///     cx.perform("mails", mail).map_err(|OutboxFull| "try again later".to_owned())?;
///     Ok(())
/// }
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the outbox is full: earlier effects are not completed")]
pub struct OutboxFull;

/// The most that an outbox holds. The defaults stand here; a tick carries the cluster's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The most rows.
    pub rows: u32,
    /// The most bytes of keys and encoded effects.
    pub bytes: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { rows: 65_536, bytes: 64 << 20 }
    }
}

/// The rows by id. A clone is O(1).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Outbox {
    rows: OrdMap<EffectId, Row>,
    by_key: OrdSet<(Arc<str>, EffectId)>,
    /// The oldest row of each key.
    heads: OrdSet<EffectId>,
    bytes: u64,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("rows", &self.rows.len()).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// An effect that is to be performed.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// The key within which effects keep their order.
    pub key: Arc<str>,
    /// The effect, in postcard.
    pub effect: Arc<[u8]>,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row")
            .field("key", &format_args!("{} B", self.key.len()))
            .field("effect", &format_args!("{} B", self.effect.len()))
            .finish()
    }
}

impl Row {
    fn bytes(&self) -> u64 {
        (self.key.len() + self.effect.len()) as u64
    }
}

/// A change of the table, to be taken back.
#[derive(Debug)]
pub enum Undo {
    /// This row was added.
    Added(EffectId),
    /// This row was removed.
    Removed(EffectId, Row),
}

impl Outbox {
    /// Adds a row. Ids rise.
    ///
    /// # Errors
    /// If the bounds have no room for it. Then nothing has changed.
    pub fn add(&mut self, id: EffectId, key: &str, effect: &[u8], bounds: Bounds) -> Result<Undo, OutboxFull> {
        debug_assert!(self.rows.get_max().is_none_or(|(last, _)| *last < id), "ids rise");
        let bytes = self.bytes + (key.len() + effect.len()) as u64;
        if self.rows.len() >= bounds.rows as usize || bytes > u64::from(bounds.bytes) {
            return Err(OutboxFull);
        }
        self.insert(id, Row { key: key.into(), effect: effect.into() });
        Ok(Undo::Added(id))
    }

    /// Completes a row, by an entry of term `entry` that reports what the leader of `performed`
    /// did. It counts only if the two terms are equal, and the row is the oldest of its key: only
    /// the leader of a term appends in it, so a deposed leader's result that comes too late is told
    /// from the new leader's. `None` if it does not count.
    pub fn complete(&mut self, id: EffectId, performed: Term, entry: Term) -> Option<Undo> {
        if performed != entry || !self.heads.contains(&id) {
            return None;
        }
        Some(Undo::Removed(id, self.remove(id)?))
    }

    /// The row with this id.
    #[must_use]
    pub fn get(&self, id: EffectId) -> Option<&Row> {
        self.rows.get(&id)
    }

    /// The rows that may be performed, in the order of their ids: the oldest of each key.
    pub fn heads(&self) -> impl Iterator<Item = EffectId> + '_ {
        self.heads.iter().copied()
    }

    /// Whether this row may be performed.
    #[must_use]
    pub fn is_head(&self, id: EffectId) -> bool {
        self.heads.contains(&id)
    }

    /// The row that may be performed of this key.
    #[must_use]
    pub fn head_of(&self, key: &Arc<str>) -> Option<EffectId> {
        let first = (Arc::clone(key), EffectId { index: Index(0), nth: 0 });
        self.by_key.range(first..).next().filter(|(of, _)| of == key).map(|(_, id)| *id)
    }

    /// The rows that may be performed here and not in `later`, and those in `later` and not here.
    /// Costs no more than the changes between two copies of one outbox.
    #[must_use]
    pub fn heads_changed(&self, later: &Self) -> (Vec<EffectId>, Vec<EffectId>) {
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for item in self.heads.diff(&later.heads) {
            match item {
                DiffItem::Remove(id) => gone.push(*id),
                DiffItem::Add(id) => come.push(*id),
            }
        }
        (gone, come)
    }

    /// Whether this is surely a copy of `other` without a change.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.rows.ptr_eq(&other.rows)
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes a change back. The changes of an entry are taken back last first.
    pub fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Added(id) => drop(self.remove(id)),
            Undo::Removed(id, row) => self.insert(id, row),
        }
    }

    fn insert(&mut self, id: EffectId, row: Row) {
        match self.head_of(&row.key) {
            Some(head) if head < id => {}
            later => {
                later.map(|later| self.heads.remove(&later));
                self.heads.insert(id);
            }
        }
        self.bytes += row.bytes();
        self.by_key.insert((Arc::clone(&row.key), id));
        self.rows.insert(id, row);
    }

    fn remove(&mut self, id: EffectId) -> Option<Row> {
        let row = self.rows.remove(&id)?;
        self.bytes -= row.bytes();
        self.by_key.remove(&(Arc::clone(&row.key), id));
        if self.heads.remove(&id).is_some() {
            self.heads.extend(self.head_of(&row.key));
        }
        Some(row)
    }

    /// Writes the table, equal tables as equal bytes: the count of rows (8), and of each, in the
    /// order of the ids, index (8), number (4), key and effect, each with its length (4).
    ///
    /// # Errors
    /// If `to` fails.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&(self.len() as u64).to_le_bytes())?;
        for (id, row) in &self.rows {
            to.write_all(&id.index.0.to_le_bytes())?;
            to.write_all(&id.nth.to_le_bytes())?;
            write_bytes(to, row.key.as_bytes())?;
            write_bytes(to, &row.effect)?;
        }
        Ok(())
    }

    /// Reads a table that [`Outbox::write`] wrote.
    ///
    /// # Errors
    /// If the source fails, or there is no such table.
    pub fn read(from: &mut Reader<'_>) -> io::Result<Self> {
        let mut outbox = Self::default();
        for _ in 0..from.u64()? {
            let id = EffectId { index: Index(from.u64()?), nth: from.u32()? };
            if outbox.rows.get_max().is_some_and(|(last, _)| *last >= id) {
                return Err(from.invalid("the effects are not in order"));
            }
            let (key, effect) = (from.bytes()?, from.bytes()?);
            let key = str::from_utf8(&key).map_err(|_| from.invalid("an effect's key is not UTF-8"))?;
            outbox.insert(id, Row { key: key.into(), effect: effect.into() });
        }
        Ok(outbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    const WIDE: Bounds = Bounds { rows: 100, bytes: 10_000 };

    #[test]
    fn the_oldest_row_of_each_key_may_be_performed_and_the_next_once_it_is_completed() {
        let mut outbox = Outbox::default();
        for (index, key) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
            outbox.add(id(index), key, b"do", WIDE).expect("there is room");
        }
        assert_eq!(heads(&outbox), [1, 3]);
        assert!(outbox.complete(id(1), Term(7), Term(7)).is_some());
        assert_eq!(heads(&outbox), [2, 3]);
        assert!(outbox.complete(id(4), Term(7), Term(7)).is_none(), "2 is older");
        assert!(outbox.complete(id(3), Term(7), Term(7)).is_some());
        assert_eq!(heads(&outbox), [2]);
    }

    #[test]
    fn a_completion_counts_only_in_the_term_that_performed_and_only_once() {
        let mut outbox = Outbox::default();
        outbox.add(id(1), "a", b"do", WIDE).expect("there is room");
        assert!(outbox.complete(id(1), Term(7), Term(8)).is_none(), "the leader of 7 was deposed");
        assert!(outbox.complete(id(1), Term(8), Term(7)).is_none());
        assert_eq!(outbox.len(), 1);
        assert!(outbox.complete(id(1), Term(8), Term(8)).is_some());
        assert!(outbox.complete(id(1), Term(8), Term(8)).is_none(), "the row is gone");
    }

    #[test]
    fn a_full_outbox_refuses_and_has_room_again_after_a_completion() {
        let mut outbox = Outbox::default();
        let bounds = Bounds { rows: 2, bytes: 100 };
        outbox.add(id(1), "a", b"", bounds).expect("there is room");
        outbox.add(id(2), "a", b"", bounds).expect("there is room");
        assert_eq!(outbox.add(id(3), "a", b"", bounds).map(drop), Err(OutboxFull));
        outbox.complete(id(1), Term(1), Term(1)).expect("it counts");
        outbox.add(id(3), "a", b"", bounds).expect("there is room");

        let mut outbox = Outbox::default();
        let bounds = Bounds { rows: 10, bytes: 8 };
        outbox.add(id(1), "ab", b"cd", bounds).expect("there is room");
        assert_eq!(outbox.add(id(2), "ab", b"cde", bounds).map(drop), Err(OutboxFull), "a byte too many");
        outbox.add(id(2), "ab", b"cd", bounds).expect("it fills the outbox");
        assert_eq!(outbox.add(id(3), "", b"x", Bounds::default()).map(drop), Ok(()), "the bounds are the tick's");
    }

    /// Against a list of rows, with seeds: every operation, undone and not.
    #[test]
    fn the_table_equals_a_dumb_one() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut outbox, mut model) = (Outbox::default(), Vec::<(u64, String, Vec<u8>)>::new());
            let mut index = 0;
            for _ in 0..150 {
                let (before, model_before, mut undos) = (outbox.clone(), model.clone(), Vec::new());
                for _ in 0..rng.random_range(1..5) {
                    index += 1;
                    undos.extend(step(&mut rng, &mut outbox, &mut model, index));
                    check(&outbox, &model);
                }
                let (gone, come) = before.heads_changed(&outbox);
                let unlike =
                    |of: &Outbox, other: &Outbox| of.heads().filter(|id| !other.is_head(*id)).collect::<Vec<_>>();
                assert_eq!((gone, come), (unlike(&before, &outbox), unlike(&outbox, &before)));
                assert!(!before.is_same(&outbox) || before == outbox);
                if rng.random_bool(0.2) {
                    undos.into_iter().rev().for_each(|undo| outbox.undo(undo));
                    assert_eq!(outbox, before, "seed {seed}: all is taken back");
                    model = model_before;
                }
            }
        }
    }

    fn step(
        rng: &mut StdRng,
        outbox: &mut Outbox,
        model: &mut Vec<(u64, String, Vec<u8>)>,
        index: u64,
    ) -> Option<Undo> {
        let bounds = Bounds { rows: 12, bytes: 60 };
        if rng.random_bool(0.6) {
            let (key, effect) = (["a", "b", "cc"][rng.random_range(0..3)], vec![7; rng.random_range(0..9)]);
            let bytes: usize = model.iter().map(|(_, key, effect)| key.len() + effect.len()).sum();
            let fits = model.len() < 12 && bytes + key.len() + effect.len() <= 60;
            let added = outbox.add(id(index), key, &effect, bounds);
            assert_eq!(added.is_ok(), fits);
            if fits {
                model.push((index, key.to_owned(), effect));
            }
            return added.ok();
        }
        let wanted = rng.random_range(0..=index);
        let found = model.iter().position(|(index, ..)| *index == wanted);
        let oldest = found.filter(|at| model[..*at].iter().all(|(_, key, _)| *key != model[*at].1));
        let undo = outbox.complete(id(wanted), Term(3), Term(3));
        assert_eq!(undo.is_some(), oldest.is_some());
        oldest.map(|at| model.remove(at));
        undo
    }

    fn check(outbox: &Outbox, model: &[(u64, String, Vec<u8>)]) {
        let rows: Vec<_> =
            outbox.rows.iter().map(|(id, row)| (id.index.0, row.key.to_string(), row.effect.to_vec())).collect();
        assert_eq!(rows, model);
        let oldest = |at: &usize| model[..*at].iter().all(|(_, key, _)| *key != model[*at].1);
        let oldest: Vec<_> = (0..model.len()).filter(oldest).map(|at| model[at].0).collect();
        assert_eq!(heads(outbox), oldest);
        let mut bytes = Vec::new();
        outbox.write(&mut bytes).expect("memory takes everything");
        assert_eq!(read(&bytes).expect("a table"), *outbox);
    }

    #[test]
    fn a_damaged_table_is_refused_or_is_another_table() {
        let mut outbox = Outbox::default();
        for (index, key) in [(1, "a"), (2, "ab"), (9, "a")] {
            outbox.add(id(index), key, b"do", WIDE).expect("there is room");
        }
        let mut good = Vec::new();
        outbox.write(&mut good).expect("memory takes everything");
        (0..good.len()).for_each(|end| assert!(read(&good[..end]).is_err(), "cut at {end}"));
        for bit in 0..good.len() * 8 {
            let (mut damaged, mut again) = (good.clone(), Vec::new());
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(outbox) = read(&damaged) {
                outbox.write(&mut again).expect("memory takes everything");
                assert!(damaged.starts_with(&again), "bit {bit} has two meanings");
            }
        }
    }

    fn read(mut bytes: &[u8]) -> io::Result<Outbox> {
        Outbox::read(&mut Reader::new(&mut bytes))
    }

    fn heads(outbox: &Outbox) -> Vec<u64> {
        outbox.heads().map(|id| id.index.0).collect()
    }

    fn id(index: u64) -> EffectId {
        EffectId { index: Index(index), nth: 0 }
    }
}
