//! The status publisher: the status that handles watch, and the metrics of elections,
//! terms and indexes.

use crate::{
    comparison::Disagreement,
    decisions::internal_entries::Leading,
    events::{CampaignResult, Events, What, millis},
    settings::{Compared, Difference, HALTED_AT},
    status::{Halted, Status},
};
use quorate_metrics::{self as metrics, ElectionResult, NodeMetrics, NodeRole, Repair, TermChange, VoteDirection};
use quorate_raft::{
    self as raft, Ballot, Body, ClusterId, Denial, EntryId, Index, NodeId, Outgoing, Phase, Replica, StepDown, Term,
};
use quorate_transport::Introduction;
use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};
use tokio::{sync::watch, time::Instant};

/// The published status, and the state behind its metrics.
pub(super) struct StatusPublisher {
    status: watch::Sender<Status>,
    /// The status, sent again only when more than indexes changed: each batch of entries would wake its
    /// watchers in vain.
    outline: watch::Sender<Status>,
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
    /// The time without a leader after which a campaign is about to begin.
    pub(super) silence_ms: Option<u64>,
    /// The voters that elected this node.
    electors: Vec<NodeId>,
    metrics: NodeMetrics,
    events: Events,
}

struct OpenBallot {
    phase: Phase,
    for_term: Term,
    /// The last entry of the log, as the requests name it.
    last: EntryId,
    /// When the requests left.
    asked: Instant,
    granted: Vec<NodeId>,
    denied: Vec<NodeId>,
    decided: bool,
    /// The reason for which the node gave it up.
    ends_by: Option<StepDown>,
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
        (status, outline, leading): (watch::Sender<Status>, watch::Sender<Status>, watch::Sender<Option<Leading>>),
        compared: Compared,
        (metrics, events): (NodeMetrics, Events),
    ) -> Self {
        let now = Instant::now();
        let publisher = Self {
            status,
            outline,
            leading,
            last_leader: None,
            leaderless_since: Some(now),
            introductions: BTreeMap::new(),
            compared,
            ballot: None,
            campaign_began: now,
            silence_ms: None,
            electors: Vec::new(),
            metrics,
            events,
        };
        publisher.show_indexes(&status_of(replica));
        publisher.metrics.set_term(replica.term().0);
        publisher.metrics.set_role(status_of(replica).role);
        publisher.metrics.has_leader(false);
        // An earlier node of this id in this process may have left its numbers.
        publisher.metrics.proposals_in_flight(0);
        publisher.metrics.lease_held(false);
        publisher.metrics.faulty_entries(replica.faulty_count() as u64);
        publisher.metrics.halted(false);
        publisher.metrics.differing_copies(0);
        publisher
    }

    /// Publishes the status if a rule changed it.
    pub(super) fn publish(&mut self, replica: &Replica) -> Change {
        let mut change = Change::default();
        let (mut old, mut new, mut has_lost) = (None, None, false);
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
                has_lost = (status.faulty, status.lost_up_to) != (replica.faulty_count() as u64, replica.lost_up_to());
                self.storage_changed(status, replica);
                refresh(status, replica);
                if old.is_some() {
                    new = Some(status.clone());
                }
            }
            !same
        });
        if old.is_some() || has_lost {
            self.outline.send_replace(self.current());
        }
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

    /// The status as it was last published.
    pub(super) fn current(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Another configuration is in force, or it is committed.
    pub(super) fn members_changed(&self, replica: &Replica) {
        self.status.send_modify(|status| {
            show_members(status, replica);
            status.machine_versions = machine_versions(replica, &self.introductions);
        });
        self.outline.send_replace(self.current());
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
                    Some(disagreement) => {
                        // The gauge may be 0 again before anything reads it: the next 1,024 entries suffice.
                        if status.disagreement.as_ref().is_none_or(|before| before.up_to != disagreement.up_to) {
                            self.metrics.copies_differed();
                        }
                        self.events.tell(What::CopiesDiffer { why: disagreement.to_string() });
                    }
                    None => self.events.tell(What::CopiesAgree),
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
        self.compare(peer, &introduction.settings);
        self.introductions.insert(peer, introduction);
        let now = machine_versions(replica, &self.introductions);
        self.status.send_if_modified(|status| std::mem::replace(&mut status.machine_versions, now.clone()) != now);
    }

    /// Tells the settings in which a peer differs: each once for each value.
    fn compare(&mut self, peer: NodeId, stated: &BTreeMap<String, String>) {
        for Difference { setting, own, other, advice } in self.compared.compare(peer, stated) {
            let (setting, advice) = (setting.to_string(), advice.to_string());
            self.events.tell(What::SettingDiffers { peer, setting, own, other, advice });
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
                self.events.tell(What::EntriesRepaired);
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
        }
        if let Some(leader) = new.leader.filter(|leader| *leader != new.node)
            && (old.leader, old.term) != (new.leader, new.term)
        {
            self.events.tell(What::LeaderFollowed { leader });
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
    }

    /// A round of votes begins, with a log that ends at `last`.
    pub(super) fn ballot_opened(&mut self, ballot: &Ballot, last: EntryId) {
        let phase = ballot.phase;
        if phase == Phase::PreVote {
            self.campaign_began = Instant::now();
        }
        self.metrics.election_started(in_metrics(phase));
        // A pre-vote is about the next term.
        let for_term = if phase == Phase::PreVote { ballot.term.next() } else { ballot.term };
        let silence_ms = self.silence_ms.take().filter(|_| phase == Phase::PreVote);
        self.events.tell(What::CampaignStarted { phase, for_term, last, silence_ms });
        let (granted, denied) = (Vec::new(), Vec::new());
        let asked = Instant::now();
        self.ballot = Some(OpenBallot { phase, for_term, last, asked, granted, denied, decided: false, ends_by: None });
    }

    /// The requests for votes leave, now that this node's own is durable.
    pub(super) fn votes_asked(&mut self) {
        if let Some(ballot) = &mut self.ballot {
            ballot.asked = Instant::now();
        }
    }

    pub(super) fn ballot_decided(&mut self, won: bool) {
        self.decided(if won { CampaignResult::Won } else { CampaignResult::Lost });
    }

    /// The election timeout has passed: an open ballot has failed.
    pub(super) fn ballot_timed_out(&mut self) {
        self.decided(CampaignResult::TimedOut);
    }

    /// The node gives up the open ballot, for this reason.
    pub(super) fn ballot_ends_by(&mut self, cause: StepDown) {
        if let Some(ballot) = &mut self.ballot {
            ballot.ends_by = Some(cause);
        }
    }

    pub(super) fn ballot_closed(&mut self) {
        if let Some(cause) = self.ballot.as_ref().and_then(|ballot| ballot.ends_by) {
            self.decided(CampaignResult::Superseded(cause));
        }
        self.ballot = None;
    }

    fn decided(&mut self, result: CampaignResult) {
        let Some(ballot) = self.ballot.as_mut().filter(|ballot| !ballot.decided) else { return };
        ballot.decided = true;
        let (phase, for_term) = (ballot.phase, ballot.for_term);
        let (granted, denied) = (ballot.granted.clone(), ballot.denied.clone());
        if (phase, result) == (Phase::Vote, CampaignResult::Won) {
            self.electors.clone_from(&granted);
        }
        let in_metrics_as = match result {
            CampaignResult::Won => ElectionResult::Won,
            CampaignResult::Lost => ElectionResult::Lost,
            CampaignResult::TimedOut => ElectionResult::TimedOut,
            CampaignResult::Superseded(_) => ElectionResult::Superseded,
        };
        self.metrics.election_finished(in_metrics(phase), in_metrics_as, self.campaign_began.elapsed());
        self.events.tell(What::CampaignEnded { phase, for_term, result, granted, denied });
    }

    /// The voters that elected this node.
    pub(super) fn take_electors(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.electors)
    }

    /// The last entry of the log, as it was published.
    pub(super) fn last_log(&self) -> Index {
        self.status.borrow().last_log
    }

    /// Counts the votes among messages that leave now, or when a write is durable.
    pub(super) fn votes_cast(&self, messages: &[Outgoing]) {
        for outgoing in messages {
            if let Body::Vote(vote) = &outgoing.message.body {
                self.metrics.vote(in_metrics(vote.phase), VoteDirection::Cast, vote.granted());
            }
        }
    }

    /// A voter answered; the node's own vote is not counted as received.
    pub(super) fn vote_received(&mut self, voter: NodeId, denial: Option<Denial>, is_own: bool) {
        let Some(ballot) = &mut self.ballot else { return };
        let votes = if denial.is_none() { &mut ballot.granted } else { &mut ballot.denied };
        if !votes.contains(&voter) {
            votes.push(voter);
        }
        let OpenBallot { phase, last, asked, .. } = *ballot;
        if !is_own {
            self.metrics.vote(in_metrics(phase), VoteDirection::Received, denial.is_none());
            let took_ms = millis(asked.elapsed());
            self.events.tell(What::VoteReceived { phase, voter, last, denial, took_ms });
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
        metadata: Arc::default(),
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
    let described = membership.descriptions().keys().filter_map(|id| Some((*id, membership.metadata(*id)?.clone())));
    status.metadata = Arc::new(described.collect());
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
