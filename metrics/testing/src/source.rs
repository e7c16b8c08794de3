//! The compact source of a dashboard (`grafana/source/*.toml`), and the dashboard made from it.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Selects the gauges of the leader: those about peers read 0 on other nodes.
const OF_THE_LEADER: &str = r#"and on (job, instance, node) (quorate_role{role="leader"} == 1)"#;

/// A dashboard in the compact form.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    pub(crate) uid: String,
    title: String,
    description: String,
    /// Whether the dashboard has the variable `node`, and its expressions the label.
    node: bool,
    row: Vec<Row>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    title: String,
    panel: Vec<Panel>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Panel {
    /// Links lead to it, so it never changes.
    id: u64,
    kind: Kind,
    title: String,
    /// A unit's id in Grafana.
    unit: String,
    /// In columns, of 24.
    width: u64,
    #[serde(default = "usual_height")]
    height: u64,
    shows: String,
    normal: String,
    otherwise: String,
    #[serde(default)]
    alerts: Vec<String>,
    query: Vec<Query>,
    min: Option<i64>,
    /// Shown without data.
    none: Option<String>,
    /// Colour below the first step.
    base: Option<String>,
    /// Lower bounds of values, each with the colour from there on.
    #[serde(default)]
    steps: Vec<(i64, String)>,
    /// Text and colour of each value.
    #[serde(default)]
    values: BTreeMap<String, (String, String)>,
    /// Whether the expressions ignore the variable `node`: the subject is the leader, whichever it is.
    #[serde(default)]
    every_node: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    /// Selectors without `job` and `node`, which are added.
    expr: String,
    legend: String,
    /// Whether only the newest value is asked for.
    #[serde(default)]
    instant: bool,
    /// A line of its own beside a stack.
    #[serde(default)]
    beside: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Lines over time.
    Lines,
    /// Areas over time, one upon the other.
    Stack,
    /// The newest values.
    Stat,
    /// The names of the newest series.
    Name,
    /// Bars of named values over time.
    States,
    /// Counts of a histogram's buckets over time.
    Heatmap,
    /// A row per series.
    Table,
}

fn usual_height() -> u64 {
    8
}

impl Source {
    /// # Panics
    /// If the text is no source.
    pub(crate) fn parse(text: &str) -> Self {
        toml::from_str(text).unwrap_or_else(|error| panic!("not a dashboard's source: {error}"))
    }

    /// Pairs of an alert and the panel that shows its subject.
    pub(crate) fn alerts(&self) -> impl Iterator<Item = (&str, u64, &str)> {
        let panels = self.row.iter().flat_map(|row| &row.panel);
        panels.flat_map(|panel| panel.alerts.iter().map(|alert| (&**alert, panel.id, &*panel.title)))
    }

    /// The dashboard as Grafana imports it. Fields at Grafana's defaults are left out.
    pub(crate) fn dashboard(&self) -> Value {
        let mut panels = Vec::new();
        let mut top = 0;
        for (number, row) in (1001..).zip(&self.row) {
            panels.push(json!({
                "id": number, "type": "row", "title": row.title, "collapsed": false, "panels": [],
                "gridPos": { "h": 1, "w": 24, "x": 0, "y": top },
            }));
            top += 1;
            let (mut left, mut height) = (0, 0);
            for panel in &row.panel {
                if left + panel.width > 24 {
                    (left, top, height) = (0, top + height, 0);
                }
                let place = json!({ "h": panel.height, "w": panel.width, "x": left, "y": top });
                panels.push(panel.model(place, self.node));
                (left, height) = (left + panel.width, height.max(panel.height));
            }
            top += height;
        }
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["quorate", "raft"],
            "schemaVersion": 39,
            "editable": true,
            "graphTooltip": 1,
            "refresh": "10s",
            "time": { "from": "now-30m", "to": "now" },
            "links": [{
                "type": "dashboards", "title": "Quorate", "tags": ["quorate"], "icon": "external link",
                "tooltip": "The other dashboards, with the same cluster, nodes and time range",
                "asDropdown": false, "includeVars": true, "keepTime": true, "targetBlank": false,
            }],
            "templating": { "list": variables(self.node) },
            "annotations": { "list": annotations() },
            "panels": panels,
        })
    }
}

impl Panel {
    fn model(&self, place: Value, of_nodes: bool) -> Value {
        let plugin = match self.kind {
            Kind::Lines | Kind::Stack => "timeseries",
            Kind::Stat | Kind::Name => "stat",
            Kind::States => "state-timeline",
            Kind::Heatmap => "heatmap",
            Kind::Table => "table",
        };
        let letters = ('A'..='Z').map(String::from);
        let targets: Vec<_> =
            letters.zip(&self.query).map(|(letter, query)| self.target(&letter, query, of_nodes)).collect();
        assert_eq!(targets.len(), self.query.len(), "{}: more queries than letters", self.title);
        let mut model = json!({
            "id": self.id, "type": plugin, "title": self.title, "description": self.description(),
            "datasource": data_source(), "gridPos": place, "targets": targets, "options": self.options(),
            "fieldConfig": { "defaults": self.defaults(), "overrides": self.overrides() },
        });
        if self.kind == Kind::Table {
            // The columns besides the labels say nothing of an alert.
            let columns = json!({ "excludeByName": { "Time": true, "Value": true } });
            model["transformations"] = json!([{ "id": "organize", "options": columns }]);
        }
        model
    }

    fn description(&self) -> String {
        let Self { shows, normal, otherwise, .. } = self;
        let mut text = format!("{shows}\n\n**Normal:** {normal}\n\n**Otherwise:** {otherwise}");
        if self.query.iter().any(|query| query.expr.contains("increase(") && query.expr.contains("$__rate_interval")) {
            text += "\n\nEach point counts a window of time that slides (`$__rate_interval`), so one event shows in several points.";
        }
        if !self.alerts.is_empty() {
            let links = self.alerts.iter().map(|alert| format!("[{alert}](${{runbooks}}#{})", alert.to_lowercase()));
            text += &format!("\n\n**Runbooks:** {}", links.collect::<Vec<_>>().join(", "));
        }
        text
    }

    fn target(&self, letter: &str, query: &Query, of_nodes: bool) -> Value {
        let expr = query.expr.replace("$leader", OF_THE_LEADER);
        let mut target = json!({
            "refId": letter, "datasource": data_source(), "legendFormat": query.legend,
            "expr": scoped(&expr, of_nodes && !self.every_node),
        });
        if query.instant {
            target["instant"] = true.into();
            target["range"] = false.into();
        }
        match self.kind {
            Kind::Heatmap => target["format"] = "heatmap".into(),
            Kind::Table => target["format"] = "table".into(),
            _ => {}
        }
        target
    }

    fn options(&self) -> Value {
        match self.kind {
            Kind::Lines | Kind::Stack => json!({ "tooltip": { "mode": "multi", "sort": "desc" } }),
            Kind::Stat | Kind::Name => json!({
                "graphMode": "none", "textMode": if self.kind == Kind::Name { "name" } else { "value_and_name" },
                "reduceOptions": { "calcs": ["lastNotNull"] },
            }),
            Kind::States => json!({ "legend": { "showLegend": false } }),
            Kind::Heatmap => json!({
                "calculate": false, "yAxis": { "unit": self.unit }, "cellGap": 1,
                "color": { "mode": "scheme", "scheme": "Oranges", "steps": 64 },
            }),
            Kind::Table => json!({ "showHeader": true }),
        }
    }

    fn defaults(&self) -> Value {
        let mut defaults = Map::from_iter([("unit".to_owned(), Value::from(&*self.unit))]);
        let mut put = |key: &str, value: Value| defaults.insert(key.to_owned(), value);
        if let Some(min) = self.min {
            put("min", min.into());
        }
        if let Some(none) = &self.none {
            put("noValue", (&**none).into());
        }
        if matches!(self.kind, Kind::Stat | Kind::Name) {
            // Grafana's own steps would colour a value above 80 red.
            let base = json!({ "value": null, "color": self.base.as_deref().unwrap_or("text") });
            let steps = self.steps.iter().map(|(value, color)| json!({ "value": value, "color": color }));
            let steps: Vec<_> = std::iter::once(base).chain(steps).collect();
            put("thresholds", json!({ "mode": "absolute", "steps": steps }));
        }
        if !self.values.is_empty() {
            let texts = self.values.iter().zip(0..).map(|((value, (text, color)), index)| {
                (value.clone(), json!({ "text": text, "color": color, "index": index }))
            });
            put("mappings", json!([{ "type": "value", "options": Map::from_iter(texts) }]));
        }
        if self.kind == Kind::Stack {
            put("custom", json!({ "fillOpacity": 60, "lineWidth": 0, "stacking": { "mode": "normal", "group": "A" } }));
        }
        defaults.into()
    }

    fn overrides(&self) -> Value {
        let beside = ('A'..='Z').zip(&self.query).filter(|(_, query)| query.beside);
        beside
            .map(|(letter, _)| {
                json!({ "matcher": { "id": "byFrameRefID", "options": letter.to_string() }, "properties": [
                    { "id": "custom.stacking", "value": { "mode": "none" } },
                    { "id": "custom.fillOpacity", "value": 0 },
                    { "id": "custom.lineWidth", "value": 2 },
                ]})
            })
            .collect()
    }
}

fn data_source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn variables(of_nodes: bool) -> Vec<Value> {
    let choice = |name: &str, label: &str, query: &str| {
        json!({
            "name": name, "label": label, "type": "query", "datasource": data_source(), "refresh": 2, "sort": 3,
            "definition": query, "query": { "qryType": 1, "query": query, "refId": name },
        })
    };
    let mut variables = vec![
        json!({ "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus" }),
        choice("cluster", "Cluster", "label_values(quorate_build_info, job)"),
    ];
    if of_nodes {
        let mut node = choice("node", "Node", r#"label_values(quorate_build_info{job="$cluster"}, node)"#);
        node["multi"] = true.into();
        node["includeAll"] = true.into();
        node["allValue"] = ".+".into();
        node["current"] = json!({ "text": ["All"], "value": ["$__all"] });
        variables.push(node);
    }
    variables.push(json!({
        "name": "runbooks", "label": "Runbooks", "type": "textbox", "query": "RUNBOOKS.md",
        "description": "Address at which metrics/RUNBOOKS.md is served; links to runbooks begin with it.",
    }));
    variables
}

fn annotations() -> Value {
    let on = |name: &str, color: &str, expr: &str, title: &str, text: &str| {
        json!({
            "name": name, "enable": true, "iconColor": color, "datasource": data_source(), "step": "10s",
            "expr": scoped(expr, false), "titleFormat": title, "textFormat": text,
        })
    };
    json!([
        // One minute has two samples at any usual scrape interval; Grafana's step may have one.
        on(
            "Leader changes",
            "orange",
            "sum by (node) (changes(quorate_leader_changes_total[1m])) > 0",
            "Another leader",
            "seen by node {{node}}"
        ),
        on("Alerts", "red", r#"ALERTS{alertstate="firing"}"#, "{{alertname}}", "{{severity}}, node {{node}}"),
    ])
}

/// The expression with the cluster, and the nodes, in each selector. A cluster is one job, compared
/// literally: a job's name may contain characters of regular expressions.
fn scoped(expr: &str, to_nodes: bool) -> String {
    let (mut out, mut rest, mut is_quoted) = (String::new(), expr, false);
    while let Some(first) = rest.chars().next() {
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(length.max(first.len_utf8()));
        rest = after;
        out += word;
        is_quoted ^= word == "\"";
        let is_node = word.starts_with("quorate_");
        if is_quoted || !(is_node || word == "up" || word == "ALERTS") {
            continue;
        }
        // `up` and the alerts of a target have no node.
        out += if to_nodes && is_node { r#"{job="$cluster",node=~"$node""# } else { r#"{job="$cluster""# };
        match rest.strip_prefix('{') {
            Some(inside) => (out, rest) = (out + ",", inside),
            None => out.push('}'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::scoped;

    #[test]
    fn every_selector_gets_the_cluster_and_those_of_nodes_the_nodes() {
        for (expr, of_cluster, of_nodes) in [
            ("quorate_term", r#"quorate_term{job="$cluster"}"#, r#"quorate_term{job="$cluster",node=~"$node"}"#),
            (
                r#"rate(quorate_x{a="quorate_y"}[1m])"#,
                r#"rate(quorate_x{job="$cluster",a="quorate_y"}[1m])"#,
                r#"rate(quorate_x{job="$cluster",node=~"$node",a="quorate_y"}[1m])"#,
            ),
            ("sum(up)", r#"sum(up{job="$cluster"})"#, r#"sum(up{job="$cluster"})"#),
            ("time() - 1 > bool 0", "time() - 1 > bool 0", "time() - 1 > bool 0"),
        ] {
            assert_eq!(scoped(expr, false), of_cluster);
            assert_eq!(scoped(expr, true), of_nodes);
        }
    }
}
