//! The matrix of faults and alerts: the one of the README, and the one that was measured.

use crate::{
    episode::{Fault, Row},
    faults,
};
use quorate_metrics_testing::{Alert, alerts};
use std::{collections::BTreeSet, fmt::Write, time::Duration};

/// The matrix as the README has it: a row for each fault, and the alerts that no fault proves.
pub(crate) fn table() -> String {
    let alerts = alerts();
    let mut table = "| fault | alert, with its runbook | `for` | visible within | fire as well | may fire |\n\
                     | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for fault in faults::all() {
        let alert = alerts.iter().find(|alert| alert.name == fault.alert).expect("an alert of the rules");
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "| {} | [{}](RUNBOOKS.md#{}) | {} | {} | {} | {} |",
            fault.name,
            short(fault.alert),
            fault.alert.to_lowercase(),
            seconds(alert.hold),
            seconds(fault.visible),
            list(fault.consequences),
            list(fault.possible),
        );
    }
    let proven: BTreeSet<_> = faults::all().flat_map(Fault::must_fire).collect();
    let is_open = |alert: &&Alert| !proven.contains(&*alert.name);
    let open: Vec<_> = alerts.iter().filter(is_open).map(|alert| &*alert.name).collect();
    table + &format!("\nNo fault is known for these, and `promtool` alone tests them: {}.\n", list(&open))
}

fn short(alert: &str) -> &str {
    alert.strip_prefix("Quorate").unwrap_or(alert)
}

fn list(alerts: &[&str]) -> String {
    alerts.iter().map(|alert| short(alert)).collect::<Vec<_>>().join(", ")
}

fn seconds(time: Duration) -> String {
    if time.is_zero() { "0".to_owned() } else { format!("{} s", time.as_secs_f64()) }
}

/// The part of the alerts that fired which may fire.
pub(crate) fn precision(rows: &[Row]) -> f64 {
    let expected = rows.iter().map(|row| row.fired.iter().filter(|name| row.fault.may_fire().contains(name.as_str())));
    ratio(expected.map(Iterator::count).sum(), rows.iter().map(|row| row.fired.len()).sum())
}

/// The part of the alerts that must fire which fired.
pub(crate) fn recall(rows: &[Row]) -> f64 {
    let fired = rows.iter().map(|row| row.fault.must_fire().into_iter().filter(|name| row.fired.contains(*name)));
    ratio(fired.map(Iterator::count).sum(), rows.iter().map(|row| row.fault.must_fire().len()).sum())
}

fn ratio(part: usize, of: usize) -> f64 {
    if of == 0 { 1.0 } else { part as f64 / of as f64 }
}

/// A row as it was measured: the fault, the alerts, and the times.
pub(crate) fn measured(row: &Row) -> String {
    let fired: BTreeSet<&str> = row.fired.iter().map(String::as_str).collect();
    let (must, may) = (row.fault.must_fire(), row.fault.may_fire());
    let time = |time: Option<Duration>| time.map_or("never".to_owned(), |time| format!("{time:.1?}"));
    let mut line = format!(
        "{} | {} | seen after {}, fired after {}, over after {} | also {:?}",
        row.fault.name,
        row.fault.alert,
        time(row.seen_after),
        time(row.fired_after),
        time(row.ended_after),
        fired.iter().filter(|name| **name != row.fault.alert).collect::<Vec<_>>(),
    );
    let of_the_machine = row.of_the_machine.iter().map(String::as_str).collect();
    for (what, names) in
        [("missing", &must - &fired), ("unexpected", &fired - &may), ("of a machine that is starved", of_the_machine)]
    {
        if !names.is_empty() {
            line += &format!(" | {what} {names:?}");
        }
    }
    line
}
