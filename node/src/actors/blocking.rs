//! The threads for work that may block: writing, reading and syncing the bytes of snapshots.
//!
//! A node with threads has a pool beside them, with one thread for each snapshot that is being
//! written, sent or received; idle threads end. On a node without threads a job runs at once on the
//! thread of the caller, so that simulations stay deterministic. If a thread can't be started, only
//! the job that needed it fails: the pool of tokio would panic instead.

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

/// Runs jobs that may block, and counts them until all are done. Clones share the same pool.
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

/// The reason that a job has no result, in one line: it panicked, or no thread could be
/// started for it.
pub(crate) type NoResult = String;

/// The result of a job that may still run.
pub(crate) type Outcome<T> = Pin<Box<dyn Future<Output = Result<T, NoResult>>>>;

impl Blocking {
    pub(crate) fn new(threads: bool, metrics: NodeMetrics) -> Self {
        Self { pool: threads.then(Arc::default), metrics, jobs: watch::channel(Jobs::default()).0 }
    }

    /// Runs a job. It runs to its end even if its result is dropped.
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
        // The receiver of the result may be gone.
        if let Err(error) = pool.run(Box::new(move || drop(tell.send(job())))) {
            self.metrics.ran_short(Shortage::Thread);
            let remedy = "raise the limit of processes (ulimit -u, TasksMax), or free memory";
            return Box::pin(ready(Err(format!("can't start a thread: {error}; {remedy}"))));
        }
        Box::pin(async move { told.await.unwrap_or_else(|_| Err("the job was dropped".to_owned())) })
    }

    /// Refuses further jobs, and waits for those that run.
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

/// A file of a snapshot between two jobs. To drop it may remove the file or free all its blocks,
/// which takes long for a large one; so it is dropped on a thread that may block.
pub(crate) struct Aside<T: Send + 'static>(Option<T>, Blocking);

impl<T: Send + 'static> Aside<T> {
    pub(crate) fn new(value: T, blocking: &Blocking) -> Self {
        Self(Some(value), blocking.clone())
    }

    /// Takes the value for the next job.
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

/// The time without a job after which a thread ends.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// A pool of threads without a bound: one for each job, and idle ones for a while.
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
    /// Runs a job on an idle thread, or on a new one. If none can be started, the job is dropped.
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

/// Counts a job as running until it is dropped.
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
    async fn a_value_that_was_set_aside_is_dropped_on_another_thread() {
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
