//! The handles through which a node records: the series of each family in [`series`], and one file
//! per family with its methods on [`NodeMetrics`].

mod actors;
mod clients;
mod credentials;
mod effects;
mod elections;
mod host;
mod log;
mod peers;
mod scope;
mod series;
mod service;
mod snapshots;
mod storage;

pub use peers::PeerMetrics;

use crate::{catalogue, exporter::Exporter};
use scope::{Chosen, Each, LateGauge, Scope, float};
use std::{fmt, sync::Arc};

/// The recording handle of one node. Cheap to clone; clones record to the same series,
/// from any thread.
///
/// All series with closed label sets are on the page from the start and read 0. Absent at first are
/// gauges without a known value (a round-trip time, a certificate's expiry) and series of peers
/// that the node has not met.
#[derive(Clone)]
pub struct NodeMetrics {
    inner: Arc<Inner>,
}

struct Inner {
    id: u64,
    exporter: Arc<Exporter>,
    elections: series::Elections,
    log: series::Log,
    clients: series::Clients,
    credentials: series::Credentials,
    effects: series::Effects,
    host: host::Host,
    service: series::Service,
    storage: series::Storage,
    peers: peers::Peers,
    snapshots: series::Snapshots,
    actors: series::Actors,
}

impl NodeMetrics {
    /// Registers every series of node `id`.
    pub(crate) fn register(exporter: &Arc<Exporter>, id: u64) -> Self {
        let scope = Scope::of_node(exporter, id);
        scope.with("version", env!("CARGO_PKG_VERSION")).gauge(&catalogue::BUILD_INFO).set(1);
        let inner = Inner {
            id,
            exporter: Arc::clone(exporter),
            elections: series::Elections::register(&scope),
            log: series::Log::register(&scope),
            clients: series::Clients::register(&scope),
            credentials: series::Credentials::register(&scope),
            effects: series::Effects::register(&scope),
            host: host::Host::register(&scope),
            service: series::Service::register(&scope),
            storage: series::Storage::register(&scope),
            peers: peers::Peers::register(&scope),
            snapshots: series::Snapshots::register(&scope),
            actors: series::Actors::register(&scope),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeMetrics").field("node", &self.inner.id).finish_non_exhaustive()
    }
}
