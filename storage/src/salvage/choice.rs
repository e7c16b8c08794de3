//! The choice among several directories: the source of a new one.

use super::Survey;
use crate::contract::{SnapshotSource, StorageError};
use quorate_raft::{Batch, EntryId, Faulty, Index, Snapshot, Term};
use std::path::{Path, PathBuf};

/// The source of a new directory: the most advanced log of several, and replacements from the
/// others for entries that it lost.
#[derive(Debug)]
pub struct Choice<'a> {
    surveys: &'a [Survey],
    chosen: usize,
    /// The survey with the newest snapshot, and that snapshot.
    snapshot: Option<(usize, Snapshot)>,
    healed: Vec<(Faulty, usize)>,
    last: EntryId,
    term: Term,
}

/// An entry that the chosen directory lost, and a directory that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Healed {
    /// The entry's term and index.
    pub id: EntryId,
    /// The directory with a whole copy of it.
    pub from: PathBuf,
}

impl<'a> Choice<'a> {
    /// Chooses the directory whose last entry has the highest term, and of those the highest index,
    /// as voters compare logs: it has every committed entry that any of them has. Entries that its
    /// disk lost come from another directory, and so does the snapshot, if another has a newer one.
    ///
    /// With `up_to`, the new log ends with the entry of that index: later ones are given up.
    ///
    /// # Errors
    /// If there is no survey, they are of different clusters or histories, or the chosen one lost
    /// an entry that none of them has.
    pub fn of(surveys: &'a [Survey], up_to: Option<Index>) -> Result<Self, StorageError> {
        let refuse = |what: String| Err(StorageError::new(what));
        let ranked = surveys.iter().enumerate().max_by_key(|(at, survey)| (survey.last(), std::cmp::Reverse(*at)));
        let Some((chosen, most)) = ranked else {
            return refuse("no data directory can be used; name one that survived".into());
        };
        if let Some(other) = surveys.iter().find(|other| other.cluster() != most.cluster()) {
            return refuse(format!(
                "{} is of cluster {:?} and {} of cluster {:?}; name directories of one cluster",
                most.dir().display(),
                most.cluster(),
                other.dir().display(),
                other.cluster()
            ));
        }
        if most.last().index == Index(0) {
            return refuse(format!(
                "{} holds no entry, nor does any other; there is nothing to recover",
                most.dir().display()
            ));
        }
        let snapshot = newest_snapshot(surveys, most)?;
        let covered = snapshot.as_ref().map_or(Index(0), |(_, snapshot)| snapshot.base.last.index);
        if covered < most.found().base.index {
            return refuse(format!(
                "{} has the log after entry {} alone, and no given directory has a snapshot that reaches there: the state is lost; \
                 leave this one out, name the directory of another member, or restore a backup",
                most.dir().display(),
                most.found().base
            ));
        }
        let last = match up_to.filter(|up_to| *up_to < most.last().index) {
            None => most.last(),
            Some(up_to) => match most.id_at(up_to)? {
                Some((last, _)) if up_to >= covered => last,
                _ => {
                    return refuse(format!(
                        "--up-to {up_to}: a snapshot covers the entries up to {covered}; name {covered} or more"
                    ));
                }
            },
        };
        let term = surveys.iter().map(Survey::term).max().unwrap_or_default();
        let mut this = Self { surveys, chosen, snapshot, healed: Vec::new(), last, term };
        this.heal(covered)?;
        Ok(this)
    }

    /// Finds each entry after the snapshot that the chosen directory lost in another one.
    fn heal(&mut self, covered: Index) -> Result<(), StorageError> {
        let needed = covered.next()..=self.last.index;
        for faulty in self.chosen().found().faulty.iter().filter(|faulty| needed.contains(&faulty.id.index)) {
            let mut others = self.surveys.iter().enumerate().filter(|(at, _)| *at != self.chosen);
            // An unreadable copy is like none.
            let whole = others.find(|(_, survey)| survey.entry(faulty).is_ok_and(|entry| entry.is_some()));
            let Some((at, _)) = whole else {
                let (dir, before) = (self.chosen().dir().display(), faulty.id.index.previous());
                return Err(StorageError::new(format!(
                    "the disk lost entry {} of {dir}, and no other given directory has it; name the directory of another member, or \
                     give up this entry and all after it with --up-to {before}",
                    faulty.id
                )));
            };
            self.healed.push((*faulty, at));
        }
        Ok(())
    }

    /// The directory with the chosen log.
    #[must_use]
    pub fn chosen(&self) -> &'a Survey {
        &self.surveys[self.chosen]
    }

    /// The snapshot that the new directory begins with, and its directory; `None` if the log
    /// reaches back to its first entry.
    #[must_use]
    pub fn snapshot(&self) -> Option<(&Path, &Snapshot)> {
        self.snapshot.as_ref().map(|(at, snapshot)| (self.surveys[*at].dir(), snapshot))
    }

    /// The entries that come from other directories, in order.
    #[must_use]
    pub fn healed(&self) -> Vec<Healed> {
        let healed = self.healed.iter();
        healed.map(|(faulty, at)| Healed { id: faulty.id, from: self.surveys[*at].dir().to_owned() }).collect()
    }

    /// The last entry that is kept.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// The highest term that any of the directories knows of.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// The highest generation that any of the directories knows of.
    pub(super) fn generation(&self) -> u32 {
        self.surveys.iter().map(Survey::generation).max().unwrap_or(0)
    }

    pub(super) fn open_snapshot(&self) -> Result<Option<Box<dyn SnapshotSource>>, StorageError> {
        self.snapshot.as_ref().map(|(at, _)| self.surveys[*at].open_snapshot()).transpose()
    }

    /// The next entries that are kept, from `from` on, whole; none after the last.
    pub(super) fn read(&self, from: Index, bytes_max: usize) -> Result<Vec<Batch>, StorageError> {
        if from > self.last.index {
            return Ok(Vec::new());
        }
        let (survey, gone) =
            (self.chosen(), || StorageError::new(format!("entry {from} is gone; survey the directory again")));
        let batches = match self.healed.iter().find(|(faulty, _)| faulty.id.index == from) {
            Some((faulty, at)) => self.surveys[*at].entry(faulty)?.into_iter().collect(),
            None => survey.read(from, self.last.index, bytes_max)?,
        };
        if batches.is_empty() { Err(gone()) } else { Ok(batches) }
    }
}

/// The newest snapshot; it may be another directory's. Entries that a snapshot covers are
/// committed, so the most advanced log must have them.
fn newest_snapshot(surveys: &[Survey], most: &Survey) -> Result<Option<(usize, Snapshot)>, StorageError> {
    let mut newest: Option<(usize, Snapshot)> = None;
    for (at, survey) in surveys.iter().enumerate() {
        let Some(snapshot) = &survey.found().snapshot else { continue };
        let base = &snapshot.base;
        if base.last.index < most.found().base.index {
            continue;
        }
        if most.id_at(base.last.index)? != Some((base.last, base.last_checksum)) {
            return Err(StorageError::new(format!(
                "{} has a snapshot that ends at entry {}, which {} does not have, though it ends at entry {}: they are of different \
                 histories; name those of one",
                survey.dir().display(),
                base.last,
                most.dir().display(),
                most.last()
            )));
        }
        // Of equal ones the chosen directory's own, or the first.
        let covers_more = newest.as_ref().is_none_or(|(_, newest)| base.last.index > newest.base.last.index);
        let is_own =
            newest.as_ref().is_some_and(|(_, newest)| newest.base.last == base.last) && std::ptr::eq(survey, most);
        if covers_more || is_own {
            newest = Some((at, snapshot.clone()));
        }
    }
    Ok(newest)
}
