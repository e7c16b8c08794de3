//! The part of `Consensus` in reports: their messages pass through to the `Reporter`, and the facts
//! that `Consensus` owns are stated when it asks.
//!
//! Nothing here reaches the rules.

use super::Consensus;
use crate::{
    actors::messages::{Describe, Described, ReportArrived, Transmit},
    reports::{compose::Facts, conflict::last_terms, report::Campaign},
};
use quorate_raft::{Body, NodeId, Phase, SnapshotOutcome, SnapshotReply};
use tokio::sync::OwnedSemaphorePermit;

/// Facts for reports that no other part of `Consensus` keeps.
#[derive(Debug, Default)]
pub(super) struct Noted {
    campaign: Option<(u64, Campaign)>,
    receiving: Option<(u64, u64)>,
}

impl Noted {
    pub(super) fn ballot_opened(&mut self, campaign: u64, phase: Phase) {
        self.campaign = Some((campaign, Campaign::opened(phase)));
    }

    pub(super) fn voted(&mut self, campaign: u64, voter: NodeId, granted: bool) {
        if let Some((_, votes)) = self.campaign.as_mut().filter(|(open, _)| *open == campaign) {
            votes.voted(voter, granted);
        }
    }

    pub(super) fn ballot_closed(&mut self) {
        self.campaign = None;
    }

    /// A chunk of a snapshot of this length arrived.
    pub(super) fn chunk_arrived(&mut self, bytes: u64) {
        self.receiving.get_or_insert((0, bytes)).1 = bytes;
    }

    pub(super) fn chunk_answered(&mut self, reply: &SnapshotReply) {
        match (reply.outcome, &mut self.receiving) {
            (SnapshotOutcome::Received { bytes }, Some(receiving)) => receiving.0 = bytes,
            (SnapshotOutcome::Installed { .. } | SnapshotOutcome::Refused, receiving) => *receiving = None,
            (SnapshotOutcome::Received { .. }, None) => {}
        }
    }

    pub(super) fn snapshot_arrived(&mut self) {
        self.receiving = None;
    }
}

impl Consensus {
    /// A member asks for reports, or reports. Others are not told anything.
    pub(super) fn report_arrived(&self, from: NodeId, body: Body, credit: Option<OwnedSemaphorePermit>) {
        if !self.replica.is_outside(from) {
            self.roles.reporter.do_send(ReportArrived { from, body, credit });
        }
    }

    pub(super) fn transmit(&mut self, Transmit { to, body }: Transmit) {
        if self.replica.peers().contains(&to) {
            self.say(to, body);
        }
    }

    pub(super) fn describe(&mut self, describe: Describe) {
        self.roles.timer.do_send(describe.clone());
        for replicator in self.roles.replicators.values() {
            replicator.do_send(describe.clone());
        }
        let facts = Facts {
            status: self.status.current(),
            terms: last_terms(self.replica.log()),
            campaign: self.noted.campaign.as_ref().map(|(_, votes)| votes.clone()),
            receiving: self.noted.receiving,
            is_restoring: self.snapshots.restoring.is_some(),
            waiting: self.clients.admission.inside() as u64,
            peers: self.replica.peers().into_iter().collect(),
            reachable: self.connections.reachable.clone(),
            round_trips: self.connections.observed.round_trips(),
            replicators: self.roles.replicators.len(),
        };
        describe.to.do_send(Described(Box::new(facts)));
    }
}
