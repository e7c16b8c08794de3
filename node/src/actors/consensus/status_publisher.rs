//! The status publisher: the status that handles watch, and the metrics of elections,
//! terms and indexes.

use crate::{
    comparison::Disagreement,
    decisions::internal_entries::Leading,
    settings::{Compared, Difference, HALTED_AT},
    status::{Halted, Status},
};
use quorate_metrics::{
    self as metrics, ElectionResult, Label as _, NodeMetrics, NodeRole, Repair, TermChange, VoteDirection,
};
use quorate_raft::{self as raft, Body, ClusterId, Index, NodeId, Outgoing, Phase, Replica};
use quorate_transport::Introduction;
use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// The published status, and the state behind its metrics.
pub(super) struct StatusPublisher {
    status: watch::Sender<Status>,
    /// The leadership of this node, while it leads.
    leading: watch::Sender<Option<Leading>>,
    /// The leader that was last known, through times without one.
    last_leader: Option<NodeId>,
    leaderless_since: Option<Instant>,
    /// The facts that peers last stated about themselves: at most one for each certificate.
    introductions: BTreeMap<NodeId, Introduction>,
    compared: Compared,
    ballot: Option<OpenBallot>,
    campaign_began: Instant,
    upkeep_done: Instant,
    metrics: NodeMetrics,
}

/// The interval at which measurements are sorted into histograms, so that they take bounded memory
/// without a scraper.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

struct OpenBallot {
    phase: Phase,
    decided: bool,
}

/// The changes since the status was last published.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Change {
    /// The leader, or the term that it leads.
    pub(super) leader: bool,
}

impl StatusPublisher {
    pub(super) fn new(
        replica: &Replica,
        (status, leading): (watch::Sender<Status>, watch::Sender<Option<Leading>>),
        compared: Compared,
        metrics: NodeMetrics,
    ) -> Self {
        let now = Instant::now();
        let publisher = Self {
            status,
            leading,
            last_leader: None,
            leaderless_since: Some(now),
            introductions: BTreeMap::new(),
            compared,
            ballot: None,
            campaign_began: now,
            upkeep_done: now,
            metrics,
        };
        publisher.show_indexes(&status_of(replica));
        publisher.metrics.set_term(replica.term().0);
        publisher.metrics.set_role(status_of(replica).role);
        publisher.metrics.has_leader(false);
        // An earlier node of this id in this process may have left its numbers.
        publisher.metrics.proposals_in_flight(0);
        publisher.metrics.faulty_entries(replica.faulty_count() as u64);
        publisher.metrics.halted(false);
        publisher.metrics.differing_copies(0);
        publisher
    }

    /// Publishes the status if a rule changed it.
    pub(super) fn publish(&mut self, replica: &Replica) -> Change {
        let mut change = Change::default();
        let (mut old, mut new) = (None, None);
        self.status.send_if_modified(|status| {
            let same = status.commit == replica.commit()
                && status.term == replica.term()
                && status.vote == replica.vote()
                && status.role == role_of(replica)
                && status.leader == replica.leader()
                && status.applied == replica.applied_index()
                && status.last_log == replica.log().last().index
                && status.durable == replica.durable()
                && status.snapshot == replica.snapshot_index()
                && status.first_log == replica.log().first()
                && status.faulty == replica.faulty_count() as u64
                && status.lost_up_to == replica.lost_up_to()
                && status.storage_full == replica.is_storage_full();
            if !same {
                // Role, term and leader change rarely: the rest is only numbers.
                if (status.term, status.role, status.leader) != (replica.term(), role_of(replica), replica.leader()) {
                    old = Some(status.clone());
                }
                self.storage_changed(status, replica);
                refresh(status, replica);
                if old.is_some() {
                    new = Some(status.clone());
                }
            }
            !same
        });
        if let (Some(old), Some(new)) = (old, new) {
            change.leader = (old.leader, old.term) != (new.leader, new.term);
            self.leading.send_if_modified(|leading| {
                let now = leading_of(replica);
                std::mem::replace(leading, now) != now
            });
            self.changed(&old, &new);
        }
        change
    }

    /// Another configuration is in force, or it is committed.
    pub(super) fn members_changed(&self, replica: &Replica) {
        self.status.send_modify(|status| {
            show_members(status, replica);
            status.machine_versions = machine_versions(replica, &self.introductions);
        });
    }

    /// The entry that states the cluster's id is committed.
    pub(super) fn cluster_id_known(&self, id: ClusterId) {
        self.status.send_modify(|status| status.cluster_id = Some(id));
    }

    /// The service has reached this schema version.
    pub(super) fn schema_version_reached(&self, version: u32) {
        self.status.send_modify(|status| status.schema_version = version);
    }

    /// The newest version that every member's state machine applies, if all are known.
    pub(super) fn applied_by_all(&self) -> Option<u32> {
        self.status.borrow().machine_versions.as_ref().map(|versions| *versions.start())
    }

    /// The state machine halted; it is so until the node ends.
    pub(super) fn halted(&self, halted: Arc<Halted>) {
        self.metrics.halted(true);
        self.status.send_modify(|status| status.halted = Some(halted));
    }

    /// The full copies disagree, or do so no more.
    pub(super) fn disagrees(&self, disagreement: Option<Arc<Disagreement>>) {
        self.status.send_if_modified(|status| {
            let is_new = status.disagreement != disagreement;
            if is_new {
                match &disagreement {
                    Some(disagreement) => tracing::error!(node = %status.node, "{disagreement}"),
                    None => tracing::info!(node = %status.node, "the full copies agree again"),
                }
                let copies = disagreement.as_ref().map_or(0, |disagreement| disagreement.differing().count());
                self.metrics.differing_copies(copies as u64);
                status.disagreement = disagreement;
            }
            is_new
        });
    }

    /// Whether a peer stated that its state machine halted, or has stated nothing yet.
    pub(super) fn may_be_halted(&self, peer: NodeId) -> bool {
        self.introductions.get(&peer).is_none_or(|introduction| introduction.settings.contains_key(HALTED_AT))
    }

    /// A peer stated facts about itself.
    pub(super) fn introduced(&mut self, peer: NodeId, introduction: Introduction, replica: &Replica) {
        self.compare(peer, &introduction.settings, replica.id());
        self.introductions.insert(peer, introduction);
        let now = machine_versions(replica, &self.introductions);
        self.status.send_if_modified(|status| std::mem::replace(&mut status.machine_versions, now.clone()) != now);
    }

    /// Logs the settings in which a peer differs: each once for each value.
    fn compare(&mut self, peer: NodeId, stated: &BTreeMap<String, String>, node: NodeId) {
        for Difference { setting, own, other, advice } in self.compared.compare(peer, stated) {
            tracing::warn!(%node, %peer, setting, "{setting} is {own:?} here and {other:?} at node {peer}: {advice}");
        }
        self.metrics.peer(peer.0).settings_differ(self.compared.differing(peer) as u64);
    }

    /// Entries were healed or discarded, or the disk is full, or has room again.
    fn storage_changed(&self, old: &Status, replica: &Replica) {
        let faulty = replica.faulty_count() as u64;
        if faulty != old.faulty {
            let gone = old.faulty.saturating_sub(faulty);
            // Discarded entries are not in the log any more.
            let discarded = gone.min(old.last_log.since(replica.log().last().index));
            self.metrics.repaired(Repair::Discarded, discarded);
            self.metrics.repaired(Repair::Healed, gone - discarded);
            self.metrics.faulty_entries(faulty);
            if faulty == 0 {
                tracing::info!(node = %replica.id(), "the log is whole again");
            }
        }
        if replica.is_storage_full() != old.storage_full {
            self.metrics.storage_full(replica.is_storage_full());
        }
    }

    fn changed(&mut self, old: &Status, new: &Status) {
        if new.term != old.term {
            let campaigning = new.role == NodeRole::Candidate;
            self.metrics.term_changed(if campaigning { TermChange::Campaign } else { TermChange::HigherTerm });
            self.metrics.set_term(new.term.0);
        }
        if new.role != old.role {
            self.metrics.set_role(new.role);
            tracing::info!(node = %new.node, term = %new.term, "{} is {} now", new.node, new.role.as_str());
        }
        if new.leader == old.leader {
            return;
        }
        self.metrics.has_leader(new.leader.is_some());
        match new.leader {
            Some(leader) => {
                if let Some(since) = self.leaderless_since.take() {
                    self.metrics.leaderless_for(since.elapsed());
                }
                if self.last_leader.replace(leader) != Some(leader) {
                    self.metrics.leader_changed();
                }
                tracing::info!(node = %new.node, term = %new.term, "{leader} leads");
            }
            None => self.leaderless_since = Some(Instant::now()),
        }
    }

    /// Publishes the numbers that need not be exact at each message. To be called about once
    /// a heartbeat interval.
    pub(super) fn time_passed(&mut self, replica: &Replica, in_flight: u64) {
        self.metrics.proposals_in_flight(in_flight);
        self.show_indexes(&status_of(replica));
        if let Some(since) = &mut self.leaderless_since {
            self.metrics.leaderless_for(since.elapsed());
            *since = Instant::now();
        }
        if self.upkeep_done.elapsed() >= UPKEEP_INTERVAL {
            self.upkeep_done = Instant::now();
            self.metrics.upkeep();
        }
    }

    pub(super) fn ballot_opened(&mut self, phase: Phase) {
        if phase == Phase::PreVote {
            self.campaign_began = Instant::now();
        }
        self.metrics.election_started(in_metrics(phase));
        self.ballot = Some(OpenBallot { phase, decided: false });
    }

    pub(super) fn ballot_decided(&mut self, won: bool) {
        self.decided(if won { ElectionResult::Won } else { ElectionResult::Lost });
    }

    /// The election timeout has passed: an open ballot has failed.
    pub(super) fn ballot_timed_out(&mut self) {
        self.decided(ElectionResult::TimedOut);
    }

    fn decided(&mut self, result: ElectionResult) {
        if let Some(ballot) = self.ballot.as_mut().filter(|ballot| !ballot.decided) {
            ballot.decided = true;
            let phase = ballot.phase;
            self.finished(phase, result);
        }
    }

    pub(super) fn ballot_closed(&mut self) {
        if let Some(ballot) = self.ballot.take().filter(|ballot| !ballot.decided) {
            self.finished(ballot.phase, ElectionResult::Superseded);
        }
    }

    fn finished(&self, phase: Phase, result: ElectionResult) {
        self.metrics.election_finished(in_metrics(phase), result, self.campaign_began.elapsed());
    }

    /// Counts the votes among messages that leave now, or when a write is durable.
    pub(super) fn votes_cast(&self, messages: &[Outgoing]) {
        for outgoing in messages {
            if let Body::Vote(vote) = &outgoing.message.body {
                self.metrics.vote(in_metrics(vote.phase), VoteDirection::Cast, vote.granted);
            }
        }
    }

    pub(super) fn vote_received(&self, granted: bool) {
        if let Some(ballot) = &self.ballot {
            self.metrics.vote(in_metrics(ballot.phase), VoteDirection::Received, granted);
        }
    }

    fn show_indexes(&self, status: &Status) {
        self.metrics.log_spans(status.first_log.0, status.last_log.0);
        self.metrics.set_durable_index(status.durable.0);
        self.metrics.set_commit_index(status.commit.0);
        self.metrics.set_applied_index(status.applied.0);
        self.metrics.set_snapshot_index(status.snapshot.0);
    }
}

fn leading_of(replica: &Replica) -> Option<Leading> {
    match replica.role() {
        raft::Role::Leader(leadership) => Some(Leading { term: replica.term(), first: leadership.first }),
        _ => None,
    }
}

/// The status of a replica.
pub(crate) fn status_of(replica: &Replica) -> Status {
    let mut status = Status {
        node: replica.id(),
        role: role_of(replica),
        term: replica.term(),
        vote: replica.vote(),
        leader: replica.leader(),
        commit: replica.commit(),
        applied: replica.applied_index(),
        durable: replica.durable(),
        last_log: replica.log().last().index,
        first_log: replica.log().first(),
        snapshot: replica.snapshot_index(),
        faulty: replica.faulty_count() as u64,
        lost_up_to: replica.lost_up_to(),
        storage_full: replica.is_storage_full(),
        halted: None,
        disagreement: None,
        voters: Vec::new(),
        learners: Vec::new(),
        witness: None,
        addresses: BTreeMap::new(),
        membership_index: Index(0),
        is_settled: false,
        cluster_id: replica.cluster_id(),
        schema_version: 0,
        machine_versions: machine_versions(replica, &BTreeMap::new()),
    };
    show_members(&mut status, replica);
    refresh(&mut status, replica);
    status
}

/// The least and the greatest version that the members' state machines apply, if all are known.
fn machine_versions(replica: &Replica, heard: &BTreeMap<NodeId, Introduction>) -> Option<RangeInclusive<u32>> {
    let membership = replica.membership();
    let of = |member: NodeId| {
        if member == replica.id() {
            return Some(replica.machine().newest);
        }
        heard.get(&member).map(|introduction| introduction.machine_version)
    };
    let members = membership.voters().into_iter().chain(membership.learners().iter().copied());
    let versions = members.map(of).collect::<Option<Vec<u32>>>()?;
    Some(*versions.iter().min()?..=*versions.iter().max()?)
}

fn show_members(status: &mut Status, replica: &Replica) {
    let membership = replica.membership();
    status.voters = membership.voters();
    status.learners = membership.learners().to_vec();
    status.witness = membership.witness();
    status.addresses.clone_from(membership.addresses());
    status.membership_index = replica.membership_index();
    status.is_settled = replica.is_settled();
}

/// Updates the fields that change with every message, without allocating.
fn refresh(status: &mut Status, replica: &Replica) {
    status.role = role_of(replica);
    status.term = replica.term();
    status.vote = replica.vote();
    status.leader = replica.leader();
    status.commit = replica.commit();
    status.applied = replica.applied_index();
    status.durable = replica.durable();
    status.last_log = replica.log().last().index;
    status.first_log = replica.log().first();
    status.snapshot = replica.snapshot_index();
    status.faulty = replica.faulty_count() as u64;
    status.lost_up_to = replica.lost_up_to();
    status.storage_full = replica.is_storage_full();
}

fn role_of(replica: &Replica) -> NodeRole {
    match replica.role() {
        raft::Role::Leader(_) => NodeRole::Leader,
        raft::Role::Candidate => NodeRole::Candidate,
        raft::Role::PreCandidate => NodeRole::PreCandidate,
        raft::Role::Follower if replica.membership().is_voter(replica.id()) => NodeRole::Follower,
        raft::Role::Follower => NodeRole::Learner,
    }
}

fn in_metrics(phase: Phase) -> metrics::Phase {
    match phase {
        Phase::PreVote => metrics::Phase::PreVote,
        Phase::Vote => metrics::Phase::Vote,
    }
}
