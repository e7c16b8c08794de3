//! A check that the open files of this log are still those that its directory names.
//!
//! A process can read and write an open file even after the file was removed, replaced, or hidden
//! by a mount: writes succeed, and are lost when the process ends. So the files are compared with
//! their names twice a second, and before entries of the active segment are acknowledged, it is
//! checked that the segment still has a name.
//!
//! It decides nothing about entries.

use super::{Failure, LOCK, Outcome, failed, log::Log};
use crate::contract::StorageOp;
use crate::disk::{Disk, is_shortage};
use std::{any::Any, path::Path};

impl Log {
    /// Compares the lock, the hard state and every segment with the files that have their names.
    pub(crate) fn check_place(&self) -> Outcome<()> {
        check_lock(&*self.disk, &self.dir, &*self.lock)?;
        let (hard_state, path) = self.hard_state.file();
        let active = self.is_published.then_some(&self.active);
        let segments = self.sealed.iter().chain(active).map(|segment| (&*segment.file, &*segment.path));
        for (file, path) in segments.chain([(hard_state, path)]) {
            match file.is_at(path) {
                Ok(true) => {}
                Ok(false) => return Err(moved(&self.dir, path)),
                // The next check finds out.
                Err(error) if is_shortage(&error) => {}
                Err(error) => return Err(failed(StorageOp::Open, path)(error)),
            }
        }
        Ok(())
    }

    /// Checks that the active segment, which was just synced, has a name: without one, its entries
    /// would be lost with the process.
    pub(super) fn check_active(&self) -> Outcome<()> {
        let Self { active, dir, .. } = self;
        match active.file.has_name().map_err(failed(StorageOp::Open, &active.path))? {
            true => Ok(()),
            false => Err(moved(dir, &active.path)),
        }
    }
}

/// Checks that the lock of a directory is still the file of that name in it.
pub(crate) fn check_lock(disk: &dyn Disk, dir: &Path, lock: &(dyn Any + Send + Sync)) -> Outcome<()> {
    let path = dir.join(LOCK);
    match disk.is_locked_by(&path, lock) {
        Ok(true) => Ok(()),
        Ok(false) => Err(moved(dir, &path)),
        // The next check finds out.
        Err(error) if is_shortage(&error) => Ok(()),
        Err(error) => Err(failed(StorageOp::Open, &path)(error)),
    }
}

fn moved(dir: &Path, path: &Path) -> Failure {
    Failure::write(format_args!(
        "{} was removed, replaced, or hidden by a mount while the node ran; nothing more is acknowledged, as writes would be lost; put \
         {} back as it was (undo the move or the mount), or remove this member and add a new one",
        path.display(),
        dir.display()
    ))
}
