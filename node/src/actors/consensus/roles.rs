//! The other actors of the node that `Consensus` sends to.

use crate::actors::{
    election_timer::ElectionTimer, replicator::Replicator, reporter::Reporter, vote_collector::VoteCollector,
};
use actix::prelude::*;
use quorate_raft::{EntryId, NodeId, Repair, Term};
use quorate_storage::contract::{Probe, Storage};
use std::collections::BTreeMap;

/// Addresses of actors, and the reads of entries that the storage has not answered yet.
pub(crate) struct Roles {
    pub(super) timer: Addr<ElectionTimer>,
    pub(super) reporter: Addr<Reporter>,
    /// While a ballot is open.
    pub(super) collector: Option<Addr<VoteCollector>>,
    /// While this node leads: one for each peer.
    pub(super) replicators: BTreeMap<NodeId, Addr<Replicator>>,
    pub(super) storage: Storage,
    pub(super) applier: Recipient<Probe>,
    /// Reads of entries under way, by request.
    pub(super) loads: BTreeMap<u64, LoadFor>,
    pub(super) last_load: u64,
}

/// The user of entries that are read from the storage.
pub(super) enum LoadFor {
    Applier,
    Peer { peer: NodeId, term: Term, previous: EntryId },
    Repair { to: NodeId, repair: Repair },
}

impl Roles {
    pub(crate) fn new(
        timer: Addr<ElectionTimer>,
        reporter: Addr<Reporter>,
        storage: Storage,
        applier: Recipient<Probe>,
    ) -> Self {
        let (replicators, loads) = (BTreeMap::new(), BTreeMap::new());
        Self { timer, reporter, collector: None, replicators, storage, applier, loads, last_load: 0 }
    }

    pub(super) fn tell_replicator<T>(&self, peer: NodeId, message: T)
    where
        T: actix::Message<Result = ()> + Send + 'static,
        Replicator: Handler<T>,
    {
        if let Some(replicator) = self.replicators.get(&peer) {
            replicator.do_send(message);
        }
    }

    pub(super) fn tell_replicators<T>(&self, message: T)
    where
        T: actix::Message<Result = ()> + Send + Copy + 'static,
        Replicator: Handler<T>,
    {
        for replicator in self.replicators.values() {
            replicator.do_send(message);
        }
    }
}
