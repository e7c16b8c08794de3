//! The mark of a directory that is being made from another one's data: while it is there, the directory is refused.
//!
//! It is durable before anything else is there, and removed when all else is: a crash in between leaves nothing that passes for
//! a member with less data than it should have.

use super::{Failure, LOCK, Outcome, failed};
use crate::disk::Disk;
use std::{io, path::Path};

/// The mark's file.
pub(crate) const NAME: &str = "unfinished";

/// What is expected of a directory that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It is a member's, or new.
    Whole,
    /// It is empty, and gets the mark.
    Begun,
    /// It has the mark, and may have all the rest.
    Unfinished,
}

impl Stage {
    /// Refuses a directory at another stage; `names` is what it holds, and it is locked.
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
                disk.create(&mark).map_err(failed("open", &mark))?;
                disk.sync_dir(dir).map_err(failed("sync", dir))
            }
            _ => Ok(()),
        }
    }
}

/// What an empty directory may hold: the lock of an earlier attempt, and what the root of an ext4 volume always has.
const NO_DATA: [&str; 2] = [LOCK, "lost+found"];

/// Refuses a directory that is there and not empty: every command that makes a data directory asks this.
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

/// Takes the mark away, for good: the directory is whole.
pub(crate) fn finish(disk: &dyn Disk, dir: &Path) -> Outcome<()> {
    let mark = dir.join(NAME);
    disk.remove(&mark).map_err(failed("write", &mark))?;
    disk.sync_dir(dir).map_err(failed("sync", dir))
}
