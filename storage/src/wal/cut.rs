//! Log compaction: the log's beginning is dropped once a snapshot covers it.
//!
//! **Invariant:** a file is removed only after its replacement is durable: the snapshot was durable
//! before the cut was requested, and a log that starts over has its name before the old one goes. A
//! crash at any point leaves the old log or the new one.

use super::{Failure, Outcome, failed, log::Log};
use crate::contract::StorageOp;
use quorate_raft::{Cut, Index, Term};

impl Log {
    /// Lets the log begin after `cut.to`. The entries after exactly that entry stay; if the log
    /// does not hold it, no entry stays.
    pub(super) fn cut(&mut self, cut: &Cut) -> Outcome<()> {
        let to = cut.to;
        if to == self.base || to.index < self.base.index {
            return Ok(());
        }
        if self.term_at(to.index) == Some(to.term) {
            self.cut_after(cut)?;
        } else {
            self.start_over(cut)?;
        }
        self.cut_to = Some(to.index);
        Ok(())
    }

    fn cut_after(&mut self, cut: &Cut) -> Outcome<()> {
        if !self.staged.is_empty() {
            self.sync()?;
        }
        let (to, checksum) = self.entry(cut.to.index)?;
        if let Some(other) = cut.checksum.filter(|other| *other != checksum) {
            return Err(Failure::write(format_args!(
                "asked to cut the log in {} after entry {to} with checksum {other:08x}, which has {checksum:08x}: the logs have \
                 diverged, nothing was removed; remove this member and add it under a new id",
                self.dir.display()
            )));
        }
        (self.base, self.base_checksum) = (to, checksum);
        self.faulty.retain(|faulty| faulty.id.index > to.index);
        let is_past = |next: &(Index, Term)| next.0 <= to.index.next();
        while self.terms.get(1).is_some_and(is_past) {
            self.terms.remove(0);
        }
        while let Some(next) = self.sealed.get(1).or((self.sealed.len() == 1).then_some(&self.active)) {
            if next.header.first() > to.index.next() {
                break;
            }
            self.cut_off.push(self.sealed.remove(0));
        }
        Ok(())
    }

    fn start_over(&mut self, cut: &Cut) -> Outcome<()> {
        let checksum = cut.checksum.ok_or_else(|| {
            Failure::write(format_args!(
                "asked to begin the log after entry {} without its checksum; this is a bug of Quorate's: report it",
                cut.to
            ))
        })?;
        self.sync()?;
        self.roll(cut.to, checksum, true, 0, 0)?;
        self.superseded.append(&mut self.sealed);
        (self.base, self.base_checksum) = (cut.to, checksum);
        (self.last, self.last_checksum) = (cut.to, checksum);
        self.terms.clear();
        self.faulty.clear();
        Ok(())
    }

    /// Removes the files that a cut made superfluous, once everything else of it is durable: one
    /// by one, oldest first, each removal durable before the next, so that a crash in between
    /// leaves no gap.
    pub(super) fn remove_cut_off(&mut self) -> Outcome<()> {
        if !self.cut_off.is_empty() {
            self.assert_holds_all_after_base();
        }
        for segment in std::mem::take(&mut self.cut_off) {
            self.disk.remove(&segment.path).map_err(failed(StorageOp::Remove, &segment.path))?;
            self.shortages.sync_dir(&*self.disk, &self.dir)?;
        }
        if let Some(to) = self.cut_to.take() {
            self.snapshots.remove_older_than(to);
            self.observer.log_bytes(self.bytes());
        }
        Ok(())
    }

    /// The term of an entry that is held, or of the base.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let run = self.terms.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
        (self.base.index < index && index <= self.last.index).then(|| self.terms[run].1)
    }
}
