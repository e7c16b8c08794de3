//! Runs of many seeds, with stand-ins for the layers.

use quorate_sim::{
    Layer, Outcome, Plan, Report, Trace,
    runs::{Carry, Failure, Settings, Summary, TraceText, once, property, run},
};
use std::{
    num::{NonZeroU64, NonZeroUsize},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

#[test]
fn the_first_failures_are_found_on_any_number_of_threads() {
    for jobs in 1..=5 {
        let summary = runs(jobs, 2, None, |_, plan, _| outcome(plan.seed % 30 == 29));
        let seeds: Vec<_> = summary.failures.iter().map(|failure| failure.seed).collect();
        assert_eq!(seeds, [29, 59], "on {jobs} threads");
        let runs = summary.together().report.runs;
        // The progress of the other threads, before one has reported a failure, is chance.
        assert!(runs == 60 || (runs > 60 && jobs > 1), "{runs} runs on {jobs} threads: it stops");
    }
}

#[test]
fn every_seed_runs_once_on_each_layer() {
    let mut settings = settings(3, 1, None, |layer, plan, _| {
        let mut ended = outcome(false);
        ended.report.count("sum", plan.seed);
        ended.report.count(if layer == Layer::Pure { "pure" } else { "actors" }, 1);
        ended
    });
    settings.layers = vec![Layer::Pure, Layer::Actors];
    let summary = run(&settings, |_| ());
    let counts = |nth: usize| summary.figures[nth].1.report.counts.clone();
    assert_eq!(counts(0), [("pure", 200), ("sum", 199 * 100)].into());
    assert_eq!(counts(1), [("actors", 200), ("sum", 199 * 100)].into());
    assert_eq!(summary.together().report.runs, 400);
}

#[test]
fn a_look_has_the_runs_that_ended_and_their_total() {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let settings = settings(1, 1, None, |_, plan, _| {
        while plan.seed == 3 && SEEN.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        outcome(false)
    });
    let mut looks = Vec::new();
    let summary = run(&settings, |look| {
        SEEN.store(u64::from(look.done == 3), Ordering::Release);
        looks.push((look.done, look.total, look.note));
    });
    assert!(looks.contains(&(3, 200, "0 failed".to_owned())), "{looks:?}");
    assert_eq!(summary.together().report.runs, 200);
}

#[test]
fn a_panic_is_a_violation_and_the_next_seed_runs() {
    let summary = runs(2, 200, None, |_, plan, trace| {
        trace.note(Duration::ZERO, &"before");
        assert!(plan.seed % 50 != 7, "seven came up:\nin seed {}", plan.seed);
        outcome(false)
    });
    assert_eq!(summary.together().report.runs, 200);
    let seeds: Vec<_> = summary.failures.iter().map(|failure| failure.seed).collect();
    assert_eq!(seeds, [7, 57, 107, 157]);
    let violation = &summary.failures[1].violation;
    assert!(violation.starts_with("panic: seven came up: in seed 57, at "), "{violation}");
    assert!(violation.contains("runs.rs:"), "{violation}");
    assert_eq!(property(violation), "panic");
}

#[test]
fn a_panic_that_is_caught_on_the_way_is_a_violation_too_and_the_trace_is_kept() {
    let plan = Plan::of(1);
    let carry: Carry = |_, _, trace| {
        trace.note(Duration::from_millis(3), &"the last words");
        let _ = std::panic::catch_unwind(|| panic!("an actor's task"));
        outcome(false)
    };
    let ended = once(carry, Layer::Actors, &plan, TraceText::Kept);
    assert!(ended.outcome.violation.is_some_and(|violation| violation.starts_with("panic: an actor's task, at ")));
    assert!(ended.lines.last().is_some_and(|line| line.contains("the last words")), "{:?}", ended.lines);
}

#[test]
fn a_seed_that_runs_otherwise_the_second_time_fails() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let summary = runs(1, 200, NonZeroU64::new(10), |_, plan, trace| {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed);
        // Only one of the seeds that run twice depends on what ran before.
        trace.hash(&(plan.seed, if plan.seed == 30 { calls } else { 0 }));
        outcome(false)
    });
    let [Failure { seed: 30, violation, .. }] = &summary.failures[..] else { panic!("{:?}", summary.failures) };
    assert_eq!(property(violation), "not deterministic");
    let figures = summary.together();
    assert_eq!((figures.report.runs, figures.repeated), (200, 20));
}

#[test]
fn no_seed_is_begun_after_time_is_up() {
    let mut settings = settings(2, 1, None, |_, _, _| {
        std::thread::sleep(Duration::from_millis(5));
        outcome(false)
    });
    settings.seeds = 0..u64::MAX;
    settings.time_max = Some(Duration::from_millis(200));
    let summary = run(&settings, |_| ());
    assert!((2..=100).contains(&summary.together().report.runs), "{summary}");
    assert!(summary.wall >= Duration::from_millis(200));
}

#[test]
fn speed_is_told_for_one_thread_and_in_all() {
    let summary = runs(2, 1, None, |_, _, _| {
        std::thread::sleep(Duration::from_millis(2));
        let mut ended = outcome(false);
        (ended.report.simulated, ended.report.steps) = (Duration::from_secs(7200), 1_000);
        ended
    });
    let figures = summary.together();
    assert_eq!((figures.report.simulated.as_secs(), figures.report.steps), (200 * 7200, 200_000));
    let (one, all) = (figures.speed(figures.busy), figures.speed(summary.wall));
    assert!(one.steps_a_second <= 500_000.0, "a run takes 2 ms at least: {one}");
    assert!(all.steps_a_second <= 1_000_000.0, "there are 2 threads: {all}");
    let ratio = one.simulated_hours_an_hour / one.steps_a_second;
    assert!((ratio - 7.2).abs() < 0.001, "7,200 s and 1,000 steps a run: {one}");
}

fn runs(jobs: usize, failures: usize, twice_every: Option<NonZeroU64>, carry: Carry) -> Summary {
    run(&settings(jobs, failures, twice_every, carry), |_| ())
}

/// Two hundred seeds on one layer.
fn settings(jobs: usize, failures: usize, twice_every: Option<NonZeroU64>, carry: Carry) -> Settings {
    let above_zero = |number| NonZeroUsize::new(number).expect("above zero");
    Settings {
        seeds: 0..200,
        layers: vec![Layer::Pure],
        jobs: above_zero(jobs),
        twice_every,
        time_max: None,
        failures_max: above_zero(failures),
        carry,
    }
}

fn outcome(failed: bool) -> Outcome {
    let violation = failed.then(|| "safety: two leaders".into());
    Outcome { report: Report { runs: 1, ..Report::default() }, violation }
}

/// Shows that the stand-ins above have the signature of a layer.
#[test]
fn a_layer_carries_plans_out() {
    let carry: Carry = Layer::run;
    let mut trace = Trace::default();
    assert_eq!(carry(Layer::Pure, &Plan::of(1), &mut trace).violation, None);
}
