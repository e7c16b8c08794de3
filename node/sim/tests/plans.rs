//! Plans: drawn, kept in files, and refused.

use quorate_raft::NodeId;
use quorate_sim::{
    Plan,
    plan::{Fault, KINDS, Planned},
    saved::{check, from_text, read, to_text, write},
};
use std::{collections::BTreeSet, time::Duration};

#[test]
fn two_plans_of_a_seed_are_equal_and_those_of_two_seeds_are_not() {
    for seed in 0..1_000 {
        assert_eq!(Plan::of(seed), Plan::of(seed));
        assert_ne!(Plan { seed: 0, ..Plan::of(seed) }, Plan { seed: 0, ..Plan::of(seed + 1) });
    }
}

#[test]
fn every_drawn_plan_can_be_carried_out() {
    let mut kinds = BTreeSet::new();
    for seed in (0..1_000).chain([u64::MAX]) {
        let plan = Plan::of(seed);
        check(&plan).unwrap_or_else(|error| panic!("{error}: {plan}"));
        assert!(plan.faults.len() <= 80 && plan.length < Duration::from_secs(20), "{plan}");
        kinds.extend(plan.faults.iter().map(|planned| planned.fault.kind()));
    }
    assert_eq!(kinds, KINDS.into_iter().collect(), "every kind is drawn, and has a name");
}

#[test]
fn a_plan_in_a_text_is_the_same_plan() {
    for seed in 0..1_000 {
        let plan = Plan::of(seed);
        assert_eq!(from_text(&to_text(&plan)).expect("a plan"), plan);
    }
}

#[test]
fn a_plan_in_a_file_is_the_same_plan() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("plan.json");
    for seed in [1, u64::MAX] {
        write(&file, &Plan::of(seed)).expect("written");
        assert_eq!(read(&file).expect("a plan"), Plan::of(seed));
    }
    std::fs::write(&file, " ".repeat(2 << 20)).expect("written");
    assert!(read(&file).expect_err("too large").to_string().contains("too many"));
}

#[test]
fn a_file_is_read_as_people_would_write_it() {
    let text = r#"{ "seed": 7, "nodes": 3, "length_ns": 2000000000, "clients": 1, "keys": 1, "rest_ns": 5000000, "snapshot_every": 0,
        "keep_entries": 0, "faults": [
            { "at_ns": 100000000, "lasts_ns": 50000000, "fault": { "crash": { "node": 2, "power": "lost" } } },
            { "at_ns": 200000000, "lasts_ns": 1, "fault": { "drop": { "way": { "from": 1, "to": null }, "per_mille": 300 } } },
            { "at_ns": 300000000, "lasts_ns": 0, "fault": "restart-all" } ] }"#;
    let plan = from_text(text).expect("a plan");
    let kinds: Vec<_> = plan.faults.iter().map(|planned| planned.fault.kind()).collect();
    assert_eq!((plan.seed, kinds), (7, vec!["crash", "drop", "restart-all"]));
}

#[test]
fn what_no_cluster_could_carry_out_is_refused() {
    let good = {
        let mut plan = Plan::of(3);
        plan.nodes = 3;
        plan.faults = vec![planned(100, 50, Fault::Pause { node: NodeId(3) }), planned(200, 0, Fault::RestartAll)];
        plan
    };
    check(&good).expect("good");
    let refused = |change: &dyn Fn(&mut Plan), why: &str| {
        let mut plan = good.clone();
        change(&mut plan);
        let error = from_text(&to_text(&plan)).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(&|plan| plan.nodes = 0, "0 nodes");
    refused(&|plan| plan.nodes = 10, "10 nodes");
    refused(&|plan| plan.clients = 0, "0 clients");
    refused(&|plan| plan.keys = 1 << 40, "keys");
    refused(&|plan| plan.length = Duration::from_secs(4000), "above 3600s");
    refused(&|plan| plan.length = Duration::from_millis(99), "not within the 99ms");
    refused(&|plan| plan.faults.reverse(), "order");
    refused(&|plan| plan.nodes = 1, "no node 3 among 1");
    refused(&|plan| plan.faults[0].lasts = plan.length, "not within");
    let jump = |by| Fault::Jump { node: NodeId(1), by };
    refused(&|plan| plan.faults[0].fault = jump(Duration::ZERO), "above 0");
    refused(&|plan| plan.faults[0].fault = Fault::Drift { node: NodeId(1), per_mille: -1000 }, "drift of -1000");
    let way = quorate_sim::plan::Way { from: None, to: Some(NodeId(4)) };
    refused(&|plan| plan.faults[0].fault = Fault::Drop { way, per_mille: 1 }, "no node 4");
    let way = quorate_sim::plan::Way { to: None, ..way };
    refused(&|plan| plan.faults[0].fault = Fault::Corrupt { way, per_mille: 1001 }, "1001 of 1000");
    refused(&|plan| plan.faults = vec![plan.faults[0].clone(); 10_001], "10001 faults");
}

#[test]
fn a_fault_that_there_is_not_is_refused_by_name() {
    let text = to_text(&Plan { faults: vec![planned(0, 0, Fault::RestartAll)], ..Plan::of(3) });
    let error = from_text(&text.replace("restart-all", "hand-over")).expect_err("an unknown fault").to_string();
    assert!(error.contains("`hand-over`") && error.contains("`leadership-transfer`"), "{error}");
}

fn planned(at: u64, lasts: u64, fault: Fault) -> Planned {
    Planned { at: Duration::from_millis(at), lasts: Duration::from_millis(lasts), fault }
}
