//! The link between the catalogue and `metrics-exporter-prometheus`, which holds all values and
//! writes the page.
//!
//! **Invariant:** every registered metric is in the catalogue. So every histogram has its buckets
//! (the exporter would render one without buckets as a summary) and every series its help text.

use crate::catalogue::{CATALOGUE, Kind, Metric};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// All series that are recorded through one [`Metrics`](crate::Metrics).
pub(crate) struct Exporter {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
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
        Self { handle: recorder.handle(), recorder }
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

    /// Includes the upkeep: the exporter does it first.
    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }
}
