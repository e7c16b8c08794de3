//! All PromQL expressions of the dashboard and the alert rules of `quorate-metrics`, for tests that
//! compare them with the catalogue, or run them against a Prometheus.
#![forbid(unsafe_code)]

use serde_json::Value;

/// The Grafana dashboard, `grafana/quorate.json`.
pub const DASHBOARD: &str = include_str!("../../grafana/quorate.json");
/// The Prometheus alert rules, `prometheus/alerts.yml`.
pub const ALERTS: &str = include_str!("../../prometheus/alerts.yml");

/// A PromQL expression and its place of use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expression {
    /// The panel's title, or the name of the annotation or alert.
    pub title: String,
    /// The expression with all variables replaced.
    pub promql: String,
    /// The legend of each series; empty for an alert.
    pub legend: String,
}

/// The expressions of the dashboard's panels and annotations. `$node` is replaced by `nodes` (a
/// regular expression; `.+` for all), Grafana's interval variables by `interval` (such as `1m`; at
/// least four scrape intervals).
#[must_use]
pub fn dashboard_expressions(nodes: &str, interval: &str) -> Vec<Expression> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let ready = |title: &Value, expression: &Value, legend: &Value| {
        let intervals = ["$__rate_interval", "$__interval", "$__range"];
        let promql = text(expression).replace("$node", nodes);
        let promql = intervals.iter().fold(promql, |promql, variable| promql.replace(variable, interval));
        Expression { title: text(title), promql, legend: text(legend) }
    };
    let mut found = Vec::new();
    for panel in items(&dashboard["panels"]) {
        for target in items(&panel["targets"]) {
            found.push(ready(&panel["title"], &target["expr"], &target["legendFormat"]));
        }
    }
    for annotation in items(&dashboard["annotations"]["list"]) {
        found.push(ready(&annotation["name"], &annotation["expr"], &annotation["textFormat"]));
    }
    found
}

/// The expressions of the alert rules. Each must be on one line of the file.
#[must_use]
pub fn alert_expressions() -> Vec<Expression> {
    let (mut found, mut title) = (Vec::new(), String::new());
    for line in ALERTS.lines() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            name.clone_into(&mut title);
        } else if let Some(promql) = line.trim().strip_prefix("expr: ") {
            found.push(Expression { title: title.clone(), promql: promql.to_owned(), legend: String::new() });
        }
    }
    found
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
