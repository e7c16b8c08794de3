//! Each alert has a runbook and a dashboard, and a test shows it firing and not firing before.

mod support;

use quorate_metrics_testing::{RUNBOOKS, alerts, blocks, runbook};
use std::{collections::BTreeSet, time::Duration};
use support::promtool;

/// The unique ids of the Grafana dashboards.
const DASHBOARDS: [&str; 4] = ["quorate-cluster", "quorate-node", "quorate-storage-network", "quorate-service"];

#[test]
fn each_alert_has_texts_a_dashboard_and_a_runbook_with_commands_and_no_runbook_is_without_an_alert() {
    let alerts = alerts();
    assert!(alerts.len() >= 20, "{} alerts", alerts.len());
    for alert in &alerts {
        for key in ["summary", "description"] {
            let text = alert.text(key).unwrap_or_default();
            assert!(!text.is_empty() && text.contains(|c: char| c.is_ascii_alphabetic()), "{}: no {key}", alert.name);
        }
        assert!(
            alert.text("summary").is_some_and(|text| text.contains("{{ $labels.")),
            "{} names no labels",
            alert.name
        );
        assert!(alert.text("dashboard").is_some_and(|uid| DASHBOARDS.contains(&uid)), "{alert:?}");
        let address = format!("metrics/RUNBOOKS.md#{}", alert.name.to_lowercase());
        assert_eq!(alert.text("runbook"), Some(&*address));
        let blocks = blocks(runbook(&alert.name).unwrap_or_else(|| panic!("no runbook of {}", alert.name)));
        assert!(blocks.len() >= 2, "{}: steps, and how to know that it is over: {blocks:?}", alert.name);
    }
    let headings: BTreeSet<_> = RUNBOOKS.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings, alerts.iter().map(|alert| &*alert.name).collect());
}

#[test]
fn a_critical_alert_fires_within_a_minute() {
    for alert in alerts().iter().filter(|alert| alert.text("severity") == Some("critical")) {
        assert!(alert.hold <= Duration::from_secs(60), "{} waits {:?}", alert.name, alert.hold);
    }
}

#[test]
fn promtool_shows_each_alert_firing_and_not_firing_before() {
    promtool(&["check", "rules", "prometheus/alerts.yml"], "");
    promtool(&["test", "rules", "prometheus/alerts.test.yml"], "");
    let tests = include_str!("../prometheus/alerts.test.yml");
    for alert in alerts() {
        let name = format!("alertname: {}\n", alert.name);
        let (mut fires, mut waits) = (false, false);
        for case in tests.split(&name).skip(1) {
            match case.lines().nth(1).is_some_and(|line| line.contains("[]")) {
                true => waits |= !fires,
                false => fires = true,
            }
        }
        assert!(fires && waits, "{}: fires {fires}, does not fire before {waits}", alert.name);
    }
}
