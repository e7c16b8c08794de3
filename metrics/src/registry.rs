//! Holds the value behind every series, and writes them all as Prometheus text.
//!
//! A series is registered once, under a lock, and gives a handle; recording through the handle is a few relaxed
//! atomic operations. Histograms are counts a bucket, so that recording a thousand equal observations costs what one
//! does, and nothing piles up between scrapes. The exporters at hand keep every observation until they are next
//! scraped (`metrics-exporter-prometheus`), lock to observe (`prometheus-client`), or take no weight
//! (`prometheus`); and a gauge that speaks only while a node leads, or one of several that is 1, none of them has.
//!
//! **Invariant:** whatever is registered is in the catalogue, with the catalogue's labels and values.

use crate::catalogue::{Kind, Metric, UNKNOWN_PEER, Unit, Values};
use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Every series of a process.
#[derive(Default)]
pub(crate) struct Registry {
    families: Mutex<BTreeMap<&'static str, Family>>,
}

struct Family {
    metric: &'static Metric,
    series: BTreeMap<Labels, Cell>,
}

/// Names and values, in the catalogue's order, `node` first.
pub(crate) type Labels = Vec<(&'static str, String)>;

enum Cell {
    Counter(Counter),
    Gauge(Gauge),
    /// 1 while the choice is this one.
    Chosen(Choice, u64),
    Histogram(Histogram),
}

impl Registry {
    pub(crate) fn counter(&self, metric: &'static Metric, labels: Labels) -> Counter {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        let counter = Counter::default();
        self.add(metric, labels, Cell::Counter(counter.clone()));
        counter
    }

    /// A gauge that is absent from the page until it is first set.
    pub(crate) fn gauge(&self, metric: &'static Metric, labels: Labels) -> Gauge {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        let gauge = Gauge::default();
        self.add(metric, labels, Cell::Gauge(gauge.clone()));
        gauge
    }

    /// A gauge for each of `values` of the label `name`, of which one at a time is 1.
    pub(crate) fn choice(
        &self,
        metric: &'static Metric,
        labels: &Labels,
        name: &'static str,
        values: &[&str],
    ) -> Choice {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        let choice = Choice::default();
        for (value, position) in values.iter().zip(0..) {
            let mut labels = labels.clone();
            labels.push((name, (*value).to_owned()));
            self.add(metric, labels, Cell::Chosen(choice.clone(), position));
        }
        choice
    }

    pub(crate) fn histogram(&self, metric: &'static Metric, labels: Labels) -> Histogram {
        let Kind::Histogram(bounds) = metric.kind else { unreachable!("{} is no histogram", metric.name) };
        let histogram = Histogram::new(bounds, metric.unit);
        self.add(metric, labels, Cell::Histogram(histogram.clone()));
        histogram
    }

    /// Takes away every series that carries all of `labels`.
    pub(crate) fn remove(&self, labels: &[(&'static str, String)]) {
        for family in self.families.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            family.series.retain(|carried, _| !labels.iter().all(|label| carried.contains(label)));
        }
    }

    pub(crate) fn render(&self) -> String {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = String::with_capacity(64 << 10);
        for family in families.values() {
            family.write(&mut page).expect("a String takes every write");
        }
        page
    }

    fn add(&self, metric: &'static Metric, labels: Labels, cell: Cell) {
        debug_assert!(is_in_catalogue(metric, &labels), "{} has no such labels: {labels:?}", metric.name);
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(metric.name).or_insert_with(|| Family { metric, series: BTreeMap::new() });
        let before = family.series.insert(labels, cell);
        debug_assert!(before.is_none(), "{} is registered twice", metric.name);
    }
}

impl Family {
    fn write(&self, page: &mut String) -> fmt::Result {
        let begin = page.len();
        let Metric { name, help, kind, unit, .. } = self.metric;
        writeln!(page, "# HELP {name} {}\n# TYPE {name} {}", escaped(help, false), kind.as_str())?;
        let below_header = page.len();
        for (labels, cell) in &self.series {
            let labels = text_of(labels);
            match cell {
                Cell::Counter(counter) => writeln!(page, "{name}{{{labels}}} {}", scaled(counter.get(), *unit))?,
                Cell::Gauge(gauge) => {
                    if let Some(value) = gauge.get() {
                        writeln!(page, "{name}{{{labels}}} {value}")?;
                    }
                }
                Cell::Chosen(choice, position) => {
                    if let Some(chosen) = choice.get() {
                        writeln!(page, "{name}{{{labels}}} {}", u8::from(chosen == *position))?;
                    }
                }
                Cell::Histogram(histogram) => histogram.write(page, name, &labels, *unit)?,
            }
        }
        if page.len() == below_header {
            page.truncate(begin);
        }
        Ok(())
    }
}

/// Only goes up. Counters of seconds count nanoseconds, so that nothing is lost to rounding.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn add_time(&self, took: Duration) {
        self.add(nanoseconds(took));
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Goes up and down, and says nothing until it was set. The value's bits; [`UNSET`] is a NaN that no value has.
#[derive(Clone)]
pub(crate) struct Gauge(Arc<AtomicU64>);

/// No position of a choice and, read as a float, a NaN that arithmetic never gives.
const UNSET: u64 = u64::MAX;

impl Default for Gauge {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(UNSET)))
    }
}

impl Gauge {
    /// Exact below 2^53: for counts, indexes and terms that are reached one by one.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus' values are floats")]
    pub(crate) fn set(&self, value: u64) {
        self.0.store((value as f64).to_bits(), Relaxed);
    }

    pub(crate) fn set_time(&self, value: Duration) {
        self.0.store(value.as_secs_f64().to_bits(), Relaxed);
    }

    /// Takes it off the page.
    pub(crate) fn unset(&self) {
        self.0.store(UNSET, Relaxed);
    }

    fn get(&self) -> Option<f64> {
        Some(self.0.load(Relaxed)).filter(|bits| *bits != UNSET).map(f64::from_bits)
    }
}

/// Which of several gauges is 1: one value, so that no scrape sees two or none.
#[derive(Clone)]
pub(crate) struct Choice(Arc<AtomicU64>);

impl Default for Choice {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(UNSET)))
    }
}

impl Choice {
    pub(crate) fn set(&self, position: usize) {
        self.0.store(position as u64, Relaxed);
    }

    pub(crate) fn unset(&self) {
        self.0.store(UNSET, Relaxed);
    }

    fn get(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|position| *position != UNSET)
    }
}

/// Counts observations by size.
#[derive(Clone)]
pub(crate) struct Histogram(Arc<Buckets>);

struct Buckets {
    /// As they are written.
    bounds: &'static [f64],
    /// The same in what is recorded: nanoseconds, or pieces.
    limits: Box<[u64]>,
    /// How many observations lie in each bucket alone; the last is beyond every bound.
    counts: Box<[AtomicU64]>,
    /// Wraps after 584 years of accumulated waiting, which Prometheus takes for the restart of a counter.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64], unit: Unit) -> Self {
        let limits = bounds.iter().map(|bound| match unit {
            Unit::Seconds => nanoseconds(Duration::from_secs_f64(*bound)),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the catalogue has whole bounds"
            )]
            _ => *bound as u64,
        });
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Buckets { bounds, limits: limits.collect(), counts, sum: AtomicU64::new(0) }))
    }

    /// Observes `value` as often as `times` says.
    pub(crate) fn record(&self, value: u64, times: u64) {
        let bucket = self.0.limits.partition_point(|limit| *limit < value);
        self.0.counts[bucket].fetch_add(times, Relaxed);
        self.0.sum.fetch_add(value.saturating_mul(times), Relaxed);
    }

    pub(crate) fn record_time(&self, took: Duration, times: u64) {
        self.record(nanoseconds(took), times);
    }

    fn write(&self, page: &mut String, name: &str, labels: &str, unit: Unit) -> fmt::Result {
        let mut below = 0;
        for (bound, count) in self.0.bounds.iter().zip(&self.0.counts) {
            below += count.load(Relaxed);
            writeln!(page, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}")?;
        }
        below += self.0.counts[self.0.bounds.len()].load(Relaxed);
        writeln!(page, "{name}_bucket{{{labels},le=\"+Inf\"}} {below}")?;
        writeln!(page, "{name}_sum{{{labels}}} {}", scaled(self.0.sum.load(Relaxed), unit))?;
        writeln!(page, "{name}_count{{{labels}}} {below}")
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What was recorded, in the metric's unit.
fn scaled(recorded: u64, unit: Unit) -> String {
    match unit {
        Unit::Seconds => Duration::from_nanos(recorded).as_secs_f64().to_string(),
        _ => recorded.to_string(),
    }
}

fn text_of(labels: &Labels) -> String {
    let each = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value, true)));
    each.collect::<Vec<_>>().join(",")
}

/// Escapes as the text format wants it.
fn escaped(text: &str, in_quotes: bool) -> String {
    let text = text.replace('\\', r"\\").replace('\n', r"\n");
    if in_quotes { text.replace('"', "\\\"") } else { text }
}

fn is_in_catalogue(metric: &Metric, labels: &Labels) -> bool {
    let Some((("node", _), rest)) = labels.split_first() else { return false };
    rest.len() == metric.labels.len()
        && rest.iter().zip(metric.labels).all(|((name, value), label)| {
            *name == label.name
                && match label.values {
                    Values::OneOf(values) => values.contains(&value.as_str()),
                    Values::Peer => value.parse::<u64>().is_ok(),
                    Values::PeerOrUnknown => value == UNKNOWN_PEER || value.parse::<u64>().is_ok(),
                    Values::Version => !value.is_empty(),
                }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{BATCH_ENTRIES, FSYNC_DURATION, TERM};

    #[test]
    fn an_observation_on_a_bound_belongs_to_that_bound() {
        let registry = Registry::default();
        let fsync = registry.histogram(&FSYNC_DURATION, of_node_1());
        fsync.record_time(Duration::from_millis(1), 1);
        fsync.record_time(Duration::from_nanos(1_000_001), 1);
        let page = registry.render();
        assert!(page.contains("_bucket{node=\"1\",le=\"0.0008\"} 0\n"), "{page}");
        assert!(page.contains("_bucket{node=\"1\",le=\"0.001\"} 1\n"), "{page}");
        assert!(page.contains("_bucket{node=\"1\",le=\"0.0015\"} 2\n"), "{page}");
        assert!(page.contains("_bucket{node=\"1\",le=\"+Inf\"} 2\n"), "{page}");
        assert!(page.contains("_sum{node=\"1\"} 0.002000001\n"), "{page}");
    }

    #[test]
    fn a_weighted_observation_equals_as_many_single_ones() {
        let [weighted, single] = [(), ()].map(|()| Registry::default());
        let (one, many) =
            (weighted.histogram(&BATCH_ENTRIES, of_node_1()), single.histogram(&BATCH_ENTRIES, of_node_1()));
        for value in [0, 1, 2, 3, 4096, 5000, 1 << 40] {
            one.record(value, 7);
            (0..7).for_each(|_| many.record(value, 1));
        }
        assert_eq!(weighted.render(), single.render());
    }

    #[test]
    fn a_bucket_is_found_as_by_looking_at_every_bound() {
        let Kind::Histogram(bounds) = FSYNC_DURATION.kind else { panic!("a histogram") };
        for nanos in (0..40_000u64).map(|i| i * i) {
            let took = Duration::from_nanos(nanos);
            let histogram = Histogram::new(bounds, Unit::Seconds);
            histogram.record_time(took, 1);
            let expected = bounds.iter().position(|bound| took <= Duration::from_secs_f64(*bound));
            let found = histogram.0.counts.iter().position(|count| count.load(Relaxed) == 1);
            assert_eq!(found, Some(expected.unwrap_or(bounds.len())), "{took:?}");
        }
    }

    #[test]
    fn a_gauge_that_was_never_set_is_not_on_the_page_and_neither_is_its_header() {
        let registry = Registry::default();
        let term = registry.gauge(&TERM, of_node_1());
        assert_eq!(registry.render(), "");
        term.set(7);
        assert!(registry.render().ends_with("# TYPE quorate_term gauge\nquorate_term{node=\"1\"} 7\n"));
        term.unset();
        assert_eq!(registry.render(), "");
    }

    #[test]
    fn label_values_are_escaped() {
        let labels = vec![("node", "a\\b\"c\nd".to_owned())];
        assert_eq!(text_of(&labels), r#"node="a\\b\"c\nd""#);
    }

    fn of_node_1() -> Labels {
        vec![("node", "1".to_owned())]
    }
}
