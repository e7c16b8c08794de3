//! A node's peers: replication to them and connections with them.

use super::{Chosen, Each, LateGauge, NodeMetrics, Scope, float};
use crate::{
    catalogue::{self, UNKNOWN_PEER},
    labels::{ConnectionResult, Direction, DropReason, Lane, PeerState},
};
use metrics::{Counter, Gauge};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub(super) struct Peers {
    scope: Scope,
    known: Mutex<BTreeMap<u64, PeerMetrics>>,
    unknown: Contacts,
    certificate_expiry: LateGauge,
}

impl Peers {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            scope: scope.clone(),
            known: Mutex::default(),
            unknown: Contacts::register(&scope.with("peer", UNKNOWN_PEER)),
            certificate_expiry: scope.late_gauge(&catalogue::CERTIFICATE_EXPIRY),
        }
    }
}

impl NodeMetrics {
    /// The handles of peer `id`, the same each time; who records often keeps them. Only for members and for nodes that
    /// proved their id: what a stranger claims must not become a series.
    #[must_use]
    pub fn peer(&self, id: u64) -> PeerMetrics {
        let peers = &self.inner.peers;
        let mut known = peers.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(id).or_insert_with(|| PeerMetrics::register(&peers.scope, id)).clone()
    }

    /// A peer left the cluster: its gauges read 0 from now on, its counters stay as they are. Series stay on the page
    /// until the process ends; there are as many as peers that the node ever had. One that comes back goes on counting.
    pub fn forget_peer(&self, id: u64) {
        let known = self.inner.peers.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = known.get(&id) {
            peer.replication_ended();
            peer.inner.rtt.clear();
            peer.settings_differ(0);
        }
    }

    /// An attempt at a connection with a peer, `None` where no id was proved, ended like this: a
    /// [`ConnectionResult`], or its text; any other text counts as `other`.
    pub fn connection(&self, peer: Option<u64>, result: impl Into<ConnectionResult>) {
        match peer {
            Some(id) => self.peer(id).connection(result),
            None => self.inner.peers.unknown.connections.of(result.into()).increment(1),
        }
    }

    /// A message to or from a peer, `None` where no id was proved, was dropped: for a [`DropReason`], or its text; any
    /// other text counts as `other`.
    pub fn dropped(&self, peer: Option<u64>, reason: impl Into<DropReason>) {
        match peer {
            Some(id) => self.peer(id).dropped(reason),
            None => self.inner.peers.unknown.dropped.of(reason.into()).increment(1),
        }
    }

    /// The node's own certificate ends then, in seconds since 1970.
    pub fn certificate_expires(&self, at_unix_seconds: u64) {
        self.inner.peers.certificate_expiry.set(float(at_unix_seconds));
    }
}

/// Where a node records what happens between it and one peer. Cheap to clone; clones record to the same series.
#[derive(Clone)]
pub struct PeerMetrics {
    inner: Arc<Peer>,
}

struct Peer {
    id: u64,
    match_index: Gauge,
    lag: Gauge,
    state: Chosen<PeerState>,
    rtt: LateGauge,
    rejections: Counter,
    divergences: Counter,
    settings: Gauge,
    data_losses: Counter,
    bytes: Each<Direction, Each<Lane, Counter>>,
    contacts: Contacts,
}

/// What there is to count even of somebody who proved no id.
struct Contacts {
    connections: Each<ConnectionResult, Counter>,
    dropped: Each<DropReason, Counter>,
}

impl Contacts {
    fn register(scope: &Scope) -> Self {
        Self {
            connections: scope.each("result", |scope| scope.counter(&catalogue::NET_CONNECTIONS)),
            dropped: scope.each("reason", |scope| scope.counter(&catalogue::NET_DROPPED)),
        }
    }
}

impl PeerMetrics {
    fn register(scope: &Scope, id: u64) -> Self {
        let scope = scope.with("peer", id.to_string());
        let inner = Peer {
            id,
            match_index: scope.gauge(&catalogue::PEER_MATCH_INDEX),
            lag: scope.gauge(&catalogue::PEER_LAG),
            state: scope.choice(&catalogue::PEER_STATE, "state"),
            rtt: scope.late_gauge(&catalogue::PEER_RTT),
            rejections: scope.counter(&catalogue::APPEND_REJECTIONS),
            divergences: scope.counter(&catalogue::DIVERGENCES),
            settings: scope.gauge(&catalogue::PEER_SETTINGS),
            data_losses: scope.counter(&catalogue::DATA_LOSSES),
            bytes: scope.each("direction", |scope| scope.each("lane", |scope| scope.counter(&catalogue::NET_BYTES))),
            contacts: Contacts::register(&scope),
        };
        Self { inner: Arc::new(inner) }
    }

    /// While this node leads: the peer durably has the log up to `match_index`, and lacks `lag_entries` behind it.
    pub fn matched(&self, match_index: u64, lag_entries: u64) {
        self.inner.match_index.set(float(match_index));
        self.inner.lag.set(float(lag_entries));
    }

    /// While this node leads: how it replicates to the peer.
    pub fn state_is(&self, state: PeerState) {
        self.inner.state.is(state);
    }

    /// This node leads no more: match index, lag and every state read 0, for what an old leader last knew would read
    /// like a follower that lags.
    pub fn replication_ended(&self) {
        self.inner.match_index.set(0);
        self.inner.lag.set(0);
        self.inner.state.none();
    }

    /// The peer's log and this node's were found to differ at an entry.
    pub fn diverged(&self) {
        self.inner.divergences.increment(1);
    }

    /// The peer came with less than it had acknowledged.
    pub fn data_lost(&self) {
        self.inner.data_losses.increment(1);
    }

    /// So many settings differ between the peer and this node.
    pub fn settings_differ(&self, count: u64) {
        self.inner.settings.set(float(count));
    }

    /// The peer rejected an append.
    pub fn append_rejected(&self) {
        self.inner.rejections.increment(1);
    }

    /// The round-trip time as the network measured it.
    pub fn round_trip(&self, took: Duration) {
        self.inner.rtt.set(took);
    }

    /// Bytes of frames went over a lane.
    pub fn net_bytes(&self, direction: Direction, lane: Lane, bytes: u64) {
        self.inner.bytes.of(direction).of(lane).increment(bytes);
    }

    /// As [`NodeMetrics::connection`].
    pub fn connection(&self, result: impl Into<ConnectionResult>) {
        self.inner.contacts.connections.of(result.into()).increment(1);
    }

    /// As [`NodeMetrics::dropped`].
    pub fn dropped(&self, reason: impl Into<DropReason>) {
        self.inner.contacts.dropped.of(reason.into()).increment(1);
    }
}

impl fmt::Debug for PeerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerMetrics").field("peer", &self.inner.id).finish_non_exhaustive()
    }
}
