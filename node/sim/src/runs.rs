//! Runs of many seeds on several threads, and of one seed on a thread of its own (`cage`).
//!
//! The module owns threads, wall time and panics. It knows nothing of clusters: a [`Carry`] carries
//! each plan out. The result does not depend on the number of threads: seeds are taken in order,
//! and every seed that was begun is finished before the run stops.

mod cage;
mod figures;

pub use cage::{Carry, RUN_TIME_MAX, Run, TraceText, once};
pub use figures::{Failure, Figures, Summary, name, property};

use crate::{Layer, Plan};
use std::{
    num::{NonZeroU64, NonZeroUsize},
    ops::Range,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// The interval of looks at the progress.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A run that takes longer than this is named.
const LONG: Duration = Duration::from_secs(10);

/// The progress of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    /// Runs that have ended.
    pub done: u64,
    /// All runs: seeds times layers.
    pub total: u64,
    /// Failures so far, and a seed that runs for long.
    pub note: String,
}

/// The choice of seeds and layers for a run, and its limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The seeds, run in this order.
    pub seeds: Range<u64>,
    /// The layers that run each seed.
    pub layers: Vec<Layer>,
    /// The number of worker threads.
    pub jobs: NonZeroUsize,
    /// Every n-th seed runs a second time, and must have the same trace.
    pub twice_every: Option<NonZeroU64>,
    /// No seed is begun once this time has passed.
    pub time_max: Option<Duration>,
    /// No seed is begun once this number of runs has failed.
    pub failures_max: NonZeroUsize,
    /// The function that carries a plan out.
    pub carry: Carry,
}

/// Runs seeds until none is left, time is up, or enough have failed. `look` gets the progress five
/// times a second.
#[must_use]
pub fn run(settings: &Settings, mut look: impl FnMut(Look)) -> Summary {
    let begun = Instant::now();
    let work = Work::new(settings, begun);
    thread::scope(|scope| {
        let (working, idle) = mpsc::channel::<()>();
        for worker in 0..settings.jobs.get() {
            let (work, working) = (&work, working.clone());
            scope.spawn(move || {
                work.until_done(worker);
                drop(working);
            });
        }
        drop(working);
        // Ends when the last worker drops its sender.
        while idle.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            look(work.progress());
        }
    });
    let Found { figures, mut failures, .. } = work.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|failure| (failure.seed, failure.layer == Layer::Actors));
    failures.truncate(settings.failures_max.get());
    Summary { figures, failures, wall: begun.elapsed(), jobs: settings.jobs }
}

/// The state that the worker threads share.
struct Work<'a> {
    settings: &'a Settings,
    begun: Instant,
    /// The number of runs: seeds times layers.
    total: u64,
    /// The number of the next run to begin.
    next: AtomicU64,
    stop: AtomicBool,
    found: Mutex<Found>,
}

struct Found {
    figures: Vec<(Layer, Figures)>,
    failures: Vec<Failure>,
    /// By thread: its current seed and layer, and when it began.
    at: Vec<Option<(u64, Layer, Instant)>>,
}

impl<'a> Work<'a> {
    fn new(settings: &'a Settings, begun: Instant) -> Self {
        let Settings { seeds, layers, jobs, .. } = settings;
        let found = Found {
            figures: layers.iter().map(|layer| (*layer, Figures::default())).collect(),
            failures: Vec::new(),
            at: vec![None; jobs.get()],
        };
        Self {
            settings,
            begun,
            total: seeds.end.saturating_sub(seeds.start).saturating_mul(layers.len() as u64),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            found: Mutex::new(found),
        }
    }

    fn until_done(&self, worker: usize) {
        while let Some((seed, layer)) = self.take() {
            self.found().at[worker] = Some((seed, layer, Instant::now()));
            self.one(seed, layer);
        }
        self.found().at[worker] = None;
    }

    fn take(&self) -> Option<(u64, Layer)> {
        let late = self.settings.time_max.is_some_and(|max| self.begun.elapsed() >= max);
        if late || self.stop.load(Ordering::Acquire) {
            return None;
        }
        let nth = self.next.fetch_add(1, Ordering::Relaxed);
        let layers = &self.settings.layers;
        (nth < self.total).then(|| {
            let count = layers.len() as u64;
            (self.settings.seeds.start + nth / count, layers[(nth % count) as usize])
        })
    }

    fn one(&self, seed: u64, layer: Layer) {
        let Settings { seeds, twice_every, failures_max, carry, .. } = self.settings;
        let plan = Plan::of(seed);
        let run = once(*carry, layer, &plan, TraceText::None);
        let mut violation = run.outcome.violation.clone();
        let mut again = None;
        if violation.is_none() && twice_every.is_some_and(|every| (seed - seeds.start).is_multiple_of(every.get())) {
            let second = once(*carry, layer, &plan, TraceText::None);
            violation = differ(&run, &second);
            again = Some(second);
        }

        let mut found = self.found();
        if let Some((_, figures)) = found.figures.iter_mut().find(|(its, _)| *its == layer) {
            figures.took(&run);
            figures.repeated += u64::from(again.is_some());
        }
        if let Some(violation) = violation {
            found.failures.push(Failure { seed, layer, violation });
            if found.failures.len() >= failures_max.get() {
                self.stop.store(true, Ordering::Release);
            }
        }
    }

    fn progress(&self) -> Look {
        let found = self.found();
        let done = found.figures.iter().map(|(_, figures)| figures.report.runs).sum();
        let mut note = format!("{} failed", found.failures.len());
        let running = found.at.iter().flatten().map(|(seed, layer, since)| (since.elapsed(), *seed, *layer));
        if let Some((long, seed, layer)) = running.max_by_key(|it| it.0).filter(|(long, ..)| *long > LONG) {
            note += &format!("; seed {seed} ({}) runs for {:.0} s", name(layer), long.as_secs_f64());
        }
        Look { done, total: self.total, note }
    }

    /// A thread that panicked leaves valid figures: they are consistent between any two statements.
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The violation to report if two runs of one plan differ.
fn differ(first: &Run, second: &Run) -> Option<String> {
    let ended = |run: &Run| run.outcome.violation.clone().unwrap_or_else(|| "ended well".into());
    (first.digest != second.digest || second.outcome.violation.is_some()).then(|| {
        format!(
            "not deterministic: trace {:016x} after {} steps, then {:016x} after {}; the second {}",
            first.digest,
            first.outcome.report.steps,
            second.digest,
            second.outcome.report.steps,
            ended(second)
        )
    })
}
