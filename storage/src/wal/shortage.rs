//! Shortages: a file, a directory or a thread that the log needs and that the system can't
//! give for now.
//!
//! A shortage is no broken disk: nothing was done, so the same call is tried again, with a growing
//! pause, until it succeeds or the log is no longer wanted. Meanwhile the log takes no requests, as
//! with a slow disk, so its queues stay bounded. Every failed attempt is counted; the first one,
//! and one per minute, is logged.

use super::{Failure, Outcome, failed};
use crate::{
    contract::{StorageObserver, StorageOp},
    disk::Disk,
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// The remedy, for the operator.
pub(crate) const REMEDY: &str =
    "raise the limit of open files (ulimit -n, LimitNOFILE) or of processes (ulimit -u, TasksMax), or free memory";

/// Pause between two attempts: the first one, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Interval at which a lasting shortage is logged.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Returns whether the log is still in use.
type Wanted = Box<dyn Fn() -> bool + Send>;

/// The policy for shortages: fail, or wait.
pub(crate) struct Shortages {
    observer: Arc<dyn StorageObserver>,
    /// `None` while the log is being opened: then a shortage fails the start, which may
    /// be tried again.
    wanted: Option<Wanted>,
    said_at: Option<Instant>,
}

impl Shortages {
    /// A shortage fails the call.
    pub(crate) fn new(observer: Arc<dyn StorageObserver>) -> Self {
        Self { observer, wanted: None, said_at: None }
    }

    /// From now on a shortage is waited out, while `wanted` returns true.
    pub(crate) fn wait_while(&mut self, wanted: impl Fn() -> bool + Send + 'static) {
        self.wanted = Some(Box::new(wanted));
    }

    /// Whether the log is waited for.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted())
    }

    /// Repeats an attempt that takes a descriptor or a thread until it succeeds, or fails
    /// for another reason.
    pub(crate) fn outlast<T>(&mut self, disk: &dyn Disk, mut attempt: impl FnMut() -> Outcome<T>) -> Outcome<T> {
        let mut pause = PAUSE_MIN;
        loop {
            match attempt() {
                Err(failure) if failure.is_shortage && self.is_wanted() => {
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

    /// [`Disk::sync_dir`], repeated during a shortage.
    pub(crate) fn sync_dir(&mut self, disk: &dyn Disk, dir: &Path) -> Outcome<()> {
        self.outlast(disk, || sync_dir(disk, dir))
    }

    /// Counts and logs a shortage.
    pub(crate) fn note(&mut self, failure: &Failure) {
        self.observer.ran_short();
        if self.said_at.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            self.said_at = Some(Instant::now());
            tracing::warn!(error = %failure.error, "the log waits for the system and tries again");
        }
    }

    /// Logs the end of a shortage.
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
        Failure { is_shortage, ..failed(StorageOp::Sync, dir)(error) }
    })
}
