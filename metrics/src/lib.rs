//! What Prometheus sees of a Quorate node.
//!
//! One [`Metrics`] a process holds the series of every node in it; [`Metrics::render`] writes them as Prometheus text.
//! A node records through [`NodeMetrics`], in Raft's own words, and through a [`PeerMetrics`] for each peer:
//!
//! ```
//! use quorate_metrics::{Metrics, Phase, Role};
//!
//! let metrics = Metrics::new();
//! let node = metrics.node(1);
//! node.role_is(Role::PreCandidate);
//! node.election_started(Phase::PreVote);
//!
//! let page = metrics.render();
//! assert!(page.contains(r#"quorate_role{node="1",role="pre_candidate"} 1"#));
//! assert!(page.contains(r#"quorate_elections_started_total{node="1",phase="pre_vote"} 1"#));
//! ```
//!
//! - [`catalogue`] is the single table of every metric; handles, README, dashboard and alerts are checked against it.
//! - [`labels`](self#enums) are closed sets, so that the number of series is bounded: by the number of nodes in the
//!   process times the number of their peers, and by nothing that a client or a stranger sends.
//! - Recording goes through handles of the `metrics` crate that were registered before, into a recorder of
//!   `metrics-exporter-prometheus`, which also renders the page: no lock and no lookup. A counter or a gauge is a few
//!   atomic operations. A histogram keeps each observation until the next upkeep, so hot paths record one a batch.
//! - **[`NodeMetrics::upkeep`] runs every few seconds** in every process that has a node: without it, and without
//!   anybody who scrapes, the observations of histograms pile up.
//!
//! It never serves HTTP (whoever has a server answers with [`Metrics::render`] and [`CONTENT_TYPE`]), never measures
//! durations by itself, starts no thread, and installs no global recorder: two `Metrics` know nothing of each other,
//! nor of what the process records through the macros of `metrics`.

pub mod catalogue;
mod exporter;
#[cfg(feature = "expressions")]
pub mod expressions;
mod handles;
mod labels;

pub use handles::{NodeMetrics, PeerMetrics};
pub use labels::{
    ActorName, ConnectionResult, Direction, DropReason, ElectionResult, Label, Lane, NodeThread, PeerState, Phase,
    ProposalResult, ProposalStage, ReadMode, ReadResult, Repair, Role, Shortage, SnapshotPhase, StorageOp, TermChange,
    VoteDirection,
};

use exporter::Exporter;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// The `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every series of every node in this process. Cheap to clone; clones share the series.
#[derive(Clone)]
pub struct Metrics {
    exporter: Arc<Exporter>,
    nodes: Arc<Mutex<BTreeMap<u64, NodeMetrics>>>,
}

impl Metrics {
    /// No series yet. The first call in a process may take up to 200 ms: the clock that the exporter reads calibrates
    /// itself.
    #[must_use]
    pub fn new() -> Self {
        Self { exporter: Arc::new(Exporter::new()), nodes: Arc::default() }
    }

    /// The handles of node `id`, labelled `node="id"` on every series. The same handles each time: a node that is
    /// started again in this process goes on counting.
    #[must_use]
    pub fn node(&self, id: u64) -> NodeMetrics {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.entry(id).or_insert_with(|| NodeMetrics::register(&self.exporter, id)).clone()
    }

    /// All series as Prometheus text (format 0.0.4), in no particular order; it does the upkeep as well. It may be
    /// called from any thread at any time, and stops nobody from recording.
    #[must_use]
    pub fn render(&self) -> String {
        self.exporter.render()
    }

    /// Counts what histograms observed since the last upkeep into their buckets, and frees it. An observation takes
    /// about 16 bytes until then, so **a node calls this every few seconds** ([`NodeMetrics::upkeep`]): memory stays
    /// bounded by what is recorded in between, whether or not anybody scrapes. It may be called from any thread at any
    /// time; an observation that another thread makes at that very moment may be lost, counters and gauges never are.
    pub fn upkeep(&self) {
        self.exporter.upkeep();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Metrics").field("nodes", &nodes.keys()).finish_non_exhaustive()
    }
}
