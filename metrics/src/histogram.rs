//! Histograms of fixed buckets: an observation takes no memory, no lock and no clock.

use metrics::{GaugeFn as _, HistogramFn};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The observations by bucket, and their sum.
pub(crate) struct Buckets {
    /// The inclusive upper ends, ascending.
    bounds: &'static [f64],
    /// Observations in each bucket alone; the last is of those above all bounds.
    counts: Box<[AtomicU64]>,
    /// The bits of a float.
    sum: AtomicU64,
}

impl Buckets {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().map(|count| count.load(Relaxed))
    }

    pub(crate) fn sum(&self) -> f64 {
        f64::from_bits(self.sum.load(Relaxed))
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.increment(value);
    }
}
