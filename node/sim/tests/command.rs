//! The command `quorate-sim`, as people and CI run it.

use std::{
    fs,
    process::{Command, Output},
};

#[test]
fn a_handful_of_seeds_holds_and_is_counted() {
    let out = quorate_sim(&["run", "--seeds", "0..4", "--layer", "both", "--jobs", "2", "--twice", "2"]);
    let (said, told) = (text(&out.stdout), text(&out.stderr));
    assert!(out.status.success(), "{said}{told}");
    assert!(told.contains("seeds 0..4"), "{told}");
    for part in ["pure: 4 runs", "actors: 4 runs", "together: 8 runs", "ran twice", "steps a second", "on 2 threads"] {
        assert!(said.contains(part), "no `{part}` in\n{said}");
    }
}

#[test]
fn machines_get_one_line_of_json() {
    let out = quorate_sim(&["run", "--seeds", "5..8", "--layer", "pure", "--json"]);
    assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(json["seeds"], serde_json::json!({ "from": 5, "to": 8 }));
    assert_eq!(json["layers"]["pure"]["runs"], 3);
    assert_eq!(json["failures"], serde_json::json!([]));
    assert!(json["in_all"]["runs_per_minute"].as_f64().is_some_and(|runs| runs > 0.0), "{json}");
}

#[test]
fn fresh_seeds_are_other_ones_each_time_and_can_be_read() {
    let seeds = || {
        let out = quorate_sim(&["run", "--seeds", "fresh:2", "--layer", "pure"]);
        let told = text(&out.stderr);
        assert!(out.status.success(), "{}{told}", text(&out.stdout));
        let line =
            told.lines().find_map(|line| line.strip_prefix("quorate-sim: seeds ")).expect("the seeds").to_owned();
        let (from, to) = line.split_once("..").expect("a range");
        assert_eq!(from.parse::<u64>().expect("from") + 2, to.parse::<u64>().expect("to"));
        line
    };
    assert_ne!(seeds(), seeds());
}

#[test]
fn a_seed_and_its_saved_plan_run_alike() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("plan.json");
    let file = file.to_str().expect("a path in Unicode");
    for layer in ["pure", "actors"] {
        let first = quorate_sim(&["replay", "11", "--layer", layer, "--trace", "--save", file]);
        let second = quorate_sim(&["replay", "--plan", file, "--layer", layer, "--trace"]);
        assert!(first.status.success() && second.status.success(), "{}", text(&first.stdout));
        let (first, second) = (text(&first.stdout), text(&second.stdout));
        assert!(first.starts_with("seed 11: "), "{first}");
        assert_eq!(without_time(&first), without_time(&second));
    }
}

#[test]
fn a_file_without_a_plan_is_refused_in_one_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("plan.json");
    let path = file.to_str().expect("a path in Unicode");
    let replay = || refused(&["replay", "--plan", path, "--layer", "pure"]);
    assert!(replay().contains("No such file"), "it is missing");
    fs::write(&file, "{}").expect("written");
    assert!(replay().contains("missing field"), "it is empty");
    let plan = quorate_sim::saved::to_text(&quorate_sim::Plan::of(3));
    fs::write(&file, plan.replace("\"clients\"", "\"customers\"")).expect("written");
    assert!(replay().contains("unknown field `customers`"), "a name is wrong");
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert!(refused(&["run", "--seeds", "0..3", "--sideways"]).contains("--sideways"));
    assert!(refused(&["run", "--seeds", "9..3"]).contains("0..1000 or fresh:1000"));
    assert!(refused(&["run"]).contains("--seeds"));
    assert!(refused(&["run", "--seeds", "0..3", "--jobs", "0"]).contains("--jobs"));
    assert!(refused(&["run", "--seeds", "0..3", "--layer", "quic"]).contains("quic"));
    assert!(refused(&["replay"]).contains("SEED"));
    assert!(refused(&["replay", "3", "--plan", "x", "--layer", "pure"]).contains("cannot be used with"));
}

#[test]
fn a_mutant_that_does_not_exist_is_refused_with_those_that_do() {
    let told = refused(&["mutants", "--only", "none-such"]);
    assert!(told.contains("vote-before-durable"), "{told}");
    assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    assert!(refused(&["replay", "3", "--layer", "pure", "--mutant", "none-such"]).contains("vote-before-durable"));
}

/// Runs a command that must be refused with exit code 2; returns its message.
fn refused(arguments: &[&str]) -> String {
    let out = quorate_sim(arguments);
    assert_eq!(out.status.code(), Some(2), "{arguments:?}: {}", text(&out.stdout));
    text(&out.stderr)
}

fn quorate_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate-sim")).args(arguments).output().expect("the command runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The output without the wall times in it.
fn without_time(said: &str) -> String {
    said.lines()
        .map(|line| line.split_once(", ").filter(|_| line.starts_with("trace ")).map_or(line, |it| it.0))
        .collect()
}
