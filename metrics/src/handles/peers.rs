//! Peers of a node: replication to them and connections with them.

use super::{Chosen, Each, LateGauge, NodeMetrics, Scope, float};
use crate::{
    catalogue::{self, UNKNOWN_PEER},
    labels::{ConnectionResult, Direction, DropReason, Lane, PeerState},
};
use metrics::{Counter, Gauge, Histogram};
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
}

impl Peers {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            scope: scope.clone(),
            known: Mutex::default(),
            unknown: Contacts::register(&scope.with("peer", UNKNOWN_PEER)),
        }
    }
}

impl NodeMetrics {
    /// The handles of peer `id`; repeated calls return the same handles, and frequent callers
    /// keep them. Only for members and for nodes that proved their id: an unproved id must not
    /// become a series. To record for a peer that was forgotten shows no series.
    #[must_use]
    pub fn peer(&self, id: u64) -> PeerMetrics {
        let peers = &self.inner.peers;
        let mut known = peers.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(id).or_insert_with(|| PeerMetrics::register(&peers.scope, id)).clone()
    }

    /// The handles of a peer that is a member, new or again: its series are on the page. One that
    /// returns continues its counters.
    #[must_use]
    pub fn add_peer(&self, id: u64) -> PeerMetrics {
        self.inner.exporter.shows_peer((self.inner.id, id), true);
        self.peer(id)
    }

    /// The peer left the cluster: its series end, until [`NodeMetrics::add_peer`].
    pub fn forget_peer(&self, id: u64) {
        let known = self.inner.peers.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.exporter.shows_peer((self.inner.id, id), false);
        if let Some(peer) = known.get(&id) {
            peer.replication_ended();
            peer.inner.rtt.clear();
            peer.settings_differ(0);
        }
    }

    /// Counts a connection attempt by its result: a [`ConnectionResult`] or its text; other texts
    /// count as `other`. `peer` is `None` if no id was proved.
    pub fn connection(&self, peer: Option<u64>, result: impl Into<ConnectionResult>) {
        match peer {
            Some(id) => self.peer(id).connection(result),
            None => self.inner.peers.unknown.connections.of(result.into()).increment(1),
        }
    }

    /// Counts a dropped message to or from a peer by its reason: a [`DropReason`] or its text;
    /// other texts count as `other`. `peer` is `None` if no id was proved.
    pub fn dropped(&self, peer: Option<u64>, reason: impl Into<DropReason>) {
        match peer {
            Some(id) => self.peer(id).dropped(reason),
            None => self.inner.peers.unknown.dropped.of(reason.into()).increment(1),
        }
    }
}

/// The recording handle for one peer of a node. Cheap to clone; clones record to the same series.
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
    send: Histogram,
    acknowledge: Histogram,
    rejections: Counter,
    divergences: Counter,
    settings: Gauge,
    data_losses: Counter,
    bytes: Each<Direction, Each<Lane, Counter>>,
    contacts: Contacts,
}

/// The counters that also exist for connections without a proved id.
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
            send: scope.histogram(&catalogue::PEER_SEND),
            acknowledge: scope.histogram(&catalogue::PEER_ACKNOWLEDGE),
            rejections: scope.counter(&catalogue::APPEND_REJECTIONS),
            divergences: scope.counter(&catalogue::DIVERGENCES),
            settings: scope.gauge(&catalogue::PEER_SETTINGS),
            data_losses: scope.counter(&catalogue::DATA_LOSSES),
            bytes: scope.each("direction", |scope| scope.each("lane", |scope| scope.counter(&catalogue::NET_BYTES))),
            contacts: Contacts::register(&scope),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Sets, while this node leads, the last index known to be durable on the peer, and the number
    /// of entries after it in the leader's log.
    pub fn matched(&self, match_index: u64, lag_entries: u64) {
        self.inner.match_index.set(float(match_index));
        self.inner.lag.set(float(lag_entries));
    }

    /// Sets, while this node leads, the state of replication to the peer.
    pub fn set_state(&self, state: PeerState) {
        self.inner.state.is(state);
    }

    /// Sets match index, lag and all states to 0 when this node stops leading: the last values of a
    /// former leader would look like a lagging follower.
    pub fn replication_ended(&self) {
        self.inner.match_index.set(0);
        self.inner.lag.set(0);
        self.inner.state.none();
    }

    /// Counts an entry at which the peer's log and this node's differ.
    pub fn diverged(&self) {
        self.inner.divergences.increment(1);
    }

    /// Counts a return of the peer without entries it had acknowledged.
    pub fn data_lost(&self) {
        self.inner.data_losses.increment(1);
    }

    /// Sets the number of settings that differ between the peer and this node.
    pub fn settings_differ(&self, count: u64) {
        self.inner.settings.set(float(count));
    }

    /// Records the time from queueing entries until the connection took them over.
    pub fn sent(&self, took: Duration) {
        self.inner.send.record(took);
    }

    /// Records the time from sending entries until the peer acknowledged them.
    pub fn acknowledged(&self, took: Duration) {
        self.inner.acknowledge.record(took);
    }

    /// Counts an append that the peer rejected.
    pub fn append_rejected(&self) {
        self.inner.rejections.increment(1);
    }

    /// Sets the round-trip time that the network measured.
    pub fn round_trip(&self, took: Duration) {
        self.inner.rtt.set(took);
    }

    /// Adds bytes of frames that were transferred on a lane.
    pub fn net_bytes(&self, direction: Direction, lane: Lane, bytes: u64) {
        self.inner.bytes.of(direction).of(lane).increment(bytes);
    }

    /// See [`NodeMetrics::connection`].
    pub fn connection(&self, result: impl Into<ConnectionResult>) {
        self.inner.contacts.connections.of(result.into()).increment(1);
    }

    /// See [`NodeMetrics::dropped`].
    pub fn dropped(&self, reason: impl Into<DropReason>) {
        self.inner.contacts.dropped.of(reason.into()).increment(1);
    }
}

impl fmt::Debug for PeerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerMetrics").field("peer", &self.inner.id).finish_non_exhaustive()
    }
}
