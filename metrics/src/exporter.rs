//! The link between the catalogue and `metrics-exporter-prometheus`, which holds all values and
//! writes the page.
//!
//! **Invariant:** every registered metric is in the catalogue. So every histogram has its buckets
//! (the exporter would render one without buckets as a summary) and every series its help text.

use crate::catalogue::{CATALOGUE, Kind, Metric};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// All series that are recorded through one [`Metrics`](crate::Metrics).
pub(crate) struct Exporter {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// Pairs of a node and a peer of it that left. The recorder keeps a series until the process
    /// ends, so the page leaves these out.
    departed: Mutex<BTreeSet<(u64, u64)>>,
}

/// The origin of registrations, which the recorder's interface demands and ignores.
static METADATA: Metadata<'static> = Metadata::new(env!("CARGO_PKG_NAME"), Level::INFO, Some(module_path!()));

impl Exporter {
    /// Has the buckets and help texts of the catalogue, and no series.
    pub(crate) fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for metric in CATALOGUE {
            if let Kind::Histogram(bounds) = metric.kind {
                let exactly = Matcher::Full(metric.name.to_owned());
                builder = builder.set_buckets_for_metric(exactly, bounds).expect("every histogram has a bound");
            }
        }
        let recorder = builder.build_recorder();
        for Metric { name, kind, help, .. } in CATALOGUE {
            let (name, help) = ((*name).into(), (*help).into());
            match kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        }
        Self { handle: recorder.handle(), recorder, departed: Mutex::default() }
    }

    pub(crate) fn counter(&self, metric: &'static Metric, labels: Vec<Label>) -> Counter {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.recorder.register_counter(&Key::from_parts(metric.name, labels), &METADATA)
    }

    pub(crate) fn gauge(&self, metric: &'static Metric, labels: Vec<Label>) -> Gauge {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        self.recorder.register_gauge(&Key::from_parts(metric.name, labels), &METADATA)
    }

    pub(crate) fn histogram(&self, metric: &'static Metric, labels: Vec<Label>) -> Histogram {
        debug_assert!(matches!(metric.kind, Kind::Histogram(_)), "{}", metric.name);
        self.recorder.register_histogram(&Key::from_parts(metric.name, labels), &METADATA)
    }

    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Whether the page has the series of this peer of this node.
    pub(crate) fn shows_peer(&self, (node, peer): (u64, u64), shows: bool) {
        let mut departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        if shows {
            departed.remove(&(node, peer));
        } else {
            departed.insert((node, peer));
        }
    }

    /// Includes the upkeep: the exporter does it first.
    pub(crate) fn render(&self) -> String {
        let page = self.handle.render();
        let departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        if departed.is_empty() {
            return page;
        }
        let is_shown = |line: &&str| peer_of(line).is_none_or(|pair| !departed.contains(&pair));
        page.split_inclusive('\n').filter(is_shown).collect()
    }
}

/// The node and the peer of a sample; `None` if it has no peer with an id.
fn peer_of(line: &str) -> Option<(u64, u64)> {
    if line.starts_with('#') {
        return None;
    }
    let id = |label: &str| line.split_once(label)?.1.split_once('"')?.0.parse().ok();
    Some((id("node=\"")?, id("peer=\"")?))
}
