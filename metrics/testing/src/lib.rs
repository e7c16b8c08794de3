//! The Grafana dashboards, made from their compact sources, and all PromQL expressions of dashboards
//! and alert rules of `quorate-metrics`, for tests that compare them with the catalogue, or run them
//! against a Prometheus.
#![forbid(unsafe_code)]

mod alerts;
mod scale;
mod source;
mod text;

pub use alerts::{Alert, RUNBOOKS, alerts, blocks, runbook};
pub use scale::{Scale, duration};

use serde_json::{Map, Value, json};
use source::Source;

/// The Prometheus alert rules, `prometheus/alerts.yml`.
pub const ALERTS: &str = include_str!("../../prometheus/alerts.yml");
/// The panel that shows the subject of each alert, `grafana/panels.json`.
pub const PANELS_OF_ALERTS: &str = include_str!("../../grafana/panels.json");

macro_rules! dashboards {
    ($($name:literal)+) => {
        /// The dashboards, `grafana/*.json`.
        pub const DASHBOARDS: &[Dashboard] = &[$(Dashboard {
            name: $name,
            text: include_str!(concat!("../../grafana/", $name, ".json")),
            source: include_str!(concat!("../../grafana/source/", $name, ".toml")),
        }),+];
    };
}
dashboards! { "cluster" "node" "storage-network" "service" }

/// A Grafana dashboard.
#[derive(Clone, Copy, Debug)]
pub struct Dashboard {
    /// The file's name without its extension; the dashboard's uid is `quorate-` and this.
    pub name: &'static str,
    /// The file that Grafana imports.
    pub text: &'static str,
    /// The compact form, from which that file is made.
    source: &'static str,
}

/// A PromQL expression and its place of use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expression {
    /// The dashboard's name and the panel's title, or the name of the annotation or alert.
    pub title: String,
    /// The expression with all variables replaced.
    pub promql: String,
    /// The legend of each series; empty for an alert.
    pub legend: String,
}

/// Values of a dashboard's variables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variables<'a> {
    /// The job.
    pub cluster: &'a str,
    /// A regular expression; `.+` for all.
    pub nodes: &'a str,
    /// The rate interval, such as `1m`; at least four scrape intervals.
    pub interval: &'a str,
    /// The dashboard's time range, such as `30m`.
    pub range: &'a str,
}

impl Dashboard {
    /// The dashboard's model.
    ///
    /// # Panics
    /// If the file is no JSON.
    #[must_use]
    pub fn model(&self) -> Value {
        serde_json::from_str(self.text).unwrap_or_else(|error| panic!("{}.json: {error}", self.name))
    }

    /// The text that the file must have, made from the source.
    #[must_use]
    pub fn made(&self) -> String {
        text::pretty(&Source::parse(self.source).dashboard())
    }

    /// The panels without the rows.
    #[must_use]
    pub fn panels(&self) -> Vec<Value> {
        let is_panel = |panel: &Value| panel["type"] != "row";
        items(&self.model()["panels"]).filter(|panel| is_panel(panel)).cloned().collect()
    }

    /// The expressions of a panel of this dashboard.
    #[must_use]
    pub fn expressions(&self, panel: &Value, variables: Variables<'_>) -> Vec<Expression> {
        let title = format!("{}: {}", self.name, text(&panel["title"]));
        let of = |target: &Value| Expression {
            title: title.clone(),
            promql: variables.fill(&text(&target["expr"])),
            legend: text(&target["legendFormat"]),
        };
        items(&panel["targets"]).map(of).collect()
    }
}

impl Variables<'_> {
    fn fill(&self, promql: &str) -> String {
        [
            ("$cluster", self.cluster),
            ("$node", self.nodes),
            ("$__rate_interval", self.interval),
            ("$__range", self.range),
        ]
        .iter()
        .fold(promql.to_owned(), |promql, (variable, value)| promql.replace(variable, value))
    }
}

/// The text that `grafana/panels.json` must have: for each alert the uid of the dashboard, and the
/// id and title of the panel, that show its subject.
#[must_use]
pub fn panels_of_alerts() -> String {
    let sources: Vec<_> = DASHBOARDS.iter().map(|dashboard| Source::parse(dashboard.source)).collect();
    let panels = sources.iter().flat_map(|source| {
        source.alerts().map(|(alert, panel, title)| {
            (alert.to_owned(), json!({ "uid": source.uid, "panel": panel, "title": title }))
        })
    });
    text::pretty(&Value::Object(Map::from_iter(panels)))
}

/// The expressions of all panels and annotations of the dashboards.
#[must_use]
pub fn dashboard_expressions(variables: Variables<'_>) -> Vec<Expression> {
    let mut found = Vec::new();
    for dashboard in DASHBOARDS {
        found.extend(dashboard.panels().iter().flat_map(|panel| dashboard.expressions(panel, variables)));
        for annotation in items(&dashboard.model()["annotations"]["list"]) {
            found.push(Expression {
                title: format!("{}: {}", dashboard.name, text(&annotation["name"])),
                promql: variables.fill(&text(&annotation["expr"])),
                legend: text(&annotation["textFormat"]),
            });
        }
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
