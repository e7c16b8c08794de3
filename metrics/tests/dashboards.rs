//! The dashboards are made from their sources, say what they show, and use existing metrics, labels
//! and values only, in ways that show nothing false. promtool accepts their expressions and the
//! alert rules.

mod support;

use quorate_metrics::catalogue::{CATALOGUE, Kind, Metric, Values};
use quorate_metrics_testing::{
    ALERTS, DASHBOARDS, Expression, PANELS_OF_ALERTS, Variables, alert_expressions, dashboard_expressions,
    panels_of_alerts,
};
use serde_json::Value;
use std::collections::BTreeSet;
use support::{
    metric_of,
    promql::{Selector, balanced, grouped_by, selectors, shown_in},
    promtool,
};

/// Labels that Prometheus itself puts on every sample, and those of its series `ALERTS`.
const OF_THE_TARGET: [&str; 2] = ["job", "instance"];
const OF_ALERTS: [&str; 3] = ["alertname", "alertstate", "severity"];

const ANY: Variables<'static> = Variables { cluster: "quorate", nodes: ".+", interval: "1m", range: "30m" };

#[test]
fn every_file_is_what_its_source_makes() {
    let made = DASHBOARDS.iter().map(|dashboard| (dashboard.name, dashboard.text, dashboard.made()));
    for (name, written, made) in made.chain([("panels", PANELS_OF_ALERTS, panels_of_alerts())]) {
        if std::env::var_os("UPDATE_DASHBOARDS").is_some() {
            let path = format!("{}/grafana/{name}.json", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(path, made).expect("written");
        } else {
            let command = "UPDATE_DASHBOARDS=1 cargo test -p quorate-metrics --test dashboards";
            assert!(written == made, "{name}.json is out of step: {command}");
        }
    }
}

#[test]
fn every_expression_uses_metrics_labels_and_values_of_the_catalogue() {
    let expressions: Vec<_> = dashboard_expressions(ANY).into_iter().chain(alert_expressions()).collect();
    assert!(expressions.len() > 100, "{} expressions", expressions.len());
    let problems: Vec<_> = expressions.iter().flat_map(problems).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_metric_of_the_catalogue_is_on_a_dashboard() {
    let shown: BTreeSet<_> =
        dashboard_expressions(ANY).iter().flat_map(|expression| metrics_in(&expression.promql)).collect();
    let missing: Vec<_> = CATALOGUE.iter().map(|metric| metric.name).filter(|name| !shown.contains(*name)).collect();
    assert!(missing.is_empty(), "no panel shows {missing:?}");
}

#[test]
fn no_expression_of_a_dashboard_can_show_something_false() {
    let problems: Vec<_> = dashboard_expressions(ANY).iter().flat_map(falsehoods).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn promtool_accepts_every_expression_of_the_dashboards() {
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (number, expression) in dashboard_expressions(ANY).iter().enumerate() {
        rules += &format!("  - record: panel:{number}\n    expr: {}\n", Value::from(expression.promql.as_str()));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("dashboard.yml");
    std::fs::write(&file, rules).expect("written");
    promtool(&["check", "rules", file.to_str().expect("UTF-8")], "");
}

#[test]
fn every_alert_and_every_target_is_found_by_the_extraction() {
    let alerts = alert_expressions();
    assert_eq!(alerts.len(), ALERTS.matches("alert:").count());
    assert_eq!(alerts.len(), ALERTS.matches("expr:").count());
    assert!(alerts.iter().all(|alert| !alert.title.is_empty() && balanced(&alert.promql)), "{alerts:?}");

    let found = dashboard_expressions(ANY);
    assert_eq!(found.len(), DASHBOARDS.iter().map(|dashboard| count_of_key(&dashboard.model(), "expr")).sum::<usize>());
    for expression in &found {
        assert!(!expression.title.is_empty() && balanced(&expression.promql), "{expression:?}");
        assert!(!expression.promql.contains('$'), "a variable is left: {expression:?}");
    }
}

#[test]
fn every_alert_has_a_panel_that_shows_a_metric_of_it() {
    let table: Value = serde_json::from_str(PANELS_OF_ALERTS).expect("JSON");
    let table = table.as_object().expect("an entry per alert");
    let alerts = alert_expressions();
    for (alert, rule) in alerts.iter().zip(ALERTS.split("- alert: ").skip(1)) {
        let entry = table.get(&alert.title).unwrap_or_else(|| panic!("no panel has {} in `alerts`", alert.title));
        let dashboard = DASHBOARDS.iter().find(|dashboard| entry["uid"] == dashboard.model()["uid"]);
        let dashboard = dashboard.unwrap_or_else(|| panic!("no dashboard of {entry}"));
        let panel = dashboard.panels().into_iter().find(|panel| panel["id"] == entry["panel"]);
        let panel = panel.unwrap_or_else(|| panic!("no panel of {entry}"));
        assert_eq!(panel["title"], entry["title"]);
        if let Some((_, uid)) = rule.split_once("dashboard: \"") {
            let uid = uid.split(['"', '?', '/']).next();
            assert_eq!(entry["uid"].as_str(), uid, "the dashboard that {} names", alert.title);
        }
        let shown: BTreeSet<_> =
            dashboard.expressions(&panel, ANY).iter().flat_map(|shown| metrics_in(&shown.promql)).collect();
        assert!(!shown.is_disjoint(&metrics_in(&alert.promql)), "{entry} shows no metric of {alert:?}");
    }
    for name in table.keys() {
        assert!(alerts.iter().any(|alert| alert.title == *name), "no rule of the alert {name}");
    }
}

#[test]
fn every_panel_asks_the_chosen_data_source_and_cluster_and_has_its_own_id_title_and_place() {
    for dashboard in DASHBOARDS {
        let model = dashboard.model();
        assert_eq!(model["uid"], format!("quorate-{}", dashboard.name));
        let names: Vec<_> = items(&model["templating"]["list"]).map(|variable| text(&variable["name"])).collect();
        let of_nodes = names.contains(&"node".to_owned());
        assert_eq!(
            names.iter().filter(|name| *name != "node").collect::<Vec<_>>(),
            ["datasource", "cluster", "runbooks"]
        );
        let (mut ids, mut titles, mut cells) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for panel in items(&model["panels"]) {
            assert!(ids.insert(panel["id"].as_u64()), "{panel}");
            assert!(titles.insert(panel["title"].as_str()), "{panel}");
            let place = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
            assert!(place("x") + place("w") <= 24, "{panel}");
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    assert!(cells.insert((x, y)), "panels overlap: {panel}");
                }
            }
            if panel["type"] == "row" {
                continue;
            }
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
            assert!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{panel}");
            for target in items(&panel["targets"]) {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
                let expr = text(&target["expr"]);
                assert!(expr.contains(r#"{job="$cluster""#), "{target}");
                assert!(of_nodes || !expr.contains("$node"), "{target}");
            }
        }
        let bottom = cells.iter().map(|(_, y)| y + 1).max().expect("panels");
        assert!((0..bottom).all(|y| cells.contains(&(0, y))), "{}: an empty line", dashboard.name);
    }
}

#[test]
fn every_description_says_what_is_normal_and_names_only_titles_that_exist() {
    let titles: BTreeSet<_> = DASHBOARDS
        .iter()
        .map(|dashboard| dashboard.model())
        .flat_map(|model| {
            items(&model["panels"]).chain([&model]).map(|titled| text(&titled["title"])).collect::<Vec<_>>()
        })
        .collect();
    for dashboard in DASHBOARDS {
        for panel in dashboard.panels() {
            let description = text(&panel["description"]).replace("**", "");
            let (shows, rest) = description.split_once("\n\nNormal: ").unwrap_or_else(|| panic!("{panel}"));
            let (normal, otherwise) = rest.split_once("\n\nOtherwise: ").unwrap_or_else(|| panic!("{panel}"));
            assert!(
                [shows, normal, otherwise]
                    .iter()
                    .all(|part| part.trim().ends_with(['.', ')']) || part.contains("\n\nRunbooks: ")),
                "{description}"
            );
            for title in description.split('*').skip(1).step_by(2) {
                assert!(titles.contains(title), "{} names no panel: {title}", panel["title"]);
            }
        }
    }
}

#[test]
fn the_checks_find_what_does_not_exist_and_what_would_be_false() {
    for (promql, found) in [
        ("quorate_nonsense", "no metric"),
        ("quorate_term{peer=\"1\"}", "no label peer"),
        ("quorate_role{role=\"king\"}", "no value king"),
        ("quorate_role{role=~\"leader|king\"}", "no value king"),
        ("sum by (lane) (quorate_term)", "no label lane"),
        ("sum(rate(quorate_term_sum[1m]))", "no histogram"),
        ("quorate_proposal_duration_seconds", "a histogram"),
        ("sum by (le) (quorate_proposal_duration_seconds_sum)", "no label le"),
    ] {
        let expression = Expression { title: String::new(), promql: promql.to_owned(), legend: String::new() };
        let problems = problems(&expression);
        assert!(problems.iter().any(|problem| problem.contains(found)), "{promql}: {problems:?}");
    }
    let legend = Expression { title: String::new(), promql: "quorate_term".to_owned(), legend: "{{lane}}".to_owned() };
    assert!(problems(&legend)[0].contains("no label lane"));

    for (promql, found) in [
        ("quorate_peer_lag_entries", "not the leader"),
        ("quorate_proposals_total", "restarts"),
        ("histogram_quantile(0.5, quorate_proposal_duration_seconds_bucket)", "restarts"),
        ("rate(quorate_commit_index[1m])", "a gauge"),
        ("sum(quorate_term) or vector(0)", "no data"),
        ("max(quorate_commit_index) - quorate_commit_index", "different moments"),
    ] {
        let expression = Expression { title: String::new(), promql: promql.to_owned(), legend: String::new() };
        let problems = falsehoods(&expression);
        assert!(problems.iter().any(|problem| problem.contains(found)), "{promql}: {problems:?}");
    }
}

/// Uses of metrics that can show something that is not so.
fn falsehoods(Expression { title, promql, .. }: &Expression) -> Vec<String> {
    let mut problems = Vec::new();
    let mut report = |name: &str, problem: &str| problems.push(format!("{title}: {name}: {problem}: {promql}"));
    for Selector { name, before, .. } in selectors(promql) {
        let Some(metric) = CATALOGUE.iter().find(|metric| metric.name == metric_of(&name)) else { continue };
        let is_over_time = |functions: &[&str]| functions.iter().any(|function| before.ends_with(function));
        match metric.kind {
            Kind::Gauge if is_over_time(&["rate(", "increase(", "resets("]) => report(&name, "a gauge is no counter"),
            Kind::Gauge => {}
            _ if is_over_time(&["rate(", "increase(", "resets(", "changes("]) => {}
            _ => report(&name, "the value depends on when the node restarts"),
        }
        let at_leaders = promql.contains("quorate_role{") && promql.contains(r#"role="leader"} == 1"#);
        if metric.help.contains("0 unless the node leads") && !at_leaders {
            report(&name, "0 where the node is not the leader");
        }
        // Nodes are scraped one after the other, so between them an index differs by the load.
        let of_nodes = promql.matches(" by (node) ").count();
        if metric.name.ends_with("_index") && promql.contains(") - ") && of_nodes < 2 {
            report(&name, "values of different moments are subtracted");
        }
    }
    if promql.contains("vector(") {
        report("", "no data would look like a value");
    }
    problems
}

/// The metrics, labels and values in an expression that the catalogue lacks.
fn problems(Expression { title, promql, legend }: &Expression) -> Vec<String> {
    let (mut problems, mut labels) = (Vec::new(), BTreeSet::from(OF_THE_TARGET.map(str::to_owned)));
    if promql.contains("ALERTS{") {
        labels.extend(OF_ALERTS.iter().chain(&["node", "peer"]).map(|label| (*label).to_owned()));
    }
    let mut report = |problem: String| problems.push(format!("{title}: {problem} in {promql} ({legend})"));
    for Selector { name, matchers, .. } in selectors(promql) {
        let base = metric_of(&name);
        let Some(metric) = CATALOGUE.iter().find(|metric| metric.name == name || metric.name == base) else {
            report(format!("no metric {name}"));
            continue;
        };
        match (metric.name == name, matches!(metric.kind, Kind::Histogram(_))) {
            (true, true) => report(format!("{name} is a histogram, which has only buckets, a sum and a count")),
            (false, false) => report(format!("{base} is no histogram")),
            _ => {}
        }
        labels.insert("node".to_owned());
        labels.extend(metric.labels.iter().map(|label| label.name.to_owned()));
        if name.ends_with("_bucket") {
            labels.insert("le".to_owned());
        }
        for (label, operator, value) in matchers {
            check_matcher(metric, &label, &operator, &value).into_iter().for_each(&mut report);
        }
    }
    for label in grouped_by(promql).into_iter().chain(shown_in(legend)) {
        if !labels.contains(&label) {
            report(format!("no label {label}"));
        }
    }
    problems
}

fn check_matcher(metric: &Metric, label: &str, operator: &str, value: &str) -> Vec<String> {
    if label == "node" || OF_THE_TARGET.contains(&label) {
        return Vec::new();
    }
    let Some(known) = metric.labels.iter().find(|known| known.name == label) else {
        return vec![format!("{} has no label {label}", metric.name)];
    };
    let Values::OneOf(values) = known.values else { return Vec::new() };
    let wanted: Vec<_> = if operator.ends_with('~') { value.split('|').collect() } else { vec![value] };
    let unknown = wanted.into_iter().filter(|value| !values.contains(value));
    unknown.map(|value| format!("{}'s {label} has no value {value}", metric.name)).collect()
}

/// The metrics of an expression, with Prometheus' own `up`.
fn metrics_in(promql: &str) -> BTreeSet<String> {
    let mut words = promql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let up = words.find(|word| *word == "up").map(str::to_owned);
    selectors(promql).iter().map(|selector| metric_of(&selector.name).to_owned()).chain(up).collect()
}

fn count_of_key(value: &Value, key: &str) -> usize {
    match value {
        Value::Object(fields) => {
            usize::from(fields.contains_key(key)) + fields.values().map(|value| count_of_key(value, key)).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(|value| count_of_key(value, key)).sum(),
        _ => 0,
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
