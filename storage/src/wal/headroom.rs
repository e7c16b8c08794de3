//! Full disk: reported while there is still room, and withdrawn when there is more.
//!
//! The next segment's file is made long before it is needed. If that fails for lack of space, the
//! store reports a full disk, removes its headroom, so that metadata can still be written, and
//! tries again about once a second.

use super::{Outcome, failed, log::Log, next_segment, remove_if_there};
use crate::{
    contract::StorageOp,
    disk::{Disk, Pace, is_shortage},
    wal::next_segment::Readiness,
};
use std::{io, path::Path, time::Duration};

/// The headroom's file: bytes to give up when the disk is full.
pub(crate) const NAME: &str = "headroom";

/// Pause between two attempts to make the next segment's file on a full disk.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whether there is space for a further segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// No attempt has failed.
    Enough,
    /// Not for a segment, and maybe not for the headroom.
    None,
}

impl Log {
    /// Whether the log will soon have no room for further entries.
    pub(crate) fn is_full(&self) -> bool {
        self.space == Space::None
    }

    /// Whether to call [`Log::check_space`] again after a while.
    pub(crate) fn awaits_space(&mut self) -> bool {
        self.is_full() || matches!(self.next_segment.readiness(), Ok(Readiness::Making | Readiness::Short(_)))
    }

    /// Learns whether the next segment could be made. Returns a change: `true` if the disk is full
    /// now, `false` if it no longer is.
    ///
    /// # Errors
    /// The disk's, but for lack of space.
    pub(crate) fn check_space(&mut self) -> Outcome<Option<bool>> {
        match (self.space, self.next_segment.readiness()?) {
            // This segment still has room; when it is used up, the log waits for the next one.
            (_, Readiness::Short(failure)) => {
                self.shortages.note(&failure);
                Ok(None)
            }
            (Space::Enough, Readiness::NoSpace) => {
                self.give_up_headroom()?;
                Ok(Some(true))
            }
            (Space::None, Readiness::Ready) if reserve(&*self.disk, &self.dir, self.sizes.headroom)? => {
                self.space = Space::Enough;
                Ok(Some(false))
            }
            _ => Ok(None),
        }
    }

    /// Whether a write without space waits for it.
    pub(super) fn waits_for_space(&self) -> bool {
        self.on_full.is_some() && self.shortages.is_wanted()
    }

    /// The segment is used up and the next one can't be made. Reported at once, because the writing
    /// thread then waits for space.
    pub(super) fn out_of_space(&mut self) -> Outcome<()> {
        if !self.is_full() {
            self.give_up_headroom()?;
            if let Some(on_full) = &self.on_full {
                on_full();
            }
        }
        Ok(())
    }

    /// The disk is full: its last bytes are for metadata.
    fn give_up_headroom(&mut self) -> Outcome<()> {
        release(&*self.disk, &self.dir)?;
        self.space = Space::None;
        Ok(())
    }

    /// Tries again after a lack of space, or of descriptors.
    pub(crate) fn retry_space(&mut self) {
        if self.is_full() || matches!(self.next_segment.readiness(), Ok(Readiness::Short(_))) {
            self.next_segment.retry(self.active.header.sequence + 1, self.used());
        }
    }
}

/// Makes the headroom, unless it exists; `false` if there is no space for it.
pub(crate) fn reserve(disk: &dyn Disk, dir: &Path, bytes: u64) -> Outcome<bool> {
    let path = dir.join(NAME);
    match disk.open(&path) {
        Ok(file) if file.length().map_err(failed(StorageOp::Read, &path))? == bytes => return Ok(true),
        Ok(_) => release(disk, dir)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // It is tried again with the next segment.
        Err(error) if is_shortage(&error) => return Ok(false),
        Err(error) => return Err(failed(StorageOp::Open, &path)(error)),
    }
    match next_segment::make(disk, &path, bytes, Pace::AtOnce) {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_full || failure.is_shortage => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Removes the headroom.
pub(crate) fn release(disk: &dyn Disk, dir: &Path) -> Outcome<()> {
    remove_if_there(disk, &dir.join(NAME))
}
