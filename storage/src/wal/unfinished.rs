//! The mark of a directory that is being made from another one's data: while it exists, the
//! directory is refused.
//!
//! It is durable before any other file exists, and removed when all others are durable: so a
//! crash in between never leaves a directory that could be taken for a member's with less data
//! than it should have.

use super::{Failure, LOCK, Outcome, failed};
use crate::contract::StorageOp;
use crate::disk::Disk;
use std::{io, path::Path};

pub(crate) const NAME: &str = "unfinished";

/// The expected stage of a directory that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A member's directory, or a new one.
    Whole,
    /// An empty directory, which gets the mark.
    Begun,
    /// A directory with the mark; all other files may exist.
    Unfinished,
}

impl Stage {
    /// Refuses a directory at another stage; `names` is its content, and it must be locked.
    pub(super) fn check(self, disk: &dyn Disk, dir: &Path, names: &[String]) -> Outcome<()> {
        let is_marked = names.iter().any(|name| name == NAME);
        match self {
            Self::Whole if is_marked => Err(Failure::open(format_args!(
                "{} was never finished by the recovery or restoration that made it; remove the directory and make it again",
                dir.display()
            ))),
            Self::Begun => {
                refuse_occupied(dir, names)?;
                let mark = dir.join(NAME);
                disk.create(&mark).map_err(failed(StorageOp::Create, &mark))?;
                disk.sync_dir(dir).map_err(failed(StorageOp::Sync, dir))
            }
            _ => Ok(()),
        }
    }
}

/// Files that an empty directory may hold: the lock of an earlier attempt, and the one in the root
/// of every ext4 volume.
const NO_DATA: [&str; 2] = [LOCK, "lost+found"];

/// Refuses a directory that exists and is not empty: for all commands that make a data directory.
pub(crate) fn refuse_unless_empty(disk: &dyn Disk, dir: &Path) -> Outcome<()> {
    match disk.list(dir) {
        Ok(names) => refuse_occupied(dir, &names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::open(format_args!("can't read {}: {error}; name a directory", dir.display()))),
    }
}

fn refuse_occupied(dir: &Path, names: &[String]) -> Outcome<()> {
    match names.iter().find(|name| !NO_DATA.contains(&name.as_str())) {
        Some(name) => Err(Failure::open(format_args!(
            "{} is not empty: it holds {name:?}; name a directory that is empty or does not exist",
            dir.display()
        ))),
        None => Ok(()),
    }
}

/// Removes the mark, durably: the directory is complete.
pub(crate) fn finish(disk: &dyn Disk, dir: &Path) -> Outcome<()> {
    let mark = dir.join(NAME);
    disk.remove(&mark).map_err(failed(StorageOp::Remove, &mark))?;
    disk.sync_dir(dir).map_err(failed(StorageOp::Sync, dir))
}
