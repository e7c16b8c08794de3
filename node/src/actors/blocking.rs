//! Where work runs that may block: writing, reading and syncing the bytes of snapshots.
//!
//! On a node with threads that is a pool beside them, of which a node uses a thread for each snapshot that is being written,
//! sent or received; idle threads end. On a node without threads it is the caller's own, at once, so that simulations stay
//! deterministic. A thread that can't be started fails the one job that it was for: tokio's own pool would panic instead.

use quorate_metrics::{NodeMetrics, Shortage};
use std::{
    any::Any,
    collections::VecDeque,
    future::{Future, ready},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};
use tokio::sync::{oneshot, watch};

/// Runs jobs that may block, and knows when all are done. Cheap to clone; clones are the same.
#[derive(Clone)]
pub(crate) struct Blocking {
    pool: Option<Arc<Pool>>,
    metrics: NodeMetrics,
    jobs: watch::Sender<Jobs>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Jobs {
    running: usize,
    closed: bool,
}

/// Why a job has no result, in one line: it panicked, or no thread could be started for it.
pub(crate) type NoResult = String;

/// A job's result, on its way.
pub(crate) type Outcome<T> = Pin<Box<dyn Future<Output = Result<T, NoResult>>>>;

impl Blocking {
    pub(crate) fn new(threads: bool, metrics: NodeMetrics) -> Self {
        Self { pool: threads.then(Arc::default), metrics, jobs: watch::channel(Jobs::default()).0 }
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
        let Some(pool) = &self.pool else { return Box::pin(ready(job())) };
        let (tell, told) = oneshot::channel();
        // Whoever asked may be gone.
        if let Err(error) = pool.run(Box::new(move || drop(tell.send(job())))) {
            self.metrics.ran_short(Shortage::Thread);
            let remedy = "raise the limit of processes (ulimit -u, TasksMax), or free memory";
            return Box::pin(ready(Err(format!("can't start a thread: {error}; {remedy}"))));
        }
        Box::pin(async move { told.await.unwrap_or_else(|_| Err("the job was dropped".to_owned())) })
    }

    /// Begins no more jobs, and waits for those that run.
    pub(crate) async fn close(&self) {
        let mut jobs = self.jobs.subscribe();
        self.jobs.send_modify(|jobs| jobs.closed = true);
        // It can't fail: `self` holds the sender.
        let _ = jobs.wait_for(|jobs| jobs.running == 0).await;
        if let Some(pool) = &self.pool {
            pool.close();
        }
    }
}

/// A file of a snapshot between two jobs. Dropping one may remove it or free all its blocks, which takes long for a large one: that
/// happens on a thread that may block.
pub(crate) struct Aside<T: Send + 'static>(Option<T>, Blocking);

impl<T: Send + 'static> Aside<T> {
    pub(crate) fn new(value: T, blocking: &Blocking) -> Self {
        Self(Some(value), blocking.clone())
    }

    /// For the next job.
    pub(crate) fn take(mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T: Send + 'static> Drop for Aside<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            drop(self.1.run(move || drop(value)));
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// After so long without a job a thread ends.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// Threads that run one job after the other: as many as there are jobs, and idle ones for a while.
#[derive(Default)]
struct Pool {
    state: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

impl Pool {
    /// Runs a job on an idle thread, or on a new one. If there is none, the job is dropped.
    fn run(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let mut state = self.state();
        if state.idle > state.jobs.len() {
            state.jobs.push_back(job);
            self.news.notify_one();
            return Ok(());
        }
        drop(state);
        let pool = Arc::clone(self);
        thread::Builder::new().name("quorate-blocking".into()).spawn(move || pool.work(job)).map(drop)
    }

    fn work(&self, first: Job) {
        let mut next = Some(first);
        while let Some(job) = next {
            job();
            let mut state = self.state();
            state.idle += 1;
            let is_idle = |state: &mut Waiting| state.jobs.is_empty() && !state.closed;
            let woken = self.news.wait_timeout_while(state, IDLE_LIMIT, is_idle);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
            next = state.jobs.pop_front();
        }
    }

    fn close(&self) {
        self.state().closed = true;
        self.news.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

fn said_by(panic: &(dyn Any + Send)) -> NoResult {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", said.unwrap_or("without a word"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocking(threads: bool) -> Blocking {
        Blocking::new(threads, quorate_metrics::Metrics::new().node(1))
    }

    #[tokio::test]
    async fn jobs_run_side_by_side_and_one_behind_the_other_share_a_thread() {
        let blocking = blocking(true);
        let first = Arc::new(std::sync::Barrier::new(2));
        let other = Arc::clone(&first);
        let one = blocking.run(move || (first.wait(), thread::current().id()).1);
        let two = blocking.run(move || (other.wait(), thread::current().id()).1);
        let (one, two) = (one.await.expect("it ran"), two.await.expect("it ran"));
        assert_ne!(one, two, "each waited for the other");
        let pool: &Arc<Pool> = blocking.pool.as_ref().expect("threads");
        while pool.state().idle < 2 {
            thread::yield_now();
        }
        let third = blocking.run(|| thread::current().id()).await.expect("it ran");
        assert!([one, two].contains(&third), "an idle thread takes it");
    }

    #[tokio::test]
    async fn what_stands_aside_is_dropped_on_another_thread() {
        struct Tells(oneshot::Sender<thread::ThreadId>);
        struct File(Option<Tells>);
        impl Drop for File {
            fn drop(&mut self) {
                let tells = self.0.take().expect("dropped once");
                let _ = tells.0.send(thread::current().id());
            }
        }
        let blocking = blocking(true);
        let (tell, told) = oneshot::channel();
        drop(Aside::new(File(Some(Tells(tell))), &blocking));
        assert_ne!(told.await.expect("it was dropped"), thread::current().id());
    }

    #[tokio::test]
    async fn a_panic_is_a_result() {
        for threads in [false, true] {
            let panicked = blocking(threads).run(|| panic!("told to")).await;
            assert_eq!(panicked, Err::<(), _>("it panicked: told to".to_owned()));
        }
    }

    #[tokio::test]
    async fn closing_waits_for_what_runs_and_lets_nothing_begin() {
        let blocking = blocking(true);
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
