//! The observers of the storage and the network, which record their reports in the metrics
//! of the node.

use crate::{
    actors::load::Load,
    events::{Events, What, millis},
    reports::sync_times::{DiskChange, SyncRecord},
};
use quorate_metrics::{self as metrics, NodeMetrics, PeerMetrics};
use quorate_raft::NodeId;
use quorate_storage::contract::{StorageObserver, StorageOp};
use quorate_transport::network::{ConnectionResult, Direction, DropReason, Lane, NetworkObserver, ReloadResult};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Records the reports of the storage.
pub(crate) struct ObservedStorage {
    metrics: NodeMetrics,
    load: Load,
    events: Option<Events>,
    /// The time of syncs, for events and reports.
    syncs: Arc<SyncRecord>,
}

impl ObservedStorage {
    pub(crate) fn new((metrics, load): (NodeMetrics, Load), events: Option<Events>, syncs: Arc<SyncRecord>) -> Self {
        Self { metrics, load, events, syncs }
    }
}

impl StorageObserver for ObservedStorage {
    fn synced(&self, took: Duration) {
        self.metrics.fsync_took(took);
        if let (Some(change), Some(events)) = (self.syncs.synced(took), &self.events) {
            events.tell(match change {
                DiskChange::Slow { recent, usual } => What::DiskSlow {
                    took_ms: millis(recent),
                    usual_us: u64::try_from(usual.as_micros()).unwrap_or(u64::MAX),
                },
                DiskChange::Fast { after } => What::DiskFast { after_ms: millis(after) },
            });
        }
    }

    fn wrote(&self, bytes: u64) {
        self.metrics.written(bytes);
    }

    fn failed(&self, op: StorageOp) {
        self.metrics.storage_error(op.label());
    }

    fn ran_short(&self) {
        self.metrics.ran_short(metrics::Shortage::Storage);
    }

    fn log_bytes(&self, bytes: u64) {
        self.metrics.log_bytes(bytes);
    }

    fn took_message(&self) {
        self.load.took(metrics::ActorName::LogWriter);
    }
}

/// Records the reports of the network.
pub(crate) struct ObservedNetwork {
    node: NodeMetrics,
    load: Load,
    /// The metrics of each member, so that a write needs no lookup by name.
    peers: RwLock<BTreeMap<NodeId, Peer>>,
}

struct Peer {
    metrics: PeerMetrics,
    /// In nanoseconds; 0 before the first measurement.
    round_trip: AtomicU64,
}

impl ObservedNetwork {
    pub(crate) fn new(node: NodeMetrics, load: Load) -> Self {
        Self { node, load, peers: RwLock::default() }
    }

    /// Shows the series of these members, and ends those of others.
    pub(crate) fn peers_are(&self, members: &[NodeId]) {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        for (gone, _) in peers.extract_if(.., |peer, _| !members.contains(peer)) {
            self.node.forget_peer(gone.0);
        }
        for peer in members {
            peers
                .entry(*peer)
                .or_insert_with(|| Peer { metrics: self.node.add_peer(peer.0), round_trip: AtomicU64::new(0) });
        }
    }

    /// The latest round trip to each member that has one.
    pub(crate) fn round_trips(&self) -> BTreeMap<NodeId, Duration> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        let measured = peers.iter().map(|(peer, of)| (*peer, of.round_trip.load(Ordering::Relaxed)));
        measured.filter(|(_, nanos)| *nanos > 0).map(|(peer, nanos)| (peer, Duration::from_nanos(nanos))).collect()
    }

    fn with(&self, peer: NodeId, record: impl FnOnce(&Peer)) {
        if let Some(peer) = self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&peer) {
            record(peer);
        }
    }
}

impl NetworkObserver for ObservedNetwork {
    fn bytes(&self, peer: NodeId, direction: Direction, lane: Lane, bytes: u64) {
        let direction = match direction {
            Direction::Received => metrics::Direction::Received,
            Direction::Sent => metrics::Direction::Sent,
        };
        let lane = match lane {
            Lane::Control => metrics::Lane::Control,
            Lane::Append => metrics::Lane::Append,
            Lane::Snapshot => metrics::Lane::Snapshot,
        };
        self.with(peer, |peer| peer.metrics.net_bytes(direction, lane, bytes));
    }

    fn connection(&self, peer: Option<NodeId>, result: ConnectionResult) {
        self.node.connection(self.member(peer), label_of_result(result));
    }

    fn wrote_entries(&self, peer: NodeId, took: Duration) {
        self.with(peer, |peer| peer.metrics.sent(took));
    }

    fn link_turn(&self, turn: &mut dyn FnMut()) {
        self.load.turn(metrics::ActorName::PeerLink, turn);
    }

    fn dropped(&self, peer: Option<NodeId>, reason: DropReason) {
        self.node.dropped(self.member(peer), label_of_reason(reason));
    }

    fn round_trip(&self, peer: NodeId, took: Duration) {
        self.with(peer, |peer| {
            peer.round_trip.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            peer.metrics.round_trip(took);
        });
    }

    fn certificate_expires(&self, at_unix_seconds: u64) {
        self.node.certificate_expires(metrics::CredentialsOf::Nodes, at_unix_seconds);
    }

    fn crl_expires(&self, at_unix_seconds: u64) {
        self.node.crl_expires(metrics::CredentialsOf::Nodes, at_unix_seconds);
    }

    fn credentials_reloaded(&self, result: ReloadResult) {
        let result = match result {
            ReloadResult::Loaded => metrics::ReloadResult::Loaded,
            ReloadResult::Failed => metrics::ReloadResult::Failed,
        };
        self.node.credentials_reloaded(metrics::CredentialsOf::Nodes, result);
    }
}

impl ObservedNetwork {
    /// The peer, if it is a member. Other peers, even authenticated ones, must not become a series.
    fn member(&self, peer: Option<NodeId>) -> Option<u64> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peer.filter(|peer| peers.contains_key(peer)).map(|peer| peer.0)
    }
}

fn label_of_result(result: ConnectionResult) -> metrics::ConnectionResult {
    match result {
        ConnectionResult::Connected => metrics::ConnectionResult::Connected,
        ConnectionResult::Accepted => metrics::ConnectionResult::Accepted,
        ConnectionResult::RefusedCertificate => metrics::ConnectionResult::RefusedCertificate,
        ConnectionResult::RefusedIdentity => metrics::ConnectionResult::RefusedIdentity,
        ConnectionResult::RefusedTwin => metrics::ConnectionResult::RefusedTwin,
        ConnectionResult::RefusedProtocol => metrics::ConnectionResult::RefusedProtocol,
        ConnectionResult::RefusedBackOff => metrics::ConnectionResult::RefusedBackOff,
        ConnectionResult::RefusedBusy => metrics::ConnectionResult::RefusedBusy,
        ConnectionResult::RefusedAddress => metrics::ConnectionResult::RefusedAddress,
        ConnectionResult::RefusedBurst => metrics::ConnectionResult::RefusedBurst,
        ConnectionResult::Rejected => metrics::ConnectionResult::Rejected,
        ConnectionResult::Unreachable => metrics::ConnectionResult::Unreachable,
        ConnectionResult::HandshakeFailed => metrics::ConnectionResult::HandshakeFailed,
        _ => metrics::ConnectionResult::Other,
    }
}

fn label_of_reason(reason: DropReason) -> metrics::DropReason {
    match reason {
        DropReason::Unconnected => metrics::DropReason::Unconnected,
        DropReason::QueueFull => metrics::DropReason::QueueFull,
        DropReason::Malformed => metrics::DropReason::Malformed,
        DropReason::TooLong => metrics::DropReason::TooLong,
        DropReason::ConnectionLost => metrics::DropReason::ConnectionLost,
        DropReason::FaultCut => metrics::DropReason::FaultCut,
        DropReason::FaultDrop => metrics::DropReason::FaultDrop,
        _ => metrics::DropReason::Other,
    }
}
