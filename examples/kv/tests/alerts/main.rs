//! The alert rules, proved by faults: each is injected into a cluster of real processes, must fire its
//! alert in a real Prometheus and no other than its listed consequences, and must end by the alert's
//! runbook.
//!
//! A few faults run by default. All of them, with the matrix:
//! `TMPDIR=/dev/shm cargo test -p quorate-kv --test alerts -- --ignored --nocapture`
//! (data in memory, so that other users of the disk do not make it slow). `QUORATE_FAULTS="killed,disk"` runs
//! only faults whose names have one of these words.

mod episode;
mod faults;
mod matrix;
mod prometheus;
#[path = "../processes/prometheus_process.rs"]
mod prometheus_process;
mod runbook;
#[path = "../processes/strace.rs"]
#[allow(dead_code, reason = "shared with another test binary")]
mod strace;
#[path = "../processes/support.rs"]
#[allow(dead_code, reason = "shared with another test binary")]
mod support;

use episode::Fault;
use futures_util::{StreamExt, stream};

/// Clusters at a time: they mostly wait.
const LANES: usize = 3;
/// The least part of fired alerts that were expected, and of expected ones that fired.
const LEAST: f64 = 0.95;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: cargo test -p quorate-kv --test alerts -- --ignored --nocapture"]
async fn each_fault_fires_its_alert_in_time_and_no_other_and_ends_by_the_runbook() {
    let words = std::env::var("QUORATE_FAULTS").unwrap_or_default();
    let chosen =
        faults::all().filter(|fault| words.is_empty() || words.split(',').any(|word| fault.name.contains(word)));
    proven(chosen.collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_faults_fire_their_alerts_and_end_by_the_runbooks() {
    let few = ["the leader is killed", "two of three nodes are killed"];
    proven(faults::all().filter(|fault| few.contains(&fault.name)).collect()).await;
}

#[test]
fn the_matrix_in_the_readme_is_that_of_the_faults() {
    let (readme, table) = (include_str!("../../../../metrics/README.md"), matrix::table());
    let between = readme.split_once("<!-- begin: the matrix of faults -->\n\n").map_or("", |(_, after)| after);
    let found = between.split("\n<!-- end: the matrix of faults -->").next().unwrap_or_default();
    assert!(found == table, "put this into metrics/README.md:\n{table}");
}

async fn proven(chosen: Vec<&'static Fault>) {
    if std::process::Command::new("prometheus").arg("--version").output().is_err() {
        eprintln!("skipped: no prometheus in PATH (Debian package prometheus)");
        return;
    }
    assert!(!chosen.is_empty(), "no fault has such a name");
    // Each in a task of its own, so that a panic ends one fault alone.
    let runs = chosen.into_iter().map(async |fault| (fault, tokio::spawn(episode::run(fault)).await));
    let mut runs = stream::iter(runs).buffered(LANES);
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    while let Some((fault, run)) = runs.next().await {
        match run {
            Ok(Some(row)) => {
                println!("{}", matrix::measured(&row));
                row.logs.iter().for_each(|line| println!("    {line}"));
                problems.extend(row.problems.iter().map(|problem| format!("{}: {problem}", fault.name)));
                rows.push(row);
            }
            Ok(None) => println!("{}: skipped", fault.name),
            Err(panic) => problems.push(format!("{}: {panic}", fault.name)),
        }
    }
    let (precision, recall) = (matrix::precision(&rows), matrix::recall(&rows));
    println!("{} faults, precision {:.1} %, recall {:.1} %", rows.len(), precision * 100.0, recall * 100.0);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(precision >= LEAST && recall >= LEAST, "precision {precision}, recall {recall}");
}
