//! The series of a process and their page. Handles of the `metrics` crate hold the values; the texts
//! of a series are made when it is registered, with `metrics-exporter-prometheus`.
//!
//! A page is made of the values as they are, in one pass. Its lock is held only while the list of
//! families is copied, and recording takes none.

use crate::{
    catalogue::{Kind, Metric},
    histogram::Buckets,
};
use metrics::{Counter, Gauge, Histogram, Label};
use metrics_exporter_prometheus::formatting::{sanitize_label_value, write_help_line, write_type_line};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed},
        },
    },
};

/// All series that are recorded through one [`Metrics`](crate::Metrics).
#[derive(Default)]
pub(crate) struct Exporter {
    page: Mutex<Page>,
    /// The length of the last page in bytes.
    length: AtomicUsize,
}

#[derive(Clone, Default)]
struct Page {
    /// By name.
    families: BTreeMap<&'static str, Arc<Family>>,
    /// Pairs of a node and a peer of it that left. Their handles may still record, so the series stay,
    /// and the page leaves them out.
    departed: BTreeSet<(u64, u64)>,
}

#[derive(Clone)]
struct Family {
    /// The lines before the samples.
    head: String,
    /// By labels.
    series: BTreeMap<String, Arc<Series>>,
}

struct Series {
    /// The node and the peer; `None` if it has no peer with an id.
    peer: Option<(u64, u64)>,
    value: Value,
}

/// A value, and the lines that show it up to their numbers.
enum Value {
    Counter(String, Arc<AtomicU64>),
    /// The bits of a float.
    Gauge(String, Arc<AtomicU64>),
    /// A line for each bucket, for the sum, and for the count.
    Histogram(Vec<String>, Arc<Buckets>),
}

impl Exporter {
    pub(crate) fn counter(&self, metric: &'static Metric, labels: &[Label]) -> Counter {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        let made = |labels: &str| Value::Counter(line(metric.name, labels), Arc::default());
        match &self.series(metric, labels, made).value {
            Value::Counter(_, value) => Counter::from_arc(Arc::clone(value)),
            Value::Gauge(..) | Value::Histogram(..) => Counter::noop(),
        }
    }

    pub(crate) fn gauge(&self, metric: &'static Metric, labels: &[Label]) -> Gauge {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        let made = |labels: &str| Value::Gauge(line(metric.name, labels), Arc::default());
        match &self.series(metric, labels, made).value {
            Value::Gauge(_, value) => Gauge::from_arc(Arc::clone(value)),
            Value::Counter(..) | Value::Histogram(..) => Gauge::noop(),
        }
    }

    pub(crate) fn histogram(&self, metric: &'static Metric, labels: &[Label]) -> Histogram {
        debug_assert!(matches!(metric.kind, Kind::Histogram(_)), "{}", metric.name);
        let bounds = if let Kind::Histogram(bounds) = metric.kind { bounds } else { &[] };
        let made = |labels: &str| {
            let of = |suffix: &str, labels: &str| line(&format!("{}_{suffix}", metric.name), labels);
            let ends = bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            let lines = ends.map(|end| of("bucket", &format!("{labels},le=\"{end}\"")));
            Value::Histogram(
                lines.chain([of("sum", labels), of("count", labels)]).collect(),
                Arc::new(Buckets::new(bounds)),
            )
        };
        match &self.series(metric, labels, made).value {
            Value::Histogram(_, value) => Histogram::from_arc(Arc::clone(value)),
            Value::Counter(..) | Value::Gauge(..) => Histogram::noop(),
        }
    }

    /// The series with these labels: the same one each time.
    fn series(&self, metric: &Metric, labels: &[Label], made: impl FnOnce(&str) -> Value) -> Arc<Series> {
        let id = |name| labels.iter().find(|label| label.key() == name)?.value().parse().ok();
        let peer = id("node").zip(id("peer"));
        let texts: Vec<_> =
            labels.iter().map(|label| format!("{}=\"{}\"", label.key(), sanitize_label_value(label.value()))).collect();
        let labels = texts.join(",");
        let mut page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        let family = page.families.entry(metric.name).or_insert_with(|| Arc::new(Family::of(metric)));
        if let Some(series) = family.series.get(&labels) {
            return Arc::clone(series);
        }
        let series = Arc::new(Series { peer, value: made(&labels) });
        Arc::make_mut(family).series.insert(labels, Arc::clone(&series));
        series
    }

    /// Whether the page has the series of this peer of this node.
    pub(crate) fn shows_peer(&self, (node, peer): (u64, u64), shows: bool) {
        let mut page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        if shows {
            page.departed.remove(&(node, peer));
        } else {
            page.departed.insert((node, peer));
        }
    }

    pub(crate) fn render(&self) -> String {
        let Page { families, departed } = self.page.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_shown = |series: &&Arc<Series>| series.peer.is_none_or(|pair| !departed.contains(&pair));
        let last = self.length.load(Relaxed);
        // Numbers grow.
        let mut page = String::with_capacity(last + last / 16);
        for family in families.values() {
            let mut series = family.series.values().filter(is_shown).peekable();
            if series.peek().is_some() {
                page.push_str(&family.head);
                series.for_each(|series| series.value.write(&mut page));
                page.push('\n');
            }
        }
        self.length.store(page.len(), Relaxed);
        page
    }
}

impl Family {
    fn of(metric: &Metric) -> Self {
        let mut head = String::new();
        write_help_line(&mut head, metric.name, None, None, metric.help);
        write_type_line(&mut head, metric.name, None, None, metric.kind.as_str());
        Self { head, series: BTreeMap::new() }
    }
}

impl Value {
    fn write(&self, page: &mut String) {
        match self {
            Self::Counter(line, value) => write(page, line, value.load(Acquire)),
            Self::Gauge(line, value) => write(page, line, f64::from_bits(value.load(Acquire))),
            Self::Histogram(lines, value) => {
                let mut lines = lines.iter();
                let mut count = 0;
                // Each count is read once, so that the last bucket is the count of all.
                for (inside, line) in value.counts().zip(&mut lines) {
                    count += inside;
                    write(page, line, count);
                }
                lines.next().into_iter().for_each(|line| write(page, line, value.sum()));
                lines.next().into_iter().for_each(|line| write(page, line, count));
            }
        }
    }
}

/// A line up to its number.
fn line(name: &str, labels: &str) -> String {
    format!("{name}{{{labels}}} ")
}

fn write(page: &mut String, line: &str, number: impl std::fmt::Display) {
    page.push_str(line);
    // Writing to a string does not fail.
    let _ = writeln!(page, "{number}");
}
