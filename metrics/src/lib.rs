//! Prometheus metrics of Quorate nodes: the catalogue, the recording handles, and
//! the text exporter.
//!
//! One [`Metrics`] per process holds the series of all its nodes; [`Metrics::render`] writes them
//! as Prometheus text. A node records through [`NodeMetrics`], whose methods use Raft's terms, and
//! through one [`PeerMetrics`] per peer:
//!
//! ```
//! use quorate_metrics::{Metrics, NodeRole, Phase};
//!
//! let metrics = Metrics::new();
//! let node = metrics.node(1);
//! node.set_role(NodeRole::PreCandidate);
//! node.election_started(Phase::PreVote);
//!
//! let page = metrics.render();
//! assert!(page.contains(r#"quorate_role{node="1",role="pre_candidate"} 1"#));
//! assert!(page.contains(r#"quorate_elections_started_total{node="1",phase="pre_vote"} 1"#));
//! ```
//!
//! - [`catalogue`] is the single table of all metrics; tests check handles, README, dashboard and
//!   alerts against it.
//! - [`labels`](self#enums) are closed sets, which bounds the number of series by the number of
//!   nodes in the process times the number of their peers. No text from a client or from an
//!   unauthenticated node becomes a series.
//! - Recording uses handles of the `metrics` crate that were registered in advance: no lock, no
//!   lookup, no clock and no memory, one or two atomic operations for each value.
//!
//! The crate serves no HTTP (a server answers with [`Metrics::render`] and [`CONTENT_TYPE`]),
//! measures no durations, starts no thread and installs no global recorder: two `Metrics` are
//! independent of each other and of the macros of the `metrics` crate.

pub mod catalogue;
mod exporter;
mod handles;
mod histogram;
mod labels;

pub use handles::{NodeMetrics, PeerMetrics};
pub use labels::{
    ActorName, ConnectionResult, CountedMailbox, CredentialsOf, Direction, DropReason, ElectionResult, HttpRefusal,
    Label, Lane, NodeRole, NodeThread, PeerState, Phase, ProposalResult, ProposalStage, ReadMode, ReadResult,
    ReloadResult, Repair, Resource, Shortage, SnapshotPhase, StorageOp, TermChange, TransferResult, VoteDirection,
    Waiting,
};

use exporter::Exporter;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// The `Content-Type` header that belongs to the text of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All series of all nodes in this process. Cheap to clone; clones share the series.
#[derive(Clone)]
pub struct Metrics {
    exporter: Arc<Exporter>,
    nodes: Arc<Mutex<BTreeMap<u64, NodeMetrics>>>,
}

impl Metrics {
    /// An empty set of series.
    #[must_use]
    pub fn new() -> Self {
        Self { exporter: Arc::default(), nodes: Arc::default() }
    }

    /// The handles of node `id`; every series has the label `node="id"`. Repeated calls return the
    /// same handles, so a node that restarts within this process continues its counters.
    #[must_use]
    pub fn node(&self, id: u64) -> NodeMetrics {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.entry(id).or_insert_with(|| NodeMetrics::register(&self.exporter, id)).clone()
    }

    /// All series as Prometheus text (format 0.0.4), in order of their names. Callable from any thread
    /// at any time; recording is not blocked meanwhile.
    #[must_use]
    pub fn render(&self) -> String {
        self.exporter.render()
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
