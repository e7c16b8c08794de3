//! The part of `Consensus` in events: it makes them of the rules' observations and of changes that
//! it sees, and looks, once a heartbeat interval, at lag, refusals and leases.

use super::Consensus;
use crate::events::{
    TransferFailure, What, millis,
    trackers::{Denials, Lags, LeaseView, Leases, Overload},
};
use quorate_raft::{Index, Membership, Moment, NodeId, Observation, Replica, Role};

/// The facts that were told, so that only changes are.
#[derive(Default)]
pub(super) struct Told {
    /// The first entry of this leadership, until it is committed, and the time of the election.
    first_commit: Option<(Index, Moment)>,
    /// The target of the transfer under way.
    transfer: Option<NodeId>,
    /// The reason of the transfer that is about to begin, if no operator asks for it.
    pub(super) transfer_why: Option<&'static str>,
    /// The entry with the configuration, and whether it is committed.
    members: Option<(Index, bool)>,
    /// That configuration, and whether it only describes the members of the one before.
    configuration: (Membership, bool),
    lags: Lags,
    denials: Denials,
    overload: Overload,
    leases: Leases,
}

impl Consensus {
    pub(super) fn tell(&self, what: What) {
        self.node.events.tell(what);
    }

    /// A rule explains a decision.
    pub(super) fn observed(&mut self, observation: Observation) {
        self.node.events.term_is(self.replica.term());
        match observation {
            Observation::VoteAnswered { candidate, phase, term: for_term, last, denial } => {
                let now_ms = self.node.events.now_ms();
                let what = What::VoteCast { phase, candidate, for_term, last, denial, more: 0 };
                if let Some(what) = self.told.denials.answered(what, now_ms) {
                    self.tell(what);
                }
            }
            Observation::TermAdopted { from, before, shown } => self.tell(What::TermChanged { before, from, shown }),
            Observation::SteppedDown { led: false, cause, .. } => self.status.ballot_ends_by(cause),
            Observation::SteppedDown { led: true, term, cause } => {
                self.told.first_commit = None;
                self.told.lags.reset();
                self.tell(What::SteppedDown { led: term, cause });
            }
            Observation::TransferBegan { to } => {
                self.told.transfer = Some(to);
                let why = self.told.transfer_why.take().map(str::to_owned);
                self.tell(What::TransferBegan { to, why });
            }
        }
    }

    /// This node was elected.
    pub(super) fn tell_elected(&mut self) {
        let Role::Leader(leadership) = self.replica.role() else { return };
        self.told.first_commit = Some((leadership.first, self.node.clock.now()));
        self.told.lags.reset();
        let votes = self.status.take_electors();
        self.tell(What::LeaderElected { votes });
    }

    /// The leader committed entries up to this one.
    pub(super) fn tell_first_commit(&mut self, commit: Index) {
        if let Some((index, elected)) = self.told.first_commit.take_if(|(first, _)| *first <= commit) {
            let after_ms = millis(self.node.clock.now().since(elected));
            self.tell(What::FirstCommit { index, after_ms });
        }
    }

    /// The leader is known that a transfer led to.
    pub(super) fn tell_transferred(&mut self) {
        let Some(leader) = self.replica.leader() else { return };
        match self.told.transfer.take() {
            None => {}
            Some(to) if to == leader => self.tell(What::TransferDone { to }),
            Some(to) => {
                self.tell(What::TransferFailed { to: Some(to), cause: TransferFailure::AnotherLeads(leader) });
            }
        }
    }

    /// The transfer ended, and this node still leads.
    pub(super) fn tell_transfer_failed(&mut self, to: NodeId) {
        self.told.transfer = None;
        self.tell(What::TransferFailed { to: Some(to), cause: TransferFailure::TimedOut });
    }

    /// Another configuration is in force, or it is committed.
    pub(super) fn tell_members(&mut self) {
        let (replica, membership) = (&self.replica, self.replica.membership());
        let at = replica.membership_index();
        let committed = at <= replica.commit();
        if self.told.members.replace((at, committed)) == Some((at, committed)) {
            return;
        }
        let (before, only_described) = &mut self.told.configuration;
        if before != membership {
            *only_described = has_same_members(before, membership);
            before.clone_from(membership);
        }
        let what = What::MembersChanged {
            at,
            only_described: *only_described,
            voters: membership.incoming().to_vec(),
            outgoing: membership.outgoing().to_vec(),
            learners: membership.learners().to_vec(),
            witness: membership.witness(),
            committed,
        };
        self.tell(what);
    }

    /// The log's end is removed from this entry on, for the leader's entries if there is a conflict.
    pub(super) fn tell_removed_entries(&self, from: Index, conflict: bool) {
        let to = self.status.last_log();
        if from <= to {
            self.tell(What::EntriesRemoved { from, to, conflict });
        }
    }

    /// About once a heartbeat interval: tells what has changed since the last look.
    pub(super) fn look_for_events(&mut self) {
        let (now, now_ms) = (self.node.clock.now(), self.node.events.now_ms());
        let mut found = self.told.denials.look(now_ms);
        if self.replica.is_leader() {
            let patience_ms = millis(self.node.timing.election_timeout.1);
            let peers = self.replica.peers();
            self.told.lags.members_are(&peers);
            for peer in peers {
                found.extend(self.told.lags.look(peer, self.replica.lag_of(now, peer), patience_ms, now_ms));
            }
        }
        let (own, others) = (&self.clients.admission, &self.clients.admission_for_others);
        let has_refused = own.take_refused() | others.take_refused();
        let inside = (own.inside() + others.inside()) as u64;
        found.extend(self.told.overload.look(has_refused, inside, now_ms));
        let lease = lease_view(&self.replica, now);
        self.node.metrics.lease_held(lease.is_held);
        found.extend(self.told.leases.look(lease, now_ms));
        found.into_iter().for_each(|what| self.tell(what));
        self.node.events.time_passed();
    }
}

/// Whether addresses and metadata alone differ.
fn has_same_members(one: &Membership, other: &Membership) -> bool {
    let kinds =
        |of: &Membership| (of.incoming().to_vec(), of.outgoing().to_vec(), of.learners().to_vec(), of.witness());
    kinds(one) == kinds(other)
}

fn lease_view(replica: &Replica, now: Moment) -> LeaseView {
    LeaseView {
        leads: replica.is_leader(),
        transfers: replica.transfer_target().is_some(),
        is_held: replica.lease_left(now).is_some(),
    }
}
