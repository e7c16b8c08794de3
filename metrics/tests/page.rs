//! The rendered page against the catalogue.

mod support;

use quorate_metrics::{
    ActorName, Label as _, Metrics, NodeMetrics, NodeRole, PeerState, Phase,
    catalogue::{CATALOGUE, Kind, Metric, Unit, Values},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use support::{Series, full_page, promtool, record_everything, samples};

#[test]
fn promtool_finds_nothing_to_say_of_the_page() {
    let fresh = Metrics::new();
    let _registered = fresh.node(1);
    for page in [full_page(), fresh.render()] {
        // It asks for base units. Counters count whole numbers, so each of milliseconds stands beside
        // one of seconds.
        let is_checked = |line: &&str| !line.contains("_milliseconds_total");
        promtool(&["check", "metrics"], &page.split_inclusive('\n').filter(is_checked).collect::<String>());
    }
}

#[test]
fn every_metric_of_the_catalogue_is_on_the_page_and_no_other() {
    let page = full_page();
    let rendered: BTreeSet<_> = samples(&page).keys().map(|series| series.metric().to_owned()).collect();
    let listed: BTreeSet<_> = CATALOGUE.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(rendered, listed);
    assert_eq!(CATALOGUE.len(), listed.len(), "a name stands twice in the catalogue");
}

#[test]
fn every_series_has_the_labels_of_the_catalogue_in_its_order_and_every_value_of_a_closed_set_shows() {
    let samples = samples(&full_page());
    for metric in CATALOGUE {
        let of_metric: Vec<_> = samples.keys().filter(|series| series.metric() == metric.name).collect();
        for series in &of_metric {
            let names: Vec<_> =
                series.labels.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "le").collect();
            let expected: Vec<_> =
                std::iter::once("node").chain(metric.labels.iter().map(|label| label.name)).collect();
            assert_eq!(names, expected, "{series:?}");
        }
        for label in metric.labels {
            let shown: BTreeSet<_> = of_metric.iter().filter_map(|series| series.label(label.name)).collect();
            match label.values {
                Values::OneOf(values) => assert_eq!(shown, values.iter().copied().collect(), "{}", metric.name),
                Values::Peer => assert_eq!(shown, BTreeSet::from(["2", "3"]), "{}", metric.name),
                Values::PeerOrUnknown => assert_eq!(shown, BTreeSet::from(["2", "3", "unknown"]), "{}", metric.name),
                Values::Version => assert_eq!(shown, BTreeSet::from([env!("CARGO_PKG_VERSION")]), "{}", metric.name),
            }
        }
    }
}

#[test]
fn every_family_has_its_header_once_and_directly_above_its_samples() {
    let page = full_page();
    let lines: Vec<_> = page.lines().collect();
    for metric in CATALOGUE {
        let help = format!("# HELP {} {}", metric.name, metric.help);
        let at = lines.iter().position(|line| *line == help).unwrap_or_else(|| panic!("no help of {}", metric.name));
        assert_eq!(lines[at + 1], format!("# TYPE {} {}", metric.name, metric.kind.as_str()));
        let own = |line: &&&str| {
            !line.is_empty()
                && !line.starts_with('#')
                && support::metric_of(&line[..line.find('{').unwrap_or(0)]) == metric.name
        };
        let below = lines[at + 2..].iter().take_while(own).count();
        assert_eq!(below, lines.iter().filter(own).count(), "{} is scattered", metric.name);
    }
    assert_eq!(lines.iter().filter(|line| line.starts_with('#')).count(), 2 * CATALOGUE.len());
    assert!(page.ends_with('\n'));
    assert!(!page.contains("quantile"), "a summary: a histogram without buckets");
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    for Metric { name, kind, unit, labels, help } in CATALOGUE.iter().copied().copied() {
        assert!(name.starts_with("quorate_"), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        let base = name.trim_end_matches("_total");
        assert_eq!(base.ends_with("_seconds"), matches!(unit, Unit::Seconds | Unit::UnixSeconds), "{name}");
        assert_eq!(base.ends_with("_milliseconds"), unit == Unit::Milliseconds, "{name}");
        assert_eq!(base.ends_with("_timestamp_seconds"), unit == Unit::UnixSeconds, "{name}");
        assert_eq!(base.ends_with("_bytes"), unit == Unit::Bytes, "{name}");
        assert_eq!(base.ends_with("_entries"), unit == Unit::Entries, "{name}");
        assert_eq!(base.ends_with("_index"), unit == Unit::Index, "{name}");
        assert_eq!(base.ends_with("_ratio"), unit == Unit::Ratio, "{name}");
        assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
        for label in labels {
            assert!(!["node", "le", "quantile", "job", "instance"].contains(&label.name), "{name}: {}", label.name);
            let Values::OneOf(values) = label.values else { continue };
            assert!(
                values.iter().all(|value| value.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')),
                "{name}"
            );
        }
        if let Kind::Histogram(bounds) = kind {
            assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]) && bounds[0] > 0.0, "{name}");
        }
    }
}

#[test]
fn every_counter_of_time_is_there_in_seconds_and_in_milliseconds() {
    let of_time = |unit| CATALOGUE.iter().filter(move |metric| metric.kind == Kind::Counter && metric.unit == unit);
    let in_milliseconds: Vec<_> = of_time(Unit::Milliseconds).map(|metric| (metric.name, metric.labels)).collect();
    let in_seconds: Vec<_> = of_time(Unit::Seconds).map(|metric| (metric.name, metric.labels)).collect();
    let names =
        |of: &[(&str, _)]| of.iter().map(|(name, _)| name.replace("_milliseconds", "_seconds")).collect::<Vec<_>>();
    assert_eq!(names(&in_milliseconds), names(&in_seconds));
    assert!(in_milliseconds.iter().zip(&in_seconds).all(|((_, one), (_, other))| one == other));
}

#[test]
fn a_fresh_node_shows_zero_for_every_counter_and_histogram_that_needs_no_peer() {
    let metrics = Metrics::new();
    let _node = metrics.node(1);
    let fresh = samples(&metrics.render());
    for metric in CATALOGUE {
        let of_metric: Vec<_> = fresh.iter().filter(|(series, _)| series.metric() == metric.name).collect();
        let absent_until_known = metric.labels.iter().any(|label| label.values == Values::Peer)
            || metric.name.ends_with("_expiry_timestamp_seconds")
            || ["quorate_storage_free_bytes", "quorate_pressure_ratio", "quorate_actor_mailbox_depth"]
                .contains(&metric.name);
        assert_eq!(of_metric.is_empty(), absent_until_known, "{}", metric.name);
        let expected = if metric.name == "quorate_build_info" { 1.0 } else { 0.0 };
        for (series, value) in of_metric {
            assert!((value - expected).abs() < f64::EPSILON, "{series:?} {value}");
        }
    }
}

#[test]
fn the_buckets_of_a_histogram_add_up() {
    let samples = samples(&full_page());
    for metric in CATALOGUE {
        let Kind::Histogram(bounds) = metric.kind else { continue };
        for (count_series, count) in samples.iter().filter(|(s, _)| s.name == format!("{}_count", metric.name)) {
            let mut buckets: Vec<(f64, f64)> = samples
                .iter()
                .filter(|(s, _)| {
                    s.name == format!("{}_bucket", metric.name) && s.labels.starts_with(&count_series.labels)
                })
                .map(|(s, value)| (s.label("le").expect("le").replace("+Inf", "inf").parse().expect("a bound"), *value))
                .collect();
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            let expected: Vec<_> = bounds.iter().copied().chain([f64::INFINITY]).collect();
            assert_eq!(buckets.iter().map(|(bound, _)| *bound).collect::<Vec<_>>(), expected, "{}", metric.name);
            assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{}", metric.name);
            assert_eq!(buckets.last().map(|(_, value)| *value), Some(*count), "{}", metric.name);
            assert!(*count > 0.0, "{count_series:?}: full_page records it");
        }
    }
}

#[test]
fn several_nodes_share_a_page_and_do_not_mix() {
    let metrics = Metrics::new();
    let (one, two) = (metrics.node(1), metrics.node(2));
    one.set_term(5);
    two.set_term(6);
    metrics.node(1).election_started(Phase::Vote);
    let page = metrics.render();
    for line in [
        r#"quorate_term{node="1"} 5"#,
        r#"quorate_term{node="2"} 6"#,
        r#"quorate_elections_started_total{node="1",phase="vote"} 1"#,
        r#"quorate_elections_started_total{node="2",phase="vote"} 0"#,
    ] {
        assert!(page.lines().any(|other| other == line), "no {line}");
    }
    assert!(Metrics::new().render().is_empty(), "there is no global state");
}

#[test]
fn a_peer_that_was_met_shows_zero_for_all_but_its_round_trip_time() {
    let metrics = Metrics::new();
    let _peer = metrics.node(1).peer(2);
    let fresh = samples(&metrics.render());
    for metric in CATALOGUE.iter().filter(|metric| metric.labels.iter().any(|label| label.name == "peer")) {
        let of_peer: Vec<_> = fresh
            .iter()
            .filter(|(series, _)| series.metric() == metric.name && series.label("peer") == Some("2"))
            .map(|(_, value)| *value)
            .collect();
        assert_eq!(of_peer.is_empty(), metric.name == "quorate_peer_rtt_seconds", "{}", metric.name);
        assert!(of_peer.iter().all(|value| *value == 0.0), "{} {of_peer:?}", metric.name);
    }
}

#[test]
fn the_series_of_a_departed_peer_end_and_those_of_its_neighbours_do_not() {
    let metrics = Metrics::new();
    let (one, two) = (metrics.node(1), metrics.node(2));
    for node in [&one, &two] {
        record_everything(node);
    }
    let before = samples(&metrics.render());
    one.forget_peer(3);
    one.forget_peer(77);
    // Whatever still has its handles shows nothing.
    one.peer(3).append_rejected();
    let after = samples(&metrics.render());
    let departed = |series: &Series| series.label("node") == Some("1") && series.label("peer") == Some("3");
    assert!(before.keys().filter(|series| departed(series)).count() > 40);
    let expected: BTreeMap<_, _> = before.into_iter().filter(|(series, _)| !departed(series)).collect();
    assert_eq!(after, expected);

    let again = one.add_peer(3);
    again.append_rejected();
    let page = samples(&metrics.render());
    let of_peer = [("node", "1"), ("peer", "3")];
    let rejections = value(&page, "quorate_append_rejections_total", &of_peer);
    assert_eq!(rejections.to_bits(), 3.0f64.to_bits(), "it goes on counting");
    assert_eq!(value(&page, "quorate_peer_lag_entries", &of_peer).to_bits(), 0, "and its gauges are new");
    let bytes = [("node", "1"), ("peer", "3"), ("direction", "sent"), ("lane", "append")];
    assert_eq!(value(&page, "quorate_net_bytes_total", &bytes).to_bits(), 100.0f64.to_bits());
}

#[test]
fn of_the_values_of_a_choice_one_is_one() {
    let metrics = Metrics::new();
    let node = metrics.node(1);
    let chosen = |name: &str| {
        let page = samples(&metrics.render());
        let ones = page.into_iter().filter(|(series, value)| series.name == name && *value == 1.0);
        ones.map(|(series, _)| series.labels.last().expect("a label").1.clone()).collect::<Vec<_>>()
    };
    assert_eq!(chosen("quorate_role"), [""; 0]);
    for role in NodeRole::ALL {
        node.set_role(*role);
        assert_eq!(chosen("quorate_role"), [role.as_str()]);
    }
    for state in PeerState::ALL {
        node.peer(2).set_state(*state);
        assert_eq!(chosen("quorate_peer_state"), [state.as_str()]);
    }
    node.peer(2).replication_ended();
    assert_eq!(chosen("quorate_peer_state"), [""; 0]);
}

#[test]
fn an_observation_on_a_bound_belongs_to_that_bound() {
    let metrics = Metrics::new();
    metrics.node(1).fsync_took(Duration::from_millis(1));
    metrics.node(1).fsync_took(Duration::from_nanos(1_000_001));
    let page = samples(&metrics.render());
    for (bound, below) in [("0.0008", 0.0), ("0.001", 1.0), ("0.0015", 2.0), ("+Inf", 2.0)] {
        let found = value(&page, "quorate_storage_fsync_duration_seconds_bucket", &[("le", bound)]);
        assert!((found - below).abs() < f64::EPSILON, "{bound} {found}");
    }
}

#[test]
fn text_that_names_no_value_of_a_closed_set_counts_as_other() {
    let metrics = Metrics::new();
    let node = metrics.node(1);
    node.connection(None, "refused_certificate");
    node.connection(None, "x\"} 1\nforged 2");
    node.dropped(Some(2), "queue_full");
    node.dropped(Some(2), "whatever");
    node.storage_error("sync");
    node.storage_error("");
    let page = metrics.render();
    for series in [
        r#"quorate_net_connections_total{node="1",peer="unknown",result="refused_certificate"} 1"#,
        r#"quorate_net_connections_total{node="1",peer="unknown",result="other"} 1"#,
        r#"quorate_net_dropped_total{node="1",peer="2",reason="queue_full"} 1"#,
        r#"quorate_net_dropped_total{node="1",peer="2",reason="other"} 1"#,
        r#"quorate_storage_errors_total{node="1",op="sync"} 1"#,
        r#"quorate_storage_errors_total{node="1",op="other"} 1"#,
    ] {
        assert!(page.lines().any(|line| line == series), "no {series}");
    }
    assert!(!page.contains("forged"));
}

#[test]
fn recording_from_several_threads_loses_nothing() {
    let metrics = Metrics::new();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            let node = metrics.node(1);
            threads.spawn(move || (0..10_000).for_each(|_| record_once(&node)));
        }
    });
    let page = samples(&metrics.render());
    for (name, labels, expected) in [
        ("quorate_elections_started_total", &[("phase", "vote")][..], 40_000.0),
        ("quorate_batch_entries_count", &[], 40_000.0),
        ("quorate_batch_entries_sum", &[], 120_000.0),
        ("quorate_append_rejections_total", &[("peer", "2")], 40_000.0),
        ("quorate_actor_busy_seconds_total", &[("actor", "applier")], 1_000.0),
    ] {
        assert!((value(&page, name, labels) - expected).abs() < f64::EPSILON, "{name}");
    }
}

#[test]
fn rendering_meanwhile_loses_nothing_and_lets_no_counter_or_histogram_fall() {
    let metrics = Metrics::new();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            let node = metrics.node(1);
            threads.spawn(move || (0..10_000).for_each(|_| record_once(&node)));
        }
        let mut before = (0.0, 0.0);
        for _ in 0..20 {
            let page = samples(&metrics.render());
            let started = value(&page, "quorate_elections_started_total", &[("phase", "vote")]);
            let batches = value(&page, "quorate_batch_entries_count", &[]);
            assert!(started >= before.0 && batches >= before.1, "{before:?} {started} {batches}");
            before = (started, batches);
        }
    });
    let page = samples(&metrics.render());
    let started = value(&page, "quorate_elections_started_total", &[("phase", "vote")]);
    let batches = ["count", "sum"].map(|of| value(&page, &format!("quorate_batch_entries_{of}"), &[]));
    assert_eq!((started, batches), (40_000.0, [40_000.0, 120_000.0]));
}

#[test]
fn a_closed_set_reads_back_as_it_is_written() {
    for (position, phase) in Phase::ALL.iter().enumerate() {
        assert_eq!((phase.position(), phase.as_str()), (position, Phase::VALUES[position]));
    }
}

fn record_once(node: &NodeMetrics) {
    node.election_started(Phase::Vote);
    node.batch(3);
    node.actor_busy(ActorName::Applier, Duration::from_millis(25));
    node.peer(2).append_rejected();
}

fn value(samples: &BTreeMap<Series, f64>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let wanted =
        |series: &Series| series.name == name && labels.iter().all(|(of, value)| series.label(of) == Some(value));
    samples.iter().filter(|(series, _)| wanted(series)).map(|(_, value)| value).sum()
}
