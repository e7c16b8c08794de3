//! The alert rules, proved by faults: each is injected into a cluster of real processes, must fire its
//! alert in a real Prometheus and no other than its listed consequences, and must end by the alert's
//! runbook.
//!
//! A few faults run by default. All of them, with the matrix:
//! `cargo test -p quorate-kv --test alerts -- --ignored --nocapture`
//!
//! `QUORATE_FAULTS="killed,disk"` runs only faults whose names have one of these words.

mod episode;
mod faults;
mod prometheus;
mod runbook;
#[path = "../processes/strace.rs"]
#[allow(dead_code, reason = "shared with another test binary")]
mod strace;
#[path = "../processes/support.rs"]
#[allow(dead_code, reason = "shared with another test binary")]
mod support;

use episode::{Fault, Row};
use futures_util::{StreamExt, stream};
use std::collections::BTreeSet;

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
                println!("{}", line(&row));
                problems.extend(row.problems.iter().map(|problem| format!("{}: {problem}", fault.name)));
                rows.push(row);
            }
            Ok(None) => println!("{}: skipped", fault.name),
            Err(panic) => problems.push(format!("{}: {panic}", fault.name)),
        }
    }
    let (precision, recall) = (precision(&rows), recall(&rows));
    println!("{} faults, precision {:.1} %, recall {:.1} %", rows.len(), precision * 100.0, recall * 100.0);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(precision >= LEAST && recall >= LEAST, "precision {precision}, recall {recall}");
}

/// The part of the alerts that fired which may fire.
fn precision(rows: &[Row]) -> f64 {
    let expected = rows.iter().map(|row| row.fired.iter().filter(|name| row.fault.may_fire().contains(name.as_str())));
    ratio(expected.map(Iterator::count).sum(), rows.iter().map(|row| row.fired.len()).sum())
}

/// The part of the alerts that must fire which fired.
fn recall(rows: &[Row]) -> f64 {
    let fired = rows.iter().map(|row| row.fault.must_fire().into_iter().filter(|name| row.fired.contains(*name)));
    ratio(fired.map(Iterator::count).sum(), rows.iter().map(|row| row.fault.must_fire().len()).sum())
}

fn ratio(part: usize, of: usize) -> f64 {
    if of == 0 { 1.0 } else { part as f64 / of as f64 }
}

/// A row of the matrix: the fault, the alerts, and the times that were measured.
fn line(row: &Row) -> String {
    let fired: BTreeSet<&str> = row.fired.iter().map(String::as_str).collect();
    let (must, may) = (row.fault.must_fire(), row.fault.may_fire());
    let time = |time: Option<std::time::Duration>| time.map_or("never".to_owned(), |time| format!("{time:.1?}"));
    let mut line = format!(
        "{} | {} | seen after {}, fired after {}, over after {} | also {:?}",
        row.fault.name,
        row.fault.alert,
        time(row.seen_after),
        time(row.fired_after),
        time(row.ended_after),
        fired.iter().filter(|name| **name != row.fault.alert).collect::<Vec<_>>(),
    );
    for (what, names) in [("missing", &must - &fired), ("unexpected", &fired - &may)] {
        if !names.is_empty() {
            line += &format!(" | {what} {names:?}");
        }
    }
    line
}
