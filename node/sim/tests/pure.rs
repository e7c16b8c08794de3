//! The pure layer itself: a slice of seeds runs clean, every part of it has an effect, the run is a
//! function of its plan, and its quick checks find what the full ones do.

use quorate_sim::{Layer, Plan, Report, Trace, pure};

/// Enough for every kind of fault to have an effect.
const SEEDS: u64 = 1_000;

#[test]
fn a_slice_of_seeds_runs_clean_and_every_kind_of_fault_does_something() {
    let mut report = Report::default();
    for seed in 0..SEEDS {
        let outcome = Layer::Pure.run(&Plan::of(seed), &mut Trace::default());
        assert_eq!(outcome.violation, None, "seed {seed}");
        report.add(&outcome.report);
    }
    println!("{report}");
    assert_eq!(report.dead(), Vec::<&str>::new(), "faults that never did anything");
    for what in [
        "elections",
        "snapshots",
        "restored",
        "repaired",
        "reads",
        "bounded reads",
        "reads forwarded",
        "acknowledged",
        "changes made",
        "changes refused",
        "transfers made",
        "promoted by itself",
        "transferred by itself",
        "shut down early",
        "held back",
        "told to be emptied",
    ] {
        assert!(report.counts.get(what).is_some_and(|count| *count > 0), "there were no {what}");
    }
}

#[test]
fn a_walk_is_a_function_of_its_plan() {
    let mut digests = Vec::new();
    for seed in 0..20 {
        let plan = Plan::of(seed);
        let (mut once, mut again, mut aloud) = (Trace::default(), Trace::default(), Trace::with_text());
        let outcomes = [&mut once, &mut again, &mut aloud].map(|trace| Layer::Pure.run(&plan, trace));
        assert_eq!((once.digest(), &outcomes[0].report), (again.digest(), &outcomes[1].report), "seed {seed}");
        assert_eq!(once.digest(), aloud.digest(), "seed {seed}: it goes otherwise where somebody reads along");
        assert!(aloud.lines().len() > 100, "seed {seed} has little to tell");
        digests.push(once.digest());
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 20, "other plans go other ways");
}

#[test]
fn checks_of_what_changed_judge_every_step_as_checks_of_everything_do() {
    for seed in 0..25 {
        let outcome = pure::run_checked_twice(&Plan::of(seed), &mut Trace::default(), pure::Damage::Survivable);
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}

#[test]
fn damage_beyond_what_can_be_survived_is_noticed_by_both_kinds_of_checks_in_the_same_step() {
    let mut noticed = 0;
    for seed in 0..300 {
        let plan = Plan::of(seed);
        if plan.faults.iter().any(|planned| ["flip", "zero", "misdirect"].contains(&planned.fault.kind())) {
            let violation = pure::run_checked_twice(&plan, &mut Trace::default(), pure::Damage::Reckless).violation;
            assert!(
                !violation.as_ref().is_some_and(|violation| violation.starts_with("full checks")),
                "seed {seed}: {violation:?}"
            );
            noticed += u32::from(violation.is_some_and(|violation| violation.starts_with("durable commits")));
        }
    }
    assert!(noticed > 5, "only {noticed} lost what was committed");
}
