//! How many callers may be inside a node at once. Overload is an answer, never a growing queue.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Counts the proposals and reads that wait for an answer.
#[derive(Debug)]
pub(crate) struct Gate {
    inside: AtomicUsize,
    max: usize,
}

impl Gate {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { inside: AtomicUsize::new(0), max })
    }

    /// Lets one caller in, until its credit is dropped; `None` if too many are inside.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Credit> {
        if self.inside.fetch_add(1, Ordering::Relaxed) < self.max {
            return Some(Credit(Arc::clone(self)));
        }
        self.inside.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// How many are inside.
    pub(crate) fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }
}

/// A caller's place inside. It travels with the request and is given back when that was answered, not when the caller
/// loses patience: a dropped caller cancels nothing.
#[derive(Debug)]
pub(crate) struct Credit(Arc<Gate>);

impl Drop for Credit {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}
