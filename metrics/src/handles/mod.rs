//! The handles that a node records through, a file a family, each with its typed methods on [`NodeMetrics`].

mod actors;
mod clients;
mod elections;
mod log;
mod peers;
mod snapshots;
mod storage;

pub use peers::PeerMetrics;

use crate::{
    catalogue::{self, Metric},
    labels::Label,
    registry::{Choice, Counter, Gauge, Histogram, Labels, Registry},
};
use std::{fmt, marker::PhantomData, sync::Arc};

/// Where one node records what happens to it. Cheap to clone; clones record to the same series, from any thread.
///
/// Counters of closed label sets and gauges of the node itself are on the page from the start and read 0.
#[derive(Clone)]
pub struct NodeMetrics {
    inner: Arc<Inner>,
}

struct Inner {
    id: u64,
    elections: elections::Elections,
    log: log::Log,
    clients: clients::Clients,
    storage: storage::Storage,
    peers: peers::Peers,
    snapshots: snapshots::Snapshots,
    actors: actors::Actors,
}

impl NodeMetrics {
    /// Registers every series of node `id`.
    pub(crate) fn register(registry: &Arc<Registry>, id: u64) -> Self {
        let scope = Scope { registry: Arc::clone(registry), labels: vec![("node", id.to_string())] };
        scope.with("version", env!("CARGO_PKG_VERSION")).gauge(&catalogue::BUILD_INFO).set(1);
        let inner = Inner {
            id,
            elections: elections::Elections::register(&scope),
            log: log::Log::register(&scope),
            clients: clients::Clients::register(&scope),
            storage: storage::Storage::register(&scope),
            peers: peers::Peers::register(&scope),
            snapshots: snapshots::Snapshots::register(&scope),
            actors: actors::Actors::register(&scope),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeMetrics").field("node", &self.inner.id).finish_non_exhaustive()
    }
}

/// The labels that what is registered next will carry.
#[derive(Clone)]
struct Scope {
    registry: Arc<Registry>,
    labels: Labels,
}

impl Scope {
    fn with(&self, name: &'static str, value: impl Into<String>) -> Self {
        let mut scope = self.clone();
        scope.labels.push((name, value.into()));
        scope
    }

    /// What `register` makes for each value of the label `name`.
    fn each<L: Label, H>(&self, name: &'static str, register: impl Fn(Scope) -> H) -> Each<L, H> {
        let handles = L::ALL.iter().map(|value| register(self.with(name, value.as_str()))).collect();
        Each { handles, label: PhantomData }
    }

    fn counter(&self, metric: &'static Metric) -> Counter {
        self.registry.counter(metric, self.labels.clone())
    }

    /// A gauge that reads 0 from the start.
    fn gauge(&self, metric: &'static Metric) -> Gauge {
        let gauge = self.gauge_unset(metric);
        gauge.set(0);
        gauge
    }

    /// A gauge that is absent until it is set.
    fn gauge_unset(&self, metric: &'static Metric) -> Gauge {
        self.registry.gauge(metric, self.labels.clone())
    }

    /// One of a label's values, absent until it is chosen.
    fn choice<L: Label>(&self, metric: &'static Metric, name: &'static str) -> Chosen<L> {
        Chosen { choice: self.registry.choice(metric, &self.labels, name, L::VALUES), label: PhantomData }
    }

    fn histogram(&self, metric: &'static Metric) -> Histogram {
        self.registry.histogram(metric, self.labels.clone())
    }
}

/// A handle for each value of a label.
struct Each<L, H> {
    handles: Box<[H]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, H> Each<L, H> {
    fn of(&self, value: L) -> &H {
        &self.handles[value.position()]
    }
}

/// Which value of a label is the current one.
struct Chosen<L> {
    choice: Choice,
    label: PhantomData<fn(L)>,
}

impl<L: Label> Chosen<L> {
    fn is(&self, value: L) {
        self.choice.set(value.position());
    }

    fn none(&self) {
        self.choice.unset();
    }
}
