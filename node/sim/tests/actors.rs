//! A slice of the actor layer, and the properties of the layer itself.

use quorate_raft::NodeId;
use quorate_sim::{
    Layer, Plan, Report, Trace,
    plan::{Fault, Planned, Power},
};
use std::time::Duration;

/// What must happen in the seeds that run.
const HAPPENS: [&str; 21] = [
    "elections",
    "commits",
    "snapshots",
    "restored",
    "linearizable reads",
    "listings",
    "transactions",
    "writes unknown",
    "faulty entries",
    "timers fired",
    "effects performed",
    "effects performed again",
    "effects retried",
    "effects without room",
    "effects fenced off",
    "calls dropped",
    "late results refused",
    "versions raised",
    "commands too new",
    "newer commands",
    "releases too old",
];

#[test]
fn whole_nodes_keep_every_promise_under_the_faults_of_these_seeds() {
    /// Further seeds run only until all has happened: some of it happens once in dozens of runs.
    const SEEDS: (u64, u64) = (60, 240);
    let (mut all, mut missing) = (Report::default(), HAPPENS.to_vec());
    for seed in 0..SEEDS.1 {
        if seed >= SEEDS.0 && missing.is_empty() {
            break;
        }
        all.add(&clean(&Plan::of(seed)).0);
        missing.retain(|what| all.counts.get(what).is_none_or(|count| *count == 0));
    }
    println!("{all}");
    assert!(missing.is_empty(), "in all of these no {missing:?}");
}

#[test]
fn a_seed_is_one_run_however_often_it_runs() {
    for seed in [3, 8, 15, 29] {
        let plan = Plan::of(seed);
        assert_eq!(clean(&plan), clean(&plan), "seed {seed}");
    }
}

#[test]
fn whoever_reads_the_trace_changes_nothing() {
    let plan = Plan::of(4);
    let mut trace = Trace::with_text();
    let outcome = Layer::Actors.run(&plan, &mut trace);
    assert_eq!((outcome.report, trace.digest()), clean(&plan));
    let said = |word: &str| trace.lines().iter().any(|line| line.contains(word));
    assert!(["leads term", "append", "FAULT", "asks", "hears of"].into_iter().all(said), "{:?}", trace.lines().first());
}

#[test]
fn a_node_whose_directory_was_emptied_never_decides_anything_again() {
    let wipe = Planned { at: ms(1_500), lasts: ms(300), fault: Fault::Wipe { node: NodeId(2) } };
    let crash = Fault::Crash { node: NodeId(1), power: Power::Lost };
    let faults = vec![wipe, Planned { at: ms(2_500), lasts: ms(200), fault: crash }];
    let (report, _) = clean(&Plan { faults, ..calm(7) });
    assert_eq!(report.fired.get("wipe"), Some(&1), "it was told, and stopped");
}

#[test]
fn a_cluster_without_faults_serves_all_the_time() {
    let (report, _) = clean(&calm(1));
    assert_eq!(report.counts.get("writes unknown"), None);
    assert_eq!(report.counts.get("elections"), Some(&1));
    assert!(report.fired.is_empty(), "{report}");
}

/// A plan of three nodes without faults.
fn calm(seed: u64) -> Plan {
    Plan {
        nodes: 3,
        clients: 3,
        keys: 2,
        length: ms(4_000),
        rest: ms(20),
        snapshot_every: 20,
        keep_entries: 2,
        faults: Vec::new(),
        ..Plan::of(seed)
    }
}

fn clean(plan: &Plan) -> (Report, u64) {
    let mut trace = Trace::default();
    let outcome = Layer::Actors.run(plan, &mut trace);
    assert_eq!(outcome.violation, None, "{plan}");
    (outcome.report, trace.digest())
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
