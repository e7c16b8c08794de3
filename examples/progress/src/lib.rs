//! Progress of long commands, on standard error: a bar on a terminal, and elsewhere a line every
//! five seconds. Standard output is never touched, so it stays readable by programs.
//!
//! ```text
//! quorate-kv: backup: 96.0 MiB of 512.0 MiB (18 %), 19.2 MiB/s, 22 s left
//! ```
//!
//! A command that takes less than half a second shows no bar, and one that takes less than five
//! seconds prints no line. The bar disappears with its [`Progress`], also on the way out with an
//! error.
//!
//! - `meter`: the text of a state. Pure.
//! - `face`: the bar, or the lines; time is an argument.

mod face;
mod meter;

pub use meter::{Unit, count};

use face::Face;
use meter::Task;
use std::{
    env,
    io::{self, IsTerminal},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// The interval at which a bar is drawn, and at which lines may become due.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A [`Counter`] without a total.
const UNKNOWN: u64 = u64::MAX;

/// The progress of a task, shown from time to time until it is dropped.
#[derive(Debug)]
pub struct Progress {
    /// Dropped to end the thread; `None` if there is no thread.
    shown: Option<(Sender<()>, JoinHandle<()>)>,
    face: Arc<Mutex<Face>>,
}

/// The state of a task, which its workers set.
#[derive(Clone, Debug)]
pub struct Counter(Arc<State>);

#[derive(Debug)]
struct State {
    done: AtomicU64,
    /// [`UNKNOWN`], or the number at which the task is done.
    total: AtomicU64,
    note: Mutex<String>,
}

impl Progress {
    /// Shows `what` the command `program` does, until `total` is done; without a total, only how
    /// much is done.
    #[must_use]
    pub fn start(program: &'static str, what: impl Into<String>, unit: Unit, total: Option<u64>) -> (Self, Counter) {
        let counter = Counter::of(total);
        let shown = counter.clone();
        (Self::show(Task { program, what: what.into(), unit }, shown, |_, _| ()), counter)
    }

    /// Shows a task that takes this time, whatever it does.
    #[must_use]
    pub fn timed(program: &'static str, what: impl Into<String>, length: Duration) -> Self {
        let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX - 1);
        let pass = |counter: &Counter, elapsed: Duration| {
            counter.set(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        };
        Self::show(Task { program, what: what.into(), unit: Unit::Millis }, Counter::of(Some(millis)), pass)
    }

    fn show(task: Task, counter: Counter, look: impl Fn(&Counter, Duration) + Send + 'static) -> Self {
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_terminal = !is_dumb && io::stderr().is_terminal();
        let face = if is_terminal { Face::bar(task) } else { Face::lines(task, io::stderr()) };
        let face = Arc::new(Mutex::new(face));
        let drawn = Arc::clone(&face);
        let (ending, ended) = mpsc::channel::<()>();
        let show = move || {
            let began = Instant::now();
            while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                let elapsed = began.elapsed();
                look(&counter, elapsed);
                lock(&drawn).look(elapsed, counter.done(), counter.total(), &counter.said());
            }
            lock(&drawn).end();
        };
        // Without a thread there is no progress to see, and the task goes on.
        let thread = thread::Builder::new().name("quorate-progress".into()).spawn(show).ok();
        Self { shown: thread.map(|thread| (ending, thread)), face }
    }

    /// Lets the command write a line of its own, to standard output for example, beside the bar.
    pub fn aside(&self, write: impl FnOnce()) {
        lock(&self.face).aside(write);
    }
}

/// A face whose thread panicked still writes.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((ending, thread)) = self.shown.take() {
            drop(ending);
            // It ends at once; if it panicked, its bar is gone with it.
            let _ = thread.join();
        }
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::of(None)
    }
}

impl Counter {
    fn of(total: Option<u64>) -> Self {
        let (done, total) = (AtomicU64::new(0), AtomicU64::new(total.unwrap_or(UNKNOWN)));
        Self(Arc::new(State { done, total, note: Mutex::default() }))
    }

    /// Counts up.
    pub fn add(&self, count: u64) {
        self.0.done.fetch_add(count, Ordering::Relaxed);
    }

    /// Sets what is done.
    pub fn set(&self, done: u64) {
        self.0.done.store(done, Ordering::Relaxed);
    }

    /// Sets the number at which the task is done.
    pub fn set_total(&self, total: u64) {
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// Sets words that stand behind the figures.
    pub fn note(&self, note: impl Into<String>) {
        *lock(&self.0.note) = note.into();
    }

    /// What is done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }

    /// The number at which the task is done, if that is known.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        let total = self.0.total.load(Ordering::Relaxed);
        (total != UNKNOWN).then_some(total)
    }

    fn said(&self) -> String {
        lock(&self.0.note).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_has_the_sum_of_all_workers_and_a_total_once_it_is_known() {
        let (progress, counter) = Progress::start("test", "counting", Unit::Items("keys"), None);
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let counter = counter.clone();
                thread::spawn(move || (0..1_000).for_each(|_| counter.add(1)))
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().expect("it counts"));
        assert_eq!((counter.done(), counter.total()), (4_000, None));
        counter.set_total(4_000);
        assert_eq!(counter.total(), Some(4_000));
        drop(progress);
    }
}
