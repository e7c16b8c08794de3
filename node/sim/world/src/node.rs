//! One node of a world: a replica and the pieces beside it, wired up as a runtime wires them.
//!
//! Each piece is an actor with a queue of its own; its messages arrive in order per actor, and in
//! any order between actors. Replication is decided by [`Replication`], which the product runs too.
//! The messages are in [`events`](super::events).

use super::{disk::Disk, oracle::witness, queues::Queues, rules::Rules};
use quorate_raft::{
    Ballot, BallotOutcome, Batch, Body, Effect, Entries, Index, Lookup, Message, Moment, NodeId, Outgoing, Phase,
    Repair, Replica, Replication, ReplicationOutput, Role, Snapshot, SnapshotChunk, SnapshotOutcome, SnapshotReply,
    Term,
};
use rand::{Rng, rngs::SmallRng};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use super::events::{Actor, Ask, Note, Tell};

/// The surroundings of a node during one step, and the place for its messages.
pub struct Context<'a> {
    /// The time, by its own clock.
    pub now: Moment,
    /// The disk of the node.
    pub disk: &'a mut Disk,
    /// The messages that leave, in order.
    pub sent: Vec<Outgoing>,
    /// News to the outside, in order.
    pub notes: Vec<Note>,
    /// Whether a rule was called, or may have been: then the replica may have changed.
    pub ruled: bool,
    /// A violation by an actor.
    pub broken: Result<(), String>,
    pub(super) effects: Vec<Effect>,
    pub(super) outputs: Vec<ReplicationOutput>,
    pub(super) timeouts: Option<&'a mut SmallRng>,
}

impl Context<'_> {
    /// The deadline of an election timer that is armed now: random, or after the shortest timeout
    /// in worlds without chance.
    fn deadline(&mut self, rules: &Rules) -> Moment {
        let (min, max) = (rules.settings.election_timeout_min, rules.settings.election_timeout_max);
        let timeout = self.timeouts.as_mut().map_or(min, |random| {
            Duration::from_nanos(random.random_range(min.as_nanos() as u64..=max.as_nanos() as u64))
        });
        self.now.plus(timeout)
    }
}

/// The volatile state of a node.
#[derive(Clone, Hash, Debug)]
pub struct Running {
    /// The rules and their state.
    pub replica: Replica,
    /// The ballot of its campaign.
    pub ballot: Option<Ballot>,
    /// The replicators of its leadership.
    pub replicators: BTreeMap<NodeId, Replication>,
    /// The peers that have a replicator, or will once it handles [`Ask::Start`].
    peers: Vec<NodeId>,
    /// Peers that wait for a snapshot: the term of that leadership, and the last entry that
    /// the snapshot must cover.
    needs: BTreeMap<NodeId, (Term, Index)>,
    /// The last entry that the state machine applied.
    pub applied: Index,
    /// The state machine's state: the checksum of that entry, which chains to all before it.
    pub state: u32,
    /// The snapshot that is arriving, and the bytes of it that have arrived.
    pub receiving: Option<(Snapshot, u64)>,
    /// Whether a snapshot of its own state is being kept.
    pub saving: bool,
    /// The deadline of the election timer, by this node's clock.
    pub deadline: Moment,
    /// The term in which it was armed.
    pub armed_in: Term,
    /// Messages that actors have yet to handle.
    pub asked: Queues<Ask>,
    /// Messages that `Consensus` has yet to handle.
    pub told: Queues<Tell>,
    /// Settings that never change.
    pub rules: Arc<Rules>,
}

impl Running {
    /// A node that has just started.
    pub fn new(replica: Replica, rules: Arc<Rules>, context: &mut Context<'_>) -> Self {
        let (applied, armed_in) = (replica.applied_index(), replica.term());
        let state = context.disk.snapshot.as_ref().map_or(0, |snapshot| snapshot.last_checksum);
        let (receiving, saving) = (None, false);
        let deadline = context.deadline(&rules);
        let (asked, told) = (Queues::default(), Queues::default());
        Self {
            replica,
            ballot: None,
            replicators: BTreeMap::new(),
            peers: Vec::new(),
            needs: BTreeMap::new(),
            applied,
            state,
            receiving,
            saving,
            deadline,
            armed_in,
            asked,
            told,
            rules,
        }
    }

    /// Calls one rule and performs its effects.
    pub fn rule(&mut self, context: &mut Context<'_>, rule: impl FnOnce(&mut Replica, &mut Vec<Effect>)) {
        context.ruled = true;
        let mut effects = std::mem::take(&mut context.effects);
        rule(&mut self.replica, &mut effects);
        for effect in effects.drain(..) {
            self.perform(context, effect);
        }
        context.effects = effects;
    }

    fn perform(&mut self, context: &mut Context<'_>, effect: Effect) {
        match effect {
            Effect::Send(outgoing) => context.sent.push(outgoing),
            Effect::ArmTimer | Effect::LeaderHeard => {
                self.armed_in = self.replica.term();
                self.deadline = context.deadline(&self.rules);
            }
            Effect::Persist(persist) => self.ask(Actor::Disk, Ask::Persist(persist)),
            Effect::Load { from, to } => self.ask(Actor::Disk, Ask::Load { from, to }),
            Effect::OpenBallot(ballot) => self.ask(Actor::Collector, Ask::Open(ballot)),
            Effect::CountVote { campaign, voter, denial } => {
                self.ask(Actor::Collector, Ask::Count { campaign, voter, granted: denial.is_none() });
            }
            Effect::CloseBallot => self.ask(Actor::Collector, Ask::Close),
            Effect::StartReplicators { term, log_last } => self.replicate_to(self.replica.peers(), term, log_last),
            Effect::StopReplicators => {
                self.ask_replicators(&Ask::Stop);
                self.peers.clear();
            }
            Effect::MembersChanged if self.leads() => {
                let (term, log_last) = (self.replica.term(), self.replica.log().last().index);
                self.replicate_to(self.replica.peers(), term, log_last);
            }
            Effect::MembersChanged => {}
            Effect::LeadershipTransferEnded { to } => context.notes.push(Note::LeadershipTransferEnded { to }),
            Effect::Removed { at } => context.notes.push(Note::Removed { at }),
            Effect::Replicate { previous, batch } => {
                let witness = self.replica.witness();
                for peer in self.peers.iter().filter(|peer| witness != Some(**peer)) {
                    self.asked.push(Actor::Replicator(*peer), Ask::Replicate { previous, batch: batch.clone() });
                }
            }
            Effect::ReplicateTo { peer, to } => self.ask(Actor::Replicator(peer), Ask::ReplicateTo(to)),
            Effect::Committed(index) => self.ask_replicators(&Ask::Committed(index)),
            Effect::HeartbeatNow { round } => self.ask_replicators(&Ask::Round(round)),
            Effect::Acknowledged { peer, epoch, matched } => {
                self.ask(Actor::Replicator(peer), Ask::Acknowledged { epoch, matched });
            }
            Effect::Rejected { peer, epoch, previous, next, last } => {
                self.ask(Actor::Replicator(peer), Ask::Rejected { epoch, previous, next, last });
            }
            Effect::Apply(batch) => self.ask(Actor::Applier, Ask::Apply(batch)),
            Effect::ReadsReady { index, tokens } => context.notes.push(Note::ReadsReady { index, tokens }),
            Effect::ReadsFailed { tokens } => context.notes.push(Note::ReadsFailed { tokens }),
            Effect::MachineUnknown { .. } => context.notes.push(Note::MachineUnknown),
            Effect::Refused { reason, .. } => context.notes.push(Note::Refused(reason)),
            Effect::Restore(base) => self.ask(Actor::Applier, Ask::Restore(base)),
            Effect::SnapshotChunk { from, chunk } => self.receive(context, from, chunk),
            Effect::SnapshotAnswered { peer, reply } => self.ask(Actor::Replicator(peer), Ask::Answered(reply)),
            Effect::NeedsSnapshot { peer, epoch, from } => {
                self.ask(Actor::Replicator(peer), Ask::Needs { epoch, from });
            }
            Effect::ServeRepair { to, repair } => {
                match self.replica.log().lookup(repair.from.index, repair.to, usize::MAX) {
                    Lookup::Cached(batch) => self.serve(context, to, repair, vec![batch]),
                    _ => self.ask(Actor::Disk, Ask::Serve { to, repair }),
                }
            }
            Effect::Remember { members } => context.disk.remember(&members),
            Effect::DataLost { member, last, held, .. } => context.notes.push(Note::DataLost { member, last, held }),
            Effect::Diverged { at, with } => context.notes.push(Note::Diverged { at, with }),
            // For observers; nothing follows from it.
            Effect::Observed(observation) => {
                if self.rules.observed {
                    context.notes.push(Note::Observed(observation));
                }
            }
            Effect::Halt(violation) => context.notes.push(Note::Halt(violation)),
        }
    }

    /// `actor` handles the next thing that it was asked; false if there is none.
    pub fn act(&mut self, context: &mut Context<'_>, actor: Actor) -> bool {
        let Some(ask) = self.asked.pop(actor) else { return false };
        match actor {
            Actor::Collector => self.collect(ask),
            Actor::Disk => self.store(context, ask),
            Actor::Keeper => self.keep(context, ask),
            Actor::Applier => self.apply(context, ask),
            Actor::Replicator(peer) => self.replicate(context, peer, ask),
        }
        true
    }

    /// `Consensus` hears the next thing that `actor` told it; false if there is none.
    pub fn listen(&mut self, context: &mut Context<'_>, actor: Actor) -> bool {
        let Some(tell) = self.told.pop(actor) else { return false };
        let (now, leads) = (context.now, self.replica.is_leader().then(|| self.replica.term()));
        match tell {
            Tell::Decided { term, campaign, won: true } => {
                self.rule(context, |replica, out| replica.election_won(now, term, campaign, out));
            }
            Tell::Decided { term, campaign, won: false } => {
                self.rule(context, |replica, out| replica.election_lost(term, campaign, out));
            }
            Tell::Persisted { sequence, then } => {
                context.sent.extend(then);
                self.rule(context, |replica, out| replica.persisted(now, sequence, out));
            }
            Tell::Loaded(batches) => self.rule(context, |replica, out| replica.loaded(batches, out)),
            Tell::Applied(index) => {
                self.rule(context, |replica, out| replica.applied(index, out));
                self.serve_needs(context);
            }
            Tell::Served { to, repair, batches } => self.serve(context, to, repair, batches),
            Tell::Saved(base) => {
                self.saving = false;
                let keep = self.rules.keep_entries;
                self.rule(context, |replica, out| replica.snapshot_saved(now, &base, keep, out));
                self.serve_needs(context);
            }
            Tell::Installed { from, epoch, base } => {
                self.rule(context, |replica, out| replica.snapshot_received(now, from, epoch, &base, out));
            }
            Tell::WantSnapshot { term, at_least } if leads == Some(term) && !self.rules.serves_needs => {
                context.notes.push(Note::SnapshotWanted { peer: actor.peer(), term, at_least });
            }
            Tell::WantSnapshot { term, at_least } if leads == Some(term) => {
                self.needs.insert(actor.peer(), (term, at_least));
                self.serve_needs(context);
            }
            Tell::GivenUp { term } if leads == Some(term) => {
                context.ruled = true;
                self.replica.pin(actor.peer(), None);
            }
            // A message from a replicator of an earlier leadership is ignored.
            Tell::Matched { term, index } if leads == Some(term) => {
                let peer = actor.peer();
                self.rule(context, |replica, out| replica.matched(now, peer, index, out));
            }
            Tell::Fetch { term, want } if leads == Some(term) => {
                let peer = actor.peer();
                match self.replica.entries(peer, want.from, want.bytes_max) {
                    Entries::Here { previous, checksum, batch } => {
                        self.ask(actor, Ask::Found { previous, checksum, batch });
                    }
                    Entries::OnDisk { previous, to } => self.ask(Actor::Disk, Ask::Read { peer, term, previous, to }),
                    Entries::Compacted => self.ask(actor, Ask::Gone),
                }
            }
            Tell::Read { peer, term, previous, batches } if leads == Some(term) => {
                // One append carries one batch; the replicator asks for what follows it.
                let found = batches.into_iter().next().map_or(Ask::Overtaken, |batch| Ask::Found {
                    previous,
                    checksum: Some(batch.previous_checksum()),
                    batch: Some(batch),
                });
                self.ask(Actor::Replicator(peer), found);
            }
            Tell::Matched { .. } | Tell::Fetch { .. } | Tell::Read { .. } => {}
            Tell::WantSnapshot { .. } | Tell::GivenUp { .. } => {}
        }
        true
    }

    /// The peer, if it has a replicator, answered a heartbeat of the present term.
    pub(super) fn heard(&mut self, peer: NodeId) {
        if self.peers.contains(&peer) && !self.rules.explores {
            self.ask(Actor::Replicator(peer), Ask::Heard);
        }
    }

    /// Offers the newest snapshot to the replicators that it helps, and takes another one if that
    /// helps the rest.
    fn serve_needs(&mut self, context: &mut Context<'_>) {
        if self.needs.is_empty() {
            return;
        }
        let leads = self.replica.is_leader().then(|| self.replica.term());
        self.needs.retain(|_, (term, _)| leads == Some(*term));
        let base = self.replica.log().base().index;
        let newest = context.disk.snapshot.as_ref();
        let reaches = |index: Index| newest.is_some_and(|newest| newest.last.index >= index.max(base));
        let helped: Vec<_> = self.needs.extract_if(.., |_, (_, at_least)| reaches(*at_least)).collect();
        helped.into_iter().for_each(|(peer, _)| self.offer_snapshot(context, peer));
        if self.needs.values().any(|(_, at_least)| *at_least <= self.applied) {
            self.take_snapshot();
        }
    }

    /// Offers the newest snapshot to the replicator of a peer.
    pub(super) fn offer_snapshot(&mut self, context: &mut Context<'_>, peer: NodeId) {
        let Some(base) = context.disk.snapshot.clone() else { return };
        context.ruled = true;
        self.replica.pin(peer, Some(base.last.index));
        let (bytes, checksum) = (self.rules.snapshot_bytes, base.last_checksum);
        self.asked.push(Actor::Replicator(peer), Ask::Offer(Snapshot { base, bytes, checksum }));
    }

    /// An actor is to do something.
    pub fn ask(&mut self, actor: Actor, ask: Ask) {
        self.asked.push(actor, ask);
    }

    /// The replicators of all peers are to do something.
    pub fn ask_replicators(&mut self, ask: &Ask) {
        for peer in &self.peers {
            self.asked.push(Actor::Replicator(*peer), ask.clone());
        }
    }

    /// Starts and stops replicators, so that each of these peers and no other has one.
    fn replicate_to(&mut self, peers: Vec<NodeId>, term: Term, log_last: Index) {
        for gone in self.peers.iter().filter(|peer| !peers.contains(peer)) {
            self.asked.push(Actor::Replicator(*gone), Ask::Stop);
        }
        for new in peers.iter().filter(|peer| !self.peers.contains(peer)) {
            let outlines = self.replica.witness() == Some(*new);
            let log_last = if outlines { self.replica.goes_to(*new) } else { log_last };
            let (epoch, commit, round) = (self.replica.first_epoch(), self.replica.commit(), self.replica.read_round());
            let start = Ask::Start { term, epoch, log_last, commit, round, outlines };
            self.asked.push(Actor::Replicator(*new), start);
        }
        self.peers = peers;
    }

    /// An actor has something to say to `Consensus`.
    pub fn tell(&mut self, actor: Actor, tell: Tell) {
        self.told.push(actor, tell);
    }

    /// Whether all queues are empty.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.asked.waiting() | self.told.waiting() == 0
    }

    /// The number of writes that are not durable yet.
    #[must_use]
    pub fn unpersisted(&self) -> usize {
        self.asked.of(Actor::Disk).len()
    }

    /// A snapshot of what is applied is to be kept, unless one is being kept.
    pub fn take_snapshot(&mut self) {
        let index = self.applied;
        if self.saving || index <= self.replica.snapshot_index() || index > self.replica.dispatched() {
            return;
        }
        let Some(last) = self.replica.log().id_of(index) else { return };
        let base = self.replica.base_at(last, self.state);
        if base.membership.is_empty() {
            return; // it was added by a later entry, and does not know the configuration as of this one
        }
        self.saving = true;
        self.ask(Actor::Keeper, Ask::Save(base));
    }

    fn serve(&mut self, context: &mut Context<'_>, to: NodeId, repair: Repair, batches: Vec<Batch>) {
        let body = self.replica.repair_reply(repair, batches);
        context.sent.push(Outgoing { to, message: Message { term: self.replica.term(), body } });
    }

    fn receive(&mut self, context: &mut Context<'_>, from: NodeId, chunk: SnapshotChunk) {
        let SnapshotChunk { epoch, snapshot, offset, bytes } = chunk;
        let snapshot = *snapshot;
        let is_it =
            |ask: &Ask| matches!(ask, Ask::Install { base, epoch: of, .. } if (base, *of) == (&snapshot.base, epoch));
        if self.asked.of(Actor::Keeper).any(is_it) {
            return; // it is whole, and waits for the disk: chunks that come again meanwhile say nothing new
        }
        let before = self.receiving.take().filter(|(receiving, _)| *receiving == snapshot).map_or(0, |(_, have)| have);
        let have = if offset == before { before + bytes.len() as u64 } else { before };
        let last = snapshot.base.last;
        if have == snapshot.bytes {
            // The leader asks, or sends the end again, until it is installed: keeping it once more
            // changes nothing.
            self.ask(Actor::Keeper, Ask::Install { from, epoch, base: snapshot.base });
            return;
        }
        self.receiving = Some((snapshot, have));
        let reply = SnapshotReply { epoch, last, outcome: SnapshotOutcome::Received { bytes: have } };
        let message = Message { term: self.replica.term(), body: Body::SnapshotReply(reply) };
        context.sent.push(Outgoing { to: from, message });
    }

    fn keep(&mut self, context: &mut Context<'_>, ask: Ask) {
        let tell = match ask {
            Ask::Save(base) => {
                context.disk.save(&base);
                Tell::Saved(base)
            }
            Ask::Install { from, epoch, base } => {
                context.disk.save(&base);
                Tell::Installed { from, epoch, base }
            }
            other => unreachable!("{other:?} for who keeps snapshots"),
        };
        self.tell(Actor::Keeper, tell);
    }

    fn apply(&mut self, context: &mut Context<'_>, ask: Ask) {
        match ask {
            Ask::Apply(batch) => {
                // A snapshot that was restored may be newer than the one that it was restored for.
                let Some(batch) = batch.from(self.applied.next()) else { return };
                assert_eq!(batch.first(), self.applied.next(), "entries are applied in order, each once");
                assert_eq!(batch.previous_checksum(), self.state, "the state is not the one before these entries");
                (self.applied, self.state) = (batch.last(), batch.checksum());
                context.notes.push(Note::Applied(batch));
            }
            Ask::Restore(base) => {
                let newest = context.disk.snapshot.clone().expect("there is one to restore");
                assert!(newest.last.index >= base.last.index, "{newest:?} is not {base:?}");
                assert!(self.applied <= newest.last.index, "the state goes back");
                (self.applied, self.state) = (newest.last.index, newest.last_checksum);
                context.notes.push(Note::Restored(newest));
            }
            other => unreachable!("{other:?} for the applier"),
        }
        self.tell(Actor::Applier, Tell::Applied(self.applied));
    }

    /// Whether it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(self.replica.role(), Role::Leader(_))
    }

    fn collect(&mut self, ask: Ask) {
        match ask {
            Ask::Open(ballot) => self.ballot = Some(ballot),
            Ask::Close => self.ballot = None,
            Ask::Count { campaign, voter, granted } => {
                let Some(ballot) = self.ballot.as_mut().filter(|ballot| ballot.campaign == campaign) else { return };
                let (outcome, term) = (ballot.count(voter, granted), ballot.term);
                if outcome != BallotOutcome::Open {
                    self.ballot = None;
                    self.tell(Actor::Collector, Tell::Decided { term, campaign, won: outcome == BallotOutcome::Won });
                }
            }
            other => unreachable!("{other:?} for the collector"),
        }
    }

    fn store(&mut self, context: &mut Context<'_>, ask: Ask) {
        let tell = match ask {
            Ask::Persist(persist) => {
                let writes = witness::writes(self.replica.id(), &persist, self.rules.witness);
                context.broken = std::mem::replace(&mut context.broken, Ok(())).and(writes);
                context.disk.persist(&persist);
                Tell::Persisted { sequence: persist.sequence, then: persist.then }
            }
            Ask::Read { peer, term, previous, to } => {
                Tell::Read { peer, term, previous, batches: context.disk.read(previous.index.next(), to) }
            }
            Ask::Load { from, to } => Tell::Loaded(context.disk.read(from, to)),
            Ask::Serve { to, repair } => {
                Tell::Served { to, repair, batches: context.disk.read(repair.from.index, repair.to) }
            }
            other => unreachable!("{other:?} for the disk"),
        };
        self.tell(Actor::Disk, tell);
    }
}

/// Whether a message is part of a pre-vote.
#[must_use]
pub fn is_pre_vote(message: &Message) -> bool {
    match &message.body {
        Body::RequestVote(request) => request.phase == Phase::PreVote,
        Body::Vote(vote) => vote.phase == Phase::PreVote,
        _ => false,
    }
}
