//! What happens when the disk is full: said while there is still room, and taken back when there is more.
//!
//! The next segment's file is made long before it is needed. If it can't be, the store says that it is full, gives back its
//! headroom, so that metadata can still be written, and tries again about once a second.

use super::{Outcome, failed, log::Log, next_segment};
use crate::{
    disk::{Disk, Pace, is_shortage},
    wal::next_segment::Readiness,
};
use quorate_raft::mutants::{Mutant, live};
use std::{io, path::Path, time::Duration};

/// The headroom's file: bytes that nobody needs until there are no others.
pub(crate) const NAME: &str = "headroom";

/// How long to wait before trying again whether there is space.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whether there is space for more entries than fit where there is room already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// As far as is known.
    Enough,
    /// Neither for a segment nor, maybe, for the headroom.
    None,
}

impl Log {
    /// Whether there is soon no room for further entries.
    pub(crate) fn is_full(&self) -> bool {
        self.space == Space::None
    }

    /// Whether [`Log::check_space`] should be called again after a while.
    pub(crate) fn awaits_space(&mut self) -> bool {
        self.is_full() || matches!(self.next_segment.readiness(), Ok(Readiness::Making | Readiness::Short(_)))
    }

    /// Learns whether the next segment could be made; says so if that is news: whether there is no space.
    ///
    /// # Errors
    /// The disk's, but for lack of space.
    pub(crate) fn check_space(&mut self) -> Outcome<Option<bool>> {
        match (self.space, self.next_segment.readiness()?) {
            // There is room left in this segment; when that is used up, the next one is waited for.
            (_, Readiness::Short(failure)) => {
                self.shortages.note(&failure);
                Ok(None)
            }
            (Space::Enough, Readiness::NoSpace) if !live(Mutant::FullDiskUntold) => {
                release(&*self.disk, &self.dir)?;
                self.space = Space::None;
                Ok(Some(true))
            }
            (Space::None, Readiness::Ready) if reserve(&*self.disk, &self.dir, self.sizes.headroom)? => {
                self.space = Space::Enough;
                Ok(Some(false))
            }
            _ => Ok(None),
        }
    }

    /// Tries again, if there was no space, or no descriptor.
    pub(crate) fn retry_space(&mut self) {
        if self.is_full() || matches!(self.next_segment.readiness(), Ok(Readiness::Short(_))) {
            self.next_segment.retry();
        }
    }
}

/// Makes the headroom, unless it is there; says whether there was space for it.
pub(crate) fn reserve(disk: &dyn Disk, dir: &Path, bytes: u64) -> Outcome<bool> {
    let path = dir.join(NAME);
    match disk.open(&path) {
        Ok(file) if file.length().map_err(failed("read", &path))? == bytes => return Ok(true),
        Ok(_) => release(disk, dir)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // It is tried again with the next segment.
        Err(error) if is_shortage(&error) => return Ok(false),
        Err(error) => return Err(failed("open", &path)(error)),
    }
    match next_segment::make(disk, &path, bytes, Pace::AtOnce) {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_full || failure.is_shortage => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Gives it back.
pub(crate) fn release(disk: &dyn Disk, dir: &Path) -> Outcome<()> {
    let path = dir.join(NAME);
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("write", &path)(error)),
        _ => Ok(()),
    }
}
