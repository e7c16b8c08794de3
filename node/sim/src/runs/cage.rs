//! One run on a thread of its own, with its panic caught and its time limited.

use crate::{Layer, Outcome, Plan, Report, Trace};
use std::{
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::{Once, mpsc},
    thread,
    time::{Duration, Instant},
};

/// The function that carries a plan out: [`Layer::run`], or a stand-in for it.
pub type Carry = fn(Layer, &Plan, &mut Trace) -> Outcome;

/// A run that takes longer counts as endless. Seconds are usual, even on the slowest machine.
pub const RUN_TIME_MAX: Duration = Duration::from_secs(300);

/// The result of one run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The report and the violation, if there is one.
    pub outcome: Outcome,
    /// The hash of its trace.
    pub digest: u64,
    /// The lines of its trace; empty unless `TraceText::Kept` was asked for.
    pub lines: Vec<String>,
    /// Wall time of the run.
    pub took: Duration,
}

/// Whether the text of a trace is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TraceText {
    /// The trace keeps only its hash.
    None,
    /// The trace keeps its text, too.
    Kept,
}

/// Carries a plan out once, on a thread of its own, so that no state of the thread reaches
/// the next run.
///
/// A panic is a violation `panic: message, at file:line:column`, even one that was caught before it
/// reached the thread (an actor's panic ends a task only). A run that takes longer than
/// [`RUN_TIME_MAX`] is a violation, too; its thread is abandoned.
#[must_use]
pub fn once(carry: Carry, layer: Layer, plan: &Plan, text: TraceText) -> Run {
    note_panics();
    let begun = Instant::now();
    let (done, wait) = mpsc::sync_channel(1);
    let own = plan.clone();
    let thread = thread::Builder::new().name(format!("seed {}", plan.seed)).spawn(move || {
        // Fails only if the run was given up before.
        let _ = done.send(caught(carry, layer, &own, text));
    });
    let Ok(thread) = thread else {
        return failed("machine: no thread could be started".into(), begun.elapsed());
    };
    match wait.recv_timeout(RUN_TIME_MAX) {
        Ok(run) => {
            // The thread's own state must be dropped before the next run begins.
            let _ = thread.join();
            run
        }
        Err(_) => failed(format!("end: the run is not over after {RUN_TIME_MAX:?}"), begun.elapsed()),
    }
}

fn caught(carry: Carry, layer: Layer, plan: &Plan, text: TraceText) -> Run {
    WATCHED.set(true);
    let begun = Instant::now();
    let mut trace = if text == TraceText::Kept { Trace::with_text() } else { Trace::default() };
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| carry(layer, plan, &mut trace)));
    let mut outcome = outcome.unwrap_or_else(|_| nothing());
    if let Some(panic) = PANIC.take() {
        outcome.violation = Some(panic);
    }
    Run { outcome, digest: trace.digest(), lines: trace.lines().to_vec(), took: begun.elapsed() }
}

fn nothing() -> Outcome {
    Outcome { report: Report { runs: 1, ..Report::default() }, violation: Some("panic: without a message".into()) }
}

fn failed(violation: String, took: Duration) -> Run {
    Run { outcome: Outcome { violation: Some(violation), ..nothing() }, digest: 0, lines: Vec::new(), took }
}

thread_local! {
    /// Whether this thread carries out a plan.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    /// The first panic on this thread.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs a panic hook, once: a panic on a thread that carries out a plan is noted and not
/// printed, any other is printed as usual.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| if WATCHED.get() { note(info) } else { usual(info) }));
    });
}

fn note(info: &PanicHookInfo<'_>) {
    let place = info.location().map_or_else(|| "an unknown place".into(), ToString::to_string);
    let message = info.payload_as_str().unwrap_or("without a message").lines().collect::<Vec<_>>().join(" ");
    PANIC.with_borrow_mut(|panic| _ = panic.get_or_insert_with(|| format!("panic: {message}, at {place}")));
}
