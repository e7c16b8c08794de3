//! The probes that `Consensus` sends to the other actors, to measure their mailboxes.

use super::Consensus;
use crate::actors::load::Load;
use actix::prelude::*;
use quorate_metrics::ActorName;
use quorate_storage::contract::Probe;

impl Consensus {
    /// Once a heartbeat interval.
    pub(super) fn measure_load(&self) {
        let (load, roles) = (&self.node.load, &self.roles);
        load.look();
        probe(load, ActorName::ElectionTimer, &roles.timer);
        probe(load, ActorName::Reporter, &roles.reporter);
        probe(load, ActorName::SnapshotReceiver, &self.snapshots.receiver);
        roles.collector.iter().for_each(|collector| probe(load, ActorName::VoteCollector, collector));
        roles.replicators.values().for_each(|replicator| probe(load, ActorName::Replicator, replicator));
        let (storage, applier) = (&roles.storage.probe, &roles.applier);
        load.probe(ActorName::LogWriter).into_iter().for_each(|probe| storage.do_send(probe));
        load.probe(ActorName::Applier).into_iter().for_each(|probe| applier.do_send(probe));
        for link in self.connections.peers.links() {
            if let Some(probe) = load.probe(ActorName::PeerLink) {
                link.probe(Box::new(move || probe.arrived()));
            }
        }
    }
}

fn probe<A: Actor<Context = Context<A>> + Handler<Probe>>(load: &Load, name: ActorName, actor: &Addr<A>) {
    if let Some(probe) = load.probe(name) {
        actor.do_send(probe);
    }
}
