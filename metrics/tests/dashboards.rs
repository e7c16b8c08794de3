//! The dashboard and the alert rules use existing metrics, labels and values only, and
//! promtool accepts them.

mod support;

use quorate_metrics::catalogue::{CATALOGUE, Kind, Metric, Values};
use quorate_metrics_testing::{ALERTS, DASHBOARD, Expression, alert_expressions, dashboard_expressions};
use serde_json::Value;
use std::collections::BTreeSet;
use support::{metric_of, promtool};

/// Labels that Prometheus itself puts on every sample.
const OF_THE_TARGET: [&str; 2] = ["job", "instance"];

#[test]
fn every_expression_uses_metrics_labels_and_values_of_the_catalogue() {
    let expressions = every_expression();
    assert!(expressions.len() > 50, "{} expressions", expressions.len());
    let problems: Vec<_> = expressions.iter().flat_map(problems).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_metric_of_the_catalogue_is_on_the_dashboard() {
    let shown: BTreeSet<_> = dashboard_expressions(".+", "1m")
        .iter()
        .flat_map(|expression| selectors(&expression.promql))
        .map(|selector| metric_of(&selector.name).to_owned())
        .collect();
    let missing: Vec<_> = CATALOGUE.iter().map(|metric| metric.name).filter(|name| !shown.contains(*name)).collect();
    assert!(missing.is_empty(), "no panel shows {missing:?}");
}

#[test]
fn promtool_accepts_every_expression_of_the_dashboard() {
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (number, expression) in dashboard_expressions(".+", "1m").iter().enumerate() {
        rules += &format!("  - record: panel:{number}\n    expr: {}\n", Value::from(expression.promql.as_str()));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("dashboard.yml");
    std::fs::write(&file, rules).expect("written");
    promtool(&["check", "rules", file.to_str().expect("UTF-8")], "");
}

#[test]
fn promtool_accepts_the_alert_rules_and_each_fires_when_it_should_and_not_before() {
    promtool(&["check", "rules", "prometheus/alerts.yml"], "");
    promtool(&["test", "rules", "prometheus/alerts.test.yml"], "");
    let tests = include_str!("../prometheus/alerts.test.yml");
    for alert in alert_expressions() {
        let name = format!("alertname: {}\n", alert.title);
        let fires = tests.split(&name).skip(1).any(|case| !case.lines().nth(1).unwrap_or("").contains("[]"));
        assert!(fires, "no test shows {} firing", alert.title);
    }
}

#[test]
fn every_alert_and_every_target_is_found_by_the_extraction() {
    let alerts = alert_expressions();
    assert_eq!(alerts.len(), ALERTS.matches("alert:").count());
    assert_eq!(alerts.len(), ALERTS.matches("expr:").count());
    assert!(alerts.iter().all(|alert| !alert.title.is_empty() && balanced(&alert.promql)), "{alerts:?}");

    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let found = dashboard_expressions(".+", "1m");
    assert_eq!(found.len(), count_of_key(&dashboard, "expr"));
    for expression in &found {
        assert!(!expression.title.is_empty() && balanced(&expression.promql), "{expression:?}");
        assert!(!expression.promql.contains('$'), "a variable is left: {expression:?}");
    }
}

#[test]
fn every_panel_asks_the_chosen_data_source_and_has_its_own_id_title_and_place() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut ids, mut titles, mut cells) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64()), "{panel}");
        assert!(titles.insert(panel["title"].as_str()), "{panel}");
        let place = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
        assert!(place("x") + place("w") <= 24, "{panel}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(cells.insert((x, y)), "panels overlap: {panel}");
            }
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
            assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{panel}");
            for target in panel["targets"].as_array().expect("targets") {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
                assert!(target["expr"].as_str().is_some_and(|expr| expr.contains("$node")), "{target}");
            }
        }
    }
    let variables: Vec<_> = dashboard["templating"]["list"].as_array().expect("variables").iter().collect();
    assert_eq!(variables.iter().map(|variable| &variable["name"]).collect::<Vec<_>>(), ["datasource", "node"]);
    assert_eq!(variables[1]["query"]["query"], "label_values(quorate_build_info, node)");
}

#[test]
fn the_check_finds_what_does_not_exist() {
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
}

fn every_expression() -> Vec<Expression> {
    dashboard_expressions(".+", "1m").into_iter().chain(alert_expressions()).collect()
}

/// A metric's name in an expression, and the label matchers that follow it.
struct Selector {
    name: String,
    matchers: Vec<(String, String, String)>,
}

/// The metrics, labels and values in an expression that the catalogue lacks.
fn problems(Expression { title, promql, legend }: &Expression) -> Vec<String> {
    let (mut problems, mut labels) = (Vec::new(), BTreeSet::from(OF_THE_TARGET.map(str::to_owned)));
    let mut report = |problem: String| problems.push(format!("{title}: {problem} in {promql} ({legend})"));
    for Selector { name, matchers } in selectors(promql) {
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

/// All names with the prefix `quorate_` outside quotes, and the matchers in the braces after each.
fn selectors(promql: &str) -> Vec<Selector> {
    let (mut found, mut rest) = (Vec::new(), promql);
    while let Some(at) = rest.find("quorate_") {
        let end = rest[at..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(rest.len(), |end| at + end);
        let name = rest[at..end].to_owned();
        rest = &rest[end..];
        let mut matchers = Vec::new();
        if let Some((inside, behind)) = rest.strip_prefix('{').and_then(|open| open.split_once('}')) {
            for matcher in inside.split("\",") {
                let (left, value) = matcher.split_once('"').expect("a quoted value");
                let label = left.trim().trim_end_matches(['=', '~', '!']).to_owned();
                let operator = left.trim()[label.len()..].to_owned();
                matchers.push((label, operator, value.trim_end_matches('"').to_owned()));
            }
            rest = behind;
        }
        found.push(Selector { name, matchers });
    }
    found
}

/// The labels listed in `by (…)`, `without (…)` and `on (…)`.
fn grouped_by(promql: &str) -> Vec<String> {
    let lists = [" by (", "by (", "without (", "on ("].into_iter().flat_map(|word| promql.split(word).skip(1));
    lists
        .filter_map(|behind| behind.split_once(')'))
        .flat_map(|(list, _)| list.split(','))
        .map(|label| label.trim().to_owned())
        .collect()
}

/// The labels used in `{{…}}`.
fn shown_in(legend: &str) -> Vec<String> {
    let opened = legend.split("{{").skip(1);
    opened.filter_map(|rest| rest.split_once("}}")).map(|(label, _)| label.trim().to_owned()).collect()
}

fn balanced(promql: &str) -> bool {
    [('(', ')'), ('{', '}'), ('[', ']')]
        .iter()
        .all(|(open, close)| promql.matches(*open).count() == promql.matches(*close).count())
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
