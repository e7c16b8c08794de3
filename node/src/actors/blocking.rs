//! Where work runs that may block: writing, reading and syncing the bytes of snapshots.
//!
//! On a node with threads that is a pool beside them, of which a node uses a thread for each snapshot that is being written,
//! sent or received; idle threads end. On a node without threads it is the caller's own, at once, so that simulations stay
//! deterministic.

use std::{
    any::Any,
    future::{Future, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
};
use tokio::{sync::watch, task::spawn_blocking};

/// Runs jobs that may block, and knows when all are done. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Blocking {
    threads: bool,
    jobs: watch::Sender<Jobs>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Jobs {
    running: usize,
    closed: bool,
}

/// Why a job has no result, in one line.
pub(crate) type Panicked = String;

/// A job's result, on its way.
pub(crate) type Outcome<T> = Pin<Box<dyn Future<Output = Result<T, Panicked>>>>;

impl Blocking {
    pub(crate) fn new(threads: bool) -> Self {
        Self { threads, jobs: watch::channel(Jobs::default()).0 }
    }

    /// Runs a job. It runs to its end also if nobody waits for its result any more.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
        let Some(running) = Running::enter(&self.jobs) else {
            return Box::pin(ready(Err("the node has ended".to_owned())));
        };
        let job = move || {
            let result = catch_unwind(AssertUnwindSafe(job)).map_err(|panic| said_by(&*panic));
            drop(running);
            result
        };
        if !self.threads {
            return Box::pin(ready(job()));
        }
        let result = spawn_blocking(job);
        Box::pin(async move { result.await.unwrap_or_else(|error| Err(error.to_string())) })
    }

    /// Begins no more jobs, and waits for those that run.
    pub(crate) async fn close(&self) {
        let mut jobs = self.jobs.subscribe();
        self.jobs.send_modify(|jobs| jobs.closed = true);
        // It can't fail: `self` holds the sender.
        let _ = jobs.wait_for(|jobs| jobs.running == 0).await;
    }
}

/// Counts a job, until it is dropped.
struct Running(watch::Sender<Jobs>);

impl Running {
    fn enter(jobs: &watch::Sender<Jobs>) -> Option<Self> {
        let entered = jobs.send_if_modified(|jobs| {
            jobs.running += usize::from(!jobs.closed);
            !jobs.closed
        });
        entered.then(|| Self(jobs.clone()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|jobs| jobs.running -= 1);
    }
}

fn said_by(panic: &(dyn Any + Send)) -> Panicked {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", said.unwrap_or("without a word"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_result() {
        for threads in [false, true] {
            let panicked = Blocking::new(threads).run(|| panic!("told to")).await;
            assert_eq!(panicked, Err::<(), _>("it panicked: told to".to_owned()));
        }
    }

    #[tokio::test]
    async fn closing_waits_for_what_runs_and_lets_nothing_begin() {
        let blocking = Blocking::new(true);
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let running = blocking.run(move || gate.recv().is_ok());
        let mut closing = Box::pin(blocking.close());
        assert!(futures_util::FutureExt::now_or_never(&mut closing).is_none());
        assert_eq!(blocking.run(|| ()).await, Err("the node has ended".to_owned()));
        open.send(()).expect("a running job");
        closing.await;
        assert_eq!(running.await, Ok(true));
    }
}
