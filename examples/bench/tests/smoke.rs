//! Each command of the built binary, with the smallest bounds: its lines are JSON and have their
//! fields, and a mistake ends with one line and a failure. The figures themselves mean nothing here.

use serde_json::Value;
use std::{
    fs::{self, File},
    io::{Read, Seek},
    path::Path,
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

/// The time limit of one command.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often a command runs again whose cluster lost its leader: another program held its
/// processors for longer than an election timeout.
const ATTEMPTS: u32 = 10;

#[test]
fn durable_measures_each_size_and_number_in_flight() {
    for nodes in [1, 3] {
        let lines = measured(&["durable", "--nodes", &nodes.to_string(), "1,8", "0.2", "0,4096"]);
        let settings: Vec<_> =
            lines.iter().map(|line| (number(line, "value_bytes"), number(line, "in_flight"))).collect();
        assert_eq!(settings, [(0.0, 1.0), (0.0, 8.0), (4096.0, 1.0), (4096.0, 8.0)]);
        assert!(lines.iter().all(|line| line["nodes"] == nodes));
        lines.iter().for_each(assert_latencies);
    }
}

#[test]
fn memory_measures_each_number_in_flight() {
    let lines = measured(&["memory", "1,64", "0.2"]);
    assert_eq!(lines.iter().map(|line| number(line, "in_flight")).collect::<Vec<_>>(), [1.0, 64.0]);
    lines.iter().for_each(assert_latencies);
    for stages in lines.iter().map(|line| &line["stages"]) {
        let mean = |stage: &str| number(&stages[stage], "mean_us");
        let sum: f64 = ["queue", "encode", "quorum", "commit", "apply", "reply"].into_iter().map(mean).sum();
        assert!((sum - mean("total")).abs() < 1.0 && mean("total") > 0.0, "{stages}");
    }
}

#[test]
fn reads_measure_each_mode_on_a_leader_and_on_a_follower() {
    for (args, views) in [(&["reads", "4", "0.1", "16"][..], true), (&["reads", "--no-views", "4", "0.1", "16"], false)]
    {
        let lines = measured(args);
        lines.iter().for_each(assert_latencies);
        let modes: Vec<_> = lines.iter().map(|line| format!("{} {}", text(line, "on"), text(line, "mode"))).collect();
        let of = |on: &str| ["linearizable", "lease", "bounded", "local"].map(|mode| format!("{on} {mode}"));
        assert_eq!(modes, [of("leader"), of("follower")].concat());
        assert!(lines.iter().all(|line| line["views"] == views));
    }
}

#[test]
fn reads_beside_writes_are_measured_alone_and_together() {
    let lines = measured(&["mixed", "0.2", "16"]);
    lines.iter().for_each(assert_latencies);
    let stages: Vec<_> = lines.iter().map(|line| (text(line, "mode"), line["beside"].as_str())).collect();
    let of = |mode| [(mode, Some("nothing")), (mode, Some("the other"))];
    assert_eq!(stages, [&[("write", None)][..], &of("write"), &of("lease"), &of("write"), &of("local")].concat());
    for line in &lines[1..] {
        assert!(number(line, "offered_per_s") > 0.0 && number(line, "left_out") >= 0.0, "{line}");
    }
    for line in lines.iter().skip(2).step_by(2) {
        assert!(number(line, "p99_of_alone") > 0.0, "{line}");
    }
}

#[test]
#[ignore = "its steps have time limits, so it needs a machine without other load"]
fn failover_measures_each_round() {
    let lines = measured(&["failover", "2"]);
    assert_eq!(lines.len(), 3);
    assert!(lines[..2].iter().all(|line| number(line, "unavailable_ms") > 0.0));
    for name in ["median_ms", "p90_ms", "max_ms"] {
        assert!(number(&lines[2], name) > 0.0, "{name}");
    }
}

#[test]
#[ignore = "its steps have time limits, so it needs a machine without other load"]
fn overload_measures_each_stage() {
    let lines = measured(&["overload", "0.3", "64"]);
    let stages: Vec<_> = lines.iter().map(|line| text(line, "stage")).collect();
    let peaks = ["closed_loop"; 3];
    let expected =
        [&["alone"][..], &peaks, &["peak", "peak_beside_callers", "overload"], &["after"; 3], &["beside_large"]];
    assert_eq!(stages, expected.concat());
    assert_latencies(&lines[0]);
    let under_load = lines.iter().find(|line| line["stage"] == "overload").unwrap();
    for name in ["offered_per_s", "goodput_per_s", "refused_per_s", "failed", "unknown", "leader_changes"] {
        assert!(number(under_load, name) >= 0.0, "{name}");
    }
    for line in lines.iter().filter(|line| line["stage"] == "after") {
        assert!(line.get("p99_us").is_some() && line.get("p999_us").is_some(), "{line}");
    }
}

#[test]
fn steady_load_counts_elections() {
    let lines = measured(&["steady", "0.5", "64"]);
    assert_eq!(lines.len(), 1);
    assert!(number(&lines[0], "ops_per_s") > 0.0 && number(&lines[0], "elections_begun") >= 0.0);
}

#[test]
fn recovery_measures_a_log_and_a_snapshot() {
    let lines = measured(&["recovery", "2097152"]);
    assert_eq!(lines.iter().map(|line| text(line, "what")).collect::<Vec<_>>(), ["log", "snapshot"]);
    for line in &lines {
        assert!(number(line, "recovery_s") > 0.0 && number(line, "files_bytes") > 2e6, "{line}");
    }
}

#[test]
#[ignore = "its steps have time limits, so it needs a machine without other load"]
fn a_snapshot_is_sent_and_resumed() {
    let lines = measured(&["snapshot", "4194304"]);
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert!(number(line, "transfer_s") > 0.0 && number(line, "catch_up_s") >= 0.0, "{line}");
    assert_latencies(&line["before"]);
    assert!(number(&line["cut"], "snapshot_bytes") > 4e6, "{line}");
}

#[test]
fn watches_are_measured_with_a_topic_each_and_with_one() {
    let lines = measured(&["watch", "50", "0.2"]);
    assert_eq!(lines.iter().map(|line| number(line, "topics")).collect::<Vec<_>>(), [50.0, 1.0]);
    for line in &lines {
        assert_latencies(line);
        assert!(number(line, "max_us") >= number(line, "p999_us"), "{line}");
    }
}

#[test]
fn the_lines_of_a_measurement_are_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let (figures, plot) = (dir.path().join("figures.jsonl"), dir.path().join("plots/figures.svg"));
    let (figures, plot) = (figures.to_str().unwrap(), plot.to_str().unwrap());
    let lines = measured(&["memory", "1,4", "0.1"]);
    let other = r#"{"system":"reach","in_flight":1,"ops_per_s":900,"p50_us":1100,"p99_us":2000,"p999_us":3000}"#;
    fs::write(figures, format!("{}\n{}\n{other}\n", lines[0], lines[1])).unwrap();
    let done = run(&["plot", figures, figures, "--out", plot, "--title", "Both"]);
    assert!(done.status.success(), "{}", done.errors);
    assert!(done.errors.contains("3 points of 2 series"), "{}", done.errors);
    let drawn = fs::read_to_string(plot).unwrap();
    assert!(drawn.contains("<title id=\"title\">Both</title>") && drawn.contains("medians of 2 rounds"), "{drawn}");
}

#[test]
fn a_mistake_ends_with_one_line_and_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.jsonl");
    fs::write(&bad, "{\"system\":\"x\"}\n").unwrap();
    let (bad, nothing, out) = (bad.to_str().unwrap(), "/nonexistent/figures.jsonl", dir.path().join("plot.svg"));
    let out = out.to_str().unwrap();
    for (args, expected) in [
        (&[][..], "a command is missing"),
        (&["durables"], "unrecognized subcommand"),
        (&["durable", "0"], "at least one request must be in flight"),
        (&["durable", "1,x"], "\"x\" is not a number"),
        (&["durable", "1", "0"], "not a number of seconds"),
        (&["durable", "1024", "1", "1000000"], "more than the 67108864 bytes that a node takes at once"),
        (&["durable", "1", "0.1", "2000000"], "at most 1048576 are allowed"),
        (&["durable", "--nodes", "0"], "0 is not in 1..=9"),
        (&["memory", "1", "1", "1", "1"], "unexpected argument"),
        (&["failover", "0"], "0 is not in 1.."),
        (&["mixed", "1"], "<VALUE_BYTES>"),
        (&["overload", "1"], "<VALUE_BYTES>"),
        (&["recovery", "5"], "5 is not in 1048576.."),
        (&["snapshot", "4194304", "1"], "set at least 65536, or 0 for no limit"),
        (&["watch", "0"], "0 is not in 1..=1000000"),
        (&["plot", "--out", out], "<FILE>"),
        (&["plot", bad], "--out <FILE>"),
        (&["plot", bad, "--out", out], "bad.jsonl:1: missing field `in_flight`"),
        (&["plot", nothing, "--out", out], "figures.jsonl: No such file or directory"),
    ] {
        assert_fails(args, run(args), expected);
    }
    assert!(!Path::new(out).exists());
}

#[test]
fn a_benchmark_without_a_directory_for_its_logs_ends_with_one_line_and_a_failure() {
    for args in [&["durable", "1", "0.1"][..], &["failover", "1"], &["recovery", "1048576"], &["snapshot", "4194304"]] {
        assert_fails(args, run_in(Path::new("/nonexistent"), args), "No such file or directory");
    }
}

#[test]
fn figures_of_a_cluster_that_lost_a_node_are_not_printed() {
    let dir = tempfile::tempdir().unwrap();
    let done = run_beside(dir.path(), &["durable", "4", "1"], |bench| {
        let children = || fs::read_to_string(format!("/proc/{bench}/task/{bench}/children")).unwrap_or_default();
        let began = Instant::now();
        while children().split_whitespace().count() < 2 && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        let children = children();
        let first = children.split_whitespace().next().expect("a member was started");
        assert!(Command::new("kill").args(["-KILL", first]).status().unwrap().success());
    });
    assert!(!done.status.success() && done.output.is_empty(), "{}", done.output);
    let last = done.errors.lines().last().unwrap_or_default();
    assert!(last.starts_with("quorate-bench: node 2 ended during the measurement: signal: 9"), "{}", done.errors);
}

/// The output of a command that has ended.
struct Done {
    status: ExitStatus,
    output: String,
    errors: String,
}

fn assert_fails(args: &[&str], done: Done, expected: &str) {
    let Done { status, output, errors } = done;
    assert!(!status.success() && output.is_empty(), "{args:?}: {output}");
    let is_one = errors.starts_with("quorate-bench: ") && errors.lines().count() == 1;
    assert!(is_one && errors.contains(expected), "{args:?}: {errors}");
}

/// The lines of a measurement that succeeded.
fn measured(args: &[&str]) -> Vec<Value> {
    for _ in 0..ATTEMPTS {
        let Done { status, output, errors } = run(args);
        if !status.success() && errors.contains("leadership moved") {
            continue;
        }
        assert!(status.success(), "{args:?}: {errors}");
        let lines: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!lines.is_empty() && lines.iter().all(|line| line["system"] == "quorate"), "{args:?}: {output}");
        return lines;
    }
    panic!("{args:?}: leadership moved in each of {ATTEMPTS} attempts");
}

fn run(args: &[&str]) -> Done {
    let dir = tempfile::tempdir().unwrap();
    let done = run_in(dir.path(), args);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{args:?} left files");
    done
}

/// Runs a command with its temporary files in this directory.
fn run_in(dir: &Path, args: &[&str]) -> Done {
    run_beside(dir, args, |_| ())
}

/// The same, beside a step that gets the command's process id.
fn run_beside(dir: &Path, args: &[&str], step: impl FnOnce(u32)) -> Done {
    let [mut output, mut errors] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    let mut child = Command::new(env!("CARGO_BIN_EXE_quorate-bench"))
        .args(args)
        .env("TMPDIR", dir)
        .stdout(output.try_clone().unwrap())
        .stderr(errors.try_clone().unwrap())
        .spawn()
        .unwrap();
    let began = Instant::now();
    step(child.id());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > PATIENCE {
            // Its members end with it.
            child.kill().and_then(|()| child.wait()).unwrap();
            panic!("{args:?} took longer than {PATIENCE:?}: {}", whole(&mut errors));
        }
        thread::sleep(Duration::from_millis(20));
    };
    Done { status, output: whole(&mut output), errors: whole(&mut errors) }
}

fn whole(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

fn assert_latencies(line: &Value) {
    let [p50, p99, p999] = ["p50_us", "p99_us", "p999_us"].map(|name| number(line, name));
    assert!(number(line, "ops_per_s") > 0.0 && p50 <= p99 && p99 <= p999 && p999 > 0.0, "{line}");
}

fn number(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("{name} in {line}"))
}

fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_else(|| panic!("{name} in {line}"))
}
