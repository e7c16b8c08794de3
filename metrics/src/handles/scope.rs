//! Registration of handles with the right labels, and the kinds of handle that the
//! `metrics` crate lacks.

use crate::{
    catalogue::{Metric, Unit},
    exporter::Exporter,
    labels::Label,
};
use metrics::{Counter, Gauge, Histogram, IntoF64};
use std::{
    marker::PhantomData,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// The labels of all handles that are registered through this scope.
#[derive(Clone)]
pub(super) struct Scope {
    exporter: Arc<Exporter>,
    labels: Vec<metrics::Label>,
}

impl Scope {
    pub(super) fn of_node(exporter: &Arc<Exporter>, id: u64) -> Self {
        Self { exporter: Arc::clone(exporter), labels: Vec::new() }.with("node", id.to_string())
    }

    pub(super) fn with(&self, name: &'static str, value: impl Into<metrics::SharedString>) -> Self {
        let mut scope = self.clone();
        scope.labels.push(metrics::Label::new(name, value));
        scope
    }

    /// One handle from `register` for each value of the label `name`.
    pub(super) fn each<L: Label, H>(&self, name: &'static str, register: impl Fn(Scope) -> H) -> Each<L, H> {
        let handles = L::ALL.iter().map(|value| register(self.with(name, value.as_str()))).collect();
        Each { handles, label: PhantomData }
    }

    pub(super) fn counter(&self, metric: &'static Metric) -> Counter {
        self.exporter.counter(metric, &self.labels)
    }

    /// A counter of time in two units.
    pub(super) fn time_counter(&self, seconds: &'static Metric, milliseconds: &'static Metric) -> TimeCounter {
        debug_assert_eq!((seconds.unit, milliseconds.unit), (Unit::Seconds, Unit::Milliseconds));
        let (seconds, milliseconds) = (self.counter(seconds), self.counter(milliseconds));
        TimeCounter { seconds, milliseconds, nanoseconds: AtomicU64::new(0) }
    }

    pub(super) fn gauge(&self, metric: &'static Metric) -> Gauge {
        self.exporter.gauge(metric, &self.labels)
    }

    pub(super) fn late_gauge(&self, metric: &'static Metric) -> LateGauge {
        LateGauge { scope: self.clone(), metric, gauge: OnceLock::new() }
    }

    /// A gauge for each value of the label `name`, of which the chosen one reads 1; none at first.
    pub(super) fn choice<L: Label>(&self, metric: &'static Metric, name: &'static str) -> Chosen<L> {
        Chosen { gauges: self.each(name, |scope| scope.gauge(metric)) }
    }

    pub(super) fn histogram(&self, metric: &'static Metric) -> Histogram {
        self.exporter.histogram(metric, &self.labels)
    }
}

/// One handle for each value of a label.
pub(super) struct Each<L, H> {
    handles: Box<[H]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, H> Each<L, H> {
    pub(super) fn of(&self, value: L) -> &H {
        &self.handles[value.position()]
    }
}

/// One gauge for each value of a label: 1 on the current value, 0 on the others. During a change a
/// scrape may see both values at 1.
pub(super) struct Chosen<L> {
    gauges: Each<L, Gauge>,
}

impl<L: Label> Chosen<L> {
    pub(super) fn is(&self, value: L) {
        self.gauges.of(value).set(1);
        let others = L::ALL.iter().filter(|other| other.position() != value.position());
        others.for_each(|other| self.gauges.of(*other).set(0));
    }

    pub(super) fn none(&self) {
        L::ALL.iter().for_each(|value| self.gauges.of(*value).set(0));
    }
}

/// A gauge that is absent from the page until it is first set, because 0 would be a wrong value.
pub(super) struct LateGauge {
    scope: Scope,
    metric: &'static Metric,
    gauge: OnceLock<Gauge>,
}

impl LateGauge {
    pub(super) fn set(&self, value: impl IntoF64) {
        self.gauge.get_or_init(|| self.scope.gauge(self.metric)).set(value);
    }

    /// Sets the gauge to 0, unless it was never set.
    pub(super) fn clear(&self) {
        if let Some(gauge) = self.gauge.get() {
            gauge.set(0);
        }
    }
}

/// A counter of time. Counters of the `metrics` crate are whole numbers, so the page has whole
/// milliseconds and whole seconds; the fraction is kept here until it makes one, so nothing is lost
/// to rounding.
pub(super) struct TimeCounter {
    seconds: Counter,
    milliseconds: Counter,
    /// The sum of all times added; overflows after 584 years.
    nanoseconds: AtomicU64,
}

impl TimeCounter {
    pub(super) fn add(&self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let before = self.nanoseconds.fetch_add(time, Relaxed);
        let after = before.wrapping_add(time);
        let milliseconds = (after / NANOSECONDS_A_MILLISECOND).saturating_sub(before / NANOSECONDS_A_MILLISECOND);
        // Most times are shorter, so that most calls end here.
        if milliseconds > 0 {
            self.milliseconds.increment(milliseconds);
            self.seconds.increment((after / NANOSECONDS_A_SECOND).saturating_sub(before / NANOSECONDS_A_SECOND));
        }
    }
}

const NANOSECONDS_A_MILLISECOND: u64 = 1_000_000;
const NANOSECONDS_A_SECOND: u64 = 1_000_000_000;

/// Exact below 2^53, which counts, indexes and terms do not reach.
#[expect(clippy::cast_precision_loss, reason = "Prometheus' values are floats")]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}
