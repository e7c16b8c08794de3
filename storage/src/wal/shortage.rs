//! Shortages: a file, a directory or a thread that the log needs and that the system can't give for now.
//!
//! A shortage is no broken disk: nothing was done, so the same call is tried again, with a growing pause, until it succeeds or the
//! log is no longer wanted. Meanwhile the log takes nothing, as behind a slow disk, so what waits for it stays bounded. Every failed
//! attempt is counted; the first one, and one a minute, is logged.

use super::{Failure, Outcome, failed};
use crate::{contract::StorageObserver, disk::Disk};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// What an operator can do about one.
pub(crate) const REMEDY: &str =
    "raise the limit of open files (ulimit -n, LimitNOFILE) or of processes (ulimit -u, TasksMax), or free memory";

/// Between two attempts, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a shortage that lasts is logged.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Whether somebody still waits for the log.
type Wanted = Box<dyn Fn() -> bool + Send>;

/// What becomes of shortages.
pub(crate) struct Shortages {
    observer: Arc<dyn StorageObserver>,
    /// `None` while the log is being opened: then a shortage fails the start, which may be tried again.
    wanted: Option<Wanted>,
    said_at: Option<Instant>,
}

impl Shortages {
    /// To be failed by.
    pub(crate) fn new(observer: Arc<dyn StorageObserver>) -> Self {
        Self { observer, wanted: None, said_at: None }
    }

    /// To be waited out from now on, for as long as the log is `wanted`.
    pub(crate) fn wait_while(&mut self, wanted: impl Fn() -> bool + Send + 'static) {
        self.wanted = Some(Box::new(wanted));
    }

    /// Does something that takes a descriptor or a thread, again and again until there is one.
    pub(crate) fn outlast<T>(&mut self, disk: &dyn Disk, mut attempt: impl FnMut() -> Outcome<T>) -> Outcome<T> {
        let mut pause = PAUSE_MIN;
        loop {
            match attempt() {
                Err(failure) if failure.is_shortage && self.wanted.as_ref().is_some_and(|wanted| wanted()) => {
                    self.note(&failure);
                    disk.pause(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                outcome => {
                    if outcome.is_ok() {
                        self.over();
                    }
                    return outcome;
                }
            }
        }
    }

    /// [`Disk::sync_dir`], if need be again and again.
    pub(crate) fn sync_dir(&mut self, disk: &dyn Disk, dir: &Path) -> Outcome<()> {
        self.outlast(disk, || sync_dir(disk, dir))
    }

    /// One happened.
    pub(crate) fn note(&mut self, failure: &Failure) {
        self.observer.ran_short();
        if self.said_at.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            self.said_at = Some(Instant::now());
            tracing::warn!(error = %failure.error, "the log waits for the system and tries again");
        }
    }

    /// What failed before has succeeded.
    pub(crate) fn over(&mut self) {
        if self.said_at.take().is_some() {
            tracing::info!("the log goes on: the system has descriptors and threads again");
        }
    }
}

/// [`Disk::sync_dir`]; its failure says whether it was a shortage.
pub(crate) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Outcome<()> {
    disk.sync_dir(dir).map_err(|error| {
        let is_shortage = crate::disk::is_shortage(&error);
        Failure { is_shortage, ..failed("sync", dir)(error) }
    })
}
