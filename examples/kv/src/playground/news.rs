//! The events of simulated nodes: the facts that the actors of a real node state, found by a look at
//! the node after each step. The sentences are those of [`quorate::events`].

use quorate::{
    EntryId, Index, Membership, NodeId, ReportedEvent, Term,
    events::{CampaignResult, Event, Phase, StepDown, What},
};
use quorate_raft::{AppendOutcome, Body, Moment, Observation, Replica, Role};
use quorate_world::{
    disk::Disk,
    node::{Note, Running},
    nodes::Node,
    world::Envelope,
};
use std::{collections::BTreeMap, time::Duration};

/// An event of a node.
pub(super) type News = ReportedEvent;

/// The kind of the sentences that the playground adds.
pub(super) const KIND: &str = "playground";

/// The votes of a campaign.
#[derive(Clone, Debug)]
pub(super) struct OpenBallot {
    campaign: u64,
    pub(super) phase: Phase,
    for_term: Term,
    /// The last entry of the candidate's log, as the requests name it.
    last: EntryId,
    asked: Duration,
    pub(super) granted: Vec<NodeId>,
    pub(super) denied: Vec<NodeId>,
    is_decided: bool,
}

/// The facts of one node that were told, so that only changes are.
#[derive(Clone, Default, Debug)]
pub(super) struct Observer {
    told: u64,
    term: Term,
    pub(super) ballot: Option<OpenBallot>,
    electors: Vec<NodeId>,
    leader: Option<(NodeId, Term)>,
    led: Option<Term>,
    /// The first entry of its leadership, until it is committed, and the time of the election.
    first_commit: Option<(Index, Duration)>,
    members: Option<(Index, bool)>,
    configuration: Membership,
    /// When it last heard a leader, or started.
    heard: Duration,
    deadline: Moment,
    /// The time for which its election timer was armed.
    pub(super) timeout: Duration,
    log: BTreeMap<Index, Term>,
    snapshot: Index,
}

impl Observer {
    /// The node starts with this disk.
    pub(super) fn starts(&mut self, id: NodeId, disk: &Disk, now: Duration) -> News {
        *self = Self { told: self.told, heard: now, term: disk.hard_state.term, ..Self::default() };
        self.snapshot = disk.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.last.index);
        self.event(id, now, What::Recovered { last: disk.last() })
    }

    /// A sentence of the playground about a node.
    pub(super) fn says(&mut self, id: NodeId, now: Duration, text: String) -> News {
        let mut news = self.event(id, now, What::ShuttingDown);
        let told = &mut news.told;
        (told.text, told.kind, told.why, told.reference) = (text, KIND.to_owned(), None, None);
        news
    }

    /// The link from a node to another is cut.
    pub(super) fn link_down(&mut self, id: NodeId, peer: NodeId, now: Duration) -> News {
        self.event(id, now, What::LinkDown { peer })
    }

    /// The election timer was armed with this deadline.
    pub(super) fn armed(&mut self, deadline: Moment, now: Duration) {
        if deadline != self.deadline {
            (self.deadline, self.timeout) = (deadline, deadline.0.saturating_sub(now));
        }
    }

    /// The node has acted, perhaps on a message that arrived: what happened, in order.
    pub(super) fn look(&mut self, node: &Node, arrived: Option<&Envelope>, notes: &[Note], now: Duration) -> Vec<News> {
        let id = node.id;
        let mut found = Vec::new();
        self.heard_votes(arrived, now, &mut found);
        let after = node.running.as_ref();
        for note in notes {
            self.noted(note, &mut found);
        }
        let Some(running) = after else {
            (self.ballot, self.led, self.leader) = (None, None, None);
            return found.into_iter().map(|what| self.event(id, now, what)).collect();
        };
        let replica = &running.replica;
        if self.term != replica.term() && !found.iter().any(|what| matches!(what, What::TermChanged { .. })) {
            // It began the term by itself: the end of its pre-vote is of the term before.
            self.close_other(running, &mut found);
            let told: Vec<_> = found.drain(..).map(|what| self.event(id, now, what)).collect();
            self.term = replica.term();
            let rest = self.changed(node, running, arrived, now);
            return told.into_iter().chain(rest.into_iter().map(|what| self.event(id, now, what))).collect();
        }
        self.term = replica.term();
        self.close_other(running, &mut found);
        found.extend(self.changed(node, running, arrived, now));
        found.into_iter().map(|what| self.event(id, now, what)).collect()
    }

    /// A voter answered this node's campaign.
    fn heard_votes(&mut self, arrived: Option<&Envelope>, now: Duration, found: &mut Vec<What>) {
        let Some(envelope) = arrived else { return };
        let Body::Vote(vote) = &envelope.message.body else { return };
        let Some(ballot) = &mut self.ballot else { return };
        if ballot.campaign == vote.campaign && ballot.phase == vote.phase && !ballot.is_decided {
            count(ballot, envelope.from, vote.granted());
            found.push(What::VoteReceived {
                phase: vote.phase,
                voter: envelope.from,
                last: ballot.last,
                denial: vote.denial,
                took_ms: millis(now.saturating_sub(ballot.asked)),
            });
        }
    }

    fn noted(&mut self, note: &Note, found: &mut Vec<What>) {
        match note {
            Note::Observed(Observation::VoteAnswered { candidate, phase, term, last, denial }) => {
                found.push(What::VoteCast {
                    phase: *phase,
                    candidate: *candidate,
                    for_term: *term,
                    last: *last,
                    denial: *denial,
                    more: 0,
                });
            }
            Note::Observed(Observation::TermAdopted { from, before, shown }) => {
                found.push(What::TermChanged { before: *before, from: *from, shown: *shown });
            }
            Note::Observed(Observation::SteppedDown { led: true, term, cause }) => {
                (self.first_commit, self.led) = (None, None);
                found.push(What::SteppedDown { led: *term, cause: *cause });
            }
            Note::Observed(Observation::SteppedDown { led: false, cause, .. }) => {
                let result = match cause {
                    StepDown::Denied => CampaignResult::Lost,
                    StepDown::TimedOut => CampaignResult::TimedOut,
                    cause => CampaignResult::Superseded(*cause),
                };
                self.close(result, found);
            }
            Note::Observed(Observation::TransferBegan { to }) => {
                found.push(What::TransferBegan { to: *to, why: None });
            }
            Note::Removed { at } => found.push(What::Removed { at: *at }),
            Note::Restored(base) => found.push(What::SnapshotInstalled { last: base.last }),
            _ => {}
        }
    }

    /// The round of votes that this node ran is over, if it runs another one or none.
    fn close_other(&mut self, running: &Running, found: &mut Vec<What>) {
        let open = running.ballot.as_ref().map(|ballot| ballot.campaign);
        if self.ballot.as_ref().is_some_and(|ballot| Some(ballot.campaign) != open) {
            self.close(CampaignResult::Won, found);
        }
    }

    fn close(&mut self, result: CampaignResult, found: &mut Vec<What>) {
        let Some(ballot) = self.ballot.take().filter(|ballot| !ballot.is_decided) else { return };
        let OpenBallot { phase, for_term, granted, denied, .. } = ballot;
        if (phase, result) == (Phase::Vote, CampaignResult::Won) {
            self.electors.clone_from(&granted);
        }
        found.push(What::CampaignEnded { phase, for_term, result, granted, denied });
    }

    /// The changes of the node's state.
    fn changed(&mut self, node: &Node, running: &Running, arrived: Option<&Envelope>, now: Duration) -> Vec<What> {
        let (replica, id) = (&running.replica, node.id);
        let mut found = Vec::new();
        self.opened(node, running, now, &mut found);
        if let Role::Leader(leadership) = replica.role()
            && self.led.replace(replica.term()) != Some(replica.term())
        {
            self.first_commit = Some((leadership.first, now));
            found.push(What::LeaderElected { votes: std::mem::take(&mut self.electors) });
        }
        let leader = replica.leader().map(|leader| (leader, replica.term()));
        if let Some((leader, _)) = leader.filter(|leader| self.leader != Some(*leader) && leader.0 != id) {
            found.push(What::LeaderFollowed { leader });
        }
        self.leader = leader;
        if let Some((index, elected)) = self.first_commit.take_if(|(first, _)| *first <= replica.commit()) {
            found.push(What::FirstCommit { index, after_ms: millis(now.saturating_sub(elected)) });
        }
        self.rejected(running, arrived, &mut found);
        self.log_changed(replica, &mut found);
        self.members_changed(replica, &mut found);
        if replica.snapshot_index() > self.snapshot {
            self.snapshot = replica.snapshot_index();
            // One that was received is told of when the state machine has it.
            if !matches!(arrived, Some(Envelope { message, .. }) if matches!(message.body, Body::SnapshotChunk(_)))
                && let Some(base) = node.disk.snapshot.as_ref().filter(|base| base.last.index <= running.applied)
            {
                found.push(What::SnapshotBuilt { last: base.last, bytes: running.rules.snapshot_bytes, took_ms: 160 });
            }
        }
        let hears_leader = matches!(arrived, Some(envelope) if Some(envelope.from) == replica.leader());
        if hears_leader || replica.is_leader() {
            self.heard = now;
        }
        self.armed(running.deadline, now);
        found
    }

    fn opened(&mut self, node: &Node, running: &Running, now: Duration, found: &mut Vec<What>) {
        let Some(ballot) = &running.ballot else { return };
        let (phase, last) = (ballot.phase, running.replica.log().last());
        if self.ballot.as_ref().is_none_or(|known| known.campaign != ballot.campaign) {
            // A pre-vote is about the next term.
            let for_term = if phase == Phase::PreVote { ballot.term.next() } else { ballot.term };
            let silence_ms = (phase == Phase::PreVote).then(|| millis(now.saturating_sub(self.heard)));
            found.push(What::CampaignStarted { phase, for_term, last, silence_ms });
            let (granted, denied) = (Vec::new(), Vec::new());
            let campaign = ballot.campaign;
            let asked = now;
            self.ballot =
                Some(OpenBallot { campaign, phase, for_term, last, asked, granted, denied, is_decided: false });
        }
        let hard_state = node.disk.hard_state;
        let is_durable = (hard_state.term, hard_state.vote) == (ballot.term, Some(node.id));
        if let Some(known) = self.ballot.as_mut().filter(|known| known.phase == Phase::PreVote || is_durable) {
            count(known, node.id, true);
        }
    }

    /// A follower rejected an append of this leader.
    fn rejected(&self, running: &Running, arrived: Option<&Envelope>, found: &mut Vec<What>) {
        let Some(Envelope { from, message, .. }) = arrived else { return };
        let Body::AppendReply(reply) = &message.body else { return };
        if let AppendOutcome::Rejected { previous, .. } = reply.outcome
            && message.term == running.replica.term()
            && let Some(replication) = running.replicators.get(from)
            // A rejection that counts makes the leader go back.
            && replication.progress().next() <= previous
        {
            found.push(What::AppendRejected { peer: *from, previous, next: replication.progress().next() });
        }
    }

    fn log_changed(&mut self, replica: &Replica, found: &mut Vec<What>) {
        let log = terms(replica);
        let base = replica.log().base().index;
        let gone = self.log.iter().find(|(index, term)| **index > base && log.get(index) != Some(term));
        if let (Some((from, _)), Some((to, _))) = (gone, self.log.last_key_value()) {
            found.push(What::EntriesRemoved { from: *from, to: *to, conflict: true });
        }
        self.log = log;
    }

    fn members_changed(&mut self, replica: &Replica, found: &mut Vec<What>) {
        let (at, membership) = (replica.membership_index(), replica.membership());
        let now = (at, at <= replica.commit());
        let before = self.members.replace(now);
        // That of the start is no news.
        if before == Some(now) || (before.is_none() && at == Index(0)) {
            self.configuration = membership.clone();
            return;
        }
        self.configuration = membership.clone();
        found.push(What::MembersChanged {
            at,
            voters: membership.incoming().to_vec(),
            outgoing: membership.outgoing().to_vec(),
            learners: membership.learners().to_vec(),
            witness: None,
            committed: now.1,
            only_described: false,
        });
    }

    fn event(&mut self, node: NodeId, now: Duration, what: What) -> News {
        self.told += 1;
        let at_ms = millis(now);
        ReportedEvent::of(&Event { id: self.told, node, term: self.term, at_ms, wall_ms: at_ms, what })
    }
}

/// The first answer of each voter counts.
fn count(ballot: &mut OpenBallot, voter: NodeId, granted: bool) {
    if !ballot.granted.contains(&voter) && !ballot.denied.contains(&voter) {
        if granted { ballot.granted.push(voter) } else { ballot.denied.push(voter) }
    }
}

/// The terms of the entries in a replica's log.
pub(super) fn terms(replica: &Replica) -> BTreeMap<Index, Term> {
    let log = replica.log();
    let indexes = (log.first().0..=log.last().index.0).map(Index);
    indexes.filter_map(|index| Some((index, log.term_of(index)?))).collect()
}

/// The terms of the entries on a disk.
pub(super) fn terms_on(disk: &Disk) -> BTreeMap<Index, Term> {
    disk.entries().map(|EntryId { term, index }| (index, term)).collect()
}

/// A time in whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
